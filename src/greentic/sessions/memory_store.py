"""Conversations and state in the memory of one process (rules: `value_store`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import msgspec

from greentic.ground.clock import CLOCK, Clock
from greentic.sessions.shares import Shares, share_of
from greentic.sessions.value_store import (
    DROPPED,
    HOLD_SECONDS,
    MAX_BYTES,
    MAX_ENTRIES,
    HoldQueue,
    check_size,
    still_held,
)
from greentic.telemetry.tallies import TALLIES


class MemoryStore:
    """Values of one process."""

    local, shared = True, False

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._values: dict[str, tuple[bytes, float | None]] = {}
        self._shares = Shares()
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
            self._shares.used(share_of(key), key)
            return value

    def count(self, prefix: str) -> int:
        with self._lock:
            now = self._clock.monotonic()
            return sum(key.startswith(prefix) and (end is None or now < end) for key, (_, end) in self._values.items())

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        check_size(value)
        with self._lock:
            self._values[key] = (value, None if seconds is None else self._clock.monotonic() + seconds)
            self._shares.put(share_of(key), key, len(value))
            for name in self._shares.leaving(MAX_ENTRIES, MAX_BYTES):
                del self._values[name]
                TALLIES.add(DROPPED)

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
        self._shares.drop(share_of(key), key)
        return self._values.pop(key, None) is not None


class _Held(msgspec.Struct, frozen=True):
    """A lock that is given back when it is closed."""

    close: Callable[[], None]
