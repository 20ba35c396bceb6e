"""The rules by which a server is asked, each at its edge: no request without a network, no redirect too many, no wait too long."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from email.message import Message
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, cast

import pytest

from greentic.ground import variables
from greentic.ground.errors import FetchError, InvalidArgument, ServerBusy
from greentic.net import dial, request
from greentic.net.addresses import Reach
from greentic.net.document import read_small
from greentic.net.egress import EgressPolicy, refused_host
from greentic.net.request import Answer, check_status, read_body, send
from greentic.net.terms import Terms, patiently, terms_of
from simulators import CountingRandom, FakeClock
from test_delivery import certificate


class Wires:
    """Scripted answers, one for each connection; what was sent over each is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> None:
        self.answers, self.ends = list(answers), list[socket.socket]()
        self.asked: list[tuple[str, str, int]] = []
        monkeypatch.setattr(request, "_connected", self._connected)

    def _connected(self, scheme: str, host: str, port: int, *_: object) -> tuple[socket.socket, Reach]:
        self.asked.append((scheme, host, port))
        ours, theirs = socket.socketpair()
        theirs.sendall(self.answers.pop(0))
        theirs.shutdown(socket.SHUT_WR)
        self.ends.append(theirs)
        return ours, Reach.PUBLIC

    def sent(self, index: int = -1) -> list[str]:
        return self.ends[index].recv(1 << 16).decode().split("\r\n")


def head(status: int, *lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} x", *lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


QUICK = Terms(idle=5, total=30, clock=FakeClock(), random=CountingRandom())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    wires = Wires(monkeypatch, head(status, "Location: /there"), head(200, body=b"here"))
    answer = send("http://a.test/b", "b", QUICK)
    assert answer.redirected and read_body(answer, "b", 100) == b"here"
    assert wires.sent()[0] == "GET /there HTTP/1.1"


@pytest.mark.parametrize("status", [300, 304, 305, 306])
def test_what_is_no_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    wires = Wires(monkeypatch, head(status, "Location: /there"))
    answer = send("http://a.test/b", "b", QUICK)
    assert (answer.status, answer.redirected, len(wires.asked)) == (status, False, 1)


def test_as_many_redirects_as_promised_are_followed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    again = [head(302, f"Location: /{n}") for n in range(request.MAX_REDIRECTS)]
    Wires(monkeypatch, *again, head(200, body=b"x"))
    assert send("http://a.test/b", "b", QUICK).status == 200
    wires = Wires(monkeypatch, *again, *again)
    with pytest.raises(FetchError, match="more than 10 redirects"):
        send("http://a.test/b", "b", QUICK)
    assert len(wires.asked) == request.MAX_REDIRECTS + 1


