"""`GREENTIC_SEED_DIR`: how a pod gets its environment document (formats: bundle 5).

Rules:
1. Every regular file of the seed is copied over the environment directory, the seed wins; what is only there stays.
2. Links in the seed are followed only inside the seed (a mounted ConfigMap is made of them), links at the destination are
   refused.
3. A seed is read whole first, and placed only after its document was checked: one that is refused changes nothing.
4. A seed that is missing, empty, or inside its destination is an error: an empty mount must not look like an empty
   environment.
5. What is the worker's own is not seeded: its memory, its kept revocation list and the key of its proofs stay what they are.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from greentic.ground.disk import make_directory, real_path, replace_file
from greentic.ground.documents import open_file
from greentic.ground.errors import BootError
from greentic.materialize.remembered import KEPT_LIST, SEEN
from greentic.store.proof_key import PROOF_KEY

SEED_POINTER = b'"$greentic_seed_pointer"'
"""What stands in a document that is a pointer (`publication/seed_pointer.py`)."""
MAX_FILES = 1000
MAX_FILE_BYTES = 64 << 20


class Seed(msgspec.Struct, frozen=True):
    """The files of a seed, read but not placed."""

    files: tuple[tuple[Path, bytes], ...]
    """Relative names and contents."""

    def file(self, name: str) -> bytes | None:
        return next((data for relative, data in self.files if relative == Path(name)), None)

    def with_file(self, name: str, data: bytes) -> Seed:
        """The same with one file that is this."""
        return Seed((*(file for file in self.files if file[0] != Path(name)), (Path(name), data)))


def read_seed(seed: Path, env_dir: Path) -> Seed:
    """Read the seed for an environment directory. Raises `BootError`."""
    source, target = real_path(seed), real_path(env_dir)
    if source == target or source.is_relative_to(target) or target.is_relative_to(source):
        raise BootError(f"GREENTIC_SEED_DIR `{seed}` and the environment directory `{env_dir}` overlap")
    try:
        if not seed.is_dir():
            raise BootError(f"GREENTIC_SEED_DIR points to a path that does not exist or is unreadable: `{seed}`")
        files = [(relative, _read(path)) for relative, path in _files(source)]
    except OSError as error:
        raise BootError(f"GREENTIC_SEED_DIR `{seed}` cannot be read: {error.strerror}") from error
    if not files:
        raise BootError(f"GREENTIC_SEED_DIR `{seed}` contained no files to seed (empty or partial mount?)")
    return Seed(tuple(files))


def place_seed(seed: Seed, env_dir: Path) -> int:
    """Copy what was read over the environment directory; returns how many files. Raises `BootError`."""
    for relative, data in seed.files:
        target = env_dir / relative
        if target.is_symlink():
            raise BootError(f"`{target}` is a link; a seed is not written through links")
        try:
            make_directory(target.parent)
            replace_file(target, data, stat.S_IRUSR | stat.S_IWUSR, durable=True)
        except OSError as error:
            raise BootError(f"`{target}` cannot be written: {error.strerror}") from error
    return len(seed.files)


def _files(seed: Path) -> list[tuple[Path, Path]]:
    """Relative names and real paths of the seed's files. A ConfigMap's `..data` directories are only link targets."""
    found: list[tuple[Path, Path]] = []
    pending = [(Path(), seed)]
    while pending:
        relative, directory = pending.pop()
        for entry in sorted(os.scandir(directory), key=lambda e: e.name):
            if entry.name.startswith("..") or (not relative.parts and entry.name in (SEEN, KEPT_LIST, PROOF_KEY)):
                continue
            real = real_path(Path(entry.path))
            if not real.is_relative_to(seed):
                continue
            if real.is_dir() and not entry.is_symlink():
                pending.append((relative / entry.name, real))
            elif real.is_file():
                found.append((relative / entry.name, real))
                if len(found) > MAX_FILES:
                    raise BootError(f"GREENTIC_SEED_DIR `{seed}` has more than {MAX_FILES} files")
    return sorted(found)


def _read(path: Path) -> bytes:
    with open_file(path) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise BootError(f"seed file `{path}` is larger than {MAX_FILE_BYTES} bytes")
    return data
