"""The files of the cache of compiled components: where they lie, what there is, and how one goes. Loads no engine.

An entry is `<engine>/<sha256 of the wasm>`: its code, its own sha256 beside it, whose time of change is when it was last used, and the
lock of who compiles it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from greentic.ground import variables
from greentic.ground.clock import CLOCK
from greentic.ground.disk import is_left
from greentic.ground.least_used import Item
from greentic.ground.user_cache import user_cache

MAX_BYTES = 4 << 30
"""Bytes of compiled code that are kept."""
LEFT_BEHIND = 10 * 365 * 86_400.0
"""Seconds by which what nobody can load counts as older than it is."""
VARIABLE = "GREENTIC_COMPONENT_CACHE_DIR"


def default_directory(environ: Mapping[str, str] | None = None) -> Path | None:
    """`GREENTIC_COMPONENT_CACHE_DIR`, else `components` below the user's cache; nothing without a home, or for `off`."""
    found = variables.environment() if environ is None else environ
    told = variables.path(VARIABLE, found)
    if told is not None:
        return None if str(told) in variables.NO else told
    base = user_cache(found)
    return None if base is None else base / "components"


def entries(directory: Path) -> list[Item]:
    """What all engines compiled, whatever its age; what a killed or full-disk writer left, code without a record or a temporary
    file, is counted with it and goes first.
    """
    found: list[Item] = []
    for code in directory.glob("*/*.cwasm"):
        with suppress(OSError):
            record, size = code.with_suffix(".sha256"), code.stat().st_size
            used = record.stat().st_mtime if record.exists() else code.stat().st_mtime - LEFT_BEHIND
            found.append(Item(f"{code.parent.name}/{code.stem}", size, used))
    for temporary in directory.glob("*/.*.tmp"):
        if is_left(temporary, CLOCK):  # one that is written now is somebody's
            with suppress(OSError):
                told = temporary.stat()
                found.append(
                    Item(f"{temporary.parent.name}/{temporary.name}", told.st_size, told.st_mtime - LEFT_BEHIND)
                )
    return found


def drop(directory: Path, name: str) -> None:
    """Let an entry go, its record first: code without a record is never loaded. Raises `OSError`."""
    engine, _, key = name.partition("/")
    files = (key,) if key.startswith(".") else (f"{key}.sha256", f"{key}.cwasm", f".{key}.lock")
    for file in files:
        (directory / engine / file).unlink(missing_ok=True)
