"""Connections against a real socket: deadlines, counts, order, and how they end. Time is the test's, not the machine's."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from greentic.ground.fair_queue import fair_queue_of
from greentic.httpd import front as front_module
from greentic.httpd import room as room_module
from greentic.httpd.front import Answer, Front
from greentic.httpd.http1 import MAX_BODY, Incoming
from greentic.httpd.room import Places, places
from greentic.ingress.trusted_peer import TrustedPeers
from simulators import FakeClock

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


class Site:
    """A front with a handler that the test steers."""

    def __init__(self, limit: Places) -> None:
        self.gate = asyncio.Event()
        self.asked: list[str] = []
        self.came: list[float] = []
        self.cancelled = self.running = 0
        self.front = Front(self.handle, limit, lambda path: path == "/livez")
        self.address = ("", 0)

    def handle(self, incoming: Incoming, peer: str) -> Answer | Awaitable[Answer]:
        self.asked.append(incoming.head.path)
        self.came.append(incoming.came)
        answer = Answer(200 if incoming.body is not None else 413, incoming.body or b"-", [])
        return self.later(answer) if incoming.head.path == "/slow" else answer

    async def later(self, answer: Answer) -> Answer:
        self.running += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return answer

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def ask(self, data: bytes) -> bytes:
        """What a connection of its own answers to some bytes, until it is closed."""
        reader, writer = await self.open()
        writer.write(data)
        return await reader.read()


@asynccontextmanager
async def site(limit: Places | None = None) -> AsyncIterator[Site]:
    made = Site(limit or Places(100, 8))
    server = await asyncio.get_running_loop().create_server(made.front.connection, "127.0.0.1", 0)
    made.address = server.sockets[0].getsockname()
    try:
        yield made
    finally:
        server.close()
        await made.front.close(0)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection at once, unlike an end of sending."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    made = FakeClock()
    for module in (front_module, room_module):
        monkeypatch.setattr(module, "CLOCK", made)
    return made


async def seen(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_a_kept_connection_is_answered_in_order():
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(GET.replace(b"/x", b"/slow") + GET + GET.replace(b"Host", b"Connection: close\r\nHost"))
            await seen(lambda: made.asked == ["/slow"])
            made.gate.set()
            answers = await reader.read()
            assert answers.count(b"HTTP/1.1 200 OK") == 3 and answers.count(b"connection: close") == 1
            assert made.asked == ["/slow", "/x", "/x"]
            writer.close()

    run(scenario)


def test_a_large_answer_is_whole_and_the_next_one_follows_it():
    async def scenario() -> None:
        body = b"x" * (front_module.LARGE + 7)
        async with site() as made:
            posted = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            asked = posted + posted.replace(b"POST", b"HEAD") + GET.replace(b"Host", b"Connection: close\r\nHost")
            large, head, last = (await made.ask(asked)).split(b"HTTP/1.1 200 OK\r\n")[1:]
            assert large.endswith(b"\r\n\r\n" + body) and b"content-length: %d\r\n" % len(body) in large
            assert b"content-length: %d\r\n" % len(body) in head and head.endswith(b"\r\n\r\n")
            assert last.endswith(b"connection: close\r\n\r\n-")

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "what"),
    [(b"GET /x HT", b"head"), (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", b"body")],
)
def test_threat_slow_peer_what_does_not_come_in_time_is_a_408(clock, sent, what):
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(sent)
            await seen(lambda: bool(made.front.half_sent))
            clock.sleep(9)
            made.front._sweep()
            assert made.front.connections
            clock.sleep(40)
            made.front._sweep()
            text = await reader.read()
            assert text.startswith(b"HTTP/1.1 408") and b"the request's " + what in text and not made.asked
            writer.close()

    run(scenario)


def test_threat_slow_peer_silence_ends_a_connection_but_not_before_a_balancer_does(clock):
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            clock.sleep(65)
            made.front._sweep()
            assert made.front.connections
            clock.sleep(15)
            made.front._sweep()
            assert (await reader.read()).endswith(b"-")  # the rest of the answer, then the end
            silent, other = await made.open()
            await seen(lambda: bool(made.front.connections))
            clock.sleep(16)
            made.front._sweep()
            assert await silent.read() == b""
            writer.close()
            other.close()

    run(scenario)


def test_threat_slow_peer_probes_are_answered_when_places_run_out():
    async def scenario() -> None:
        async with site(Places(4, 4)) as made:
            busy = [await made.open() for _ in range(4)]
            for _, writer in busy:
                writer.write(GET.replace(b"/x", b"/slow"))
            await seen(lambda: made.asked.count("/slow") == 4)
            assert (await made.ask(GET.replace(b"/x", b"/livez"))).startswith(b"HTTP/1.1 200")
            assert (await made.ask(GET)).startswith(b"HTTP/1.1 503")
            assert made.asked.count("/x") == 0
            made.gate.set()
            for reader, writer in busy:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                writer.close()

    run(scenario)


def test_threat_slow_peer_idle_connections_make_room_oldest_first():
    async def scenario() -> None:
        async with site(Places(3, 2)) as made:
            idle = [await made.open() for _ in range(3)]
            await seen(lambda: len(made.front.connections) == 3)
            assert (await made.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))).startswith(b"HTTP/1.1 200")
            with pytest.raises(ConnectionError):
                if await idle[0][0].read() == b"":
                    raise ConnectionResetError
            idle[1][1].write(GET)
            assert (await idle[1][0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            half, writer = await made.open()
            writer.write(b"GET /")
            await seen(lambda: made.front.refused >= 1)
            for _, other in [*idle, (half, writer)]:
                other.close()

    run(scenario)


def test_threat_slow_peer_who_does_not_read_is_cut(clock):
    async def scenario() -> None:
        async with site() as made:
            big = b"x" * 4096
            made.front.handler = lambda incoming, peer: Answer(200, big * 1024, [])
            reader, writer = await made.open()
            writer.write(GET * 40)
            await seen(lambda: bool(made.front.unread))
            clock.sleep(31)
            made.front._sweep()
            await seen(lambda: not made.front.connections)
            writer.close()

    run(scenario)


def test_a_caller_who_leaves_gives_its_request_up():
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(GET.replace(b"/x", b"/slow"))
            await seen(lambda: made.running == 1)
            writer.transport.abort()
            await seen(lambda: made.cancelled == 1)
            assert not made.front.connections

    run(scenario)


def test_a_body_that_ends_before_it_is_whole_is_a_400():
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
            writer.write_eof()
            assert (await reader.read()).startswith(b"HTTP/1.1 400") and not made.asked
            writer.close()

    run(scenario)


def test_too_large_a_body_is_answered_while_it_still_comes():
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1) + b"x" * 70_000)
            text = await reader.readuntil(b"\r\n\r\n")
            assert text.startswith(b"HTTP/1.1 413") and b"connection: close" in text
            writer.close()

    run(scenario)


def test_threat_drain_race_stopping_lets_running_requests_end_and_says_close():
    async def scenario() -> None:
        async with site() as made:
            slow, busy = await made.open()
            busy.write(GET.replace(b"/x", b"/slow"))
            kept, idle = await made.open()
            idle.write(GET)
            await kept.readuntil(b"\r\n\r\n-")
            await seen(lambda: "/slow" in made.asked)
            closing = asyncio.ensure_future(made.front.close(20))
            assert await kept.read() == b""  # an idle one is closed at once
            made.gate.set()
            text = await slow.read()
            assert text.startswith(b"HTTP/1.1 200") and b"connection: close" in text
            assert await closing == 0
            busy.close()
            idle.close()

    run(scenario)


def test_threat_drain_race_what_is_on_its_way_when_it_stops_is_answered():
    async def scenario() -> None:
        async with site() as made:
            kept, late = await made.open()
            late.write(GET)
            await kept.readuntil(b"\r\n\r\n-")
            fresh, new = await made.open()
            half, slow = await made.open()
            slow.write(GET[:20])
            await seen(
                lambda: len(made.front.connections) == 3 and any(not c._reader.empty for c in made.front.connections)
            )
            late.write(GET)
            closing = asyncio.ensure_future(made.front.close(20))  # the loop has not read it yet
            new.write(GET)
            slow.write(GET[20:])
            for reader in (kept, fresh, half):
                text = await reader.read()
                assert text.startswith(b"HTTP/1.1 200") and b"connection: close" in text
            assert await closing == 0
            for writer in (late, new, slow):
                writer.close()

    run(scenario)


def test_a_request_that_does_not_end_is_cut_after_its_time():
    async def scenario() -> None:
        async with site() as made:
            _, writer = await made.open()
            writer.write(GET.replace(b"/x", b"/slow"))
            await seen(lambda: made.running == 1)
            assert await made.front.close(0.01) == 1
            await seen(lambda: made.cancelled == 1)
            writer.close()

    run(scenario)


@pytest.mark.parametrize(("wanted", "files"), [(4096, 1 << 20), (4096, 1024), (4096, 128), (4096, 60), (1, 1024)])
def test_there_are_fewer_places_than_files(wanted, files):
    found = places(wanted, files)
    assert (
        4 <= found.full <= max(wanted, 4)
        and found.reserved >= 2
        and (found.full + found.reserved < files or files < 64)
    )


# -- who is trusted ---------------------------------------------------------------------------------------------------

OURS = TrustedPeers(("10.0.0.5", "bot.example"), trust_loopback=True)


@pytest.mark.parametrize(
    ("peer", "fields", "trusted"),
    [
        ("127.0.0.1", {b"host": b"127.0.0.1:8080"}, True), ("127.0.0.9", {b"host": b"localhost"}, True), ("::1", {b"host": b"[::1]:8080"}, True),
        ("::ffff:127.0.0.1", {b"host": b"LOCALHOST:1"}, True), ("127.0.0.1", {}, True), ("127.0.0.1", {b"host": b"bot.example"}, True),
        ("127.0.0.1", {b"host": b"localhost", b"origin": b"http://localhost:3000"}, True), ("127.0.0.1", {b"host": b"localhost", b"sec-fetch-site": b"same-origin"}, True),
        ("10.0.0.9", {b"host": b"localhost"}, False), ("127.0.0.1", {b"host": b"evil.example"}, False), ("127.0.0.1", {b"host": b"127.evil.example"}, False),
        ("127.0.0.1", {b"host": b"localhost.evil.example"}, False), ("127.0.0.1", {b"host": b"localhost:evil"}, False),
        ("127.0.0.1", {b"host": b"localhost", b"origin": b"https://evil.example"}, False), ("127.0.0.1", {b"host": b"localhost", b"origin": b"null"}, False),
        ("127.0.0.1", {b"host": b"localhost", b"origin": b"http://localhost@evil.example"}, False), ("127.0.0.1", {b"host": b"localhost", b"sec-fetch-site": b"cross-site"}, False),
        ("127.0.0.1", {b"host": b"localhost", b"origin": b"http://[::1]:3000"}, True), ("127.0.0.1", {b"host": b"localhost", b"origin": b"http://[::1].evil.example"}, False),
        ("127.0.0.1", {b"host": b"localhost", b"origin": b"http://[::1]:80.evil.example"}, False),
        ("127.0.0.1", {b"host": b"localhost", b"forwarded": b"for=1.2.3.4"}, False), ("127.0.0.1", {b"host": b"localhost", b"x-forwarded-for": b"127.0.0.1"}, False),
        ("127.0.0.1", {b"host": b"localhost", b"cf-ray": b"1"}, False), ("", {b"host": b"localhost"}, False),
    ],
)  # fmt: skip
def test_threat_browser_on_loopback_is_nobody_special(peer, fields, trusted):
    assert OURS.trusts(peer, fields) is trusted
    assert OURS.trusts(peer, fields) is trusted  # the same the second time
    assert not TrustedPeers((), trust_loopback=False).trusts(peer, fields)


def test_the_date_is_that_of_the_second_in_which_it_is_asked_for(monkeypatch):
    front = Front(lambda *_: Answer(200, b"", []), Places(1, 1), lambda _: False)
    for second in (1, 1, 2):
        monkeypatch.setattr(front_module, "unix_seconds", lambda told=second: told)
        assert front.date() == front_module.http_date(second)


def test_a_request_without_a_lane_waits_for_nobody():
    async def scenario() -> None:
        async with site() as made:
            queue = fair_queue_of(asyncio.get_running_loop())
            queue._long = queue._coming = True  # a turn of the loop that does not come
            made.front.lane_of = lambda incoming: None if incoming.head.path == "/livez" else "bot"
            probe, first = await made.open()
            turn, second = await made.open()
            second.write(GET)
            await seen(lambda: sum(c._waits for c in made.front.connections) == 1)
            first.write(GET.replace(b"/x", b"/livez"))
            assert (await probe.readuntil(b"\r\n\r\n-")).startswith(b"HTTP/1.1 200") and made.asked == ["/livez"]
            queue._coming = False
            queue.took_long()
            await turn.readuntil(b"\r\n\r\n-")
            for writer in (first, second):
                writer.close()

    run(scenario)


def test_a_request_that_is_let_on_is_its_lanes_one_of_this_turn_and_one_that_nobody_awaits_is_none():
    async def scenario() -> None:
        async with site() as made:
            queue = fair_queue_of(asyncio.get_running_loop())
            queue._long = queue._coming = True  # turns of the loop come when we say so
            queue._shared_until = float("inf")
            made.front.lane_of = lambda incoming: "bot"
            opened = [await made.open() for _ in range(4)]
            for count, (_, writer) in enumerate(opened, 1):
                writer.write(GET)
                await seen(lambda count=count: sum(c._waits for c in made.front.connections) == count)
            next(iter(made.front.connections)).abort()
            for waiting in (3, 2, 1):
                assert sum(c._waits for c in made.front.connections if not c._ending) == waiting
                queue._long, queue._coming = False, True
                queue._next()
                queue._coming = True
            assert not any(c._waits for c in made.front.connections)
            for _, writer in opened:
                writer.close()

    run(scenario)


def test_a_request_tells_when_it_came_and_not_when_it_had_its_turn(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(front_module, "CLOCK", clock)

    async def scenario() -> None:
        async with site() as made:
            queue = fair_queue_of(asyncio.get_running_loop())
            queue._long = queue._coming = True
            made.front.lane_of = lambda incoming: "bot"
            reader, writer = await made.open()
            writer.write(GET)
            await seen(lambda: any(c._waits for c in made.front.connections))
            clock.sleep(5)
            queue._coming = False
            queue.took_long()
            await reader.readuntil(b"\r\n\r\n-")
            assert len(made.came) == 1 and clock.monotonic() - made.came[0] > 5
            writer.close()

    run(scenario)


def test_what_runs_for_a_connection_that_breaks_is_given_up():
    async def scenario() -> None:
        async with site() as made:
            _, writer = await made.open()
            writer.write(GET.replace(b"/x", b"/slow"))
            await seen(lambda: made.running == 1)
            reset(writer)
            await seen(lambda: made.cancelled == 1)
            assert not made.front.connections

    run(scenario)


def test_who_reads_again_gets_what_it_asked_for_meanwhile():
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n-")
            (connection,) = made.front.connections
            connection.pause_writing()
            writer.write(GET)
            await seen(lambda: not connection._reader.empty)
            assert made.asked == ["/x"]
            connection.resume_writing()
            await reader.readuntil(b"\r\n\r\n-")
            assert made.asked == ["/x"] * 2
            writer.close()

    run(scenario)
