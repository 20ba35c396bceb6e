"""HTTP/1.1 as a server reads and writes it (RFC 9110, RFC 9112), without input or output: bytes in, requests or a refusal out.

Rules:
1. Limits come before the work: the target, the head, the number of fields, chunk lines and all of them together, trailers and the body
   are bounded while they arrive, and reading takes time in proportion to what came. Too long a target is 414, too large a head 431; too
   large a body is told as such, so that routes are decided first.
2. What two parsers could read differently is refused with 400, as soon as it is seen: two `Host`, no `Host`, two `Content-Length`, a
   length beside a transfer coding, any coding but `chunked` (501), bare line ends, folded lines, blanks before a colon, control characters,
   fragments, backslashes in a path, an address without a host. The authority of the request line wins over `Host`, and `%2F` is no
   separator. One empty line before a request is passed over, no more. Another version of HTTP is told as that (505).
3. A body is whole or the request is not: fewer bytes than announced never count as an empty body. `Upgrade` is ignored and the body
   kept. `Expect: 100-continue` is told to the connection.
4. Repeated `Cookie` fields are joined by `; `, other lists by `, `; what must stand once and does not is refused.
5. An HTTP/1.0 connection is for one request, unless `Connection: keep-alive` asks for more; then the answer says `keep-alive`, too, for
   who hears nothing of it waits for the end. Answers have a length, so nobody takes the end of the connection for theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

MAX_TARGET = 8 << 10
MAX_HEAD = 32 << 10
"""Bytes of a request line with its fields, and of trailers."""
MAX_FIELDS = 128
MAX_BODY = 1 << 20
MAX_CHUNK_LINE = 256
CHUNK_LINES_PER_BYTE = 8
"""How many bytes chunk lines may have for one of the body, beside `MAX_HEAD` of them; the least chunks, of one byte, need three."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(
    rb"("
    + _TOKEN
    + rb") ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])\r\n((?:"
    + _TOKEN
    + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)
