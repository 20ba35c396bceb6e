"""What a store left in a cluster: `op env sweep` finds orphans, `op env destroy` takes everything away (spec: kubernetes 11).

Rules:
1. An orphan is a worker's Deployment or Service whose revision this store does not know, and which this store made. What no store
   claims is told as unattributed, what another store made is skipped. Nothing is deleted without `--apply`.
2. Destroying deletes, in this order and each one gone before the next: workloads, services and budgets, configuration, policies.
   The namespace goes last, and only if this store made it and nothing else is in it.
3. Before each deletion the object must still be the one that was seen, and still ours.
"""

from __future__ import annotations

import time
from typing import Annotated

import msgspec

from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import Conflict, PermissionMissing
from greentic.k8s import names
from greentic.k8s.cluster import KINDS, ApiRefused, Cluster, Ref, labels_of, metadata_of, ref_of
from greentic.k8s.plan import Deletion, Owner, is_ours
from greentic.k8s.reconcile import delete_own
from greentic.model.ids import check_env_id
from greentic.model.pod_view import is_present
from greentic.operate.change import Context
from greentic.operate.deployer import Deployer, resolve
from greentic.operate.identity import reach
from greentic.operate.payload import Payload
from greentic.operate.reconcile import KindText, alone

_SWEPT = ("Deployment", "Service")
_DESTROYED = ("Deployment", "Service", "PodDisruptionBudget", "ConfigMap", "Secret", "NetworkPolicy")
GONE_SECONDS = 180.0


class SweepPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    kind: KindText = None
    apply: Annotated[bool, msgspec.Meta(description="delete the orphans")] = False


def sweep(context: Context, payload: SweepPayload) -> JsonObject:
    """Find, and with `apply` delete, workers of revisions that this store no longer knows."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    deployer = resolve(context, env_id, payload.kind, live=True)
    namespace, owner = deployer.answers.namespace, deployer.owner
    cluster = reach(context, deployer).cluster
    selector = f"{names.owner_selector(env_id)},{names.COMPONENT}=worker"
    known = {r.revision_id for r in deployer.env.revisions if is_present(r)}
    orphans: list[Deletion] = []
    kept: list[Ref] = []
    unattributed: list[Ref] = []
    skipped: list[Ref] = []
    for thing in _listed(cluster, _SWEPT, namespace, selector):
        labels, ref = labels_of(thing), ref_of(thing)
        if labels.get(names.REVISION) in known:
            kept.append(ref)
        elif names.STORE not in labels:
            unattributed.append(ref)
        elif not is_ours(thing, owner):
            skipped.append(ref)
        else:
            orphans.append(_deletion(thing))
    removed: list[Ref] = []
    if payload.apply and orphans:
        with alone(context, env_id):
            removed = [d.ref for d in orphans if delete_own(cluster, d, owner)]
    return {
        "environment_id": env_id,
        "namespace": namespace,
        "label_selector": selector,
        "store_label": owner.store,
        "dry_run": not payload.apply,
        "orphans": _refs([d.ref for d in orphans]),
        "removed": _refs(removed),
        "kept": _refs(kept),
        "unattributed": _refs(unattributed),
        "skipped": _refs(skipped),
    }


def destroy_cluster_objects(context: Context, env_id: str) -> JsonObject:
    """Delete what the Kubernetes deployer made for the environment."""
    deployer = resolve(context, env_id, None, live=True)
    cluster = reach(context, deployer).cluster
    with alone(context, env_id):
        removed = _destroy(cluster, deployer)
    return {"namespace": deployer.answers.namespace, "removed": _refs(removed), "removed_count": len(removed)}


def _destroy(cluster: Cluster, deployer: Deployer) -> list[Ref]:
    env_id, namespace, owner = deployer.env.environment_id, deployer.answers.namespace, deployer.owner
    removed: list[Ref] = []
    for kind in _DESTROYED:
        found = [t for t in _listed(cluster, (kind,), namespace, names.owner_selector(env_id)) if is_ours(t, owner)]
        mine = [_deletion(t) for t in found if labels_of(t).get(names.COMPONENT) != "deployer-identity"]
        removed += [d.ref for d in mine if delete_own(cluster, d, owner, foreground=kind == "Deployment")]
        for deletion in mine:
            _await_gone(cluster, deletion.ref)
    place = Ref("Namespace", namespace, None)
    try:
        found_namespace = cluster.get(place)
    except ApiRefused as error:
        if error.forbidden:  # a bound identity has no say over namespaces
            return removed
        raise
    if found_namespace is not None and _made_by_us(found_namespace, owner) and not _occupied(cluster, namespace):
        if delete_own(cluster, _deletion(found_namespace), owner):
            removed.append(place)
        _await_gone(cluster, place)
    return removed


def _occupied(cluster: Cluster, namespace: str) -> bool:
    """Whether a namespace holds more than every namespace does."""
    if cluster.list("Pod", namespace).items:
        return True
    for kind in _DESTROYED:
        for thing in cluster.list(kind, namespace).items:
            name = str(metadata_of(thing).get("name"))
            standard = (kind == "ConfigMap" and name == "kube-root-ca.crt") or (
                kind == "Secret" and name.startswith("default-token-")
            )
            if not standard:
                return True
    return False


def _made_by_us(namespace: JsonObject, owner: Owner) -> bool:
    managers = metadata_of(namespace).get("managedFields")
    writers = {str(m.get("manager")) for m in managers if isinstance(m, dict)} if isinstance(managers, list) else set()
    return is_ours(namespace, owner) and writers <= {names.FIELD_MANAGER, "kube-controller-manager"}


def _await_gone(cluster: Cluster, ref: Ref) -> None:
    ends = time.monotonic() + GONE_SECONDS
    pause = 0.2
    while cluster.get(ref) is not None:
        if time.monotonic() > ends:
            raise Conflict(
                f"{ref} is being deleted and does not go within {GONE_SECONDS:g} s",
                hint="a finalizer may hold it: kubectl get -o yaml",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 2.0)


def _listed(cluster: Cluster, kinds: tuple[str, ...], namespace: str, selector: str) -> list[JsonObject]:
    out: list[JsonObject] = []
    for kind in kinds:
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


def _deletion(thing: JsonObject) -> Deletion:
    metadata = metadata_of(thing)
    return Deletion(ref_of(thing), str(metadata.get("uid", "")), str(metadata.get("resourceVersion", "")))


def _refs(refs: list[Ref]) -> list[Json]:
    return [ref.json() for ref in refs]
