"""One HTTP request for delivery: redirects, limits and what a server may not do (spec: worker 3.3).

Rules:
1. Redirects are followed a few times, each target checked like the first; from https never to http.
2. The address that was checked is the address that is connected to.
3. Credentials go to the origin that they are for and to no other: a redirect elsewhere loses them.
4. No content coding: what comes is the file. Connecting and every wait have a limit.
"""

from __future__ import annotations

import email.utils
import http.client
import os
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from greentic import __version__
from greentic.ground.errors import FetchError, ServerBusy
from greentic.net.addresses import check_address, check_host_name
from greentic.net.dial import IDLE_SECONDS, connection, reason

OFFLINE = "GREENTIC_OFFLINE"
"""Set: nothing is asked over a network."""
IDLE = "GREENTIC_FETCH_IDLE_SECONDS"
"""Says how long to wait for the next byte."""
MAX_REDIRECTS = 5
MAX_RETRY_AFTER = 60.0
_REDIRECTS = (301, 302, 303, 307, 308)


class Answer(NamedTuple):
    """A response whose body has not been read."""

    status: int
    headers: http.client.HTTPMessage
    body: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    url: str

    def close(self) -> None:
        self.connection.close()


def send(
    url: str,
    shown: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    authorization: str | None = None,
) -> Answer:
    """Send a request and follow redirects. `shown` is what errors call it. Raises `FetchError`."""
    if os.environ.get(OFFLINE):
        raise FetchError(f"download bundle reference {shown}: this worker runs without a network ({OFFLINE})")
    origin = _origin(url)
    for _ in range(MAX_REDIRECTS + 1):
        secret = authorization if _origin(url) == origin else None
        answer = _once(url, shown, method, headers or {}, body, secret)
        if answer.status not in _REDIRECTS or method not in ("GET", "HEAD"):
            return answer
        following = urljoin(url, answer.headers.get("Location") or "")
        answer.close()
        if not following.startswith(("http://", "https://")):
            raise FetchError(f"download bundle reference {shown}: redirect to unsupported `{following}`")
        if url.startswith("https://") and not following.startswith("https://"):
            raise FetchError(f"download bundle reference {shown}: redirect from https to `{following}`")
        url = following
    raise FetchError(f"download bundle reference {shown}: more than {MAX_REDIRECTS} redirects")


def read_body(answer: Answer, what: str, limit: int) -> bytes:
    """The whole body of an answer, which is closed. Raises `FetchError` that names `what` for one that is too large or cut."""
    try:
        data = answer.body.read(limit + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(f"{what} could not be read: {error}") from error
    finally:
        answer.close()
    if len(data) > limit:
        raise FetchError(f"{what} is larger than {limit} bytes")
    return data


def check_status(answer: Answer, shown: str, *expected: int) -> None:
    """Raise `ServerBusy` or `FetchError`, and close the answer, unless its status is one of the expected."""
    if answer.status in expected:
        return
    answer.close()
    text = f"download bundle reference {shown}: http status: {answer.status}"
    if answer.status in (408, 429, 500, 502, 503, 504):
        raise ServerBusy(text, retry_after=retry_after(answer.headers.get("Retry-After"), time.time()))
    raise FetchError(text)


def retry_after(header: str | None, now: float) -> float:
    """Seconds that a server asks to wait, at most `MAX_RETRY_AFTER`; 0 if it does not say."""
    if not header:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER)
    try:
        return min(max(email.utils.parsedate_to_datetime(text).timestamp() - now, 0.0), MAX_RETRY_AFTER)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def idle_seconds(environ: Mapping[str, str]) -> float:
    """How long a server may be silent. Raises `FetchError` for what is no number of seconds."""
    text = environ.get(IDLE, "").strip()
    try:
        found = float(text) if text else IDLE_SECONDS
    except ValueError:
        found = 0.0
    if not 0 < found <= 3600:
        raise FetchError(f"{IDLE}=`{text}` is no number of seconds up to 3600")
    return found


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return parts.scheme, "", None


def _once(
    url: str, shown: str, method: str, headers: dict[str, str], body: bytes | None, authorization: str | None
) -> Answer:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise FetchError(f"download bundle reference {shown}: {error}") from None
    check_host_name(host)
    if parts.username is not None or parts.password is not None:
        raise FetchError(f"download bundle reference of `{host}`: credentials do not belong into the address")
    opened = connection(parts.scheme, host, port, check_address, idle=idle_seconds(os.environ))
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        opened.connect()
        opened.putrequest(method, path, skip_accept_encoding=True)
        opened.putheader("Accept-Encoding", "identity")
        opened.putheader("User-Agent", f"greentic/{__version__}")
        for name, value in headers.items():
            opened.putheader(name, value)
        if authorization is not None:
            opened.putheader("Authorization", authorization)
        if body is not None:
            opened.putheader("Content-Length", str(len(body)))
        opened.endheaders(body)
        response = opened.getresponse()
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        opened.close()
        raise FetchError(f"download bundle reference {shown}: {reason(error, idle_seconds(os.environ))}") from error
    except BaseException:
        opened.close()
        raise
    return Answer(response.status, response.msg, response, opened, url)
