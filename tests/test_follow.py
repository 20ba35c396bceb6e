"""A living worker: what is new is provisioned beside what serves and swapped in whole; what fails leaves the old serving."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from conftest import Author, booted, make_bundle, make_pack
from greentic.activate.activation import Activation
from greentic.activate.lease import REMEMBERED, Draining, Serving
from greentic.activate.turn import ActiveRevision
from greentic.author import bundle_revoke
from greentic.ground import optional
from greentic.ground.clock import SystemClock
from greentic.ground.disk import RealDisk
from greentic.ground.documents import replace
from greentic.ground.errors import BootError, Conflict, FetchError
from greentic.ingress.auth import TOKENS_FILE, TOKENS_SCHEMA, BearerGate
from greentic.materialize import pull, trusted
from greentic.materialize.trusted import SPARE_SECONDS
from greentic.model.environment import Environment, Revision
from greentic.net.document import read_small
from greentic.net.terms import Terms
from greentic.operate import delivery
from greentic.pack.located import LocatedPack
from greentic.store.environments import EnvironmentStore
from greentic.telemetry.counts import BOUNDS
from greentic.telemetry.log import OperatorLog
from greentic.worker.boot import Booted
from greentic.worker.candidate import Candidate, read_candidate
from greentic.worker.follow import Alone, Follower, FollowSteps, undisturbed
from greentic.worker.provision import provision
from greentic.worker.server import reread_tokens
from greentic.worker.together import WithSiblings
from greentic.worker.trust_files import ASK_SECONDS, TrustFiles
from greentic.worker.watch import DirectoryWatch
from simulators import CountingRandom, FakeClock


class NoWatch:
    """Nothing tells; the test looks."""

    def wait(self, seconds: float) -> bool:
        return True

    def wake(self) -> None: ...

    def close(self) -> None: ...


class Living:
    """A worker that was booted, with its follower in the test's hands."""

    def __init__(self, worker: Booted) -> None:
        self.worker, self.clock = worker, FakeClock()
        self.serving = Serving(worker.activation, self.clock)
        self.told: list[dict[str, object]] = []
        self.swapped: list[Activation] = []
        store, settings = worker.store, worker.bench.settings

        def swap(new: Activation) -> None:
            self.serving.swap(new)
            self.swapped.append(new)

        steps = FollowSteps(
            lambda: read_candidate(store, settings),
            lambda found: provision(worker.bench, found, self.serving.activation),
            swap,
            self.told.append,
        )
        self.follower = Follower(
            steps, NoWatch(), worker.activation, worker.digest, worker.log, self.clock, CountingRandom(), Alone()
        )

    def later(self, seconds: float = 120.0) -> bool:
        self.clock.sleep(seconds)
        return self.follower.look()

    @property
    def routes(self) -> list[str]:
        return sorted(p for r in self.serving.activation.routes for p in r.prefixes)


@pytest.fixture
def living(author: Author, hello) -> Living:
    author.create()
    author.deployed(hello, prefixes=("/one",))
    return Living(booted(author.context.store))


def document(author: Author) -> Path:
    return author.context.store.paths("local").environment


def test_new_deployments_appear_and_gone_ones_disappear(living, author, hello):
    assert not living.follower.look()  # nothing changed, nothing done
    deployment, _ = author.deployed(hello, bundle_id="two", prefixes=("/two",))
    assert (
        living.follower.look() and living.routes == ["/one", "/two"] and len(living.serving.activation.revisions) == 2
    )
    env = author.context.store.load("local")
    with author.context.store.transaction("local") as transaction:
        transaction.save(
            replace(
                env, bundles=[replace(d, status="paused") if d.deployment_id == deployment else d for d in env.bundles]
            )
        )
    assert living.follower.look() and living.routes == ["/one"] and len(living.serving.activation.revisions) == 1
    assert living.told[-1]["error"] is None and living.told[-1]["desired"] == living.told[-1]["serving"]


def test_a_change_of_weights_loads_nothing(living, author, hello, monkeypatch):
    (deployment,) = living.serving.activation.dispatchers
    (first,) = living.serving.activation.revisions
    second = author.warm(author.stage(deployment, hello))
    author.route(deployment, (first, 9900), (second, 100), key="a")
    assert living.follower.look()
    before = living.serving.activation.revisions
    monkeypatch.setattr("greentic.activate.activation.load_packs", lambda *_: pytest.fail("a pack was loaded"))
    monkeypatch.setattr("greentic.materialize.placed.verified_packs", lambda *_: pytest.fail("a pack was hashed"))
    author.route(deployment, (first, 5000), (second, 5000), key="b")
    assert living.follower.look()
    after = living.serving.activation.revisions
    assert all(after[i] is before[i] for i in (first, second)) and not living.serving.draining
    assert living.serving.activation.dispatchers[deployment].weights == {first: 5000, second: 5000}


