"""Connections: what comes on them is answered, one request at a time and in order (threats: slow-peer, unbounded-head).

Rules:
1. Everything that a peer sends or withholds has a deadline: the head from its first byte, the body, the next request of a kept
   connection, the reading of an answer (`httpd/room.py`). A head or body that is late gets a 408. What comes without being a request,
   an empty line, wins no time.
2. One request of a connection is answered at a time, in order. While one runs, or its answer is not read, only a bounded rest of the
   next is taken in. Who sends many at once has one answered, then one more whenever it is its turn. Whose turn it is goes by lanes
   (`ground/fair_queue.py`), so that many connections of one deployment do not hold up those of others; what has no lane goes at once.
3. An answer to a request that was not read whole closes the connection, after the peer had time to read it.
4. Once no new connections are taken every answer closes its connection.
5. A request whose answering fails is answered 500, and what failed is told. What fails else in a turn ends its connection: it would be held
   for good.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Coroutine

import msgspec

from greentic.ground.clock import CLOCK, http_date, unix_seconds
from greentic.ground.fair_queue import FairQueue, fair_queue_of
from greentic.httpd.http1 import CONTINUE, TEXT, Headers, Incoming, Refusal, RequestReader, answer_bytes
from greentic.httpd.room import Held, Places, Room

IDLE_SECONDS = 75.0
"""For the next request; longer than the 60 s that balancers keep a connection."""
FIRST_SECONDS = 15.0
"""For the first byte of a new connection."""
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
READ_SECONDS = 30.0
"""For an answer to be read."""
LINGER_SECONDS = 2.0
MAX_AHEAD = 64 << 10
"""Bytes that are taken in beside a request that runs."""
LARGE = 256 << 10
"""Bytes of a body above which it is not copied behind its head: that would hold the loop."""


class Answer(msgspec.Struct, frozen=True):
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


class Front(Room):
    """The connections of one process, and who answers what comes on them."""

    def __init__(
        self,
        handler: Handler,
        places: Places,
        is_probe: Callable[[str], bool],
        lane_of: Callable[[Incoming], str | None] = no_lane,
    ) -> None:
        """`lane_of` tells whose share of the loop a request takes (rule 2); none for one that goes at once."""
        super().__init__(places)
        self.handler, self.is_probe, self.lane_of = handler, is_probe, lane_of
        self._date, self._date_at = b"", -1

    def connection(self) -> Connection:
        """A new one."""
        return Connection(self)

    def date(self) -> bytes:
        now = unix_seconds()
        if now != self._date_at:
            self._date, self._date_at = http_date(now), now
        return self._date


class Connection(asyncio.Protocol):
    """One connection: reads requests, has them answered, writes answers."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._full_place = True
        self._stands: dict[Held, None] | None = None
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

    def stand(self, kind: dict[Held, None] | None) -> None:
        """Be the last of a kind of those that make room, or of none."""
        if kind is not self._stands:
            if self._stands is not None:
                self._stands.pop(self, None)
            self._stands = kind
            if kind is not None and self._full_place:
                kind[self] = None

    def finish(self) -> None:
        """End if nothing is to be expected; else a request that is on its way is answered, for a moment (`httpd/room.py`)."""
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
        """Have a request that is there answered, once it is its turn; where more have come, the next one then (rule 2)."""
        if not self._held and not self._ending:
            try:
                request = self._reader.next(CLOCK.monotonic())
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
        turn_of, lane = self._lane, self._front.lane_of(request) or ""
        self._lane = lane
        if not lane or (its_turn and lane == turn_of) or self._queue is None:
            self._take(request)
        else:
            self._waits = True
            self._queue.run(lane, self._go_on)

    def _go_on(self) -> bool:
        """It is its turn; whether there was anything to do."""
        self._waits = False
        if self._transport is None or self._transport.is_closing():
            return False  # what is written reaches nobody
        try:
            if self._request is None:
                self._advance(its_turn=True)
            else:
                self._take(self._request)
                self._flow()
        except BaseException:
            self.abort()  # the loop does so only for what it calls itself (rule 5)
            raise
        return True

    def _flow(self) -> None:
        """Take in no more than a bounded rest while the next request has to wait (rule 2)."""
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
        try:
            answer = self._front.handler(request, self._peer)
        except Exception as error:  # noqa: BLE001  as of one that is answered later
            answer = _failed(error)
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

    def _wait(self, what: str, seconds: float, kind: dict[Held, None]) -> None:
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
        self._send(task.result() if error is None else _failed(error))
        self._look_further()
        self._flow()

    def _send(self, answer: Answer) -> None:
        request, transport = self._request, self._transport
        if request is None or transport is None:
            return
        close = not request.head.keep_alive or request.body is None or self._front.draining or not self._full_place
        head = request.head.method == "HEAD"
        apart = len(answer.body) > LARGE and not head and answer.code != 204
        kept, bare = request.head.wants_told, head or apart
        data = answer_bytes(
            answer.code, answer.headers, answer.body, self._front.date(), close=close, head=bare, kept=kept
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
            answer_bytes(refusal.code, [TEXT, *refusal.extra], text, self._front.date(), close=True, head=head)
        )
        self._linger()

    def _linger(self) -> None:
        """Say that no more is written, and throw away for a moment what still comes, so that the answer is read (rule 3)."""
        if self._ended:
            self.end()
            return
        self._ending = True
        self.deadline = CLOCK.monotonic() + LINGER_SECONDS
        self.stand(self._front.refused_ones)
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()


def _failed(error: BaseException) -> Answer:
    """What a request is answered whose answering failed; told as what fails on the loop is."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": "a request could not be answered", "exception": error}
    )
    return Answer(500, b"internal error", [TEXT])
