"""The flow graph as it is stored in a pack (formats: pack 5; flows 5).

Rules:
1. The start is `entrypoints.default`, else the first node; a flow without nodes has none, which is told when it is run.
2. What is stored but not executed (`output`, `err_map`, `pack_alias`, statuses of `Branch`) is not looked at.
"""

from __future__ import annotations

import msgspec

from greentic.ground.errors import FlowFailure as FlowFailure

Map = dict[str, object]


class Node(msgspec.Struct, frozen=True):
    """One step: which component with which operation, its input template, and where it goes on."""

    id: str
    component: str
    operation: str | None
    mapping: object
    routing: object


class FlowGraph(msgspec.Struct, frozen=True):
    id: str
    nodes: dict[str, Node]
    """By id, in stored order."""
    start: str | None
    """What `entrypoints.default` names, whether or not such a node exists."""
    extra: Map
    """`metadata.extra`: variables and slots that the author declared."""

    def first(self) -> str:
        """The id of the node that a run starts at (rule 1). Raises `FlowFailure`."""
        if self.start is not None:
            return self.start
        for node_id in self.nodes:
            return node_id
        raise FlowFailure(f"flow {self.id} has no start node")


def read_graph(flow_id: str, raw: Map) -> FlowGraph:
    """The graph of a decoded flow, whose ids stand in the places of indexes."""
    nodes: dict[str, Node] = {}
    stored = raw.get("nodes")
    for item in stored if isinstance(stored, list) else []:
        if isinstance(item, dict):
            node = _node(item)
            nodes[node.id] = node
    entrypoints = raw.get("entrypoints")
    start = entrypoints.get("default") if isinstance(entrypoints, dict) else None
    metadata = raw.get("metadata")
    extra = metadata.get("extra") if isinstance(metadata, dict) else None
    return FlowGraph(
        flow_id, nodes, start if isinstance(start, str) else None, extra if isinstance(extra, dict) else {}
    )


def _node(raw: Map) -> Node:
    component = raw.get("component")
    component = component if isinstance(component, dict) else {}
    source = raw.get("input")
    operation = component.get("operation")
    return Node(
        str(raw.get("id")),
        str(component.get("id")),
        operation if isinstance(operation, str) else None,
        source.get("mapping") if isinstance(source, dict) else None,
        raw.get("routing"),
    )