def test_a_deployment_that_cannot_be_had_is_one_deployment_and_comes_by_itself(living, author, hello, tmp_path):
    source = tmp_path / "later.gtbundle"
    shutil.copy(hello, source)
    author.deployed(hello, uri=source.as_uri(), bundle_id="two", prefixes=("/two",))
    source.unlink()
    shutil.rmtree(
        author.context.store.paths("local").revisions
        / sorted(p.name for p in author.context.store.paths("local").revisions.iterdir())[-1]
    )
    shutil.rmtree(living.worker.bench.settings.cache_directory, ignore_errors=True)
    assert living.follower.look()
    assert living.routes == ["/one", "/two"] and len(living.serving.activation.dispatchers) == 1
    (fault,) = living.serving.activation.unavailable.values()
    assert fault.reason == "unreachable" and living.told[-1]["next_try"] is not None
    assert not living.follower.look()  # not before its time
    shutil.copy(hello, source)
    assert (
        living.later() and len(living.serving.activation.dispatchers) == 2 and not living.serving.activation.unavailable
    )
    assert living.told[-1]["next_try"] is None


def routed_from(source: Path, author: Author, deployment: str, hello: Path) -> str:
    """A second revision, staged from a copy at `source`, that all traffic goes to."""
    shutil.copy(hello, source)
    second = author.warm(author.stage(deployment, hello, source.as_uri()))
    author.route(deployment, (second, 10_000), key="b")
    return second


def test_a_slow_source_of_one_deployment_holds_up_no_other(living, author, hello, tmp_path, monkeypatch):
    """A source that dripped held up every other change, a rollback or a revocation too, for as long as a download may take."""
    source, store = tmp_path / "slow.gtbundle", author.context.store
    shutil.copy(hello, source)
    slow, revision = author.deployed(hello, uri=source.as_uri(), bundle_id="two", prefixes=("/two",))
    shutil.rmtree(store.paths("local").revisions / revision)
    arrives, came, begun, real = threading.Event(), threading.Event(), list[str](), pull.materialize

    def materialize(env: Environment, wanted: Revision, means: pull.Means) -> tuple[LocatedPack, ...]:
        begun.append(wanted.revision_id)
        assert wanted.deployment_id != slow or arrives.wait(60)
        return real(env, wanted, means)

    monkeypatch.setattr(pull, "materialize", materialize)
    under_way, settings = living.worker.bench.under_way, living.worker.bench.settings
    watch = DirectoryWatch([document(author).parent], frozenset({"environment.json"}))
    changed = list[str]()

    def read() -> Candidate:
        return read_candidate(store, settings)

    still = undisturbed(watch, read, read(), 3600.0, living.clock)

    def wanted() -> bool:
        if begun and not changed:
            assert still(), "nothing newer has come"
            changed.append(author.deployed(hello, bundle_id="three", prefixes=("/three",))[0])
        return still()

    under_way.wanted, under_way.came = wanted, came.set
    assert living.follower.look() and set(living.serving.activation.unavailable) == {slow}
    assert living.follower.look() and set(living.serving.activation.unavailable) == {slow}
    assert changed[0] in living.serving.activation.dispatchers, "what came meanwhile is served"
    assert "still on its way" in living.serving.activation.unavailable[slow].text and not came.is_set()
    assert living.later() and begun.count(revision) == 1, "what is under way is not begun again"
    arrives.set()
    assert came.wait(60) and living.later()
    assert not living.serving.activation.unavailable and slow in living.serving.activation.dispatchers
    assert begun.count(revision) == 1
    watch.close()


def test_a_revocation_list_that_does_not_come_holds_up_no_change(author, hello, tmp_path, monkeypatch):
    """Each change, a rollback too, waited a minute for a server of the list that said nothing."""
    author.create().deployed(hello, prefixes=("/one",))
    asked, address = list[Terms](), "https://lists.test/r.json"

    def silent(reference: str, limit: int, terms: Terms) -> bytes | None:
        if reference == address:
            asked.append(terms)
            raise FetchError("not done")
        return read_small(reference, limit, terms)

    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", revocations=address))
    monkeypatch.setattr(trusted, "read_small", silent)
    living = Living(booted(author.context.store))
    usual = living.worker.bench.settings.terms
    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    assert living.follower.look() and living.routes == ["/one", "/two"]
    booting, _, *following = asked  # the second one is of staging
    assert booting == usual._replace(total=SPARE_SECONDS), (
        "at a boot nothing waits, and the list may be what keeps a bundle out"
    )
    assert following == [usual._replace(total=ASK_SECONDS, tries=1)]
    assert "is not used" in str(living.serving.activation.protections["warnings"])


