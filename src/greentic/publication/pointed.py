"""Documents that a pointer names: put into a registry, and read from there (formats: publication 5).

The name in the registry is made of the document's digest, so pushing twice is pushing once, and no name is ever moved.
"""

from __future__ import annotations

from greentic.ground.errors import FetchError
from greentic.model.delivery import delivery_of
from greentic.model.environment import Environment
from greentic.model.pointer import Pointer
from greentic.net.addresses import shown
from greentic.net.terms import Terms
from greentic.publication.artifact import DamagedPublication, document_tag, manifest_of, press
from greentic.publication.place import by_name, place_of, push, read_document


def _reference(repository: str, digest: str) -> str:
    return f"{repository}:{document_tag(digest)}"


def push_document(env: Environment, document: bytes, repository: str, terms: Terms) -> bool:
    """Put a document where its pointer will lead; whether it had to be sent. Raises `FetchError`."""
    pressed = press(document)
    where = _reference(repository, pressed.document)
    place = place_of(where, terms, push=True)
    if by_name(place, document_tag(pressed.document), where) is not None:
        return False
    manifest = manifest_of(env.environment_id, delivery_of(env).generation, pressed, None, None, "")
    return push(place, pressed, manifest, named=False)


def read_pointed(pointer: Pointer, terms: Terms) -> bytes:
    """The document that a pointer names. Raises `FetchError` if it cannot be had, or is another."""
    where = _reference(pointer.repository, pointer.document)
    place = place_of(where, terms)
    edition = by_name(place, document_tag(pointer.document), where)
    if edition is None:
        raise FetchError(
            f"`{shown(where)}` is not there, and the document of environment `{pointer.environment_id}` lies in it",
            hint="gtc op env reconcile pushes it, or gtc op env render --push",
        )
    if edition.document != pointer.document:
        raise DamagedPublication(
            f"`{shown(where)}` holds document {edition.document}, and the pointer names {pointer.document}"
        )
    return read_document(place, edition, where)
