"""What is served now, what was before, and who still holds on to it (threats: drain-race).

Rules:
1. A request holds the activation that it started with, and leases the revision that answers it until its turn ended.
2. A swap flips one name. Revisions that are in the new activation go on as they are; the others drain.
3. A draining revision takes no new conversations, but those that wait on it, until its last lease is given back and nobody waits on it
   any more, or its drain window is over, whichever comes first; never before its last lease. Where several processes share what waits,
   one cannot tell that nobody does: there it stays for its window.
"""

from __future__ import annotations

import asyncio
import os
import threading

import msgspec

from greentic.activate.activation import Activation
from greentic.activate.turn import ActiveRevision
from greentic.ground.clock import Clock
from greentic.ground.documents import JsonObject
from greentic.telemetry.counts import Counts, Kind

REMEMBERED = 256
"""Revisions that are no longer served and whose counts are kept."""


class Draining(msgspec.Struct, frozen=True):
    """A revision that was swapped out."""

    revision: ActiveRevision
    until: float
    """When its drain window is over, by the monotonic clock."""


class Lease:
    """One turn on one revision, while it is entered; tell it how the turn ended."""

    __slots__ = ("_began", "_control", "_revision_id", "_serving", "counts", "failure", "parked")

    def __init__(self, serving: Serving, revision_id: str, *, control: bool) -> None:
        self._serving, self._revision_id, self._control = serving, revision_id, control
        self.parked = 0
        """By how many the conversations that wait became more."""
        self.failure: Kind | None = None

    def __enter__(self) -> Lease:
        self.counts, self._began = self._serving.taken(self._revision_id)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and self.failure is None:
            self.failure = "gone" if isinstance(error, asyncio.CancelledError) else "flow"
        self._serving.given_back(self, self._revision_id, self._began, control=self._control)


class Serving:
    """The activation that answers, and the revisions that drain. Swaps come from one thread, turns from any."""

    def __init__(self, activation: Activation, clock: Clock, *, shared: bool = False) -> None:
        """`shared`: conversations that others parked are resumed here, too (rule 3)."""
        self._clock, self._shared = clock, shared
        self._lock = threading.Lock()
        self.activation = activation
        self.draining: dict[str, Draining] = {}
        self.counts: dict[str, Counts] = {}
        self.control: dict[str, Counts] = {}
        """By revision, what of its counts belongs to the control slice of a ramp."""
        self.forgotten = Counts()
        """The sum of those that are no longer remembered."""
        self.process = f"{os.getpid()}.{clock.now_ns()}"
        """Whose counts these are; they begin at zero with it."""
        self.started = clock.now_ns()
        self.since: dict[str, int] = dict.fromkeys(activation.revisions, self.started)
        """Since when each revision serves, as it is loaded now."""
        self.swaps = 0
        self._may_wait: tuple[Activation, int, frozenset[str]] | None = None
        """By deployment, for what is served and so many that drain."""
        self.following: JsonObject | None = None
        """How following the environment goes, for `/status`."""

    def swap(self, new: Activation) -> None:
        """Serve `new` from now on (rule 2)."""
        old, self.activation = self.activation, new
        self.swaps += 1
        for revision_id, revision in old.revisions.items():
            if revision_id not in new.revisions:
                window = self._window(old, revision_id)
                self.draining[revision_id] = Draining(revision, self._clock.monotonic() + window)
        now, before = self._clock.now_ns(), self.since
        self.since = {
            i: before.get(i, now) if old.revisions.get(i) is revision else now for i, revision in new.revisions.items()
        }
        for revision_id in new.revisions:
            self.draining.pop(revision_id, None)
        for revision_id in self.control.keys() - new.revisions.keys():
            self.control.pop(revision_id, None)
        self.sweep()

    def find(self, revision_id: str) -> ActiveRevision | None:
        """A revision that serves, or that drains and is still there for who waits on it."""
        found = self.activation.revisions.get(revision_id)
        if found is None and revision_id in self.draining:
            self.sweep()
            held = self.draining.get(revision_id)
            found = None if held is None else held.revision
        return found

    def may_wait(self, deployment_id: str) -> bool:
        """Whether a session of a deployment may wait on a revision that is held here. Of others nobody need ask where it waits."""
        now, draining, known = self.activation, list(self.draining.values()), self._may_wait
        if known is None or known[0] is not now or known[1] != len(draining):
            held = (*now.revisions.values(), *(one.revision for one in draining))
            known = self._may_wait = (now, len(draining), frozenset(r.deployment_id for r in held if r.waits))
        return deployment_id in known[2]

    def lease(self, revision: ActiveRevision, *, control: bool = False) -> Lease:
        """Hold a revision while a turn runs on it, and count how the turn ended; in its control slice, too, if it is of that."""
        return Lease(self, revision.revision_id, control=control)

    def taken(self, revision_id: str) -> tuple[Counts, float]:
        """A turn begins: the counts of its revision, and the moment."""
        with self._lock:
            counts = self._of(revision_id)
            counts.in_flight += 1
        return counts, self._clock.monotonic()

    def given_back(self, lease: Lease, revision_id: str, began: float, *, control: bool) -> None:
        """The turn ended."""
        counts, seconds = lease.counts, self._clock.monotonic() - began
        with self._lock:
            counts.in_flight -= 1
            counts.ended(seconds, lease.failure)
            if lease.parked:
                counts.waits(lease.parked)
            if control:
                self.control.setdefault(revision_id, Counts()).ended(seconds, lease.failure)
        if revision_id in self.draining:
            self.sweep()

    def of(self, revision_id: str) -> Counts:
        """The counts of a revision."""
        with self._lock:
            return self._of(revision_id)

    def _of(self, revision_id: str) -> Counts:
        found = self.counts.get(revision_id)
        if found is None:
            found = self.counts[revision_id] = Counts()
            if len(self.counts) > REMEMBERED + len(self.activation.revisions) + len(self.draining):
                self._forget_oldest()
        return found

    def sweep(self) -> list[str]:
        """Let go of draining revisions that nobody needs (rule 3); which those are."""
        now = self._clock.monotonic()
        with self._lock:
            gone = [
                revision_id
                for revision_id, held in self.draining.items()
                if not (counts := self._of(revision_id)).in_flight
                and (now >= held.until or not (self._shared or counts.parked))
            ]
            for revision_id in gone:
                del self.draining[revision_id]
        return gone

    def _window(self, activation: Activation, revision_id: str) -> float:
        recorded = activation.env.revision(revision_id)
        return float(recorded.drain_seconds) if recorded is not None else 0.0

    def _forget_oldest(self) -> None:
        for revision_id in self.counts:
            if revision_id not in self.activation.revisions and revision_id not in self.draining:
                self.forgotten.take(self.counts.pop(revision_id))
                return
