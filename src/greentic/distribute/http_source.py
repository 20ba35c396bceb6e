"""Bundles over HTTP and HTTPS.

Rules:
1. A GET without credentials, without cookies and without content coding; what comes is the file.
2. Redirects are followed a few times, each target checked like the first; from https never back to http.
3. The address that was checked is the address that is connected to: a name is resolved once.
4. A body that ends before its announced length is `Truncated`, which is not a wrong body.
5. Connecting and every wait for bytes have a limit.
"""

from __future__ import annotations

import http.client
from urllib.parse import urljoin, urlsplit

from greentic import __version__
from greentic.distribute.dial import connection, reason
from greentic.distribute.source import Body, check_address, check_host_name
from greentic.ground.errors import FetchError, Truncated

MAX_REDIRECTS = 5


class HttpSource:
    """Opens `http://` and `https://` references."""

    def open(self, reference: str) -> Body:
        url = reference
        for _ in range(MAX_REDIRECTS + 1):
            body = _HttpBody(url, reference)
            if body.location is None:
                return body
            following = urljoin(url, body.location)
            body.close()
            if not following.startswith(("http://", "https://")):
                raise FetchError(f"download bundle reference {reference}: redirect to unsupported `{following}`")
            if url.startswith("https://") and not following.startswith("https://"):
                raise FetchError(f"download bundle reference {reference}: redirect from https to `{following}`")
            url = following
        raise FetchError(f"download bundle reference {reference}: more than {MAX_REDIRECTS} redirects")


class _HttpBody:
    """One response. `location` is set instead of a body for a redirect."""

    def __init__(self, url: str, reference: str) -> None:
        self._reference = reference
        self.location: str | None = None
        self.length: int | None = None
        self._received = 0
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise FetchError(f"download bundle reference {reference}: {error}") from None
        check_host_name(host)
        if parts.username is not None or parts.password is not None:
            raise FetchError(f"download bundle reference of `{host}`: credentials do not belong into the address")
        self._connection = connection(parts.scheme, host, port, check_address)
        try:
            self._send(parts.path or "/", parts.query, reference)
        except BaseException:
            self._connection.close()
            raise

    def _send(self, path: str, query: str, reference: str) -> None:
        try:
            self._connection.connect()
            self._connection.putrequest("GET", f"{path}?{query}" if query else path, skip_accept_encoding=True)
            self._connection.putheader("Accept-Encoding", "identity")
            self._connection.putheader("User-Agent", f"greentic/{__version__}")
            self._connection.endheaders()
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
            raise FetchError(f"download bundle reference {reference}: {reason(error)}") from error
        response = self._response
        if response.status in (301, 302, 303, 307, 308):
            self.location = response.getheader("Location") or ""
            return
        if response.status != 200:
            raise FetchError(f"download bundle reference {reference}: http status: {response.status}")
        coding = (response.getheader("Content-Encoding") or "identity").lower()
        if coding != "identity":
            raise FetchError(f"download bundle reference {reference}: unexpected content coding `{coding}`")
        self.length = response.length

    def read_into(self, buffer: memoryview) -> int:
        try:
            count = self._response.readinto(buffer)
        except http.client.IncompleteRead as error:
            raise self._truncated() from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, ConnectionError):
                raise self._truncated() from error
            raise FetchError(f"read downloaded bundle body {self._reference}: {reason(error)}") from error
        self._received += count
        if not count and self.length is not None and self._received < self.length:
            raise self._truncated()
        return count

    def _truncated(self) -> Truncated:
        wanted = "more" if self.length is None else f"{self.length} bytes"
        return Truncated(
            f"read downloaded bundle body {self._reference}: the connection ended after {self._received} bytes, "
            f"announced {wanted}"
        )

    def close(self) -> None:
        self._connection.close()
