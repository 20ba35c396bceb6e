"""Compiling in a process of its own, where the address space is bounded (`ulimit -v`).

The library ends the process that finds no memory, and compiling takes much: some twenty times the component. So a child compiles
first, which ends alone. What it leaves in the cache is loaded with little memory.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from greentic.ground.errors import IoError, MalformedArtifact

MALFORMED = 65
"""The exit code of a child that was given no component; any other that is not 0 is of one that could not do its work."""


def compile_apart(wasm: bytes, name: str, directory: Path) -> None:
    """Compile into a cache. Raises `MalformedArtifact` for what does not compile, `IoError` where the memory does not do."""
    words = [sys.executable, "-m", "greentic.wasm.compile_cache", str(directory), name]
    done = subprocess.run(words, input=wasm, capture_output=True, check=False)
    if done.returncode == MALFORMED:
        raise MalformedArtifact(done.stderr.decode(errors="replace"))
    if done.returncode:
        raise IoError(
            f"memory: component {name} of {len(wasm) / 1e6:.1f} MB does not compile in the address space that this process may use",
            hint="give it more: `ulimit -v` bounds it, and compiling takes some twenty times the component",
        )
