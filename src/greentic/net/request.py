"""One HTTP request for delivery: redirects, limits and what a server may not do (formats: delivery 2).

Rules:
1. Redirects are followed a few times, each target checked like the first; from https never to http, and never further inside than
   the answer came from.
2. The address that was checked is the address that is connected to; through a proxy, which resolves names itself, the host is checked
   as text.
3. Credentials go to the origin that they are for and to no other: a redirect elsewhere loses them, and what is asked after it comes
   from there, not from the address that was written.
4. No content coding is asked for and none is undone: what comes is the file, whatever a label says of it. The digest decides.
5. What a request may not hold as it is (blanks, letters beyond ASCII) is escaped in paths and queries, written or redirected to, as
   browsers and curl do.
6. An answer is looked at as a whole: what stands twice must say the same, and lengths are compared with what came.
7. A host is made ASCII before anything is asked of it (`ground/host_name`).
8. This asks once; `net/terms.patiently` asks again.
"""

from __future__ import annotations

import email.utils
import http.client
import socket
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import msgspec

from greentic import __version__
from greentic.ground.clock import unix_seconds
from greentic.ground.errors import FetchError, ServerBusy, Truncated
from greentic.ground.host_name import ascii_host
from greentic.ground.optional import done_without
from greentic.net.addresses import WEB, Reach, check_address, check_host_name, lower_scheme, reach, shown
from greentic.net.dial import dial, next_step, reason_within, receive, secured
from greentic.net.proxies import Proxy, literal, proxy_for
from greentic.net.terms import Terms

PULLING = "download bundle reference"
"""What is done where nothing else is said: tools look for these words in the log of a worker."""
MAX_REDIRECTS = 10
"""As many as the existing worker follows."""
MAX_RETRY_AFTER = 60.0
MAX_TARGET = 16 << 10
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429)
_MAY_HAVE_ENDED = (400, 401, 403)
_PIECE = 1 << 18
_PLAIN = "".join(map(chr, range(0x21, 0x7F)))
"""What a request target may hold, escapes included."""


class Upload(msgspec.Struct, frozen=True):
    """A body that is sent from a file, from its beginning."""

    file: BinaryIO
    size: int


_CODINGS = ("gzip", "x-gzip", "deflate", "compress", "br", "zstd")
"""Codings of a body; object stores keep other words under that name, which mean nothing."""


class Answer(NamedTuple):
    """A response whose body has not been read."""

    status: int
    headers: http.client.HTTPMessage
    body: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    url: str
    """Where it came from, after redirects."""
    reach: Reach = Reach.LOOPBACK
    """How far inside that is; the innermost of all that answered on the way is not less than this."""
    terms: Terms = Terms()
    redirected: bool = False

    def close(self) -> None:
        self.connection.close()

    def one(self, name: str) -> str:
        """The value of a field that may stand once; empty if it is missing or stands with two values (rule 6)."""
        found = {value.strip() for value in self.headers.get_all(name, [])}
        return found.pop() if len(found) == 1 else ""

    def origin(self) -> tuple[str, str, int]:
        return origin(self.url)

    def coding(self) -> str:
        """How the body is packed although nobody asked (`Accept-Encoding: identity`), in words; empty where it is not."""
        found = [value.strip().lower() for value in self.headers.get_all("Content-Encoding", [])]
        told = ", ".join(value for value in found if any(name.strip() in _CODINGS for name in value.split(",")))
        if not told:
            return ""
        said = f"{shown(self.url)[:200]} sends it as `Content-Encoding: {told[:80]}`"
        return f"{said}, which was not asked for; let it send the file as it is"


def send(
    url: str,
    what: str,
    terms: Terms,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | Upload | None = None,
    authorization: str | None = None,
    outermost: Reach = Reach.LOOPBACK,
    doing: str = PULLING,
) -> Answer:
    """Send a request and follow redirects. Raises `FetchError`.

    `doing` and `what` are what errors call it. `outermost` is the reach of who led here.
    """
    terms, told = terms.begun(), f"{doing} {shown(what)}"
    if terms.offline:
        raise FetchError(f"{told}: this worker runs without a network (GREENTIC_OFFLINE)")
    first = _parts(url, told)
    parts = first
    for _ in range(MAX_REDIRECTS + 1):
        secret = authorization if _origin(parts) == _origin(first) else None
        answer = _once(parts, told, terms, method, headers or {}, body, secret, outermost)
        if answer.status not in _REDIRECTS or method not in ("GET", "HEAD"):
            return answer._replace(redirected=parts is not first)
        outermost = min(outermost, answer.reach)
        location = answer.one("Location")
        answer.close()
        if not location:
            raise FetchError(f"{told}: http status: {answer.status} that does not say where to")
        try:
            # The bytes that came, as `http.client` reads them.
            following = lower_scheme(urljoin(url, _escaped(location.encode("latin-1"))))
        except ValueError:
            raise FetchError(f"{told}: redirect to an address that cannot be read") from None
        if not following.startswith(WEB):
            raise FetchError(f"{told}: redirect to unsupported `{shown(following)[:200]}`")
        if parts.scheme == "https" and not following.startswith("https://"):
            raise FetchError(f"{told}: redirect from https to `{shown(following)[:200]}`")
        url, parts = following, _parts(following, told)
    raise FetchError(f"{told}: more than {MAX_REDIRECTS} redirects")


