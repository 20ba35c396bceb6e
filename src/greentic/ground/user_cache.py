"""Where a user's caches are, and what programs keep for good."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def user_cache(environ: Mapping[str, str]) -> Path | None:
    """`greentic` below `XDG_CACHE_HOME`, else below `.cache` of the home; nothing without a home."""
    base, home = environ.get("XDG_CACHE_HOME"), environ.get("HOME")
    if base:
        return Path(base) / "greentic"
    return Path(home) / ".cache" / "greentic" if home else None


def user_state(environ: Mapping[str, str]) -> Path | None:
    """`greentic` below `XDG_STATE_HOME`, else below `.local/state` of the home; nothing without a home."""
    base, home = environ.get("XDG_STATE_HOME"), environ.get("HOME")
    if base:
        return Path(base) / "greentic"
    return Path(home) / ".local" / "state" / "greentic" if home else None
