"""The digest gate: the only maker of verified bundles.

Rules:
1. A bundle is verified when the sha256 of all its bytes equals the pinned digest, textually, over the whole length.
2. The bytes that were hashed are the bytes that are read later: one open file, private to this process, never opened by
   name again between the check and the use.
3. Nothing that parses a bundle accepts anything but a `VerifiedBundle`, and only this module can make one.
4. A pin that is no full sha256 (the placeholder of old stores, another case, another algorithm) matches nothing.
"""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO, Final

from greentic.ground.errors import DigestMismatch
from greentic.model.ids import is_digest

_MAKER: Final = object()
_BLOCK = 1 << 20


class VerifiedBundle:
    """A bundle whose bytes are the pinned ones, as one open file. Close it when done."""

    __slots__ = ("digest", "file", "size")

    def __init__(self, maker: object, file: BinaryIO, digest: str, size: int) -> None:
        if maker is not _MAKER:
            raise TypeError("a VerifiedBundle comes from trust.gate alone")
        self.file = file
        self.digest = digest
        self.size = size

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; shorter only at the end. Safe to call from several threads."""
        return os.pread(self.file.fileno(), count, offset)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> VerifiedBundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def digest_of(file: BinaryIO) -> tuple[str, int]:
    """`sha256:<hex>` and size in bytes of everything in an open file, whatever its position."""
    hasher = hashlib.sha256()
    offset = 0
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    while count := os.preadv(file.fileno(), [buffer], offset):
        hasher.update(view[:count])
        offset += count
    return f"sha256:{hasher.hexdigest()}", offset


def admit(file: BinaryIO, actual: str, size: int, pinned: str, *, revision_id: str) -> VerifiedBundle:
    """Let a bundle through whose digest, computed while its bytes were written to `file`, is the pinned one.

    Raises `DigestMismatch`; the caller deletes the file then.
    """
    if not is_digest(pinned) or actual != pinned:
        raise mismatch(actual, pinned, revision_id=revision_id)
    return VerifiedBundle(_MAKER, file, actual, size)


def mismatch(actual: str, pinned: str, *, revision_id: str, why: str = "") -> DigestMismatch:
    """The refusal of a bundle that is not the pinned one; `why` is a known cause."""
    return DigestMismatch(
        f"pulled bundle digest `{actual}` does not match revision `{revision_id}`'s pinned `{pinned}`; "
        f"refusing to serve unpinned bytes{f' ({why})' if why else ''}",
        hint="publish the bundle that was staged at this address, or stage the new one with `gtc op revisions stage`",
    )


def verify_file(file: BinaryIO, pinned: str, *, revision_id: str) -> VerifiedBundle:
    """Hash an open private file and let it through if it is the pinned bundle. Raises `DigestMismatch`."""
    actual, size = digest_of(file)
    return admit(file, actual, size, pinned, revision_id=revision_id)


def pin(file: BinaryIO) -> VerifiedBundle:
    """Verify a bundle against itself: an operator's own file, whose digest becomes the pin."""
    actual, size = digest_of(file)
    return VerifiedBundle(_MAKER, file, actual, size)
