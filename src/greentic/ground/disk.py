"""The disk behind a seam: the one hand that makes a change last.

Rules:
1. Nobody else calls `fsync`, `fdatasync` or `os.replace`, or renames a file to its place (`tests/test_one_hand.py`).
2. A file comes to its place whole: a temporary file in the same directory, its bytes on stable storage, a rename, the directory's names
   on stable storage. `replace_file` leaves both syncs out where losing the newest write after a power cut is fine.
3. A file system that cannot sync a directory or has no hard links is done without them, and told.
4. Reading goes to the file system directly: it changes nothing.
5. What is made is for its owner to change, whatever the mask says; and what root makes in a directory of somebody else's is theirs, or
   the worker of a store could not read what `sudo gtc op` wrote there.

Tests replace the `Disk` by one that dies before the n-th operation, so every crash point can be tried.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from greentic.ground.clock import CLOCK, Clock, unix_seconds
from greentic.ground.errors import GreenticError, InvalidArgument, IoError
from greentic.ground.optional import done_without

LOCK_SECONDS = 60.0
"""How long a lock of another process is awaited that does not go on."""


class Disk(Protocol):
    """Operations that change the disk. Paths are absolute; errors are `OSError`."""

    def make_directory(self, path: Path, mode: int = 0o755) -> None:
        """Create a directory and its missing parents; an existing one is fine."""
        ...

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Create a file that must not exist, with its bytes on stable storage."""
        ...

    def append(self, path: Path, data: bytes) -> None:
        """Add bytes to the end of a file, creating it, and put them on stable storage: all of them, or none where it raises."""
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
        make_directory(path, mode)

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            leave_to_owner(fd, path.parent)
            file.write(data)
            file.flush()
            sync_file(fd)

    def append(self, path: Path, data: bytes) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            leave_to_owner(fd, path.parent)
            exclusive_for(fd, LOCK_SECONDS)
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # a line that a kill cut short stays one damaged line, it does not swallow the next
            try:
                while data:
                    data = data[os.write(fd, data) :]
            except OSError:
                os.ftruncate(fd, size)  # on a full disk: part of a line would look like damage for good
                raise
            sync_data(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            raise
        except (OSError, NotImplementedError) as error:
            done_without("hard links", error)
            self.write_new(target, source.read_bytes())

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            import shutil  # it brings bz2 and lzma

            shutil.rmtree(path)

    def sync_directory(self, path: Path) -> None:
        sync_directory(path)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create a directory and its missing parents; an existing one is fine (rule 5). Raises `OSError`."""
    if path.parent != path and not path.parent.is_dir():
        make_directory(path.parent)
    path.mkdir(mode, exist_ok=True)
    with contextlib.suppress(OSError):  # it may be gone again
        if owner_of(path.parent) is not None:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            leave_to_owner(fd, path.parent)
            os.close(fd)


def owner_of(directory: Path) -> tuple[int, int] | None:
    """Whom a directory of somebody else's belongs to, and which group, where we are root and so may give away what is made there."""
    found = directory.stat() if os.geteuid() == 0 else None
    return None if found is None or found.st_uid == 0 else (found.st_uid, found.st_gid)


def leave_to_owner(fd: int, directory: Path) -> None:
    """Give an open file or directory of root's to the owner of the directory that it is in (rule 5)."""
    with contextlib.suppress(OSError):  # not every root may
        owner, found = owner_of(directory), os.fstat(fd)
        if owner is not None and found.st_uid == 0 and (found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)):
            os.fchown(fd, *owner)


def sync_file(fd: int) -> None:
    """Put an open file's bytes and its size on stable storage. Raises `OSError`."""
    os.fsync(fd)


def sync_data(fd: int) -> None:
    """The same without the times of the file, where the system knows the difference. Raises `OSError`."""
    getattr(os, "fdatasync", os.fsync)(fd)  # macOS has no fdatasync


