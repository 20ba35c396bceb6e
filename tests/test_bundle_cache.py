"""The rules of the cache of bundles, one by one: quick, with downloads that write what the test says."""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from greentic.distribute import bundle_cache
from greentic.distribute.bundle_cache import (
    DEFAULT_MAX_BYTES,
    PARTIAL_DAYS,
    BundleCache,
    CachedBundle,
    cache_directory,
    max_bytes,
    open_cache,
)
from greentic.distribute.fetch import Fetched
from greentic.distribute.journal import Journal, Progress
from greentic.distribute.ranges import Ranges
from greentic.ground import optional
from greentic.ground.disk import LOCK_SECONDS, try_exclusive
from greentic.ground.errors import DigestMismatch, InvalidArgument
from greentic.ground.least_used import Item
from simulators import FakeClock
from test_bundle_sources import sha256

DATA = b"a bundle"
DIGEST = sha256(DATA)
NAME = DIGEST.removeprefix("sha256:")
OTHER = sha256(b"another")


@pytest.fixture
def cache(tmp_path: Path) -> BundleCache:
    return BundleCache(tmp_path / "c")


def gives(data: bytes, *, failing: int = 0, error: OSError | None = None) -> Scripted:
    return Scripted(data, failing, error or OSError(errno.ENOSPC, "full"))


class Scripted:
    """A download that fails so many times, then writes its bytes. What was in the file when it was called is kept."""

    def __init__(self, data: bytes, failing: int, error: OSError) -> None:
        self.data, self.failing, self.error, self.found = data, failing, error, list[bytes]()

    def __call__(self, file: BinaryIO, journal: Journal) -> Fetched:
        self.found.append(file.read())
        if len(self.found) <= self.failing:
            raise self.error
        file.seek(0)
        file.truncate(0)
        file.write(self.data)
        return Fetched(sha256(self.data), len(self.data), len(self.data), 0)


def never(file: BinaryIO, journal: Journal) -> Fetched:
    raise AssertionError("it was downloaded")


def aged(path: Path, seconds: float) -> None:
    """Make a file look as if it was last changed so long ago."""
    then = bundle_cache.unix_seconds() - seconds
    os.utime(path, (then, then))


def partial(cache: BundleCache, digest: str, data: bytes, *, journal: bool = True, age: float = 0.0) -> Path:
    """A download that is not done."""
    path = cache.directory / "partial" / digest.removeprefix("sha256:")
    path.write_bytes(data)
    if journal:
        progress = Progress(Ranges().add(0, len(data)), None, None, "r")
        Journal(path.with_name(f"{path.name}.json"), path).save(progress)
    aged(path, age)
    return path


def kept(cache: BundleCache, data: bytes) -> str:
    cache.add(sha256(data), io.BytesIO(data))
    return sha256(data)


@pytest.fixture(autouse=True)
def nothing_was_verified(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bundle_cache, "_verified", set())
    yield
    optional.forget()


# -- 1: a path is a digest, read-only; an entry comes by rename, whole and on stable storage ------------------------


def test_a_bundle_lies_where_its_digest_says_and_what_is_no_digest_nowhere(cache: BundleCache) -> None:
    assert cache.path(DIGEST) == cache.directory / "sha256" / NAME[:2] / NAME[2:]
    for wrong in ("", NAME, DIGEST[:-1], DIGEST.upper(), "sha256:../../etc", f"{DIGEST}/x"):
        with pytest.raises(InvalidArgument, match="64 lower-case hex digits"):
            cache.path(wrong)
        with pytest.raises(InvalidArgument):
            cache.obtain(wrong, never)


