"""Spans as an OTLP request, in its JSON and in its protobuf form (opentelemetry-proto 1.x, `ExportTraceServiceRequest`). Pure.

Rules:
1. The two forms say the same. Ids are hexadecimal in JSON, as OTLP has it, and octets in protobuf.
2. Only the fields that a span has are written. A tag is the number of a field and its wire type in one octet: `8 × number + type`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import msgspec

from greentic import __version__
from greentic.ground.documents import Json, JsonObject
from greentic.telemetry.tracing import Span, Value

_KINDS = {"internal": 1, "server": 2, "client": 3}
_ERROR = 2
_SAMPLED = 0x01
SCOPE = "greentic"


# -- JSON -------------------------------------------------------------------------------------------------------------


def as_json(spans: Iterable[Span], resource: Mapping[str, Value]) -> bytes:
    """The request as JSON."""
    return msgspec.json.encode(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _json_attributes(resource)},
                    "scopeSpans": [
                        {"scope": {"name": SCOPE, "version": __version__}, "spans": [_json_span(s) for s in spans]}
                    ],
                }
            ]
        }
    )


def _json_span(span: Span) -> JsonObject:
    told: JsonObject = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": _clean(span.name),
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(span.began),
        "endTimeUnixNano": str(span.ended),
        "attributes": _json_attributes(span.attributes),
        "flags": _SAMPLED,
    }
    if span.parent_id:
        told["parentSpanId"] = span.parent_id
    if span.state:
        told["traceState"] = span.state
    if span.error is not None:
        told["status"] = {"code": _ERROR, "message": _clean(span.error)}
    return told


def _json_attributes(attributes: Mapping[str, Value]) -> list[Json]:
    return [{"key": _clean(key), "value": _json_value(value)} for key, value in attributes.items()]


def _json_value(value: Value) -> JsonObject:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": _clean(value)}


def _clean(text: str) -> str:
    """A text without what no encoding has."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


# -- protobuf ---------------------------------------------------------------------------------------------------------


def as_protobuf(spans: Iterable[Span], resource: Mapping[str, Value]) -> bytes:
    """The request as protobuf."""
    scope = _field(b"\x0a", _text(b"\x0a", SCOPE) + _text(b"\x12", __version__))
    scope_spans = scope + b"".join([_field(b"\x12", _span(span)) for span in spans])
    return _field(b"\x0a", _field(b"\x0a", _attributes(b"\x0a", resource)) + _field(b"\x12", scope_spans))


def _span(span: Span) -> bytes:
    told = [
        b"\x0a\x10",
        bytes.fromhex(span.trace_id),
        b"\x12\x08",
        bytes.fromhex(span.span_id),
    ]  # 1 and 2: 16 and 8 octets
    if span.state:
        told.append(_text(b"\x1a", span.state))  # 3
    if span.parent_id:
        told += (b"\x22\x08", bytes.fromhex(span.parent_id))  # 4
    told += (
        _text(b"\x2a", span.name),  # 5
        b"\x30",  # 6: an enumeration
        _SIZES[_KINDS[span.kind]],
        _TIMES(b"\x39", span.began, b"\x41", span.ended),  # 7 and 8: fixed64
        _attributes(b"\x4a", span.attributes),  # 9
    )
    if span.error is not None:
        told.append(_field(b"\x7a", _text(b"\x12", span.error) + _FAILED))  # 15: status; 2 its message
    told.append(_FLAGS)
    return b"".join(told)


def _attributes(tag: bytes, attributes: Mapping[str, Value]) -> bytes:
    return b"".join(
        [_field(tag, _text(b"\x0a", key) + _field(b"\x12", _value(value))) for key, value in attributes.items()]
    )


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _text(b"\x0a", value)  # 1
    if isinstance(value, bool):
        return b"\x10" + _SIZES[value]  # 2
    if isinstance(value, int):
        return b"\x18" + _varint(value & (1 << 64) - 1)  # 3: int64
    return b"\x21" + struct.pack("<d", value)  # 4: double


def _text(tag: bytes, text: str) -> bytes:
    return _field(tag, text.encode("utf-8", "replace"))


def _field(tag: bytes, data: bytes) -> bytes:
    """A field with a length."""
    size = len(data)
    return b"%b%b%b" % (tag, _SIZES[size] if size < 128 else _varint(size), data)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_SIZES = [bytes((number,)) for number in range(128)]
"""The numbers that are one octet."""
_TIMES = struct.Struct("<cQcQ").pack
_FAILED = b"\x18" + _SIZES[_ERROR]
"""3 of a status: its code."""
_FLAGS = b"\x85\x01" + struct.pack("<I", _SAMPLED)
"""16 of a span: fixed32."""
