"""The store: durable writes, backups, audit, ledger, locks, and every point at which a process may die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import Author, gtc
from greentic.deployments import bundles, revisions, traffic
from greentic.ground import disk
from greentic.ground.disk import RealDisk, replace_file, try_exclusive
from greentic.ground.documents import pretty, replace
from greentic.ground.errors import (
    AuditError,
    Conflict,
    DigestMismatch,
    GreenticError,
    InvalidArgument,
    NotFound,
    OperatorKeyError,
    RevenuePolicyError,
    SpecViolation,
    StoreError,
)
from greentic.materialize.placed import RevisionFault, read_lock, read_pack_config, regular_file, verified_packs
from greentic.materialize.staging import StagingArea, place
from greentic.model.delivery import delivery_of
from greentic.model.environment import HostConfig, new_environment
from greentic.operate import delivery
from greentic.operate.change import Context, checked_key
from greentic.store import operator_key, seal, signed_policy
from greentic.store.audit import EVENT_SCHEMA, INTENT_SCHEMA, Change
from greentic.store.environments import EnvironmentStore
from greentic.store.files import Files
from greentic.store.in_use import InUse
from greentic.store.layout import EnvPaths, default_store_root, worked_on
from greentic.store.recovery import recover_revisions
from greentic.telemetry.log import OperatorLog
from greentic.trust.gate import pin
from greentic.trust.keys import SigningKey, private_pem, public_pem
from greentic.trust.policy import unsealed
from greentic.trust.statements import statement_time
from simulators import CountingRandom, DyingDisk, FakeClock, FullDisk, Killed


def files(path: Path, **options: int) -> Files:
    return Files(RealDisk(), FakeClock(), CountingRandom(), path / "backups", **options)


def test_writes_are_private_whole_and_leave_no_temporary(tmp_path):
    files(tmp_path).write(tmp_path / "deep" / "x.json", b"1")
    assert (tmp_path / "deep" / "x.json").read_bytes() == b"1"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.json"]
    assert (tmp_path / "deep" / "x.json").stat().st_mode & 0o777 == 0o600


def test_backups_are_named_by_time_never_collide_and_are_pruned(tmp_path):
    clock = FakeClock()
    clock.now_ns = lambda: 1_779_271_200_123_456_789
    stuck = Files(RealDisk(), clock, CountingRandom(), tmp_path / "backups", keep=3)
    for index in range(6):
        stuck.replace(tmp_path / "x.json", str(index).encode())
    (tmp_path / "x.json.other").write_bytes(b"")
    names = sorted(p.name for p in (tmp_path / "backups").iterdir())
    assert len(names) == 3 and names[-1].startswith("x.json.20260520T100000.123456789Z")
    # the oldest went, the newest three stayed
    assert [p.read_bytes() for p in stuck.backups_of("x.json")] == [b"2", b"3", b"4"]
    stuck.delete(tmp_path / "x.json")
    stuck.delete(tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists() and stuck.backups_of("x.json")[-1].read_bytes() == b"5"


def test_a_backup_that_cannot_be_named_is_an_error(tmp_path, monkeypatch):
    class Taken(RealDisk):
        def link(self, source: Path, target: Path) -> None:
            raise FileExistsError(17, "taken", str(target))

    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(FileExistsError):
        Files(Taken(), FakeClock(), CountingRandom(), tmp_path / "b").back_up(tmp_path / "x")


def test_a_file_system_without_hard_links_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *a, **k: (_ for _ in ()).throw(PermissionError(1, "no links")))
    (tmp_path / "x").write_bytes(b"data")
    RealDisk().link(tmp_path / "x", tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == b"data"


def test_a_line_cut_short_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "log"
    RealDisk().append(path, b"one\n")
    path.write_bytes(b"one\ntw")
    RealDisk().append(path, b"three\n")
    assert path.read_bytes() == b"one\ntw\nthree\n"


# -- loading --------------------------------------------------------------------------------------------------------


def test_listing_tells_good_from_broken(store, author):
    author.create()
    for name, text in {
        "broken": "{",
        "other": pretty(new_environment("x", "x", HostConfig(env_id="x"))).decode(),
    }.items():
        (store.root / name).mkdir()
        (store.root / name / "environment.json").write_text(text)
    (store.root / "no document").mkdir()
    (store.root / "empty").mkdir()
    good, broken = store.survey()
    assert [e.environment_id for e in good] == ["local"]
    assert [(b.environment_id, b.kind) for b in broken] == [("broken", "store"), ("other", "store")]
    assert EnvironmentStore(store.root / "nowhere").survey() == ([], [])


def test_a_missing_environment_is_not_found_and_leaves_no_trace(store):
    for call in (store.load, lambda e: store.transaction(e).__enter__()):
        with pytest.raises(NotFound):
            call("prod")
    assert not store.root.exists()
    with pytest.raises(InvalidArgument):
        store.load("../x")


def test_documents_that_do_not_load(store, author, monkeypatch):
    author.create()
    path = store.paths("local").environment
    path.write_text(path.read_text().replace('"traffic_splits": []', '"traffic_splits": [{}]'))
    with pytest.raises(StoreError, match="json error"):
        store.load("local")
    monkeypatch.setattr("greentic.store.environments.MAX_DOCUMENT", 10)
    with pytest.raises(StoreError, match="larger than"):
        store.load("local")
    path.unlink()
    path.mkdir()
    monkeypatch.setattr("greentic.store.environments.MAX_DOCUMENT", 1 << 30)
    with pytest.raises(StoreError):
        store.load("local")


def test_the_runtime_document(store, author):
    author.create()
    assert store.runtime("local") is None
    good = {
        "schema": "greentic.environment-runtime.v1",
        "environment_id": "local",
        "generated_at": "2026-01-01T00:00:00Z",
        "generated_by": "a.b@1.0.0",
        "generation": 1,
    }
    for change, text in (({"schema": "x"}, "discriminator"), ({"environment_id": "x"}, "mismatch")):
        store.paths("local").runtime.write_text(json.dumps(good | change))
        with pytest.raises(StoreError, match=text):
            store.runtime("local")
    store.paths("local").runtime.write_text(json.dumps(good))
    assert store.runtime("local").generation == 1


def test_saving_what_is_not_legal_writes_nothing(store, author):
    author.create()
    before = store.paths("local").environment.read_bytes()
    with store.transaction("local") as transaction:
        env = transaction.load()
        with pytest.raises(GreenticError):
            transaction.save(replace(env, host_config=HostConfig(env_id="other")))
        with pytest.raises(Conflict, match="lock is held for"):
            transaction.save(replace(env, environment_id="other"))
        with pytest.raises(Conflict, match="already exists"):
            transaction.create(env)
    assert store.paths("local").environment.read_bytes() == before


def test_environments_that_are_on_a_server_are_not_looked_for_here(monkeypatch, tmp_path):
    """The existing program works on the server then; ours changed a directory that nobody meant, and said so to nobody."""
    monkeypatch.setenv("GREENTIC_STORE_URL", "https://u:planted-7c@store.example")
    for words in (
        ["env", "list"],
        ["env", "create", "prod", "--name", "P"],
        ["env", "show", "prod", "--output", "table"],
    ):
        done = gtc("op", *words)
        assert done.returncode == 1 and not done.stdout and "GREENTIC_STORE_URL names a server" in done.stderr
        assert "planted-7c" not in done.stderr and "Traceback" not in done.stderr
    assert not default_store_root().exists()
    assert gtc("op", "--store-root", str(tmp_path / "here"), "env", "list").returncode == 0
    assert gtc("op", "revisions", "warm", "--schema").returncode == 0
    monkeypatch.setenv("GREENTIC_STORE_URL", " ")
    assert worked_on(None) == default_store_root()


def test_homes(monkeypatch, tmp_path):
    assert default_store_root() == tmp_path / "home" / ".greentic" / "environments"
    monkeypatch.delenv("HOME")
    with pytest.raises(InvalidArgument, match="no --store-root"):
        default_store_root()
    with pytest.raises(OperatorKeyError, match="no home"):
        operator_key.key_path()


# -- locks ----------------------------------------------------------------------------------------------------------


def test_threat_two_writers_loser_fails_with_conflict(store, author):
    author.create()
    impatient = EnvironmentStore(store.root, clock=FakeClock(), random=CountingRandom(), lock_wait_seconds=0.05)
    with (
        store.transaction("local"),
        pytest.raises(Conflict, match="held by another process"),
        impatient.transaction("local"),
    ):
        raise AssertionError("two writers at once")


def test_a_log_that_somebody_locked_and_left_so_is_not_awaited_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "events.jsonl"
    RealDisk().append(log, b"one\n")
    monkeypatch.setattr(disk, "LOCK_SECONDS", 0.05)
    with log.open("rb") as held:
        assert try_exclusive(held.fileno())
        with pytest.raises(TimeoutError, match="did not go on"):
            RealDisk().append(log, b"two\n")
    RealDisk().append(log, b"three\n")
    assert log.read_bytes() == b"one\nthree\n"


def test_threat_two_writers_lose_no_update(tmp_path, hello):
    """Eight processes add a deployment each at the same time; all eight are there."""
    author = Author(Context(EnvironmentStore(tmp_path / "store"))).create()
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = [sys.argv[3]]\n"
        "from conftest import Author; from greentic.operate.change import Context; from greentic.store.environments import EnvironmentStore\n"
        "Author(Context(EnvironmentStore(Path(sys.argv[1])))).add(sys.argv[2])\n"
    )
    here = str(Path(__file__).parent)
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store"), f"b{i}", here]) for i in range(8)]
    assert [p.wait(60) for p in started] == [0] * 8
    assert sorted(d.bundle_id for d in author.context.store.load("local").bundles) == [f"b{i}" for i in range(8)]


def test_threat_stale_lock_dies_with_its_process(tmp_path):
    author = Author(Context(EnvironmentStore(tmp_path / "store"))).create()
    code = (
        "import sys, time; from pathlib import Path; from greentic.store.environments import EnvironmentStore\n"
        "with EnvironmentStore(Path(sys.argv[1])).transaction('local'):\n print('held', flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with author.context.store.transaction("local"):
        pass


# -- crash points ---------------------------------------------------------------------------------------------------


class Outcome:
    """What must be whole after a crash: the document loads, and is the old or the new one."""

    def __init__(self, author: Author) -> None:
        self.author = author
        self.documents = [self.bytes()]

    def bytes(self) -> bytes:
        return self.author.context.store.paths("local").environment.read_bytes()


def scenarios() -> dict[str, object]:
    def traffic_set(author: Author, context: Context, names: dict[str, str]) -> None:
        Author(context).route(names["dep"], (names["rev2"], 10_000), key="new")

    def stage(author: Author, context: Context, names: dict[str, str]) -> None:
        Author(context).stage(names["dep"], Path(names["bundle"]))

    def archive(author: Author, context: Context, names: dict[str, str]) -> None:
        revisions.archive(context, author.transition(names["rev3"]))

    def retire_files(author: Author, context: Context, names: dict[str, str]) -> None:
        bundles.remove(context, bundles.BundleRemovePayload(environment_id="local", deployment_id=names["gone"]))

    def share(author: Author, context: Context, names: dict[str, str]) -> None:
        payload = bundles.BundleUpdatePayload(
            environment_id="local",
            deployment_id=names["dep"],
            revenue_share=[bundles.SharePayload(party_id="acme", basis_points=10_000)],
        )
        bundles.update(context, payload)

    return {
        "traffic set": traffic_set,
        "stage": stage,
        "archive": archive,
        "bundles remove": retire_files,
        "bundles update": share,
    }


def authored(root: Path, bundle: Path) -> tuple[Author, dict[str, str]]:
    author = Author(Context(EnvironmentStore(root, clock=FakeClock(), random=CountingRandom()))).create()
    dep, rev = author.deployed(bundle)
    rev2, rev3 = author.warm(author.stage(dep, bundle)), author.stage(dep, bundle)
    gone = author.add("gone", ("/gone",))
    dead = author.stage(gone, bundle)
    revisions.archive(author.context, author.transition(dead))
    return author, {
        "dep": dep,
        "rev": rev,
        "rev2": rev2,
        "rev3": rev3,
        "gone": gone,
        "dead": dead,
        "bundle": str(bundle),
    }


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("name", list(scenarios()))
def test_threat_torn_store_dies_at_every_change(tmp_path, hello, name, torn, record_property):
    """Whatever the moment of death: the document is old or new, the next command repairs the rest and finds the audit whole."""
    step, tried = scenarios()[name], 0
    for die_at in range(1, 200):
        root = tmp_path / f"{die_at}"
        author, names = authored(root, hello)
        before = author.context.store.paths("local").environment.read_bytes()
        disk = DyingDisk(die_at, torn=torn)
        random = CountingRandom()
        random.count = 10_000
        dying = Context(EnvironmentStore(root, disk=disk, clock=author.context.clock, random=random))
        try:
            step(author, dying, names)
        except Killed:
            tried += 1
        else:
            break
        store = author.context.store
        after = store.load("local")
        changed = store.paths("local").environment.read_bytes() != before
        with store.transaction("local") as transaction:
            transaction.refresh_projection(after)
        lines = (
            author.audit()
            if not torn
            else [json.loads(x) for x in store.paths("local").audit.read_text().splitlines() if x.endswith("}")]
        )
        events = {x["event_id"]: x for x in lines if x["schema"] == EVENT_SCHEMA}
        intents = [x["event_id"] for x in lines if x["schema"] == INTENT_SCHEMA]
        assert all(i in events for i in intents), f"an intent without an event after dying at {disk.changes[-1]}"
        last = events[intents[-1]] if intents and intents[-1] in events else None
        if changed:
            assert last is not None and last["result"]["outcome"] == "ok", (
                f"a lost change after dying at {disk.changes[-1]}"
            )
        assert not [
            p
            for p in store.paths("local").revisions.iterdir()
            if p.name.startswith(".staging") or p.name.endswith(".bak")
        ]
        assert not list(store.paths("local").root.glob(".*.tmp"))
        for revision in after.revisions:
            if revision.lifecycle != "archived":
                verified_packs(store.paths("local"), revision)
        step_again = {
            "traffic set": lambda: Author(author.context).route(names["dep"], (names["rev2"], 10_000), key="new")
        }.get(name)
        if step_again:
            step_again()
            assert store.load("local").split(names["dep"]).entries[0].revision_id == names["rev2"]
    record_property("crash points", tried)
    assert tried >= 5, f"only {tried} crash points were tried"


def test_threat_torn_store_materialize_recovers_what_was_moved_aside(store, author, hello):
    author.create()
    _dep, rev = author.deployed(hello)
    paths = store.paths("local")
    tried = 0
    for die_at in range(1, 30):
        good = paths.revision(rev)
        assert (good / "pack-list.lock").is_file()
        disk = DyingDisk(die_at)
        try:
            with StagingArea(paths, disk, rev, f"t{die_at}") as area, area.create_bundle_file() as file:
                file.write(hello.read_bytes())
                file.flush()
                area.fill(pin(file), env_id="local", bundle_id="demo", shown_as="x")
                with store.transaction("local"):
                    place(area, paths, disk)
        except Killed:
            tried += 1
        else:
            break
        with store.transaction("local"):
            pass
        verified_packs(paths, store.load("local").revision(rev))
        assert {p.name for p in paths.revisions.iterdir()} == {rev}
    assert tried >= 4


def test_threat_torn_store_a_half_written_successor_gives_way_to_the_copy_moved_aside(store, author, hello):
    author.create()
    _, rev = author.deployed(hello)
    paths = store.paths("local")
    paths.revision(rev).rename(paths.revisions / f"{rev}.bak")
    (paths.revision(rev) / "bundle").mkdir(parents=True)  # what the existing program leaves when it is killed
    recover_revisions(paths, RealDisk())
    verified_packs(paths, store.load("local").revision(rev))


def test_a_staging_directory_in_use_is_left_alone(store, author):
    author.create()
    paths = store.paths("local")
    with StagingArea(paths, RealDisk(), "01JTKW5B4W4Q5Y1CQW93F7S5VH", "live") as area:
        recover_revisions(paths, RealDisk())
        assert area.directory.exists()
    assert not area.directory.exists()


class SweptDisk(RealDisk):
    """A disk where another program looks for leftovers right after each directory was made."""

    def __init__(self, paths: EnvPaths, times: int) -> None:
        self.paths, self.left = paths, times

    def make_directory(self, path: Path, mode: int = 0o755) -> None:
        super().make_directory(path, mode)
        if self.left and path.name.startswith(".staging-"):
            self.left -= 1
            recover_revisions(self.paths, RealDisk())
            assert not path.exists()


def test_a_staging_directory_that_is_swept_before_it_is_locked_is_made_again(store, author):
    author.create()
    paths = store.paths("local")
    with StagingArea(paths, SweptDisk(paths, 2), "01JTKW5B4W4Q5Y1CQW93F7S5VH", "new") as area:
        assert area.directory.is_dir()
        recover_revisions(paths, RealDisk())
        assert area.directory.is_dir()


def test_what_a_killed_writer_left_goes_with_the_next_change_and_nothing_else(store, author, monkeypatch):
    """A token, a key or a record that was half written beside the documents stayed for good."""
    author.create()
    root = store.paths("local").root

    def killed(self, target):
        raise SystemExit(137)

    with monkeypatch.context() as dying:
        dying.setattr(Path, "replace", killed)
        dying.setattr(Path, "unlink", lambda *_, **__: None)
        for name in ("published.json", "worker-seen.json"):
            with pytest.raises(SystemExit):
                replace_file(root / name, b"half")
    old, young = sorted(root.glob(".*.tmp"))
    hours_ago = store.clock.now_ns() / 1e9 - 3700
    for path, at in ((old, hours_ago), (young, hours_ago + 200)):
        os.utime(path, (at, at))
    for name in (".mine.tmp", "1-2.tmp", ".x.1-2.tmp.bak"):
        (root / name).write_bytes(b"")
        os.utime(root / name, (0, 0))
    author.add()
    assert not old.exists() and young.exists(), "somebody may be at the young one"
    assert all((root / name).exists() for name in (".mine.tmp", "1-2.tmp", ".x.1-2.tmp.bak"))


def everything(root: Path) -> list[Path]:
    return [root, *sorted(root.rglob("*"))]


def test_what_root_does_in_the_store_of_another_user_is_theirs(store, author, hello, monkeypatch):
    """`sudo gtc op …` left documents behind that the worker of the store could not read."""
    owner = 4321 if os.geteuid() == 0 else os.geteuid()
    store.root.mkdir(exist_ok=True)
    os.chown(store.root, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    author.create()
    author.deployed(hello)
    held = InUse(store.paths("local").in_use, store.random, ["a"])
    found = everything(store.root)
    owners = {path.lstat().st_uid for path in found}
    held.close()
    assert owners == {owner} and len(found) > 20
    assert any(path.name == "bundle.gtbundle" for path in found) and any(path.name == ".lock" for path in found)


def test_root_fills_no_directory_that_somebody_wrote_in_meanwhile(store, author, monkeypatch):
    """A link of theirs in what is unpacked would lead root out of their store."""
    author.create()
    paths, disk = store.paths("local"), RealDisk()
    paths.revisions.mkdir()
    if os.geteuid() == 0:
        os.chown(paths.revisions, 4321, -1)
    area = StagingArea(paths, disk, "01JTKW5B4W4Q5Y1CQW93F7S5VH", "t")
    with area:
        assert area.directory.stat().st_uid == os.geteuid()
    area.directory.mkdir()
    (area.directory / "bundle").symlink_to("/etc")
    monkeypatch.setattr("greentic.materialize.staging.owner_of", lambda directory: (os.geteuid(), -1))
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    with pytest.raises(OSError, match="somebody wrote in it"), area:
        pass


def test_what_is_a_second_name_of_something_else_is_not_given_away(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    owner = 4321 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path / "theirs", owner, -1)
    (tmp_path / "ours").write_bytes(b"x\n")
    os.link(tmp_path / "ours", tmp_path / "theirs" / "log")
    RealDisk().append(tmp_path / "theirs" / "log", b"y\n")
    assert (tmp_path / "ours").stat().st_uid == os.geteuid()


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077])
def test_no_mask_lets_others_write_in_a_store(store, author, hello, mask):
    """A stranger who may rename directories of the store's root puts an environment of his own in place."""
    before = os.umask(mask)
    try:
        author.create()
        revision = author.warm(author.stage(author.add(), hello))
        OperatorLog(store.paths("local").root / "logs", store.clock).info("here", "a line")
    finally:
        os.umask(before)
    found = everything(store.root)
    assert not [path for path in found if path.lstat().st_mode & 0o022 and not path.is_symlink()]
    assert any(revision in str(path) for path in found) and any(path.name == "operator.log" for path in found)


