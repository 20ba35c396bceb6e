"""The numbers of SquashFS 4.0 that reader and writer share; little endian throughout."""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = 0x73717368
SUPERBLOCK = struct.Struct("<5I6H8Q")
METADATA_BYTES = 8192
METADATA_STORED = 0x8000
DATA_STORED = 1 << 24
ABSENT = 0xFFFFFFFFFFFFFFFF
NO_FRAGMENT = 0xFFFFFFFF
NO_XATTR = 0xFFFFFFFF
MIN_BLOCK_LOG, MAX_BLOCK_LOG = 12, 20

FLAG_NO_XATTRS = 0x0200

DIRECTORY, FILE, SYMLINK = 1, 2, 3
EXT_DIRECTORY, EXT_FILE, EXT_SYMLINK = 8, 9, 10
SPECIAL = {4: "block device", 5: "character device", 6: "fifo", 7: "socket"}

INODE_HEADER = struct.Struct("<4H2I")
DIRECTORY_BODY = struct.Struct("<2I2HI")
EXT_DIRECTORY_BODY = struct.Struct("<4I2HI")
FILE_BODY = struct.Struct("<4I")
EXT_FILE_BODY = struct.Struct("<3Q4I")
SYMLINK_BODY = struct.Struct("<2I")
LISTING_HEADER = struct.Struct("<3I")
LISTING_ENTRY = struct.Struct("<HhHH")
FRAGMENT_ENTRY = struct.Struct("<Q2I")


class Superblock(NamedTuple):
    """The first 96 bytes, in file order. Offsets and sizes are bytes."""

    magic: int
    inode_count: int
    modified: int
    block_size: int
    fragment_count: int
    compressor: int
    block_log: int
    flags: int
    id_count: int
    major: int
    minor: int
    root_inode: int
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int

    def pack(self) -> bytes:
        return SUPERBLOCK.pack(*self)
