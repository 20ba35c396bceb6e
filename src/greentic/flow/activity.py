"""Requests as activities, and what a turn answers (formats: worker 10, 11; flows 3).

Rules:
1. An object with a string `text` and no `metadata` is a message; with `metadata` it is a custom activity that is still
   answered by the messaging flow; any other JSON value goes to the main pack's entry flow.
2. A flow that fails is answered all the same, with the error in `payload.metadata`.
3. The answer is always a list of replies.
"""

from __future__ import annotations

import msgspec

from greentic.expressions.value_range import in_range

APOLOGY = "Sorry — something went wrong while handling that. Please try again."


class Activity(msgspec.Struct, frozen=True):
    """What a caller sends to a flow."""

    payload: object
    flow_type: str | None
    """The kind of flow that is asked for; none means the main pack's entry flow."""


def activity_of(body: object) -> Activity:
    """The activity of a request body on the generic route (rule 1). Raises `FlowFailure` for a number beyond all ranges."""
    body = in_range(body)
    if isinstance(body, dict) and isinstance(body.get("text"), str):
        if "metadata" not in body:
            return Activity({"text": body["text"]}, "messaging")
        return Activity(body, "messaging")
    return Activity(body, None)


def invoke_activity(payload: object) -> Activity:
    """The activity of a `/workers/invoke` payload: text is a message, any other object becomes metadata."""
    if isinstance(payload, dict) and isinstance(payload.get("text"), str):
        return activity_of(payload)
    payload = in_range(payload)
    return Activity({"metadata": payload} if isinstance(payload, dict) else payload, "messaging")


def failure_payload(flow_id: str, message: str, text: str = APOLOGY) -> dict[str, object]:
    """What a failed flow answers (rule 2)."""
    return {
        "text": text,
        "metadata": {"error_kind": "flow_execution_failed", "error_message": message, "flow_id": flow_id},
    }


def replies(output: object, tenant: str) -> list[dict[str, object]]:
    """The reply array: one reply per element of a list, else one."""
    payloads = output if isinstance(output, list) else [output]
    kind = {"kind": "custom", "action": "response"}
    return [{"kind": kind, "tenant": tenant, "payload": payload} for payload in payloads]
