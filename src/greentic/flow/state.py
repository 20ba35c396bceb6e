"""The state of a run, and the snapshot of a parked one (formats: flows 5, 10).

Rules:
1. A snapshot holds the whole state but what was already told to the caller; it is plain JSON.
2. Resuming replaces entry and input by the new message. A snapshot of another pack is refused.
"""

from __future__ import annotations

import msgspec

from greentic.expressions.paths import MISSING
from greentic.ground.errors import FlowFailure

Map = dict[str, object]


class NodeOutput(msgspec.Struct, frozen=True):
    """What a node left behind."""

    ok: bool
    payload: object
    meta: object = None

    def to_json(self) -> Map:
        return {"ok": self.ok, "payload": self.payload, "meta": self.meta}


class RunState(msgspec.Struct):
    """Everything that a run remembers."""

    entry: object
    nodes: dict[str, NodeOutput] = {}
    views: Map = {}
    """The nodes as templates see them, made once for each output (`node_names`). Not kept."""
    egress: list[object] = []
    last_output: object = MISSING
    redirect_count: int = 0
    vars: Map = {}
    park_turns: int = 0
    answering: str | None = None
    """The node that waited for a submit and now gets its answers."""
    answers: Map = {}
    taken: bool = False
    """Whether a step of this turn took the message's action or text; later conditions see neither. Not kept: the next
    message is a new one."""


class Snapshot(msgspec.Struct, frozen=True):
    """A parked run."""

    pack_id: str
    flow_id: str
    """The flow that the run began with."""
    next_flow: str | None
    """The flow to go on in, if a jump changed it."""
    next_node: str
    awaiting_submit: bool
    state: RunState

    def to_json(self) -> Map:
        """The stored form."""
        state = self.state
        out: Map = {"pack_id": self.pack_id, "flow_id": self.flow_id}
        if self.next_flow is not None:
            out["next_flow"] = self.next_flow
        kept: Map = {
            "entry": state.entry,
            "input": state.entry,
            "nodes": {name: output.to_json() for name, output in state.nodes.items()},
            "egress": [],
            "redirect_count": state.redirect_count,
            "vars": state.vars,
            "park_turns": state.park_turns,
        }
        if state.last_output is not MISSING:
            kept["last_output"] = state.last_output
        return out | {"next_node": self.next_node, "awaiting_submit": self.awaiting_submit, "state": kept}


class _StoredState(msgspec.Struct):
    entry: object
    nodes: dict[str, NodeOutput]
    last_output: object = MISSING
    redirect_count: int = 0
    vars: Map | None = None
    park_turns: int = 0


class _Stored(msgspec.Struct):
    pack_id: str
    flow_id: str
    next_node: str
    state: _StoredState
    next_flow: str | None = None
    awaiting_submit: bool = False


def read_snapshot(raw: object, pack_id: str) -> Snapshot:
    """A stored snapshot. Raises `FlowFailure` for one of another pack, or one that cannot be read."""
    try:
        found = msgspec.convert(raw, _Stored)
    except msgspec.ValidationError as error:
        raise FlowFailure(f"the waiting conversation cannot be read: {error}") from None
    if found.pack_id != pack_id:
        raise FlowFailure(f"snapshot pack {found.pack_id} does not match requested {pack_id}")
    kept = found.state
    state = RunState(
        entry=kept.entry,
        nodes=kept.nodes,
        last_output=kept.last_output,
        redirect_count=kept.redirect_count,
        vars=kept.vars or {},
        park_turns=kept.park_turns,
    )
    return Snapshot(pack_id, found.flow_id, found.next_flow, found.next_node, found.awaiting_submit, state)
