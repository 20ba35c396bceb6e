"""Making a cluster what was rendered (formats: cluster 5).

Rules:
1. Read everything first, plan, and only then write. If an object may not be taken over, or a field belongs to somebody else,
   nothing at all is written.
2. Phases, each finished before the next: namespace; policies and configuration; services and budgets; workloads; autoscalers and the way
   in; deletions. A
   phase with a failure is finished, later ones are not begun; the report says what was done, what failed and what was left.
3. What is written is written to the object that was seen, or made where none was (`k8s.plan` rule 7). One that somebody made or replaced
   meanwhile is looked at again, once, and left alone unless it may be taken over.
4. Only what differs is written. What really changed is what the server gave a new version.
5. Deleting is for exactly the object that was seen. If it changed meanwhile it is read again, and deleted only if still ours.
6. The key that routers share for their cookies is made once, in the cluster, and never leaves it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from greentic.cluster.handed_over import handed_over
from greentic.cluster.live import read_live
from greentic.cluster.refusals import explained
from greentic.ground.backoff import UNCOUNTED, Backoff, Patience
from greentic.ground.clock import CLOCK, RANDOM, Random
from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import Conflict, GreenticError
from greentic.k8s import names
from greentic.k8s.objects import ApiRefused, Cluster, Ref, labels_of, metadata_of, ref_of
from greentic.k8s.ownership import applied_fields
from greentic.k8s.plan import Deletion, Item, Owner, Plan, conditioned, make_plan, may_delete
from greentic.telemetry.tracing import carried

PARALLEL = 16
"""Requests at once."""
SESSION_KEY_BYTES = 32
DELETE_TRIES = 5
GONE_SECONDS = 180.0
_GONE = Backoff(first=0.2, longest=2.0)
PHASES: tuple[tuple[str, frozenset[str]], ...] = (
    ("namespace", frozenset({"Namespace"})),
    (
        "policies and configuration",
        frozenset({"ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap", "NetworkPolicy"}),
    ),
    ("services", frozenset({"Service", "PodDisruptionBudget"})),
    ("workloads", frozenset({"Deployment"})),
    ("autoscalers and the way in", frozenset({"HorizontalPodAutoscaler", "Ingress", "HTTPRoute"})),
)
Told = Callable[[str], None]


class Failure(NamedTuple):
    """An object that could not be written, and why."""

    ref: Ref
    error: GreenticError


class Outcome(NamedTuple):
    """What a reconcile did."""

    plan: Plan
    created: list[Ref]
    changed: list[Ref]
    pruned: list[Ref]
    failures: list[Failure]
    left: list[Ref]
    """Objects that were not tried, because something before them failed."""
    left_alone: list[Ref]
    """A namespace that is there and that this identity may not change."""
    objects: dict[Ref, JsonObject]
    """What was applied or in order already, as the server has it now."""

    @property
    def applied(self) -> list[Ref]:
        """Every desired object that is in the cluster as desired, in the order of rendering."""
        return [i.ref for i in self.plan.items if i.ref in self.objects]


class ApplyRules(NamedTuple):
    """What a reconcile may do."""

    adopt: bool = False
    force: bool = False
    """Take fields that others manage."""
    recreate: bool = False
    """Delete and make again what cannot be changed in place."""
    scope: frozenset[Ref] | None = None
    """Delete only these (for one revision); otherwise everything of ours that is not desired."""


def converge(
    cluster: Cluster, desired: list[JsonObject], namespace: str, owner: Owner, rules: ApplyRules, random: Random, told: Told,
    planned: Callable[[Plan], object] = lambda plan: None,
) -> Outcome:  # fmt: skip
    """Plan and carry out. Raises `Conflict` where nothing may be written at all; other failures are in the outcome.

    `planned` is told the plan before anything of it is done.
    """
    seen = read_live(cluster, namespace, owner, desired)
    plan = scoped(make_plan(seen.visible(desired), seen.live, owner, adopt=rules.adopt), rules)
    planned(plan)
    return carry_out(cluster, plan, namespace, owner, rules, random, told, keyed=is_keyed(seen.live))


def carry_out(
    cluster: Cluster, plan: Plan, namespace: str, owner: Owner, rules: ApplyRules, random: Random, told: Told, *, keyed: bool
) -> Outcome:  # fmt: skip
    """Write what a plan says; `keyed` is whether the key of rule 6 is there. Raises `Conflict` as `converge` does."""
    refuse(plan, force=rules.force)
    return _Run(cluster, plan, owner, rules, told).carry_out(namespace, random, keyed=keyed)


def is_keyed(live: list[JsonObject]) -> bool:
    """Whether the key that routers share is among these (rule 6)."""
    return any(ref_of(thing).name == names.SESSION_KEY for thing in live)


def scoped(plan: Plan, rules: ApplyRules) -> Plan:
    """The plan with its deletions limited to what was asked for."""
    scope = rules.scope
    return plan if scope is None else plan._replace(deletions=[d for d in plan.deletions if d.ref in scope])


class NotOurs(Conflict):
    """Objects have the names of this environment, and are somebody else's."""


