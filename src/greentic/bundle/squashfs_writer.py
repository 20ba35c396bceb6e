"""A deterministic writer of SquashFS 4.0 images: the same tree gives the same bytes.

Rules:
1. What stands in the image depends on paths, contents, link targets and executable bits alone: times are 0, owners root,
   modes 0755 or 0644 (links 0777), entries sorted bytewise, blocks compressed one by one in order.
2. A block that does not shrink is stored. Tails of files share fragment blocks, in path order.
3. The tree may hold regular files, directories and links that stay inside; what our reader refuses is refused here.
4. The image is padded to 4 KiB, so that it can be mounted. gzip uses this machine's zlib: other zlib versions may give
   other bytes of the same meaning, which is why a bundle is built once and pinned by digest.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

from greentic.bundle.cores import usable_cores
from greentic.bundle.limits import DEFAULT_LIMITS, BundleLimits
from greentic.bundle.squashfs_layout import (
    ABSENT,
    DATA_STORED,
    DIRECTORY,
    DIRECTORY_BODY,
    EXT_DIRECTORY,
    EXT_DIRECTORY_BODY,
    EXT_FILE,
    EXT_FILE_BODY,
    FILE,
    FILE_BODY,
    FLAG_NO_XATTRS,
    FRAGMENT_ENTRY,
    INODE_HEADER,
    LISTING_ENTRY,
    LISTING_HEADER,
    MAGIC,
    METADATA_BYTES,
    METADATA_STORED,
    NO_FRAGMENT,
    NO_XATTR,
    SUPERBLOCK,
    SYMLINK,
    SYMLINK_BODY,
    Superblock,
)
from greentic.bundle.squashfs_reader import stays_inside
from greentic.ground.errors import InvalidArgument

BLOCK_SIZE = 131_072
PADDING = 4096
LEVEL = 6
"""Of zlib: the highest takes four times as long and saves less than a hundredth (decision 64)."""
_MODES = {DIRECTORY: 0o755, FILE: 0o644, SYMLINK: 0o777}
_AHEAD = 64
_MAX_RUN = 256


class _Node(NamedTuple):
    name: bytes
    path: Path
    kind: int
    children: list[_Node]
    size: int = 0
    target: bytes = b""
    executable: bool = False


class _Placed(NamedTuple):
    """A node whose inode is written."""

    name: bytes
    kind: int
    number: int
    block: int
    offset: int


class _Data(NamedTuple):
    start: int
    sizes: list[int]
    fragment: int
    offset: int


def write_image(tree: Path, out: BinaryIO, *, limits: BundleLimits = DEFAULT_LIMITS) -> int:
    """Write the directory `tree` as a gzip image to `out`, an empty seekable file. Returns the image's bytes.

    Raises `InvalidArgument` for entries that no bundle may have.
    """
    return _Writer(out, limits).write(tree)


class _MetadataWriter:
    """Cuts a stream into metadata blocks of 8 KiB."""

    def __init__(self) -> None:
        self.done = bytearray()
        self._buffer = bytearray()
        self.starts: list[int] = []

    @property
    def position(self) -> tuple[int, int]:
        return len(self.done), len(self._buffer)

    def add(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= METADATA_BYTES:
            self._flush(METADATA_BYTES)

    def _flush(self, count: int) -> None:
        raw = bytes(self._buffer[:count])
        del self._buffer[:count]
        packed = zlib.compress(raw, LEVEL)
        self.starts.append(len(self.done))
        if len(packed) < len(raw):
            self.done += len(packed).to_bytes(2, "little") + packed
        else:
            self.done += (len(raw) | METADATA_STORED).to_bytes(2, "little") + raw

    def finish(self) -> bytes:
        if self._buffer:
            self._flush(len(self._buffer))
        return bytes(self.done)


class _Writer:
    def __init__(self, out: BinaryIO, limits: BundleLimits) -> None:
        self.out, self.limits = out, limits
        self.inodes, self.listings = _MetadataWriter(), _MetadataWriter()
        self.fragments: list[tuple[int, int]] = []
        self.data: dict[bytes, _Data] = {}
        self.entries = 0
        self.number = 0
        self.at = SUPERBLOCK.size

    def write(self, tree: Path) -> int:
        root = self._scan(b"", tree, 0)
        self.out.seek(0)
        self.out.write(bytes(SUPERBLOCK.size))
        self._write_data(root)
        placed = self._place(root, self.entries + 1)
        inode_table, directory_table = self.at, self.at + len(self._append(self.inodes.finish()))
        self._append(self.listings.finish())
        fragment_table = (
            self._index([FRAGMENT_ENTRY.pack(s, z, 0) for s, z in self.fragments]) if self.fragments else ABSENT
        )
        id_table = self._index([bytes(4)])
        used = self.at
        self.out.write(bytes(-used % PADDING))
        superblock = Superblock(
            magic=MAGIC, inode_count=self.entries, modified=0, block_size=BLOCK_SIZE, fragment_count=len(self.fragments),
            compressor=1, block_log=BLOCK_SIZE.bit_length() - 1, flags=FLAG_NO_XATTRS, id_count=1, major=4, minor=0,
            root_inode=placed.block << 16 | placed.offset, bytes_used=used, id_table=id_table, xattr_table=ABSENT,
            inode_table=inode_table, directory_table=directory_table, fragment_table=fragment_table, export_table=ABSENT,
        )  # fmt: skip
        self.out.seek(0)
        self.out.write(superblock.pack())
        self.out.flush()
        return used + -used % PADDING

    # -- the tree ---------------------------------------------------------------------------------------------------

    def _scan(self, name: bytes, path: Path, depth: int) -> _Node:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise InvalidArgument(f"`{path}`: the tree has more than {self.limits.entries} entries")
        status = path.lstat() if depth else path.stat()
        if stat.S_ISDIR(status.st_mode):
            if depth > self.limits.depth:
                raise InvalidArgument(f"`{path}` is more than {self.limits.depth} directories deep")
            names = sorted(os.fsencode(child.name) for child in path.iterdir())
            children = [self._scan(child, path / os.fsdecode(child), depth + 1) for child in names]
            return _Node(self._name(name, path, depth), path, DIRECTORY, children)
        self._name(name, path, depth)
        if stat.S_ISLNK(status.st_mode):
            target = os.fsencode(path.readlink())
            if not stays_inside(os.fsdecode(target), depth - 1):
                raise InvalidArgument(f"the link `{path}` leaves the bundle: its target is `{os.fsdecode(target)}`")
            return _Node(name, path, SYMLINK, [], target=target)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"`{path}` is no regular file, directory or link")
        return _Node(name, path, FILE, [], size=status.st_size, executable=bool(status.st_mode & 0o111))

    def _name(self, name: bytes, path: Path, depth: int) -> bytes:
        if depth:
            try:
                name.decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidArgument(f"the name {name!r} is not UTF-8") from None
            if len(name) > self.limits.name_bytes:
                raise InvalidArgument(f"the name of `{path}` is longer than {self.limits.name_bytes} bytes")
        return name

    def _files(self, node: _Node, prefix: bytes = b"") -> Iterator[tuple[bytes, _Node]]:
        for child in node.children:
            path = prefix + b"/" + child.name
            if child.kind == FILE:
                yield path, child
            elif child.kind == DIRECTORY:
                yield from self._files(child, path)

    # -- data -------------------------------------------------------------------------------------------------------

    def _write_data(self, root: _Node) -> None:
        """All blocks in order, compressed ahead on every core, and fragment blocks between files as they fill."""
        fragment = bytearray()
        with ThreadPoolExecutor(max_workers=min(8, usable_cores())) as pool:
            for path, node in self._files(root):
                start, sizes = self.at, list[int]()
                tail, read = b"", 0
                ahead: deque[Future[tuple[bytes, int]]] = deque()
                with node.path.open("rb") as file:
                    while block := file.read(BLOCK_SIZE):
                        read += len(block)
                        if len(block) < BLOCK_SIZE:
                            tail = block
                            break
                        ahead.append(pool.submit(_pack_block, block))
                        if len(ahead) > _AHEAD:
                            sizes.append(self._append_block(ahead.popleft().result()))
                while ahead:
                    sizes.append(self._append_block(ahead.popleft().result()))
                if read != node.size:
                    raise InvalidArgument(f"`{node.path}` changed while it was read")
                if tail and len(fragment) + len(tail) > BLOCK_SIZE:
                    self._flush_fragment(fragment)
                place = (len(self.fragments), len(fragment)) if tail else (NO_FRAGMENT, 0)
                fragment += tail
                self.data[path] = _Data(start, sizes, *place)
        if fragment:
            self._flush_fragment(fragment)

    def _flush_fragment(self, fragment: bytearray) -> None:
        at = self.at
        self.fragments.append((at, self._append_block(_pack_dense(bytes(fragment)))))
        fragment.clear()

    def _append_block(self, packed: tuple[bytes, int]) -> int:
        self._append(packed[0])
        return packed[1]

    def _append(self, data: bytes) -> bytes:
        self.out.write(data)
        self.at += len(data)
        return data

    # -- tables -----------------------------------------------------------------------------------------------------

    def _place(self, node: _Node, parent: int, path: bytes = b"") -> _Placed:
        """Write a node's inode after those of its children. `parent` is its parent's inode number."""
        self.number += 1
        number = self.number
        children = [self._place(child, number, path + b"/" + child.name) for child in node.children]
        executable = 0o111 if node.executable else 0
        header = (_MODES[node.kind] | executable, 0, 0, 0, number)
        if node.kind == DIRECTORY:
            kind, body = self._directory(node, children, parent)
        elif node.kind == FILE:
            kind, body = self._file(node, self.data[path])
        else:
            kind, body = SYMLINK, SYMLINK_BODY.pack(1, len(node.target)) + node.target
        block, offset = self.inodes.position
        self.inodes.add(INODE_HEADER.pack(kind, *header) + body)
        return _Placed(node.name, node.kind, number, block, offset)

    @staticmethod
    def _file(node: _Node, data: _Data) -> tuple[int, bytes]:
        sizes = b"".join(size.to_bytes(4, "little") for size in data.sizes)
        if data.start < 1 << 32 and node.size < 1 << 32:
            return FILE, FILE_BODY.pack(data.start, data.fragment, data.offset, node.size) + sizes
        body = EXT_FILE_BODY.pack(data.start, node.size, 0, 1, data.fragment, data.offset, NO_XATTR)
        return EXT_FILE, body + sizes

    def _directory(self, node: _Node, children: list[_Placed], parent: int) -> tuple[int, bytes]:
        block, offset = self.listings.position
        size = 3
        links = 2 + sum(child.kind == DIRECTORY for child in children)
        for run in _runs(children):
            first = run[0]
            listing = LISTING_HEADER.pack(len(run) - 1, first.block, first.number)
            for child in run:
                delta = child.number - first.number
                listing += LISTING_ENTRY.pack(child.offset, delta, child.kind, len(child.name) - 1) + child.name
            self.listings.add(listing)
            size += len(listing)
        if size < 1 << 16:
            return DIRECTORY, DIRECTORY_BODY.pack(block, links, size, offset, parent)
        return EXT_DIRECTORY, EXT_DIRECTORY_BODY.pack(links, size, block, parent, 0, offset, NO_XATTR)

    def _index(self, records: list[bytes]) -> int:
        """A lookup table: its metadata blocks, then the list of where they begin. Returns where that list stands."""
        table = _MetadataWriter()
        for record in records:
            table.add(record)
        base = self.at
        self._append(table.finish())
        at = self.at
        self._append(b"".join((base + start).to_bytes(8, "little") for start in table.starts))
        return at


def _runs(children: list[_Placed]) -> Iterator[list[_Placed]]:
    """Neighbours that may share a listing header: one inode block, near numbers, at most 256."""
    run: list[_Placed] = []
    for child in children:
        if run and (
            child.block != run[0].block or len(run) == _MAX_RUN or not -32768 <= child.number - run[0].number <= 32767
        ):
            yield run
            run = []
        run.append(child)
    if run:
        yield run


def _pack_block(block: bytes) -> tuple[bytes, int]:
    """The stored form of a whole data block and its size word; a block of zeros is a hole."""
    return _pack_dense(block) if block.strip(b"\0") else (b"", 0)


def _pack_dense(block: bytes) -> tuple[bytes, int]:
    packed = zlib.compress(block, LEVEL)
    return (packed, len(packed)) if len(packed) < len(block) else (block, len(block) | DATA_STORED)
