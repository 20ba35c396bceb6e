"""What a killed process leaves below `revisions/`, and how the next one finishes it (formats: bundle 3).

Rules:
1. A staging directory that nobody holds a lock on is deleted. Where the file system has no locks that says nothing: there one is deleted
   when it is older than `ABANDONED_SECONDS`.
2. A revision moved aside is put back, unless its successor is whole: then it is deleted.
3. A revision that goes is renamed to such a directory first, so that a kill leaves none that is half there.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from greentic.ground.clock import CLOCK, Clock, unix_seconds
from greentic.ground.disk import Disk, try_exclusive
from greentic.store.layout import EnvPaths

STAGING_PREFIX = ".staging-"
ASIDE_SUFFIX = ".bak"
LOCK_NAME = "pack-list.lock"
ABANDONED_SECONDS = 86_400
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def recover_revisions(paths: EnvPaths, disk: Disk, clock: Clock = CLOCK) -> None:
    """Finish what a killed process left below `revisions/`. Only under the environment lock."""
    if not paths.revisions.is_dir():
        return
    for path in sorted(paths.revisions.iterdir()):
        if path.name.endswith(ASIDE_SUFFIX) and path.is_dir():
            current = path.with_name(path.name.removesuffix(ASIDE_SUFFIX))
            if (current / LOCK_NAME).is_file():
                disk.remove_tree(path)
            else:
                disk.remove_tree(current)
                disk.rename(path, current)
                disk.sync_directory(paths.revisions)
        elif (
            path.name.startswith(STAGING_PREFIX)
            and path.is_dir()
            and not path.is_symlink()
            and abandoned(path, _DIRECTORY, clock)
        ):
            disk.remove_tree(path)


def remove_revision(paths: EnvPaths, revision_id: str, disk: Disk) -> None:
    """Delete the files of a revision (rule 3). Only under the environment lock."""
    path = paths.revision(revision_id)
    if path.is_dir():
        gone = path.with_name(f"{STAGING_PREFIX}gone-{revision_id}")
        disk.remove_tree(gone)
        disk.rename(path, gone)
        disk.sync_directory(paths.revisions)
        disk.remove_tree(gone)


def abandoned(path: Path, flags: int, clock: Clock) -> bool:
    """Whether nobody holds a lock on a file or directory (rule 1)."""
    with ExitStack() as stack:
        try:
            fds = [os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC) for _ in range(2)]
        except OSError:
            return False
        for fd in fds:
            stack.callback(os.close, fd)
        if not try_exclusive(fds[0]):
            return False
        if not try_exclusive(fds[1]):  # our own first lock keeps the second out: there are locks, and nobody held one
            return True
        return unix_seconds(clock) - os.fstat(fds[0]).st_mtime > ABANDONED_SECONDS
