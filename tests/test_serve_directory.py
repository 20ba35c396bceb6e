"""The embedded distributor, one rule at a time, over a wire: what it gives in parts, what it hides, and how slowly it may be made to give."""

from __future__ import annotations

import os
import random
import re
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from greentic.distribute import serve_directory
from greentic.distribute.preconditions import ByteSpan, judged, parse_range
from greentic.distribute.serve_directory import DirectoryServer
from simulators import FakeClock
from waiting import until

DATA = random.Random(4).randbytes(5000)


class Answered(NamedTuple):
    code: int
    headers: dict[str, str]
    body: bytes


class Served:
    """A directory that is served, and one connection to it that is kept open."""

    def __init__(self, root: Path, rate: int | None = None) -> None:
        self.told: list[str] = []
        self.server = DirectoryServer(root, "127.0.0.1", 0, rate, self.told.append)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.wire = socket.create_connection(("127.0.0.1", self.server.server_address[1]), timeout=5)
        self.reader = self.wire.makefile("rb")

    def ask(self, path: str, method: str = "GET", **fields: str) -> Answered:
        """One answer; of a body so much is read as is announced, unless none may come."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: x",
            *(f"{name.replace('_', '-')}: {of}" for name, of in fields.items()),
        ]
        self.wire.sendall("\r\n".join([*lines, ""]).encode())
        return self.ask_rest(method)

    def ask_rest(self, method: str = "GET") -> Answered:
        """The answer once the head of a request is ended."""
        self.wire.sendall(b"\r\n")
        code = int(self.reader.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self.reader.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        none = method == "HEAD" or code == 304
        return Answered(code, headers, b"" if none else self.reader.read(int(headers["content-length"])))

    def close(self) -> None:
        self.reader.close()
        self.wire.close()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "served"
    root.mkdir()
    (root / "b").write_bytes(DATA)
    (root / "empty").touch()
    return root


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    served = Served(root)
    yield served
    served.close()


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", ByteSpan(0, 0)), ("bytes=2-2", ByteSpan(2, 2)), ("bytes=9-9", ByteSpan(9, 9)), ("bytes=9-", ByteSpan(9, 9)), ("bytes=0-9", ByteSpan(0, 9)),
        ("bytes=0-10", ByteSpan(0, 9)), ("bytes=3-99", ByteSpan(3, 9)), (" bytes=0- ", ByteSpan(0, 9)), ("bytes=-1", ByteSpan(9, 9)), ("bytes=-10", ByteSpan(0, 9)),
        ("bytes=-11", ByteSpan(0, 9)), ("bytes=10-", "unsatisfiable"), ("bytes=10-12", "unsatisfiable"), ("bytes=-0", "unsatisfiable"),
        ("bytes=3-2", None), ("bytes=-", None), ("bytes=0-1,3-4", None), ("items=0-1", None), ("bytes=0-1x", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_a_range_is_of_bytes_that_exist(header: str | None, span: ByteSpan | str | None) -> None:
    assert parse_range(header, 10) == span


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-5", "bytes=-1"])
def test_an_empty_file_has_no_part(header: str) -> None:
    assert parse_range(header, 0) == "unsatisfiable"


def test_a_file_is_given_whole_and_says_that_it_can_be_given_in_parts(served: Served) -> None:
    found = served.ask("/b?signed=1")
    assert (found.code, found.body) == (200, DATA)
    assert found.headers["accept-ranges"] == "bytes" and "content-range" not in found.headers
    assert found.headers["content-length"] == "5000" and found.headers["content-type"] == "application/octet-stream"
    assert re.fullmatch(r'"[0-9a-f-]+"', found.headers["etag"]) and found.headers["last-modified"].endswith(" GMT")
    empty = served.ask("/empty")
    assert (empty.code, empty.headers["content-length"], empty.body) == (200, "0", b"")


@pytest.mark.parametrize(
    ("wanted", "first", "last"), [("bytes=0-0", 0, 0), ("bytes=10-19", 10, 19), ("bytes=4990-", 4990, 4999), ("bytes=-7", 4993, 4999)]
)  # fmt: skip
def test_a_part_is_told_as_one(served: Served, wanted: str, first: int, last: int) -> None:
    found = served.ask("/b", Range=wanted)
    assert (found.code, found.body) == (206, DATA[first : last + 1])
    assert found.headers["content-range"] == f"bytes {first}-{last}/5000"
    assert found.headers["accept-ranges"] == "bytes"


def test_a_part_of_another_file_is_the_whole(served: Served) -> None:
    tag = served.ask("/b").headers["etag"]
    assert served.ask("/b", Range="bytes=1-2", If_Range=tag).body == DATA[1:3]
    found = served.ask("/b", Range="bytes=1-2", If_Range='"other"')
    assert (found.code, found.body) == (200, DATA)


def test_a_part_that_is_not_there_is_refused_with_the_size(served: Served) -> None:
    found = served.ask("/b", Range="bytes=5000-")
    assert (found.code, found.body, found.headers["content-range"]) == (416, b"", "bytes */5000")
    assert served.ask("/b").body == DATA  # the connection goes on


def test_who_has_a_file_already_is_told_so(served: Served, root: Path) -> None:
    tag = served.ask("/b").headers["etag"]
    found = served.ask("/b", If_None_Match=tag)
    assert (found.code, found.headers["etag"]) == (304, tag)
    assert served.ask("/b", If_None_Match='"other"').body == DATA
    (root / "b").write_bytes(DATA[::-1])
    os.utime(root / "b", ns=(1, 1))
    changed = served.ask("/b", If_None_Match=tag)
    assert changed.code == 200 and changed.headers["etag"] != tag


DAY = 86_400.0
LATER, SAME, BEFORE = (f"Fri, 0{day} Jan 1970 00:00:0{second} GMT" for day, second in ((3, 0), (2, 0), (1, 0)))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "wanted"), ({"If-None-Match": '"t"'}, "unchanged"), ({"If-None-Match": ' "t" '}, "unchanged"), ({"If-None-Match": "*"}, "unchanged"),
        ({"If-None-Match": 'W/"t"'}, "unchanged"), ({"If-None-Match": '"a", W/"t" ,"b"'}, "unchanged"), ({"If-None-Match": '"a,t"'}, "wanted"),
        ({"If-None-Match": "t"}, "wanted"), ({"If-None-Match": '"tt"'}, "wanted"), ({"If-None-Match": ""}, "wanted"),
        ({"If-None-Match": '"a"', "If-Modified-Since": LATER}, "wanted"),  # the tag knows better
        ({"If-Modified-Since": LATER}, "unchanged"), ({"If-Modified-Since": SAME}, "unchanged"), ({"If-Modified-Since": BEFORE}, "wanted"),
        ({"If-Modified-Since": "yesterday"}, "wanted"), ({"If-Modified-Since": ""}, "wanted"), ({"If-Modified-Since": SAME[:-4]}, "unchanged"),
        ({"If-Modified-Since": "Fri, 02 Jan 99999999999 00:00:00 GMT"}, "wanted"), ({"If-Modified-Since": f"{SAME}, {SAME}"}, "unchanged"),
        ({"If-Match": '"t"'}, "wanted"), ({"If-Match": "*"}, "wanted"), ({"If-Match": '"a", "t"'}, "wanted"), ({"If-Match": '"a"'}, "failed"),
        ({"If-Match": 'W/"t"'}, "failed"), ({"If-Match": '"a"', "If-None-Match": '"t"'}, "failed"),
    ],
)  # fmt: skip
def test_conditions_are_judged_in_their_order(fields: dict[str, str], told: str) -> None:
    assert judged(fields.get, '"t"', DAY + 0.9) == told


def test_conditions_stand_in_several_lines_and_a_part_is_joined_by_an_exact_tag_alone(served: Served) -> None:
    """A date or a weak tag is of files that differ, too: the whole is sent."""
    whole = served.ask("/b")
    tag, date = whole.headers["etag"], whole.headers["last-modified"]
    served.wire.sendall(f'GET /b HTTP/1.1\r\nHost: x\r\nIf-None-Match: "a"\r\nIf-None-Match: W/{tag}\r\n'.encode())
    assert served.ask_rest().code == 304
    assert (
        served.ask("/b", If_Modified_Since=date).code == 304
        and served.ask("/b", "HEAD", If_Modified_Since=date).code == 304
    )
    for condition in (date, f"W/{tag}", "*", f"{tag}, {tag}", ""):
        assert served.ask("/b", Range="bytes=1-2", If_Range=condition).code == 200
    assert served.ask("/b", If_Match='"other"')[0::2] == (412, b"the file is another one")
    assert served.ask("/b", If_Match=tag, If_None_Match='"x"', Range="bytes=1-2").body == DATA[1:3]


def test_a_connection_on_which_nothing_moves_is_closed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_directory.DirectoryHandler, "timeout", 0.05)
    (root / "large").write_bytes(bytes(64 << 20))
    served = Served(root)
    try:
        assert served.reader.read(1) == b""  # it never asked
        for begun in (b"GET /b HTTP/1.1\r\nHost", b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.create_connection(served.server.server_address[:2], timeout=20) as wire:
                wire.sendall(begun)
                until(lambda: not (served.server._idle or served.server._busy))  # nothing is read meanwhile
    finally:
        served.close()


def test_who_waits_longest_for_a_request_makes_room_and_who_is_answered_does_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_directory, "CONNECTIONS", 3)
    (root / "large").write_bytes(bytes(64 << 20))
    served = Served(root)
    address = served.server.server_address[:2]
    opened: list[socket.socket] = []

    def another(request: bytes = b"") -> socket.socket:
        made = socket.create_connection(address, timeout=20)
        opened.append(made)
        made.sendall(request)
        return made

    whole = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
    try:
        assert served.ask("/b").code == 200  # the first of three
        until(lambda: len(served.server._idle) == 1)
        second = another(whole)
        until(lambda: len(served.server._busy) == 1)
        third = another(b"GET /b HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n")
        assert third.recv(12) == b"HTTP/1.1 304"
        until(lambda: len(served.server._idle) == 2)  # what it was told is there before it is one that waits again
        another(whole)
        assert served.reader.read(1) == b""  # it waited longest
        until(lambda: len(served.server._busy) == 2)
        another(whole)
        while third.recv(1 << 16):
            """The rest of its answer, then the end."""
        until(lambda: len(served.server._busy) == 3)
        refused = another()
        assert refused.recv(1000).startswith(b"HTTP/1.1 503 ") and refused.recv(1) == b""
        assert second.recv(12) == b"HTTP/1.1 200"
    finally:
        for made in opened:
            made.close()
        until(lambda: not (served.server._idle or served.server._busy))
        served.close()


def test_a_head_has_all_of_the_answer_but_its_body(served: Served) -> None:
    for path, code in (("/b", 200), ("/none", 404), ("/", 200)):
        found = served.ask(path, "HEAD")
        whole = served.ask(path)  # of a body that came nevertheless this would begin with
        for headers in (found.headers, whole.headers):
            assert headers.pop("date").endswith(" GMT")  # of two moments
        assert found.code == whole.code == code and found.headers == whole.headers and len(whole.body) > 3


@pytest.mark.parametrize(
    "path",
    [
        "/none",
        "/.hidden",
        "/b/x",
        "/sub/.hidden",
        "/..%2foutside",
        "/../outside",
        "/a%00b",
        "/sub%5cb",
        "/out",
        "/circle",
    ],
)
def test_what_is_hidden_or_elsewhere_is_not_there(served: Served, root: Path, path: str) -> None:
    (root.parent / "outside").write_text("secret")
    (root / "sub").mkdir()
    for name in (".hidden", "sub/.hidden", "sub\\b"):
        (root / name).write_text("secret")
    (root / "out").symlink_to(root.parent / "outside")
    (root / "circle").symlink_to("circle")
    found = served.ask(path)
    assert (found.code, found.body) == (404, b"no such file")
    assert found.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("before", ["", "Bag Attributes\n" * 100])
def test_threat_secret_leak_a_private_key_beside_the_bundles_is_given_to_nobody(
    served: Served, root: Path, before: str
) -> None:
    """`gtc distributor serve .` where packs are signed with `--key key.pem`."""
    (root / "key.pem").write_text(f"{before}-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----\n")
    (root / "key.pem.pub").write_text("-----BEGIN PUBLIC KEY-----\nMC4CAQAw\n-----END PUBLIC KEY-----\n")
    found = served.ask("/key.pem")
    assert (found.code, found.body) == (403, b"a private key is given to nobody")
    assert served.ask("/key.pem", Range="bytes=200-").code == 403
    assert served.ask("/key.pem.pub").code == 200


def test_a_link_within_the_directory_is_followed(served: Served, root: Path) -> None:
    (root / "link").symlink_to("b")
    assert served.ask("/link").body == DATA


def test_what_cannot_be_read_is_refused_and_nobody_waits(
    served: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "fifo")
    found = served.ask("/fifo")
    assert (found.code, found.body) == (403, b"not a regular file")
    real = os.open

    def locked(path: str | Path, flags: int, *more: int) -> int:
        if Path(path).name == "b":
            assert flags & os.O_CLOEXEC and flags & os.O_NONBLOCK
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *more)

    monkeypatch.setattr(serve_directory.os, "open", locked)
    found = served.ask("/b")
    assert (found.code, found.body) == (403, b"the file cannot be read")
    monkeypatch.undo()

    def unlisted(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", unlisted)
    found = served.ask("/")
    assert (found.code, found.body) == (403, b"the directory cannot be read")


def test_a_page_lists_what_is_served_with_its_size(served: Served, root: Path) -> None:
    (root / "sub").mkdir()
    (root / "<i>").write_text("x")
    (root / "nowhere").symlink_to("absent")
    os.mkfifo(root / "fifo")
    (root / ".hidden").touch()
    found = served.ask("/")
    assert found.code == 200 and found.headers["content-type"] == "text/html; charset=utf-8"
    rows = re.findall(r'<tr><td><a href="([^"]*)">([^<]*)</a></td><td class="n">([^<]*)</td></tr>', found.body.decode())
    assert rows == [
        ("/%3Ci%3E", "&lt;i&gt;", "1"),
        ("/b", "b", "5,000"),
        ("/empty", "empty", "0"),
        ("/sub/", "sub/", ""),
    ]
    assert b"nothing here yet" in served.ask("/sub").body and b"nothing here yet" not in found.body


def test_a_system_that_sends_little_at_once_is_given_the_rest(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.sendfile
    monkeypatch.setattr(serve_directory.os, "sendfile", lambda to, fd, at, count: real(to, fd, at, min(count, 700)))
    assert served.ask("/b").body == DATA and served.ask("/b", Range="bytes=100-").body == DATA[100:]


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_file_that_was_cut_ends_the_connection(served: Served, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """What was announced cannot come any more; a client that waited for it would wait for ever."""
    real, calls = os.sendfile, list[int]()

    def failing(to: int, fd: int, at: int, count: int) -> int:
        calls.append(at)
        if at:
            if how == "cut":
                return 0
            raise BrokenPipeError(32, "Broken pipe")
        return real(to, fd, at, 1000)

    monkeypatch.setattr(serve_directory.os, "sendfile", failing)
    assert served.ask("/b").body == DATA[:1000]
    assert served.reader.read(1) == b"" and calls == [0, 1000]


@pytest.mark.parametrize(("rate", "piece"), [(500, 10), (50_000, 1000), (49, 1)])
def test_a_thin_line_is_as_thin_as_it_was_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, rate: int, piece: int
) -> None:
    clock, real, pieces = FakeClock(), os.sendfile, list[int]()
    monkeypatch.setattr(serve_directory, "CLOCK", clock)

    def counted(to: int, fd: int, at: int, count: int) -> int:
        pieces.append(count)
        return real(to, fd, at, count)

    monkeypatch.setattr(serve_directory.os, "sendfile", counted)
    served = Served(root, rate)
    try:
        began = clock.monotonic()
        assert served.ask("/b", Range="bytes=0-999").body == DATA[:1000]
        assert served.ask("/empty").code == 200  # the last pause is over
        assert clock.monotonic() - began == pytest.approx(1000 / rate, rel=0.05, abs=0.01)
    finally:
        served.close()
    assert pieces[0] == piece and sum(pieces) == 1000 and max(pieces) == piece


def test_each_request_is_told_before_it_is_answered(served: Served) -> None:
    served.ask("/none")
    assert served.told == ['127.0.0.1 "GET /none HTTP/1.1" 404 -']


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("localhost", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_an_address_is_of_the_family_that_it_looks_like(
    monkeypatch: pytest.MonkeyPatch, host: str, family: socket.AddressFamily
) -> None:
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        ThreadingHTTPServer, "__init__", lambda server, *told: made.append((server.address_family, told[0]))
    )
    server = DirectoryServer(Path("/x"), host, 80)
    assert made == [(family, (host, 80))]
    # Workers that hang do not keep the program, and one that is started again gets its port.
    assert server.daemon_threads and server.allow_reuse_address
