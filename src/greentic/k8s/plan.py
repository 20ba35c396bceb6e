"""What reconciling would do: desired objects and live objects in, creates, changes, deletes and refusals out. Pure.

Rules:
1. An object is ours if its labels name this environment and this store, or did before somebody else wrote over what we applied. What
   carries another environment's name is never touched; what is another store's, tool's or nobody's is refused unless it is to be adopted.
2. A namespace that nobody's label claims is used: platform teams create namespaces ahead. It is the only exception to rule 1.
3. A namespace that was there before keeps its own pod security labels; replicas that an autoscaler sets are its own. Where ours give way to
   an autoscaler they are stated as they are until it has set its own: leaving them out would reset them to one.
4. Deleted is what is ours, by labels and because we applied it (labels get copied), and not desired any more, whether its
   revision is archived or no longer known at all. Kept are the namespace and what belongs to the deployer itself.
5. An object that would not change is not written.
6. The document's ConfigMap names the kinds of `MARKED` that the environment may have, so that the others need not be looked for. A kind
   that stands there, or is there, is stated again: it may have to be deleted, in this run or in one that goes on where this one failed.
7. A plan is of one moment. What it writes is about the object that it saw, by its uid, or about none, by a version that no object has:
   server-side apply would else merge into whatever has the name by then.
8. An account of pods that is answered no more gives way to that of the namespace, by name: left out, a server keeps it under the older name
   of the member (`serviceAccount`), and pods of an account that is pruned cannot start.
9. What others put beside what we state is taken back where an object is ours alone (`added`): nobody else would.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from greentic.ground.documents import JsonObject
from greentic.k8s import names
from greentic.k8s.added import beside
from greentic.k8s.objects import KINDS, FieldConflict, Ref, labels_of, member, metadata_of, ref_of
from greentic.k8s.ownership import Addition, FieldChange, applied_fields, compare, owners_of
from greentic.k8s.scaling import ACCOUNT

Action = Literal["create", "update", "unchanged"]
SECURITY = "pod-security.kubernetes.io/"
AUTOSCALER = "kube-controller-manager"
"""Who sets the replicas of a Deployment that a HorizontalPodAutoscaler targets."""
NO_ACCOUNT = "default"
"""The account of pods that name none."""
KEPT_COMPONENTS = frozenset({"session-key", "namespace"})
LISTED = ("ConfigMap", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment")
"""Kinds that every environment has: read whole by whoever compares, and watched."""
ANSWERED_KINDS = ("HorizontalPodAutoscaler", "Ingress", "HTTPRoute", "ServiceAccount")
"""Kinds that are there only where answers ask for them: a cluster may not have them, an identity not see them."""
PRUNED_KINDS = ("Secret", *LISTED, *ANSWERED_KINDS)
assert set(PRUNED_KINDS) < set(KINDS)
MARKED = frozenset({"Ingress", "HTTPRoute", "ServiceAccount"})
"""Kinds that are always rendered together with the document's ConfigMap, and only where answers ask for them (rule 6)."""


class Owner(NamedTuple):
    """Whose objects these are."""

    env_id: str
    store: str


class Item(NamedTuple):
    """What happens to one desired object."""

    ref: Ref
    action: Action
    stated: JsonObject
    live: JsonObject | None
    changes: list[FieldChange]
    conflicts: list[FieldConflict]
    refused: str | None = None
    """Why the object that is there may not be taken over."""
    taken: list[Addition] = []
    """What is to be taken away of what others added (rule 9)."""
    told: list[Addition] = []
    """What of it stays, and is told."""


class Deletion(NamedTuple):
    """An object of ours that is not desired any more."""

    ref: Ref
    uid: str
    resource_version: str


class Plan(NamedTuple):
    items: list[Item]
    deletions: list[Deletion]
    unattributed: list[Ref]
    """Objects with this environment's labels that no store claims."""

    @property
    def writes(self) -> list[Item]:
        return [i for i in self.items if i.action != "unchanged"]

    @property
    def in_sync(self) -> bool:
        return not self.writes and not self.deletions

    @property
    def refused(self) -> list[Item]:
        return [i for i in self.items if i.refused is not None]

    @property
    def conflicts(self) -> list[tuple[Ref, FieldConflict]]:
        return [(i.ref, c) for i in self.items for c in i.conflicts]


