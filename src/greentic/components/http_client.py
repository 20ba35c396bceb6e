"""Requests that components make, under the egress policy (formats: components 5, 6).

Rules:
1. The host, and every address behind it, is checked before anything is sent; the address that was checked is connected to.
2. Redirects are not followed: the component gets them, and what it asks for next is checked like anything else.
3. Answers are bounded in bytes, and the whole request by one deadline, however slowly anything drips.
4. A waiting request holds no thread; only the name of a host is looked up in one.
5. Nothing of the worker's own credentials is ever sent, and nothing that a component sends stands in an error.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from urllib.parse import urlsplit

from greentic.components.host import EgressFailed, EgressRefused, HttpResponse
from greentic.ground.beside import beside
from greentic.ground.host_name import ascii_host
from greentic.net.dial import reason
from greentic.net.egress import EgressPolicy, refused_address, refused_host
from greentic.telemetry import tracing

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


class PolicedHttp:
    """The HTTP client of components."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy

    async def send(
        self, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None, seconds: float
    ) -> HttpResponse:
        """Raises `EgressRefused` or `EgressFailed`."""
        span = tracing.begin("http request", "client")
        if span is None:
            return await self._send(method, url, _traced(headers), body, seconds)
        try:
            answer = await self._send(method, url, _traced(headers), body, seconds)
        except BaseException as error:
            tracing.end(span, type(error).__name__)
            raise
        span.attributes["http.response.status_code"] = answer.status
        tracing.end(span, str(answer.status) if answer.status >= 400 else None)
        return answer

    async def _send(
        self, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None, seconds: float
    ) -> HttpResponse:
        from greentic.components.http_exchange import Destination, NoHttp, exchange  # most components ask nobody

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
        host = ascii_host(host)  # the same that was compared
        span = tracing.current()
        if span is not None:
            span.attributes |= {"http.request.method": method, "server.address": host[:255]}
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _TARGET.match(target) or not _HOST.match(host):
            raise EgressFailed(f"the url on `{host[:80]!r}` has characters that must be escaped")
        usual = 443 if parts.scheme == "https" else 80
        port = usual if port is None else port
        named = f"[{host}]" if ":" in host else host
        lines = [f"{method} {target} HTTP/1.1", f"host: {named}" if port == usual else f"host: {named}:{port}"]
        lines += [f"{name}: {value}" for name, value in _checked(headers)]
        if body is not None or method in ("POST", "PUT", "PATCH"):
            lines.append(f"content-length: {len(body or b'')}")
        head = "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1")
        try:
            async with asyncio.timeout(seconds):
                addresses = await _addresses(host, port)
                for address in addresses:
                    self._check(host, address)
                answer = await exchange(
                    Destination(parts.scheme, host, port, addresses), head, body,
                    bodiless=method == "HEAD", limit=MAX_RESPONSE,
                )  # fmt: skip
        except NoHttp as error:
            raise EgressFailed(f"`{host}`: {error}") from None
        except (OSError, UnicodeError, OverflowError) as error:
            raise EgressFailed(f"`{host}`: {reason(error, seconds)}") from None
        return HttpResponse(answer.status, answer.headers, answer.body)

    def _check(self, host: str, address: str) -> None:
        refused = refused_address(self._policy, address)
        if refused is not None:
            raise EgressRefused(f"`{host}`: {refused}")


def _traced(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers with those that tell the other server of the trace; what a component says of one is left to it."""
    told = tracing.told_others()
    if told and any(name.lower() in ("traceparent", "tracestate") for name, _ in headers):
        return headers
    return headers + told


def _checked(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of a component, without those of the connection. Raises `EgressFailed` for what could smuggle a request."""
    if len(headers) > MAX_HEADERS:
        raise EgressFailed(f"{len(headers)} headers are too many; at most {MAX_HEADERS}")
    for position, (name, value) in enumerate(headers):
        if not _NAME.match(name) or not _VALUE.match(value):
            raise EgressFailed(f"header {position} has a name or a value that is not allowed in HTTP")
    return [(name, value) for name, value in headers if name.lower() not in _OURS]


async def _addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order they are to be tried. Raises `OSError`."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found = await beside(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
