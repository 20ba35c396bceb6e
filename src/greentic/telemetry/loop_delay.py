"""How late the event loop is: what a caller waits for that no turn is to blame for."""

from __future__ import annotations

import asyncio

from greentic.telemetry.tallies import TALLIES, Tallies

DELAY_SECONDS = 0.1
"""Between two looks."""


class LoopDelay:
    """Looks how late the loop is, ten times a second."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tallies: Tallies = TALLIES) -> None:
        self._loop, self._tallies = loop, tallies
        self._due = loop.time() + DELAY_SECONDS
        self._timer = loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        self._tallies.observe("greentic_event_loop_delay_seconds", (), max(now - self._due, 0.0))
        self._due = now + DELAY_SECONDS
        self._timer = self._loop.call_at(self._due, self._look)

    def stop(self) -> None:
        self._timer.cancel()
