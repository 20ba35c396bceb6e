"""Pulls that go on by themselves, rule by rule; quick, with pulls that do what the test says."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from greentic.ground.errors import NotFound
from greentic.materialize.under_way import Packs, Pull, StillComing, UnderWay
from waiting import until

HERE: Packs = ()


def begun(under_way: UnderWay, width: int = 4, **pulls: Pull) -> dict[str, Future[Packs]]:
    return under_way.begin(pulls, width, lambda: "guarded")


def test_what_ends_while_it_is_waited_for_is_had_or_fails() -> None:
    def fails() -> Packs:
        raise NotFound("away")

    under_way = UnderWay()
    found = begun(under_way, good=lambda: HERE, bad=fails)
    assert under_way.ended("good", found["good"]) is HERE
    with pytest.raises(NotFound, match="away"):
        under_way.ended("bad", found["bad"])
    assert under_way.guard == "guarded"


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_left_runs_once_is_told_and_is_given_to_who_asks_again(fails: bool) -> None:
    arrives, came, runs = threading.Event(), threading.Event(), list[int]()

    def pull() -> Packs:
        runs.append(1)
        assert arrives.wait(60)
        if fails:
            raise NotFound("away")
        return HERE

    under_way = UnderWay()
    under_way.wanted, under_way.came = lambda: False, came.set
    for _ in range(3):
        found = begun(under_way, one=pull)
        with pytest.raises(StillComing, match="still on its way"):
            under_way.ended("one", found["one"])
        under_way.wanted = lambda: pytest.fail("what is left is not waited for again")
    assert not came.is_set()
    arrives.set()
    assert came.wait(60)
    found = begun(under_way, one=pull)
    if fails:
        with pytest.raises(NotFound, match="away"):
            under_way.ended("one", found["one"])
    else:
        assert under_way.ended("one", found["one"]) is HERE
    assert len(runs) == 1
    again = begun(under_way, one=lambda: HERE)  # it is forgotten, with its failure
    assert under_way.ended("one", again["one"]) is HERE


def test_what_was_left_and_nobody_wants_any_more_is_forgotten_once_it_has_ended() -> None:
    arrives = threading.Event()
    under_way = UnderWay()
    under_way.wanted = lambda: False

    def pull() -> Packs:
        assert arrives.wait(60)
        return HERE

    one = begun(under_way, one=pull)["one"]
    with pytest.raises(StillComing):
        under_way.ended("one", one)
    begun(under_way)
    assert under_way._left == {"one": one}
    arrives.set()
    until(one.done)
    begun(under_way)
    assert under_way._left == {}


def test_so_many_run_at_once_and_who_gives_up_keeps_the_rest_from_beginning() -> None:
    first, goes_on, ran = threading.Event(), threading.Event(), list[str]()

    def pull() -> Packs:
        ran.append("first")
        first.set()
        assert goes_on.wait(60)
        return HERE

    def other() -> Packs:
        ran.append("other")
        return HERE

    under_way = UnderWay()
    found = begun(under_way, width=1, one=pull, two=other, three=other)
    assert first.wait(60) and ran == ["first"]
    assert found["two"].cancel()
    goes_on.set()
    assert under_way.ended("one", found["one"]) is HERE and under_way.ended("three", found["three"]) is HERE
    assert ran == ["first", "other"]


def test_a_process_ends_beside_what_is_under_way() -> None:
    """A worker that was stopped while it pulled lived on for as long as the download took."""
    program = (
        "import threading; from greentic.materialize.under_way import UnderWay\n"
        "u = UnderWay(); u.wanted = lambda: False\n"
        "f = u.begin({'one': lambda: threading.Event().wait()}, 1, str)\n"
        "try: u.ended('one', f['one'])\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "still on its way" in done.stdout
