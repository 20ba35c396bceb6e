"""What is in a namespace, before it is made what was rendered: everything that a plan has to see, and no more (formats: cluster 5).

Rules:
1. Every kind that is rendered is read, and the Secrets of others are not: those with this environment's labels are listed, those that
   would be written are got.
2. What the environment cannot have is not looked for, unless it is desired; a kind that the cluster does not serve is missed only then.
3. Where a sieve looks at pages that are let go, a list that expired is begun anew, with what the sieve has of that kind (`relisting`).
4. An identity that may not see the namespace itself works inside it and leaves it as it is. A namespace on its way out is not filled.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from greentic.cluster.refusals import STAYING
from greentic.cluster.relisting import unexpired
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, PermissionMissing
from greentic.k8s import names
from greentic.k8s.objects import ADDED, KINDS, ApiRefused, Cluster, Ref, member, metadata_of, ref_of
from greentic.k8s.plan import ANSWERED_KINDS, LISTED, MARKED, Owner, is_ours, told_kinds
from greentic.shape.pod_shape import IN_FLIGHT
from greentic.telemetry.tracing import carried

Keep = Callable[[JsonObject], bool]


class Sieve(Protocol):
    """Looks at what is listed, and says what of it is to be kept. Several kinds are listed at once."""

    def begun(self, kind: str) -> Keep:
        """What looks at a list of one kind that begins; what it saw of one that began before is forgotten (rule 3)."""
        ...


class LiveObjects(NamedTuple):
    """What is in a namespace, and what this identity is to leave alone because it may not see it."""

    live: list[JsonObject]
    hidden: frozenset[Ref] = frozenset()

    def visible(self, desired: list[JsonObject]) -> list[JsonObject]:
        return [thing for thing in desired if ref_of(thing) not in self.hidden]


def read_live(
    cluster: Cluster, namespace: str, owner: Owner, desired: list[JsonObject], sieve: Sieve | None = None
) -> LiveObjects:
    """What is in the namespace, of the kinds that are rendered. Raises `Conflict` if the namespace is on its way out.

    Kinds that the environment cannot have are not looked for (`k8s.plan` rule 6), unless they are desired.
    With a sieve, of the kinds in `LISTED` only what it says; the others are let go as soon as it has seen them.

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
        documents = pool.submit(carried(_config_maps), cluster, namespace, owner, sieve)
        lists = [pool.submit(carried(_kept), cluster, kind, namespace, sieve) for kind in LISTED if kind != "ConfigMap"]
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
    cluster: Cluster, namespace: str, owner: Owner, sieve: Sieve | None
) -> tuple[list[JsonObject], frozenset[str] | None]:
    """The ConfigMaps that are kept, and the kinds that the one with the document names, if it is ours and does."""
    reader = _Document(owner, sieve)
    if sieve is not None:
        return _kept(cluster, "ConfigMap", namespace, reader), reader.told
    found, look = _kept(cluster, "ConfigMap", namespace, None), reader.begun("ConfigMap")
    return [thing for thing in found if look(thing)], reader.told


class _Document:
    """A sieve that reads the document's ConfigMap on the way."""

    def __init__(self, owner: Owner, sieve: Sieve | None) -> None:
        self._owner, self._sieve = owner, sieve
        self.told: frozenset[str] | None = None

    def begun(self, kind: str) -> Keep:
        self.told = None
        keep = None if self._sieve is None else self._sieve.begun(kind)

        def look(thing: JsonObject) -> bool:
            if ref_of(thing).name == names.ENV_STORE and is_ours(thing, self._owner):
                self.told = told_kinds(thing)
            return keep is None or keep(thing)

        return look


def _kept(cluster: Cluster, kind: str, namespace: str, sieve: Sieve | None) -> list[JsonObject]:
    if sieve is None:
        return cluster.list(kind, namespace).items

    def read() -> list[JsonObject]:
        keep = sieve.begun(kind)
        return [thing for page in cluster.pages(kind, namespace) for thing in page.items if keep(thing)]

    return unexpired(read)


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
