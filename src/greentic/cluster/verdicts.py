"""What controllers of a cluster say about objects that were applied and that they have to act on. Pure.

Rules:
1. An API server takes an autoscaler without metrics and a route that no Gateway allows; that nothing comes of them stands in their status
   alone. What runs is served meanwhile, so it is told and stops nothing.
2. A controller that has not said anything yet, or only about an older version of the object, or about a Gateway that the route does not
   name any more, is not judged.
3. An autoscaler that would make more than it may is in nobody's way; who looks is told.
4. So is what is being deleted and still as it should be: it is as stated until it is gone.
5. So is what others added to an object, and what stays (`k8s.added`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from greentic.ground.documents import JsonObject
from greentic.ground.errors import worded
from greentic.k8s.objects import Ref, member, metadata_of, objects_in, ref_of
from greentic.k8s.ownership import Addition
from greentic.k8s.plan import Item

JUDGED = frozenset({"HorizontalPodAutoscaler", "HTTPRoute"})
"""Kinds that controllers say something about, beside Deployments (`k8s.health`)."""
MAX_TOLD = 10
_NO_METRICS = (
    "nothing is scaled until the cluster has these metrics (a metrics server, or an adapter for in_flight); until then the "
    "Deployment runs as it is, or answer replicas instead of autoscale"
)
_NO_WAY_IN = "the Gateway has to be there and to allow routes of namespace `{namespace}` (allowedRoutes of a listener that fits the hosts)"
_WAYS_IN = {
    "NotAllowedByListeners": "a listener of the Gateway has to allow routes of namespace `{namespace}` (allowedRoutes.namespaces: "
    "from All, or a selector that fits its labels), and of kind HTTPRoute",
    "NoMatchingListenerHostname": "a listener of the Gateway has to take one of the hosts, or answer hosts that one takes",
    "RefNotPermitted": "what is rendered refers to Services of namespace `{namespace}` alone; where the route refers to another one, a "
    "ReferenceGrant in that one has to allow HTTPRoutes of `{namespace}`",
    "BackendNotFound": "a Service that it leads to is not there: gtc op env reconcile makes it",
}
"""The next step by a condition's reason, where it is another than to look at the Gateway."""


def verdicts(things: Iterable[JsonObject]) -> list[str]:
    """What stands in the way of each, in a sentence with the next step; the first ones."""
    return _first(text for thing in things for text in _of(thing))


def remarks(things: list[JsonObject]) -> list[str]:
    """The same, the autoscalers that would make more than they may (rule 3), and what is about to be gone (rule 4)."""
    return [*verdicts(things), *_limited(things), *_first(map(_going, leaving(things)))]


def leaving(things: Iterable[JsonObject]) -> list[JsonObject]:
    """Those that somebody deletes, and that are still there."""
    return [thing for thing in things if metadata_of(thing).get("deletionTimestamp")]


def added(items: Iterable[Item]) -> list[str]:
    """What others put into objects beside what is stated, and what stays there (rule 5)."""
    return _first(_added(item.ref, item.told) for item in items if item.told)


def _added(ref: Ref, told: list[Addition]) -> str:
    named = ", ".join(f"{a.change.path} (`{', '.join(a.managers)}`)" for a in told[:MAX_TOLD])
    edit = f"kubectl -n {ref.namespace} edit {ref.kind.lower()} {ref.name}"
    return f"{ref} has what others added, and it stays: {named}. Next: if it is not meant, {edit} takes it away"


def _going(thing: JsonObject) -> str:
    held = metadata_of(thing).get("finalizers")
    by = f", held by {', '.join(map(str, held))}" if isinstance(held, list) and held else ""
    since = metadata_of(thing).get("deletionTimestamp")
    return f"{ref_of(thing)} is being deleted since {since}{by}. Next: once it is gone, gtc op env reconcile makes it again"


def _limited(things: list[JsonObject]) -> list[str]:
    return _first(
        f"{ref_of(thing)} is at its maximum of {member(thing, 'spec').get('maxReplicas')}: {_said(condition)}. "
        "Next: answer a larger autoscale.max, or larger requests for each pod"
        for thing in things
        if thing.get("kind") == "HorizontalPodAutoscaler"
        for condition in objects_in(member(thing, "status").get("conditions"))
        if (condition.get("type"), condition.get("status")) == ("ScalingLimited", "True")
        and condition.get("reason") == "TooManyReplicas"
    )


def _first(texts: Iterable[str]) -> list[str]:
    found = list(texts)
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
        ref = ref_of(thing)
        told = [f"{ref} leads nowhere: {_said(said)}. Next: {_way_in(ref, said)}" for said in _refusals(thing)]
        return list(dict.fromkeys(told))
    return []


def _refusals(route: JsonObject) -> Iterator[JsonObject]:
    """The conditions in which a controller says no to a route as it is now (rule 2)."""
    generation = metadata_of(route).get("generation")
    named = [_gateway(parent, route) for parent in objects_in(member(route, "spec").get("parentRefs"))]
    for parent in objects_in(member(route, "status").get("parents")):
        if named and _gateway(member(parent, "parentRef"), route) not in named:
            continue
        for condition in objects_in(parent.get("conditions")):
            seen = condition.get("observedGeneration")
            older = isinstance(seen, int) and isinstance(generation, int) and seen < generation
            if (
                condition.get("type") in ("Accepted", "ResolvedRefs")
                and condition.get("status") == "False"
                and not older
            ):
                yield condition


def _gateway(parent: JsonObject, route: JsonObject) -> tuple[str, str]:
    """The Gateway that a reference names."""
    return str(parent.get("namespace") or metadata_of(route).get("namespace")), str(parent.get("name"))


def _way_in(route: Ref, condition: JsonObject) -> str:
    return _WAYS_IN.get(str(condition.get("reason")), _NO_WAY_IN).format(namespace=route.namespace)


def _said(condition: JsonObject) -> str:
    return worded(condition.get("reason"), condition.get("message")) or "it does not say why"
