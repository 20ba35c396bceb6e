"""One turn: a message to a revision, and what it answers (spec: worker 6, packs-flows-components 3.9, 3.10).

Rules:
1. A run that waits for this session goes on; else the flow that the message selects starts.
2. A failure whose text says that it may pass is tried again, from the start, up to three times in all.
3. A failed run is answered like any other, with the error in its metadata. Only a message for which no flow can be selected
   is an error of the host.
4. A waiting run answers with its reason and what it said; its state stays here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from greentic.flow.activity import Activity, failure_payload
from greentic.flow.engine import MAX_STEPS, Completed, Outcome, Parked, Run, resume, start
from greentic.flow.graph import FlowFailure, NotAtOnce
from greentic.flow.ports import Caller, Components, Ports, StateStore, Trace
from greentic.flow.select import FlowHeader, select
from greentic.flow.state import Snapshot
from greentic.ground.clock import Clock, Random
from greentic.pack.load import LoadedFlow, LoadedPack
from greentic.sessions.conversation import Conversations, Identity, session_hint

ATTEMPTS = 3
BASE_DELAY = 0.25
MAX_JITTER = 1.0
STEPS_AT_ONCE = 100
"""Nodes that a turn may execute without giving way to others."""
_PASSING = ("transient", "unavailable", "internal", "timeout")


class ComponentsOf(Protocol):
    """The components of a revision, as the flows of each of its packs see them."""

    def of_pack(self, manifest_id: str, *, at_once: bool = False) -> Components:
        """`at_once`: calls that are not known to be short and without effects raise `NotAtOnce`."""
        ...


class ActiveRevision(NamedTuple):
    """One loaded revision of a deployment."""

    revision_id: str
    deployment_id: str
    bundle_id: str
    digest: str
    source: str | None
    packs: tuple[LoadedPack, ...]
    flows: tuple[tuple[FlowHeader, LoadedFlow], ...]
    components: ComponentsOf
    content: str = ""
    """What it was loaded from; two with the same are interchangeable."""

    @property
    def never_waits(self) -> bool:
        """Whether no flow of the revision has anything to run, so that nobody ever waits on it."""
        return not any(flow.plan.nodes for _, flow in self.flows)

    @property
    def main_pack(self) -> str:
        return self.packs[0].manifest_id

    def pack(self, manifest_id: str) -> LoadedPack:
        return next(pack for pack in self.packs if pack.manifest_id == manifest_id)


class TurnServices(NamedTuple):
    """What turns need beside their revision."""

    env_id: str
    conversations: Conversations
    state: StateStore
    clock: Clock
    random: Random
    log: Callable[[str], None]
    trace: Trace | None = None


class Turn(NamedTuple):
    """The answer of a turn, and whether its run now waits for the next message."""

    output: object
    parked: bool


def flow_index(packs: tuple[LoadedPack, ...]) -> tuple[tuple[FlowHeader, LoadedFlow], ...]:
    """Every flow of every pack; of two with the same pack and id the later wins."""
    found: dict[tuple[str, str], tuple[FlowHeader, LoadedFlow]] = {}
    for pack in packs:
        for flow in pack.flows:
            header = FlowHeader(flow.pack_id, flow.flow_id, flow.kind, flow.entry, pack.provides_messaging)
            found[flow.pack_id, flow.flow_id] = (header, flow)
    return tuple(found.values())


def turn(
    revision: ActiveRevision,
    activity: Activity,
    tenant: str,
    team: str | None,
    identity: Identity,
    services: TurnServices,
    *,
    at_once: bool = False,
) -> Turn:
    """What the flow answers, failures included. Raises `NoFlow` when none can be selected.

    With `at_once` the turn never waits and never takes long: if it would, `NotAtOnce` is raised before it has any effect.
    """
    flow = select(revision.flows, revision.main_pack, activity.flow_type, tenant)
    if flow.failure is not None:
        return Turn(failure_payload(flow.flow_id, flow.failure), False)
    hint = session_hint(identity, tenant, flow.flow_id)
    pack = revision.pack(flow.pack_id)
    caller = Caller(services.env_id, tenant, team, identity.user, hint, flow.flow_id, "provider")
    components = revision.components.of_pack(pack.manifest_id, at_once=at_once)
    ports = Ports(pack.plans, components, pack.assets, services.state, services.clock, services.trace)
    run = Run(pack.manifest_id, flow.flow_id, caller, ports, max_steps=STEPS_AT_ONCE if at_once else MAX_STEPS)
    conversations = services.conversations
    key = conversations.key(revision.revision_id, tenant, hint, pack.manifest_id, flow.flow_id)
    if at_once and not pack.at_once:
        raise NotAtOnce
    try:
        outcome, resumed = _converse(run, conversations, key, activity.payload, services, at_once=at_once)
        if isinstance(outcome, Parked):
            conversations.pin(revision.deployment_id, tenant, identity, revision.revision_id)
        elif resumed:
            conversations.unpin(revision.deployment_id, tenant, identity)
    except FlowFailure as failure:
        services.log(f"flow {flow.flow_id}: {failure}")
        outcome = failure
    except (RecursionError, OverflowError, ValueError) as error:
        # Values that no writer of JSON or CBOR takes: the run fails, as for any other value that does not fit.
        services.log(f"flow {flow.flow_id}: {type(error).__name__}: {error}")
        outcome = FlowFailure(f"a value of the flow cannot be written: {type(error).__name__}")
    return _answer(outcome, run)


def _converse(
    run: Run, conversations: Conversations, key: str, payload: object, services: TurnServices, *, at_once: bool
) -> tuple[Outcome | FlowFailure, bool]:
    """Go on with the run that waits, else start one; the outcome, and whether one had been waiting.

    Only a waiting run is held, for two messages must not both advance it.
    """
    if conversations.waiting(key, run.pack_id) is None:
        outcome = _attempts(run, payload, None, services)
        if isinstance(outcome, Parked):
            conversations.park(key, outcome.snapshot, outcome.reason)
        return outcome, False
    held = conversations.values.hold_at_once(key) if at_once else conversations.values.hold(key)
    if held is None:
        raise NotAtOnce
    with held:
        waiting = conversations.waiting(key, run.pack_id)
        outcome = _attempts(run, payload, waiting, services)
        if isinstance(outcome, Parked):
            conversations.park(key, outcome.snapshot, outcome.reason)
        elif waiting is not None:
            conversations.clear(key)
        return outcome, waiting is not None


def _attempts(run: Run, payload: object, waiting: Snapshot | None, services: TurnServices) -> Outcome | FlowFailure:
    """The outcome of a run, or its last failure (rule 2)."""
    if waiting is not None:
        try:
            return resume(run, waiting, payload)
        except FlowFailure as failure:
            services.log(f"flow {run.flow_id}, resumed: {failure}")
            return failure
    attempt = 1
    while True:
        try:
            return start(run._replace(attempt=attempt), payload)
        except FlowFailure as failure:
            text = str(failure).lower()
            if attempt >= ATTEMPTS or not any(word in text for word in _PASSING):
                services.log(f"flow {run.flow_id}: {failure}")
                return failure
            if run.max_steps == STEPS_AT_ONCE:
                raise NotAtOnce from None
            delay = BASE_DELAY * 2 ** (attempt - 1)
            share = int.from_bytes(services.random.octets(2), "big") / 65535
            services.log(f"flow {run.flow_id}: attempt {attempt} of {ATTEMPTS} failed, trying again: {failure}")
            services.clock.sleep(delay + share * min(delay, MAX_JITTER))
            attempt += 1


def _answer(outcome: Outcome | FlowFailure, run: Run) -> Turn:
    if isinstance(outcome, FlowFailure):
        return Turn(failure_payload(run.flow_id, str(outcome)), False)
    if isinstance(outcome, Completed):
        return Turn(outcome.output, False)
    pending = {
        "status": "pending",
        "reason": outcome.reason,
        "reply_scope": {"conversation": run.flow_id},
        "response": outcome.output,
    }
    return Turn(pending, True)
