"""Waiting for what a program does: one way for all tests.

What is asked once and held true later moves meanwhile; so everything that a running program is to show is asked again until it shows,
within a time that only a hang can use up, and nothing is asked twice in one condition.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PATIENCE = 120.0
"""Seconds that only a hang uses up, on a busy machine too."""

Found = TypeVar("Found")


def until(condition: Callable[[], Found], what: str | Callable[[], object] = "", seconds: float = PATIENCE) -> Found:
    """Wait for a condition and return what it gave. Raises `TimeoutError` that says for what (a function is asked at the end)."""
    ends = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > ends:
            said = what() if callable(what) else what
            raise TimeoutError(f"{said or 'what the test waits for'}: not within {seconds:g} s")
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs still; one that ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """The living processes that a first process serves with; who looks for a tool for a moment is none."""
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in found if lives(child) and b"greentic" in _words(child)]


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
