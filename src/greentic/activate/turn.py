"""One turn: a message to a revision, and what it answers (spec: worker 6, packs-flows-components 3.9, 3.10).

Rules:
1. A run that waits for this session goes on; else the flow that the message selects starts.
2. A message is applied to the state that it was sent for. Messages of one session that may wait for each other are taken one
   after the other; one that finds another question than stood when it came changes nothing, and is told so.
3. A message with an id is answered once: the same id gets the same answer.
4. A failed run is answered like any other, with the error in its metadata. Only a message for which no flow can be selected
   is an error of the host.
5. A failure takes nothing away: a run that waited waits on, until `MAX_FAILURES` in a row end it, which is said.
6. A failure is tried again, from the start, up to three times in all, if it says that it may be; where nobody said, its words
   decide. Never once a step may have had an effect, and never a run that had waited: its message can be sent again.
7. A waiting run answers with its reason and what it said; its state stays here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from greentic.flow.activity import Activity, failure_payload
from greentic.flow.engine import MAX_SECONDS, MAX_STEPS, Completed, Outcome, Parked, Run, new_budget, resume, start
from greentic.flow.ports import Caller, Components, Ports, StateStore, Trace
from greentic.flow.select import FlowHeader, select
from greentic.ground.backoff import Backoff, Patience
from greentic.ground.clock import Clock, Random
from greentic.ground.errors import FlowFailure, NotAtOnce
from greentic.pack.load import LoadedFlow, LoadedPack
from greentic.sessions.conversation import MAX_FAILURES, Conversations, Identity, Waiting, read_waiting, session_hint

ATTEMPTS = 3
BACKOFF = Backoff(first=0.5, longest=2.0, longest_asked=10.0)
"""Between tries: 250 ms and more, then 500 ms and more, or what the failure asks for."""
STEPS_AT_ONCE = 100
"""Nodes that a turn may execute without giving way to others."""
MAX_ID = 256
"""Characters of a message id that count; longer ones are told apart by their digest."""
STALE = "This was answered already; nothing was done."
ENDED = f"Sorry — this went wrong {MAX_FAILURES} times, so the conversation has ended. Please start again."
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
    failed: str | None = None
    """Why the run failed, if it did."""


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
    message_id: str | None = None,
) -> Turn:
    """What the flow answers, failures included. Raises `NoFlow` when none can be selected.

    With `at_once` the turn never waits and never takes long: if it would, `NotAtOnce` is raised before it has any effect.
    `message_id` is what the caller calls this message in its session; the same one again gets the same answer.
    """
    flow = select(revision.flows, revision.main_pack, activity.flow_type, tenant)
    if flow.failure is not None:
        return Turn(failure_payload(flow.flow_id, flow.failure), False, flow.failure)
    hint = session_hint(identity, tenant, flow.flow_id)
    pack = revision.pack(flow.pack_id)
    if at_once and not pack.at_once:
        raise NotAtOnce
    caller = Caller(services.env_id, tenant, team, identity.user, hint, flow.flow_id, "provider")
    components = revision.components.of_pack(pack.manifest_id, at_once=at_once)
    ports = Ports(pack.plans, components, pack.assets, services.state, services.clock, services.trace)
    run = Run(pack.manifest_id, flow.flow_id, caller, ports, max_steps=STEPS_AT_ONCE if at_once else MAX_STEPS)
    place = _Place(revision, tenant, identity, hint, run)
    try:
        if message_id is None and not any(plan.waits for plan in pack.plans.values()):
            if not revision.never_waits:
                _forget_abandoned(place, services.conversations)
            return _answer(_attempts(run, activity.payload, services), run)
        return _converse(place, activity.payload, services, at_once=at_once, message_id=message_id)
    except FlowFailure as failure:
        services.log(f"flow {flow.flow_id}: {failure}")
        return _answer(failure, run)


class _Place(NamedTuple):
    """Where a conversation is kept."""

    revision: ActiveRevision
    tenant: str
    identity: Identity
    hint: str
    run: Run

    def key(self, conversations: Conversations, revision_id: str) -> str:
        return conversations.key(revision_id, self.tenant, self.hint, self.run.pack_id, self.run.flow_id)

    def pinned(self, conversations: Conversations) -> str | None:
        return conversations.pinned(self.revision.deployment_id, self.tenant, self.identity)

    def pin(self, conversations: Conversations) -> None:
        conversations.pin(self.revision.deployment_id, self.tenant, self.identity, self.revision.revision_id)

    def unpin(self, conversations: Conversations) -> None:
        conversations.unpin(self.revision.deployment_id, self.tenant, self.identity)


def _converse(place: _Place, payload: object, services: TurnServices, *, at_once: bool, message_id: str | None) -> Turn:
    """One message of a session whose messages are taken one after the other (rules 2 and 3). Raises `FlowFailure`."""
    conversations = services.conversations
    session = conversations.session(place.revision.deployment_id, place.tenant, place.hint)
    key = place.key(conversations, place.revision.revision_id)
    came_for = _question(place, key, conversations)
    name = None if message_id is None else _name(message_id)
    held = conversations.values.hold_at_once(session) if at_once else conversations.values.hold(session)
    if held is None:
        raise NotAtOnce
    with held:
        kept = None if name is None else conversations.answered(session, name)
        if kept is not None:
            return Turn(kept.output if kept.whole else _stale(place.run), kept.parked)
        waiting = conversations.waiting(key)
        if _question(place, key, conversations) != came_for:
            return Turn(_stale(place.run), waiting is not None)
        _forget_abandoned(place, conversations)
        answer = _advance(place, key, waiting, payload, services)
        if name is not None:
            try:
                conversations.keep_answer(session, name, answer.output, parked=answer.parked)
            except FlowFailure as failure:  # what was done was done, and is told
                services.log(f"flow {place.run.flow_id}: the answer cannot be kept for a repeated message: {failure}")
        return answer


def _question(place: _Place, key: str, conversations: Conversations) -> tuple[str | None, str | None]:
    """What a message is sent for: where the session is pinned, if that is elsewhere, and the mark of the question here."""
    pinned, waiting = place.pinned(conversations), conversations.waiting(key)
    elsewhere = None if pinned == place.revision.revision_id else pinned
    return elsewhere, None if waiting is None else waiting.mark


def _forget_abandoned(place: _Place, conversations: Conversations) -> None:
    """Forget a question of a revision that serves no more; should it come back, a new message is not an answer to it."""
    pinned = place.pinned(conversations)
    if pinned is not None and pinned != place.revision.revision_id:
        conversations.clear(place.key(conversations, pinned))
        place.unpin(conversations)


def _advance(place: _Place, key: str, waiting: Waiting | None, payload: object, services: TurnServices) -> Turn:
    """Go on with the run that waits, else start one; what waits afterwards, and what is answered."""
    conversations, run = services.conversations, place.run
    try:
        if waiting is None:
            outcome = _attempts(run, payload, services)
        else:
            outcome = _told(lambda: resume(run, read_waiting(waiting, run.pack_id), payload))
        if isinstance(outcome, Parked):
            conversations.park(key, outcome.snapshot, outcome.reason, services.random.octets(8).hex())
            place.pin(conversations)
        elif waiting is not None:
            conversations.clear(key)
            place.unpin(conversations)
        return _answer(outcome, run)
    except FlowFailure as failure:
        services.log(f"flow {run.flow_id}: {failure}")
        if waiting is None:
            return _answer(failure, run)
        if conversations.failed(key, waiting):
            return _answer(failure, run)._replace(parked=True)
        place.unpin(conversations)
        return Turn(failure_payload(run.flow_id, str(failure), ENDED), False, str(failure))


def _told(make: Callable[[], Outcome]) -> Outcome:
    """The outcome, with values that no writer of JSON or CBOR takes told as any other failure of a run."""
    try:
        return make()
    except (RecursionError, OverflowError, ValueError) as error:
        raise FlowFailure(f"a value of the flow cannot be written: {type(error).__name__}") from None


def _attempts(run: Run, payload: object, services: TurnServices) -> Outcome:
    """The outcome of a new run. Raises its last `FlowFailure` (rule 6)."""
    patience = Patience(BACKOFF, ATTEMPTS, MAX_SECONDS, services.clock, services.random)
    while True:
        attempt = run._replace(attempt=patience.tried + 1, budget=new_budget(run))
        try:
            return _told(lambda: start(attempt, payload))  # noqa: B023  it is called at once
        except FlowFailure as failure:
            if not may_repeat(failure, attempt) or patience.tried + 1 >= ATTEMPTS:
                raise
            if run.max_steps == STEPS_AT_ONCE:
                raise NotAtOnce from None
            services.log(
                f"flow {run.flow_id}: attempt {patience.tried + 1} of {ATTEMPTS} failed, trying again: {failure}"
            )
            if not patience.wait((failure.backoff_ms or 0) / 1000):
                raise


def may_repeat(failure: FlowFailure, run: Run) -> bool:
    """Whether a failed run may be made again (rule 6)."""
    if run.budget is not None and run.budget.acted:
        return False
    if failure.retryable is not None:
        return failure.retryable
    text = str(failure).lower()
    return any(word in text for word in _PASSING)


def _name(message_id: str) -> str:
    return message_id if len(message_id) <= MAX_ID else hashlib.sha256(message_id.encode(errors="replace")).hexdigest()


def _stale(run: Run) -> object:
    return {"text": STALE, "metadata": {"status": "answered_already", "flow_id": run.flow_id}}


def _answer(outcome: Outcome | FlowFailure, run: Run) -> Turn:
    if isinstance(outcome, FlowFailure):
        return Turn(failure_payload(run.flow_id, str(outcome)), False, str(outcome))
    if isinstance(outcome, Completed):
        return Turn(outcome.output, False)
    pending = {
        "status": "pending",
        "reason": outcome.reason,
        "reply_scope": {"conversation": run.flow_id},
        "response": outcome.output,
    }
    return Turn(pending, True)
