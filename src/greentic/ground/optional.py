"""What is optional is told once and done without.

Rules:
1. A home, a log, a cache, file locks, hard links, the sync of a directory, standard streams: where one of them is missing, the program
   goes on, and says so once by the name of what is missing.
2. What was done without is kept for `/status`; who can say it (the log, standard error) asks for it with `on_lack`.
"""

from __future__ import annotations

from collections.abc import Callable

_lacking: dict[str, str] = {}
_listeners: list[Callable[[str], None]] = []


def done_without(what: str, why: object) -> None:
    """Note that `what` is missing and why; only the first note about it is told."""
    if what in _lacking:
        return
    _lacking[what] = text = f"done without {what}: {_reason(why)}"
    for listener in _listeners:
        listener(text)


def _reason(why: object) -> str:
    """In words: an error of the system as what it says of which file."""
    if not isinstance(why, OSError) or not why.strerror:
        return str(why)
    return f"`{why.filename}`: {why.strerror}" if why.filename is not None else why.strerror


def on_lack(listener: Callable[[str], None]) -> None:
    """Tell `listener` each lack, those so far included; once, however often it asks."""
    if listener in _listeners:
        return
    _listeners.append(listener)
    for text in list(_lacking.values()):
        listener(text)


def lacking() -> tuple[str, ...]:
    """What was done without in this process, in the order it was noticed."""
    return tuple(_lacking.values())


def forget() -> None:
    """Forget what was noted, for tests."""
    _lacking.clear()
    _listeners.clear()
