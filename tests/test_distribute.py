"""Fetching: what a source may do, what a server may lie about, and the embedded distributor."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.cli import distributor as distributor_command
from greentic.distribute.fetch import FetchLimits, fetch_into
from greentic.distribute.preconditions import ByteSpan, parse_range
from greentic.distribute.serve_directory import DirectoryServer
from greentic.distribute.sources import source_for
from greentic.ground.errors import FetchError, GreenticError, TooLarge, Truncated
from greentic.net.addresses import check_address, check_host_name
from simulators import Answer, FakeClock, SimulatedDistributor

BIG = random.Random(7).randbytes(5_000_001)


def fetched(tmp_path: Path, *answers: Answer, **options: object) -> tuple[object, bytes, SimulatedDistributor]:
    source = SimulatedDistributor(*answers)
    with (tmp_path / "out").open("w+b") as file:
        result = fetch_into(file, "x", source=source, clock=FakeClock(), **options)
        file.seek(0)
        return result, file.read(), source


@pytest.mark.parametrize("data", [b"", b"small", BIG, BIG[: 1 << 20], BIG[: (1 << 20) + 1]])
@pytest.mark.parametrize("announced", [True, False])
def test_the_digest_is_over_exactly_the_bytes_in_the_file(tmp_path, data, announced):
    seen: list[int] = []
    answer = Answer(data, length=len(data) if announced else None)
    result, on_disk, _ = fetched(tmp_path, answer, progress=lambda done, total: seen.append(done))
    assert (
        on_disk == data and result.digest == f"sha256:{hashlib.sha256(data).hexdigest()}" and result.size == len(data)
    )
    assert not data or seen[-1] == len(data)


@pytest.mark.parametrize("cut_at", [0, 3, 2_000_000])
def test_threat_truncation_is_not_a_wrong_digest(tmp_path, cut_at):
    with pytest.raises(Truncated, match="announced 5000001"):
        fetched(tmp_path, Answer(BIG, cut_at=cut_at))
    result, on_disk, source = fetched(tmp_path, Answer(BIG, cut_at=cut_at), Answer(BIG))
    assert on_disk == BIG and source.opened == 2 and result.size == len(BIG)


def test_what_may_pass_is_tried_again_and_what_may_not_is_not(tmp_path):
    _, on_disk, source = fetched(tmp_path, Answer(refuse="down", passing=True), Answer(busy=2.5), Answer(b"ok"))
    assert on_disk == b"ok" and source.opened == 3
    source = SimulatedDistributor(Answer(refuse="http status: 404"))
    with (tmp_path / "x").open("w+b") as file, pytest.raises(FetchError, match="404"):
        fetch_into(file, "x", source=source, clock=FakeClock())
    assert source.opened == 1


@pytest.mark.parametrize("answer", [Answer(BIG), Answer(BIG, length=None), Answer(b"x" * 600, length=500)])
def test_a_body_above_the_limit_is_refused_and_not_kept_in_memory(tmp_path, answer):
    with pytest.raises(TooLarge, match="the limit is"):
        fetched(tmp_path, answer, limits=FetchLimits(bundle_bytes=550))


def test_a_slow_drip_ends_at_the_total_limit(tmp_path):
    clock = FakeClock()
    answer = Answer(BIG, chunk=1000, stall=lambda: clock.sleep(10))
    source = SimulatedDistributor(answer)
    with (tmp_path / "x").open("w+b") as file, pytest.raises(FetchError, match="not done after 60 s"):
        fetch_into(file, "x", source=source, clock=clock, limits=FetchLimits(total_seconds=60))


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("", "cannot be empty"), ("ftp://h/x", "unsupported bundle reference ftp://h/x; expected local path"), ("HTTPSX://h/x", "unsupported"),
        ("file:///no/such/file", r"unsupported .* \(file not found\)"), ("no-such-path", "unsupported"),
    ],
)  # fmt: skip
def test_references_that_are_refused_without_network(reference, text):
    with pytest.raises(FetchError, match=text):
        source_for(reference)


def test_files(tmp_path):
    named = tmp_path / "bündel 1%20.gtbundle"
    for path in (tmp_path / "b", named):
        path.write_bytes(BIG)
    for reference in (
        f" file://{tmp_path}/b ", f"{tmp_path}/b", f"file://localhost{tmp_path}/b", f"file://{named}", named.as_uri(), str(named)
    ):  # fmt: skip
        with (tmp_path / "out").open("w+b") as file:
            assert fetch_into(file, reference).size == len(BIG)
    with (tmp_path / "out").open("w+b") as file, pytest.raises(FetchError, match="is a directory"):
        fetch_into(file, str(tmp_path))
    os.mkfifo(tmp_path / "p")
    with (tmp_path / "out").open("w+b") as file, pytest.raises(FetchError, match="not a regular file"):
        fetch_into(file, str(tmp_path / "p"))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_threat_ssrf_addresses(address):
    with pytest.raises(FetchError, match="link-local or a metadata service"):
        check_address("h", address)


def test_threat_ssrf_names_and_spellings(tmp_path):
    with pytest.raises(FetchError):
        check_host_name("Metadata.Google.Internal.")
    check_address("h", "127.0.0.1")
    for url in (
        "http://169.254.169.254/x",
        "http://2852039166/x",
        "http://0xa9fea9fe/x",
        "http://u:p@h/x",
        "http:///x",
        "http://h:99999/x",
    ):
        with (tmp_path / "o").open("w+b") as file, pytest.raises(GreenticError) as error:
            fetch_into(file, url, clock=FakeClock())
        assert "u:p" not in str(error.value)


class EvilServer:
    """Answers every connection with what the test scripts, then closes; with a pause, a byte at a time."""

    def __init__(self, *answers: Callable[[bytes], bytes] | bytes, pause: float = 0.0) -> None:
        self.answers, self.requests, self.pause = list(answers), list[bytes](), pause
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/b"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for index in range(100):
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                request = connection.recv(65536)
                self.requests.append(request)
                answer = self.answers[min(index, len(self.answers) - 1)]
                with contextlib.suppress(OSError):  # who asked has gone
                    self._send(connection, answer(request) if callable(answer) else answer)
                    connection.shutdown(socket.SHUT_RDWR)

    def _send(self, connection: socket.socket, data: bytes) -> None:
        if not self.pause:
            connection.sendall(data)
            return
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(self.pause)


def head(status: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


def pulled(tmp_path: Path, url: str) -> bytes:
    with (tmp_path / "o").open("w+b") as file:
        fetch_into(file, url, clock=FakeClock())
        file.seek(0)
        return file.read()


OK = head("200 OK", "Content-Length: 4", body=b"body")


def test_plain_chunked_and_redirected_bodies(tmp_path):
    assert pulled(tmp_path, EvilServer(OK).url) == b"body"
    assert (
        pulled(tmp_path, EvilServer(head("200 OK", "Transfer-Encoding: chunked", body=b"4\r\nbody\r\n0\r\n\r\n")).url)
        == b"body"
    )
    server = EvilServer(head("302 Found", "Location: /moved?x=1", "Content-Length: 0"), OK)
    assert pulled(tmp_path, server.url) == b"body"
    assert server.requests[1].startswith(b"GET /moved?x=1 ") and b"Accept-Encoding: identity" in server.requests[0]
    assert b"uthorization" not in server.requests[1]


def test_an_address_is_asked_for_with_escapes_whoever_wrote_it(tmp_path):
    """People write blanks and letters beyond ASCII, and servers redirect to them."""
    server = EvilServer(head("302 Found", "Location: /ü b%20c?d=é f", "Content-Length: 0"), OK)
    assert pulled(tmp_path, f"{server.url}/mein bündel%21?x=ä y") == b"body"
    asked = [request.split(b" HTTP/1.1")[0] for request in server.requests]
    assert asked[0].endswith(b"/mein%20b%C3%BCndel%21?x=%C3%A4%20y")
    assert asked[1] == b"GET /%C3%BC%20b%20c?d=%C3%A9%20f"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (head("302 Found", "Location: ftp://x/y"), "redirect to unsupported"), (head("302 Found", "Location: /b"), "more than 10 redirects"),
        (head("302 Found", "Location: http://169.254.169.254/"), "metadata service"), (head("404 Not Found"), "http status: 404"),
        (head("206 Partial", "Content-Length: 2", body=b"bo"), "http status: 206"),
        (head("200 OK", "Content-Length: 1", "Content-Length: 2", body=b"x"), "announces the lengths 1, 2"), (head("200 OK", "Content-Length: +1", body=b"x"), "announces the lengths"),
        (head("200 OK", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), "transfer coding `gzip, chunked`"), (head("302 Found"), "does not say where to"),
        (head("302 Found", "Location: http://[::1"), "cannot be read"), (head("200 OK", *["X: y"] * 200), "download bundle reference"), (head("200 OK", "X: " + "y" * (1 << 19)), "download bundle reference"),
        (head("103 Early Hints") * 40, "answers before the answer"),
        (b"nonsense\r\n\r\n", "download bundle reference"), (b"", "download bundle reference"), (head("200 OK", "Content-Length: 9", body=b"bo"), "ended after 2 bytes"),
        (head("200 OK", "Transfer-Encoding: chunked", body=b"4\r\nbo"), "connection ended"), (head("200 OK", "Transfer-Encoding: chunked", body=b"zz\r\n"), "connection ended"),
    ],
)  # fmt: skip
def test_threat_lying_server(tmp_path, answer, text):
    with pytest.raises(FetchError, match=text):
        pulled(tmp_path, EvilServer(answer).url)


def test_nobody_listens(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(FetchError, match="Connection refused"):
        pulled(tmp_path, f"http://127.0.0.1:{port}/b")


# -- the embedded distributor ---------------------------------------------------------------------------------------


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_ranges(size, first, last):
    span = parse_range(f"bytes={first}-{last}", size)
    if last < first:
        assert span is None
    elif first >= size:
        assert span == "unsatisfiable"
    else:
        assert span == ByteSpan(first, min(last, size - 1))
    suffix = parse_range(f"bytes=-{first}", size)
    assert suffix == "unsatisfiable" if not first or not size else suffix == ByteSpan(max(0, size - first), size - 1)


@pytest.mark.parametrize("header", [None, "", "bytes=-", "bytes=1-2,3-4", "lines=1-2", "bytes=a-b", "bytes=٣-"])
def test_ranges_that_are_ignored(header):
    assert parse_range(header, 10) is None


@pytest.fixture
def distributor(tmp_path):
    root = tmp_path / "dist"
    (root / "sub").mkdir(parents=True)
    (root / "b.gtbundle").write_bytes(BIG)
    (root / "<i>.txt").write_text("x")
    (root / ".secret").write_text("s")
    (tmp_path / "outside").write_text("o")
    (root / "link").symlink_to(tmp_path / "outside")
    server = DirectoryServer(root, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_the_distributor_serves_whole_and_parts(distributor, tmp_path):
    code, headers, body = ask(distributor, "/b.gtbundle")
    assert (code, body) == (200, BIG) and headers["accept-ranges"] == "bytes"
    tag = headers["etag"]
    code, headers, body = ask(distributor, "/b.gtbundle", Range="bytes=10-19", If_Range=tag)
    assert (code, body, headers["content-range"]) == (206, BIG[10:20], f"bytes 10-19/{len(BIG)}")
    assert ask(distributor, "/b.gtbundle", Range="bytes=10-19", If_Range='"other"')[0] == 200
    assert ask(distributor, "/b.gtbundle", Range=f"bytes={len(BIG)}-")[0] == 416
    assert ask(distributor, "/b.gtbundle", If_None_Match=tag)[0] == 304
    code, headers, body = ask(distributor, "/b.gtbundle", "HEAD")
    assert (code, body, headers["content-length"]) == (200, b"", str(len(BIG)))
    assert pulled(tmp_path, f"http://127.0.0.1:{distributor}/b.gtbundle") == BIG


def test_what_a_client_asks_steers_no_terminal_and_its_body_is_no_request(tmp_path, capsys):
    """The line of a request was printed as it came: a title, a cleared screen, whatever a stranger sent."""
    server = DirectoryServer(tmp_path, "127.0.0.1", 0, tell=distributor_command._tell)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    inner = b"GET /inner HTTP/1.1\r\nHost: h\r\n\r\n"
    try:
        for request in (
            b"GET /\x1b]0;owned\x07\x9b2J HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            b"GET /outer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(inner), inner),
            b"GET /chunks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
            % (len(inner), inner),
        ):
            with socket.create_connection(server.server_address[:2], timeout=10) as client:
                client.sendall(request)
                answers = b"".join(iter(lambda: client.recv(1 << 16), b""))
            assert answers.count(b"HTTP/1.1 404") == 1 == answers.count(b"HTTP/1.1"), "one question, one answer"
            assert b"Connection: close" in answers
    finally:
        server.shutdown()
        server.server_close()
    told = capsys.readouterr().out
    assert "GET /\\x1b]0;owned\\x07\\x9b2J HTTP/1.1" in told and told.count("\n") == 3
    assert not set(told) & {"\x1b", "\x07", "\x9b"} and "inner" not in told


def test_the_distributor_shows_what_it_serves_whatever_lies_beside_it(distributor, tmp_path):
    """A link to nowhere or a name that is no text used to end the page without an answer, and a fifo to wait for a writer."""
    root = tmp_path / "dist"
    (root / "nowhere").symlink_to("absent")
    (root / "itself").symlink_to("itself")
    os.mkfifo(root / "fifo")
    (root / "sub" / "a b%20.txt").write_text("1")
    Path(os.fsdecode(os.fsencode(root) + b"/sub/\xff.txt")).write_text("2")
    code, _, page = ask(distributor, "/")
    assert code == 200 and b"b.gtbundle" in page
    assert not any(name in page for name in (b"nowhere", b"itself", b"fifo", b"link"))
    assert ask(distributor, "/fifo")[0] == 403
    for path in ("/sub", "/sub/"):  # what is linked to does not depend on a slash at the end
        code, _, page = ask(distributor, path)
        found = re.findall(rb'href="([^"]*)"', page)
        assert code == 200 and found == [b"/sub/a%20b%2520.txt", b"/sub/%FF.txt"]
    assert [ask(distributor, place.decode())[2] for place in found] == [b"1", b"2"]


def test_the_distributor_shows_a_page_and_hides_the_rest(distributor):
    code, headers, page = ask(distributor, "/")
    assert code == 200 and headers["content-type"].startswith("text/html")
    assert b"b.gtbundle" in page and b"&lt;i&gt;" in page and b"<i>" not in page and b".secret" not in page
    for path in ("/.secret", "/link", "/../outside", "/%2e%2e/outside", "/sub/../../outside", "/nope", "/a%00b"):
        assert ask(distributor, path)[0] == 404
