"""Putting a bundle where workers can pull it: a directory, or a registry (formats: delivery 4).

Rules:
1. Publishing is writing by content: what is there already is not written again, and a directory entry comes by rename.
2. An artifact has one layer of a type that every worker accepts, and annotations that say what it is.
3. A signature goes beside the bundle as `<name>.sig`, or into the registry as a referrer of the manifest: found by the tag
   `sha256-<hex>`, as registries without a referrers interface have it.
4. What is returned is what `revisions stage` takes: the address by digest, and the bundle's digest.
5. A directory has one bundle a name. Where another one stood, that is told, for what pinned it is pulled from there no more; its
   signature goes with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from greentic.distribute.source import SIGNATURE_SUFFIX
from greentic.ground import variables
from greentic.ground.disk import make_directory, place, replace_file, sync_file
from greentic.ground.documents import open_file
from greentic.ground.errors import InvalidArgument
from greentic.net.addresses import REGISTRIES, check_authored, lower_scheme
from greentic.net.document import file_path
from greentic.net.terms import Terms, terms_of
from greentic.registry.client import Registry
from greentic.registry.manifests import put_manifest
from greentic.registry.media_types import BUNDLE_LAYER, ENVELOPE, MANIFEST
from greentic.registry.reference import OciReference, mapped
from greentic.registry.referrers import attach
from greentic.registry.upload import artifact_manifest, put_blob
from greentic.trust.gate import digest_of

ARTIFACT = "application/vnd.greentic.gtbundle.v1"
UPLOAD_SECONDS = 3600.0
"""How long storing one bundle may take."""


class PublishedBundle(NamedTuple):
    uri: str
    digest: str
    size: int
    moved: bool
    """Whether the bytes had to be written."""
    signature: str | None
    """Where the signature went, if there is one."""
    replaced: str | None = None
    """The digest of another bundle that had this address until now."""


class Bundle(NamedTuple):
    """What is published."""

    name: str
    file: BinaryIO
    digest: str
    size: int
    signature: bytes | None
    annotations: dict[str, str]


def publish(bundle: Bundle, target: str, terms: Terms | None = None) -> PublishedBundle:
    """Publish to a directory (a path or `file://`) or to `oci://…`. Raises `FetchError`, `InvalidArgument` or `OSError`."""
    check_authored(target, "the place to publish to")
    target = lower_scheme(target)
    if target.startswith(REGISTRIES):
        environ = variables.environment()
        asked = terms_of(environ)._replace(total=UPLOAD_SECONDS) if terms is None else terms
        reference = mapped(target, environ)
        return _to_registry(bundle, reference, Registry(reference, asked, environ, push=True))
    if "://" in target and not target.startswith("file://"):
        raise InvalidArgument(
            f"`{target}` is no place to publish to",
            hint="a directory, file:///directory, or oci://registry/repository:tag",
        )
    return _to_directory(bundle, Path(file_path(target)))


def _to_directory(bundle: Bundle, directory: Path) -> PublishedBundle:
    make_directory(directory)
    target = directory / bundle.name
    beside = directory / f"{bundle.name}{SIGNATURE_SUFFIX}"
    before: str | None = None
    with contextlib.suppress(OSError), open_file(target) as there:
        before = digest_of(there)[0]
    moved = before != bundle.digest
    if moved:
        temporary = directory / f".{bundle.name}.{os.getpid()}.tmp"
        try:
            with temporary.open("wb") as out:
                bundle.file.seek(0)
                shutil.copyfileobj(bundle.file, out, 1 << 20)
                out.flush()
                sync_file(out.fileno())
            place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        if before is not None:
            beside.unlink(missing_ok=True)  # it is of the other bytes
    signature = None
    if bundle.signature is not None:
        replace_file(beside, bundle.signature, durable=True)
        signature = str(beside)
    replaced = before if moved else None
    return PublishedBundle(_address(target.resolve()), bundle.digest, bundle.size, moved, signature, replaced)


def _address(path: Path) -> str:
    """The address of a file: as it is, or with the escapes of URLs where its name is no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"file://{quote(os.fsencode(path))}"
    return f"file://{path}"


def _to_registry(bundle: Bundle, reference: OciReference, registry: Registry) -> PublishedBundle:
    if reference.digest is not None:
        raise InvalidArgument(f"`{reference}` names a digest; publish under a tag")
    moved = put_blob(registry, bundle.file, bundle.digest, bundle.size)
    title = {"org.opencontainers.image.title": bundle.name, **bundle.annotations}
    layer = {"mediaType": BUNDLE_LAYER, "digest": bundle.digest, "size": bundle.size, "annotations": title}
    data = artifact_manifest(registry, ARTIFACT, [layer], bundle.annotations)
    digest = put_manifest(registry, reference.wanted, data, MANIFEST)
    signature = None
    if bundle.signature is not None:
        signature = attach(registry, digest, len(data), bundle.signature, ENVELOPE)
    uri = f"oci://{reference.registry}/{reference.repository}@{digest}"
    return PublishedBundle(uri, bundle.digest, bundle.size, moved, signature)