def refuse(plan: Plan, *, force: bool) -> None:
    """Raise `NotOurs` or another `Conflict` if the plan may not be carried out (rule 1)."""
    if plan.refused:
        listed = "; ".join(f"{i.ref}: {i.refused}" for i in plan.refused[:10])
        raise NotOurs(
            f"{len(plan.refused)} object(s) with the names of this environment are not its own, nothing was applied: {listed}",
            hint="gtc op env reconcile ENV --adopt takes them over, if that is meant; objects of another environment are never taken",
        )
    if plan.conflicts and not force:
        listed = "; ".join(f"{c.field} of {ref} is managed by `{c.manager}`" for ref, c in plan.conflicts[:10])
        raise Conflict(
            f"{len(plan.conflicts)} field(s) are managed by somebody else, nothing was applied: {listed}",
            hint="gtc op env reconcile ENV --force takes them over; or leave them to their manager and answer accordingly",
        )


class _Run:
    """One reconcile at work."""

    def __init__(self, cluster: Cluster, plan: Plan, owner: Owner, rules: ApplyRules, told: Told) -> None:
        self._cluster, self._plan, self._owner, self._rules, self._told = cluster, plan, owner, rules, told
        self._created: list[Ref] = []
        self._changed: list[Ref] = []
        self._failures: list[Failure] = []
        self._left_alone: list[Ref] = []
        self._objects: dict[Ref, JsonObject] = {i.ref: i.live for i in plan.items if i.action == "unchanged" and i.live}

    def carry_out(self, namespace: str, random: Random, *, keyed: bool) -> Outcome:
        left: list[Ref] = []
        pruned: list[Ref] = []
        with ThreadPoolExecutor(PARALLEL) as pool:
            for name, kinds in PHASES:
                items = [i for i in self._plan.writes if i.ref.kind in kinds]
                if self._failures:
                    left += [i.ref for i in items]
                    continue
                if name == "policies and configuration" and not keyed and self._rules.scope is None:
                    self._try(
                        Ref("Secret", names.SESSION_KEY, namespace),
                        lambda: self._make_key(namespace, random),
                    )
                if items:
                    self._told(f"applying {name}: {len(items)} object(s)")
                list(pool.map(carried(self._apply), items))
            if self._failures:
                left += [d.ref for d in self._plan.deletions]
            elif self._plan.deletions:
                self._told(f"deleting {len(self._plan.deletions)} object(s) that are not desired any more")
                gone = pool.map(self._delete, self._plan.deletions)
                pruned = [d.ref for d, was in zip(self._plan.deletions, gone, strict=True) if was]
        order = {item.ref: index for index, item in enumerate(self._plan.items)}
        return Outcome(
            self._plan,
            sorted(self._created, key=lambda r: order.get(r, -1)),
            sorted(self._changed, key=lambda r: order.get(r, -1)),
            pruned,
            self._failures,
            left,
            self._left_alone,
            self._objects,
        )

    def _try(self, ref: Ref, action: Callable[[], object]) -> None:
        try:
            action()
        except GreenticError as error:
            self._failures.append(Failure(ref, error))

    def _apply(self, item: Item) -> None:
        self._try(item.ref, lambda: self._write(item))

    def _write(self, item: Item) -> None:
        live = item.live
        try:
            thing, live = self._put_or_look(item)
        except ApiRefused as error:
            if error.immutable and item.live is not None and self._rules.recreate:
                thing = self._make_again(item, item.live)
            elif error.forbidden and item.live is not None and item.ref.kind == "Namespace":
                # somebody else's to label; everything in it may still be ours
                self._left_alone.append(item.ref)
                return
            else:
                raise explained(item, error) from error
        self._objects[item.ref] = thing
        if live is None:
            self._created.append(item.ref)
        elif metadata_of(thing).get("resourceVersion") != metadata_of(live).get("resourceVersion"):
            self._changed.append(item.ref)

    def _put(self, item: Item) -> JsonObject:
        """Write an object on condition that it is the one that was seen (rule 3); it takes away what others added."""
        if item.taken and item.live is not None:
            self._cluster.merge(item.ref, handed_over(item.live, item.taken))
        return self._cluster.apply(conditioned(item.stated, item.live), force=self._rules.force)

    def _put_or_look(self, item: Item) -> tuple[JsonObject, JsonObject | None]:
        """The same, with what was there before; an object that is another by now is looked at once more.

        Raises `Conflict` if that may not be taken over.
        """
        try:
            return self._put(item), item.live
        except ApiRefused as error:
            if not error.another:
                raise
        found = self._cluster.get(item.ref)
        live = [] if found is None else [found]
        again = make_plan([item.stated], live, self._owner, adopt=self._rules.adopt).items[0]
        if again.refused is not None:
            raise Conflict(
                f"{item.ref} was made by somebody else while this ran, and was left as it is: {again.refused}",
                hint="gtc op env reconcile ENV --adopt takes it over, if that is meant; else end who makes it, and run the same again",
            )
        if found is not None and again.action == "unchanged":
            return (
                found,
                item.live,
            )  # what came of a request whose answer was lost, or of the same by another run of ours
        return self._put(again), found or item.live

    def _make_again(self, item: Item, live: JsonObject) -> JsonObject:
        metadata = metadata_of(live)
        version = str(metadata.get("resourceVersion", ""))
        self._cluster.delete(item.ref, uid=str(metadata.get("uid")), resource_version=version)
        await_gone(self._cluster, item.ref, str(metadata.get("uid")))
        return self._put_or_look(item._replace(live=None))[0]

    def _make_key(self, namespace: str, random: Random) -> None:
        labels: dict[str, Json] = {
            names.COMPONENT: "session-key",
            **names.owner_labels(self._owner.env_id, self._owner.store),
        }
        key = base64.b64encode(random.octets(SESSION_KEY_BYTES)).decode()
        secret: JsonObject = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": names.SESSION_KEY, "namespace": namespace, "labels": labels},
            "data": {names.SESSION_KEY: key},
        }
        try:
            self._cluster.create(secret)
        except ApiRefused as error:
            if error.status != 409:  # another reconcile made it first
                item = Item(Ref("Secret", names.SESSION_KEY, namespace), "create", secret, None, [], [])
                raise explained(item, error) from error

    def _delete(self, deletion: Deletion) -> bool:
        try:
            return delete_own(self._cluster, deletion, self._owner)
        except GreenticError as error:
            self._failures.append(Failure(deletion.ref, error))
            return False


