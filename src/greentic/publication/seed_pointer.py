"""The pointer that the existing deployer writes into a seed as its `environment.json` (formats: publication 5).

Rules:
1. A document with the member `$greentic_seed_pointer` is a pointer and no environment. It names an artifact by the digest of its
   manifest, never by a tag, and the document by its sha256 and size; what comes is that document, or it is refused.
2. The artifact has one layer, of one of three types.
"""

from __future__ import annotations

import hashlib

import msgspec

from greentic.ground.documents import Document, from_json, parse
from greentic.ground.errors import FetchError, SpecViolation
from greentic.model.environment import DOCUMENT
from greentic.model.ids import is_digest
from greentic.net.request import check_status, read_body
from greentic.net.terms import Terms
from greentic.registry.client import Registry
from greentic.registry.manifests import read_manifest
from greentic.registry.reference import parse as read_reference

_MARK = "$greentic_seed_pointer"
MAX_DOCUMENT = 1 << 30
LAYER_TYPES = ("application/vnd.greentic.environment.v1+json", "application/json", "application/octet-stream")


class SeedPointer(Document, frozen=True, kw_only=True):
    """What an environment document stands for that is none."""

    uri: str
    """`host[:port]/repository@sha256:…`, with the digest of the manifest."""
    sha256: str
    """Of the document, in hex."""
    size: int
    kind: str
    version: int = msgspec.field(name=_MARK)

    @property
    def document(self) -> str:
        """The digest of the document."""
        return f"sha256:{self.sha256}"


def read_seed_pointer(data: bytes) -> SeedPointer | None:
    """The pointer that a seed has as its document; nothing for an environment. Raises `SpecViolation` for one that makes no sense."""
    try:
        whole = parse(data)
        if not isinstance(whole, dict) or _MARK not in whole:
            return None
        found = from_json(SeedPointer, whole)
    except (ValueError, SpecViolation) as error:
        why = getattr(error, "message", error)
        raise SpecViolation(f"the pointer in {DOCUMENT} does not parse: {why}") from None
    digest = found.uri.partition("@")[2]
    for wrong, what in (
        (found.version != 1, f"has version {found.version}, expected 1"),
        (found.kind != "oci", f"is of kind `{found.kind[:80]}`, expected `oci`"),
        (not is_digest(digest), "names no manifest by its digest (…@sha256:…); a tag may be moved"),
        (not is_digest(found.document), f"has the sha256 `{found.sha256[:80]}`, expected 64 hex digits"),
        (not 0 <= found.size <= MAX_DOCUMENT, f"has the size {found.size}, expected at most {MAX_DOCUMENT}"),
    ):
        if wrong:
            raise SpecViolation(f"the pointer in {DOCUMENT} {what}")
    return found


def read_seeded(pointer: SeedPointer, terms: Terms) -> bytes:
    """The document that a pointer names. Raises `FetchError` if it cannot be had, or is another."""
    registry = Registry(read_reference(pointer.uri.removeprefix("oci://")), terms)
    manifest = read_manifest(registry, registry.reference.wanted)
    if manifest is None:
        raise FetchError(f"`{registry}`, which the pointer in {DOCUMENT} names, is not there")
    layers = manifest.document.get("layers")
    layer = layers[0] if isinstance(layers, list) and len(layers) == 1 else None
    digest = layer.get("digest") if isinstance(layer, dict) else None
    if not isinstance(layer, dict) or not isinstance(digest, str) or not is_digest(digest):
        raise FetchError(f"`{registry}`: expected one layer with the environment")
    if layer.get("mediaType") not in LAYER_TYPES:
        raise FetchError(
            f"`{registry}`: the layer is `{str(layer.get('mediaType'))[:80]}`, expected `{LAYER_TYPES[0]}`"
        )

    def question(terms: Terms) -> bytes:
        answer = registry.request(registry.url(f"blobs/{digest}"), terms)
        check_status(answer, str(registry), 200)
        return read_body(answer, f"`{registry}`: the environment", pointer.size)

    data = registry.ask(question)
    if len(data) != pointer.size:
        raise FetchError(f"`{registry}` holds {len(data)} bytes, and the pointer in {DOCUMENT} says {pointer.size}")
    if hashlib.sha256(data).hexdigest() != pointer.sha256:
        raise FetchError(f"`{registry}` holds another document than the pointer in {DOCUMENT} names")
    return data
