"""One request, its parts one by one: what is sent, what of an answer is believed, proxies and tunnels, documents, connecting."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from greentic.ground import optional
from greentic.ground.errors import FetchError, InvalidArgument, ServerBusy, Truncated
from greentic.net import dial, request
from greentic.net.addresses import Reach
from greentic.net.document import check_small, file_path, read_small
from greentic.net.proxies import Proxies, Proxy
from greentic.net.request import Answer, Upload, origin, read_body, retry_after, send
from greentic.net.terms import Terms, asked_to_wait, may_pass, own_terms, patiently, terms_of
from simulators import CountingRandom, FakeClock
from test_net_rules import QUICK, Connecting, Wires, answer_of, dialled, head, received

PIECE = 7


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(request, "_PIECE", PIECE)
    yield
    optional.forget()


# -- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://a.test", "/"), ("http://a.test/", "/"), ("http://a.test?x=1", "/?x=1"), ("http://a.test/a/b?x=1&y#f", "/a/b?x=1&y"), ("http://a.test/ü b%20c", "/%C3%BC%20b%20c"),
        ("http://a.test/a?ä ~!", "/a?%C3%A4%20~!"),
    ],
)  # fmt: skip
def test_what_a_request_may_not_hold_is_escaped_and_the_rest_stays(
    monkeypatch: pytest.MonkeyPatch, url: str, target: str
) -> None:
    wires = Wires(monkeypatch, head(200))
    answer = send(url, "b", QUICK)
    lines = wires.sent()
    assert lines[0] == f"GET {target} HTTP/1.1" and "Accept-Encoding: identity" in lines
    assert any(line.startswith("User-Agent: greentic/") for line in lines)
    assert sum(line.startswith("Accept-Encoding") for line in lines) == 1
    assert (answer.url, answer.reach, answer.redirected, answer.terms.ends is not None) == (
        url,
        Reach.PUBLIC,
        False,
        True,
    )


def test_fields_are_sent_as_they_were_told_and_the_host_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wires = Wires(monkeypatch, head(200), head(200))
    send("http://a.test:81/b", "b", QUICK, headers={"Host": "other.test", "Range": "bytes=5-"}, method="HEAD")
    lines = wires.sent()
    assert lines[0] == "HEAD /b HTTP/1.1" and "Range: bytes=5-" in lines
    assert [line for line in lines if line.startswith("Host")] == ["Host: other.test"]
    send("http://a.test:81/b", "b", QUICK)
    assert [line for line in wires.sent() if line.startswith("Host")] == ["Host: a.test:81"]


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_body_is_sent_whole_from_its_beginning_with_its_length(
    monkeypatch: pytest.MonkeyPatch, size: int, kind: str
) -> None:
    data = bytes(range(65, 65 + size))
    file = io.BytesIO(data + b"beyond")
    file.seek(3)
    wires = Wires(monkeypatch, head(201))
    send("http://a.test/b", "b", QUICK, method="PUT", body=data if kind == "bytes" else Upload(file, size))
    lines = wires.sent()
    assert lines[0] == "PUT /b HTTP/1.1" and f"Content-Length: {size}" in lines and lines[-1] == data.decode()


@pytest.mark.parametrize(("answer", "status"), [(head(413), 413), (head(503), 503), (head(201), None), (b"", None)])
def test_who_refuses_a_body_before_it_has_come_is_heard(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, status: int | None
) -> None:
    """A proxy with a limit on bodies answers and closes; that was told as a broken pipe, and tried five times."""

    def connected(*_: object) -> tuple[socket.socket, Reach]:
        ours, theirs = socket.socketpair()
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        theirs.shutdown(socket.SHUT_RD)
        theirs.close()
        return ours, Reach.PUBLIC

    monkeypatch.setattr(request, "_connected", connected)
    if status is not None:
        assert send("http://a.test/b", "b", QUICK, method="PUT", body=bytes(1 << 20)).status == status
        return
    with pytest.raises(FetchError, match="Broken pipe") as refused:
        send("http://a.test/b", "b", QUICK, method="PUT", body=bytes(1 << 20))
    assert may_pass(refused.value)


def test_a_file_that_is_shorter_than_was_announced_is_no_body(monkeypatch: pytest.MonkeyPatch) -> None:
    Wires(monkeypatch, head(201))
    with pytest.raises(FetchError, match="the file ended 3 bytes early"):
        send("http://a.test/b", "b", QUICK, method="PUT", body=Upload(io.BytesIO(b"1234567"), 10))


def test_without_a_body_none_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    wires = Wires(monkeypatch, head(200))
    send("http://a.test/b", "b", QUICK)
    assert not any(line.startswith(("Content-Length", "Authorization", "Proxy-")) for line in wires.sent())


# -- whom it is sent to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http:///b", "has no host"), ("http://metadata.google.internal./b", "metadata service"), ("http://u@a.test/", "credentials do not belong"), ("http://:p@a.test/", "credentials do not belong"),
        ("http://a.test:x/b", "download bundle reference"), ("http://[::1/b", "download bundle reference"), ("http://a\u200db.test/", "download bundle reference"),
        (f"http://a.test/{'x' * request.MAX_TARGET}", "an address of more than 16384 bytes"), ("http://%6detadata.goog%E3%80%82/", "metadata service"), ("http://%ff.test/", "download bundle reference"),
    ],
)  # fmt: skip
def test_an_address_by_which_nobody_may_be_asked_is_refused_before(
    monkeypatch: pytest.MonkeyPatch, url: str, told: str
) -> None:
    wires = Wires(monkeypatch)
    with pytest.raises((FetchError, InvalidArgument), match=told):
        send(url, "b", QUICK)
    assert not wires.asked


def test_an_address_may_be_as_long_as_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    Wires(monkeypatch, head(200))
    url = "http://a.test/"
    assert send(url + "x" * (request.MAX_TARGET - len(url)), "b", QUICK).status == 200


@pytest.mark.parametrize(
    ("url", "asked", "named"),
    [
        ("http://faß.test:81/", ("http", "xn--fa-hia.test", 81), "xn--fa-hia.test:81"), ("https://FAẞ.test/", ("https", "xn--fa-hia.test", 443), "xn--fa-hia.test"),
        ("http://fa%C3%9F.test/", ("http", "xn--fa-hia.test", 80), "xn--fa-hia.test"), ("http://[::1]:8/", ("http", "::1", 8), "[::1]:8"), ("http://A.Test/", ("http", "a.test", 80), "a.test"),
    ],
)  # fmt: skip
def test_a_host_is_asked_by_its_ascii_name(
    monkeypatch: pytest.MonkeyPatch, url: str, asked: tuple[str, str, int], named: str
) -> None:
    wires = Wires(monkeypatch, head(200))
    answer = send(url, "b", QUICK)
    assert wires.asked == [asked] and f"Host: {named}" in wires.sent()
    assert answer.origin() == asked


def test_origins_are_compared_by_scheme_host_and_port() -> None:
    assert origin("https://A.test/x") == ("https", "a.test", 443) and origin("http://a.test") == ("http", "a.test", 80)
    assert origin("https://a.test:80/") == ("https", "a.test", 80) and origin("http:///x") == ("http", "", 80)
    for odd in ("http://[::1", "http://a.test:x"):
        assert origin(odd) == (odd, "", 0)


def test_threat_credential_origin_a_secret_goes_no_further_than_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["http://a.test/2", "http://a.test:81/3", "http://a.test/4"]
    wires = Wires(monkeypatch, *(head(302, f"Location: {url}") for url in there), head(200))
    send("http://A.test:80/1", "b", QUICK, authorization="Basic s3cret")
    told = ["Authorization: Basic s3cret" in wires.sent(index) for index in range(4)]
    assert told == [True, True, False, True]


def test_threat_ssrf_who_answered_furthest_out_decides_how_far_inside_the_next_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [
        (head(302, "Location: /2"), Reach.PRIVATE),
        (head(302, "Location: /3"), Reach.LOOPBACK),
        (head(200), Reach.PUBLIC),
    ]
    seen, ends = list[Reach](), list[socket.socket]()

    def connected(
        scheme: str, host: str, port: int, proxy: object, terms: Terms, outermost: Reach
    ) -> tuple[socket.socket, Reach]:
        seen.append(outermost)
        data, reach = answers.pop(0)
        ours, theirs = socket.socketpair()
        theirs.sendall(data)
        ends.append(theirs)
        return ours, reach

    monkeypatch.setattr(request, "_connected", connected)
    answer = send("http://a.test/1", "b", QUICK)
    assert seen == [Reach.LOOPBACK, Reach.PRIVATE, Reach.PRIVATE] and (answer.reach, answer.redirected) == (
        Reach.PUBLIC,
        True,
    )


@pytest.mark.parametrize(
    ("told", "error"), [("ftp://b.test/x", "redirect to unsupported `ftp://b.test/x`"), ("http://[::1/x", "cannot be read"), ("https:a", None)]
)  # fmt: skip
def test_a_redirect_leads_to_a_web_address_or_nowhere(
    monkeypatch: pytest.MonkeyPatch, told: str, error: str | None
) -> None:
    wires = Wires(monkeypatch, head(302, f"Location: {told}"), head(200))
    with pytest.raises(FetchError, match=error or "."):
        send("http://a.test/b", "b", QUICK)
    assert len(wires.asked) == 1


def test_a_redirect_from_https_may_lead_to_https_in_any_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    wires = Wires(monkeypatch, head(302, "Location: HTTPS://b.test/x"), head(302, "Location: //c.test/y"), head(200))
    assert send("https://a.test/b", "b", QUICK).status == 200
    assert [host for _, host, _ in wires.asked] == ["a.test", "b.test", "c.test"]
    wires = Wires(monkeypatch, head(302, "Location: http://b.test/x"), head(200))
    with pytest.raises(FetchError, match="redirect from https to `http://b.test/x`"):
        send("https://a.test/b", "b", QUICK)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_changes_something_is_sent_to_nobody_else(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    wires = Wires(monkeypatch, head(307, "Location: http://b.test/"), head(200))
    assert send("http://a.test/", "b", QUICK, method=method, body=b"x").status == 307 and len(wires.asked) == 1


# -- what of an answer is believed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "body", "told"),
    [
        (["Content-Length: 4"], b"body", b"body"), (["Content-Length: 4", "Content-Length: 4"], b"body", b"body"), (["Content-Length: 4, 4"], b"body", b"body"),
        (["Transfer-Encoding: Chunked"], b"4\r\nbody\r\n0\r\n\r\n", b"body"), (["Transfer-Encoding: chunked", "Content-Length: 99"], b"4\r\nbody\r\n0\r\n\r\n", b"body"),
        (["Content-Length: 4", "Content-Length: 5"], b"body", "announces the lengths 4, 5"), (["Content-Length: +4"], b"body", "announces the lengths"),
        (["Content-Length: ٤"], b"body", "announces the lengths"), (["Content-Length: 4x"], b"body", "announces the lengths"), (["Content-Length:"], b"body", "announces the lengths"),
        ([f"Content-Length: {'0' * 18}4"], b"body", "announces the lengths"), ([f"Content-Length: {'0' * 17}4"], b"body", b"body"),
        (["Transfer-Encoding: gzip"], b"body", "the transfer coding `gzip`"), (["Transfer-Encoding: chunked, chunked"], b"body", "the transfer coding `chunked, chunked`"),
        ([], b"body", b"body"),
    ],
)  # fmt: skip
def test_threat_lying_server_a_length_that_can_be_read_in_two_ways_is_none(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], body: bytes, told: bytes | str
) -> None:
    Wires(monkeypatch, "\r\n".join(["HTTP/1.1 200 x", *lines, "", ""]).encode() + body)
    if isinstance(told, bytes):
        assert read_body(send("http://a.test/", "b", QUICK), "b", 100) == told
        return
    with pytest.raises(FetchError, match=told):
        send("http://a.test/", "b", QUICK)


def test_a_field_that_stands_with_two_values_has_none() -> None:
    answer, _ = answer_of(200, ("A", "1"), ("B", "1"), ("B", " 1 "), ("C", "1"), ("C", "2"))
    assert [answer.one(name) for name in "aBCD"] == ["1", "1", "", ""]


class Body:
    """A body that comes in pieces and may end in an error."""

    def __init__(self, *pieces: bytes | Exception, length: int | None = None) -> None:
        self.pieces, self.length, self.asked = list(pieces), length, list[int]()

    def read1(self, count: int) -> bytes:
        self.asked.append(count)
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece


def answer_with(body: Body) -> tuple[Answer, Any]:
    answer, closed = answer_of(200)
    return answer._replace(body=cast("Any", body), terms=QUICK), closed


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (Body(b"abc", b"de"), b"abcde"), (Body(b"abc", b"de", length=5), b"abcde"), (Body(), b""), (Body(b"0123456789"), b"0123456789"), (Body(b"01234", b"56789x"), "it is larger than 10 bytes"),
        (Body(b"abc", length=4), "it was cut after 3 of 4 bytes"), (Body(b"abc", http.client.IncompleteRead(b"")), "it was cut after 3 bytes"), (Body(ConnectionResetError()), "it was cut after 0 bytes"),
        (Body(b"abc", TimeoutError("timed out")), "it could not be read: no answer within 5 s"), (Body(ValueError("odd")), "it could not be read: odd"),
    ],
)  # fmt: skip
def test_a_body_is_whole_or_it_is_said_what_became_of_it(body: Body, told: bytes | str) -> None:
    answer, closed = answer_with(body)
    if isinstance(told, bytes):
        assert read_body(answer, "it", 10) == told
    else:
        with pytest.raises(FetchError, match=told) as error:
            read_body(answer, "it", 10)
        assert isinstance(error.value, Truncated) is ("cut" in told)
    assert closed.count == 1


@pytest.mark.parametrize(
    ("codings", "told"),
    [
        ([], ""), (["identity"], ""), (["aws-chunked"], ""), (["utf-8"], ""), (["gzip"], "gzip"), ([" GZIP "], "gzip"), (["aws-chunked, br"], "aws-chunked, br"),
        (["identity", "zstd"], "zstd"),
    ],
)  # fmt: skip
def test_a_body_that_is_packed_although_nobody_asked_is_told_as_that(codings: list[str], told: str) -> None:
    answer, closed = answer_of(200, *(("Content-Encoding", coding) for coding in codings))
    packed = answer._replace(body=cast("Any", Body(b"abc")), terms=QUICK)
    if not told:
        assert packed.coding() == "" and read_body(packed, "it", 10) == b"abc"
        return
    with pytest.raises(
        FetchError, match=f"it could not be read: .* as `Content-Encoding: {told}`, which was not asked"
    ):
        read_body(packed, "it", 10)
    assert closed.count == 1


def test_no_more_is_read_than_shows_that_it_is_too_large() -> None:
    body = Body(b"0123456789", b"x", b"never", b"never")
    with pytest.raises(FetchError, match="larger than 10 bytes"):
        read_body(answer_with(body)[0], "it", 10)
    assert len(body.pieces) == 2 and set(body.asked) == {PIECE}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0), ("", 0), ("7", 7), (" 7 ", 7), ("61", 60), ("9" * 40, 60), ("-7", 0), ("٧", 0), ("soon", 0), ("0000000070", 7), ("Thu, 01 Jan 1970 00:16:50 GMT", 10),
        ("Thu, 01 Jan 1970 00:16:30 GMT", 0), ("Thu, 01 Jan 2070 00:00:00 GMT", 60), ("Thu, 99 Jan 1970 00:00:00 GMT", 0),
    ],
)  # fmt: skip
def test_a_server_may_ask_to_wait_so_long_and_no_longer(header: str | None, seconds: float) -> None:
    assert retry_after(header, 1000.0) == seconds


# -- the way there --------------------------------------------------------------------------------------------------

PROXY = Proxy("proxy.test", 3128, "Basic s3cret", "HTTP_PROXY")


class Ways:
    """What is dialled, with scripted answers of the other end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: bytes = b"", peer: str = "8.8.8.8") -> None:
        self.dialled: list[tuple[str, int, float]] = []
        self.checked: list[tuple[str, str]] = []
        self.secured: list[tuple[str, tuple[str, ...]]] = []
        self.answer, self.peer = answer, peer
        self.theirs = self.ours = cast("socket.socket", None)
        monkeypatch.setattr(request, "dial", self.dial)
        monkeypatch.setattr(request, "secured", self.secure)

    def dial(self, host: str, port: int, check: Any, *, connect: float) -> Any:
        self.dialled.append((host, port, connect))
        check(host, self.peer)
        self.ours, self.theirs = socket.socketpair()
        self.theirs.sendall(self.answer)
        self.theirs.shutdown(socket.SHUT_WR)
        return Peer(self.ours, self.peer)

    def secure(self, plain: Any, host: str, authorities: tuple[str, ...]) -> Any:
        self.secured.append((host, authorities))
        return plain

    def sent(self) -> str:
        return self.theirs.recv(1 << 16).decode()


