"""Where a verb that takes long tells how far it is. What becomes of it is decided at the edge: a live table, or nothing."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Row(msgspec.Struct, frozen=True):
    """One thing that is waited for."""

    name: str
    ready: str
    """Such as `1/2`."""
    updated: str
    done: bool
    note: str
    """What ails it; empty while it only takes its time."""


class View(Protocol):
    """Somebody who watches, or nobody."""

    def say(self, text: str) -> None:
        """One step, in words."""
        ...

    def warn(self, text: str) -> None:
        """What somebody should know before it is done; the reply says it, too."""
        ...

    def show(self, rows: list[Row]) -> None:
        """How far everything is now; replaces what was shown before."""
        ...

    def close(self) -> None:
        """Nothing more will be shown; what follows may be printed."""
        ...


class QuietView:
    """For programs: the reply says it all."""

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def show(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


QUIET: View = QuietView()
