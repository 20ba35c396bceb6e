"""A pack where it lies: what whoever places a revision hands to whoever loads its packs."""

from __future__ import annotations

from pathlib import Path

import msgspec


class LocatedPack(msgspec.Struct, frozen=True):
    """A pack on disk whose digest is the lock's."""

    pack_id: str
    path: Path
    digest: str