def test_an_entry_comes_whole_by_rename_and_its_names_last(cache: BundleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def place(source: Path, target: Path) -> None:
        assert not target.exists() and sha256(source.read_bytes()) == f"sha256:{target.parent.name}{target.name}"
        assert source.stat().st_mode & 0o777 == 0o400
        steps.append(f"{source.relative_to(cache.directory)} -> {target.relative_to(cache.directory)}")
        source.rename(target)

    monkeypatch.setattr(bundle_cache, "place", place)
    monkeypatch.setattr(
        bundle_cache, "sync_directory", lambda path: steps.append(str(path.relative_to(cache.directory)))
    )
    cache.obtain(DIGEST, gives(DATA)).file.close()
    # `place` syncs the directory of the entry; that this directory has a name is one more sync.
    assert steps == [f"partial/{NAME} -> sha256/{NAME[:2]}/{NAME[2:]}", "sha256"]
    beside = next(data for data in (b"%d" % n for n in range(10_000)) if sha256(data).startswith(DIGEST[:9]))
    cache.obtain(sha256(beside), gives(beside)).file.close()  # a second one in the same directory
    assert len(list((cache.directory / "sha256" / NAME[:2]).iterdir())) == 2


def test_what_is_obtained_is_open_and_says_what_was_moved_for_it(cache: BundleCache) -> None:
    new = cache.obtain(DIGEST, gives(DATA))
    there = cache.obtain(DIGEST, never)
    for found, fetched in ((new, Fetched(DIGEST, 8, 8, 0)), (there, None)):
        assert found == CachedBundle(found.file, cache.path(DIGEST), DIGEST, len(DATA), fetched)
        assert found.file.read() == DATA
        found.file.close()


# -- 2: an entry is hashed again when a process first uses it -------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"a bundl", b"a bundlf", b"a bundle "])
def test_an_entry_that_is_not_what_its_name_says_is_deleted_and_fetched(cache: BundleCache, damage: bytes) -> None:
    kept(cache, DATA)
    path = cache.path(DIGEST)
    path.chmod(0o600)
    path.write_bytes(damage)
    aged(path, 1)
    assert cache.find(DIGEST) is None and not path.exists()
    again = cache.obtain(DIGEST, gives(DATA))
    assert again.fetched is not None and again.file.read() == DATA
    again.file.close()


def test_an_entry_that_the_disk_cannot_read_is_none(cache: BundleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(file: BinaryIO) -> tuple[str, int]:
        raise OSError(errno.EIO, "damaged")

    kept(cache, DATA)
    bundle_cache._verified.clear()
    monkeypatch.setattr(bundle_cache, "digest_of", unreadable)
    assert cache.find(DIGEST) is None and not cache.path(DIGEST).exists()


def test_who_downloaded_a_bundle_has_hashed_it(cache: BundleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_cache, "digest_of", lambda file: pytest.fail("hashed once more"))
    cache.obtain(DIGEST, gives(DATA)).file.close()
    for _ in range(2):  # to be used moves its time, which is no change
        cache.obtain(DIGEST, never).file.close()


def test_all_entries_are_hashed_anew_where_that_is_asked_for_and_the_wrong_ones_go(cache: BundleCache) -> None:
    right, wrong = kept(cache, b"right"), kept(cache, b"wrong")
    assert cache.verify() == []
    path = cache.path(wrong)
    path.chmod(0o600)
    path.write_bytes(b"wronk")
    assert cache.verify() == [wrong] and [entry.digest for entry in cache.entries()] == [right]


def test_an_entry_that_goes_while_all_are_hashed_is_no_wrong_one(
    cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may prune at any moment: before an entry is opened, and before it is deleted."""
    digests = [kept(cache, b"first"), kept(cache, b"second"), kept(cache, b"third")]
    for digest in digests[:2]:
        aged(cache.path(digest), 9)
    gone = cache.entries()[1].digest
    real = bundle_cache.digest_of

    def pruned(file: BinaryIO) -> tuple[str, int]:
        cache.drop(gone)
        cache.drop(digests[2])
        return ("sha256:damaged", 0) if os.fstat(file.fileno()).st_nlink == 0 else real(file)

    monkeypatch.setattr(bundle_cache, "digest_of", pruned)
    first = cache.entries()[0].digest
    assert cache.verify() == [] and [entry.digest for entry in cache.entries()] == [first]
    monkeypatch.setattr(bundle_cache, "digest_of", lambda file: (cache.drop(first), ("sha256:damaged", 0))[1])
    assert cache.verify() == [first] and cache.entries() == []


# -- 3: one downloads, the others wait and use it -------------------------------------------------------------------


def test_who_waited_for_another_download_uses_what_that_brought(
    cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waited(*_: object) -> None:
        path = cache.path(DIGEST)
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)

    monkeypatch.setattr(bundle_cache, "exclusive_for", waited)
    found = cache.obtain(DIGEST, never)
    assert found.fetched is None and found.file.read() == DATA
    found.file.close()


class Beside(FakeClock):
    """Somebody else who has the lock, and does something each time that the one who waits sleeps."""

    def __init__(self, does: Callable[[float], None]) -> None:
        super().__init__()
        self.does, self.slept = does, 0.0

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.slept += seconds
        self.does(self.slept)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[BinaryIO]:
    """The lock of the bundle, in the hands of somebody else."""
    locks = tmp_path / "c" / "locks"
    locks.mkdir(parents=True, mode=0o700)
    (tmp_path / "c").chmod(0o700)
    with (locks / NAME).open("ab") as lock:
        assert try_exclusive(lock.fileno())
        yield lock


@pytest.mark.parametrize("left", [True, False])
def test_who_holds_a_bundle_and_does_not_go_on_is_not_awaited_for_good(
    tmp_path: Path, held: BinaryIO, left: bool
) -> None:
    clock = Beside(lambda slept: None)
    cache = BundleCache(tmp_path / "c", clock)
    if left:
        partial(cache, DIGEST, b"a bun")
    with pytest.raises(TimeoutError, match="did not go on for 60 s"):
        cache.obtain(DIGEST, never)
    assert LOCK_SECONDS <= clock.slept < LOCK_SECONDS + 1


def test_who_goes_on_slowly_is_awaited_however_long_it_takes(tmp_path: Path, held: BinaryIO) -> None:
    def does(slept: float) -> None:
        half_minutes = int(slept / 30)
        partial(cache, DIGEST, DATA[:half_minutes])
        aged(cache.directory / "partial" / NAME, -half_minutes)
        if half_minutes == len(DATA):
            cache.path(DIGEST).parent.mkdir(parents=True)
            cache.path(DIGEST).write_bytes(DATA)
            held.close()

    clock = Beside(does)
    cache = BundleCache(tmp_path / "c", clock)
    found = cache.obtain(DIGEST, never)
    assert found.fetched is None and found.file.read() == DATA and clock.slept > 3 * LOCK_SECONDS
    found.file.close()


def test_a_bundle_that_is_pruned_once_it_has_come_serves_who_downloaded_it(
    cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bundle_cache.sync_directory

    def pruned(path: Path) -> None:
        real(path)
        assert [e.digest for e in cache.prune(0, frozenset)] == [DIGEST]

    monkeypatch.setattr(bundle_cache, "sync_directory", pruned)
    found = cache.obtain(DIGEST, gives(DATA))
    assert found.file.read() == DATA and cache.entries() == []
    found.file.close()


def test_nobody_else_downloads_a_bundle_meanwhile_but_any_other_one(cache: BundleCache) -> None:
    free: dict[str, bool] = {}

    def looking(file: BinaryIO, journal: Journal) -> Fetched:
        for digest in (DIGEST, OTHER):
            with (cache.directory / "locks" / digest.removeprefix("sha256:")).open("ab") as lock:
                free[digest] = try_exclusive(lock.fileno())
        return gives(DATA)(file, journal)

    cache.obtain(DIGEST, looking).file.close()
    assert free == {DIGEST: False, OTHER: True}


@pytest.mark.parametrize("place", [f"sha256/{NAME[:2]}/{NAME[2:]}", f"locks/{NAME}"])
def test_a_fifo_in_the_place_of_a_file_is_not_waited_for(cache: BundleCache, place: str) -> None:
    """The alarm ends the tests."""
    (cache.directory / place).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(cache.directory / place)
    signal.alarm(60)
    try:
        found = cache.obtain(DIGEST, gives(DATA))
        assert found.file.read() == DATA and cache.verify() == []
        found.file.close()
        assert not cache.give_up(DIGEST, 0)
    finally:
        signal.alarm(0)
    assert [e.digest for e in cache.entries()] == [DIGEST] and cache.path(DIGEST).is_file()


def test_an_empty_directory_in_the_place_of_an_entry_gives_way(cache: BundleCache) -> None:
    """What container programs leave where a file was to be mounted that is not there; each boot downloaded anew."""
    cache.path(DIGEST).mkdir(parents=True)
    found = cache.obtain(DIGEST, gives(DATA))
    assert found.file.read() == DATA and cache.path(DIGEST).is_file()
    found.file.close()


def test_a_download_that_has_just_come_to_its_place_ends_no_look_at_the_others(
    cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process finished meanwhile kept a worker from tidying, and ended `gtc cache list`."""
    gone, there = partial(cache, DIGEST, b"a bun"), partial(cache, OTHER, b"an")
    real = Path.iterdir

    def listed(path: Path) -> Iterator[Path]:
        found = list(real(path))
        gone.unlink(missing_ok=True)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", listed)
    assert cache.partials() == [(OTHER, 2)] and there.exists()


# -- 4: a partial download stands with its journal, and is never looked at as an entry ------------------------------


def test_a_download_goes_on_with_what_its_journal_lists_and_is_no_entry(cache: BundleCache) -> None:
    path = partial(cache, DIGEST, b"a bun")
    assert cache.entries() == [] and cache.find(DIGEST) is None
    assert cache.partials() == [(DIGEST, 5)]
    assert cache.unfinished() == [Item(DIGEST, 5, path.stat().st_mtime)]
    download = gives(DATA)
    cache.obtain(DIGEST, download).file.close()
    assert download.found == [b"a bun"] and cache.partials() == [] and not list(path.parent.iterdir())


@pytest.mark.parametrize("journal", ["", "{}", '{"done": [[0, 99]], "total": null, "validator": null}'])
def test_what_no_journal_lists_is_dropped_before_a_download(cache: BundleCache, journal: str) -> None:
    path = partial(cache, DIGEST, b"of somebody", journal=False)
    beside = path.with_name(f"{NAME}.json")
    if journal:
        beside.write_text(journal)
    download, there = gives(DATA), list[bool]()

    def looking(file: BinaryIO, known: Journal) -> Fetched:
        there.append(beside.exists())
        return download(file, known)

    cache.obtain(DIGEST, looking).file.close()
    assert download.found == [b""] and there == [False]


def test_a_link_in_the_place_of_a_download_is_not_followed(cache: BundleCache, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = partial(cache, DIGEST, b"precious")
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        cache.obtain(DIGEST, gives(DATA))
    assert victim.read_bytes() == b"precious" and not cache.entries()


def test_a_download_is_open_for_its_user_alone(cache: BundleCache) -> None:
    modes: list[int] = []

    def looking(file: BinaryIO, journal: Journal) -> Fetched:
        modes.append(os.fstat(file.fileno()).st_mode & 0o777)
        return gives(DATA)(file, journal)

    old = os.umask(0)
    try:
        cache.obtain(DIGEST, looking).file.close()
    finally:
        os.umask(old)
    assert modes == [0o600]


def test_what_was_received_and_does_not_match_is_deleted_and_told(cache: BundleCache) -> None:
    path = partial(cache, DIGEST, b"a bun")
    with pytest.raises(DigestMismatch, match=f"`{OTHER}`, expected `{DIGEST}`") as error:
        cache.obtain(DIGEST, gives(b"another"))
    assert error.value.actual == OTHER and not list(path.parent.iterdir()) and cache.entries() == []


def test_what_a_failed_download_left_stays(cache: BundleCache) -> None:
    path = partial(cache, DIGEST, b"a bun")
    with pytest.raises(OSError, match="cut"):
        cache.obtain(DIGEST, gives(DATA, failing=1, error=OSError(errno.EIO, "cut")))
    assert path.read_bytes() == b"a bun" and path.with_name(f"{NAME}.json").exists()


# -- 5: above a size, what was not used for longest goes, but nothing that is needed --------------------------------


def test_to_be_used_makes_an_entry_young(cache: BundleCache) -> None:
    old, young = kept(cache, b"old"), kept(cache, b"young")
    aged(cache.path(old), 200)
    aged(cache.path(young), 100)
    assert [entry.digest for entry in cache.entries()] == [old, young]
    cache.obtain(old, never).file.close()
    assert [entry.digest for entry in cache.entries()] == [young, old]
    assert [(entry.size, entry.used) for entry in cache.entries()] == [
        (size, cache.path(digest).stat().st_mtime) for digest, size in ((young, 5), (old, 3))
    ]


def test_the_unused_go_first_and_the_needed_never(cache: BundleCache) -> None:
    digests = [kept(cache, b"%d" % n) for n in range(4)]
    for age, digest in enumerate(digests):
        aged(cache.path(digest), 100 - age)
    assert cache.prune(4, lambda: pytest.fail("all of it fits")) == []
    assert [entry.digest for entry in cache.prune(2, lambda: frozenset({digests[0]}))] == digests[1:3]
    assert [entry.digest for entry in cache.entries()] == [digests[0], digests[3]]
    cache.drop(digests[3])
    cache.drop(digests[3])  # another process was quicker
    assert [entry.digest for entry in cache.entries()] == [digests[0]]


@pytest.mark.parametrize(("seconds", "stays"), [(-60, True), (60, False)])
def test_a_download_that_nobody_went_on_with_for_days_goes_when_the_cache_is_pruned(
    cache: BundleCache, seconds: int, stays: bool
) -> None:
    path = partial(cache, DIGEST, b"x", age=PARTIAL_DAYS * 24 * 3600 + seconds)
    cache.prune(1 << 30, frozenset)
    assert path.exists() is path.with_name(f"{NAME}.json").exists() is stays


def test_a_download_without_a_journal_is_given_up_as_well(cache: BundleCache) -> None:
    path = partial(cache, DIGEST, b"x", journal=False, age=9)
    assert cache.give_up(DIGEST, 9) and not path.exists()


# -- 6: where the disk is full, room is made before a download is given up ------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_costs_what_is_not_needed(cache: BundleCache, code: int) -> None:
    needed, unneeded = kept(cache, b"needed"), kept(cache, b"unneeded")
    own, other = partial(cache, DIGEST, b"a bun"), partial(cache, OTHER, b"x")
    download = gives(DATA, failing=1, error=OSError(code, "full"))
    cache.obtain(DIGEST, download, lambda: frozenset({needed})).file.close()
    assert download.found == [b"a bun", b"a bun"]  # what this download has got is not what makes room for it
    assert {entry.digest for entry in cache.entries()} == {needed, DIGEST}
    assert not other.exists() and not own.exists() and cache.find(unneeded) is None


@pytest.mark.parametrize("there", ["an entry", "a download"])
def test_either_of_both_makes_room(cache: BundleCache, there: str) -> None:
    if there == "an entry":
        kept(cache, b"unneeded")
    else:
        partial(cache, OTHER, b"x")
    cache.obtain(DIGEST, gives(DATA, failing=1), frozenset).file.close()
    assert [entry.digest for entry in cache.entries()] == [DIGEST] and cache.partials() == []


@pytest.mark.parametrize(
    ("code", "told", "failing"),
    [(errno.EIO, True, 1), (errno.ENOSPC, False, 1), (errno.ENOSPC, True, 2)],
    ids=["another error", "nobody says what is needed", "still full"],
)
def test_what_room_does_not_help_is_told(cache: BundleCache, code: int, told: bool, failing: int) -> None:
    unneeded = kept(cache, b"unneeded")
    download = gives(DATA, failing=failing, error=OSError(code, "no way"))
    with pytest.raises(OSError, match="no way"):
        cache.obtain(DIGEST, download, frozenset if told else None)
    assert len(download.found) == failing
    assert (cache.find(unneeded) is None) is (failing == 2)


def test_nothing_is_tried_again_where_nothing_could_go(cache: BundleCache) -> None:
    needed = kept(cache, b"needed")
    download = gives(DATA, failing=1)
    with pytest.raises(OSError, match="full"):
        cache.obtain(DIGEST, download, lambda: frozenset({needed}))
    assert len(download.found) == 1 and [entry.digest for entry in cache.entries()] == [needed]


# -- 7: the directory belongs to this user alone; one that cannot be made costs time only ---------------------------


def test_a_directory_that_is_not_this_users_alone_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BundleCache(tmp_path / "deep" / "c")
    BundleCache(tmp_path / "deep" / "c")
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "c")
    with pytest.raises(PermissionError, match="this user alone"):
        BundleCache(tmp_path / "link")
    (tmp_path / "file").touch()
    for impossible in (tmp_path / "link", tmp_path / "file", tmp_path / "file" / "c"):
        optional.forget()
        assert open_cache(impossible) is None
        assert [text.partition(":")[0] for text in optional.lacking()] == ["done without the cache of bundles"]
    there = open_cache(tmp_path / "deep" / "c")
    assert there is not None and there.directory == tmp_path / "deep" / "c" and open_cache(None) is None
    monkeypatch.setattr(bundle_cache.os, "geteuid", lambda: os.getuid() + 1)
    assert open_cache(tmp_path / "deep" / "c") is None


def test_others_see_nothing_of_a_new_cache(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        cache = BundleCache(tmp_path / "c")
        kept(cache, DATA)
    finally:
        os.umask(old)
    for directory in (
        cache.directory,
        *(cache.directory / name for name in ("partial", "locks", f"sha256/{NAME[:2]}")),
    ):
        assert directory.stat().st_mode & 0o777 == 0o700, directory


def test_where_the_cache_is_and_how_large_it_may_be_is_told_by_variables(tmp_path: Path) -> None:
    assert cache_directory({"HOME": str(tmp_path)}) == tmp_path / ".cache" / "greentic" / "bundles"
    assert cache_directory({}) is None
    told = {"HOME": str(tmp_path), "GREENTIC_BUNDLE_CACHE_DIR": "/else/where"}
    assert cache_directory(told) == Path("/else/where")
    assert cache_directory({**told, "GREENTIC_BUNDLE_CACHE_DIR": "off"}) is None
    assert max_bytes({}) == DEFAULT_MAX_BYTES == 3 * 1024**3
    assert max_bytes({"GREENTIC_CACHE_MAX_BYTES": "0"}) == 0 and max_bytes({"GREENTIC_CACHE_MAX_BYTES": "5"}) == 5


def test_the_cache_of_this_process_is_told_by_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTIC_BUNDLE_CACHE_DIR", "/else/where")
    assert cache_directory() == Path("/else/where")


# -- what is at hand is put here as well ----------------------------------------------------------------------------


def test_a_bundle_at_hand_counts_as_new_once_and_only_as_what_it_is(cache: BundleCache) -> None:
    data = os.urandom(3 << 20)
    assert cache.add(sha256(data), io.BytesIO(data)) is True
    assert cache.add(sha256(data), io.BytesIO(b"not read")) is False
    assert cache.path(sha256(data)).read_bytes() == data
    with pytest.raises(DigestMismatch):
        cache.add(DIGEST, io.BytesIO(b"another"))
    assert [entry.digest for entry in cache.entries()] == [sha256(data)]


@pytest.mark.parametrize("data", [b"", DATA])
def test_a_bundle_at_hand_is_put_over_what_a_download_left(cache: BundleCache, data: bytes) -> None:
    partial(cache, sha256(data), b"something longer than a bundle")
    assert cache.add(sha256(data), io.BytesIO(data))
    assert cache.path(sha256(data)).read_bytes() == data and cache.partials() == []
