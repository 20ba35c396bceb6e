"""Whether a Deployment has come to what was applied, and if not, whether it ever will (spec: kubernetes 3.7). Pure.

Rules:
1. Complete: the controller has seen this generation, all wanted pods are of it and available, and no old ones linger.
2. Hopeless: the controller has given up, or may not make pods, or a pod of the current template cannot have its image, is
   configured wrongly, ended with a digest that is not the pinned one, or keeps crashing. A pod that fits nowhere is hopeless
   after a while, since a cluster may grow.
3. Pods of an older template do not count: a rollout is how they go away.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from greentic.ground.documents import Json, JsonObject
from greentic.k8s.cluster import member, metadata_of

CRASHES = 3
"""Restarts after which a pod counts as crashing for good."""
UNSCHEDULABLE_SECONDS = 45.0
_IMAGE = frozenset({"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_FOR_GOOD = ("DigestMismatch", "does not match the pinned", "signatures are required", "is revoked")


class Rollout(NamedTuple):
    """How far a Deployment is."""

    done: bool
    failed: str | None
    seen: int
    expected: int
    updated: int
    available: int
    wanted: int
    lingering: int

    def __str__(self) -> str:
        return (
            f"observedGeneration {self.seen}/{self.expected}, updatedReplicas {self.updated}/{self.wanted}, "
            f"availableReplicas {self.available}/{self.wanted}, {self.lingering} old replica(s) lingering"
        )


class Trouble(NamedTuple):
    """What ails a pod."""

    pod: str
    reason: str
    crashed: bool = False
    """Whether the log of its last run tells more."""
    patient: bool = False
    """Whether it may pass by itself."""


def rollout(deployment: JsonObject) -> Rollout:
    """Rule 1, and the controller's own verdict of rule 2."""
    status, spec = member(deployment, "status"), member(deployment, "spec")
    wanted = _int(spec.get("replicas"), 1)
    seen, expected = _int(status.get("observedGeneration"), -1), _int(metadata_of(deployment).get("generation"), 0)
    updated, available, total = (_int(status.get(k), 0) for k in ("updatedReplicas", "availableReplicas", "replicas"))
    done = seen >= expected and updated >= wanted and total <= updated and available >= wanted
    failed = None
    if seen >= expected and not done:
        for condition in cast("list[JsonObject]", status.get("conditions") or []):
            if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
                failed = f"ProgressDeadlineExceeded: {condition.get('message')}"
            elif condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                failed = f"{condition.get('reason')}: {condition.get('message')}"
    return Rollout(done, failed, seen, expected, updated, available, wanted, max(0, total - updated))


def runs_template(pod: JsonObject, deployment: JsonObject) -> bool:
    """Whether a pod was made from the Deployment's current template (rule 3)."""
    if metadata_of(pod).get("deletionTimestamp"):
        return False
    template = member(deployment, "spec", "template")
    wanted, have = member(template, "metadata"), metadata_of(pod)
    for part in ("labels", "annotations"):
        stated, found = wanted.get(part) or {}, have.get(part) or {}
        if isinstance(stated, dict) and isinstance(found, dict) and any(found.get(k) != v for k, v in stated.items()):
            return False
    containers = {c.get("name"): c for c in _objects(member(pod, "spec").get("containers"))}
    for container in _objects(member(template, "spec").get("containers")):
        found_container = containers.get(container.get("name"))
        if found_container is None or any(found_container.get(k) != container.get(k) for k in ("image", "args", "env")):
            return False
    return True


def trouble(pod: JsonObject) -> Trouble | None:
    """What ails a pod, if it is more than a start that takes its time (rule 2)."""
    name = str(metadata_of(pod).get("name"))
    status = member(pod, "status")
    for condition in _objects(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Trouble(name, f"unschedulable: {condition.get('message')}", patient=True)
    for container in [*_objects(status.get("initContainerStatuses")), *_objects(status.get("containerStatuses"))]:
        waiting, ended = member(container, "state", "waiting"), member(container, "lastState", "terminated")
        ended = ended or member(container, "state", "terminated")
        reason = str(waiting.get("reason", ""))
        if reason in _IMAGE:
            return Trouble(
                name, f"the image `{container.get('image')}` cannot be had: {reason}: {waiting.get('message', '')}"
            )
        if reason in _CONFIG:
            return Trouble(name, f"{reason}: {waiting.get('message', '')}")
        message = str(ended.get("message", ""))
        if ended and any(text in message for text in _FOR_GOOD):
            return Trouble(name, f"it ended with code {ended.get('exitCode')}: {message.strip()}")
        if ended and _int(container.get("restartCount"), 0) >= CRASHES and not container.get("ready"):
            told = message.strip() or str(ended.get("reason", ""))
            return Trouble(
                name,
                f"it crashed {container.get('restartCount')} times, last with code {ended.get('exitCode')}: {told}",
                crashed=True,
            )
    return None


def _objects(value: Json) -> list[JsonObject]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _int(value: Json, default: int) -> int:
    return value if isinstance(value, int) else default
