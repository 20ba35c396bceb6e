"""Spans on their way to a collector: a bounded queue, and a thread that sends what is in it (threats: slow-collector).

Rules:
1. Handing in a span never waits: what finds the queue full is dropped and counted.
2. A batch is sent when there are enough or when some time has passed. One that does not arrive is tried again a few times, later each
   time, if trying may help; then it is dropped and counted. Meanwhile the queue takes what it has room for. What a collector refuses of one
   that it took is lost, too.
3. At the end what is left is sent once, within a moment. A collector never keeps a program alive.
4. What went well and wrong is told in `/status` (`signals`) and counted (`greentic_spans`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from greentic.ground.backoff import Backoff
from greentic.ground.clock import CLOCK, RANDOM
from greentic.telemetry.otlp_answer import Rejected
from greentic.telemetry.signals import TRACES, Signal
from greentic.telemetry.tallies import TALLIES, Tallies
from greentic.telemetry.tracing import Span

QUEUE = 2_048
BATCH = 512
TRIES = 4
LAST_SECONDS = 2.0
AGAIN = Backoff(first=1.0, longest=8.0)


class NotSent(Exception):
    """A batch that did not arrive; `passing` if trying again may help."""

    def __init__(self, text: str, *, passing: bool) -> None:
        super().__init__(text)
        self.passing = passing


class Sender(Protocol):
    def __call__(self, body: bytes, seconds: float | None) -> Rejected | None:
        """Send one request within some time, the sender's own if none is told; what the collector refused of it, if anything.

        Raises `NotSent`.
        """
        ...


class Exporter:
    """Sends spans from a thread of its own."""

    def __init__(
        self,
        encode: Callable[[list[Span]], bytes],
        send: Sender,
        *,
        delay: float,
        signal: Signal = TRACES,
        tallies: Tallies = TALLIES,
    ) -> None:
        self._encode, self._send, self._delay = encode, send, delay
        self._signal, self._tallies = signal, tallies
        self._queue: deque[Span] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def take(self, span: Span) -> None:
        """Hand in a span that ended; from any thread (rule 1)."""
        if len(self._queue) >= QUEUE:
            self._tallies.add("greentic_spans", ("dropped",))
            return
        self._queue.append(span)
        if self._thread is None:
            self._start()
        if len(self._queue) >= BATCH:
            self._wake.set()

    def close(self) -> None:
        """Send what is left, within a moment (rule 3)."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(LAST_SECONDS * 2)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._delay)
            self._wake.clear()
            while self._queue and not self._stopping.is_set():
                self._deliver(self._batch())
        ends = CLOCK.monotonic() + LAST_SECONDS
        while self._queue and (left := ends - CLOCK.monotonic()) > 0:
            batch = self._batch()
            try:
                self._arrived(batch, self._send(self._encode(batch), left))
            except NotSent as error:
                self._lost(batch, error)

    def _batch(self) -> list[Span]:
        return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]

    def _deliver(self, batch: list[Span]) -> None:
        """Send one batch, with patience (rule 2)."""
        body = self._encode(batch)
        for tried in range(1, TRIES + 1):
            try:
                refused = self._send(body, LAST_SECONDS if self._stopping.is_set() else None)
            except NotSent as error:
                self._signal.failed(str(error))
                last = tried == TRIES or not error.passing or self._stopping.is_set()
                if last or self._stopping.wait(AGAIN.pause(tried, RANDOM)):
                    self._lost(batch, error)
                    return
            else:
                self._arrived(batch, refused)
                return

    def _arrived(self, batch: list[Span], refused: Rejected | None) -> None:
        lost = 0
        if refused is not None:
            lost = min(refused.spans, len(batch))
            self._signal.failed(
                f"the collector refused {lost} of {len(batch)} spans: {refused.why or 'it does not say why'}"
            )
            self._tallies.add("greentic_spans", ("lost",), lost)
        if lost < len(batch):
            self._signal.ok()
            self._tallies.add("greentic_spans", ("sent",), len(batch) - lost)

    def _lost(self, batch: list[Span], error: NotSent) -> None:
        self._signal.failed(str(error))
        self._tallies.add("greentic_spans", ("lost",), len(batch))
