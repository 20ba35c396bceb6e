"""`gtc pack build`: a `.gtpack` from `pack.yaml`, its flows and its assets (formats: pack 1; flows 2).

The source is never written to, the same source gives the same bytes, and what would only fail at run time is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, cast

import msgspec

from greentic.author.pack_components import ComponentSource, build_component, capabilities, extensions, lock
from greentic.flow.compile import FlowSourceError, compile_flow
from greentic.flow.graph import read_graph
from greentic.flow.nodes import plan_flow
from greentic.ground.disk import io_error, real_path
from greentic.ground.documents import Json
from greentic.ground.errors import InvalidArgument, NotFound
from greentic.ground.field_types import unknown_told
from greentic.ground.yaml import SafeLoader, parse_yaml
from greentic.model.ids import is_semver
from greentic.pack.archive import write_pack
from greentic.pack.components import PackComponent
from greentic.pack.load import Resolver
from greentic.pack.manifest import KINDS, SCHEMA_VERSION, PackManifest, build, check_id

SOURCE_FILE = "pack.yaml"
MAX_SOURCE = 4 << 20
_COPIED = ("assets", "fixtures", "schemas", "tools")


class FlowSource(msgspec.Struct, frozen=True):
    file: str
    id: str | None = None
    tags: list[str] = []
    entrypoints: list[str] = []


class PackSource(msgspec.Struct, frozen=True):
    """`pack.yaml`; unknown members are ignored, as other builders do, and told (`ignored`)."""

    pack_id: str
    version: str
    kind: str
    publisher: str
    name: str | None = None
    flows: list[FlowSource] | None = None
    components: list[ComponentSource] | None = None
    secret_requirements: list[dict[str, object]] | None = None
    dependencies: list[object] | None = None
    assets: list[object] | None = None


def ignored(path: Path, form: type[msgspec.Struct], raw: object) -> list[str]:
    """What a source has that nobody reads, as warnings."""
    found = unknown_told(form, cast(Json, raw))
    return [f"{path}: unknown member(s) ignored: {', '.join(found)}"] if found else []


class BuiltPack(NamedTuple):
    data: bytes
    manifest: PackManifest
    warnings: list[str]
    """What of its source is not in it."""


def build_pack(directory: Path) -> BuiltPack:
    """A pack from its source. Raises `InvalidArgument` that names the file at fault."""
    path = directory / SOURCE_FILE
    written = read_yaml(path)
    try:
        source = msgspec.convert(written, PackSource)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{path}: {error}") from None
    check_id(source.pack_id)
    if not is_semver(source.version):
        raise InvalidArgument(f"{path}: invalid pack version `{source.version}` (expected semver, such as 1.0.0)")
    if source.kind not in KINDS:
        raise InvalidArgument(f"{path}: unknown pack kind {source.kind}; expected one of {', '.join(KINDS)}")
    if source.dependencies:
        raise InvalidArgument(f"{path}: dependencies cannot be packed yet; build this pack with its own builder")
    components = [build_component(directory, path, entry) for entry in source.components or []]
    component_ids = [c.id for c in components]
    for component_id in component_ids:
        if component_ids.count(component_id) > 1:
            raise InvalidArgument(f"{path}: two components have the id `{component_id}`")
    components.sort(key=lambda component: component.id)
    resolver = Resolver([PackComponent(c.id, "", "", None, {}) for c in components])
    flows = [_flow(directory, entry, resolver) for entry in source.flows or []]
    ids = [str(flow["id"]) for flow in flows]
    for flow_id in ids:
        if ids.count(flow_id) > 1:
            raise InvalidArgument(f"{path}: two flows have the id `{flow_id}`")
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
        raw["secret_requirements"] = source.secret_requirements
    raw["signatures"] = {"signatures": []}
    raw["extensions"] = extensions(components)
    flows.sort(key=lambda flow: str(flow["id"]))
    manifest = build(raw)
    files: dict[str, bytes] = {}
    for component in components:
        files[component.wasm_path] = component.wasm
        files[component.manifest_path] = component.manifest
    sources = {real_path(directory / c.source) for c in components}
    data = write_pack(manifest, files | _assets(directory, sources), lock(components))
    return BuiltPack(data, manifest, ignored(path, PackSource, written))


def _flow(directory: Path, entry: FlowSource, resolver: Resolver) -> dict[str, object]:
    path = directory / entry.file
    if not real_path(path).is_relative_to(real_path(directory)):
        raise InvalidArgument(f"{directory / SOURCE_FILE}: flow file `{entry.file}` leaves the pack")
    source = read_yaml(path)
    try:
        flow = compile_flow({} if source is None else source)
    except FlowSourceError as error:
        raise InvalidArgument(f"failed to compile flow {path}: {error}") from None
    _check_components(path, flow, resolver)
    flow_id = check_id(flow["id"])
    return {
        "id": flow_id,
        "kind": flow["kind"],
        "flow": flow,
        "tags": entry.tags,
        "entrypoints": entry.entrypoints or ["default"],
    }


def _check_components(path: Path, flow: dict[str, object], resolver: Resolver) -> None:
    """A node that names a component which the pack does not have would fail at its first request."""
    plan = plan_flow(read_graph(str(flow["id"]), flow))
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
            raise InvalidArgument(
                f"{path}: node `{node.id}` calls component `{node.component}`, which this pack does not have",
                hint="list it under `components` in pack.yaml",
            )


def _assets(directory: Path, sources: set[Path]) -> dict[str, bytes]:
    """The files of `assets/` and the copied folders, by path in the pack; loose files of the root go below `assets/`.

    `sources` are the sources of components, which are in the pack already.
    """
    found: dict[str, bytes] = {}
    for path in (p for top in _COPIED for p in (directory / top).rglob("*")):
        if path.is_symlink():
            raise InvalidArgument(f"asset `{path}` is a link; packs hold regular files only")
        if path.is_file():
            found[path.relative_to(directory).as_posix()] = path.read_bytes()
    for path in directory.iterdir():
        if (
            path.is_file()
            and path.name != SOURCE_FILE
            and not path.name.startswith(".")
            and real_path(path) not in sources
        ):
            found.setdefault(f"assets/{path.name}", path.read_bytes())
    try:
        return dict(sorted(found.items(), key=lambda item: item[0].encode()))
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"the name {error.object!r} of an asset is not UTF-8; rename the file") from None


class _Yaml12(SafeLoader):
    """YAML whose only booleans are `true` and `false`: a key named `yes` stays a text."""


_Yaml12.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")
)


def read_yaml(path: Path) -> object:
    """Parse a YAML source. Raises `NotFound`, `IoError` or `InvalidArgument`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE + 1)
    except FileNotFoundError:
        raise NotFound(f"`{path}` does not exist") from None
    except OSError as error:
        raise io_error(path, error) from None
    if len(data) > MAX_SOURCE:
        raise InvalidArgument(f"{path}: larger than {MAX_SOURCE} bytes")
    try:
        return parse_yaml(data, limit=MAX_SOURCE, loader=_Yaml12)
    except ValueError as error:
        raise InvalidArgument(f"{path}: YAML parse error: {error}") from None
