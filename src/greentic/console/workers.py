"""What workers tell the console: their status, and the proof of what they serve.

Rules:
1. Only addresses that the operator gave are asked, each for itself; one that is silent takes nothing from the others.
2. What a worker tells is checked for its form, and what is shown of it is plain JSON. Rates are made by the page, from two answers of one
   process.
3. A proof is believed as `gtc op env verify` believes it: its signature and nonce hold, and its key is one that was pinned, if any was.
"""

from __future__ import annotations

from collections.abc import Collection

from greentic.deployments.worker_status import (
    MAX_STATUS,
    ProcessStatus,
    RevisionRow,
    TurnCounts,
    WorkerStatus,
    asking,
    proof_path,
    read_status,
    status_path,
    url_of,
)
from greentic.ground.clock import CLOCK, RANDOM, Clock, Random
from greentic.ground.documents import JsonObject
from greentic.ground.errors import FetchError
from greentic.net.document import NOT_THERE, read_small
from greentic.trust.proof import MAX_PROOF, BelievedProof, ProofError, read_proof

NONCE_BYTES = 16
_NOTHING_THERE = NOT_THERE | {405}


class PackRow(RevisionRow, frozen=True):
    """A revision with what it was loaded from."""

    bundle_digest: str = ""
    bundle_source_uri: str | None = None
    packs: list[dict[str, object]] = []


class LiveStatus(WorkerStatus, frozen=True):
    """What a worker tells of itself, as far as the page shows it."""

    version: str = ""
    draining: bool = False
    revisions: tuple[PackRow, ...] = ()


class Watched:
    """The workers that a console asks."""

    def __init__(
        self, addresses: list[str], clock: Clock = CLOCK, random: Random = RANDOM, pinned: Collection[str] = ()
    ) -> None:
        self.addresses, self._pinned = addresses, pinned
        self._random = random
        self._clock = clock

    def status(self, address: str) -> LiveStatus:
        """Raises `FetchError`."""
        return read_status(self._asked(url_of(address, status_path())), LiveStatus, address)

    def proof(self, address: str) -> BelievedProof | None:
        """What a worker proves, in answer to a question that was never asked before; nothing if it gives no proofs.

        Raises `FetchError`, also for a proof that proves nothing.
        """
        nonce = self._random.octets(NONCE_BYTES).hex()
        data = self._asked(url_of(address, proof_path(nonce)), MAX_PROOF)
        if data is None:
            return None
        try:
            return read_proof(data, nonce, self._pinned)
        except ProofError as error:
            raise FetchError(f"what it answers proves nothing: {error}") from None

    def _asked(self, url: str, most: int = MAX_STATUS) -> bytes | None:
        """What stands at an address; nothing if a worker has nothing there (one takes it for a route of a deployment)."""
        try:
            return read_small(url, most, asking(self._clock), absent=_NOTHING_THERE)
        except FetchError as error:
            if error.__cause__ is None:
                raise
            why = getattr(error.__cause__, "strerror", None) or error.__cause__
            raise FetchError(f"it does not answer: {why}") from error.__cause__


def live_row(address: str, found: LiveStatus | FetchError) -> JsonObject:
    """One worker for the page."""
    if isinstance(found, FetchError):
        return {"at": address, "answers": False, "error": found.message}
    following = found.following
    return {
        "at": address,
        "answers": True,
        "env_id": found.env_id,
        "version": found.version,
        "draining": found.draining,
        "desired": None if following is None else following.desired.generation,
        "serving": None if following is None else following.serving.generation,
        "behind": following is not None and following.desired.digest != following.serving.digest,
        "error": None if following is None else following.error,
        **_counted(found),
        "others": [_counted(process) for process in found.others],
        "unavailable": [
            {"deployment_id": u.deployment_id, "reason": u.reason, "error": u.error} for u in found.unavailable
        ],
    }


def _counted(process: ProcessStatus) -> JsonObject:
    """What one process of a worker counted."""
    return {
        "process": process.process,
        "revisions": [
            {
                "revision_id": r.revision_id,
                "weight_bps": r.weight_bps,
                "counts": _counts(r.counts),
                "control": None if r.control is None else _counts(r.control),
            }
            for r in process.revisions
        ],
        "draining_revisions": [
            {"revision_id": r.revision_id, "counts": _counts(r.counts)} for r in process.draining_revisions
        ],
    }


def _counts(counts: TurnCounts) -> JsonObject:
    return {
        "turns": counts.turns,
        "failures": sum(counts.failures.values()),
        "in_flight": counts.in_flight,
        "parked": counts.parked,
        "buckets": [*counts.latency.counts],
        "bounds": [*counts.latency.bounds],
    }
