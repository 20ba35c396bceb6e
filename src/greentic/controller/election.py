"""Who of several operators acts: a Lease, as Kubernetes' own components hold theirs (formats: operator 3).

Rules:
1. Clocks of different machines are never compared. A holder is given up when its Lease has not changed for `DURATION` seconds of our own
   clock.
2. The holder renews it every `RENEW` seconds, and stops acting when it could not for `DEADLINE`: before another may begin.
3. Taking and renewing name the version that was seen; of two that try at once, one is refused.
4. A write that was begun while the Lease was held is tried again for `WRITING` seconds only, which end before another may begin.
5. Who ends gives it back, so that the next need not wait.
6. The Lease names the newest version that held it. An older operator takes it only when nobody did for `YIELDING` seconds, and then
   stands back: it tells and writes nothing else, for it would change back what it does not know. Taking the name away lets it act.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from greentic import __version__
from greentic.ground.clock import Clock, timestamp
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, GreenticError
from greentic.k8s.names import label_value
from greentic.k8s.objects import ApiRefused, Cluster, Ref, member, metadata_of
from greentic.model.descriptors import version_tuple

LEASE = "greentic-operator"
DURATION, DEADLINE, RENEW = 15.0, 10.0, 3.0
WRITING = DURATION - DEADLINE
YIELDING = 2 * DURATION
VERSION = "greentic.ai/operator-version"
"""The annotation that names the newest version that held a Lease."""


def lease_name(wish: str) -> str:
    """The name of a wish's Lease: legal, and another one for each wish."""
    return label_value(f"{LEASE}-{wish}")


class Move(Enum):
    """What to do about the Lease."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


class Sight(NamedTuple):
    """The holder that was seen, and since when its Lease has not changed."""

    holder: str = ""
    version: str = ""
    since: float = 0.0


def next_move(
    lease: JsonObject | None, me: str, sight: Sight, now: float, program: str = __version__
) -> tuple[Move, Sight]:
    """What to do, and what was seen, by a program of this version. Pure."""
    if lease is None:
        return Move.CREATE, Sight()
    holder = str(member(lease, "spec").get("holderIdentity") or "")
    version = str(metadata_of(lease).get("resourceVersion"))
    seen = sight if (sight.holder, sight.version) == (holder, version) else Sight(holder, version, now)
    if holder == me:
        return Move.RENEW, seen
    patience = YIELDING if newer(lease, program) else DURATION if holder else 0.0
    return (Move.TAKE if now - seen.since >= patience else Move.WAIT), seen


def newer(lease: JsonObject | None, version: str) -> str:
    """The version that a Lease names, if it is newer than one; nothing else that stands there counts."""
    told = member(lease or {}, "metadata", "annotations").get(VERSION)
    try:
        return told if isinstance(told, str) and version_tuple(told) > version_tuple(version) else ""
    except ValueError:
        return ""


class Election:
    """This operator's part in it."""

    def __init__(
        self, reach: Callable[[], Cluster], ref: Ref, me: str, clock: Clock, version: str = __version__
    ) -> None:
        self._reach, self._ref, self._me, self._clock, self._version = reach, ref, me, clock, version
        self._sight = Sight()
        self._newer = ""
        self._renewed: float | None = None
        self.holder = ""
        """Who held it when it was last seen."""

    def leads(self) -> bool:
        """Whether this operator may act now (rule 2)."""
        return self._renewed is not None and self._clock.monotonic() - self._renewed < DEADLINE

    def whose(self) -> str:
        """Who has the Lease, in a sentence."""
        if self.leads():
            return "this operator holds the Lease"
        lost = self.holder in ("", self._me)
        return (
            "this operator could not renew the Lease and holds it no more"
            if lost
            else f"`{self.holder}` holds the Lease"
        )

    def stands_back(self) -> str:
        """Why this operator may not write although it leads (rule 6); nothing if it may."""
        if not self._newer or not self.leads():
            return ""
        return (
            f"version {self._newer} of the operator kept this namespace, and this is {self._version}: nothing is written, for it would "
            f"change back what it does not know. Next: run version {self._newer} again, or let this one act: kubectl -n "
            f"{self._ref.namespace} annotate lease {self._ref.name} {VERSION}-"
        )

    def step(self) -> bool:
        """Look at the Lease, take or renew it if possible; whether this operator leads. Raises `GreenticError`."""
        began = self._clock.monotonic()  # what is held counts from before it was asked for
        cluster = self._reach()
        lease = cluster.get(self._ref)
        move, self._sight = next_move(lease, self._me, self._sight, began, self._version)
        if move is Move.WAIT:
            self.holder, self._renewed = self._sight.holder, None
            return False
        try:
            if lease is None:
                cluster.create(self._stated(None))
            else:
                cluster.update(self._stated(lease))
        except ApiRefused as error:
            if error.status != 409:
                raise
            self._renewed = None  # somebody else was faster
            return False
        self.holder, self._renewed, self._newer = self._me, began, newer(lease, self._version)
        return True

    def release(self) -> None:
        """Give it back, if it is ours (rule 5); that it cannot be said is no matter."""
        self._renewed = None
        try:
            cluster = self._reach()
            lease = cluster.get(self._ref)
            if lease is not None and member(lease, "spec").get("holderIdentity") == self._me:
                cluster.update({**lease, "spec": {**member(lease, "spec"), "holderIdentity": ""}})
        except GreenticError:
            return

    def _stated(self, lease: JsonObject | None) -> JsonObject:
        # the API's type has six digits, whatever the value needs
        now = f"{timestamp(self._clock.now_ns() // 1_000_000_000 * 1_000_000_000)[:-1]}.{self._clock.now_ns() // 1000 % 1_000_000:06d}Z"
        spec = member(lease, "spec") if lease is not None else {}
        ours = spec.get("holderIdentity") == self._me
        changes = spec.get("leaseTransitions")
        count = changes if isinstance(changes, int) else 0
        metadata: JsonObject = (
            {"name": self._ref.name, "namespace": self._ref.namespace} if lease is None else metadata_of(lease)
        )
        named: JsonObject = {VERSION: newer(lease, self._version) or self._version}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "annotations": {**member(metadata, "annotations"), **named}},
            "spec": {
                **spec,
                "holderIdentity": self._me,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": spec.get("acquireTime") if ours else now,
                "renewTime": now,
                "leaseTransitions": count if ours or lease is None else count + 1,
            },
        }


