"""Which revisions processes hold on to, told in files beside the environment, so that nobody tidies them away (threats: needed-gone).

Rules:
1. A process has a file of its own below `in-use/`, a list of revisions, and holds a lock beside it for as long as it lives. It says what it
   holds before it needs it, and takes back what it no longer needs afterwards. What could not be told is told at the next occasion, and
   where a store was restored or moved aside below a process, that has its file again.
2. Who cleans up asks all of them. The files of who is gone are taken away; a file that cannot be read means that everything is held.
3. Where the file system has no locks nobody can be told dead: then a file counts for a day after it was last written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from greentic.ground.clock import Clock, Random
from greentic.ground.disk import leave_to_owner, make_directory, place, replace_file, try_exclusive
from greentic.ground.documents import decode, read_file
from greentic.store.recovery import drop_abandoned

MAX_LIST = 16 << 20
_LIST, _LOCK = ".json", ".lock"


class InUse:
    """What this process holds. Raises `OSError` if that cannot be told."""

    def __init__(self, directory: Path, random: Random, revisions: Iterable[str]) -> None:
        stem = f"{os.getpid()}-{random.octets(6).hex()}"
        self._list, self._lock = directory / f"{stem}{_LIST}", directory / f"{stem}{_LOCK}"
        self._said = frozenset(revisions)
        self._file = self._locked()

    def _locked(self) -> BinaryIO:
        """The lock, taken; told and locked before it has its name: who finds the name finds both."""
        if self._lock.parent.parent.is_dir():  # else a store was moved away, and is to find its place free
            make_directory(self._lock.parent, 0o700)
        unnamed = self._lock.with_suffix(".new")
        unnamed.unlink(missing_ok=True)
        fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        file = os.fdopen(fd, "r+b")
        leave_to_owner(fd, self._lock.parent)
        try:
            try_exclusive(fd)
            self._write()
            place(unnamed, self._lock)
        except BaseException:
            file.close()
            raise
        return file

    def say(self, revisions: Iterable[str]) -> None:
        """These are held from now on, and no others. Raises `OSError`."""
        told, self._said = self._said, frozenset(revisions)
        try:
            if not self._is_there():
                left, self._file = self._file, self._locked()
                left.close()
            elif self._said != told:
                self._write()
        except OSError:
            self._said = told
            raise

    def _is_there(self) -> bool:
        """Whether others find what this process told: its own lock, not a copy of it, and the list."""
        try:
            return self._list.is_file() and os.path.samestat(self._lock.lstat(), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def also(self, revisions: Iterable[str]) -> None:
        """These are held, too. Raises `OSError`."""
        self.say(self._said | frozenset(revisions))

    def _write(self) -> None:
        replace_file(self._list, msgspec.json.encode(sorted(self._said)), 0o600)

    def close(self) -> None:
        """Nothing is held any more."""
        if not self._file.closed:
            for path in (self._list, self._lock):
                with contextlib.suppress(OSError):
                    path.unlink()
            self._file.close()
            with contextlib.suppress(OSError):  # others have files there
                self._list.parent.rmdir()


def in_use(directory: Path, clock: Clock) -> frozenset[str] | None:
    """The revisions that somebody holds; nothing if that cannot be known, and then all may be (rule 2)."""
    found: set[str] = set()
    if not directory.is_dir():
        return frozenset()
    for lock in sorted(directory.glob(f"*{_LOCK}")):
        told = lock.with_suffix(_LIST)
        if drop_abandoned(lock, os.O_RDONLY, clock, lambda path: path.unlink(missing_ok=True)):
            told.unlink(missing_ok=True)
            continue
        try:
            found.update(decode(read_file(told, MAX_LIST), list[str]))
        except (OSError, ValueError):
            if lock.exists():
                return None
    return frozenset(found)
