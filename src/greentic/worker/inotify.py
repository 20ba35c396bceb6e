"""The kernel's interface for being told that files changed (Linux), as far as a watch needs it.

Rules:
1. Its three functions are taken from the C library that the process has loaded: searching for one starts a process in every boot.
2. What was told is read without waiting; a name is told as the file system spells it, and an empty one stands for a directory itself
   or for changes that were too many to be told.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path

_WRITTEN, _MOVED, _MADE, _DELETED, _ITSELF = 0x8, 0x40 | 0x80, 0x100, 0x200, 0x400 | 0x800
_MASK = _WRITTEN | _MOVED | _MADE | _DELETED | _ITSELF
_EVENT = struct.Struct("iIII")
"""Watch, what happened, a number that joins two events, bytes of the name that follows."""
_READ = 1 << 16
_MAX_LINKS = 40
"""As many as the system follows."""


class Inotify:
    """Told of files that appear, change or go in directories. Raises `OSError` where the system does not tell."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError(f"{sys.platform} has no inotify")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = _done(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def add(self, directory: Path) -> int:
        """The number of the watch, which is another one once another directory stands there."""
        return _done(self._libc.inotify_add_watch(self.fd, os.fsencode(directory), _MASK))

    def names(self) -> list[str]:
        """The names of files that something happened to since the last time."""
        found: list[str] = []
        try:
            told = os.read(self.fd, _READ)
        except BlockingIOError:
            return found
        at = 0
        while at < len(told):
            *_, size = _EVENT.unpack_from(told, at)
            at += _EVENT.size + size
            found.append(os.fsdecode(told[at - size : at].rstrip(b"\0")))
        return found

    def close(self) -> None:
        os.close(self.fd)


def behind(link: Path) -> set[Path]:
    """What else decides where a link leads: the links on its way, and the place where it ends. Nothing if it is no link."""
    found: set[Path] = set()
    with suppress(OSError):  # one may go meanwhile, or be nothing to look at
        place = link.parent / link.readlink() if link.is_symlink() else None
        while place is not None and len(found) < _MAX_LINKS:
            way = next((path for path in [*reversed(place.parents), place] if path.is_symlink()), None)
            if way in found:
                break  # it leads to itself
            found.add(way or place)
            place = None if way is None else way.parent / way.readlink() / place.relative_to(way)
    return found


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
