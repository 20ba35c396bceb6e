"""Values between Python and components, by the component's own declared types (formats: components 7).

Rules:
1. A type is compiled once into a pair of closures: one packs a Python value into the 32 bytes of a C value, one unpacks it.
2. Records are dicts by WIT field name; options a value or none; results and variants `(tag, payload)`, with the tags `ok` and
   `err` for results; enums texts; flags sets of texts; tuples tuples; `list<u8>` bytes, in bulk.
3. What we pack lies in memory that Python owns and the library only reads. What the library gives us we only read; its owner
   frees it.
4. A field of a record that a value does not have becomes none, false, zero or empty where its type has such a value, so that
   one context serves every version of an interface.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import cast

import msgspec
from wasmtime import component as c

VALUE_BYTES = 32
ENTRY_BYTES = 48
"""A field of a record: its name, then its value."""
MAX_LIST = 4 << 20
"""Elements of a list that crosses the border."""

Keep = list[object]
"""What must stay alive until the call is over."""
Lower = Callable[[object, Keep], bytes]
Lift = Callable[[bytes, int], object]

_B, _S8, _U8, _S16, _U16, _S32, _U32, _S64, _U64, _F32, _F64, _CHAR, _STRING, _LIST, _RECORD, _TUPLE = range(16)
_VARIANT, _ENUM, _OPTION, _RESULT, _FLAGS = range(16, 21)

_vector = struct.Struct("<B7xQQ8x")
_pointer = struct.Struct("<B7xQ16x")
_result = struct.Struct("<B7xB7xQ8x")
_variant = struct.Struct("<B7xQQQ")
_name = struct.Struct("<QQ")
_qq = struct.Struct("<QQ").unpack_from
_q = struct.Struct("<Q").unpack_from

_as_string = ctypes.pythonapi.PyBytes_AsString
_as_string.restype = ctypes.c_void_p
_as_string.argtypes = [ctypes.py_object]
_probe = b"where the octets of bytes begin"
_OCTETS = _as_string(_probe) - id(_probe)
"""From an object of bytes to its octets, the same for all of them; adding it costs a fifth of asking for each."""
_array_address = ctypes.pythonapi.PyByteArray_AsString
_array_address.restype = ctypes.c_void_p
_array_address.argtypes = [ctypes.py_object]


class ValueMismatch(TypeError):
    """A value that does not fit the declared type; the text says which and where."""


def _shown(value: object) -> str:
    """A value in an error: what it is and how large, for what is in it may be a secret."""
    size = f" of {len(value)}" if isinstance(value, str | bytes | list | tuple | dict) else ""
    return f"a {type(value).__name__}{size}"


class Converter(msgspec.Struct, frozen=True):
    lower: Lower
    lift: Lift
    absent: object = None
    """What stands for a value that is not there; `NO_ABSENT` if nothing can."""


NO_ABSENT = object()


def _scalar(kind: int, form: str, accepted: tuple[type, ...], name: str, absent: object) -> Converter:
    shape = struct.Struct(f"<B7x{form}")
    size = VALUE_BYTES - shape.size
    pack = struct.Struct(f"<B7x{form}{size}x").pack
    unpack = struct.Struct(f"<{form}").unpack_from

    def lower(value: object, keep: Keep) -> bytes:
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise ValueMismatch(f"expected {name}, found {_shown(value)}")
        try:
            return pack(kind, value)
        except (struct.error, OverflowError):
            raise ValueMismatch(f"expected {name}, found {_shown(value)} out of its range") from None

    def lift(data: bytes, at: int) -> object:
        return unpack(data, at + 8)[0]

    return Converter(lower, lift, absent)


def _lower_char(value: object, keep: Keep) -> bytes:
    if not isinstance(value, str) or len(value) != 1 or 0xD800 <= ord(value) <= 0xDFFF:
        raise ValueMismatch(f"expected one character, found {_shown(value)}")
    return struct.pack("<B7xI20x", _CHAR, ord(value))


def _lower_text(kind: int) -> Lower:
    pack, octets = _vector.pack, _OCTETS
    nothing = pack(kind, 0, 8)

    def lower(value: object, keep: Keep) -> bytes:
        if not isinstance(value, str):
            raise ValueMismatch(f"expected a text, found {_shown(value)}")
        if not value:
            return nothing
        data = value.encode("utf-8", "replace")
        keep.append(data)
        return pack(kind, len(data), id(data) + octets)

    return lower


def _lift_text(data: bytes, at: int) -> object:
    size, address = _qq(data, at + 8)
    return ctypes.string_at(address, size).decode() if size else ""


def _lower_bytes(value: object, keep: Keep) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise ValueMismatch(f"expected bytes, found {_shown(value)}")
    size = len(value)
    if not size:
        return _vector.pack(_LIST, 0, 8)
    if size > MAX_LIST:
        raise ValueMismatch(f"{size} bytes do not cross the border at once; at most {MAX_LIST}")
    packed = bytearray(_U8_CELL * size)
    packed[8::VALUE_BYTES] = value
    keep.append(packed)
    return _vector.pack(_LIST, size, _array_address(packed))


_U8_CELL = struct.pack("<B31x", _U8)


def _lift_bytes(data: bytes, at: int) -> object:
    size, address = _qq(data, at + 8)
    if not size:
        return b""
    if size > MAX_LIST:
        raise ValueMismatch(f"a component answered with a list of {size} bytes; at most {MAX_LIST}")
    return ctypes.string_at(address, size * VALUE_BYTES)[8::VALUE_BYTES]


def _sequence(element: Converter) -> Converter:
    lower_one, lift_one = element.lower, element.lift

    def lower(value: object, keep: Keep) -> bytes:
        if not isinstance(value, list | tuple):
            raise ValueMismatch(f"expected a list, found {_shown(value)}")
        data = b"".join([lower_one(item, keep) for item in value])
        keep.append(data)
        return _vector.pack(_LIST, len(value), id(data) + _OCTETS)

    def lift(data: bytes, at: int) -> object:
        size, address = _qq(data, at + 8)
        if size > MAX_LIST:
            raise ValueMismatch(f"a component answered with a list of {size} elements; at most {MAX_LIST}")
        inner = ctypes.string_at(address, size * VALUE_BYTES) if size else b""
        return [lift_one(inner, index) for index in range(0, size * VALUE_BYTES, VALUE_BYTES)]

    return Converter(lower, lift, ())


def _record(fields: list[tuple[str, Converter]]) -> Converter:
    names = [name.encode() for name, _ in fields]
    plan = [
        (name, _name.pack(len(raw), id(raw) + _OCTETS), converter.lower, converter.absent)
        for (name, converter), raw in zip(fields, names, strict=True)
    ]
    lifts = [(name, converter.lift, i * ENTRY_BYTES + 16) for i, (name, converter) in enumerate(fields)]
    count = len(fields)

    pack, octets = _vector.pack, _OCTETS

    def lower(value: object, keep: Keep) -> bytes:
        if not isinstance(value, dict):
            raise ValueMismatch(f"expected a record, found {_shown(value)}")
        get = value.get
        try:
            data = b"".join([packed + lower_one(get(name, absent), keep) for name, packed, lower_one, absent in plan])
        except ValueMismatch:
            raise _fault_of_field(value, plan) from None
        keep.append(data)
        return pack(_RECORD, count, id(data) + octets)

    def lift(data: bytes, at: int) -> object:
        size, address = _qq(data, at + 8)
        inner = ctypes.string_at(address, size * ENTRY_BYTES) if size else b""
        return {name: lift_one(inner, offset) for name, lift_one, offset in lifts}

    lower.names = names  # type: ignore[attr-defined]  # they must live as long as their addresses are used
    return Converter(lower, lift, {})


def _fault_of_field(value: dict[str, object], plan: list[tuple[str, bytes, Lower, object]]) -> ValueMismatch:
    """What is wrong with a record that was refused, with the name of its field."""
    for name, _, lower_one, absent in plan:
        item = value.get(name, absent)
        if item is NO_ABSENT:
            return ValueMismatch(f"field `{name}` of a record is missing")
        try:
            lower_one(item, [])
        except ValueMismatch as error:
            return ValueMismatch(f"{name}: {error}")
    raise AssertionError("a record that was refused has no faulty field")


def _tuple(elements: list[Converter]) -> Converter:
    def lower(value: object, keep: Keep) -> bytes:
        if not isinstance(value, list | tuple) or len(value) != len(elements):
            raise ValueMismatch(f"expected a tuple of {len(elements)}, found {_shown(value)}")
        data = b"".join([e.lower(item, keep) for e, item in zip(elements, value, strict=True)])
        keep.append(data)
        return _vector.pack(_TUPLE, len(elements), id(data) + _OCTETS)

    def lift(data: bytes, at: int) -> object:
        size, address = _qq(data, at + 8)
        inner = ctypes.string_at(address, size * VALUE_BYTES) if size else b""
        return tuple(e.lift(inner, i * VALUE_BYTES) for i, e in enumerate(elements))

    return Converter(lower, lift, NO_ABSENT)


def _option(payload: Converter) -> Converter:
    def lower(value: object, keep: Keep) -> bytes:
        if value is None:
            return _NONE
        data = payload.lower(value, keep)
        keep.append(data)
        return _pointer.pack(_OPTION, id(data) + _OCTETS)

    def lift(data: bytes, at: int) -> object:
        (address,) = _q(data, at + 8)
        return payload.lift(ctypes.string_at(address, VALUE_BYTES), 0) if address else None

    return Converter(lower, lift, None)


_NONE = _pointer.pack(_OPTION, 0)


def _result_of(ok: Converter | None, err: Converter | None) -> Converter:
    def lower(value: object, keep: Keep) -> bytes:
        tag, payload = _tagged(value, ("ok", "err"))
        side = ok if tag == "ok" else err
        if side is None:
            return _result.pack(_RESULT, tag == "ok", 0)
        data = side.lower(payload, keep)
        keep.append(data)
        return _result.pack(_RESULT, tag == "ok", id(data) + _OCTETS)

    def lift(data: bytes, at: int) -> object:
        is_ok = data[at + 8] != 0
        (address,) = _q(data, at + 16)
        side = ok if is_ok else err
        payload = side.lift(ctypes.string_at(address, VALUE_BYTES), 0) if side is not None and address else None
        return ("ok" if is_ok else "err", payload)

    return Converter(lower, lift, NO_ABSENT)


def _variant_of(cases: list[tuple[str, Converter | None]]) -> Converter:
    by_name = {name: (name.encode(), converter) for name, converter in cases}

    def lower(value: object, keep: Keep) -> bytes:
        tag, payload = _tagged(value, tuple(by_name))
        raw, converter = by_name[tag]
        if converter is None:
            return _variant.pack(_VARIANT, len(raw), id(raw) + _OCTETS, 0)
        data = converter.lower(payload, keep)
        keep.append(data)
        return _variant.pack(_VARIANT, len(raw), id(raw) + _OCTETS, id(data) + _OCTETS)

    def lift(data: bytes, at: int) -> object:
        tag = cast(str, _lift_text(data, at))
        (address,) = _q(data, at + 24)
        converter = by_name[tag][1]
        payload = converter.lift(ctypes.string_at(address, VALUE_BYTES), 0) if converter and address else None
        return (tag, payload)

    return Converter(lower, lift, NO_ABSENT)


def _tagged(value: object, tags: tuple[str, ...]) -> tuple[str, object]:
    if isinstance(value, tuple) and len(value) == 2 and value[0] in tags:
        return value
    raise ValueMismatch(f"expected one of {', '.join(tags)} with its payload, found {_shown(value)}")


def _enum(names: list[str]) -> Converter:
    raw = {name: name.encode() for name in names}
    packed = {name: _vector.pack(_ENUM, len(text), id(text) + _OCTETS) for name, text in raw.items()}

    def lower(value: object, keep: Keep) -> bytes:
        if not isinstance(value, str) or value not in packed:
            raise ValueMismatch(f"expected one of {', '.join(raw)}, found {_shown(value)}")
        return packed[value]

    lower.names = raw  # type: ignore[attr-defined]  # they must live as long as their addresses are used
    return Converter(lower, _lift_text, NO_ABSENT)


def _flags(names: list[str]) -> Converter:
    raw = {name: name.encode() for name in names}

    def lower(value: object, keep: Keep) -> bytes:
        if not isinstance(value, set | frozenset) or not value <= raw.keys():
            raise ValueMismatch(f"expected some of {', '.join(raw)}, found {_shown(value)}")
        data = b"".join(_name.pack(len(raw[name]), id(raw[name]) + _OCTETS) for name in names if name in value)
        keep.append(data)
        return _vector.pack(_FLAGS, len(value), id(data) + _OCTETS)

    def lift(data: bytes, at: int) -> object:
        size, address = _qq(data, at + 8)
        inner = ctypes.string_at(address, size * 16) if size else b""
        pairs = [_qq(inner, i * 16) for i in range(size)]
        return {ctypes.string_at(where, length).decode() for length, where in pairs}

    return Converter(lower, lift, frozenset())


def _unsupported(name: str) -> Converter:
    def refuse(*_: object) -> bytes:
        raise ValueMismatch(f"values of the type {name} cannot cross the border")

    return Converter(refuse, refuse, NO_ABSENT)


_SCALARS: dict[type, Converter] = {
    c.Bool: _scalar(_B, "?", (bool,), "a boolean", False),
    c.S8: _scalar(_S8, "b", (int,), "an s8", 0),
    c.U8: _scalar(_U8, "B", (int,), "a u8", 0),
    c.S16: _scalar(_S16, "h", (int,), "an s16", 0),
    c.U16: _scalar(_U16, "H", (int,), "a u16", 0),
    c.S32: _scalar(_S32, "i", (int,), "an s32", 0),
    c.U32: _scalar(_U32, "I", (int,), "a u32", 0),
    c.S64: _scalar(_S64, "q", (int,), "an s64", 0),
    c.U64: _scalar(_U64, "Q", (int,), "a u64", 0),
    c.F32: _scalar(_F32, "f", (float, int), "a number", 0.0),
    c.F64: _scalar(_F64, "d", (float, int), "a number", 0.0),
    c.Char: Converter(_lower_char, lambda data, at: chr(struct.unpack_from("<I", data, at + 8)[0]), NO_ABSENT),
    c.String: Converter(_lower_text(_STRING), _lift_text, ""),
}


def converter_for(kind: c.ValType) -> Converter:
    """The converter of a declared type. Types that nothing we call uses are refused when a value of them crosses."""
    scalar = _SCALARS.get(type(kind))
    if scalar is not None:
        return scalar
    if isinstance(kind, c.ListType):
        element = kind.element
        return (
            Converter(_lower_bytes, _lift_bytes, b"")
            if isinstance(element, c.U8)
            else _sequence(converter_for(element))
        )
    if isinstance(kind, c.RecordType):
        return _record([(name, converter_for(field)) for name, field in kind.fields])
    if isinstance(kind, c.TupleType):
        return _tuple([converter_for(element) for element in kind.elements])
    if isinstance(kind, c.OptionType):
        return _option(converter_for(kind.payload))
    if isinstance(kind, c.ResultType):
        ok, err = kind.ok, kind.err
        return _result_of(None if ok is None else converter_for(ok), None if err is None else converter_for(err))
    if isinstance(kind, c.VariantType):
        return _variant_of([(name, None if case is None else converter_for(case)) for name, case in kind.cases])
    if isinstance(kind, c.EnumType):
        return _enum(kind.names)
    if isinstance(kind, c.FlagsType):
        return _flags(kind.names)
    return _unsupported(type(kind).__name__)


class Signature(msgspec.Struct, frozen=True):
    """A function's converters."""

    parameters: tuple[tuple[str, Converter], ...]
    result: Converter | None


def signature_of(function: c.FuncType) -> Signature:
    """Compile a function type."""
    result = function.result
    return Signature(
        tuple((name, converter_for(kind)) for name, kind in function.params),
        None if result is None else converter_for(result),
    )
