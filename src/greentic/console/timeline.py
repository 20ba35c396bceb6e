"""The audit of an environment as a time line: the newest changes, in words for people.

Rules:
1. Only events are shown; an intent without an event is told as a change whose end is not known.
2. So many bytes from the end of the log are read, never all of it; what is older is said to be there.
3. A line that cannot be read takes no other with it, and is counted.
"""

from __future__ import annotations

import os
from pathlib import Path

from greentic.ground.documents import Json, JsonObject, parse
from greentic.store.audit import EVENT_SCHEMA, INTENT_SCHEMA

READ_BYTES = 2 << 20
MOST = 400
"""Changes."""


def timeline(path: Path) -> JsonObject:
    """What changed, newest first. Raises `OSError`."""
    lines, cut = _tail(path)
    events: dict[str, JsonObject] = {}
    damaged = 0
    for raw in lines:
        try:
            line = parse(raw)
        except ValueError:
            damaged += 1
            continue
        if isinstance(line, dict) and isinstance(line.get("event_id"), str):
            schema = line.get("schema")
            if schema == EVENT_SCHEMA or (schema == INTENT_SCHEMA and str(line["event_id"]) not in events):
                events[str(line["event_id"])] = _row(line, ended=schema == EVENT_SCHEMA)
    rows = list(events.values())
    rows.reverse()
    return {"changes": [*rows[:MOST]], "older": cut or len(rows) > MOST, "damaged": damaged}


def _tail(path: Path) -> tuple[list[bytes], bool]:
    """The last lines of the log, and whether there are more before them."""
    if not path.exists():
        return [], False
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        begin = max(0, size - READ_BYTES)
        file.seek(begin)
        lines = file.read(READ_BYTES).splitlines()
    return (lines[1:] if begin else lines), begin > 0


def _row(line: JsonObject, *, ended: bool) -> JsonObject:
    actor, result = _object(line.get("actor")), _object(line.get("result"))
    return {
        "id": line["event_id"],
        "at": _text(line.get("ts")),
        "who": _text(actor.get("user")) or (f"uid {actor['uid']}" if "uid" in actor else ""),
        "noun": _text(line.get("noun")),
        "verb": _text(line.get("verb")),
        "target": _object(line.get("target")),
        "outcome": _text(result.get("outcome")) if ended else "unknown",
        "message": _text(result.get("message")),
        "from": line.get("previous_generation"),
        "to": line.get("new_generation"),
        "recovered": line.get("recovered") is True,
    }


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