def test_many_revisions_of_one_boot_do_not_sweep_each_other(store, author, hello):
    """Each is built beside the others, and each that is placed looks for what the dead left."""
    author.create()
    paths = store.paths("local")

    one_at_a_time = threading.Lock()

    def stage(number: int) -> bool:
        with StagingArea(paths, RealDisk(), f"01JTKW5B4W4Q5Y1CQW93F7S5{number:02}", "t") as area:
            with one_at_a_time:
                recover_revisions(paths, RealDisk())
            return area.directory.is_dir()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(stage, range(64)))


@pytest.mark.parametrize("errno", [28, 30])
def test_a_full_or_read_only_disk_is_one_typed_error_and_changes_nothing(store, author, hello, errno):
    author.create()
    dep, rev = author.deployed(hello)
    before = {p: p.read_bytes() for p in store.paths("local").root.rglob("*.json")}
    full = Context(EnvironmentStore(store.root, disk=FullDisk(errno), clock=store.clock, random=store.random))
    with pytest.raises(GreenticError) as error:
        Author(full).route(dep, (rev, 10_000), key="new")
    assert error.value.kind == "io" and error.value.hint
    with pytest.raises(GreenticError) as error:
        Author(full).stage(dep, hello)
    assert error.value.kind == "io"
    assert {p: p.read_bytes() for p in store.paths("local").root.rglob("*.json")} == before


