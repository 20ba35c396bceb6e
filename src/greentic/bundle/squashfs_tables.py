"""The tables of a SquashFS image: bounded raw bytes, metadata blocks, cursors through them, and where fragments lie.

Rules:
1. Every offset and size is checked against the bytes that the superblock says are used, before it is read.
2. A metadata block is kept once it was inflated. Entries may point anywhere, so that what is inflated again and again is
   counted too: however small an image is, reading it inflates at most `metadata_blocks` of 8 KiB.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable

from greentic.bundle.compression import Decompress
from greentic.bundle.limits import BundleLimits
from greentic.bundle.squashfs_layout import (
    ABSENT,
    DATA_STORED,
    FRAGMENT_ENTRY,
    METADATA_BYTES,
    METADATA_STORED,
    Superblock,
)
from greentic.ground.errors import LimitExceeded, MalformedArtifact

ReadAt = Callable[[int, int], bytes]
_KEPT = 1024
"""Inflated blocks that stay in memory: all of the metadata of an image with a hundred thousand entries."""


class Tables:
    """Reads the tables of one image."""

    def __init__(self, read_at: ReadAt, superblock: Superblock, inflate: Decompress, limits: BundleLimits) -> None:
        self._read_at, self._superblock, self._inflate, self._limits = read_at, superblock, inflate, limits
        self._end = superblock.bytes_used
        self._metadata: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._inflated = 0
        self._fragment_blocks = self._fragment_index()

    def bytes_at(self, start: int, count: int, what: str) -> bytes:
        if start < 0 or count < 0 or start + count > self._end:
            raise MalformedArtifact(f"a SquashFS {what} at {start} of {count} bytes lies outside the image")
        data = self._read_at(start, count)
        if len(data) != count:
            raise MalformedArtifact(f"the file ends inside a SquashFS {what} at {start}")
        return data

    def metadata_block(self, start: int) -> tuple[bytes, int]:
        """The inflated metadata block at `start` and where the next one begins. Raises `LimitExceeded` for too many."""
        cached = self._metadata.get(start)
        if cached is not None:
            self._metadata.move_to_end(start)
            return cached
        self._inflated += 1
        if self._inflated > self._limits.metadata_blocks:
            raise LimitExceeded(f"reading the image takes more than {self._limits.metadata_blocks} metadata blocks")
        header = int.from_bytes(self.bytes_at(start, 2, "metadata header"), "little")
        stored = header & ~METADATA_STORED
        if not 0 < stored <= METADATA_BYTES:
            raise MalformedArtifact(f"a SquashFS metadata block at {start} says it has {stored} bytes")
        data = self.bytes_at(start + 2, stored, "metadata block")
        if not header & METADATA_STORED:
            data = self._inflate(data, METADATA_BYTES)
        self._metadata[start] = result = (data, start + 2 + stored)
        if len(self._metadata) > _KEPT:
            self._metadata.popitem(last=False)
        return result

    def cursor(self, table: int, block: int, offset: int) -> MetadataCursor:
        """A cursor at `offset` of the metadata block that begins `block` bytes after `table`."""
        return MetadataCursor(self, table + block, offset)

    def _fragment_index(self) -> list[int]:
        superblock = self._superblock
        if not superblock.fragment_count or superblock.fragment_table == ABSENT:
            return []
        if superblock.fragment_count > self._limits.entries:
            raise LimitExceeded(f"the image says it has {superblock.fragment_count} fragments")
        blocks = -(-superblock.fragment_count * FRAGMENT_ENTRY.size // METADATA_BYTES)
        raw = self.bytes_at(superblock.fragment_table, blocks * 8, "fragment index")
        return [int.from_bytes(raw[i * 8 : i * 8 + 8], "little") for i in range(blocks)]

    def fragment(self, index: int) -> tuple[int, int, bool]:
        """Start, stored bytes and whether compressed, of a fragment block."""
        if index >= self._superblock.fragment_count or not self._fragment_blocks:
            raise MalformedArtifact(f"fragment {index} is outside the table of {self._superblock.fragment_count}")
        at = index * FRAGMENT_ENTRY.size
        cursor = MetadataCursor(self, self._fragment_blocks[at // METADATA_BYTES], at % METADATA_BYTES)
        start, size, _ = FRAGMENT_ENTRY.unpack(cursor.take(FRAGMENT_ENTRY.size))
        stored = size & (DATA_STORED - 1)
        if not 0 < stored <= self._superblock.block_size or size >> 25:
            raise MalformedArtifact(f"fragment {index} says it has {stored} bytes")
        return start, stored, not size & DATA_STORED


class MetadataCursor:
    """Reads forward through metadata blocks."""

    __slots__ = ("_next", "_offset", "_start", "_tables")

    def __init__(self, tables: Tables, start: int, offset: int) -> None:
        self._tables, self._start, self._offset = tables, start, offset

    def take(self, count: int) -> bytes:
        out = b""
        while len(out) < count:
            data, following = self._tables.metadata_block(self._start)
            if self._offset > len(data) or (not data and count):
                raise MalformedArtifact(f"a SquashFS reference points behind its metadata block at {self._start}")
            piece = data[self._offset : self._offset + count - len(out)]
            out += piece
            self._offset += len(piece)
            if len(out) < count:
                if not piece and self._offset == 0:
                    raise MalformedArtifact("an empty SquashFS metadata block")
                self._start, self._offset = following, 0
        return out

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        return form.unpack(self.take(form.size))
