"""JSON documents that keep what they do not know.

Rules:
1. A document is a frozen struct with typed fields. Keys that the struct does not name stay in `extra` and are written
   back, so that a document of a newer program passes through us without loss.
2. Optional scalars are omitted when unset, never written as `null`; lists are always written (formats: environment 1).
3. Written form: fields in declaration order, then the kept keys; UTF-8; pretty with two spaces and a final newline.
4. All JSON of the project is read here. What `parse` and `decode` take is bounded in bytes, in values and in depth before or while
   it is built, for two bytes of text can become a hundred of memory; every damage is a `ValueError`, and nothing else comes out.
5. What others may have put where a file is expected is opened here, too: a fifo would be waited for, for good (`open_file`, `read_file`).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from io import BufferedReader
from itertools import accumulate, islice
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeAlias, TypeVar, cast, get_args, get_origin

import msgspec
from msgspec import NODEFAULT
from msgspec.structs import FieldInfo, fields, force_setattr
from msgspec.structs import replace as replace  # documents are changed by it everywhere

from greentic.ground.errors import SpecViolation
from greentic.ground.pipe import PIPE_SECONDS, written_within
from greentic.ground.repeated import repeated

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
_ESCAPE = rb"\\(?:u([0-9a-fA-F]{4})|.)"
_SHOWN = 60
_PIECE = 1 << 18


class Document(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Base of every stored document and of every record inside one.

    The garbage collector need not look at them: what came from JSON holds no circles, and a large environment is some ten thousand.
    """

    omit_empty: ClassVar[tuple[str, ...]] = ()
    """Fields that are left out when empty, besides optional ones that are unset."""

    extra: dict[str, object] = msgspec.field(default_factory=dict, name="greentic:extra")
    """Keys that this program does not know, kept as they came."""


class _Form(NamedTuple):
    """How the fields of a document are read and written, found out once a class: in large environments thousands are of one."""

    fields: tuple[tuple[str, str, bool, bool], ...]
    """Key in JSON, name, whether it is left out when empty, whether it may hold documents; `extra` is none of them."""
    keys: frozenset[str]
    holding: tuple[tuple[str, str], ...]
    """Key and name of those that may hold documents."""
    native: bool
    """Whether the library's own encoder writes it as `to_json` does, unless unknown keys were kept."""


_FORMS: dict[type[Document], _Form] = {}


def _form(cls: type[Document]) -> _Form:
    known = _FORMS.get(cls)
    if known is None:
        own = [f for f in fields(cls) if f.name != "extra"]
        known = _FORMS[cls] = _Form(
            tuple((f.encode_name, f.name, f.name in cls.omit_empty, _may_hold(f.type)) for f in own),
            frozenset(f.encode_name for f in own),
            tuple((f.encode_name, f.name) for f in own if _may_hold(f.type)),
            all(_is_native(f, f.name in cls.omit_empty) for f in own),
        )
    return known


def _may_hold(told: object) -> bool:
    """Whether values of a type may be documents, or lists of them."""
    return any(part is object or issubclass(part, Document) for part in _parts(told))


def _is_native(field: FieldInfo, omit_empty: bool) -> bool:
    """Whether the encoder leaves a field out when `to_json` does: it looks for values that are the default, or empty as the default is."""
    parts = list(_parts(field.type))
    if any(part is object or (issubclass(part, Document) and not _form(part).native) for part in parts):
        return False
    if field.default is None:
        return not omit_empty
    empty = field.default_factory in (list, dict)
    return field.default is NODEFAULT and type(None) not in parts and empty is omit_empty


def _parts(told: object) -> Iterator[type]:
    """The classes in a type; what dicts hold is plain JSON."""
    if isinstance(told, type) and get_origin(told) is None:
        yield told
    elif get_origin(told) is not dict:
        for part in get_args(told):
            yield from _parts(part)


def no_items() -> list[T]:
    """The default of a list that is written when it is empty as well; with `list` itself it is written, too, but slower."""
    return []


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
        form = _form(type(value))
        if not raw.keys() <= form.keys:
            force_setattr(value, "extra", {key: raw[key] for key in raw if key not in form.keys})
        for key, name in form.holding:
            if key in raw:
                _keep_unknown(getattr(value, name), raw[key])
    elif isinstance(value, list) and isinstance(raw, list) and value and isinstance(value[0], Document):
        for item, item_raw in zip(value, raw, strict=True):
            _keep_unknown(item, item_raw)


def _written(document: Document) -> Iterator[tuple[str, object, bool]]:
    """Key and value of each field that is written (rule 2), and whether it may hold documents; `extra` is none of them."""
    for key, name, omit_empty, holds in _form(type(document)).fields:
        item = getattr(document, name)
        if item is not None and (item or not omit_empty):
            yield key, item, holds


