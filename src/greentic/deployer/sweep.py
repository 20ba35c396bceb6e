"""What a store left in a cluster: `op env sweep` finds orphans, `op env destroy` takes everything away (formats: cluster 8).

Rules:
1. An orphan is what a worker consists of whose revision this store does not know, and which this store made. What no store
   claims is told as unattributed, what another store made is skipped. Nothing is deleted without `--apply`.
2. Destroying deletes, in this order and each one gone before the next: workloads, services and budgets, configuration, policies.
   The namespace stays, unless `--namespace` says otherwise: then it goes with all that is in it, if this store made it and no pod
   of others runs there.
3. Before each deletion the object must still be the one that was seen, and still ours.
4. Nothing is destroyed beside an operator that would make it again (`controller.keeping`). What comes back all the same, by whoever's hand,
   ends it with who that was.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from greentic.cluster.apply import await_gone, delete_own
from greentic.cluster.live import list_if_there
from greentic.controller.keeping import made_again, refuse_kept
from greentic.deployer.binding import Deployer, is_kubernetes, resolve
from greentic.deployer.cluster_identity import reach
from greentic.deployer.reconcile import KindText, alone
from greentic.deployer.told import ObjectTold, all_told
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, PermissionMissing
from greentic.ground.reply import Reply
from greentic.k8s import names
from greentic.k8s.objects import KINDS, ApiRefused, Cluster, Ref, labels_of, metadata_of, objects_in, ref_of
from greentic.k8s.plan import ANSWERED_KINDS, PRUNED_KINDS, Deletion, deletion_of, is_ours, is_the_deployers, may_delete
from greentic.model.ids import check_env_id
from greentic.model.pod_view import is_present
from greentic.operate import env
from greentic.operate.change import Context
from greentic.operate.payload import Payload

_SWEPT = ("HorizontalPodAutoscaler", "Deployment", "PodDisruptionBudget", "Service")
_DESTROYED = (
    *("HTTPRoute", "Ingress", "HorizontalPodAutoscaler"),
    *("Deployment", "Service", "PodDisruptionBudget", "ConfigMap", "Secret", "ServiceAccount", "NetworkPolicy"),
)


assert set(_DESTROYED) == set(PRUNED_KINDS)  # each kind that is made; here in the order of taking away


class SweepPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    kind: KindText = None
    apply: Annotated[bool, msgspec.Meta(description="delete the orphans")] = False


class Swept(Reply, frozen=True, kw_only=True):
    environment_id: str
    namespace: str
    label_selector: str
    store_label: str
    dry_run: bool
    removed: list[ObjectTold]
    orphans: list[ObjectTold]
    kept: list[ObjectTold]
    unattributed: list[ObjectTold]
    skipped: list[ObjectTold]


class ClusterDestroyed(Reply, frozen=True, kw_only=True):
    namespace: str
    removed: list[ObjectTold]
    removed_count: int


class EverythingDestroyed(env.EnvDestroyed, frozen=True, kw_only=True):
    cluster: ClusterDestroyed | UnsetType = UNSET
    """What was deleted there, where a cluster was bound."""


def sweep(context: Context, payload: SweepPayload) -> Swept:
    """Find, and with `apply` delete, workers of revisions that this store no longer knows."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    with alone(context, env_id) if payload.apply else nullcontext():
        return _sweep(context, env_id, payload)


def _sweep(context: Context, env_id: str, payload: SweepPayload) -> Swept:
    deployer = resolve(context, env_id, payload.kind, live=True)
    namespace, owner = deployer.answers.namespace, deployer.owner
    cluster = reach(context, deployer).cluster
    selector = f"{names.owner_selector(env_id)},{names.COMPONENT}=worker"
    known = {r.revision_id for r in deployer.env.revisions if is_present(r)}
    found: dict[str, list[Ref]] = {"orphans": [], "kept": [], "unattributed": [], "skipped": []}
    orphans: list[Deletion] = []
    for thing in _listed(cluster, _SWEPT, namespace, selector):
        labels = labels_of(thing)
        verdict = "skipped"
        if labels.get(names.REVISION) in known:
            verdict = "kept"
        elif names.STORE not in labels:
            verdict = "unattributed"
        elif may_delete(thing, owner):
            verdict = "orphans"
            orphans.append(deletion_of(thing))
        found[verdict].append(ref_of(thing))
    removed = [d.ref for d in orphans if delete_own(cluster, d, owner)] if payload.apply else []
    return Swept(
        environment_id=env_id,
        namespace=namespace,
        label_selector=selector,
        store_label=owner.store,
        dry_run=not payload.apply,
        removed=all_told(removed),
        orphans=all_told(found["orphans"]),
        kept=all_told(found["kept"]),
        unattributed=all_told(found["unattributed"]),
        skipped=all_told(found["skipped"]),
    )


