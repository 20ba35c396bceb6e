"""The rules of the store, each at its edge: what is synced and when, what two names mean, what is owed to nobody."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from greentic.ground.disk import RealDisk
from greentic.ground.documents import from_json, replace
from greentic.ground.errors import AuditError, IntentError, OperatorKeyError
from greentic.model.delivery import delivery_of
from greentic.model.environment import BundleDeployment, Environment, HostConfig, new_environment
from greentic.model.revenue_policy import policy_ref
from greentic.store import audit, ledger, operator_key, seal, signed_policy
from greentic.store.audit import PREVIOUS_LINE, AuditLog, Change, Outcome, documents_digest, line_digest, outcome_of
from greentic.store.environments import EnvironmentStore
from greentic.store.files import Files
from greentic.store.in_use import InUse, in_use
from greentic.store.layout import EnvPaths
from greentic.store.recovery import ABANDONED_SECONDS, LOCK_NAME, drop_abandoned, recover_revisions
from greentic.trust.keys import public_pem
from greentic.trust.policy import unsealed
from greentic.trust.root import EMPTY, TrustRoot, add_key
from simulators import CountingRandom, FakeClock
from test_model_rules import deployment


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
    opened = len(os.listdir("/proc/self/fd"))
    clock = FakeClock(int((path.stat().st_mtime + age) * 1e9))
    with path.open("rb") as file:
        if held:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        assert drop_abandoned(path, os.O_RDONLY, clock, dropped.append) is not held
    assert dropped == ([] if held else [path])
    assert not drop_abandoned(tmp_path / "none", os.O_RDONLY, clock, dropped.append)
    assert len(os.listdir("/proc/self/fd")) == opened


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


@pytest.mark.parametrize("restored", [True, False])
def test_what_a_process_holds_is_told_again_where_a_store_was_replaced_below_it(tmp_path: Path, restored: bool) -> None:
    """A copy of its lock is held by nobody, so whoever cleans up would take away what it tells."""
    place, aside = tmp_path / "in-use", tmp_path / "aside"
    held = InUse(place, CountingRandom(), ["a"])
    place.rename(aside)
    if restored:
        shutil.copytree(aside, place)
    held.say(["a"])
    assert in_use(place, FakeClock()) == {"a"}
    held.also(["b"])
    assert in_use(place, FakeClock()) == {"a", "b"} and len(list(place.iterdir())) == 2
    held.close()
    assert not place.exists()


def test_what_could_not_be_told_is_told_at_the_next_occasion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = InUse(tmp_path / "in-use", CountingRandom(), ["a"])

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("greentic.store.in_use.replace_file", no_space)
        with pytest.raises(OSError, match="No space"):
            held.say(["b"])
    assert in_use(tmp_path / "in-use", FakeClock()) == {"a"}
    held.say(["b"])
    assert in_use(tmp_path / "in-use", FakeClock()) == {"b"}
    held.close()


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


@pytest.mark.parametrize("told", [True, False])
def test_what_a_dead_process_held_is_let_go(tmp_path: Path, told: bool) -> None:
    place = tmp_path / "in-use"
    place.mkdir()
    if told:
        (place / "1-00.json").write_bytes(b'["a"]')
    (place / "1-00.lock").touch()
    late = FakeClock(int(((place / "1-00.lock").stat().st_mtime + 2 * ABANDONED_SECONDS) * 1e9))
    assert in_use(place, late) == frozenset() and not list(place.iterdir())


# -- the audit log --------------------------------------------------------------------------------------------------

CHANGE = Change("local", "env", "update", {"environment_id": "local"}, "k")


def log(paths: EnvPaths, disk: RealDisk | None = None) -> AuditLog:
    return AuditLog(paths, disk or RealDisk(), FakeClock(), CountingRandom())


def lines(paths: EnvPaths) -> list[bytes]:
    return paths.audit.read_bytes().splitlines()


def test_each_line_carries_the_digest_of_the_line_before_whoever_wrote_that(tmp_path: Path) -> None:
    paths = EnvPaths(tmp_path)
    first = log(paths)
    first.record(first.intend(CHANGE), CHANGE, Outcome("ok"))
    log(paths).intend(CHANGE)  # another program
    first.intend(CHANGE)
    found = lines(paths)
    assert len(found) == 4 and PREVIOUS_LINE not in json.loads(found[0])
    assert [json.loads(line)[PREVIOUS_LINE] for line in found[1:]] == [line_digest(line) for line in found[:-1]]


def test_the_end_of_the_log_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, looked = EnvPaths(tmp_path), list[int]()
    real = AuditLog._tail
    monkeypatch.setattr(AuditLog, "_tail", lambda self: (looked.append(1), real(self))[1])
    one = log(paths)
    for _ in range(3):
        one.intend(CHANGE)
    assert len(looked) == 1
    paths.audit.unlink()
    one.intend(CHANGE)
    assert len(looked) == 2 and PREVIOUS_LINE not in json.loads(lines(paths)[0])


def test_a_line_beyond_all_measure_is_followed_by_one_without_a_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = EnvPaths(tmp_path)
    paths.audit.parent.mkdir()
    monkeypatch.setattr(audit, "_TAIL_BYTES", 3)
    monkeypatch.setattr(audit, "_LINE_BYTES", 40)
    for before, chained in (
        (b"x" * 39, True),
        (b"x" * 40, False),
        (b"y\n" + b"x" * 38, True),
        (b"y\n" + b"x" * 39, False),
    ):
        paths.audit.write_bytes(before + b"\n")
        log(paths).intend(CHANGE)
        told = json.loads(lines(paths)[-1])
        assert told.get(PREVIOUS_LINE) == (line_digest(before.rpartition(b"\n")[2]) if chained else None), before


def test_a_line_that_is_longer_than_the_tail_is_chained_and_its_change_finished(tmp_path: Path) -> None:
    """A verb writes what its payload names: with a text of a megabyte in it the log said that somebody had changed it."""
    paths = EnvPaths(tmp_path)
    long = Change("local", "bundles", "add", {"party": "p" * (3 << 20)})
    log(paths).intend(long)
    assert log(paths).repair() is not None, "the event that a killed process owes"
    log(paths).intend(CHANGE)
    found = lines(paths)
    assert [json.loads(line).get(PREVIOUS_LINE) for line in found] == [
        None,
        *(line_digest(line) for line in found[:-1]),
    ]


def test_the_digest_of_documents_tells_each_of_them_apart(tmp_path: Path) -> None:
    paths, seen = EnvPaths(tmp_path), set[str]()
    seen.add(documents_digest(paths))
    for path in (paths.environment, paths.trust_root, paths.runtime):
        path.write_bytes(b"1")
        seen.add(documents_digest(paths))
        path.write_bytes(b"2")
        seen.add(documents_digest(paths))
        path.write_bytes(b"")
        assert documents_digest(paths) in seen, "an empty document is as one that is not there"
    assert len(seen) == 7


@pytest.mark.parametrize("changed", [True, False])
def test_the_event_that_a_killed_process_owes_says_whether_anything_happened(tmp_path: Path, changed: bool) -> None:
    paths = EnvPaths(tmp_path)
    assert log(paths).repair() is None and not paths.audit.exists()
    owed = log(paths).intend(CHANGE)
    if changed:
        paths.environment.write_bytes(b"{}")
    assert log(paths).repair() == owed and log(paths).repair() is None
    intent, event = map(json.loads, lines(paths))
    assert event["event_id"] == intent["event_id"] and event["recovered"] is True
    assert event["result"]["outcome"] == ("ok" if changed else "error")
    assert event["result"].get("kind") == (None if changed else "interrupted")
    assert {n: event[n] for n in ("env_id", "noun", "verb", "target", "idempotency_key")} == {
        "env_id": "local", "noun": "env", "verb": "update", "target": {"environment_id": "local"}, "idempotency_key": "k",
    }  # fmt: skip


def test_a_log_that_takes_no_line_says_what_was_done(tmp_path: Path) -> None:
    class Full(RealDisk):
        def append(self, path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device", str(path))

    paths = EnvPaths(tmp_path)
    with pytest.raises(IntentError, match="nothing was changed") as intent:
        log(paths, Full()).intend(CHANGE)
    with pytest.raises(AuditError, match="No space left") as event:
        log(paths, Full()).record("ID", CHANGE, Outcome("ok"))
    assert intent.value.hint and "do not run it again" in str(event.value.hint)
    log(paths).intend(CHANGE)
    with pytest.raises(IntentError, match="owes could not be written .* nothing was changed") as owed:
        log(paths, Full()).repair()  # for a command of somebody else, which has not begun
    assert "do not run it again" not in str(owed.value.hint) and "run the command again" in str(owed.value.hint)
    paths.audit.unlink()
    paths.audit.mkdir()
    with pytest.raises(IntentError, match="cannot be read"):
        log(paths).repair()
    told = outcome_of(intent.value)
    assert outcome_of(None) == Outcome("ok") and (told.outcome, told.kind) == ("error", intent.value.kind)


def test_the_log_is_cut_from_its_beginning_and_tells_how_old_each_line_is(tmp_path: Path) -> None:
    paths = EnvPaths(tmp_path)
    assert log(paths).kept() == [] and log(paths).without_first(3) == b""
    paths.audit.parent.mkdir()
    told = [b'{"ts":"1970-01-01T00:01:00Z"}\n', b"no time\n", b'{"ts":"1970-01-01T00:02:00.5Z"}\n']
    paths.audit.write_bytes(b"".join([b"7\n", *told]))
    found = log(paths).kept()
    assert [(i.name, i.size, i.used) for i in found] == [
        ("1", 2, float("inf")), ("2", len(told[0]), 60.0), ("3", len(told[1]), 60.0), ("4", len(told[2]), 120.0),
    ]  # fmt: skip
    assert log(paths).without_first(2) == b"".join(told[1:])
    assert f"sha256:{log(paths).last_of_first(3)}" == line_digest(b"no time")


# -- the seal -------------------------------------------------------------------------------------------------------


def trusting(disk: RealDisk) -> tuple[Environment, TrustRoot]:
    """An environment, and a root that trusts the operator's key."""
    key = operator_key.load_or_generate(disk, CountingRandom())
    return new_environment("local", "x", HostConfig(env_id="local")), add_key(EMPTY, key.key_id, public_pem(key.public))


