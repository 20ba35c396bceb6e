"""The standard streams of a program, closed, full or gone as they may be.

Rules:
1. A stream that was closed before the program began takes what is printed, and nobody reads it.
2. An answer that cannot be printed is an error of its own: it does not say that nothing was done.
3. A reader that has gone is no error of ours, and goes through as `BrokenPipeError`.
4. A stream that cannot take every character gets the others written out.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from greentic.ground.disk import io_error


def claim_standard_streams() -> None:
    """Give closed standard descriptors a place, so that no file or socket of ours gets their number and is written to as if (rule 1)."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def answering() -> Iterator[None]:
    """For printing the answer of what is done, to the last byte. Raises `IoError` (rule 2)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        told = io_error("the standard output", error)
        told.hint = "what was asked for is done; only its answer could not be written"
        raise told from error


def say(text: str) -> None:
    """Print a text that is the answer by itself, such as help. Raises `IoError` (rule 2)."""
    with answering():
        print(text)


def drop_output() -> None:
    """Let go what could not be written: it waits in a buffer and would fail once more when the program ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
