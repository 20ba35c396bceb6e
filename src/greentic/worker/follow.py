"""A living worker: it follows its environment (formats: worker 15; and better: it pulls).

Rules:
1. When the store, the seed, a signal or the time says that there may be something new, the document is read, checked and provisioned
   beside what serves, then swapped in with one step. Nothing of what serves is touched before.
2. Any failure leaves the old set serving, is told in the log and in `/status`, and is tried again, later each time. So is a deployment
   that could not be had, while the others are served.
3. The same document is not provisioned twice, served or refused, unless something is to be tried again, or what it is believed by has
   changed. So a place that gives a document which is refused is looked at as often as any: the next one may be good. Where the
   document is again the one that is served, what was wrong with another is wrong no more, and is not told any longer.
4. The processes of one worker flip together: each waits a while until the others have prepared the same document.
5. The first look is at once: what changed while the worker booted was told to nobody. Nothing that goes wrong ends the looking.
6. While a document is provisioned, a newer one ends the waiting for what is not here yet (`materialize/under_way`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from greentic.activate.activation import Activation
from greentic.ground.backoff import Backoff
from greentic.ground.clock import Clock, Random, timestamp
from greentic.ground.documents import JsonObject
from greentic.ground.errors import GreenticError
from greentic.model.delivery import generation_of
from greentic.telemetry.log import OperatorLog, traceback_of
from greentic.worker.candidate import Candidate
from greentic.worker.watch import POLL_SECONDS, Watch

AGAIN = Backoff(first=1.0, longest=60.0)


class Together(Protocol):
    """The processes of one worker."""

    def agree(self, digest: str) -> None:
        """Say that this process has prepared a document, and wait a while until all have."""
        ...


class Alone:
    """One process waits for nobody."""

    def agree(self, digest: str) -> None:
        pass


class FollowSteps(NamedTuple):
    """What following does, each from the follower's own thread."""

    read: Callable[[], Candidate]
    provision: Callable[[Candidate], Activation]
    """Raises `GreenticError`."""
    swap: Callable[[Activation], None]
    tell: Callable[[JsonObject], None]
    """Told the state for `/status`."""
    tidy: Callable[[], bool] = lambda: False
    """What is to be done once a swap is over; whether it is to be done again."""