_OTHER_VERSION = _TOKEN + rb" [\x21-\x7e]+ HTTP/(?!1\.[01]\r)[0-9](?:\.[0-9])?\r\n"
_FIELD = re.compile(
    rb"([^:]+):([^\r]*)\r\n"
)  # the blanks around a value are cut by hand: a pattern for them takes quadratic time
_NEVER = re.compile(rb"[^\r]\n|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""What stands in no head."""
_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
_CHUNK = rb"([0-9A-Fa-f]{1,16})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?"
_TRAILERS = rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
_ONCE = frozenset(
    {
        b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type", b"origin", b"expect", b"sec-fetch-site",
        b"x-message-id", b"idempotency-key",
    }
)  # fmt: skip
_ESCAPE = rb"%([0-9A-Fa-f]{2})"

Headers = list[tuple[bytes, bytes]]
TEXT = (b"content-type", b"text/plain; charset=utf-8")
JSON = (b"content-type", b"application/json")
"""What an answer is."""


class Refusal(Exception):
    """A request that is answered with an error, and the connection closed."""

    def __init__(self, code: int, text: str, extra: Headers | None = None) -> None:
        super().__init__(text)
        self.code, self.text, self.extra = code, text, extra or []


def allow(methods: str) -> Headers:
    """What an answer 405 carries: the methods that this place takes (RFC 9110, 15.5.6). No 405 is made without it."""
    return [(b"allow", methods.encode())]


class Head(msgspec.Struct, frozen=True):
    """A request line with its fields. Names are in lower case, and every name stands once."""

    method: str
    path: str
    """Decoded, but for `%2F`; without the query."""
    fields: dict[bytes, bytes]
    length: int
    """Bytes of the body, if it is not chunked."""
    chunked: bool
    keep_alive: bool
    continues: bool
    """Whether the caller waits for `100 Continue` before it sends the body."""
    query: bytes = b""
    """What stands behind the first `?` of the target, as it was sent."""
    wants_told: bool = False
    """Whether the answer has to say that the connection is kept (rule 5)."""


class Incoming(msgspec.Struct, frozen=True):
    """A whole request."""

    head: Head
    body: bytes | None
    """None for one that is larger than may be; the connection cannot go on after it."""
    came: float = 0.0
    """When the last of it was there, by the clock of whoever read it."""


class RequestReader:
    """Cuts what one connection sends into requests."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._data = bytearray()
        self._max_body = max_body
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._in_trailers = False
        self._searched = 0
        self._empty_line = False
        self._lines = 0
        """Bytes of the chunk lines of this body."""
        self._continue = False

    @property
    def empty(self) -> bool:
        """Whether nothing of a next request has come."""
        return self._head is None and not self._data

    @property
    def in_body(self) -> bool:
        return self._head is not None

    @property
    def waiting(self) -> int:
        """Bytes that came and are not consumed."""
        return len(self._data)

    def takes_continue(self) -> bool:
        """Whether `100 Continue` is to be sent now; told once a request."""
        told, self._continue = self._continue, False
        return told

    def feed(self, data: bytes) -> None:
        """More bytes of the connection."""
        self._data += data

    def next(self, now: float = 0.0) -> Incoming | None:
        """The next whole request, if it is there; it came `now`. Raises `Refusal`."""
        if self._head is None:
            self._head = self._read_head()
            if self._head is None:
                return None
            self._continue = self._head.continues and not self._data and self._head.length <= self._max_body
        head = self._head
        if head.chunked:
            body = self._read_chunks()
        elif head.length > self._max_body:
            return self._done(head, None, now)
        elif len(self._data) >= head.length:
            body = bytes(self._data[: head.length])
            del self._data[: head.length]
        else:
            return None
        if body is None and self._size <= self._max_body:
            return None
        return self._done(head, body, now)

    def _done(self, head: Head, body: bytes | None, now: float) -> Incoming:
        self._head, self._parts, self._size, self._lines = None, [], 0, 0
        self._in_trailers = self._continue = self._empty_line = False
        if body is None:
            self._data.clear()
        return Incoming(head, body, now)

    def _read_head(self) -> Head | None:
        data = self._data
        while data[:2] == b"\r\n":  # some clients end a body with a line of their own (RFC 9112, 2.2)
            if self._empty_line:
                raise Refusal(400, "a request does not begin with empty lines")
            self._empty_line, self._searched = True, 0
            del data[:2]
        end = data.find(b"\r\n\r\n", max(self._searched - 3, 0))
        if end < 0:
            self._check_partial(data)
            self._searched = len(data)
            return None
        self._searched = 0
        if end + 4 > MAX_HEAD:
            raise Refusal(431, f"the request head is larger than {MAX_HEAD} bytes")
        raw = bytes(data[: end + 4])
        del data[: end + 4]
        return read_head(raw)

    def _check_partial(self, data: bytearray) -> None:
        """Refuse what can no longer become a head that is taken."""
        line = data.find(b"\r\n", 0, MAX_TARGET + 64)
        if line < 0 and len(data) > MAX_TARGET + 32:
            raise Refusal(414, f"the request target is longer than {MAX_TARGET} bytes")
        if len(data) > MAX_HEAD:
            raise Refusal(431, f"the request head is larger than {MAX_HEAD} bytes")
        if data and not (data[0] == 0x0D or 0x21 <= data[0] <= 0x7E):
            raise Refusal(400, "this is no HTTP request")
        if _NEVER.search(data, max(self._searched - 1, 0)) is not None:
            raise Refusal(400, "the request head is not that of HTTP/1.1")

    def _read_chunks(self) -> bytes | None:
        """The whole body of a chunked request, if its end is there; None also when it grows too large."""
        data = self._data
        while True:
            if self._in_trailers:
                return self._read_trailers()
            end = data.find(b"\r\n", 0, MAX_CHUNK_LINE + 2)
            if end < 0:
                if len(data) > MAX_CHUNK_LINE:
                    raise Refusal(400, f"a chunk line is longer than {MAX_CHUNK_LINE} bytes")
                return None
            found = re.compile(_CHUNK).fullmatch(data, 0, end)
            if found is None:
                raise Refusal(400, "a chunk does not begin with its size")
            size = int(found.group(1), 16)
            if self._lines + end + 2 > MAX_HEAD + CHUNK_LINES_PER_BYTE * self._size:
                raise Refusal(400, "the chunk lines are out of all proportion to the body")
            if self._size + size > self._max_body:
                self._size += size
                return None
            if size == 0:
                del data[: end + 2]
                self._in_trailers = True
                continue
            if len(data) < end + 2 + size + 2:
                return None
            if data[end + 2 + size : end + 4 + size] != b"\r\n":
                raise Refusal(400, "a chunk is longer than its size says")
            self._parts.append(bytes(data[end + 2 : end + 2 + size]))
            self._size += size
            self._lines += end + 2
            del data[: end + 4 + size]

    def _read_trailers(self) -> bytes | None:
        data = self._data
        if data[:2] == b"\r\n":
            del data[:2]
            return b"".join(self._parts)
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > MAX_HEAD:
                raise Refusal(431, f"the trailers are larger than {MAX_HEAD} bytes")
            return None
        if end + 4 > MAX_HEAD or re.compile(_TRAILERS).fullmatch(data, 0, end + 4) is None:
            raise Refusal(400, "the trailers are not those of HTTP/1.1")
        del data[: end + 4]  # nothing in them is acted on
        return b"".join(self._parts)


def read_head(raw: bytes) -> Head:
    """A head from its bytes, the blank line included. Raises `Refusal` (rules 1 to 4)."""
    found = _HEAD.fullmatch(raw)
    if found is None:
        if re.match(_OTHER_VERSION, raw) is not None:
            raise Refusal(505, "this server speaks HTTP/1.1 and HTTP/1.0")
        raise Refusal(400, "the request head is not that of HTTP/1.1")
    method, target, minor, lines = found.groups()
    if len(target) > MAX_TARGET:
        raise Refusal(414, f"the request target is longer than {MAX_TARGET} bytes")
    fields = _fields(lines)
    path = _path(method, target, minor, fields)
    chunked, length = _framing(minor, fields)
    connection = fields.get(b"connection", b"").lower()
    asked = minor == b"0" and b"keep-alive" in [option.strip() for option in connection.split(b",")]
    keep_alive = b"close" not in connection and (minor == b"1" or asked)
    expects = minor == b"1" and fields.get(b"expect", b"").lower() == b"100-continue"
    continues = expects and (chunked or length > 0)
    return Head(method.decode(), path, fields, length, chunked, keep_alive, continues, target.partition(b"?")[2], asked)


def _fields(lines: bytes) -> dict[bytes, bytes]:
    listed = _FIELD.findall(lines)
    if len(listed) > MAX_FIELDS:
        raise Refusal(431, f"the request has more than {MAX_FIELDS} fields")
    fields: dict[bytes, bytes] = {}
    for name, value in listed:
        name, value = name.lower(), value.strip(b"\t ")
        if name not in fields:
            fields[name] = value
        elif name in _ONCE or name.startswith(b"x-greentic-"):
            raise Refusal(400, f"the field `{name.decode()}` stands twice")
        else:
            fields[name] += (b"; " if name == b"cookie" else b", ") + value
    return fields


def _path(method: bytes, target: bytes, minor: bytes, fields: dict[bytes, bytes]) -> str:
    """The path of a target; the authority of an absolute one goes to `host` (rule 2)."""
    if method == b"CONNECT":
        raise Refusal(405, "this server is no proxy", allow("GET, HEAD, POST, OPTIONS"))
    host = fields.get(b"host")
    if host is None and minor == b"1":
        raise Refusal(400, "the request has no `Host`")
    if target[:1] != b"/" and not (target == b"*" and method == b"OPTIONS"):
        scheme, colon, rest = target.partition(b"://")
        if not colon or scheme.lower() not in (b"http", b"https"):
            raise Refusal(400, "the request target is neither a path nor an address")
        authority, slash, path = rest.partition(b"/")
        authority, mark, _ = authority.partition(b"?")
        if authority[:1] in (b"", b":"):
            raise Refusal(400, "the address of the request has no host")
        fields[b"host"] = host = authority
        target = b"/" if mark or not slash else slash + path
    if host is not None and _AUTHORITY.fullmatch(host) is None:
        raise Refusal(400, "the `Host` is no host")
    path = target.partition(b"?")[0]
    if b"\\" in path:
        raise Refusal(400, "the path has a backslash, which some read as a slash")
    if b"%" not in path:
        return path.decode("ascii")
    return re.sub(_ESCAPE, _unescaped, path).decode("utf-8", "replace")


def _unescaped(found: re.Match[bytes]) -> bytes:
    value = int(found.group(1), 16)
    return found.group() if value in (0x2F, 0x5C, 0x00) else bytes([value])


def _framing(minor: bytes, fields: dict[bytes, bytes]) -> tuple[bool, int]:
    """Whether the body is chunked, and else how long it is."""
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise Refusal(400, "the request has a length and a transfer coding")
        if minor == b"0" or coding.lower() != b"chunked":
            raise Refusal(
                400 if minor == b"0" else 501, "the only transfer coding that is taken is `chunked`, in HTTP/1.1"
            )
        return True, 0
    if length is None:
        return False, 0
    if not length.isdigit() or len(length) > 18:
        raise Refusal(400, "the `Content-Length` is no number")
    return False, int(length)


# -- answers ----------------------------------------------------------------------------------------------------------

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS = {
    200: b"OK", 204: b"No Content", 303: b"See Other", 304: b"Not Modified", 400: b"Bad Request", 401: b"Unauthorized",
    403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict",
    413: b"Content Too Large", 414: b"URI Too Long", 415: b"Unsupported Media Type", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}  # fmt: skip
_STATUS = {code: b"HTTP/1.1 %d %b\r\n" % (code, reason) for code, reason in _REASONS.items()}


def answer_bytes(
    code: int,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes | bytearray,
    date: bytes,
    *,
    close: bool,
    head: bool = False,
    kept: bool = False,
) -> bytes:
    """An answer as it is sent. `date` is the value of its field; with `head` the body is told but not sent; `close` goes before `kept`."""
    first = _STATUS.get(code) or b"HTTP/1.1 %d Unknown\r\n" % code
    fields = b"".join([b"%b: %b\r\n" % field for field in headers])
    last = b"date: %b\r\nconnection: close\r\n\r\n" % date if close else b"date: %b\r\n\r\n" % date
    if kept and not close:
        last = b"connection: keep-alive\r\n" + last
    if code == 204:
        return first + fields + last
    return b"".join((first, fields, b"content-length: %d\r\n" % len(body), last, b"" if head else body))
