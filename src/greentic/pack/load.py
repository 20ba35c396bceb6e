"""Loading the packs of a revision (formats: worker 13; bundle 2; pack 1; flows 1; components 1).

Rules:
1. The packs are those of the lock, in its order, their digests already verified. The first is the main pack.
2. A pack that does not load fails its revision: an unreadable archive, a component that is missing, of another digest or no
   component at all, a signature that is required and not there. Two packs with the same manifest id do too.
3. What is wrong but does not keep a worker from answering (SBOM faults, routes to nowhere, dropped fields) becomes a warning
   of the load report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from greentic.flow.engine import fate
from greentic.flow.graph import read_graph
from greentic.flow.lint import Known, Where, findings, nowhere
from greentic.flow.lint_names import names_of
from greentic.flow.nodes import FlowPlan, plan_flow
from greentic.flow.select import FlowHeader, unanswerable
from greentic.ground.disk import io_error
from greentic.ground.documents import open_file
from greentic.ground.errors import Conflict, GreenticError
from greentic.pack.archive import PackArchive
from greentic.pack.assets import PackAssets
from greentic.pack.components import PackComponent, Provider, components_of, providers_of
from greentic.pack.located import LocatedPack
from greentic.pack.manifest import FlowRecord, PackManifest
from greentic.pack.runtime_flows import flows_of
from greentic.pack.signature import PackSignaturePolicy, signature_warnings

MAX_TOLD = 100
"""Warnings of one kind about a pack that are told."""


class LoadedFlow(msgspec.Struct, frozen=True):
    pack_id: str
    """The manifest's id of its pack."""
    flow_id: str
    kind: str
    entry: bool
    """Whether a request may start it: it is not tagged `internal`."""
    plan: FlowPlan
    failure: str | None
    """What every run of a flow without nodes ends with."""


class LoadedPack(NamedTuple):
    """A pack as a worker keeps it."""

    pack_id: str
    """The file's stem, as in the lock."""
    manifest_id: str
    version: str
    digest: str
    place: LocatedPack
    flows: tuple[LoadedFlow, ...]
    plans: dict[str, FlowPlan]
    components: tuple[PackComponent, ...]
    providers: tuple[Provider, ...]
    secrets: tuple[str, ...]
    """The keys of the secrets that the pack, its components and its flows name."""
    assets: PackAssets
    provides_messaging: bool
    signed: bool
    warnings: tuple[str, ...]


def load_packs(located: list[LocatedPack], policy: PackSignaturePolicy = PackSignaturePolicy()) -> list[LoadedPack]:  # noqa: B008
    """Open and decode every pack. Raises the typed error of the first that does not load."""
    packs: list[LoadedPack] = []
    seen: dict[str, str] = {}
    for place in located:
        packs.append(load_pack(place, policy))
        check_together(packs[-1], seen)
    if packs:
        told = unanswerable(headers(packs), packs[0].manifest_id)
        packs[0] = packs[0]._replace(warnings=(*packs[0].warnings, *told))
    return packs


def check_together(pack: LoadedPack, seen: dict[str, str]) -> None:
    """Raise `Conflict` for a pack that cannot be in one revision with those before it (rule 2), which `seen` remembers."""
    before = seen.setdefault(pack.manifest_id, pack.pack_id)
    if before != pack.pack_id:
        raise Conflict(f"packs `{before}` and `{pack.pack_id}` have the same manifest id `{pack.manifest_id}`")


def headers(packs: Sequence[LoadedPack]) -> list[FlowHeader]:
    """What the choice of a flow goes by, for each flow of some packs."""
    return [
        FlowHeader(flow.pack_id, flow.flow_id, flow.kind, flow.entry, pack.provides_messaging)
        for pack in packs
        for flow in pack.flows
    ]


def first_told(told: Iterator[str]) -> list[str]:
    """As many warnings as a load report holds. Who wrote thousands of faults mends the first first; a worker loads the pack at once."""
    first = [*islice(told, MAX_TOLD)]
    return first if next(told, None) is None else [*first, f"more than {MAX_TOLD} warnings like these"]


