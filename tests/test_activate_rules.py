"""What serves, what drains and who holds on to it; what a part of a document gives; each rule at its edge, without a bundle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from foreign_cookie import make_cookie
from greentic.activate import warm
from greentic.activate.activation import Activation, Loaded, Loader, activate, joined, load_revisions
from greentic.activate.dispatch import COOKIE_SECONDS, KEY_BYTES, AffinityCookie, Choice, Dispatcher, read_key
from greentic.activate.flow_spans import FAILED, FlowSpans
from greentic.activate.lease import REMEMBERED, Draining, Serving
from greentic.activate.turn import MAX_ID, ActiveRevision, _name, may_repeat
from greentic.activate.warm import check_loadable, looked_into, warnings_of
from greentic.components.runtime import ComponentRuntime
from greentic.flow.engine import Budget, Run
from greentic.ground.documents import from_json
from greentic.ground.errors import BootError, FlowFailure, InvalidArgument
from greentic.ground.extras import MissingPackage
from greentic.materialize.serving_plan import Fault
from greentic.model.environment import Environment
from greentic.model.ramp_record import ControlSlice
from greentic.model.routes import Routes
from greentic.pack.load import LoadedPack
from greentic.pack.located import LocatedPack
from greentic.pack.signature import PackSignaturePolicy
from greentic.store.layout import EnvPaths
from greentic.telemetry import tracing
from greentic.telemetry.tracing import Sampling, Span, Tracer
from simulators import CountingRandom, FakeClock
from test_model_rules import DEP, DEP2, REV, REV2, REV3, deployment, raw_env, revision, split

KEY = bytes(32)


# -- what serves and what drains ------------------------------------------------------------------------------------


def active(revision_id: str, deployment_id: str = DEP) -> ActiveRevision:
    return ActiveRevision(revision_id, deployment_id, "bot", "sha256:0", None, (), (), cast("Any", None))


def activation(*ids: str, drain: int = 30) -> Activation:
    """What serves some revisions; each drains for so many seconds."""
    document = from_json(Environment, raw_env(revisions=[revision(i, drain_seconds=drain) for i in (REV, REV2, REV3)]))
    return Activation(document, Routes(()), {}, {i: active(i) for i in ids}, {}, {})


def test_a_turn_is_counted_while_it_runs_and_how_it_ended() -> None:
    clock = FakeClock()
    serving = Serving(activation(REV), clock)
    one = serving.activation.revisions[REV]
    with serving.lease(one) as lease, serving.lease(one):
        assert serving.of(REV).in_flight == 2 and lease.counts is serving.of(REV)
        clock.sleep(7)
        lease.parked = 1
    found = serving.of(REV).snapshot()
    assert (found.turns, found.in_flight, found.parked, found.began_to_wait, found.failures) == (2, 0, 1, 1, {})
    assert 14 <= found.seconds < 14.1 and REV not in serving.control
    with serving.lease(one, control=True) as lease:
        lease.parked = -1
    assert (serving.of(REV).parked, serving.control[REV].snapshot().turns, serving.of(REV).snapshot().turns) == (
        0,
        1,
        3,
    )
    for error, kind in ((asyncio.CancelledError(), "gone"), (RuntimeError(), "flow"), (KeyboardInterrupt(), "flow")):
        before = serving.of(REV).snapshot().failures.get(kind, 0)
        with pytest.raises(type(error)), serving.lease(one, control=True):
            raise error
        assert serving.of(REV).snapshot().failures[kind] == before + 1
    with pytest.raises(RuntimeError), serving.lease(one) as lease:
        lease.failure = "busy"
        raise RuntimeError
    assert serving.of(REV).snapshot().failures == {"gone": 1, "flow": 2, "busy": 1}
    assert serving.control[REV].snapshot().failures == {"gone": 1, "flow": 2} and serving.of(REV).in_flight == 0


def test_threat_drain_race_a_window_begins_when_a_revision_is_swapped_out() -> None:
    clock = FakeClock()
    serving = Serving(activation(REV, drain=5), clock)
    held = serving.activation.revisions[REV]
    serving.of(REV).waits(1)
    with serving.lease(held):
        serving.swap(activation(REV2))
        clock.sleep(6)
        assert serving.sweep() == [] and serving.find(REV) is held, "never before its last lease"
    assert serving.find(REV) is None and not serving.draining
    serving = Serving(activation(REV, drain=5), clock)
    serving.of(REV).waits(1)
    began = clock.monotonic()
    serving.swap(activation(REV2))
    assert began + 5 < serving.draining[REV].until < began + 5.001
    clock.sleep(4.9)
    assert serving.find(REV) is not None and serving.sweep() == []
    clock.sleep(0.2)
    assert serving.sweep() == [REV]
    strangers = Serving(
        activation(REV)._replace(env=from_json(Environment, raw_env(revisions=[], traffic_splits=[]))), clock
    )
    strangers.of(REV).waits(1)
    strangers.swap(activation(REV2))
    assert not strangers.draining, "one that no document knows has no window"


def test_where_sessions_wait_is_asked_only_of_deployments_that_hold_a_flow_that_waits() -> None:
    clock, other = FakeClock(), "01ARZ3NDEKTSV4RRFFQ69G5FAX"
    asking = activation(REV, drain=5)
    vars(asking.revisions[REV])["waits"] = True
    serving = Serving(asking, clock)
    assert serving.may_wait(DEP) and not serving.may_wait(other)
    serving.of(REV).waits(1)
    serving.swap(activation(REV2))
    assert serving.may_wait(DEP), "one that drains is waited on, whatever serves now"
    clock.sleep(6)
    assert serving.sweep() == [REV] and not serving.may_wait(DEP)
    serving.swap(asking)
    assert serving.may_wait(DEP)


def test_a_swap_says_since_when_each_revision_serves_as_it_is() -> None:
    clock = FakeClock()
    serving = Serving(first := activation(REV, REV2), clock)
    began = serving.started
    assert serving.since == {REV: began, REV2: began} and serving.process.endswith(str(began - 1000))
    with serving.lease(first.revisions[REV], control=True), serving.lease(first.revisions[REV2], control=True):
        pass
    clock.sleep(10)
    same = activation(REV, REV3)
    serving.swap(same._replace(revisions=same.revisions | {REV: first.revisions[REV]}))
    assert serving.since[REV] == began < serving.since[REV3] and set(serving.since) == {REV, REV3}
    assert set(serving.control) == {REV} and serving.swaps == 1
    later = serving.since[REV3]
    clock.sleep(10)
    serving.swap(activation(REV, REV3))  # loaded anew
    assert serving.since[REV] == serving.since[REV3] > later and serving.swaps == 2


def test_a_revision_that_comes_back_serves_and_no_longer_drains() -> None:
    serving = Serving(activation(REV), FakeClock())
    serving.of(REV).waits(1)
    serving.swap(activation(REV2))
    assert set(serving.draining) == {REV}
    serving.swap(again := activation(REV, REV2))
    assert not serving.draining and serving.find(REV) is again.revisions[REV] and serving.find("other") is None


def test_counts_of_the_gone_are_remembered_for_so_many_and_their_sum_for_ever() -> None:
    serving = Serving(activation(REV), FakeClock())
    serving.draining[REV2] = Draining(active(REV2), 1e18)
    for number in range(REMEMBERED):
        serving.of(f"g{number}").ended(1.0, "flow")
    for kept in (REV, REV2):
        serving.of(kept).ended(1.0, None)
    assert len(serving.counts) == REMEMBERED + 2 and serving.forgotten.snapshot().turns == 0
    for number in range(3):
        serving.of(f"h{number}")
    assert len(serving.counts) == REMEMBERED + 2 and not {"g0", "g1", "g2"} & set(serving.counts)
    assert {REV, REV2, "g3", "h2"} <= set(serving.counts)
    assert (serving.forgotten.snapshot().turns, serving.forgotten.snapshot().failures) == (3, {"flow": 3})


# -- who is drawn ---------------------------------------------------------------------------------------------------


def dispatcher(*choices: Choice, control: ControlSlice | None = None) -> Dispatcher:
    return Dispatcher("prod", DEP, list(choices), generation=3, key=KEY, control=control)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1000, 1000)])
def test_only_a_share_of_the_old_revisions_clients_is_in_its_control_slice(share: float, least: int, most: int) -> None:
    two = dispatcher(Choice(REV, 5000, False), Choice(REV2, 5000, False), control=ControlSlice(REV, "n", share))
    clients = [number.to_bytes(16, "big") for number in range(1000)]
    assert least <= sum(two.in_control(client, REV) for client in clients) <= most
    assert not any(two.in_control(client, REV2) for client in clients)
    assert not any(dispatcher(Choice(REV, 1, False)).in_control(client, REV) for client in clients)


def test_the_least_weight_still_holds_who_came_with_another_cookie() -> None:
    few = dispatcher(Choice(REV, 1, False), Choice(REV2, 9_999, False))
    told = make_cookie(AffinityCookie("prod", "t", DEP, REV, 3, 1000), KEY)
    assert few.of_cookie(told, "t", 999, CountingRandom())[0] == REV
    drawn = {few.of_cookie(told, "t", 1000, CountingRandom())[0] for _ in range(3)}
    assert drawn == {few.of_cookie(None, "t", 0, CountingRandom())[0]}, "its time is over"


def test_a_key_has_its_mark_its_length_and_its_letters() -> None:
    assert read_key("k." + "A" * 22) == bytes(KEY_BYTES) and KEY_BYTES == 16
    for wrong in (
        "A" * 22,
        "A" * 24,
        "k." + "A" * 21,
        "k." + "A" * 23,
        "k.k." + "A" * 20,
        "k." + "A" * 21 + "é",
        "k." + "A" * 21 + "!",
    ):
        assert read_key(wrong) is None, wrong
    one = dispatcher(Choice(REV, 1, False))
    drawn, client = one.of_cookie(None, "t", 0, CountingRandom())
    assert (drawn, client.cookie) == (REV, True)
    told = one.set_cookie(client)
    assert (
        told.startswith(f"_gt_rev_{DEP}=k.")
        and told.endswith(f"Max-Age={COOKIE_SECONDS}")
        and COOKIE_SECONDS == 2_592_000
    )


# -- what a part of a document gives --------------------------------------------------------------------------------


def document(**more: object) -> Environment:
    """Two deployments with one routed revision each."""
    told: dict[str, object] = {
        "bundles": [deployment(), deployment(DEP2)], "revisions": [revision(REV), revision(REV2, DEP2), revision(REV3, DEP2)],
        "traffic_splits": [split((REV, 10_000)), split((REV2, 9_000), (REV3, 1_000), dep=DEP2, generation=4)],
    }  # fmt: skip
    return from_json(Environment, raw_env(**(told | more)))


LOADED = Loaded({REV: active(REV), REV2: active(REV2, DEP2), REV3: active(REV3, DEP2)}, {})
FAULT = Fault("broken", REV2, BootError("no"))


class Asked(dict[str, ActiveRevision]):
    """Parts by content, and for which of them somebody asked."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: list[str] = []

    def get(self, content: str, default: Any = None) -> Any:
        self.contents.append(content)
        return super().get(content, default)


