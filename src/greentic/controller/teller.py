"""Telling: the status of the object that holds the wish, and its events (formats: operator 2).

Rules:
1. What was told is remembered, so that a status that says the same is not written again. An object that was deleted and made again is
   another one: nothing was told of it yet.
2. A status that the server refuses is told again later, for rights come back and definitions are mended; the reason is logged once.
3. Nothing waits for an event.
"""

from __future__ import annotations

from collections.abc import Callable

from greentic.controller.election import Election, Held
from greentic.controller.troubles import CLUSTER_AGAIN
from greentic.controller.wish_status import Condition, is_kept, turned
from greentic.ground.clock import Clock, Random, timestamp
from greentic.ground.documents import JsonObject, compact, parse
from greentic.ground.errors import GreenticError
from greentic.k8s.objects import ApiRefused, Cluster, Ref, member, metadata_of

STATUS_ANNOTATION = "greentic.ai/status"
"""Where a ConfigMap carries what an `Environment` has in its status."""
_OLDER = "apply the definition of Environment that gtc op operator render makes"

Log = Callable[[str], None]


class Teller:
    """What is told of one wish, by whoever holds the Lease."""

    def __init__(
        self, reach: Callable[[], Cluster], election: Election, source: Ref, clock: Clock, random: Random, log: Log
    ) -> None:
        self._reach, self._election, self._source = reach, election, source
        self._clock, self._random, self._log = clock, random, log
        self.status: JsonObject = {}
        """What was told last, by this operator or by one before it."""
        self._uid: object = None
        self._refused, self._tried, self._again_at = "", 0, 0.0

    def meet(self, thing: JsonObject) -> None:
        """Look at the object that holds the wish; one that was not seen before says itself what was told (rule 1)."""
        uid = metadata_of(thing).get("uid")
        if self._uid is None or uid != self._uid:
            self._uid, self.status = uid, _told_before(thing)

    def is_told(self, status: JsonObject) -> bool:
        """Whether this was told already, or is not to be tried yet (rule 2)."""
        return status == self.status and not (self._refused and self._clock.monotonic() >= self._again_at)

    def tell(self, thing: JsonObject | None, status: JsonObject) -> bool:
        """Write the status and its events; whether that needs no other try soon."""
        before = self.status
        held = Held(self._reach(), self._election)
        try:
            if self._source.kind == "Environment":
                kept = member(held.patch_status(self._source, status), "status")
                if not is_kept(status, kept):
                    self._log(
                        "the cluster's definition of Environment does not keep the whole status; it is older than this "
                        f"operator. Next: {_OLDER}"
                    )
            else:
                held.merge(self._source, {"metadata": {"annotations": {STATUS_ANNOTATION: compact(status).decode()}}})
            self._refused, self._tried = "", 0
        except ApiRefused as error:
            self._put_off(error)
        except GreenticError as error:
            self._log(f"the status cannot be told now: {error.message}")
            return False
        self.status = status
        for condition in turned(status, before):
            self._log(f"{condition.type} is {condition.status}: {condition.reason} {condition.message}")
            self.event(thing, condition)
        return True

    def _put_off(self, error: ApiRefused) -> None:
        hint = _OLDER if error.status == 404 and self._source.kind == "Environment" else error.hint
        if self._refused != error.message:
            self._log(f"the status cannot be told: {error.message}" + (f" Next: {hint}" if hint else ""))
        self._refused, self._tried = error.message, self._tried + 1
        self._again_at = self._clock.monotonic() + CLUSTER_AGAIN.pause(self._tried, self._random)

    def event(self, thing: JsonObject | None, condition: Condition) -> None:
        """An event on the object; one that cannot be written is no matter (rule 3)."""
        if thing is None:
            return
        now = timestamp(self._clock.now_ns() // 1_000_000_000 * 1_000_000_000)
        try:
            made = event_of(thing, self._source, condition, self._random.octets(6).hex(), now)
            Held(self._reach(), self._election).create(made)
        except GreenticError as error:
            self._log(f"no event: {error.message}")


def event_of(thing: JsonObject, source: Ref, condition: Condition, suffix: str, now: str) -> JsonObject:
    """The event that tells of a condition. Pure."""
    about: JsonObject = {
        "apiVersion": str(thing.get("apiVersion") or "v1"),
        "kind": source.kind,
        "name": source.name,
        "namespace": source.namespace,
        "uid": str(metadata_of(thing).get("uid", "")),
    }
    bad = (condition.type == "Degraded") == (condition.status == "True")
    warns = bad and condition.status != "Unknown" and condition.reason != "AsExpected"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{source.name[:240]}.{suffix}", "namespace": source.namespace},
        "involvedObject": about,
        "type": "Warning" if warns else "Normal",
        "reason": condition.reason,
        "message": (condition.message or f"{condition.type} is {condition.status}")[:1000],
        "source": {"component": "greentic-operator"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _told_before(thing: JsonObject) -> JsonObject:
    """The status that an operator left before."""
    if thing.get("kind") != "ConfigMap":
        return member(thing, "status")
    text = member(thing, "metadata", "annotations").get(STATUS_ANNOTATION)
    try:
        found = parse(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
