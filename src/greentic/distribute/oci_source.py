"""Bundles as OCI artifacts (formats: delivery 3).

Rules:
1. A manifest is resolved once for a source.
2. The layer's digest and size are known before a byte of it moves. The bundle's own digest decides in the end, like everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from greentic.distribute.http_source import body_of, range_headers
from greentic.distribute.source import MAX_SIGNATURE, Body
from greentic.ground import variables
from greentic.ground.errors import FetchError
from greentic.net.terms import Terms
from greentic.registry.client import Registry
from greentic.registry.manifests import Layer, Manifest, layer_of, resolve_manifest
from greentic.registry.media_types import ENVELOPE
from greentic.registry.reference import mapped


class OciSource:
    """Opens `oci://`, `repo://` and `store://` references."""

    def __init__(self, terms: Terms, environ: Mapping[str, str] | None = None, *, mirror: bool = False) -> None:
        self._terms, self._mirror = terms, mirror
        self._environ = variables.environment() if environ is None else environ
        self._resolved: dict[str, tuple[Registry, Layer]] = {}

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        registry, layer = self.resolve(reference)
        # The address of a blob is its digest: a part is of the same file without a validator.
        url, headers = registry.url(f"blobs/{layer.digest}"), range_headers(offset, None, end)
        body = body_of(registry.request(url, self._terms.begun(), headers=headers), str(registry), offset, end)
        if layer.size is not None and body.total not in (None, layer.size):
            body.close()
            raise FetchError(
                f"failed to pull `{registry}`: the layer has {body.total} bytes, the manifest says {layer.size}"
            )
        if body.total is None:  # a proxy may have dropped the length
            body.length = body.total = layer.size
            body.untold_end = body.untold_end and layer.size is None
        body.digest, body.validator, body.resumable = layer.digest, None, True
        return body

    def signatures(self, reference: str) -> list[bytes]:
        from greentic.registry.referrers import attached  # a worker asks for no signatures

        registry, subject = self._manifest(reference)
        return attached(registry, subject.digest, ENVELOPE, MAX_SIGNATURE)

    def resolve(self, reference: str) -> tuple[Registry, Layer]:
        """The registry and layer of a reference, asked for once (rule 1). Raises `FetchError`."""
        found = self._resolved.get(reference)
        if found is None:
            registry, manifest = self._manifest(reference)
            found = self._resolved[reference] = registry, layer_of(manifest, str(registry.reference))
        return found

    def _manifest(self, reference: str) -> tuple[Registry, Manifest]:
        registry = Registry(mapped(reference, self._environ), self._terms, self._environ, mirror=self._mirror)
        return registry, resolve_manifest(registry, registry.reference.wanted)
