"""Bundles over HTTP and HTTPS.

Rules:
1. A GET without credentials and cookies; what comes is the file.
2. A part is asked for with Range, and with If-Range where there is a strong validator. It is believed only if the answer says
   206, begins where it was asked to, and is of the same whole. Any other answer is the whole file from its beginning.
3. A body that ends before its announced length is `Truncated`, which is not a wrong body.
"""

from __future__ import annotations

import http.client
import os
import re

from greentic.distribute.source import Body
from greentic.ground.errors import FetchError, PartRefused, Truncated
from greentic.net.dial import reason
from greentic.net.request import Answer, check_status, idle_seconds, send

_READ = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z", re.ASCII)


class HttpSource:
    """Opens `http://` and `https://` references."""

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        headers = range_headers(offset, validator, end)
        answer = send(reference, reference, headers=headers)
        return body_of(answer, reference, offset, end)


def range_headers(offset: int, validator: str | None, end: int | None) -> dict[str, str]:
    """The headers that ask for a part (rule 2); none for the whole."""
    if not offset and end is None:
        return {}
    headers = {"Range": f"bytes={offset}-{'' if end is None else end - 1}"}
    return headers if validator is None else headers | {"If-Range": validator}


def body_of(answer: Answer, shown: str, offset: int, end: int | None) -> HttpBody:
    """The body of an answer to a request for a part or for the whole. Raises `FetchError`."""
    partial = bool(offset) or end is not None
    if partial and answer.status == 416:
        answer.close()
        raise PartRefused(f"download bundle reference {shown}: the server has no bytes from {offset}")
    check_status(answer, shown, *((200, 206) if partial else (200,)))
    coding = (answer.headers.get("Content-Encoding") or "identity").lower()
    if coding != "identity":
        answer.close()
        raise FetchError(f"download bundle reference {shown}: unexpected content coding `{coding}`")
    return HttpBody(answer, shown, offset)


class HttpBody:
    """The bytes of one answer as they arrive."""

    def __init__(self, answer: Answer, shown: str, offset: int) -> None:
        self._answer, self._shown = answer, shown
        self._received = 0
        self.digest: str | None = None
        headers = answer.headers
        self.validator = _strong(headers.get("ETag"))
        self.length: int | None = answer.body.length
        if answer.status == 206:
            found = _CONTENT_RANGE.match((headers.get("Content-Range") or "").strip())
            first, last, total = (int(g) for g in found.groups()) if found else (-1, -1, -1)
            if first != offset or last < first or total <= last or self.length not in (None, last - first + 1):
                answer.close()
                raise PartRefused(
                    f"download bundle reference {shown}: the server answered `{headers.get('Content-Range')}` to a request "
                    f"for the bytes from {offset}"
                )
            self.offset, self.resumable = offset, True
            self.total: int | None = total
            self.length = last - first + 1
        else:
            self.offset, self.total = 0, self.length
            self.resumable = (headers.get("Accept-Ranges") or "").strip().lower() == "bytes" and self.length is not None

    def read_into(self, buffer: memoryview) -> int:
        try:
            # One read of the socket: `readinto` would wait until the buffer is full, however slowly it drips.
            data = self._answer.body.read1(min(len(buffer), _READ))
        except http.client.IncompleteRead as error:
            raise self._truncated() from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, ConnectionError):
                raise self._truncated() from error
            raise FetchError(
                f"read downloaded bundle body {self._shown}: {reason(error, idle_seconds(os.environ))}"
            ) from error
        count = len(data)
        buffer[:count] = data
        self._received += count
        if not count and self.length is not None and self._received < self.length:
            raise self._truncated()
        return count

    def _truncated(self) -> Truncated:
        wanted = "more" if self.length is None else f"{self.length} bytes"
        return Truncated(
            f"read downloaded bundle body {self._shown}: the connection ended after {self._received} bytes, announced {wanted}"
        )

    def close(self) -> None:
        self._answer.close()


def _strong(etag: str | None) -> str | None:
    """A validator that vouches for every byte; a weak one does not."""
    text = (etag or "").strip()
    return text if len(text) > 2 and text.startswith('"') and text.endswith('"') and len(text) <= 256 else None
