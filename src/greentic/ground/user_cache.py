"""Where a user's caches are, and what programs keep for good."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from greentic.ground import variables
from greentic.ground.optional import done_without


def user_cache(environ: Mapping[str, str]) -> Path | None:
    """`greentic` below `XDG_CACHE_HOME`, else below `.cache` of the home; nothing without a home."""
    return _below("XDG_CACHE_HOME", ".cache", environ)


def user_state(environ: Mapping[str, str]) -> Path | None:
    """`greentic` below `XDG_STATE_HOME`, else below `.local/state` of the home; nothing without a home."""
    return _below("XDG_STATE_HOME", ".local/state", environ)


def _below(variable: str, default: str, environ: Mapping[str, str]) -> Path | None:
    told, home = variables.path(variable, environ), variables.home_directory(environ)
    if told is not None and told.is_absolute():
        return told / "greentic"
    if told is not None:  # where it leads would depend on where a program is started
        done_without(variable, f"`{told}` is no absolute path, which the XDG standard asks for")
    return None if home is None else home / default / "greentic"
