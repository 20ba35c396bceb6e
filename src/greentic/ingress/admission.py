"""How many turns run at once, and whose turn is next.

Rules:
1. A process runs so many turns, and so many of one deployment; what comes beyond waits.
2. Who waits is let in deployment by deployment, within one first come first served: a flooded one fills its own line.
3. A line is bounded in length and in time. Who cannot be let in is told to come back, before anything was done.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from greentic.ground.going import in_task

MAX_RUNNING = 1536
EACH_RUNNING = 1024
"""Turns of one process, and of one deployment in it."""
MAX_WAITING = 1024
"""How many of one deployment may wait."""
WAIT_SECONDS = 10.0


class Busy(Exception):
    """There was no place in time."""


class Admission:
    """The places of one process."""

    def __init__(
        self,
        running: int = MAX_RUNNING,
        each: int = EACH_RUNNING,
        waiting: int = MAX_WAITING,
        seconds: float = WAIT_SECONDS,
    ) -> None:
        self._free, self._each, self._most_waiting, self._seconds = running, each, waiting, seconds
        self._running: dict[str, int] = {}
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def running(self) -> int:
        """Turns that run."""
        return sum(self._running.values())

    @property
    def waiting(self) -> int:
        """Turns that wait for a place."""
        return sum(len(line) for line in self._lines.values())

    def enters(self, deployment: str) -> bool:
        """Take a place if there is one now; `leave` gives it back."""
        if self._free <= 0 or self._running.get(deployment, 0) >= self._each or deployment in self._lines:
            return False
        self._take(deployment)
        return True

    async def enter(self, deployment: str) -> None:
        """Take a place when it is the deployment's turn. Raises `Busy`."""
        if self.enters(deployment):
            return
        await in_task()
        line = self._lines.setdefault(deployment, deque())
        if len(line) >= self._most_waiting:
            raise Busy
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(future)
        self._let_in()
        try:
            async with asyncio.timeout(self._seconds):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled():
                self.leave(deployment)  # let in at the moment of leaving
            elif future in line:
                line.remove(future)
                self._drop(deployment)
            if isinstance(error, TimeoutError):
                raise Busy from None
            raise

    def leave(self, deployment: str) -> None:
        """Give a place back."""
        self._free += 1
        left = self._running[deployment] - 1
        if left:
            self._running[deployment] = left
        else:
            del self._running[deployment]
        if self._lines:
            self._let_in()

    def _take(self, deployment: str) -> None:
        self._free -= 1
        self._running[deployment] = self._running.get(deployment, 0) + 1

    def _let_in(self) -> None:
        """Let in as many as there are places, one of each line after the other (rule 2)."""
        full = 0
        while self._free > 0 and full < len(self._lines):
            deployment, line = next(iter(self._lines.items()))
            self._lines.move_to_end(deployment)
            if self._running.get(deployment, 0) >= self._each:
                full += 1
                continue
            full = 0
            while line:
                future = line.popleft()
                if not future.done():
                    self._take(deployment)
                    future.set_result(None)
                    break
            self._drop(deployment)

    def _drop(self, deployment: str) -> None:
        if not self._lines.get(deployment, True):
            del self._lines[deployment]
