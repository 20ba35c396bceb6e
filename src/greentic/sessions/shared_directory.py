"""The directory in which the processes of one worker share their sessions: made by the first of them, gone with the last.

Rules:
1. Whoever uses the directory holds the lock of its `.used` file: the first process takes it, and hands the open file to those that it
   starts. The system lets go of it when the last of them has ended, however it ended.
2. A start deletes what earlier ones left: directories of this user with this prefix whose lock is free. One without such a file,
   or with one that was never marked, is not provably ours, and stays.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from greentic.ground.disk import exclusive, try_exclusive

PREFIX = "greentic-sessions-"
_USED, _MARK = ".used", b"used\n"


class SharedDirectory:
    """A private directory, used until it is left."""

    def __init__(self) -> None:
        """Delete what was left (rule 2), and make a new one. Raises `OSError`."""
        sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._file: BinaryIO = (self.path / _USED).open("wb", buffering=0)
        exclusive(self._file.fileno())
        self._file.write(_MARK)  # only now: who meets the file free before this finds it empty

    def close(self) -> None:
        """Delete it: the last process that used it has ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._file.close()

    def fileno(self) -> int:
        """What a process that is to use the directory is given (rule 1)."""
        return self._file.fileno()


def sweep(top: Path) -> int:
    """Delete the directories that nobody uses any more; how many. Never raises."""
    gone = 0
    with suppress(OSError):
        for path in top.glob(f"{PREFIX}*"):
            gone += _swept(path)
    return gone


def _swept(path: Path) -> bool:
    with suppress(OSError):
        found = path.lstat()
        if not path.is_dir() or path.is_symlink() or found.st_uid != os.geteuid():
            return False
        with _opened(path / _USED) as file, _opened(path / _USED) as again:
            if not try_exclusive(file.fileno()) or not file.read(1):
                return False
            if try_exclusive(
                again.fileno()
            ):  # our own lock does not keep it out: there are no locks, and nothing is proved
                return False
            shutil.rmtree(path, ignore_errors=True)
            return True
    return False


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "rb+")