def test_a_document_is_the_newest_until_another_one_can_be_read(living, author, hello, tmp_path):
    path, store, settings = document(author), author.context.store, living.worker.bench.settings
    watch = DirectoryWatch([path.parent], frozenset({path.name}))
    reads = list[int]()

    def read() -> Candidate:
        reads.append(1)
        return read_candidate(store, settings)

    found, good = read(), path.read_bytes()
    still = undisturbed(watch, read, found, 60.0, living.clock)
    assert still() and len(reads) == 1, "nobody told of anything"
    for data in (good, b"{", good):  # told, but nothing newer
        path.write_bytes(data)
        assert still()
    told = len(reads)
    living.clock.sleep(61.0)
    assert still() and len(reads) == told + 1, "where nothing is told it is looked at now and then"
    path.write_bytes(good.replace(b'"name": "local"', b'"name": "new"'))
    assert not still() and watch.wait(0), "the next look is told again"
    path.write_bytes(good)
    assert not still(), "who was disturbed begins anew"
    watch.close()


def test_a_new_revision_that_cannot_be_had_leaves_the_old_one_serving(living, author, hello, tmp_path):
    (deployment,) = living.serving.activation.dispatchers
    (first,) = living.serving.activation.revisions
    source = tmp_path / "later.gtbundle"
    second = routed_from(source, author, deployment, hello)
    source.unlink()
    shutil.rmtree(author.context.store.paths("local").revision(second))
    shutil.rmtree(living.worker.bench.settings.cache_directory, ignore_errors=True)
    living.follower.look()
    assert living.serving.activation.dispatchers[deployment].weights == {first: 10_000}
    assert living.serving.activation.unavailable[deployment].revision_id == second
    shutil.copy(hello, source)
    assert living.later() and living.serving.activation.dispatchers[deployment].weights == {second: 10_000}
    assert first not in living.serving.draining  # nobody held it


