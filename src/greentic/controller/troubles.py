"""What is in an operator's way, and when to try again (rule 3 of `loop`).

Rules:
1. One trouble for each thing that is done, the latest; it stays until that thing went well.
2. A trouble is logged when it begins to be another one, not each time that it is met.
3. What failed again waits longer; what went well begins from the first pause. A place may be down for days. What is asked of the
   cluster's own server is tried again within `CLUSTER_AGAIN`, for somebody puts it right by hand (rights, a quota, an object that is in the
   way) where no watch sees it; a try that takes long is as much rarer.
4. The next step is one that can be taken where an operator works.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from greentic.cluster.apply import NotOurs
from greentic.ground.backoff import Backoff
from greentic.ground.clock import Random
from greentic.ground.errors import FetchError, GreenticError, PermissionMissing
from greentic.k8s.objects import ApiRefused, ClusterUnreachable
from greentic.materialize.trusted import IF_MEANT
from greentic.publication.artifact import DamagedPublication, NothingPublished

PLACE_AGAIN = Backoff(first=1.0, longest=120.0)
CLUSTER_AGAIN = Backoff(first=0.5, longest=20.0)
AS_MUCH_RARER = 10.0
"""So many times as long as a failed try took is waited at least."""

Work = Literal["wish", "watch", "look", "apply", "version", "contest"]


class Trouble(NamedTuple):
    """What is in the way."""

    reason: str
    message: str


class Troubles:
    """The troubles of one operator."""

    def __init__(self, random: Random, log: Callable[[str], None]) -> None:
        self._random, self._log = random, log
        self._found: dict[Work, Trouble] = {}
        self._tried: dict[Work, int] = {}

    def __contains__(self, work: Work) -> bool:
        return work in self._found

    def first(self) -> Trouble | None:
        """The trouble that has been there for longest."""
        return next(iter(self._found.values()), None)

    def met(self, work: Work, found: Trouble) -> None:
        if self._found.get(work) != found:
            self._log(f"{found.reason}: {found.message}")
        self._found[work] = found

    def well(self, work: Work) -> None:
        self._found.pop(work, None)
        self._tried.pop(work, None)

    def are(self, work: Work, reason: str, why: str) -> None:
        """Met for this reason, or well where there is nothing to say."""
        if why:
            self.met(work, Trouble(reason, why))
        else:
            self.well(work)

    def pause(self, work: Work, took: float = 0.0) -> float:
        """Seconds until this is tried again; `took` is how long the try that failed was at it."""
        self._tried[work] = self._tried.get(work, 0) + 1
        again = PLACE_AGAIN if work == "look" else CLUSTER_AGAIN
        return max(again.pause(self._tried[work], self._random), min(AS_MUCH_RARER * took, PLACE_AGAIN.longest))


def told_as(error: GreenticError) -> str:
    """An error as a status says it."""
    step = _next_step(error)
    return f"{error.message}" + (f" Next: {step}" if step else "")


def _next_step(error: GreenticError) -> str | None:
    """What to do about it beside an operator, where nobody has the flags of `env reconcile` or another identity (rule 4)."""
    if isinstance(error, PermissionMissing) or (isinstance(error, ApiRefused) and error.forbidden):
        return "apply what gtc op operator render makes once more: its Role names what is needed"
    if isinstance(error, ApiRefused) and error.immutable:
        return "a field cannot be changed in place: kubectl delete that object, and it is made again as stated"
    if "--adopt" in (error.hint or ""):
        return "spec.adopt: true takes it over, if that is meant; what is another environment's is never taken"
    return (error.hint or "").replace(IF_MEANT, "")


def of_look(error: GreenticError) -> Trouble:
    """What is in the way of reading what is published."""
    reason = "PublicationRefused"
    if isinstance(error, NothingPublished):
        reason = "NothingPublished"
    elif isinstance(error, DamagedPublication):
        reason = "PublicationDamaged"
    elif isinstance(error, FetchError):
        reason = "PublicationUnreachable"
    return Trouble(reason, told_as(error))


def of_apply(error: GreenticError) -> Trouble:
    """What is in the way of comparing and writing objects."""
    reason = "ApplyFailed"
    if isinstance(error, ClusterUnreachable):
        reason = "ClusterUnreachable"
    elif isinstance(error, ApiRefused):
        reason = error.cause
    elif isinstance(error, PermissionMissing):
        reason = "RightsMissing"
    elif isinstance(error, NotOurs):
        reason = "NotOurs"
    return Trouble(reason, told_as(error))
