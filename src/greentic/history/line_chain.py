"""Whether the lines of an audit log are those that were written (formats: store 5). Pure.

Rules:
1. Each line carries the sha256 of the line before it (`previous_line`). So a line that was taken out, changed or moved shows at the next.
2. Lines of programs that do not chain carry none. One behind a chained line is told, for whoever changes a line could take the member away
   as well; of a log without any nothing can be told.
3. Retention takes lines from the beginning. The event of who did it holds the sha256 of the last line that went, and so anchors the first
   one that is left.
4. What is missing at the very end shows in no line, and the sum has no key: who may write the whole file can chain it anew. Who must know
   compares with a copy elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from greentic.ground.documents import Json, JsonObject, parse
from greentic.store.audit import PREVIOUS_LINE, line_digest

PRUNED = "audit_last_sha256"


class Break(NamedTuple):
    """A line that does not follow from the one before it."""

    number: int
    """Of the line, from 1."""
    why: str


def breaks(lines: Sequence[bytes]) -> list[Break]:
    """Where the chain of a log is broken. `lines` are without their ends."""
    found: list[Break] = []
    chained = False
    anchor = _anchor(lines)
    for number, raw in enumerate(lines, 1):
        line = _line(raw)
        if line is None:
            found.append(Break(number, "it is no JSON object: cut short by a kill, or damaged"))
            continue
        told = line.get(PREVIOUS_LINE)
        if told is None:
            if chained:
                found.append(
                    Break(
                        number, "it does not tell which line was before it: another program wrote it, or it was changed"
                    )
                )
            continue
        before = line_digest(lines[number - 2]) if number > 1 else anchor
        if told != before:
            found.append(
                Break(number, "the line before it is not the one that was there: one was changed, moved or taken out")
            )
        chained = True
    return found


def _anchor(lines: Sequence[bytes]) -> str | None:
    """The digest of the last line that retention took away, from the newest event that tells of it."""
    for raw in reversed(lines):
        if (
            PRUNED.encode() in raw
            and (line := _line(raw)) is not None
            and isinstance(target := line.get("target"), dict)
        ):
            told = target.get(PRUNED)
            if isinstance(told, str):
                return f"sha256:{told.removeprefix('sha256:')}"
    return None


def _line(raw: bytes) -> JsonObject | None:
    try:
        line: Json = parse(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
