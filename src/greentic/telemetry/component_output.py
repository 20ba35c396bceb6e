"""What components say, as a source of the log of its own.

Rules:
1. Each component may say `EACH_SECOND` lines a second, and `AT_ONCE` in one go; what is beyond is left out and counted. With its next
   line it is said how many were left out.
2. Only so many components are told apart; what comes beyond shares one measure.
"""

from __future__ import annotations

import threading

from greentic.ground.clock import Clock
from greentic.telemetry.families import OTHER
from greentic.telemetry.log import OperatorLog
from greentic.telemetry.tallies import TALLIES

EACH_SECOND = 50.0
AT_ONCE = 200.0
MANY = 1_000


def line_of(name: str, stream: str, text: str) -> str:
    """A line of a component, as people read it."""
    return f"component {name} ({stream}): {text}"


class _Measure:
    """How much one component may still say."""

    __slots__ = ("at", "left", "left_out")

    def __init__(self, now: float) -> None:
        self.left, self.at, self.left_out = AT_ONCE, now, 0


class ComponentOutput:
    """Writes lines of components to the log."""

    def __init__(self, log: OperatorLog, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._measures: dict[str, _Measure] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, stream: str, text: str) -> None:
        """Called from any thread."""
        with self._lock:
            left_out = self._let_through(name)
        if left_out is None:
            TALLIES.add("greentic_log_lines_dropped", ("component",))
            return
        if left_out:
            self._log.warn("component", f"component {name}: {left_out} lines were left out", component=name)
        self._log.info("component", line_of(name, stream, text), component=name, stream=stream)

    def _let_through(self, name: str) -> int | None:
        """How many lines were left out before this one; nothing if it is left out, too."""
        now = self._clock.monotonic()
        if name not in self._measures and len(self._measures) >= MANY:
            name = OTHER
        found = self._measures.setdefault(name, _Measure(now))
        found.left = min(AT_ONCE, found.left + (now - found.at) * EACH_SECOND)
        found.at = now
        if found.left < 1:
            found.left_out += 1
            return None
        found.left -= 1
        left_out, found.left_out = found.left_out, 0
        return left_out
