"""What happened to the turns of each revision: always on, cheap, and the base of everything that is shown or decided from it.

Rules:
1. A turn is counted when it ends, under the revision that took it, by how it ended and how long it took.
2. Labels are bounded: kinds of failures are a closed list, and revisions are those that are or were served here.
3. A histogram has fixed bounds, so that processes and replicas can be added up.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Literal

import msgspec

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram, in seconds; what is above the last counts in one more."""
Kind = Literal["flow", "no_flow", "busy", "store", "gone"]
"""A run failed; no flow could be selected; too many messages of its conversation wait; it cannot be looked up; the caller left."""
KINDS: tuple[Kind, ...] = ("flow", "no_flow", "busy", "store", "gone")


class Snapshot(msgspec.Struct, frozen=True):
    """The counts of a revision at one moment."""

    turns: int
    failures: dict[str, int]
    seconds: float
    buckets: tuple[int, ...]
    in_flight: int
    parked: int
    began_to_wait: int
    """Conversations that were parked here, and those that were here freed of waiting; the difference adds up over processes."""
    waited: int


class Counts:
    """The counts of one revision."""

    __slots__ = ("_buckets", "_failures", "_seconds", "_turns", "began_to_wait", "in_flight", "parked", "waited")

    def __init__(self) -> None:
        self._turns, self._seconds = 0, 0.0
        self._failures = dict.fromkeys(KINDS, 0)
        self._buckets = [0] * (len(BOUNDS) + 1)
        self.in_flight = 0
        self.parked = 0
        """Conversations that this process saw parked and not yet resumed."""
        self.began_to_wait = self.waited = 0

    def waits(self, more: int) -> None:
        """By how many the conversations that wait became more, or less."""
        self.parked = max(0, self.parked + more)
        if more > 0:
            self.began_to_wait += more
        else:
            self.waited -= more

    def take(self, other: Counts) -> None:
        """Add what another counted, for good."""
        self._turns += other._turns
        self._seconds += other._seconds
        self._buckets = [a + b for a, b in zip(self._buckets, other._buckets, strict=True)]
        for kind, number in other._failures.items():
            self._failures[kind] += number
        self.began_to_wait += other.began_to_wait
        self.waited += other.waited

    def ended(self, seconds: float, failure: Kind | None) -> None:
        """Count one turn."""
        self._turns += 1
        self._seconds += seconds
        self._buckets[bisect_left(BOUNDS, seconds)] += 1
        if failure is not None:
            self._failures[failure] += 1

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self._turns,
            {k: n for k, n in self._failures.items() if n},
            self._seconds,
            tuple(self._buckets),
            self.in_flight,
            self.parked,
            self.began_to_wait,
            self.waited,
        )