def test_a_revision_whose_digest_does_not_match_leaves_the_old_one_serving(living, author, hello, tmp_path):
    (deployment,) = living.serving.activation.dispatchers
    (first,) = living.serving.activation.revisions
    source = tmp_path / "later.gtbundle"
    second = routed_from(source, author, deployment, hello)
    data = bytearray(hello.read_bytes())
    data[len(data) // 2] ^= 1
    source.write_bytes(data)
    paths = author.context.store.paths("local")
    shutil.rmtree(paths.revision(second))
    shutil.rmtree(living.worker.bench.settings.cache_directory, ignore_errors=True)
    living.follower.look()
    assert living.serving.activation.dispatchers[deployment].weights == {first: 10_000}
    assert "digest" in living.serving.activation.unavailable[deployment].text
    assert not paths.revision(second).exists()  # not a byte of it is kept where revisions lie
    shutil.copy(hello, source)
    assert living.later() and living.serving.activation.dispatchers[deployment].weights == {second: 10_000}


def test_a_bundle_that_is_revoked_stops_being_served_without_a_change_of_the_document(author, hello, tmp_path):
    author.create().deployed(hello, hello.as_uri(), "one", ("/one",))
    bad = make_bundle(tmp_path / "bad", {"app": make_pack("other", {})})
    revoked, _ = author.deployed(bad, bad.as_uri(), "two", ("/two",))
    listed = tmp_path / "revocations.json"
    delivery.set_delivery(
        author.context, delivery.DeliverySetPayload(environment_id="local", revocations=listed.as_uri())
    )
    clock = SystemClock()
    bundle_revoke.revoke(listed, [], [], "none yet", None, 30, clock)
    living = Living(booted(EnvironmentStore(author.context.store.root)))
    files = TrustFiles(living.worker.bench.examiner._replace(clock=living.clock))
    steps = living.follower._steps
    living.follower._steps = steps._replace(
        read=lambda: (found := steps.read())._replace(trust=files.digest(found.env))
    )
    living.follower._trust = files.digest(living.serving.activation.env)
    assert not living.later() and len(living.serving.activation.dispatchers) == 2  # it was asked for, and is as it was
    digest = f"sha256:{hashlib.sha256(bad.read_bytes()).hexdigest()}"
    bundle_revoke.revoke(listed, [digest], [], "it leaks", None, 30, clock)
    assert not living.follower.look()  # not before its time
    assert living.later() and revoked not in living.serving.activation.dispatchers
    assert "it leaks" in living.serving.activation.unavailable[revoked].text
    assert len(living.serving.activation.dispatchers) == 1 and living.told[-1]["error"] is None
    listed.unlink()  # what was revoked stays so, and the list that is gone is no change
    assert not living.later()


class FullDisk(RealDisk):
    """Has no room for anything new while `full`."""

    full = True

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().write_new(path, data, mode)


def test_a_full_disk_leaves_the_old_set_serving_and_heals(living, author, hello):
    disk, store = FullDisk(), living.worker.store
    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    before, written = living.serving.activation, document(author).read_bytes()
    author.context.store.paths("local").runtime_config.unlink()  # there is something to write
    usual, store.disk = store.disk, disk
    assert not living.follower.look() and living.serving.activation is before
    assert "space" in str(living.told[-1]["error"]) and document(author).read_bytes() == written
    disk.full = False
    assert living.later() and living.routes == ["/one", "/two"] and living.told[-1]["error"] is None
    store.disk = usual


class SetClock(FakeClock):
    """Its time of day can be set; what has passed cannot."""

    ahead = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead


def test_a_clock_that_is_set_moves_no_try(living, author):
    clock = SetClock()
    living.clock = living.follower._clock = clock
    path = document(author)
    good = path.read_bytes()
    path.write_bytes(b"{")
    assert not living.follower.look()
    planned = living.follower._next
    for seconds in (-1_000_000, 2_000_000):
        clock.ahead = seconds * 10**9
        assert not living.follower._due()
    assert living.follower._next == planned
    path.write_bytes(good.replace(b'"name": "local"', b'"name": "new"'))
    assert living.later() and living.told[-1]["error"] is None


@pytest.mark.parametrize("damage", ["cut", "other environment", "empty", "no file", "rule broken"])
def test_a_document_that_is_refused_changes_nothing_and_the_next_good_one_heals(living, author, hello, damage):
    path = document(author)
    good = path.read_bytes()
    value = json.loads(good)
    before = living.serving.activation
    if damage == "no file":
        path.unlink()
    elif damage == "other environment":
        path.write_text(json.dumps(value | {"environment_id": "other"}))
    elif damage == "rule broken":
        value["traffic_splits"][0]["entries"][0]["weight_bps"] = 1
        path.write_text(json.dumps(value))
    else:
        path.write_bytes(good[: len(good) // 2] if damage == "cut" else b"")
    projection = author.context.store.paths("local").runtime_config.read_bytes()
    assert not living.follower.look() and living.serving.activation is before
    assert living.told[-1]["error"] and living.told[-1]["since"]
    assert author.context.store.paths("local").runtime_config.read_bytes() == projection
    path.write_bytes(good)
    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    assert living.later() and living.routes == ["/one", "/two"] and living.told[-1]["error"] is None


def test_threat_rollback_an_older_generation_leaves_the_newer_one_serving(author, hello):
    author.create().deployed(hello, prefixes=("/one",))
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="warn"))
    path, living = document(author), Living(booted(author.context.store))
    old = path.read_bytes()
    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    assert living.follower.look() and living.routes == ["/one", "/two"]
    serving, good = living.serving.activation, path.read_bytes()
    path.write_bytes(old)
    assert not living.later() and living.serving.activation is serving
    assert (
        "has generation" in str(living.told[-1]["error"]) and living.told[-1]["serving"] != living.told[-1]["desired"]
    )
    path.write_bytes(good)
    author.deployed(hello, bundle_id="three", prefixes=("/three",))
    assert living.later() and living.routes == ["/one", "/three", "/two"] and living.told[-1]["error"] is None


def test_a_document_that_is_again_the_served_one_leaves_nothing_wrong(living, author):
    path = document(author)
    good = path.read_bytes()
    path.write_bytes(good[:100])
    assert not living.follower.look() and living.told[-1]["error"] is not None
    path.write_bytes(good)
    assert not living.follower.look()  # at once, not when the refused one would have been tried again
    told = living.told[-1]
    assert told["error"] is None and told["since"] is None and told["next_try"] is None
    assert told["desired"] == told["serving"] and not living.later() and not living.swapped


def test_a_deployment_that_may_come_by_itself_is_still_tried_after_a_document_that_was_taken_back(
    living, author, hello, tmp_path
):
    source = tmp_path / "later.gtbundle"
    shutil.copy(hello, source)
    _, revision = author.deployed(hello, uri=source.as_uri(), bundle_id="two", prefixes=("/two",))
    source.unlink()
    shutil.rmtree(author.context.store.paths("local").revisions / revision)
    shutil.rmtree(living.worker.bench.settings.cache_directory, ignore_errors=True)
    assert living.follower.look() and living.serving.activation.unavailable
    path = document(author)
    good = path.read_bytes()
    path.write_bytes(b"")
    living.follower.look()
    path.write_bytes(good)
    living.follower.look()
    assert living.told[-1]["error"] is None and living.told[-1]["next_try"] is not None
    shutil.copy(hello, source)
    assert living.later() and not living.serving.activation.unavailable


def test_whatever_goes_wrong_behind_a_change_ends_no_following(living, author, hello):
    def broken(*_: object) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    steps = living.follower._steps
    living.follower._steps = steps._replace(swap=broken, tidy=broken)
    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    assert not living.follower.look()
    living.follower._tidied()
    assert os.strerror(errno.ENOSPC) in str(living.told[-1]["error"])
    living.follower._steps = steps
    living.follower._tidied()
    assert not living.follower._untidy and living.later() and living.routes == ["/one", "/two"]


def test_an_editor_who_writes_while_another_change_is_provisioned_is_not_missed(living, author, hello, monkeypatch):
    steps = living.follower._steps

    def provision_slowly(found: Candidate) -> Activation:
        made = steps.provision(found)
        if found.env.deployment(deployment).bundle_id == "two" and not edited:
            edited.append(author.deployed(hello, bundle_id="three", prefixes=("/three",)))
        return made

    edited: list[object] = []
    deployment, _ = author.deployed(hello, bundle_id="two", prefixes=("/two",))
    living.follower._steps = steps._replace(provision=provision_slowly)
    assert living.follower.look() and living.routes == ["/one", "/two"] and edited
    assert living.told[-1]["serving"] == living.told[-1]["desired"]
    assert living.follower.look() and living.routes == ["/one", "/three", "/two"]


def test_what_is_wanted_is_told_while_it_is_still_being_fetched(living, author, hello):
    steps, before = living.follower._steps, living.worker.digest
    meanwhile: list[tuple[object, object]] = []

    def provision_slowly(found: Candidate) -> Activation:
        told = living.told[-1]
        meanwhile.append((told["desired"]["digest"], told["serving"]["digest"]))
        assert found.digest != before
        return steps.provision(found)

    living.follower._steps = steps._replace(provision=provision_slowly)
    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    assert living.follower.look()
    after = living.told[-1]
    assert after["desired"] == after["serving"]
    assert meanwhile == [(after["desired"]["digest"], before)]


def test_twenty_documents_in_a_row_leave_the_last_one_serving(living, author, hello):
    for number in range(20):
        author.deployed(hello, bundle_id=f"b{number}", prefixes=(f"/b{number}",))
    assert living.follower.look() and len(living.swapped) == 1 and len(living.routes) == 21


def test_a_pack_that_does_not_load_is_one_deployment(living, author, tmp_path):
    bad = make_bundle(tmp_path, {name: make_pack("p", {}) for name in ("a", "b")})  # two packs of one name do not load
    deployment = author.add("bad", ("/bad",))
    revision = author.stage(deployment, bad)
    env = author.context.store.load("local")
    with author.context.store.transaction("local") as transaction:
        transaction.save(
            replace(
                env,
                revisions=[replace(r, lifecycle="ready") if r.revision_id == revision else r for r in env.revisions],
            )
        )
    author.route(deployment, (revision, 10_000), key="bad")
    living.follower.look()
    assert (
        living.serving.activation.unavailable[deployment].reason == "broken"
        and len(living.serving.activation.dispatchers) == 1
    )


def test_a_seed_that_is_refused_is_not_placed(author, hello, tmp_path):
    author.create()
    author.deployed(hello, uri=hello.as_uri())
    good = document(author).read_bytes()
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "environment.json").write_bytes(good)
    worker = booted(author.context.store, seed=seed)
    living = Living(worker)
    (seed / "environment.json").write_text('{"schema": "x"}')
    assert not living.follower.look() and document(author).read_bytes() == good
    (seed / "environment.json").write_bytes(good.replace(b'"name": "local"', b'"name": "new"'))
    assert living.later() and b'"new"' in document(author).read_bytes()


