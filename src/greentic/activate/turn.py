"""One turn: a message to a revision, and what it answers (formats: worker 10; flows 10, 11).

Rules:
1. A run that waits for this session goes on; else the flow that the message selects starts.
2. A message is applied to the state that it was sent for. Messages of one session that may wait for each other are taken one
   after the other; one that finds another question than stood when it came changes nothing, and is told so. Callers who name
   nothing are taken for many: what they begin goes side by side, and only who answers a question of theirs waits for another.
3. A message with an id is answered once: the same id gets the same answer.
4. A failed run is answered like any other, with the error in its metadata. Only a message for which no flow can be selected
   is an error of the host.
   Where too many messages of a session wait already, or where its conversation cannot be looked up, the next is no turn: it
   changed nothing and may be sent again.
5. A failure takes nothing away: a run that waited waits on, until `MAX_FAILURES` in a row end it, which is said.
6. A failure is tried again, from the start, up to three times in all, if it says that it may be; where nobody said, its words
   decide. Never once a step may have had an effect, and never a run that had waited: its message can be sent again. Who asks for a
   longer pause than a person is kept waiting for is not asked before it is over, and so not in this turn.
7. A waiting run answers with its reason and what it said; its state stays here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property, partial
from typing import NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from greentic.activate.flow_spans import FlowSpans
from greentic.activate.pieces import piece_done
from greentic.flow.activity import Activity, failure_payload
from greentic.flow.engine import MAX_SECONDS, Completed, Outcome, Parked, Run, attempt_of, resume, start
from greentic.flow.ports import Caller, Components, Ports, StateStore, Trace
from greentic.flow.select import FlowHeader, select
from greentic.ground.backoff import Backoff, Patience
from greentic.ground.beside import kept, nap
from greentic.ground.clock import Clock, Random
from greentic.ground.errors import FlowFailure
from greentic.pack.load import LoadedFlow, LoadedPack
from greentic.sessions.conversation import MAX_FAILURES, Conversations, Identity, Waiting, read_waiting, session_hint
from greentic.sessions.hold import held
from greentic.sessions.value_store import MAX_WAITING, NAMELESS_WAITING, ConversationBusy, StoreUnavailable
from greentic.telemetry import tracing

ATTEMPTS = 3
BACKOFF = Backoff(first=0.5, longest=2.0, longest_asked=10.0)
"""Between tries: 250 ms and more, then 500 ms and more, or what the failure asks for."""
MAX_ID = 256
"""Characters of a message id that count; longer ones are told apart by their digest."""
STALE = "This was answered already; nothing was done."
ENDED = f"Sorry — this went wrong {MAX_FAILURES} times, so the conversation has ended. Please start again."
_PASSING = ("transient", "unavailable", "internal", "timeout")


class ComponentsOf(Protocol):
    """The components of a revision, as the flows of each of its packs see them."""

    def of_pack(self, manifest_id: str) -> Components: ...


class Entry(msgspec.Struct, frozen=True):
    """A flow that messages of a kind start, and what its runs reach."""

    flow: LoadedFlow
    pack: LoadedPack
    components: Components
    waits: bool
    """Whether a flow of its pack may wait for another message."""


class ActiveRevision(msgspec.Struct, frozen=True, eq=False, dict=True):
    """One loaded revision of a deployment. What its packs decide about every turn is looked up once."""

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

    @cached_property
    def waits(self) -> bool:
        """Whether a flow of the revision may wait for the next message."""
        return any(map(_waits, self.packs))

    @cached_property
    def _entries(self) -> dict[str | None, Entry]:
        """By the flow types that were asked for so far; there are two (`flow.select`)."""
        return {}

    def entry(self, flow_type: str | None, tenant: str) -> Entry:
        """What a message starts that asks for this type. Raises `NoFlow`."""
        found = self._entries.get(flow_type)
        if found is None:
            flow = select(self.flows, self.packs[0].manifest_id, flow_type, tenant)
            pack = next(pack for pack in self.packs if pack.manifest_id == flow.pack_id)
            found = Entry(flow, pack, self.components.of_pack(pack.manifest_id), _waits(pack))
            self._entries[flow_type] = found
        return found


def _waits(pack: LoadedPack) -> bool:
    """Whether a flow of a pack may wait for the next message."""
    return any(plan.waits for plan in pack.plans.values())


class TurnServices(NamedTuple):
    """What turns need beside their revision."""

    env_id: str
    conversations: Conversations
    state: StateStore
    clock: Clock
    random: Random
    log: Callable[[str], None]
    trace: Trace | None = None


class Message(msgspec.Struct, frozen=True):
    """What came, from whom."""

    activity: Activity
    tenant: str
    team: str | None
    identity: Identity
    id: str | None = None
    """What the caller calls it in its session; the same one again gets the same answer (rule 3)."""


class Turn(msgspec.Struct, frozen=True):
    """The answer of a turn, and whether its run now waits for the next message."""

    output: object
    parked: bool
    failed: str | None = None
    """Why the run failed, if it did."""


def flow_index(packs: tuple[LoadedPack, ...]) -> tuple[tuple[FlowHeader, LoadedFlow], ...]:
    """Every flow of every pack; no pack and no flow of a pack is there twice (`pack.load`)."""
    return tuple(
        (FlowHeader(flow.pack_id, flow.flow_id, flow.kind, flow.entry, pack.provides_messaging), flow)
        for pack in packs
        for flow in pack.flows
    )


async def turn(
    revision: ActiveRevision, message: Message, services: TurnServices, *, pinned: str | None = None
) -> Turn:
    """What the flow answers, failures included. Raises `NoFlow` when none can be selected; `ConversationBusy` when too many wait and
    `StoreUnavailable` when the conversation cannot be looked up, both before anything was done.

    It is awaited on the worker's loop, or run in place without one (`ground.going.in_place`); cancelled, it leaves what waited.
    `pinned` is the revision that the session was pinned to when the message came.
    """
    activity, tenant, identity = message.activity, message.tenant, message.identity
    entry = revision.entry(activity.flow_type, tenant)
    flow, pack = entry.flow, entry.pack
    if flow.failure is not None:
        return Turn(failure_payload(flow.flow_id, flow.failure), False, flow.failure)
    hint = session_hint(identity, tenant, flow.flow_id)
    caller = Caller(services.env_id, tenant, message.team, identity.user, hint, flow.flow_id, "provider")
    spans = None if services.trace is not None or tracing.current() is None else FlowSpans()
    ports = Ports(
        pack.plans,
        entry.components,
        pack.assets,
        services.state,
        services.clock,
        spans if spans is not None else services.trace,
        partial(piece_done, revision.deployment_id),
    )
    run = Run(pack.manifest_id, flow.flow_id, caller, ports)
    place = _Place(revision, tenant, identity, hint, run)
    try:
        if message.id is None and not entry.waits:
            if pinned is not None and pinned != revision.revision_id:
                await _forget_abandoned(place, services.conversations)
            return _answer(await _attempts(run, activity.payload, services), run)
        return await _converse(place, activity.payload, services, message.id)
    except (ConversationBusy, StoreUnavailable):
        raise
    except FlowFailure as failure:
        services.log(f"flow {flow.flow_id}: {failure}")
        return _answer(failure, run)
    finally:
        if spans is not None:
            spans.over()


class _Place(msgspec.Struct, frozen=True):
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


async def _converse(place: _Place, payload: object, services: TurnServices, message_id: str | None) -> Turn:
    """One message of a session whose messages are taken one after the other (rules 2 and 3). Raises `FlowFailure`."""
    conversations, values = services.conversations, services.conversations.values
    session = conversations.session(place.revision.deployment_id, place.tenant, place.hint)
    key = place.key(conversations, place.revision.revision_id)
    came_for = await _question(place, key, conversations)
    name = None if message_id is None else _name(message_id)
    nameless = place.identity.nameless
    if nameless and name is None and came_for == (None, None):
        return await _advance(place, key, None, payload, services)
    async with held(values, session, NAMELESS_WAITING if nameless else MAX_WAITING):
        kept_answer = None if name is None else await kept(values, conversations.answered, session, name)
        if kept_answer is not None:
            return Turn(kept_answer.output if kept_answer.whole else _stale(place.run), kept_answer.parked)
        waiting = await kept(values, conversations.waiting, key)
        if await _question(place, key, conversations) != came_for:
            return Turn(_stale(place.run), waiting is not None)
        pinned = await _forget_abandoned(place, conversations)
        answer = await _advance(place, key, waiting, payload, services)
        if pinned and waiting is None and not answer.parked:  # a full store let go of what waited, or its time was over
            await kept(values, place.unpin, conversations)
        if name is not None:
            try:
                await kept(values, conversations.keep_answer, session, name, answer.output, parked=answer.parked)
            except FlowFailure as failure:  # what was done was done, and is told
                services.log(f"flow {place.run.flow_id}: the answer cannot be kept for a repeated message: {failure}")
        return answer


async def _question(place: _Place, key: str, conversations: Conversations) -> tuple[str | None, str | None]:
    """What a message is sent for: where the session is pinned, if that is elsewhere, and the mark of the question here."""
    values = conversations.values
    pinned, waiting = await kept(values, place.pinned, conversations), await kept(values, conversations.waiting, key)
    elsewhere = None if pinned == place.revision.revision_id else pinned
    return elsewhere, None if waiting is None else waiting.mark


async def _forget_abandoned(place: _Place, conversations: Conversations) -> bool:
    """Forget a question of a revision that serves no more; should it come back, a new message is not an answer to it. Whether the session
    is pinned to this revision.
    """
    values = conversations.values
    pinned = await kept(values, place.pinned, conversations)
    if pinned is not None and pinned != place.revision.revision_id:
        await kept(values, conversations.clear, place.key(conversations, pinned))
        await kept(values, place.unpin, conversations)
    return pinned == place.revision.revision_id


async def _advance(place: _Place, key: str, waiting: Waiting | None, payload: object, services: TurnServices) -> Turn:
    """Go on with the run that waits, else start one; what waits afterwards, and what is answered."""
    conversations, run, values = services.conversations, place.run, services.conversations.values
    try:
        if waiting is None:
            outcome = await _attempts(run, payload, services)
        else:
            outcome = await _resumed(run, waiting, payload)
        if isinstance(outcome, Parked):
            mark = services.random.octets(8).hex()
            await kept(values, conversations.park, key, outcome.snapshot, outcome.reason, mark)
            await kept(values, place.pin, conversations)
        elif waiting is not None:
            await kept(values, conversations.clear, key)
            await kept(values, place.unpin, conversations)
        return _answer(outcome, run)
    except FlowFailure as failure:
        services.log(f"flow {run.flow_id}: {failure}")
        if waiting is None:
            return _answer(failure, run)
        try:
            if not await kept(values, conversations.failed, key, waiting):
                await kept(values, place.unpin, conversations)
                return Turn(failure_payload(run.flow_id, str(failure), ENDED), False, str(failure))
        except StoreUnavailable as unavailable:  # it waits on, and the failure is not counted
            services.log(f"flow {run.flow_id}: {unavailable}")
        return replace(_answer(failure, run), parked=True)


_FAILURES = (FlowFailure, RecursionError, OverflowError, ValueError)
"""What a run ends with: it failed, or a value of it is one that no writer of JSON or CBOR takes."""


def _told(error: Exception) -> FlowFailure:
    """Any of these as the failure of a run. A store that a step asked for in vain is no reason to say that nothing was done."""
    if isinstance(error, StoreUnavailable):
        return FlowFailure(str(error))
    if isinstance(error, FlowFailure):
        return error
    return FlowFailure(f"a value of the flow cannot be written: {type(error).__name__}")


async def _resumed(run: Run, waiting: Waiting, payload: object) -> Outcome:
    try:
        return await resume(run, read_waiting(waiting, run.pack_id), payload)
    except _FAILURES as error:
        raise _told(error) from None


async def _attempts(run: Run, payload: object, services: TurnServices) -> Outcome:
    """The outcome of a new run. Raises its last `FlowFailure` (rule 6)."""
    patience = Patience(BACKOFF, ATTEMPTS, MAX_SECONDS, services.clock, services.random)
    while True:
        attempt = attempt_of(run, patience.tried + 1)
        try:
            return await start(attempt, payload)
        except _FAILURES as error:
            failure = _told(error)
        if isinstance(run.ports.trace, FlowSpans):
            run.ports.trace.over()
        if not may_repeat(failure, attempt) or attempt.attempt >= ATTEMPTS:
            raise failure
        services.log(f"flow {run.flow_id}: attempt {attempt.attempt} of {ATTEMPTS} failed, trying again: {failure}")
        pause = patience.next_pause((failure.backoff_ms or 0) / 1000)
        if pause is None:
            raise failure
        await nap(pause, services.clock)


def may_repeat(failure: FlowFailure, run: Run) -> bool:
    """Whether a failed run may be made again (rule 6)."""
    if run.budget is not None and run.budget.acted:
        return False
    if (failure.backoff_ms or 0) > BACKOFF.longest_asked * 1000:
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
