"""The seam behind which references to bundles are opened (formats: delivery 1).

Rules:
1. A source only brings bytes. Whether they are the right ones is decided by the digest, never by where they came from.
2. It asks once for what it is asked for; who downloads is patient.
3. An error of a body sticks: once a read has failed, every later read of that body fails in the same way.
"""

from __future__ import annotations

from typing import Protocol

SIGNATURE_SUFFIX = ".sig"
"""What stands behind the address of a bundle in that of its signature, where there are files."""
MAX_SIGNATURE = 1 << 20


class Body(Protocol):
    """The bytes of a bundle as they arrive."""

    length: int | None
    """How many bytes were announced, if it was told."""
    offset: int
    """Where in the bundle they begin: where it was asked for, or 0 if the source cannot do that."""
    total: int | None
    """The size of the whole bundle, if it was told."""
    validator: str | None
    """What a later part must match to be of the same file."""
    resumable: bool
    """Whether a part can be asked for."""
    untold_end: bool
    """Whether nothing tells where they end but that no more come, as with old proxies: a cut looks like an end."""
    coding: str
    """How they are packed although nobody asked, in words; empty where they are not, or nobody says so."""
    digest: str | None
    """What the source itself says of the whole, as a registry does of a layer; compared beside the pinned digest."""

    def read_into(self, buffer: memoryview) -> int:
        """Fill some of the buffer; 0 at the end. Raises `FetchError`."""
        ...

    def close(self) -> None: ...


class Source(Protocol):
    """Something that opens references."""

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        """The bytes from `offset`, up to `end` (not included) if it is told. Raises `FetchError`; `PartRefused` for a part alone."""
        ...


class SignedSource(Source, Protocol):
    """A source that also knows where the signatures of its bundles are."""

    def signatures(self, reference: str) -> list[bytes]:
        """The signatures beside a bundle; having none is no error, and what they prove is not decided here. Raises `FetchError`."""
        ...