@pytest.mark.parametrize("lines", [[], ["Location: /a", "Location: /b"]])
def test_a_redirect_that_does_not_say_where_to_leads_nowhere(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    wires = Wires(monkeypatch, head(302, *lines))
    with pytest.raises(FetchError, match="does not say where to"):
        send("http://a.test/b", "b", QUICK)
    assert len(wires.asked) == 1


@pytest.mark.parametrize("told", ["http://b.test/x", "ftp://b.test/x", "http://[::1/x"])
def test_a_redirect_from_https_to_less_is_not_followed(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    wires = Wires(monkeypatch, head(302, f"Location: {told}"))
    with pytest.raises(FetchError):
        send("https://a.test/b", "b", QUICK)
    assert len(wires.asked) == 1


def test_without_a_network_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    wires = Wires(monkeypatch)
    with pytest.raises(FetchError, match="without a network"):
        send("http://a.test/b", "b", QUICK._replace(offline=True))
    assert not wires.asked


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://a.test/b", "a.test"), ("http://a.test:443/b", "a.test:443"),
        ("https://a.test/b", "a.test"), ("https://a.test:80/b", "a.test:80"),
    ],
)  # fmt: skip
def test_the_host_is_named_with_its_port_unless_it_is_the_schemes_own(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    wires = Wires(monkeypatch, head(200))
    send(url, "b", QUICK)
    lines = wires.sent()
    assert f"Host: {name}" in lines and "Accept-Encoding: identity" in lines
    assert not any(line.startswith(("Authorization", "Cookie")) for line in lines)


class Closed:
    count = 0

    def close(self) -> None:
        self.count += 1


def answer_of(status: int, *headers: tuple[str, str], redirected: bool = False) -> tuple[Answer, Closed]:
    fields, closed = HTTPMessage(), Closed()
    for name, value in headers:
        Message.__setitem__(fields, name, value)
    connection = cast("Any", closed)
    return Answer(status, fields, connection, connection, "http://b.test/signed", redirected=redirected), closed


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_passes_only_where_a_redirect_led(status: int, redirected: bool) -> None:
    answer, closed = answer_of(status, redirected=redirected)
    with pytest.raises(FetchError, match=f"http status: {status}") as error:
        check_status(answer, "http://a.test/b", 200)
    assert isinstance(error.value, ServerBusy) == (redirected and status in (400, 401, 403))
    assert ("where it led to" in error.value.message) == redirected
    assert closed.count == 1


@pytest.mark.parametrize(
    ("status", "busy"),
    [(408, True), (425, True), (429, True), (499, False), (500, True), (503, True), (599, True), (600, False)],
)
def test_an_overloaded_server_is_asked_again_and_a_refusing_one_is_not(status: int, busy: bool) -> None:
    answer, _ = answer_of(status, ("Retry-After", "7"))
    with pytest.raises(FetchError) as error:
        check_status(answer, "b", 200)
    assert isinstance(error.value, ServerBusy) == busy
    assert getattr(error.value, "retry_after", 0) == (7 if busy else 0)


def test_a_status_that_was_expected_leaves_the_answer_open() -> None:
    answer, closed = answer_of(206)
    check_status(answer, "b", 200, 206)
    assert not closed.count


@pytest.mark.parametrize("status", [404, 410])
def test_a_document_that_is_gone_is_none(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    wires = Wires(monkeypatch, head(status))
    assert read_small("http://a.test/b.sig", 10, QUICK) is None
    assert len(wires.asked) == 1


@pytest.mark.parametrize("status", [204, 400, 403, 405, 411])
def test_threat_stripped_signature_a_document_that_is_refused_is_not_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    wires = Wires(monkeypatch, head(status))
    with pytest.raises(FetchError) as told:
        read_small("http://a.test/b.sig", 10, QUICK)
    assert len(wires.asked) == 1
    assert told.value.message == f"read http://a.test/b.sig: http status: {status}", "it is no bundle"


@pytest.mark.parametrize("size", [0, 9, 10, 11, 12])
def test_a_document_may_have_its_limit_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int) -> None:
    file = tmp_path / "d"
    file.write_bytes(bytes(size))
    Wires(monkeypatch, head(200, body=bytes(size)))
    for reference in (str(file), f"file://{file}", "http://a.test/d"):
        if size <= 10:
            assert read_small(reference, 10, QUICK) == bytes(size)
        else:
            with pytest.raises(FetchError, match="larger than 10 bytes"):
                read_small(reference, 10, QUICK)


def test_a_document_is_asked_for_by_no_other_scheme(tmp_path: Path) -> None:
    for reference in ("ftp://a.test/d", "data://x"):
        with pytest.raises(FetchError, match="no address of a document"):
            read_small(reference, 10, QUICK)
    assert (
        read_small(str(tmp_path / "none"), 10, Terms()) is None
        and read_small(f"file://{tmp_path}/none", 10, Terms()) is None
    )
    with pytest.raises(FetchError, match="cannot be read"):
        read_small(str(tmp_path), 10, Terms())


def test_the_end_of_a_question_is_set_once() -> None:
    clock = FakeClock()
    terms = Terms(idle=3, total=10, clock=clock)
    assert (terms.left(), terms.wait()) == (10, 3)
    begun = terms.begun()
    clock.sleep(4)
    assert begun.begun().ends == begun.ends
    assert 5.9 < begun.left() < 6 and begun.wait() == 3
    clock.sleep(4)
    assert 1.9 < begun.wait() < 2
    clock.sleep(4)
    assert begun.left() == 0
    with pytest.raises(TimeoutError, match="not done after 10 s"):
        begun.wait()


def test_the_last_half_second_may_be_used_and_the_end_may_not() -> None:
    class Still(FakeClock):
        def monotonic(self) -> float:
            return 100.0

    terms = Terms(idle=3, total=10, clock=Still())
    assert terms._replace(ends=100.5).wait() == 0.5
    with pytest.raises(TimeoutError):
        terms._replace(ends=100.0).wait()


def test_patience_between_two_bytes_has_a_limit() -> None:
    assert terms_of({"GREENTIC_FETCH_IDLE_SECONDS": "3600"}).idle == 3600
    for told in ("3600.5", "0", "-1"):
        with pytest.raises(InvalidArgument, match="GREENTIC_FETCH_IDLE_SECONDS"):
            terms_of({"GREENTIC_FETCH_IDLE_SECONDS": told})
    assert terms_of({"GREENTIC_OFFLINE": "1"}).offline and not terms_of({}).offline


def test_a_host_is_refused_with_the_reason() -> None:
    listed = EgressPolicy("hosts", ("api.test", "*.sub.test"))
    for host in ("api.test", "API.test.", "x.sub.test"):
        assert refused_host(listed, host) is None
    for host in ("other.test", "sub.test", "xapi.test", "api.test.evil.test"):
        assert refused_host(listed, host) == f"`{host}` is not among the allowed hosts"
    for policy in (EgressPolicy(), EgressPolicy("unrestricted"), EgressPolicy("hosts", ("metadata.google.internal",))):
        for host in ("metadata.google.internal", "METADATA.google.internal."):
            assert refused_host(policy, host) == f"`{host}` is a metadata service"
        assert refused_host(policy, ".") == "the address has no host"
    assert refused_host(EgressPolicy("none"), "api.test") == "http client disabled by policy"


class Connecting:
    """Sockets of which some swallow every packet."""

    def __init__(self, clock: FakeClock, silent: set[str]) -> None:
        self.clock, self.silent = clock, silent
        self.tried: list[tuple[str, float]] = []
        self.closed = 0

    def __call__(self, *_: object) -> Connecting:
        return self

    def settimeout(self, seconds: float) -> None:
        self.seconds = seconds

    def setsockopt(self, *_: object) -> None:
        pass

    def connect(self, address: tuple[str, int]) -> None:
        self.tried.append((address[0], self.seconds))
        if address[0] in self.silent:
            self.clock.sleep(self.seconds)
            raise TimeoutError("timed out")

    def close(self) -> None:
        self.closed += 1


def dialled(monkeypatch: pytest.MonkeyPatch, addresses: list[str], silent: set[str]) -> tuple[Connecting, FakeClock]:
    clock = FakeClock()
    made = Connecting(clock, silent)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "socket", made)
    monkeypatch.setattr(dial, "CLOCK", clock)
    return made, clock


