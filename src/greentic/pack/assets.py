"""The assets of a pack, read from its archive when a card asks for them (formats: flows 9)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from pathlib import Path

from greentic.ground.errors import GreenticError, LimitExceeded, MalformedArtifact
from greentic.pack.archive import PackArchive

MAX_CACHED = 128
MAX_CACHED_BYTES = 256 << 10
"""Larger assets are read each time."""


def _rest(path: str) -> str:
    rest = path.lstrip("/")
    while rest.startswith("assets/"):
        rest = rest.removeprefix("assets/")
    return rest


def unread(names: Iterable[str]) -> list[tuple[str, str]]:
    """Entries that no path means, for another one stands before them, each with that one."""
    entries = dict.fromkeys(names)
    found = [(name, entry_of(name, entries)) for name in entries]
    return [(name, read) for name, read in found if read is not None and read != name]


def entry_of(path: str, entries: Collection[str]) -> str | None:
    """The entry of an archive that an asset's path means, whatever number of `assets/` stands before it."""
    rest = _rest(path)
    return next((name for name in (f"assets/{rest}", f"assets/assets/{rest}", rest) if name in entries), None)


class PackAssets:
    """Assets by path; whatever number of `assets/` stands before it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._archive: PackArchive | None = None
        self._cached: OrderedDict[str, bytes | None] = OrderedDict()

    def read(self, path: str, limit: int) -> bytes | None:
        """The content, or nothing for what is not there or cannot be read. Raises `LimitExceeded` for more than `limit` bytes."""
        rest = _rest(path)
        with self._lock:
            if rest in self._cached:
                self._cached.move_to_end(rest)
                data = self._cached[rest]
                if data is not None and len(data) > limit:
                    raise LimitExceeded(f"the asset `{rest}` has {len(data)} bytes, more than {limit}")
                return data
            data = self._find(rest, limit)
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
        """Write every asset below a directory, which becomes `/assets` of a component. Raises `MalformedArtifact`."""
        for name in self.names():
            target = directory / name.removeprefix("assets/")
            with self._lock:
                data = self._open().read(name)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    file.write(data)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise MalformedArtifact(
                    f"the asset `{name}` stands where another one stands or needs a directory",
                    hint="rename one of them; on some file systems upper and lower case are the same",
                ) from None

    def _find(self, rest: str, limit: int) -> bytes | None:
        try:
            archive = self._open()
            name = entry_of(rest, archive.entries)
            if name is not None:
                return archive.read(name, limit=limit)
        except LimitExceeded:
            raise
        except (OSError, GreenticError):
            return None
        return None

    def _open(self) -> PackArchive:
        if self._archive is None:
            self._archive = PackArchive(self._path.open("rb"))
        return self._archive
