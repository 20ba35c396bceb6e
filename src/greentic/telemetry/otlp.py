"""Spans as an OTLP request, in its JSON and in its protobuf form (opentelemetry-proto 1.x, `ExportTraceServiceRequest`). Pure.

Rules:
1. The two forms say the same. Ids are hexadecimal in JSON, as OTLP has it, and octets in protobuf.
2. Only the fields that a span has are written; numbers of fields and wire types stand where they are written.
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
    scope = _text(1, SCOPE) + _text(2, __version__)
    scope_spans = _field(1, scope) + b"".join([_field(2, _span(span)) for span in spans])
    return _field(1, _field(1, _attributes(1, resource)) + _field(2, scope_spans))


def _span(span: Span) -> bytes:
    parts = [_field(1, bytes.fromhex(span.trace_id)), _field(2, bytes.fromhex(span.span_id))]
    if span.state:
        parts.append(_text(3, span.state))
    if span.parent_id:
        parts.append(_field(4, bytes.fromhex(span.parent_id)))
    parts += [
        _text(5, span.name),
        b"\x30" + _varint(_KINDS[span.kind]),  # 6: an enumeration
        b"\x39" + struct.pack("<Q", span.began),  # 7 and 8: fixed64
        b"\x41" + struct.pack("<Q", span.ended),
        _attributes(9, span.attributes),
    ]
    if span.error is not None:
        parts.append(_field(15, _text(2, span.error) + b"\x18" + _varint(_ERROR)))  # status: 2 its message, 3 its code
    parts.append(b"\x85\x01" + struct.pack("<I", _SAMPLED))  # 16: fixed32
    return b"".join(parts)


def _attributes(number: int, attributes: Mapping[str, Value]) -> bytes:
    return b"".join([_field(number, _text(1, key) + _field(2, _value(value))) for key, value in attributes.items()])


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return b"\x10" + _varint(int(value))  # 2
    if isinstance(value, int):
        return b"\x18" + _varint(value & (1 << 64) - 1)  # 3: int64
    return b"\x21" + struct.pack("<d", value) if isinstance(value, float) else _text(1, value)  # 4: double


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode("utf-8", "replace"))


def _field(number: int, data: bytes) -> bytes:
    """A field with a length."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