class Peer:
    """A socket whose other end has an address."""

    def __init__(self, plain: socket.socket, peer: str) -> None:
        self._plain, self._peer = plain, peer
        self.waits: list[float | None] = []

    def getpeername(self) -> tuple[str, int]:
        return self._peer, 80

    def settimeout(self, seconds: float | None) -> None:
        self.waits.append(seconds)
        self._plain.settimeout(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


def via(proxy: Proxy | None) -> Terms:
    return QUICK._replace(proxies=Proxies(proxy, proxy), connect=3, authorities=("ca.pem",))


@pytest.mark.parametrize(
    ("peer", "reach"), [("8.8.8.8", Reach.PUBLIC), ("10.1.2.3", Reach.PRIVATE), ("127.0.0.1", Reach.LOOPBACK)]
)
def test_without_a_proxy_the_address_that_is_connected_to_is_checked(
    monkeypatch: pytest.MonkeyPatch, peer: str, reach: Reach
) -> None:
    ways = Ways(monkeypatch, head(200), peer)
    assert send("http://a.test:81/b", "b", via(None)).reach is reach
    assert ways.dialled == [("a.test", 81, 3)] and not ways.secured and ways.sent().startswith("GET /b HTTP/1.1\r\n")
    if reach is not Reach.PUBLIC:
        with pytest.raises(FetchError, match="may not lead there"):
            send("http://a.test:81/b", "b", via(None), outermost=Reach.PUBLIC)


def test_with_tls_the_name_is_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(monkeypatch, head(200))
    assert send("https://a.test/b", "b", via(None)).status == 200
    assert ways.dialled == [("a.test", 443, 3)] and ways.secured == [("a.test", ("ca.pem",))]


def test_connecting_takes_no_longer_than_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(monkeypatch, head(200))
    send("http://a.test/b", "b", via(None)._replace(total=2))
    assert 1.9 < ways.dialled[0][2] <= 2


def test_through_a_proxy_the_whole_address_is_asked_for_and_names_are_checked_as_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways = Ways(monkeypatch, head(200), peer="169.254.169.254")  # wherever the proxy is, nobody but it is asked
    answer = send("http://a.test:81/b?x", "b", via(PROXY))
    assert ways.dialled == [("proxy.test", 3128, 3)] and answer.reach is Reach.PRIVATE
    sent = ways.sent()
    assert sent.startswith("GET http://a.test:81/b?x HTTP/1.1\r\n")
    assert "\r\nProxy-Authorization: Basic s3cret\r\n" in sent and "\r\nHost: a.test:81\r\n" in sent
    (said,) = optional.lacking()
    assert "http://proxy.test:3128 of HTTP_PROXY resolves them itself" in said
    for address in ("169.254.169.254", "2852039166"):
        with pytest.raises(FetchError, match="metadata service"):
            send(f"http://{address}/b", "b", via(PROXY))
    assert send("http://8.8.8.8/b", "b", via(PROXY)).reach is Reach.PUBLIC
    send("http://a.test/b", "b", via(Proxy("proxy.test", 1, None, "X")))
    assert "Proxy-Authorization" not in ways.sent()


@pytest.mark.parametrize(
    ("url", "name"), [("https://a.test/b", "a.test:443"), ("https://[2606:4700::1]:8/b", "[2606:4700::1]:8")]
)
def test_a_tunnel_is_asked_for_by_name_and_the_secret_of_the_proxy_stays_with_it(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    ways = Ways(monkeypatch, b"HTTP/1.1 200 Established\r\nVia: x\r\n\r\n" + head(200))
    answer = send(url, "b", via(PROXY))
    assert answer.status == 200 and ways.secured == [(name.rpartition(":")[0].strip("[]"), ("ca.pem",))]
    tunnel, _, request_ = ways.sent().partition("\r\n\r\n")
    assert tunnel.split("\r\n") == [f"CONNECT {name} HTTP/1.1", f"Host: {name}", "Proxy-Authorization: Basic s3cret"]
    assert request_.startswith("GET /b HTTP/1.1\r\n") and "s3cret" not in request_


def test_a_proxy_that_wants_no_secret_is_told_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(monkeypatch, b"HTTP/1.1 200 x\r\n\r\n" + head(200))
    send("https://a.test/b", "b", via(Proxy("proxy.test", 3128, None, "HTTPS_PROXY")))
    assert "Proxy-Authorization" not in ways.sent()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 403 No\r\n\r\n", r"the proxy http://proxy.test:3128 of HTTP_PROXY refuses a tunnel to `a.test:443` \(http status: 403\)$"), (b"", "gives no answer that is HTTP$"),
        (b"HTTP/1.1 407 Who are you\r\n\r\n", r"the proxy http://proxy.test:3128 of HTTP_PROXY wants to know who we are \(http status: 407\); .* belong into HTTP_PROXY$"),
        (b"HTTP/1.1 200 x\r\n", "gives no answer that is HTTP"), (b"HTTP/1.1 200 " + b"x" * (request.MAX_TARGET + 1), "gives no answer that is HTTP"), (b"nonsense\r\n\r\n", "refuses a tunnel"),
    ],
)  # fmt: skip
def test_a_proxy_that_gives_no_tunnel_is_told_and_left(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, told: str
) -> None:
    ways = Ways(monkeypatch, answer)
    with pytest.raises(FetchError, match=told) as error:
        send("https://a.test/b", "b", via(PROXY))
    assert "s3cret" not in str(error.value) and not ways.secured and ways.ours.fileno() == -1


