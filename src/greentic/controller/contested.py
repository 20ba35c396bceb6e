"""What is put right again and again: somebody else keeps it otherwise, and nobody would win (formats: operator 2).

Rules:
1. What was changed is put right at once. What is changed anew each time is put right more and more rarely, up to `Backoff.longest`, each
   object for itself: what others change beside it does not wait.
2. It is told once it happened `MANY` times in a row, and until it has been left alone for `CALM_SECONDS`.
3. Comparing everything, as for a new document, waits for no object.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import NamedTuple

from greentic.ground.backoff import Backoff
from greentic.ground.clock import Random
from greentic.k8s.objects import Ref

AT_ONCE = 3
MANY = 6
CALM_SECONDS = 150.0
RARER = Backoff(first=2.0, longest=60.0)


class PutRight(NamedTuple):
    """How often in a row, when last, and when it may be again."""

    times: int
    last: float
    again_at: float


class Contested:
    """The objects that one operator puts right; moments are of one monotonic clock."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._known: dict[Ref, PutRight] = {}

    def put_right(self, refs: Iterable[Ref], now: float) -> None:
        """Remember that these were put right now."""
        self._known = {ref: known for ref, known in self._known.items() if now - known.last < CALM_SECONDS}
        for ref in refs:
            times = self._known[ref].times + 1 if ref in self._known else 1
            pause = RARER.pause(times - AT_ONCE, self._random) if times > AT_ONCE else 0.0
            self._known[ref] = PutRight(times, now, now + pause)

    def due(self, changed: Set[Ref], now: float) -> set[Ref]:
        """Those of what changed that are not to wait (rule 1)."""
        return {ref for ref in changed if ref not in self._known or self._known[ref].again_at <= now}

    def until(self, changed: Set[Ref]) -> float:
        """When the next of what changed may be put right."""
        return min((self._known[ref].again_at for ref in changed if ref in self._known), default=float("inf"))

    def told(self, now: float) -> str:
        """What is to be said of it, in a text that stays the same while nothing new is contested (rule 2); nothing if nothing is."""
        found = sorted(r for r, known in self._known.items() if known.times >= MANY and now - known.last < CALM_SECONDS)
        if not found:
            return ""
        first, more = found[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
        return (
            f"{first}{more} was put right {MANY} times in a row and changed anew each time: somebody else keeps it otherwise, so it is "
            "put right once a minute. Next: end who does (another wish for this namespace, Flux or Argo CD, an autoscaler, a webhook); "
            f"kubectl -n {first.namespace} get {first.kind.lower()} {first.name} -o jsonpath='{{.metadata.managedFields[*].manager}}'"
        )
