"""CBOR as packs use it (spec: packs-flows-components 2.2).

Rules:
1. Two encodings: `declared` keeps the order of keys, `canonical` sorts them by encoded length, then bytes.
2. Numbers take their shortest form; floats the shortest width that loses nothing, as the writers of real packs do.
3. What is read is bounded in bytes and depth, has text keys and no tags but the self-describing one, and comes back as
   plain dicts, lists and bytes.
"""

from __future__ import annotations

import struct

from greentic.ground.errors import MalformedArtifact

MAX_DEPTH = 64
_SELF_DESCRIBED = bytes.fromhex("d9d9f7")


def encode(value: object, *, canonical: bool = False) -> bytes:
    """The bytes of a tree of dicts, lists, texts, bytes, numbers, booleans and None."""
    out = bytearray()
    _write(value, out, canonical)
    return bytes(out)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * width):
            return bytes([major << 5 | info]) + number.to_bytes(width, "big")
    raise ValueError(f"{number} does not fit into 64 bits")


def _write(value: object, out: bytearray, canonical: bool) -> None:
    if value is None:
        out += b"\xf6"
    elif value is True or value is False:
        out += b"\xf5" if value else b"\xf4"
    elif isinstance(value, int):
        out += _head(0, value) if value >= 0 else _head(1, -1 - value)
    elif isinstance(value, str):
        raw = value.encode()
        out += _head(3, len(raw)) + raw
    elif isinstance(value, bytes):
        out += _head(2, len(value)) + value
    elif isinstance(value, float):
        out += _float(value)
    elif isinstance(value, list | tuple):
        out += _head(4, len(value))
        for item in value:
            _write(item, out, canonical)
    elif isinstance(value, dict):
        out += _head(5, len(value))
        items = [(encode(k), v) for k, v in value.items()]
        for key, item in sorted(items, key=lambda kv: (len(kv[0]), kv[0])) if canonical else items:
            out += key
            _write(item, out, canonical)
    else:
        raise TypeError(f"{type(value).__name__} has no CBOR form")


def _float(value: float) -> bytes:
    for head, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value or value != value:
            return head + packed
    return b"\xfb" + struct.pack(">d", value)


def decode(data: bytes, *, limit: int) -> object:
    """The value in `data`, which may have at most `limit` bytes. Raises `MalformedArtifact`."""
    if len(data) > limit:
        raise MalformedArtifact(f"a CBOR document of {len(data)} bytes is larger than {limit}")
    import cbor2

    if data.startswith(_SELF_DESCRIBED):
        data = data[len(_SELF_DESCRIBED) :]
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH, allow_duplicate_keys=False, strict_hashable_types=True)
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise MalformedArtifact(f"damaged CBOR: {error}") from None
    _check(value)
    return value


def _check(value: object) -> None:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return
    if isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise MalformedArtifact(f"CBOR map key {key!r} is no text")
            _check(item)
    else:
        raise MalformedArtifact(f"CBOR holds a {type(value).__name__}, which no pack may")
