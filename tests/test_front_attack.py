"""The front under attack: what an enemy, a slow network, a browser or a proxy sends, and what must not come of it.

Every test is about a kind: a rule that the modules under test open with, and all who could break it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greentic.ground import fair_queue
from greentic.httpd.front import FIRST_SECONDS, IDLE_SECONDS, MAX_AHEAD, Answer, Front
from greentic.httpd.http1 import MAX_HEAD, Incoming, Refusal, RequestReader
from greentic.httpd.room import Places
from greentic.ingress.trusted_peer import TrustedPeers
from greentic.telemetry.log import OperatorLog
from greentic.worker.server import ACCEPT_AT_ONCE, BACKLOG, _close_door, bind
from simulators import FakeClock
from test_front import GET, clock, reset, run, seen, site
from test_http1 import POST, read, refused
from test_programs import Worker
from waiting import children, lives, until

__all__ = ["clock"]
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


# -- what is read: bounded in time and in size -------------------------------------------------------------------------


@pytest.mark.parametrize("filling", [b" ", b"\t", b" \t", b"a ", b",", b"x" * 7 + b" "])
@pytest.mark.parametrize("end", [b"y\r\n\r\n", b"\0\r\n\r\n"])
def test_threat_unbounded_head_reading_takes_time_in_proportion(filling, end):
    """Blanks inside a value once took quadratic time: seconds for one head that is within all limits."""

    def cost(size: int) -> float:
        head = b"GET / HTTP/1.1\r\nHost: h\r\nA:x" + (filling * size)[:size] + end
        best = 9.0
        for _ in range(3):
            began = time.thread_time()
            with contextlib.suppress(Refusal):
                read(head)
            best = min(best, time.thread_time() - began)
        return best

    assert cost(32_000) < 64 * cost(2_000) + 0.05  # 16 times the bytes; the square of it would be 256 times


def test_threat_slow_peer_empty_lines_are_no_request_and_win_no_time(clock):
    assert [r.head.path for r in read(b"\r\n" + GET + b"\r\n" + GET)] == ["/x", "/x"]
    assert refused(b"\r\n\r\n" + GET) == refused(GET + b"\r\n\r\n" + GET) == 400

    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            await seen(lambda: bool(made.front.connections))
            (connection,) = made.front.connections
            until = connection.deadline
            clock.sleep(FIRST_SECONDS - 1)
            writer.write(b"\r\n")
            await seen(lambda: connection._reader._empty_line)
            assert connection.deadline == until
            clock.sleep(2)
            made.front._sweep()
            assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_chunk_lines_are_in_proportion_to_the_body():
    padded = b"1;" + b"x" * 200 + b"\r\na\r\n"
    assert refused(CHUNKED + padded * 400) == 400
    assert [r.body for r in read(CHUNKED + b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n")] == [b"a" * 50_000]
    assert [r.body for r in read(CHUNKED + padded * 100 + b"0\r\n\r\n")] == [b"a" * 100]


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\nHost: h\n\n", b"GET / HTTP/1.1\r\nHost: h\r\nA: \x1b[2J", b"GET / HTTP/1.1\r\nA: b\rC", b"\rGET"]
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_what_can_be_no_head_is_refused_before_its_end(data, size):
    with pytest.raises(Refusal) as caught:
        read(data, size)
    assert caught.value.code == 400


# -- two parsers -------------------------------------------------------------------------------------------------------


def in_h11(data: bytes) -> list[tuple[str, bytes, bytes | None]] | str:
    """Method, target and body (None if it is not whole) of the requests as h11 reads them, or its complaint."""
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    found: list[tuple[str, bytes, bytes | None]] = []
    try:
        other.receive_data(data)
        while isinstance(event := other.next_event(), h11.Request):
            method, target, body = event.method.decode(), event.target, b""
            while isinstance(event := other.next_event(), h11.Data):
                body += bytes(event.data)
            found.append((method, target, body if isinstance(event, h11.EndOfMessage) else None))
            if other.our_state is not h11.SEND_RESPONSE or found[-1][2] is None:
                break
            other.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            other.send(h11.EndOfMessage())
            if other.our_state is not h11.DONE or other.their_state is not h11.DONE:
                break
            other.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return str(error)
    return found


def in_the_library(data: bytes) -> tuple[str, str] | str:
    """Method and target of the first request as `http.server` reads them, or its complaint."""

    class Reader(BaseHTTPRequestHandler):
        def __init__(self) -> None:
            self.rfile, self.wfile = io.BytesIO(data), io.BytesIO()
            self.raw_requestline = self.rfile.readline(65_537)
            self.client_address = ("", 0)
            self.taken = self.parse_request()

        def log_message(self, format: str, *args: object) -> None:
            pass

    found = Reader()
    return (found.command, found.path) if found.taken else "refused"


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("a fragment is cut by some and kept by others", b"GET /a#/b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("browsers and some proxies read a backslash as a slash", b"GET /a\\..\\b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("only OPTIONS is for the whole server", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an address without a host is nobody's, and nobody is no caller from here", b"GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an address with a port alone likewise", b"GET http://:80/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a user before a host is how one host is passed off as another", b"GET http://h@other/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a target is a path or an address", b"GET a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a bare line end ends a line for some", b"GET / HTTP/1.1\nHost: h\n\n"),
        ("a bare line end in a value is two fields for some", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\nC: d\r\n\r\n"),
        ("two hosts in one", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("a host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("equal lengths may be one or an attempt", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
        ("a list of lengths likewise", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\nx"),
        ("the coding wins for some, the length for others", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("HTTP/1.0 has no codings", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a folded line is a new field for some", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c: d\r\n\r\n"),
        ("lone control characters end texts for some", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\x0bc\r\n\r\n"),
        ("which of two is meant", b"GET / HTTP/1.1\r\nHost: h\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n\r\n"),
        ("which of two is meant", b"GET / HTTP/1.1\r\nHost: h\r\nOrigin: http://h\r\nOrigin: null\r\n\r\n"),
        ("which of two is meant", b"GET / HTTP/1.1\r\nHost: h\r\nX-Message-Id: a\r\nX-Message-Id: b\r\n\r\n"),
    ],
)  # fmt: skip
def test_where_we_are_stricter_than_another_parser_and_why(why, data):
    """Each of these is taken by h11 or by `http.server`; a row that both refuse would say nothing."""
    assert refused(data) in (400, 501), why
    assert not isinstance(in_h11(data), str) or not isinstance(in_the_library(data), str), in_h11(data)


def test_where_we_take_what_another_parser_refuses():
    """One empty line before a request: RFC 9112 (2.2) asks servers for it."""
    assert len(read(b"\r\n" + GET)) == 1 and isinstance(in_h11(b"\r\n" + GET), str)


ODD = st.lists(
    st.sampled_from(
        [
            b"GET", b"POST", b"OPTIONS", b" ", b"/", b"*", b"/a?b", b"http://h/p", b"http://", b"#", b"\\", b"%2f", b"%", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/1.2\r\n",
            b"Host: h\r\n", b"Host:\r\n", b"Host: h:x\r\n", b"Content-Length: 3\r\n", b"Content-Length: 03\r\n", b"Content-Length: 3 \r\n", b"Content-Length:\t3\r\n", b"Content-Length: 3,3\r\n",
            b"Content-Length: -3\r\n", b"Content_Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: Chunked \r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
            b"Transfer-Encoding: chunked, chunked\r\n", b"TE: trailers\r\n", b"Connection: close\r\n", b"Connection: Transfer-Encoding\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n",
            b"\r\n", b"\r\n", b"\n", b"\r", b"\0", b"abc", b"3\r\nabc\r\n", b"3;e=\"\r\n\"\r\nabc\r\n", b"3 \r\nabc\r\n", b"0x3\r\nabc\r\n", b"3_\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nT: v\r\n\r\n", b"00\r\n\r\n",
        ]
    ),
    max_size=14,
)  # fmt: skip
STARTS = st.sampled_from([b"", GET, POST, CHUNKED, POST + b"Content-Length: 3\r\n"])


@settings(max_examples=600, deadline=None)
@given(STARTS, ODD, st.integers(1, 40))
@example(CHUNKED, [b"abc", b"abc", b"3\r\nabc\r\n"], 1)
@example(CHUNKED, [b"3 \r\nabc\r\n", b"0\r\n\r\n", b"GET", b" ", b"/", b" HTTP/1.1\r\n", b"Host: h\r\n", b"\r\n"], 1)
def test_smuggling_no_request_that_another_parser_reads_otherwise(start, pieces, size):
    """Ours takes: so does h11, with the same method and body, in the same order. However the bytes come."""
    data = (start + b"".join(pieces)).removeprefix(b"\r\n")
    ours: list[Incoming] = []
    refusal = None
    reader = RequestReader()
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
        with contextlib.suppress(Refusal):
            try:
                while (request := reader.next()) is not None:
                    ours.append(request)
            except Refusal as error:
                refusal = error
                raise
        if refusal is not None or (ours and not ours[-1].head.keep_alive):
            break
    theirs = in_h11(data)
    whole = [] if isinstance(theirs, str) else [r for r in theirs if r[2] is not None]
    taken = [(r.head.method, r.body) for r in ours]
    if (
        taken and taken[-1][1] is None
    ):  # its size alone is too large, and it is the last one; they wait for the rest of it
        method, _ = taken.pop()
        assert isinstance(theirs, str) or theirs[len(taken)][0] == method, theirs
    if isinstance(theirs, str):
        # Their complaint may be about what comes after; what ours took must be a prefix that they take alone.
        assert not taken or _prefix_is_taken(data, taken), (theirs, taken)
    else:
        told = [(method, body) for method, _, body in whole][: len(taken)]
        assert told == taken[: len(told)] and len(told) == min(len(taken), len(theirs)), (theirs, taken)


def _prefix_is_taken(data: bytes, taken: list[tuple[str, bytes | None]]) -> bool:
    """Whether some beginning of the bytes gives h11 these very requests."""
    for end in range(len(data), 0, -1):
        found = in_h11(data[:end])
        if not isinstance(found, str):
            whole = [(method, body) for method, _, body in found if body is not None]
            return whole[: len(taken)] == taken
    return False


# -- connections -------------------------------------------------------------------------------------------------------


def test_who_does_not_read_is_not_read_from_either():
    """What came while an answer waited to be read was once taken in without end."""

    async def scenario() -> None:
        async with site() as made:
            made.front.handler = lambda incoming, peer: Answer(200, b"x" * (8 << 20), [])
            reader, writer = await made.open()
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(GET)
            await seen(lambda: bool(made.front.unread))
            (connection,) = made.front.connections
            for _ in range(400):
                writer.write(GET * 2000)
                await asyncio.sleep(0)
            await seen(lambda: not connection._transport.is_reading())
            assert connection._reader.waiting <= MAX_AHEAD + (256 << 10)
            writer.transport.abort()

    run(scenario)


def test_a_large_request_behind_a_slow_one_is_read_on():
    """Reading that was stopped for a bounded rest must go on when that rest is not a whole request."""

    async def scenario() -> None:
        async with site() as made:
            body = b"b" * 900_000
            reader, writer = await made.open()
            writer.write(GET.replace(b"/x", b"/slow") + POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await seen(lambda: any(not c._transport.is_reading() for c in made.front.connections))
            made.gate.set()
            await reader.readuntil(b"\r\n\r\n-")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200") and await reader.readexactly(len(body)) == body
            writer.close()

    run(scenario)


def test_threat_slow_peer_who_sends_many_at_once_waits_for_the_others(monkeypatch):
    """Two hundred of them once kept a probe waiting for 40 s: each had so many answered in each turn of the loop."""
    clock = FakeClock()
    monkeypatch.setattr(fair_queue, "CLOCK", clock)

    async def scenario() -> None:
        async with site() as made:
            order: list[str] = []

            def handle(incoming: Incoming, peer: str) -> Answer:
                order.append(incoming.head.path)
                clock.sleep(fair_queue.SLICE_SECONDS)  # an answer that takes its time
                return Answer(200, b"-", [])

            made.front.handler = handle
            flood, first = await made.open()
            other, second = await made.open()
            await seen(lambda: len(made.front.connections) == 2)
            first.write(GET * 1000)
            second.write(GET.replace(b"/x", b"/y"))
            await other.readuntil(b"\r\n\r\n-")
            assert order.index("/y") <= 8
            for _ in range(1000):
                await flood.readuntil(b"\r\n\r\n-")
            assert order.count("/x") == 1000
            first.close()
            second.close()

    run(scenario)


def test_threat_slow_peer_many_connections_of_one_deployment_do_not_hold_up_another(monkeypatch):
    """Sixty-four of them once had all that they sent answered first, in every turn of the loop."""
    clock = FakeClock()
    monkeypatch.setattr(fair_queue, "CLOCK", clock)

    async def scenario() -> None:
        async with site() as made:
            order: list[str] = []

            def handle(incoming: Incoming, peer: str) -> Answer:
                order.append(incoming.head.path)
                clock.sleep(fair_queue.SLICE_SECONDS / 4)
                return Answer(200, b"-", [])

            made.front.handler, made.front.lane_of = handle, lambda incoming: incoming.head.path
            flood = [await made.open() for _ in range(64)]
            other, writer = await made.open()
            await seen(lambda: len(made.front.connections) == 65)
            for _ in range(3):  # in the first round nobody knows yet that there are two
                order.clear()
                for _, one in flood:
                    one.write(GET)
                writer.write(GET.replace(b"/x", b"/y"))
                await other.readuntil(b"\r\n\r\n-")
                before = order.index("/y")
                for reader, _ in flood:
                    await reader.readuntil(b"\r\n\r\n-")
                assert order.count("/x") == 64
            assert before <= 2
            for _, one in [*flood, (other, writer)]:
                one.close()

    run(scenario)


def test_a_request_whose_answering_fails_is_answered_in_its_turn_too():
    """In a turn of the queue nobody closed the connection: it was held for good, with no deadline."""

    async def scenario() -> None:
        async with site() as made:
            told: list[str] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))

            def handle(incoming: Incoming, peer: str) -> Answer:
                if incoming.head.path == "/boom":
                    raise ValueError("boom")
                return Answer(200, b"-", [])

            made.front.handler, made.front.lane_of = handle, lambda incoming: "lane"
            boom = GET.replace(b"/x", b"/boom")
            reader, writer = await made.open()
            writer.write(boom + GET + boom + GET)  # at once, and each of the others in a turn of its own
            writer.write_eof()
            codes = re.findall(rb"HTTP/1.1 (\d+)", await reader.read())
            assert codes == [b"500", b"200", b"500", b"200"]
            assert told == ["boom", "boom"] and not made.front.connections

    run(scenario)


def test_what_else_fails_in_a_turn_ends_the_connection():
    async def scenario() -> None:
        async with site() as made:
            told: list[str] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))
            lanes = iter(["lane"])
            made.front.lane_of = lambda incoming: next(lanes) if incoming.head.path == "/x" else "lane"
            reader, writer = await made.open()
            writer.write(GET + GET)
            assert (await reader.read()).count(b"200 OK") == 1 and len(told) == 1 and not made.front.connections

    run(scenario)


def test_threat_slow_peer_who_sends_to_two_deployments_at_once_takes_a_turn_of_each_for_its_own():
    """What came behind a request was answered in the turn of that one's deployment, so two lines could serve one."""

    async def scenario() -> None:
        async with site() as made:
            queue = fair_queue.fair_queue_of(asyncio.get_running_loop())
            granted: list[tuple[str, str]] = []
            lanes: list[str] = []

            def noted(call: Callable[[str, fair_queue.Bit], None]) -> Callable[[str, fair_queue.Bit], None]:
                def noting(lane: str, bit: fair_queue.Bit) -> None:
                    def in_lane() -> bool:
                        lanes.append(lane)
                        try:
                            return bit()
                        finally:
                            lanes.pop()

                    call(lane, in_lane)

                return noting

            def handle(incoming: Incoming, peer: str) -> Answer:
                granted.append((incoming.head.path, lanes[-1]))
                return Answer(200, b"-", [])

            queue.run, queue.later = noted(queue.run), noted(queue.later)  # type: ignore[method-assign]
            made.front.handler, made.front.lane_of = handle, lambda incoming: incoming.head.path
            reader, writer = await made.open()
            writer.write((GET + GET.replace(b"/x", b"/y")) * 4)
            writer.write_eof()
            await reader.read()
            assert len(granted) == 8 and all(path == lane for path, lane in granted)

    run(scenario)


