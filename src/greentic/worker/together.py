"""How the processes of one worker flip together: each says what it has prepared, in a directory that they share.

Rules:
1. A process writes the digest of the document that it has prepared into a file of its name, and waits until every living one has
   written the same, at most `PATIENCE`. Who is late is not waited for again: one slow process must not hold up a change. Nor is one that
   has prepared another document meanwhile: while changes come fast, each process may see others of them.
2. The file of a process that is gone counts for nothing.
3. It is a courtesy: where the directory takes or shows nothing, as on a full disk, each process swaps when it is ready, and says so once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greentic.ground.clock import Clock
from greentic.ground.disk import replace_file
from greentic.ground.optional import done_without

PATIENCE = 5.0
_PAUSE = 0.005


class WithSiblings:
    """The processes of one worker, as they tell of themselves in the directory that they share."""

    def __init__(self, directory: Path, clock: Clock, digest: str) -> None:
        self._directory, self._clock = directory / "prepared", clock
        self._own = self._directory / str(os.getpid())
        with _as_far_as_it_goes():
            self._directory.mkdir(mode=0o700, exist_ok=True)
        self._say(digest)

    def agree(self, digest: str) -> None:
        """Say what was prepared, and wait for the others (rule 1)."""
        before = self._said
        self._say(digest)
        ends = self._clock.monotonic() + PATIENCE
        with _as_far_as_it_goes():
            while self._clock.monotonic() < ends and any(said == before != digest for said in self._others()):
                self._clock.sleep(_PAUSE)

    def _say(self, digest: str) -> None:
        self._said = digest
        with _as_far_as_it_goes():
            replace_file(self._own, digest.encode(), 0o600)

    def _others(self) -> list[str]:
        """What the other living processes have prepared."""
        found = []
        for path in self._directory.iterdir():
            if path.name.isdigit() and path != self._own and _lives(int(path.name)):
                try:
                    found.append(path.read_text())
                except OSError:
                    continue  # it ended just now
        return found


@contextmanager
def _as_far_as_it_goes() -> Iterator[None]:
    """Rule 3."""
    try:
        yield
    except OSError as error:
        done_without("swapping together with the other processes", error)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
