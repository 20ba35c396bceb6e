"""What an operator reports, given what it knows: the conditions and numbers of its status (formats: operator 2). Pure.

Rules:
1. Degraded tells one reason: what is in the operator's way, else a rollout that will not become ready, else what controllers of the
   cluster have been saying of autoscalers and routes for long enough.
2. What is published is told once it is applied; until then what was told before stays.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.controller.desired import DesiredDocument
from greentic.controller.troubles import Trouble
from greentic.controller.wish import Wish
from greentic.controller.wish_status import Condition, WishStatus
from greentic.ground.documents import JsonObject
from greentic.k8s.health import Rollout, next_step
from greentic.k8s.objects import member

MAX_NAMED = 5
"""Names of objects in one message."""


class Known(NamedTuple):
    """What an operator knows when it reports."""

    wish: Wish | None
    desired: DesiredDocument | None
    applied: str | None
    """The digest of the document that was compared last, if nothing failed since."""
    synced: Condition
    objects: int
    """As stated."""
    trouble: Trouble | None
    rollouts: dict[str, Rollout]
    """The Deployments, by name."""
    heard: Trouble | None
    """What routers said of the document; nothing before they were asked, and a trouble without a reason once they serve it."""
    judged: list[str]
    """What controllers have said for long enough."""


def report(known: Known, before: JsonObject) -> WishStatus:
    """What there is to say, where `before` is the status that was told last."""
    wish, desired = known.wish, known.desired
    observed = before.get("observedGeneration")
    published = member(before, "published")
    keeps = desired is None or known.applied != desired.digest
    return WishStatus(
        observed=wish.generation if wish is not None else observed if isinstance(observed, int) else 0,
        conditions=conditions(known),
        published=generation_of(before) if keeps or desired is None else desired.generation,
        document=str(published.get("document", "")) if keeps or desired is None else desired.digest,
        manifest=str(published.get("manifest", "")) if keeps or desired is None else desired.manifest,
        objects=known.objects,
    )


def conditions(known: Known) -> tuple[Condition, ...]:
    """Ready, Synced and Degraded."""
    synced = known.synced
    if known.wish is not None and known.wish.paused:
        synced = Condition("Synced", "Unknown", "Paused", "nothing is written while spec.paused is true")
    ready, failed = _ready(known.rollouts, known.heard)
    degraded = known.trouble or failed
    if degraded is None and known.judged:
        degraded = Trouble("NotActedOn", "; ".join(known.judged))
    return (
        ready,
        synced,
        Condition("Degraded", "True", degraded.reason, degraded.message)
        if degraded is not None
        else Condition("Degraded", "False", "AsExpected"),
    )


def _ready(rollouts: dict[str, Rollout], heard: Trouble | None) -> tuple[Condition, Trouble | None]:
    """The condition Ready, and a rollout that will not become ready."""
    if not rollouts:
        return Condition("Ready", "Unknown", "Starting"), None
    for name, found in rollouts.items():
        if found.failed is not None:
            step = next_step(found.failed)
            why = Trouble("RolloutFailed", f"Deployment `{name}`: {found.failed}" + (f" Next: {step}" if step else ""))
            return Condition("Ready", "False", "RolloutFailed", f"{name}: {found.failed}"), why
    waiting = sorted(n for n, found in rollouts.items() if not found.done)
    if waiting:
        told = f"{len(waiting)} of {len(rollouts)} are not available: {', '.join(waiting[:MAX_NAMED])}"
        return Condition("Ready", "False", "Progressing", told), None
    if heard is not None and heard.reason:
        return Condition("Ready", "False", heard.reason, heard.message), None
    return Condition("Ready", "True", "Serving", heard.message if heard is not None else ""), None


def generation_of(status: JsonObject) -> int:
    """The generation of the environment that a status says is applied."""
    found = member(status, "published").get("generation")
    return found if isinstance(found, int) else 0


def would_write(refs: list[str]) -> Condition:
    """The condition Synced of a dry run, given what would be written."""
    named = ", ".join(refs[:MAX_NAMED]) + (f" and {len(refs) - MAX_NAMED} more" if len(refs) > MAX_NAMED else "")
    if refs:
        return Condition("Synced", "False", "DryRun", f"{len(refs)} object(s) would be written: {named}")
    return Condition("Synced", "True", "DryRun", "nothing would be written")
