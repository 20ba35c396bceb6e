"""`gtc pack build`: a `.gtpack` from `pack.yaml`, its flows and its assets (spec: packs-flows-components 2, 3.2).

The source is never written to, the same source gives the same bytes, and what would only fail at run time is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from greentic.artifact.pack_archive import write_pack
from greentic.artifact.pack_manifest import KINDS, SCHEMA_VERSION, PackManifest, build, check_id
from greentic.flow.compile import FlowSourceError, compile_flow
from greentic.ground.errors import InvalidArgument, NotFound
from greentic.model.ids import is_semver
from greentic.store.disk import io_error

SOURCE_FILE = "pack.yaml"
MAX_SOURCE = 4 << 20
_COPIED = ("assets", "fixtures", "schemas", "tools")


class FlowSource(msgspec.Struct, frozen=True):
    file: str
    id: str | None = None
    tags: list[str] = []
    entrypoints: list[str] = []


class PackSource(msgspec.Struct, frozen=True):
    """`pack.yaml`; unknown keys are ignored, as other builders do."""

    pack_id: str
    version: str
    kind: str
    publisher: str
    name: str | None = None
    flows: list[FlowSource] | None = None
    components: Annotated[list[dict[str, object]] | None, msgspec.Meta(description="none yet: packs of flows only")] = (
        None
    )
    dependencies: list[object] | None = None
    assets: list[object] | None = None


def build_pack(directory: Path) -> tuple[bytes, PackManifest]:
    """The pack's bytes and its manifest. Raises `InvalidArgument` that names the file at fault."""
    path = directory / SOURCE_FILE
    try:
        source = msgspec.convert(read_yaml(path), PackSource)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{path}: {error}") from None
    check_id(source.pack_id)
    if not is_semver(source.version):
        raise InvalidArgument(f"{path}: invalid pack version `{source.version}` (expected semver, such as 1.0.0)")
    if source.kind not in KINDS:
        raise InvalidArgument(f"{path}: unknown pack kind {source.kind}; expected one of {', '.join(KINDS)}")
    if source.components:
        raise InvalidArgument(f"{path}: components cannot be packed yet; build this pack with its own builder")
    if source.dependencies:
        raise InvalidArgument(f"{path}: dependencies cannot be packed yet; build this pack with its own builder")
    flows = [_flow(directory, entry) for entry in source.flows or []]
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
        "components": [],
        "flows": flows,
        "dependencies": [],
        "capabilities": [],
        "signatures": {"signatures": []},
        "extensions": {
            "greentic.pack-mode.v1": {"kind": "greentic.pack-mode.v1", "version": "1", "inline": {"mode": "prod"}}
        },
    }
    flows.sort(key=lambda flow: str(flow["id"]))
    manifest = build(raw)
    return write_pack(manifest, _assets(directory), {}), manifest


def _flow(directory: Path, entry: FlowSource) -> dict[str, object]:
    path = directory / entry.file
    if not path.resolve().is_relative_to(directory.resolve()):
        raise InvalidArgument(f"{directory / SOURCE_FILE}: flow file `{entry.file}` leaves the pack")
    source = read_yaml(path)
    try:
        flow = compile_flow({} if source is None else source)
    except FlowSourceError as error:
        raise InvalidArgument(f"failed to compile flow {path}: {error}") from None
    _check_components(path, flow)
    flow_id = check_id(flow["id"])
    return {
        "id": flow_id,
        "kind": flow["kind"],
        "flow": flow,
        "tags": entry.tags,
        "entrypoints": entry.entrypoints or ["default"],
    }


def _check_components(path: Path, flow: dict[str, object]) -> None:
    """A node that names a component which the pack does not have would fail at its first request."""
    nodes = flow["nodes"]
    for node in nodes if isinstance(nodes, list) else []:
        component = node["component"]["id"]
        if component == "component.exec":
            raise InvalidArgument(f"{path}: node `{node['id']}` calls a component, and this pack has none")


def _assets(directory: Path) -> dict[str, bytes]:
    """The files of `assets/` and the copied folders, by path in the pack; loose files of the root go below `assets/`."""
    found: dict[str, bytes] = {}
    for path in (p for top in _COPIED for p in (directory / top).rglob("*")):
        if path.is_symlink():
            raise InvalidArgument(f"asset `{path}` is a link; packs hold regular files only")
        if path.is_file():
            found[path.relative_to(directory).as_posix()] = path.read_bytes()
    for path in directory.iterdir():
        if path.is_file() and path.name != SOURCE_FILE and not path.name.startswith("."):
            found.setdefault(f"assets/{path.name}", path.read_bytes())
    return dict(sorted(found.items(), key=lambda item: item[0].encode()))


class _Yaml12(yaml.SafeLoader):
    """YAML whose only booleans are `true` and `false`: a key named `yes` stays a text."""


_Yaml12.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
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
        return yaml.load(data, Loader=_Yaml12)  # noqa: S506  a safe loader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidArgument(f"{path}: YAML parse error: {' '.join(str(error).split())}") from None
