"""What is seen while a cluster changes: a live table at a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from greentic.k8s.health import Rollout

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class QuietView:
    """For programs: the report says it all."""

    def say(self, text: str) -> None: ...

    def show(self, rollouts: dict[str, tuple[Rollout, str]]) -> None: ...

    def close(self) -> None: ...


class TerminalView:
    """For people: the steps, then one line a Deployment, renewed in place."""

    MOST = 30

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None

    def say(self, text: str) -> None:
        self._console.print(text)

    def show(self, rollouts: dict[str, tuple[Rollout, str]]) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
        self._live.update(self._table(rollouts))

    def _table(self, rollouts: dict[str, tuple[Rollout, str]]) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table("deployment", "ready", "updated", "", box=None, pad_edge=False, header_style="dim")
        waiting = sorted(rollouts.items(), key=lambda entry: (entry[1][0].done, entry[0]))
        for name, (state, ails) in waiting[: self.MOST]:
            mark = Text("ready", "green") if state.done else Text(ails or "waiting", "red" if ails else "yellow")
            table.add_row(Text(name), f"{state.available}/{state.wanted}", f"{state.updated}/{state.wanted}", mark)
        if len(waiting) > self.MOST:
            table.caption = f"and {len(waiting) - self.MOST} more"
        return table

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def view_of_wait() -> QuietView | TerminalView:
    """The view that fits where this runs."""
    return TerminalView() if sys.stderr.isatty() else QuietView()
