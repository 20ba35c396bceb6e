"""What a component writes to its standard output and error, as the lines that the log is told (formats: components 7).

Rules:
1. A line is told once it is whole, in whatever pieces it was written: some languages write a formatted line in as many as it has
   parts. Lines that are written at once are told together, up to `MAX_TEXT`. What has no end of line is told when the call is over.
2. A call may write `MAX_OUTPUT` bytes; what is beyond is left out, and that is told once.
3. The library writes from threads of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

MAX_OUTPUT = 64 << 10
"""Bytes of standard output and error that a call may log."""
MAX_TEXT = 4096
"""Characters that are told at once; of a longer line the first of them."""


class Output:
    """What one call writes."""

    __slots__ = ("_begun", "_left", "_lock", "_tell", "written")

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        """`tell` is told a stream and a text."""
        self._tell, self._left, self._lock = tell, MAX_OUTPUT, threading.Lock()
        self._begun: dict[str, bytes] = {}
        self.written = False
        """Whether anything came since somebody looked."""

    def write(self, stream: str, data: bytes) -> None:
        """A piece; its whole lines are told."""
        with self._lock:
            self.written = True
            if self._left < 0:
                return
            taken = data[: self._left]
            self._left -= len(data)
            whole, end, begun = (self._begun.pop(stream, b"") + taken).rpartition(b"\n")
            if begun:
                self._begun[stream] = begun
            if end:
                self._told(stream, whole)
            if self._left < 0:
                self._rest()
                self._tell(stream, f"it wrote more than {MAX_OUTPUT >> 10} KiB; the rest of the call is left out")

    def over(self) -> None:
        """The call is over: what has no end of line is told, too."""
        with self._lock:
            self._left = -1
            self._rest()

    def _rest(self) -> None:
        for stream in [*self._begun]:
            self._told(stream, self._begun.pop(stream))

    def _told(self, stream: str, data: bytes) -> None:
        together = ""
        for line in data.decode(errors="replace").split("\n"):
            if len(together) + len(line) >= MAX_TEXT:
                self._tell_of(stream, together)
                together = ""
            together += f"{line}\n"
        self._tell_of(stream, together)

    def _tell_of(self, stream: str, text: str) -> None:
        if text := text.strip("\r\n"):
            self._tell(stream, text)
