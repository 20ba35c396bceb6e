"""What is in an operator's way, and when to try again (rule 3 of `loop`).

Rules:
1. One trouble for each thing that is done, the latest; it stays until that thing went well.
2. A trouble is logged when it begins to be another one, not each time that it is met.
3. What failed again waits longer; what went well begins from the first pause.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from greentic.cluster.apply import NotOurs
from greentic.ground.backoff import Backoff
from greentic.ground.clock import Random
from greentic.ground.errors import FetchError, GreenticError
from greentic.k8s.objects import ApiRefused, ClusterUnreachable
from greentic.publication.artifact import DamagedPublication, NothingPublished

AGAIN = Backoff(first=1.0, longest=120.0)

Work = Literal["wish", "watch", "look", "apply", "version"]


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

    def pause(self, work: Work) -> float:
        """Seconds until this is tried again."""
        self._tried[work] = self._tried.get(work, 0) + 1
        return AGAIN.pause(self._tried[work], self._random)


def told_as(error: GreenticError) -> str:
    """An error as a status says it."""
    return f"{error.message}" + (f" Next: {error.hint}" if error.hint else "")


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
    elif isinstance(error, NotOurs):
        reason = "NotOurs"
    return Trouble(reason, told_as(error))