def test_an_address_that_swallows_packets_leaves_the_others_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = dialled(monkeypatch, ["192.0.2.1", "192.0.2.2"], {"192.0.2.1"})
    dial.dial("a.test", 80, lambda host, address: None, connect=8, idle=3)
    assert [address for address, _ in made.tried] == ["192.0.2.1", "192.0.2.2"]
    assert all(3.9 < seconds < 4.1 for _, seconds in made.tried)
    assert made.closed == 1 and made.seconds == 3  # the refused one; the open one waits for bytes as long as it may


def test_all_addresses_together_have_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [f"192.0.2.{n}" for n in range(1, 5)]
    made, clock = dialled(monkeypatch, addresses, set(addresses))
    began = clock.monotonic()
    with pytest.raises(TimeoutError):
        dial.dial("a.test", 80, lambda host, address: None, connect=8)
    assert clock.monotonic() - began < 8.1 and made.closed == len(made.tried) == 4


def test_threat_ssrf_every_address_is_checked_before_any_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = dialled(monkeypatch, ["192.0.2.1", "169.254.169.254"], set())

    def check(host: str, address: str) -> None:
        if address.startswith("169."):
            raise FetchError("refused")

    with pytest.raises(FetchError):
        dial.dial("a.test", 80, check)
    assert not made.tried


class Dripping:
    """A socket with bytes, that keeps how long each read might have taken."""

    def __init__(self, data: bytes) -> None:
        self.data, self.waits = data, list[float]()
        self.seconds: float = -1

    def settimeout(self, seconds: float) -> None:
        self.seconds = seconds

    def recv_into(self, buffer: memoryview) -> int:
        self.waits.append(self.seconds)
        count = min(len(buffer), len(self.data), 1 << 16)
        buffer[:count], self.data = self.data[:count], self.data[count:]
        return count


def received(data: bytes, terms: Terms = QUICK) -> tuple[Dripping, Callable[[], Any]]:
    wire = Dripping(data)
    return wire, lambda: dial.receive(cast("Any", wire), "GET", terms)


def test_every_read_has_what_is_left_of_the_deadline() -> None:
    clock = FakeClock()
    terms = Terms(idle=5, total=30, clock=clock).begun()
    clock.sleep(28)
    wire, receive = received(head(200, body=b"x"), terms)
    assert receive().read() == b"x"
    assert wire.waits and all(1.9 < seconds < 2 for seconds in wire.waits)


