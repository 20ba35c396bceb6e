"""What stands twice where each may stand once. Pure.

What is found by its id, and is there twice, is refused where it is read: of two readers each might take another one, and what was checked
of the one would be believed of the other.
"""

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