def load_pack(
    place: LocatedPack,
    policy: PackSignaturePolicy = PackSignaturePolicy(),  # noqa: B008
    where: Where = nowhere,
) -> LoadedPack:
    """Open and decode one pack; `where` tells in which source its flows stand.

    Raises `MalformedArtifact`, `UntrustedPack` or `IoError` that names it.
    """
    try:
        with open_file(place.path) as file:
            archive = PackArchive(file)
            sbom = archive.sbom_warnings()
            signature = signature_warnings(archive, policy, sbom)
            components, warnings = components_of(archive)
            providers = providers_of(archive)
            signed = any(name.startswith("signatures/") for name in archive.entries)
            manifest = archive.manifest
            records = flows_of(manifest)
    except GreenticError as error:
        raise type(error)(f"pack `{place.pack_id}` does not load: {error.message}", hint=error.hint) from None
    except OSError as error:
        raise io_error(place.path, error) from None
    flows = tuple(_flow(manifest, record) for record in records)
    resolver = Resolver(components)
    known = Known(
        resolver.has, frozenset(f.flow_id for f in flows), resolver.operations, names_of(f.plan for f in flows), where
    )
    warnings = [*sbom, *signature, *warnings]
    warnings += first_told(text for flow in flows for text in findings(flow.plan, known))
    return LoadedPack(
        pack_id=place.pack_id,
        manifest_id=manifest.pack_id,
        version=manifest.version,
        digest=place.digest,
        place=place,
        flows=flows,
        plans={f.flow_id: f.plan for f in flows},
        components=tuple(components),
        providers=tuple(providers),
        secrets=tuple(_secret_keys(manifest, records)),
        assets=PackAssets(place.path),
        provides_messaging=_provides_messaging(providers),
        signed=signed,
        warnings=tuple(warnings),
    )


class Resolver:
    """Which component a name in a flow means."""

    def __init__(self, components: list[PackComponent] | tuple[PackComponent, ...]) -> None:
        self._ids = {component.id: component for component in components}
        self._references: dict[str, PackComponent] = {}
        for component in components:
            if component.reference is not None:
                self._references.setdefault(component.reference, component)
                self._references.setdefault(_bare(component.reference), component)

    def find(self, name: str, operation: str | None) -> PackComponent | None:
        """By id; by `<id>.<operation>`; by the reference that its author had it from, whatever version that named."""
        found = self._ids.get(name)
        if found is None and operation and name.endswith(f".{operation}"):
            found = self._ids.get(name.removesuffix(f".{operation}"))
        if found is None and "://" in name:
            found = self._references.get(name) or self._references.get(_bare(name))
            if found is None:
                last = _bare(name).rpartition("/")[2]
                same = [c for c in self._ids.values() if c.id.rpartition(".")[2] == last or c.id == last]
                found = same[0] if len(same) == 1 else None
        return found

    def operations(self, name: str, operation: str | None) -> frozenset[str] | None:
        """The operations that the manifest of a component lists; nothing if it lists none."""
        found = self.find(name, operation)
        listed = None if found is None else found.manifest.get("operations")
        names = [item.get("name") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        return frozenset(name for name in names if isinstance(name, str)) or None

    def has(self, name: str, operation: str | None) -> bool:
        return self.find(name, operation) is not None


def _bare(reference: str) -> str:
    """A reference without its digest and tag."""
    text = reference.partition("@")[0]
    head, slash, last = text.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _flow(manifest: PackManifest, record: FlowRecord) -> LoadedFlow:
    plan = plan_flow(read_graph(record.id, record.graph))
    entry = "internal" not in record.tags
    return LoadedFlow(manifest.pack_id, record.id, record.kind, entry, plan, None if plan.nodes else fate(plan))


def _secret_keys(manifest: PackManifest, records: list[FlowRecord]) -> list[str]:
    """Every secret that is declared, or named by a field of a flow whose name ends in `_secret`."""
    found: list[str] = []
    requirements = manifest.raw.get("secret_requirements")
    lists: list[object] = [requirements]
    for component in manifest.components:
        host = component.raw.get("capabilities")
        host = host.get("host") if isinstance(host, dict) else None
        secrets = host.get("secrets") if isinstance(host, dict) else None
        lists.append(secrets.get("required") if isinstance(secrets, dict) else None)
    for listed in lists:
        for item in listed if isinstance(listed, list) else []:
            key = item.get("key") if isinstance(item, dict) else item
            if isinstance(key, str):
                found.append(key)
    for record in records:
        _named_secrets(record.graph.get("nodes"), found, 0)
    return found


def _named_secrets(value: object, found: list[str], depth: int) -> None:
    if depth > 64:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and key.endswith("_secret"):
                found.append(item)
            _named_secrets(item, found, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _named_secrets(item, found, depth + 1)


def _provides_messaging(providers: list[Provider]) -> bool:
    """Whether the pack declares a `messaging.*` provider; its flows are not entry points of a conversation."""
    return any(p.provider_type.startswith("messaging.") for p in providers)
