"""Conversations and state in a private directory, which the processes of one worker share (rules: `value_store`).

Rules:
1. A value is a file that is replaced whole, its end of life and its key in front; its name says whose share it is. It is not
   synced: the directory dies with its worker.
2. A hold is a lock of the file system on one of `_STRIPES` files, so that it ends with the process that has it.
3. What a killed process left half written is removed after a minute.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from typing import BinaryIO

from greentic.ground.clock import CLOCK, Clock
from greentic.ground.disk import exclusive_for, make_directory, replace_file, try_exclusive
from greentic.sessions.shares import Shares, share_of
from greentic.sessions.value_store import (
    DROPPED,
    HOLD_SECONDS,
    MAX_BYTES,
    MAX_ENTRIES,
    HoldQueue,
    StoreUnavailable,
    check_size,
    still_held,
)
from greentic.telemetry.tallies import TALLIES

_STRIPES = 1024
_PARTIAL = ".tmp"
"""How the name of a file ends that is being written."""
_FRONT = struct.Struct("<dI")
"""When the value ends, in seconds since 1970 or 0; and how many bytes its key has, which follows."""


class DirectoryStore:
    """Values of the processes of one worker, as files of a private directory."""

    local = shared = True

    def __init__(self, directory: Path, clock: Clock = CLOCK) -> None:
        self._directory, self._queue, self._clock = directory, HoldQueue(), clock
        make_directory(directory, 0o700)
        self._sets, self._pruning = 0, Lock()

    def _now(self) -> float:
        return self._clock.now_ns() / 1e9

    def _path(self, key: str) -> Path:
        return self._directory / f"{_digest(share_of(key))[:16]}-{_digest(key)}"

    def get(self, key: str) -> bytes | None:
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(error) from None
        if len(data) < _FRONT.size:
            return None  # cut short by a full disk
        end, length = _FRONT.unpack_from(data)
        if end and self._now() >= end:
            self.delete(key)
            return None
        return data[_FRONT.size + length :]

    def count(self, prefix: str) -> int:
        wanted, found = prefix.encode(), 0
        try:
            for path in self._directory.iterdir():
                found += not path.name.startswith(".") and self._begins(path, wanted)
        except OSError as error:
            raise _unavailable(error) from None
        return found

    def _begins(self, path: Path, wanted: bytes) -> bool:
        """Whether a file holds a living value whose key begins so."""
        try:
            with path.open("rb") as file:
                front = file.read(_FRONT.size + len(wanted))
        except FileNotFoundError:
            return False  # deleted meanwhile
        if len(front) < _FRONT.size:
            return False
        end, length = _FRONT.unpack_from(front)
        return length >= len(wanted) and front[_FRONT.size :] == wanted and not (end and self._now() >= end)

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        check_size(value)
        end, name = 0.0 if seconds is None else self._now() + seconds, key.encode()
        try:
            replace_file(self._path(key), _FRONT.pack(end, len(name)) + name + value, 0o600)
        except OSError as error:
            raise _unavailable(error) from None
        self._sets += 1
        if self._sets % 1000 == 0 and self._pruning.acquire(blocking=False):
            Thread(target=self._pruned, name="prune conversations", daemon=True).start()

    def _pruned(self) -> None:
        """Beside who sets: to look at all files takes as long as a hundred turns."""
        try:
            with suppress(OSError):  # a directory that is gone is told to whoever sets
                self._prune()
        finally:
            self._pruning.release()

    def delete(self, key: str) -> bool:
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unavailable(error) from None
        return True

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        with self._lock_file(key) as file:
            with self._queue.waiting(key):
                try:
                    exclusive_for(file.fileno(), HOLD_SECONDS, self._clock)
                except TimeoutError:
                    raise still_held() from None
            yield

    def hold_at_once(self, key: str) -> AbstractContextManager[object] | None:
        file = self._lock_file(key)
        if try_exclusive(file.fileno()):
            return file
        file.close()
        return None

    def _lock_file(self, key: str) -> BinaryIO:
        stripe = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2], "big") % _STRIPES
        try:
            return (self._directory / f".lock-{stripe}").open("ab")
        except OSError as error:
            raise _unavailable(error) from None

    def _prune(self) -> None:
        entries: list[tuple[int, str, int]] = []
        for path in self._directory.iterdir():
            with suppress(OSError):
                found = path.stat()
                if path.name.endswith(_PARTIAL) and self._now() - found.st_mtime > 60:
                    path.unlink()  # of a process that died while it wrote
                elif not path.name.startswith("."):
                    entries.append((found.st_mtime_ns, path.name, found.st_size))
        shares = Shares()
        for _, name, size in sorted(entries):
            shares.put(name.partition("-")[0], name, size)
        used = {name: at for at, name, _ in entries}
        for name in shares.leaving(MAX_ENTRIES, MAX_BYTES):
            path = self._directory / name
            with suppress(FileNotFoundError):
                if path.stat().st_mtime_ns == used[name]:  # else it was used meanwhile
                    path.unlink()
                    TALLIES.add(DROPPED)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _unavailable(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(error.strerror or type(error).__name__)
