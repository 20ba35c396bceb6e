"""Halves of surrogate pairs in JSON texts, `"\\ud800"`: what some writers leave of a character that they cut in two. Pure."""

from __future__ import annotations

import re

import msgspec

_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_FIRST, _SECOND = 0xD800 >> 10, 0xDC00 >> 10


def half_a_pair(data: bytes | str | msgspec.Raw) -> str | None:
    """Where a damaged text has half a pair; the library calls some of them the end of the text."""
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    first: int | None = None
    """Where the pair begins whose second half is awaited."""
    for escape in _ESCAPE.finditer(text):
        half, at = int(escape[1], 16) >> 10 if escape[1] else 0, escape.start()
        if first is not None and (half != _SECOND or first + 6 != at):
            break
        if first is None and half == _SECOND:
            first = at
            break
        first = at if half == _FIRST else None
    return None if first is None else f"half a surrogate pair at byte {first}, which is no text"
