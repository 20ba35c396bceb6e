"""Rows and a width in, lines of styled text out. Pure.

Rules:
1. A table that is too wide loses whole columns, those of the highest `drop` first; characters are never cut from what can be copied.
   Before a column goes, those that never go become as narrow as their `least`: one long name takes no column from the others.
2. A text of a column that is not `whole` has at most `most` cells, and where even the last columns are too wide it becomes shorter still,
   with `…`. It keeps both its ends where the column `tells_apart`: names differ at their end, as `bot@3` and `bot@4` do. One that is
   `whole`, an id, stands in one piece, whatever the width.
3. What a cell shows was made inert when the cell was made: no text of others steers a terminal or begins a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from greentic.terminal.output import inert, isolated

MOST = 48
NAME = 14
_LEAST = 4
_GAP = 2
_WORD = re.compile(r"(?:`[^`]*`|[^\s`]|`)+")


class Cell(NamedTuple):
    """Inert text and how it looks; made by `cell`."""

    text: str
    style: str = ""


def cell(text: str, style: str = "") -> Cell:
    """A cell of one line (rule 3)."""
    return Cell(inert(text).replace("\n", "\\n").replace("\t", "\\t"), style)


class Column(NamedTuple):
    """A column: its title, when it may go (0: never), whether its texts stay in one piece, on which side they stand, whether their ends
    stay, how many cells of them are worth more than another column, and how many they have at most."""

    title: str
    drop: int = 0
    whole: bool = False
    right: bool = False
    tells_apart: bool = False
    least: int = NAME
    most: int = MOST


class Table(NamedTuple):
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    indent: int = 0


class Line(NamedTuple):
    """Cells one after another, with a space between. Where there is no room the last ones go, and `…` tells of it; those of a line that
    `shrinks` become shorter before."""

    cells: Sequence[Cell]
    shrinks: bool = False


class Prose(NamedTuple):
    """A sentence, broken between words where the terminal ends; what stands in backquotes stays in one piece, to be copied. All of one
    that is `whole` does, such as a command."""

    cells: Sequence[Cell]
    whole: bool = False


Block = Table | Line | Prose
EMPTY = Line(())


def laid_out(blocks: Iterable[Block], width: int | None) -> list[list[Cell]]:
    """The lines of some blocks for a terminal of `width` cells; without a width nothing is dropped or shortened."""
    out: list[list[Cell]] = []
    for block in blocks:
        match block:
            case Table():
                out += _table(block, width)
            case Line():
                out.append(_line(block, width))
            case Prose():
                out += _prose(block.cells, None if block.whole else width)
    return [[Cell(isolated(part.text), part.style) for part in line] for line in out]


def _prose(cells: Sequence[Cell], width: int | None) -> list[list[Cell]]:
    """The lines of a sentence; each cell keeps its style across them."""
    lines: list[list[Cell]] = [[]]
    for part in cells:
        room = width and width - sum(_cells(c.text) + 1 for c in lines[-1])
        for number, text in enumerate(_broken(part.text, room, width)):
            if number:
                lines.append([])
            lines[-1] += [Cell(text, part.style)] if text else []
    return [_spaced(line) for line in lines]


def _broken(text: str, room: int | None, width: int | None) -> Iterator[str]:
    """A text in lines of at most `width`, of which the first has `room` alone; a word that is longer stands in one piece."""
    line = ""
    for word in _WORD.findall(text) if width is not None else [text]:
        longer = f"{line} {word}" if line else word
        if room is not None and _cells(longer) > room and (line or room != width):
            yield line
            line, room = word, width
        else:
            line = longer
    yield line


def _line(line: Line, width: int | None) -> list[Cell]:
    if width is None:
        return _spaced(list(line.cells))
    kept = [Cell(_shortened(c.text, min(MOST, width)), c.style) for c in line.cells if c.text]
    for i in reversed(range(len(kept)) if line.shrinks else ()):
        over, size = _length(kept) - width, _cells(kept[i].text)
        if over > 0:
            kept[i] = Cell(_shortened(kept[i].text, max(min(NAME, size), size - over)), kept[i].style)
    if _length(kept) > width:
        while len(kept) > 1 and _length(kept) + 2 > width:
            kept.pop()
        if len(kept) == 1:
            kept = [Cell(_shortened(kept[0].text, width - 2), kept[0].style)]
        kept.append(Cell("…", "dim"))
    return _spaced(kept)


def _length(cells: list[Cell]) -> int:
    """How many cells a line takes, spaces included."""
    return sum(_cells(c.text) + 1 for c in cells) - 1


def _spaced(cells: list[Cell]) -> list[Cell]:
    return [part for c in cells for part in (Cell(" "), c)][1:]


def _table(table: Table, width: int | None) -> list[list[Cell]]:
    if not table.rows:
        return [[Cell(" " * table.indent), Cell(f"no {table.columns[0].title}", "dim")]]
    limit = [None if c.whole or width is None else c.most for c in table.columns]
    rows = [
        [Cell(_shortened(c.text, limit[i], table.columns[i].tells_apart), c.style) for i, c in enumerate(row)]
        for row in table.rows
    ]
    wanted = [
        max([_cells(c.title), *(_cells(row[i].text) for row in rows)]) if rows else _cells(c.title)
        for i, c in enumerate(table.columns)
    ]
    shown = [i for i in range(len(table.columns)) if any(row[i].text for row in rows)]
    room = None if width is None else width - table.indent
    least = [w if c.whole or c.drop else min(w, c.least) for c, w in zip(table.columns, wanted, strict=True)]
    while room is not None and _total(least, shown) > room:
        going = max(shown, key=lambda i: (table.columns[i].drop, i), default=None)
        if going is None or table.columns[going].drop == 0:
            break
        shown.remove(going)
    if room is not None:
        for i in sorted(shown, key=lambda i: -wanted[i]):
            over = _total(wanted, shown) - room
            if over > 0 and not table.columns[i].whole:
                wanted[i] = max(_LEAST, wanted[i] - over)
    titles = [Cell(c.title, "dim") for c in table.columns]
    return [_row(table, row, wanted, shown) for row in (titles, *rows)]


def _row(table: Table, row: Sequence[Cell], wanted: list[int], shown: list[int]) -> list[Cell]:
    out = [Cell(" " * table.indent)] if table.indent else []
    for place, i in enumerate(shown):
        column = table.columns[i]
        text = row[i].text if column.whole else _shortened(row[i].text, wanted[i], column.tells_apart)
        padding = " " * (wanted[i] - _cells(text))
        last = place == len(shown) - 1
        out.append(Cell(padding + text if column.right else text if last else text + padding, row[i].style))
        if not last:
            out.append(Cell(" " * _GAP))
    return out


def _total(wanted: list[int], shown: list[int]) -> int:
    return sum(wanted[i] for i in shown) + _GAP * (len(shown) - 1)


def _shortened(text: str, most: int | None, both_ends: bool = False) -> str:
    if most is None or _cells(text) <= most:
        return text
    behind = (most - 1) // 3 if both_ends else 0
    last = _first(text[::-1], behind)[::-1]
    return f"{_first(text, most - 1 - behind)}…{last}"


def _first(text: str, cells: int) -> str:
    """As much of the beginning of a text as some cells hold."""
    used = 0
    for place, character in enumerate(text):
        used += _cells(character)
        if used > cells:
            return text[:place]
    return text


def _cells(text: str) -> int:
    """How many cells a text takes; letters of the East take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