def read_body(answer: Answer, what: str, limit: int) -> bytes:
    """The whole body of an answer, which is closed. Raises `FetchError` that names `what` for one that is too large, slow or cut."""
    parts: list[bytes] = []
    size, announced = 0, answer.body.length
    if coded := answer.coding():
        answer.close()
        raise FetchError(f"{what} could not be read: {coded}")
    try:
        while size <= limit and (piece := answer.body.read1(_PIECE)):
            parts.append(piece)
            size += len(piece)
    except (http.client.IncompleteRead, ConnectionError) as error:
        raise Truncated(f"{what} was cut after {size} bytes") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(f"{what} could not be read: {reason_within(error, answer.terms)}") from error
    finally:
        answer.close()
    if size > limit:
        raise FetchError(f"{what} is larger than {limit} bytes")
    if announced is not None and size < announced:
        raise Truncated(f"{what} was cut after {size} of {announced} bytes")
    return b"".join(parts)


def check_status(answer: Answer, what: str, *expected: int, doing: str = PULLING, why: str = "") -> None:
    """Raise `ServerBusy` or `FetchError`, and close the answer, unless its status is one of the expected.

    `doing` and `what` are what errors call it, `why` is what the server says of it.

    What a redirect leads to may be a signed address that has ended: its refusal passes when the first address is asked anew.
    """
    if answer.status in expected:
        return
    answer.close()
    text = f"{doing} {shown(what)}: http status: {answer.status}{f' ({why})' if why else ''}"
    if answer.redirected:
        text += f" from {shown(answer.url)[:200]}, where it led to"
    if answer.redirected and answer.status in _MAY_HAVE_ENDED:
        raise ServerBusy(text)
    if answer.status in _PASSING or 500 <= answer.status <= 599:
        raise ServerBusy(text, retry_after=retry_after(answer.one("Retry-After"), unix_seconds()))
    raise FetchError(text)


def retry_after(header: str | None, now: float) -> float:
    """Seconds that a server asks to wait, at most `MAX_RETRY_AFTER`; 0 if it does not say."""
    if not header:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER)
    try:
        return min(max(email.utils.parsedate_to_datetime(text).timestamp() - now, 0.0), MAX_RETRY_AFTER)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address; of one that cannot be read, an origin that is no other's."""
    try:
        return _origin(urlsplit(url))
    except ValueError:
        return url, "", 0


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, ascii_host(parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)


def _escaped(raw: bytes) -> str:
    return quote(raw, safe=_PLAIN)


