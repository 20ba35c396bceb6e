"""What a component writes to its standard output and error, as the lines that the log is told (formats: components 7).

Rules:
1. A line is told once it is whole, in whatever pieces it was written: some languages write a formatted line in as many as it has
   parts. Lines that are written at once are told together, up to `MAX_TEXT`. What has no end of line is told when the call is over.
2. A call may write `MAX_OUTPUT` bytes; what is beyond is left out, and that is told once. Of what was left out, here or by who is told,
   the last lines are told when the call has trapped: there a component says why it gave up.
3. The library writes from threads of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

MAX_OUTPUT = 64 << 10
"""Bytes of standard output and error that a call may log."""
LAST = 2048
"""Bytes of a stream that are told of the end of what was left out."""
MAX_TEXT = 4096
"""Characters that are told at once; of a longer line the first of them."""


class Output:
    """What one call writes."""

    __slots__ = ("_begun", "_left", "_lock", "_missed", "_over", "_tell", "trapped", "written")

    def __init__(self, tell: Callable[[str, str], bool]) -> None:
        """`tell` is told a stream and a text; whether it takes it."""
        self._tell, self._left, self._lock, self._over = tell, MAX_OUTPUT, threading.Lock(), False
        self._begun: dict[str, bytes] = {}
        self._missed: dict[str, bytes] = {}
        self.trapped = False
        """Whether the call did."""
        self.written = False
        """Whether anything came since somebody looked."""

    def write(self, stream: str, data: bytes) -> None:
        """A piece; its whole lines are told."""
        with self._lock:
            self.written = True
            if self._left < 0:
                self._miss(stream, data)
                return
            taken, beyond = data[: self._left], data[self._left :]
            self._left -= len(data)
            whole, end, begun = (self._begun.pop(stream, b"") + taken).rpartition(b"\n")
            if begun:
                self._begun[stream] = begun
            if end:
                self._told(stream, whole)
            if self._left < 0:
                self._miss(stream, begun + beyond)  # from the beginning of its line
                self._rest()
                self._tell(stream, f"it wrote more than {MAX_OUTPUT >> 10} KiB; the rest of the call is left out")

    def over(self) -> None:
        """The call is over: what has no end of line is told, too."""
        with self._lock:
            self._left = -1
            self._rest()
            self._over = True
            for stream, data in self._missed.items() if self.trapped else ():
                text = data.decode(errors="replace").strip("\r\n")
                if text:
                    self._tell(stream, f"the last of what was left out: {text if len(data) < LAST else f'…{text}'}")
            self._missed = {}

    def _miss(self, stream: str, data: bytes) -> None:
        if data and not self._over:
            self._missed[stream] = (self._missed.get(stream, b"") + data)[-LAST:]

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
        if (said := text.strip("\r\n")) and not self._tell(stream, said):
            self._miss(stream, text.encode())
