"""Connections to addresses that were checked, and reading from them under a deadline.

Rules:
1. A name is resolved once, and the address that was checked is the one that is connected to.
2. Connecting has one limit for all addresses of a host together, looking up its name included.
3. Every read and write gets what is left of the deadline, however slowly the other side drips.
4. The head of an answer is bounded in bytes and lines, answers before the answer (1xx) included.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from greentic.ground.clock import CLOCK
from greentic.net.certificates import alike, check_file, check_instead
from greentic.net.terms import CONNECT_SECONDS, IDLE_SECONDS, Terms

if TYPE_CHECKING:
    import ssl

MAX_HEAD = 1 << 18
"""Bytes of all heads of an answer."""
MAX_REASON = 300
"""Characters of why a connection failed."""
MAX_INTERIM = 16
"""Answers before the answer."""
_RECEIVE_BUFFER = 1 << 21
_BLOCK = 1 << 16

Check = Callable[[str, str], None]
"""Raises for an address of a host that must not be reached."""


def dial(
    host: str, port: int, check: Check, *, connect: float = CONNECT_SECONDS, idle: float = IDLE_SECONDS
) -> socket.socket:
    """A connection to the first address of `host` that answers; every address is checked before any is tried. Raises `OSError`."""
    ends = CLOCK.monotonic() + connect
    found = _resolve(host, port, connect)
    for *_, address in found:
        check(host, str(address[0]))
    error: OSError | None = None
    for tried, (family, kind, protocol, _, address) in enumerate(found):
        left = ends - CLOCK.monotonic()
        if left <= 0:
            break
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(
                left / (len(found) - tried)
            )  # one address that swallows packets leaves the others their part
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            connection.connect(address)
            connection.settimeout(idle)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as refused:
            connection.close()
            error = refused
            continue
        return connection
    raise error or TimeoutError(f"no connection to `{host}` within {connect:g} s")


_Sockaddr = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
_Found = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, _Sockaddr]]


def _resolve(host: str, port: int, seconds: float) -> _Found:
    """Look up a name. The resolver knows no limit of ours, so it is left behind when it takes too long."""
    told: list[_Found | BaseException] = []

    def look() -> None:
        try:
            # What is plain ASCII goes past the codec of international names, whose tables would be loaded.
            name = host.encode() if host.isascii() else host
            told.append(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
        except BaseException as error:  # noqa: BLE001  it is raised where somebody waits for it
            told.append(error)

    thread = threading.Thread(target=look, daemon=True, name="resolve")
    thread.start()
    thread.join(seconds)
    if not told:
        raise TimeoutError(f"the name `{host}` was not found within {seconds:g} s")
    found = told[0]
    if isinstance(found, BaseException):
        raise found
    if not found:
        raise OSError(f"no address for `{host}`")
    return found


def secured(plain: socket.socket, host: str, authorities: Sequence[str]) -> ssl.SSLSocket:
    """TLS over a connection, which is closed if that fails. Raises `OSError`."""
    try:
        return tls_context(authorities).wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def tls_context(authorities: Sequence[str]) -> ssl.SSLContext:
    """The authorities of this machine (`SSL_CERT_FILE` says others), and those of the files besides. Raises `OSError`."""
    import ssl

    check_instead()
    context = alike(ssl.create_default_context())
    for path in authorities:
        check_file(Path(path), _BESIDE)
        try:
            context.load_verify_locations(path)
        except OSError as error:
            raise OSError(f"the file of {_BESIDE} `{path}` cannot be read: {error}") from None
    return context


_BESIDE = "GREENTIC_CA_FILES"


class Wire(io.RawIOBase):
    """The receiving side of a connection: every read has a limit (rule 3), and a head that does not end is none (rule 4)."""

    def __init__(self, connected: socket.socket, terms: Terms) -> None:
        self._socket, self._terms = connected, terms
        self._head = MAX_HEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._socket.settimeout(self._terms.wait())
        count = self._socket.recv_into(buffer)
        if self._head > 0:
            self._head -= count
            if self._head <= 0:
                raise http.client.HTTPException(f"the head of the answer has more than {MAX_HEAD} bytes")
        return count

    def head_ended(self) -> None:
        self._head = 0


class _Kept(io.BufferedReader):
    """Stays open when the library is done with one of several answers; the socket is closed by who opened it."""

    def close(self) -> None:
        pass

    def flush(self) -> None:
        """Nothing is written here. The library asks for it when an answer is let go of, whatever became of the connection before."""


class _Readable:
    """What the library asks a socket for."""

    def __init__(self, buffered: io.BufferedReader) -> None:
        self._buffered = buffered

    def makefile(self, mode: str) -> io.BufferedReader:
        return self._buffered


def receive(connected: socket.socket, method: str, terms: Terms) -> http.client.HTTPResponse:
    """The answer to a request that was sent, its body unread; answers before it are skipped. Raises `OSError` or `HTTPException`."""
    wire = Wire(connected, terms)
    buffered = _Kept(wire, _BLOCK)
    for _ in range(MAX_INTERIM):
        answer = http.client.HTTPResponse(_Readable(buffered), method=method)  # type: ignore[arg-type]
        answer.begin()
        if answer.status >= 200 or answer.status == http.client.SWITCHING_PROTOCOLS:
            wire.head_ended()
            return answer
    raise http.client.HTTPException(f"more than {MAX_INTERIM} answers before the answer")


def reason(error: Exception, seconds: float = IDLE_SECONDS) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, TimeoutError):
        told = str(error)
        return told if told and told != "timed out" and "handshake" not in told else f"no answer within {seconds:g} s"
    text = str(getattr(error, "strerror", None) or error)  # which may be what a server sent, for as long as it likes
    return (text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…") or type(error).__name__


def reason_within(error: Exception, terms: Terms) -> str:
    """The same for a question: which of its limits it was."""
    if isinstance(error, TimeoutError) and terms.ends is not None and terms.left() < _MOMENT:
        return f"not done after {terms.total:g} s"
    return reason(error, terms.idle)


def next_step(error: Exception) -> str | None:
    """What to do about a handshake that failed, where that can be told."""
    code, text = getattr(error, "verify_code", None), str(error)
    if code in _NOBODY_VOUCHES:
        return "if its authority is to be believed, name the file with it: GREENTIC_CA_FILES"
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return (
            "it speaks no TLS: write http://; a registry over plain http is listed in GREENTIC_OCI_INSECURE_REGISTRIES"
        )
    return None


_NOBODY_VOUCHES = (18, 19, 20, 21)
"""Numbers that OpenSSL has for a chain that ends at nobody who is believed."""
_MOMENT = 0.05
"""Seconds that a wait may end before the end that it was for."""