def test_what_nobody_can_serve_ends_a_boot_and_takes_the_projection_away(author, hello, tmp_path):
    author.create()
    gone = tmp_path / "gone.gtbundle"
    shutil.copy(hello, gone)
    author.deployed(hello, uri=gone.as_uri())
    gone.unlink()
    paths = author.context.store.paths("local")
    shutil.rmtree(paths.revisions)
    assert paths.runtime_config.exists()
    with pytest.raises(BootError, match="fetching bundle"):
        booted(author.context.store, cache_directory=None)
    assert not paths.runtime_config.exists()


# -- leases -----------------------------------------------------------------------------------------------------------


def revision(name: str) -> ActiveRevision:
    return ActiveRevision(name, "D", "b", "", None, (), (), None)  # type: ignore[arg-type]


def serving(living: Living, *names: str) -> Activation:
    env = living.serving.activation.env
    template = env.revisions[0]
    recorded = [replace(template, revision_id=n, drain_seconds=30) for n in names]
    return living.serving.activation._replace(
        env=replace(env, revisions=recorded), dispatchers={}, revisions={n: revision(n) for n in names}
    )


def test_threat_drain_race_a_swapped_out_revision_lives_until_its_last_lease(living):
    clock = FakeClock()
    now = Serving(serving(living, "A"), clock)
    held = now.activation.revisions["A"]
    with now.lease(held):
        now.swap(serving(living, "B"))
        clock.sleep(1000)  # its window is long over, and still a turn runs on it
        assert now.find("A") is held and "A" in now.draining
    assert now.find("A") is None and not now.draining
    assert now.of("A").snapshot().turns == 1 and now.of("A").snapshot().in_flight == 0


