"""A bounded reader of SquashFS 4.0 images.

Rules:
1. Nothing in the image is believed: every offset, count and size is checked against the file, the superblock and the
   limits before it is used, and every damage is a `MalformedArtifact`, never another exception.
2. Entries are regular files, directories and symbolic links. Devices, fifos, sockets, hard links, and files with set-uid or
   set-gid bits are refused; owners, times and extended attributes are not looked at.
3. A name is one UTF-8 path part; a link's target is relative, with `..` at its start only, and stays below the root.
4. A directory or inode is visited once, so loops and shared subtrees cannot multiply the work.
5. Entries, paths, blocks, bytes, ratio and depth are counted while the tree is walked, before a single data block is inflated.
6. What other writers may do is taken as it is: any order of inodes, any block size, any sharing of fragments, set-group-id and
   sticky bits of directories (volumes have them), padding, tables and attributes that we do not need.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from greentic.bundle.compression import Decompress, decompressor
from greentic.bundle.limits import DEFAULT_LIMITS, BundleLimits
from greentic.bundle.squashfs_layout import (
    DATA_STORED,
    DIRECTORY,
    DIRECTORY_BODY,
    EXT_DIRECTORY,
    EXT_DIRECTORY_BODY,
    EXT_FILE,
    EXT_FILE_BODY,
    EXT_SYMLINK,
    FILE,
    FILE_BODY,
    INODE_HEADER,
    LISTING_ENTRY,
    LISTING_HEADER,
    MAGIC,
    MAX_BLOCK_LOG,
    METADATA_BYTES,
    MIN_BLOCK_LOG,
    NO_FRAGMENT,
    SPECIAL,
    SUPERBLOCK,
    SYMLINK,
    SYMLINK_BODY,
    Superblock,
)
from greentic.bundle.squashfs_tables import MetadataCursor, ReadAt, Tables
from greentic.ground.documents import shown
from greentic.ground.errors import LimitExceeded, MalformedArtifact

Kind = Literal["directory", "file", "link"]
_MAX_LISTING_RUN = 256


class Block(NamedTuple):
    """One piece of a file: where it lies in the image and how many bytes it must give."""

    start: int
    stored: int
    """Bytes in the image; 0 for a hole."""
    compressed: bool
    size: int
    skip: int = 0
    """Bytes of the inflated block before the file's part (fragments)."""
    inflated: int = 0
    """Most bytes that the inflated block may have (fragments); 0 means `size`."""


class Entry(NamedTuple):
    """A path of the image, relative and with `/` between its parts."""

    path: str
    kind: Kind
    size: int = 0
    blocks: tuple[Block, ...] = ()
    target: str = ""
    executable: bool = False


