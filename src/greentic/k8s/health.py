"""Whether a Deployment has come to what was applied, and if not, whether it ever will (formats: cluster 7). Pure.

Rules:
1. Complete: the controller has seen this generation, all wanted pods are of it and available, and no old ones linger.
2. Hopeless: the controller has given up, a pod of the current template ended with bytes that are not the pinned ones, keeps
   crashing, or names an image that cannot be. What may pass by itself is hopeless only after a while: an image that a registry
   does not give now, a Secret that is still to come, a pod that fits nowhere while the cluster grows.
3. Pods of an older template do not count: a rollout is how they go away. Templates are told apart by their own hash, whatever
   webhooks make of the pods.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import worded
from greentic.k8s.names import CHECKSUM
from greentic.k8s.objects import labels_of, member, metadata_of, objects_in

CRASHES = 3
"""Restarts after which a pod counts as crashing for good."""
PASSING_SECONDS = 30.0
"""How long something that may pass by itself is waited for; a pod that fits nowhere, `GROWING_SECONDS`."""
GROWING_SECONDS = 120.0
_NO_IMAGE = frozenset({"ErrImageNeverPull", "InvalidImageName"})
_IMAGE = frozenset({"ImagePullBackOff"}) | _NO_IMAGE
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_FOR_GOOD = ("'s pinned `sha256:", "signatures are required", "is revoked")


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


PAUSED = "it is paused (spec.paused), and nothing of it rolls out"
OVER_QUOTA = (
    "a ResourceQuota of the namespace has no room for it: answer smaller resources or fewer replicas, or have it raised"
)
_STEPS = {
    PAUSED: "kubectl rollout resume lets it go on, and whoever waits for it then",
    "exceeded quota": OVER_QUOTA,
    "must specify": "a ResourceQuota of the namespace counts what pods have to state: answer it in resources of router and worker",
    "usage per ": "a LimitRange of the namespace bounds it: answer resources of router and worker within that, or have it changed",
    "violates PodSecurity": "something adds to our pods what the namespace's level forbids; as rendered they meet `restricted`",
    "cannot be had": "see that the registry has it and that nodes may pull it; the answers are runtime_image and image_pull_secrets",
    "and this worker has seen": "pods go to no older document: gtc op delivery set ENV --generation N, above what they have seen",
    "unschedulable": "give the cluster room, or answer smaller resources or another placement (node_selector, tolerations, affinity)",
}


class Trouble(NamedTuple):
    """What ails a pod."""

    pod: str
    reason: str
    crashed: bool = False
    """Whether the log of its last run tells more."""
    patience: float = 0.0
    """Seconds in which it may pass by itself."""


def rollout(deployment: JsonObject) -> Rollout:
    """Rule 1, and the controller's own verdict of rule 2."""
    status, spec = member(deployment, "status"), member(deployment, "spec")
    wanted = _int(spec.get("replicas"), 1)
    seen, expected = _int(status.get("observedGeneration"), -1), _int(metadata_of(deployment).get("generation"), 0)
    updated, available, total = (_int(status.get(k), 0) for k in ("updatedReplicas", "availableReplicas", "replicas"))
    done = seen >= expected and updated >= wanted and total <= updated and available >= wanted
    failed = None
    if not done and spec.get("paused") is True:
        failed = PAUSED
    elif seen >= expected and not done:
        for condition in objects_in(status.get("conditions")):
            late = condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"
            if late or (condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"):
                failed = worded(condition.get("reason") or "ReplicaFailure", condition.get("message"))
    return Rollout(done, failed, seen, expected, updated, available, wanted, max(0, total - updated))


def runs_template(pod: JsonObject, deployment: JsonObject) -> bool:
    """Whether a pod was made from the Deployment's current template (rule 3)."""
    if metadata_of(pod).get("deletionTimestamp"):
        return False
    wanted = member(deployment, "spec", "template", "metadata", "annotations").get(CHECKSUM)
    return member(pod, "metadata", "annotations").get(CHECKSUM) == wanted


def selects(deployment: JsonObject, pod: JsonObject) -> bool:
    """Whether a pod is one of the Deployment's, by its labels."""
    wanted = member(deployment, "spec", "selector", "matchLabels")
    labels = labels_of(pod)
    return bool(wanted) and all(labels.get(k) == v for k, v in wanted.items())


def trouble(pod: JsonObject) -> Trouble | None:
    """What ails a pod, if it is more than a start that takes its time (rule 2)."""
    name = str(metadata_of(pod).get("name"))
    status = member(pod, "status")
    for condition in objects_in(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Trouble(name, worded("unschedulable", condition.get("message")), patience=GROWING_SECONDS)
    for container in [*objects_in(status.get("initContainerStatuses")), *objects_in(status.get("containerStatuses"))]:
        waiting, ended = member(container, "state", "waiting"), member(container, "lastState", "terminated")
        ended = ended or member(container, "state", "terminated")
        reason = str(waiting.get("reason", ""))
        if reason in _IMAGE:
            told = worded(f"the image `{container.get('image')}` cannot be had", reason, waiting.get("message"))
            return Trouble(name, told, patience=0.0 if reason in _NO_IMAGE else PASSING_SECONDS)
        if reason in _CONFIG:
            return Trouble(name, worded(reason, waiting.get("message")), patience=PASSING_SECONDS)
        message = str(ended.get("message") or "")
        if ended and for_good(message):
            return Trouble(name, worded(f"it ended with code {ended.get('exitCode')}", message))
        if ended and reason == "CrashLoopBackOff" and _int(container.get("restartCount"), 0) >= CRASHES:
            told = message.strip() or str(ended.get("reason", ""))
            count, code = container.get("restartCount"), ended.get("exitCode")
            return Trouble(name, worded(f"it crashed {count} times, last with code {code}", told), crashed=True)
    return None


def next_step(reason: str) -> str | None:
    """What to do about what keeps pods from running, where there is a known step."""
    return next((step for text, step in _STEPS.items() if text in reason), None)


def for_good(message: str) -> bool:
    """Whether a worker's own words say that trying again is of no use."""
    return any(text in message for text in _FOR_GOOD)


def _int(value: Json, default: int) -> int:
    return value if isinstance(value, int) else default
