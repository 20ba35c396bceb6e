"""What an operator does next, given what it wants, sees and remembers. Pure.

Rules:
1. Without the Lease nothing is done but looking at it. A wish that does not parse, or is paused, lets everything stand as it is.
2. What is published is looked at when its time has come, sooner after the wish changed. What failed is tried again later each time.
3. Objects are compared when the wish, the document or an object changed, and every `RESYNC` seconds whatever was told. Whether all
   or those that changed is for `differing` to say.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

RESYNC = 600.0


class Act(Enum):
    STAND_BY = "stand by"
    """Another operator holds the Lease."""
    TELL = "tell"
    """Only the status is brought up to date."""
    LOOK = "look"
    """Ask what is published."""
    CONVERGE = "converge"
    """Compare, and write what differs."""
    COMPARE = "compare"
    """Compare, and tell what would be written."""
    REST = "rest"


class Situation(NamedTuple):
    """What counts for the decision; moments are of one monotonic clock."""

    now: float
    leads: bool
    wish: tuple[int, bool, bool] | None
    """Generation, paused, dry run; nothing if there is no wish that can be read."""
    told: bool
    """Whether the status says what there is to say."""
    document: str | None
    """The digest of what is to be applied, once it was read."""
    applied: tuple[int, str] | None
    """Generation of the wish and document that were compared last."""
    changed: bool
    """Whether an object was told to have changed since, and does not wait for `contested_at`."""
    look_at: float
    compare_at: float
    """When to compare again whatever was told."""
    failing: bool = False
    """Whether comparing failed the last time; then it waits for `compare_at`."""
    contested_at: float = float("inf")
    """When an object that changed, and is changed again and again, may be put right."""


class Next(NamedTuple):
    act: Act
    seconds: float
    """How long to rest if nothing is told before."""


def decide(at: Situation) -> Next:
    """The next thing to do; asked again after it was done."""
    if not at.leads:
        return Next(Act.STAND_BY, 1.0)
    if at.wish is None:
        return Next(Act.REST if at.told else Act.TELL, 30.0)
    generation, paused, dry_run = at.wish
    if not paused:
        if at.look_at <= at.now:
            return Next(Act.LOOK, 0.0)
        if at.document is not None and _is_due(at, generation, at.document):
            return Next(Act.COMPARE if dry_run else Act.CONVERGE, 0.0)
    if not at.told:
        return Next(Act.TELL, 0.0)
    if paused:
        return Next(Act.REST, 30.0)
    compare_at = at.compare_at if at.failing else min(at.compare_at, at.contested_at)
    until = at.look_at if at.document is None else min(at.look_at, compare_at)
    return Next(Act.REST, max(until - at.now, 0.0))


def _is_due(at: Situation, generation: int, document: str) -> bool:
    news = at.changed or at.applied != (generation, document)
    return at.compare_at <= at.now or (news and not at.failing)
