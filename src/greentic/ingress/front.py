"""Connections: who may hold one, for how long, and who answers when there are too many (threats: slow-peer, unbounded-head).

Rules:
1. Everything that a peer sends or withholds has a deadline: the head from its first byte, the body, the next request of a kept
   connection, the reading of an answer. One sweep a second ends what is over it; a head or body that is late gets a 408.
2. Connections are counted, below the number of files that the process may open. At the limit the connection that has been idle for
   longest makes room, else the one whose head has been incomplete for longest. If none can, the newcomer gets answers to probes alone,
   and 503 for anything else.
3. One request of a connection is answered at a time, in order. While it runs, only a bounded rest of the next is taken in.
4. An answer to a request that was not read whole closes the connection, after the peer had time to read it.
5. Stopping: no new connections; every answer closes its connection. An idle one is closed when nothing is on its way on it; one on which
   a request has begun, or that has not had its first yet, is answered first.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Coroutine
from typing import NamedTuple

from greentic.ground.clock import CLOCK, http_date, unix_seconds
from greentic.ingress.http1 import CONTINUE, Headers, Incoming, Refusal, RequestReader, answer_bytes

IDLE_SECONDS = 75.0
"""For the next request; longer than the 60 s that balancers keep a connection."""
FIRST_SECONDS = 15.0
"""For the first byte of a new connection."""
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
READ_SECONDS = 30.0
"""For an answer to be read."""
LINGER_SECONDS = 2.0
SWEEP_SECONDS = 1.0
MAX_AHEAD = 64 << 10
"""Bytes that are taken in beside a request that runs."""
RESERVED = 64
OTHER_FILES = 48
"""Files that a worker needs beside its connections."""
_TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8")]


class Places(NamedTuple):
    """How many connections there may be."""

    full: int
    reserved: int
    """Above those, for probes alone."""


def places(wanted: int, files: int) -> Places:
    """As many as are wanted, as far as the number of files that the process may open allows (rule 2)."""
    room = max(files - OTHER_FILES, 8)
    reserved = min(RESERVED, room // 4)
    return Places(max(min(wanted, room - reserved), 4), reserved)


class Answer(NamedTuple):
    """What a request is answered."""

    code: int
    body: bytes
    headers: Headers


Handler = Callable[[Incoming, str], "Answer | Coroutine[object, object, Answer]"]
"""Answers a request of a peer address, at once or later."""


class Front:
    """The connections of one process."""

    def __init__(self, handler: Handler, places: Places, is_probe: Callable[[str], bool]) -> None:
        self.handler, self.places, self.is_probe = handler, places, is_probe
        self.connections: dict[Connection, None] = {}
        """In the order of their opening."""
        self.draining = False
        """Whether every answer closes its connection."""
        self.refused = 0
        """Connections that were ended for want of room."""
        self._date, self._date_at = b"", -1
        self._sweeper: asyncio.TimerHandle | None = None
        self._gone: asyncio.Event | None = None

    def connection(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self)

    def start(self) -> None:
        """Begin to sweep (rule 1)."""
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def date(self) -> bytes:
        now = unix_seconds()
        if now != self._date_at:
            self._date, self._date_at = http_date(now), now
        return self._date

    def admit(self, new: Connection) -> bool:
        """Take a connection in; whether it has a full place (rule 2)."""
        full = len(self.connections) >= self.places.full
        if full:
            idle = next((c for c in self.connections if c.idle), None) or next(
                (c for c in self.connections if c.half_sent), None
            )
            if idle is not None:
                self.refused += 1
                idle.abort()
                self.connections.pop(idle, None)
                full = False
            elif len(self.connections) >= self.places.full + self.places.reserved:
                self.refused += 1
                oldest = next((c for c in self.connections if not c.busy), None)
                (oldest or new).abort()
                self.connections.pop(oldest or new, None)
        self.connections[new] = None
        return not full

    def leave(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        if self._gone is not None and not self.connections:
            self._gone.set()

    async def close(self, seconds: float) -> int:
        """Close politely (rule 5); how many connections had to be cut after so many seconds."""
        self.draining = True
        for connection in list(self.connections):
            if not connection.busy:
                connection.finish()
        if self.connections:
            self._gone = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), seconds)
        left = list(self.connections)
        for connection in left:
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return len(left)

    def _sweep(self) -> None:
        now = CLOCK.monotonic()
        for connection in [c for c in self.connections if now > c.deadline]:
            connection.expire()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)


class Connection(asyncio.Protocol):
    """One connection: reads requests, has them answered, writes answers."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._full_place = True
        self._task: asyncio.Task[Answer] | None = None
        self._request: Incoming | None = None
        self._ending = False
        self._paused = False
        self._body_began = False
        self._asked = False
        """Whether a request came on it."""
        self.deadline = 0.0

    # -- what the front asks ----------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return self._task is not None or self._paused

    @property
    def idle(self) -> bool:
        """Between two requests, or before the first byte."""
        return self._task is None and self._reader.empty and not self._ending

    @property
    def half_sent(self) -> bool:
        return self._task is None and not self._reader.empty

    def end(self) -> None:
        """Close after what was written."""
        self._ending = True
        self.deadline = CLOCK.monotonic() + READ_SECONDS
        if self._transport is not None:
            self._transport.close()

    def finish(self) -> None:
        """End if nothing is to be expected, else after the request that is on its way (rule 5)."""
        if self.idle and self._asked and not self._waits():
            self.end()
        elif self.idle:
            self.deadline = min(self.deadline, CLOCK.monotonic() + LINGER_SECONDS)

    def _waits(self) -> bool:
        """Whether the system holds bytes of the peer that the loop has not handed on yet; closing now would lose them."""
        if self._transport is None or self._transport.is_closing():
            return False
        look = select.poll()
        look.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(look.poll(0))

    def abort(self) -> None:
        """Cut at once; a request that runs is given up."""
        self._ending = True
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """The deadline is over."""
        if self._ending or self._paused:
            self.abort()
        elif self._reader.empty:
            self.end()
        else:
            what = "body" if self._reader.in_body else "head"
            self._refuse(Refusal(408, f"the request's {what} did not come in time"))

    # -- what the loop tells ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if isinstance(name, tuple) and name else ""
        self._full_place = self._front.admit(self)
        self.deadline = CLOCK.monotonic() + (FIRST_SECONDS if self._full_place else LINGER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.leave(self)
        self._ending = True
        if self._task is not None:
            self._task.cancel()  # nobody is left to answer

    def eof_received(self) -> bool:
        if self._task is not None:
            self.abort()  # who closes its side has left, as other servers read it; what runs for it is given up
            return False
        if not self._reader.empty and not self._ending:
            self._refuse(Refusal(400, "the request ended before it was whole"))
            return True
        return False

    def pause_writing(self) -> None:
        self._paused = True
        self.deadline = CLOCK.monotonic() + READ_SECONDS

    def resume_writing(self) -> None:
        self._paused = False
        self._await_next()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return  # what comes after the end is thrown away
        began = self._reader.empty
        self._reader.feed(data)
        if self._task is not None:
            if self._reader.waiting > MAX_AHEAD and self._transport is not None:
                self._transport.pause_reading()
            return
        if began:
            self.deadline = CLOCK.monotonic() + (HEAD_SECONDS if self._full_place else LINGER_SECONDS)
        self._advance()

    # -- one request after the other --------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Answer the requests that are there, until one takes time or none is whole."""
        while self._task is None and not self._ending and not self._paused:
            try:
                request = self._reader.next()
            except Refusal as refusal:
                self._refuse(refusal)
                return
            if request is None:
                self._await_rest()
                return
            self._body_began, self._asked = False, True
            self._request = request
            if not self._full_place and not self._front.is_probe(request.head.path):
                self._refuse(Refusal(503, "this worker has too many connections"))
                return
            answer = self._front.handler(request, self._peer)
            if isinstance(answer, Answer):
                self._send(answer)
            else:
                self.deadline = float("inf")
                self._task = asyncio.get_running_loop().create_task(answer)
                self._task.add_done_callback(self._answered)

    def _await_rest(self) -> None:
        if self._reader.takes_continue() and self._transport is not None:
            self._transport.write(CONTINUE)
        if self._reader.in_body and not self._body_began:
            self._body_began = True
            self.deadline = CLOCK.monotonic() + BODY_SECONDS

    def _await_next(self) -> None:
        if self._ending:
            return
        self.deadline = CLOCK.monotonic() + (IDLE_SECONDS if self._reader.empty else HEAD_SECONDS)
        if not self._reader.empty:
            self._advance()

    def _answered(self, task: asyncio.Task[Answer]) -> None:
        self._task = None
        if task.cancelled() or self._transport is None or self._transport.is_closing():
            return
        error = task.exception()
        self._send(Answer(500, b"internal error", _TEXT) if error is not None else task.result())
        if not self._ending:
            if self._reader.waiting <= MAX_AHEAD and not self._transport.is_reading():
                self._transport.resume_reading()
            if not self._paused:
                self._await_next()

    def _send(self, answer: Answer) -> None:
        request, transport = self._request, self._transport
        if request is None or transport is None:
            return
        close = not request.head.keep_alive or request.body is None or self._front.draining or not self._full_place
        data = answer_bytes(
            answer.code,
            answer.headers,
            answer.body,
            self._front.date(),
            close=close,
            head=request.head.method == "HEAD",
        )
        self._request = None
        transport.write(data)
        if close:
            self._linger() if request.body is None else self.end()
        elif self._task is None and self._reader.empty:
            self.deadline = CLOCK.monotonic() + IDLE_SECONDS

    def _refuse(self, refusal: Refusal) -> None:
        if self._transport is None:
            return
        text = refusal.text.encode()
        self._transport.write(answer_bytes(refusal.code, _TEXT, text, self._front.date(), close=True))
        self._linger()

    def _linger(self) -> None:
        """Say that no more is written, and throw away for a moment what still comes, so that the answer is read (rule 4)."""
        self._ending = True
        self.deadline = CLOCK.monotonic() + LINGER_SECONDS
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            if not self._transport.is_reading():
                self._transport.resume_reading()
