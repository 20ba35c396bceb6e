"""The rules of the fetch, one by one: quick, against a distributor that lies and a clock that only moves when it is slept on."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.distribute import fetch as fetching
from greentic.distribute import parallel
from greentic.distribute.fetch import Fetched, FetchLimits, fetch_into
from greentic.distribute.journal import Journal, Progress
from greentic.distribute.ranges import Ranges
from greentic.distribute.source import Source
from greentic.ground.errors import (
    DigestMismatch,
    FetchError,
    InvalidArgument,
    PartRefused,
    ServerBusy,
    TooLarge,
    Truncated,
)
from greentic.net.terms import Terms
from simulators import Answer, CountingRandom, FakeClock, SimulatedBody, SimulatedDistributor
from test_bundle_sources import sha256

BLOCK = 64
DATA = random.Random(11).randbytes(1000)
NAME = hashlib.sha256(b"r").hexdigest()
"""What a journal calls the address `r`."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle of a thousand bytes has many blocks, and each is put down in the journal."""
    monkeypatch.setattr(fetching, "_BLOCK", BLOCK)
    monkeypatch.setattr(fetching, "_JOURNAL_EVERY", BLOCK)
    monkeypatch.setattr(fetching, "_JOURNAL_SECONDS", 0.0)
    monkeypatch.setattr(fetching, "_SYNC_EVERY", 4 * BLOCK)


class Download:
    """A download into a file of its own; every body that was opened is closed when it ends."""

    def __init__(self, directory: Path, *answers: Answer, source: SimulatedDistributor | None = None) -> None:
        self.source = source or SimulatedDistributor(*answers)
        self.clock = FakeClock()
        self.path = directory / "f"
        self.path.touch()
        self.journal = Journal(directory / "j", self.path)

    def keeps(self, *spans: tuple[int, int], total: int | None = 1000, validator: str | None = '"v"', name: str = NAME,
              data: bytes = DATA) -> Download:  # fmt: skip
        """Leave there what a killed download would have left."""
        self.path.write_bytes(data)
        self.journal.save(Progress(Ranges(spans), total, validator, name))
        return self

    def run(
        self,
        *,
        wanted: str | None = None,
        limits: FetchLimits = FetchLimits(),  # noqa: B008  an immutable value
        progress: fetching.Told | None = None,
        journal: bool = True,
    ) -> Fetched:
        try:
            with self.path.open("r+b") as file:
                return fetch_into(
                    file,
                    "r",
                    source=self.source,
                    wanted=wanted,
                    limits=limits,
                    progress=progress,
                    terms=Terms(clock=self.clock, random=CountingRandom()),
                    journal=self.journal if journal else None,
                )
        finally:
            assert all(body.closed for body in self.source.bodies)

    def came(self, found: Fetched, data: bytes = DATA, *, moved: int | None = None, resumed: int = 0) -> None:
        """Assert that the bundle came, and what was moved for it."""
        assert self.path.read_bytes() == data
        assert found == Fetched(sha256(data), len(data), len(data) if moved is None else moved, resumed)


# -- 1: memory does not grow with the bundle ------------------------------------------------------------------------