def test_who_leaves_before_its_turn_is_not_answered_and_who_only_stops_sending_is():
    async def scenario() -> None:
        async with site() as made:
            order: list[str] = []

            def handle(incoming: Incoming, peer: str) -> Answer:
                order.append(incoming.head.path)
                return Answer(200, b"-", [])

            made.front.handler, made.front.lane_of = handle, lambda incoming: incoming.head.path
            queue = fair_queue.fair_queue_of(asyncio.get_running_loop())
            (_, first), (stays, second) = await made.open(), await made.open()
            await seen(lambda: len(made.front.connections) == 2)
            queue._long = queue._coming = True  # a turn of the loop that does not come
            first.write(GET)
            second.write(GET.replace(b"/x", b"/y"))
            second.write_eof()
            await seen(lambda: sum(c._waits for c in made.front.connections) == 2)
            reset(first)
            await seen(lambda: len(made.front.connections) == 1)
            queue._coming = False
            queue.took_long()
            assert (await stays.read()).endswith(b"\r\n\r\n-") and order == ["/y"]
            assert not made.front.connections

    run(scenario)


def test_who_stops_sending_gets_the_answers_that_are_due():
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(GET * 1000)
            writer.write_eof()
            assert (await reader.read()).count(b"HTTP/1.1 200") == 1000
            writer.close()

    run(scenario)


