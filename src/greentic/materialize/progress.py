"""What people see while bundles are pulled: a live bar at a terminal, log lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from greentic.telemetry.log import OperatorLog

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Fetching = Callable[[int, int | None], None]
_EVERY_SECONDS = 5.0


class PullView(Protocol):
    """Tells how pulling goes."""

    def start(self, name: str) -> Fetching:
        """A callback for one bundle: bytes so far, bytes announced. May be called from any thread."""
        ...

    def close(self) -> None: ...


class LogView:
    """A line every few seconds."""

    def __init__(self, log: OperatorLog) -> None:
        self._log = log

    def start(self, name: str) -> Fetching:
        self._log.info("pull", f"pulling {name}", show=True)
        told = time.monotonic()

        def progress(done: int, total: int | None) -> None:
            nonlocal told
            if time.monotonic() - told >= _EVERY_SECONDS:
                told = time.monotonic()
                of = "" if total is None else f" of {total / 2**20:.1f} MiB"
                self._log.info("pull", f"pulling {name}: {done / 2**20:.1f} MiB{of}", show=True)

        return progress

    def close(self) -> None:
        pass


class BarView:
    """A bar for each bundle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: RichProgress | None = None

    def start(self, name: str) -> Fetching:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        with self._lock:
            if self._bars is None:
                from rich.console import Console

                self._bars = Progress(
                    TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                    console=Console(stderr=True),
                )  # fmt: skip
                self._bars.start()
            bars, task = self._bars, self._bars.add_task(name, total=None)
        return lambda done, total: _update(bars, task, done, total)

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()


def _update(bars: RichProgress, task: TaskID, done: int, total: int | None) -> None:
    bars.update(task, completed=done, total=total)


def pull_view(log: OperatorLog) -> PullView:
    return BarView() if sys.stderr.isatty() else LogView(log)
