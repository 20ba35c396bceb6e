"""Connections and HTTP/1.1 at the edges of their rules: each limit, each deadline, and how each connection ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import pytest

from greentic.httpd import front as front_module
from greentic.httpd import room as room_module
from greentic.httpd.front import Answer, Connection
from greentic.httpd.http1 import (
    CHUNK_LINES_PER_BYTE,
    MAX_BODY,
    MAX_CHUNK_LINE,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_TARGET,
    Refusal,
    RequestReader,
    allow,
    read_head,
)
from greentic.httpd.room import OTHER_FILES, RESERVED, Held, Places, Room, places
from simulators import FakeClock
from test_front import GET, Site, run, seen, site
from test_http1 import POST, read, refused

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


# -- limits, at their edge and one beyond ---------------------------------------------------------------------------


def test_a_target_may_be_as_long_as_the_limit() -> None:
    start, end = b"GET /", b" HTTP/1.1\r\nHost: h\r\n\r\n"
    longest = start + b"a" * (MAX_TARGET - 1) + end
    for size in (1 << 20, 1, 4096):
        assert len(read(longest, size)[0].head.path) == MAX_TARGET
    assert refused(start + b"a" * MAX_TARGET + end) == 414


def test_no_more_of_a_target_is_kept_than_shows_that_it_is_too_long() -> None:
    assert read(b"GET /" + b"a" * (MAX_TARGET + 32 - 5)) == []
    assert refused(b"GET /" + b"a" * (MAX_TARGET + 32 - 4)) == 414
    assert read(b"GET / HTTP/1.1\r\nA: " + b"x" * (MAX_HEAD - 19)) == []
    assert refused(b"GET / HTTP/1.1\r\nA: " + b"x" * (MAX_HEAD - 18)) == 431


def test_there_may_be_so_many_fields() -> None:
    line = b"GET / HTTP/1.1\r\nHost: h\r\n"
    assert read(line + b"A: b\r\n" * (MAX_FIELDS - 1) + b"\r\n")[0].head.fields[b"a"].count(b"b") == MAX_FIELDS - 1
    assert refused(line + b"A: b\r\n" * MAX_FIELDS + b"\r\n") == 431


@pytest.mark.parametrize("size", [0, 1, MAX_BODY - 1, MAX_BODY])
def test_a_body_may_be_as_large_as_the_limit(size: int) -> None:
    body = b"x" * size
    assert read(POST + b"Content-Length: %d\r\n\r\n" % size + body)[0].body == body
    chunks = b"%x\r\n%b\r\n" % (size, body) if size else b""
    assert read(CHUNKED + chunks + LAST)[0].body == body
    if size > 1:
        halves = b"%x\r\n%b\r\n1\r\ny\r\n" % (size - 1, body[1:])
        assert read(CHUNKED + halves + LAST)[0].body == body[1:] + b"y"


def test_a_body_that_grows_too_large_is_told_and_what_came_of_it_is_let_go() -> None:
    for framing in (
        POST + b"Content-Length: %d\r\n\r\nxyz" % (MAX_BODY + 1),
        CHUNKED + b"1\r\nx\r\n%x\r\nyz" % MAX_BODY,
    ):
        reader = RequestReader()
        reader.feed(framing)
        found = reader.next(7.0)
        assert found is not None and (found.body, found.came) == (None, 7.0)
        assert reader.empty and not reader.in_body and reader.waiting == 0


def test_a_reader_may_take_smaller_bodies_than_others() -> None:
    for size, taken in ((4, True), (5, False)):
        for framing in (POST + b"Content-Length: %d\r\n\r\n" % size, CHUNKED + b"%x\r\n" % size):
            reader = RequestReader(4)
            reader.feed(framing + b"x" * size + b"\r\n" + LAST)
            found = reader.next()
            assert found is not None and (found.body == b"xxxx" if taken else found.body is None)


def test_a_chunk_line_may_be_as_long_as_the_limit() -> None:
    longest = b"1;" + b"x" * (MAX_CHUNK_LINE - 2)
    assert read(CHUNKED + longest + b"\r\na\r\n" + LAST, 100)[0].body == b"a"
    assert read(CHUNKED + longest) == []  # its end may come still
    assert refused(CHUNKED + longest + b"x") == 400
    assert refused(CHUNKED + longest + b"x\r\na\r\n" + LAST) == 400


@pytest.mark.parametrize(("beyond", "taken"), [(0, True), (1, False)])
def test_threat_unbounded_head_all_chunk_lines_together_are_in_proportion_to_the_body(beyond: int, taken: bool) -> None:
    line, count = 202, 168
    left = MAX_HEAD + CHUNK_LINES_PER_BYTE * count - line * count
    assert 2 < left <= MAX_CHUNK_LINE, "the last line makes it up to a byte"
    many = (b"1;" + b"x" * (line - 4) + b"\r\na\r\n") * count
    last = b"1;" + b"x" * (left + beyond - 4) + b"\r\na\r\n"
    if taken:
        reader = RequestReader()
        reader.feed(CHUNKED + many + last)
        assert reader.next() is None and reader.waiting == 0  # all of it was taken
    else:
        assert refused(CHUNKED + many + last) == 400


def test_the_chunk_lines_of_one_body_do_not_count_for_the_next() -> None:
    many = (b"1;" + b"x" * 198 + b"\r\na\r\n") * 168 + LAST
    assert len(read((CHUNKED + many) * 3)) == 3


def test_trailers_may_be_as_large_as_a_head() -> None:
    start = CHUNKED + b"0\r\n"
    trailers = b"A: " + b"x" * (MAX_HEAD - 7) + b"\r\n\r\n"
    assert len(trailers) == MAX_HEAD and read(start + trailers)[0].body == b""
    assert refused(start + b"A: x" + trailers[3:]) == 400
    assert read(start + trailers[:-1]) == [] and refused(start + b"A: " + b"x" * (MAX_HEAD - 2)) == 431
    both = read(start + b"A: b\r\nC: d\r\n\r\n" + POST + b"\r\n", 3)
    assert [(r.body, r.head.method) for r in both] == [(b"", "POST"), (b"", "POST")]


# -- what is read of a head -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type", b"origin", b"expect", b"sec-fetch-site", b"x-message-id", b"idempotency-key", b"x-greentic-any"]
)  # fmt: skip
def test_what_must_stand_once_and_stands_twice_is_refused(name: bytes) -> None:
    with pytest.raises(Refusal, match=f"`{name.decode()}` stands twice") as error:
        read_head(POST + (name + b": 1\r\n") * 2 + b"\r\n")
    assert error.value.code == 400


@pytest.mark.parametrize(
    ("line", "kept"), [(b"", True), (b"Connection: close\r\n", False), (b"Connection: x, Close\r\n", False), (b"Connection: keep-alive\r\n", True)]
)  # fmt: skip
def test_a_connection_is_kept_unless_it_is_said_otherwise(line: bytes, kept: bool) -> None:
    assert read_head(POST + line + b"\r\n").keep_alive is kept
    old = read_head(b"GET / HTTP/1.0\r\n" + line + b"\r\n")
    assert old.keep_alive is old.wants_told is (b"keep-alive" in line)
    assert read_head(POST + line + b"\r\n").wants_told is False


def test_the_parts_of_a_head_are_told() -> None:
    head = read_head(b"PUT /a/%2f%5C%00%41?b=%41?c HTTP/1.1\r\nHost:\th \r\nX:\r\n\r\n")
    assert (head.method, head.path, head.query) == ("PUT", "/a/%2f%5C%00A", b"b=%41?c")
    assert head.fields == {b"host": b"h", b"x": b""} and (head.length, head.chunked) == (0, False)


def test_a_405_says_what_is_taken() -> None:
    with pytest.raises(Refusal) as error:
        read_head(b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert error.value.extra == allow("GET, HEAD, POST, OPTIONS") == [(b"allow", b"GET, HEAD, POST, OPTIONS")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400), (b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", 400), (b"GET http://:80/x HTTP/1.1\r\nHost: h\r\n\r\n", 400), (b"GET http:x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /a\\b HTTP/1.1\r\nHost: h\r\n\r\n", 400), (b"GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400), (b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: h:x\r\n\r\n", 400),
        (POST + b"Content-Length: 1x\r\n\r\n", 400), (POST + b"Content-Length:\r\n\r\n", 400), (POST + b"Content-Length: \xb2\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_what_is_no_target_host_or_length_is_refused(data: bytes, code: int) -> None:
    assert refused(data) == code


def test_who_did_not_wait_or_sends_too_much_is_not_told_to_go_on() -> None:
    for length, body, told in ((1, b"", True), (1, b"x", False), (MAX_BODY, b"", True), (MAX_BODY + 1, b"", False)):
        reader = RequestReader()
        reader.feed(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length + body)
        reader.next()
        assert reader.takes_continue() is told


def test_it_is_told_how_much_of_a_request_is_there() -> None:
    reader = RequestReader()
    assert (reader.empty, reader.in_body, reader.waiting) == (True, False, 0)
    reader.feed(POST + b"Content-Length: 3\r\n\r\nab")
    assert (reader.empty, reader.in_body) == (False, False)
    assert reader.next() is None and (reader.empty, reader.in_body, reader.waiting) == (False, True, 2)
    reader.feed(b"cGET")
    assert reader.next(3.5) is not None and (reader.empty, reader.in_body, reader.waiting) == (False, False, 3)


# -- deadlines ------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()
    for module in (front_module, room_module):
        monkeypatch.setattr(module, "CLOCK", made)
    return made


def only(made: Site) -> Connection:
    (connection,) = made.front.connections
    return cast("Connection", connection)


def left(made: Site, clock: FakeClock) -> float:
    """Seconds until the only connection is over its deadline."""
    return only(made).deadline - clock.monotonic()


def test_each_part_of_a_request_has_a_deadline_of_its_own(clock: FakeClock) -> None:
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            await seen(lambda: bool(made.front.idle))
            assert left(made, clock) == pytest.approx(front_module.FIRST_SECONDS, abs=0.01)
            for data, kind, seconds in (
                (b"POST /x HTTP/1.1\r\n", made.front.half_sent, front_module.HEAD_SECONDS),
                (b"Host: h\r\nContent-Length: 2\r\n\r\na", made.front.half_sent, front_module.BODY_SECONDS),
                (b"b", made.front.idle, front_module.IDLE_SECONDS),
                (b"GET ", made.front.half_sent, front_module.HEAD_SECONDS),
            ):
                awaited = only(made)._awaited
                writer.write(data)
                await seen(lambda awaited=awaited: only(made)._awaited not in (awaited, ""))  # type: ignore[misc]
                assert left(made, clock) == pytest.approx(seconds, abs=0.01) and only(made) in kind
            clock.sleep(5)
            waiting = only(made)._reader.waiting
            writer.write(b"/x")
            await seen(lambda: only(made)._reader.waiting > waiting)
            assert left(made, clock) == pytest.approx(front_module.HEAD_SECONDS - 5, abs=0.01)  # a drip wins no time
            writer.close()

    run(scenario)


def test_a_request_that_runs_has_no_deadline_and_makes_no_room(clock: FakeClock) -> None:
    async def scenario() -> None:
        async with site() as made:
            _, writer = await made.open()
            writer.write(GET.replace(b"/x", b"/slow"))
            await seen(lambda: made.running == 1)
            clock.sleep(3600)
            made.front._sweep()
            assert only(made).deadline == float("inf") and only(made).awaits_answer
            assert not any((made.front.idle, made.front.half_sent, made.front.unread, made.front.refused_ones))
            writer.close()

    run(scenario)


def test_who_does_not_read_an_answer_is_not_waited_for_as_for_the_next_request(clock: FakeClock) -> None:
    async def scenario() -> None:
        async with site() as made:
            made.front.handler = lambda incoming, peer: Answer(200, b"x" * (32 << 20), [])
            _, writer = await made.open()
            writer.write(GET)
            await seen(lambda: any(cast("Connection", one)._paused for one in made.front.connections))
            await asyncio.sleep(0)
            assert only(made) in made.front.unread and not made.front.idle
            assert left(made, clock) == pytest.approx(front_module.READ_SECONDS, abs=0.01)
            writer.transport.abort()
            await seen(lambda: not made.front.connections)

    run(scenario)


@pytest.mark.parametrize("why", ["reserved", "closing"])
def test_who_comes_late_has_a_moment_only(clock: FakeClock, why: str) -> None:
    async def scenario() -> None:
        async with site(Places(0, 2) if why == "reserved" else None) as made:
            if why == "closing":
                made.front._gone = asyncio.Event()
            _, writer = await made.open()
            await seen(lambda: bool(made.front.connections))
            assert left(made, clock) == pytest.approx(front_module.LINGER_SECONDS, abs=0.01)
            writer.close()

    run(scenario)


def test_the_sweep_goes_on_and_ends_those_alone_that_are_over_their_deadline(clock: FakeClock) -> None:
    class Connected:
        def __init__(self, deadline: float) -> None:
            self.deadline, self.expired = deadline, 0

        def expire(self) -> None:
            self.expired += 1

    async def scenario() -> None:
        room = Room(Places(4, 1))
        over, within = Connected(clock.monotonic()), Connected(clock.monotonic() + 60)
        room.connections = {cast("Held", over): None, cast("Held", within): None}
        room.start()
        first = room._sweeper
        room._sweep()
        assert (over.expired, within.expired) == (1, 0)
        assert room._sweeper is not first and room._sweeper is not None
        for handle in (first, room._sweeper):
            assert handle is not None
            handle.cancel()

    run(scenario)


# -- how a connection ends ------------------------------------------------------------------------------------------


def test_an_answer_to_what_was_not_read_whole_can_be_read_before_the_end(clock: FakeClock) -> None:
    """With bytes that nobody read, a closed connection would be broken and the answer lost (rule 3)."""

    async def scenario() -> None:
        async with site() as made:
            for sent in (GET.replace(b"Host", b"Connection: close\r\nHost") + b"more", b"nonsense\r\n\r\n"):
                reader, writer = await made.open()
                writer.write(sent)
                answer = await reader.read()  # it is said that no more comes
                assert answer.startswith(b"HTTP/1.1 ") and b"connection: close" in answer
                assert only(made) in made.front.refused_ones
                assert left(made, clock) == pytest.approx(front_module.LINGER_SECONDS, abs=0.01)
                asked = list(made.asked)
                writer.write(GET)  # thrown away
                writer.write_eof()
                await seen(lambda: not made.front.connections)
                assert made.asked == asked
                writer.close()

    run(scenario)


def test_what_was_asked_for_to_be_the_last_ends_at_once() -> None:
    async def scenario() -> None:
        async with site() as made:
            assert (await made.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))).endswith(b"-")
            await seen(lambda: not made.front.connections)
            assert not made.front.refused_ones

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "begins"),
    [(b"", b""), (GET, b"HTTP/1.1 200"), (GET[:20], b"HTTP/1.1 400"), (GET + GET[:20], b"HTTP/1.1 200")],
)
def test_who_sends_no_more_gets_what_it_asked_for(sent: bytes, begins: bytes) -> None:
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(sent)
            writer.write_eof()
            answers = await reader.read()
            assert answers.startswith(begins) and answers.count(b"HTTP/1.1") == (
                2 if len(sent) > len(GET) else bool(sent)
            )
            assert not sent.startswith(GET) or len(sent) == len(GET) or b"HTTP/1.1 400" in answers
            await seen(lambda: not made.front.connections)
            writer.close()

    run(scenario)


def test_who_leaves_while_its_request_runs_has_it_given_up() -> None:
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(GET.replace(b"/x", b"/slow"))
            await seen(lambda: made.running == 1)
            writer.write_eof()
            await seen(lambda: made.cancelled == 1 and not made.front.connections)
            writer.close()

    run(scenario)


def test_an_answer_without_a_body_has_none_however_large_it_was() -> None:
    large = b"x" * (front_module.LARGE + 1)

    async def scenario() -> None:
        async with site() as made:
            made.front.handler = lambda incoming, peer: Answer(204, large, [])
            answer = await made.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))
            assert answer.startswith(b"HTTP/1.1 204") and answer.endswith(b"\r\n\r\n") and b"x" * 9 not in answer

    run(scenario)


@pytest.mark.parametrize("later", [False, True])
def test_a_request_whose_answering_fails_is_a_500_and_told(later: bool) -> None:
    async def failing() -> Answer:
        raise RuntimeError("odd")

    def handler(incoming: object, peer: str) -> Answer:
        if later:
            return cast("Answer", failing())
        raise RuntimeError("odd")

    async def scenario() -> None:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, what: told.append(f"{what['message']}: {what['exception']}")
        )
        async with site() as made:
            made.front.handler = handler
            reader, writer = await made.open()
            for _ in range(2):  # the connection goes on
                writer.write(GET)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 500")
                await reader.readexactly(len(front_module._failed(RuntimeError()).body))
            writer.close()
        assert told.count("a request could not be answered: odd") == 2

    run(scenario)


def test_a_refused_head_is_told_without_a_body_for_it() -> None:
    async def scenario() -> None:
        async with site(Places(0, 2)) as made:
            answer = await made.ask(GET.replace(b"GET", b"HEAD"))
            assert answer.startswith(b"HTTP/1.1 503") and answer.endswith(b"\r\n\r\n")
            assert not (await made.ask(GET)).endswith(b"\r\n\r\n") and not made.asked

    run(scenario)


def test_who_waits_to_be_told_to_go_on_is_told() -> None:
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ok")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            writer.close()

    run(scenario)


# -- one at a time --------------------------------------------------------------------------------------------------


def test_while_a_request_runs_a_bounded_rest_is_taken_in_each_time() -> None:
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            for round_ in range(2):
                made.gate.clear()
                writer.write(GET.replace(b"/x", b"/slow"))
                await seen(lambda: made.running == round_ + 1)
                connection = only(made)
                transport = connection._transport
                assert transport is not None and transport.is_reading()
                body = b"x" * (12 * front_module.MAX_AHEAD)
                writer.write(b"POST /y HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await seen(lambda: not transport.is_reading())
                assert front_module.MAX_AHEAD < connection._reader.waiting < len(body)
                made.gate.set()
                await reader.readuntil(b"\r\n\r\n-")
                assert (await reader.readuntil(body)).startswith(b"HTTP/1.1 200")
                await seen(lambda: transport.is_reading())
            assert made.asked == ["/slow", "/y"] * 2
            writer.close()

    run(scenario)


def test_no_more_than_the_rest_may_be_is_reason_to_stop_reading() -> None:
    async def scenario() -> None:
        async with site() as made:
            _, writer = await made.open()
            writer.write(GET.replace(b"/x", b"/slow"))
            await seen(lambda: made.running == 1)
            writer.write(b"x" * front_module.MAX_AHEAD)
            await seen(lambda: only(made)._reader.waiting == front_module.MAX_AHEAD)
            transport = only(made)._transport
            assert transport is not None and transport.is_reading()
            writer.write(b"x")
            await seen(lambda: not transport.is_reading())
            writer.close()

    run(scenario)


def test_a_request_that_came_is_answered_before_its_idle_connection_is_closed() -> None:
    async def scenario() -> None:
        async with site() as made:
            reader, writer = await made.open()
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n-")
            transport = only(made)._transport
            assert transport is not None
            transport.pause_reading()  # as if the loop had not come to it
            writer.write(GET)
            asyncio.get_running_loop().call_soon(transport.resume_reading)
            assert await made.front.close(20) == 0
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()

    run(scenario)


# -- who makes room -------------------------------------------------------------------------------------------------


class Stands:
    """A connection that only counts."""

    deadline = 0.0
    awaits_answer = False

    def __init__(self) -> None:
        self.aborted = self.finished = 0
        self.kind: dict[Held, None] | None = None

    def stand(self, kind: dict[Held, None] | None) -> None:
        if self.kind is not None:
            self.kind.pop(self, None)
        self.kind = kind
        if kind is not None:
            kind[self] = None

    def expire(self) -> None:
        """Never over its deadline."""

    def finish(self) -> None:
        self.finished += 1

    def abort(self) -> None:
        self.aborted += 1


KINDS: list[Callable[[Room], dict[Held, None]]] = [
    lambda room: room.refused_ones, lambda room: room.idle, lambda room: room.half_sent, lambda room: room.unread,
]  # fmt: skip


def test_room_is_made_in_the_order_of_how_little_is_lost() -> None:
    room, standing = Room(Places(8, 1)), list[Stands]()
    for kind in (*reversed(KINDS), *KINDS):
        one = Stands()
        assert room.admit(one)
        one.stand(kind(room))
        standing.append(one)
    first, second = standing[3::-1], standing[4:]
    expected = [one for pair in zip(first, second, strict=True) for one in pair]
    for number, gone in enumerate(expected, 1):
        assert room.admit(Stands()) and gone.aborted == 1 and gone not in room.connections
        assert room.refused == number and sum(one.aborted for one in standing) == number
    assert not room.admit(late := Stands()) and late in room.reserved and room.refused == 8
    newest = Stands()
    assert not room.admit(newest) and late.aborted == 1 and list(room.reserved) == [newest]
    assert len(room.connections) == 9
    room.leave(next(iter(room.connections)))
    assert room.admit(Stands()) and newest in room.reserved  # a reserved place never becomes a full one


def test_without_any_reserved_place_the_newcomer_goes() -> None:
    room = Room(Places(0, 0))
    new = Stands()
    assert not room.admit(new) and new.aborted == 1 and room.refused == 1


@pytest.mark.parametrize(
    ("wanted", "files", "expected"),
    [
        (4096, 1 << 20, Places(4096, RESERVED)), (4096, 1024, Places(1024 - OTHER_FILES - RESERVED, RESERVED)), (4096, 128, Places(60, 20)), (4096, 60, Places(9, 3)),
        (4096, 0, Places(6, 2)), (1, 1024, Places(4, RESERVED)), (100, 1024, Places(100, RESERVED)),
    ],
)  # fmt: skip
def test_so_many_places_are_there_for_so_many_files(wanted: int, files: int, expected: Places) -> None:
    assert places(wanted, files) == expected


def test_stopping_ends_what_is_idle_waits_for_the_rest_and_cuts_what_is_left() -> None:
    async def scenario() -> None:
        room = Room(Places(4, 1))
        idle, busy = Stands(), Stands()
        busy.awaits_answer = True
        for one in (idle, busy):
            room.admit(one)
        room.start()
        assert not room.closing and not room.draining
        assert await room.close(0.01) == 2
        assert (idle.finished, busy.finished) == (1, 0) and idle.aborted == busy.aborted == 1
        assert room.closing and room.draining and room._sweeper is not None and room._sweeper.cancelled()
        other = Room(Places(4, 1))
        last = Stands()
        last.awaits_answer = True
        other.admit(last)
        closing = asyncio.ensure_future(other.close(20))
        await seen(lambda: other.closing)
        other.leave(last)
        assert await closing == 0 and not last.aborted
        assert await Room(Places(1, 1)).close(20) == 0

    run(scenario)


def test_a_peer_without_an_address_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with site() as made:
            peers: list[str] = []

            def handler(incoming: object, peer: str) -> Answer:
                peers.append(peer)
                return Answer(200, b"-", [])

            made.front.handler = handler
            ours, theirs = socket.socketpair()
            await asyncio.get_running_loop().connect_accepted_socket(made.front.connection, ours)
            reader, writer = await asyncio.open_connection(sock=theirs)
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n-")
            await made.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))
            assert peers == ["", "127.0.0.1"]
            writer.close()

    run(scenario)
