"""One record of the log as a line: for people, or as JSON for machines. Pure.

Rules:
1. A record is one line. Control characters, which a path or a name may bring along, are written as escapes: they command terminals, or turn
   the direction in which a line is read.
2. The line for people is the one that other workers write (formats: worker 2); what it was done for follows in brackets.
3. JSON has `time`, `level`, `source` and `message` first, then `request_id`, then what the record brings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Level = Literal["Debug", "Info", "Warn", "Error"]
Shape = Literal["text", "json"]
Field = str | int | float | bool | None
_DIRECTIONS = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""What turns the direction of reading: a line would say something else than it holds."""
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))} | {
    code: f"\\u{code:04x}" for code in _DIRECTIONS
}
_FIRST = frozenset({"time", "level", "source", "message", "request_id"})


class Record(msgspec.Struct, frozen=True):
    """Something to tell."""

    time: str
    level: Level
    module: str
    message: str
    request: bytes | None = None
    fields: Mapping[str, Field] = {}


def clean(text: str) -> str:
    """A text without line ends and control characters, and without what no encoding has."""
    inert = " ".join(text.splitlines()).translate(_CONTROLS)
    return inert if inert.isascii() else inert.encode("utf-8", "replace").decode()


def text_line(record: Record) -> str:
    """The line for people."""
    request = "" if record.request is None else f" [{record.request.decode('latin-1')}]"
    return f"{record.time} [{record.level}] greentic.{record.module} - {clean(record.message)}{request}\n"


def json_line(record: Record) -> str:
    """The line for machines."""
    told: dict[str, Field] = {
        "time": record.time,
        "level": record.level.lower(),
        "source": f"greentic.{record.module}",
        "message": clean(record.message),
    }
    if record.request is not None:
        told["request_id"] = record.request.decode("latin-1")
    for name, value in record.fields.items():
        if name not in _FIRST:
            told[name] = clean(value) if isinstance(value, str) else value
    return msgspec.json.encode(told).decode() + "\n"
