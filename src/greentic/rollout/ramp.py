"""Whether a ramp goes on: decided from what happened to the turns of the new revision and of a control slice of the old one. Pure.

Rules:
1. What is compared happened in the same time, to slices that were drawn alike: nothing is concluded from another hour or a larger crowd.
2. Abort only on what chance does not explain: the lowest error share, or share of slow turns, that fits what was seen (Wilson, three
   standard deviations) is above the limit. Advance only where what was seen is within the limit, and enough was seen. Else hold.
3. A turn is slow if it certainly took longer than the p99 of the control slice allows: its bucket of the histogram begins there or above.
   One in a hundred may be. So slices with the same counts are never found different.
4. A revision that is no longer ready aborts. Workers that do not answer, or cannot have it, hold, and abort when that lasts.
5. A limit that a revision brings (`abort_metrics`) holds beside that of the operator; the stricter one counts.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from greentic.ground.errors import InvalidArgument
from greentic.telemetry.counts import BOUNDS

SLOW_SHARE = 0.01
SURE = 3.0
"""Standard deviations."""
UNANSWERED_SECONDS = 120.0


class Slice(NamedTuple):
    """What happened to some turns in one window."""

    turns: int = 0
    failures: int = 0
    buckets: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)

    @property
    def error_share(self) -> float:
        return self.failures / self.turns if self.turns else 0.0


class RampLimits(NamedTuple):
    """How much worse than the control slice a revision may be."""

    max_errors: float
    """Added to the control slice's share of failed turns."""
    max_p99: float
    """A share of the control slice's p99, added to it."""
    min_turns: int


class Observed(NamedTuple):
    """What is known when a ramp is looked at."""

    new: Slice
    control: Slice | None
    """None where the old revision has no traffic any more."""
    waited: float
    """Seconds since the step began."""
    pause: float
    lifecycle: str
    """Of the new revision; empty if it is gone."""
    silent: float = 0.0
    """Seconds since all workers answered, and served."""
    silence: str = ""
    """Who of them does not, and why."""
    reference_p99: float | None = None
    """Seconds; stands in for that of the control slice where there is none."""


class Verdict(NamedTuple):
    """What is to be done, and why."""

    do: Literal["advance", "hold", "abort"]
    reason: str


def decide(seen: Observed, limits: RampLimits) -> Verdict:
    """What the rules say."""
    if seen.lifecycle != "ready":
        return Verdict("abort", f"the new revision is {seen.lifecycle or 'no longer in the environment'}")
    if seen.silence:
        if seen.silent >= UNANSWERED_SECONDS:
            return Verdict("abort", f"for {UNANSWERED_SECONDS:g} s {seen.silence}")
        return Verdict("hold", seen.silence)
    new, control = seen.new, seen.control
    allowed = min(1.0, (control.error_share if control else 0.0) + limits.max_errors)
    against = f"{control.failures} of {control.turns} of the control slice" if control else "no control slice"
    errors = f"{new.failures} of {new.turns} turns failed ({against}; at most {allowed:.2%})"
    if lowest(new.failures, new.turns) > allowed:
        return Verdict("abort", errors)
    basis = p99(control.buckets) if control else seen.reference_p99
    slow = 0 if basis is None else slower_than(new.buckets, basis * (1 + limits.max_p99))
    late = "" if basis is None else f"{slow} of {new.turns} turns took longer than {basis * (1 + limits.max_p99):.4g} s"
    enough_control = control is None or control.turns >= limits.min_turns
    if enough_control and lowest(slow, new.turns) > SLOW_SHARE:
        return Verdict("abort", f"{late} (p99 of the control slice: {basis:.4g} s)")
    if new.turns < limits.min_turns:
        return Verdict("hold", f"too little traffic: {new.turns} turns, {limits.min_turns} are needed")
    if control is not None and not enough_control:
        return Verdict(
            "hold", f"too little traffic to compare with: {control.turns} turns, {limits.min_turns} are needed"
        )
    if new.error_share > allowed:
        return Verdict("hold", f"{errors}, too few to be sure")
    if slow > SLOW_SHARE * new.turns:
        return Verdict("hold", f"{late}, too few to be sure")
    if seen.waited < seen.pause:
        return Verdict("hold", f"the step's pause is not over: {seen.waited:.0f} of {seen.pause:g} s")
    return Verdict("advance", errors)


def lowest(hits: int, of: int) -> float:
    """The lowest share that fits having seen `hits` of `of` (Wilson's lower bound); 0 if nothing was seen."""
    if not of or not hits:
        return 0.0
    share, square = hits / of, SURE * SURE
    middle = share + square / (2 * of)
    spread = SURE * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, (middle - spread) / (1 + square / of))


def p99(buckets: tuple[int, ...]) -> float | None:
    """Seconds below which 99 of 100 turns ended, by a line within the bucket; none without turns, the last bound above it."""
    total = sum(buckets)
    if not total:
        return None
    wanted, seen, low = 0.99 * total, 0, 0.0
    for count, high in zip(buckets, BOUNDS, strict=False):
        if seen + count >= wanted:
            return low + (high - low) * (wanted - seen) / count
        seen, low = seen + count, high
    return math.inf  # beyond the last bound nothing can be told to be slower


def slower_than(buckets: tuple[int, ...], seconds: float) -> int:
    """How many turns certainly took longer (rule 3)."""
    return sum(count for count, low in zip(buckets[1:], BOUNDS, strict=True) if low >= seconds)


_METRIC = re.compile(r"(errors|p99)\s*(?:>\s*)?\+?([0-9]+(?:\.[0-9]+)?)%")


def with_metrics(limits: RampLimits, metrics: Iterable[str]) -> RampLimits:
    """The limits, tightened by a revision's `abort_metrics`: `errors>1%`, `p99>+20%` (rule 5). Raises `InvalidArgument`."""
    for text in metrics:
        found = _METRIC.fullmatch(text.strip())
        if found is None:
            raise InvalidArgument(
                f"the revision's abort metric `{text}` is not understood; expected `errors>1%` or `p99>+20%`",
                hint="stage the revision again with abort_metrics that a ramp can keep",
            )
        share = float(found[2]) / 100
        if found[1] == "errors":
            limits = limits._replace(max_errors=min(limits.max_errors, share))
        else:
            limits = limits._replace(max_p99=min(limits.max_p99, share))
    return limits


def read_steps(text: str) -> list[int]:
    """Basis points of `1%,10%,50%,100%`: rising, the last one everything. Raises `InvalidArgument`."""
    steps = [round(read_share(part, "steps") * 10_000) for part in text.split(",")]
    if steps[-1] != 10_000 or steps[0] < 1 or any(b <= a for a, b in itertools.pairwise(steps)):
        raise InvalidArgument(f"steps `{text}`: expected rising shares that end with 100%, such as 1%,10%,50%,100%")
    return steps


def read_share(text: str, field: str) -> float:
    """A share of `1%` or `+20%`. Raises `InvalidArgument`."""
    number = text.strip().removeprefix("+")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?%", number):
        raise InvalidArgument(f"{field}: `{text}` is no percentage such as 1% or +20%")
    return float(number[:-1]) / 100


def read_seconds(text: str) -> float:
    """Seconds of `30s`, `5m` or `1h`. Raises `InvalidArgument`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|m|h)", text.strip())
    if found is None:
        raise InvalidArgument(f"pause: `{text}` is no duration such as 30s, 5m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
