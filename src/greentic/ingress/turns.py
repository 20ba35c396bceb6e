"""The turn of a request: a place for it, the revision that takes it, what is counted of it, and what a failed one is answered.

Rules:
1. A turn runs on the revision that was drawn, or on the one where its session waits.
2. It runs as far as it comes at once; only what has to wait becomes a task.
3. What a flow fails with is an answer. Of what ends a turn otherwise callers are told no more than a code, and operators the cause.
4. What passes is told with a time to come again, and only where nothing was done: too much to do, a conversation that is busy, a
   store of conversations that does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import msgspec

from greentic.activate.lease import Serving
from greentic.activate.turn import ActiveRevision, Message, Turn, TurnServices, turn
from greentic.flow.select import NoFlow
from greentic.ground.beside import kept
from greentic.ground.errors import FlowFailure
from greentic.ground.going import begun
from greentic.ingress.admission import Admission, Busy
from greentic.ingress.exchange import HttpReply, Refused, come_back
from greentic.ingress.steps import Steps
from greentic.sessions.value_store import ConversationBusy, StoreUnavailable
from greentic.telemetry import tracing
from greentic.telemetry.log import OperatorLog
from greentic.telemetry.tallies import TALLIES

RETRY_SECONDS = 5
"""What callers are told to wait of a deployment that is not available, and of a worker that has too much to do."""
BUSY_SECONDS = 1
"""What those are told to wait whose conversation answers earlier messages."""


class ServedTurn(msgspec.Struct, frozen=True):
    """A turn, and the revision that took it."""

    revision: ActiveRevision
    turn: Turn


class Picked(msgspec.Struct, frozen=True):
    """The revision of a request."""

    revision: ActiveRevision
    cookie: str | None = None
    """The cookie that carries a new client's key."""
    control: bool = False
    """Whether its turn counts in the control slice of a ramp, too."""


class Turns:
    """Runs the turns of one process."""

    def __init__(self, serving: Serving, services: TurnServices, log: OperatorLog) -> None:
        self._serving, self._services, self._log = serving, services, log
        self.admission = Admission()

    @property
    def waiting(self) -> int:
        """Turns that wait for a place."""
        return self.admission.waiting

    def run(
        self,
        deployment_id: str,
        picked: Picked,
        message: Message,
        replied: Callable[[ServedTurn], HttpReply],
        steps: Steps | None = None,
    ) -> HttpReply | Coroutine[object, object, HttpReply]:
        """The reply of a turn, or the rest of it to be awaited. Raises `Refused`."""
        return begun(self._run(deployment_id, picked, message, replied, steps))

    async def _run(
        self,
        deployment_id: str,
        picked: Picked,
        message: Message,
        replied: Callable[[ServedTurn], HttpReply],
        steps: Steps | None,
    ) -> HttpReply:
        services = self._services if steps is None else self._services._replace(trace=steps)
        if not self.admission.enters(deployment_id):
            await self._place(deployment_id)
        try:
            revision, pinned = picked.revision, None
            if self._serving.may_wait(deployment_id):
                revision, pinned = await self._revision(deployment_id, revision, message)
            with self._serving.lease(revision, control=picked.control and revision is picked.revision) as lease:
                span = tracing.begin("turn")
                try:
                    found = await turn(revision, message, services, pinned=pinned)
                except NoFlow:
                    lease.failure = "no_flow"
                    raise
                except ConversationBusy:
                    lease.failure = "busy"
                    raise
                except StoreUnavailable:
                    lease.failure = "store"
                    raise
                finally:
                    if span is not None:
                        _end(span, revision)
                lease.failure = None if found.failed is None else "flow"
                lease.parked = found.parked - (pinned == revision.revision_id)
            return replied(ServedTurn(revision, found))
        except ConversationBusy as busy:
            raise come_back(f"{busy}; nothing was done, send it again later", BUSY_SECONDS) from None
        except StoreUnavailable as error:
            self._log.error("serve", f"deployment `{deployment_id}`: a conversation cannot be looked up: {error}")
            raise come_back(
                "conversations cannot be looked up; nothing was done, send it again later", RETRY_SECONDS
            ) from None
        except (NoFlow, FlowFailure) as error:
            self._log.error("serve", f"revision `{picked.revision.revision_id}`: {error}")
            raise Refused(500, "flow execution failed") from None
        finally:
            self.admission.leave(deployment_id)

    async def _place(self, deployment_id: str) -> None:
        """Wait for a place."""
        try:
            await self.admission.enter(deployment_id)
        except Busy:
            TALLIES.add("greentic_turns_refused", (deployment_id,))
            text = "this worker has more to do than it can; nothing was done, come back later"
            raise come_back(text, RETRY_SECONDS) from None

    async def _revision(
        self, deployment_id: str, drawn: ActiveRevision, message: Message
    ) -> tuple[ActiveRevision, str | None]:
        """The revision that takes a turn, and where its session waited (rule 1)."""
        conversations = self._services.conversations
        pinned = await kept(conversations.values, conversations.pinned, deployment_id, message.tenant, message.identity)
        held = None if pinned is None else self._serving.find(pinned)
        return drawn if held is None else held, pinned


def _end(span: tracing.Span, revision: ActiveRevision) -> None:
    span.attributes |= {
        "greentic.deployment": revision.deployment_id,
        "greentic.bundle": revision.bundle_id,
        "greentic.revision": revision.revision_id,
    }
    tracing.end(span)
