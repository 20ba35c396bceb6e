"""Which verb has which picture and which names, and the terminal that shows them: the only impure module of this room.

Rules:
1. `table` is a picture that fits the terminal, `wide` the same with every column at its full width.
2. `name` prints one name a line, as verbs take them; nothing else, for scripts.
3. `NO_COLOR` and a terminal without colours are heeded.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from greentic.ground.documents import Json, JsonObject
from greentic.history.trail import MOST_SHOWN
from greentic.model.naming import revision_name
from greentic.operate.change import Context
from greentic.terminal import env_picture, health_picture
from greentic.terminal.output import Form, console_for_people, inert, printed, rows_in
from greentic.terminal.table_layout import Block, Cell, Column, Line, Table, cell, laid_out

if TYPE_CHECKING:  # what one verb answers no other verb needs
    from greentic.deployments.env_status import EnvStatus

WATCH_SECONDS = 2.0


def has_picture(noun: str, verb: str) -> bool:
    return (noun, verb) in _PICTURES


def show(form: Form, context: Context, noun: str, verb: str, reply: object, result: JsonObject) -> None:
    """Print the picture of a verb's reply."""
    width, print_lines = _terminal()
    blocks = _PICTURES[noun, verb](context, reply, result, form == "wide")
    print_lines(laid_out(blocks, None if form == "wide" else width))


def watch(context: Context, look: Callable[[], EnvStatus]) -> None:
    """The live view of `env status`, until it is interrupted."""
    from rich.live import Live

    from greentic.terminal.status_picture import Before, env_status

    console = console_for_people()
    before: EnvStatus | None = None
    began = context.clock.monotonic()
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            now = look()
            at = context.clock.monotonic()
            earlier = None if before is None else Before(before, at - began)
            blocks = env_status(context.store.load(now.environment_id), now, earlier)
            live.update(_text(laid_out(blocks, console.width)), refresh=True)
            before, began = now, at
            context.clock.sleep(WATCH_SECONDS)


def names(context: Context, noun: str, verb: str, result: JsonObject) -> list[str]:
    """What a reply is about, as verbs take it (rule 2)."""
    if (noun, verb) == ("env", "list"):
        return [str(row["environment_id"]) for row in rows_in(result, "environments")]
    if (noun, verb) == ("bundles", "list"):
        return [str(row["bundle_id"]) for row in rows_in(result, "deployments")]
    if (noun, verb) == ("revisions", "list"):
        return [f"{row['bundle_id']}@{row['sequence']}" for row in rows_in(result, "revisions")]
    if (noun, verb) == ("env", "show") and isinstance(environment := result.get("environment"), dict):
        return [str(environment["environment_id"])]
    if isinstance(result.get("entries"), list):
        env = context.store.load(str(result["environment_id"]))
        known = {r.revision_id: revision_name(r) for r in env.revisions}
        return [known.get(str(row["revision_id"]), str(row["revision_id"])) for row in rows_in(result, "entries")]
    if "sequence" in result:
        return [f"{result['bundle_id']}@{result['sequence']}"]
    found = next(
        (result[key] for key in ("revision_id", "bundle_id", "deployment_id", "environment_id") if key in result), None
    )
    return [] if found is None else [str(found)]


def print_names(context: Context, noun: str, verb: str, result: JsonObject) -> None:
    safe = printed if sys.stdout.isatty() else inert  # what a program reads is the name alone
    for name in names(context, noun, verb, result):
        print(safe(name).replace("\n", "\\n"))


# -- pictures -------------------------------------------------------------------------------------------------------


