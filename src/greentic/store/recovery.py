"""What a killed process leaves below `revisions/`, and how the next one finishes it (spec: env-store-and-op 6.5).

Rules:
1. A staging directory that nobody holds a lock on is deleted.
2. A revision moved aside is put back, unless its successor is whole: then it is deleted.
"""

from __future__ import annotations

import os
from pathlib import Path

from greentic.ground.disk import Disk, try_exclusive
from greentic.store.layout import EnvPaths

STAGING_PREFIX = ".staging-"
ASIDE_SUFFIX = ".bak"
LOCK_NAME = "pack-list.lock"


def recover_revisions(paths: EnvPaths, disk: Disk) -> None:
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
        elif path.name.startswith(STAGING_PREFIX) and path.is_dir() and not path.is_symlink() and _abandoned(path):
            disk.remove_tree(path)


def _abandoned(directory: Path) -> bool:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return try_exclusive(fd)
    finally:
        os.close(fd)
