"""The embedded distributor: a directory of bundles over HTTP (formats: delivery 2).

GET and HEAD with Range, ETag and conditions, and a page for people. Any plain web server does as well; this one is there so
that a laptop needs nothing else.

Rules:
1. A connection on which nothing moves for a minute is closed.
2. What lies in the directory is for everybody who asks, but for names that begin with a dot and private keys.
3. Where there is no room, the connection that waited longest for its next request makes room; if each is at work, a new one gets 503.
"""

from __future__ import annotations

import html
import os
import re
import select
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from greentic import __version__
from greentic.distribute.preconditions import judged, part
from greentic.ground.clock import CLOCK
from greentic.model.secret_text import PRIVATE_KEY

IDLE_SECONDS = 60.0
"""How long nothing may move on a connection."""
CONNECTIONS = 256
"""How many are served at once, each by a thread."""
_MOST_OF_A_KEY = 64 << 10
"""Bytes of a file that may be a private key."""


def etag(status: os.stat_result) -> str:
    """A validator that changes whenever the file does."""
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'


class DirectoryHandler(BaseHTTPRequestHandler):
    """Serves one directory. Subclassed with its `root`."""

    server: DirectoryServer
    root = Path()
    rate: int | None = None
    """Bytes a second for each connection."""
    tell: Callable[[str], None] = staticmethod(print)
    """Takes a line for each request. What a client sent stands in it as it came."""
    timeout = IDLE_SECONDS
    protocol_version = "HTTP/1.1"
    server_version = f"greentic/{__version__}"
    sys_version = ""

    def do_GET(self) -> None:
        self._serve(body=True)

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def _asked(self, name: str) -> str | None:
        found: list[str] = self.headers.get_all(name, [])
        return ", ".join(found) if found else None

    def _serve(self, *, body: bool) -> None:
        with self.server.busy(self.connection):
            self._answer(body=body)

    def _answer(self, *, body: bool) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # nobody reads a body here, so what follows is no request
        path = self._locate()
        if path is None:
            self._text(HTTPStatus.NOT_FOUND, "no such file", body=body)
        elif path.is_dir():
            self._listing(path, body=body)
        else:
            self._file(path, body=body)

    def _parts(self) -> list[str]:
        """The names that a request's path is made of; a name need not be UTF-8."""
        return [p for p in unquote(urlsplit(self.path).path, errors="surrogateescape").split("/") if p]

    def _locate(self, *more: str) -> Path | None:
        """The file or directory that a request names, or one in it, if it is below the root and no dot name."""
        parts = [*self._parts(), *more]
        if any(p.startswith(".") or "\0" in p or "\\" in p for p in parts):
            return None
        try:
            real = self.root.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        return real if real.is_relative_to(self.root.resolve()) else None

    def _file(self, path: Path, *, body: bool) -> None:
        try:
            file = os.fdopen(
                os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
            )  # a fifo would wait for a writer
        except OSError:
            self._text(HTTPStatus.FORBIDDEN, "the file cannot be read", body=body)
            return
        with file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                self._text(HTTPStatus.FORBIDDEN, "not a regular file", body=body)
                return
            small = os.pread(file.fileno(), _MOST_OF_A_KEY, 0) if status.st_size <= _MOST_OF_A_KEY else b""
            if re.search(PRIVATE_KEY, small.decode("latin-1")):
                self._text(HTTPStatus.FORBIDDEN, "a private key is given to nobody", body=body)
                return
            tag = etag(status)
            match judged(self._asked, tag, status.st_mtime):
                case "unchanged":
                    self._head(HTTPStatus.NOT_MODIFIED, [("ETag", tag)])
                    return
                case "failed":
                    self._text(HTTPStatus.PRECONDITION_FAILED, "the file is another one", body=body)
                    return
                case "wanted":
                    span = part(self._asked, tag, status.st_size)
            headers = [
                ("Content-Type", "application/octet-stream"),
                ("Accept-Ranges", "bytes"),
                ("ETag", tag),
                ("Last-Modified", formatdate(status.st_mtime, usegmt=True)),
            ]
            if isinstance(span, str):
                self._head(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    [*headers, ("Content-Range", f"bytes */{status.st_size}"), ("Content-Length", "0")],
                )
                return
            first, count = (0, status.st_size) if span is None else (span.first, span.last - span.first + 1)
            if span is not None:
                headers.append(("Content-Range", f"bytes {span.first}-{span.last}/{status.st_size}"))
            code = HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT
            self._head(code, [*headers, ("Content-Length", str(count))])
            if body:
                self._send_file(file.fileno(), first, count)

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        self.wfile.flush()
        most = 1 << 24 if self.rate is None else max(min(self.rate // 50, 1 << 24), 1)
        due = CLOCK.monotonic()
        while count:
            sent = self._sent(fd, offset, min(count, most))
            if not sent:  # the client went away or takes nothing, or the file was cut
                self.close_connection = True
                return
            offset, count = offset + sent, count - sent
            if self.rate is not None:  # like a thin line: each connection its own
                due += sent / self.rate
                CLOCK.sleep(max(due - CLOCK.monotonic(), 0.0))

    def _sent(self, fd: int, offset: int, count: int) -> int:
        """How much of so many bytes the client took; none if it takes no more."""
        while True:
            try:
                return os.sendfile(self.connection.fileno(), fd, offset, count)
            except BlockingIOError:
                room = select.poll()
                room.register(self.connection, select.POLLOUT)
                if not room.poll(self.timeout * 1000):
                    return 0
            except OSError:
                return 0

    def _listing(self, directory: Path, *, body: bool) -> None:
        rows = []
        base = "".join(f"/{quote(os.fsencode(part), safe='')}" for part in self._parts())
        try:
            names = sorted(entry.name for entry in directory.iterdir())
        except OSError:
            self._text(HTTPStatus.FORBIDDEN, "the directory cannot be read", body=body)
            return
        for name in names:
            found = self._locate(name)
            if found is None or not (found.is_dir() or found.is_file()):
                continue  # what would not be served: links to nowhere or elsewhere, what is no file
            slash = "/" if found.is_dir() else ""
            size = "" if slash else f"{found.stat().st_size:,}"
            place = f"{base}/{quote(os.fsencode(name), safe='')}{slash}"
            rows.append(f'<tr><td><a href="{place}">{html.escape(name)}{slash}</a></td><td class="n">{size}</td></tr>')
        page = _PAGE.format(
            path=html.escape(urlsplit(self.path).path), rows="\n".join(rows) or "<tr><td>nothing here yet</td></tr>"
        )
        data = page.encode(errors="replace")
        self._head(HTTPStatus.OK, [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(data)))])
        if body:
            self.wfile.write(data)

    def _text(self, code: HTTPStatus, text: str, *, body: bool) -> None:
        data = text.encode()
        self._head(code, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(data)))])
        if body:
            self.wfile.write(data)

    def _head(self, code: HTTPStatus, headers: list[tuple[str, str]]) -> None:
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        self.tell(f"{self.address_string()} {format % args}")