def test_a_proxy_that_asks_who_we_are_is_told_as_that_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, answer in (("https://a.test/b", b"HTTP/1.1 407 x\r\n\r\n"), ("http://a.test/b", head(407))):
        ways = Ways(monkeypatch, answer)
        with pytest.raises(FetchError, match="belong into HTTP_PROXY") as error:
            send(url, "b", via(PROXY))
        assert not may_pass(error.value) and ways.ours.fileno() == -1
    Ways(monkeypatch, head(407))
    assert send("http://a.test/b", "b", via(None)).status == 407  # of a server, which is no proxy of ours


@pytest.mark.parametrize("proxy", [None, PROXY])
def test_what_fails_behind_a_proxy_names_it(monkeypatch: pytest.MonkeyPatch, proxy: Proxy | None) -> None:
    Ways(monkeypatch, b"\x00\xff" * 9_000 + b"\r\n\r\n")
    with pytest.raises(FetchError) as error:
        send("http://a.test/b", "b", via(proxy))
    told = str(error.value)
    assert told.endswith(f"… (asked through the proxy {PROXY})" if proxy else "…")
    assert len(told) < dial.MAX_REASON + 200, "what a server sends is no error message of any length"


def test_every_step_has_what_is_left_of_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: list[Peer] = []
    ways = Ways(monkeypatch, b"HTTP/1.1 200 x\r\n\r\n" + head(200))
    real = ways.dial

    def dialling(*words: Any, **more: Any) -> Peer:
        plain.append(real(*words, **more))
        return plain[0]

    monkeypatch.setattr(request, "dial", dialling)
    send("https://a.test/b", "b", via(PROXY), method="PUT", body=b"x" * (2 * PIECE))
    # The tunnel's request, each byte of its answer, TLS, the head, two pieces, the answer.
    assert len(plain[0].waits) >= 1 + 18 + 1 + 1 + 2 + 1 and set(plain[0].waits) == {5}


