"""The format of a published environment: one OCI manifest, one compressed document (formats: publication 1). Pure.

Rules:
1. A manifest says which environment, which generation and which document it is for, and which manifest stood under the name before. What
   it says is a claim; the seal of the document is what is believed.
2. The layer is the document, compressed; the same document gives the same layer. Both are named by their digests, and what comes is
   compared with them before it is parsed.
3. A document is taken apart only up to `MAX_ENVIRONMENT` bytes, however small it came.
4. A document says the generation and the environment that its manifest says, or it is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import msgspec

from greentic.ground.documents import JsonObject, compact, parse
from greentic.ground.errors import FetchError, GreenticError
from greentic.model.delivery import delivery_of
from greentic.model.environment import Environment, document_digest
from greentic.model.ids import digest_of_bytes, is_digest, is_env_id
from greentic.registry.media_types import EMPTY, EMPTY_TYPE, MANIFEST

ARTIFACT = "application/vnd.greentic.environment.v1"
LAYER = "application/vnd.greentic.environment.v1+gzip"
MAX_MANIFEST = 1 << 20
MAX_ENVIRONMENT, MAX_LAYER = 64 << 20, 32 << 20
_LEVEL = 6
_PREFIX = "ai.greentic.environment."
_ID, _GENERATION, _DOCUMENT = f"{_PREFIX}id", f"{_PREFIX}generation", f"{_PREFIX}document"
_PREVIOUS, _OF = f"{_PREFIX}previous", f"{_PREFIX}rollback-of"
_CREATED = "org.opencontainers.image.created"


class DamagedPublication(FetchError):
    """A place that answers, with what is not whole, not what it is called, or no published environment."""


class NothingPublished(FetchError):
    """A place that answers, and holds nothing under the name."""


class Edition(msgspec.Struct, frozen=True):
    """One published generation, as its manifest describes it (rule 1)."""

    digest: str
    """Of the manifest."""
    env_id: str
    generation: int
    document: str
    """The document's digest."""
    layer: str
    layer_size: int
    previous: str | None
    """The manifest that stood under the name before."""
    rollback_of: int | None
    """The generation whose content this is, if it was published again."""
    created: str


def one_step_back(newest_first: Iterable[Edition]) -> Edition | None:
    """The edition before the one whose content stands there now: what was gone back from is never gone forward to."""
    standing: int | None = None
    for edition in newest_first:
        if standing is None or edition.generation == standing:
            standing = edition.generation if edition.rollback_of is None else edition.rollback_of
        elif edition.generation < standing:
            return edition
    return None


class Pressed(msgspec.Struct, frozen=True):
    """A document as it is pushed."""

    document: str
    """Its digest."""
    layer: bytes
    layer_digest: str


def as_asked(data: bytes, name: str, where: str) -> bytes:
    """A manifest that was asked for by a name. Raises `DamagedPublication` if the name is a digest, and that of others."""
    if name.startswith("sha256:") and digest_of_bytes(data) != name:
        raise DamagedPublication(f"`{where}`: the manifest is {digest_of_bytes(data)}, asked for was {name}")
    return data


def document_tag(digest: str) -> str:
    """The name under which the manifest of one document is found, whoever pushed it."""
    return f"document-{digest.removeprefix('sha256:')}"