def test_a_revision_whose_content_is_known_is_not_loaded_again(tmp_path: Path) -> None:
    whole, parts = document(), Asked()
    runtime = ComponentRuntime(None, cast("Any", None), lambda *_: None)
    loader = Loader(EnvPaths(tmp_path), runtime, PackSignaturePolicy())
    packs: dict[str, tuple[LocatedPack, ...]] = {REV: (), REV2: (), REV3: ()}
    first = load_revisions(whole, whole.revisions, packs, loader, parts)
    assert set(first.revisions) == {REV, REV2, REV3} and not first.failed and len(set(parts.contents)) == 3
    one = first.revisions[REV]
    assert (one.deployment_id, one.bundle_id, one.packs, one.content) == (DEP, "bot", (), parts.contents[0])
    parts.update({r.content: r for r in first.revisions.values()})
    again = load_revisions(whole, whole.revisions, packs, loader, parts)
    assert all(again.revisions[i] is r for i, r in first.revisions.items())
    moved = {REV: (LocatedPack("p", tmp_path / "p", "sha256:0"),)}
    other = load_revisions(
        whole, whole.revisions[:1], moved, loader, parts
    )  # other content: loaded, and it is not there
    assert (
        not other.revisions and other.failed[DEP].reason == "broken" and str(tmp_path / "p") in other.failed[DEP].text
    )


