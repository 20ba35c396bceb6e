"""`env changes` at a terminal: what differs between two generations, one change a sentence. Pure.

Rules:
1. Deployments and revisions go by their names, those that only one of the two generations knows by what it says of them.
2. What differs whenever anything does (the seal, counters, times, keys) is counted and not shown; JSON has it.
"""

from __future__ import annotations

import re

from greentic.examine.env_log import ChangeLine, EnvChanges
from greentic.ground.documents import Json, compact
from greentic.history.trail import named, shares, told
from greentic.model.environment import Environment
from greentic.model.naming import names_of
from greentic.terminal.table_layout import EMPTY, Block, Cell, Line, Prose, cell
from greentic.terminal.words import counted, percent

_ALWAYS = re.compile(
    r"greentic:delivery\.(seal|generation)\b|traffic_splits\[[^\]]+\]\.(generation|updated_at|idempotency_key|previous_split_ref)\Z"
)
_KNOWN = frozenset({"schema", "env_id", "deployment_id", "revision_id", "bundle_id", "sequence"})
"""Members of a record that its place tells already."""
_ID = re.compile(r"\[([^\]]+)\]")


def generations(env: Environment, found: EnvChanges) -> list[Block]:
    """Everything that differs, place by place."""
    names = _names(env, found.differences)
    shown = [d for d in found.differences if not _ALWAYS.match(d.path)]
    title = (
        cell(env.environment_id, "bold"),
        cell(f"generation {found.from_generation} → {found.to_generation}", "dim"),
    )
    blocks: list[Block] = [Line((*title, cell(counted(len(shown), "difference"), "dim"))), EMPTY]
    blocks += [Prose((cell(_place(d.path, names), "bold"), *_change(d, names))) for d in shown]
    always = len(found.differences) - len(shown)
    return [*blocks, Prose((cell(f"and {always} that every change brings", "dim"),))] if always else blocks


def _change(line: ChangeLine, names: dict[str, str]) -> list[Cell]:
    if line.before is None:
        return [cell("added", "green"), cell(_told(line, line.after, names))]
    if line.after is None:
        return [cell("gone", "red"), cell(_told(line, line.before, names))]
    return [cell(_told(line, line.before, names)), cell("→", "dim"), cell(_told(line, line.after, names))]


def _place(path: str, names: dict[str, str]) -> str:
    return _ID.sub(lambda hit: f"[{names.get(hit[1], hit[1])}]", path)


def _told(line: ChangeLine, value: Json, names: dict[str, str]) -> str:
    """A value in a few words, if it has a form that people know."""
    if isinstance(value, int) and line.path.endswith(".weight_bps"):
        return percent(value)
    if isinstance(value, dict):
        entries = value.get("entries", [value])
        weights: list[Json] = [
            [e.get("revision_id"), e["weight_bps"]]
            for e in (entries if isinstance(entries, list) else [])
            if isinstance(e, dict) and "weight_bps" in e
        ]
        return shares(weights, names) or told({k: v for k, v in value.items() if k not in _KNOWN}, names)
    known = named(value, names)
    text = ", ".join(map(str, known)) if isinstance(known, list) else known
    return text if isinstance(text, str) else compact(text).decode()


def _names(env: Environment, lines: list[ChangeLine]) -> dict[str, str]:
    """The names of today, and those of records that came or went (rule 1)."""
    found: dict[str, str] = {}
    for record in (r for line in lines for r in (line.before, line.after) if isinstance(r, dict)):
        bundle, sequence = record.get("bundle_id"), record.get("sequence")
        if isinstance(bundle, str) and isinstance(sequence, int) and isinstance(record.get("revision_id"), str):
            found[str(record["revision_id"])] = f"{bundle}@{sequence}"
        elif isinstance(bundle, str) and isinstance(record.get("deployment_id"), str):
            found.setdefault(str(record["deployment_id"]), bundle)
    return found | names_of(env)
