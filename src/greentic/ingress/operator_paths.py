"""What operators ask a worker: its status, the proof of what it serves, its metrics.

Rules:
1. None of it is for pages of other origins: a request that names one gets no leave to read the answer.
2. Status and proof are told to whoever asks, as the spec has it; metrics to trusted callers.
3. A status is that of the whole worker: the process that is asked asks the others (`ingress/status.py`).
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import msgspec

from greentic.activate.lease import Serving
from greentic.activate.turn import TurnServices
from greentic.ground.documents import JsonObject
from greentic.ground.errors import FlowFailure, InvalidArgument
from greentic.httpd.http1 import allow
from greentic.ingress.exchange import HttpReply, Refused, Request
from greentic.ingress.metrics import Metrics, answered
from greentic.ingress.status import revision_of, with_others
from greentic.sessions.waiting_counts import WaitingCounts

if TYPE_CHECKING:
    from greentic.ingress.status_proof import Prover


_LATER = ("greentic.ingress.status_proof", "greentic.telemetry.exposition")
"""What only these paths need, and no boot waits for."""


def load_later() -> None:
    """Load it once the worker serves: its files may be gone or another version's when somebody asks, who is told then."""
    with contextlib.suppress(ImportError):
        for name in _LATER:
            importlib.import_module(name)


class OperatorPaths:
    """The paths of one process that are for operators."""

    def __init__(
        self,
        serving: Serving,
        metrics: Metrics,
        services: TurnServices,
        status: Callable[[], JsonObject],
        make_prover: Callable[[], Prover] | None,
    ) -> None:
        """`status` is what this process tells of itself."""
        self._serving, self._metrics, self._status = serving, metrics, status
        self._shared = services.conversations.values.shared
        self._waiting = WaitingCounts(services.conversations, services.clock)
        self._make_prover = make_prover
        self._prover: Prover | None = None

    def of(self, asked: Request) -> Coroutine[object, object, HttpReply] | None:
        """The reply, if the path is one of these."""
        if asked.path == "/status":
            return self._told(asked)
        if asked.path == "/status/proof" and self._make_prover is not None:
            return self._proof(self._make_prover, asked)
        if asked.path == "/metrics" and asked.method in ("GET", "HEAD"):
            return self._measured(asked)
        return None

    async def _told(self, asked: Request) -> HttpReply:
        try:
            revision_id = revision_of(asked.query)
            told = with_others(self._status(), await self._metrics.siblings.statuses())
            if revision_id is not None:
                # What waits on a revision that is not served any more, nobody can answer.
                parked = await self._waiting.of(revision_id) if self._serving.find(revision_id) is not None else 0
                told["waiting"] = {"revision_id": revision_id, "parked": parked, "shared": self._shared}
        except InvalidArgument as error:
            raise Refused(400, error.message, cors=False) from None
        except (FlowFailure, OSError) as error:
            raise Refused(503, str(error), cors=False) from None
        return HttpReply(200, msgspec.json.encode(told), cors=b"origin" not in asked.fields)

    async def _measured(self, asked: Request) -> HttpReply:
        if not asked.trusted:
            text = "metrics are told to trusted callers; an address for scrapers is made with --metrics-addr"
            raise Refused(403, text, cors=False)
        answer = await answered(self._metrics, asked.fields.get(b"accept"))
        return HttpReply(answer.code, answer.body, answer.headers[0], cors=False)

    async def _proof(self, make: Callable[[], Prover], asked: Request) -> HttpReply:
        from greentic.ingress.status_proof import BadNonce, nonce_of  # no boot waits for what few ask

        if asked.method != "GET":
            raise Refused(405, "a proof is asked for with GET", cors=False, extra=allow("GET"))
        try:
            nonce = nonce_of(asked.query)
        except BadNonce as error:
            raise Refused(400, str(error), cors=False) from None
        self._prover = self._prover or make()
        return HttpReply(200, await self._prover.answer(nonce), cors=b"origin" not in asked.fields)
