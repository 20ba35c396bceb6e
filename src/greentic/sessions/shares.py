"""Who has how much room in a store, and what leaves a full one. Pure.

Rules:
1. A share is what belongs together: the waiting runs of a revision, the pins of a deployment, its answers that are kept for repeated
   messages. What is none of these is one share together.
2. A full store lets go of what was not used for longest in the share that has most: who floods one deployment pushes out that
   deployment's conversations and nobody else's, and answers that are kept for repetition push out no run that waits.
3. It makes a little more room than is needed, so that finding the largest share is no cost of every message.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator

_SHARE = re.compile(r".*?:[0-9A-HJKMNP-TV-Z]{26}(?=:)", re.DOTALL)
_SPARE = 100
"""One of so many parts is made free beyond what is needed."""


def share_of(key: str) -> str:
    """The share of a value (rule 1): its key up to the revision or deployment that it names."""
    found = _SHARE.match(key)
    return "" if found is None else found[0]


class Shares:
    """The names and sizes of what a store has, by share."""

    def __init__(self) -> None:
        self._sizes: dict[str, OrderedDict[str, int]] = {}
        """By share, the sizes by name; what was not used for longest stands first."""
        self._bytes: dict[str, int] = {}
        self._count = self._total = 0

    def put(self, share: str, name: str, size: int) -> None:
        """Count a value that is used now, in place of one of that name."""
        self.drop(share, name)
        self._sizes.setdefault(share, OrderedDict())[name] = size
        self._bytes[share] = self._bytes.get(share, 0) + size
        self._count, self._total = self._count + 1, self._total + size

    def used(self, share: str, name: str) -> None:
        self._sizes[share].move_to_end(name)

    def drop(self, share: str, name: str) -> None:
        if share not in self._sizes or name not in self._sizes[share]:
            return
        size = self._sizes[share].pop(name)
        self._bytes[share] -= size
        self._count, self._total = self._count - 1, self._total - size
        if not self._sizes[share]:
            del self._sizes[share], self._bytes[share]

    def leaving(self, most_entries: int, most_bytes: int) -> Iterator[str]:
        """The names of what leaves a store that may have so much; none where there is room (rules 2 and 3)."""
        if self._count <= most_entries and self._total <= most_bytes:
            return
        entries, size = most_entries - most_entries // _SPARE, most_bytes - most_bytes // _SPARE
        while self._count > entries or self._total > size:
            if self._count > entries:
                share, over = max(self._sizes, key=lambda s: len(self._sizes[s])), self._count - entries
                for _ in range(min(max(over // 2, 1), len(self._sizes[share]))):
                    yield self._first(share)
            else:
                share, goal = max(self._bytes, key=self._bytes.__getitem__), (self._total + size) // 2
                yield self._first(share)
                while self._total > goal and share in self._sizes:
                    yield self._first(share)

    def _first(self, share: str) -> str:
        name = next(iter(self._sizes[share]))
        self.drop(share, name)
        return name
