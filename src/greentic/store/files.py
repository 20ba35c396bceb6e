"""Whole-file writes that are old or new, never half, with backups of what was there (formats: store 2).

Rules:
1. A write goes to a temporary file in the same directory, is synced, renamed over the target, and the directory synced.
2. Before a tracked file is replaced or deleted, its bytes get a second name under `backups/`; names never collide.
3. The newest `KEEP_BACKUPS` backups of a file stay, older ones go.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from greentic.ground.clock import Clock, Random, compact_stamp
from greentic.ground.disk import Disk, is_left
from greentic.ground.least_used import Item

KEEP_BACKUPS = 32
"""Beside what retention says of their age (`materialize/retention.py`)."""
_MAX_COLLISIONS = 1024
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp\Z")
_BACKUP_TAIL = re.compile(r"\.(\d{8}T\d{6}\.\d{9}Z)(?:\.(\d+))?\.bak\Z")


class Files:
    """Durable writes below one environment directory."""

    def __init__(self, disk: Disk, clock: Clock, random: Random, backups: Path, *, keep: int = KEEP_BACKUPS) -> None:
        self._disk, self._clock, self._random, self._backups, self._keep = disk, clock, random, backups, keep

    def write(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Replace or create a file (rule 1)."""
        self._disk.make_directory(path.parent)
        temporary = path.parent / f".{path.name}.{self._random.octets(8).hex()}.tmp"
        try:
            self._disk.write_new(temporary, data, mode)
            self._disk.rename(temporary, path)
        except OSError:
            self._disk.remove(temporary)
            raise
        self._disk.sync_directory(path.parent)

    def replace(self, path: Path, data: bytes) -> None:
        """`write`, with a backup of what was there (rule 2)."""
        self.back_up(path)
        self.write(path, data)

    def delete(self, path: Path) -> None:
        """Delete a file, with a backup; a missing one is fine."""
        if path.exists():
            self.back_up(path)
            self._disk.remove(path)
            self._disk.sync_directory(path.parent)

    def back_up(self, path: Path) -> None:
        """Give the file's present bytes a name under `backups/` and drop what is too many (rules 2 and 3)."""
        if not path.exists():
            return
        self._disk.make_directory(self._backups)
        stamp = compact_stamp(self._clock.now_ns())
        stem = f"{path.name}.{stamp}"
        taken = [number for at, number, _ in self._backups_of(path.name) if at == stamp]
        first = max(taken, default=-1) + 1  # never the free name of one that was pruned: order is age
        for attempt in range(first, first + _MAX_COLLISIONS):
            target = self._backups / (f"{stem}.bak" if not attempt else f"{stem}.{attempt}.bak")
            try:
                self._disk.link(path, target)
                break
            except FileExistsError:
                continue
        else:
            raise FileExistsError(17, "too many backups of the same instant", str(self._backups / stem))
        for old in self.backups_of(path.name)[: -self._keep]:
            self._disk.remove(old)

    def backups_of(self, name: str) -> list[Path]:
        """The backups of one file, oldest first."""
        return [path for _, _, path in self._backups_of(name)]

    def kept(self) -> dict[str, tuple[Item, ...]]:
        """Every backup, oldest first, by the name of its file; when it was made stands in its name."""
        if not self._backups.is_dir():
            return {}
        names = {p.name[: tail.start()] for p in self._backups.iterdir() if (tail := _BACKUP_TAIL.search(p.name))}
        return {
            name: tuple(
                Item(path.name, path.stat().st_size, _seconds(stamp)) for stamp, _, path in self._backups_of(name)
            )
            for name in sorted(names)
        }

    def _backups_of(self, name: str) -> list[tuple[str, int, Path]]:
        """Stamp, collision number and path of each backup, oldest first."""
        found: list[tuple[str, int, Path]] = []
        if self._backups.is_dir():
            for path in self._backups.iterdir():
                tail = _BACKUP_TAIL.search(path.name)
                if tail and path.name[: tail.start()] == name:
                    found.append((tail.group(1), int(tail.group(2) or 0), path))
        return sorted(found)

    def sweep(self, directory: Path) -> None:
        """Delete temporary files that a kill left. Only under the environment lock."""
        if directory.is_dir():
            for path in directory.iterdir():
                if _TEMPORARY.match(path.name) or is_left(path, self._clock):
                    self._disk.remove(path)


def _seconds(stamp: str) -> float:
    """When a backup was made, in seconds since 1970."""
    return datetime.strptime(stamp[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
