"""The rules of what comes onto a disk, each at its edge: what is told, what the kernel is asked for, what is too much, what may go."""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import os
import random as chance
import shutil
import socket
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from conftest import Author, make_pack
from greentic.activate.activation import published_config
from greentic.author.bundle_build import build_bundle
from greentic.bundle import contents as bundle
from greentic.bundle.squashfs_reader import SquashImage
from greentic.bundle.squashfs_writer import BLOCK_SIZE, write_image
from greentic.distribute.bundle_cache import BundleCache
from greentic.distribute.fetch import Fetched, FetchLimits
from greentic.ground import optional
from greentic.ground.disk import RealDisk
from greentic.ground.documents import from_json, replace
from greentic.ground.errors import (
    BootError,
    Conflict,
    DigestMismatch,
    FetchError,
    InvalidArgument,
    IoError,
    MalformedArtifact,
    NotFound,
    UntrustedBundle,
)
from greentic.ground.least_used import Item
from greentic.materialize import progress, prune, pull, sandbox, seed, shared_bundles, staging, tree, trusted
from greentic.materialize.placed import RevisionFault, file_digest, read_lock, read_pack_config, survey, verified_packs
from greentic.materialize.prune import needed_digests
from greentic.materialize.remembered import KEPT_LIST, SEEN, Memory, Recalled, Seen, memory_of
from greentic.materialize.retention import DAY, Goes, Needed, Rules, There, needed_revisions, plan
from greentic.materialize.seed import place_seed, read_seed
from greentic.materialize.serving_plan import Fault, Scope, ServingPlan
from greentic.materialize.staging import StagingArea, copy_private
from greentic.materialize.trusted import BelievedList, Examiner, believed_list
from greentic.materialize.unpack import unpack
from greentic.model.delivery import Delivery, SignaturePolicy, with_delivery
from greentic.model.environment import HostConfig, Retention, Revision, Revocation, new_environment
from greentic.net.terms import Terms
from greentic.store.environments import EnvironmentStore
from greentic.store.in_use import InUse
from greentic.store.layout import EnvPaths
from greentic.store.proof_key import PROOF_KEY
from greentic.telemetry.log import OperatorLog
from greentic.telemetry.tallies import TALLIES
from greentic.trust.gate import pin
from greentic.trust.keys import public_pem
from simulators import CountingRandom, FakeClock, FullDisk
from test_model_rules import REV, REV2, REV3, deployment, env, revision, split
from test_trust_policy import KEY, NOW, OTHER, listed

HEX = hashlib.sha256(b"x").hexdigest()


# -- what the log says ----------------------------------------------------------------------------------------------


class At:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_download_is_told_when_it_begins_and_every_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, clock = io.StringIO(), At()
    monkeypatch.setattr(progress, "CLOCK", clock)
    told = progress.LoggedPull(OperatorLog(tmp_path, FakeClock(), stderr=shown))

    def new() -> list[str]:
        lines = [line.partition("pull")[2].strip(" :-") for line in shown.getvalue().splitlines()]
        shown.seek(0)
        shown.truncate()
        return lines

    moved = told.pulling("https://a.test/b")
    assert len(new()) == 1
    for at, total, expected in (
        (104.9, None, None), (105.0, None, "https://a.test/b: 3.0 MiB"), (109.9, None, None), (110.5, 4 << 20, "https://a.test/b: 3.0 MiB of 4.0 MiB"),
    ):  # fmt: skip
        clock.now = at
        moved(3 << 20, total)
        found = new()
        assert len(found) == (expected is not None) and all(line.endswith(str(expected)) for line in found)
    one = cast("Revision", type("One", (), {"revision_id": "R1", "bundle_source_uri": "https://user:word@a.test/b"}))
    told.passed_over(one, "https://b.test", "it is busy")
    told.here_already(one)
    told.resumed(one, Fetched("d", 9, 4, 5))
    lines = new()
    assert len(lines) == 3 and "`https://b.test`" in lines[0] and "R1" in lines[0] and "it is busy" in lines[0]
    assert "R1" in lines[1] and "4 bytes fetched, 5 of 9 were here" in lines[2] and "word" not in lines[2]


def test_pulls_are_counted_by_where_the_bundle_was() -> None:
    names = ("greentic_pulled_bytes", "greentic_pull_resumes", "greentic_pull_resumed_bytes")

    def counted() -> list[float]:
        return [*(TALLIES.of("greentic_pulls", (one,)) for one in ("cache", "source")), *(TALLIES.of(n) for n in names)]

    for fetched, more in (
        (None, [1, 0, 0, 0, 0]),
        (Fetched("d", 9, 9, 0), [0, 1, 9, 0, 0]),
        (Fetched("d", 9, 4, 5), [0, 1, 4, 1, 5]),
    ):
        before = counted()
        pull._count(fetched)
        assert [now - then for now, then in zip(counted(), before, strict=True)] == more


class Heard:
    """What pulling told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def pulling(self, reference: str) -> Callable[[int, int | None], None]:
        self.told.append(("pulling", reference))
        return lambda done, total: None

    def passed_over(self, revision: Revision, reference: str, why: str) -> None:
        self.told.append(("passed over", reference))

    def here_already(self, revision: Revision) -> None:
        self.told.append("here already")

    def resumed(self, revision: Revision, fetched: Fetched) -> None:
        self.told.append(("resumed", fetched.resumed))

    def close(self) -> None:
        self.told.append("closed")

    def heard(self) -> list[object]:
        told, self.told = self.told, []
        return told


class Resuming(BundleCache):
    """Says of what it fetches that a part was there."""

    def obtain(self, *words: Any) -> Any:
        found = super().obtain(*words)
        return found._replace(fetched=found.fetched and found.fetched._replace(resumed=5))


def test_a_bundle_is_pulled_once_and_comes_from_the_cache_then(author: Author, hello: Path, tmp_path: Path) -> None:
    author.create().deployed(hello, hello.as_uri())
    store, heard = author.context.store, Heard()
    document, paths = store.load("local"), store.paths("local")
    (one,) = document.revisions
    means = pull.Means(store, BundleCache(tmp_path / "cache"), [], FetchLimits(), heard)
    pulled = ("pulling", hello.as_uri())
    for own, events in (
        (means, [pulled]), (means, ["here already"]), (means._replace(terms=Terms(offline=True)), ["here already"]), (means._replace(cache=None), [pulled]),
        (means._replace(cache=Resuming(tmp_path / "other")), [pulled, ("resumed", 5)]), (means._replace(cache=Resuming(tmp_path / "other")), ["here already"]),
    ):  # fmt: skip
        author.strip()
        packs = pull.materialize(document, one, own)
        assert heard.heard() == events and verified_packs(paths, one) == list(packs)
        assert [p.name for p in paths.revisions.iterdir()] == [one.revision_id]
    moved = replace(one, bundle_source_uri=f"file:///none/{hello.name}")
    pull.materialize(document, moved, means._replace(cache=None, mirrors=[f"file://{hello.parent}/{{name}}"]))
    gone = str(moved.bundle_source_uri)
    assert heard.heard() == [("pulling", gone), ("passed over", gone), pulled]


def test_what_another_process_brought_to_its_place_meanwhile_stays_there(
    author: Author, hello: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was moved aside while the other process loaded it, for the same files."""
    author.create().deployed(hello, hello.as_uri())
    author.strip()
    store = author.context.store
    document, paths = store.load("local"), store.paths("local")
    (one,) = document.revisions
    means, real = pull.Means(store, None, [], FetchLimits(), Heard()), staging.StagingArea.fill
    placed: list[int] = []

    def filled(area: staging.StagingArea, *words: Any, **more: Any) -> staging.Staged:
        found = real(area, *words, **more)
        if not placed:
            placed.append(0)
            pull.materialize(document, one, means)
            placed[0] = paths.revision(one.revision_id).stat().st_ino
        return found

    monkeypatch.setattr(staging.StagingArea, "fill", filled)
    packs = pull.materialize(document, one, means)
    assert placed == [paths.revision(one.revision_id).stat().st_ino] and verified_packs(paths, one) == list(packs)
    assert [p.name for p in paths.revisions.iterdir()] == [one.revision_id]
    (pack,) = packs
    pack.path.chmod(0o600)
    pack.path.write_bytes(b"damaged")
    assert list(pull.materialize(document, one, means)) == verified_packs(paths, one), "what is not whole is replaced"