def test_a_revision_that_somebody_waits_on_drains_for_its_window(living):
    clock = FakeClock()
    now = Serving(serving(living, "A"), clock)
    now.of("A").parked = 1
    now.swap(serving(living, "B"))
    clock.sleep(29)
    assert now.find("A") is not None
    clock.sleep(2)
    assert now.find("A") is None


def test_threat_drain_race_where_others_park_too_a_revision_stays_for_its_window(living):
    """The process that swaps did not see who waits: another one parked it."""
    clock = FakeClock()
    now = Serving(serving(living, "A"), clock, shared=True)
    with now.lease(now.activation.revisions["A"]):
        now.swap(serving(living, "B"))
    clock.sleep(29)
    assert now.find("A") is not None
    clock.sleep(2)
    assert now.find("A") is None and not now.draining


def test_a_revision_that_comes_back_no_longer_drains(living):
    now = Serving(serving(living, "A"), FakeClock())
    now.of("A").parked = 1
    now.swap(serving(living, "B"))
    now.swap(serving(living, "A", "B"))
    assert not now.draining and now.swaps == 2


def test_counts_say_how_turns_ended(living):
    clock = FakeClock()
    now = Serving(serving(living, "A"), clock)
    for seconds, failure in ((0.002, None), (0.2, "flow"), (60.0, "busy")):
        with now.lease(now.activation.revisions["A"]) as lease:
            clock.sleep(seconds)
            lease.failure = failure
    with pytest.raises(RuntimeError), now.lease(now.activation.revisions["A"]):
        raise RuntimeError
    found = now.of("A").snapshot()
    assert (
        found.turns == 4
        and found.failures == {"flow": 2, "busy": 1}
        and sum(found.buckets) == 4
        and found.buckets[-1] == 1
    )
    assert list(BOUNDS) == sorted(BOUNDS)


def test_tokens_are_followed_and_an_accident_opens_nothing(author, tmp_path):
    author.create()
    paths, stderr = author.context.store.paths("local"), io.StringIO()
    log = OperatorLog(tmp_path / "logs", FakeClock(), stderr=stderr)
    gate = BearerGate(None, enabled=True)

    def write(*secrets: str) -> None:
        rows = [{"sha256": hashlib.sha256(s.encode()).hexdigest()} for s in secrets]
        (paths.root / TOKENS_FILE).write_text(json.dumps({"schema": TOKENS_SCHEMA, "tokens": rows}))

    def let_in() -> list[str]:
        reread_tokens(gate, paths, None, log)
        return [s for s in ("old", "new", "") if gate.lets_in(f"Bearer {s}", "bot", 0)]

    assert let_in() == ["old", "new", ""]  # no file: open to everybody
    write("old")
    assert let_in() == ["old"]
    write("new")
    assert let_in() == ["new"]
    (paths.root / TOKENS_FILE).write_text("{")
    assert let_in() == ["new"] and "stay as they were" in stderr.getvalue()
    (paths.root / TOKENS_FILE).unlink()
    assert let_in() == ["new"]
    write()
    assert let_in() == []


# -- being told -------------------------------------------------------------------------------------------------------


def test_a_watch_tells_of_a_rename_a_link_that_is_swapped_and_a_call(tmp_path):
    watch = DirectoryWatch([tmp_path], frozenset({"environment.json", "..data"}))
    assert not watch.wait(0)
    (tmp_path / "noise.log").write_text("x")
    assert not watch.wait(0.01)
    (tmp_path / "new").write_text("x")
    (tmp_path / "new").rename(tmp_path / "environment.json")
    assert watch.wait(10)
    (tmp_path / "..tmp").symlink_to("nowhere")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert watch.wait(10) and not watch.wait(0)
    watch.wake()
    assert watch.wait(10)
    watch.close()


def test_a_file_that_is_a_link_is_watched_where_it_leads(tmp_path, monkeypatch):
    """A link to a mounted ConfigMap, or to a file of another directory: a change there was seen a quarter of a minute later."""
    monkeypatch.setattr("greentic.worker.watch.POLL_SECONDS", 3600.0)
    env, mounted, other = (tmp_path / name for name in ("env", "mounted", "other"))
    for directory in (env, mounted / "..one", mounted / "..two", other):
        directory.mkdir(parents=True)
    for place in (mounted / "..one", mounted / "..two", other):
        (place / "e.json").write_text("{}")
    (mounted / "..data").symlink_to("..one")
    (mounted / "e.json").symlink_to("..data/e.json")
    (env / "environment.json").symlink_to("../mounted/e.json")
    watch = DirectoryWatch([env], frozenset({"environment.json"}))
    assert watch.wait(0) and not watch.wait(0), "what it leads to is looked at once"
    (mounted / "noise").write_text("x")
    assert not watch.wait(0.01)
    (mounted / "..tmp").symlink_to("..two")
    (mounted / "..tmp").rename(mounted / "..data")
    assert watch.wait(10)
    while watch.wait(0):
        """It leads elsewhere, which is one look more."""
    (mounted / "..two" / "e.json").write_text("{} ")
    assert watch.wait(10) and not watch.wait(0)
    (env / "new").symlink_to(other / "e.json")
    (env / "new").rename(env / "environment.json")
    assert watch.wait(10)
    while watch.wait(0):
        """Likewise."""
    (other / "e.json").write_text("{} ")
    assert watch.wait(10) and not watch.wait(0)
    (env / "environment.json").unlink()
    (env / "environment.json").symlink_to("environment.json")  # which leads to itself
    assert watch.wait(10)
    while watch.wait(0):
        """Likewise."""
    watch.close()


