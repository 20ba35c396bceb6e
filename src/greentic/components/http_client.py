"""Requests that components make, under the egress policy (spec: packs-flows-components 4.7, 4.8).

Rules:
1. The host, and every address behind it, is checked before anything is sent; the address that was checked is connected to.
2. Redirects are not followed: the component gets them, and what it asks for next is checked like anything else.
3. Answers are bounded in bytes, and the whole request by one deadline, however slowly anything drips.
4. Nothing of the worker's own credentials is ever sent, and nothing that a component sends stands in an error.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import time
from urllib.parse import urlsplit

from greentic.components.host import EgressFailed, EgressRefused, HttpResponse
from greentic.net.dial import connection, reason
from greentic.net.egress import EgressPolicy, refused_address, refused_host
from greentic.net.terms import CONNECT_SECONDS

MAX_RESPONSE = 4 << 20
"""Bytes of an answer's body."""
MAX_HEADERS = 100
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OURS = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "expect",
        "proxy-authorization", "proxy-authenticate", "proxy-connection",
    }
)  # fmt: skip
"""Headers that belong to the connection, which is ours."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}\Z")
_TARGET = re.compile(r"[\x21-\x7e]{1,8192}\Z")
_HOST = re.compile(r"[0-9A-Za-z._:%-]{1,255}\Z")
_BLOCK = 1 << 16


class PolicedHttp:
    """The HTTP client of components."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy

    def send(
        self, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None, seconds: float
    ) -> HttpResponse:
        """Raises `EgressRefused` or `EgressFailed`."""
        method = method.upper()
        if method not in _METHODS:
            raise EgressFailed("the method is none of " + ", ".join(sorted(_METHODS)))
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise EgressFailed("the url cannot be read") from None
        if parts.scheme not in ("http", "https"):
            raise EgressRefused("only http and https urls are available")
        refused = refused_host(self._policy, host)
        if refused is not None:
            raise EgressRefused(refused)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _TARGET.match(target) or not _HOST.match(host):
            raise EgressFailed(f"the url on `{host[:80]!r}` has characters that must be escaped")
        sent = _checked(headers)
        deadline = time.monotonic() + seconds
        connected: socket.socket | None = None
        opened = connection(parts.scheme, host, port, self._check, connect=min(seconds, CONNECT_SECONDS), idle=seconds)
        try:
            opened.connect()
            connected = opened.sock
            _rearm(connected, deadline)
            opened.putrequest(method, target, skip_accept_encoding=True)
            for name, value in sent:
                opened.putheader(name, value)
            if body is not None or method in ("POST", "PUT", "PATCH"):
                opened.putheader("Content-Length", str(len(body or b"")))
            opened.endheaders(body or None)
            # Answers come through a socket whose every read has what is left of the time.
            opened.sock = _Deadlined(connected, deadline)
            answer = opened.getresponse()
            data = _read(answer)
        except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
            raise EgressFailed(f"`{host}`: {_told(error, seconds)}") from None
        finally:
            opened.close()
            if connected is not None:
                connected.close()
        return HttpResponse(answer.status, [(k.lower(), v) for k, v in answer.getheaders()], data)

    def _check(self, host: str, address: str) -> None:
        refused = refused_address(self._policy, address)
        if refused is not None:
            raise EgressRefused(f"`{host}`: {refused}")


def _checked(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of a component, without those of the connection. Raises `EgressFailed` for what could smuggle a request."""
    if len(headers) > MAX_HEADERS:
        raise EgressFailed(f"{len(headers)} headers are too many; at most {MAX_HEADERS}")
    for position, (name, value) in enumerate(headers):
        if not _NAME.match(name) or not _VALUE.match(value):
            raise EgressFailed(f"header {position} has a name or a value that is not allowed in HTTP")
    return [(name, value) for name, value in headers if name.lower() not in _OURS]


def _read(answer: http.client.HTTPResponse) -> bytes:
    parts: list[bytes] = []
    size, announced = 0, answer.length
    while block := answer.read(_BLOCK):
        parts.append(block)
        size += len(block)
        if size > MAX_RESPONSE:
            raise ValueError(f"the answer is larger than {MAX_RESPONSE} bytes")
    if announced is not None and size < announced:
        raise ValueError(f"the answer ended after {size} of {announced} bytes")
    return b"".join(parts)


def _rearm(connected: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connected.settimeout(left)


class _Deadlined:
    """A socket for reading an answer: every read gets what is left until the deadline (rule 3)."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connected, deadline

    def makefile(self, mode: str) -> object:
        return io.BufferedReader(_Reader(self._socket, self._deadline), _BLOCK)

    def close(self) -> None:
        """The library closes early what it still reads from; who opened the socket ends it."""


class _Reader(io.RawIOBase):
    """The raw side of `_Deadlined`."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connected, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        _rearm(self._socket, self._deadline)
        return self._socket.recv_into(buffer)


def _told(error: Exception, seconds: float) -> str:
    """Why a request failed. Texts of the library may quote what was sent, so only those of the system and ours are told."""
    if isinstance(error, OSError):
        return reason(error, seconds)
    if isinstance(error, http.client.HTTPException | UnicodeError):
        return f"the answer is no HTTP ({type(error).__name__})"
    return str(error)
