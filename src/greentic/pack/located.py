"""A pack where it lies: what whoever places a revision hands to whoever loads its packs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class LocatedPack(NamedTuple):
    """A pack on disk whose digest is the lock's."""

    pack_id: str
    path: Path
    digest: str
