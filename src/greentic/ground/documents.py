"""JSON documents that keep what they do not know.

Rules:
1. A document is a frozen struct with typed fields. Keys that the struct does not name stay in `extra` and are written
   back, so that a document of a newer program passes through us without loss.
2. Optional scalars are omitted when unset, never written as `null`; lists are always written (spec: env-store-and-op 2.2).
3. Written form: fields in declaration order, then the kept keys; UTF-8; pretty with two spaces and a final newline.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias, TypeVar, cast

import msgspec
from msgspec.structs import fields, force_setattr, replace

from greentic.ground.errors import SpecViolation

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
JsonObject: TypeAlias = "dict[str, Json]"

D = TypeVar("D", bound="Document")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every stored document and of every record inside one."""

    omit_empty: ClassVar[tuple[str, ...]] = ()
    """Fields that are left out when empty, besides optional ones that are unset."""

    extra: dict[str, object] = msgspec.field(default_factory=dict, name="greentic:extra")
    """Keys that this program does not know, kept as they came."""


_FIELDS: dict[type[Document], dict[str, str]] = {}


def _fields(cls: type[Document]) -> dict[str, str]:
    """Field name by JSON key, without `extra`."""
    known = _FIELDS.get(cls)
    if known is None:
        known = _FIELDS[cls] = {f.encode_name: f.name for f in fields(cls) if f.name != "extra"}
    return known


def from_json(cls: type[D], raw: object) -> D:
    """Read a document from parsed JSON, unknown keys included.

    Raises `SpecViolation` that names the place of the first value with a wrong type, or of the missing field.
    """
    try:
        document = msgspec.convert(raw, cls)
    except msgspec.ValidationError as error:
        raise SpecViolation(str(error)) from None
    _keep_unknown(document, raw)
    return document


def _keep_unknown(value: object, raw: object) -> None:
    if isinstance(value, Document) and isinstance(raw, dict):
        known = _fields(type(value))
        unknown = raw.keys() - known.keys()
        if unknown:
            force_setattr(value, "extra", {key: raw[key] for key in raw if key in unknown})
        for key, name in known.items():
            if key in raw and isinstance(raw[key], dict | list):
                _keep_unknown(getattr(value, name), raw[key])
    elif isinstance(value, list) and isinstance(raw, list) and value and isinstance(value[0], Document):
        for item, item_raw in zip(value, raw, strict=True):
            _keep_unknown(item, item_raw)


def to_json(value: object) -> Json:
    """The JSON form of a document, a list of documents or a plain value."""
    if isinstance(value, Document):
        out: JsonObject = {}
        for key, name in _fields(type(value)).items():
            item = getattr(value, name)
            if item is None or (not item and name in value.omit_empty):
                continue
            out[key] = to_json(item)
        out.update(cast(JsonObject, value.extra))
        return out
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return cast(Json, value)


def json_object(value: object) -> JsonObject:
    """`to_json` of a document, which is always an object."""
    return cast(JsonObject, to_json(value))


def pretty(value: object) -> bytes:
    """The stored form: two spaces, no ASCII escaping, final newline."""
    return msgspec.json.format(msgspec.json.encode(to_json(value)), indent=2) + b"\n"


def compact(value: object, *, sort: bool = False) -> bytes:
    """One line without spaces; `sort` orders the keys of every object."""
    return msgspec.json.encode(to_json(value), order="deterministic" if sort else None)


def parse(data: bytes | str) -> Json:
    """Parse JSON text. Raises `ValueError` with the place of the damage."""
    try:
        return cast(Json, msgspec.json.decode(data))
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


__all__ = [
    "Document",
    "Json",
    "JsonObject",
    "compact",
    "from_json",
    "json_object",
    "parse",
    "pretty",
    "replace",
    "to_json",
]