def sync_directory(path: Path) -> None:
    """Put the names in a directory on stable storage; some network and virtual file systems cannot. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
        done_without("the sync of directories", f"{path}: {error.strerror}")
    finally:
        os.close(fd)


def exclusive(fd: int) -> None:
    """Take the exclusive lock on an open file, waiting for it; a file system without locks is done without."""
    _locked(fd, 0)


def exclusive_for(fd: int, seconds: float, clock: Clock = CLOCK, signs: Callable[[], object] = lambda: None) -> None:
    """Take the exclusive lock, waiting while its holder goes on. Raises `TimeoutError` once `signs` said the same for so many seconds.

    A process that is stopped, or a disk that hangs, holds its locks: what belongs to another program is never awaited for good.
    The system has no waiting with an end, so it is asked again and again, less and less often.
    """
    seen, since, pause = signs(), clock.monotonic(), 0.001
    while not try_exclusive(fd):
        now, moment = signs(), clock.monotonic()
        if now != seen:
            seen, since = now, moment
        elif moment - since >= seconds:
            raise TimeoutError(errno.ETIMEDOUT, f"another process holds the lock and did not go on for {seconds:g} s")
        clock.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def try_exclusive(fd: int) -> bool:
    """Whether the exclusive lock on an open file or directory could be taken at once."""
    return _locked(fd, fcntl.LOCK_NB)


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
        done_without("file locks", f"{error.strerror}; two programs at once are not kept apart")
    return True


_TEMPORARY = re.compile(r"\..+\.\d+-\d+\.tmp")
"""Names that `replace_file` makes."""
_LEFT_SECONDS = 3600


def replace_file(path: Path, data: bytes, mode: int = 0o666, *, durable: bool = False) -> None:
    """Make or replace a file that is old or new, never half; with `durable` it is new also after a power cut. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            leave_to_owner(fd, path.parent)
            file.write(data)
            if durable:
                file.flush()
                sync_file(fd)
        _refuse_special(path)
        temporary.replace(path)
        if durable:
            sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_left(path: Path, clock: Clock) -> bool:
    """Whether a killed `replace_file` left this file: nobody is an hour at one."""
    if _TEMPORARY.fullmatch(path.name) is None:
        return False
    with contextlib.suppress(OSError):
        return unix_seconds(clock) - path.lstat().st_mtime > _LEFT_SECONDS
    return False


def _refuse_special(path: Path) -> None:
    """Raise `OSError` for a device, fifo or socket: `--out /dev/null` would put a file in its place, for everybody."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EEXIST, "a device, fifo or socket is there, which a file does not replace", str(path))


def place(source: Path, target: Path) -> None:
    """Rename a finished file or directory to its place, durably. Raises `OSError`, for a device, fifo or socket too."""
    _refuse_special(target)
    source.rename(target)
    sync_directory(target.parent)


def real_path(path: Path) -> Path:
    """Where a path leads to, through every link; one whose links go in a circle leads to itself, where no file is. Never raises.

    `Path.resolve` ends in a `RuntimeError` for a circle, which who wrote a directory can make.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a name that no file can have
        return path.absolute()


def io_error(path: Path | str, error: OSError) -> IoError:
    """An `OSError` as an error for people."""
    hints = {
        28: "free some space on this file system and run the command again; nothing was changed",
        30: "the file system is read-only; mount it writable or point --store-root elsewhere (caches: XDG_CACHE_HOME)",
        13: "check who owns the directory and its permissions",
        24: "let the program open more files: `ulimit -n` tells how many it may",
    }
    reason = error.strerror or str(error)
    number = f" (os error {error.errno})" if error.errno else ""
    return IoError(f"{path}: {reason}{number}", hint=hints.get(error.errno or 0))


def _has_place() -> bool:
    """Whether the directory that relative names are relative to is still there."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


UNFORESEEN = (OSError, MemoryError, UnicodeEncodeError)
"""What a program may meet that nothing in it foresaw and no mistake of it is."""


def of_the_machine(error: OSError | MemoryError | UnicodeEncodeError) -> GreenticError:
    """One of `UNFORESEEN` as an error for people: for the outermost door of a program."""
    if isinstance(error, UnicodeEncodeError):  # the name of a file, as a rule
        read_so = sys.getfilesystemencoding() == "utf-8"
        hint = "rename the file, or copy it" if read_so else "say that words are UTF-8: LC_ALL=C.UTF-8, or PYTHONUTF8=1"
        return InvalidArgument(f"`{error.object}` is no text in UTF-8; what is recorded must be", hint=hint)
    if isinstance(error, OSError):
        return io_error(error.filename or ("the file system" if _has_place() else "the working directory"), error)
    return IoError(
        "memory: there is no more", hint="give it more: `ulimit -v` and the limits of its control group bound it"
    )
