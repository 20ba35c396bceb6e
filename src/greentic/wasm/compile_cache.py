"""Compiled components on disk, shared by every process of a user (formats: components 8).

Rules:
1. Compiled code is made here, from wasm whose digest was compared; none is ever taken from a bundle or a pack.
2. An entry is keyed by the sha256 of the wasm, the engine's version and its settings. Beside it stands its own sha256, as we
   recorded it: what does not match, or does not load, is deleted and made again.
3. The directory belongs to this user alone (0700); one that does not is refused. Entries come by rename.
4. Of several processes that want the same entry one compiles; the others wait and load. Not for good: who waited longer than
   compiling may take makes its own, and keeps nothing.
5. The directory is kept below a size: the entries that were not used for longest go first.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from wasmtime import WasmtimeError
from wasmtime import component as c

from greentic.ground.clock import CLOCK, Clock
from greentic.ground.disk import exclusive_for, make_directory, replace_file
from greentic.ground.errors import BootError, MalformedArtifact
from greentic.ground.least_used import beyond
from greentic.ground.optional import done_without
from greentic.wasm.compiled_files import MAX_BYTES, VARIABLE, default_directory, drop, entries
from greentic.wasm.engine import ComponentEngine, engine_version
from greentic.wasm.format import check_component
from greentic.wasm.scratch import scratch_directory

if TYPE_CHECKING:
    from collections.abc import Iterator


COMPILING_SECONDS = 120.0
"""The largest components of today take a tenth of it."""


class Compiled(msgspec.Struct, frozen=True):
    component: c.Component
    seconds: float
    """Time of compiling; 0 for an entry that was there."""


class CompileCache:
    """A directory of compiled components."""

    def __init__(self, directory: Path | None = None, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self.directory = self._open(directory if directory is not None else default_directory()) / engine_version()
        self.directory.mkdir(mode=0o700, exist_ok=True)

    @staticmethod
    def _open(directory: Path | None) -> Path:
        if directory is None:
            return Path(scratch_directory("greentic-components-"))
        try:
            make_directory(directory, 0o700)
            found = directory.lstat()
            if not os.access(directory, os.W_OK):
                raise PermissionError
        except OSError as error:
            # A read-only home, as in a hardened pod: compiled code then lives as long as this process.
            done_without("the cache of compiled components", f"{directory}: {error.strerror or 'it cannot be written'}")
            return Path(scratch_directory("greentic-components-"))
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or not directory.is_dir() or directory.is_symlink():
            raise BootError(
                f"`{directory}` holds compiled components and must be a directory of this user alone (0700)",
                hint=f"chmod 700 it, or name another one with {VARIABLE}",
            )
        return directory

    def load(self, engine: ComponentEngine, wasm: bytes, name: str, *, sha256: str | None = None) -> Compiled:
        """The compiled component, from here or made now. Raises `MalformedArtifact` for what is no component, `IoError` without memory."""
        check_component(wasm, name)
        key = hashlib.sha256(wasm).hexdigest()
        if sha256 not in (None, key):
            raise MalformedArtifact(f"component {name} has the sha256 {key}, expected {sha256}")
        found = self._find(engine, key)
        if found is not None:
            return Compiled(found, 0.0)
        with self._locked(key, name) as alone:
            found = self._find(engine, key)
            if found is not None:
                return Compiled(found, 0.0)
            began = self._clock.monotonic()
            if engine.narrow and alone:
                from greentic.wasm.compile_apart import compile_apart  # rare, and starts a process: `_apart` below

                compile_apart(wasm, name, self.directory.parent)
                found = self._find(engine, key)
            component = _compiled(engine, wasm, name) if found is None else found
            seconds = self._clock.monotonic() - began
            if alone and found is None:
                self._keep(key, bytes(component.serialize()))
            return Compiled(component, seconds)

    def has(self, key: str) -> bool:
        return (self.directory / f"{key}.cwasm").is_file()

    def _find(self, engine: ComponentEngine, key: str) -> c.Component | None:
        path, record = self._paths(key)
        try:
            recorded = record.read_text()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != recorded:
                raise ValueError
            component = c.Component.deserialize_file(engine.engine, str(path))
            os.utime(record)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, WasmtimeError):
            # Torn, changed, or made on another processor: made again.
            for gone in (record, path):
                gone.unlink(missing_ok=True)
            return None
        return component

    def _keep(self, key: str, code: bytes) -> None:
        path, record = self._paths(key)
        with suppress(OSError):  # a full disk costs the next start its time, not this one its life
            replace_file(path, code)
            replace_file(record, hashlib.sha256(code).hexdigest().encode())
            self.prune(MAX_BYTES)

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self.directory / f"{key}.cwasm", self.directory / f"{key}.sha256"

    @contextmanager
    def _locked(self, key: str, name: str) -> Iterator[bool]:
        """Whether nobody else makes this entry meanwhile."""
        with (self.directory / f".{key}.lock").open("wb") as file:
            try:
                exclusive_for(file.fileno(), COMPILING_SECONDS, self._clock)
            except TimeoutError as error:
                done_without("the cache of compiled components", f"component {name}: {error}")
                yield False
                return
            yield True

    def prune(self, max_bytes: int) -> int:
        """Let the entries of all engines go that were not used for longest, until the rest fits; how many went."""
        base = self.directory.parent
        gone = beyond(entries(base), max_bytes)
        for item in gone:
            drop(base, item.name)
        return len(gone)


def _first_cause(text: str) -> str:
    """A library's error with its causes as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and line.strip() != "Caused by:"]
    return ": ".join(lines[:3])


def _compiled(engine: ComponentEngine, wasm: bytes, name: str) -> c.Component:
    try:
        return c.Component(engine.engine, wasm)
    except WasmtimeError as error:
        raise MalformedArtifact(f"component {name} does not compile: {_first_cause(str(error))}") from None


def _apart(directory: str, name: str) -> int:
    """The child of `compile_apart`: compile what stands on standard input, and keep it; the exit code."""
    from greentic.wasm.compile_apart import MALFORMED
    from greentic.wasm.engine import engine

    wasm = sys.stdin.buffer.read()
    try:
        component = _compiled(engine(), wasm, name)
    except MalformedArtifact as error:
        sys.stderr.write(error.message)
        return MALFORMED
    CompileCache(Path(directory))._keep(hashlib.sha256(wasm).hexdigest(), bytes(component.serialize()))
    return 0


if __name__ == "__main__":
    sys.exit(_apart(*sys.argv[1:]))