def test_answers_before_the_answer_are_skipped_but_not_for_ever() -> None:
    early, last = b"HTTP/1.1 103 x\r\n\r\n", head(200, body=b"x")
    _, receive = received(early * (dial.MAX_INTERIM - 1) + last)
    assert receive().status == 200
    _, receive = received(early * dial.MAX_INTERIM + last)
    with pytest.raises(Exception, match="more than 16 answers before the answer"):
        receive()


def test_an_answer_that_is_let_go_of_after_its_connection_complains_of_nothing() -> None:
    """Python 3.13 and newer print what goes wrong there, as a traceback on stderr."""
    _, receive = received(head(200, body=b"unread"))
    answer = receive()
    answer.fp.raw.close()
    answer.close()
    assert answer.closed


def test_a_head_that_does_not_end_is_none_and_a_long_body_is_one() -> None:
    _, receive = received(b"HTTP/1.1 103 x\r\n" + b"A: " + b"x" * 60_000 + b"\r\n" + b"B: y\r\n\r\n" + head(200))
    assert receive().status == 200
    body = bytes(dial.MAX_HEAD + 1)
    _, receive = received(head(200, body=body))
    assert receive().read() == body
    early = b"HTTP/1.1 103 x\r\nA: " + b"x" * 60_000 + b"\r\n\r\n"
    _, receive = received(early * 5 + head(200))
    with pytest.raises(Exception, match="more than 262144 bytes"):
        receive()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "no answer within 4 s"), (TimeoutError("timed out"), "no answer within 4 s"),
        (TimeoutError("_ssl.c: The handshake operation timed out"), "no answer within 4 s"),
        (TimeoutError("not done after 9 s"), "not done after 9 s"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"), (ValueError("odd"), "odd"),
        (ValueError(), "ValueError"),
    ],
)  # fmt: skip
def test_a_failure_is_told_in_a_few_words(error: Exception, told: str) -> None:
    assert dial.reason(error, 4) == told


def test_of_two_limits_the_one_that_was_met_is_told() -> None:
    """A drip that was given up after five seconds in all was said not to have answered within thirty."""
    clock = FakeClock()
    terms = Terms(idle=30, total=5, clock=clock).begun()
    assert dial.reason_within(TimeoutError("timed out"), terms) == "no answer within 30 s"
    clock.sleep(5)
    assert dial.reason_within(TimeoutError("timed out"), terms) == "not done after 5 s"
    assert dial.reason_within(OSError("odd"), terms) == "odd"


@pytest.mark.parametrize("variable", ["GREENTIC_CA_FILES", "SSL_CERT_FILE"])
@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_nobody_waits_for_the_authorities_that_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, kind: str
) -> None:
    """The TLS library opens files by itself, and would wait for a fifo for good: the alarm ends the tests."""
    place = Path("/dev/zero") if kind == "device" else tmp_path / "ca.pem"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    monkeypatch.setenv(variable, str(place))
    signal.alarm(60)
    try:
        with pytest.raises(OSError, match=f"the file of {variable} `{place}` cannot be read: "):
            dial.tls_context(variables.listed("GREENTIC_CA_FILES"))
    finally:
        signal.alarm(0)


def test_authorities_of_a_file_are_believed_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    authority = certificate(tmp_path)[0]
    pem.write_bytes("# Autorité\n".encode() + authority.read_bytes())
    assert (
        dial.tls_context([str(pem)]).cert_store_stats()["x509_ca"] > dial.tls_context([]).cert_store_stats()["x509_ca"]
    )
    with pytest.raises(OSError, match="GREENTIC_CA_FILES .*: No such file"):
        dial.tls_context([str(tmp_path / "none")])


def test_a_file_in_place_of_the_systems_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library passes it over; whom it believed then was up to the machine."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    with pytest.raises(OSError, match=f"the file of SSL_CERT_FILE `{tmp_path}/none` cannot be read: No such file"):
        dial.tls_context([])


def test_a_silence_is_sat_out_by_later_tries_only_and_by_who_sends_at_once() -> None:
    waited: list[float] = []

    def silence(begun: Terms) -> None:
        waited.append(begun.idle)
        raise FetchError("silent") from TimeoutError()

    for terms, idles in (
        (Terms(idle=30).soon(), [5, 10, 20, 30, 30]), (Terms(idle=7).soon(), [5, 7, 7, 7, 7]), (Terms(idle=3).soon(), [3] * 5), (Terms(idle=30), [30] * 5),
    ):  # fmt: skip
        waited.clear()
        with pytest.raises(FetchError, match="silent"):
            patiently(silence, terms._replace(clock=FakeClock(), random=CountingRandom()))
        assert waited == idles
