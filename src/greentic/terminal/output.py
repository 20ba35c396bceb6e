"""What programs print: one line of JSON for programs, tables and hints for people (formats: op 2).

Rules:
1. At a terminal the same result is shown as a picture or a table with the next step; `--output` decides otherwise. What is no
   terminal gets JSON, byte for byte the same whatever the terminal would show.
2. What holds a word that does not fit is shown one field a line, which the terminal breaks itself: nothing is cut, and no id is broken.
3. What others wrote (names, messages of servers, words of a pod) cannot steer a terminal: control characters and letters that cannot
   be seen are shown, not sent (`inert`), and words that are read from the right move nothing beside them (`isolated`).
4. What people are told beside an answer is broken between words where a terminal ends. Of an error they are told the kind once.
5. What a verb did without (`ground.optional`), such as file locks, is told once: to people as a warning, to programs in `warnings`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TextIO
from unicodedata import bidirectional, category

from greentic.ground.documents import Json, JsonObject, compact
from greentic.ground.errors import GreenticError
from greentic.ground.optional import lacking, on_lack

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Form = Literal["json", "yaml", "table", "wide", "name"]
FORMS: tuple[Form, ...] = ("json", "yaml", "table", "wide", "name")
_GAP = 2
_ITEM = "- "
LEAST_WIDTH = 40
"""Characters of a line; what is longer than the terminal is wide, the terminal breaks."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that leave no trace: two names that differ look the same."""
_FROM_THE_RIGHT = frozenset(("R", "AL", "AN"))
_ISOLATE, _END = "\u2068", "\u2069"
MOST_MARKS = 4
"""Accents on one character; no language writes more."""
_WORDS = re.compile(r"(\s+)")
FOR_PROGRAMS: tuple[Form, ...] = ("json", "yaml")
"""Forms whose failures are told as JSON, too."""


def inert(text: str) -> str:
    """A text for a terminal: what would steer it, turn the direction of reading, or pile up on one character is written out (rule 3)."""
    if text.isascii():
        return "".join(c if c in "\n\t" or c.isprintable() else _written(c) for c in text)
    shown, marks = [], 0
    for c in text:
        marks = marks + 1 if category(c) in ("Mn", "Me") else 0
        plain = c in "\n\t" or (c.isprintable() and c not in _BLANK) or c == "\u3000"
        shown.append(c if plain and marks <= MOST_MARKS else _written(c))
    return "".join(shown)


def isolated(text: str) -> str:
    """Inert text in which each word that is read from the right stands for itself: what is before and behind keeps its order.

    It is for the last moment, since a text that is cut behind it could lose the end of one.
    """
    if text.isascii():
        return text
    out: list[str] = []
    for word in _WORDS.split(text):
        kinds = [bidirectional(c) for c in word]
        places = [i for i, kind in enumerate(kinds) if kind in _FROM_THE_RIGHT]
        if not places:
            out.append(word)
            continue
        first, last = places[0], places[-1] + 1
        while last < len(word) and kinds[last] == "NSM":
            last += 1
        out += word[:first], _ISOLATE, word[first:last], _END, word[last:]
    return "".join(out)


def printed(text: str) -> str:
    """A text of others as it is sent to a terminal (rule 3)."""
    return isolated(inert(text))


