"""The audit of an environment as people read it: who, when, what, and what came of it. Pure.

Rules:
1. An intent and the event of the same id are one entry; an intent without an event is one whose end is not known.
2. A line that cannot be read takes no other with it.
3. Shares of traffic are told as people say them, from what to what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


class Records(NamedTuple):
    """What some lines hold: by id the event of a change, or its intent while there is no event (rule 1)."""

    by_id: dict[str, JsonObject]
    damaged: int
    """Lines that cannot be read (rule 2)."""


def records(lines: Iterable[bytes]) -> Records:
    """The changes that some lines tell of, oldest first, as they were written."""
    found: dict[str, JsonObject] = {}
    damaged = 0
    for raw in lines:
        try:
            line = parse(raw)
        except ValueError:
            damaged += 1
            continue
        if isinstance(line, dict) and isinstance(line.get("event_id"), str):
            name = str(line["event_id"])
            if ended(line) or (line.get("schema") == INTENT_SCHEMA and name not in found):
                found[name] = line
    return Records(found, damaged)


def entries(lines: Iterable[bytes]) -> list[Entry]:
    """The changes that some lines tell of, oldest first."""
    return [_entry(line) for line in records(lines).by_id.values()]


def ended(line: JsonObject) -> bool:
    """Whether a line tells what came of a change."""
    return line.get("schema") == EVENT_SCHEMA


def who(line: JsonObject) -> str:
    """Who made a change; nothing if the line does not tell."""
    actor = member(line, "actor")
    return text(actor, "user") or (f"uid {actor['uid']}" if "uid" in actor else "")


def member(line: JsonObject, key: str) -> JsonObject:
    """An object in a line; an empty one for anything else."""
    value = line.get(key)
    return value if isinstance(value, dict) else {}


def text(line: JsonObject, key: str) -> str:
    """A text in a line; an empty one for anything else."""
    value = line.get(key)
    return value if isinstance(value, str) else ""


def told(target: JsonObject, names: Mapping[str, str]) -> str:
    """What a change was about, in a few words: its members, as far as they are short, ids by the names that people use."""
    if "weights_before" in target:
        return _moved(target, names)[:MOST_SHOWN]
    parts = []
    for key, value in target.items():
        known = named(value, names)
        short = _short(known)
        if short:
            parts.append(f"{key if known == value else key.removesuffix('_id')} {short}")
    return ", ".join(parts)[:MOST_SHOWN]


def _moved(target: JsonObject, names: Mapping[str, str]) -> str:
    """A changed split: `hello: @1 100% → @1 90%, @2 10%`."""
    deployment = named(target.get("deployment_id"), names)
    own = {i: n.removeprefix(str(deployment)) if n.startswith(f"{deployment}@") else n for i, n in names.items()}
    before, after = (shares(target.get(key), own) or "nothing" for key in ("weights_before", "weights"))
    return f"{deployment}: {before} → {after}"


def named(value: Json, names: Mapping[str, str]) -> Json:
    """A value with names in the place of ids, wherever they stand in it."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [named(item, names) for item in value]
    return {key: named(item, names) for key, item in value.items()} if isinstance(value, dict) else value


def shares(value: Json, names: Mapping[str, str]) -> str:
    """Weights, `[[revision, basis points]]`, in words; nothing for anything else."""
    pairs = value if isinstance(value, list) else []
    found = [
        f"{names.get(str(pair[0]), pair[0])} {pair[1] / 100:g}%"
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int)
    ]
    return ", ".join(found) if len(found) == len(pairs) else ""


def _short(value: Json) -> str:
    if words := shares(value, {}):
        return words
    if isinstance(value, str):
        return value if len(value) <= 64 else f"{value[:61]}…"
    if value is None or isinstance(value, bool | int | float):
        return str(value).lower()
    words = _words(value) if len(compact(value)) <= MOST_SHOWN else ""
    return words if len(words) <= 64 else ""


def _words(value: Json) -> str:
    """A short list or object without its signs: `greentic 10000`."""
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if isinstance(value, dict):
        return " ".join(map(_words, value.values()))
    return value if isinstance(value, str) else str(value).lower()


def _entry(line: JsonObject) -> Entry:
    result = member(line, "result")
    outcome = (text(result, "kind") or text(result, "outcome")) if ended(line) else "unknown"
    return Entry(
        text(line, "ts"), who(line) or "?", f"{text(line, 'noun')} {text(line, 'verb')}", member(line, "target"), outcome,
        _number(line.get("previous_generation")), _number(line.get("new_generation")),
    )  # fmt: skip


def _number(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
