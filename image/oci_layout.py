"""Writes an image as one tar file: an OCI layout that `docker load`, `ctr images import` and `kind load image-archive` take.

The same input gives the same bytes: entries are sorted, times are zero, owners are root, compression carries no name or time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EPOCH = "1970-01-01T00:00:00Z"


class Layer(NamedTuple):
    """A packed layer, with the digest of what it unpacks to."""

    data: bytes
    unpacked: str

    @classmethod
    def of_tree(cls, root: Path) -> Layer:
        """Everything below `root`: directories 0755, files 0644 or 0755, links as they are."""
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(root.rglob("*")):
                _add(tar, path, path.relative_to(root).as_posix())
        return cls._packed(plain.getvalue())

    @classmethod
    def of_files(cls, files: dict[str, Path]) -> Layer:
        """The named files alone."""
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, path in sorted(files.items()):
                _add(tar, path, name)
        return cls._packed(plain.getvalue())

    @classmethod
    def _packed(cls, plain: bytes) -> Layer:
        packed = io.BytesIO()
        with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as file:
            file.write(plain)
        return cls(packed.getvalue(), _digest(plain))


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
        tar.addfile(info)
    elif stat.S_ISDIR(status.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        tar.addfile(info)
    else:
        info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o111 else 0o644
        with path.open("rb") as file:
            tar.addfile(info, file)


def write_layout(
    target: Path,
    name: str,
    layers: list[Layer],
    *,
    entrypoint: list[str],
    user: str,
    environment: list[str] | None = None,
    architecture: str = "amd64",
) -> str:
    """Write the image to `target` and return the digest of its manifest, which names it for good."""
    config = _json({
        "created": EPOCH, "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": user, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", *(environment or [])], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer.unpacked for layer in layers]},
        "history": [{"created": EPOCH, "created_by": "greentic image"} for _ in layers],
    })  # fmt: skip
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, config),
            "layers": [_descriptor(LAYER, layer.data) for layer in layers],
        }
    )
    described = _descriptor(MANIFEST, manifest) | {
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]},
    }
    blobs = {_digest(data): data for data in (config, manifest, *(layer.data for layer in layers))}
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(
            {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described]}
        ),
        # Read by older versions of `docker load`.
        "manifest.json": _json(
            [
                {
                    "Config": _blob(_digest(config)),
                    "RepoTags": [name],
                    "Layers": [_blob(_digest(layer.data)) for layer in layers],
                }
            ]
        ),
        **{_blob(digest): data for digest, data in sorted(blobs.items())},
    }
    temporary = target.with_name(f".{target.name}.new")
    with temporary.open("wb") as file:
        _write_tar(file, files)
    temporary.replace(target)
    return _digest(manifest)


def _write_tar(file: BinaryIO, files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for directory in ("blobs", "blobs/sha256"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