class EnvDestroyPayload(env.DestroyPayload, frozen=True, kw_only=True):
    schema_title: ClassVar[str] = "DestroyPayload"

    namespace: Annotated[bool, msgspec.Meta(description="delete the namespace in the cluster, too")] = False
    store_only: Annotated[bool, msgspec.Meta(description="leave what runs in a cluster")] = False


def destroy(context: Context, payload: EnvDestroyPayload) -> EverythingDestroyed:
    """Delete what runs in the cluster, if one is bound, then take the environment out of the store.

    Refused while traffic is routed: clear or archive first.
    """
    found = env.destroyable(context, payload)
    from_cluster: ClusterDestroyed | UnsetType = UNSET
    if not payload.store_only and is_kubernetes(found.binding("deployer")):
        from_cluster = destroy_cluster_objects(context, found.environment_id, namespace=payload.namespace)
    gone = env.destroy(context, payload)
    return EverythingDestroyed(
        environment_id=gone.environment_id, destroyed=gone.destroyed, backup=gone.backup, cluster=from_cluster
    )


def destroy_cluster_objects(context: Context, env_id: str, *, namespace: bool) -> ClusterDestroyed:
    """Delete what the Kubernetes deployer made for the environment; with `namespace`, that as well, if it is ours and free."""
    with alone(context, env_id):
        deployer = resolve(context, env_id, None, live=True)
        cluster = reach(context, deployer).cluster
        refuse_kept(cluster, deployer.answers.namespace, deployer.owner)
        removed = _destroy(cluster, deployer)
        if namespace:
            removed += _destroy_namespace(cluster, deployer)
    return ClusterDestroyed(namespace=deployer.answers.namespace, removed=all_told(removed), removed_count=len(removed))


def _destroy(cluster: Cluster, deployer: Deployer) -> list[Ref]:
    removed: list[Ref] = []
    for kind in _DESTROYED:
        mine = [deletion_of(thing) for thing in _destroyed(cluster, deployer, kind)]
        removed += [d.ref for d in mine if delete_own(cluster, d, deployer.owner, foreground=kind == "Deployment")]
        for deletion in mine:
            again = await_gone(cluster, deletion.ref, deletion.uid)
            if again is not None:
                raise made_again(again)
    for thing in (thing for kind in _DESTROYED for thing in _destroyed(cluster, deployer, kind)):
        raise made_again(thing)
    return removed


def _destroyed(cluster: Cluster, deployer: Deployer, kind: str) -> list[JsonObject]:
    """What there is of a kind that goes with the environment."""
    namespace, selector = deployer.answers.namespace, names.owner_selector(deployer.env.environment_id)
    found = [thing for thing in _listed(cluster, (kind,), namespace, selector) if is_ours(thing, deployer.owner)]
    return [thing for thing in found if may_delete(thing, deployer.owner) and not is_the_deployers(thing)]


def _destroy_namespace(cluster: Cluster, deployer: Deployer) -> list[Ref]:
    """Delete the namespace. Raises `Conflict` if somebody else made it, or pods of others run in it."""
    place = Ref("Namespace", deployer.answers.namespace, None)
    found = cluster.get(place)
    if found is None:
        return []
    writers = {str(m.get("manager")) for m in objects_in(metadata_of(found).get("managedFields"))}
    if not may_delete(found, deployer.owner) or not writers <= {names.FIELD_MANAGER, "kube-controller-manager"}:
        raise Conflict(f"{place} was not made by this environment alone and stays", hint="everything else was deleted")
    pods = cluster.list("Pod", place.name).items
    if pods:
        raise Conflict(f"{place} has {len(pods)} pod(s) of others and stays", hint="everything else was deleted")
    deletion = deletion_of(found)
    delete_own(cluster, deletion, deployer.owner)
    again = await_gone(cluster, place, deletion.uid)
    if again is not None:
        raise made_again(again)
    return [place]


def _listed(cluster: Cluster, kinds: tuple[str, ...], namespace: str, selector: str) -> list[JsonObject]:
    out: list[JsonObject] = []
    for kind in kinds:
        if kind in ANSWERED_KINDS:
            out += list_if_there(cluster, kind, namespace, selector, needed=False)
            continue
        try:
            out += cluster.list(kind, namespace, selector).items
        except ApiRefused as error:
            if error.forbidden:
                raise PermissionMissing(
                    f"this identity may not list {KINDS[kind].plural} in namespace `{namespace}`",
                    hint="gtc op credentials requirements lists what it lacks; bootstrap writes the rules that it needs",
                ) from error
            raise
    return out
