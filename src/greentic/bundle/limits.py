"""How much a bundle image may cost, as named numbers; enforced while reading, not after.

Rule: what multiplies is bounded as a product. Entries times the length of their paths is `paths_bytes`; files times their blocks is
`blocks`; metadata that many entries may point into is `metadata_blocks`.
"""

from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20


class BundleLimits(NamedTuple):
    """Bounds of one bundle image."""

    entries: int = 100_000
    """Files, directories and links in an image."""
    total_bytes: int = 4096 * MIB
    """Bytes of all files together, unpacked."""
    file_bytes: int = 2048 * MIB
    """Bytes of one file, unpacked."""
    ratio: int = 250
    """Unpacked bytes for each byte of the image, once more than `ratio_floor` is unpacked."""
    ratio_floor: int = 64 * MIB
    depth: int = 32
    """Directories inside each other."""
    name_bytes: int = 255
    path_bytes: int = 4095
    """Bytes of one path; a longer one cannot be unpacked on Linux."""
    paths_bytes: int = 32 * MIB
    """Bytes of all paths together. A character of a text may take four bytes of memory for each of these."""
    link_bytes: int = 4095
    blocks: int = 1 << 19
    """Blocks of all files together: 2 GiB in blocks of 4 KiB, 64 GiB in the usual ones of 128 KiB."""
    metadata_blocks: int = 1 << 14
    """Metadata blocks that one reading may inflate, the same one again included."""
    directory_bytes: int = 64 * MIB
    """Bytes of one directory listing."""


DEFAULT_LIMITS = BundleLimits()
