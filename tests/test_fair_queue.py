"""Whose turn it is on a loop: a slice where one lane is alone, one bit each where several are, and nobody behind others' lines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

import pytest

from greentic.ground.fair_queue import AT_ONCE, INSIDE, SHARED_SECONDS, SLICE_SECONDS, FairQueue
from simulators import FakeClock


class Site:
    """A queue on a loop whose clock goes on when somebody works."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.queue = FairQueue(asyncio.get_running_loop(), self.clock)
        self.told: list[str] = []

    def work(self, lane: str, seconds: float = 0.0) -> bool:
        self.told.append(lane)
        self.clock.sleep(seconds)
        return True

    def come(self, lane: str, seconds: float = 0.0) -> None:
        self.queue.run(lane, partial(self.work, lane, seconds))

    def share(self) -> None:
        """Two lanes were seen."""
        self.come("one")
        self.come("another")
        self.told.clear()

    async def call(self, lane: str) -> None:
        """A short call, as of a component."""
        if not self.queue.begin(lane):
            await self.queue.mine(lane)
        self.told.append(lane)


def on_loop(test: Callable[[Site], Coroutine[object, object, None]]) -> None:
    async def run() -> None:
        await test(Site())

    asyncio.run(run())


async def turns(number: int = 1) -> None:
    """So many turns of the loop, in which what waits in two steps has one of its own."""
    for _ in range(2 * number):
        await asyncio.sleep(0)


def test_a_lane_that_is_alone_has_a_slice_of_each_turn() -> None:
    async def test(site: Site) -> None:
        for _ in range(20):
            site.come("alone", SLICE_SECONDS / 4)
        assert len(site.told) == 4
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(site.told) in (8, 12)
        await turns(10)
        assert len(site.told) == 20

    on_loop(test)


def test_a_lane_that_is_alone_and_works_little_never_waits() -> None:
    async def test(site: Site) -> None:
        for number in range(1, 1001):
            site.come("alone")
            assert len(site.told) == number

    on_loop(test)


def test_lanes_that_share_have_one_bit_each_in_a_turn() -> None:
    async def test(site: Site) -> None:
        site.share()
        await turns()
        for _ in range(8):
            site.come("flood", SLICE_SECONDS / 100)
        assert site.told == ["flood"]
        await turns()
        assert site.told == ["flood"] * 2

    on_loop(test)


def test_who_comes_in_another_lane_goes_before_everybody_who_waits() -> None:
    async def test(site: Site) -> None:
        site.share()
        for _ in range(64):
            site.come("flood", SLICE_SECONDS / 100)
        for expected in range(1, 5):
            site.come("other", SLICE_SECONDS / 100)
            assert site.told[-1] == "other" and site.told.count("flood") <= expected
            await turns()
        await turns(64)
        assert site.told.count("flood") == 64

    on_loop(test)


def test_the_lines_are_served_in_turn_and_each_in_its_order() -> None:
    async def test(site: Site) -> None:
        site.share()
        await turns()
        for number in range(3):
            for lane in "abc":
                site.queue.later(lane, partial(site.work, f"{lane}{number}"))
        await turns(4)
        assert site.told == [f"{lane}{number}" for number in range(3) for lane in "abc"]

    on_loop(test)


def test_no_turn_of_the_loop_is_longer_than_a_slice_however_many_lanes_wait() -> None:
    async def test(site: Site) -> None:
        site.share()
        await turns()
        for lane in range(40):
            site.queue.later(f"{lane}", partial(site.work, f"{lane}", SLICE_SECONDS / 2))
        before = len(site.told)
        for _ in range(30):
            await turns()
            assert len(site.told) - before <= 2
            before = len(site.told)
        assert len(site.told) == len(set(site.told)) == 40

    on_loop(test)


def test_lanes_count_as_sharing_for_a_while_and_then_as_alone() -> None:
    async def test(site: Site) -> None:
        site.share()
        await turns()
        site.come("left")
        site.come("left")
        assert site.told == ["left"]
        await turns(3)
        site.clock.sleep(SHARED_SECONDS + 1)
        site.told.clear()
        for _ in range(10):
            site.come("left")
        assert len(site.told) == 10

    on_loop(test)