def test_no_more_than_a_few_blocks_are_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes the first block only when as many are received as may be under way."""
    received, written, most = 0, 0, 0
    enough, real = threading.Event(), fetching._write

    def receiving() -> None:
        nonlocal received, most
        received += 1
        most = max(most, received - written)
        if received == fetching._BLOCKS:
            enough.set()

    def write(fd: int, data: memoryview, offset: int) -> None:
        nonlocal written
        enough.wait()
        real(fd, data, offset)
        written += 1

    monkeypatch.setattr(fetching, "_write", write)
    download = Download(tmp_path, Answer(DATA, stall=receiving))
    download.came(download.run())
    assert most == fetching._BLOCKS


@pytest.mark.parametrize("failing", ["hashed", "written"])
def test_a_block_is_free_only_when_it_is_hashed_and_written(failing: str) -> None:
    futures: dict[str, Future[None]] = {"hashed": Future(), "written": Future()}
    for name, future in futures.items():
        if name == failing:
            future.set_exception(OSError("it was not"))
        else:
            future.set_result(None)
    block = memoryview(bytearray(1))
    with pytest.raises(OSError, match="it was not"):
        fetching._Download._settle((block, futures["hashed"], futures["written"], 0))
    done: Future[None] = Future()
    done.set_result(None)
    for hashed in (done, None):
        assert fetching._Download._settle((block, hashed, done, 0)) is block


# -- 2: what is returned is on stable storage, and the digest is over exactly the bytes in the file -----------------


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 7 * BLOCK, 1000])
@pytest.mark.parametrize("told", [True, False])
def test_the_file_is_whole_when_it_is_put_on_stable_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, told: bool
) -> None:
    synced: list[bytes] = []
    download = Download(tmp_path, Answer(DATA[:size], length=size if told else None))
    monkeypatch.setattr(fetching, "sync_file", lambda fd: synced.append(download.path.read_bytes()))
    download.came(download.run(), DATA[:size])
    assert synced == [DATA[:size]] and download.source.opened == 1


def test_the_disk_is_kept_busy_while_the_network_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(fetching, "sync_data", lambda fd: sizes.append(os.fstat(fd).st_size))
    download = Download(tmp_path, Answer(DATA))
    download.came(download.run())
    assert sizes == [256, 512, 768]


def test_a_disk_that_takes_less_than_it_is_given_gets_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(fetching.os, "pwrite", lambda fd, data, at: real(fd, data[:7], at))
    for size in (BLOCK, 1000):
        (tmp_path / str(size)).mkdir()
        download = Download(tmp_path / str(size), Answer(DATA[:size]))
        download.came(download.run(), DATA[:size])


@pytest.mark.parametrize("size", [BLOCK, 1000])
def test_a_disk_that_takes_nothing_ends_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    def full(fd: int, data: memoryview, at: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetching.os, "pwrite", full)
    download = Download(tmp_path, Answer(DATA[:size]))
    with pytest.raises(OSError, match="No space left"):
        download.run()
    assert download.source.opened == 1


# -- 3: what was received is kept, and only the rest is asked for ---------------------------------------------------


@pytest.mark.parametrize("cut", [1, BLOCK, 300, 999])
@pytest.mark.parametrize("validator", ['"v"', None])
def test_after_a_cut_only_the_rest_is_asked_for(tmp_path: Path, cut: int, validator: str | None) -> None:
    whole = Answer(DATA, parts=True, validator=validator)
    download = Download(tmp_path, Answer(DATA, parts=True, validator=validator, cut_at=cut), whole)
    download.came(download.run())
    assert download.source.asked == [(0, None, None), (cut, validator, None)]


@pytest.mark.parametrize("cut", [1, BLOCK - 1])
def test_what_came_of_a_small_bundle_that_was_cut_is_kept_as_well(tmp_path: Path, cut: int) -> None:
    small, told = DATA[:BLOCK], list[tuple[int, int | None]]()
    download = Download(tmp_path, Answer(small, parts=True, cut_at=cut), Answer(small, parts=True))
    download.came(download.run(progress=lambda *seen: told.append(seen)), small)
    assert [start for start, _, _ in download.source.asked] == [0, cut] and told[-1] == (BLOCK, BLOCK)


def test_a_killed_download_goes_on_in_each_gap(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA, parts=True, validator='"v"')).keeps((0, 300), (500, 700))
    download.came(download.run(), moved=500, resumed=500)
    assert download.source.asked == [(300, '"v"', None), (700, '"v"', None)]


def test_what_begins_later_is_asked_for_from_the_beginning(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA, parts=True)).keeps((500, 1000))
    download.came(download.run(), moved=500, resumed=500)
    assert download.source.asked == [(0, None, None)]


def test_the_validator_of_one_address_is_not_told_to_another(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA, parts=True, validator='"w"')).keeps((0, 300), name="another")
    download.came(download.run(), moved=700, resumed=300)
    assert download.source.asked == [(300, None, None)]


def test_what_is_there_whole_is_asked_for_no_more(tmp_path: Path) -> None:
    download = Download(tmp_path).keeps((0, 1000))
    download.came(download.run(wanted=sha256(DATA)), moved=0, resumed=1000)
    assert not download.source.asked


NEW = random.Random(12).randbytes(900)


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        (Answer(NEW, parts=True, validator='"v"'), 2),
        (Answer(NEW, parts=True, validator='"w"', total=1000), 2),
        (Answer(NEW, validator='"v"'), 1),
    ],
    ids=["of another size", "of another validator", "no part"],
)
def test_a_part_that_is_none_or_of_another_file_starts_over(tmp_path: Path, answer: Answer, asked: int) -> None:
    answers = [answer, Answer(NEW, parts=True, validator=answer.validator)][:asked]
    download = Download(tmp_path, *answers).keeps((0, 300), (950, 1000))
    download.came(download.run(), NEW)
    assert download.source.asked == [(300, '"v"', None), (0, None, None)][:asked]


@pytest.mark.parametrize(("kept", "told"), [('"v"', None), (None, '"w"'), (None, None)])
def test_who_tells_no_validator_is_believed_to_go_on(tmp_path: Path, kept: str | None, told: str | None) -> None:
    download = Download(tmp_path, Answer(DATA, parts=True, validator=told)).keeps((0, 300), validator=kept)
    download.came(download.run(), moved=700, resumed=300)
    assert download.source.opened == 1


def test_what_nobody_wrote_down_is_nobodys(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA))
    download.path.write_bytes(bytes(2000))
    download.came(download.run())
    download.path.write_bytes(bytes(2000))
    download.came(download.run(journal=False))


def test_the_journal_lists_what_is_written_and_goes_on_with_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block comes to the disk only when three more were asked for; what is written down is always there before."""
    asked = [threading.Event() for _ in range(20)]
    written, listed, real = list[int](), list[Ranges](), fetching._write

    def receiving() -> None:
        count = sum(event.is_set() for event in asked)
        for event in asked if count >= 14 else asked[count : count + 1]:
            event.set()

    def write(fd: int, data: memoryview, offset: int) -> None:
        asked[min(offset // BLOCK + 3, 19)].wait()
        real(fd, data, offset)
        written.append(offset + len(data))

    def save(progress: Progress) -> None:
        listed.append(progress.done)
        assert (progress.total, progress.validator, progress.reference) == (1000, '"v"', NAME)
        ((start, end),) = progress.done.spans
        assert start == 0 and end <= max(written)

    monkeypatch.setattr(fetching, "_write", write)
    download = Download(tmp_path, Answer(DATA, validator='"v"', stall=receiving))
    monkeypatch.setattr(download.journal, "save", save)
    download.came(download.run())
    ends = [ranges.covered for ranges in listed]
    assert ends and ends == sorted(ends) and ends[-1] >= 500


def test_a_journal_is_written_no_more_often_than_it_is_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_JOURNAL_SECONDS", 3.0)
    saved: list[int] = []
    download = Download(tmp_path, Answer(DATA))
    download.source.answers[0].stall = lambda: download.clock.sleep(1)
    monkeypatch.setattr(download.journal, "save", lambda progress: saved.append(progress.done.covered))
    download.came(download.run())
    assert 3 <= len(saved) <= 5  # of sixteen blocks, one a second


def test_what_is_kept_is_written_down_when_a_download_is_given_up(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA, validator='"v"', parts=True, cut_at=300), Answer(refuse="403"))
    with pytest.raises(FetchError, match="403"):
        download.run()
    assert download.journal.load() == Progress(Ranges(((0, 300),)), 1000, '"v"', NAME)
    nothing = Download(tmp_path, Answer(refuse="403"))
    nothing.journal.clear()
    with pytest.raises(FetchError, match="403"):
        nothing.run()
    assert not (tmp_path / "j").exists()


# -- 4: what may pass is tried again while there is progress or attempts are left -----------------------------------


def test_attempts_are_counted_without_progress(tmp_path: Path) -> None:
    download = Download(
        tmp_path, *(Answer(DATA, parts=True, cut_at=cut) for cut in range(40, 1000, 40)), Answer(DATA, parts=True)
    )
    download.came(download.run(limits=FetchLimits(tries=2)))
    assert download.source.opened == 25


@pytest.mark.parametrize("tries", [1, 2, 4])
def test_attempts_end(tmp_path: Path, tries: int) -> None:
    download = Download(tmp_path, Answer(refuse="down", passing=True))
    with pytest.raises(FetchError, match="down"):
        download.run(limits=FetchLimits(tries=tries))
    assert download.source.opened == tries


def test_the_same_again_is_no_progress(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA, parts=True, cut_at=100))
    with pytest.raises(Truncated):
        download.run(limits=FetchLimits(tries=3))
    # Once with progress, twice without; then the whole, which brings no more.
    assert [start for start, _, _ in download.source.asked] == [0, 100, 100, 0]