def test_one_revision_that_does_not_load_takes_its_deployment_along_and_no_other(tmp_path: Path) -> None:
    lost = revision(REV2, DEP2, pack_config_refs=[f"revisions/{REV2}/pack-configs/p.json"])
    whole, parts = document(revisions=[revision(REV), lost, revision(REV3, DEP2)]), Asked()
    loader = Loader(
        EnvPaths(tmp_path), ComponentRuntime(None, cast("Any", None), lambda *_: None), PackSignaturePolicy()
    )
    packs: dict[str, tuple[LocatedPack, ...]] = {REV: (), REV2: (), REV3: ()}
    for wanted in (whole.revisions, whole.revisions[::-1]):
        parts.contents.clear()
        found = load_revisions(whole, wanted, packs, loader, parts)
        fault = found.failed[DEP2]
        assert set(found.revisions) == {REV} and set(found.failed) == {DEP2}
        assert (fault.reason, fault.revision_id) == ("broken", REV2) and "does not exist" in fault.text
    assert len(parts.contents) == 2, "what stands behind it is not loaded for nothing"
    load_revisions(whole, whole.revisions, packs, loader, parts)
    assert len(parts.contents) == 3


def test_what_was_loaded_is_served_by_its_weights() -> None:
    found = activate(document(), LOADED, {}, KEY)
    assert {i: d.weights for i, d in found.dispatchers.items()} == {
        DEP: {REV: 10_000},
        DEP2: {REV2: 9_000, REV3: 1_000},
    }
    assert found.dispatchers[DEP2].generation == 4 and found.revisions == LOADED.revisions and not found.unavailable
    draining = document(revisions=[revision(REV), revision(REV2, DEP2, lifecycle="draining"), revision(REV3, DEP2)])
    again = activate(draining, LOADED, {}, KEY, found)
    assert again.dispatchers[DEP] is found.dispatchers[DEP], "the same weights keep their dispatcher"
    assert {again.dispatchers[DEP2].of_session(str(n)) for n in range(50)} == {REV3}, "a draining one gets nobody new"
    assert activate(document(), LOADED, {}, b"k" * 32, found).dispatchers[DEP] is not found.dispatchers[DEP]


