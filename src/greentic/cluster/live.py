"""What is in a namespace, before it is made what was rendered: everything that a plan has to see, and no more (formats: cluster 5).

Rules:
1. Every kind that is rendered is read, and the Secrets of others are not: those with this environment's labels are listed, those that
   would be written are got.
2. What the environment cannot have is not looked for, unless it is desired; a kind that the cluster does not serve is missed only then.
3. An identity that may not see the namespace itself works inside it and leaves it as it is. A namespace on its way out is not filled.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from greentic.cluster.refusals import STAYING
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, PermissionMissing
from greentic.k8s import names
from greentic.k8s.objects import ADDED, KINDS, ApiRefused, Cluster, Ref, member, metadata_of, ref_of
from greentic.k8s.plan import ANSWERED_KINDS, LISTED, MARKED, Owner, is_ours, told_kinds
from greentic.shape.pod_shape import IN_FLIGHT
from greentic.telemetry.tracing import carried

Keep = Callable[[JsonObject], bool]


class LiveObjects(NamedTuple):
    """What is in a namespace, and what this identity is to leave alone because it may not see it."""

    live: list[JsonObject]
    hidden: frozenset[Ref] = frozenset()

    def visible(self, desired: list[JsonObject]) -> list[JsonObject]:
        return [thing for thing in desired if ref_of(thing) not in self.hidden]


def read_live(
    cluster: Cluster, namespace: str, owner: Owner, desired: list[JsonObject], keep: Keep | None = None
) -> LiveObjects:
    """What is in the namespace, of the kinds that are rendered. Raises `Conflict` if the namespace is on its way out.

    Kinds that the environment cannot have are not looked for (`k8s.plan` rule 6), unless they are desired.
    With `keep`, of the kinds in `LISTED` only what it says; the others are let go as soon as it has seen them.

    Secrets of others are not read: those with this environment's labels are listed, those that would be written are got. An
    identity that may not see the namespace itself works inside it and leaves it as it is. Raises `Conflict`, too, if something is desired
    that the cluster does not know or this identity may not see.
    """
    _check_known(cluster, desired)
    live: list[JsonObject] = []
    hidden: frozenset[Ref] = frozenset()
    refs = [ref_of(thing) for thing in desired]
    own_namespace = next((r for r in refs if r.kind == "Namespace"), None)
    if own_namespace is not None:
        try:
            found = cluster.get(own_namespace)
        except ApiRefused as error:
            if not error.forbidden:
                raise
            hidden = frozenset({own_namespace})
        else:
            if found is None:
                return LiveObjects([])
            _check_staying(namespace, found)
            live.append(found)
    needed = frozenset(ref.kind for ref in refs)
    with ThreadPoolExecutor(len(LISTED) + len(ANSWERED_KINDS) + 1) as pool:
        documents = pool.submit(carried(_config_maps), cluster, namespace, owner, keep)
        lists = [pool.submit(carried(_kept), cluster, kind, namespace, keep) for kind in LISTED if kind != "ConfigMap"]
        secrets = pool.submit(carried(cluster.list), "Secret", namespace, names.owner_selector(owner.env_id))
        selectors = {"ServiceAccount": names.owner_selector(owner.env_id)}
        config_maps, told = documents.result()
        absent = frozenset() if told is None else MARKED - told - needed
        answered = [
            pool.submit(carried(list_if_there), cluster, kind, namespace, selectors.get(kind), needed=kind in needed)
            for kind in ANSWERED_KINDS
            if kind not in absent
        ]
        live += config_maps
        for found_there in answered:
            live += found_there.result()
        for waiting in lists:
            live += waiting.result()
        live += secrets.result().items
    known = {ref_of(thing) for thing in live}
    for ref in refs:
        if ref.kind in ("Secret", "ServiceAccount", "Role", "RoleBinding") and ref not in known:
            found = cluster.get(ref)
            if found is not None:
                live.append(found)
    return LiveObjects(live, hidden)


def _config_maps(
    cluster: Cluster, namespace: str, owner: Owner, keep: Keep | None
) -> tuple[list[JsonObject], frozenset[str] | None]:
    """The ConfigMaps that are kept, and the kinds that the one with the document names, if it is ours and does."""
    told: frozenset[str] | None = None

    def looked_at(thing: JsonObject) -> bool:
        nonlocal told
        if ref_of(thing).name == names.ENV_STORE and is_ours(thing, owner):
            told = told_kinds(thing)
        return keep is None or keep(thing)

    found = _kept(cluster, "ConfigMap", namespace, None if keep is None else looked_at)
    if keep is None:
        found = [thing for thing in found if looked_at(thing)]
    return found, told


def _kept(cluster: Cluster, kind: str, namespace: str, keep: Keep | None) -> list[JsonObject]:
    if keep is None:
        return cluster.list(kind, namespace).items
    return [thing for page in cluster.pages(kind, namespace) for thing in page.items if keep(thing)]


def list_if_there(
    cluster: Cluster, kind: str, namespace: str, selector: str | None, *, needed: bool
) -> list[JsonObject]:
    """What is there of a kind that not every cluster has; what nobody asks for may stay unseen."""
    try:
        return cluster.list(kind, namespace, selector).items
    except ApiRefused as error:
        if not needed and (error.forbidden or error.status == 404):
            return []
        if error.forbidden:
            raise PermissionMissing(
                f"this identity may not list {KINDS[kind].plural} in namespace `{namespace}`, which the answers ask for",
                hint="gtc op credentials bootstrap writes the rules that it needs",
            ) from error
        raise


def _check_known(cluster: Cluster, desired: list[JsonObject]) -> None:
    """Raise `Conflict` if something is desired that the cluster does not know, or gets wrong."""
    by_pods = any(
        t["kind"] == "HorizontalPodAutoscaler" and IN_FLIGHT in str(member(t, "spec")["metrics"]) for t in desired
    )
    if by_pods and "v2" not in cluster.versions("autoscaling"):
        raise Conflict(
            f"the cluster does not serve autoscaling/v2, and older servers apply a metric of pods (`{IN_FLIGHT}`) twice; "
            "nothing was applied",
            hint="answer autoscale with cpu, or use Kubernetes 1.23 or newer",
        )
    for name in sorted({str(thing["kind"]) for thing in desired} & ADDED.keys()):
        kind = KINDS[name]
        served = cluster.versions(kind.group)
        if not set(served) & set(kind.versions):
            raise Conflict(
                f"the cluster serves {name} in {', '.join(served) or 'no version'} of `{kind.group}`, and the answers ask for "
                f"{' or '.join(kind.versions)}; nothing was applied",
                hint=ADDED[name],
            )


def _check_staying(namespace: str, found: JsonObject) -> None:
    if member(found, "status").get("phase") == "Terminating":
        since = metadata_of(found).get("deletionTimestamp")
        raise Conflict(
            f"namespace `{namespace}` is being deleted since {since}; nothing was applied",
            hint=STAYING.format(namespace=namespace),
        )
