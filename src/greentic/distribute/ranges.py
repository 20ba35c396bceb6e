"""Which bytes of a file are there: half-open ranges, sorted, apart from each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

Span = tuple[int, int]


class Ranges(msgspec.Struct, frozen=True):
    """A set of byte positions."""

    spans: tuple[Span, ...] = ()

    def add(self, start: int, end: int) -> Ranges:
        """With the positions `start` to `end` (not included) as well."""
        if start >= end:
            return self
        before = [s for s in self.spans if s[1] < start]
        after = [s for s in self.spans if s[0] > end]
        touching = [s for s in self.spans if s[1] >= start and s[0] <= end]
        merged = (min([start, *(s[0] for s in touching)]), max([end, *(s[1] for s in touching)]))
        return Ranges((*before, merged, *after))

    def joined(self, other: Ranges) -> Ranges:
        found = self
        for start, end in other.spans:
            found = found.add(start, end)
        return found

    @property
    def covered(self) -> int:
        return sum(end - start for start, end in self.spans)

    def first_gap(self, total: int | None) -> Span | None:
        """The first positions that are missing; the end is -1 if nobody knows how long the file is."""
        start = self.spans[0][1] if self.spans and self.spans[0][0] == 0 else 0
        if total is not None and start >= total:
            return None
        following = [s[0] for s in self.spans if s[0] > start]
        return start, min(following) if following else (-1 if total is None else total)

    def within(self, total: int) -> bool:
        return not self.spans or self.spans[-1][1] <= total


def read_ranges(raw: Iterable[object]) -> Ranges:
    """Ranges as they were stored. Raises `ValueError` for anything that is none."""
    found: list[Span] = []
    last = -1
    for item in raw:
        if not isinstance(item, list) or len(item) != 2 or not all(type(n) is int and n >= 0 for n in item):
            raise ValueError("a range is a pair of positions")
        if item[0] <= last or item[1] <= item[0]:
            raise ValueError("ranges are sorted and apart")
        last = item[1]
        found.append((item[0], item[1]))
    return Ranges(tuple(found))
