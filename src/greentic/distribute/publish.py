"""Putting a bundle where workers can pull it: a directory, or a registry (spec: worker 3.4).

Rules:
1. Publishing is writing by content: what is there already is not written again, and a directory entry comes by rename.
2. An artifact has one layer of a type that every worker accepts, and annotations that say what it is.
3. A signature goes beside the bundle as `<name>.sig`, or into the registry as a referrer of the manifest: found by the tag
   `sha256-<hex>`, as registries without a referrers interface have it.
4. What is returned is what `revisions stage` takes: the address by digest, and the bundle's digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urljoin, urlsplit

from greentic.distribute.oci_source import BUNDLE_LAYER
from greentic.ground.errors import FetchError, InvalidArgument
from greentic.net.request import Answer, check_status
from greentic.registry.client import INDEX, MANIFEST, Registry
from greentic.registry.reference import OciReference, mapped
from greentic.trust.gate import digest_of

ARTIFACT = "application/vnd.greentic.gtbundle.v1"
SIGNATURE = "application/vnd.dsse.envelope.v1+json"
SIGNATURE_SUFFIX = ".sig"
_PIECE = 16 << 20
"""Bytes of an upload that are sent at once."""
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


class Published(NamedTuple):
    uri: str
    digest: str
    size: int
    moved: bool
    """Whether the bytes had to be written."""
    signature: str | None
    """Where the signature went, if there is one."""


class Bundle(NamedTuple):
    """What is published."""

    name: str
    file: BinaryIO
    digest: str
    size: int
    signature: bytes | None
    annotations: dict[str, str]


def publish(bundle: Bundle, target: str) -> Published:
    """Publish to a directory (a path or `file://`) or to `oci://…`. Raises `FetchError`, `InvalidArgument` or `OSError`."""
    if target.startswith(("oci://", "repo://", "store://")):
        return _to_registry(bundle, mapped(target, os.environ))
    if "://" in target and not target.startswith("file://"):
        raise InvalidArgument(
            f"`{target}` is no place to publish to",
            hint="a directory, file:///directory, or oci://registry/repository:tag",
        )
    return _to_directory(bundle, Path(target.removeprefix("file://")))


def _to_directory(bundle: Bundle, directory: Path) -> Published:
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / bundle.name
    moved = True
    with contextlib.suppress(OSError), target.open("rb") as there:
        moved = digest_of(there)[0] != bundle.digest
    if moved:
        temporary = directory / f".{bundle.name}.{os.getpid()}.tmp"
        try:
            with temporary.open("wb") as out:
                bundle.file.seek(0)
                shutil.copyfileobj(bundle.file, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    signature = None
    if bundle.signature is not None:
        beside = directory / f"{bundle.name}{SIGNATURE_SUFFIX}"
        beside.write_bytes(bundle.signature)
        signature = str(beside)
    return Published(f"file://{target.resolve()}", bundle.digest, bundle.size, moved, signature)


def _to_registry(bundle: Bundle, reference: OciReference) -> Published:
    if reference.digest is not None:
        raise InvalidArgument(f"`{reference}` names a digest; publish under a tag")
    registry = Registry(reference, push=True)
    moved = _put_blob(registry, bundle.file, bundle.digest, bundle.size)
    title = {"org.opencontainers.image.title": bundle.name, **bundle.annotations}
    layer = {"mediaType": BUNDLE_LAYER, "digest": bundle.digest, "size": bundle.size, "annotations": title}
    data = _manifest(registry, ARTIFACT, [layer], bundle.annotations, None)
    digest = registry.put_manifest(reference.wanted, data, MANIFEST)
    signature = None
    if bundle.signature is not None:
        signature = attach(registry, digest, len(data), bundle.signature, SIGNATURE)
    uri = f"oci://{reference.registry}/{reference.repository}@{digest}"
    return Published(uri, bundle.digest, bundle.size, moved, signature)


def attach(registry: Registry, subject: str, subject_size: int, data: bytes, kind: str) -> str:
    """Store data as a referrer of a manifest (rule 3); the digest of its own manifest."""
    blob = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _put_bytes(registry, data)
    of = {"mediaType": MANIFEST, "digest": subject, "size": subject_size}
    document = _manifest(registry, kind, [{"mediaType": kind, "digest": blob, "size": len(data)}], {}, of)
    digest = registry.put_manifest(f"sha256:{hashlib.sha256(document).hexdigest()}", document, MANIFEST)
    entry = {"mediaType": MANIFEST, "artifactType": kind, "digest": digest, "size": len(document)}
    tag = referrers_tag(subject)
    others = [item for item in referrers(registry, subject) if item.get("digest") != digest]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, entry]}
    registry.put_manifest(tag, json.dumps(index).encode(), INDEX)
    return digest


def referrers_tag(digest: str) -> str:
    return digest.replace(":", "-")


def referrers(registry: Registry, digest: str) -> list[dict[str, object]]:
    """What refers to a manifest, by its tag; nothing if there is none."""
    try:
        found = registry.manifest(referrers_tag(digest)).document.get("manifests")
    except FetchError:
        return []
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _manifest(
    registry: Registry, kind: str, layers: list[dict[str, object]], annotations: dict[str, str], subject: object
) -> bytes:
    _put_bytes(registry, _EMPTY)
    config = {"mediaType": _EMPTY_TYPE, "digest": f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}", "size": len(_EMPTY)}
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": config,
        "layers": layers,
    }
    if subject is not None:
        document["subject"] = subject
    if annotations:
        document["annotations"] = annotations
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _put_bytes(registry: Registry, data: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if registry.has_blob(digest):
        return
    url = registry.start_upload()
    _finish(registry, url, digest, data)


def _put_blob(registry: Registry, file: BinaryIO, digest: str, size: int) -> bool:
    """Upload a bundle in pieces, unless it is there; whether it had to be."""
    if registry.has_blob(digest):
        return False
    url = registry.start_upload()
    file.seek(0)
    sent = 0
    while sent < size:
        piece = file.read(_PIECE)
        if not piece:
            raise FetchError(f"the bundle ended after {sent} of {size} bytes")
        if sent + len(piece) == size:
            _finish(registry, url, digest, piece, sent)
            return True
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{sent}-{sent + len(piece) - 1}"}
        answer = registry.request(url, method="PATCH", headers=headers, body=piece)
        check_status(answer, f"oci://{registry.reference}", 202)
        url = _next(url, answer)
        sent += len(piece)
    _finish(registry, url, digest, b"")
    return True


def _finish(registry: Registry, url: str, digest: str, data: bytes, begin: int = 0) -> None:
    joined = f"{url}{'&' if urlsplit(url).query else '?'}digest={digest}"
    headers = {"Content-Type": "application/octet-stream"}
    if begin:
        headers["Content-Range"] = f"{begin}-{begin + len(data) - 1}"
    answer = registry.request(joined, method="PUT", headers=headers, body=data)
    check_status(answer, f"oci://{registry.reference}", 201)
    answer.close()


def _next(url: str, answer: Answer) -> str:
    location = answer.headers.get("Location") or ""
    answer.close()
    return urljoin(url, location) if location else url
