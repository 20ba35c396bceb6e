"""Requests that components make, under the egress policy (spec: packs-flows-components 4.7, 4.8).

Rules:
1. The host, and every address behind it, is checked before anything is sent; the address that was checked is connected to.
2. Redirects are not followed: the component gets them, and what it asks for next is checked like anything else.
3. Answers are bounded in bytes and time. Nothing of the worker's own credentials is ever sent.
"""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from greentic.distribute.dial import CONNECT_SECONDS, connection, reason
from greentic.model.egress import EgressPolicy, refused_address, refused_host
from greentic.wasm.host import EgressFailed, EgressRefused, HttpResponse

MAX_RESPONSE = 16 << 20
"""Bytes of an answer's body."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


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
            raise EgressFailed(f"unknown method `{method[:20]}`")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise EgressFailed(f"the url cannot be read: {error}") from None
        if parts.scheme not in ("http", "https"):
            raise EgressRefused(f"`{parts.scheme}` urls are not available")
        refused = refused_host(self._policy, host)
        if refused is not None:
            raise EgressRefused(refused)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        opened = connection(parts.scheme, host, port, self._check, connect=min(seconds, CONNECT_SECONDS), idle=seconds)
        try:
            opened.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in _OURS:
                    opened.putheader(name, value)
            if body is not None or method in ("POST", "PUT", "PATCH"):
                opened.putheader("Content-Length", str(len(body or b"")))
            opened.endheaders(body or None)
            answer = opened.getresponse()
            data = answer.read(MAX_RESPONSE + 1)
        except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
            raise EgressFailed(f"`{host}`: {reason(error, seconds)}") from None
        finally:
            opened.close()
        if len(data) > MAX_RESPONSE:
            raise EgressFailed(f"`{host}`: the answer is larger than {MAX_RESPONSE} bytes")
        return HttpResponse(answer.status, [(k.lower(), v) for k, v in answer.getheaders()], data)

    def _check(self, host: str, address: str) -> None:
        refused = refused_address(self._policy, address)
        if refused is not None:
            raise EgressRefused(f"`{host}`: {refused}")
