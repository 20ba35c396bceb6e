"""Which flow of a revision a turn runs (spec: worker 6.1).

Rules, first applicable:
1. A flow type is asked for: the only flow of that type; else the only *entry* flow of that type outside packs that provide
   messaging; else the request is ambiguous.
2. Nothing is asked for: the first entry flow of the main pack, which is the first pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar


class FlowHeader(NamedTuple):
    """What selection needs to know about a flow."""

    pack_id: str
    flow_id: str
    kind: str
    entry: bool
    provider: bool
    """Whether its pack provides messaging."""


class NoFlow(Exception):
    """No flow can be selected; the host answers with its own error."""


F = TypeVar("F")


def select(flows: Sequence[tuple[FlowHeader, F]], main_pack: str, flow_type: str | None, tenant: str) -> F:
    """The flow that a turn runs. Raises `NoFlow`."""
    if flow_type is None:
        for header, flow in flows:
            if header.pack_id == main_pack and header.entry:
                return flow
        raise NoFlow(f"no entry flows registered for tenant {tenant}")
    of_type = [(header, flow) for header, flow in flows if header.kind == flow_type]
    if len(of_type) == 1:
        return of_type[0][1]
    entries = [flow for header, flow in of_type if header.entry and not header.provider]
    if len(entries) == 1:
        return entries[0]
    raise NoFlow(f"flow type {flow_type} is ambiguous; pack_id is required")
