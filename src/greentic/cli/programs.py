"""Where the three programs begin, before anything of theirs is loaded. Rules:

1. A signal to stop is heard from the first millisecond. The first process of a container hears none that it did not ask for, and loading a
   program takes some 60 ms, seconds on a starved node: a pod that is deleted then would sit out its grace period.
2. Nothing is done yet, so who is stopped just ends, without a traceback: workers and operators with the exit code 0 of a
   clean stop, `gtc` with 130.
3. What whoever started the program wants ignored stays ignored (`nohup`, a job in the background).
4. A command of `gtc` that is asked to end (a build that is cancelled, a terminal that is closed) leaves as little behind as one that is
   interrupted, and then ends as the signal would have ended it. The second signal does so at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def start() -> None:
    """`greentic-start`"""
    with _stopped_by(signal.SIGTERM, signal.SIGINT, code=0):
        from greentic.cli.start import main
    main()


def operator() -> None:
    """`greentic-operator`"""
    with _stopped_by(signal.SIGTERM, signal.SIGINT, code=0):
        from greentic.cli.operator import main
    main()


def gtc() -> None:
    """`gtc`"""
    with _stopped_by(signal.SIGINT, code=130):
        from greentic.cli.gtc import main
    with _interrupted_by(signal.SIGTERM, signal.SIGHUP):
        main()


@contextmanager
def _interrupted_by(*numbers: int) -> Iterator[None]:
    """These signals interrupt what runs, and end the process once it has tidied up (rule 4)."""
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


@contextmanager
def _stopped_by(*numbers: int, code: int) -> Iterator[None]:
    """These signals end the process. Afterwards an interrupt is an exception again; what asks it to end does so until it says more."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: os._exit(code))
    yield
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
