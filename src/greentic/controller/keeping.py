"""Who else keeps a namespace: an operator makes again what somebody deletes, so nothing is destroyed beside one, and puts back what
somebody writes, which is told to whoever writes (formats: operator 3).

Rules:
1. An operator shows by its Lease, which it renews. One that was killed leaves a Lease that stays as it is; so one that is held is looked at
   until it changes, for as long as another operator would wait. Clocks of two machines are not compared.
2. It makes again what is ours only if its wish can be read, is of this environment and this owner, and is neither paused nor dry.
3. Who may not look at Leases and wishes finds nobody; then it shows by what comes back.
4. Who writes is told of a Lease that is held, and does not wait to see it renewed: a warning may be about an operator that was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from greentic.cluster.live import list_if_there
from greentic.controller.election import DURATION, lease_name
from greentic.controller.wish import read_wish
from greentic.ground.backoff import UNCOUNTED, Backoff, Patience
from greentic.ground.clock import CLOCK, RANDOM
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, GreenticError
from greentic.k8s.objects import Cluster, Ref, member, metadata_of, objects_in, ref_of
from greentic.k8s.plan import Owner

_WISHES = ("Environment", "ConfigMap")
_LOOKS = Backoff(first=0.5, longest=2.0)


class Keeper(NamedTuple):
    """An operator that holds its Lease, and the wish that it follows."""

    lease: JsonObject
    holder: str
    wish: Ref


def keepers(cluster: Cluster, namespace: str, owner: Owner) -> Iterator[Keeper]:
    """Who holds a Lease for a wish by which what is an owner's is written. Raises `GreenticError`."""
    for lease in list_if_there(cluster, "Lease", namespace, None, needed=False):
        holder = str(member(lease, "spec").get("holderIdentity") or "")
        wish = _wish(cluster, namespace, ref_of(lease).name) if holder else None
        if wish is not None and _makes_again(wish, owner):
            yield Keeper(lease, holder, ref_of(wish))


def refuse_kept(cluster: Cluster, namespace: str, owner: Owner) -> None:
    """Raise `Conflict` if an operator would make again what is destroyed of an owner's."""
    for keeper in keepers(cluster, namespace, owner):
        if not _is_renewed(cluster, keeper.lease):
            continue
        ref = keeper.wish
        raise Conflict(
            f"an operator (`{keeper.holder}`) keeps namespace `{namespace}` as {ref.kind} `{ref.name}` says, and makes again "
            "what is deleted; nothing was deleted",
            hint=f"kubectl -n {namespace} delete {ref.kind.lower()} {ref.name}: what runs stays, and the same verb takes it away then; "
            "--store-only leaves it running",
        )


def put_back(cluster: Cluster, namespace: str, owner: Owner) -> list[str]:
    """What is to be said to who writes beside an operator (rule 4); nothing where nobody can be asked."""
    try:
        found = list(keepers(cluster, namespace, owner))
    except GreenticError:
        return []
    return [
        f"an operator (`{keeper.holder}`) holds namespace `{namespace}` for {keeper.wish.kind} `{keeper.wish.name}`: while it runs, "
        "it puts back what is written here and differs from what is published. "
        f"Next: gtc op env publish {owner.env_id} PLACE, or pause it first (spec.paused)"
        for keeper in found
    ]


def made_again(thing: JsonObject) -> Conflict:
    """The error for an object that was deleted and is there again."""
    ref = ref_of(thing)
    writers = sorted({str(entry.get("manager")) for entry in objects_in(metadata_of(thing).get("managedFields"))})
    by = f", by {', '.join(f'`{name}`' for name in writers)}" if writers else ""
    return Conflict(
        f"{ref} was deleted and is there again{by}: somebody keeps what is destroyed here",
        hint="end who makes it first (the Environment of an operator, what Flux or Argo CD apply, another reconcile), then destroy again; "
        "--store-only leaves it running",
    )


def _wish(cluster: Cluster, namespace: str, lease: str) -> JsonObject | None:
    """The wish that a Lease belongs to, if it is there and asks for something; one that is being deleted does not."""
    for kind in _WISHES:
        for thing in list_if_there(cluster, kind, namespace, None, needed=False):
            if lease_name(ref_of(thing).name) == lease and not metadata_of(thing).get("deletionTimestamp"):
                return thing
    return None


def _makes_again(thing: JsonObject, owner: Owner) -> bool:
    """Whether who follows this wish writes what is ours (rule 2)."""
    try:
        wish = read_wish(thing)
    except GreenticError:
        return False
    return wish.store == owner.store and wish.env_id in (None, owner.env_id) and not (wish.paused or wish.dry_run)


def _is_renewed(cluster: Cluster, lease: JsonObject) -> bool:
    """Whether a Lease changes while it is looked at (rule 1)."""
    patience = Patience(_LOOKS, UNCOUNTED, DURATION, CLOCK, RANDOM)
    while patience.wait():
        found = cluster.get(Ref("Lease", ref_of(lease).name, ref_of(lease).namespace))
        if found is None or not member(found, "spec").get("holderIdentity"):
            return False
        if metadata_of(found).get("resourceVersion") != metadata_of(lease).get("resourceVersion"):
            return True
    return False
