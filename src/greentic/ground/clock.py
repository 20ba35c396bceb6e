"""Time and chance: the one hand that asks the machine for either.

Rules:
1. Nobody else calls `time`, `random` or `os.urandom` (`tests/test_one_hand.py`).
2. What decides takes a moment as a value, or a `Clock` and a `Random`, so that tests can hold both still. `CLOCK` and `RANDOM` are the
   machine's, for the edges.
3. Waits and deadlines go by `monotonic`, which no change of the date moves; only what people or other machines read is a date.
"""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        ...

    def sleep(self, seconds: float) -> None: ...


class Random(Protocol):
    def octets(self, count: int) -> bytes:
        """`count` unpredictable bytes."""
        ...

    def fraction(self) -> float:
        """A number from 0 up to but not 1, for spreading load; no secret."""
        ...


class SystemClock:
    """The machine's clock. A turn asks it a dozen times, so that nothing stands between."""

    now_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SystemRandom:
    """The kernel's random source."""

    def octets(self, count: int) -> bytes:
        return os.urandom(count)

    def fraction(self) -> float:
        import random  # most programs never spread anything

        return random.random()  # noqa: S311  spreads load, is no secret


CLOCK: Clock = SystemClock()
RANDOM: Random = SystemRandom()


def unix_seconds(clock: Clock = CLOCK) -> int:
    """Whole seconds since 1970-01-01T00:00:00Z."""
    return clock.now_ns() // 1_000_000_000


def random_bits(count: int) -> int:
    """A number of `count` bits for ids that are no secret; the kernel is not asked for it."""
    import random  # as above

    return random.getrandbits(count)


def cpu_seconds() -> float:
    """Seconds that this thread has computed."""
    return time.thread_time()


def timestamp(now_ns: int) -> str:
    """RFC 3339 in UTC with `Z` and 0, 3, 6 or 9 fraction digits, as many as the value needs (formats: environment 1)."""
    seconds, nanos = divmod(now_ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    if not nanos:
        return f"{text}Z"
    digits = f"{nanos:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(seconds: int) -> bytes:
    """A moment as HTTP fields write it (RFC 9110, 5.6.7), whatever the locale."""
    at = time.gmtime(seconds)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02d} {month} {at.tm_year} {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT".encode()


def compact_stamp(now_ns: int) -> str:
    """`YYYYmmddTHHMMSS.fffffffffZ` in UTC, the stamp of backup files (formats: store 2)."""
    seconds, nanos = divmod(now_ns, 1_000_000_000)
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f".{nanos:09d}Z"