def test_a_steady_stream_of_requests_is_never_late(clock):
    """Every head has its own time, also where the end of one comes with the beginning of the next."""

    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(GET[:5])
            for count in range(1, 6):
                await seen(lambda: bool(made.front.half_sent))
                clock.sleep(8)
                made.front._sweep()
                writer.write(GET[5:] + GET[:5])
                await reader.readuntil(b"\r\n\r\n-")
                assert len(made.asked) == count
            clock.sleep(11)
            made.front._sweep()
            assert (await reader.read()).startswith(b"HTTP/1.1 408")
            writer.close()

    run(scenario)


def test_threat_slow_peer_it_is_the_longest_idle_that_makes_room_not_the_oldest():
    async def scenario() -> None:
        async with site(Places(3, 2)) as made:
            old, balancer = await made.open()
            await seen(lambda: len(made.front.connections) == 1)
            silent = [await made.open() for _ in range(2)]
            await seen(lambda: len(made.front.connections) == 3)
            for _ in range(3):
                balancer.write(GET)
                await old.readuntil(b"\r\n\r\n-")
                before = made.front.refused
                silent.append(await made.open())
                await seen(lambda: made.front.refused > before)
            balancer.write(GET)
            assert (await old.readuntil(b"\r\n\r\n-")).startswith(b"HTTP/1.1 200")
            for _, writer in [(old, balancer), *silent]:
                writer.close()

    run(scenario)