class Follower:
    """Follows in a thread of its own until it is stopped."""

    def __init__(
        self,
        steps: FollowSteps,
        watch: Watch,
        serving: Activation,
        digest: str,
        log: OperatorLog,
        clock: Clock,
        random: Random,
        together: Together,
        every: float = POLL_SECONDS,
        trust: str = "",
    ) -> None:
        self._steps, self._watch, self._log, self._clock, self._random = steps, watch, log, clock, random
        self._together, self._every = together, every
        self._applied = self._wanted = digest
        self._trust = trust
        self._desired = self._serving = serving.generation
        self._error: str | None = None
        self._since: int | None = None
        self._tried = 0
        self._next: float | None = None
        self._stopping = False
        self._untidy = True
        self._passing = False
        self._refused: tuple[str, str] | None = None
        """The document that could not be served, by its digest and by what it is believed by (rule 3)."""
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._look_again_for(serving)
        self._told()

    def start(self) -> None:
        self._watch.wake()  # rule 5
        self._thread.start()

    def wake(self) -> None:
        """Look now; what failed is tried again."""
        self._next = self._clock.monotonic()
        self._watch.wake()

    def stop(self) -> None:
        """End following; a provisioning that runs is left behind."""
        self._stopping = True
        self._watch.wake()

    def join(self, seconds: float) -> bool:
        """Wait until it has ended, for so long; whether it has."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def look(self) -> bool:
        """Look once; whether anything was swapped in."""
        seen = None
        try:
            candidate = self._steps.read()
            seen, served = (candidate.digest, candidate.trust), (self._applied, self._trust)
            if seen == served:
                self._recovered()
            if seen in (served, self._refused) and not self._due():
                return False
            if candidate.digest != self._wanted:
                self._wanted, self._desired = candidate.digest, generation_of(candidate.env)
                self._told()  # what it needs may take its time to come
            new = self._steps.provision(candidate)
            if self._stopping:
                return False  # nobody is left to swap it in
            self._together.agree(candidate.digest)
            self._steps.swap(new)
        except GreenticError as error:
            self._failed(_text(error), seen)
            return False
        except Exception as error:  # noqa: BLE001  whatever is wrong with a new document, the old one serves on
            self._failed(traceback_of(error), seen)
            return False
        self._untidy = True
        if candidate.digest != self._applied:
            self._tried = 0
        self._applied, self._serving, self._error, self._since = candidate.digest, self._desired, None, None
        self._trust, self._refused = candidate.trust, None
        self._look_again_for(new)
        self._log.info(
            "follow", f"serving generation {self._serving} of environment `{new.env.environment_id}`", show=True
        )
        self._told()
        return True

    def _run(self) -> None:
        while not self._stopping:
            # many workers follow one environment, and must not all ask at one moment
            seconds = self._every * (0.75 + self._random.fraction() / 2)
            if self._next is not None:
                left = max(self._next - self._clock.monotonic(), 0.0)
                seconds = left if self._error is not None and self._refused is None else min(left, seconds)
            self._watch.wait(seconds)
            if not self._stopping:
                self.look()
                self._tidied()
        self._watch.close()

    def _tidied(self) -> None:
        """Do what is to be done behind a swap; it is tried again with the next look if it fails (rule 5)."""
        if not self._untidy:
            return
        try:
            self._untidy = self._steps.tidy()
        except Exception as error:  # noqa: BLE001  housekeeping ends no following
            self._log.error("follow", f"tidying up failed: {traceback_of(error)}")

    def _due(self) -> bool:
        return self._next is not None and self._clock.monotonic() >= self._next

    def _failed(self, text: str, refused: tuple[str, str] | None) -> None:
        if text != self._error:
            self._log.error("follow", f"the new environment is not served, the old one goes on: {text}")
            self._since = self._clock.now_ns()
        self._error, self._refused = text, refused
        self._plan_next()
        self._told()

    def _recovered(self) -> None:
        """What is wanted is what is served (rule 3); a deployment that may come by itself is still tried again when it was to be."""
        if self._error is None:
            return
        self._error = self._since = self._refused = None
        self._wanted, self._desired = self._applied, self._serving
        if not self._passing:
            self._tried, self._next = 0, None
        self._log.info("follow", f"the document is the one that is served again, generation {self._serving}", show=True)
        self._told()

    def _look_again_for(self, activation: Activation) -> None:
        """Plan another try where a deployment may come by itself."""
        self._passing = any(fault.passing for fault in activation.unavailable.values())
        if self._passing:
            self._plan_next()
        else:
            self._tried, self._next = 0, None

    def _plan_next(self) -> None:
        self._tried += 1
        self._next = self._clock.monotonic() + AGAIN.pause(self._tried, self._random)

    def _told(self) -> None:
        left = None if self._next is None else self._next - self._clock.monotonic()
        self._steps.tell(
            {
                "desired": {"generation": self._desired, "digest": self._wanted},
                "serving": {"generation": self._serving, "digest": self._applied},
                "error": self._error,
                "since": None if self._since is None else timestamp(self._since),
                "next_try": None if left is None else timestamp(self._clock.now_ns() + int(left * 1e9)),
            }
        )


def undisturbed(
    watch: Watch, read: Callable[[], Candidate], found: Candidate, every: float, clock: Clock
) -> Callable[[], bool]:
    """Whether a document is the newest still, to be asked while it is provisioned (rule 6)."""
    looked, newest = clock.monotonic(), True

    def still() -> bool:
        nonlocal looked, newest
        if newest and (watch.wait(0) or clock.monotonic() - looked >= every):
            looked = clock.monotonic()
            with suppress(GreenticError, OSError):  # what cannot be read is no newer one
                now = read()
                newest = (now.digest, now.trust) == (found.digest, found.trust)
            if not newest:
                watch.wake()  # for the next look: this one took what was told
        return newest

    return still


def _text(error: GreenticError) -> str:
    cause = error.__cause__
    return f"{error}: {cause}" if isinstance(cause, GreenticError) else str(error)
