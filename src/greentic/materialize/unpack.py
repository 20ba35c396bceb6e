"""A verified bundle onto the disk, bounded and without following anything.

Rules:
1. The target directory is new and private to this process. Files and directories are created with O_EXCL and O_NOFOLLOW,
   relative to one open directory; links come last, so no path can lead through one.
2. Modes are ours (0755, 0644, executable bit kept); owners, times and extended attributes of the image are not restored.
3. Blocks are inflated on all cores and written in order; packs are hashed on the way, so they need not be read again.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from greentic.bundle.contents import Contents, is_pack
from greentic.bundle.cores import usable_cores
from greentic.bundle.squashfs_reader import Block, Entry, SquashImage
from greentic.ground.errors import MalformedArtifact

_MERGE_BYTES = 1 << 20
_SMALL = 1 << 16
"""Files up to this size are inflated on the calling thread: handing them over would cost more."""
_WINDOW = 16


def unpack(contents: Contents, target: Path) -> dict[str, str]:
    """Write everything in the image below `target`, an empty directory. Returns `sha256:<hex>` by path of each pack.

    Raises `MalformedArtifact` for names that are one to the file system.
    """
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    digests: dict[str, str] = {}
    try:
        for entry in contents.entries:
            if entry.kind == "directory":
                os.mkdir(entry.path, 0o755, dir_fd=root)
        files = sorted((e for e in contents.entries if e.kind == "file"), key=_position)
        with ThreadPoolExecutor(max_workers=min(4, usable_cores()), thread_name_prefix="inflate") as pool:
            blocks = _Blocks(contents.image, pool)
            for entry in files:
                digest = _write_file(entry, blocks, root)
                if digest is not None:
                    digests[entry.path] = digest
        for entry in contents.entries:
            if entry.kind == "link":
                os.symlink(entry.target, entry.path, dir_fd=root)
    except FileExistsError as error:
        raise MalformedArtifact(
            f"`{error.filename2 or error.filename}` of the bundle stands where another one stands already",
            hint="this file system takes upper and lower case, or two forms of a letter, for the same; rename one of them in the bundle",
        ) from None
    finally:
        os.close(root)
    return digests


def _position(entry: Entry) -> int:
    """Where a file's data lie; files that share a fragment stand together, so that it is inflated once."""
    if not entry.blocks:
        return 0
    last = entry.blocks[-1]
    return last.start if last.inflated else entry.blocks[0].start


def _write_file(entry: Entry, blocks: _Blocks, root: int) -> str | None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(entry.path, flags, 0o755 if entry.executable else 0o644, dir_fd=root)
    try:
        if not is_pack(entry.path):
            for data in blocks.of(entry):
                _write_all(fd, data)
            return None
        hasher = hashlib.sha256()
        hashing: Future[None] | None = None
        for data in blocks.of(entry):
            if len(data) >= _SMALL:
                if hashing is not None:
                    hashing.result()
                hashing = blocks.pool.submit(hasher.update, data)
            else:
                if hashing is not None:
                    hashing.result()
                    hashing = None
                hasher.update(data)
            _write_all(fd, data)
        if hashing is not None:
            hashing.result()
        return f"sha256:{hasher.hexdigest()}"
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Blocks:
    """The data of files in order, read and inflated ahead."""

    def __init__(self, image: SquashImage, pool: ThreadPoolExecutor) -> None:
        self._image, self.pool = image, pool
        self._fragment: tuple[int, bytes] = (-1, b"")

    def of(self, entry: Entry) -> Iterator[bytes]:
        if entry.size <= _SMALL:
            for block in entry.blocks:
                yield self._read(block)
            return
        ahead: deque[Future[bytes]] = deque()
        for block in _merged(entry.blocks):
            ahead.append(self.pool.submit(self._read, block))
            if len(ahead) >= _WINDOW:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _read(self, block: Block) -> bytes:
        if not block.inflated:
            return self._image.read(block)
        start, data = self._fragment
        if start != block.start:
            data = self._image.fragment_data(block)
            self._fragment = (block.start, data)
        return self._image.cut(data, block)


def _merged(blocks: tuple[Block, ...]) -> Iterator[Block]:
    """Neighbouring stored blocks as one larger read."""
    run: Block | None = None
    for block in blocks:
        plain = not block.compressed and not block.inflated and block.stored == block.size
        if (
            run is not None
            and plain
            and run.start + run.stored == block.start
            and run.size + block.size <= _MERGE_BYTES
        ):
            run = run._replace(stored=run.stored + block.stored, size=run.size + block.size)
            continue
        if run is not None:
            yield run
        if plain and block.stored:
            run = block
        else:
            run = None
            yield block
    if run is not None:
        yield run
