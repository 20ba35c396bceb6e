"""What a reconcile would change, for people: one line an object, one an altered field."""

from __future__ import annotations

from typing import cast

from greentic.ground.documents import Json, JsonObject, compact
from greentic.terminal.output import console_for_people, printed, rows_in


def show_changes(result: JsonObject) -> None:
    """Print a dry run: created, altered and deleted objects, and what stands in the way."""
    from rich.text import Text

    console = console_for_people()

    def line(mark: str, style: str, text: str) -> None:
        console.print(Text(f"{mark} ", style) + Text(printed(text)), soft_wrap=True)

    for change in rows_in(result, "changes"):
        if change["action"] == "create":
            line("+", "green", _name(change))
            continue
        line("~", "yellow", _name(change))
        fields = rows_in(change, "fields")
        for field in fields:
            arrow = f"{_value(field['before'])} → {_value(field['after'])}"
            console.print(Text(printed(f"    {field['field']}  "), "dim") + Text(printed(arrow)), soft_wrap=True)
        count = change["field_count"]
        if isinstance(count, int) and count > len(fields):
            console.print(f"    … and {count - len(fields)} more fields", style="dim")
    for thing in rows_in(result, "deletions"):
        line("-", "red", _name(thing))
    for thing in rows_in(result, "not_ours"):
        line("!", "bold red", f"{_name(thing)} is not ours: {thing['reason']} (--adopt)")
    for thing in rows_in(result, "conflicts"):
        line("!", "bold red", f"{_name(thing)}: {thing['field']} is managed by {thing['manager']} (--force)")
    for thing in rows_in(result, "refused_by_server"):
        line("!", "bold red", f"{_name(thing)}: {thing['message']}")
    for key, why in (
        ("overridden_by_admission", "differs, and a webhook of the cluster keeps it so"),
        ("left_alone", "is there, and this identity may not change it"),
        ("unattributed", "carries this environment's labels, and no store claims it"),
    ):
        for thing in rows_in(result, key):
            line("?", "cyan", f"{_name(thing)} {why}")
    for warning in cast("list[Json]", result.get("warnings") or []):
        line("?", "cyan", str(warning))
    where = f"namespace {result['namespace']}, as {result['identity']} identity"
    told = (
        f"in sync ({where}): {result['unchanged_count']} objects"
        if result["in_sync"]
        else f"changes to apply ({where})"
    )
    console.print(f"\n{told}")


def _name(thing: JsonObject) -> str:
    return f"{thing['kind']} {thing['name']}"


def _value(value: Json) -> str:
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else compact(value).decode()
