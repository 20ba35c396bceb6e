"""A change of one among many costs one: what is made of the parts that changed is what the whole would have given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Author, booted
from greentic.activate.activation import Activation
from greentic.ground.documents import from_json, json_object, pretty
from greentic.ground.errors import SpecViolation
from greentic.model.elements import Elements
from greentic.model.environment import Environment
from greentic.model.ids import ulid_from_int
from greentic.model.projection import Projected, project
from greentic.model.touched import every_deployment, only, touched
from greentic.model.validate import validate, validate_change
from greentic.store.environments import EnvironmentStore
from greentic.worker.boot import Booted
from greentic.worker.candidate import Candidate
from greentic.worker.provision import provision

MANY = 1000


class Grown:
    """An environment of one bundle in many deployments, edited record by record as JSON."""

    def __init__(self, env: Environment) -> None:
        document = json_object(env)
        self.head = {k: v for k, v in document.items() if k not in ("bundles", "revisions", "traffic_splits")}
        rows = [document[key][0] for key in ("bundles", "revisions", "traffic_splits")]  # type: ignore[index, call-overload]
        self._text = json.dumps(rows)
        self._ids = (rows[1]["deployment_id"], rows[1]["revision_id"])
        self.rows: dict[int, list] = {}
        self._next = 1
        self.splits = 0

    def add(self) -> None:
        """One more deployment, with a prefix of its own."""
        number, self._next = self._next, self._next + 1
        text = self._text
        for kind, old in enumerate(self._ids):
            text = text.replace(old, ulid_from_int(2 * number + kind))
        row = json.loads(text)
        row[0]["route_binding"]["path_prefixes"] = [f"/{number}"]
        self.rows[number] = row

    def text(self) -> bytes:
        rows = list(self.rows.values())
        lists = {key: [r[n] for r in rows] for n, key in enumerate(("bundles", "revisions", "traffic_splits"))}
        lists["revisions"] += [extra for r in rows for extra in r[3:]]
        return pretty(from_json(Environment, self.head | lists))

    def edit(self, kind: str, at: int) -> None:
        """One change of the deployment at a place."""
        if kind == "add" or not self.rows:
            return self.add()
        key = list(self.rows)[at % len(self.rows)]
        deployment, revision, split = self.rows[key][:3]
        if kind == "remove":
            del self.rows[key]
        elif kind == "weights":
            split["generation"] += 1
        elif kind == "status":
            deployment["status"] = "active" if deployment["status"] == "paused" else "paused"
        elif kind == "prefix":
            deployment["route_binding"]["path_prefixes"] = [f"/{at}"]
        elif kind == "overrides":  # equal, and not the same
            pack = revision["pack_list"][0]["pack_id"]
            was = deployment.get("config_overrides", {}).get(pack, {}).get("x")
            deployment["config_overrides"] = {pack: {"x": 1 if was is True else True}}
        elif kind == "lifecycle":
            revision["lifecycle"] = "ready" if revision["lifecycle"] == "draining" else "draining"
        elif kind == "digest":  # not to be had: the deployment goes on with what it had
            revision["bundle_digest"] = f"sha256:{at % 2:064x}"
            revision["pack_list"][0]["digest"] = f"sha256:{at % 2:064x}"
        elif kind == "last":
            self.rows[key] = self.rows.pop(key)
        elif kind == "ramp":
            self.head["greentic:ramp"] = {split["deployment_id"]: at, "other": [at]}
        elif kind == "light":
            split["entries"][0]["weight_bps"] = 9_999
        elif kind == "schema":
            deployment["schema"] = "x"
        elif kind == "foreign":  # the revision of whoever comes last
            split["entries"][0]["revision_id"] = list(self.rows.values())[-1][1]["revision_id"]
        elif kind == "current":
            deployment["current_revisions"] = [revision["revision_id"]]
        elif kind == "taken":  # an id that another deployment's revision has
            revision["revision_id"] = next(iter(self.rows.values()))[1]["revision_id"]
        elif kind == "unsplit":
            deployment["deployment_id"] = ulid_from_int(10**7 + at)
        elif kind == "double":
            first = next(iter(self.rows.values()))[1]["revision_id"]
            self.rows[key].append({**revision, "revision_id": first})
        elif kind == "endpoint":
            deployment["bundle_id"] = revision["bundle_id"] = split["bundle_id"] = f"e{at}"
            self.head["messaging_endpoints"] = [{
                "schema": "greentic.messaging-endpoint.v1", "env_id": "local", "endpoint_id": ulid_from_int(at),
                "provider_id": "p", "provider_type": "t", "display_name": "d", "linked_bundles": [deployment["bundle_id"]],
                "created_at": deployment["created_at"], "updated_at": deployment["created_at"], "updated_by": "u",
            }]  # fmt: skip
        elif kind == "bundle":
            deployment["bundle_id"] = revision["bundle_id"] = split["bundle_id"] = f"b{at}"
        elif kind == "split":
            self.splits += 1
            other = {**revision, "revision_id": ulid_from_int(10**6 + self.splits)}
            self.rows[key].append(other)
            split["entries"] = [{"revision_id": revision["revision_id"], "weight_bps": 10_000}]
        return None


KINDS = ("add", "remove", "weights", "status", "prefix", "overrides", "lifecycle", "digest", "last", "ramp", "split")
EDITS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9)), min_size=1, max_size=3)


BREAKING = ("light", "schema", "foreign", "current", "taken", "unsplit", "endpoint", "bundle", "double")
ANY = st.lists(st.tuples(st.sampled_from(KINDS + BREAKING), st.integers(0, 4)), min_size=1, max_size=3)


@pytest.fixture
def worker(author: Author, hello: Path) -> Booted:
    author.create().deployed(hello, hello.as_uri())
    return booted(
        EnvironmentStore(author.context.store.root)
    )  # several threads wait for its lock, by a clock that goes


def candidate(text: bytes, elements: Elements) -> Candidate:
    env = elements.environment(text)
    validate(env)
    return Candidate(env, "", None)


def shown(activation: Activation) -> dict[str, object]:
    """All that answering depends on, as values that can be compared."""
    return {
        "env": activation.env,
        "routes": list(activation.routes),
        "dispatchers": {i: (d.weights, d.generation, d.control, d._open) for i, d in activation.dispatchers.items()},
        "revisions": {i: r.content for i, r in activation.revisions.items()},
        "unavailable": {i: (f.reason, f.revision_id, f.text) for i, f in activation.unavailable.items()},
        "endpoints": activation.endpoints,
        "generation": activation.generation,
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(EDITS, min_size=1, max_size=4))
def test_a_part_put_into_what_serves_is_what_the_whole_gives(worker, steps):
    """Over any edits, step by step: the same activation, and the same file, as when every deployment goes through the pipeline."""
    grown, elements = Grown(worker.activation.env), Elements()
    for _ in range(3):
        grown.add()
    path = worker.store.paths("local").runtime_config
    serving = provision(worker.bench, candidate(grown.text(), elements))
    for edits in steps:
        for kind, at in edits:
            grown.edit(kind, at)
        found = candidate(grown.text(), elements)
        part = provision(worker.bench, found, serving)
        file = path.read_bytes() if path.exists() else None
        whole = provision(worker.bench, found, serving._replace(trusted=None))
        assert shown(part) == shown(whole)
        config = project(part.env, skipped=frozenset(part.unavailable))
        assert file == (None if config is None else pretty(config))
        serving = part


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(EDITS, st.integers(0, 3)), min_size=1, max_size=6))
def test_the_projection_made_of_parts_is_that_of_the_whole(worker, steps):
    grown, elements, projected = Grown(worker.activation.env), Elements(), Projected()
    for edits, skipping in steps:
        for kind, at in edits:
            grown.edit(kind, at)
        env = elements.environment(grown.text())
        skipped = frozenset(d.deployment_id for d in env.bundles[:skipping])
        config = project(env, skipped=skipped)
        assert projected.of(env, skipped) == (None if config is None else pretty(config))


def broken_rule(check: Callable[..., None], *envs: Environment) -> str | None:
    try:
        check(*envs)
    except SpecViolation as error:
        return str(error)
    return None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(ANY, min_size=1, max_size=5))
def test_a_change_is_as_legal_as_the_whole(worker, steps):
    """The same first broken rule, or none, whatever was legal before."""
    grown, elements = Grown(worker.activation.env), Elements()
    for _ in range(3):
        grown.add()
    before = elements.environment(grown.text())
    validate(before)
    for edits in steps:
        for kind, at in edits:
            grown.edit(kind, at)
        env = elements.environment(grown.text())
        told = broken_rule(validate, env)
        assert broken_rule(validate_change, env, before) == told
        before = env if told is None else before


def test_an_endpoint_of_a_bundle_that_goes_is_noticed(worker):
    grown, elements = Grown(worker.activation.env), Elements()
    for _ in range(3):
        grown.add()
    grown.edit("endpoint", 1)
    before = elements.environment(grown.text())
    validate(before)
    grown.edit("remove", 1)
    assert "is not deployed" in (broken_rule(validate_change, elements.environment(grown.text()), before) or "")


def test_one_touched_deployment_of_a_thousand_is_all_that_is_worked_on(worker, monkeypatch):
    """Work is counted, not time: records read, deployments provisioned, texts of the projection made."""
    grown, elements = Grown(worker.activation.env), Elements()
    for _ in range(MANY):
        grown.add()
    env, projected = elements.environment(grown.text()), Projected()
    projected.of(env)
    assert projected.made == MANY and len(every_deployment(env)) == MANY
    read: list[object] = []
    monkeypatch.setattr(
        "greentic.model.elements.from_json", lambda form, raw: read.append(form) or from_json(form, raw)
    )
    for kind in ("weights", "overrides", "lifecycle", "prefix"):
        read.clear()
        grown.edit(kind, 500)
        new = elements.environment(grown.text())
        changed = touched(env, new)
        part = only(new, changed)
        assert changed == {ulid_from_int(2 * 501)} and len(read) == 2  # the record, and the rest of the document
        assert [len(part.bundles), len(part.revisions), len(part.traffic_splits)] == [1, 1, 1]
        before = projected.made
        projected.of(new)
        assert projected.made - before == (kind in ("weights", "lifecycle"))
        env = new


def test_a_follow_takes_over_what_no_change_touched(worker, monkeypatch):
    grown, elements = Grown(worker.activation.env), Elements()
    for _ in range(5):
        grown.add()
    serving = provision(worker.bench, candidate(grown.text(), elements))
    assert not serving.unavailable
    looked: list[str] = []
    monkeypatch.setattr(
        "greentic.worker.provision.survey",
        lambda paths, wanted, at_hand: (
            looked.extend(r.revision_id for r in wanted) or {i: packs for i, (_, packs) in at_hand.items()}
        ),
    )
    grown.edit("weights", 2)
    after = provision(worker.bench, candidate(grown.text(), elements), serving)
    assert looked == [ulid_from_int(2 * 3 + 1)] and after.routes is serving.routes
    kept = [after.dispatchers[i] is d for i, d in serving.dispatchers.items()]
    assert sorted(kept) == [False, True, True, True, True]
    assert all(after.revisions[i] is r for i, r in serving.revisions.items())
