"""Loading the packs of a revision (spec: worker 5).

Rules:
1. The packs are those of the lock, in its order, their digests already verified. The first is the main pack.
2. A pack that does not load fails its revision; two packs with the same manifest id do too.
3. What is wrong but does not matter to a worker (SBOM faults, flows without nodes) becomes a warning of the load report.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.artifact.pack_archive import PackArchive
from greentic.artifact.pack_manifest import FlowRecord, PackManifest
from greentic.flow.graph import FlowGraph, read_graph
from greentic.ground.errors import Conflict, GreenticError
from greentic.store.revisions import LocatedPack


class LoadedPack(NamedTuple):
    """A pack as a worker keeps it."""

    pack_id: str
    """The file's stem, as in the lock."""
    manifest_id: str
    version: str
    digest: str
    flows: tuple[LoadedFlow, ...]
    provides_messaging: bool
    warnings: tuple[str, ...]


class LoadedFlow(NamedTuple):
    pack_id: str
    """The manifest's id of its pack."""
    flow_id: str
    kind: str
    entry: bool
    """Whether a request may start it: it is not tagged `internal`."""
    graph: FlowGraph


def load_packs(located: list[LocatedPack]) -> list[LoadedPack]:
    """Open and decode every pack. Raises the typed error of the first that does not load."""
    packs: list[LoadedPack] = []
    seen: dict[str, str] = {}
    for place in located:
        pack = load_pack(place)
        if pack.manifest_id in seen:
            raise Conflict(
                f"packs `{seen[pack.manifest_id]}` and `{pack.pack_id}` have the same manifest id `{pack.manifest_id}`"
            )
        seen[pack.manifest_id] = pack.pack_id
        packs.append(pack)
    return packs


def load_pack(place: LocatedPack) -> LoadedPack:
    """Open and decode one pack. Raises `MalformedArtifact` that names it."""
    try:
        with place.path.open("rb") as file:
            archive = PackArchive(file)
            manifest = archive.manifest
            warnings = archive.sbom_warnings()
    except GreenticError as error:
        raise type(error)(f"pack `{place.pack_id}` does not load: {error.message}", hint=error.hint) from None
    flows = tuple(_flow(manifest, record, warnings) for record in manifest.flows)
    return LoadedPack(
        place.pack_id,
        manifest.pack_id,
        manifest.version,
        place.digest,
        flows,
        _provides_messaging(manifest),
        tuple(warnings),
    )


def check_loadable(located: list[LocatedPack]) -> None:
    """What `warm` asks: would a worker load these packs? Raises the typed error of the first that it would not."""
    load_packs(located)


def _flow(manifest: PackManifest, record: FlowRecord, warnings: list[str]) -> LoadedFlow:
    graph = read_graph(record.id, record.graph)
    if not graph.nodes:
        warnings.append(f"flow {record.id} has no nodes")
    return LoadedFlow(manifest.pack_id, record.id, record.kind, "internal" not in record.tags, graph)


def _provides_messaging(manifest: PackManifest) -> bool:
    """Whether the pack declares a `messaging.*` provider; its flows are not entry points of a conversation."""
    inline = manifest.extensions.get("greentic.provider-extension.v1", {}).get("inline")
    providers = inline.get("providers") if isinstance(inline, dict) else None
    return isinstance(providers, list) and any(
        isinstance(p, dict) and str(p.get("provider_type", "")).startswith("messaging.") for p in providers
    )
