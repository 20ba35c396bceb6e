"""A run of a flow as spans: one a node, what the node calls within it.

A node that fails is not told to be done. Its span ends, as failed, when a node around it is done or when the run is over.
"""

from __future__ import annotations

from greentic.telemetry import tracing
from greentic.telemetry.tracing import Span

FAILED = "failed"


class FlowSpans:
    """Told each node of the runs of one turn, for the span that is open."""

    def __init__(self) -> None:
        self._entered: list[tuple[str, str, Span]] = []

    def enter(self, flow_id: str, node_id: str, kind: str) -> None:
        """A node begins."""
        span = tracing.begin(f"node {kind}")
        if span is not None:
            span.attributes |= {"greentic.flow": flow_id, "greentic.node": node_id, "greentic.node.kind": kind}
            self._entered.append((flow_id, node_id, span))

    def step(self, flow_id: str, node_id: str, kind: str, payload: object, output: object, then: str) -> None:
        """A node is done; what is still open within it failed."""
        while self._entered:
            *entered, span = self._entered.pop()
            if entered == [flow_id, node_id]:
                tracing.end(span)
                return
            tracing.end(span, FAILED)

    def said(self, component: str, stream: str, text: str) -> None:
        """What a component writes is logged, not traced."""

    def over(self) -> None:
        """A run is over; what is still open failed."""
        while self._entered:
            tracing.end(self._entered.pop()[2], FAILED)
