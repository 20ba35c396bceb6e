"""What components say, as a source of the log of its own.

Each may say so much (`line_measure`); how many lines were left out is told with its next one.
"""

from __future__ import annotations

from greentic.ground.clock import Clock
from greentic.telemetry.line_measure import LineMeasure
from greentic.telemetry.log import OperatorLog


def line_of(name: str, stream: str, text: str) -> str:
    """A line of a component, as people read it."""
    return f"component {name} ({stream}): {text}"


class ComponentOutput:
    """Writes lines of components to the log."""

    def __init__(self, log: OperatorLog, clock: Clock) -> None:
        self._log = log
        self._measure = LineMeasure("component", clock)

    def __call__(self, name: str, stream: str, text: str) -> None:
        """Called from any thread."""
        left_out = self._measure.let_through(name)
        if left_out is None:
            return
        if left_out:
            self._log.warn("component", f"component {name}: {left_out} lines were left out", component=name)
        self._log.info("component", line_of(name, stream, text), component=name, stream=stream)
