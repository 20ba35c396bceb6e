"""How much an artifact may cost, as named numbers; enforced while reading, not after."""

from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20


class Limits(NamedTuple):
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
    link_bytes: int = 4096
    directory_bytes: int = 64 * MIB
    """Bytes of one directory listing."""


DEFAULT_LIMITS = Limits()


class PackLimits(NamedTuple):
    """Bounds of one pack archive. Components written in Python or JavaScript are 12 to 20 MB each."""

    archive_bytes: int = 1024 * MIB
    entries: int = 10_000
    entry_bytes: int = 256 * MIB
    total_bytes: int = 1024 * MIB
    ratio: int = 200
    ratio_floor: int = 16 * MIB
    manifest_bytes: int = 16 * MIB


DEFAULT_PACK_LIMITS = PackLimits()