def test_what_is_unavailable_goes_on_as_it_was_while_its_deployment_is_active() -> None:
    before = activate(document(), LOADED, {}, KEY)
    part = Loaded({REV: LOADED.revisions[REV]}, {DEP2: FAULT})
    first = activate(document(), part, {}, KEY)
    assert (set(first.dispatchers), set(first.revisions), dict(first.unavailable)) == ({DEP}, {REV}, {DEP2: FAULT})
    later = activate(document(), part, {}, KEY, before)
    assert later.dispatchers[DEP2] is before.dispatchers[DEP2] and set(later.revisions) == {REV, REV2, REV3}
    assert dict(later.unavailable) == {DEP2: FAULT}, "and its fault is told all the same"
    paused = document(bundles=[deployment(), deployment(DEP2, status="paused")])
    assert set(activate(paused, part, {}, KEY, before).dispatchers) == {DEP}
    never = activate(document(), part, {DEP2: FAULT}, KEY, first)
    assert set(never.dispatchers) == {DEP} and set(never.revisions) == {REV}


def test_a_part_is_put_into_what_serves_and_takes_the_place_of_what_it_touched() -> None:
    whole = document()
    alone = joined(whole, {DEP, DEP2}, activate(whole, LOADED, {}, KEY), None)
    assert [r.deployment_id for r in alone.routes] == [DEP, DEP2] and alone.env is whole
    assert set(alone.dispatchers) == {DEP, DEP2} and set(alone.revisions) == {REV, REV2, REV3}
    before = alone._replace(unavailable={DEP: FAULT, DEP2: FAULT})
    part = activate(whole, Loaded({REV2: active(REV2, DEP2)}, {}), {}, KEY)
    found = joined(whole, {DEP2}, part, before)
    assert found.routes is before.routes and found.dispatchers[DEP] is before.dispatchers[DEP]
    assert set(found.revisions) == {REV, REV2} and dict(found.unavailable) == {DEP: FAULT}
    fewer = from_json(Environment, raw_env())
    gone = joined(fewer, {DEP2}, activate(fewer, Loaded({}, {}), {}, KEY), before)
    assert [r.deployment_id for r in gone.routes] == [DEP] and set(gone.revisions) == {REV} and gone.env is fewer


