"""Paths into JSON values (formats: flows 7).

Rules:
1. A path is names joined by dots, `["name"]`, `['name']`, `[0]` or `[name]`; a leading `this` means the whole.
2. A name is everything up to the next `.`, `[` or `]`, without the blanks around it.
3. What is not there is `MISSING`, which is not null. A text or a number has no members.
4. A pointer (`/a/b/0`) is a path of RFC 6901.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final


class Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""No value: the path leads nowhere."""

_NAME_END = re.compile(r"[.\[\]]")

Step = str | int
Path = tuple[Step, ...]


def parse_path(text: str) -> Path | None:
    """The steps of an expression, or nothing if it is no path (an unclosed bracket, an empty name)."""
    steps: list[Step] = []
    at, size = 0, len(text)
    while at < size:
        char = text[at]
        if char == ".":
            at += 1
            continue
        if char == "]":
            return None
        if char == "[":
            end = text.find("]", at)
            if end < 0:
                return None
            inner = text[at + 1 : end].strip()
            if inner[:1] in ("'", '"'):
                quote = inner[0]
                end = text.find(quote + "]", text.find(quote, at) + 1)
                if end < 0:
                    return None
                steps.append(text[text.find(quote, at) + 1 : end])
                at = end + 2
                continue
            steps.append(int(inner) if _is_index(inner) else inner)
            at = end + 1
            continue
        found = _NAME_END.search(text, at)
        end = size if found is None else found.start()
        name = text[at:end].strip()
        if name:
            steps.append(name)
        at = end
    if steps and steps[0] == "this":
        steps.pop(0)
    return tuple(steps)


def follow(value: object, steps: Sequence[Step]) -> object:
    """The value at the end of a path, or `MISSING`."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step if isinstance(step, str) else str(step), MISSING)
        elif isinstance(value, list):
            index = step if isinstance(step, int) else int(step) if _is_index(step) else -1
            if not 0 <= index < len(value):
                return MISSING
            value = value[index]
        else:
            return MISSING
        if value is MISSING:
            return MISSING
    return value


def _is_index(text: str) -> bool:
    """Whether a text is a position in a list; no list has one of more than 18 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def pointer_steps(pointer: str) -> Path:
    """The steps of a JSON pointer that starts with `/`."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
