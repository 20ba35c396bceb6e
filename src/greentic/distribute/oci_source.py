"""Bundles as OCI artifacts (spec: worker 3.4).

Rules:
1. A manifest is resolved once for a source; an index leads to its first manifest of this platform, else to its first one.
2. The layer is the first of the types that bundles are published as, else the first one. Its type must be one of the list.
3. The layer's digest is known before a byte of it moves. The bundle's own digest decides in the end, like everywhere.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import NamedTuple

from greentic.distribute.http_source import body_of, range_headers
from greentic.distribute.source import Body
from greentic.ground.errors import FetchError
from greentic.model.ids import is_digest
from greentic.registry.client import Manifest, Registry
from greentic.registry.reference import mapped

BUNDLE_LAYER = "application/octet-stream"
"""What bundles are published as: the type that every worker of the field accepts."""
PREFERRED = (
    "application/vnd.greentic.pack+json", "application/vnd.greentic.gtpack.v1+zip", "application/vnd.greentic.gtpack+zip",
    "application/vnd.greentic.pack+zip", "text/markdown",
)  # fmt: skip
LAYER_TYPES = frozenset(
    {
        *PREFERRED, "application/vnd.greentic.gtpack.layer.v1+tar", BUNDLE_LAYER, "application/json",
        "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    }
)  # fmt: skip
_ENDINGS = ("+tar", "+tar+gzip", "+tar+zstd")
MAX_INDEXES = 3
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Layer(NamedTuple):
    """The layer that is the bundle."""

    digest: str
    size: int | None
    media_type: str


class OciSource:
    """Opens `oci://`, `repo://` and `store://` references."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._resolved: dict[str, tuple[Registry, Layer]] = {}

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        registry, layer = self.resolve(reference)
        shown = f"oci://{registry.reference}"
        # The address of a blob is its digest: a part is of the same file without a validator.
        answer = registry.request(registry.url(f"blobs/{layer.digest}"), headers=range_headers(offset, None, end))
        body = body_of(answer, shown, offset, end)
        if layer.size is not None and body.total not in (None, layer.size):
            body.close()
            raise FetchError(
                f"failed to pull `{shown}`: the layer has {body.total} bytes, the manifest says {layer.size}"
            )
        body.digest, body.validator, body.resumable = layer.digest, None, True
        return body

    def resolve(self, reference: str) -> tuple[Registry, Layer]:
        """The registry and layer of a reference, asked for once (rule 1). Raises `FetchError`."""
        found = self._resolved.get(reference)
        if found is None:
            registry = Registry(mapped(reference, self._environ), self._environ)
            manifest = resolve_manifest(registry, registry.reference.wanted)
            found = self._resolved[reference] = registry, layer_of(manifest, str(registry.reference))
        return found


def resolve_manifest(registry: Registry, wanted: str) -> Manifest:
    """The manifest of a tag or digest; through an index, if it is one. Raises `FetchError`."""
    for _ in range(MAX_INDEXES):
        manifest = registry.manifest(wanted)
        listed = manifest.document.get("manifests")
        if not isinstance(listed, list):
            return manifest
        wanted = _of_platform(listed, str(registry.reference))
    raise FetchError(f"failed to pull `{registry.reference}`: indexes lead to indexes")


def _of_platform(listed: list[object], shown: str) -> str:
    ours = _MACHINES.get(platform.machine(), platform.machine())
    digests: list[str] = []
    for item in listed:
        digest = item.get("digest") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(digest, str):
            continue
        wanted = item.get("platform")
        if isinstance(wanted, dict) and wanted.get("architecture") == ours and wanted.get("os") == "linux":
            return digest
        digests.append(digest)
    if not digests:
        raise FetchError(f"failed to pull `{shown}`: the index lists no manifest")
    return digests[0]


def layer_of(manifest: Manifest, shown: str) -> Layer:
    """The layer that is the bundle (rule 2). Raises `FetchError`."""
    listed = manifest.document.get("layers", manifest.document.get("blobs"))
    layers: list[Layer] = []
    for item in listed if isinstance(listed, list) else []:
        digest = item.get("digest") if isinstance(item, dict) else None
        if not isinstance(digest, str) or not is_digest(digest):
            raise FetchError(f"failed to pull `{shown}`: a layer has no sha256 digest")
        size = item.get("size")
        layers.append(Layer(digest, size if type(size) is int else None, str(item.get("mediaType", ""))))
    if not layers:
        raise FetchError(f"no layers returned for `{shown}`")
    for layer in layers:
        if layer.media_type not in LAYER_TYPES and not layer.media_type.endswith(_ENDINGS):
            raise FetchError(f"failed to pull `{shown}`: incompatible layer media type `{layer.media_type}`")
    return next((layer for kind in PREFERRED for layer in layers if layer.media_type == kind), layers[0])
