"""How many lines somebody may write into the log, so that nobody fills its disk.

Rules:
1. Each may write so many lines a second (`EACH_SECOND`, if nothing else is said), and `AT_ONCE` in one go; what is beyond is left out,
   and counted for the next line.
2. Only so many are told apart; what comes beyond shares one measure.
"""

from __future__ import annotations

import threading

from greentic.ground.clock import Clock
from greentic.telemetry.families import OTHER
from greentic.telemetry.tallies import TALLIES

EACH_SECOND = 50.0
AT_ONCE = 200.0
MANY = 1_000


class _Measure:
    """How much one may still write."""

    __slots__ = ("at", "left", "left_out")

    def __init__(self, now: float) -> None:
        self.left, self.at, self.left_out = AT_ONCE, now, 0


class LineMeasure:
    """The measures of all who write of one kind. Asked from any thread."""

    def __init__(self, kind: str, clock: Clock, each_second: float = EACH_SECOND) -> None:
        """`kind` is the reason that is told with the lines that were left out."""
        self._kind, self._clock, self._each_second = kind, clock, each_second
        self._measures: dict[str, _Measure] = {}
        self._lock = threading.Lock()

    def let_through(self, name: str) -> int | None:
        """How many lines were left out before this one; nothing if it is left out, too."""
        with self._lock:
            left_out = self._taken(name)
        if left_out is None:
            TALLIES.add("greentic_log_lines_dropped", (self._kind,))
        return left_out

    def _taken(self, name: str) -> int | None:
        now = self._clock.monotonic()
        if name not in self._measures and len(self._measures) >= MANY:
            name = OTHER
        found = self._measures.setdefault(name, _Measure(now))
        found.left = min(AT_ONCE, found.left + (now - found.at) * self._each_second)
        found.at = now
        if found.left < 1:
            found.left_out += 1
            return None
        found.left -= 1
        left_out, found.left_out = found.left_out, 0
        return left_out
