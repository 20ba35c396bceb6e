"""Where waiting conversations and state live: bytes by key, with an end of life and a hold per key.

Rules:
1. In memory by default; in a private directory where several processes of one worker share them; in Redis where one is told.
2. A conversation is held while one of its turns runs, so that two messages at once never advance it twice.
3. Few messages wait for a conversation that is held, and not for ever: the others fail at once, so that one conversation never
   takes the threads of all.
4. Every store is bounded: the entries that were not used for longest go first. An entry past its end of life is not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from greentic.flow.graph import FlowFailure

MAX_ENTRIES = 100_000
MAX_BYTES = 256 << 20
MAX_VALUE = 4 << 20
"""Bytes of one conversation or one value of state."""
MAX_WAITING = 4
"""Messages that may wait for one held conversation."""
HOLD_SECONDS = 30.0
"""How long one waits."""
_STRIPES = 1024


class HoldQueue:
    """Who waits for a held key in this process (rule 3)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}

    @contextmanager
    def waiting(self, key: str) -> Iterator[None]:
        """Be one of those who wait. Raises `FlowFailure` if there are too many."""
        with self._lock:
            count = self._waiting.get(key, 0)
            if count >= MAX_WAITING:
                raise FlowFailure(f"{count} messages of this conversation are waiting already")
            self._waiting[key] = count + 1
        try:
            yield
        finally:
            with self._lock:
                left = self._waiting[key] - 1
                if left:
                    self._waiting[key] = left
                else:
                    del self._waiting[key]


def still_held() -> FlowFailure:
    return FlowFailure("another message of this conversation is still being answered")


class ValueStore(Protocol):
    """Bytes by key. Every method may raise `FlowFailure`."""

    @property
    def local(self) -> bool:
        """Whether reading and writing take no time worth speaking of."""
        ...

    def get(self, key: str) -> bytes | None: ...

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        """Store a value, for `seconds` or for good."""
        ...

    def delete(self, key: str) -> bool:
        """Whether there was one."""
        ...

    def hold(self, key: str) -> AbstractContextManager[object]:
        """Keep others from holding the same key."""
        ...

    def hold_at_once(self, key: str) -> AbstractContextManager[object] | None:
        """The same without waiting: nothing if somebody else holds it, or if this store may make its caller wait."""
        ...


def check_size(value: bytes) -> None:
    """Raise `FlowFailure` for a value that is too large to be kept."""
    if len(value) > MAX_VALUE:
        raise FlowFailure(f"a conversation or value of {len(value)} bytes cannot be kept; at most {MAX_VALUE}")


class MemoryStore:
    """Values of one process."""

    local = True

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[bytes, float | None]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._released = threading.Condition(threading.Lock())
        self._queue = HoldQueue()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            value, end = found
            if end is not None and time.monotonic() >= end:
                self._drop(key)
                return None
            self._values.move_to_end(key)
            return value

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        check_size(value)
        with self._lock:
            self._drop(key)
            self._values[key] = (value, None if seconds is None else time.monotonic() + seconds)
            self._bytes += len(value)
            while len(self._values) > MAX_ENTRIES or self._bytes > MAX_BYTES:
                self._drop(next(iter(self._values)))

    def delete(self, key: str) -> bool:
        with self._lock:
            return self._drop(key)

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        with self._queue.waiting(key), self._released:
            if not self._released.wait_for(lambda: key not in self._held, HOLD_SECONDS):
                raise still_held()
            self._held.add(key)
        try:
            yield
        finally:
            self._release(key)

    def hold_at_once(self, key: str) -> AbstractContextManager[object] | None:
        with self._released:
            if key in self._held:
                return None
            self._held.add(key)
        return closing(_Held(lambda: self._release(key)))

    def _release(self, key: str) -> None:
        with self._released:
            self._held.discard(key)
            self._released.notify_all()

    def _drop(self, key: str) -> bool:
        found = self._values.pop(key, None)
        if found is None:
            return False
        self._bytes -= len(found[0])
        return True


class _Held(NamedTuple):
    """A lock that is given back when it is closed."""

    close: Callable[[], None]


_PARTIAL = ".part-"


class DirectoryStore:
    """Values of the processes of one worker, as files of a private directory."""

    local = True

    def __init__(self, directory: Path) -> None:
        self._directory, self._queue = directory, HoldQueue()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sets = 0

    def _path(self, key: str) -> Path:
        return self._directory / hashlib.sha256(key.encode()).hexdigest()

    def get(self, key: str) -> bytes | None:
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FlowFailure(f"the session store is unavailable: {error.strerror}") from None
        (end,) = struct.unpack_from("<d", data)
        if end and time.time() >= end:
            self.delete(key)
            return None
        return data[8:]

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        check_size(value)
        end = 0.0 if seconds is None else time.time() + seconds
        temporary: str | None = None
        try:
            fd, temporary = tempfile.mkstemp(prefix=_PARTIAL, dir=self._directory)
            with os.fdopen(fd, "wb") as file:
                file.write(struct.pack("<d", end) + value)
            Path(temporary).replace(self._path(key))
        except OSError as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            raise FlowFailure(f"the session store is unavailable: {error.strerror}") from None
        self._sets += 1
        if self._sets % 1000 == 0:
            self._prune()

    def delete(self, key: str) -> bool:
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise FlowFailure(f"the session store is unavailable: {error.strerror}") from None
        return True

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        with self._lock_file(key) as file:
            with self._queue.waiting(key):
                self._await(file)
            yield

    def _await(self, file: BinaryIO) -> None:
        """Take the lock. The system has no waiting with an end, so it is asked again and again, less and less often."""
        deadline, pause = time.monotonic() + HOLD_SECONDS, 0.001
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise still_held() from None
                time.sleep(pause)
                pause = min(pause * 1.5, 0.05)
            else:
                return

    def hold_at_once(self, key: str) -> AbstractContextManager[object] | None:
        file = self._lock_file(key)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file

    def _lock_file(self, key: str) -> BinaryIO:
        stripe = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2], "big") % _STRIPES
        return (self._directory / f".lock-{stripe}").open("ab")

    def _prune(self) -> None:
        entries: list[tuple[float, int, Path]] = []
        for path in self._directory.iterdir():
            with suppress(OSError):
                found = path.stat()
                if path.name.startswith(_PARTIAL) and time.time() - found.st_mtime > 60:
                    path.unlink()  # of a process that died while it wrote
                elif not path.name.startswith("."):
                    entries.append((found.st_mtime, found.st_size, path))
        total, count = sum(size for _, size, _ in entries), len(entries)
        for _, size, path in sorted(entries):
            if total <= MAX_BYTES and count <= MAX_ENTRIES:
                break
            path.unlink(missing_ok=True)
            total, count = total - size, count - 1