def test_threat_slow_peer_who_does_not_read_makes_room_too():
    async def scenario() -> None:
        async with site(Places(4, 2)) as made:
            plain = made.front.handler
            made.front.handler = lambda incoming, peer: Answer(200, b"x" * (8 << 20), [])
            deaf = [await made.open() for _ in range(4)]
            for reader, writer in deaf:
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(GET)
            await seen(lambda: len(made.front.unread) == 4)
            made.front.handler = plain
            assert (await made.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))).startswith(b"HTTP/1.1 200")
            for _, writer in deaf:
                writer.transport.abort()

    run(scenario)


def test_threat_slow_peer_refused_ones_make_room_before_kept_ones():
    async def scenario() -> None:
        async with site(Places(3, 2)) as made:
            kept, writer = await made.open()
            writer.write(GET)
            await kept.readuntil(b"\r\n\r\n-")
            bad = [await made.open() for _ in range(2)]
            for _, other in bad:
                other.write(b"\x16\x03\x01")
            await seen(lambda: len(made.front.refused_ones) == 2)
            await made.open()
            await seen(lambda: len(made.front.refused_ones) == 1)
            writer.write(GET)
            assert (await kept.readuntil(b"\r\n\r\n-")).startswith(b"HTTP/1.1 200")
            for _, other in [*bad, (kept, writer)]:
                other.close()

    run(scenario)


