"""`manifest.cbor` of a pack, generation `pack-v1` (formats: pack 3).

Rules:
1. Identifiers stand in four tables, and everywhere else as indexes into them. `decode` puts the texts in their places,
   `encode` the indexes; one list of places (`_places`) serves both ways, so that they cannot disagree.
2. What we do not know is kept, in its order: a manifest that is read and written again has the same bytes.
3. An index outside its table, an id outside the grammar and an id that stands twice among things of its kind are errors that name them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import msgspec

from greentic.ground.documents import shown
from greentic.ground.errors import MalformedArtifact
from greentic.ground.repeated import repeated
from greentic.pack import cbor
from greentic.pack.limits import DEFAULT_PACK_LIMITS

SCHEMA_VERSION = "pack-v1"
KINDS = ("application", "provider", "infrastructure", "library")
TABLES = ("component_ids", "node_ids", "capability_names", "pack_ids")

Map = dict[str, object]
Convert = Callable[[str, object], object]

_ID = re.compile(r"[A-Za-z0-9._-]+\Z")


class FlowRecord(msgspec.Struct, frozen=True):
    """One flow of a pack: its header, and its graph with ids in their places."""

    id: str
    kind: str
    tags: list[str]
    entrypoints: list[str]
    graph: Map


class ComponentRecord(msgspec.Struct, frozen=True):
    id: str
    version: str
    world: str
    raw: Map


class PackManifest(NamedTuple):
    """A decoded manifest. `raw` is the whole document with ids in the places of indexes, `symbols` its tables."""

    pack_id: str
    version: str
    kind: str
    publisher: str
    flows: list[FlowRecord]
    components: list[ComponentRecord]
    extensions: dict[str, Map]
    raw: Map
    symbols: dict[str, list[str]]


def check_id(text: object) -> str:
    """An id of a pack, or `MalformedArtifact`."""
    if not isinstance(text, str) or not _ID.match(text):
        raise MalformedArtifact(f"invalid identifier: {shown(text)}; expected ASCII letters, digits, `.`, `-`, `_`")
    return text


def check_each_once(what: str, ids: Iterable[str]) -> None:
    """Raise `MalformedArtifact` if two things of a pack have one id: of two readers each might take another one."""
    twice = repeated(ids)
    if twice is not None:
        raise MalformedArtifact(
            f"two {what} have the id `{twice}`", hint="rename one of them, and build the pack again"
        )


def decode(data: bytes) -> PackManifest:
    """Read `manifest.cbor`. Raises `MalformedArtifact`."""
    document = _map(cbor.decode(data, limit=DEFAULT_PACK_LIMITS.manifest_bytes), "manifest")
    if "meta" in document and "schema_version" not in document:
        raise MalformedArtifact(
            "legacy pack manifest is not supported", hint="build the pack again with a current builder"
        )
    if document.get("schema_version") != SCHEMA_VERSION:
        raise MalformedArtifact(
            f"pack manifest schema is {shown(document.get('schema_version', 'missing'))}, expected `{SCHEMA_VERSION}`"
        )
    tables = _map(document.get("symbols", {}), "symbols")
    symbols = {
        name: [check_id(i) if name != "capability_names" else _text(i, name) for i in _list(tables.get(name, []), name)]
        for name in TABLES
    }

    def lookup(table: str, value: object) -> object:
        if isinstance(value, str):
            return value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(symbols[table]):
            raise MalformedArtifact(f"invalid symbol index {'nothing' if value is None else shown(value)} in {table}")
        return symbols[table][value]

    raw = _places(document, lookup)
    return _view(raw, symbols)


def encode(manifest: PackManifest) -> bytes:
    """The bytes of a manifest: those that it was decoded from, if it was."""
    positions = {name: {text: index for index, text in enumerate(manifest.symbols[name])} for name in TABLES}
    literal_pack_id = manifest.pack_id not in positions["pack_ids"]

    def index(table: str, value: object) -> object:
        if isinstance(value, str) and value in positions[table]:
            return positions[table][value]
        if table == "pack_ids" and literal_pack_id and value == manifest.pack_id:
            return value
        raise MalformedArtifact(f"{shown(value)} is not in {table}")

    return cbor.encode(_places(manifest.raw, index))


def build(raw: Map) -> PackManifest:
    """A manifest from a document with ids in their places; the tables are made from the ids that occur (rule 1)."""
    used: dict[str, set[str]] = {name: set() for name in TABLES}

    def collect(table: str, value: object) -> object:
        used[table].add(check_id(value) if table != "capability_names" else _text(value, table))
        return value

    _places(raw, collect)
    symbols = {name: sorted(used[name]) for name in TABLES}
    ordered: Map = {}
    for key, value in raw.items():
        ordered[key] = cast(object, symbols) if key == "symbols" else value
    return _view(ordered, symbols)


def _view(raw: Map, symbols: dict[str, list[str]]) -> PackManifest:
    flows = []
    for item in _list(raw.get("flows", []), "flows"):
        flow = _map(item, "flow")
        graph = _map(flow.get("flow"), "flow graph")
        flows.append(
            FlowRecord(check_id(flow.get("id")), _text(flow.get("kind"), "flow kind"), _texts(flow.get("tags", []), "tags"),
                       _texts(flow.get("entrypoints", []), "entrypoints"), graph)
        )  # fmt: skip
    components = []
    for item in _list(raw.get("components", []), "components"):
        component = _map(item, "component")
        components.append(
            ComponentRecord(check_id(component.get("id")), _text(component.get("version", ""), "component version"),
                            _text(component.get("world", ""), "component world"), component)
        )  # fmt: skip
    check_each_once("flows of the pack", (flow.id for flow in flows))
    check_each_once("components of the pack", (component.id for component in components))
    for record in flows:
        check_each_once(f"nodes of flow `{record.id}`", _node_ids(record.graph))
    extensions = {
        key: _map(value, "extension") for key, value in _map(raw.get("extensions") or {}, "extensions").items()
    }
    return PackManifest(
        pack_id=check_id(raw.get("pack_id")),
        version=_text(raw.get("version"), "version"),
        kind=_text(raw.get("kind"), "kind"),
        publisher=_text(raw.get("publisher"), "publisher"),
        flows=flows,
        components=components,
        extensions=extensions,
        raw=raw,
        symbols=symbols,
    )


def _node_ids(graph: Map) -> list[str]:
    """The ids of the nodes of a graph, in stored order."""
    nodes = graph.get("nodes")
    return [str(node.get("id")) for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []


# -- the places of indexes ------------------------------------------------------------------------------------------


def _places(document: Map, convert: Convert) -> Map:
    """A copy of the document with every indexed place converted; all else is shared with the original."""
    out = dict(document)
    out["pack_id"] = convert("pack_ids", document.get("pack_id"))
    if "components" in out:
        out["components"] = [
            _with(component, {"id": lambda v: convert("component_ids", v)}, "component")
            for component in _list(out["components"], "components")
        ]
    if "flows" in out:
        out["flows"] = [
            _with(flow, {"flow": lambda g: _graph(g, convert)}, "flow") for flow in _list(out["flows"], "flows")
        ]
    if "dependencies" in out:
        places: dict[str, Callable[[object], object]] = {
            "pack_id": lambda v: convert("pack_ids", v),
            "required_capabilities": lambda v: [
                convert("capability_names", c) for c in _list(v, "required_capabilities")
            ],
        }
        out["dependencies"] = [_with(d, places, "dependency") for d in _list(out["dependencies"], "dependencies")]
    if "capabilities" in out:
        out["capabilities"] = [
            _with(c, {"name": lambda v: convert("capability_names", v)}, "capability")
            for c in _list(out["capabilities"], "capabilities")
        ]
    return out


def _graph(graph: object, convert: Convert) -> object:
    def node(value: object) -> object:
        return _with(
            value,
            {
                "id": lambda v: convert("node_ids", v),
                "component": lambda c: _with(c, {"id": lambda v: convert("component_ids", v)}, "node component"),
                "routing": lambda r: _routing(r, convert),
            },
            "node",
        )

    return _with(graph, {"nodes": lambda nodes: [node(n) for n in _list(nodes, "nodes")]}, "flow graph")


def _routing(routing: object, convert: Convert) -> object:
    if not isinstance(routing, dict):
        return routing
    if "Next" in routing:
        return _with(
            routing, {"Next": lambda n: _with(n, {"node_id": lambda v: convert("node_ids", v)}, "Next")}, "routing"
        )
    if "Branch" in routing:
        places: dict[str, Callable[[object], object]] = {
            "on_status": lambda m: {k: convert("node_ids", v) for k, v in _map(m, "on_status").items()},
            "default": lambda v: None if v is None else convert("node_ids", v),
        }
        return _with(routing, {"Branch": lambda b: _with(b, places, "Branch")}, "routing")
    return routing


def _with(value: object, changes: dict[str, Callable[[object], object]], what: str) -> Map:
    out = dict(_map(value, what))
    for key, change in changes.items():
        if key in out:
            out[key] = change(out[key])
    return out


def _map(value: object, what: str) -> Map:
    if not isinstance(value, dict):
        raise MalformedArtifact(f"pack manifest: {what} is no map")
    return cast(Map, value)


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise MalformedArtifact(f"pack manifest: {what} is no list")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise MalformedArtifact(f"pack manifest: {what} is no text")
    return value


def _texts(value: object, what: str) -> list[str]:
    return [_text(item, what) for item in cast(Iterable[object], _list(value, what))]