def test_a_busy_server_is_left_alone_for_as_long_as_it_asked(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(busy=7.0), Answer(DATA))
    began = download.clock.monotonic()
    download.came(download.run(limits=FetchLimits(jitter=False)))
    assert 7.0 <= download.clock.monotonic() - began < 7.5


class Raising(SimulatedDistributor):
    """Raises an error for everything, or for parts alone."""

    def __init__(self, error: Callable[[], Exception], *answers: Answer, parts_alone: bool = False) -> None:
        super().__init__(*answers)
        self.error, self.parts_alone = error, parts_alone

    def open(
        self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None
    ) -> SimulatedBody:
        if offset or not self.parts_alone:
            self.asked.append((offset, validator, end))
            raise self.error()
        return super().open(reference, offset, validator, end)


@pytest.mark.parametrize("error", [lambda: InvalidArgument("odd"), lambda: TooLarge("odd"), lambda: OSError(5, "odd")])
def test_what_no_other_answer_would_change_ends_a_download_at_once(
    tmp_path: Path, error: Callable[[], Exception]
) -> None:
    download = Download(tmp_path, source=Raising(error)).keeps((0, 300))
    with pytest.raises(Exception, match="odd"):
        download.run()
    assert len(download.source.asked) == 1 and download.path.read_bytes() == DATA


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("limit", [BLOCK - 1, 999])
def test_threat_bomb_a_bundle_above_the_limit_is_not_tried_again(tmp_path: Path, limit: int, told: bool) -> None:
    reads: list[int] = []
    data = DATA[: limit + 1]
    download = Download(tmp_path, Answer(data, length=len(data) if told else None, stall=lambda: reads.append(1)))
    with pytest.raises(TooLarge, match=f"has {limit + 1} bytes or more, the limit is {limit}"):
        download.run(limits=FetchLimits(bundle_bytes=limit))
    assert download.source.opened == 1 and bool(reads) is not told