class DirectoryServer(ThreadingHTTPServer):
    """The server of one directory."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, root: Path, host: str, port: int, rate: int | None = None, tell: Callable[[str], None] = print
    ) -> None:
        """`rate` limits each connection, in bytes a second; `tell` takes a line for each request."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        handler = type("Handler", (DirectoryHandler,), {"root": root, "rate": rate, "tell": staticmethod(tell)})
        self._places = threading.Lock()
        self._idle: dict[socket.socket, None] = {}
        """Connections that wait for a request, in the order of beginning to."""
        self._busy: set[socket.socket] = set()
        super().__init__((host, port), handler)

    def process_request(self, request: _Connection, client_address: object) -> None:
        """Give a connection to a thread of its own, if there is room (rule 3)."""
        assert isinstance(request, socket.socket)
        with self._places:
            if full := len(self._idle) + len(self._busy) >= CONNECTIONS:
                longest = next(iter(self._idle), None)
                if longest is not None:
                    del self._idle[longest]
                    _hang_up(longest)
                    full = False
            if not full:
                self._idle[request] = None
        if not full:
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.setblocking(False)
            request.sendall(_NO_ROOM)
        self.shutdown_request(request)

    @contextmanager
    def busy(self, connection: socket.socket) -> Iterator[None]:
        """While a request of a connection is answered, it makes no room for others."""
        with self._places:
            self._idle.pop(connection, None)
            self._busy.add(connection)
        try:
            yield
        finally:
            with self._places:
                self._busy.discard(connection)
                self._idle[connection] = None

    def close_request(self, request: _Connection) -> None:
        assert isinstance(request, socket.socket)
        with self._places:
            self._idle.pop(request, None)
        super().close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error of ours."""


def _hang_up(connection: socket.socket) -> None:
    """End a connection that a thread waits for, so that the thread ends."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


_NO_ROOM = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_Connection = socket.socket | tuple[bytes, socket.socket]
"""As the library types it; for TCP it is the first."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>bundles at {path}</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 46rem; padding: 0 1rem; color: #1c2a22; }}
 h1 {{ font-size: 1.3rem; }} table {{ border-collapse: collapse; width: 100%; }}
 td {{ border-top: 1px solid #d9e4dd; padding: .4rem .2rem; }} .n {{ text-align: right; color: #5b6b61; }}
 a {{ color: #17653f; text-decoration: none; }} a:hover {{ text-decoration: underline; }} p {{ color: #5b6b61; }}
</style></head><body>
<h1>Bundles at {path}</h1>
<table>
{rows}
</table>
<p>A worker pulls a file by its address and refuses it unless its sha256 is the pinned one.</p>
</body></html>
"""