# -- audit and ledger -----------------------------------------------------------------------------------------------


def test_the_audit_log_tells_intent_then_event(author):
    author.create()
    lines = author.audit()
    assert [x["schema"] for x in lines[:2]] == [INTENT_SCHEMA, EVENT_SCHEMA]
    assert lines[0]["event_id"] == lines[1]["event_id"] and "documents" in lines[0]
    assert lines[1]["result"] == {"outcome": "ok"} and lines[1]["authorization"]["policy"] == "local-only"


def test_an_unwritable_audit_stops_the_change_before_it_happens(store, author):
    author.create()
    path = store.paths("local").audit
    path.unlink()
    path.mkdir()
    with pytest.raises(AuditError, match="audit log cannot be written: .* nothing was changed") as refused:
        author.add()
    assert "after the mutation" not in str(refused.value)
    assert store.load("local").bundles == []


def test_a_line_that_a_full_disk_cut_short_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    disk = RealDisk()
    disk.append(path, b"first\n")
    real, calls = os.write, []

    def fills_up(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(fd, data[:3])

    monkeypatch.setattr("greentic.ground.disk.os.write", fills_up)
    with pytest.raises(OSError, match="No space left"):
        disk.append(path, b"second\n")
    monkeypatch.undo()
    assert len(calls) == 2 and path.read_bytes() == b"first\n"
    disk.append(path, b"third\n")
    assert path.read_bytes() == b"first\nthird\n"


def test_a_document_that_is_no_json_is_told_with_the_next_step(store, author):
    author.create()
    store.paths("local").environment.write_bytes(b"garbage")
    with pytest.raises(StoreError, match="JSON is malformed") as refused:
        store.load("local")
    assert (
        refused.value.hint is not None
        and "gtc op env doctor local" in refused.value.hint
        and "backups" in refused.value.hint
    )


def test_an_event_that_cannot_be_written_after_the_change_is_kind_audit(store, author):
    author.create()

    class LogDies(RealDisk):
        appended = 0

        def append(self, path: Path, data: bytes) -> None:
            self.appended += 1
            if self.appended == 2:
                raise OSError(28, "No space left on device", str(path))
            super().append(path, data)

    dying = Context(EnvironmentStore(store.root, disk=LogDies(), clock=store.clock, random=store.random))
    with pytest.raises(AuditError, match="after the mutation committed") as told:
        Author(dying).add()
    assert told.value.hint is not None and "do not run it again" in told.value.hint
    assert len(store.load("local").bundles) == 1
    author.add("next", ("/n",))  # the next command writes the owed event
    owed = [x for x in author.audit() if x.get("recovered")]
    assert len(owed) == 1 and owed[0]["result"] == {"outcome": "ok"} and owed[0]["noun"] == "bundles"


def test_the_log_of_a_failed_verb_wins_only_where_something_changed(store, author, hello, monkeypatch):
    author.create()

    class EventDies(RealDisk):
        def append(self, path: Path, data: bytes) -> None:
            if b'"result"' in data:
                raise OSError(28, "No space left on device", str(path))
            super().append(path, data)

    dying = Context(EnvironmentStore(store.root, disk=EventDies(), clock=store.clock, random=store.random))
    dep = author.add()
    rev = author.stage(dep, hello)
    with pytest.raises(Conflict):  # nothing changed: the verb's own error
        revisions.drain(dying, author.transition(rev))
    with store.transaction("local"):
        pass  # the next holder of the lock writes the owed event
    pack = next(store.paths("local").revision(rev).rglob("*.gtpack"))
    pack.write_bytes(b"altered")
    with pytest.raises(AuditError):  # the failed state was saved: the log's error
        revisions.warm(dying, author.transition(rev))
    assert store.load("local").revision(rev).lifecycle == "failed"


def test_repair_reads_past_damage_and_foreign_lines(store, author):
    author.create()
    path = store.paths("local").audit
    with store.transaction("local") as transaction:
        transaction.audit.intend(Change("local", "env", "update", {"environment_id": "local"}))
    with path.open("a") as log:
        log.write('{"schema":"greentic.audit.event.v1","event_id":"01JTKW5B4W4Q5Y1CQW93F7S5VH"}\n5\n{"cut\n')
    with store.transaction("local"):
        pass
    assert json.loads(path.read_text().splitlines()[-1])["result"]["kind"] == "interrupted"


def test_the_same_key_and_payload_change_nothing_and_another_payload_conflicts(store, author, hello):
    author.create()
    dep, rev = author.deployed(hello)
    rev2 = author.warm(author.stage(dep, hello))
    first = author.route(dep, (rev, 5000), (rev2, 5000), key="k1")
    author.route(dep, (rev2, 10_000), key="k2")
    before = store.paths("local").environment.read_bytes()
    again = author.route(dep, (rev2, 5000), (rev, 5000), key="k1")  # two splits ago, other order
    assert again == first and store.paths("local").environment.read_bytes() == before
    with pytest.raises(Conflict, match="idempotency key `k1`"):
        author.route(dep, (rev, 10_000), key="k1")
    staged = author.stage(dep, hello, idempotency_key="s")
    assert author.stage(dep, hello, idempotency_key="s") == staged
    with pytest.raises(Conflict):
        author.stage(dep, hello, "http://x/y", idempotency_key="s")
    with pytest.raises(InvalidArgument, match="must not be empty"):
        author.stage(dep, hello, idempotency_key=" ")


def test_a_ledger_keeps_no_more_than_can_be_read(store, author, hello, monkeypatch):
    """A split of thousands of revisions is recorded with each key: some hundred of them were more than a document may have, for good."""
    author.create()
    with store.transaction("local") as transaction:
        ledger = transaction.ledger
    monkeypatch.setattr("greentic.store.ledger.KEEP_BYTES", 4000)
    for number in range(20):
        ledger.record("traffic", "set", "d", f"k{number}", "p", {"x": "y" * 500})
    kept = [e["key"] for e in json.loads(store.paths("local").ledger.read_text())["entries"]]
    assert store.paths("local").ledger.stat().st_size <= 4000 and kept[-1] == "k19" and len(kept) >= 2
    ledger.record("traffic", "set", "d", "huge", "p", {"x": "y" * 5000})
    assert ledger.find("traffic", "set", "d", "huge", "p") is not None


@pytest.mark.parametrize("length", [1024, 1025])
def test_a_key_is_as_long_as_is_kept(length):
    with pytest.raises(InvalidArgument, match="it has 1025 characters") if length > 1024 else contextlib.nullcontext():
        assert checked_key("k" * length)


def test_a_damaged_ledger_says_so_and_a_long_one_is_cut(store, author, hello, monkeypatch):
    author.create()
    dep, rev = author.deployed(hello)
    monkeypatch.setattr("greentic.store.ledger.KEEP_ENTRIES", 2)
    for index in range(4):
        author.route(dep, (rev, 10_000), key=f"n{index}")
    assert [e["key"] for e in json.loads(store.paths("local").ledger.read_text())["entries"]] == ["n2", "n3"]
    store.paths("local").ledger.write_text("{")
    with pytest.raises(StoreError) as error:
        author.route(dep, (rev, 10_000), key="x")
    assert error.value.hint


# -- revisions and keys ---------------------------------------------------------------------------------------------


def test_revision_directories_are_checked_whole(store, author, hello):
    author.create()
    _dep, rev = author.deployed(hello)
    paths, record = store.paths("local"), store.load("local").revision(rev)
    packs = verified_packs(paths, record)
    assert [p.pack_id for p in packs] == ["hello"]
    with pytest.raises(RevisionFault, match="recorded without its bundle"):
        verified_packs(paths, replace(record, pack_list_lock_ref=""))
    with pytest.raises(RevisionFault, match="diverges"):
        verified_packs(paths, replace(record, pack_list=[replace(record.pack_list[0], digest="sha256:00")]))
    for ref in ("../x", "/etc/passwd", ""):
        with pytest.raises(RevisionFault, match="not a valid pack ref"):
            regular_file(paths, ref)
    (paths.root / "link").symlink_to("/etc/passwd")
    (paths.root / "loop").symlink_to("loop")
    with pytest.raises(RevisionFault, match="not a regular file below"):
        regular_file(paths, "link")
    with pytest.raises(RevisionFault, match="does not exist"):
        regular_file(paths, "loop")
    lock = paths.ref(record.pack_list_lock_ref)
    good = lock.read_bytes()
    for damage in (b"{", good.replace(rev.encode(), b"0" * 26)):
        lock.write_bytes(damage)
        with pytest.raises(RevisionFault):
            read_lock(paths, record.pack_list_lock_ref, rev)
    lock.write_bytes(good + b" " * (17 << 20))
    with pytest.raises(RevisionFault, match="larger than"):
        read_lock(paths, record.pack_list_lock_ref, rev)
    lock.write_bytes(good)
    packs[0].path.write_bytes(b"altered")
    with pytest.raises(RevisionFault, match="does not match pinned digest"):
        verified_packs(paths, record)
    for damage, text in (
        (b"{", "config.json"),
        (b'{"schema":"s","pack_id":"p","revision_id":"01JTKW5B4W4Q5Y1CQW93F7S5VH"}', "is for revision"),
    ):
        (paths.root / "config.json").write_bytes(damage)
        with pytest.raises(RevisionFault, match=text):
            read_pack_config(paths, "config.json", rev)


def test_bundles_that_cannot_be_staged_leave_nothing(store, author, hello, tmp_path):
    author.create()
    dep = author.add()
    flipped = bytearray(hello.read_bytes())
    flipped[200] ^= 0xFF
    for name, data in {
        "garbage": b"no",
        "empty": b"",
        "flipped": bytes(flipped),
        "cut": hello.read_bytes()[:2000],
    }.items():
        (tmp_path / name).write_bytes(data)
        try:
            author.stage(dep, tmp_path / name)
        except InvalidArgument as error:
            assert name == "flipped" or str(tmp_path / name) in error.message
    with pytest.raises(InvalidArgument, match="is not a file"):
        author.stage(dep, tmp_path)
    with pytest.raises(Conflict, match="but `bundle_digest` says"):
        author.stage(dep, hello, bundle_digest="sha256:" + "0" * 64)
    assert not any(p.name.startswith(".staging") for p in store.paths("local").revisions.iterdir())


def test_operator_keys(tmp_path, monkeypatch):
    disk, random = RealDisk(), CountingRandom()
    with pytest.raises(OperatorKeyError) as error:
        operator_key.load(disk)
    assert error.value.kind == "operator-key" and "bootstrap" in error.value.hint
    key = operator_key.load_or_generate(disk, random)
    path = operator_key.key_path()
    assert path.stat().st_mode & 0o777 == 0o600 and operator_key.load_or_generate(disk, random) == key
    public = path.with_name("key.pem.pub")
    public.unlink()
    operator_key.load(disk)
    assert public.read_text() == public_pem(key.public)
    for text, reason in (("x", "does not parse"), (public_pem(bytes(31) + b"\x01"), "is stale")):
        public.write_text(text)
        with pytest.raises(OperatorKeyError, match=reason):
            operator_key.load(disk)
    public.unlink()
    path.chmod(0o644)
    with pytest.raises(OperatorKeyError, match="insecure permissions"):
        operator_key.load(disk)
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(OperatorKeyError, match="operator key parse"):
        operator_key.load(disk)
    monkeypatch.setenv("GTC_OPERATOR_KEY_PATH", str(tmp_path / "l" / "k.pem"))
    (tmp_path / "real").mkdir()
    (tmp_path / "l").symlink_to("real")
    with pytest.raises(OperatorKeyError, match="is a symlink"):
        operator_key.load_or_generate(disk, random)
    for make in (lambda p: p.symlink_to("x"), lambda p: p.mkdir(), os.mkfifo):
        target = tmp_path / "real" / f"k{id(make)}.pem"
        make(target)
        monkeypatch.setenv("GTC_OPERATOR_KEY_PATH", str(target))
        with pytest.raises(OperatorKeyError, match="not a regular file"):
            operator_key.load(disk)
    monkeypatch.setenv("GTC_OPERATOR_KEY_PATH", str(tmp_path / "ro" / "k.pem"))
    with pytest.raises(OperatorKeyError, match="operator key io"):
        operator_key.load_or_generate(FullDisk(28), random)


def test_concurrent_key_generation_converges(tmp_path):
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(operator_key.load_or_generate(RealDisk(), _seeded(i))))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