def to_json(value: object) -> Json:
    """The JSON form of a document, a list of documents or a plain value."""
    if isinstance(value, Document):
        out: dict[str, object] = {}
        for key, item, holds in _written(value):
            if holds:
                out[key] = to_json(item)
            else:
                out[key] = item.copy() if type(item) is list else item
        out.update(value.extra)
        return cast(JsonObject, out)
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return cast(Json, value)


def json_object(value: object) -> JsonObject:
    """`to_json` of a document, which is always an object."""
    return cast(JsonObject, to_json(value))


def pretty(value: object) -> bytes:
    """The stored form: two spaces, no ASCII escaping, final newline."""
    return msgspec.json.format(compact(value), indent=2) + b"\n"


def compact(value: object, *, sort: bool = False) -> bytes:
    """One line without spaces; `sort` orders the keys of every object."""
    return _text(value, _SORTED if sort else _AS_THEY_ARE)


_AS_THEY_ARE, _SORTED = msgspec.json.Encoder(), msgspec.json.Encoder(order="sorted")
_EXTRA = b'"greentic:extra":'


def _text(value: object, encoder: msgspec.json.Encoder) -> bytes:
    """The text of what `to_json` gives, as far as can be without making that: of a large environment it would be a million objects."""
    if isinstance(value, list):
        classes = set(map(type, value))
        if not any(issubclass(cls, Document | list) for cls in classes):
            return encoder.encode(value)
        if all(issubclass(cls, Document) and _form(cls).native for cls in classes):
            text = encoder.encode(value)
            if _EXTRA not in text:
                return text
        return b"[%b]" % b",".join([_text(item, encoder) for item in value])
    if not isinstance(value, Document):
        return encoder.encode(value)
    if _form(type(value)).native:
        text = encoder.encode(value)
        if _EXTRA not in text:
            return text
    out: dict[str, object] = {}
    for key, item, holds in _written(value):
        out[key] = msgspec.Raw(_text(item, encoder)) if holds else item
    out.update(value.extra)
    return encoder.encode(out)


class TooDeep(ValueError):
    """JSON that is deeper than `MAX_DEPTH`."""


class TooMany(ValueError):
    """JSON of more arrays and objects than its reader takes: each costs far more than its bytes."""


def parse(data: bytes | str, *, limit: int = MAX_BYTES, inside: int = 0, most: int = MAX_VALUES) -> Json:
    """Parse JSON text of at most so many arrays and objects, itself `inside` so many. Raises `ValueError` with the place of damage."""
    return cast(Json, decode(data, object, limit=limit, inside=inside, most=most))


def decode(data: bytes | str, form: type[T], *, limit: int = MAX_BYTES, inside: int = 0, most: int = MAX_VALUES) -> T:
    """Parse JSON text into a struct or another type. Raises `ValueError` with the place of the damage (rule 4)."""
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    brackets = check_values(data)
    if brackets > most:
        raise TooMany(f"more than {most} arrays and objects")
    value = _decoded(data, form)
    deepest = MAX_DEPTH - inside
    if brackets > deepest and _too_deep(
        data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"), deepest
    ):
        raise TooDeep("nested too deeply")
    return value


def _decoded(data: bytes | str | msgspec.Raw, form: type[T]) -> T:
    try:
        if form is object:  # naming it costs more than most texts of a turn take
            return cast(T, msgspec.json.decode(data))
        return msgspec.json.decode(data, type=form)
    except msgspec.DecodeError as error:
        raise ValueError(_half_a_pair(data) or str(error)) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"not UTF-8: what stands at character {error.start} is no text") from None
    except RecursionError:
        raise TooDeep("nested too deeply") from None


def _half_a_pair(data: bytes | str | msgspec.Raw) -> str | None:
    """Where a damaged text has half a surrogate pair, such as `"\\ud800"`, which the library calls the end of the text in some places."""
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    first: int | None = None  # where the pair begins whose second half is awaited
    for escape in islice(re.finditer(_ESCAPE, text, re.DOTALL), 10_000):  # who sends more holds nobody up
        half, at = int(escape[1], 16) >> 10 if escape[1] else 0, escape.start()
        if first is not None and (half != 0xDC00 >> 10 or first + 6 != at):
            break
        if first is None and half == 0xDC00 >> 10:
            first = at
            break
        first = at if half == 0xD800 >> 10 else None
    return None if first is None else f"half a surrogate pair at byte {first}, which is no text"


