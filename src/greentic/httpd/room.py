"""Who may hold a connection, for how long, and who makes room (threats: slow-peer, unbounded-head).

Rules:
1. Every connection has a deadline, set by whoever speaks on it. One sweep a second tells those that are over theirs.
2. Connections are counted, below the number of files that the process may open. At the limit one makes room: the first that there is
   of those that have their refusal, are idle, have sent half a request, do not read their answer; in each kind the one that has been
   so for longest. If none can, the newcomer gets a reserved place: answers to probes alone, and 503 for anything else. A reserved
   place never becomes a full one.
3. Stopping: an idle connection is closed when nothing is on its way on it; one whose request has begun, or that has not had its first
   yet, is answered first. What is left after that is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import msgspec

from greentic.ground.clock import CLOCK

SWEEP_SECONDS = 1.0
TURNS = 3
"""Of the loop, after which what had come before them was read."""
RESERVED = 64
OTHER_FILES = 48
"""Files that a worker needs beside its connections."""
MANY_FILES = 65_536


class Places(msgspec.Struct, frozen=True):
    """How many connections there may be."""

    full: int
    reserved: int
    """Above those, for probes alone."""


def places(wanted: int, files: int) -> Places:
    """As many as are wanted, as far as the number of files that the process may open allows (rule 2)."""
    room = max(files - OTHER_FILES, 8)
    reserved = min(RESERVED, room // 4)
    return Places(max(min(wanted, room - reserved), 4), reserved)


def raise_file_limit() -> int:
    """Let this process open as many files as it may, and tell how many those are."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MANY_FILES if soft == resource.RLIM_INFINITY else soft


class Held(Protocol):
    """A connection, as far as who holds one goes."""

    deadline: float

    @property
    def awaits_answer(self) -> bool:
        """Whether it sent a request, or all but the end of one, that has not got the whole of its answer."""

    def stand(self, kind: dict[Held, None] | None) -> None:
        """Be the last of a kind of those that make room, or of none."""

    def expire(self) -> None:
        """The deadline is over."""

    def finish(self) -> None:
        """End if nothing is to be expected (rule 3)."""

    def abort(self) -> None:
        """Cut at once."""


class Room:
    """The connections of one process."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.connections: dict[Held, None] = {}
        self.refused_ones: dict[Held, None] = {}
        """These and the next three, in the order of becoming so: who makes room (rule 2)."""
        self.idle: dict[Held, None] = {}
        self.half_sent: dict[Held, None] = {}
        self.unread: dict[Held, None] = {}
        self.reserved: dict[Held, None] = {}
        self.draining = False
        """Whether every answer closes its connection."""
        self.refused = 0
        """Connections that were ended for want of room."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._gone: asyncio.Event | None = None
        """Set when the last connection is gone; there is one once the front closes."""

    @property
    def closing(self) -> bool:
        return self._gone is not None

    def start(self) -> None:
        """Begin to sweep (rule 1)."""
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def admit(self, new: Held) -> bool:
        """Take a connection in; whether it has a full place (rule 2)."""
        full = len(self.connections) - len(self.reserved) < self.places.full or self._make_room()
        if not full:
            if len(self.reserved) >= self.places.reserved:
                self._cut(next(iter(self.reserved), new))
            self.reserved[new] = None
        self.connections[new] = None
        return full

    def _make_room(self) -> bool:
        for kind in (self.refused_ones, self.idle, self.half_sent, self.unread):
            for connection in kind:
                self._cut(connection)
                return True
        return False

    def _cut(self, connection: Held) -> None:
        self.refused += 1
        connection.abort()
        self.leave(connection)

    def leave(self, connection: Held) -> None:
        connection.stand(None)
        self.connections.pop(connection, None)
        self.reserved.pop(connection, None)
        if self._gone is not None and not self.connections:
            self._gone.set()

    async def close(self, seconds: float) -> int:
        """Close politely (rule 3); how many connections had to be cut after so many seconds."""
        self.draining = True
        self._gone = asyncio.Event()
        for _ in range(TURNS):  # a request that came already is no idle connection
            await asyncio.sleep(0)
        for connection in list(self.connections):
            if not connection.awaits_answer:
                connection.finish()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), seconds)
        left = list(self.connections)
        for connection in left:
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return len(left)

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        now = CLOCK.monotonic()
        for connection in [c for c in self.connections if now > c.deadline]:
            connection.expire()