def test_what_is_of_no_interest_ends_no_wait(tmp_path, monkeypatch):
    """Housekeeping takes the lock of the store, a file that is watched; while a revision drained it so was the reason of the next."""
    watch = DirectoryWatch([tmp_path], frozenset({"environment.json"}))
    counts = watch._counts

    def noted(name: str) -> bool:
        if name == ".lock":
            (tmp_path / "environment.json").write_text("{}")
        return counts(name)

    monkeypatch.setattr(watch, "_counts", noted)
    (tmp_path / ".lock").write_text("")
    assert watch.wait(10)  # it went on waiting until there was something to look at
    watch.close()


def test_who_wakes_a_closed_watch_writes_into_nobodys_file(tmp_path):
    watch = DirectoryWatch([tmp_path], frozenset())
    number = watch._writing
    watch.close()
    with (tmp_path / "of somebody else").open("wb") as file:
        os.dup2(file.fileno(), number)
        watch.wake()
        os.close(number)
    assert (tmp_path / "of somebody else").read_bytes() == b""


def test_a_place_that_cannot_be_watched_is_looked_at_now_and_then(tmp_path):
    watch = DirectoryWatch([tmp_path / "absent"], frozenset())
    assert not watch.wait(0)
    watch.wake()
    assert watch.wait(10)
    watch.close()


def test_a_directory_that_is_replaced_or_comes_later_is_watched_from_then_on(tmp_path, monkeypatch):
    """A store that is restored from a copy is another directory: what changed in it was seen a quarter of a minute later, for good."""
    monkeypatch.setattr("greentic.worker.watch.MISSING_SECONDS", 0.01)
    monkeypatch.setattr("greentic.worker.watch.POLL_SECONDS", 3600.0)
    place, later = tmp_path / "env", tmp_path / "later"
    place.mkdir()
    optional.forget()
    watch = DirectoryWatch([place, later], frozenset({"environment.json"}))
    optional.forget()
    assert not watch.wait(0)
    place.rename(tmp_path / "old")
    assert watch.wait(10), "that it went is worth a look"
    copied = threading.Timer(0.05, place.mkdir)
    copied.start()
    assert watch.wait(10), "so is that it came"
    assert not watch.wait(0.05)
    (place / "environment.json").write_text("{}")
    assert watch.wait(10) and not watch.wait(0)
    later.mkdir()
    assert watch.wait(10) and not watch.wait(0)
    (later / "environment.json").write_text("{}")
    assert watch.wait(10)
    watch.close()


def test_processes_flip_together(tmp_path):
    clock = FakeClock()
    one = WithSiblings(tmp_path, clock, "old")
    other = tmp_path / "prepared" / "1"  # a process that lives
    other.write_text("old")
    began = clock.monotonic()
    one.agree("new")
    assert clock.monotonic() - began >= 5  # waited its patience for the other
    other.write_text("new")
    began = clock.monotonic()
    one.agree("new")
    assert clock.monotonic() - began < 1
    other.write_text("of another change")
    one.agree("newer")  # it does not come back to what this one had
    assert clock.monotonic() - began < 1
    other.write_text("newer")
    other.rename(tmp_path / "prepared" / "4194304")  # no such process can be
    one.agree("newest")
    assert clock.monotonic() - began < 1


def test_processes_that_cannot_tell_each_other_swap_all_the_same(tmp_path):
    (tmp_path / "prepared").write_text("in the way")
    optional.forget()
    together = WithSiblings(tmp_path, FakeClock(), "old")
    together.agree("new")
    assert ["swapping together" in text for text in optional.lacking()] == [True]
    optional.forget()


def test_what_changed_while_a_worker_booted_is_seen_when_it_serves(living, author, hello, tmp_path):
    author.deployed(hello, bundle_id="two", prefixes=("/two",))  # before anything watches
    done = threading.Event()
    living.follower._watch = DirectoryWatch([tmp_path / "where nothing happens"], frozenset())
    living.follower._every = 3600.0
    living.follower._steps = living.follower._steps._replace(swap=lambda new: done.set())
    living.follower.start()
    assert done.wait(10)  # the next look would be in a quarter of a minute
    living.follower.stop()
    assert living.follower.join(30)


