"""The audit of an environment as a time line: the newest changes, in words for people.

Rules:
1. Only events are shown; an intent without an event is told as a change whose end is not known.
2. So many bytes from the end of the log are read, never all of it; what is older is said to be there.
3. A line that cannot be read takes no other with it, and is counted.
"""

from __future__ import annotations

import os
from pathlib import Path

from greentic.ground.documents import JsonObject, open_file
from greentic.history import trail

READ_BYTES = 2 << 20
MOST = 400
"""Changes."""


def timeline(path: Path) -> JsonObject:
    """What changed, newest first. Raises `OSError`."""
    lines, cut = _tail(path)
    found = trail.records(lines)
    rows = [_row(line) for line in found.by_id.values()]
    rows.reverse()
    return {"changes": [*rows[:MOST]], "older": cut or len(rows) > MOST, "damaged": found.damaged}


def _tail(path: Path) -> tuple[list[bytes], bool]:
    """The last lines of the log, and whether there are more before them."""
    if not path.exists():
        return [], False
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        begin = max(0, size - READ_BYTES)
        file.seek(begin)
        lines = file.read(READ_BYTES).splitlines()
    return (lines[1:] if begin else lines), begin > 0


def _row(line: JsonObject) -> JsonObject:
    result = trail.member(line, "result")
    return {
        "id": line["event_id"],
        "at": trail.text(line, "ts"),
        "who": trail.who(line),
        "noun": trail.text(line, "noun"),
        "verb": trail.text(line, "verb"),
        "target": trail.member(line, "target"),
        "outcome": trail.text(result, "outcome") if trail.ended(line) else "unknown",
        "message": trail.text(result, "message"),
        "from": line.get("previous_generation"),
        "to": line.get("new_generation"),
        "recovered": line.get("recovered") is True,
    }