def test_threat_lying_server_more_than_was_announced_is_not_kept_in_memory(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA, length=BLOCK))
    with pytest.raises(TooLarge):
        download.run(wanted=sha256(DATA))
    assert download.source.opened == 1


# -- 5: a large bundle that comes slowly is fetched over several connections ----------------------------------------


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "SEGMENT", 128)
    monkeypatch.setattr(parallel, "ENOUGH", 512)
    monkeypatch.setattr(parallel, "_FRONT", 2 * BLOCK)


class Slow(SimulatedDistributor):
    """The first connection drips; it goes on only when the others have got what they took."""

    def __init__(self, answer: Answer, clock: FakeClock) -> None:
        super().__init__(answer)
        self.clock = clock
        answer.stall = self.stall

    def stall(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.clock.sleep(1)
            for thread in threading.enumerate():
                if thread.daemon and thread.name.endswith("(_work)"):
                    thread.join()


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("parts", [True, False])
def test_others_help_with_a_slow_bundle_if_there_are_parts(tmp_path: Path, parts: bool) -> None:
    download = Download(tmp_path)
    download.source = Slow(Answer(DATA, parts=parts, validator='"v"'), download.clock)
    told: list[tuple[int, int | None]] = []
    download.came(download.run(progress=lambda *seen: told.append(seen)))
    ranges = [(start, end) for start, _, end in download.source.asked if end is not None]
    assert bool(ranges) is parts and len({end for _, end in ranges}) == len(ranges)
    assert all(
        end - start == 128 and validator == '"v"' for start, validator, end in download.source.asked if end is not None
    )
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {1000} and max(done for done, _ in told) == 1000


@pytest.mark.usefixtures("small_segments")
def test_what_several_connections_brought_may_be_a_mixture(tmp_path: Path) -> None:
    """Each of them is an answer of its own, so one answer with everything is asked for before the bytes are given up."""
    download = Download(tmp_path)
    download.source = Slow(Answer(NEW + DATA[900:], parts=True), download.clock)

    def right() -> None:
        download.source.answers[0].data = DATA

    open_ = download.source.open
    opened: list[int] = []

    def opening(reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> SimulatedBody:
        if not offset:
            opened.append(1)
            if len(opened) == 2:
                right()
        return open_(reference, offset, validator, end)

    download.source.open = opening  # type: ignore[method-assign]
    found = download.run(wanted=sha256(DATA))
    assert len(opened) == 2 and (found.digest, found.size) == (sha256(DATA), 1000)
    assert download.path.read_bytes() == DATA


# -- 6: there is always a way back ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "asked"),
    [(lambda: PartRefused("416"), 1), (lambda: FetchError("403"), 1), (lambda: ServerBusy("503"), 3)],
)
def test_threat_no_way_back_the_whole_is_asked_for_once_before_a_part_is_given_up(
    tmp_path: Path, error: Callable[[], FetchError], asked: int
) -> None:
    download = Download(tmp_path, source=Raising(error, Answer(DATA), parts_alone=True)).keeps((0, 300))
    download.came(download.run(limits=FetchLimits(tries=3)))
    assert download.source.asked == [(300, '"v"', None)] * asked + [(0, None, None)]


@pytest.mark.parametrize("passing", [True, False])
def test_threat_no_way_back_what_is_kept_stays_until_the_whole_begins_to_come(tmp_path: Path, passing: bool) -> None:
    download = Download(tmp_path, Answer(refuse="down", passing=passing)).keeps((0, 300))
    with pytest.raises(FetchError, match="down"):
        download.run(limits=FetchLimits(tries=2))
    assert [start for start, _, _ in download.source.asked] == ([300, 300, 0] if passing else [300, 0])
    assert download.path.read_bytes() == DATA
    assert download.journal.load() == Progress(Ranges(((0, 300),)), 1000, '"v"', NAME)


def test_the_whole_that_is_asked_for_in_the_end_is_read_to_its_end(tmp_path: Path) -> None:
    """Also where what is kept would have left a gap in the middle only."""
    source = Raising(lambda: FetchError("403"), Answer(NEW, parts=True), parts_alone=True)
    download = Download(tmp_path, source=source).keeps((0, 300), (500, 1000))
    download.came(download.run(), NEW)
    assert [start for start, _, _ in download.source.asked] == [300, 0]


@pytest.mark.parametrize("told", ["wanted", "by the source"])
@pytest.mark.parametrize("kept", [True, False])
def test_threat_no_way_back_wrong_bytes_are_dropped_and_asked_for_again_only_after_a_mixture(
    tmp_path: Path, told: str, kept: bool
) -> None:
    digest = sha256(DATA) if told == "by the source" else None
    download = Download(tmp_path, *[Answer(bytes(1000), parts=True, digest=digest)] * 2)
    if kept:
        download.keeps((0, 300), validator=None)
    with pytest.raises(DigestMismatch if told == "wanted" else FetchError) as error:
        download.run(wanted=sha256(DATA) if told == "wanted" else None)
    assert sha256(DATA) in str(error.value) and sha256(bytes(1000)) in str(error.value)
    assert not isinstance(error.value, DigestMismatch) or error.value.actual == sha256(bytes(1000))
    assert [start for start, _, _ in download.source.asked] == ([300, 0] if kept else [0])
    assert download.path.stat().st_size == 0 and not (tmp_path / "j").exists()


def test_wrong_bytes_without_a_journal_are_dropped_as_well(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(bytes(1000)))
    with pytest.raises(DigestMismatch):
        download.run(wanted=sha256(DATA), journal=False)
    assert download.path.stat().st_size == 0


def test_a_mixture_of_two_answers_is_mended_by_one(tmp_path: Path) -> None:
    first = Answer(NEW + DATA[900:], parts=True, cut_at=300)
    download = Download(tmp_path, first, Answer(DATA, parts=True))
    found = download.run(wanted=sha256(DATA))
    assert [start for start, _, _ in download.source.asked] == [0, 300, 0]
    download.came(found, moved=2000)


@pytest.mark.parametrize(("untold", "served"), [(True, True), (False, False)])
def test_a_cut_that_looks_like_an_end_is_asked_again_once(tmp_path: Path, untold: bool, served: bool) -> None:
    cut = Answer(DATA[:300], length=None, untold_end=untold)
    download = Download(tmp_path, cut, Answer(DATA))
    if served:
        download.came(download.run(wanted=sha256(DATA)), moved=1300)
    else:
        with pytest.raises(DigestMismatch):
            download.run(wanted=sha256(DATA))
    assert [start for start, _, _ in download.source.asked] == [0] * (1 + served)


def test_what_comes_packed_although_nobody_asked_is_told_as_that(tmp_path: Path) -> None:
    """A digest of something else sends people looking for another bundle; where the field alone is wrong, the bytes count."""
    packed = Answer(DATA[:300], coding="it sends it as `Content-Encoding: gzip`")
    with pytest.raises(DigestMismatch, match="Content-Encoding: gzip") as told:
        Download(tmp_path, packed).run(wanted=sha256(DATA))
    assert told.value.why == packed.coding and told.value.actual == sha256(DATA[:300])
    with pytest.raises(FetchError, match="Content-Encoding: gzip"):
        Download(tmp_path, packed).run()
    assert Download(tmp_path, packed).run(wanted=sha256(DATA[:300])).size == 300


def test_what_is_wrong_twice_and_tells_no_end_is_wrong(tmp_path: Path) -> None:
    download = Download(tmp_path, *[Answer(DATA[:300], length=None, untold_end=True)] * 3)
    with pytest.raises(DigestMismatch):
        download.run(wanted=sha256(DATA))
    assert [start for start, _, _ in download.source.asked] == [0, 0]


def test_the_pinned_digest_counts_before_the_one_that_the_source_tells(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA, digest=sha256(b"another")))
    download.came(download.run(wanted=sha256(DATA)))


