"""JSON documents that keep what they do not know.

Rules:
1. A document is a frozen struct with typed fields. Keys that the struct does not name stay in `extra` and are written
   back, so that a document of a newer program passes through us without loss.
2. Optional scalars are omitted when unset, never written as `null`; lists are always written (formats: environment 1).
3. Written form: fields in declaration order, then the kept keys; UTF-8; pretty with two spaces and a final newline.
4. All JSON of the project is read here. What `parse` and `decode` take is bounded in bytes, in values and in depth before or while
   it is built, for two bytes of text can become a hundred of memory; every damage is a `ValueError`, and nothing else comes out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, TypeAlias, TypeVar, cast

import msgspec
from msgspec.structs import force_setattr, replace

from greentic.ground.errors import SpecViolation

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
JsonObject: TypeAlias = "dict[str, Json]"

D = TypeVar("D", bound="Document")
T = TypeVar("T")

MAX_BYTES = 64 << 20
"""Most bytes of one JSON text. Who reads a file or an answer has its own, smaller limit where there is one."""
MAX_VALUES = 1_000_000
"""Most values of one JSON text: with their keys they take some 250 MiB at worst."""
MAX_DEPTH = 127
"""Most arrays and objects inside each other, as other readers of these documents have it."""
_SHOWN = 60


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
        names = zip(
            cls.__struct_encode_fields__, cls.__struct_fields__, strict=True
        )  # `fields()` would evaluate every type
        known = _FIELDS[cls] = {key: name for key, name in names if name != "extra"}
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


class TooDeep(ValueError):
    """JSON that is whole, and deeper than `MAX_DEPTH`."""


def parse(data: bytes | str, *, limit: int = MAX_BYTES) -> Json:
    """Parse JSON text of at most `limit` bytes. Raises `ValueError` with the place of the damage."""
    return cast(Json, decode(data, object, limit=limit))


def decode(data: bytes | str, form: type[T], *, limit: int = MAX_BYTES) -> T:
    """Parse JSON text into a struct or another type. Raises `ValueError` with the place of the damage (rule 4)."""
    brackets = _check_size(data, limit)
    try:
        value = msgspec.json.decode(data, type=form)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Other members than those of `form` are gone; what is left of depth can only be in plain lists and dicts.
    if brackets > MAX_DEPTH and _too_deep(value):
        raise TooDeep("nested too deeply")
    return value


def texts_in(array: msgspec.Raw) -> list[bytes]:
    """The texts of the elements of an array that stands in a text which `decode` took. Raises `ValueError` for what is no array."""
    try:
        return list(map(bytes, msgspec.json.decode(array, type=list[msgspec.Raw])))
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def repeated_key(data: bytes | str) -> str | None:
    """A key that stands twice in one object of a JSON text that was parsed already: of two readers each might take another value."""
    import json

    repeated: list[str] = []

    def members(found: list[tuple[str, object]]) -> None:
        if len(dict(found)) < len(found):
            repeated.extend(key for key, count in Counter(key for key, _ in found).items() if count > 1)

    json.loads(data, object_pairs_hook=members)
    return min(repeated, default=None)


def _check_size(data: bytes | str, limit: int) -> int:
    """How many brackets open in the text: no fewer than its depth. Raises `ValueError` for a text above the limits.

    Each value but the first stands behind a comma, a colon or a bracket; counting those costs far less than building values.
    """
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    if isinstance(data, str):
        brackets, commas = data.count("[") + data.count("{"), data.count(",")
    else:
        brackets, commas = data.count(b"[") + data.count(b"{"), data.count(b",")
    if brackets + commas > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")
    return brackets


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: object) -> list[object]:
    """The containers right inside a value."""
    if isinstance(value, dict):
        found: list[object] = list(value.values())
    elif isinstance(value, list):
        found = value
    elif isinstance(value, msgspec.Struct):
        found = [getattr(value, name) for name in value.__struct_fields__]
    else:
        return []
    return [item for item in found if isinstance(item, dict | list | msgspec.Struct)]


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a file of at most `limit` bytes, however large it is by now. Raises `OSError`, or `ValueError` for a larger one."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return data


def shown(value: object) -> str:
    """A value of a document in an error: texts and numbers themselves, shortened; of others what they are and how large."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return repr(value)
    size = f" of {len(value)}" if isinstance(value, bytes | list | tuple | dict) else ""
    return f"a {type(value).__name__}{size}"


__all__ = [
    "Document",
    "Json",
    "JsonObject",
    "TooDeep",
    "compact",
    "decode",
    "from_json",
    "json_object",
    "parse",
    "pretty",
    "read_file",
    "replace",
    "shown",
    "texts_in",
    "to_json",
]
