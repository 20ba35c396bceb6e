"""Whose turn it is on a loop: work in lanes, of which each gets its share of every turn of the loop.

Rules:
1. A lane is whoever must not be held up by others: a deployment. Within one, first come first served.
2. While only one lane is used it may have a slice of time in each turn of the loop, so that fairness costs nothing where there is
   nobody to be fair to. Once a second one was seen, each gets one bit in a turn, for `SHARED_SECONDS`.
3. What does not go on at once waits in the line of its lane. The lines are served in turn, after what the loop finds ready meanwhile:
   who comes in a lane that had nothing yet never waits for the lines of others.
4. After one long piece everybody else waits for the next turn of the loop.
5. A bit that has its turn may let on a few more of its own (`begin`): a turn of a conversation computes inside of its request's.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from greentic.ground.clock import CLOCK, Clock

SLICE_SECONDS = 0.001
"""Of one turn of the loop, for a lane that is alone; one bit is always done."""
SHARED_SECONDS = 30.0
"""How long lanes count as sharing the loop after work of two came one behind the other."""
AT_ONCE = 16
"""Bits of all lanes in one turn of the loop, beyond the first of each."""
INSIDE = 4
"""How many a bit may let on within its own turn."""

Bit = Callable[[], bool]
"""Does something short; whether there was anything to do."""


class FairQueue:
    """Those who wait for their turn on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self.loop, self._clock = loop, clock
        self._lines: OrderedDict[str, deque[Bit]] = OrderedDict()
        self._had: dict[str, int] = {}
        """Bits of each lane in this turn of the loop."""
        self._all_had = 0
        self._inside = 0
        """What the bit that has its turn may still let on."""
        self._long = self._coming = False
        """Whether a long piece was computed in this turn of the loop, and whether the next turn is asked for."""
        self._last: str | None = None
        self._shared_until = self._ends = float("-inf")

    def run(self, lane: str, bit: Bit) -> None:
        """Do this at once, or when it is the lane's turn."""
        if self._may(lane):
            self._grant(bit)
        else:
            self.later(lane, bit)

    def later(self, lane: str, bit: Bit) -> None:
        """Do this when it is the lane's turn, after those of the lane who wait already."""
        self._lines.setdefault(lane, deque()).append(bit)
        self._ask()

    def begin(self, lane: str) -> bool:
        """Whether who comes now goes on at once; else it has to wait until it is `mine`."""
        if self._inside > 0 and not self._long:
            self._inside -= 1
            return True
        return self._may(lane)

    async def mine(self, lane: str) -> None:
        """Wait for a turn of the loop in which nobody else computed long."""
        again = False
        while True:
            future = self.loop.create_future()
            bit = _waking(future)
            if again:  # somebody else woke with us and computed long; we stay first
                self._lines.setdefault(lane, deque()).appendleft(bit)
                self._lines.move_to_end(lane, last=False)
                self._ask()
            else:
                self.later(lane, bit)
            await future
            if not self._long:
                return
            again = True

    def took_long(self) -> None:
        """Note that a long piece was computed (rule 4)."""
        self._long = True
        self._ask()

    def _may(self, lane: str) -> bool:
        """Whether a lane may have something now, which is counted then."""
        now = self._clock.monotonic()
        if lane != self._last:
            if self._last is not None:
                self._shared_until = now + SHARED_SECONDS
            self._last = lane
        if self._long or lane in self._lines:
            return False
        if now >= self._shared_until:
            if now < self._ends:
                return True
            if self._coming or now - self._ends < SLICE_SECONDS:  # as far as is known it is the same turn of the loop
                return False
            self._ends = now + SLICE_SECONDS
            return True
        if lane in self._had:
            return False
        self._count(lane)
        self._ask()
        return True

    def _count(self, lane: str) -> None:
        self._had[lane] = self._had.get(lane, 0) + 1
        self._all_had += 1

    def _ask(self) -> None:
        if self._coming:
            return
        self._coming = True
        if self._long or self._clock.monotonic() < self._shared_until:
            # Two steps: what the loop finds ready meanwhile, a new request for one, goes before the next bit.
            self.loop.call_soon(self.loop.call_soon, self._next)
        else:
            self.loop.call_soon(self._next)

    def _next(self) -> None:
        most = 1 if self._long else AT_ONCE
        self._long = self._coming = False
        self._had, self._all_had = {}, 0
        now = self._clock.monotonic()
        self._ends = now + SLICE_SECONDS
        shared = now < self._shared_until
        each = 1 if shared else AT_ONCE
        passed = 0
        try:
            while self._all_had < most and passed < len(self._lines) and not self._long:
                lane, line = next(iter(self._lines.items()))
                self._lines.move_to_end(lane)
                if self._had.get(lane, 0) >= each:
                    passed += 1
                    continue
                passed = 0
                bit = line.popleft()
                if not line:
                    del self._lines[lane]
                if self._grant(bit):
                    self._count(lane)
                if self._clock.monotonic() >= self._ends:
                    break
        finally:  # who fails takes nobody's turn
            if self._lines or (shared and self._had):
                self._ask()

    def _grant(self, bit: Bit) -> bool:
        self._inside = INSIDE
        try:
            return bit()
        finally:
            self._inside = 0


def _waking(future: asyncio.Future[None]) -> Bit:
    def wake() -> bool:
        if future.done():
            return False
        future.set_result(None)
        return True

    return wake


class _Here(threading.local):
    """The queue of the loop that this thread runs, or ran last."""

    queue: FairQueue | None = None


_here = _Here()


def fair_queue_of(loop: asyncio.AbstractEventLoop) -> FairQueue:
    """The queue of the loop that runs in this thread."""
    found = _here.queue
    if found is None or found.loop is not loop:
        found = _here.queue = FairQueue(loop, CLOCK)
    return found
