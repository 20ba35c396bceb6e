"""What is measured: every family of metrics with its kind, its labels and what it tells. Pure, and the only list there is.

Rules:
1. A family that is not in the table cannot be shown; `docs/observability.md` and the dashboard use these names.
2. Labels come from what operators wrote or from closed lists: ids, bundles, components, kinds, codes. Never a session, user or text.
3. Each family says how the readings of several processes add up.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram", "info"]
Adding = Literal["sum", "most", "least"]
"""Of gauges; counters and histograms are sums."""


class Family(msgspec.Struct, frozen=True):
    """One family."""

    name: str
    """Without the endings that the formats add."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    adding: Adding = "sum"


REVISION = ("deployment", "bundle", "revision")
_COMPONENT = ("deployment", "component")

_ROWS = (
    # -- turns, by revision
    Family("greentic_turns", "counter", "Turns that ended.", REVISION),
    Family("greentic_turn_failures", "counter", "Turns that failed, by kind.", (*REVISION, "kind")),
    Family("greentic_turn_duration_seconds", "histogram", "How long turns took.", REVISION),
    Family("greentic_turns_in_flight", "gauge", "Turns that run now.", REVISION),
    Family("greentic_conversations_parked", "counter", "Conversations that began to wait for a message.", REVISION),
    Family("greentic_conversations_resumed", "counter", "Conversations that waited and no longer do.", REVISION),
    Family("greentic_stored_values_dropped", "counter", "Conversations and state that a full store let go of."),
    Family("greentic_revision_weight_ratio", "gauge", "Share of new traffic, from 0 to 1.", REVISION, "most"),
    # -- requests
    Family("greentic_http_answers", "counter", "Answers to requests, by status code.", ("code",)),
    Family("greentic_connections", "gauge", "Connections that are open."),
    Family("greentic_connections_refused", "counter", "Connections that were ended for want of room."),
    Family("greentic_turns_refused", "counter", "Turns for which there was no place in time.", ("deployment",)),
    Family("greentic_turns_waiting", "gauge", "Turns that wait for a place to run."),
    # -- components
    Family("greentic_component_calls", "counter", "Calls of components.", _COMPONENT),
    Family("greentic_component_failures", "counter", "Calls that ended a run, by kind.", (*_COMPONENT, "kind")),
    Family("greentic_component_call_duration_seconds", "histogram", "How long calls took.", _COMPONENT),
    Family("greentic_component_compute_seconds", "counter", "Processor time that calls took.", _COMPONENT),
    Family("greentic_component_memory_bytes", "gauge", "Memory of suspended calls, about."),
    # -- delivery
    Family("greentic_pulls", "counter", "Bundles that were brought here, by where they came from.", ("from",)),
    Family("greentic_pulled_bytes", "counter", "Bytes of bundles that were received."),
    Family("greentic_pull_resumes", "counter", "Downloads that went on where an earlier one had stopped."),
    Family("greentic_pull_resumed_bytes", "counter", "Bytes that such downloads did not have to receive again."),
    Family(
        "greentic_refusals", "counter", "Deployments that a document names and that were not provisioned.", ("reason",)
    ),
    Family("greentic_deployments_unavailable", "gauge", "Deployments that are not served now.", ("reason",), "most"),
    # -- the worker
    Family("greentic_boot_seconds", "gauge", "How long the phases of the boot took.", ("phase",), "most"),
    Family("greentic_swaps", "counter", "Changes of the environment that were swapped in."),
    Family("greentic_generation_desired", "gauge", "Generation of the document that is wanted.", (), "most"),
    Family("greentic_generation_serving", "gauge", "Generation of the document that is served.", (), "least"),
    Family("greentic_following_failed", "gauge", "1 while the newest document cannot be served.", (), "most"),
    Family("greentic_draining", "gauge", "1 while the worker stops.", (), "most"),
    Family("greentic_event_loop_delay_seconds", "histogram", "How late the event loop is."),
    Family("greentic_processes", "gauge", "Processes of this worker that answered."),
    Family("greentic_log_lines_dropped", "counter", "Lines that the log did not take, by why.", ("reason",)),
    Family("greentic_spans", "counter", "Spans, by what became of them.", ("fate",)),
    Family("greentic_build", "info", "What runs.", ("version", "python"), "most"),
    Family("process_cpu_seconds", "counter", "Processor time that was used."),
    Family("process_resident_memory_bytes", "gauge", "Resident memory."),
    Family("process_start_time_seconds", "gauge", "When the oldest process began, since 1970.", (), "least"),
)

FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}
"""Every family, by name, in the order in which they are shown."""
OTHER = "other"
"""The value of every label of what is beyond the cap of a family."""