def press(document: bytes) -> Pressed:
    """Compress a document (rule 2)."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
    layer = compressor.compress(document) + compressor.flush()
    return Pressed(document_digest(document), layer, digest_of_bytes(layer))


def unpress(layer: bytes, edition: Edition, where: str) -> bytes:
    """The document of a layer. Raises `DamagedPublication` for bytes that are not the ones that the manifest names (rules 2 and 3)."""
    if digest_of_bytes(layer) != edition.layer:
        raise DamagedPublication(
            f"`{where}`: the layer is {digest_of_bytes(layer)}, and its manifest names {edition.layer}"
        )
    expander = zlib.decompressobj(31)
    try:
        data = expander.decompress(layer, MAX_ENVIRONMENT + 1)
    except zlib.error as error:
        raise DamagedPublication(f"`{where}`: the layer is no compressed document ({error})") from None
    if len(data) > MAX_ENVIRONMENT:
        raise DamagedPublication(f"`{where}`: the document is larger than {MAX_ENVIRONMENT} bytes")
    if not expander.eof or expander.unused_data:
        raise DamagedPublication(f"`{where}`: the layer is no whole compressed document")
    if document_digest(data) != edition.document:
        raise DamagedPublication(
            f"`{where}`: the document is {document_digest(data)}, and its manifest names {edition.document}"
        )
    return data


def check_claims(edition: Edition, env: Environment, where: str) -> None:
    """Raise `DamagedPublication` if a document is not of the generation that its manifest says (rule 4)."""
    try:
        generation = delivery_of(env).generation
    except GreenticError as error:
        raise DamagedPublication(f"`{where}`: {error.message}") from None
    if (env.environment_id, generation) != (edition.env_id, edition.generation):
        raise DamagedPublication(
            f"`{where}`: the document is environment `{env.environment_id}`, generation {generation}; its manifest says "
            f"`{edition.env_id}`, generation {edition.generation}"
        )


def manifest_of(
    env_id: str, generation: int, pressed: Pressed, previous: str | None, rollback_of: int | None, created: str
) -> bytes:
    """The bytes of a manifest; the same values give the same bytes."""
    annotations: JsonObject = {
        _ID: env_id,
        _GENERATION: str(generation),
        _DOCUMENT: pressed.document,
        _CREATED: created,
    }
    if previous is not None:
        annotations[_PREVIOUS] = previous
    if rollback_of is not None:
        annotations[_OF] = str(rollback_of)
    layer: JsonObject = {"mediaType": LAYER, "digest": pressed.layer_digest, "size": len(pressed.layer)}
    document: JsonObject = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": EMPTY_TYPE, "digest": digest_of_bytes(EMPTY), "size": len(EMPTY)},
        "layers": [layer],
        "annotations": annotations,
    }
    return compact(document, sort=True)


def edition_of(data: bytes, where: str) -> Edition:
    """What a manifest says. Raises `DamagedPublication` for one that is no manifest of an environment."""

    def refuse(reason: str) -> DamagedPublication:
        return DamagedPublication(
            f"`{where}` is no published environment: {reason}", hint="gtc op env publish makes one"
        )

    try:
        raw = parse(data, limit=MAX_MANIFEST)
    except ValueError as error:
        raise refuse(str(error)) from None
    if not isinstance(raw, dict) or raw.get("artifactType") != ARTIFACT:
        kind = raw.get("artifactType") if isinstance(raw, dict) else None
        raise refuse(f"its artifact type is `{str(kind)[:100]}`, expected `{ARTIFACT}`")
    told, layers = raw.get("annotations"), raw.get("layers")
    layer = layers[0] if isinstance(layers, list) and len(layers) == 1 else None
    if not isinstance(told, dict) or not isinstance(layer, dict) or layer.get("mediaType") != LAYER:
        raise refuse(f"expected annotations and one layer of type `{LAYER}`")
    env_id, document, digest, size = told.get(_ID), told.get(_DOCUMENT), layer.get("digest"), layer.get("size")
    generation, previous = _number(told.get(_GENERATION)), told.get(_PREVIOUS)
    if not isinstance(env_id, str) or not is_env_id(env_id):
        raise refuse(f"the annotation `{_ID}` is no environment's id")
    if generation is None:
        raise refuse(f"the annotation `{_GENERATION}` is no generation")
    if not isinstance(document, str) or not is_digest(document) or not isinstance(digest, str) or not is_digest(digest):
        raise refuse("document and layer are not named by their sha256")
    if type(size) is not int or not 0 < size <= MAX_LAYER:
        raise refuse(f"its layer is said to have {str(size)[:30]} bytes; at most {MAX_LAYER} are taken")
    if previous is not None and (not isinstance(previous, str) or not is_digest(previous)):
        raise refuse(f"the annotation `{_PREVIOUS}` is no digest")
    return Edition(
        digest_of_bytes(data), env_id, generation, document, digest, size, previous, _number(told.get(_OF)), str(told.get(_CREATED, ""))
    )  # fmt: skip


def _number(text: object) -> int | None:
    """A generation as text; ids of more digits than any counter reaches are none."""
    if not isinstance(text, str) or not (text.isascii() and text.isdigit() and len(text) <= 18):
        return None
    return int(text)
