"""Reading what another program writes meanwhile: a fifo, or what a shell hands on.

Rules:
1. Whoever has it open and writes nothing is waited for so long and no longer, in all; only who was named by a person has all the time.
2. What nobody has open ends at once.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from io import BufferedReader

from greentic.ground.clock import CLOCK

PIPE_SECONDS = 1.0
"""How long who writes into a fifo may take."""


def written_within(file: BufferedReader, patience: float | None) -> Callable[[int], bytes]:
    """How to read from it, until so many seconds have passed in all. Raises `OSError`."""
    os.set_blocking(file.fileno(), False)
    ends = None if patience is None else CLOCK.monotonic() + patience
    told = select.poll()
    told.register(file, select.POLLIN)

    def read(wanted: int) -> bytes:
        while (piece := file.raw.read(wanted)) is None:  # somebody has it open, and has written nothing more
            left = None if ends is None else max(ends - CLOCK.monotonic(), 0) * 1000
            if not told.poll(left):
                raise OSError(
                    errno.ETIMEDOUT, f"a fifo is there, and who writes into it takes more than {patience:g} s"
                )
        return piece

    return read
