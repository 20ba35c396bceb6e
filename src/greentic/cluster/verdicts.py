"""What controllers of a cluster say about objects that were applied and that they have to act on. Pure.

Rules:
1. An API server takes an autoscaler without metrics and a route that no Gateway allows; that nothing comes of them stands in their status
   alone. What runs is served meanwhile, so it is told and stops nothing.
2. A controller that has not said anything yet is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable

from greentic.ground.documents import JsonObject
from greentic.k8s.objects import member, objects_in, ref_of

JUDGED = frozenset({"HorizontalPodAutoscaler", "HTTPRoute"})
"""Kinds that controllers say something about, beside Deployments (`k8s.health`)."""
MAX_TOLD = 10
_NO_METRICS = (
    "nothing is scaled until the cluster has these metrics (a metrics server, or an adapter for in_flight); until then the "
    "Deployment runs as it is, or answer replicas instead of autoscale"
)
_NO_WAY_IN = "the Gateway has to be there and to allow routes of this namespace (allowedRoutes of a listener that fits the hosts)"


def verdicts(things: Iterable[JsonObject]) -> list[str]:
    """What stands in the way of each, in a sentence with the next step; the first ones."""
    found = [text for thing in things for text in _of(thing)]
    more = [f"and {len(found) - MAX_TOLD} more"] if len(found) > MAX_TOLD else []
    return [*found[:MAX_TOLD], *more]


def _of(thing: JsonObject) -> list[str]:
    if thing.get("kind") == "HorizontalPodAutoscaler":
        return [
            f"{ref_of(thing)} does not scale: {_said(condition)}. Next: {_NO_METRICS}"
            for condition in objects_in(member(thing, "status").get("conditions"))
            if condition.get("type") in ("ScalingActive", "AbleToScale")
            and condition.get("status") == "False"
            and condition.get("reason") != "ScalingDisabled"
        ][:1]
    if thing.get("kind") == "HTTPRoute":
        return [
            f"{ref_of(thing)} leads nowhere: {_said(condition)}. Next: {_NO_WAY_IN}"
            for parent in objects_in(member(thing, "status").get("parents"))
            for condition in objects_in(parent.get("conditions"))
            if condition.get("type") in ("Accepted", "ResolvedRefs") and condition.get("status") == "False"
        ][:1]
    return []


def _said(condition: JsonObject) -> str:
    return f"{condition.get('reason')}: {condition.get('message')}"
