"""A command that is asked to end: a build that is cancelled, a terminal that is closed. Rules:

1. It leaves as little behind as one that is interrupted, and then ends as the signal would have ended it: whoever started it is told so.
2. The second signal ends it at once. What is to be ignored (`nohup`) stays ignored.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def interrupted_by(*numbers: int) -> Iterator[None]:
    """These signals interrupt what runs, and end the process once it has tidied up."""
    asked: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        asked.append(number)
        raise KeyboardInterrupt

    for number in numbers:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        if asked:
            with suppress(OSError, ValueError, AttributeError):  # a stream that is closed or gone
                sys.stderr.flush()
            os.kill(os.getpid(), asked[0])
