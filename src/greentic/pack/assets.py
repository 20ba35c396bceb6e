"""The assets of a pack, read from its archive when a card asks for them (formats: flows 9)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from greentic.ground.errors import GreenticError
from greentic.pack.archive import PackArchive

MAX_CACHED = 128
MAX_CACHED_BYTES = 256 << 10
"""Larger assets are read each time."""


class PackAssets:
    """Assets by path; whatever number of `assets/` stands before it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._archive: PackArchive | None = None
        self._cached: OrderedDict[str, bytes | None] = OrderedDict()

    def read(self, path: str) -> bytes | None:
        """The content, or nothing for what is not there or cannot be read."""
        rest = path.lstrip("/")
        while rest.startswith("assets/"):
            rest = rest.removeprefix("assets/")
        with self._lock:
            if rest in self._cached:
                self._cached.move_to_end(rest)
                return self._cached[rest]
            data = self._find(rest)
            if data is None or len(data) <= MAX_CACHED_BYTES:
                self._cached[rest] = data
                if len(self._cached) > MAX_CACHED:
                    self._cached.popitem(last=False)
            return data

    def names(self) -> list[str]:
        """The paths of all assets, as they stand in the archive."""
        with self._lock:
            return [name for name in self._open().entries if name.startswith("assets/")]

    def extract(self, directory: Path) -> None:
        """Write every asset below a directory, which becomes `/assets` of a component."""
        for name in self.names():
            target = directory / name.removeprefix("assets/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                target.write_bytes(self._open().read(name))

    def _find(self, rest: str) -> bytes | None:
        try:
            archive = self._open()
            for name in (f"assets/{rest}", f"assets/assets/{rest}", rest):
                if name in archive.entries:
                    return archive.read(name)
        except (OSError, GreenticError):
            return None
        return None

    def _open(self) -> PackArchive:
        if self._archive is None:
            self._archive = PackArchive(self._path.open("rb"))
        return self._archive