@pytest.mark.parametrize(
    ("kept", "blocks", "fits"), [(0, 250, True), (0, 249, False), (600, 100, True), (600, 99, False)]
)
def test_room_is_asked_for_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, blocks: int, fits: bool
) -> None:
    status, reads = type("Status", (), {"f_blocks": 99, "f_bavail": blocks, "f_frsize": 4})(), list[int]()
    monkeypatch.setattr(fetching.os, "fstatvfs", lambda fd: status)
    download = Download(tmp_path, Answer(DATA, parts=True, stall=lambda: reads.append(1)))
    if kept:
        download.keeps((0, kept), validator=None)
    if fits:
        download.came(download.run(), moved=1000 - kept, resumed=kept)
        return
    with pytest.raises(OSError, match="No space left for a bundle of 1000 bytes"):
        download.run()
    assert not reads and download.source.opened == 1


# -- 7: one deadline ends it all ------------------------------------------------------------------------------------


def test_threat_slow_peer_a_drip_ends_at_the_deadline_and_nothing_is_asked_after_it(tmp_path: Path) -> None:
    for size in (BLOCK, 1000):
        (tmp_path / str(size)).mkdir()
        download = Download(tmp_path / str(size), Answer(DATA[:size], chunk=1, parts=True))
        download.source.answers[0].stall = lambda download=download: download.clock.sleep(1)  # type: ignore[misc]
        with pytest.raises(FetchError, match="not done after 5 s"):
            download.run(limits=FetchLimits(total_seconds=5))
        assert download.source.opened == 1