def test_threat_slow_peer_a_reserved_place_never_becomes_a_full_one():
    async def scenario() -> None:
        async with site(Places(2, 3)) as made:
            busy = [await made.open() for _ in range(2)]
            for _, writer in busy:
                writer.write(GET.replace(b"/x", b"/slow"))
            await seen(lambda: made.running == 2)
            crowd = [await made.open() for _ in range(12)]
            await seen(lambda: made.front.refused == 9)
            assert len(made.front.reserved) == 3 and len(made.front.connections) == 5
            for reader, writer in crowd[-3:]:
                writer.write(GET)
                assert (await reader.read()).startswith(b"HTTP/1.1 503")
            assert "/x" not in made.asked and made.cancelled == 0
            for _, writer in [*busy, *crowd]:
                writer.transport.abort()

    run(scenario)


def test_every_connection_that_came_is_forgotten_when_it_goes():
    """Whatever it did: nothing is left in any of the lists."""

    async def scenario() -> None:
        async with site(Places(6, 3)) as made:
            sent = [
                b"",
                b"G",
                GET,
                GET * 40,
                GET.replace(b"/x", b"/slow"),
                b"\0",
                b"\r\n",
                CHUNKED + b"3\r\nab",
                GET + b"GET",
                b"\n",
            ]
            for _ in range(8):
                opened = [await made.open() for _ in sent]
                for (_, writer), data in zip(opened, sent, strict=True):
                    with contextlib.suppress(OSError):
                        writer.write(data)
                await asyncio.sleep(0)
                for index, (_, writer) in enumerate(opened):
                    if index % 2:
                        writer.transport.abort()
                    else:
                        writer.close()
            front = made.front
            await seen(lambda: not front.connections)
            assert not any((front.idle, front.half_sent, front.unread, front.refused_ones, front.reserved))
            assert made.running == made.cancelled

    run(scenario)


