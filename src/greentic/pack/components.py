"""The components of a pack: which there are, where their wasm is, and whether it is the right one (formats: components 2).

Rules:
1. The components are those of the manifest; a manifest without any is believed by its `component_sources@v1` extension.
2. The sources extension says where the wasm is: inline, with a digest that must fit, or elsewhere. Without an entry there it
   is `components/<id>.wasm`. Nothing is fetched from elsewhere: what is not in the pack is missing, and the pack does not load.
3. The lock's digests are compared too; the packers of the field get them wrong, so a difference is a warning.
"""

from __future__ import annotations

import hashlib
from typing import cast

import msgspec

from greentic.ground.errors import MalformedArtifact
from greentic.pack import cbor
from greentic.pack.archive import LOCK, PackArchive
from greentic.pack.manifest import check_each_once
from greentic.wasm.format import check_component

SOURCES = "greentic.pack.component_sources@v1"
PROVIDERS = "greentic.provider-extension.v1"

Map = dict[str, object]


class PackComponent(msgspec.Struct, frozen=True):
    """A component in a pack. `manifest` is its entry, empty if only the sources extension tells of it."""

    id: str
    path: str
    sha256: str
    reference: str | None
    """Where its author had it from, such as `oci://…`; flows sometimes name it so."""
    manifest: Map


class Provider(msgspec.Struct, frozen=True):
    """A provider that a pack offers to flows."""

    provider_type: str
    component: str
    world: str
    operations: tuple[str, ...]


class _Source(msgspec.Struct, frozen=True):
    id: str
    reference: str | None
    digest: str | None
    path: str | None


def components_of(archive: PackArchive) -> tuple[list[PackComponent], list[str]]:
    """The components, wasm digests compared, and warnings. Raises `MalformedArtifact` for a missing or wrong one."""
    sources = _sources(archive)
    check_each_once(f"components of {SOURCES}", (source.id for source in sources))
    by_id = {source.id: source for source in sources}
    manifests = {record.id: record.raw for record in archive.manifest.components}
    found: list[PackComponent] = []
    missing: list[str] = []
    warnings: list[str] = []
    locked = _locked_digests(archive, warnings)
    for component_id in manifests or by_id:
        source = by_id.get(component_id)
        path = source.path if source is not None and source.path else f"components/{component_id}.wasm"
        if path not in archive.entries:
            missing.append(_told(component_id, source))
            continue
        data = archive.read(path)
        check_component(data, component_id)
        sha256 = hashlib.sha256(data).hexdigest()
        if source is not None and source.path:
            _check_digest(component_id, source.digest, data, sha256)
        if locked.get(component_id, sha256) != sha256:
            warnings.append(f"component {component_id}: its sha256 is {sha256}, and {LOCK} says {locked[component_id]}")
        reference = None if source is None else source.reference
        found.append(PackComponent(component_id, path, sha256, reference, manifests.get(component_id, {})))
    if missing:
        raise MalformedArtifact(
            f"components missing: {', '.join(missing)}; looked in components/ and {SOURCES}",
            hint="rebuild the pack with its components inside",
        )
    return found, warnings


def providers_of(archive: PackArchive) -> list[Provider]:
    """The providers that the pack declares."""
    inline = archive.manifest.extensions.get(PROVIDERS, {}).get("inline")
    listed = inline.get("providers") if isinstance(inline, dict) else None
    found: list[Provider] = []
    for item in listed if isinstance(listed, list) else []:
        runtime = item.get("runtime") if isinstance(item, dict) else None
        if not isinstance(runtime, dict) or not isinstance(runtime.get("component_ref"), str):
            continue
        operations = item.get("ops")
        found.append(
            Provider(
                str(item.get("provider_type", "")),
                runtime["component_ref"],
                str(runtime.get("world", "")),
                tuple(str(op) for op in operations) if isinstance(operations, list) else (),
            )
        )
    return found


def _sources(archive: PackArchive) -> list[_Source]:
    inline = archive.manifest.extensions.get(SOURCES, {}).get("inline")
    listed = inline.get("components") if isinstance(inline, dict) else None
    found: list[_Source] = []
    for item in listed if isinstance(listed, list) else []:
        if not isinstance(item, dict):
            continue
        name = item.get("component_id") or item.get("name")
        resolved, artifact = item.get("resolved"), item.get("artifact")
        digest = resolved.get("digest") if isinstance(resolved, dict) else None
        where = artifact.get("inline") if isinstance(artifact, dict) else None
        path = where.get("wasm_path") if isinstance(where, dict) else None
        reference = item.get("source")
        if isinstance(name, str):
            found.append(
                _Source(
                    name,
                    reference if isinstance(reference, str) else None,
                    digest if isinstance(digest, str) else None,
                    path if isinstance(path, str) else None,
                )
            )
    return found


def _told(component_id: str, source: _Source | None) -> str:
    if source is None or source.reference is None:
        return component_id
    if source.digest is None:
        return f"{component_id} (uses tag ref {source.reference} but is not bundled; rebuild the pack)"
    return f"{component_id} (of {source.reference})"


def _check_digest(component_id: str, digest: str | None, data: bytes, sha256: str) -> None:
    if digest is None:
        return
    kind, _, value = digest.partition(":")
    if kind == "sha256":
        actual = sha256
    elif kind == "blake3":
        from blake3 import blake3

        actual = blake3(data).hexdigest()
    else:
        raise MalformedArtifact(f"component {component_id}: `{digest}` is no sha256 and no blake3 digest")
    if actual != value.lower():
        raise MalformedArtifact(
            f"component {component_id} digest mismatch: the pack pins {digest}, its wasm is {kind}:{actual}",
            hint="rebuild the pack",
        )


def _locked_digests(archive: PackArchive, warnings: list[str]) -> dict[str, str]:
    if LOCK not in archive.entries:
        return {}
    try:
        limit = archive.limits.manifest_bytes
        lock = cbor.decode(archive.read(LOCK, limit=limit), limit=limit)
    except MalformedArtifact as error:
        warnings.append(f"{LOCK}: {error.message}")
        return {}
    listed = lock.get("components") if isinstance(lock, dict) else None
    found: dict[str, str] = {}
    for name, item in cast(Map, listed).items() if isinstance(listed, dict) else ():
        digest = item.get("resolved_digest") if isinstance(item, dict) else None
        if isinstance(digest, str) and digest.startswith("sha256:"):
            found[name] = digest.removeprefix("sha256:").lower()
    return found
