"""Which flow of a revision a turn runs (formats: flows 3).

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
ASKED: tuple[tuple[str | None, str], ...] = (("messaging", "a message"), (None, "a body that is no message"))
"""What a request may ask for, and how that is told."""


def unanswerable(flows: Sequence[FlowHeader], main_pack: str) -> list[str]:
    """What every request of a kind will be refused for, known as soon as the packs are."""
    found: list[str] = []
    for flow_type, what in ASKED:
        try:
            select([(header, header) for header in flows], main_pack, flow_type, "")
        except NoFlow:
            of_type = [h for h in flows if flow_type is None or h.kind == flow_type]
            entries = [h for h in of_type if h.entry and not h.provider]
            if flow_type is None:
                why = f"no flow of the first pack `{main_pack}` is an entry"
            elif len(entries) > 1:
                listed = ", ".join(f"`{h.flow_id}`" for h in entries[:8]) + (", …" if len(entries) > 8 else "")
                why = f"flow type {flow_type} is ambiguous, flows {listed} are all entries of it; "
                why += "all but one are to have the tag `internal` (`tags` of a flow, or of its line in pack.yaml)"
            else:
                why = f"no flow of type {flow_type} is an entry"
            found.append(f"{what} cannot be answered: {why}")
    return found


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