def make_plan(
    desired: list[JsonObject], live: list[JsonObject], owner: Owner, *, adopt: bool = False, also: list[JsonObject] | None = None
) -> Plan:  # fmt: skip
    """Compare what should be with what is. `live` are the objects of the namespace, of the kinds that are rendered.

    `also` are further ones that are there, and that another part of the same plan is about.
    """
    there = {ref_of(thing): thing for thing in live}
    found = {
        str(t["kind"]) for t in [*live, *(also or [])] if t["kind"] in MARKED and is_ours(t, owner) and not _is_kept(t)
    }
    desired = [_marked(fitted(thing, there.get(ref_of(thing))), there.get(ref_of(thing)), found) for thing in desired]
    items = [_item(thing, there.get(ref_of(thing)), owner, adopt) for thing in desired]
    wanted = {item.ref for item in items}
    extra = [(ref, thing) for ref, thing in there.items() if ref not in wanted and ref.kind in PRUNED_KINDS]
    deletions = [deletion_of(thing) for _, thing in extra if may_delete(thing, owner) and not _is_kept(thing)]
    unattributed = [ref for ref, thing in extra if _is_unattributed(thing, owner) and not _is_kept(thing)]
    # workloads first, so that nothing runs without its policies while it still runs
    deletions.sort(key=lambda d: -list(KINDS).index(d.ref.kind))
    return Plan(items, deletions, unattributed)


def told_kinds(env_store: JsonObject) -> frozenset[str] | None:
    """The kinds that the document's ConfigMap names (rule 6); nothing if it does not say."""
    text = member(env_store, "metadata", "annotations").get(names.KINDS)
    return frozenset(text.split(",")) - {""} if isinstance(text, str) else None


def kinds_text(kinds: Iterable[str]) -> str:
    """Some kinds as the document's ConfigMap names them."""
    return ",".join(sorted(kinds))


def _marked(stated: JsonObject, live: JsonObject | None, found: set[str]) -> JsonObject:
    """A stated object; if it names kinds, with those that are named or there already (rule 6)."""
    own = told_kinds(stated)
    if own is None:
        return stated
    before = told_kinds(live or {}) or frozenset()
    kinds = own | found | before
    annotations: JsonObject = {**member(stated, "metadata", "annotations"), names.KINDS: kinds_text(kinds)}
    return {**stated, "metadata": {**metadata_of(stated), "annotations": annotations}}


def is_ours(thing: JsonObject, owner: Owner) -> bool:
    """Whether this store made the object for this environment (rule 1)."""
    found = labels_of(thing)
    return all(found.get(k) == v for k, v in names.owner_labels(owner.env_id, owner.store).items())


def may_delete(thing: JsonObject, owner: Owner) -> bool:
    """Whether an object is ours to delete: labelled as ours, and applied by us (rule 4)."""
    made = applied_fields(thing) is not None or labels_of(thing).get(names.COMPONENT) == "session-key"
    return is_ours(thing, owner) and made


def fitted(stated: JsonObject, live: JsonObject | None) -> JsonObject:
    """What to state of an object, given the one that is there (rule 3)."""
    if live is None:
        return stated
    own = applied_fields(live) or {}
    if stated["kind"] == "Namespace":
        kept = {
            key: value
            for key, value in labels_of(stated).items()
            if not key.startswith(SECURITY) or f"f:{key}" in _inside(own, "metadata", "labels")
        }
        return {**stated, "metadata": {**metadata_of(stated), "labels": dict(kept)}}
    if stated["kind"] != "Deployment":
        return stated
    spec = dict(member(stated, "spec"))
    if AUTOSCALER in owners_of(live, "spec", "replicas"):
        spec.pop("replicas", None)
    elif "replicas" not in spec and "f:replicas" in _inside(own, "spec"):
        spec["replicas"] = member(live, "spec").get("replicas")
    if _keeps_account(stated, live):
        template = member(spec, "template")
        spec["template"] = {**template, "spec": {**member(template, "spec"), "serviceAccountName": NO_ACCOUNT}}
    return {**stated, "spec": spec}


def _keeps_account(stated: JsonObject, live: JsonObject) -> bool:
    """Whether pods would go on as an account that nobody states any more (rule 8)."""
    place = ("spec", "template", "spec")
    return (
        "serviceAccountName" not in member(stated, *place)
        and "serviceAccountName" in member(live, *place)
        and not owners_of(live, *place, "serviceAccountName")
    )