def _show(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    environment = result["environment"]
    assert isinstance(environment, dict)
    env = context.store.load(str(environment["environment_id"]))
    return env_picture.environment(env, context.clock.now_ns(), wide=wide)


def _revisions(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    env = context.store.load(str(result["environment_id"]))
    return env_picture.revisions(env, context.clock.now_ns(), wide=wide)


def _deployments(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    env = context.store.load(str(result["environment_id"]))
    return env_picture.deployments(env, context.clock.now_ns(), wide=wide)


def _traffic(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    env = context.store.load(str(result["environment_id"]))
    return env_picture.traffic(env, str(result["deployment_id"]), context.clock.now_ns(), wide=wide)


def _status(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    from greentic.deployments.env_status import EnvStatus
    from greentic.terminal.status_picture import env_status

    assert isinstance(reply, EnvStatus)
    return env_status(context.store.load(reply.environment_id), reply)


def _verified(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    from greentic.examine.env_verify import EnvVerified
    from greentic.terminal.status_picture import env_verified

    assert isinstance(reply, EnvVerified)
    return env_verified(context.store.load(reply.environment_id), reply, wide=wide)


def _environments(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    columns = (
        Column("environment"),
        Column("name", 3),
        Column("bundles", 1, right=True),
        Column("revisions", 2, right=True),
        Column("url", 4),
    )
    rows = [
        [
            cell(_text_of(row, "environment_id"), "bold"), cell(_text_of(row, "name")), cell(_text_of(row, "bundle_count")),
            cell(_text_of(row, "revision_count")), cell(_text_of(row, "public_base_url"), "dim"),
        ]
        for row in rows_in(result, "environments")
    ]  # fmt: skip
    broken = [
        [cell(_text_of(row, "environment_id"), "red"), cell(_text_of(row, "message"))]
        for row in rows_in(result, "broken")
    ]
    told: list[Block] = [Table(columns, rows)]
    return [*told, Table((Column("does not load"), Column("because")), broken)] if broken else told


_CHANGE = (
    Column("at", 3, whole=True), Column("verb"), Column("what", least=22, most=MOST_SHOWN), Column("outcome"),
    Column("generation", 5), Column("who", 4, least=10),
)  # fmt: skip


def _log(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    """`env log`: one line a change, what it is about as far as there is room."""
    rows = [
        [
            cell(_text_of(row, "at") if wide else _text_of(row, "at")[:19].replace("T", " "), "dim"),
            cell(_text_of(row, "verb"), "bold"), cell(_text_of(row, "what")),
            cell(_text_of(row, "outcome"), "" if row["outcome"] == "ok" else "red"),
            cell(" → ".join(str(n) for n in (row["before"], row["after"]) if n is not None)), cell(_text_of(row, "who")),
        ]
        for row in rows_in(result, "changes")
    ]  # fmt: skip
    told: list[Block] = [Table(_CHANGE, rows)] if rows else [Line((cell("no changes", "dim"),))]
    if result["older"]:
        told.append(Line((cell(f"and {result['older']} before these", "dim"),)))
    if result["breaks"]:
        told.append(Line((cell(f"broken chain: {result['breaks']}, see env doctor", "red"),)))
    return told


def _changes(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    from greentic.examine.env_log import EnvChanges
    from greentic.terminal.generations_picture import generations

    assert isinstance(reply, EnvChanges)
    return generations(context.store.load(reply.environment_id), reply)


def _doctor(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    return health_picture.doctor(result)


def _history(context: Context, reply: object, result: JsonObject, wide: bool) -> list[Block]:
    return health_picture.history(result, wide=wide)


def _text_of(row: JsonObject, key: str) -> str:
    value: Json = row.get(key)
    return "" if value is None else str(value)


_PICTURES: dict[tuple[str, str], Callable[[Context, object, JsonObject, bool], list[Block]]] = {
    ("env", "show"): _show,
    ("env", "list"): _environments,
    ("env", "changes"): _changes,
    ("env", "log"): _log,
    ("env", "doctor"): _doctor,
    ("env", "history"): _history,
    ("env", "status"): _status,
    ("env", "verify"): _verified,
    ("bundles", "list"): _deployments,
    ("revisions", "list"): _revisions,
    ("traffic", "show"): _traffic,
}


# -- the terminal ---------------------------------------------------------------------------------------------------


def _terminal() -> tuple[int, Callable[[Iterable[list[Cell]]], None]]:
    console = console_for_people()

    def print_lines(lines: Iterable[list[Cell]]) -> None:
        console.print(_text(lines), soft_wrap=True)

    return console.width, print_lines


def _text(lines: Iterable[list[Cell]]):  # type: ignore[no-untyped-def]  # noqa: ANN202  what rich draws is no part of our types
    from rich.text import Text

    text = Text(no_wrap=True)
    for number, line in enumerate(lines):
        if number:
            text.append("\n")
        for part in line:
            text.append(part.text, part.style or None)
    return text
