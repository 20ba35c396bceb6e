"""The rules of the store, each at its edge: what is synced and when, what two names mean, what is owed to nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from greentic.ground.disk import RealDisk
from greentic.store import ledger, operator_key
from greentic.store.environments import EnvironmentStore
from greentic.store.files import Files
from greentic.store.in_use import InUse, in_use
from greentic.store.layout import EnvPaths
from greentic.store.recovery import ABANDONED_SECONDS, LOCK_NAME, drop_abandoned, recover_revisions
from simulators import CountingRandom, FakeClock


class Telling(RealDisk):
    """Keeps what is done, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.done.append(("rename", target.name))

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.done.append(("remove", path.name))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.done.append(("sync", path.name))


class Still(FakeClock):
    """Every look at the clock is at the same instant."""

    def now_ns(self) -> int:
        return self.now


def test_a_directory_is_synced_after_a_name_in_it_changed(tmp_path: Path) -> None:
    disk = Telling()
    files = Files(disk, FakeClock(), CountingRandom(), tmp_path / "backups")
    files.write(tmp_path / "d" / "x", b"1")
    assert disk.done == [("rename", "x"), ("sync", "d")]
    disk.done.clear()
    files.delete(tmp_path / "d" / "x")
    assert disk.done == [("remove", "x"), ("sync", "d")]


def test_backups_of_one_instant_are_numbered_without_a_gap(tmp_path: Path) -> None:
    files = Files(RealDisk(), Still(), CountingRandom(), tmp_path / "backups")
    for number in range(4):
        files.replace(tmp_path / "x", str(number).encode())
    ends = [path.name.rpartition("Z")[2] for path in files.backups_of("x")]
    assert ends == [".bak", ".1.bak", ".2.bak"]
    assert [path.read_bytes() for path in files.backups_of("x")] == [b"0", b"1", b"2"]


def test_a_temporary_that_a_kill_left_goes_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    kept = ["environment.json", ".hidden", ".x.0123.tmp", "x.0123456789abcdef.tmp"]
    for name in (*kept, ".x.0123456789abcdef.tmp"):
        (directory / name).touch()
    Files(RealDisk(), FakeClock(), CountingRandom(), tmp_path / "backups").sweep(directory)
    assert sorted(path.name for path in directory.iterdir()) == sorted(kept)


def test_the_next_change_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    store = EnvironmentStore(tmp_path, clock=FakeClock(), random=CountingRandom())
    left = tmp_path / "local" / ".environment.json.0123456789abcdef.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with store.transaction("local", may_create=True):
        pass
    assert not left.exists()


def test_the_same_payload_is_the_same_in_any_order_of_its_members() -> None:
    one = ledger.fingerprint({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert ledger.fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1}) == one
    assert ledger.fingerprint({"b": {"d": None, "c": [2, 1]}, "a": 1}) != one


def test_every_file_of_an_environment_stands_below_its_directory(tmp_path: Path) -> None:
    paths = EnvPaths(tmp_path)
    names = [name for name in vars(EnvPaths) if isinstance(vars(EnvPaths)[name], property)]
    found = {name: getattr(paths, name) for name in names}
    assert all(isinstance(path, Path) and path.is_relative_to(tmp_path) for path in found.values())
    assert len(set(found.values())) == len(found) and found["signing_key"].name == "revision-signing.key"
    assert paths.ref("revisions/a/b") == tmp_path / "revisions" / "a" / "b"


def test_the_directory_of_the_operators_key_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GTC_OPERATOR_KEY_PATH", str(tmp_path / "new" / "key.pem"))
    disk = Telling()
    operator_key.load_or_generate(disk, CountingRandom())
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["key.pem", "key.pem.pub"]
    assert disk.done[-1] == ("sync", "new")


@pytest.mark.parametrize("whole", [True, False])
def test_a_revision_moved_aside_goes_only_when_its_successor_is_whole(tmp_path: Path, whole: bool) -> None:
    paths, disk = EnvPaths(tmp_path), Telling()
    for name, content in (("r", b"new"), ("r.bak", b"old")):
        (paths.revisions / name).mkdir(parents=True)
        (paths.revisions / name / "pack").write_bytes(content)
    if whole:
        (paths.revisions / "r" / LOCK_NAME).touch()
    recover_revisions(paths, disk)
    assert [path.name for path in paths.revisions.iterdir()] == ["r"]
    assert (paths.revisions / "r" / "pack").read_bytes() == (b"new" if whole else b"old")
    assert disk.done == ([] if whole else [("rename", "r"), ("sync", "revisions")])


@pytest.mark.parametrize("age", [0, 2 * ABANDONED_SECONDS])
@pytest.mark.parametrize("held", [True, False])
def test_what_somebody_holds_a_lock_on_is_not_dropped(tmp_path: Path, age: int, held: bool) -> None:
    import fcntl

    path, dropped = tmp_path / "f", list[Path]()
    path.touch()
    clock = FakeClock(int((path.stat().st_mtime + age) * 1e9))
    with path.open("rb") as file:
        if held:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        assert drop_abandoned(path, os.O_RDONLY, clock, dropped.append) is not held
    assert dropped == ([] if held else [path])
    assert not drop_abandoned(tmp_path / "none", os.O_RDONLY, clock, dropped.append)


def test_what_a_process_holds_is_told_until_it_lets_go(tmp_path: Path) -> None:
    place, random = tmp_path / "in-use", CountingRandom()
    assert in_use(place, FakeClock()) == frozenset()
    one, two = InUse(place, random, ["a"]), InUse(place, random, ["b", "c"])
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in place.iterdir()} == {".json", ".lock"} and len(list(place.iterdir())) == 4
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in place.iterdir())
    assert in_use(place, FakeClock()) == {"a", "b", "c"}
    one.also(["d"])
    two.say(["c"])
    assert in_use(place, FakeClock()) == {"a", "c", "d"}
    one.close()
    one.close()
    assert in_use(place, FakeClock()) == {"c"} and len(list(place.iterdir())) == 2
    two.close()
    assert not place.exists()


@pytest.mark.parametrize("spoiled", [b"{", b"7", None])
def test_where_it_cannot_be_known_all_may_be_held(tmp_path: Path, spoiled: bytes | None) -> None:
    held = InUse(tmp_path / "in-use", CountingRandom(), ["a"])
    told = next((tmp_path / "in-use").glob("*.json"))
    if spoiled is None:
        told.unlink()
    else:
        told.write_bytes(spoiled)
    assert in_use(tmp_path / "in-use", FakeClock()) is None
    held.close()


def test_what_a_dead_process_held_is_let_go(tmp_path: Path) -> None:
    place = tmp_path / "in-use"
    place.mkdir()
    (place / "1-00.json").write_bytes(b'["a"]')
    (place / "1-00.lock").touch()
    late = FakeClock(int(((place / "1-00.lock").stat().st_mtime + 2 * ABANDONED_SECONDS) * 1e9))
    assert in_use(place, late) == frozenset() and not list(place.iterdir())
