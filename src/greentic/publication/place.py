"""Where published environments lie: a registry, a directory, or a web server that serves such a directory.

Rules:
1. `oci://…` is a registry; `https://…` and `http://…` serve an OCI image layout; a path or `file://…` is one. Writing goes to registries
   and directories.
2. A question that is repeated is conditional: what stands under the name is sent only if it is not what is known
   (`unchanged`).
3. Manifests and blobs are asked for by digest, and what comes is compared with it, so that a place can withhold, and not lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from greentic.ground import variables
from greentic.ground.errors import InvalidArgument
from greentic.net.addresses import REGISTRIES, WEB, check_authored, lower_scheme, shown
from greentic.net.document import file_path
from greentic.net.terms import Terms
from greentic.publication.artifact import (
    Edition,
    Pressed,
    document_tag,
    edition_of,
    unpress,
)
from greentic.registry.media_types import EMPTY
from greentic.registry.reference import mapped

MAX_HISTORY = 200


class Place(Protocol):
    """One name at one place. Methods raise `FetchError`, writing ones `IoError` as well."""

    def newest(self, known: str | None = None) -> bytes | None:
        """The manifest under the name; nothing if it is the known one. Raises `FetchError` if there is none."""
        ...

    def manifest(self, name: str) -> bytes | None:
        """A manifest by digest, which it then has, or by another name; nothing if it is not there."""
        ...

    def blob(self, digest: str, size: int) -> bytes: ...

    def put_blob(self, data: bytes) -> bool:
        """Store bytes under their digest; whether they had to be sent."""
        ...

    def put_manifest(self, data: bytes, *names: str) -> None:
        """Store a manifest under its digest and further names; none means the place's own name."""
        ...


def place_of(reference: str, terms: Terms, *, push: bool = False) -> Place:
    """The place that a reference names. Raises `FetchError`, or `InvalidArgument` for one that cannot be written to."""
    text = lower_scheme(reference.strip())
    check_authored(text, "a published environment's address")
    asked = terms if push else terms.soon()
    if text.startswith(REGISTRIES):
        from greentic.publication.registry_place import RegistryPlace

        return RegistryPlace(mapped(text, variables.environment()), asked, push=push)
    if text.startswith(WEB):
        from greentic.publication.layout_place import WebLayout

        if push:
            raise InvalidArgument(
                f"`{shown(text)}` cannot be published to", hint="publish to the directory that the web server serves"
            )
        return WebLayout(text, asked)
    if "://" in text and not text.startswith("file://"):
        raise InvalidArgument(
            f"`{shown(text)}` is no place of a published environment",
            hint="oci://registry/repository:tag, https://…, or a directory",
        )
    from greentic.publication.layout_place import Layout

    if not text:
        raise InvalidArgument("the place of the published environment is empty")
    return Layout(Path(file_path(text)))


def is_directory(reference: str) -> bool:
    """Whether a reference names a directory of this machine."""
    return "://" not in reference or lower_scheme(reference).startswith("file://")


def newest(place: Place, where: str, known: str | None = None) -> Edition | None:
    """What is published now; nothing if it is the known one. Raises `FetchError`."""
    data = place.newest(known)
    if data is None:
        return None
    found = edition_of(data, shown(where))
    return None if found.digest == known else found


def by_name(place: Place, name: str, where: str) -> Edition | None:
    """The edition with a manifest's digest or another name; nothing if it is not there. Raises `FetchError`."""
    data = place.manifest(name)
    return None if data is None else edition_of(data, shown(where))


def history(place: Place, where: str) -> Iterator[Edition]:
    """What is and was published, the newest first, as far as it is still there. Raises `FetchError`."""
    edition = newest(place, where)
    for _ in range(MAX_HISTORY):
        if edition is None:
            return
        yield edition
        before = edition.previous
        edition = None if before is None else by_name(place, before, where)


def read_document(place: Place, edition: Edition, where: str) -> bytes:
    """The document of an edition. Raises `FetchError`."""
    return unpress(place.blob(edition.layer, edition.layer_size), edition, shown(where))


def push(place: Place, pressed: Pressed, manifest: bytes, *, named: bool = True) -> bool:
    """Publish a document and its manifest, under the place's name if `named`; whether the document had to be sent."""
    place.put_blob(EMPTY)
    moved = place.put_blob(pressed.layer)
    place.put_manifest(manifest, document_tag(pressed.document))
    if named:
        place.put_manifest(manifest)
    return moved