def test_a_projection_for_readers_elsewhere_is_sealed_as_the_generation_that_it_is(tmp_path: Path) -> None:
    disk = RealDisk()
    env, root = trusting(disk)
    clock = FakeClock()
    with EnvironmentStore(tmp_path / "store", disk=disk).transaction("local", may_create=True) as transaction:
        transaction.create(env)
        assert transaction.load() == env, "one that nobody asked to seal stays as it is"
    shown = seal.sealed_as(env, 7, root, disk, clock)
    told = delivery_of(shown)
    assert told.generation == 7 and unsealed(shown, told, root.public_keys(), ()) is None
    assert unsealed(replace(shown, name="y"), told, root.public_keys(), ()) is not None
    again = seal.sealed(shown, root, disk, clock)
    assert delivery_of(again).generation == 8 and unsealed(again, delivery_of(again), root.public_keys(), ()) is None
    for make in (lambda: seal.sealed_as(env, 7, EMPTY, disk, clock), lambda: seal.sealed(shown, EMPTY, disk, clock)):
        with pytest.raises(OperatorKeyError, match="is not in the trust root"):
            make()


@pytest.mark.parametrize(("is_new", "signed", "version"), [(False, 0, 6), (True, 0, 1), (False, 7, 8), (True, 7, 8)])
def test_a_share_of_a_new_deployment_begins_at_one_and_never_again_at_one_that_was_signed(
    tmp_path: Path, is_new: bool, signed: int, version: int
) -> None:
    disk, paths = RealDisk(), EnvPaths(tmp_path / "env")
    _, root = trusting(disk)
    told = from_json(BundleDeployment, deployment(revenue_policy_ref=policy_ref("bot", "acme", 5)))
    directory = paths.policies("bot", "acme")
    directory.mkdir(parents=True)
    if signed:
        (directory / f"v{signed}.json.sig").touch()
        (directory / f"v{signed + 1}.json").touch()  # one that was never finished
    files = Files(disk, FakeClock(), CountingRandom(), tmp_path / "backups")
    key = operator_key.load(disk)
    assert signed_policy.write_policy(paths, files, FakeClock(), key, root, told, is_new=is_new) == policy_ref(
        "bot", "acme", version
    )
    assert json.loads((directory / f"v{version}.json").read_bytes())["version"] == version
