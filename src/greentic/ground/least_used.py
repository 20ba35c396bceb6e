"""Which of some kept things go when they are too many: those that were not used for longest. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec


class Item(msgspec.Struct, frozen=True):
    """One thing that is kept."""

    name: str
    size: int
    used: float
    """When it was last used, in seconds since 1970."""


def beyond(items: Iterable[Item], limit: int, needed: Container[str] = ()) -> list[Item]:
    """What has to go until the rest has at most `limit` bytes, least used first; what is needed stays, even above the limit."""
    oldest = sorted(items, key=lambda item: (item.used, item.name))
    total, gone = sum(item.size for item in oldest), list[Item]()
    for item in oldest:
        if total <= limit:
            break
        if item.name not in needed:
            total -= item.size
            gone.append(item)
    return gone
