"""Being told that files changed: by the file system where it tells, by looking now and then where it does not.

Rules:
1. What is watched are directories, for a mounted ConfigMap changes by a swap of a link and an editor by a rename. Where a file is a
   link to elsewhere, the directories that decide where it leads are watched, too.
2. Being told means that it is worth looking; what changed is for whoever looks. Many changes at once are told once.
3. What is of no interest ends no wait: a look may touch files itself, such as the lock of the store, and would be the reason of the next.
4. A file system that tells nothing (some network and overlay mounts) is looked at every `POLL_SECONDS`.
5. A directory that is replaced (a store that is restored) or comes later is watched from then on; that it came is worth a look.
6. Who wakes a watch that is closed wakes nobody: the number of its pipe may be another file's by then, such as a caller's connection.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from greentic.ground.clock import CLOCK
from greentic.ground.optional import done_without
from greentic.worker.inotify import Inotify, behind

POLL_SECONDS = 15.0
MISSING_SECONDS = 1.0
"""How often a directory that is not there is looked for."""
SETTLE_SECONDS = 0.005
"""How long after a change another one is waited for, so that one save is one look."""


class Watch(Protocol):
    def wait(self, seconds: float) -> bool:
        """Wait until something changed or somebody woke us, at most so many seconds; whether anything did."""
        ...

    def wake(self) -> None:
        """End the wait of another thread, or the next one."""
        ...

    def close(self) -> None: ...


class DirectoryWatch:
    """Watches directories for files that appear, change or go; names that begin with a dot or end as logs do are not looked at."""

    def __init__(self, directories: Iterable[Path], names: frozenset[str]) -> None:
        self._names, self._behind = names, set[Path]()
        self._numbers: dict[Path, int | None] = dict.fromkeys(directories)
        self._closing, self._closed = threading.Lock(), False
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)
        self._told: Inotify | None = None
        try:
            self._told = Inotify()
            for directory in self._numbers:
                self._numbers[directory] = self._told.add(directory)
        except OSError as error:
            done_without("being told of changed files", f"{error.strerror or error}; looking every {POLL_SECONDS:g} s")
        if self._told is not None:
            self._poll.register(self._told.fd, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        ends = CLOCK.monotonic() + min(seconds, POLL_SECONDS)
        while not (found := self._attend()) and not (found := self._ready(ends)) and CLOCK.monotonic() < ends:
            pass
        while found and self._ready(CLOCK.monotonic() + SETTLE_SECONDS):
            pass
        return found

    def wake(self) -> None:
        with self._closing, contextlib.suppress(BlockingIOError):  # many have called already
            if not self._closed:
                os.write(self._writing, b"w")

    def close(self) -> None:
        with self._closing:
            self._closed = True
            if self._told is not None:
                self._told.close()
            os.close(self._reading)
            os.close(self._writing)

    def _attend(self) -> bool:
        """Watch what stands where the directories stood (rule 5); whether something else does than did."""
        before = dict(self._numbers)
        for directory in self._numbers:
            try:
                self._numbers[directory] = None if self._told is None else self._told.add(directory)
            except OSError:
                self._numbers[directory] = None
        led, self._behind = (
            self._behind,
            set().union(*(behind(d / name) for d in self._numbers for name in self._names)),
        )
        for place in self._behind:
            with contextlib.suppress(OSError):
                if self._told is not None:
                    self._told.add(place.parent)
        others = any(number is not None and number != before[place] for place, number in self._numbers.items())
        return others or led != self._behind

    def _ready(self, ends: float) -> bool:
        """Wait for anything that is worth a look; drains what was told."""
        left = ends - CLOCK.monotonic()
        if None in self._numbers.values():
            left = min(left, MISSING_SECONDS)
        found = False
        for fd, _ in self._poll.poll(max(int(left * 1000), 0)):
            if fd == self._reading:
                os.read(fd, 4096)
                found = True
            elif self._told is not None:
                found = any(map(self._counts, self._told.names())) or found
        return found

    def _counts(self, name: str) -> bool:
        return not name or name in self._names or any(name == place.name for place in self._behind)
