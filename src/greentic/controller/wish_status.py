"""What an operator tells of itself: the `status` of its object (formats: operator 2). Pure.

Rules:
1. Three conditions. Synced: the cluster's objects are as stated. Ready: so are the pods, and routers say that they serve the
   document. Degraded: something is in the way, with its reason; then the last good state stays.
2. A condition's time is that of its last change of status, not of its last telling. A status that says the same is not written.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from greentic.ground.documents import Json, JsonObject
from greentic.k8s.objects import objects_in

Truth = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 1024


class Condition(NamedTuple):
    type: str
    status: Truth
    reason: str
    message: str = ""


class WishStatus(NamedTuple):
    """What is to be told."""

    observed: int
    """The generation of the wish."""
    conditions: tuple[Condition, ...]
    published: int = 0
    """The generation of the environment that is applied."""
    document: str = ""
    manifest: str = ""
    objects: int = 0


def status_of(told: WishStatus, before: JsonObject, now: str) -> JsonObject:
    """The status, with the times of what has not changed (rule 2)."""
    known = {str(c.get("type")): c for c in objects_in(before.get("conditions"))}
    conditions: list[Json] = []
    for condition in told.conditions:
        old = known.get(condition.type, {})
        since = old.get("lastTransitionTime") if old.get("status") == condition.status else now
        conditions.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message[:MAX_MESSAGE],
                "observedGeneration": told.observed,
                "lastTransitionTime": since or now,
            }
        )
    return {
        "observedGeneration": told.observed,
        "published": {"generation": told.published, "document": told.document, "manifest": told.manifest},
        "objects": told.objects,
        "conditions": conditions,
    }


def turned(status: JsonObject, before: JsonObject) -> list[Condition]:
    """The conditions whose status or reason is another than before: what is worth an event."""
    known = {str(c.get("type")): (c.get("status"), c.get("reason")) for c in objects_in(before.get("conditions"))}
    out = []
    for raw in objects_in(status.get("conditions")):
        if known.get(str(raw.get("type"))) != (raw.get("status"), raw.get("reason")):
            truth: Truth = (
                "True" if raw.get("status") == "True" else "False" if raw.get("status") == "False" else "Unknown"
            )
            out.append(Condition(str(raw.get("type")), truth, str(raw.get("reason")), str(raw.get("message"))))
    return out


def is_kept(written: JsonObject, kept: JsonObject) -> bool:
    """Whether a server kept what was written of a status; an older definition drops what it does not know."""
    return kept.get("conditions") == written.get("conditions") and kept.get("published") == written.get("published")
