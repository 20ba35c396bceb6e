"""What a killed process leaves below `revisions/`, and how the next one finishes it (formats: bundle 3).

Rules:
1. A staging directory that nobody holds a lock on is deleted, and the lock is held meanwhile: who makes one locks it next, and looks
   then whether it is still there. Where the file system has no locks that says nothing: there one is deleted when it is older than
   `ABANDONED_SECONDS`.
2. A revision moved aside is put back, unless its successor is whole: then it is deleted.
3. A revision that goes is renamed to such a directory first, so that a kill leaves none that is half there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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
    try:
        names = [path.name for path in os.scandir(paths.revisions)]
    except (FileNotFoundError, NotADirectoryError):
        return
    # By name alone first: there may be thousands of whole ones, and the lock is taken often.
    for name in sorted(n for n in names if n.endswith(ASIDE_SUFFIX) or n.startswith(STAGING_PREFIX)):
        path = paths.revisions / name
        if path.name.endswith(ASIDE_SUFFIX) and path.is_dir():
            current = path.with_name(path.name.removesuffix(ASIDE_SUFFIX))
            if (current / LOCK_NAME).is_file():
                disk.remove_tree(path)
            else:
                disk.remove_tree(current)
                disk.rename(path, current)
                disk.sync_directory(paths.revisions)
        elif name.startswith(STAGING_PREFIX) and path.is_dir() and not path.is_symlink():
            drop_abandoned(path, _DIRECTORY, clock, lambda directory: disk.remove_tree(directory))


def remove_revision(paths: EnvPaths, revision_id: str, disk: Disk) -> None:
    """Delete the files of a revision (rule 3). Only under the environment lock."""
    path = paths.revision(revision_id)
    if path.is_dir():
        gone = path.with_name(f"{STAGING_PREFIX}gone-{revision_id}")
        disk.remove_tree(gone)
        disk.rename(path, gone)
        disk.sync_directory(paths.revisions)
        disk.remove_tree(gone)


def drop_abandoned(path: Path, flags: int, clock: Clock, drop: Callable[[Path], object]) -> bool:
    """Drop a file or directory that nobody holds a lock on, under its lock (rule 1); whether it was dropped."""
    with ExitStack() as stack:
        try:
            fds = [os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC) for _ in range(2)]
        except OSError:
            return False
        for fd in fds:
            stack.callback(os.close, fd)
        if not try_exclusive(fds[0]):
            return False
        # Our own first lock keeps the second out where there are locks: then nobody held one.
        if try_exclusive(fds[1]) and unix_seconds(clock) - os.fstat(fds[0]).st_mtime <= ABANDONED_SECONDS:
            return False
        drop(path)
        return True
