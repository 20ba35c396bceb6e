"""Signatures that stand beside a bundle, wherever that is.

A file and a web server have them at the bundle's address with `.sig` behind it, a registry as referrers of its manifest.
Having none is no error; what they prove is not decided here.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit, urlunsplit

from greentic.distribute.oci_source import layer_of, resolve_manifest
from greentic.distribute.publish import SIGNATURE, SIGNATURE_SUFFIX, referrers
from greentic.net.document import read_small
from greentic.net.request import check_status, read_body
from greentic.registry.client import Registry
from greentic.registry.reference import mapped

MAX_SIGNATURE = 1 << 20
MAX_REFERRERS = 32


def signatures_at(reference: str) -> list[bytes]:
    """The signature files of a bundle. Raises `FetchError` for a place that cannot be asked."""
    if reference.startswith(("oci://", "repo://", "store://")):
        return _of_registry(reference)
    data = read_small(_beside(reference), MAX_SIGNATURE)
    return [] if data is None else [data]


def _beside(reference: str) -> str:
    if not reference.startswith(("http://", "https://")):
        return f"{reference}{SIGNATURE_SUFFIX}"
    parts = urlsplit(reference)
    return urlunsplit(parts._replace(path=f"{parts.path}{SIGNATURE_SUFFIX}"))


def _of_registry(reference: str) -> list[bytes]:
    registry = Registry(mapped(reference, os.environ))
    subject = resolve_manifest(registry, registry.reference.wanted)
    found: list[bytes] = []
    for item in referrers(registry, subject.digest)[:MAX_REFERRERS]:
        digest = item.get("digest")
        if item.get("artifactType") != SIGNATURE or not isinstance(digest, str):
            continue
        layer = layer_of_signature(registry, digest)
        answer = registry.request(registry.url(f"blobs/{layer}"))
        check_status(answer, reference, 200)
        found.append(read_body(answer, f"`{reference}`", MAX_SIGNATURE))
    return found


def layer_of_signature(registry: Registry, digest: str) -> str:
    """The blob of a signature's manifest; its type is ours, not one of those that bundles have."""
    manifest = registry.manifest(digest)
    layers = manifest.document.get("layers")
    first = layers[0] if isinstance(layers, list) and layers else None
    blob = first.get("digest") if isinstance(first, dict) else None
    if not isinstance(blob, str):
        return layer_of(manifest, str(registry.reference)).digest
    return blob
