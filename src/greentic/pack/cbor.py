"""CBOR as packs use it (formats: pack 2).

Rules:
1. Two encodings: `declared` keeps the order of keys, `canonical` sorts them by encoded length, then bytes.
2. Numbers take their shortest form; floats the shortest width that loses nothing, as the writers of real packs do.
3. What is read is bounded in bytes, items and depth, and is a tree of plain dicts with text keys, lists, texts, bytes, numbers of
   64 bits, booleans and nothing. No tags but the self-describing one: a tag can refer to another part, so that a few bytes stand
   for much, or make a number of any size.
"""

from __future__ import annotations

import struct

from greentic.ground.errors import LimitExceeded, MalformedArtifact

MAX_DEPTH = 64
MAX_ITEMS = 1_000_000
"""Most keys and values of one document; an empty list is one byte, and sixty in memory."""
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
        raise LimitExceeded(f"a CBOR document of {len(data)} bytes is larger than {limit}")
    if len(data) > MAX_ITEMS:  # fewer bytes cannot hold more items
        _count(data)
    import cbor2

    data = data.removeprefix(_SELF_DESCRIBED)
    try:
        value = cbor2.loads(
            data,
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_REFUSED,
            tag_hook=_refuse,
        )
        _check(value)
    except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise MalformedArtifact(f"damaged CBOR: {error.__cause__ or error}") from None
    return value


def _refuse(*_: object) -> object:
    raise ValueError("it uses a tag, which no pack may")


_REFUSED = dict.fromkeys(range(1024), _refuse)
"""Every tag that the library would give a meaning, and more; the hook has the rest."""


def _count(data: bytes) -> None:
    """Count the heads of items, without building one. Raises `LimitExceeded`; damage is left to the reader to tell."""
    at, end = 0, len(data)
    for _ in range(MAX_ITEMS + 1):
        if at >= end:
            return
        major, info = data[at] >> 5, data[at] & 31
        width = 1 << info - 24 if 24 <= info < 28 else 0
        if major in (2, 3) and info < 28:
            at += int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else info
        at += 1 + width
    raise LimitExceeded(f"a CBOR document has more than {MAX_ITEMS} items")


def _check(value: object) -> None:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return
    if isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"a key of a map is a {type(key).__name__}, no text")
            _check(item)
    else:
        raise ValueError(f"it holds a {type(value).__name__}, which no pack may")
