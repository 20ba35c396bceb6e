"""Rows and a width in, lines of styled text out. Pure.

Rules:
1. A table that is too wide loses whole columns, those of the highest `drop` first; characters are never cut from what can be copied.
2. A text of a column that is not `whole` has at most `MOST` cells, and where even the last columns are too wide it becomes shorter still,
   with `…`. One that is `whole`, an id, stands in one piece, whatever the width.
3. What a cell shows was made inert when the cell was made: no text of others steers a terminal or begins a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from greentic.terminal.output import inert

MOST = 48
_LEAST = 4
_GAP = 2


class Cell(NamedTuple):
    """Inert text and how it looks; made by `cell`."""

    text: str
    style: str = ""


def cell(text: str, style: str = "") -> Cell:
    """A cell of one line (rule 3)."""
    return Cell(inert(text).replace("\n", "\\n").replace("\t", "\\t"), style)


class Column(NamedTuple):
    """A column: its title, when it may go (0: never), whether its texts stay in one piece, and on which side they stand."""

    title: str
    drop: int = 0
    whole: bool = False
    right: bool = False


class Table(NamedTuple):
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    indent: int = 0


class Line(NamedTuple):
    """Cells one after another, with a space between; the last ones go where there is no room."""

    cells: Sequence[Cell]


Block = Table | Line
EMPTY = Line(())


def laid_out(blocks: Iterable[Block], width: int | None) -> list[list[Cell]]:
    """The lines of some blocks for a terminal of `width` cells; without a width nothing is dropped or shortened."""
    out: list[list[Cell]] = []
    for block in blocks:
        out += _table(block, width) if isinstance(block, Table) else [_line(block, width)]
    return out


def _line(line: Line, width: int | None) -> list[Cell]:
    kept = list(line.cells)
    if width is None:
        return _spaced(kept)
    kept = [Cell(_shortened(c.text, min(MOST, width)), c.style) for c in kept]
    while len(kept) > 1 and sum(_cells(c.text) + 1 for c in kept) - 1 > width:
        kept.pop()
    return _spaced(kept)


def _spaced(cells: list[Cell]) -> list[Cell]:
    return [part for c in cells for part in (Cell(" "), c)][1:]


def _table(table: Table, width: int | None) -> list[list[Cell]]:
    if not table.rows:
        return [[Cell(" " * table.indent), Cell(f"no {table.columns[0].title}", "dim")]]
    limit = [None if c.whole or width is None else MOST for c in table.columns]
    rows = [[Cell(_shortened(c.text, limit[i]), c.style) for i, c in enumerate(row)] for row in table.rows]
    wanted = [
        max([_cells(c.title), *(_cells(row[i].text) for row in rows)]) if rows else _cells(c.title)
        for i, c in enumerate(table.columns)
    ]
    shown = [i for i in range(len(table.columns)) if any(row[i].text for row in rows)]
    room = None if width is None else width - table.indent
    while room is not None and _total(wanted, shown) > room:
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
        text = row[i].text if column.whole else _shortened(row[i].text, wanted[i])
        padding = " " * (wanted[i] - _cells(text))
        last = place == len(shown) - 1
        out.append(Cell(padding + text if column.right else text if last else text + padding, row[i].style))
        if not last:
            out.append(Cell(" " * _GAP))
    return out


def _total(wanted: list[int], shown: list[int]) -> int:
    return sum(wanted[i] for i in shown) + _GAP * (len(shown) - 1)


def _shortened(text: str, most: int | None) -> str:
    if most is None or _cells(text) <= most:
        return text
    kept, used = [], 0
    for character in text:
        used += _cells(character)
        if used > most - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _cells(text: str) -> int:
    """How many cells a text takes; letters of the East take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
