"""Whose turn it is among the processes of one test run, by locks on files that end with who holds them."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def once(lock: Path) -> Iterator[None]:
    """One process of the run at a time."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def beside(lock: Path) -> Iterator[None]:
    """Any number of processes at a time, and none while another is there by `once`."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
