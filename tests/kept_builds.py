"""What tools of others made for the tests, kept from one run to the next: components of Python, JavaScript and Rust, and their compiled code.

Rules:
1. A place is named by all that goes into what lies there: sources, tools, and the code of ours that calls them. Who changes one of them makes it anew.
2. What does not build is not kept, so that each run asks the tool once at least.
3. Of each kind the places that were used last are kept. `pytest --afresh` uses none that was there before, and takes nothing away from others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "greentic-tests"
"""Below the home of who runs the tests; each test has another one."""
PLACES = 3
"""How many places of a kind are kept."""


def writable() -> bool:
    """Whether anything can be kept here: a home may be read-only, or nobody's."""
    with contextlib.suppress(OSError):
        KEPT.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.access(KEPT, os.W_OK)


def place(top: Path, kind: str, inputs: Iterable[bytes | str]) -> Path:
    """The directory for what is made of `inputs`, which is there when this returns."""
    digest = hashlib.sha256()
    for given in inputs:
        data = given.encode() if isinstance(given, str) else given
        digest.update(b"%d:" % len(data) + data)
    found = top / kind / digest.hexdigest()
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(found)
    for left in sorted(found.parent.iterdir(), key=_used, reverse=True)[PLACES:]:
        shutil.rmtree(left, ignore_errors=True)
    return found


def tree(directory: Path) -> list[bytes | str]:
    """Names and bytes of all files in a directory, as inputs."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return [part for path in files for part in (path.relative_to(directory).as_posix(), path.read_bytes())]


def _used(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):  # another run may have taken it away
        return path.stat().st_mtime
    return 0.0