@pytest.mark.parametrize(
    "failing", [OSError(113, "No route to host"), http.client.BadStatusLine("odd"), KeyboardInterrupt()]
)
def test_a_connection_is_closed_whatever_ends_the_question(
    monkeypatch: pytest.MonkeyPatch, failing: BaseException
) -> None:
    ways = Ways(monkeypatch, head(200))

    def receive(*_: object) -> None:
        raise failing

    monkeypatch.setattr(request, "receive", receive)
    with pytest.raises(KeyboardInterrupt if isinstance(failing, KeyboardInterrupt) else FetchError):
        send("http://a.test/b", "b", via(None))
    assert ways.ours.fileno() == -1


# -- documents ------------------------------------------------------------------------------------------------------


def test_a_path_is_one_as_it_stands_and_an_address_with_its_escapes_undone(tmp_path: Path) -> None:
    (tmp_path / "a%20b").touch()
    (tmp_path / "link%20").symlink_to("nowhere")
    for reference, path in (
        (f"{tmp_path}/c%20d", f"{tmp_path}/c%20d"), (f"file://{tmp_path}/c%20d", f"{tmp_path}/c d"), (f"file://{tmp_path}/a%20b", f"{tmp_path}/a%20b"),
        (f"FILE://localhost{tmp_path}/c", f"{tmp_path}/c"), ("localhost/c%20", "localhost/c%20"), ("file://localhost.test/c", "localhost.test/c"),
        (f"file://{tmp_path}/link%20", f"{tmp_path}/link%20"), ("file:///%FF", "/\udcff"),
    ):  # fmt: skip
        assert file_path(reference) == path


