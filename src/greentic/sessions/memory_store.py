"""Conversations and state in the memory of one process (rules: `value_store`)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import msgspec

from greentic.ground.clock import CLOCK, Clock
from greentic.sessions.value_store import HOLD_SECONDS, MAX_BYTES, MAX_ENTRIES, HoldQueue, check_size, still_held


class MemoryStore:
    """Values of one process."""

    local, shared = True, False

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
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
            if end is not None and self._clock.monotonic() >= end:
                self._drop(key)
                return None
            self._values.move_to_end(key)
            return value

    def count(self, prefix: str) -> int:
        with self._lock:
            now = self._clock.monotonic()
            return sum(key.startswith(prefix) and (end is None or now < end) for key, (_, end) in self._values.items())

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        check_size(value)
        with self._lock:
            self._drop(key)
            self._values[key] = (value, None if seconds is None else self._clock.monotonic() + seconds)
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


class _Held(msgspec.Struct, frozen=True):
    """A lock that is given back when it is closed."""

    close: Callable[[], None]
