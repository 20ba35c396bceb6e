"""The audit of an environment as people read it: who, when, what, and what came of it. Pure.

Rules:
1. An intent and the event of the same id are one entry; an intent without an event is one whose end is not known.
2. A line that cannot be read takes no other with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from greentic.ground.documents import Json, JsonObject, compact, parse
from greentic.store.audit import EVENT_SCHEMA, INTENT_SCHEMA

MOST_SHOWN = 120


class Entry(NamedTuple):
    """One change."""

    at: str
    who: str
    verb: str
    """Noun and verb."""
    target: JsonObject
    """What the verb was about, as the log tells it."""
    outcome: str
    """`ok`, the kind of an error, or `unknown`."""
    before: int | None
    after: int | None
    """Generations."""


def entries(lines: Iterable[bytes]) -> list[Entry]:
    """The changes that some lines tell of, oldest first (rule 1)."""
    found: dict[str, Entry] = {}
    for raw in lines:
        try:
            line = parse(raw)
        except ValueError:
            continue
        if not isinstance(line, dict) or not isinstance(line.get("event_id"), str):
            continue
        schema, name = line.get("schema"), str(line["event_id"])
        if schema == EVENT_SCHEMA or (schema == INTENT_SCHEMA and name not in found):
            found[name] = _entry(line, ended=schema == EVENT_SCHEMA)
    return list(found.values())


def told(target: JsonObject) -> str:
    """What a change was about, in a few words: its members, as far as they are short."""
    return ", ".join(f"{key} {text}" for key, value in target.items() if (text := _short(value)))[:MOST_SHOWN]


def _short(value: Json) -> str:
    if isinstance(value, str):
        return value if len(value) <= 64 else f"{value[:61]}…"
    if value is None or isinstance(value, bool | int | float):
        return str(value).lower()
    text = compact(value).decode()
    return text if 2 < len(text) <= 64 else ""


def _entry(line: JsonObject, *, ended: bool) -> Entry:
    actor, result = _object(line.get("actor")), _object(line.get("result"))
    who = _text(actor.get("user")) or (f"uid {actor['uid']}" if "uid" in actor else "?")
    outcome = (_text(result.get("kind")) or _text(result.get("outcome"))) if ended else "unknown"
    return Entry(
        _text(line.get("ts")), who, f"{_text(line.get('noun'))} {_text(line.get('verb'))}", _object(line.get("target")), outcome,
        _number(line.get("previous_generation")), _number(line.get("new_generation")),
    )  # fmt: skip


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
