"""More connections for a large bundle that comes slowly.

Rules:
1. The first connection reads from the front. If it is slow and much is left, others take segments from the back.
2. The front stops where a segment was taken. A segment that fails is given up and left to the front; nobody waits for it twice.
3. A helper believes a part only if it begins where it was asked to and belongs to the same whole.
"""

from __future__ import annotations

import os
import threading

from greentic.distribute.ranges import Ranges
from greentic.distribute.source import Source
from greentic.ground.clock import Clock
from greentic.ground.errors import GreenticError

CONNECTIONS = 4
"""In all, the first one included."""
PROBE_SECONDS = 0.25
"""How long the first connection is watched before others are opened."""
SLOW_BYTES_PER_SECOND = 100 << 20
SEGMENT = 4 << 20
ENOUGH = 16 << 20
"""Bytes that must be left for others to be worth it."""
_FRONT = 2 << 20
"""Room that the first connection needs for the block that it is about to read."""
_BLOCK = 1 << 18


class Helpers:
    """The other connections of one download."""

    def __init__(self, source: Source, reference: str, fd: int, validator: str | None, clock: Clock) -> None:
        self._source, self._reference, self._fd, self._validator = source, reference, fd, validator
        self._clock, self._began, self._first = clock, clock.monotonic(), -1
        self._lock = threading.Lock()
        self._front = self._back = 0
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self.done = Ranges()

    def help(self, position: int, end: int) -> int:
        """Told where the front is and up to where it would read; up to where it must read now."""
        if self._first < 0:
            self._first = position
        with self._lock:
            self._front = position
            if self._threads:
                return min(end, self._back)
        elapsed = self._clock.monotonic() - self._began
        if elapsed < PROBE_SECONDS or end - position < ENOUGH:
            return end
        if (position - self._first) / elapsed >= SLOW_BYTES_PER_SECOND:
            self._began, self._first = self._clock.monotonic(), position
            return end
        self._back = end
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(CONNECTIONS - 1)]
        for thread in self._threads:
            thread.start()
        with self._lock:
            return min(end, self._back)

    def finish(self) -> Ranges:
        """Wait for segments that were taken; what was got."""
        self._stopped = True
        for thread in self._threads:
            thread.join()
        return self.done

    def _take(self) -> tuple[int, int] | None:
        with self._lock:
            if self._stopped or self._back - SEGMENT <= self._front + _FRONT:
                return None
            end = self._back
            self._back -= SEGMENT
            return self._back, end

    def _work(self) -> None:
        while (segment := self._take()) is not None:
            start, end = segment
            try:
                whole = self._fetch(start, end)
            except (GreenticError, OSError):
                return  # the front, or the next attempt, finds the gap
            if not whole:
                return

    def _fetch(self, start: int, end: int) -> bool:
        """Whether the whole segment came."""
        body = self._source.open(self._reference, start, self._validator, end)
        try:
            if body.offset != start or body.total is None or body.total < end:
                return False
            buffer = memoryview(bytearray(_BLOCK))
            position = start
            while position < end:
                count = body.read_into(buffer[: min(_BLOCK, end - position)])
                if not count:
                    break
                piece, at = buffer[:count], position
                while piece:
                    written = os.pwrite(self._fd, piece, at)
                    piece, at = piece[written:], at + written
                position += count
                with self._lock:
                    self.done = self.done.add(start, position)
            return position == end
        finally:
            body.close()
