"""The operator at work: one wish, one namespace (formats: operator 1, 2, 3, 4).

Rules:
1. What is next is for `decide` to say; here it is done, and what came of it is remembered until it is told in the status.
2. Objects are made what they should be by the same plan and apply as by `gtc op env reconcile`. Fields that others changed are taken back:
   that is what healing means. Objects of others are not touched, unless the wish says so.
3. Whatever fails leaves the cluster as it is. The reason stands in Degraded, and it is tried again later each time.
4. In sync nothing is written but the Lease.
5. What controllers of the cluster say of autoscalers and routes is told (`judging`); it stops nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from greentic.cluster.apply import ApplyRules, Outcome, carry_out, is_keyed, scoped
from greentic.cluster.served import Served
from greentic.cluster.wait_served import AwaitedDocument, wait_served
from greentic.controller.contested import Contested
from greentic.controller.decide import RESYNC, Act, Situation, decide
from greentic.controller.desired import DesiredDocument, Publication
from greentic.controller.differing import ALONE, Stated, difference, object_of, stated
from greentic.controller.election import RENEW, Election, Held, lease_name
from greentic.controller.judging import Judging
from greentic.controller.kept_document import keep
from greentic.controller.looking import Looking
from greentic.controller.metrics import Metrics
from greentic.controller.report import MAX_NAMED, Known, generation_of, report, would_write
from greentic.controller.teller import Log, Teller
from greentic.controller.troubles import Trouble, Troubles, of_apply, of_look, told_as
from greentic.controller.watches import Watches
from greentic.controller.wish import Wish, read_wish
from greentic.controller.wish_status import Condition, status_of
from greentic.ground.clock import Clock, Random, timestamp
from greentic.ground.documents import JsonObject, compact
from greentic.ground.errors import GreenticError
from greentic.k8s import names
from greentic.k8s.health import Rollout, rollout
from greentic.k8s.objects import ApiRefused, Cluster, Ref, metadata_of
from greentic.k8s.plan import Owner, Plan
from greentic.net.terms import Terms
from greentic.telemetry.tracing import whole

HEAR_SECONDS = 120.0
AGAIN_SECONDS = 0.5


class Operator:
    """One process; several of them take turns by a Lease."""

    def __init__(
        self,
        cluster: Callable[[], Cluster],
        source: Ref,
        me: str,
        home: Path,
        clock: Clock,
        random: Random,
        log: Log,
        terms: Terms,
    ) -> None:
        assert source.namespace is not None
        self._reach, self._source, self._clock, self._random, self._log = cluster, source, clock, random, log
        self.metrics = Metrics()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self.watches = Watches(cluster, source.namespace, clock, random, self.wake)
        self.election = Election(cluster, Ref("Lease", lease_name(source.name), source.namespace), me, clock)
        self._teller = Teller(cluster, self.election, source, clock, random, log)
        self._looking = Looking(Publication(home, clock, terms), self.wake, log)
        self._wish: Wish | None = None
        self._wish_version = ""
        self._selector: str | None = None
        self._desired: DesiredDocument | None = None
        self._troubles = Troubles(random, log)
        self._look_at = self._compare_at = 0.0
        self._changed = set[Ref]()
        self._contested = Contested(random)
        self._added: dict[Ref, str] = {}
        self._unwatched: dict[str, str] = {}
        self._applied: tuple[int, str] | None = None
        self._stated: tuple[tuple[str, str], Stated] | None = None
        self._deployments: dict[str, Rollout] = {}
        self._synced = Condition("Synced", "Unknown", "Starting")
        self._objects = 0
        self._heard: Trouble | None = None
        self._judging = Judging(cluster, source.namespace, clock)
        self._led = False
        self._turned = clock.monotonic()
        self._voting = threading.Thread(target=self._vote, daemon=True, name="lease")

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop`."""
        self.watches.follow_wish(self._source)
        self._voting.start()
        while not self._stopping.is_set():
            self._woken.clear()
            seconds = self.turn()
            if seconds > 0 and not self._stopping.is_set():
                self._woken.wait(seconds)
        self.watches.stop()
        self._voting.join(RENEW)
        self.election.release()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()

    def alive(self) -> bool:
        """Whether the loop has turned in the last minutes, and the Lease is still held or awaited."""
        return self._clock.monotonic() - self._turned < 300 and (self._voting.ident is None or self._voting.is_alive())

    def _vote(self) -> None:
        """Hold or await the Lease (rules of `election`). What is in the way is logged once."""
        failed, before = "", (False, "")
        while not self._stopping.is_set():
            try:
                self.election.step()
                failed = ""
            except GreenticError as error:
                if error.message != failed:
                    self._log(f"lease: {told_as(error)}")
                failed = error.message
            now = self.election.leads(), self.election.stands_back()
            if now[0] != before[0]:
                self._log(self.election.whose())
            if now != before:
                self.wake()
            before = now
            self._stopping.wait(RENEW * (0.75 + self._random.fraction() / 2))

    # -- one turn -----------------------------------------------------------------------------------------------------

    def turn(self) -> float:
        """Do the next thing; how long to rest then, unless woken."""
        self._turned = self._clock.monotonic()
        leads = self.election.leads()
        if self._led and not leads:
            self._applied, self._desired, self._look_at = None, None, 0.0  # another may have gone on
            self._looking.forget()
        self._led = leads
        self.metrics.set("leads", int(leads))
        self._read_wish()
        self._hear_of_look()
        self._hear_of_watches()
        stands_back = self._hear_of_versions()
        self._changed |= self.watches.changed()
        wish = self._wish
        now = self._clock.monotonic()
        self._troubles.are("contest", "Contested", self._contested.told(now))
        status = self._what_is_told()
        step = decide(
            Situation(
                now=now,
                leads=leads,
                wish=None if wish is None else (wish.generation, wish.paused or stands_back, wish.dry_run),
                told=self._thing() is None or self._teller.is_told(status) or self._looking.starts,
                document=self._desired.digest if self._desired is not None else None,
                applied=self._applied,
                changed=bool(self._contested.due(self._changed, now)),
                look_at=self._look_at,
                compare_at=self._compare_at,
                contested_at=self._contested.until(self._changed),
                failing="apply" in self._troubles,
            )
        )
        if step.act is Act.TELL:
            return 0.0 if self._teller.tell(self._thing(), status) else 2.0
        if wish is not None and step.act is Act.LOOK:
            self._look(wish)
        elif wish is not None and step.act in (Act.CONVERGE, Act.COMPARE):
            with whole("reconcile"):
                self._compare(wish, dry_run=step.act is Act.COMPARE)
        return step.seconds

    def _thing(self) -> JsonObject | None:
        """The object that holds the wish; one that is being deleted is gone, whatever holds it."""
        thing = self.watches.wish(self._source)
        return None if thing is None or metadata_of(thing).get("deletionTimestamp") else thing

    def _read_wish(self) -> None:
        thing = self._thing()
        if thing is not None:
            self._teller.meet(thing)
        says = [] if thing is None else [metadata_of(thing).get("generation"), thing.get("spec"), thing.get("data")]
        version = compact(says).decode() if says else ""
        if version == self._wish_version:
            return
        self._wish_version, self._wish = version, None
        self._troubles.well("wish")
        if thing is None:
            self._log(f"{self._source} is gone; what runs is left as it is")
            return
        try:
            self._wish = read_wish(thing)
        except GreenticError as error:
            self._troubles.met("wish", Trouble("WishInvalid", told_as(error)))
            return
        self._looking.forget()
        self._look_at = self._compare_at = self._clock.monotonic()

    def _hear_of_watches(self) -> None:
        """Tell which kinds are not watched; without the wish's own, nobody knows that it changed."""
        now = dict(self.watches.troubles)
        for kind, error in now.items():
            if self._unwatched.get(kind) != error.message:
                self._log(f"{kind} is not watched: {told_as(error)}")
        self._unwatched = {kind: error.message for kind, error in now.items()}
        own = now.get(self._source.kind)
        if isinstance(own, ApiRefused) and own.status in (403, 404):
            told = f"what changes of {self._source} is not seen, and what it said last goes on: {told_as(own)}"
            self._troubles.met("watch", Trouble(own.cause, told))
        elif own is None:
            self._troubles.well("watch")

    def _hear_of_versions(self) -> bool:
        """Whether a newer operator was here, which this one must not undo (rule 6 of `election`)."""
        why = self.election.stands_back()
        self._troubles.are("version", "NewerVersion", why)
        return bool(why)

    def _look(self, wish: Wish) -> None:
        """Look beside the loop; what comes of it is taken by `_hear_of_look`."""
        if self._looking.busy:  # one of before the wish changed
            self._look_at = self._clock.monotonic() + AGAIN_SECONDS
            return
        self.metrics.add("looks_total")
        seen = max(generation_of(self._teller.status), self._desired.generation if self._desired is not None else 0)
        self._looking.begin(wish, seen, self._reach if self._desired is None else None)
        self._look_at = self._clock.monotonic() + RESYNC

    def _hear_of_look(self) -> None:
        wish, meanwhile, looked = self._wish, self._looking.meanwhile(), self._looking.ended()
        if wish is not None and meanwhile is not None:
            self._take(meanwhile)
        if (slow := self._looking.unanswered()) is not None and "look" not in self._troubles:
            self._troubles.met("look", slow)
        if wish is None or looked is None:
            return
        if looked.error is not None:
            self.metrics.add("look_failures_total")
            self._troubles.met("look", of_look(looked.error))
            rest = self._troubles.pause("look")
        else:
            self._troubles.well("look")
            rest = wish.every * (0.75 + self._random.fraction() / 2)
        if looked.found is not None and looked.found is not self._desired:
            self._take(looked.found)
        if self._stated is not None and self._selector is not None:
            self._judging.ask({ref.kind for ref in self._stated[1]}, self._selector)
        self._look_at = self._clock.monotonic() + rest

    def _take(self, found: DesiredDocument) -> None:
        self._desired, self._compare_at = found, self._clock.monotonic()
        selector = names.owner_selector(found.env.environment_id)
        if selector != self._selector:
            self._selector = selector
            self.watches.follow_objects(selector)
        self._log(f"environment `{found.env.environment_id}`, generation {found.generation}")

    def _compare(self, wish: Wish, *, dry_run: bool) -> None:
        """Compare, and, unless it is a dry run, write what differs (rule 2)."""
        assert self._desired is not None
        self.metrics.add("reconciles_total")
        desired, again = self._desired, self._applied == (wish.generation, self._desired.digest)
        owner, namespace = Owner(desired.env.environment_id, wish.store), wish.answers.namespace
        cluster = Held(self._reach(), self.election)
        now = self._clock.monotonic()
        due = self._contested.due(self._changed, now)
        alone = again and not dry_run and len(due) <= ALONE and now < self._compare_at
        only = frozenset(due) if alone else None
        self._changed = self._changed - due if alone else set()
        try:
            wanted = self._what_should_be(wish, desired)
            found = difference(cluster, wanted, namespace, owner, only, adopt=wish.adopt)
            rules = ApplyRules(adopt=wish.adopt, force=True, scope=only)
            if dry_run:
                self._would(found.whole())
            else:
                self._deployments = {**(self._deployments if alone else {}), **found.rollouts}
                self._added = {r: t for r, t in self._added.items() if alone and r not in due} | found.added
                self._objects, keyed = len(wanted) - len(found.rest), is_keyed(found.live)
                written: list[Ref] = []
                for plan in found.plans():
                    outcome = carry_out(
                        cluster, scoped(plan, rules), namespace, owner, rules, self._random, self._log, keyed=keyed
                    )
                    keyed = True
                    written += self._done(outcome)
                self._in_sync(cluster, written, again)
                if (thing := self._thing()) is not None and not alone:
                    env_store = object_of(wanted, Ref("ConfigMap", names.ENV_STORE, namespace))
                    keep(cluster, thing, env_store, desired.env, self._log)
        except GreenticError as error:
            self._failed(error, self._clock.monotonic() - self._turned)
        else:
            self._applied = (wish.generation, desired.digest)
            if not alone:
                self._compare_at = self._clock.monotonic() + RESYNC
        self.metrics.add("writes_total", cluster.writes)

    def _what_should_be(self, wish: Wish, desired: DesiredDocument) -> Stated:
        """The objects of a wish and a document, rendered once."""
        key = (self._wish_version, desired.digest)
        if self._stated is None or self._stated[0] != key:
            self._stated = key, stated(wish, desired)
        return self._stated[1]

    def _would(self, plan: Plan) -> None:
        self._synced = would_write([str(i.ref) for i in plan.writes] + [f"{d.ref} (delete)" for d in plan.deletions])
        self._troubles.well("apply")

    def _done(self, outcome: Outcome) -> list[Ref]:
        """Take over what was written. Raises the first failure."""
        self._objects += len(outcome.applied)
        for ref, thing in outcome.objects.items():
            if ref.kind == "Deployment":
                self._deployments[ref.name] = rollout(thing)
        if outcome.failures:
            raise outcome.failures[0].error
        return [*outcome.created, *outcome.changed, *outcome.pruned]

    def _in_sync(self, cluster: Cluster, written: list[Ref], again: bool) -> None:
        if written and again:
            self.metrics.add("drift_healed_total", len(written))
            self._contested.put_right(written, self._clock.monotonic())
            told = f"put right: {', '.join(map(str, written[:MAX_NAMED]))}"
            self._teller.event(self._thing(), Condition("Synced", "True", "DriftHealed", told))
        told = "; ".join(
            [f"{self._objects} object(s) are as stated", *map(self._added.__getitem__, sorted(self._added))]
        )
        self._synced = Condition("Synced", "True", "InSync", told)
        self._troubles.well("apply")
        if any(ref.name == names.ENV_STORE for ref in written) or self._heard is None:
            self._hear(cluster)

    def _failed(self, error: GreenticError, took: float) -> None:
        self.metrics.add("reconcile_failures_total")
        found = of_apply(error)
        self._troubles.met("apply", found)
        self._synced = Condition("Synced", "False", found.reason, found.message)
        self._applied = None
        self._compare_at = self._clock.monotonic() + self._troubles.pause("apply", took)

    def _hear(self, cluster: Cluster) -> None:
        """Wait, beside the loop, until routers say that they serve the document; kubelets are hurried on the way."""
        assert self._desired is not None
        assert self._selector is not None
        assert self._stated is not None
        digest, namespace = self._desired.digest, str(self._source.namespace)
        router = object_of(self._stated[1], Ref("Deployment", names.ROUTER, namespace))
        document = AwaitedDocument(digest, namespace, self._selector, [router])
        self._heard = Trouble("Spreading", "routers have not said yet that they serve the document")

        def listen() -> None:
            try:
                heard = wait_served(cluster, document, HEAR_SECONDS, _Unseen(), self._clock)
                found = Trouble("", heard.warning or "")
            except GreenticError as error:
                found = Trouble("NotServed", told_as(error))
            if self._desired is not None and self._desired.digest == digest:
                self._heard = found
                self.wake()

        threading.Thread(target=listen, daemon=True, name="hear").start()

    # -- telling ------------------------------------------------------------------------------------------------------

    def _what_is_told(self) -> JsonObject:
        """The status as it should be now."""
        back = self.election.stands_back()
        known = Known(
            wish=self._wish,
            desired=self._desired,
            applied=None if self._applied is None else self._applied[1],
            synced=Condition("Synced", "Unknown", "NewerVersion", back) if back else self._synced,
            objects=self._objects,
            trouble=self._troubles.first(),
            rollouts={name: self.watches.rollouts.get(name) or told for name, told in self._deployments.items()},
            heard=self._heard,
            judged=self._judging.said(),
        )
        told = report(known, self._teller.status)
        conditions = {condition.type.lower(): int(condition.status == "True") for condition in told.conditions}
        self.metrics.state({"generation": told.published, "objects": told.objects, **conditions}, leads=self._led)
        return status_of(told, self._teller.status, timestamp(self._clock.now_ns() // 1_000_000_000 * 1_000_000_000))


class _Unseen:
    """Nobody watches."""

    def show_served(self, pods: dict[str, Served]) -> None: ...
