"""What this process counts beside the turns of its revisions: components, pulls, refusals, answers, phases of the boot.

Rules:
1. Everything is counted under a family of the table with the values of its labels; from any thread.
2. A family has at most `MAX_SERIES` of them; what comes beyond is counted under `other`, so that sums stay right.
3. There is one set for a process (`TALLIES`), as there is one clock.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator

from greentic.telemetry.counts import BOUNDS
from greentic.telemetry.families import OTHER
from greentic.telemetry.readings import Labels, Row

MAX_SERIES = 2_000


class Tallies:
    """Counters, gauges and histograms by family and labels."""

    def __init__(self, most: int = MAX_SERIES) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._numbers: dict[str, dict[Labels, list[float]]] = {}

    def add(self, family: str, labels: Labels = (), amount: float = 1) -> None:
        """Count so much more."""
        with self._lock:
            self._of(family, labels, 1)[0] += amount

    def add_all(self, labels: Labels, amounts: tuple[tuple[str, float], ...]) -> None:
        """Count so much more in several families, under the same labels."""
        with self._lock:
            for family, amount in amounts:
                self._of(family, labels, 1)[0] += amount

    def set(self, family: str, labels: Labels, value: float) -> None:
        """Say what a gauge shows now."""
        with self._lock:
            self._of(family, labels, 1)[0] = value

    def observe(self, family: str, labels: Labels, seconds: float) -> None:
        """Count one duration in a histogram."""
        with self._lock:
            numbers = self._of(family, labels, len(BOUNDS) + 2)
            numbers[bisect_left(BOUNDS, seconds)] += 1
            numbers[-1] += seconds

    def rows(self) -> Iterator[Row]:
        """What was counted so far."""
        with self._lock:
            held = [(name, labels, list(n)) for name, found in self._numbers.items() for labels, n in found.items()]
        yield from held

    def of(self, family: str, labels: Labels = ()) -> float:
        """One number; 0 for what was never counted."""
        with self._lock:
            return self._numbers.get(family, {}).get(labels, [0])[0]

    def forget(self) -> None:
        """Begin again, for tests."""
        with self._lock:
            self._numbers.clear()

    def _of(self, family: str, labels: Labels, size: int) -> list[float]:
        found = self._numbers.get(family)
        if found is None:
            found = self._numbers[family] = {}
        numbers = found.get(labels)
        if numbers is None:
            if len(found) >= self._most:
                labels = (OTHER,) * len(labels)
            numbers = found.setdefault(labels, [0] * size)
        return numbers


TALLIES = Tallies()
"""Those of this process."""