def _seeded(index: int) -> CountingRandom:
    random = CountingRandom()
    random.count = index * 1000
    return random


def test_an_existing_private_key_may_lie_in_version_2(tmp_path, monkeypatch):
    path = tmp_path / "key.pem"
    path.write_text(private_pem(bytes(range(32))))
    path.chmod(0o600)
    monkeypatch.setenv("GTC_OPERATOR_KEY_PATH", str(path))
    assert operator_key.load(RealDisk()).seed == bytes(range(32))
    read_only = tmp_path / "ro"
    read_only.mkdir()
    assert EnvPaths(tmp_path).policies("a", "b") == tmp_path / "billing-policies" / "a" / "b"
    assert DigestMismatch("x").kind == "conflict" and traffic.DEFAULT_OPERATOR == "operator"


# -- what is written is what was checked ----------------------------------------------------------------------------


def test_a_document_that_is_not_valid_is_neither_saved_nor_read(author, store):
    author.create().add()
    env = store.load("local")
    before = store.paths("local").environment.read_bytes()
    wrong = (
        replace(env, schema="greentic.environment.v9"),
        replace(env, host_config=replace(env.host_config, env_id="other")),
    )
    for document in wrong:
        with pytest.raises(SpecViolation), store.transaction("local") as transaction:
            transaction.save(document)
        assert store.paths("local").environment.read_bytes() == before
    with pytest.raises(Conflict, match="the lock is held for env"), store.transaction("local") as transaction:
        transaction.save(replace(env, environment_id="other"))
    store.paths("local").environment.write_bytes(pretty(wrong[1]))
    with pytest.raises(StoreError) as error:
        store.load("local")
    assert "gtc op env doctor local" in error.value.hint