def test_a_document_is_asked_for_on_the_terms_that_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    answer, closed = answer_of(404)

    def sending(url: str, what: str, terms: Terms, *, doing: str) -> Answer:
        seen.append(terms.idle)
        return answer

    monkeypatch.setattr(request, "send", sending)
    monkeypatch.setenv("GREENTIC_FETCH_IDLE_SECONDS", "4")
    assert read_small("http://a.test/d", 10, Terms(idle=3)) is None
    assert read_small("http://a.test/d", 10, own_terms()) is None
    assert seen == [3, 4] and closed.count == 2
    refused, _ = answer_of(404)
    monkeypatch.setattr(request, "send", lambda *_, **_how: refused)
    with pytest.raises(FetchError, match="404"):
        read_small("http://a.test/d", 10, QUICK, absent=frozenset({410}))


@pytest.mark.parametrize(
    ("reference", "taken"),
    [("https://a.test/d", True), ("HTTP://a.test/d", True), ("file:///d", True), ("/d", True), ("oci://r.test/d:1", False), (" ftp://a.test/d", False)],
)  # fmt: skip
def test_where_no_document_could_be_read_is_told_when_it_is_written(reference: str, taken: bool) -> None:
    if taken:
        assert check_small(reference, "the list") == reference
        return
    with pytest.raises(InvalidArgument, match="the list `.*is no address of a document; expected https://"):
        check_small(reference, "the list")


