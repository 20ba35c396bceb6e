"""Bundles over HTTP and HTTPS.

Rules:
1. A GET without credentials and cookies; what comes is the file.
2. A part is asked for with Range, and with If-Range where there is a strong validator. It is believed only if the answer says
   206, begins where it was asked to, and is of the same whole. Any other answer is the whole file from its beginning.
3. A refusal of a request for a part is `PartRefused`, whatever its number: the whole may still be given.
4. A body that ends before its announced length is `Truncated`, which is not a wrong body. So is a chunked one without its last chunk.
"""

from __future__ import annotations

import http.client
import re
from urllib.parse import urlsplit, urlunsplit

from greentic.distribute.source import MAX_SIGNATURE, SIGNATURE_SUFFIX, Body
from greentic.ground.errors import FetchError, PartRefused, Truncated
from greentic.net.addresses import shown
from greentic.net.dial import reason_within
from greentic.net.document import read_small
from greentic.net.request import PULLING, Answer, check_status, send
from greentic.net.terms import Terms

_READ = 1 << 18
_CONTENT_RANGE = r"(?a)bytes (\d{1,18})-(\d{1,18})/(\d{1,18})"
_NOT_ABOUT_PARTS = (404, 408, 410, 425, 429)
"""Refusals that a request for the whole would get as well."""


class HttpSource:
    """Opens `http://` and `https://` references."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        answer = send(reference, reference, self._terms, headers=range_headers(offset, validator, end))
        return body_of(answer, reference, offset, end)

    def signatures(self, reference: str) -> list[bytes]:
        try:
            parts = urlsplit(reference)
        except ValueError as error:
            raise FetchError(f"`{shown(reference)}` is no address: {error}") from None
        beside = urlunsplit(parts._replace(path=f"{parts.path}{SIGNATURE_SUFFIX}"))
        data = read_small(beside, MAX_SIGNATURE, self._terms)
        return [] if data is None else [data]


def range_headers(offset: int, validator: str | None, end: int | None) -> dict[str, str]:
    """The headers that ask for a part (rule 2); none for the whole."""
    if not offset and end is None:
        return {}
    headers = {"Range": f"bytes={offset}-{'' if end is None else end - 1}"}
    return headers if validator is None else headers | {"If-Range": validator}


def body_of(answer: Answer, reference: str, offset: int, end: int | None) -> HttpBody:
    """The body of an answer to a request for a part or for the whole. Raises `FetchError`."""
    partial = bool(offset) or end is not None
    status = answer.status
    if partial and ((400 <= status < 500 and status not in _NOT_ABOUT_PARTS) or status in (501, 505)):
        answer.close()
        raise PartRefused(
            f"{PULLING} {shown(reference)}: http status: {status} to a request for the bytes from {offset}"
        )
    check_status(answer, reference, *((200, 206) if partial else (200,)))
    return HttpBody(answer, shown(reference), offset)


class HttpBody:
    """The bytes of one answer as they arrive."""

    def __init__(self, answer: Answer, told: str, offset: int) -> None:
        self._answer, self._shown = answer, told
        self._received = 0
        self._broken: FetchError | None = None
        self.digest: str | None = None
        self.coding = answer.coding()
        self.validator = _strong(answer.one("ETag"))
        self.length: int | None = answer.body.length
        if answer.status == 206:
            stated = answer.one("Content-Range")
            found = re.fullmatch(_CONTENT_RANGE, stated)
            first, last, total = (int(g) for g in found.groups()) if found else (-1, -1, -1)
            if first != offset or last < first or total <= last or self.length not in (None, last - first + 1):
                answer.close()
                raise PartRefused(
                    f"{PULLING} {told}: the server answered `{stated[:80]}` to a request for the bytes from {offset}"
                )
            self.offset, self.resumable = offset, True
            self.total: int | None = total
            self.length = last - first + 1
        else:
            self.offset, self.total = 0, self.length
            self.resumable = answer.one("Accept-Ranges").lower() == "bytes" and self.length is not None
        self.untold_end = self.length is None and not answer.body.chunked

    def read_into(self, buffer: memoryview) -> int:
        if self._broken is not None:
            raise self._broken
        try:
            # One read of the socket: `readinto` would wait until the buffer is full, however slowly it drips.
            data = self._answer.body.read1(min(len(buffer), _READ))
        except (http.client.IncompleteRead, ConnectionError) as error:
            self._broken = self._truncated()
            raise self._broken from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = reason_within(error, self._answer.terms)
            self._broken = FetchError(f"read downloaded bundle body {self._shown}: {why}")
            raise self._broken from error
        count = len(data)
        buffer[:count] = data
        self._received += count
        if not count and self.length is not None and self._received < self.length:
            self._broken = self._truncated()
            raise self._broken
        return count

    def _truncated(self) -> Truncated:
        wanted = "more" if self.length is None else f"{self.length} bytes"
        return Truncated(
            f"read downloaded bundle body {self._shown}: the connection ended after {self._received} bytes, announced {wanted}"
        )

    def close(self) -> None:
        self._answer.close()


def _strong(etag: str) -> str | None:
    """A validator that vouches for every byte; a weak one does not."""
    return etag if len(etag) > 2 and etag.startswith('"') and etag.endswith('"') and len(etag) <= 256 else None
