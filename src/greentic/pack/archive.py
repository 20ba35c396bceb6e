"""The `.gtpack` archive: a ZIP with a CBOR manifest, an SBOM and a lock (formats: pack 1, 7, 9).

Rules:
1. Every entry is a regular file with a relative, plain path, stored or deflated; no duplicates. The list of entries is bounded
   before it is read, their sizes, count and ratio before anything is inflated, and each size again while it is.
2. Faults of the SBOM are warnings: real packs have them, and what they hold is pinned by the bundle's digest anyway.
3. The writer is deterministic: stored entries, 1980-01-01, mode 0644, a fixed order.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import BinaryIO, cast

import msgspec

from greentic.ground.documents import parse, shown
from greentic.ground.errors import LimitExceeded, MalformedArtifact
from greentic.pack import cbor
from greentic.pack import manifest as pack_manifest
from greentic.pack.limits import DEFAULT_PACK_LIMITS, PackLimits
from greentic.pack.manifest import PackManifest

MANIFEST, LOCK, SBOM, LEGACY_SBOM = "manifest.cbor", "pack.lock.cbor", "sbom.cbor", "sbom.json"
SIGNATURES = "signatures/"
SBOM_FORMAT = "greentic-sbom-v1"
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,  # encrypted entries, and what is not implemented
    ValueError,
    LookupError,
    OverflowError,
    MemoryError,
    OSError,
)
"""What `zipfile` lets out of damaged archives."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The other methods inflate without a limit, and no packer uses them."""
_PART_BYTES = 255
_S_IFREG, _S_IFMT = 0o100000, 0o170000


class PackArchive:
    """An open pack. Raises `MalformedArtifact` for everything that is none."""

    def __init__(self, file: BinaryIO, limits: PackLimits = DEFAULT_PACK_LIMITS) -> None:
        self.limits = limits
        guarded = _Guarded(file, limits.directory_bytes)
        try:
            size = file.seek(0, 2)
            if size > limits.archive_bytes:
                raise LimitExceeded(f"the pack has {size} bytes, more than {limits.archive_bytes}")
            self._zip = zipfile.ZipFile(cast(BinaryIO, guarded))
        except zipfile.BadZipFile:
            raise MalformedArtifact("not a ZIP archive") from None
        except _READ_ERRORS as error:
            raise MalformedArtifact(f"not a ZIP archive: {error}") from None
        guarded.limit = None
        self.entries: dict[str, zipfile.ZipInfo] = {}
        self._check(size)
        if MANIFEST not in self.entries:
            raise MalformedArtifact(f"{MANIFEST} missing from archive")
        self.manifest: PackManifest = pack_manifest.decode(self.read(MANIFEST, limit=limits.manifest_bytes))

    def _check(self, size: int) -> None:
        total, limits = 0, self.limits
        for number, info in enumerate(self._zip.infolist()):
            name, mode = info.filename, info.external_attr >> 16
            if number >= limits.entries:
                raise LimitExceeded(f"the pack has more than {limits.entries} entries")
            if name.endswith("/"):
                continue
            if mode & _S_IFMT not in (0, _S_IFREG):
                raise MalformedArtifact(f"{shown(name)} is not a regular file")
            if not _is_plain(name, limits.name_bytes):
                raise MalformedArtifact(f"archive entry contains unsafe path: {shown(name)}")
            if name in self.entries:
                raise MalformedArtifact(f"duplicate entry detected: `{name}`")
            if info.compress_type not in _METHODS:
                raise MalformedArtifact(
                    f"`{name}` is compressed by method {info.compress_type}, expected none or deflate"
                )
            if info.file_size > limits.entry_bytes:
                raise LimitExceeded(
                    f"`{name}` exceeds maximum allowed size: {info.file_size} bytes, at most {limits.entry_bytes}"
                )
            total += info.file_size
            self.entries[name] = info
        if total > limits.total_bytes or (total > limits.ratio_floor and total > limits.ratio * size):
            raise LimitExceeded(f"the pack exceeds maximum allowed size: {total} bytes unpacked from {size}")

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """The whole content of an entry, at most its announced size and `limit` bytes; its CRC is checked."""
        info = self.entries.get(name)
        if info is None:
            raise MalformedArtifact(f"{shown(name)} is not in the pack")
        if limit is not None and info.file_size > limit:
            raise LimitExceeded(f"`{name}` has {info.file_size} bytes, more than {limit}")
        try:
            with self._zip.open(info) as entry:
                data = entry.read(info.file_size + 1)
        except _READ_ERRORS as error:
            raise MalformedArtifact(f"`{name}` cannot be read: {error}") from None
        if len(data) != info.file_size:
            raise MalformedArtifact(f"`{name}` has {len(data)} bytes, announced {info.file_size}")
        return data

    def sbom_warnings(self) -> list[str]:
        """What the SBOM says that is not so, one line each (rule 2)."""
        name = self._sbom_name()
        if name not in self.entries:
            return [f"{SBOM} missing from archive"]
        try:
            sbom = self.sbom()
        except MalformedArtifact as error:
            return [f"{name}: {error.message}"]
        warnings = [] if sbom.format == SBOM_FORMAT else [f"unexpected SBOM format: {sbom.format}"]
        from blake3 import blake3

        for path, digest in sbom.files.items():
            if path not in self.entries:
                warnings.append(f"sbom references missing file `{path}`")
            elif (found := blake3(self.read(path)).hexdigest()) != digest:
                warnings.append(f"hash mismatch for {path}: expected {digest}, found {found}")
        warnings += [
            f"file `{path}` missing from {name}"
            for path in self.entries
            if path not in sbom.files and path != name and not path.startswith(SIGNATURES)
        ]
        return warnings

    def _sbom_name(self) -> str:
        return SBOM if SBOM in self.entries else LEGACY_SBOM

    def sbom(self) -> Sbom:
        """What the SBOM lists. Raises `MalformedArtifact`."""
        name = self._sbom_name()
        data = self.read(name, limit=self.limits.manifest_bytes)
        if name == LEGACY_SBOM:
            try:
                raw: object = parse(data)
            except ValueError as error:
                raise MalformedArtifact(str(error)) from None
        else:
            raw = cbor.decode(data, limit=self.limits.manifest_bytes)
        files = raw.get("files") if isinstance(raw, dict) else None
        if not isinstance(raw, dict) or not isinstance(files, list):
            raise MalformedArtifact("the SBOM has no list of files")
        out: dict[str, str] = {}
        for item in files:
            if (
                not isinstance(item, dict)
                or not isinstance(item.get("path"), str)
                or not isinstance(item.get("hash_blake3"), str)
            ):
                raise MalformedArtifact("an entry of the SBOM has no path or no hash")
            if item["path"] in out:
                raise MalformedArtifact(f"the SBOM lists {shown(item['path'])} twice")
            out[item["path"]] = item["hash_blake3"]
        told = raw.get("format")
        return Sbom(told[:60] if isinstance(told, str) else shown(told), out)

    def close(self) -> None:
        self._zip.close()


