"""Signatures that stand beside a bundle, wherever that is.

A file and a web server have them at the bundle's address with `.sig` behind it, a registry as referrers of its manifest.
Having none is no error; what they prove is not decided here.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from greentic.distribute.oci_reference import mapped
from greentic.distribute.oci_registry import Registry
from greentic.distribute.oci_source import layer_of, resolve_manifest
from greentic.distribute.publish import SIGNATURE, referrers
from greentic.distribute.request import check_status, send
from greentic.ground.errors import FetchError

MAX_SIGNATURE = 1 << 20
MAX_REFERRERS = 32


def signatures_at(reference: str) -> list[bytes]:
    """The signature files of a bundle. Raises `FetchError` for a place that cannot be asked."""
    if reference.startswith(("oci://", "repo://", "store://")):
        return _of_registry(reference)
    if reference.startswith(("http://", "https://")):
        data = read_small(_beside(reference), MAX_SIGNATURE)
        return [] if data is None else [data]
    path = Path(reference.removeprefix("file://"))
    data = _file(path.with_name(f"{path.name}.sig"), MAX_SIGNATURE)
    return [] if data is None else [data]


def read_small(reference: str, limit: int) -> bytes | None:
    """A small document over http, https or from a file; nothing if it is not there. Raises `FetchError`."""
    if not reference.startswith(("http://", "https://")):
        if "://" in reference and not reference.startswith("file://"):
            raise FetchError(f"`{reference}` is no address of a document; expected https://, http:// or file://")
        return _file(Path(reference.removeprefix("file://")), limit)
    answer = send(reference, reference)
    if answer.status in (404, 410):
        answer.close()
        return None
    check_status(answer, reference, 200)
    try:
        data = answer.body.read(limit + 1)
    except (OSError, ValueError) as error:
        raise FetchError(f"`{reference}` could not be read: {error}") from error
    finally:
        answer.close()
    if len(data) > limit:
        raise FetchError(f"`{reference}` is larger than {limit} bytes")
    return data


def _beside(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path}.sig"))


def _file(path: Path, limit: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FetchError(f"`{path}` cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise FetchError(f"`{path}` is larger than {limit} bytes")
    return data


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
        data = answer.body.read(MAX_SIGNATURE)
        answer.close()
        found.append(data)
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