# -- spans, warnings, failures --------------------------------------------------------------------------------------


@pytest.fixture
def spans() -> Iterator[list[Span]]:
    """What ended, of everything that is traced."""
    taken: list[Span] = []
    tracing.install(Tracer(Sampling(1.0), taken.append))
    yield taken
    tracing.install(None)


def test_a_node_is_a_span_and_one_that_is_not_told_to_be_done_failed(spans: list[Span]) -> None:
    nodes = FlowSpans()
    nodes.enter("f", "nobody traces", "k")
    nodes.over()
    assert not spans
    with tracing.whole("turn") as around:
        for name in ("a", "b", "c"):
            nodes.enter("f", name, "exec")
        nodes.step("f", "b", "exec", None, None, "next")
        assert [(s.attributes["greentic.node"], s.error) for s in spans] == [("c", FAILED), ("b", None)]
        nodes.enter("f", "d", "emit")
        nodes.over()
        assert [(s.attributes["greentic.node"], s.error) for s in spans[2:]] == [("d", FAILED), ("a", FAILED)]
        assert tracing.current() is around
        nodes.over()
        nodes.step("f", "a", "exec", None, None, "next")
    assert len(spans) == 5 and spans[0].attributes == {
        "greentic.flow": "f",
        "greentic.node": "c",
        "greentic.node.kind": "exec",
    }
    assert spans[0].name == "node exec" and spans[4] is around


def loaded(pack_id: str, *components: object) -> LoadedPack:
    return LoadedPack(
        pack_id, pack_id, "1.0.0", "sha256:0", cast("Any", None), (), {}, cast("Any", components), (), (), cast("Any", None), False, False, ("w",),
    )  # fmt: skip


def test_without_an_engine_that_is_what_is_told_of_packs_with_components(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(packs: object) -> None:
        raise MissingPackage("no engine is installed")

    monkeypatch.setattr(warm, "_components", missing)
    with_some, without = looked_into((loaded("a", "component"), loaded("b")))
    assert without.warnings == ("w",) and with_some.warnings[0] == "w" and "not looked into" in with_some.warnings[1]
    assert warnings_of((loaded("a"), loaded("b"))) == ["a: w", "b: w"]


def test_warming_asks_for_signatures_as_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check_loadable([])
    assert found.warnings == [] and found.report.compiled == 0
    for mode, signers, told in (
        ("perhaps", "", "perhaps"),
        ("require", "", "names nobody"),
        ("warn", "no key", "no key"),
    ):
        monkeypatch.setenv("GREENTIC_PACK_SIGNATURES", mode)
        monkeypatch.setenv("GREENTIC_PACK_SIGNERS", signers)
        with pytest.raises(InvalidArgument, match=told):
            check_loadable([])
    monkeypatch.setenv("GREENTIC_PACK_SIGNERS", "")
    assert check_loadable([]).warnings == []


@pytest.mark.parametrize(
    ("text", "retryable", "acted", "again"),
    [
        ("x unavailable", None, False, True), ("Timeout", None, False, True), ("wrong", None, False, False), ("wrong", True, False, True),
        ("timeout", False, False, False), ("timeout", None, True, False), ("timeout", True, True, False),
    ],
)  # fmt: skip
def test_a_run_is_made_again_if_its_failure_may_pass_and_nothing_was_done(
    text: str, retryable: bool | None, acted: bool, again: bool
) -> None:
    run = Run("p", "f", cast("Any", None), cast("Any", None))
    failure = FlowFailure(text)
    failure.retryable = retryable
    budget = Budget(1, 1.0)
    budget.acted = acted
    assert may_repeat(failure, replace(run, budget=budget)) is again


def test_a_long_name_of_a_message_is_told_apart_by_its_digest() -> None:
    longest = "m" * MAX_ID
    assert _name(longest) == longest and len(_name(longest + "m")) == 64
    assert _name(longest + "a") != _name(longest + "b") and _name("\ud800" * 300)
