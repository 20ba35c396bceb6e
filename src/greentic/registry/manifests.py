"""Manifests of a registry: reading, resolving and storing them, and which layer is the bundle.

Rules:
1. A manifest is bounded in size, and is the one that its digest names.
2. An index leads to its first manifest of this platform, else to its first one, a few times at most. What says of a manifest beside
   it how it was built (an attestation, of no platform) is none of them, unless there is nothing else.
3. The bundle is the first layer of the types that bundles are published as, else the first layer. Its type must be one of the list.
"""

from __future__ import annotations

import platform
from urllib.parse import quote

import msgspec

from greentic.ground.documents import parse
from greentic.ground.errors import FetchError
from greentic.model.ids import digest_of_bytes, is_digest
from greentic.net.request import PULLING, read_body
from greentic.net.terms import Terms
from greentic.registry.client import Registry
from greentic.registry.media_types import ACCEPTED, LAYER_ENDINGS, LAYER_TYPES, PREFERRED

MAX_MANIFEST = 4 << 20
MAX_INDEXES = 3
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Manifest(msgspec.Struct, frozen=True):
    """A manifest as it came."""

    digest: str
    document: dict[str, object]


class Layer(msgspec.Struct, frozen=True):
    """The layer that is the bundle."""

    digest: str
    size: int | None
    media_type: str


def read_manifest(registry: Registry, wanted: str) -> Manifest | None:
    """A manifest by tag or digest; nothing if it is not there. Raises `FetchError`."""

    def question(terms: Terms) -> bytes | None:
        accept = {"Accept": ", ".join(ACCEPTED)}
        answer = registry.request(registry.url(f"manifests/{quote(wanted, safe=':')}"), terms, headers=accept)
        if answer.status == 404:
            answer.close()
            return None
        registry.check(answer, 200)
        return read_body(answer, f"failed to pull `{registry.reference}`: the manifest", MAX_MANIFEST)

    data = registry.ask(question)
    if data is None:
        return None
    digest = digest_of_bytes(data)
    if wanted.startswith("sha256:") and digest != wanted:
        raise FetchError(f"digest mismatch for `{registry.reference}`: expected {wanted}, got {digest}")
    try:
        document = parse(data)
    except ValueError as error:
        raise FetchError(f"failed to pull `{registry.reference}`: the manifest is no JSON object ({error})") from None
    if not isinstance(document, dict):
        raise FetchError(f"failed to pull `{registry.reference}`: the manifest is no JSON object")
    return Manifest(digest, dict[str, object](document))


def resolve_manifest(registry: Registry, wanted: str) -> Manifest:
    """The manifest of a tag or digest; through an index, if it is one (rule 2). Raises `FetchError`."""
    for _ in range(MAX_INDEXES):
        manifest = read_manifest(registry, wanted)
        if manifest is None:
            raise FetchError(f"{PULLING} {registry}: http status: 404")
        listed = manifest.document.get("manifests")
        if not isinstance(listed, list):
            return manifest
        wanted = _of_platform(listed, str(registry.reference))
    raise FetchError(f"failed to pull `{registry.reference}`: indexes lead to indexes")


def put_manifest(registry: Registry, wanted: str, data: bytes, media_type: str) -> str:
    """Store a manifest under a tag or its digest; its digest. Raises `FetchError`."""

    def question(terms: Terms) -> None:
        url, headers = registry.url(f"manifests/{quote(wanted, safe=':')}"), {"Content-Type": media_type}
        answer = registry.request(url, terms, method="PUT", headers=headers, body=data)
        registry.check(answer, 200, 201, 204)
        answer.close()

    registry.ask(question)
    return digest_of_bytes(data)


def _of_platform(listed: list[object], told: str) -> str:
    ours = _MACHINES.get(platform.machine(), platform.machine())
    digests: list[str] = []
    about: list[str] = []
    for item in listed:
        digest = item.get("digest") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(digest, str) or not is_digest(digest):
            continue
        wanted = item.get("platform")
        if isinstance(wanted, dict) and wanted.get("architecture") == ours and wanted.get("os") == "linux":
            return digest
        (about if _is_about_another(item) else digests).append(digest)
    if not digests and not about:
        raise FetchError(f"failed to pull `{told}`: the index lists no manifest")
    return (digests or about)[0]


def _is_about_another(item: dict[object, object]) -> bool:
    platform_, notes = item.get("platform"), item.get("annotations")
    unknown = isinstance(platform_, dict) and platform_.get("os") == platform_.get("architecture") == "unknown"
    return unknown or (isinstance(notes, dict) and "vnd.docker.reference.type" in notes)


def layer_of(manifest: Manifest, told: str) -> Layer:
    """The layer that is the bundle (rule 3). Raises `FetchError`."""
    listed = manifest.document.get("layers", manifest.document.get("blobs"))
    layers: list[Layer] = []
    for item in listed if isinstance(listed, list) else []:
        digest = item.get("digest") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(digest, str) or not is_digest(digest):
            raise FetchError(f"failed to pull `{told}`: a layer has no sha256 digest")
        size = item.get("size")
        layers.append(Layer(digest, size if type(size) is int and size >= 0 else None, str(item.get("mediaType", ""))))
    if not layers:
        raise FetchError(f"no layers returned for `{told}`")
    for layer in layers:
        if layer.media_type not in LAYER_TYPES and not layer.media_type.endswith(LAYER_ENDINGS):
            raise FetchError(f"failed to pull `{told}`: incompatible layer media type `{layer.media_type[:100]}`")
    return next((layer for kind in PREFERRED for layer in layers if layer.media_type == kind), layers[0])
