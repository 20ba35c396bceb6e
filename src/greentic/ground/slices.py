"""Work that a loop does bit by bit: each of those who have more to do gets a bit in turn, and all of them a slice of each turn of the loop.

Whoever is new, and whoever else the loop serves, so waits for a slice and not for all that is there to do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from greentic.ground.clock import CLOCK

SLICE_SECONDS = 0.002
"""Of one turn of the loop; one bit is always done."""


class Slices:
    """Those who wait for their turn."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._goes = False

    def later(self, bit: Callable[[], None]) -> None:
        """Do this once it is its turn; it may ask for another one."""
        self._waiting.append(bit)
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting and not self._goes:
            self._goes = True
            asyncio.get_running_loop().call_soon(self._slice)

    def _slice(self) -> None:
        ends = CLOCK.monotonic() + SLICE_SECONDS
        try:
            self._waiting.popleft()()
            while self._waiting and CLOCK.monotonic() < ends:
                self._waiting.popleft()()
        finally:  # who fails takes nobody's turn
            self._goes = False
            self._go_on()
