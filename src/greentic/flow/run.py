"""One run of a flow as a function of its graph and input."""

from __future__ import annotations

from greentic.flow.graph import FlowFailure, FlowGraph


def run_flow(graph: FlowGraph, payload: object) -> object:
    """The output of a run. Raises `FlowFailure`: the graph is read, but its nodes are not executed by this version."""
    node_id = graph.first()
    node = graph.nodes.get(node_id)
    if node is None:
        raise FlowFailure(f"node {node_id} not found")
    raise FlowFailure(
        f"flow {graph.id} has nodes (it starts at `{node_id}`), and this worker does not execute flow nodes yet"
    )
