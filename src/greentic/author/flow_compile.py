"""From the authoring form of a flow (`.ygtc`) to the graph of a pack (formats: flows 1, 2).

Rules:
1. A node has exactly one operation key beside the known ones; what it means is not asked here.
2. Routing: nothing or `out` ends, `reply` replies, one plain target is `Next`, several with a status are `Branch`, anything
   with a condition or an unknown key is kept as it was written.
3. Every target and the start must name a node; a flow that would fail at run time for a typing error is refused.
"""

from __future__ import annotations

import re
from typing import cast

from greentic.author.yaml_places import Way
from greentic.expressions.value_range import fault
from greentic.ground.nearest import did_you_mean, one_of

Map = dict[str, object]

KINDS = {
    "messaging": "messaging",
    "event": "event",
    "events": "event",
    "component-config": "component_config",
    "component_config": "component_config",
    "job": "job",
    "http": "http",
}
_SIBLINGS = frozenset({
    "routing", "telemetry", "in_map", "out_map", "output", "err_map", "operation", "retry", "timeout", "when", "annotations", "meta",
})  # fmt: skip
_TOP = frozenset({
    "id", "title", "description", "type", "start", "parameters", "tags", "schema_version", "entrypoints", "meta", "slot_schema", "nodes",
})  # fmt: skip
TELEMETRY = ("span_name", "attributes", "sampling")
_NODE_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_KEYED_COMPONENTS = ("questions", "template", "mcp")
_PLAIN_ROUTE_KEYS = frozenset({"to", "out", "status", "reply"})


class FlowSourceError(ValueError):
    """A flow source that cannot be compiled; the text says why, and `way` leads to what is at fault."""

    def __init__(self, told: str, *way: str | int) -> None:
        super().__init__(told)
        self.way: Way = way


def compile_flow(source: object) -> Map:
    """The stored flow (`{schema_version, id, kind, entrypoints, nodes, metadata}`) with ids as texts."""
    if not isinstance(source, dict):
        raise FlowSourceError("a flow is a mapping with `id`, `type` and `nodes`")
    told = fault(source)
    if told:
        raise FlowSourceError(told)
    unknown = sorted(str(k) for k in source if k not in _TOP)
    if unknown:
        raise FlowSourceError(f"unknown key(s) {', '.join(unknown)}{did_you_mean(unknown[0], _TOP)}", unknown[0])
    for required in ("id", "type"):
        if source.get(required) in (None, ""):
            raise FlowSourceError(f"missing required property `{required}`")
    flow_id = source["id"]
    if not isinstance(flow_id, str):
        raise FlowSourceError(f"`id` is a text, found {flow_id!r:.80}", "id")
    kind = KINDS.get(str(source["type"]))
    if kind is None:
        raise FlowSourceError(
            f"Unknown flow type '{source['type']}'{one_of(str(source['type']), sorted(KINDS))}", "type"
        )
    nodes = source.get("nodes") or {}
    if not isinstance(nodes, dict):
        raise FlowSourceError("`nodes` is a mapping of node ids", "nodes")
    version = source.get("schema_version", 2)
    compiled = [_node(name, node, nodes, version if isinstance(version, int) else 2) for name, node in nodes.items()]
    return {
        "schema_version": "flow-v1",
        "id": flow_id,
        "kind": kind,
        "entrypoints": _entrypoints(source, nodes),
        "nodes": compiled,
        "metadata": _metadata(source),
    }


def _entrypoints(source: Map, nodes: Map) -> Map:
    declared = source.get("entrypoints") or {}
    if not isinstance(declared, dict):
        raise FlowSourceError("`entrypoints` is a mapping", "entrypoints")
    if not all(isinstance(name, str) for name in declared):
        raise FlowSourceError("the names of `entrypoints` are texts", "entrypoints")
    entrypoints: Map = dict(declared)
    start = source.get("start")
    if start is not None:
        entrypoints["default"] = start
    elif "default" not in entrypoints and nodes:
        entrypoints["default"] = "in" if "in" in nodes else next(iter(nodes))
    default = entrypoints.get("default")
    if default is not None and not (isinstance(default, str) and default in nodes):
        way = ("entrypoints", "default") if start is None else ("start",)
        raise FlowSourceError(f"start '{default}' names no node", *way)
    return dict(sorted(entrypoints.items()))


