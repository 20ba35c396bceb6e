"""Whether the lines of an audit log are those that were written (formats: store 5). Pure.

Rules:
1. Each line carries the sha256 of the line before it (`previous_line`). So a line that was taken out, changed or moved shows at the next.
2. Lines of programs that do not chain carry none. One behind a chained line is told, for whoever changes a line could take the member away
   as well; of a log without any nothing can be told.
3. Retention takes lines from the beginning. The event of who did it holds the sha256 of the last line that went, and so anchors the first
   one that is left.
4. What is missing at the very end shows in no line. It shows where the document was replaced later than the last line tells, for a change
   is written down before and after it; one without its event has not ended yet, or was killed.
5. The sum has no key: who may write the whole file, and backups, can chain it anew. Who must know compares with a copy elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from greentic.ground.documents import Json, JsonObject, parse
from greentic.store.audit import INTENT_SCHEMA, PREVIOUS_LINE, line_digest

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


def end_missing(lines: Sequence[bytes], replaced: str | None) -> str | None:
    """What is missing at the end of a log, in words (rule 4). `replaced` is when the document was replaced last, as backups are named."""
    last = _line(lines[-1]) if lines else None
    if last is not None and last.get("schema") == INTENT_SCHEMA:
        return "its last change has no event: it has not ended yet or was killed, or the event was taken out"
    told = last.get("ts") if last is not None else ""
    if replaced is None or (lines and last is None) or not isinstance(told, str):
        return None
    if _moment(told) >= _moment(replaced):
        return None
    return f"it ends before the document was replaced last ({replaced}): lines at the end were taken out, or the clock was set back"


def _moment(stamp: str) -> str:
    """A time as a document or the name of a backup has it, for comparing."""
    return stamp.replace("-", "").replace(":", "").removesuffix("Z").ljust(len("20260101T000000.000000000"), "0")


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