NO_VERSION = "1"
"""No object has this version: what a store writes first has a larger one."""


def conditioned(stated: JsonObject, live: JsonObject | None) -> JsonObject:
    """What is stated, about the very object that was seen, or about none (rule 7)."""
    if live is None:
        condition: JsonObject = {"resourceVersion": NO_VERSION}
    else:
        condition = {key: value for key, value in metadata_of(live).items() if key == "uid"}
    return {**stated, "metadata": {**metadata_of(stated), **condition}}


def unconditioned(thing: JsonObject) -> JsonObject:
    """The same whether or not there is something."""
    return {**thing, "metadata": {key: value for key, value in metadata_of(thing).items() if key != "resourceVersion"}}


def _inside(tree: JsonObject, *path: str) -> JsonObject:
    return member(tree, *(f"f:{part}" for part in path))


def _is_unattributed(thing: JsonObject, owner: Owner) -> bool:
    found = labels_of(thing)
    claimed = found.get(names.MANAGED_BY) == names.MANAGER and found.get(names.ENV) == names.label_value(owner.env_id)
    return claimed and names.STORE not in found


def _is_kept(thing: JsonObject) -> bool:
    return is_the_deployers(thing) or labels_of(thing).get(names.COMPONENT) in KEPT_COMPONENTS


def is_the_deployers(thing: JsonObject) -> bool:
    """Whether an object is how the deployer itself logs in: its token, and its account, which names no component."""
    component = labels_of(thing).get(names.COMPONENT)
    return component == "deployer-identity" or (thing.get("kind") == "ServiceAccount" and component != ACCOUNT)


def deletion_of(thing: JsonObject) -> Deletion:
    """The deletion of exactly the object that was seen."""
    metadata = metadata_of(thing)
    return Deletion(ref_of(thing), str(metadata.get("uid", "")), str(metadata.get("resourceVersion", "")))


def _item(stated: JsonObject, live: JsonObject | None, owner: Owner, adopt: bool) -> Item:
    ref = ref_of(stated)
    if live is None:
        return Item(ref, "create", stated, None, [], [])
    found = compare(stated, live)
    taken, told = beside(stated, live)
    changes = [*found.changes, *(a.change for a in taken if a.change not in found.changes)]
    against = () if adopt and not is_ours(live, owner) else taken  # who takes over an object means all of it
    conflicts = [*found.conflicts, *(FieldConflict(name, a.change.path) for a in against for name in a.managers)]
    action: Action = "update" if changes else "unchanged"
    return Item(ref, action, stated, live, changes, conflicts, _refusal(ref, live, owner, adopt), taken, told)


def _is_relabelled(live: JsonObject, owner: Owner) -> bool:
    """Whether somebody wrote over labels that we applied, or took one away beside our store's: a changed field like any other."""
    found, wanted = labels_of(live), names.owner_labels(owner.env_id, owner.store)
    lost = [key for key, value in wanted.items() if found.get(key) != value]
    own = _inside(applied_fields(live) or {}, "metadata", "labels")
    over = [k for k in lost if f"f:{k}" not in own and owners_of(live, "metadata", "labels", k)]
    gone = [k for k in lost if k not in found and found.get(names.STORE) == wanted[names.STORE]]
    return applied_fields(live) is not None and set(lost) == {*over, *gone}


def _refusal(ref: Ref, live: JsonObject, owner: Owner, adopt: bool) -> str | None:
    """Why a live object may not be taken over, if so (rules 1 and 2)."""
    if is_ours(live, owner) or _is_relabelled(live, owner):
        return None
    found = labels_of(live)
    env = found.get(names.ENV)
    if env is not None and env != names.label_value(owner.env_id):
        return f"it belongs to environment `{env}`, not to `{owner.env_id}`"
    if adopt:
        return None
    store = found.get(names.STORE)
    if store is not None and store != names.label_value(owner.store):
        return f"it belongs to store `{store}`, this one is `{owner.store}`"
    lost = sorted(k for k, v in names.owner_labels(owner.env_id, owner.store).items() if found.get(k) != v)
    if store is not None:
        return f"somebody changed its label {', '.join(f'`{key}`' for key in lost)}, which says whose it is"
    if env is not None:
        return "it was made by another deployer, no store claims it"
    if ref.kind == "Namespace":
        return None
    return "somebody else made it: it carries no label of this deployer"
