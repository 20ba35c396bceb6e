"""What a person sees while a worker pulls: a bar for each download, on stderr, at a terminal only; lines of the log elsewhere."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from greentic.materialize.progress import LoggedPull
from greentic.materialize.pull import Moved
from greentic.telemetry.log import OperatorLog
from greentic.terminal.output import printed

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class ShownPull(LoggedPull):
    """Tells the log what happens, and draws a bar for each download."""

    def __init__(self, log: OperatorLog) -> None:
        super().__init__(log)
        self._lock = threading.Lock()
        self._bars: RichProgress | None = None

    def pulling(self, reference: str) -> Moved:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        with self._lock:
            if self._bars is None:
                from rich.console import Console

                self._bars = Progress(
                    TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                    console=Console(stderr=True),
                )  # fmt: skip
                self._bars.start()
            bars, task = self._bars, self._bars.add_task(printed(reference), total=None)
        return lambda done, total: bars.update(task, completed=done, total=total)

    def close(self) -> None:
        """Stop drawing."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def pull_view(log: OperatorLog) -> LoggedPull:
    """Bars at a terminal, lines elsewhere."""
    return ShownPull(log) if sys.stderr is not None and sys.stderr.isatty() else LoggedPull(log)
