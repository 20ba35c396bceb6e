"""The worker's log: a line a record into `operator.log`, and what people must see on stderr (formats: worker 2).

Rules:
1. A record is one line in the file; warnings and errors, and progress where asked, are on stderr too. Control characters, which a
   path or a name may bring along, are written as escapes: they command terminals.
2. A worker serves without a voice: a line that cannot be written (a full disk, a reader that is gone, a closed stream, a directory that
   may not be written) is dropped and counted, never an error. What is missing is told once, wherever it still can be.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from pathlib import Path
from typing import Literal, TextIO

from greentic.ground.clock import Clock, timestamp
from greentic.ground.optional import done_without

Level = Literal["Debug", "Info", "Warn", "Error"]
MAX_FRAMES = 5
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))}
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
        self.dropped = 0
        """Lines that the file did not take."""
        self._file = self._open(directory)

    def _open(self, directory: Path) -> TextIO | None:
        for place in (directory, Path("logs")):
            try:
                place.mkdir(parents=True, exist_ok=True)
                file = (place / "operator.log").open("a", encoding="utf-8", buffering=1)
            except OSError as error:
                reason = error.strerror
                continue
            if place != directory:
                say(self._stderr, f"unable to write operator.log at {directory}; falling back to {place}\n")
            return file
        done_without("operator.log", f"{directory}: {reason}")
        say(self._stderr, f"unable to write operator.log at {directory}: {reason}; going on without it\n")
        return None

    def info(self, module: str, message: str, *, show: bool = False) -> None:
        self._write("Info", module, message, show)

    def warn(self, module: str, message: str) -> None:
        self._write("Warn", module, message, True)

    def error(self, module: str, message: str) -> None:
        self._write("Error", module, message, True)

    def _write(self, level: Level, module: str, message: str, show: bool) -> None:
        if _RANK[level] < self._level:
            return
        line = f"{timestamp(self._clock.now_ns())} [{level}] greentic.{module} - {' '.join(message.splitlines()).translate(_CONTROLS)}\n"
        if self._file is not None and not say(self._file, line):
            self.dropped += 1
        if show:
            say(self._stderr, line)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def say(stream: TextIO | None, text: str) -> bool:
    """Write and flush, if that is possible at all; whether it was (rule 2)."""
    if stream is None:
        return False
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:  # full, no reader, closed
        done_without(f"writing to {getattr(stream, 'name', 'a stream')}", error)
        return False
    return True
