"""Flows that a pack carries in an extension instead of its manifest (formats: pack 6; flows 3).

Rules:
1. If one of the three extensions is there, its flows replace those of the manifest.
2. Their nodes say directly what they call; they become the nodes that every other flow has.
"""

from __future__ import annotations

from greentic.ground.errors import MalformedArtifact
from greentic.pack.manifest import FlowRecord, Map, PackManifest, check_each_once, check_id

EXTENSIONS = ("greentic.pack.runtime_flow", "greentic.pack.flow_runtime", "greentic.pack.runtime_flows")


def flows_of(manifest: PackManifest) -> list[FlowRecord]:
    """The flows that a worker serves. Raises `MalformedArtifact` for an extension that has none."""
    for name in EXTENSIONS:
        extension = manifest.extensions.get(name)
        if extension is not None:
            inline = extension.get("inline", extension)
            flows = inline.get("flows") if isinstance(inline, dict) else None
            if not isinstance(flows, list):
                raise MalformedArtifact(f"the extension `{name}` has no list `flows`")
            found = [_flow(name, flow) for flow in flows]
            check_each_once(f"flows of the extension `{name}`", (flow.id for flow in found))
            return found
    return manifest.flows


def _flow(extension: str, raw: object) -> FlowRecord:
    if not isinstance(raw, dict):
        raise MalformedArtifact(f"a flow of the extension `{extension}` is no map")
    flow_id = check_id(raw.get("id"))
    nodes = raw.get("nodes")
    if isinstance(nodes, list):
        named = [(str(node.get("id", node.get("node_id"))), node) for node in nodes if isinstance(node, dict)]
        check_each_once(f"nodes of flow `{flow_id}`", (name for name, _ in named))
        listed = dict(named)
    else:
        listed = dict(nodes) if isinstance(nodes, dict) else {}
    points = raw.get("entrypoints")
    names = list(points) if isinstance(points, list | dict) else []
    start = raw.get("start")
    if not isinstance(start, str) and isinstance(points, dict):
        start = points.get("default", next(iter(points.values()), None))
    if not isinstance(start, str) and isinstance(points, list):
        start = next((point for point in points if point in listed), None)
    kind = raw.get("kind", raw.get("flow_type", "messaging"))
    metadata = raw.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    graph: Map = {
        "nodes": [_node(name, node) for name, node in listed.items()],
        "entrypoints": {"default": start if isinstance(start, str) else next(iter(listed), None)},
        "metadata": metadata if isinstance(metadata, dict) else {},
    }
    return FlowRecord(
        flow_id,
        str(kind),
        [t for t in tags if isinstance(t, str)] if isinstance(tags, list) else [],
        [str(name) for name in names],
        graph,
    )


def _node(name: str, raw: object) -> Map:
    node = raw if isinstance(raw, dict) else {}
    component = node.get("component_id", node.get("component"))
    operation = node.get("operation_name", node.get("operation"))
    payload = node.get("operation_payload", node.get("payload", node.get("input")))
    config, routing = node.get("config"), node.get("routing")
    if config is not None:
        payload = {**payload, "config": config} if component == "component.exec" and isinstance(payload, dict) else {
            "input": payload, "config": config,
        }  # fmt: skip
    if isinstance(routing, list):
        routing = {"Custom": routing}
    return {
        "id": name,
        "component": {"id": component if isinstance(component, str) else "", "operation": operation},
        "input": {"mapping": payload},
        "routing": routing,
    }