class SquashImage:
    """An open image. `read_at(offset, count)` gives bytes of the file, shorter only at its end."""

    def __init__(self, read_at: ReadAt, size: int, limits: BundleLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        head = read_at(0, SUPERBLOCK.size)
        if len(head) < 4 or int.from_bytes(head[:4], "little") != MAGIC:
            raise MalformedArtifact("not a SquashFS image: it does not begin with `hsqs`")
        if len(head) < SUPERBLOCK.size:
            raise MalformedArtifact(f"SquashFS image ends inside its superblock, after {len(head)} bytes")
        self.superblock = superblock = Superblock._make(SUPERBLOCK.unpack(head))
        if (superblock.major, superblock.minor) != (4, 0):
            raise MalformedArtifact(f"SquashFS version {superblock.major}.{superblock.minor}, expected 4.0")
        if (
            not MIN_BLOCK_LOG <= superblock.block_log <= MAX_BLOCK_LOG
            or superblock.block_size != 1 << superblock.block_log
        ):
            raise MalformedArtifact(f"SquashFS block size {superblock.block_size} does not fit its logarithm")
        if superblock.bytes_used > size or superblock.bytes_used < SUPERBLOCK.size:
            raise MalformedArtifact(
                f"SquashFS image is truncated: it says {superblock.bytes_used} bytes, the file has {size}"
            )
        for name in ("inode_table", "directory_table", "id_table"):
            if not SUPERBLOCK.size <= getattr(superblock, name) < superblock.bytes_used:
                raise MalformedArtifact(f"SquashFS {name} lies outside the image")
        if superblock.inode_table > superblock.directory_table:
            raise MalformedArtifact("SquashFS inode table lies behind the directory table")
        if superblock.inode_count > limits.entries:
            raise LimitExceeded(f"the image says it has {superblock.inode_count} inodes, more than {limits.entries}")
        self._inflate: Decompress = decompressor(superblock.compressor)
        self.tables = Tables(read_at, superblock, self._inflate, limits)

    def entries(self) -> Iterator[Entry]:
        """Every entry below the root, parents before children, names of a directory in stored order."""
        walk = _Walk(self, self._limits)
        yield from walk.run()

    def read(self, block: Block) -> bytes:
        """The bytes of one block of a file, exactly `block.size` of them. Safe to call from several threads."""
        if block.inflated:
            return self.cut(self.fragment_data(block), block)
        if not block.stored:
            return bytes(block.size)
        data = self.tables.bytes_at(block.start, block.stored, "data block")
        if block.compressed:
            data = self._inflate(data, block.size)
        if len(data) != block.size:
            raise MalformedArtifact(f"a data block at {block.start} gives {len(data)} bytes, expected {block.size}")
        return data

    def fragment_data(self, block: Block) -> bytes:
        """The whole inflated fragment in which a file's tail lies."""
        data = self.tables.bytes_at(block.start, block.stored, "fragment")
        return self._inflate(data, block.inflated) if block.compressed else data

    @staticmethod
    def cut(data: bytes, block: Block) -> bytes:
        """The file's part of its fragment."""
        piece = data[block.skip : block.skip + block.size]
        if len(piece) != block.size:
            raise MalformedArtifact(f"a file's tail lies outside its fragment at {block.start}")
        return piece

    def content(self, entry: Entry) -> bytes:
        """All bytes of a file; for files that are known to be small."""
        return b"".join(self.read(block) for block in entry.blocks)


class _Walk:
    """One walk over the tree, with everything that is counted on the way."""

    def __init__(self, image: SquashImage, limits: BundleLimits) -> None:
        self.tables, self.limits = image.tables, limits
        self.superblock = image.superblock
        self.entries = self.total = self.paths = self.blocks = 0
        self.seen_inodes: set[int] = set()
        self.seen_numbers: set[int] = set()

    def run(self) -> Iterator[Entry]:
        root = self.superblock.root_inode
        self.seen_inodes.add(root)
        kind, cursor = self._inode(root)
        if kind not in (DIRECTORY, EXT_DIRECTORY):
            raise MalformedArtifact("the root of the SquashFS image is no directory")
        stack = [("", self._listing(kind, cursor, 0))]
        while stack:
            prefix, listing = stack[-1]
            found = next(listing, None)
            if found is None:
                stack.pop()
                continue
            name, reference = found
            path = f"{prefix}/{name}" if prefix else name
            entry, children = self._entry(path, reference, len(stack))
            yield entry
            if children is not None:
                stack.append((path, children))

    def _entry(self, path: str, reference: int, depth: int) -> tuple[Entry, Iterator[tuple[str, int]] | None]:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise LimitExceeded(f"the image has more than {self.limits.entries} entries")
        path_bytes = len(path.encode())
        self.paths += path_bytes
        if path_bytes > self.limits.path_bytes:
            raise LimitExceeded(f"{shown(path)} is a path of {path_bytes} bytes, more than {self.limits.path_bytes}")
        if self.paths > self.limits.paths_bytes:
            raise LimitExceeded(f"the paths of the image together have more than {self.limits.paths_bytes} bytes")
        if reference in self.seen_inodes:
            raise MalformedArtifact(f"`{path}` is a hard link or a loop: its inode stands elsewhere too")
        self.seen_inodes.add(reference)
        kind, cursor = self._inode(reference, path)
        if kind in (DIRECTORY, EXT_DIRECTORY):
            if depth >= self.limits.depth:
                raise LimitExceeded(f"`{path}` is more than {self.limits.depth} directories deep")
            return Entry(path, "directory"), self._listing(kind, cursor, depth)
        if kind in (FILE, EXT_FILE):
            return self._file(path, kind, cursor), None
        return Entry(path, "link", target=self._target(path, cursor, depth)), None

    def _inode(self, reference: int, path: str = "/") -> tuple[int, MetadataCursor]:
        block, offset = reference >> 16, reference & 0xFFFF
        if self.superblock.inode_table + block >= self.superblock.directory_table or offset >= METADATA_BYTES:
            raise MalformedArtifact(f"the inode of `{path}` lies outside the inode table")
        cursor = self.tables.cursor(self.superblock.inode_table, block, offset)
        kind, mode, _, _, _, number = cursor.unpack(INODE_HEADER)
        if kind in SPECIAL or kind - 7 in SPECIAL:
            name = SPECIAL.get(kind) or SPECIAL[kind - 7]
            raise MalformedArtifact(f"`{path}` is a {name}; only files, directories and links may be in a bundle")
        if kind not in (DIRECTORY, FILE, SYMLINK, EXT_DIRECTORY, EXT_FILE, EXT_SYMLINK):
            raise MalformedArtifact(f"`{path}` has the unknown SquashFS inode type {kind}")
        if mode & 0o6000 and kind not in (DIRECTORY, EXT_DIRECTORY):
            raise MalformedArtifact(f"`{path}` has set-user-id or set-group-id bits (mode {mode:o})")
        if number in self.seen_numbers:
            raise MalformedArtifact(f"`{path}` is a hard link or a loop: inode number {number} stands elsewhere too")
        self.seen_numbers.add(number)
        self._mode = mode
        return kind, cursor

    def _listing(self, kind: int, cursor: MetadataCursor, depth: int) -> Iterator[tuple[str, int]]:
        if kind == DIRECTORY:
            block, _, size, offset, _ = cursor.unpack(DIRECTORY_BODY)
        else:
            _, size, block, _, _, offset, _ = cursor.unpack(EXT_DIRECTORY_BODY)
        return self._names(block, offset, size)

    def _names(self, block: int, offset: int, size: int) -> Iterator[tuple[str, int]]:
        left = size - 3
        if left <= 0:
            return
        if left > self.limits.directory_bytes:
            raise LimitExceeded(f"a directory listing has {left} bytes, more than {self.limits.directory_bytes}")
        if self.superblock.directory_table + block >= self.superblock.bytes_used or offset >= METADATA_BYTES:
            raise MalformedArtifact("a directory listing lies outside the directory table")
        cursor = self.tables.cursor(self.superblock.directory_table, block, offset)
        names: set[str] = set()
        while left > 0:
            left -= LISTING_HEADER.size
            count, start, _ = cursor.unpack(LISTING_HEADER)
            if count >= _MAX_LISTING_RUN or left < 0:
                raise MalformedArtifact("a directory listing is damaged")
            for _ in range(count + 1):
                inode_offset, _, _, name_size = cursor.unpack(LISTING_ENTRY)
                if name_size >= self.limits.name_bytes:
                    raise MalformedArtifact(f"a name of {name_size + 1} bytes is longer than {self.limits.name_bytes}")
                name = self._name(cursor.take(name_size + 1))
                left -= LISTING_ENTRY.size + name_size + 1
                if left < 0:
                    raise MalformedArtifact("a directory listing is longer than it says")
                if name in names:
                    raise MalformedArtifact(f"`{name}` stands twice in one directory")
                names.add(name)
                yield name, start << 16 | inode_offset

    @staticmethod
    def _name(raw: bytes) -> str:
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedArtifact(f"the name {raw!r} is not UTF-8") from None
        if name in (".", "..") or "/" in name or "\0" in name:
            raise MalformedArtifact(f"the name {name!r} is no plain path part")
        return name

    def _target(self, path: str, cursor: MetadataCursor, depth: int) -> str:
        _, size = cursor.unpack(SYMLINK_BODY)
        if not 0 < size <= self.limits.link_bytes:
            raise MalformedArtifact(f"the link `{path}` has a target of {size} bytes")
        try:
            target = cursor.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedArtifact(f"the target of the link `{path}` is not UTF-8") from None
        if not stays_inside(target, depth - 1):
            raise MalformedArtifact(f"the link `{path}` leaves the bundle: its target is {target!r}")
        return target

    def _file(self, path: str, kind: int, cursor: MetadataCursor) -> Entry:
        executable = bool(self._mode & 0o111)
        if kind == FILE:
            start, fragment, offset, size = cursor.unpack(FILE_BODY)
        else:
            start, size, _, _, fragment, offset, _ = cursor.unpack(EXT_FILE_BODY)
        if size > self.limits.file_bytes:
            raise LimitExceeded(f"`{path}` has {size} bytes, more than {self.limits.file_bytes}")
        self.total += size
        if self.total > self.limits.total_bytes:
            raise LimitExceeded(f"the image unpacks to more than {self.limits.total_bytes} bytes")
        if self.total > self.limits.ratio_floor and self.total > self.limits.ratio * self.superblock.bytes_used:
            raise LimitExceeded(f"the image unpacks to more than {self.limits.ratio} times its own size")
        block_size = self.superblock.block_size
        full, tail = divmod(size, block_size)
        count = full if fragment != NO_FRAGMENT or not tail else full + 1
        self.blocks += count
        if self.blocks > self.limits.blocks:
            raise LimitExceeded(f"the files of the image have more than {self.limits.blocks} blocks")
        sizes = struct.unpack(f"<{count}I", cursor.take(4 * count))
        blocks: list[Block] = []
        for index, raw in enumerate(sizes):
            stored = raw & (DATA_STORED - 1)
            if raw >> 25 or stored > block_size:
                raise MalformedArtifact(f"block {index} of `{path}` says it has {stored} bytes")
            wanted = tail if index == full else block_size
            blocks.append(Block(start, stored, not raw & DATA_STORED, wanted))
            start += stored
        if start > self.superblock.bytes_used:
            raise MalformedArtifact(f"`{path}` has blocks outside the image")
        if fragment != NO_FRAGMENT and tail:
            at, stored, compressed = self.tables.fragment(fragment)
            if offset + tail > block_size:
                raise MalformedArtifact(f"the tail of `{path}` lies outside its fragment")
            blocks.append(Block(at, stored, compressed, tail, offset, block_size))
        return Entry(path, "file", size, tuple(blocks), executable=executable)


def stays_inside(target: str, depth: int) -> bool:
    """Whether a link in a directory `depth` levels below the root can never lead above the root.

    `..` may stand only at the start: behind a name it could follow another link, and no counting of parts is safe then.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    named = False
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if named or depth < 0:
                return False
        elif part not in ("", "."):
            named = True
    return True
