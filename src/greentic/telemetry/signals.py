"""Whether what a worker tells arrives: for each signal when it last did, and what went wrong last.

Of traces and metrics somebody takes delivery, a collector and a scraper. Of logs nobody does, so only what went wrong is told.
"""

from __future__ import annotations

from greentic.ground.clock import CLOCK, timestamp
from greentic.ground.documents import JsonObject


class Signal:
    """One of traces, metrics and logs."""

    __slots__ = ("_error", "_error_at", "_ok_at")

    def __init__(self) -> None:
        self._ok_at: int | None = None
        self._error_at: int | None = None
        self._error: str | None = None

    def ok(self) -> None:
        """It arrived."""
        self._ok_at = CLOCK.now_ns()

    def failed(self, text: str) -> None:
        """It did not, and why."""
        self._error_at, self._error = CLOCK.now_ns(), text

    def told(self) -> JsonObject:
        """As `/status` has it."""
        return {
            "last_ok_at": None if self._ok_at is None else timestamp(self._ok_at),
            "last_error_at": None if self._error_at is None else timestamp(self._error_at),
            "last_error": self._error,
        }


TRACES, METRICS, LOGS = Signal(), Signal(), Signal()
"""Those of this process."""
