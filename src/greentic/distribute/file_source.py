"""Bundles on this machine's disk."""

from __future__ import annotations

import os
from pathlib import Path

from greentic.distribute.source import MAX_SIGNATURE, SIGNATURE_SUFFIX, Body
from greentic.ground.errors import FetchError, Truncated
from greentic.net.document import read_small
from greentic.net.terms import Terms


class FileSource:
    """Opens paths."""

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        path = Path(reference)
        if path.is_dir():
            raise FetchError(f"{path} is a directory; a .gtbundle archive file is required for worker materialization")
        if not path.is_file():
            raise FetchError(f"{path} is not a regular file")
        return _FileBody(path, offset)

    def signatures(self, reference: str) -> list[bytes]:
        data = read_small(f"{reference}{SIGNATURE_SUFFIX}", MAX_SIGNATURE, Terms())
        return [] if data is None else [data]


class _FileBody:
    def __init__(self, path: Path, offset: int) -> None:
        try:
            self._file = path.open("rb", buffering=0)
            status = os.fstat(self._file.fileno())
            self._file.seek(offset)
        except OSError as error:
            raise FetchError(f"read bundle {path}: {error.strerror}") from None  # no try more would help
        self.total: int | None = status.st_size
        self.offset = offset
        self.length: int | None = max(status.st_size - offset, 0)
        self.validator: str | None = f'"{status.st_ino:x}-{status.st_mtime_ns:x}"'
        self.resumable, self.untold_end = True, False
        self.digest: str | None = None
        self.coding = ""
        self._received = 0

    def read_into(self, buffer: memoryview) -> int:
        try:
            count = self._file.readinto(buffer) or 0
        except OSError as error:
            raise FetchError(f"read bundle {self._file.name}: {error.strerror}") from None
        self._received += count
        if not count and len(buffer) and self.length is not None and self._received < self.length:
            raise Truncated(f"read bundle {self._file.name}: it became shorter while it was read")
        return count

    def close(self) -> None:
        self._file.close()
