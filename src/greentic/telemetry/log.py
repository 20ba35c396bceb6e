"""The worker's log: a line a record into `operator.log`, and what people must see on stderr (spec: worker 1.7)."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Literal, TextIO

from greentic.ground.clock import Clock, timestamp
from greentic.ground.errors import BootError

Level = Literal["Debug", "Info", "Warn", "Error"]
MAX_FRAMES = 5
_RANK: dict[Level, int] = {"Debug": 0, "Info": 1, "Warn": 2, "Error": 3}


def traceback_of(error: BaseException) -> str:
    """An unexpected error with its innermost frames, for one line of a log."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__}: {error} (at {where})"


class OperatorLog:
    """Appends to `<dir>/operator.log`; warnings and errors always reach stderr, progress lines where asked."""

    def __init__(self, directory: Path, clock: Clock, *, level: Level = "Info", stderr: TextIO | None = None) -> None:
        self._clock, self._level = clock, _RANK[level]
        self._stderr = stderr if stderr is not None else sys.stderr
        self._file = self._open(directory)

    def _open(self, directory: Path) -> TextIO:
        tried = directory
        for place in (directory, Path("logs")):
            try:
                place.mkdir(parents=True, exist_ok=True)
                file = (place / "operator.log").open("a", encoding="utf-8", buffering=1)
            except OSError as error:
                tried, reason = place, error.strerror
                continue
            if place != directory:
                print(f"unable to write operator.log at {directory}; falling back to {place}", file=self._stderr)
            return file
        raise BootError(f"unable to open operator log at {tried}: {reason}")

    def info(self, module: str, message: str, *, show: bool = False) -> None:
        self._write("Info", module, message, show)

    def warn(self, module: str, message: str) -> None:
        self._write("Warn", module, message, True)

    def error(self, module: str, message: str) -> None:
        self._write("Error", module, message, True)

    def _write(self, level: Level, module: str, message: str, show: bool) -> None:
        if _RANK[level] < self._level:
            return
        line = f"{timestamp(self._clock.now_ns())} [{level}] greentic.{module} - {' '.join(message.splitlines())}\n"
        self._file.write(line)
        if show:
            self._stderr.write(line)
            self._stderr.flush()

    def close(self) -> None:
        self._file.close()