def _written(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def chosen_form(asked: str | None) -> Form:
    return next((form for form in FORMS if form == asked), "table" if sys.stdout.isatty() else "json")


def tell_lacks(form: Form) -> None:
    """Tell people of what is done without, as it is noticed (rule 5)."""
    if form not in FOR_PROGRAMS:
        on_lack(print_warning)


def tell_people(text: str) -> None:
    """Say something beside what is answered (rules 3 and 4)."""
    safe = printed(text)
    if sys.stderr.isatty():
        from greentic.terminal.fitted import fitted_here

        safe = fitted_here(safe)
    print(safe, file=sys.stderr, flush=True)


def print_warning(text: str) -> None:
    """A warning for people, beside what is answered."""
    tell_people(f"warning: {text}")


def _with_lacks(result: JsonObject) -> JsonObject:
    """A result for programs, with what was done without among its warnings (rule 5)."""
    lacks, before = lacking(), result.get("warnings")
    return result | {"warnings": [*(before if isinstance(before, list) else []), *lacks]} if lacks else result


def print_success(form: Form, noun: str, verb: str, result: JsonObject, hint: str) -> None:
    if form in FOR_PROGRAMS:
        result = _with_lacks(result)
    if form == "json":
        print(_line({"noun": noun, "op": verb, "result": result}, sys.stdout))
        return
    if form == "yaml":
        from greentic.ground.yaml import yaml_of

        print(yaml_of({"noun": noun, "op": verb, "result": result}), end="")
        return
    show_table(result)
    print_hint(hint)


def print_hint(hint: str) -> None:
    if hint:
        print(f"\nnext: {printed(hint)}")


def _line(envelope: JsonObject, stream: TextIO) -> str:
    """An envelope as programs read it; at a terminal what would steer it is escaped, which means the same."""
    try:
        text = compact(envelope, sort=True).decode()
    except UnicodeEncodeError:  # the name of a file, or a word of the command line, that is no text
        text = compact(_as_texts(envelope), sort=True).decode()
    takes_all = (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")
    if takes_all and not stream.isatty():
        return text
    from json import dumps  # which no worker loads

    return "".join(
        c if (c.isascii() and c.isprintable()) or (takes_all and _is_plain(c)) else dumps(c)[1:-1] for c in text
    )


def _as_texts(value: Json) -> Json:
    """A value whose texts are Unicode: what is none is written out."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_as_texts(item) for item in value]
    return {str(_as_texts(k)): _as_texts(v) for k, v in value.items()} if isinstance(value, dict) else value


def _is_plain(character: str) -> bool:
    return inert(character) == character and bidirectional(character) not in _FROM_THE_RIGHT


def print_failure(form: Form, noun: str, verb: str, error: GreenticError) -> None:
    if form in FOR_PROGRAMS:
        told: JsonObject = {"kind": error.kind, "message": str(error)}
        if error.hint:
            told["hint"] = error.hint
        if error.report:
            told["report"] = error.report
        print(_line({"error": told, "noun": noun, "op": verb}, sys.stderr), file=sys.stderr)
        return
    tell_error(error)
    if error.report:
        print("\nso far:", file=sys.stderr)
        show_table(error.report)


def tell_error(error: GreenticError) -> None:
    """An error and the next step, for people (rule 4)."""
    says_the_kind = error.prefix.rstrip(": ").replace(" ", "-") == error.kind
    tell_people(f"error ({error.kind}): {error.message if says_the_kind else error}")
    if error.hint:
        print(f"next: {printed(error.hint)}", file=sys.stderr)


def console_for_people(*, stderr: bool = False) -> Console:
    """What tables and pictures are drawn on. A terminal that is hardly wide at all (`COLUMNS=0`) does not know how wide it is."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if console.width < LEAST_WIDTH:
        console.width = LEAST_WIDTH
    return console


def show_table(result: JsonObject) -> None:
    """Plain fields as two columns, lists of objects as tables of their own, objects of a cluster as YAML."""
    from rich.table import Table
    from rich.text import Text

    console = console_for_people()
    fields = list(_fields(result))
    plain = [(printed(key), printed(_cell(value))) for key, value in fields if not _is_rows(value)]
    if plain:
        keys, values = (max(_longest_word(pair[i]) for pair in plain) for i in (0, 1))
        if keys + _GAP + values <= console.width:
            table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
            table.add_column(style="bold")
            table.add_column(overflow="fold")
            for name, told in plain:
                table.add_row(Text(name), Text(told))
            _print_table(console, table)
        else:
            for name, told in plain:
                below = told.replace("\n", "\n  ")
                told = f"\n  {below}" if told.startswith(_ITEM) else told
                console.print(Text.assemble((f"{name}: ", "bold"), told), soft_wrap=True)
    for key, value in fields:
        if _is_rows(value):
            found = rows_in({key: value}, key)
            if all("apiVersion" in row for row in found):
                _print_manifests(console, found)
                continue
            rows = [dict(_fields(row)) for row in found]
            empty: tuple[Json, ...] = (None, "", [], {})
            filled = {k for row in rows for k, v in row.items() if v not in empty}
            columns = [k for k in dict.fromkeys(k for row in rows for k in row) if k in filled or not filled]
            cells = [[printed(_cell(row.get(column))) for column in columns] for row in rows]
            needed = [
                max(_longest_word(printed(c)), *(_longest_word(row[i]) for row in cells)) for i, c in enumerate(columns)
            ]
            console.print()
            if sum(needed) + 2 * len(columns) > console.width:
                console.print(Text(printed(key), style="bold"))
                for row in cells:
                    _print_row(console, columns, row)
                continue
            table = Table(
                title=Text(printed(key), style="bold"),
                title_justify="left",
                box=None,
                pad_edge=False,
                header_style="dim",
            )
            for column, least in zip(columns, needed, strict=True):
                table.add_column(Text(printed(column)), overflow="fold", min_width=least)
            for row in cells:
                table.add_row(*(Text(cell) for cell in row))
            _print_table(console, table)


def _print_table(console: Console, table: Table) -> None:
    """Draw a table; the blanks that fill its last column are for terminals alone."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def rows_in(result: JsonObject, key: str) -> list[JsonObject]:
    """The objects of a list that a result holds."""
    value = result.get(key)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _fields(value: JsonObject, above: str = "") -> Iterator[tuple[str, Json]]:
    """The fields of an object; those of objects in it stand by themselves."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _fields(inner, f"{above}{key}.")
        else:
            yield f"{above}{key}", inner


def _print_manifests(console: Console, things: list[JsonObject]) -> None:
    """Objects of a cluster, as people write them and kubectl reads them."""
    from rich.text import Text

    from greentic.ground.yaml import yaml_of

    for thing in things:
        console.print(Text(f"---\n{printed(yaml_of(thing))}"), soft_wrap=True, end="")


def _longest_word(text: str) -> int:
    from rich.cells import cell_len

    return max((cell_len(word) for word in text.split()), default=0)


def _print_row(console: Console, columns: list[str], row: list[str]) -> None:
    """One row of a table that is too wide (rule 2); a terminal breaks a long line itself, and copies it in one piece."""
    from rich.text import Text

    console.print()
    for column, cell in zip(columns, row, strict=True):
        console.print(Text.assemble((f"  {printed(column)}: ", "dim"), cell), soft_wrap=True)


def _is_rows(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _cell(value: Json) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    if value == {}:
        return "-"
    if isinstance(value, list) and len(value) > 1 and all(isinstance(v, str) and " " in v for v in value):
        return "\n".join(f"{_ITEM}{v}" for v in value)  # sentences, which have commas of their own
    if isinstance(value, list) and all(isinstance(v, str | int) for v in value):
        return ", ".join(str(v) for v in value) or "-"
    return compact(value).decode()
