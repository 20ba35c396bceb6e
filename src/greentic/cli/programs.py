"""Where the three programs begin, before anything of theirs is loaded. Rules:

1. A signal to stop is heard from the first millisecond. The first process of a container hears none that it did not ask for, and loading a
   program takes some 60 ms, seconds on a starved node: a pod that is deleted then would sit out its grace period.
2. Nothing is done yet, so who is stopped just ends, without a traceback: workers and operators with the exit code 0 of a
   clean stop, `gtc` with 130.
3. What whoever started the program wants ignored stays ignored (`nohup`, a job in the background).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


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
        from greentic.terminal.asked_to_end import interrupted_by
    with interrupted_by(signal.SIGTERM, signal.SIGHUP):
        main()


@contextmanager
def _stopped_by(*numbers: int, code: int) -> Iterator[None]:
    """These signals end the process. Afterwards an interrupt is an exception again; what asks it to end does so until it says more."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: os._exit(code))
    yield
    from greentic.terminal.asked_to_end import interrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
