"""What stands twice where each may stand once: of two readers each might take another one, and believe what was checked of the other."""

from __future__ import annotations

from collections.abc import Iterable


def repeated(names: Iterable[str]) -> str | None:
    """The first name that is there a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
