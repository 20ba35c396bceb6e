"""Components as they go into a pack: manifest entries, extension, lock (formats: pack 4, 9)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import msgspec

from greentic.author.capability_forms import CapabilitiesForm
from greentic.author.component_build import component_bytes, offered
from greentic.author.source_files import identifier
from greentic.ground.errors import InvalidArgument
from greentic.model.ids import digest_of_bytes, is_semver
from greentic.pack import cbor

COMPONENT_MANIFESTS = "greentic.pack.component_manifests@v1"


class OperationSource(msgspec.Struct, frozen=True):
    name: str
    input_schema: object = {}
    output_schema: object = {}


class ComponentSource(msgspec.Struct, frozen=True):
    """A component of a pack. `wasm` is a .wasm or .wat file or a directory of Python; by default `components/<id>…`."""

    id: str
    version: str = "0.1.0"
    wasm: str | None = None
    world: str = "greentic:component/component@0.6.0"
    supports: list[str] = msgspec.field(default_factory=lambda: ["messaging"])
    profiles: dict[str, object] | None = None
    capabilities: CapabilitiesForm | None = None
    operations: list[OperationSource] = []
    config_schema: object = None
    resources: dict[str, object] | None = None


def extensions(components: list[BuiltComponent]) -> dict[str, object]:
    extensions: dict[str, object] = {
        "greentic.pack-mode.v1": {"kind": "greentic.pack-mode.v1", "version": "1", "inline": {"mode": "prod"}}
    }
    if components:
        entries = [
            {
                "component_id": c.id,
                "manifest_file": c.manifest_path,
                "encoding": "cbor",
                "content_hash": digest_of_bytes(c.manifest),
            }
            for c in components
        ]
        extensions[COMPONENT_MANIFESTS] = {
            "kind": COMPONENT_MANIFESTS, "version": "v1", "inline": {"schema_version": 1, "entries": entries},
        }  # fmt: skip
    return extensions


def lock(components: list[BuiltComponent]) -> dict[str, object]:
    """The lock's components (formats: pack 9); hashes are over canonical CBOR."""
    return {
        c.id: {
            "component_id": c.id,
            "abi_version": "0.6.0",
            "resolved_digest": digest_of_bytes(c.wasm),
            "describe_hash": hashlib.sha256(c.manifest).hexdigest(),
            "operations": [
                {
                    "operation_id": str(o["name"]),
                    "schema_hash": hashlib.sha256(cbor.encode(o, canonical=True)).hexdigest(),
                }
                for o in sorted(c.operations, key=lambda o: str(o["name"]))
            ],
            "world": c.entry["world"],
            "component_version": c.entry["version"],
        }
        for c in components
    }


def capabilities(components: list[BuiltComponent]) -> list[str]:
    """The names of what the components ask for, each once, in the order of asking."""
    names: dict[str, None] = {}
    for component in components:
        asked = component.entry["capabilities"]
        if not isinstance(asked, dict):
            continue
        host, wasi = asked.get("host") or {}, asked.get("wasi") or {}
        names |= dict.fromkeys(f"host:{name}" for name in host)
        filesystem = wasi.get("filesystem")
        if isinstance(filesystem, dict):
            names[f"wasi:fs:{filesystem.get('mode', 'none')}"] = None
        names |= dict.fromkeys(f"wasi:{name}" for name in ("random", "clocks") if wasi.get(name))
    return list(names)


class BuiltComponent(NamedTuple):
    """A component as it goes into a pack."""

    id: str
    source: str
    entry: dict[str, object]
    """Its entry in the manifest."""
    operations: list[dict[str, object]]
    wasm: bytes

    @property
    def wasm_path(self) -> str:
        return f"components/{self.id}.wasm"

    @property
    def manifest_path(self) -> str:
        return f"components/{self.id}.manifest.cbor"

    @property
    def manifest(self) -> bytes:
        return cbor.encode(self.entry, canonical=True)


def not_offered(directory: Path, path: Path, components: Iterable[BuiltComponent]) -> Iterator[str]:
    """Operations that are listed and that a component's Python does not have, as warnings: a call of one fails."""
    for component in components:
        source = directory / component.source
        has = offered(source) if source.is_dir() else None
        for name in [o["name"] for o in component.operations if has is not None and o["name"] not in has]:
            there = ", ".join(sorted(has or ()))
            yield f"{path}: component {component.id}: no function is offered as `{name}`; there are: {there}"


def build_components(
    directory: Path, path: Path, sources: list[ComponentSource], written: object
) -> list[BuiltComponent]:
    """The components of a source, which is `written` like this."""
    rows = cast("dict[str, list[dict[str, object]]]", written).get("components") or []
    return [_built(directory, path, one, row.get("capabilities")) for one, row in zip(sources, rows, strict=True)]


def _built(directory: Path, path: Path, source: ComponentSource, asked: object) -> BuiltComponent:
    """`asked` are its capabilities as they are written."""
    identifier(source.id, f"{path}: component")
    if not is_semver(source.version):
        raise InvalidArgument(f"{path}: component {source.id}: version `{source.version}` is not semver")
    found = source.wasm or next(
        (name for name in (f"components/{source.id}.wasm", f"components/{source.id}.wat", f"components/{source.id}")
         if (directory / name).exists()), f"components/{source.id}.wasm",
    )  # fmt: skip
    operations = [
        {"name": o.name, "input_schema": o.input_schema, "output_schema": o.output_schema} for o in source.operations
    ]
    entry: dict[str, object] = {
        "id": source.id,
        "version": source.version,
        "supports": source.supports,
        "world": source.world,
        "profiles": source.profiles or {"supported": []},
        "capabilities": asked or {"wasi": {"random": False, "clocks": False}, "host": {}},
        "configurators": None,
        "operations": operations,
        "config_schema": source.config_schema,
        "resources": source.resources or {},
        "dev_flows": {},
    }
    return BuiltComponent(source.id, found, entry, operations, component_bytes(directory, found, source.id))