# -- connecting -----------------------------------------------------------------------------------------------------


def test_a_connection_that_is_open_waits_for_bytes_and_sends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = dialled(monkeypatch, ["192.0.2.1"], set())
    options: list[tuple[object, ...]] = []
    monkeypatch.setattr(Connecting, "setsockopt", lambda self, *option: options.append(option))
    checked: list[tuple[str, str]] = []
    assert dial.dial("a.test", 80, lambda *seen: checked.append(seen), idle=9) is cast("Any", made)
    assert checked == [("a.test", "192.0.2.1")] and made.seconds == 9 and not made.closed
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in options
    assert any(
        option[:2] == (socket.SOL_SOCKET, socket.SO_RCVBUF) and cast("int", option[2]) >= 1 << 20 for option in options
    )


def test_what_the_resolver_says_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def looking(answer: object) -> Any:
        def look(host: object, port: int, **how: object) -> object:
            asked.append((host, port, how["type"]))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return look

    for answer, told in (
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        ([], "no address for `a.test`"),
    ):
        monkeypatch.setattr(socket, "getaddrinfo", looking(answer))
        with pytest.raises(OSError, match=told):
            dial.dial("a.test", 80, lambda *_: None)
    assert asked == [(b"a.test", 80, socket.SOCK_STREAM)] * 2  # ASCII needs no tables of international names


