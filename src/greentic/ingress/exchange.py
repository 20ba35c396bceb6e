"""A request as the application looks at it, and its reply before it is dressed for the wire."""

from __future__ import annotations

import msgspec

from greentic.activate.turn import ActiveRevision
from greentic.httpd.http1 import JSON, Headers


class Refused(Exception):
    """A request that ends with a plain text."""

    def __init__(self, code: int, text: str, *, cors: bool = True, extra: Headers | None = None) -> None:
        super().__init__(text)
        self.code, self.text, self.cors, self.extra = code, text, cors, extra or []


def come_back(text: str, seconds: int) -> Refused:
    """What is told who may ask again in some seconds."""
    return Refused(503, text, extra=[(b"retry-after", b"%d" % seconds)])


class HttpReply(msgspec.Struct, frozen=True):
    """An answer before it is dressed for the wire."""

    code: int
    body: bytes | bytearray
    kind: tuple[bytes, bytes] = JSON
    extra: Headers = []
    cors: bool = True
    revision: ActiveRevision | None = None
    """Which answered, if one did."""


class Request(msgspec.Struct, frozen=True):
    """What the application looks at."""

    method: str
    path: str
    fields: dict[bytes, bytes]
    body: bytes | None
    """None for one that is larger than may be."""
    trusted: bool
    query: bytes = b""

    def header(self, name: bytes) -> str | None:
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")

    def whole_body(self, *, cors: bool = True) -> bytes:
        """The body. Raises `Refused` for one that is too large, or packed in a way that nobody here unpacks."""
        if self.body is None:
            raise Refused(413, "request body exceeds the size limit", cors=cors)
        coding = self.fields.get(b"content-encoding")
        if coding is not None and coding.lower() != b"identity":
            text = "request body must come as it is, without a content coding"
            raise Refused(415, text, cors=cors, extra=[(b"accept-encoding", b"identity")])
        return self.body
