"""References to bundles and the seam behind which they are opened (spec: worker 3.1).

Rules:
1. A reference is `file://<path>`, a bare path that exists, `http(s)://…`, or a scheme of a registry; nothing else is tried.
2. A source only brings bytes. Whether they are the right ones is decided by the digest, never by where they came from.
3. Link-local and metadata addresses are refused wherever they turn up: in the reference, behind a name, in a redirect.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from greentic.ground.errors import FetchError

EXPECTED = "expected local path, file://, http(s)://, oci://, repo://, or store://"
_REGISTRY_SCHEMES = ("oci://", "repo://", "store://")


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
    digest: str | None
    """What the source itself says of the whole, as a registry does of a layer; compared beside the pinned digest."""

    def read_into(self, buffer: memoryview) -> int:
        """Fill some of the buffer; 0 at the end. Raises `FetchError`."""
        ...

    def close(self) -> None: ...


class Source(Protocol):
    """Something that opens references."""

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        """The bytes from `offset`, up to `end` (not included) if it is told. Raises `FetchError`."""
        ...


def source_for(reference: str) -> tuple[Source, str]:
    """The source of a reference, and the reference without blanks around it. Raises `FetchError` or its like."""
    text = reference.strip()
    if not text:
        raise FetchError("bundle reference cannot be empty")
    if text.startswith(("http://", "https://")):
        from greentic.distribute.http_source import HttpSource

        return HttpSource(), text
    if text.startswith(_REGISTRY_SCHEMES):
        from greentic.distribute.oci_source import OciSource

        return OciSource(), text
    if text.startswith("file://"):
        path = Path(text.removeprefix("file://"))
        if path.exists():
            return FileSource(), str(path)
        raise FetchError(f"unsupported bundle reference {text}; {EXPECTED} (file not found)")
    if "://" not in text and Path(text).exists():
        return FileSource(), text
    raise FetchError(f"unsupported bundle reference {text}; {EXPECTED}")


class FileSource:
    """Bundles on this machine's disk."""

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        path = Path(reference)
        if path.is_dir():
            raise FetchError(f"{path} is a directory; a .gtbundle archive file is required for worker materialization")
        if not path.is_file():
            raise FetchError(f"{path} is not a regular file")
        return _FileBody(path, offset)


class _FileBody:
    def __init__(self, path: Path, offset: int) -> None:
        try:
            self._file = path.open("rb", buffering=0)
            status = os.fstat(self._file.fileno())
            self._file.seek(offset)
        except OSError as error:
            raise FetchError(f"read bundle {path}: {error.strerror}") from error
        self.total: int | None = status.st_size
        self.offset = offset
        self.length: int | None = max(status.st_size - offset, 0)
        self.validator: str | None = f'"{status.st_ino:x}-{status.st_mtime_ns:x}"'
        self.resumable = True
        self.digest: str | None = None

    def read_into(self, buffer: memoryview) -> int:
        try:
            return self._file.readinto(buffer) or 0
        except OSError as error:
            raise FetchError(f"read bundle {self._file.name}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()
