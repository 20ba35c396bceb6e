"""Putting blobs and manifests of artifacts into a registry.

Rules:
1. What is there already is not sent again.
2. A blob goes in one request after the one that opens the upload, streamed from its file: every registry takes that, while some refuse
   a second piece.
3. An upload that fails in a way that may pass is begun anew; so is one that the registry has forgotten, as behind a balancer.
4. Whether a blob is there is asked without its bytes: by HEAD, and where there is none, or where that leads to an address that is signed
   for reading alone and refuses it, by its first byte.
"""

from __future__ import annotations

import io
import json
from typing import BinaryIO
from urllib.parse import urlsplit

from greentic.ground.errors import FetchError, ServerBusy
from greentic.model.ids import digest_of_bytes
from greentic.net.request import Upload
from greentic.net.terms import Terms
from greentic.registry.client import Registry
from greentic.registry.media_types import EMPTY, EMPTY_TYPE, MANIFEST


def put_blob(registry: Registry, file: BinaryIO, digest: str, size: int) -> bool:
    """Store a blob, unless it is there; whether it had to be sent. Raises `FetchError`."""

    def there(terms: Terms) -> bool:
        url = registry.url(f"blobs/{digest}")
        answer = registry.request(url, terms, method="HEAD")
        answer.close()
        if answer.status in (405, 501) or (answer.redirected and answer.status not in (200, 404)):
            answer = registry.request(url, terms, headers={"Range": "bytes=0-0"})
            answer.close()
        if answer.status == 404:
            return False
        registry.check(answer, 200, 206)
        return True

    def put(terms: Terms) -> None:
        opening = registry.url("blobs/uploads/")
        answer = registry.request(opening, terms, method="POST", body=b"")
        registry.check(answer, 202)
        url = registry.led_to(answer, opening)
        joined = f"{url}{'&' if urlsplit(url).query else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        answer = registry.request(joined, terms, method="PUT", headers=headers, body=Upload(file, size))
        try:
            registry.check(answer, 200, 201, 204)
        except FetchError as error:
            if answer.status == 404:
                raise ServerBusy(error.message) from None
            raise
        answer.close()

    if registry.ask(there):
        return False
    registry.ask(put)
    return True


def put_bytes(registry: Registry, data: bytes) -> str:
    """Store bytes as a blob; their digest. Raises `FetchError`."""
    digest = digest_of_bytes(data)
    put_blob(registry, io.BytesIO(data), digest, len(data))
    return digest


def artifact_manifest(
    registry: Registry, kind: str, layers: list[dict[str, object]], annotations: dict[str, str], subject: object = None
) -> bytes:
    """The manifest of an artifact, whose empty configuration is stored first. Raises `FetchError`."""
    config = {"mediaType": EMPTY_TYPE, "digest": put_bytes(registry, EMPTY), "size": len(EMPTY)}
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
