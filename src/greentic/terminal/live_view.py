"""What a person sees while a verb takes its time: the steps, then one line a thing, renewed in place. On stderr, and but
for warnings at a terminal only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from greentic.operate.view import QuietView, Row, View
from greentic.terminal.output import console_for_people, print_warning, printed

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class TerminalView:
    """A `View` at a terminal."""

    MOST = 30
    """Lines; who waits for more sees how many there are."""

    def __init__(self) -> None:
        self._console = console_for_people(stderr=True)
        self._live: Live | None = None

    def say(self, text: str) -> None:
        self._console.print(printed(text), markup=False)

    def warn(self, text: str) -> None:
        self._console.print(f"warning: {printed(text)}", markup=False, style="yellow")

    def show(self, rows: list[Row]) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
        self._live.update(self._table(rows))

    def _table(self, rows: list[Row]) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table("deployment", "ready", "updated", "", box=None, pad_edge=False, header_style="dim")
        for row in rows[: self.MOST]:
            note = printed(row.note)
            mark = Text("ready", "green") if row.done else Text(note or "waiting", "red" if note else "yellow")
            table.add_row(Text(printed(row.name)), row.ready, row.updated, mark)
        if len(rows) > self.MOST:
            table.caption = f"and {len(rows) - self.MOST} more"
        return table

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class PipeView(QuietView):
    """For programs that somebody reads the errors of: warnings alone."""

    def warn(self, text: str) -> None:
        print_warning(text)


def fitting_view() -> View:
    """The view that fits where this runs."""
    return TerminalView() if sys.stderr.isatty() else PipeView()