def texts_of(data: bytes) -> dict[str, msgspec.Raw]:
    """The texts of the members of an object. None of them is built; whoever parses one finds out how deep it is and what it holds, and
    parses no more of them than `MAX_VALUES` bytes unless `check_values` took the whole. Raises `ValueError`.
    """
    if len(data) > MAX_BYTES or data.count(b",") > MAX_VALUES:  # texts take memory, too
        raise ValueError(f"larger than {MAX_BYTES} bytes, or more than {MAX_VALUES} values")
    return _decoded(data, dict[str, msgspec.Raw])


def check_values(data: bytes | str) -> int:
    """How many brackets open in a text: no fewer than its depth. Raises `ValueError` for one of more than `MAX_VALUES` values.

    Each value but the first stands behind a comma, a colon or a bracket; counting those costs far less than building values.
    """
    if isinstance(data, str):
        brackets, commas = data.count("[") + data.count("{"), data.count(",")
    else:
        brackets, commas = data.count(b"[") + data.count(b"{"), data.count(b",")
    if brackets + commas > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")
    return brackets


def texts_in(array: msgspec.Raw) -> list[bytes]:
    """The texts of the elements of an array among `texts_of` an object. Raises `ValueError` for what is no array."""
    return list(map(bytes, _decoded(array, list[msgspec.Raw])))


def repeated_key(data: bytes | str) -> str | None:
    """A key that stands twice in one object of a JSON text that was parsed already: of two readers each might take another value."""
    import json

    found: list[str] = []

    def members(pairs: list[tuple[str, object]]) -> None:
        if (twice := repeated(key for key, _ in pairs)) is not None:
            found.append(twice)

    json.loads(data, object_pairs_hook=members, parse_int=str)
    return min(found, default=None)


def check_each_once(data: bytes, written: bytes) -> None:
    """Raise `ValueError` for a text in which a key stands twice. Where it is `written` as we write what was read, none does."""
    if data != written and (twice := repeated_key(data)) is not None:
        raise ValueError(f"the key `{twice}` stands twice in one object, and only one of them can be meant")


_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_AS_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""In and out, as signed bytes."""


def _too_deep(text: bytes, deepest: int) -> bool:
    """Whether whole JSON text is deeper than that. Strings are cut out, once no quote is inside one."""
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text
    left = b"".join(plain.translate(_AS_STEPS, _NO_BRACKETS).split(b'"')[::2])
    left = left.replace(b"\x01\xff", b"")  # the innermost ones, which are most
    return max(accumulate(memoryview(left).cast("b")), default=-1) + 1 > deepest


def read_file(path: Path, limit: int = MAX_BYTES, *, patience: float | None = PIPE_SECONDS) -> bytes:
    """The content of a file of at most `limit` bytes, however large it is by now. Raises `OSError`, or `ValueError` for a larger one.

    Nobody is waited for: a fifo that nobody writes into is none that can be read, nor one whose writer takes longer than `patience`.
    Memory is asked for as the file is large, not as it may be.
    """
    parts: list[bytes] = []
    with open(path, "rb", opener=_at_once) as file:
        status = os.fstat(file.fileno())
        read = file.read if stat.S_ISREG(status.st_mode) else written_within(file, patience)
        size, wanted = 0, min(status.st_size, limit) + 1
        while wanted and (piece := read(wanted)):
            parts.append(piece)
            size += len(piece)
            wanted = min(_PIECE, limit + 1 - size)
    if not parts and stat.S_ISFIFO(status.st_mode):
        raise OSError(errno.ENODATA, "a fifo is there, and nobody writes into it", str(path))
    if size > limit:
        raise ValueError(f"larger than {limit} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_given(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The same for a file that a person named to a command: it may be what another program writes, which may ask first."""
    return read_file(path, limit, patience=None)


def unmarked(data: bytes) -> bytes:
    """What a person wrote, without the mark that editors put before UTF-8."""
    return data.removeprefix(b"\xef\xbb\xbf")


def open_file(path: Path) -> BufferedReader:
    """A file to read here and there in it, whoever has made it. Raises `OSError` for what is none, such as a fifo."""
    file = open(path, "rb", opener=_at_once)  # noqa: SIM115  for who asks to close
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "a device or fifo is there; expected a file", str(path))


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting for the other end of a fifo."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "a socket is there; expected a file", path) from None
        raise
    os.set_blocking(fd, True)
    return fd


def shown(value: object) -> str:
    """A value of a document in an error: texts and numbers themselves, shortened; of others what they are and how large."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return repr(value)
    size = f" of {len(value)}" if isinstance(value, bytes | list | tuple | dict) else ""
    return f"a {type(value).__name__}{size}"
