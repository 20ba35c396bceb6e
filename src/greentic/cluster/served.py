"""What a running pod says of the document that it serves, compared with the one that was written. Pure.

Rules:
1. A document is named by its digest (`model.environment.document_digest`). A pod serves the one that was written when its `/status`
   says so of `following.serving`; that it has read it, or is ready, is not enough.
2. A pod that serves the document without one of its deployments does not serve what was written. What was never to be had from a
   source (`absent`) does not count, for it is told before.
3. Of a pod with several processes each must serve it; one that did not answer the others may not.
4. What ails a pod is for good where its own words say that trying again is of no use; else it may pass.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.ground.documents import JsonObject
from greentic.k8s.health import for_good, runs_template, selects
from greentic.k8s.objects import member, metadata_of, objects_in


class Served(NamedTuple):
    """How far a pod is."""

    done: bool
    ails: str = ""
    """What is in the way; empty while it only takes its time."""
    for_good: bool = False
    silent: bool = False
    """Whether it does not say at all what it serves."""


WAITING = Served(False)


def served(status: JsonObject, digest: str) -> Served:
    """The verdict over a pod's `/status` (rules 1 to 4)."""
    if status.get("silent"):
        return WAITING
    verdicts = [_process_served(process, digest) for process in (status, *objects_in(status.get("others")))]
    return next((v for v in verdicts if v.ails), next((v for v in verdicts if not v.done), verdicts[0]))


def _process_served(status: JsonObject, digest: str) -> Served:
    following = member(status, "following")
    if not following:
        return Served(False, "its image does not say which document it serves", silent=True)
    if member(following, "serving").get("digest") != digest:
        told = following.get("error")
        if member(following, "desired").get("digest") != digest or not told:
            return WAITING
        return Served(False, str(told), for_good(str(told)))
    for fault in objects_in(status.get("unavailable")):
        if fault.get("reason") != "absent":
            text = f"deployment `{fault.get('deployment_id')}`, revision `{fault.get('revision_id')}`: {fault.get('error')}"
            return Served(False, text, for_good(text))
    return Served(True)


def asked(pods: list[JsonObject], deployments: list[JsonObject]) -> list[str]:
    """The names of the pods that are to serve the document: ready ones of these Deployments' current templates."""
    return sorted(
        str(metadata_of(pod).get("name"))
        for pod in pods
        if is_ready(pod) and any(selects(d, pod) and runs_template(pod, d) for d in deployments)
    )


def is_ready(pod: JsonObject) -> bool:
    conditions = objects_in(member(pod, "status").get("conditions"))
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
