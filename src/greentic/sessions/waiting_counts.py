"""How many runs wait on a revision, for whoever asks a worker.

Rules:
1. It is looked up where runs wait, so that it does not matter which process parked them, or whether that one still lives.
2. A look goes over all keys, and strangers may ask: there is one at a time, beside the event loop, and after each a rest of `RESTS` times
   as long. All who asked before it began are told what it found; nobody is told what was found before.
"""

from __future__ import annotations

import asyncio

from greentic.ground.beside import beside
from greentic.ground.clock import Clock
from greentic.sessions.conversation import Conversations

RESTS = 4


class WaitingCounts:
    """The counts of one process."""

    def __init__(self, conversations: Conversations, clock: Clock) -> None:
        self._conversations, self._clock = conversations, clock
        self._found: dict[str, tuple[int, float]] = {}
        """What the last look found, and when it began."""
        self._rested = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def of(self, revision_id: str) -> int:
        """Raises `FlowFailure` while the store is not to be had."""
        asked = self._clock.monotonic()
        async with self._one_at_a_time:
            began = self._clock.monotonic()
            known = self._found.get(revision_id)
            if known is not None and known[1] > asked:
                return known[0]
            if self._rested > began:
                await asyncio.sleep(self._rested - began)
                began = self._clock.monotonic()
            found = await beside(self._conversations.waiting_on, revision_id)
            ended = self._clock.monotonic()
            self._rested = ended + RESTS * (ended - began)
            self._found = {revision_id: (found, began)}
            return found