def _metadata(source: Map) -> Map:
    extra: Map = {}
    parameters = source.get("parameters")
    if parameters is not None:
        if not isinstance(parameters, dict):
            raise FlowSourceError("`parameters` is a mapping", "parameters")
        extra.update(parameters)
    if source.get("slot_schema") is not None:
        extra["greentic.slot_schema"] = source["slot_schema"]
    metadata: Map = {}
    for key in ("title", "description"):
        if isinstance(source.get(key), str):
            metadata[key] = source[key]
    tags = source.get("tags") or []
    metadata["tags"] = sorted(str(t) for t in tags) if isinstance(tags, list) else []
    metadata["extra"] = extra
    return metadata


def _node(name: object, node: object, nodes: Map, version: int) -> Map:
    if not isinstance(name, str) or not _NODE_ID.match(name):
        raise FlowSourceError(f"`{name}` is no node id; expected letters, digits, `_`, `-`", "nodes", str(name))
    if not isinstance(node, dict):
        raise FlowSourceError(f"Node '{name}' is a mapping", "nodes", name)
    keys = [k for k in node if k not in _SIBLINGS]
    if len(keys) != 1:
        dotted = [str(k) for k in keys if "." in str(k)]
        under = f"; what is meant for `{dotted[0]}` stands under it" if len(dotted) == 1 and len(keys) > 1 else ""
        meant = did_you_mean(str(keys[-1]), _SIBLINGS) if keys else ""
        raise FlowSourceError(
            f"Node '{name}' must contain exactly one component key such as `emit.response` beside `routing`, found "
            f"{', '.join(map(str, keys)) or 'none'}{meant or under}",
            "nodes",
            name,
            *map(str, keys[-1:]),
        )
    component, operation = _component(str(keys[0]), node.get("operation"), version)
    err_map = node.get("err_map")
    mapping = node.get("in_map") or ({} if node[keys[0]] is None else node[keys[0]])
    return {
        "id": name,
        "component": {"id": component, "pack_alias": None, "operation": operation},
        "input": {"mapping": mapping},
        "output": {"mapping": node.get("out_map") or node.get("output") or {}},
        "err_map": None if err_map is None else {"mapping": err_map},
        "routing": _routing(name, node.get("routing"), nodes),
        "telemetry": _telemetry(node.get("telemetry")),
    }


def _telemetry(told: object) -> Map:
    """What other readers take of it: texts, and a mapping of texts."""
    stored: Map = {}
    for name in TELEMETRY if isinstance(told, dict) else ():
        value = told.get(name) if isinstance(told, dict) else None
        if name == "attributes" and isinstance(value, dict):
            stored[name] = {key: text for key, text in value.items() if isinstance(text, str)}
        elif name != "attributes" and isinstance(value, str):
            stored[name] = value
    stored.setdefault("attributes", {})
    return stored


def _component(key: str, operation: object, version: int) -> tuple[str, str | None]:
    if version < 2 or key in _KEYED_COMPONENTS or key.startswith("dw."):
        return key, operation if isinstance(operation, str) else None
    named = operation if isinstance(operation, str) else key
    if "." in named or ":" in named:
        return named, None
    return "component.exec", named


def _routing(name: str, routing: object, nodes: Map) -> object:
    if routing is None or routing == "out" or routing == []:
        return "End"
    if routing == "reply":
        return "Reply"
    if not isinstance(routing, list) or not all(isinstance(r, dict) for r in routing):
        raise FlowSourceError(f"routing of '{name}' is `out`, `reply` or a list of mappings", "nodes", name, "routing")
    routes = cast(list[Map], routing)
    for number, route in enumerate(routes):
        target = route.get("to")
        if "to" in route and target is None and not route.keys() & {"out", "reply", "condition"}:
            told = f"a route of '{name}' has nothing as `to`; `to: out` ends the flow"
            raise FlowSourceError(told, "nodes", name, "routing", number, "to")
        if target is not None and target != "out" and not (isinstance(target, str) and target in nodes):
            meant, way = did_you_mean(str(target), nodes), ("nodes", name, "routing", number, "to")
            raise FlowSourceError(f"Missing node '{target}' referenced in routing from '{name}'{meant}", *way)
    if any("condition" in r or not r.keys() <= _PLAIN_ROUTE_KEYS for r in routes):
        return {"Custom": routes}
    if len(routes) == 1:
        route = routes[0]
        if route.get("out") or route.get("to") == "out":
            return "End"
        if route.get("reply"):
            return "Reply"
        if "to" in route and "status" not in route:
            return {"Next": {"node_id": route["to"]}}
    with_status = {str(r["status"]): r["to"] for r in routes if "status" in r and "to" in r}
    without = [r for r in routes if "status" not in r and "to" in r]
    if len(with_status) + len(without) == len(routes):
        default = without[-1]["to"] if without else None
        return {"Branch": {"on_status": dict(sorted(with_status.items())), "default": default}}
    return {"Custom": routes}
