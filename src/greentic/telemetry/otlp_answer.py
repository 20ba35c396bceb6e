"""What a collector refused of a request that it took (opentelemetry-proto 1.x, `ExportTraceServiceResponse`). Pure.

Rules:
1. An answer that cannot be read refuses nothing: collectors answer with empty bodies and with words, too.
2. A page of HTML comes from no collector.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from greentic.ground.digits import whole_number
from greentic.ground.documents import parse

MOST = (1 << 63) - 1
_MAX_WHY = 300
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Rejected(NamedTuple):
    """Spans that a collector did not take, and why."""

    spans: int
    why: str


def is_page(content_type: str) -> bool:
    """Whether an answer is a page for people (rule 2)."""
    return content_type.partition(";")[0].strip().lower() == "text/html"


def rejected(body: bytes, form: Literal["http/protobuf", "http/json"]) -> Rejected | None:
    """What an answer refuses, if anything (rule 1)."""
    try:
        count, why = _of_json(body) if form == "http/json" else _of_protobuf(body)
    except ValueError:
        return None
    return Rejected(count, why[:_MAX_WHY]) if count else None


def _of_json(body: bytes) -> tuple[int, str]:
    told = parse(body)
    partial = told.get("partialSuccess") if isinstance(told, dict) else None
    if not isinstance(partial, dict):
        return 0, ""
    count = whole_number(str(partial.get("rejectedSpans", 0)), MOST)  # 64 bits are a text in protobuf's JSON
    return count or 0, str(partial.get("errorMessage", ""))


def _of_protobuf(body: bytes) -> tuple[int, str]:
    count, why = 0, ""
    for number, partial in _fields(body):
        for inner, value in _fields(partial) if number == 1 and isinstance(partial, bytes) else ():
            if inner == 1 and isinstance(value, int):
                count = value if value <= MOST else 0  # a negative one
            elif inner == 2 and isinstance(value, bytes):
                why = value.decode(errors="replace")
    return count, why


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message by number. Raises `ValueError` for what is none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError("no message")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(data):
            break
        octet = data[at + place]
        value |= (octet & 127) << 7 * place
        if octet < 128:
            return value, at + place + 1
    raise ValueError("no number")
