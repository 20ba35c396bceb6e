"""`gtc pack build`: a `.gtpack` from `pack.yaml`, its flows and its assets (formats: pack 1; flows 2).

The source is never written to, the same source gives the same bytes (but for what componentize-py makes), and what would only fail at run
time is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple, cast

import msgspec

from greentic.author.capability_forms import SecretForm
from greentic.author.flow_source import FlowSource, read_flow, where
from greentic.author.pack_components import (
    ComponentSource,
    build_components,
    capabilities,
    extensions,
    lock,
    not_offered,
)
from greentic.author.source_files import (
    Found,
    check_outside,
    found_in,
    identifier,
    ignored,
    inside,
    is_built,
    one_somewhere,
    read_authored,
    read_yaml,
    typed,
)
from greentic.flow.graph import read_graph
from greentic.flow.lint import Where
from greentic.flow.nodes import BUILTINS, EXEC, NodePlan, plan_flow
from greentic.ground.disk import real_path
from greentic.ground.errors import InvalidArgument
from greentic.ground.nearest import did_you_mean, one_of
from greentic.ground.repeated import repeated
from greentic.model.ids import is_semver
from greentic.pack.archive import write_pack
from greentic.pack.assets import unread
from greentic.pack.components import PackComponent
from greentic.pack.limits import DEFAULT_PACK_LIMITS
from greentic.pack.load import Resolver
from greentic.pack.manifest import KINDS, SCHEMA_VERSION, PackManifest, build

SOURCE_FILE = "pack.yaml"
_COPIED = ("assets", "fixtures", "schemas", "tools")
_MAX_ASSET = DEFAULT_PACK_LIMITS.entry_bytes


class ListedFlow(msgspec.Struct, frozen=True):
    """A flow as `pack.yaml` lists it."""

    file: Annotated[str, msgspec.Meta(min_length=1)]
    id: str | None = None
    tags: list[str] | None = None
    """Those of the flow itself, if nothing is said here."""
    entrypoints: list[str] = []


class PackSource(msgspec.Struct, frozen=True):
    """`pack.yaml`; unknown members are ignored, as other builders do, and told (`ignored`)."""

    pack_id: str
    version: str
    kind: str
    publisher: str
    name: str | None = None
    flows: list[ListedFlow] | None = None
    components: list[ComponentSource] | None = None
    secret_requirements: list[SecretForm] | None = None
    dependencies: list[object] | None = None
    assets: list[object] | None = None


class BuiltPack(NamedTuple):
    data: bytes
    manifest: PackManifest
    warnings: list[str]
    """What of its source is not in it."""
    unheard: list[str]
    """What of its flows does nothing; among the warnings."""
    where: Where
    """Where in its source findings about its flows stand."""


def check_out(out: Path, directory: Path) -> None:
    """Raise `InvalidArgument` for a place where the pack would be in itself."""
    check_outside(out, directory, _COPIED)
    if real_path(out).parent == real_path(directory) and not is_built(out.name):
        raise InvalidArgument(
            f"`{out}` would be an asset of the next build", hint="name it *.gtpack, or write it elsewhere"
        )


def build_pack(directory: Path) -> BuiltPack:
    """A pack from its source. Raises `InvalidArgument` that names the file at fault."""
    path = inside(directory, directory / SOURCE_FILE)
    written = read_yaml(path)
    source = typed(path, PackSource, written)
    identifier(source.pack_id, f"{path}: `pack_id`")
    if not is_semver(source.version):
        raise InvalidArgument(f"{path}: invalid pack version `{source.version}` (expected semver, such as 1.0.0)")
    if source.kind not in KINDS:
        raise InvalidArgument(f"{path}: unknown pack kind {source.kind}{one_of(source.kind, KINDS)}")
    if source.dependencies:
        raise InvalidArgument(f"{path}: dependencies cannot be packed yet; build this pack with its own builder")
    components = build_components(directory, path, source.components or [], written)
    component_ids = [c.id for c in components]
    _each_once(path, "components", component_ids)
    components.sort(key=lambda component: component.id)
    resolver = Resolver([PackComponent(c.id, "", "", None, {}) for c in components])
    sources = [read_flow(inside(directory, directory / entry.file)) for entry in source.flows or []]
    for flow in sources:
        _check_flow(flow, resolver, component_ids)
    ids = [flow.flow_id for flow in sources]
    told = _other_ids(path, source.flows or [], ids)
    _each_once(path, "flows", ids)
    flows = [_flow(flow, entry) for flow, entry in zip(sources, source.flows or [], strict=True)]
    raw: dict[str, object] = {"schema_version": SCHEMA_VERSION, "pack_id": source.pack_id}
    if source.name is not None:
        raw["name"] = source.name
    raw |= {
        "version": source.version,
        "kind": source.kind,
        "publisher": source.publisher,
        "symbols": {},
        "components": [component.entry for component in components],
        "flows": flows,
        "dependencies": [],
        "capabilities": [{"name": name, "description": None} for name in capabilities(components)],
    }
    if source.secret_requirements:
        raw["secret_requirements"] = cast("dict[str, object]", written)["secret_requirements"]
    raw["signatures"] = {"signatures": []}
    raw["extensions"] = extensions(components)
    flows.sort(key=lambda flow: str(flow["id"]))
    manifest = build(raw)
    files: dict[str, bytes] = {}
    for component in components:
        files[component.wasm_path] = component.wasm
        files[component.manifest_path] = component.manifest
    found = found_in(directory, _COPIED, loose=True)
    files |= _assets(directory, found, {real_path(directory / c.source) for c in components})
    data = write_pack(manifest, files, lock(components))
    does_nothing = [*not_offered(directory, path, components), *(text for flow in sources for text in flow.unheard)]
    told = [
        *ignored(path, PackSource, written),
        *told,
        *does_nothing,
        *_not_packed(path, source.assets or [], files),
        *found.told(directory),
        *_covered(directory, found, files),
    ]
    return BuiltPack(data, manifest, told, does_nothing, where(sources))


def _each_once(path: Path, what: str, ids: list[str]) -> None:
    twice = repeated(ids)
    if twice is not None:
        raise InvalidArgument(f"{path}: two {what} have the id `{twice}`")


def _not_packed(path: Path, written: list[object], files: dict[str, bytes]) -> list[str]:
    """Assets that `pack.yaml` lists and that are not in the pack, as warnings: what is packed is what lies below its folders."""
    named = [entry.get("path") if isinstance(entry, dict) else entry for entry in written]
    return [
        f"{path}: `assets[{number}]` names `{name}`, which is not in the pack; put it below {', '.join(f'{top}/' for top in _COPIED)}"
        for number, name in enumerate(named)
        if isinstance(name, str)
        and name.removeprefix("./") not in files
        and f"assets/{name.removeprefix('./')}" not in files
    ]


def _covered(directory: Path, found: Found, files: dict[str, bytes]) -> list[str]:
    """Files that another one stands before, as warnings: those of the directory itself with the name of one in `assets/`, where they would
    go, those that each of their paths leads past, and those that a file system takes for another one.
    """
    left_out = [
        f"{path}: left out, for `assets/{path.name}` stands in its place"
        for path in found.loose
        if directory / "assets" / path.name in found.files
    ]
    passed = [
        f"{directory}: `{name}` is never read as a card or a translation: each of its paths means `{read}`; rename one of them"
        for name, read in unread(files)
    ]
    return [*left_out, *passed, *one_somewhere(directory, files)]


def _other_ids(path: Path, written: list[ListedFlow], ids: list[str]) -> list[str]:
    """Ids of flows that the flows themselves do not have, as warnings: what a flow says counts."""
    return [
        f"{path}: `flows[{number}].id` is `{entry.id}`, and the id in `{entry.file}`, which counts, is `{flow_id}`"
        for number, (entry, flow_id) in enumerate(zip(written, ids, strict=True))
        if entry.id not in (None, flow_id)
    ]


def _flow(source: FlowSource, entry: ListedFlow) -> dict[str, object]:
    """The entry of a flow in the manifest."""
    metadata = cast("dict[str, object]", source.compiled["metadata"])
    return {
        "id": source.flow_id,
        "kind": source.compiled["kind"],
        "flow": source.compiled,
        "tags": metadata["tags"] if entry.tags is None else entry.tags,
        "entrypoints": entry.entrypoints or ["default"],
    }


def _check_flow(source: FlowSource, resolver: Resolver, component_ids: list[str]) -> None:
    """Raise `InvalidArgument` for what would fail at its first request: a node that names a component which the pack does not have."""
    identifier(source.compiled["id"], f"{source.at('id')}: `id`")
    graph = read_graph(source.flow_id, source.compiled)
    for named in graph.nodes.values():
        identifier(named.component, f"{source.at('nodes', named.id)}: component of node {named.id}")
    plan = plan_flow(graph)
    for node in plan.nodes.values():
        mapping = node.mapping if isinstance(node.mapping, dict) else {}
        operation = node.operation or next(
            (mapping[k] for k in ("operation", "op") if isinstance(mapping.get(k), str)), None
        )
        if (
            node.kind in ("exec", "component")
            and "{{" not in node.component
            and not resolver.has(node.component, operation)
        ):
            raise _unknown(source.at("nodes", node.id), node, operation, component_ids)


def _unknown(place: str, node: NodePlan, operation: str | None, component_ids: list[str]) -> InvalidArgument:
    """What is said of a node that calls what the pack does not have."""
    native = (EXEC, "emit.response", *BUILTINS)
    if node.component == EXEC:
        return InvalidArgument(
            f"{place}: node `{node.id}` names no component, and `{operation}` is no node that is built in"
            f"{did_you_mean(operation or '', native)}",
            hint=f"write `{EXEC}` with `component` and `operation`, or `COMPONENT.OPERATION`",
        )
    return InvalidArgument(
        f"{place}: node `{node.id}` calls component `{node.component}`, which this pack does not have"
        f"{did_you_mean(node.component, (*native, *component_ids))}",
        hint="list it under `components` in pack.yaml",
    )


def _assets(directory: Path, has: Found, sources: set[Path]) -> dict[str, bytes]:
    """The files of `assets/` and the copied folders, by path in the pack; loose files of the root go below `assets/`.

    `sources` are the sources of components, which are in the pack already.
    """
    found: dict[str, bytes] = {}
    for path in has.files:
        if path.is_symlink():
            raise InvalidArgument(f"asset `{path}` is a link; packs hold regular files only")
        found[path.relative_to(directory).as_posix()] = read_authored(path, _MAX_ASSET)
    for path in has.loose:
        if path.name != SOURCE_FILE and real_path(path) not in sources:
            found.setdefault(f"assets/{path.name}", read_authored(inside(directory, path), _MAX_ASSET))
    try:
        return dict(sorted(found.items(), key=lambda item: item[0].encode()))
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"the name {error.object!r} of an asset is not UTF-8; rename the file") from None
