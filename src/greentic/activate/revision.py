"""A revision that can answer: its packs, the index of its flows, and one turn."""

from __future__ import annotations

from typing import NamedTuple

from greentic.activate.load import LoadedFlow, LoadedPack
from greentic.flow.activity import Activity, failure_payload
from greentic.flow.graph import FlowFailure
from greentic.flow.run import run_flow
from greentic.flow.select import FlowHeader, select


class ActiveRevision(NamedTuple):
    """One loaded revision of a deployment."""

    revision_id: str
    deployment_id: str
    bundle_id: str
    digest: str
    source: str | None
    weight_bps: int
    draining: bool
    packs: tuple[LoadedPack, ...]
    flows: tuple[tuple[FlowHeader, LoadedFlow], ...]

    @property
    def main_pack(self) -> str:
        return self.packs[0].manifest_id


def flow_index(packs: tuple[LoadedPack, ...]) -> tuple[tuple[FlowHeader, LoadedFlow], ...]:
    """Every flow of every pack; of two with the same pack and id the later wins."""
    found: dict[tuple[str, str], tuple[FlowHeader, LoadedFlow]] = {}
    for pack in packs:
        for flow in pack.flows:
            header = FlowHeader(flow.pack_id, flow.flow_id, flow.kind, flow.entry, pack.provides_messaging)
            found[flow.pack_id, flow.flow_id] = (header, flow)
    return tuple(found.values())


def turn(revision: ActiveRevision, activity: Activity, tenant: str) -> object:
    """What the flow answers, failures included. Raises `NoFlow` when none can be selected."""
    flow = select(revision.flows, revision.main_pack, activity.flow_type, tenant)
    try:
        return run_flow(flow.graph, activity.payload)
    except FlowFailure as failure:
        return failure_payload(flow.flow_id, str(failure))