def test_nothing_is_asked_after_the_deadline_whatever_is_kept(tmp_path: Path) -> None:
    download = Download(tmp_path)

    def late() -> FetchError:
        download.clock.sleep(9)
        return FetchError("403")

    download.source = Raising(late)
    download.keeps((0, 300))
    with pytest.raises(FetchError, match="403"):
        download.run(limits=FetchLimits(total_seconds=5))
    assert len(download.source.asked) == 1


def test_what_is_kept_and_wrong_is_not_asked_for_after_the_deadline(tmp_path: Path) -> None:
    download = Download(tmp_path, Answer(DATA)).keeps((0, 1000), data=bytes(1000))
    with pytest.raises(DigestMismatch):
        download.run(wanted=sha256(DATA), limits=FetchLimits(total_seconds=1e-9))
    assert not download.source.asked


# -- what is told, and on what terms it is asked --------------------------------------------------------------------


@pytest.mark.parametrize(("spans", "seen"), [((), range(64, 1000, 64)), (((0, 500),), range(564, 1000, 64))])
def test_progress_counts_every_byte_once(tmp_path: Path, spans: tuple[tuple[int, int], ...], seen: range) -> None:
    download = Download(tmp_path, Answer(DATA, parts=True))
    if spans:
        download.keeps(*spans, validator=None)
    told: list[tuple[int, int | None]] = []
    download.run(progress=lambda *seen: told.append(seen))
    assert told == [(done, 1000) for done in (*seen, 1000)]