def test_a_bit_lets_on_a_few_more_of_its_own_and_then_the_loop() -> None:
    async def test(site: Site) -> None:
        site.share()
        await turns()
        begun: list[bool] = []

        def bit() -> bool:
            begun.extend(site.queue.begin("lane") for _ in range(INSIDE + 2))
            return True

        site.queue.run("lane", bit)
        assert begun == [True] * INSIDE + [False] * 2
        assert not site.queue.begin("lane") and site.queue.begin("other")

    on_loop(test)


def test_calls_of_a_lane_that_shares_go_on_one_a_turn_and_nobody_is_forgotten() -> None:
    async def test(site: Site) -> None:
        site.share()
        await turns()
        tasks = [asyncio.create_task(site.call("flood")) for _ in range(20)]
        await asyncio.sleep(0)
        assert site.told == ["flood"]
        await site.call("other")
        assert site.told.index("other") <= 2
        await asyncio.gather(*tasks)
        assert site.told.count("flood") == 20

    on_loop(test)


def test_after_a_long_piece_everybody_waits_for_the_next_turn_and_goes_one_by_one() -> None:
    async def test(site: Site) -> None:
        order, queue = site.told, site.queue

        async def long(lane: str) -> None:
            if not queue.begin(lane):
                await queue.mine(lane)
            queue.took_long()
            order.append(lane)
            await queue.mine(lane)
            order.append(lane)

        async def beat() -> None:
            while True:
                order.append("|")
                await asyncio.sleep(0)

        beating = asyncio.create_task(beat())
        await asyncio.gather(*(long(lane) for lane in "abc"))
        beating.cancel()
        pieces = [turn for turn in "".join(order).split("|") if turn]
        assert sorted(pieces) == ["a", "a", "b", "b", "c", "c"]

    on_loop(test)


def test_a_long_piece_inside_of_a_bit_ends_what_it_may_let_on() -> None:
    async def test(site: Site) -> None:
        begun: list[bool] = []

        def bit() -> bool:
            begun.append(site.queue.begin("lane"))
            site.queue.took_long()
            begun.append(site.queue.begin("lane"))
            return True

        site.queue.run("lane", bit)
        assert begun == [True, False]
        site.come("other")
        assert site.told == []  # it came in the turn of the long piece
        await turns(2)
        assert site.told == ["other"]

    on_loop(test)


@pytest.mark.parametrize("gone", range(5))
def test_who_leaves_while_it_waits_takes_no_turn(gone: int) -> None:
    async def test(site: Site) -> None:
        site.share()
        await turns()
        tasks = [asyncio.create_task(site.call("lane")) for _ in range(6)]
        await asyncio.sleep(0)
        tasks[1 + gone].cancel()
        await asyncio.wait(tasks)
        assert site.told == ["lane"] * 5
        while not site.queue.begin("lane"):
            await asyncio.sleep(0)

    on_loop(test)


def test_a_bit_that_had_nothing_to_do_takes_no_turn() -> None:
    async def test(site: Site) -> None:
        site.share()
        await turns()
        site.queue.later("lane", lambda: False)
        site.come("lane")
        await turns()
        assert site.told == ["lane"]

    on_loop(test)


def test_who_fails_in_its_turn_takes_nobody_elses() -> None:
    async def test(site: Site) -> None:
        failed: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
        site.queue.later("lane", lambda: bool(1 / 0))
        site.queue.later("lane", partial(site.work, "next"))
        await turns(3)
        assert len(failed) == 1 and site.told == ["next"]

    on_loop(test)


def test_one_turn_of_the_loop_lets_on_a_bounded_number() -> None:
    async def test(site: Site) -> None:
        for _ in range(3 * AT_ONCE):
            site.queue.later("alone", partial(site.work, "alone"))
        await asyncio.sleep(0)
        assert len(site.told) == AT_ONCE

    on_loop(test)