class _Guarded:
    """A file that gives only so many bytes at once, while there is a limit: `zipfile` reads the list of entries in one piece."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self.limit: int | None = limit
        self.seek, self.tell, self.close, self.seekable = file.seek, file.tell, file.close, file.seekable

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count if self.limit is None or 0 <= count <= self.limit else self.limit + 1)
        if self.limit is not None and len(data) > self.limit:
            raise LimitExceeded(f"the pack's list of entries has more than {self.limit} bytes")
        return data


def _is_plain(name: str, limit: int) -> bool:
    """Whether an entry's name is a relative path of plain parts that a file system can hold."""
    if "\\" in name or "\0" in name or len(name.encode(errors="replace")) > limit:
        return False
    return all(p not in ("", ".", "..") and len(p.encode(errors="replace")) <= _PART_BYTES for p in name.split("/"))


class Sbom(msgspec.Struct, frozen=True):
    format: str
    files: dict[str, str]


_MEDIA_TYPES = {".cbor": "application/cbor", ".wasm": "application/wasm", ".json": "application/json"}


def media_type(path: str) -> str:
    """By suffix; what other builders call octet-stream (the lock, everything below `assets/`) is called so here."""
    if path == LOCK or path.startswith("assets/"):
        return "application/octet-stream"
    return _MEDIA_TYPES.get(path[path.rfind(".") :], "application/octet-stream")


def write_pack(manifest: PackManifest, files: dict[str, bytes], lock_components: dict[str, object]) -> bytes:
    """The bytes of a pack: manifest, `files` in their order, lock, SBOM. The same input gives the same bytes."""
    from blake3 import blake3

    entries = {MANIFEST: pack_manifest.encode(manifest), **files}
    entries[LOCK] = cbor.encode({"version": 1, "components": lock_components}, canonical=True)
    listed = [
        {"path": path, "size": len(data), "media_type": media_type(path), "hash_blake3": blake3(data).hexdigest()}
        for path, data in sorted(entries.items(), key=lambda item: item[0].encode())
    ]
    entries[SBOM] = cbor.encode({"format": SBOM_FORMAT, "files": listed}, canonical=True)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path, data in entries.items():
            info = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = (_S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return out.getvalue()