@pytest.mark.parametrize(
    "said", [b"", b"Connection: close\r\n", b"Connection: x-keep-alive\r\n", b"Connection: keep-alive, close\r\n"]
)
def test_an_http_1_0_connection_is_for_one_request(said: bytes):
    async def scenario() -> None:
        async with site() as made:
            text = await made.ask(b"GET /x HTTP/1.0\r\n" + said + b"\r\n" + GET)
            assert text.count(b"HTTP/1.1 200") == 1 and b"connection: close" in text and made.asked == ["/x"]
            assert b"keep-alive" not in text

    run(scenario)


def test_an_http_1_0_connection_is_kept_for_who_asks_and_is_told_so():
    async def scenario() -> None:
        async with site() as made:
            asks = b"POST /x HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nab"
            text = await made.ask(asks + asks + GET + b"GET /last HTTP/1.0\r\n\r\n" + GET)
            assert text.count(b"HTTP/1.1 200") == 4 and text.count(b"connection: keep-alive\r\n") == 2
            assert text.count(b"connection: close") == 1 and made.asked[-1] == "/last"

    run(scenario)


def test_who_is_kept_over_http_1_0_is_told_to_go_when_the_worker_ends():
    async def scenario() -> None:
        async with site() as made:
            made.front.draining = True
            text = await made.ask(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"connection: close" in text and b"keep-alive" not in text

    run(scenario)


def test_threat_drain_race_a_body_that_still_comes_is_awaited():
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(POST + b"Content-Length: 4\r\n\r\nab")
            half, other = await made.open()
            other.write(b"GET /")
            await seen(lambda: len(made.front.half_sent) == 2)
            closing = asyncio.ensure_future(made.front.close(20))
            other.write(b"x HTTP/1.1\r\nHost: h\r\n\r\n")  # a head that has begun is awaited as well
            assert (await half.read()).startswith(b"HTTP/1.1 200")
            writer.write(b"cd")
            text = await reader.read()
            assert text.startswith(b"HTTP/1.1 200") and text.endswith(b"abcd") and b"connection: close" in text
            assert await closing == 0
            writer.close()
            other.close()

    run(scenario)


def test_idle_seconds_outlast_what_a_balancer_keeps():
    assert IDLE_SECONDS > 60


# -- who is trusted, and what is kept of strangers ---------------------------------------------------------------------


def local(**fields: bytes) -> dict[bytes, bytes]:
    return {b"host": b"localhost", **{name.replace("_", "-").encode(): value for name, value in fields.items()}}


@pytest.mark.parametrize(
    "fields",
    [
        local(sec_fetch_site=b"cross-site, cross-site"), local(sec_fetch_site=b"CROSS-SITE"), local(sec_fetch_site=b"same-site"), local(sec_fetch_site=b"who knows"),
        local(x_forwarded_port=b"1"), local(x_forwarded_server=b"p"), local(x_forwarded_client_cert=b"c"), local(x_forwarded=b"y"), local(x_original_forwarded_for=b"1.2.3.4"),
        local(x_original_host=b"h"), local(x_envoy_attempt_count=b"1"), local(cf_visitor=b"1"), local(x_client_ip=b"1.2.3.4"), local(cdn_loop=b"x"), local(tailscale_user_login=b"u"),
    ],
)  # fmt: skip
def test_threat_browser_on_loopback_what_is_not_known_to_be_ours_is_not(fields):
    peers = TrustedPeers((), trust_loopback=True)
    assert not peers.trusts("127.0.0.1", fields)
    assert peers.trusts("127.0.0.1", local(sec_fetch_site=b"same-origin")) and peers.trusts("127.0.0.1", local())


def test_what_strangers_send_is_not_kept():
    peers = TrustedPeers((), trust_loopback=True)
    for number in range(5000):
        host = b"%d.example" % number
        assert not peers.trusts("10.0.0.9", {b"host": host})
        assert not peers.trusts("127.0.0.1", {b"host": host + b"x" * (MAX_HEAD // 2)})
        assert not peers.trusts("127.0.0.1", {b"host": host})
    kept = list(peers._known)
    assert len(kept) <= 1024 and sum(len(part) for question in kept for part in question) < 1024 * 512
    assert not any(question[0] == "10.0.0.9" for question in kept)


def test_a_record_commands_no_terminal(tmp_path):
    err = io.StringIO()
    log = OperatorLog(tmp_path, FakeClock(), stderr=err)
    log.error("serve", "GET /\x1b[2J\x9b2J\r\n\x00\x7f\u2028\tend")
    log.close()
    for text in ((tmp_path / "operator.log").read_text(), err.getvalue()):
        assert text.count("\n") == 1 and "\\x1b[2J\\x9b2J" in text and text.endswith("\tend\n")
        assert not any((ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 for c in text)


# -- the door and those who hold it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, ACCEPT_AT_ONCE + 1, 50])
def test_threat_drain_race_who_waits_at_the_door_is_served(count):
    """Closing a listening socket resets who waits there, with the request that was sent already."""

    async def scenario() -> None:
        bound, _ = bind("127.0.0.1", 0, strict=True)
        address = bound.getsockname()
        front = Front(lambda incoming, peer: Answer(200, b"-", []), Places(100, 8), lambda path: False)
        server = await asyncio.get_running_loop().create_server(front.connection, sock=bound, backlog=ACCEPT_AT_ONCE)
        bound.listen(BACKLOG)
        kept = socket.create_connection(address)
        kept.sendall(GET)
        await seen(lambda: bool(front.connections) and next(iter(front.connections))._awaited != "first byte")
        waiting = [kept]  # its second request comes at the last moment
        for _ in range(count):
            waiting.append(socket.create_connection(address))
        for client in waiting:
            client.sendall(GET)
        await _close_door(server, bound, front)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        assert await front.close(20) == 0
        for client in waiting:
            with client:
                answers = b""
                while got := client.recv(4096):
                    answers += got
                assert answers.count(b"HTTP/1.1 200") == (2 if client is kept else 1)

    run(scenario)


@pytest.mark.e2e
def test_nobody_holds_the_address_when_the_first_process_is_killed(tmp_path):
    """The serving processes see that nobody looks after them any more, and drain."""
    (tmp_path / "store").mkdir()
    worker = Worker(tmp_path / "store", tmp_path, GREENTIC_WORKERS="2")
    port = worker.port()
    serving = children(worker.process.pid)
    assert len(serving) == 2
    worker.process.kill()
    worker.ends()
    for pid in serving:
        until(lambda pid=pid: not lives(pid), "the serving processes end with the first")
    again = Worker(tmp_path / "store", tmp_path, GREENTIC_GATEWAY_LISTEN_ADDR=f"127.0.0.1:{port}")
    assert again.port() == port and again.stop() == 0
    assert "the end of the first process" in (worker.out.read_text() + _log(tmp_path / "store"))


def _log(store: Path) -> str:
    return "".join(path.read_text() for path in store.rglob("operator.log"))
