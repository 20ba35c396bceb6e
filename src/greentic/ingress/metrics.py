"""`/metrics`: what this worker counted, as text for a scraper (docs/observability.md).

Rules:
1. It is told to trusted callers on the worker's port, and to anybody on the address that is made for it (`--metrics-addr`); there
   nothing but `/metrics` and the probe is answered.
2. Reading, adding and writing are done in pieces: between two the loop does what else there is.
3. At most `MAX_REVISIONS` revisions have a name; what comes beyond, and what is forgotten, counts under `other`. A revision that has a
   name keeps it, and one that never had one gets none, for no series may go back.
4. With several processes the one that is asked answers for all (`telemetry/siblings`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import chain
from typing import TypeVar

from greentic import __version__
from greentic.activate.lease import Serving
from greentic.ground.clock import CLOCK
from greentic.ground.errors import GreenticError
from greentic.httpd.front import Answer
from greentic.httpd.http1 import TEXT, Incoming, allow
from greentic.materialize.serving_plan import Fault
from greentic.telemetry.counts import KINDS, Snapshot
from greentic.telemetry.families import OTHER
from greentic.telemetry.readings import Labels, NoSiblings, Readings, Row, Siblings, packed, unpacked
from greentic.telemetry.signals import METRICS
from greentic.telemetry.tallies import TALLIES, Tallies

MAX_REVISIONS = 4_096
PIECE_SECONDS = 0.001
_OTHERS: Labels = (OTHER, OTHER, OTHER)

T = TypeVar("T")


class Metrics:
    """The metrics of one process, or of all of a worker."""

    def __init__(
        self,
        serving: Serving,
        live: Callable[[], Iterable[Row]],
        *,
        tallies: Tallies = TALLIES,
        most: int = MAX_REVISIONS,
    ) -> None:
        """`live` reads what only the process knows: answers, turns that wait."""
        self._serving, self._tallies, self._most = serving, tallies, most
        self.sources = [live]
        """Who is asked for what is not counted but looked up."""
        self._named: dict[str, Labels] = {}
        self._nameless: set[str] = set()
        self.siblings: Siblings = NoSiblings()
        self._one_at_a_time = asyncio.Lock()

    async def page(self, accept: str | None) -> tuple[str, bytes | bytearray]:
        """Content type and text. Raises `Conflict` when the other processes cannot be read."""
        async with self._one_at_a_time:
            return await self._page(accept)

    async def _page(self, accept: str | None) -> tuple[str, bytes | bytearray]:
        from greentic.telemetry.exposition import chosen, text  # a boot does without

        kind = chosen(accept)
        others = await self.siblings.gathered()
        readings, pace = Readings(), _Pace()
        for row in self.rows():
            readings.add(row)
            await pace.breath()
        for data, alive in chain(((d, True) for d in others.alive), ((d, False) for d in others.gone)):
            for frame in unpacked(data):
                for row in frame:
                    readings.add(row, alive=alive)
                await pace.breath()
        readings.add(("greentic_processes", (), [others.answered + 1]))
        whole = bytearray()  # grown piece by piece: joining megabytes would hold the loop
        for piece in text(readings, kind):
            whole += piece.encode()
            await pace.breath()
        return kind, whole

    async def packed(self) -> list[bytes]:
        """What this process counted, for its siblings."""
        frames, pace = [], _Pace()
        for frame in packed(self.rows()):
            frames.append(frame)
            await pace.breath()
        return frames

    def rows(self) -> Iterator[Row]:
        """Everything that this process counted."""
        yield from self._of_revisions()
        yield from self._tallies.rows()
        for source in self.sources:
            yield from source()
        yield from _of_worker(self._serving)

    def _of_revisions(self) -> Iterator[Row]:
        serving = self._serving
        activation = serving.activation
        self._name()
        for revision_id, counts in list(serving.counts.items()):
            yield from _of_counts(self._named.get(revision_id, _OTHERS), counts.snapshot())
        yield from _of_counts(_OTHERS, serving.forgotten.snapshot())
        for revision in list(activation.revisions.values()):
            weight = activation.dispatchers[revision.deployment_id].weights.get(revision.revision_id, 0)
            labels = self._named.get(revision.revision_id)
            if labels is not None:
                yield "greentic_revision_weight_ratio", labels, [weight / 10_000]

    def _name(self) -> None:
        """Give a name to revisions that serve or drain, as far as there are some (rule 3)."""
        serving = self._serving
        for revision_id in [i for i in self._named if i not in serving.counts]:
            del self._named[revision_id]
        self._nameless &= serving.counts.keys()
        draining = [held.revision for held in list(serving.draining.values())]
        for revision in [*serving.activation.revisions.values(), *draining]:
            serving.of(revision.revision_id)
            known = revision.revision_id in self._named or revision.revision_id in self._nameless
            if not known and len(self._named) < self._most:
                self._named[revision.revision_id] = (revision.deployment_id, revision.bundle_id, revision.revision_id)
        self._nameless |= serving.counts.keys() - self._named.keys()


class _Pace:
    """Lets the loop go on between two pieces (rule 2)."""

    def __init__(self) -> None:
        self._began = CLOCK.monotonic()

    async def breath(self) -> None:
        if CLOCK.monotonic() - self._began > PIECE_SECONDS:
            await asyncio.sleep(0)
            self._began = CLOCK.monotonic()


def _of_counts(labels: Labels, found: Snapshot) -> Iterator[Row]:
    yield "greentic_turns", labels, [found.turns]
    for kind in KINDS:
        yield "greentic_turn_failures", (*labels, kind), [found.failures.get(kind, 0)]
    yield "greentic_turn_duration_seconds", labels, [*found.buckets, found.seconds]
    yield "greentic_turns_in_flight", labels, [found.in_flight]
    yield "greentic_conversations_parked", labels, [found.began_to_wait]
    yield "greentic_conversations_resumed", labels, [found.waited]


def _of_worker(serving: Serving) -> Iterator[Row]:
    yield "greentic_swaps", (), [serving.swaps]
    followed = serving.following or {}
    for name in ("desired", "serving"):
        state = followed.get(name)
        if isinstance(state, dict) and isinstance(state.get("generation"), int):
            yield f"greentic_generation_{name}", (), [float(str(state["generation"]))]
    yield "greentic_following_failed", (), [float(followed.get("error") is not None)]
    for reason, number in reasons(serving.activation.unavailable.values()).items():
        yield "greentic_deployments_unavailable", (reason,), [number]
    yield "greentic_build", (__version__, ".".join(map(str, sys.version_info[:3]))), [1]
    times = os.times()
    yield "process_cpu_seconds", (), [times.user + times.system]
    resident = _resident()
    if resident is not None:
        yield "process_resident_memory_bytes", (), [resident]
    yield "process_start_time_seconds", (), [int(serving.process.rpartition(".")[2]) / 1e9]


def reasons(faults: Iterable[Fault]) -> dict[str, int]:
    """How many deployments are not served, by why."""
    found = dict.fromkeys(("refused", "absent", "unreachable", "broken", "digest"), 0)
    for fault in faults:
        found[fault.why] += 1
    return found


def _resident() -> int | None:
    """Bytes of this process in memory, where the system says so."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  read anew each time, without a path object
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def scraped(metrics: Metrics) -> Callable[[Incoming, str], Answer | Coroutine[object, object, Answer]]:
    """The handler of the address that is made for scrapers (rule 1)."""

    def handler(incoming: Incoming, peer: str) -> Answer | Coroutine[object, object, Answer]:
        if incoming.head.path == "/livez":
            return Answer(200, b"ok", [TEXT])
        if incoming.head.path != "/metrics":
            return Answer(404, b"only /metrics is here", [TEXT])
        if incoming.head.method not in ("GET", "HEAD"):
            return Answer(405, b"metrics are asked for with GET", [TEXT, *allow("GET, HEAD")])
        return answered(metrics, incoming.head.fields.get(b"accept"))

    return handler


async def answered(metrics: Metrics, accept: bytes | None) -> Answer:
    """What a scraper is answered."""
    try:
        kind, body = await metrics.page(None if accept is None else accept.decode("latin-1"))
    except (GreenticError, OSError) as error:
        METRICS.failed(str(error))
        return Answer(503, str(error).encode(), [TEXT])
    METRICS.ok()
    return Answer(200, body, [(b"content-type", kind.encode())])