def test_a_share_is_signed_by_a_key_of_the_trust_root_and_read_back(author, store, monkeypatch):
    author.create()
    paths, env = store.paths("local"), store.load("local")
    author.add()
    deployment = store.load("local").bundles[0]
    key, root = operator_key.load(store.disk), store.trust_root("local")
    signed_policy.check_trusted(key, root, paths)
    stranger = SigningKey(bytes(32))
    with pytest.raises(RevenuePolicyError, match=f"operator key `{stranger.key_id}` is not trusted"):
        signed_policy.check_trusted(stranger, root, paths)
    files = Files(store.disk, store.clock, store.random, paths.root / "backups")
    again = signed_policy.write_policy(paths, files, store.clock, key, root, deployment, is_new=False)
    assert again.endswith("v2.json.sig"), "a deployment that is there goes on counting"
    with pytest.raises(RevenuePolicyError, match="does not verify: .*1 signature"):
        signed_policy.write_policy(paths, files, store.clock, stranger, root, deployment, is_new=False)
    directory = paths.policies(deployment.bundle_id, deployment.customer_id)

    class Torn(Files):
        def write(self, path, data, *, mode=0o600):
            super().write(path, data, mode=mode)
            path.unlink()

    with pytest.raises(RevenuePolicyError, match="does not verify: .*No such file"):
        signed_policy.write_policy(
            paths,
            Torn(store.disk, store.clock, store.random, paths.root / "backups"),
            store.clock,
            key,
            root,
            deployment,
            is_new=False,
        )
    assert (directory / "v2.json.sig").is_file() and env.environment_id == "local"