def _parts(url: str, told: str) -> SplitResult:
    """An address in its parts. Raises `FetchError` for one that nobody may be asked by."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if "%" in host and ":" not in host:
            told_as = unquote(host, errors="strict")  # as a redirect has letters beyond ASCII
            host = host if told_as.isascii() else told_as
        if not host.isascii():
            host = ascii_host(host)
            parts = parts._replace(netloc=parts.netloc.rpartition("@")[1] + host + ("" if port is None else f":{port}"))
    except ValueError as error:
        raise FetchError(f"{told}: {error}") from None
    check_host_name(host)
    if parts.username is not None or parts.password is not None:
        raise FetchError(f"{PULLING} of `{host}`: credentials do not belong into the address")
    if len(url) > MAX_TARGET:
        raise FetchError(f"{told}: an address of more than {MAX_TARGET} bytes")
    return parts


def _once(
    parts: SplitResult,
    told: str,
    terms: Terms,
    method: str,
    headers: Mapping[str, str],
    body: bytes | Upload | None,
    authorization: str | None,
    outermost: Reach,
) -> Answer:
    scheme, host, port = _origin(parts)
    proxy = proxy_for(terms.proxies, scheme, host, port)
    opened = http.client.HTTPConnection(host, port)
    opened.default_port = 443 if scheme == "https" else 80  # a Host field names no default port
    target = _escaped(((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode(errors="replace"))
    try:
        opened.sock, found = _connected(scheme, host, port, proxy, terms, outermost)
        if proxy is not None and scheme == "http":
            target = f"{scheme}://{parts.netloc}{target}"
        opened.putrequest(method, target, skip_host="Host" in headers, skip_accept_encoding=True)
        opened.putheader("Accept-Encoding", "identity")
        opened.putheader("User-Agent", f"greentic/{__version__}")
        for name, value in headers.items():
            opened.putheader(name, value)
        if authorization is not None:
            opened.putheader("Authorization", authorization)
        if proxy is not None and scheme == "http" and proxy.authorization is not None:
            opened.putheader("Proxy-Authorization", proxy.authorization)
        if body is not None:
            opened.putheader("Content-Length", str(len(body) if isinstance(body, bytes) else body.size))
        response = _answered(opened, method, body, terms)
        _check_lengths(response)
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        opened.close()
        why = reason_within(error, terms)
        way = "" if proxy is None or str(proxy) in why else f" (asked through the proxy {proxy})"
        raise FetchError(f"{told}: {why}{way}", hint=next_step(error)) from error
    except BaseException:
        opened.close()
        raise
    if response.status == http.client.PROXY_AUTHENTICATION_REQUIRED and proxy is not None:
        opened.close()
        raise FetchError(f"{told}: {_does_not_know_us(proxy)}")
    return Answer(response.status, response.msg, response, opened, parts.geturl(), found, terms)


def _answered(
    opened: http.client.HTTPConnection, method: str, body: bytes | Upload | None, terms: Terms
) -> http.client.HTTPResponse:
    """The answer to a request of which nothing was sent yet. Raises `OSError` or `HTTPException`.

    Who refuses a body (too large, no right to it) may say so and close before all of it has come: that is the answer, not the cut.
    """
    cut: OSError | None = None
    opened.sock.settimeout(terms.wait())
    try:
        opened.endheaders()
        for piece in _pieces(body):
            opened.sock.settimeout(terms.wait())
            opened.sock.sendall(piece)
    except ConnectionError as error:
        cut = error
    try:
        answer = receive(opened.sock, method, terms)
    except (OSError, http.client.HTTPException):
        if cut is not None:
            raise cut from None
        raise
    if cut is not None and answer.status < 400:
        raise cut
    return answer


def _connected(
    scheme: str, host: str, port: int, proxy: Proxy | None, terms: Terms, outermost: Reach
) -> tuple[socket.socket, Reach]:
    """A connection over which the host is asked, and how far inside that is. Raises `FetchError` or `OSError`."""
    limit = min(terms.connect, terms.left())
    if proxy is None:
        plain = dial(host, port, lambda name, address: check_address(name, address, outermost), connect=limit)
        found = reach(str(plain.getpeername()[0]))
    else:
        address = literal(host)
        if address is not None:
            check_address(host, address, outermost)
        done_without("the check of addresses behind names", f"the proxy {proxy} resolves them itself")
        plain = dial(proxy.host, proxy.port, lambda name, address: None, connect=limit)
        # A proxy is an organisation's own: what it reaches may lead to others inside, but not into this machine.
        found = Reach.PRIVATE if address is None else reach(address)
        if scheme == "https":
            _tunnel(plain, host, port, proxy, terms)
    if scheme != "https":
        return plain, found
    plain.settimeout(terms.wait())
    return secured(plain, host, terms.authorities), found


def _tunnel(plain: socket.socket, host: str, port: int, proxy: Proxy, terms: Terms) -> None:
    """Ask a proxy for a tunnel. Raises `OSError` or `FetchError`, and closes the connection, if it gives none."""
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    try:
        plain.settimeout(terms.wait())
        plain.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        # The tunnel's first byte belongs to the host: the head of the proxy's answer is read byte by byte.
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            plain.settimeout(terms.wait())
            piece = plain.recv(1)
            head += piece
            if not piece or len(head) > MAX_TARGET:
                raise ConnectionError(f"the proxy {proxy} gives no answer that is HTTP")
        status = head.split(b" ", 2)[1:2]
        if status == [b"407"]:
            raise FetchError(_does_not_know_us(proxy))  # asking again does not help
        if status != [b"200"]:
            code = b"".join(status)[:3].decode("ascii", "replace")
            raise OSError(f"the proxy {proxy} refuses a tunnel to `{name}` (http status: {code})")
    except BaseException:
        plain.close()
        raise


def _does_not_know_us(proxy: Proxy) -> str:
    return (
        f"the proxy {proxy} wants to know who we are (http status: 407); user and password belong into {proxy.variable}"
    )


def _pieces(body: bytes | Upload | None) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield from (body[at : at + _PIECE] for at in range(0, len(body), _PIECE))
    elif body is not None:
        body.file.seek(0)
        left = body.size
        while left:
            piece = body.file.read(min(_PIECE, left))
            if not piece:
                raise ValueError(f"the file ended {left} bytes early")
            left -= len(piece)
            yield piece


def _check_lengths(response: http.client.HTTPResponse) -> None:
    """Raise `HTTPException` for an answer whose length can be read in two ways (rule 6)."""
    codings = [c.strip().lower() for v in response.msg.get_all("Transfer-Encoding", []) for c in v.split(",")]
    lengths = {v.strip() for text in response.msg.get_all("Content-Length", []) for v in text.split(",")}
    if codings and codings != ["chunked"]:
        raise http.client.HTTPException(f"the answer has the transfer coding `{', '.join(codings)[:60]}`")
    if len(lengths) > 1 or any(not (n.isascii() and n.isdigit() and len(n) < 19) for n in lengths):
        raise http.client.HTTPException(f"the answer announces the lengths {', '.join(sorted(lengths))[:60]}")
    if not codings and lengths and response.length is None:
        response.length = int(lengths.pop())  # the same length told twice
