"""The disk behind a seam: the few operations that the store's promises rest on.

Tests replace it by one that dies before the n-th operation, so every crash point can be tried. Reading goes to the file
system directly: it changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Protocol

from greentic.ground.errors import IoError


class Disk(Protocol):
    """Operations that change the disk. Paths are absolute; errors are `OSError`."""

    def make_directory(self, path: Path, mode: int = 0o755) -> None:
        """Create a directory and its missing parents; an existing one is fine."""
        ...

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Create a file that must not exist, with its bytes on stable storage."""
        ...

    def append(self, path: Path, data: bytes) -> None:
        """Add bytes to the end of a file, creating it, and put them on stable storage."""
        ...

    def rename(self, source: Path, target: Path) -> None: ...

    def link(self, source: Path, target: Path) -> None:
        """A second name for a file; `FileExistsError` if the name is taken."""
        ...

    def remove(self, path: Path) -> None:
        """Delete a file; a missing one is fine."""
        ...

    def remove_tree(self, path: Path) -> None:
        """Delete a directory with everything in it; a missing one is fine."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Put the names in a directory on stable storage."""
        ...


class RealDisk:
    """The file system."""

    def make_directory(self, path: Path, mode: int = 0o755) -> None:
        path.mkdir(mode=mode, parents=True, exist_ok=True)

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)

    def append(self, path: Path, data: bytes) -> None:
        import fcntl

        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # a line that a kill cut short stays one damaged line, it does not swallow the next
            while data:
                data = data[os.write(fd, data) :]
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except (PermissionError, NotImplementedError):
            # some file systems have no hard links
            self.write_new(target, source.read_bytes())

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Make or replace a file that is old or new, never half, without the store's durability. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def io_error(path: Path | str, error: OSError) -> IoError:
    """An `OSError` as an error for people."""
    hints = {
        28: "free some space on this file system and run the command again; nothing was changed",
        30: "the file system is read-only; mount it writable or point --store-root elsewhere",
        13: "check who owns the directory and its permissions",
    }
    reason = error.strerror or str(error)
    number = f" (os error {error.errno})" if error.errno else ""
    return IoError(f"{path}: {reason}{number}", hint=hints.get(error.errno or 0))