def test_a_resolver_that_takes_too_long_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    ends = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ends.wait(60))
    try:
        with pytest.raises(TimeoutError, match=r"the name `a.test` was not found within 0.01 s"):
            dial.dial("a.test", 80, lambda *_: None, connect=0.01)
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "resolve")
    finally:
        ends.set()


def test_a_connection_whose_tls_fails_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(authorities: object) -> ssl.SSLContext:
        raise OSError("no certificates")

    monkeypatch.setattr(dial, "tls_context", failing)
    ours, theirs = socket.socketpair()
    with pytest.raises(OSError, match="no certificates"):
        dial.secured(ours, "a.test", ())
    assert ours.fileno() == -1
    theirs.close()


@pytest.mark.parametrize(("status", "last"), [(100, False), (199, False), (101, True), (200, True), (204, True)])
def test_what_comes_before_the_answer_is_not_it_but_for_a_switch_of_protocols(status: int, last: bool) -> None:
    _, receive = received(head(status) + head(418))
    assert receive().status == (status if last else 418)


# -- patience -------------------------------------------------------------------------------------------------------


def caused(error: FetchError, cause: BaseException | None) -> FetchError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (FetchError("403"), False), (Truncated("cut"), True), (ServerBusy("503"), True), (caused(FetchError("down"), OSError(111, "refused")), True),
        (caused(FetchError("slow"), TimeoutError()), True), (caused(FetchError("odd"), ValueError("odd")), False),
        (caused(FetchError("tls"), ssl.SSLCertVerificationError("not trusted")), False), (caused(FetchError("tls"), ssl.SSLError("cut")), True),
    ],
)  # fmt: skip
def test_silence_cuts_and_overload_may_pass_and_refusals_do_not(error: FetchError, passes: bool) -> None:
    assert may_pass(error) is passes
    asked: list[Terms] = []

    def question(terms: Terms) -> str:
        asked.append(terms)
        if len(asked) < 3:
            raise error
        return "answer"

    clock = FakeClock()
    terms = Terms(total=30, clock=clock, random=CountingRandom())
    if passes:
        assert patiently(question, terms) == "answer" and len(asked) == 3
        assert len({begun.ends for begun in asked}) == 1 and asked[0].ends is not None  # one deadline for all tries
    else:
        with pytest.raises(type(error)) as raised:
            patiently(question, terms)
        assert raised.value is error and len(asked) == 1


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_patience_ends_with_the_tries_or_with_the_time(tries: int) -> None:
    clock, asked = FakeClock(), list[int]()

    def question(terms: Terms) -> str:
        asked.append(1)
        raise ServerBusy("503", retry_after=7)

    terms = Terms(total=600, tries=tries, clock=clock, random=CountingRandom())
    began = clock.monotonic()
    with pytest.raises(ServerBusy):
        patiently(question, terms)
    assert len(asked) == tries and clock.monotonic() - began >= 7 * (tries - 1)
    asked.clear()
    with pytest.raises(ServerBusy):
        patiently(question, terms._replace(total=5))
    assert len(asked) == 1  # the pause that was asked for would end behind the end