def test_a_follower_that_runs_is_told_and_stopped(living, author, hello):
    path = document(author)
    watch = DirectoryWatch([path.parent], frozenset({"environment.json"}))
    done = threading.Event()
    living.follower._watch = watch
    living.follower._steps = living.follower._steps._replace(swap=lambda new: (living.serving.swap(new), done.set()))
    author.context.store.clock = SystemClock()  # whoever finds the store locked by the other waits a moment that passes
    living.follower.start()
    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    assert done.wait(30)
    living.follower.stop()
    assert living.follower.join(30) and not living.follower._thread.is_alive()


class Passing(NoWatch):
    """Nothing tells; each wait passes at once on the follower's clock, and the last ends the following."""

    def __init__(self, living: Living, last: int) -> None:
        self.living, self.last, self.waits = living, last, list[float]()

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.living.clock.sleep(seconds)
        self.living.follower._stopping = len(self.waits) == self.last
        return False


def followed(living: Living, waits: int, **steps: object) -> list[float]:
    watch = living.follower._watch = Passing(living, waits)
    living.follower._every, living.follower._stopping = 1.0, False
    living.follower._steps = living.follower._steps._replace(**steps)
    living.follower._run()
    return watch.waits


def test_a_place_whose_document_is_refused_is_looked_at_as_often_as_any(living, author, hello):
    """Who published a wrong document and then a right one waited for as long as the wrong one would not have been tried."""
    usual, tried = living.follower._steps, list[str]()

    def refused(found: Candidate) -> Activation:
        tried.append(found.digest)
        raise Conflict("no")

    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    waits = followed(living, 40, provision=refused)
    assert max(waits) <= 1.25 and 2 <= len(tried) <= 8 and len(set(tried)) == 1  # tried later each time
    assert living.told[-1]["error"] == "conflict: no" and living.told[-1]["next_try"] is not None
    author.deployed(hello, bundle_id="three", prefixes=("/three",))
    assert len(followed(living, 2, provision=usual.provision)) == 2
    assert living.routes == ["/one", "/three", "/two"] and living.told[-1]["error"] is None


@pytest.mark.parametrize("between", ["served", "another"])
def test_a_document_that_was_refused_before_is_tried_when_it_comes_again(living, author, hello, between):
    path, usual = document(author), living.follower._steps
    first = path.read_bytes()

    def refused(found: Candidate) -> Activation:
        raise Conflict("no")

    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    wanted = path.read_bytes()
    living.follower._steps = usual._replace(provision=refused)
    assert not living.follower.look()
    living.follower._steps = usual
    path.write_bytes(first if between == "served" else first.replace(b'"name": "local"', b'"name": "new"'))
    assert living.follower.look() is (between == "another")
    path.write_bytes(wanted)
    assert living.follower.look() and living.routes == ["/one", "/two"]


def test_a_place_that_does_not_answer_is_asked_later_each_time(living, author, hello):
    def away() -> Candidate:
        raise BootError("away")

    waits = followed(living, 12, read=away)
    assert max(waits) > 20 and sum(waits) > 100


def test_a_refused_document_is_tried_at_once_for_who_asks(living, author, hello):
    tried = list[str]()

    def refused(found: Candidate) -> Activation:
        tried.append(found.digest)
        raise Conflict("no")

    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    living.follower._steps = living.follower._steps._replace(provision=refused)
    for _ in range(3):
        living.follower.look()
    assert len(tried) == 1
    living.follower.wake()
    living.follower.look()
    assert len(tried) == 2


def test_a_look_that_runs_is_waited_for_only_so_long(living):
    assert living.follower.join(30)  # nothing was begun
    looks, goes_on = threading.Event(), threading.Event()
    living.follower._steps = living.follower._steps._replace(read=lambda: (looks.set(), goes_on.wait(30))[0])
    living.follower.start()
    assert looks.wait(30)
    living.follower.stop()
    assert not living.follower.join(0.01)
    goes_on.set()
    assert living.follower.join(30)


def test_the_counts_of_forgotten_revisions_do_not_grow_without_end(living):
    serving = living.serving
    for number in range(REMEMBERED + 20):
        serving.of(f"gone-{number}")
    assert len(serving.counts) == REMEMBERED + len(serving.activation.revisions)
    revision = next(iter(serving.activation.revisions.values()))
    serving.draining["old"] = serving.draining["older"] = Draining(revision, 0.0)
    for number in range(20):
        serving.of(f"late-{number}")
    assert len(serving.counts) == REMEMBERED + len(serving.activation.revisions) + 2
