"""HTTP/1.1 by its rules: what is read whole, what is refused, and where another parser reads the same bytes differently."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greentic.httpd.http1 import (
    MAX_BODY,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_TARGET,
    Incoming,
    Refusal,
    RequestReader,
    answer_bytes,
    read_head,
)


def read(data: bytes, size: int = 1 << 30) -> list[Incoming]:
    """The requests in some bytes that come in pieces of one size."""
    reader, found = RequestReader(), []
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
        while (request := reader.next()) is not None:
            found.append(request)
    return found


def refused(data: bytes) -> int:
    with pytest.raises(Refusal) as caught:
        read(data)
    return caught.value.code


POST = b"POST /a HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096])
def test_requests_are_cut_the_same_however_they_come(size):
    first = POST + b"Content-Length: 5\r\n\r\nhello"
    second = POST + b"Transfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n"
    third = b"GET /b?q HTTP/1.0\r\n\r\n"
    found = read(first + second + b"\r\n" + third, size)
    assert [r.body for r in found] == [b"hello", b"abcde", b""]
    assert [(r.head.path, r.head.keep_alive) for r in found] == [("/a", True), ("/a", True), ("/b", False)]


@pytest.mark.parametrize("offer", [b"h2c", b"TLS/1.0", b"websocket", b"unknown"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
)
def test_threat_body_lost_an_upgrade_that_nobody_speaks_loses_nothing(offer, framing):
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    assert [r.body for r in read(head + framing, 5)] == [b"{}"]


def test_threat_body_lost_a_body_that_is_not_whole_is_no_request():
    assert read(POST + b"Content-Length: 5\r\n\r\nhell") == []
    assert read(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n") == []  # its last chunk did not come


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (POST + b"Host: other\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n\r\n", 400), (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400), (POST + b"Content-Length: +1\r\n\r\nx", 400),
        (POST + b"Content-Length: 1, 1\r\n\r\nx", 400), (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501), (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400), (POST + b"Transfer-Encoding : chunked\r\n\r\n", 400),
        (POST + b" folded: x\r\n\r\n", 400), (POST + b"A: b\r\n c\r\n\r\n", 400), (POST + b"A: b\nC: d\r\n\r\n", 400), (POST + b"A: b\rC: d\r\n\r\n", 400),
        (POST + b"A: \0\r\n\r\n", 400), (POST + b"A\r\n\r\n", 400), (POST + b": x\r\n\r\n", 400), (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505), (b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505), (b"GET / HTTP/1.1x\r\nHost: h\r\n\r\n", 400), (b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400), (b"get / http/1.1\r\nHost: h\r\n\r\n", 400),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", 405), (b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400), (b"GET h HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        (POST + b"Authorization: a\r\nauthorization: b\r\n\r\n", 400), (POST + b"X-Greentic-User: a\r\nx-greentic-user: b\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nz\r\n", 400), (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400), (POST + b"Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n" + b"x" * 300, 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n", 400), (b"\x16\x03\x01\x02\x00", 400), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)  # fmt: skip
def test_what_two_parsers_could_read_differently_is_refused(data, code):
    assert refused(data) == code


def test_threat_unbounded_head_is_refused_before_it_is_there():
    assert refused(b"GET /" + b"a" * (MAX_TARGET + 64)) == 414
    assert refused(b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"a" * MAX_HEAD) == 431
    assert refused(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n") == 431
    assert refused(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: v\r\n" * 8000) == 431
    assert refused(POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 400) == 400


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_BODY + 1)],
)
def test_too_large_a_body_is_told_before_it_comes(framing):
    (request,) = read(POST + framing)
    assert request.body is None


def test_repeated_fields_are_joined_as_lists_and_cookies_are():
    (request,) = read(POST + b"Cookie: a=1\r\nAccept: x\r\ncookie: b=2\r\naccept: y\r\n\r\n")
    assert request.head.fields[b"cookie"] == b"a=1; b=2" and request.head.fields[b"accept"] == b"x, y"


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"/a%20b?x=%2f", "/a b", b"h"), (b"/workers%2Finvoke", "/workers%2Finvoke", b"h"), (b"/%C3%A9", "/é", b"h"), (b"/%ff", "/\ufffd", b"h"), (b"/a%00b", "/a%00b", b"h"),
        (b"http://other:8/p?q", "/p", b"other:8"), (b"HTTPS://[::1]", "/", b"[::1]"), (b"http://other?q/x", "/", b"other"), (b"*", "*", b"h"), (b"/%", "/%", b"h"), (b"/a?\\", "/a", b"h"),
    ],
)  # fmt: skip
def test_targets(target, path, host):
    (request,) = read(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (request.head.path, request.head.fields[b"host"]) == (path, host)


def test_who_waits_for_a_word_to_go_on_gets_it_once():
    reader = RequestReader()
    reader.feed(POST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.next() is None and reader.takes_continue() and not reader.takes_continue()
    reader.feed(b"ok")
    assert (found := reader.next()) is not None and found.body == b"ok"
    reader.feed(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok")  # did not wait
    assert reader.next() is not None and not reader.takes_continue()


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_give_requests_or_a_refusal(data, size):
    try:
        read(b"POST / HTTP/1.1\r\nHost: h\r\n" + data, size)
        read(data, size)
    except Refusal as refusal:
        assert refusal.code in (400, 405, 414, 431, 501, 505) and refusal.text
        assert bool(refusal.extra) == (refusal.code == 405)


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"POST /x HTTP/1.0\r\n", b"Host: h\r\n", b"host: h\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Cookie: a=1\r\n", b"X: \t y \r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"\r\n", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n",
        b"\n", b"\r", b" ", b":", b"\0", b"\xff", b"Upgrade: h2c\r\n", b"a" * 40,
    ]
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=12))
@example([b"\r\n", b"\r\n", b"POST /x HTTP/1.0\r\n", b"\r\n"])
@example([b"POST /x HTTP/1.1\r\n", b"Host: h\r\n", b"\r\n", b"\r\n", b"POST /x HTTP/1.1\r\n", b"Host: h\r\n", b"\r\n"])
def test_what_is_taken_another_parser_takes_the_same(pieces):
    """Ours may refuse more than h11 does. What ours takes, h11 reads as the same method, length and body; but for one empty line
    before a request, which RFC 9112 (2.2) lets a server pass over and h11 refuses."""
    data = b"".join(pieces)
    try:
        ours = read(data)
    except Refusal:
        return
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    other.receive_data(data)
    for request in ours:
        try:
            event = other.next_event()
        except h11.RemoteProtocolError as error:
            assert str(error) == "no request line received"
            return
        assert isinstance(event, h11.Request), event
        assert event.method.decode() == request.head.method and dict(event.headers).get(
            b"host"
        ) == request.head.fields.get(b"host")
        body = b""
        while isinstance(event := other.next_event(), h11.Data):
            body += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage) and body == request.body
        if other.our_state is h11.SEND_RESPONSE:
            other.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            other.send(h11.EndOfMessage())
        if not request.head.keep_alive or other.their_state is not h11.DONE or other.our_state is not h11.DONE:
            break
        other.start_next_cycle()


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.sampled_from([200, 204, 404, 418, 503]))
def test_answers_are_read_by_another_parser(body, close, head, code):
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if head else "GET", target="/", headers=[("host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(
        answer_bytes(code, [(b"x", b"y")], body, b"Thu, 01 Jan 1970 00:00:00 GMT", close=close, head=head)
    )
    answer = client.next_event()
    assert isinstance(answer, h11.Response) and answer.status_code == code
    got = b""
    while isinstance(event := client.next_event(), h11.Data):
        got += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage) and got == (b"" if head or code == 204 else body)


def test_a_length_of_19_digits_is_no_number_and_one_of_18_is_only_too_large():
    assert refused(POST + b"Content-Length: " + b"1" * 19 + b"\r\n\r\n") == 400
    assert read(POST + b"Content-Length: " + b"0" * 17 + b"1\r\n\r\nx")[0].body == b"x"


def test_a_refusal_tells_its_text():
    assert str(Refusal(400, "why")) == "why"


# -- each limit at its edge -------------------------------------------------------------------------------------------


def filled(size: int) -> bytes:
    """A head of exactly so many bytes."""
    start = b"GET / HTTP/1.1\r\nHost: h\r\nA: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


def test_a_head_may_be_as_large_as_the_limit_and_no_larger():
    assert [r.head.path for r in read(filled(MAX_HEAD))] == ["/"]
    assert refused(filled(MAX_HEAD + 1)) == 431


@pytest.mark.parametrize("first", [b"!", b"~", b"A", b"z"])
def test_a_request_begins_with_any_character_of_a_token(first):
    assert read(first + b" / HTTP/1.1\r\nHost: h\r\n\r\n", 1)[0].head.method == first.decode()


@pytest.mark.parametrize("first", [b" ", b"\x7f", b"\x80", b"\x16", b"\n"])
def test_what_is_no_request_is_told_at_its_first_byte(first):
    assert refused(first) == 400


def test_one_empty_line_is_passed_over_and_each_request_may_have_its_own():
    assert len(read(b"\r\n" + POST + b"\r\n\r\n" + POST + b"\r\n", 1)) == 2
    assert refused(b"\r\n\r\n") == 400


@pytest.mark.parametrize(
    ("head", "continues"),
    [
        (POST + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n", True),
        (POST + b"Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n", True),
        (POST + b"Content-Length: 0\r\nExpect: 100-continue\r\n\r\n", False),
        (POST + b"Expect: 100-continue\r\n\r\n", False),
        (POST + b"Content-Length: 1\r\n\r\n", False),
        (b"POST /a HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", False),
    ],
)
def test_who_waits_to_be_told_to_go_on(head, continues):
    assert read_head(head).continues is continues
    reader = RequestReader()
    reader.feed(head)
    reader.next()
    assert reader.takes_continue() is continues and reader.takes_continue() is False


def test_an_answer_has_its_body_unless_only_its_head_is_asked_for():
    whole = answer_bytes(200, [(b"a", b"b")], b"body", b"now", close=False)
    assert whole == b"HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 4\r\ndate: now\r\n\r\nbody"
    assert answer_bytes(200, [(b"a", b"b")], b"body", b"now", close=False, head=True) == whole.removesuffix(b"body")
    assert answer_bytes(304, [], b"", b"now", close=True).startswith(b"HTTP/1.1 304 Not Modified\r\n")
    assert answer_bytes(204, [], b"body", b"now", close=False) == b"HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n"
    assert answer_bytes(205, [], b"", b"now", close=False).count(b"content-length: 0") == 1
    assert answer_bytes(299, [], b"", b"now", close=True).startswith(b"HTTP/1.1 299 Unknown\r\n")
