"""What differs between an environment and its namespace, told without holding either of them whole (formats: operator 2).

Rules:
1. What should be is kept compressed, and looked at one object at a time. What is there is read in pages; of what is as stated, only how far
   its rollout is stays in memory.
2. Much that differs is written in parts, in the order of the phases of `cluster.apply`, after it was seen that nothing of it is refused;
   deletions come last.
3. What a watch told about a few objects is answered by comparing those alone. Everything is compared when more changed, when what should
   be changed, when something failed, and now and then whatever was told.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple, cast

from greentic.cluster.apply import PHASES, refuse
from greentic.cluster.live import Keep, read_live
from greentic.cluster.verdicts import added
from greentic.controller.desired import DesiredDocument
from greentic.controller.wish import Wish
from greentic.ground.documents import JsonObject, compact, parse
from greentic.k8s import render
from greentic.k8s.answers import Answers
from greentic.k8s.health import Rollout, rollout
from greentic.k8s.objects import Cluster, Ref, ref_of
from greentic.k8s.plan import LISTED, Owner, Plan, make_plan
from greentic.registry.reference import mapped

ALONE = 16
"""So many objects are compared by themselves; of more, everything is read, which takes fewer requests."""

BATCH = 200
"""So many objects are written together."""
_PHASE = {kind: number for number, (_, kinds) in enumerate(PHASES) for kind in kinds}

Stated = dict[Ref, bytes]
"""The objects that should be, as compressed JSON: `object_of` gives one."""


class Difference(NamedTuple):
    """What is to be done, and what there is to know of the rest."""

    wanted: Stated
    owner: Owner
    adopt: bool
    rest: list[Ref]
    """What is stated and not so, in the order of writing."""
    live: list[JsonObject]
    """What was read and is not as stated, or not stated at all."""
    rollouts: dict[str, Rollout]
    """Of the Deployments that are as stated."""
    added: dict[Ref, str]
    """What others put into objects that are as stated, in a sentence each."""

    def whole(self) -> Plan:
        """All that is to be done, at once."""
        return self._plan(self.rest, self.live)

    def plans(self) -> Iterator[Plan]:
        """The same in parts (rule 2). Raises `Conflict` before the first if something may not be taken over."""
        if len(self.rest) <= BATCH:
            yield self.whole()
            return
        there = {ref_of(thing): thing for thing in self.live}
        refuse(self._plan([ref for ref in self.rest if ref in there], self.live), force=True)
        for at in range(0, len(self.rest), BATCH):
            part = self.rest[at : at + BATCH]
            yield self._plan(part, [there[ref] for ref in part if ref in there])
        yield self._plan([], [thing for ref, thing in there.items() if ref not in self.wanted])

    def _plan(self, refs: list[Ref], live: list[JsonObject]) -> Plan:
        wanted = [object_of(self.wanted, ref) for ref in refs]
        return make_plan(wanted, live, self.owner, adopt=self.adopt, also=self.live)


def stated(wish: Wish, desired: DesiredDocument) -> Stated:
    """What should be, without the namespace, which is not an operator's. Raises `Conflict` as `render` does."""
    things = render.rendering(render.DesiredObjects(desired.env, _answers(wish, desired), wish.store))
    return {
        ref_of(thing): zlib.compress(compact(thing), zlib.Z_BEST_SPEED)
        for thing in things
        if thing["kind"] != "Namespace"
    }


def _answers(wish: Wish, desired: DesiredDocument) -> Answers:
    """The answers; a document that is too large for a ConfigMap is where it was published, under the name of its digest."""
    if wish.answers.environment_registry is not None or not wish.place.startswith("oci://"):
        return wish.answers
    reference = mapped(wish.place, {})
    there = wish.answers._replace(environment_registry=f"oci://{reference.registry}/{reference.repository}")
    document = compact(desired.env)
    return wish.answers if render.pointed(there, desired.env, document) is None else there


def object_of(wanted: Stated, ref: Ref) -> JsonObject:
    """One stated object."""
    return cast("JsonObject", parse(zlib.decompress(wanted[ref])))


def difference(
    cluster: Cluster, wanted: Stated, namespace: str, owner: Owner, only: frozenset[Ref] | None, *, adopt: bool
) -> Difference:
    """Compare everything, or `only` these. Raises as `read_live` does."""
    sieve = _Sieve(wanted, owner, adopt)
    if only is not None:
        found = [thing for thing in map(cluster.get, sorted(only)) if thing is not None]
        keep = sieve.begun("")
        live = [thing for thing in found if keep(thing)]
    else:
        live = read_live(cluster, namespace, owner, [_outline(wanted, ref) for ref in wanted], sieve).live
    asked = wanted if only is None else [ref for ref in wanted if ref in only]
    in_order = sieve.in_order
    rest = sorted((ref for ref in asked if ref not in in_order), key=lambda ref: _PHASE[ref.kind])
    return Difference(wanted, owner, adopt, rest, live, sieve.rollouts, sieve.added)


def _outline(wanted: Stated, ref: Ref) -> JsonObject:
    """As much of an object as reading has to know."""
    if ref.kind in LISTED:
        return {"kind": ref.kind, "metadata": {"name": ref.name, "namespace": ref.namespace}}
    return object_of(wanted, ref)


class _Sieve:
    """Lets pass what is not as stated (rule 1); what is as stated is told apart by the list in which it was seen."""

    def __init__(self, wanted: Stated, owner: Owner, adopt: bool) -> None:
        self._wanted, self._owner, self._adopt = wanted, owner, adopt
        self._seen: dict[str, dict[Ref, Rollout | None]] = {}
        self.added: dict[Ref, str] = {}

    @property
    def in_order(self) -> set[Ref]:
        return {ref for seen in self._seen.values() for ref in seen}

    @property
    def rollouts(self) -> dict[str, Rollout]:
        """How far they are, of the Deployments that are as stated."""
        return {ref.name: found for seen in self._seen.values() for ref, found in seen.items() if found is not None}

    def begun(self, kind: str) -> Keep:
        seen: dict[Ref, Rollout | None] = {}
        self._seen[kind] = seen
        self.added = {ref: text for ref, text in self.added.items() if ref.kind != kind}

        def is_kept(thing: JsonObject) -> bool:
            ref = ref_of(thing)
            if ref not in self._wanted:
                return True
            plan = make_plan([object_of(self._wanted, ref)], [thing], self._owner, adopt=self._adopt)
            if plan.writes or plan.refused:
                return True
            for text in added(plan.items):
                self.added[ref] = text
            seen[ref] = rollout(thing) if ref.kind == "Deployment" else None
            return False

        return is_kept
