"""What refers to a manifest: signatures, found by a tag, as registries without a referrers interface have it.

Rules:
1. `sha256-<hex>` is the tag of an index of all that refers to the manifest of that digest. That it is missing means that there is none;
   any other answer is an error, so that a busy registry neither loses the signatures of others nor makes one look unsigned.
2. Entries that are odd are passed over.
"""

from __future__ import annotations

import json

from greentic.ground.errors import FetchError
from greentic.model.ids import digest_of_bytes, is_digest
from greentic.net.request import check_status, read_body
from greentic.net.terms import Terms
from greentic.registry.client import Registry
from greentic.registry.manifests import layer_of, put_manifest, read_manifest
from greentic.registry.media_types import INDEX, MANIFEST
from greentic.registry.upload import artifact_manifest, put_bytes

MAX_REFERRERS = 32


def referrers_tag(digest: str) -> str:
    return digest.replace(":", "-")


def referrers(registry: Registry, digest: str) -> list[dict[str, object]]:
    """What refers to a manifest; nothing if there is none. Raises `FetchError` (rule 1)."""
    index = read_manifest(registry, referrers_tag(digest))
    found = None if index is None else index.document.get("manifests")
    return [dict(item) for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def attach(registry: Registry, subject: str, subject_size: int, data: bytes, kind: str) -> str:
    """Store data as a referrer of a manifest; the digest of its own manifest. Raises `FetchError`."""
    layer: dict[str, object] = {"mediaType": kind, "digest": put_bytes(registry, data), "size": len(data)}
    of = {"mediaType": MANIFEST, "digest": subject, "size": subject_size}
    document = artifact_manifest(registry, kind, [layer], {}, of)
    digest = put_manifest(registry, digest_of_bytes(document), document, MANIFEST)
    entry = {"mediaType": MANIFEST, "artifactType": kind, "digest": digest, "size": len(document)}
    others = [item for item in referrers(registry, subject) if item.get("digest") != digest]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, entry]}
    put_manifest(registry, referrers_tag(subject), json.dumps(index).encode(), INDEX)
    return digest


def attached(registry: Registry, subject: str, kind: str, limit: int) -> list[bytes]:
    """The data of every referrer of a kind, each at most `limit` bytes. Raises `FetchError`."""
    wanted = [item.get("digest") for item in referrers(registry, subject) if item.get("artifactType") == kind]
    return [
        _data(registry, digest, limit)
        for digest in wanted[:MAX_REFERRERS]
        if isinstance(digest, str) and is_digest(digest)
    ]


def _data(registry: Registry, digest: str, limit: int) -> bytes:
    manifest = read_manifest(registry, digest)
    if manifest is None:
        raise FetchError(f"`{registry}` lists the referrer {digest}, and does not have it")
    layers = manifest.document.get("layers")
    first = layers[0] if isinstance(layers, list) and layers else None
    blob = first.get("digest") if isinstance(first, dict) else None
    # Its type is ours, not one of those that bundles have.
    layer = blob if isinstance(blob, str) and is_digest(blob) else layer_of(manifest, str(registry.reference)).digest

    def question(terms: Terms) -> bytes:
        answer = registry.request(registry.url(f"blobs/{layer}"), terms)
        check_status(answer, str(registry), 200)
        return read_body(answer, f"`{registry}`", limit)

    return registry.ask(question)
