"""`env doctor` and `env history` for people: what is wrong with an environment and what to do, and what was published. Pure.

Rule: what is right is one line; each thing that is wrong stands by itself, with its next step below it.
"""

from __future__ import annotations

from collections.abc import Iterator

from greentic.ground.documents import Json, JsonObject
from greentic.terminal.output import rows_in
from greentic.terminal.table_layout import EMPTY, Block, Cell, Column, Line, Prose, Table, cell
from greentic.terminal.words import digest

_EDITION = (
    Column("generation", right=True), Column("published", 2), Column("document", whole=True), Column("manifest", 3, whole=True),
    Column("content of", 1),
)  # fmt: skip


def doctor(result: JsonObject) -> list[Block]:
    """What was found in an environment, which may not even load."""
    valid = result["validate"]
    loads = isinstance(valid, dict) and valid["status"] == "ok"
    head = [
        cell(str(result["environment_id"]), "bold"),
        cell("loads", "green") if loads else cell("does not load", "red"),
    ]
    wrong = list(_wrong(result))
    blocks: list[Block] = [Line(head)]
    blocks += [block for found in wrong for block in (EMPTY, *found)] or [Line((cell("nothing is wrong", "green"),))]
    for key, told in (("missing_slots", "not bound:"), ("backups", "backups:")):
        names = _texts(result.get(key))
        blocks += [EMPTY, Prose((cell(told, "dim"), cell(", ".join(names), "dim")))] if names else []
    return blocks


def _wrong(result: JsonObject) -> Iterator[list[Block]]:
    valid = result["validate"]
    if isinstance(valid, dict) and valid.get("message"):
        yield _told(valid.get("kind"), valid["message"], None)
    for row in rows_in(result, "findings"):
        yield _told(row["kind"], row["message"], row.get("fix"))
    for row in rows_in(result, "stale_revisions"):
        text = row.get("detail") or f"{row['expected_path']} is not there"
        yield _told("stale-revision", f"{row['bundle_id']}, revision {row['revision_id']}: {text}", row.get("fix"))
    extensions = result.get("extensions")
    for odd in (result, extensions if isinstance(extensions, dict) else {}):
        for kind in _texts(odd.get("unknown_kinds")):
            yield _told("unknown-kind", f"nothing here handles `{kind}`", None)
        for row in rows_in(odd, "slot_mismatches"):
            yield _told(
                "slot-mismatch", f"`{row['kind']}` is for {row['handler_slot']}, bound as {row['bound_slot']}", None
            )
        for row in rows_in(odd, "version_skew"):
            yield _told(
                "version-skew", f"`{row['kind']}` is bound as {row['requested']}, here is {row['supported']}", None
            )


def _told(kind: Json, message: Json, fix: Json) -> list[Block]:
    told: list[Block] = [Prose((cell(f"{kind}:", "red"), cell(str(message))))]
    return [*told, Prose((cell("next:", "dim"), cell(str(fix))), whole=True)] if fix else told


def _texts(value: Json) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def history(result: JsonObject, *, wide: bool) -> list[Block]:
    """The published generations, newest first; digests are short unless it is `wide`."""
    short = (lambda text: cell(text)) if wide else digest
    rows: list[list[Cell]] = []
    for row in rows_in(result, "editions"):
        at, of = str(row["created_at"]), row["rollback_of"]
        rows.append([
            cell(str(row["generation"]), "bold"), cell(at if wide else at[:19].replace("T", " "), "dim"),
            short(str(row["document"])), short(str(row["manifest"])), cell("" if of is None else str(of)),
        ])  # fmt: skip
    return [Table(_EDITION, rows)]
