"""What may go and what never does: the plan over random environments, and that what goes leaves no half."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Author, booted, gtc
from greentic.activate.lease import Serving
from greentic.deployments import revisions
from greentic.distribute.bundle_cache import BundleCache
from greentic.ground.clock import unix_seconds
from greentic.ground.documents import replace
from greentic.ground.least_used import Item, beyond
from greentic.materialize.prune import needed_digests, unpacked
from greentic.materialize.retention import DAY, Needed, Rules, There, needed_bundles, needed_revisions, plan
from greentic.model.environment import Environment, Retention
from greentic.model.traffic import next_split, put_split
from greentic.release.env_prune import EnvPrunePayload, prune
from greentic.store.in_use import InUse, in_use
from greentic.store.recovery import recover_revisions, remove_revision
from greentic.wasm import compiled_files
from greentic.worker import provision
from greentic.worker.tidy import after_swap, make_room
from simulators import CountingRandom, DyingDisk, FakeClock, Killed
from test_model_rules import DEP, DEP2, deployment, env, revision, split

IDS = [f"01JTKW5B4W4Q5Y1CQW93F7S5V{c}" for c in "ABCDEFGH"]
STRANGER = "01JTKW5B4W4Q5Y1CQW93F7S5VZ"
RULES = Rules(100 * DAY, 50, 50, 7 * DAY, 30)


@st.composite
def environments(draw: st.DrawFn) -> Environment:
    """Two deployments with revisions in every state, splits with one step back, and a retention."""
    states = ["staged", "warming", "ready", "draining", "failed", *["archived"] * 5]
    made = []
    for number, one in enumerate(IDS):
        made.append(
            revision(
                one, DEP if number % 2 else DEP2, bundle_id="bot" if number % 2 else "two", sequence=number + 1,
                lifecycle=draw(st.sampled_from(states)), bundle_digest=f"sha256:{number:064x}",
            )
        )  # fmt: skip
    document = env(
        bundles=[deployment(), deployment(DEP2, bundle_id="two")], revisions=made,
        traffic_splits=[split((IDS[1], 10_000)), split((IDS[0], 10_000), dep=DEP2, bundle_id="two")],
    )  # fmt: skip
    for dep, bundle, ids in ((DEP, "bot", IDS[1::2]), (DEP2, "two", IDS[::2])):
        if draw(st.booleans()):
            entries = [replace(document.traffic_splits[0].entries[0], revision_id=draw(st.sampled_from(ids)))]
            new = next_split(
                document, deployment_id=dep, bundle_id=bundle, entries=entries, updated_at="2026-05-20T10:00:00Z",
                updated_by="op", idempotency_key="k", authorization_ref="a",
            )  # fmt: skip
            document = put_split(document, new)
    keep = draw(st.one_of(st.none(), st.integers(0, 4)))
    return replace(document, retention=Retention(keep_revisions=keep))


@given(
    environments(), st.frozensets(st.sampled_from([*IDS, STRANGER])), st.frozensets(st.sampled_from([*IDS, STRANGER]))
)
def test_threat_needed_gone_nothing_that_is_needed_ever_goes(document, there, held):
    needed = needed_revisions(document, held)
    gone = {g.name for g in plan(There(tuple(Item(i, 1, 0) for i in sorted(there))), Needed(needed), RULES)}
    assert gone <= there and not gone & held
    keep = document.retention.keep_revisions
    for one in document.revisions:
        own = [r for r in document.revisions if r.deployment_id == one.deployment_id and r.lifecycle == "archived"]
        newer = sum(r.sequence > one.sequence for r in own)
        if one.lifecycle != "archived" or keep is None or newer < keep:
            assert one.revision_id not in gone
    for found in document.traffic_splits:
        assert not gone & {e.revision_id for e in found.entries}
        if found.previous_split_ref is not None:
            first = IDS[1] if found.deployment_id == DEP else IDS[0]
            assert first not in gone  # one step back
    # And what nobody needs does go, or nothing was tested.
    assert (STRANGER in gone) == (STRANGER in there - held)
    assert gone == {i for i in there if i not in needed}


@given(environments(), st.integers(0, 9))
def test_bundles_of_needed_revisions_stay_however_small_the_cache(document, limit):
    there = There(bundles=tuple(Item(r.bundle_digest, 1, n) for n, r in enumerate(document.revisions)))
    needed = needed_bundles(document)
    gone = [g.name for g in plan(there, Needed({}, needed), RULES._replace(bundle_bytes=limit))]
    assert not set(gone) & needed
    left = len(document.revisions) - len(gone)
    assert left <= max(limit, len(needed)) and (left >= limit or not gone)
    assert gone == sorted(gone)  # the least recently used first


def test_partials_components_backups_and_the_log_go_by_their_age():
    old, young = RULES.now - 31 * DAY, RULES.now - DAY
    there = There(
        partials=(Item("p-old", 1, RULES.now - 7 * DAY), Item("p", 1, young)),
        components=(Item("c-old", 40, old), Item("c-loaded", 40, old - 1), Item("c", 40, young)),
        backups={"a": (Item("a1", 1, old), Item("a2", 1, young)), "b": (Item("b1", 1, old),)},
        audit=(Item("1", 5, old), Item("2", 5, young), Item("3", 5, old)),
    )
    goes = plan(there, Needed({}, components=frozenset({"c-loaded"})), RULES)
    assert [(g.kind, g.name) for g in goes] == [
        ("partial", "p-old"),
        ("component", "c-old"),
        ("component", "c"),
        ("backup", "a1"),
        ("audit", "1"),
    ]  # fmt: skip  the newest backup stays, and the log goes from its beginning only
    assert all(g.reason for g in goes)
    assert {g.kind for g in plan(there, Needed({}), RULES._replace(days=None))} == {"partial", "component"}


def test_the_least_used_go_until_the_rest_fits():
    items = [Item("new", 5, 3), Item("old", 5, 1), Item("middle", 5, 2)]
    assert [i.name for i in beyond(items, 10)] == ["old"] and not beyond(items, 15)
    assert [i.name for i in beyond(items, 0, {"middle"})] == ["old", "new"]


# -- who holds what -------------------------------------------------------------------------------------------------


def test_what_a_process_holds_is_known_until_it_ends(tmp_path):
    place, clock = tmp_path / "in-use", FakeClock()
    assert in_use(place, clock) == frozenset()
    random = CountingRandom()
    one, two = InUse(place, random, ["a"]), InUse(place, random, ["b"])
    one.also(["c"])
    assert in_use(place, clock) == {"a", "b", "c"}
    one.say(["c"])
    assert in_use(place, clock) == {"b", "c"}
    two._file.close()  # as if it was killed: the lock is gone, the files are not
    assert in_use(place, clock) == {"c"} and len(list(place.iterdir())) == 2
    (told,) = place.glob("*.json")
    told.write_text("[")
    assert in_use(place, clock) is None  # it may be anything
    one.close()
    assert not place.exists()


@pytest.mark.parametrize("dies", range(4))
def test_threat_needed_gone_a_kill_leaves_no_half(author, hello, dies):
    author.create()
    staged = author.stage(author.add(), hello)
    store = author.context.store
    paths = store.paths("local")
    whole = sorted(p.name for p in paths.revision(staged).iterdir())
    with contextlib.suppress(Killed):
        remove_revision(paths, staged, DyingDisk(dies))
    if paths.revision(staged).exists():
        assert sorted(p.name for p in paths.revision(staged).iterdir()) == whole
    recover_revisions(paths, store.disk)
    assert not [p for p in paths.revisions.iterdir() if p.name != staged]


# -- the verb -------------------------------------------------------------------------------------------------------


def archived(author: Author, hello: Path) -> tuple[str, list[str], str]:
    """A deployment with three archived revisions and one that is routed."""
    author.create()
    dep = author.add()
    old = [author.stage(dep, hello) for _ in range(3)]
    for one in old:
        revisions.archive(author.context, author.transition(one))
    served = author.warm(author.stage(dep, hello))
    author.route(dep, (served, 10_000))
    return dep, old, served


def there(author: Author) -> list[str]:
    return [i.name for i in unpacked(author.context.store.paths("local"))]


def test_pruning_tells_first_and_then_lets_go_what_nobody_needs(author, hello):
    _, old, served = archived(author, hello)
    paths = author.context.store.paths("local")
    nothing = prune(author.context, EnvPrunePayload(environment_id="local"))
    assert not nothing.goes and there(author) == [*old, served]  # nobody said how many to keep
    asked = EnvPrunePayload(environment_id="local", keep_revisions=1, dry_run=True)
    before = paths.environment.read_bytes()
    told = prune(author.context, asked)
    assert [(g.kind, g.name) for g in told.goes] == [("revision", old[0]), ("revision", old[1])] and told.freed > 0
    assert there(author) == [*old, served] and paths.environment.read_bytes() == before
    holding = InUse(paths.in_use, CountingRandom(), [old[0]])
    prune(author.context, EnvPrunePayload(environment_id="local", keep_revisions=1))
    assert there(author) == [old[0], old[2], served]  # somebody holds one
    holding.close()
    assert [g.name for g in prune(author.context, EnvPrunePayload(environment_id="local")).goes] == [old[0]]
    assert there(author) == [old[2], served] and author.context.store.load("local").retention.keep_revisions == 1
    last = author.audit()[-1]
    assert (last["noun"], last["verb"], last["target"]["revisions"]) == ("env", "prune", [old[0]])


def test_the_command_line_prunes_and_refuses_what_makes_no_sense(author, hello):
    _, old, served = archived(author, hello)
    words = ("op", "env", "prune", "local", "--store-root", str(author.context.store.root), "--keep-revisions")
    dry = json.loads(gtc(*words, "1", "--dry-run").stdout)["result"]
    assert dry["dry_run"] and [g["name"] for g in dry["goes"]] == old[:2] and there(author) == [*old, served]
    done = json.loads(gtc(*words, "1", "--audit-days", "7").stdout)["result"]
    assert (done["keep_revisions"], done["audit_days"]) == (1, 7) and there(author) == [old[2], served]
    wrong = gtc(*words, "-1")
    assert wrong.returncode == 1 and "invalid-argument" in wrong.stderr


def test_the_log_is_cut_at_its_beginning_and_says_so(author, hello):
    archived(author, hello)
    store = author.context.store
    paths, clock = store.paths("local"), store.clock
    lines = paths.audit.read_bytes().splitlines()
    backups = sorted(paths.backups.iterdir())
    clock.sleep(40 * DAY)
    told = prune(author.context, EnvPrunePayload(environment_id="local", audit_days=30))
    kinds = {g.kind for g in told.goes}
    assert kinds == {"audit", "backup"}
    intent, event = author.audit()
    assert intent["event_id"] == event["event_id"] and event["target"]["audit_lines"] == len(lines)
    assert event["target"]["audit_last_sha256"] == hashlib.sha256(lines[-1]).hexdigest()
    left = sorted(paths.backups.iterdir())
    assert left and len(left) < len(backups) + 1
    author.stage(author.context.store.load("local").bundles[0].deployment_id, hello)  # verbs go on with what is left
    assert len(author.audit()) == 4


def test_a_document_that_does_not_load_keeps_its_bundles(author, hello):
    author.create()
    author.deployed(hello)
    store = author.context.store
    digest = store.load("local").revisions[0].bundle_digest
    assert needed_digests(store) == {digest}
    path = store.paths("local").environment
    path.write_text(path.read_text().replace('"name"', '"nam"'))
    assert digest in needed_digests(store)


# -- the worker -----------------------------------------------------------------------------------------------------


def test_threat_needed_gone_a_worker_keeps_what_serves_or_drains(author, hello, tmp_path):
    dep, old, served = archived(author, hello)
    store = author.context.store
    worker = booted(store)
    serving, held = Serving(worker.activation, store.clock), worker.bench.in_use
    assert held is not None
    new = author.warm(author.stage(dep, hello))
    author.route(dep, (new, 10_000), key="b")
    env_now = store.load("local")
    with store.transaction("local") as transaction:  # a document that knows nothing of what serves
        kept = [r for r in env_now.revisions if r.revision_id == new]
        gone = replace(env_now, revisions=kept, retention=Retention(keep_revisions=0),
                       bundles=[replace(d, current_revisions=[new]) for d in env_now.bundles],
                       traffic_splits=[replace(s, previous_split_ref=None) for s in env_now.traffic_splits])  # fmt: skip
        transaction.save(gone)
    settings = worker.bench.settings
    make_room(store, settings, worker.log)
    assert there(author) == [served, new] and not set(old) & set(there(author))  # it serves, whatever the document says
    with serving.lease(serving.activation.revisions[served]):
        serving.swap(worker.activation._replace(revisions={}, dispatchers={}))
        assert after_swap(store, settings, worker.log, held, serving)  # again later: somebody is on it
        assert there(author) == [served, new]
    assert not after_swap(store, settings, worker.log, held, serving)
    assert there(author) == [new]
    held.close()


def test_room_is_made_before_a_pull_and_what_is_needed_stays(author, hello, monkeypatch):
    dep, old, served = archived(author, hello)
    store = author.context.store
    prune(author.context, EnvPrunePayload(environment_id="local", keep_revisions=3))
    with store.transaction("local") as transaction:
        env_now = transaction.load()
        sourced = [replace(r, bundle_source_uri=hello.as_uri()) for r in env_now.revisions]
        transaction.save(replace(env_now, revisions=sourced, retention=Retention(keep_revisions=0)))
        remove_revision(transaction.paths, served, store.disk)
    seen: list[list[str]] = []
    real = provision.pull
    monkeypatch.setattr(provision, "pull", lambda *words: (seen.append(there(author)), real(*words))[1])
    worker = booted(store)
    assert seen == [[]] and there(author) == [served] and not set(old) & set(there(author))
    assert worker.bench.in_use is not None
    worker.bench.in_use.close()


def test_caches_are_pruned_by_one_function(author, hello, tmp_path):
    author.create()
    components = tmp_path / "components" / "engine"
    components.mkdir(parents=True)
    (components / "k.cwasm").write_bytes(b"x" * 10)
    (components / "k.sha256").write_text("x")
    (components / ".k.lock").write_text("")
    (found,) = compiled_files.entries(components.parent)
    assert (found.name, found.size) == ("engine/k", 10)
    compiled_files.drop(components.parent, found.name)
    assert list(components.iterdir()) == []
    for left in (
        "k.cwasm",
        f".{'k' * 64}.cwasm.1-2.tmp",
    ):  # a writer was killed before the record, or before the rename
        (components / left).write_bytes(b"x" * 10)
        if left.endswith(".tmp"):
            assert compiled_files.entries(components.parent) == []  # somebody may be writing it
            os.utime(components / left, (unix_seconds() - DAY,) * 2)
        (found,) = compiled_files.entries(components.parent)
        assert found.size == 10 and found.used < unix_seconds() - DAY  # they go before what is used
        compiled_files.drop(components.parent, found.name)
        assert list(components.iterdir()) == []
    cache = BundleCache(tmp_path / "cache")
    partial = cache.directory / "partial" / ("f" * 64)
    partial.write_bytes(b"x")
    assert [i.name for i in cache.unfinished()] == [f"sha256:{'f' * 64}"]
    assert not cache.give_up(f"sha256:{'f' * 64}", DAY) and partial.exists()
    os.utime(partial, (unix_seconds() - 2 * DAY,) * 2)
    assert cache.give_up(f"sha256:{'f' * 64}", DAY) and not partial.exists()
    assert json.dumps(cache.partials()) == "[]"
