"""`GREENTIC_SEED_DIR`: how a pod gets its environment document (spec: worker 2.2).

Rules:
1. Every regular file of the seed is copied over the environment directory, the seed wins; what is only there stays.
2. Links in the seed are followed only inside the seed (a mounted ConfigMap is made of them), links at the destination are
   refused.
3. A seed that is missing, empty, or inside its destination is an error: an empty mount must not look like an empty
   environment.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from greentic.ground.disk import replace_file
from greentic.ground.errors import BootError

MAX_FILES = 1000
MAX_FILE_BYTES = 64 << 20


def copy_seed(seed: Path, env_dir: Path) -> int:
    """Copy the seed over the environment directory; returns how many files. Raises `BootError`."""
    if not seed.is_dir():
        raise BootError(f"GREENTIC_SEED_DIR points to a path that does not exist or is unreadable: `{seed}`")
    source, target = seed.resolve(), env_dir.resolve()
    if source == target or source.is_relative_to(target) or target.is_relative_to(source):
        raise BootError(f"GREENTIC_SEED_DIR `{seed}` and the environment directory `{env_dir}` overlap")
    files = _files(source)
    if not files:
        raise BootError(f"GREENTIC_SEED_DIR `{seed}` contained no files to seed (empty or partial mount?)")
    for relative, path in files:
        _copy(path, env_dir / relative)
    return len(files)


def _files(seed: Path) -> list[tuple[Path, Path]]:
    """Relative names and real paths of the seed's files. A ConfigMap's `..data` directories are only link targets."""
    found: list[tuple[Path, Path]] = []
    pending = [(Path(), seed)]
    while pending:
        relative, directory = pending.pop()
        for entry in sorted(os.scandir(directory), key=lambda e: e.name):
            if entry.name.startswith(".."):
                continue
            real = Path(entry.path).resolve()
            if not real.is_relative_to(seed):
                continue
            if real.is_dir() and not entry.is_symlink():
                pending.append((relative / entry.name, real))
            elif real.is_file():
                found.append((relative / entry.name, real))
                if len(found) > MAX_FILES:
                    raise BootError(f"GREENTIC_SEED_DIR `{seed}` has more than {MAX_FILES} files")
    return sorted(found)


def _copy(source: Path, target: Path) -> None:
    if source.stat().st_size > MAX_FILE_BYTES:
        raise BootError(f"seed file `{source}` is larger than {MAX_FILE_BYTES} bytes")
    if target.is_symlink():
        raise BootError(f"`{target}` is a link; a seed is not written through links")
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, source.read_bytes(), stat.S_IRUSR | stat.S_IWUSR, durable=True)