def test_a_projection_is_sealed_anew_with_the_time_of_the_original(author, store):
    env = author.create().context.store.load("local")
    assert seal.resealed(env, store.disk) is env, "one that was never sealed stays as it is"
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="warn"))
    env = store.load("local")
    told = delivery_of(env)
    assert told.seal is not None
    shown = seal.resealed(replace(env, name="for a pod"), store.disk)
    assert delivery_of(shown).generation == told.generation
    again = seal.resealed(replace(env, name="for a pod"), store.disk)
    assert pretty(again) == pretty(shown) != pretty(env)
    assert statement_time(delivery_of(shown).seal) == statement_time(told.seal) != ""
    keys_of = store.trust_root("local").public_keys()
    assert unsealed(shown, delivery_of(shown), keys_of, ()) is None
    assert unsealed(replace(shown, name="changed"), delivery_of(shown), keys_of, ()) is not None


@pytest.mark.parametrize("links", [True, False])
def test_a_bundle_that_lies_elsewhere_is_adopted_with_or_without_hard_links(links, store, tmp_path, monkeypatch):
    data = os.urandom((1 << 20) + 17)
    path = tmp_path / "cached"
    path.write_bytes(data)

    def refuse(*words: object, **more: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    store.paths("prod").revisions.mkdir(parents=True)
    with StagingArea(store.paths("prod"), store.disk, "R", "t") as area, path.open("rb") as file:
        file.seek(5)
        area.adopt(path, file)
        found = next(p for p in area.directory.iterdir() if p.is_file() and p.stat().st_size == len(data))
        assert found.read_bytes() == data and file.tell() == 5
        assert (found.stat().st_ino == path.stat().st_ino) == links
