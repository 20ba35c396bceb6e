"""How much a pack archive may cost, as named numbers; enforced before and while it is read, not after."""

from __future__ import annotations

import msgspec

MIB = 1 << 20


class PackLimits(msgspec.Struct, frozen=True):
    """Bounds of one pack archive. Components written in Python or JavaScript are 12 to 20 MB each."""

    archive_bytes: int = 1024 * MIB
    directory_bytes: int = 4 * MIB
    """Bytes of the ZIP's list of entries, which is read as a whole before an entry can be counted."""
    entries: int = 10_000
    name_bytes: int = 1024
    entry_bytes: int = 256 * MIB
    total_bytes: int = 1024 * MIB
    ratio: int = 200
    ratio_floor: int = 16 * MIB
    manifest_bytes: int = 16 * MIB
    """Bytes of one CBOR document: manifest, SBOM or lock."""
    signature_bytes: int = MIB // 4
    """Bytes of a signature, and of its certificates."""


DEFAULT_PACK_LIMITS = PackLimits()
