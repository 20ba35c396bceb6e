"""What a value of a flow may be: the one place that decides the range. Pure.

Rules:
1. A value is what JSON has a word for: null, booleans, integers, finite floats, texts of whole characters, lists, and objects with
   texts as names. Dates, sets, bytes and halves of surrogate pairs are refused by a sentence that names their place.
2. Integers have 64 bits, with or without sign. A larger one that comes from outside becomes the nearest float, as in the existing
   worker; one that is too large for a float is refused. So no writer behind this border meets an integer that it has no form for.
3. Numbers are compared as what they are: integers exactly, however large.
"""

from __future__ import annotations

import math

import msgspec

from greentic.ground.errors import FlowFailure

LEAST, GREATEST = -(1 << 63), (1 << 64) - 1
_written = msgspec.msgpack.Encoder().encode
"""MessagePack has a form for exactly the integers that are in range. Writing a value takes a twentieth of walking through it."""


def number(value: int) -> int | float:
    """An integer, or the nearest float of one beyond 64 bits. Raises `FlowFailure` for one beyond all floats."""
    if LEAST <= value <= GREATEST:
        return value
    try:
        return float(value)
    except OverflowError:
        raise FlowFailure("an integer is too large: more than 308 digits") from None


def in_range(value: object) -> object:
    """The value with each integer in range (rule 2); the same object if there is nothing to change. Raises `FlowFailure`."""
    try:
        _written(value)
    except (OverflowError, TypeError, ValueError, RecursionError):
        return _brought_into_range(value)
    return value


def _brought_into_range(value: object) -> object:
    if isinstance(value, int):
        return value if LEAST <= value <= GREATEST else number(value)
    if isinstance(value, dict):
        changed = {key: new for key, item in value.items() if (new := _brought_into_range(item)) is not item}
        return {**value, **changed} if changed else value
    if isinstance(value, list):
        items = [_brought_into_range(item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def fault(value: object, place: str = "") -> str | None:
    """Why a value is none of a flow (rule 1), with its place such as `.a[0]`; nothing if it is one."""
    if value is None or isinstance(value, bool):
        return None
    where = f" at {place}" if place else ""
    if isinstance(value, int):
        return None if LEAST <= value <= GREATEST else f"the integer {str(value)[:40]}{where} does not fit into 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value}{where} is no JSON number"
    if isinstance(value, str):
        return f"half a surrogate pair{where} is no text" if any("\ud800" <= c <= "\udfff" for c in value) else None
    if isinstance(value, list):
        return next((told for at, item in enumerate(value) if (told := fault(item, f"{place}[{at}]"))), None)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"the name {key!r}{where} is no text"
            told = fault(key, f"a name of {place or 'the value'}") or fault(item, f"{place}.{key}")
            if told:
                return told
        return None
    return f"a {type(value).__name__}{where} is no JSON value"


def compared(text: str) -> int | float | None:
    """The number that a text is, integers whole (rule 3); nothing if it is none."""
    if not text.isascii() or "_" in text or text != text.strip():
        return None
    digits = text[1:] if text[:1] in ("+", "-") else text
    try:
        return int(text) if digits.isdigit() and len(digits) <= 400 else float(text)
    except ValueError:
        return None