def test_of_a_bundle_of_no_announced_size_what_came_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    download = Download(tmp_path, Answer(DATA[:100], length=None))
    download.came(download.run(progress=lambda *seen: told.append(seen)), DATA[:100])
    assert told == [(64, None), (100, None)]


def test_one_patience_holds_for_all_that_is_asked_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Terms, bool]] = []

    def source_for(reference: str, terms: Terms, *, mirror: bool = False) -> tuple[Source, str]:
        seen.append((reference, terms, mirror))
        return SimulatedDistributor(Answer(DATA)), "x"

    monkeypatch.setattr(fetching, "source_for", source_for)
    monkeypatch.setenv("GREENTIC_FETCH_IDLE_SECONDS", "7")
    limits, clock = FetchLimits(total_seconds=5, tries=9, jitter=False), FakeClock()
    with (tmp_path / "f").open("w+b") as file:
        fetch_into(file, "r", limits=limits, clock=clock)
        fetch_into(file, "r", limits=limits, terms=Terms(idle=3, clock=clock), mirror=True)
        fetch_into(file, "r")
    for reference, terms, _ in seen[:2]:
        assert (reference, terms.tries, terms.total, terms.backoff.jitter) == ("r", 1, 5, False)
        assert terms.ends is not None and terms.clock is clock
    assert [(terms.idle, mirror) for _, terms, mirror in seen] == [(7, False), (3, True), (7, False)]
    assert seen[2][1].total == fetching.TOTAL_SECONDS and seen[2][1].backoff.jitter is True


SPANS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 120)), max_size=4)
CUTS = st.lists(st.integers(0, 400), max_size=4)


@given(SPANS, CUTS, st.booleans())
def test_whatever_is_kept_and_wherever_it_is_cut_the_bundle_comes_or_it_is_said_why(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], cuts: list[int], parts: bool
) -> None:
    data, kept = DATA[:500], Ranges()
    for start, length in spans:
        kept = kept.add(start, min(start + length, 500))
    directory = tmp_path_factory.mktemp("kept")
    download = Download(directory, *(Answer(data, parts=parts, cut_at=cut) for cut in cuts), Answer(data, parts=parts))
    if kept.spans:
        download.keeps(*kept.spans, total=500, validator=None, data=data)
    found = download.run(wanted=sha256(data), limits=FetchLimits(tries=20))
    assert download.path.read_bytes() == data and (found.digest, found.size) == (sha256(data), 500)
    assert found.moved + found.resumed >= 500 and (
        not parts or found.moved + kept.covered == 500 or kept.covered == 500
    )
