"""Connections: who may hold one, for how long, and who answers when there are too many (threats: slow-peer, unbounded-head).

Rules:
1. Everything that a peer sends or withholds has a deadline: the head from its first byte, the body, the next request of a kept
   connection, the reading of an answer. One sweep a second ends what is over it; a head or body that is late gets a 408.
   What comes without being a request, an empty line, wins no time.
2. Connections are counted, below the number of files that the process may open. At the limit one makes room: the first that there is
   of those that have their refusal, are idle, have sent half a request, do not read their answer; in each kind the one that has been
   so for longest. If none can, the newcomer gets a reserved place: answers to probes alone, and 503 for anything else. A reserved
   place never becomes a full one.
3. One request of a connection is answered at a time, in order. While one runs, or its answer is not read, only a bounded rest of the
   next is taken in. Who sends many at once has one answered, then one more whenever it is its turn. Whose turn it is goes by lanes
   (`ground/fair_queue.py`), so that many connections of one deployment do not hold up those of others; what has no lane goes at once.
4. An answer to a request that was not read whole closes the connection, after the peer had time to read it.
5. Stopping: no new connections; every answer closes its connection. An idle one is closed when nothing is on its way on it; one whose
   request has begun, or that has not had its first yet, is answered first.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Coroutine
from typing import NamedTuple

import msgspec

from greentic.ground.clock import CLOCK, http_date, unix_seconds
from greentic.ground.fair_queue import FairQueue, fair_queue_of
from greentic.httpd.http1 import CONTINUE, Headers, Incoming, Refusal, RequestReader, answer_bytes

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
LARGE = 256 << 10
"""Bytes of a body above which it is not copied behind its head: that would hold the loop."""
TURNS = 3
"""Of the loop, after which what had come before them was read."""
RESERVED = 64
OTHER_FILES = 48
"""Files that a worker needs beside its connections."""
_TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8")]


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


class Answer(NamedTuple):
    """What a request is answered."""

    code: int
    body: bytes | bytearray
    headers: Headers
    served_by: tuple[str, str] | None = None
    """The deployment and the revision that answered, if one did; nothing of it goes to the peer."""


Handler = Callable[[Incoming, str], "Answer | Coroutine[object, object, Answer]"]
"""Answers a request of a peer address, at once or later."""


def no_lane(incoming: Incoming) -> str | None:
    """Where every request goes at once."""
    return None


class Front:
    """The connections of one process."""

    def __init__(
        self,
        handler: Handler,
        places: Places,
        is_probe: Callable[[str], bool],
        lane_of: Callable[[Incoming], str | None] = no_lane,
    ) -> None:
        """`lane_of` tells whose share of the loop a request takes (rule 3); none for one that goes at once."""
        self.handler, self.places, self.is_probe, self.lane_of = handler, places, is_probe, lane_of
        self.connections: dict[Connection, None] = {}
        self.refused_ones: dict[Connection, None] = {}
        """These and the next three, in the order of becoming so: who makes room (rule 2)."""
        self.idle: dict[Connection, None] = {}
        self.half_sent: dict[Connection, None] = {}
        self.unread: dict[Connection, None] = {}
        self.reserved: dict[Connection, None] = {}
        self.draining = False
        """Whether every answer closes its connection."""
        self.refused = 0
        """Connections that were ended for want of room."""
        self._date, self._date_at = b"", -1
        self._sweeper: asyncio.TimerHandle | None = None
        self._gone: asyncio.Event | None = None
        """Set when the last connection is gone; there is one once the front closes."""

    @property
    def closing(self) -> bool:
        return self._gone is not None

    def connection(self) -> Connection:
        """A new one."""
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

    def _cut(self, connection: Connection) -> None:
        self.refused += 1
        connection.abort()
        self.leave(connection)

    def leave(self, connection: Connection) -> None:
        connection.stand(None)
        self.connections.pop(connection, None)
        self.reserved.pop(connection, None)
        if self._gone is not None and not self.connections:
            self._gone.set()

    async def close(self, seconds: float) -> int:
        """Close politely (rule 5); how many connections had to be cut after so many seconds."""
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


class Connection(asyncio.Protocol):
    """One connection: reads requests, has them answered, writes answers."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._full_place = True
        self._stands: dict[Connection, None] | None = None
        """The kind of those that make room which it is among."""
        self._awaited = ""
        """What the deadline is for."""
        self._task: asyncio.Task[Answer] | None = None
        self._request: Incoming | None = None
        self._ending = False
        self._paused = False
        """Whether the peer does not read."""
        self._lane = ""
        self._full = False
        """Whether no more is taken in for now."""
        self._waits = False
        """Whether it is not its turn: for a request that came, or for looking at what else did."""
        self._queue: FairQueue | None = None
        self._ended = False
        """Whether the peer has sent all that it will."""
        self._asked = False
        """Whether a request came on it."""
        self.deadline = 0.0

    # -- what the front asks ----------------------------------------------------------------------------------------

    @property
    def _held(self) -> bool:
        """Whether its next request has to wait."""
        return self._task is not None or self._paused or self._waits

    @property
    def awaits_answer(self) -> bool:
        """Whether it sent a request, or all but the end of one, that has not got the whole of its answer."""
        return self._held or self._reader.in_body

    def stand(self, kind: dict[Connection, None] | None) -> None:
        """Be the last of a kind of those that make room, or of none."""
        if kind is not self._stands:
            if self._stands is not None:
                self._stands.pop(self, None)
            self._stands = kind
            if kind is not None and self._full_place:
                kind[self] = None

    def finish(self) -> None:
        """End if nothing is to be expected; else a request that is on its way is answered, for a moment (rule 5)."""
        if self._reader.empty and self._asked and not self._unread():
            self.end()
        else:
            self.deadline = min(self.deadline, CLOCK.monotonic() + LINGER_SECONDS)

    def _unread(self) -> bool:
        """Whether the system holds bytes of the peer that the loop has not handed on yet; closing now would lose them."""
        if self._transport is None or self._transport.is_closing():
            return False
        look = select.poll()
        look.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(look.poll(0))

    def end(self) -> None:
        """Close after what was written."""
        self._ending = True
        self.deadline = CLOCK.monotonic() + READ_SECONDS
        self.stand(self._front.unread)
        if self._transport is not None:
            self._transport.close()

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
            self._refuse(Refusal(408, f"the request's {self._awaited} did not come in time"))

    # -- what the loop tells ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._queue = transport, fair_queue_of(asyncio.get_running_loop())
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if isinstance(name, tuple) and name else ""
        self._full_place = self._front.admit(self)
        self._wait("first byte", LINGER_SECONDS if self._front.closing else FIRST_SECONDS, self._front.idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.leave(self)
        self._ending = True
        if self._task is not None:
            self._task.cancel()  # nobody is left to answer

    def eof_received(self) -> bool:
        if self._task is not None:
            self.abort()  # who closes its side has left, as other servers read it; what runs for it is given up
            return False
        if self._ending:
            return False
        self._ended = True
        if not self._held:
            self._finish()
        return True  # closed by us, once what is there was answered

    def pause_writing(self) -> None:
        self._paused = True
        self.deadline = CLOCK.monotonic() + READ_SECONDS
        self.stand(self._front.unread)

    def resume_writing(self) -> None:
        self._paused = False
        if not self._ending:
            self._advance()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return  # what comes after the end is thrown away
        self._reader.feed(data)
        self._advance()

    # -- one request after the other --------------------------------------------------------------------------------

    def _advance(self, *, its_turn: bool = False) -> None:
        """Have a request that is there answered, once it is its turn; where more have come, the next one then (rule 3)."""
        if not self._held and not self._ending:
            try:
                request = self._reader.next()
            except Refusal as refusal:
                self._refuse(refusal)
                return
            if request is None:
                self._await_rest()
            else:
                self._came(request, its_turn=its_turn)
        self._flow()

    def _came(self, request: Incoming, *, its_turn: bool) -> None:
        """A whole request is there."""
        self._awaited, self.deadline, self._asked = "", float("inf"), True
        self.stand(None)
        self._request = request
        if not self._full_place and not self._front.is_probe(request.head.path):
            self._refuse(Refusal(503, "this worker has too many connections"))
            return
        lane = self._lane = self._front.lane_of(request) or ""
        if its_turn or not lane or self._queue is None:
            self._take(request)
        else:
            self._waits = True
            self._queue.run(lane, self._go_on)

    def _go_on(self) -> bool:
        """It is its turn; whether there was anything to do."""
        self._waits = False
        if self._transport is None or self._transport.is_closing():
            return False  # what is written reaches nobody
        if self._request is None:
            self._advance(its_turn=True)
        else:
            self._take(self._request)
            self._flow()
        return True

    def _flow(self) -> None:
        """Take in no more than a bounded rest while the next request has to wait (rule 3)."""
        if self._transport is None or self._ending:
            return
        if not self._held:
            if self._full:
                self._full = False
                self._transport.resume_reading()
        elif self._reader.waiting > MAX_AHEAD and not self._full:
            self._full = True
            self._transport.pause_reading()

    def _take(self, request: Incoming) -> None:
        """Have a whole request answered, and what came behind it looked at."""
        answer = self._front.handler(request, self._peer)
        if not isinstance(answer, Answer):
            self._task = asyncio.get_running_loop().create_task(answer)
            self._task.add_done_callback(self._answered)
            return
        self._send(answer)
        self._look_further()

    def _look_further(self) -> None:
        """An answer was given: await the next request, or where more came already, one's turn."""
        if self._held or self._ending:
            return
        if self._reader.empty or self._queue is None:
            self._await_rest()
        else:
            self._waits = True
            self._queue.later(self._lane, self._go_on)

    def _await_rest(self) -> None:
        """Wait for what is missing; every part has a deadline of its own, from its first byte (rule 1)."""
        if self._reader.takes_continue() and self._transport is not None:
            self._transport.write(CONTINUE)
        if self._ended:
            self._finish()
        elif self._reader.in_body:
            self._wait("body", BODY_SECONDS, self._front.half_sent)
        elif not self._reader.empty:
            self._wait("head", HEAD_SECONDS, self._front.half_sent)
        elif self._awaited != "first byte":
            self._wait("next request", IDLE_SECONDS, self._front.idle)

    def _wait(self, what: str, seconds: float, kind: dict[Connection, None]) -> None:
        if what != self._awaited:
            self._awaited = what
            self.deadline = CLOCK.monotonic() + (seconds if self._full_place else LINGER_SECONDS)
            self.stand(kind)

    def _finish(self) -> None:
        """The peer sends no more."""
        if self._reader.empty:
            self.end()
        else:
            self._refuse(Refusal(400, "the request ended before it was whole"))

    def _answered(self, task: asyncio.Task[Answer]) -> None:
        self._task = None
        if task.cancelled() or self._transport is None or self._transport.is_closing():
            return
        error = task.exception()
        self._send(Answer(500, b"internal error", _TEXT) if error is not None else task.result())
        self._look_further()
        self._flow()

    def _send(self, answer: Answer) -> None:
        request, transport = self._request, self._transport
        if request is None or transport is None:
            return
        close = not request.head.keep_alive or request.body is None or self._front.draining or not self._full_place
        head = request.head.method == "HEAD"
        apart = len(answer.body) > LARGE and not head and answer.code != 204
        data = answer_bytes(
            answer.code, answer.headers, answer.body, self._front.date(), close=close, head=head or apart
        )
        self._request = None
        transport.write(data)
        if apart:
            transport.write(answer.body)
        if close and (request.body is None or not self._reader.empty):
            self._linger()
        elif close:
            self.end()

    def _refuse(self, refusal: Refusal) -> None:
        if self._transport is None:
            return
        text = refusal.text.encode()
        head = self._request is not None and self._request.head.method == "HEAD"
        self._transport.write(
            answer_bytes(refusal.code, _TEXT + refusal.extra, text, self._front.date(), close=True, head=head)
        )
        self._linger()

    def _linger(self) -> None:
        """Say that no more is written, and throw away for a moment what still comes, so that the answer is read (rule 4)."""
        if self._ended:
            self.end()
            return
        self._ending = True
        self.deadline = CLOCK.monotonic() + LINGER_SECONDS
        self.stand(self._front.refused_ones)
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
