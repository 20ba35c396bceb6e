"""The small things that every picture shows alike: a weight as a bar, an age, a digest, a state in its colour."""

from __future__ import annotations

from datetime import UTC, datetime

from greentic.model.environment import DIGEST_PLACEHOLDER, Revision
from greentic.terminal.table_layout import Cell, cell

BAR = 10
DIGEST = 12
WHOLE = 10_000
_COLOURS = {
    "active": "green", "ready": "green", "paused": "yellow", "warming": "yellow", "draining": "yellow", "failed": "red", "archived": "dim",
}  # fmt: skip


def bar(bps: int) -> str:
    """A share of 10,000 as a bar of ten cells; what is not nothing shows, and what is not the whole does not fill it."""
    bps = max(0, min(WHOLE, bps))
    full = round(bps * BAR / WHOLE)
    if 0 < bps < WHOLE:
        full = min(BAR - 1, max(1, full))
    return "█" * full + "░" * (BAR - full)


def percent(bps: int | None) -> str:
    return "" if bps is None else f"{bps / 100:g}%"


def counted(number: int, noun: str) -> str:
    """`1 revision`, `2 revisions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def share(bps: int) -> Cell:
    """A weight as a bar and a number."""
    return cell(f"{bar(bps)} {percent(bps):>4}", "cyan" if bps else "dim")


def state(word: str) -> Cell:
    return cell(word, _COLOURS.get(word, ""))


def digest(text: str) -> Cell:
    """The first twelve characters of a digest; nothing where none was computed."""
    return cell("" if text == DIGEST_PLACEHOLDER else text.removeprefix("sha256:")[:DIGEST])


def age(at: str | None, now_ns: int) -> str:
    """How long ago a moment of a document was: `3d`, `5h`, `12m`, `7s`; nothing for one that cannot be read."""
    try:
        then = datetime.fromisoformat((at or "").upper())
    except ValueError:
        return ""
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = max(0, now_ns // 1_000_000_000 - int(then.timestamp()))
    for unit, size in (("y", 31_536_000), ("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def source(revision: Revision) -> str:
    """Where workers pull a revision, without what is secret in the address."""
    from greentic.net.addresses import shown

    return shown(revision.bundle_source_uri) if revision.bundle_source_uri else ""
