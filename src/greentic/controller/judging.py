"""What controllers of the cluster say of autoscalers and routes (rule 5 of `loop`).

Rules:
1. They are asked every `JUDGE_EVERY` seconds at most, for kinds that are stated. That they cannot be asked is told by comparing.
2. What they say counts once they have been saying something for `JUDGED_SECONDS`: each of them is late at first.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from greentic.cluster.verdicts import JUDGED, verdicts
from greentic.ground.clock import Clock
from greentic.ground.errors import GreenticError
from greentic.k8s.objects import Cluster

JUDGE_EVERY, JUDGED_SECONDS = 60.0, 120.0


class Judging:
    """What was said in one namespace, and since when."""

    def __init__(self, reach: Callable[[], Cluster], namespace: str, clock: Clock) -> None:
        self._reach, self._namespace, self._clock = reach, namespace, clock
        self._again_at, self._since, self._said = 0.0, 0.0, list[str]()

    def ask(self, stated: Set[str], selector: str) -> None:
        """Ask about what is stated, by kind, if it is time to."""
        now = self._clock.monotonic()
        if now < self._again_at:
            return
        self._again_at = now + JUDGE_EVERY
        try:
            pages = [self._reach().pages(kind, self._namespace, selector) for kind in sorted(stated & JUDGED)]
            said = verdicts(thing for listed in pages for page in listed for thing in page.items)
        except GreenticError:
            return
        self._since, self._said = self._since if self._said else now, said

    def said(self) -> list[str]:
        """What they have been saying for long enough."""
        return self._said if self._clock.monotonic() - self._since >= JUDGED_SECONDS else []
