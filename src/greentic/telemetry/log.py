"""The worker's log: a line a record into `operator.log`, and on stderr what people must see, or everything as JSON (formats: worker 2).

Rules:
1. A record is one line in the file, as `log_lines` says. On stderr are warnings and errors, and progress where asked, as text; in the
   shape `json` every record of the level is there.
2. A worker serves without a voice: a line that cannot be written (a full disk, a reader that is gone, a closed stream, a directory that
   may not be written, a reader that does not read) is dropped and counted, never an error, and waited for a moment at most. What is
   missing is told once, wherever it still can be.
3. A record that is made for a request names it. Warnings and errors of requests are measured by what they are of, the words before their
   first colon (`line_measure`): whoever may ask could fill the disk, and so does a store that is away.
4. A file that was moved aside or deleted, as who rotates logs does, is followed by a new one of its name, within a second. No directory
   is made for it then: a store that was moved away as a whole is to find its place free.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import traceback
from pathlib import Path
from typing import TextIO

from greentic.ground.clock import Clock, timestamp
from greentic.ground.disk import leave_to_owner, make_directory
from greentic.ground.optional import done_without
from greentic.telemetry import request_id
from greentic.telemetry.line_measure import LineMeasure
from greentic.telemetry.log_lines import Field, Level, Record, Shape, json_line, text_line
from greentic.telemetry.signals import LOGS

MAX_FRAMES = 5
OF_REQUESTS_EACH_SECOND = 5.0
"""Lines of requests that fail alike; enough to see whom it hits."""
LOOK_SECONDS = 1.0
"""How often it is looked whether the file is still the one of its name."""
_RANK: dict[Level, int] = {"Debug": 0, "Info": 1, "Warn": 2, "Error": 3}


def traceback_of(error: BaseException) -> str:
    """An unexpected error with its innermost frames, for one line of a log."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__}: {error} (at {where})"


class OperatorLog:
    """Appends to `<dir>/operator.log`, and tells stderr (rule 1)."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        level: Level = "Info",
        stderr: TextIO | None = None,
        shape: Shape = "text",
    ) -> None:
        self._clock, self._level, self._shape = clock, _RANK[level], shape
        self._of_requests = LineMeasure("request", clock, OF_REQUESTS_EACH_SECOND)
        self._stderr = stderr if stderr is not None else sys.stderr
        self.dropped = 0
        """Lines that the file did not take."""
        self._path, self._looked = directory / "operator.log", clock.monotonic()
        self._file = self._open(directory)

    def _open(self, directory: Path) -> TextIO | None:
        for place in (directory, Path("logs")):
            try:
                make_directory(place)
                file = os.fdopen(_appended(place / "operator.log"), "a", 1, encoding="utf-8", errors="replace")
            except OSError as error:
                reason = error.strerror
                continue
            self._path = place / "operator.log"
            if place != directory:
                self._complain(f"unable to write operator.log at {directory}; falling back to {place}")
            return file
        done_without("operator.log", f"{directory}: {reason}")
        self._complain(f"unable to write operator.log at {directory}: {reason}; going on without it")
        return None

    def _follow(self, file: TextIO) -> None:
        """Write on in the file of that name, where it is another one now (rule 4)."""
        now = self._clock.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        with contextlib.suppress(OSError, ValueError):
            fd = file.fileno()
            if self._path.exists() and os.path.samestat(self._path.stat(), os.fstat(fd)):
                return
            new = _appended(self._path)
            os.dup2(new, fd, inheritable=False)
            os.close(new)

    def _complain(self, text: str) -> None:
        """Tell of the log itself, while there is none."""
        record = Record(timestamp(self._clock.now_ns()), "Warn", "log", text)
        tell(self._stderr, f"{text}\n" if self._shape == "text" else json_line(record))

    def info(self, module: str, message: str, *, show: bool = False, **fields: Field) -> None:
        self._write("Info", module, message, show, fields)

    def warn(self, module: str, message: str, **fields: Field) -> None:
        self._write("Warn", module, message, True, fields)

    def error(self, module: str, message: str, **fields: Field) -> None:
        self._write("Error", module, message, True, fields)

    def _write(self, level: Level, module: str, message: str, show: bool, fields: dict[str, Field]) -> None:
        if _RANK[level] < self._level:
            return
        if _RANK[level] >= _RANK["Warn"] and request_id.current() is not None:
            left_out = self._of_requests.let_through(f"{module} {message.partition(':')[0][:80]}")
            if left_out is None:
                return
            if left_out:
                message += f" ({left_out} lines like this were left out before it)"
        record = Record(timestamp(self._clock.now_ns()), level, module, message, request_id.current(), fields)
        line = text_line(record)
        if self._file is not None:
            self._follow(self._file)
            if not tell(self._file, line):
                self.dropped += 1
                LOGS.failed("operator.log does not take lines")
        if self._shape == "json":
            told = tell(self._stderr, json_line(record))
        else:
            told = not show or tell(self._stderr, line)
        if not told:
            LOGS.failed("stderr does not take lines")

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def _appended(path: Path) -> int:
    """A log, open for lines at its end; it is for its owner to write, whatever the mask says."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    leave_to_owner(fd, path.parent)
    return fd


_PATIENCE_MS = 100
"""How long a reader that does not read is waited for, once."""
_writing = threading.Lock()
_stalled: set[int] = set()
"""Descriptors behind which nobody read when a line was last to be written."""
_torn: set[int] = set()
"""Descriptors that took the beginning of a line only."""


def tell(stream: TextIO | None, text: str) -> bool:
    """Write, if that is possible at all; whether it was (rule 2)."""
    if stream is None:
        return False
    try:
        stream.flush()
        fd = _descriptor(stream)
        if fd is None:
            stream.write(text)
            stream.flush()
            return True
        why: object = "nobody reads what is written"
        if _written(fd, text.encode(stream.encoding or "utf-8", stream.errors or "replace")):
            return True
    except (OSError, ValueError) as error:  # full, no reader, closed
        why = error
    done_without(f"writing to {getattr(stream, 'name', 'a stream')}", why)
    return False


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (
        OSError,
        ValueError,
        AttributeError,
    ):  # a stream of a test or of another program; what is closed says so when written
        return None


def _written(fd: int, data: bytes) -> bool:
    """Write as fast as it is read; whether all was. Who does not read is waited for once, and then no more until something is read."""
    told = select.poll()
    told.register(fd, select.POLLOUT)
    with _writing:
        data = b"\n" + data if fd in _torn else data
        size = len(data)
        while data:
            if not told.poll(0 if fd in _stalled else _PATIENCE_MS):
                _stalled.add(fd)
                if len(data) < size:
                    _torn.add(fd)
                return False
            _stalled.discard(fd)
            data = data[os.write(fd, data[: select.PIPE_BUF]) :]  # so much is taken without waiting
        _torn.discard(fd)
    return True