class FullCache(BundleCache):
    def obtain(self, *words: Any) -> Any:
        raise OSError(28, "No space left on device", str(self.directory))


def test_threat_optional_fatal_a_cache_that_takes_nothing(
    author: Author, hello: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache on a full disk, or one that somebody deleted while the worker runs, ended the boot and was told as the store."""
    author.create().deployed(hello, hello.as_uri())
    store, heard = author.context.store, Heard()
    document = store.load("local")
    (one,) = document.revisions
    deleted = BundleCache(tmp_path / "deleted")
    shutil.rmtree(deleted.directory)
    for cache, why in (
        (FullCache(tmp_path / "full"), "No space left on device"),
        (deleted, "No such file or directory"),
    ):
        optional.forget()
        author.strip()
        means = pull.Means(store, cache, [], FetchLimits(), heard)
        assert pull.materialize(document, one, means) == tuple(verified_packs(store.paths("local"), one) or ())
        assert heard.heard() == [("pulling", hello.as_uri())]
        (told,) = [text for text in optional.lacking() if "the cache of bundles" in text]
        assert told.startswith(f"done without the cache of bundles: `{cache.directory}") and told.endswith(why)
    optional.forget()


def test_a_bundle_that_is_not_what_the_revision_records_leaves_nothing(
    author: Author, hello: Path, tmp_path: Path
) -> None:
    author.create().deployed(hello, hello.as_uri())
    store = author.context.store
    document = store.load("local")
    (one,) = document.revisions
    author.strip()
    means = pull.Means(store, None, [], FetchLimits(), Heard())
    full = means._replace(store=EnvironmentStore(store.root, disk=FullDisk(28), clock=store.clock, random=store.random))
    for wrong, own, step, cause in (
        (replace(one, pack_list_lock_ref="other"), means, "materializing", Conflict), (replace(one, deployment_id=REV2), means, "fetching", NotFound),
        (replace(one, pack_list=[replace(one.pack_list[0], digest="sha256:0")]), means, "materializing", RevisionFault),
        (replace(one, pack_config_refs=["x"]), means, "materializing", RevisionFault), (replace(one, bundle_digest=f"sha256:{HEX}"), means, "materializing", DigestMismatch),
        (replace(one, bundle_digest=f"sha256:{HEX}"), means._replace(cache=BundleCache(tmp_path / "cache")), "materializing", DigestMismatch),
        (replace(one, bundle_source_uri="file:///none"), means, "fetching", FetchError), (one, means._replace(terms=Terms(offline=True)), "fetching", FetchError),
        (one, full, "materializing", IoError),
    ):  # fmt: skip
        with pytest.raises(BootError, match=step) as error:
            pull.materialize(document, wrong, own)
        assert isinstance(error.value.__cause__, cause) and str(error.value.message).startswith(step)
        assert not list(store.paths("local").revisions.iterdir())


@pytest.mark.parametrize("other", [f"sha256:{HEX}", "", "sha256:", "../../etc/passwd"])
def test_threat_pinned_subset_packs_beside_another_bundle_than_the_pinned_one_are_not_used(
    author: Author, hello: Path, other: str
) -> None:
    """Whoever changes the pin of a revision that was materialized before means other bytes, though its list names the same packs."""
    author.create().deployed(hello, hello.as_uri())
    store = author.context.store
    document, paths = store.load("local"), store.paths("local")
    one = document.revisions[0]
    packs = tuple(verified_packs(paths, one))
    held = {one.revision_id: (one.bundle_digest, packs)}
    assert survey(paths, [one], held) == survey(paths, [one], {}) == {one.revision_id: packs}
    changed = replace(one, bundle_digest=other)
    for at_hand in ({}, held):
        fault = survey(paths, [changed], at_hand)[one.revision_id]
        assert isinstance(fault, RevisionFault) and "beside another bundle" in fault.message
    with pytest.raises(BootError, match="materializing") as error:
        pull.materialize(document, changed, pull.Means(store, None, [], FetchLimits(), Heard()))
    assert isinstance(error.value.__cause__, DigestMismatch)
    assert survey(paths, [one], {}) == {one.revision_id: packs}, "what is refused leaves what lies there"
    (paths.revision(one.revision_id) / "bundle.gtbundle").unlink()
    assert survey(paths, [changed], {}) == {one.revision_id: packs}, "stores of other programs may have none"


def test_threat_pinned_subset_a_revision_that_lists_no_pack_is_pinned_by_its_bundle(
    author: Author, hello: Path
) -> None:
    """Another program's document may leave the list empty: the bundle's digest holds for its packs then, and a lock alone for nothing."""
    author.create().deployed(hello, hello.as_uri())
    store = author.context.store
    document, paths = store.load("local"), store.paths("local")
    one = replace(document.revisions[0], pack_list=[])
    author.strip()
    packs = pull.materialize(document, one, pull.Means(store, None, [], FetchLimits(), Heard()))
    assert verified_packs(paths, one) == list(packs) == verified_packs(paths, document.revisions[0])
    lock_path = paths.ref(one.pack_list_lock_ref)
    honest = json.loads(lock_path.read_bytes())
    (first,) = honest["packs"]
    (paths.ref(first["path"]).parent / "more.gtpack").write_bytes(b"more")
    more = {
        "pack_id": "more",
        "path": first["path"].replace("hello", "more"),
        "digest": f"sha256:{hashlib.sha256(b'more').hexdigest()}",
    }
    lock_path.chmod(0o600)
    for names in ([first, more], [more], [first | {"digest": f"sha256:{HEX}"}]):
        lock_path.write_text(json.dumps(honest | {"packs": names}))
        with pytest.raises(RevisionFault, match="diverges from its lock: "):
            verified_packs(paths, one)
    lock_path.write_text(json.dumps(honest))
    with pytest.raises(RevisionFault, match="the packs of .* cannot be compared: .* does not match"):
        verified_packs(paths, replace(one, bundle_digest=f"sha256:{HEX}"))
    (paths.revision(one.revision_id) / "bundle.gtbundle").unlink()
    with pytest.raises(RevisionFault, match="the packs of .* cannot be compared: "):
        verified_packs(paths, one)


def test_threat_pinned_subset_a_revision_that_lists_nothing_has_the_configurations_of_its_bundle(
    author: Author, tmp_path: Path
) -> None:
    """As packs, so configurations: a list that is left out leaves it to the bundle's digest, and to no file on the disk."""
    config = tmp_path / "s" / "state" / "pack-configs" / "p.json"
    config.parent.mkdir(parents=True)
    (tmp_path / "s" / "packs").mkdir()
    (tmp_path / "s" / "bundle.yaml").write_text("bundle_id: bot\n")
    (tmp_path / "s" / "packs" / "p.gtpack").write_bytes(make_pack("p", {}))
    told = {"schema": "greentic.pack-config-input.v1", "pack_id": "p", "env_id": "local", "bundle_id": "bot"}
    config.write_text(json.dumps(told | {"non_secret": {"of": "p"}}))
    bundle = tmp_path / "bot.gtbundle"
    build_bundle(tmp_path / "s", bundle)
    author.create().deployed(bundle, bundle.as_uri(), bundle_id="bot")
    store = author.context.store
    document, paths = store.load("local"), store.paths("local")
    (staged,), (deployment,) = document.revisions, document.bundles
    one = replace(staged, pack_list=[], pack_config_refs=[])
    author.strip()
    means = pull.Means(store, None, [], FetchLimits(), Heard())
    packs = pull.materialize(document, one, means)
    assert verified_packs(paths, one) == list(packs) == verified_packs(paths, staged)
    assert published_config(paths, deployment, one) == {"p": {"of": "p"}} == published_config(paths, deployment, staged)
    own = paths.revision(one.revision_id) / "pack-configs" / "p.json"
    honest = own.read_bytes()
    (own.parent / "q.json").write_bytes(honest)
    with pytest.raises(RevisionFault, match="has other pack configurations beside it than its bundle has"):
        verified_packs(paths, one)
    (own.parent / "q.json").unlink()
    own.chmod(0o600)
    own.write_bytes(honest.replace(b'"of": "p"', b'"of": "z"'))
    with pytest.raises(RevisionFault, match="is not the configuration that the pinned bundle carries"):
        verified_packs(paths, one)
    own.unlink()
    with pytest.raises(RevisionFault, match="has other pack configurations"):
        verified_packs(paths, one)
    shutil.rmtree(paths.revision(one.revision_id))
    with pytest.raises(BootError) as refused:  # packs are listed, so that the other list is not left out but short
        pull.materialize(document, replace(staged, pack_config_refs=[]), means)
    assert "configures other packs than the revision records" in str(refused.value.__cause__)


def test_a_plan_without_pulls_asks_nobody_and_guards_nothing(tmp_path: Path) -> None:
    means = pull.Means(EnvironmentStore(tmp_path), None, [], FetchLimits(), cast("Any", None))
    found = pull.pull(ServingPlan(env(), {}, (), {}, Scope()), means)
    assert found == pull.Obtained({}, {}, "landlock: nothing was fetched")


def test_a_fault_says_whether_it_passes_and_why() -> None:
    away = BootError("fetching")
    away.__cause__ = NotFound("nobody has it")
    wrong = BootError("fetching")
    wrong.__cause__ = DigestMismatch("other bytes")
    assert [Fault(r, REV, away).passing for r in ("refused", "absent", "unreachable", "broken")] == [False, False, True, True]  # fmt: skip
    assert (Fault("unreachable", REV, away).why, Fault("unreachable", REV, wrong).why) == ("unreachable", "digest")
    assert "nobody has it" in Fault("unreachable", REV, away).text
    assert Fault("absent", REV, BootError("no source")).text == BootError("no source").message


# -- what the kernel is asked for -----------------------------------------------------------------------------------


class Kernel:
    """Takes down what it is asked for. `refuses` is the number of a call that fails."""

    def __init__(self, version: int, refuses: int = 0) -> None:
        self.version, self.refuses = version, refuses
        self.rights = 0
        self.allowed: dict[str, int] = {}
        self.calls: list[object] = []
        self.ruleset = -1

    def syscall(self, number: int, *words: Any) -> int:
        if number == self.refuses and words[0] is not None:
            ctypes.set_errno(1)
            return -1
        if number == 444 and words[0] is None:
            assert (words[1].value, words[2].value) == (0, 1)
            return self.version
        if number == 444:
            self.rights = int.from_bytes(words[0], "little")
            assert (words[1].value, words[2].value) == (8, 0)
            self.ruleset = os.open("/dev/null", os.O_RDONLY)
            return self.ruleset
        assert words[0] == self.ruleset
        if number == 445:
            what, place = int.from_bytes(words[2][:8], "little"), int.from_bytes(words[2][8:], "little")
            assert words[1] == 1 and len(words[2]) == 12 and words[3].value == 0
            self.allowed[str(Path(f"/proc/self/fd/{place}").readlink())] = what
        else:
            assert words[1].value == 0
            self.calls.append(number)
        return 0

    def prctl(self, *words: int) -> int:
        self.calls.append(words)
        return -1 if self.refuses == words[0] else 0


WRITE_FILE, REFER, TRUNCATE = 1 << 1, 1 << 13, 1 << 14
REMOVE_AND_MAKE = 0b1_1111_1111 << 4
"""Removing a directory or file; making a device, directory, file, socket, pipe, block device, link."""


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_kernel_is_asked_to_let_writes_through_below_these_directories_alone(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, before = Kernel(version), descriptors()
    monkeypatch.setattr(sandbox, "_libc", kernel)
    directories = [tmp_path / "a", tmp_path / "deep" / "b"]
    told = sandbox.restrict_writes(directories)
    truncate = TRUNCATE if version >= 3 else 0
    assert kernel.rights == WRITE_FILE | REMOVE_AND_MAKE | REFER | truncate
    assert kernel.allowed == {str(one): kernel.rights for one in directories} | {"/dev/null": WRITE_FILE | truncate}
    assert kernel.calls == [(38, 1, 0, 0, 0), 446]  # no new privileges first, or the rest is refused
    assert "2 directories only" in told and f"interface {version}" in told and descriptors() == before


@pytest.mark.parametrize("refuses", [38, 444, 445, 446])
def test_what_the_kernel_refuses_is_told(refuses: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, before = Kernel(4, refuses), descriptors()
    monkeypatch.setattr(sandbox, "_libc", kernel)
    told = sandbox.restrict_writes([tmp_path])
    assert told.startswith("landlock: refused (") and descriptors() == before
    assert 446 not in kernel.calls and kernel.allowed.get("/dev/null", 0) == (0 if refuses in (444, 445) else 0x4002)


def test_a_kernel_that_cannot_is_asked_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (-1, 0, 1):
        kernel = Kernel(version)
        monkeypatch.setattr(sandbox, "_libc", kernel)
        assert sandbox.landlock_version() == max(version, 0)
        assert "not available" in sandbox.restrict_writes([]) and kernel.ruleset == -1
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    monkeypatch.setattr(sandbox, "_libc", None)
    assert sandbox.landlock_version() == 0


def test_core_files_are_forbidden_and_what_is_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(sandbox.resource, "getrlimit", lambda which: (5, 7))
    monkeypatch.setattr(sandbox.resource, "setrlimit", lambda which, limits: asked.append((which, limits)))
    assert sandbox.forbid_core_files() == "limits: no core files"
    assert asked == [(sandbox.resource.RLIMIT_CORE, (0, 7))]

    def refuse(*words: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(sandbox.resource, "setrlimit", refuse)
    assert sandbox.forbid_core_files() == "limits: refused (not allowed)"


# -- seeds and trees ------------------------------------------------------------------------------------------------


def test_a_seed_is_read_up_to_its_limits_and_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "seed", tmp_path / "env"
    (source / "deep").mkdir(parents=True)
    for number in range(3):
        (source / "deep" / str(number)).write_bytes(b"12345")
    monkeypatch.setattr(seed, "MAX_FILE_BYTES", 5)
    monkeypatch.setattr(seed, "MAX_FILES", 3)
    found = read_seed(source, target)
    assert place_seed(found, target) == 3 and found.file("deep/1") == b"12345" and found.file("1") is None
    assert [p.read_bytes() for p in sorted((target / "deep").iterdir())] == [b"12345"] * 3
    assert {p.stat().st_mode & 0o777 for p in (target / "deep").iterdir()} == {0o600}
    assert place_seed(found, target) == 3, "what is there already is written over"
    monkeypatch.setattr(seed, "MAX_FILES", 2)
    with pytest.raises(BootError, match="more than 2 files"):
        read_seed(source, target)
    monkeypatch.setattr(seed, "MAX_FILES", 3)
    monkeypatch.setattr(seed, "MAX_FILE_BYTES", 4)
    with pytest.raises(BootError, match="larger than 4 bytes"):
        read_seed(source, target)


def test_a_seed_brings_nothing_that_is_the_workers_own_or_lies_outside(tmp_path: Path) -> None:
    source = tmp_path / "seed"
    (source / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("x")
    for name in (SEEN, KEPT_LIST, PROOF_KEY, "..data", "a", f"deep/{SEEN}"):
        (source / name).write_text("x")
    (source / "directory").symlink_to(tmp_path / "outside")
    (source / "file").symlink_to(tmp_path / "outside" / "f")
    (source / "again").symlink_to("deep")
    assert [str(name) for name, _ in read_seed(source, tmp_path / "env").files] == ["a", f"deep/{SEEN}"]


@pytest.mark.parametrize(("source", "target"), [("a", "a"), ("a/b", "a"), ("a", "a/b"), ("link", "a")])
def test_a_seed_and_what_it_is_for_do_not_overlap(source: str, target: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").touch()
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(BootError, match="overlap"):
        read_seed(tmp_path / source, tmp_path / target)


def test_a_seed_that_cannot_be_placed_says_where(tmp_path: Path) -> None:
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "f").touch()
    (tmp_path / "env").touch()
    with pytest.raises(BootError, match=r"env/f` cannot be written"):
        place_seed(read_seed(tmp_path / "seed", tmp_path / "env"), tmp_path / "env")


def test_the_digest_of_a_tree_can_be_computed_by_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "bundle"
    (root / "d" / "e").mkdir(parents=True)
    for name, data, mode in (("d/e/f", b"one", 0o644), ("d.p", b"two", 0o755), ("g", b"", 0o654)):
        (root / name).write_bytes(data)
        (root / name).chmod(mode)
    (root / "l").symlink_to("d/../g")

    def sha256(data: bytes) -> str:
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    entries = [
        ("directory", "d", ""), ("program", "d.p", sha256(b"two")), ("directory", "d/e", ""), ("file", "d/e/f", "sha256:known"),
        ("file", "g", sha256(b"")), ("link", "l", "d/../g"),
    ]  # fmt: skip
    expected = sha256("".join(f"{kind}\0{path}\0{holds}\0" for kind, path, holds in entries).encode())
    before = descriptors()
    assert tree.tree_digest(root, {"d/e/f": "sha256:known"}) == expected and descriptors() == before
    monkeypatch.setattr(tree, "MAX_ENTRIES", len(entries))
    assert tree.tree_digest(root, {"d/e/f": "sha256:known"}) == expected
    monkeypatch.setattr(tree, "MAX_ENTRIES", len(entries) - 1)
    assert tree.tree_digest(root, {}) is None
    monkeypatch.undo()
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(root)
        listening.bind("s")
        assert tree.tree_digest(root, {}) is None
    (root / "s").unlink()
    assert tree.tree_digest(root, {}) not in (None, expected) and tree.tree_digest(tmp_path / "none", {}) is None
    with pytest.raises(OSError, match="symbolic link"):
        tree._digest(root / "l")  # one that became a link meanwhile is not followed


def test_a_seed_is_on_stable_storage_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(seed, "replace_file", lambda path, data, mode, *, durable=False: asked.append(durable))
    place_seed(seed.Seed(((Path("a"), b"1"), (Path("b"), b"2"))), tmp_path / "env")
    assert asked == [True, True]


# -- unpacking and staging ------------------------------------------------------------------------------------------


def test_an_image_is_unpacked_as_it_was_laid_out(tmp_path: Path) -> None:
    source, noise = tmp_path / "in", chance.Random(7).randbytes
    files = {
        "packs/stored.gtpack": noise(3 * BLOCK_SIZE + 99), "packs/mixed.gtpack": noise(BLOCK_SIZE) + bytes(BLOCK_SIZE) + b"x" * 3 * BLOCK_SIZE,
        "packs/small.gtpack": b"pack", "packs/none.gtpack": b"", "large": noise(20 * BLOCK_SIZE), "squeezed": b"ab" * 12 * BLOCK_SIZE, "tail": b"t" * 300,
        "d/program": b"#!", "holes": bytes(2 * BLOCK_SIZE + 5) + noise(BLOCK_SIZE),
    }  # fmt: skip
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    (source / "d" / "program").chmod(0o755)
    (source / "link").symlink_to("d/program")
    with (tmp_path / "image").open("w+b") as image:
        write_image(source, image)
        image.flush()
        (tmp_path / "out").mkdir()
        with pin(image) as verified:
            opened = descriptors()
            digests = unpack(bundle.listed(verified), tmp_path / "out")
            assert descriptors() == opened
    out = tmp_path / "out"
    assert {
        p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file() and not p.is_symlink()
    } == files
    assert digests == {
        name: f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in files.items() if name.endswith("pack")
    }
    assert (out / "link").readlink() == Path("d/program")
    modes = {p.name: p.stat().st_mode & 0o777 for p in out.rglob("*")}
    assert (modes["program"], modes["tail"], modes["d"], modes["stored.gtpack"]) == (0o755, 0o644, 0o755, 0o644)


def test_a_fragment_that_files_share_is_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, noise = tmp_path / "in", chance.Random(3).randbytes
    source.mkdir()
    files = {f"{n:02}": noise((n % 2) * BLOCK_SIZE + 40_000 + n) for n in range(10)}
    for name, data in files.items():
        (source / name).write_bytes(data)
    read: list[int] = []
    real = SquashImage.fragment_data
    monkeypatch.setattr(
        SquashImage, "fragment_data", lambda self, block: (read.append(block.start), real(self, block))[1]
    )
    (tmp_path / "out").mkdir()
    with (tmp_path / "image").open("w+b") as image:
        write_image(source, image)
        image.flush()
        with pin(image) as verified:
            contents_ = bundle.listed(verified)
            unpack(contents_, tmp_path / "out")
    fragments = {block.start for entry in contents_.entries for block in entry.blocks if block.inflated}
    assert sorted(read) == sorted(fragments) and len(fragments) > 2
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == files


@pytest.mark.parametrize("name", ["d", "file", "link"])
def test_names_that_the_file_system_takes_for_one_are_told_as_that(tmp_path: Path, name: str) -> None:
    """A file system that cannot tell `Bot` from `bot` said that a file exists, in a directory that was new."""
    source = tmp_path / "in"
    (source / "d").mkdir(parents=True)
    (source / "file").write_bytes(b"1")
    (source / "link").symlink_to("file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"what came first under that name")
    opened = descriptors()
    with (tmp_path / "image").open("w+b") as image:
        write_image(source, image)
        image.flush()
        with (
            pin(image) as verified,
            pytest.raises(MalformedArtifact, match=f"`{name}` of the bundle stands") as refused,
        ):
            unpack(bundle.listed(verified), tmp_path / "out")
    assert refused.value.hint is not None and "upper and lower case" in refused.value.hint and descriptors() == opened


def area(tmp_path: Path) -> StagingArea:
    return StagingArea(EnvPaths(tmp_path / "env"), RealDisk(), REV, "00")


def test_what_is_not_placed_is_deleted_and_nothing_stays_open(tmp_path: Path) -> None:
    before, built = descriptors(), area(tmp_path)
    with built:
        assert built.directory.stat().st_mode & 0o777 == 0o700
        with built.create_bundle_file() as file:
            file.write(b"x")
        assert (built.directory / "bundle.gtbundle").stat().st_mode & 0o777 == 0o600
    assert not built.directory.exists() and descriptors() == before


@pytest.mark.parametrize("gone", ["unlocked", "other"])
def test_a_staging_directory_that_was_swept_before_it_was_locked_is_made_again(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, built, locked = descriptors(), area(tmp_path), list[int]()
    real: Callable[[int], None] = staging.exclusive

    def swept(fd: int) -> None:
        if not locked:
            built.directory.rename(built.directory.with_name("swept"))
            if gone == "other":
                built.directory.mkdir()
        locked.append(fd)
        real(fd)

    monkeypatch.setattr(staging, "exclusive", swept)
    with built:
        assert len(locked) == 2 and built.directory.is_dir() and descriptors() == before + 1
    assert descriptors() == before


def test_a_bundle_is_staged_with_its_lock_its_versions_and_its_configurations(tmp_path: Path) -> None:
    source = tmp_path / "source"
    configs = source / "state" / "pack-configs"
    configs.mkdir(parents=True)
    (source / "packs").mkdir()
    (source / "bundle.yaml").write_text("bundle_id: bot\n")
    packs = {"a": make_pack("a", {}), "b": make_pack("b", {}, version="two"), "c": b"loads never"}
    for name, data in packs.items():
        (source / "packs" / f"{name}.gtpack").write_bytes(data)
    for name in ("a", "b"):
        told = {
            "schema": "greentic.pack-config-input.v1",
            "pack_id": name,
            "env_id": "local",
            "bundle_id": "bot",
            "non_secret": {"of": name},
        }
        (configs / f"{name}.json").write_text(json.dumps(told))
    build_bundle(source, tmp_path / "b.gtbundle")
    paths, disk = EnvPaths(tmp_path / "env"), RealDisk()
    elsewhere = pytest.raises(InvalidArgument, match="env_id `local` does not match")
    with (tmp_path / "b.gtbundle").open("rb") as file, pin(file) as verified, area(tmp_path) as built, elsewhere:
        built.fill(verified, env_id="other", bundle_id="bot", shown_as="b")
    with (tmp_path / "b.gtbundle").open("rb") as file, pin(file) as verified, area(tmp_path) as built:
        built.adopt(tmp_path / "b.gtbundle", file)
        staged = built.fill(verified, env_id="local", bundle_id="bot", shown_as="b")
        staging.place(built, paths, disk)
    assert staged.versions == {"a": "1.0.0"} and staged.digest == file_digest(tmp_path / "b.gtbundle")
    assert [(p.pack_id, p.digest) for p in staged.lock.packs] == [
        (name, f"sha256:{hashlib.sha256(data).hexdigest()}") for name, data in packs.items()
    ]
    assert staged.config_refs == [f"revisions/{REV}/pack-configs/{name}.json" for name in ("a", "b")]
    assert [read_pack_config(paths, ref, REV).non_secret for ref in staged.config_refs] == [{"of": "a"}, {"of": "b"}]
    assert read_lock(paths, f"revisions/{REV}/pack-list.lock", REV) == staged.lock
    told = revision(
        env_id="local", bundle_digest=staged.digest, pack_config_refs=staged.config_refs,
        pack_list=[{"pack_id": p.pack_id, "version": "1.0.0", "digest": p.digest} for p in staged.lock.packs],
    )  # fmt: skip
    one = from_json(Revision, told)
    assert [p.pack_id for p in verified_packs(paths, one)] == ["a", "b", "c"]
    with pytest.raises(RevisionFault, match="records other pack configurations"):
        verified_packs(paths, replace(one, pack_config_refs=staged.config_refs[:1]))
    second = paths.ref(staged.config_refs[1])
    second.write_bytes(second.read_bytes().replace(b'"of": "b"', b'"of": "z"'))
    with pytest.raises(RevisionFault, match=r"b.json` is not the configuration that the pinned bundle carries"):
        verified_packs(paths, one)
    (paths.revision(REV) / "bundle.gtbundle").write_bytes(b"another")
    with pytest.raises(RevisionFault, match="cannot be compared"):
        verified_packs(paths, one)
    (tmp_path / "no").write_bytes(b"no bundle")
    wrong = pytest.raises(MalformedArtifact, match="extract bundle `shown`: ")
    with (tmp_path / "no").open("rb") as file, pin(file) as verified, area(tmp_path) as built, wrong:
        built.fill(verified, env_id="local", bundle_id="bot", shown_as="shown")


@pytest.mark.parametrize("dies", ["rename", "sync", None])
def test_a_revision_that_was_there_comes_back_if_the_new_one_cannot_be_placed(dies: str | None, tmp_path: Path) -> None:
    paths = EnvPaths(tmp_path / "env")

    class Full(RealDisk):
        def rename(self, source: Path, target: Path) -> None:
            if dies == "rename" and target == paths.revision(REV) and "staging" in source.name:
                raise OSError(28, "No space left on device")
            super().rename(source, target)

        def sync_directory(self, path: Path) -> None:
            if dies == "sync":
                raise OSError(5, "Input/output error")
            super().sync_directory(path)

    paths.revision(REV).mkdir(parents=True)
    (paths.revision(REV) / "old").touch()
    with area(tmp_path) as built:
        (built.directory / "new").touch()
        if dies is None:
            staging.place(built, paths, Full())
        else:
            with pytest.raises(OSError, match="No space|Input"):
                staging.place(built, paths, Full())
    assert [p.name for p in paths.revision(REV).iterdir()] == ["old" if dies == "rename" else "new"]
    assert sorted(p.name for p in paths.revisions.iterdir()) == [REV, *([f"{REV}.bak"] if dies == "sync" else [])]


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 3])
def test_an_operators_bundle_is_copied_whole(size: int, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(data := chance.Random(size).randbytes(size))
    with (tmp_path / "target").open("wb") as file:
        copy_private(tmp_path / "source", file)
        assert (tmp_path / "target").read_bytes() == data
        with pytest.raises(InvalidArgument, match="is not a file"):
            copy_private(tmp_path, file)


# -- what is remembered ---------------------------------------------------------------------------------------------


def test_what_was_seen_is_kept_twice_for_this_user_alone(tmp_path: Path) -> None:
    memory = memory_of(EnvPaths(tmp_path / "env"), tmp_path / "state")
    assert memory.recall().seen == Seen(0, 0) and not memory.recall().lists
    assert memory.remember(Seen(3), None) == () and memory.recall().seen == Seen(3, 0)
    assert len(memory.places) == 2 and memory.places[1].parent == tmp_path / "state" / "seen"
    for place in memory.places:
        assert [p.name for p in place.iterdir()] == [SEEN] and place.stat().st_mode & 0o777 == 0o700
        assert (place / SEEN).stat().st_mode & 0o777 == 0o600 and json.loads((place / SEEN).read_bytes())
    assert memory.remember(Seen(3, 2), b"listed") == () and memory.remember(Seen(4, 2), None) == ()
    found = memory.recall()
    assert found == (Seen(4, 2), tuple((place / KEPT_LIST, b"listed") for place in memory.places), ())
    written = [(p, p.stat().st_ino) for place in memory.places for p in sorted(place.iterdir())]
    memory.remember(Seen(4, 2), b"listed")
    assert [(p, p.stat().st_ino) for p, _ in written] == written, "what is the same is not written again"
    memory.remember(Seen(4, 2), b"listed!")
    assert [data for _, data in memory.recall().lists] == [b"listed!"] * 2
    memory.forget()
    assert memory.recall() == (Seen(0, 0), (), ())
    assert memory_of(EnvPaths(tmp_path / "env"), None).places == (tmp_path / "env",)


def test_the_newest_of_each_number_counts_and_a_damaged_copy_is_told(tmp_path: Path) -> None:
    memory = Memory((tmp_path / "a", tmp_path / "b"))
    Memory(memory.places[:1]).remember(Seen(9, 1), None)
    Memory(memory.places[1:]).remember(Seen(2, 5), None)
    found = memory.recall()
    assert found.seen == Seen(9, 5) and len(found.warnings) == 2
    (tmp_path / "a" / SEEN).write_bytes(b"[")
    (tmp_path / "b" / KEPT_LIST).mkdir()
    found = memory.recall()
    assert found.seen == Seen(2, 5) and not found.lists
    damaged = [told for told in found.warnings if "cannot be read" in told]
    assert [str(tmp_path / "a" / SEEN) in damaged[0], str(tmp_path / "b" / KEPT_LIST) in damaged[1]] == [True, True]
    (tmp_path / "b" / SEEN).unlink()
    with pytest.raises(UntrustedBundle, match="cannot be read"):
        memory.recall()


# -- what is believed -----------------------------------------------------------------------------------------------


def believed(published: bytes | None, *, required: bool, seen: int = 0, kept: tuple[bytes, ...] = (), offered: bytes | None = None, now: int = NOW) -> BelievedList:  # fmt: skip
    """Which list is believed of those that are published, kept and offered."""
    place = Path(os.environ["HOME"]) / "published"
    place.unlink(missing_ok=True)
    if published is not None:
        place.write_bytes(published)
    recalled = Recalled(Seen(0, seen), tuple((Path(f"/kept/{n}"), data) for n, data in enumerate(kept)), ())
    asked = Revocation(required=required, list_ref=f"file://{place}")
    return believed_list(asked, {KEY.key_id: KEY.public}, recalled, now, offered=offered, terms=Terms())


@pytest.mark.parametrize("required", [True, False])
def test_the_newest_list_that_is_believed_holds(required: bool) -> None:
    for published, seen, kept, offered, version, told in (
        (5, 0, (), None, 5, 0), (5, 5, (), None, 5, 0), (5, 4, (4,), None, 5, 0), (3, 4, (4,), None, 4, 1), (None, 4, (4,), None, 4, 1),
        (5, 4, (4, 4), 9, 9, 1), (5, 0, (), 3, 5, 0), (1, 0, (), None, 1, 0), (5, 6, (6,), None, 6, 1),
    ):  # fmt: skip
        found = believed(
            None if published is None else listed(published), required=required, seen=seen,
            kept=tuple(map(listed, kept)), offered=None if offered is None else listed(offered),
        )  # fmt: skip
        assert found.revoked is not None and (found.revoked.version, len(found.warnings)) == (version, told)
        assert found.data == listed(version)


@pytest.mark.parametrize("seen", [0, 3])
@pytest.mark.parametrize("published", [None, 0, -1, 2])
def test_without_a_list_that_is_believed_only_who_needs_none_goes_on(published: int | None, seen: int) -> None:
    data = None if published is None else listed(published, key=KEY if published < 1 else OTHER)
    if seen:
        with pytest.raises(UntrustedBundle, match="of version 3 was seen, and is gone"):
            believed(data, required=False, seen=seen)
    else:
        found = believed(data, required=False)
        assert (found.revoked, found.data, len(found.warnings)) == (None, None, 1) and "is not used" in found.warnings[
            0
        ]
    with pytest.raises(UntrustedBundle, match="a revocation list is required"):
        believed(data, required=True, seen=seen)


def test_a_list_that_has_ended_still_revokes_but_is_none_that_is_required() -> None:
    for now, over in ((2 * NOW - 1, False), (2 * NOW, True)):
        found = believed(listed(1), required=False, now=now)
        assert found.revoked is not None and ["has ended" in told for told in found.warnings] == [True] * over
        if over:
            with pytest.raises(UntrustedBundle, match="is required: it was good until"):
                believed(listed(1), required=True, now=now)
        else:
            assert believed(listed(1), required=True, now=now).warnings == ()
    stolen = believed(listed(2, key=OTHER), required=False, kept=(listed(1, OTHER.key_id),))
    assert stolen.revoked is not None and stolen.revoked.version == 1
    recalled = Recalled(Seen(), (), ())
    assert believed_list(Revocation(), {}, recalled, NOW, terms=Terms()) == BelievedList()
    with pytest.raises(UntrustedBundle, match="does not say where"):
        believed_list(Revocation(required=True), {}, recalled, NOW, terms=Terms())


@pytest.mark.parametrize(
    ("required", "kept", "now", "spared"),
    [
        (False, (), NOW, True), (False, (listed(1),), NOW, True), (True, (listed(1),), NOW, True),
        (True, (), NOW, False), (True, (listed(1),), 2 * NOW, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("spare", [5.0, 500.0, None])
def test_a_published_list_that_can_be_done_without_holds_up_a_boot_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
    required: bool,
    kept: tuple[bytes, ...],
    now: int,
    spared: bool,
    spare: float | None,
) -> None:
    waited: list[float] = []

    def silent(where: str, limit: int, terms: Terms) -> bytes:
        waited.append(terms.total)
        raise FetchError("no answer")

    monkeypatch.setattr(trusted, "read_small", silent)
    recalled = Recalled(Seen(0, len(kept)), tuple((Path("/kept"), data) for data in kept), ())
    asked = Revocation(required=required, list_ref="https://r.test/list")
    with nullcontext() if spared else pytest.raises(UntrustedBundle):
        believed_list(asked, {KEY.key_id: KEY.public}, recalled, now, terms=Terms(total=60), spare=spare)
    assert waited == [5.0 if spared and spare == 5 else 60]


def test_a_list_that_was_seen_and_is_nowhere_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(trusted, "read_small", lambda where, limit, terms: waited.append(terms.total))
    with pytest.raises(UntrustedBundle, match="was seen, and is gone"):
        believed_list(
            Revocation(list_ref="https://r.test/list"),
            {},
            Recalled(Seen(0, 3), (), ()),
            NOW,
            terms=Terms(total=60),
            spare=5,
        )
    assert waited == [60]


def test_what_nobody_can_sign_is_not_begun_with(tmp_path: Path) -> None:
    keys = {KEY.key_id: public_pem(KEY.public)}
    memory, clock = Memory((tmp_path / "a",)), FakeClock(NOW * 10**9)
    for mode, carried, good in (("require", {}, False), ("require", keys, True), ("warn", {}, True)):
        told = Delivery(generation=3, keys=carried, signatures=SignaturePolicy(mode=mode))
        document = with_delivery(new_environment("local", "x", HostConfig(env_id="local")), told)
        if good:
            found = Examiner(memory, None, Terms(), clock).examine(document)
            assert found.seen == Seen(3, 0) and (found.trusted.anchored, found.listed) == (False, None)
        else:
            with pytest.raises(BootError, match="trust in environment `local`") as error:
                Examiner(memory, None, Terms(), clock).examine(document)
            assert isinstance(error.value.__cause__, UntrustedBundle)
    swapped = {KEY.key_id: public_pem(OTHER.public)}
    for carried in (swapped, {KEY.key_id: "no key"}):
        with pytest.raises(BootError):
            Examiner(memory, None, Terms(), clock).examine(
                with_delivery(document, Delivery(generation=3, keys=carried))
            )
    assert not (tmp_path / "a").exists()


# -- what may go ----------------------------------------------------------------------------------------------------


def test_what_is_exactly_as_old_as_retention_keeps_stays() -> None:
    rules = Rules(100 * DAY, 0, 0, 7 * DAY, 30)
    edge = rules.now - 30 * DAY
    found = plan(
        There(
            partials=(Item("late", 1, rules.now - 7 * DAY + 1), Item("old", 1, rules.now - 7.5 * DAY)),
            backups={"a": (Item("older", 1, edge - 1), Item("edge", 1, edge), Item("newest", 1, 0))},
            audit=(Item("1", 1, edge - 1), Item("2", 1, edge), Item("3", 1, 0)),
        ),
        Needed({}), rules,
    )  # fmt: skip
    assert [(g.kind, g.name) for g in found] == [("partial", "old"), ("backup", "older"), ("audit", "1")]
    assert "7 days" in found[0].reason and DAY == 24 * 60 * 60


@pytest.mark.parametrize("keep", [None, 0, 1])
def test_archived_revisions_are_kept_as_many_as_retention_says(keep: int | None) -> None:
    document = env(
        revisions=[revision(REV), revision(REV2, lifecycle="archived", sequence=2), revision(REV3, lifecycle="archived", sequence=3)],
        retention={"keep_revisions": keep},
    )  # fmt: skip
    assert document.retention == Retention(keep_revisions=keep)
    needed = needed_revisions(document, frozenset())
    assert set(needed) == {REV, *([REV2, REV3] if keep is None else [REV3][:keep])} and needed[REV] == "routed"


@pytest.mark.parametrize("token", ["{", "7", "[7]", '{"entries": 7}', '{"entries": [7, {"revision_id": 7}]}', "x/y"])
def test_a_token_of_the_split_before_that_is_odd_names_nobody(token: str) -> None:
    document = env(
        revisions=[revision(REV), revision(REV2, lifecycle="archived")], retention={"keep_revisions": 0},
        bundles=[deployment()], traffic_splits=[split((REV, 10_000), previous_split_ref=f"inline:{token}")],
    )  # fmt: skip
    assert set(needed_revisions(document)) == {REV}


def saved(tmp_path: Path) -> EnvironmentStore:
    """A store with one environment whose second revision is archived and goes."""
    store = EnvironmentStore(tmp_path / "store", clock=FakeClock(), random=CountingRandom())
    digests = {REV: f"sha256:{'a' * 64}", REV2: f"sha256:{'c' * 64}"}
    document = env(
        revisions=[revision(REV, bundle_digest=digests[REV]), revision(REV2, lifecycle="archived", bundle_digest=digests[REV2])],
        retention={"keep_revisions": 0},
    )  # fmt: skip
    with store.transaction("prod", may_create=True) as transaction:
        transaction.create(document)
    for one in digests:
        store.paths("prod").revision(one).mkdir(parents=True)
    return store


def test_threat_needed_gone_while_it_cannot_be_known_who_holds_what_nothing_goes(tmp_path: Path) -> None:
    store = saved(tmp_path)
    paths, document = store.paths("prod"), store.load("prod")
    assert needed_digests(store) == {f"sha256:{'a' * 64}"}
    with store.transaction("prod") as transaction:
        assert [g.name for g in prune.of_revisions(transaction, document)] == [REV2]
        held = InUse(paths.in_use, CountingRandom(), [REV2])
        assert prune.of_revisions(transaction, document) == []
        next(paths.in_use.glob("*.json")).write_bytes(b"{")
        assert prune.of_revisions(transaction, document) == []
    assert needed_digests(store) == {f"sha256:{'a' * 64}", f"sha256:{'c' * 64}"}
    held.close()
    paths.environment.write_bytes(paths.environment.read_bytes().replace(b'"name"', b'"nam"'))
    assert needed_digests(store) == {f"sha256:{letter * 64}" for letter in "abc"}, (
        "every digest of one that does not load"
    )


def test_what_the_plan_names_goes_and_the_log_stays_readable(tmp_path: Path) -> None:
    store = saved(tmp_path)
    paths = store.paths("prod")
    lines = [b'{"n":1}\n', b'{"n":2}\n', b'{"n":3}\n']
    paths.audit.parent.mkdir()
    with store.transaction("prod") as transaction:
        for line in lines:
            store.disk.append(paths.audit, line)
        before = paths.audit.stat().st_ino
        transaction.files.replace(paths.environment, paths.environment.read_bytes())
        (backup,) = paths.backups.iterdir()
        prune.let_go([Goes("revision", REV2, 1, "r"), Goes("backup", backup.name, 1, "r")], transaction)
        assert not paths.revision(REV2).exists() and paths.revision(REV).is_dir() and not backup.exists()
        assert paths.audit.stat().st_ino == before, "a log that keeps its lines is not written again"
        prune.let_go([Goes("audit", "1", 1, "r"), Goes("audit", "2", 1, "r")], transaction)
    assert paths.audit.read_bytes() == lines[2] and paths.audit.stat().st_mode & 0o777 == 0o644


def test_an_unpacked_revision_is_as_large_as_what_only_it_holds(tmp_path: Path) -> None:
    paths = EnvPaths(tmp_path)
    assert prune.unpacked(paths) == []
    deep = paths.revision(REV) / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"12345")
    (deep / "g").write_bytes(b"123")
    (deep / "l").symlink_to("f")
    (tmp_path / "cached").write_bytes(b"123456789")
    (deep / "bundle").hardlink_to(tmp_path / "cached")
    for name in (".staging-x", REV2.lower(), f"{REV2}.bak", "notes"):
        (paths.revisions / name).mkdir()
    (paths.revisions / REV2).write_bytes(b"a file")
    (paths.revisions / REV3).symlink_to(REV)
    (found,) = prune.unpacked(paths)
    assert (found.name, found.size) == (REV, 5 + 3 + (deep / "l").lstat().st_size) and prune.unpacked(
        paths, {REV}
    ) == []


def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[BundleCache, list[str], Path]:
    """A cache with a bundle of each of some bytes, oldest first, and a compiled component."""
    monkeypatch.setenv("GREENTIC_BUNDLE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GREENTIC_COMPONENT_CACHE_DIR", str(tmp_path / "components"))
    cache, digests = BundleCache(tmp_path / "cache"), list[str]()
    for used, data in ((1000, b"one"), (2000, b"four"), (3000, b"seven")):
        digests.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
        assert cache.add(digests[-1], io.BytesIO(data))
        os.utime(cache.path(digests[-1]), (used, used))
    (tmp_path / "components" / "e").mkdir(parents=True)
    (tmp_path / "components" / "e" / "k.cwasm").write_bytes(b"code")
    (tmp_path / "components" / "e" / "k.sha256").write_text("x")
    return cache, digests, tmp_path / "components" / "e"


def test_the_cache_tells_what_is_there_and_lets_go_what_nobody_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, digests, components = cached(tmp_path, monkeypatch)
    store = EnvironmentStore(tmp_path / "store")
    monkeypatch.setattr(shared_bundles, "needed_digests", lambda _: frozenset(digests[:1]))
    monkeypatch.setattr(prune, "needed_digests", lambda _: frozenset(digests[:1]))
    partial = cache.directory / "partial" / HEX
    partial.write_bytes(b"half")
    listed = shared_bundles.list_entries(store)
    assert listed["directory"] == str(cache.directory) and listed["size"] == 12
    assert listed["entries"] == [
        {"digest": d, "size": size, "used": f"1970-01-01T00:{used}Z", "needed": d == digests[0]}
        for d, size, used in zip(reversed(digests), (5, 4, 3), ("50:00", "33:20", "16:40"), strict=True)
    ]
    assert listed["partial"] == [{"digest": f"sha256:{HEX}", "bytes": 4}]
    told = shared_bundles.prune(store, 8)
    assert (told["deleted"], told["partial"], told["components"], told["freed"]) == ([digests[1]], [], [], 4)
    assert [e.digest for e in cache.entries()] == [digests[0], digests[2]] and partial.exists()
    os.utime(partial, (0, 0))
    told = shared_bundles.prune(store, None)
    assert (told["deleted"], told["partial"], told["freed"]) == ([], [f"sha256:{HEX}"], 4) and not partial.exists()
    assert shared_bundles.prune(store, 0)["deleted"] == [digests[2]] and list(components.iterdir())
    path = cache.path(digests[0])
    path.chmod(0o600)
    assert shared_bundles.verify(store) == {"directory": str(cache.directory), "verified": 1, "deleted": []}
    path.write_bytes(b"two")
    assert shared_bundles.verify(store) == {"directory": str(cache.directory), "verified": 0, "deleted": digests[:1]}
    monkeypatch.setenv("GREENTIC_BUNDLE_CACHE_DIR", "off")
    with pytest.raises(NotFound, match="there is no cache of bundles"):
        shared_bundles.list_entries(store)
    (tmp_path / "taken").touch()
    monkeypatch.setenv("GREENTIC_BUNDLE_CACHE_DIR", str(tmp_path / "taken"))
    with pytest.raises(IoError, match="taken: File exists"):  # and not that there is none
        shared_bundles.list_entries(store)


def test_compiled_components_and_old_downloads_go_by_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, digests, components = cached(tmp_path, monkeypatch)
    store = EnvironmentStore(tmp_path / "store")
    without = prune.Caches(None, 0, components.parent, 4)
    assert prune.of_caches(store, without) == []
    loaded = without._replace(component_bytes=3, loaded=frozenset({"e/k"}))
    assert prune.of_caches(store, loaded) == []
    goes = prune.of_caches(store, without._replace(component_bytes=3))
    assert [(g.kind, g.name) for g in goes] == [("component", "e/k")]
    assert prune.let_go_of_caches(goes, without) == goes and not list(components.iterdir())
    assert prune.let_go_of_caches([Goes("bundle", digests[0], 3, "r")], without) == [] and len(cache.entries()) == 3
    both = prune.Caches(cache, 0)
    assert [g.name for g in prune.let_go_of_caches(prune.of_caches(store, both), both)] == digests
    young = cache.directory / "partial" / HEX
    young.write_bytes(b"x")
    assert prune.let_go_of_caches([Goes("partial", f"sha256:{HEX}", 1, "r")], both) == [] and young.exists()
