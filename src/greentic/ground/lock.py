"""The environment lock: `flock` on `.lock`, the same that other programs take (formats: store 3).

Rules:
1. One writer at a time; readers take no lock, because a rename gives them whole files.
2. A lock dies with its process, so there are no stale locks to clear.
3. Who has to wait longer than `LOCK_SECONDS` gives up with a `Conflict`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greentic.ground.clock import Clock
from greentic.ground.disk import LOCK_SECONDS, Disk, exclusive_for, io_error, leave_to_owner
from greentic.ground.errors import Conflict


@contextmanager
def held(path: Path, disk: Disk, clock: Clock, *, wait_seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock file at `path`, creating it and its directory. Raises `Conflict` when another holds it too long."""
    try:
        disk.make_directory(path.parent)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        leave_to_owner(fd, path.parent)
    except OSError as error:
        raise io_error(path, error) from error
    try:
        try:
            exclusive_for(fd, wait_seconds, clock)
        except TimeoutError:
            raise Conflict(
                f"environment lock `{path}` is held by another process for more than {wait_seconds:g} s",
                hint="wait for the other command to finish; `fuser` on the lock file names its process",
            ) from None
        yield
    finally:
        os.close(fd)