class Held:
    """A cluster that is written to only while the Lease is held; reading goes on."""

    def __init__(self, cluster: Cluster, election: Election) -> None:
        self._cluster, self._election = cluster, election
        self.writes = 0
        self.versions, self.get, self.list, self.pages = cluster.versions, cluster.get, cluster.list, cluster.pages
        self.watch, self.ask_pod, self.log, self.post = cluster.watch, cluster.ask_pod, cluster.log, cluster.post

    def apply(self, thing: JsonObject, *, force: bool, dry_run: bool = False) -> JsonObject:
        self._check(writes=not dry_run)
        return self._cluster.apply(thing, force=force, dry_run=dry_run)

    def create(self, thing: JsonObject) -> JsonObject:
        self._check()
        return self._cluster.create(thing)

    def update(self, thing: JsonObject) -> JsonObject:
        self._check()
        return self._cluster.update(thing)

    def patch_status(self, ref: Ref, status: JsonObject) -> JsonObject:
        self._check()
        return self._cluster.patch_status(ref, status)

    def delete(self, ref: Ref, *, uid: str, resource_version: str | None, foreground: bool = False) -> bool:
        self._check()
        return self._cluster.delete(ref, uid=uid, resource_version=resource_version, foreground=foreground)

    def merge(self, ref: Ref, patch: JsonObject) -> None:
        self._check()
        self._cluster.merge(ref, patch)

    def _check(self, *, writes: bool = True) -> None:
        if not self._election.leads():
            raise Conflict("the Lease was lost meanwhile; whoever holds it now goes on", hint="nothing is to be done")
        self.writes += writes
