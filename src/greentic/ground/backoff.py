"""Patience: how often something is tried again, and how long is waited between.

Rules:
1. Each pause is twice as long as the one before, up to the longest; a random part of it, so that many never come back at one moment.
2. A pause is never shorter than what the other side asked for, and what it may ask for is bounded. That is spread as well: those who
   were told the same moment must not all come then.
3. Patience ends after so many tries without progress, or when the time is over, whichever comes first; a pause that would end
   behind the end is not begun.
"""

from __future__ import annotations

import msgspec

from greentic.ground.clock import Clock, Random


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait between tries, in seconds."""

    first: float = 0.25
    longest: float = 20.0
    jitter: bool = True
    longest_asked: float = 60.0
    """The longest wait that another side may ask for."""

    def pause(self, tried: int, random: Random, asked: float = 0.0) -> float:
        """Seconds to wait after the `tried`-th try in a row (from 1) that brought nothing."""
        whole: float = min(self.first * 2 ** min(max(tried, 1) - 1, 30), self.longest)
        told = max(min(asked, self.longest_asked), 0.0)
        if not self.jitter:
            return max(whole, told)
        share = random.fraction()
        return max(whole * (0.5 + share / 2), told + share * max(whole, told / 2) if told else 0.0)


UNCOUNTED = 1 << 30
"""So many tries as the time allows: nothing but time ends it."""


class Patience:
    """One question's patience: counts tries, knows the end."""

    def __init__(self, backoff: Backoff, tries: int, seconds: float, clock: Clock, random: Random) -> None:
        self._backoff, self._tries, self._clock, self._random = backoff, tries, clock, random
        self.ends = clock.monotonic() + seconds
        self.tried = 0

    def progressed(self) -> None:
        """Something came: count the tries anew."""
        self.tried = 0

    def left(self) -> float:
        """Seconds until patience ends; never negative."""
        return max(self.ends - self._clock.monotonic(), 0.0)

    def next_pause(self, asked: float) -> float | None:
        """Seconds to wait before the next try; nothing if there is none."""
        self.tried += 1
        pause = self._backoff.pause(self.tried, self._random, asked)
        return None if self.tried >= self._tries or pause > self.left() else pause

    def wait(self, asked: float = 0.0) -> bool:
        """Wait before the next try; False, at once, if there is none."""
        pause = self.next_pause(asked)
        if pause is not None:
            self._clock.sleep(pause)
        return pause is not None