def test_a_server_is_left_alone_for_as_long_as_it_asked_and_others_for_none() -> None:
    assert asked_to_wait(ServerBusy("503", retry_after=7)) == 7 and asked_to_wait(Truncated("cut")) == 0


def test_terms_are_those_that_the_variables_tell() -> None:
    clock, random = FakeClock(), CountingRandom()
    told = terms_of(
        {
            "GREENTIC_FETCH_TOTAL_SECONDS": "5", "GREENTIC_FETCH_IDLE_SECONDS": "2", "GREENTIC_CA_FILES": "a.pem,b.pem", "HTTP_PROXY": "proxy.test",
            "GREENTIC_OFFLINE": "1",
        },
        clock,
        random,
    )  # fmt: skip
    assert (told.total, told.idle, told.offline, told.authorities) == (5, 2, True, ("a.pem", "b.pem"))
    assert told.proxies.http is not None and told.clock is clock and told.random is random and told.ends is None
    plain = terms_of({})
    assert (plain.total, plain.idle, plain.offline, plain.authorities) == (60, 30, False, ())
    assert terms_of({"GREENTIC_FETCH_TOTAL_SECONDS": "3600"}).total == 60  # a document never takes longer
    assert terms_of({"GREENTIC_FETCH_TOTAL_SECONDS": "0.001"}).total == 0.001
    with pytest.raises(InvalidArgument, match="GREENTIC_FETCH_TOTAL_SECONDS"):
        terms_of({"GREENTIC_FETCH_TOTAL_SECONDS": "0.0001"})
