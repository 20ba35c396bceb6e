"""A command that is asked to end: a build that is cancelled, a terminal that is closed. Rules:

1. It leaves as little behind as one that is interrupted, and then ends as the signal would have ended it: whoever started it is told so.
2. The second signal ends it at once. What is to be ignored (`nohup`) stays ignored.
3. Nothing is interrupted while a module is loaded, but right behind: one that is written in C may take no notice, and is half of what it
   should be from then on (`msgspec` without dates ends the process with SIGSEGV); and what the import system does by itself loses it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_LOADING = "<frozen importlib._bootstrap>"


def interrupt(_number: int, frame: FrameType | None) -> None:
    """Interrupt what runs, as the handler of a signal (rule 3)."""
    at_ease(frame, _interrupted)


def _interrupted() -> None:
    raise KeyboardInterrupt


def at_ease(frame: FrameType | None, interrupting: Callable[[], None]) -> None:
    """Do what interrupts at once, or where a module is being loaded, right behind that (rule 3)."""
    if not _loads(frame):
        interrupting()
        return

    def look(running: FrameType, event: str, _told: object) -> None:
        if event == "return" and not _loads(running.f_back):
            sys.setprofile(None)
            interrupting()

    sys.setprofile(look)


def _loads(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != _LOADING:
        frame = frame.f_back
    return frame is not None


@contextmanager
def interrupted_by(*numbers: int) -> Iterator[None]:
    """These signals interrupt what runs, and end the process once it has tidied up."""
    asked: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        def ending() -> None:
            signal.signal(number, signal.SIG_DFL)
            asked.append(number)
            raise KeyboardInterrupt

        at_ease(frame, ending)

    for number in numbers:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    try:
        yield
    finally:
        if asked:
            with suppress(OSError, ValueError, AttributeError):  # a stream that is closed or gone
                sys.stderr.flush()
            os.kill(os.getpid(), asked[0])