def delete_own(cluster: Cluster, deletion: Deletion, owner: Owner, *, foreground: bool = False) -> bool:
    """Delete an object that was seen to be ours (rule 5); whether it was there to be deleted."""
    seen = deletion
    for _ in range(DELETE_TRIES):
        try:
            return cluster.delete(seen.ref, uid=seen.uid, resource_version=seen.resource_version, foreground=foreground)
        except ApiRefused as error:
            if error.status != 409:
                raise
        found = cluster.get(seen.ref)
        if found is None:
            return False
        metadata = metadata_of(found)
        if metadata.get("deletionTimestamp"):
            return True
        if not may_delete(found, owner) or metadata.get("uid") != seen.uid:
            raise Conflict(
                f"{seen.ref} was changed by somebody else meanwhile ({labels_of(found)}) and was not deleted"
            )
        seen = seen._replace(resource_version=str(metadata.get("resourceVersion", "")))
    raise Conflict(f"{seen.ref} keeps changing and was not deleted", hint="run the reconcile again")


def await_gone(cluster: Cluster, ref: Ref, uid: str) -> JsonObject | None:
    """Wait until a deleted object is gone; what somebody made in its place meanwhile. Raises `Conflict` if something holds it."""
    patience = Patience(_GONE, UNCOUNTED, GONE_SECONDS, CLOCK, RANDOM)
    while (found := cluster.get(ref)) is not None:
        if metadata_of(found).get("uid") != uid:
            return found
        if not patience.wait():
            raise Conflict(
                f"{ref} is being deleted and does not go within {GONE_SECONDS:g} s",
                hint="a finalizer may hold it: kubectl get -o yaml",
            )
    return None


def server_changes(cluster: Cluster, item: Item, *, force: bool) -> JsonObject | None:
    """What a server-side dry run says an object would become; nothing if it would stay as it is.

    Raises `ApiRefused` as applying would.
    """
    after = cluster.apply(item.stated, force=force, dry_run=True)
    return None if item.live is not None and _stripped(after) == _stripped(item.live) else after


def _stripped(thing: JsonObject) -> JsonObject:
    """An object without what every write touches, and with what we own of it."""
    metadata = {
        k: v for k, v in metadata_of(thing).items() if k not in ("managedFields", "resourceVersion", "generation")
    }
    body = {k: v for k, v in thing.items() if k not in ("metadata", "apiVersion", "status")}
    return {**body, "metadata": metadata, "ours": applied_fields(thing)}
