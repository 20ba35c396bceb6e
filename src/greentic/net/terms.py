"""On what terms a server is asked: how long, how often, by which way.

Rules:
1. Patience is a property of asking. Every question goes through `patiently`: what may pass by itself is tried again, later each
   time; a refusal is not. Who loops over many questions himself (a download) gives each of them one try.
2. One deadline holds for a question, from the first connect to the last byte, all tries and all that it leads to included. Within it
   no wait is longer than `idle`.
3. Who only reads, and something small, does not sit out a silence: the first tries are given up sooner (`soon`), each twice as late as
   the one before, for another connection often is answered at once. Who sends is patient: what he sent may be at work.
4. Terms are read once at the edge and handed down as a value.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from greentic.ground import variables
from greentic.ground.backoff import Backoff, Patience
from greentic.ground.clock import CLOCK, RANDOM, Clock, Random
from greentic.ground.errors import FetchError, ServerBusy, Truncated
from greentic.net.proxies import NONE, Proxies, proxies_of

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 30.0
DOCUMENT_SECONDS = 60.0
"""How long a small document, a manifest or a token may take in all, if nothing larger waits for it."""
SILENT_SECONDS = 5.0
"""After so long without a byte the first try of who only reads is given up."""
TRIES = 5

T = TypeVar("T")


class Terms(NamedTuple):
    """How a server is asked."""

    idle: float = IDLE_SECONDS
    """Seconds to wait for the next byte."""
    silent: float | None = None
    """The same for the first of several tries (rule 3); as long as for the others where it is not told."""
    connect: float = CONNECT_SECONDS
    """Seconds to wait for a connection, all addresses of a host together."""
    total: float = DOCUMENT_SECONDS
    """Seconds for one question in all."""
    tries: int = TRIES
    """Tries without progress."""
    backoff: Backoff = Backoff()
    offline: bool = False
    proxies: Proxies = NONE
    authorities: tuple[str, ...] = ()
    """Files with certificate authorities beside the system's."""
    clock: Clock = CLOCK
    random: Random = RANDOM
    ends: float | None = None
    """When the question that runs must be done, by `clock.monotonic`."""

    def begun(self) -> Terms:
        """With the end of the question set; one that is set stays."""
        return self if self.ends is not None else self._replace(ends=self.clock.monotonic() + self.total)

    def soon(self) -> Terms:
        """The terms of who only reads something small (rule 3)."""
        return self._replace(silent=SILENT_SECONDS)

    def after(self, tries: int) -> Terms:
        """The terms of the next try after so many that brought nothing."""
        return self if self.silent is None else self._replace(idle=min(self.idle, self.silent * 2 ** min(tries, 30)))

    def left(self) -> float:
        """Seconds until the end; never negative."""
        return self.total if self.ends is None else max(self.ends - self.clock.monotonic(), 0.0)

    def wait(self) -> float:
        """Seconds that the next read or write may take (rule 2). Raises `TimeoutError` after the end."""
        left = self.left()
        if left <= 0:
            raise TimeoutError(f"not done after {self.total:g} s")
        return min(self.idle, left)


def terms_of(environ: Mapping[str, str], clock: Clock = CLOCK, random: Random = RANDOM) -> Terms:
    """The terms that the variables tell. Raises `InvalidArgument`."""
    total = variables.seconds("GREENTIC_FETCH_TOTAL_SECONDS", environ, least=0.001)
    return Terms(
        idle=variables.seconds("GREENTIC_FETCH_IDLE_SECONDS", environ, least=0.001, most=3600) or IDLE_SECONDS,
        total=min(total or DOCUMENT_SECONDS, DOCUMENT_SECONDS),
        offline=variables.switch("GREENTIC_OFFLINE", environ),
        proxies=proxies_of(environ),
        authorities=tuple(variables.listed("GREENTIC_CA_FILES", environ)),
        clock=clock,
        random=random,
    )


def own_terms() -> Terms:
    """The terms that the variables of this process tell: for verbs, which ask a server in one place. Raises `InvalidArgument`."""
    return terms_of(variables.environment())


def may_pass(error: FetchError) -> bool:
    """Whether trying again could help: cut connections, silence and servers that are overloaded, not refusals."""
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return False
    return isinstance(error, Truncated | ServerBusy) or isinstance(error.__cause__, OSError)


def asked_to_wait(error: FetchError) -> float:
    """Seconds that the server asked to wait, 0 if it did not."""
    return error.retry_after if isinstance(error, ServerBusy) else 0.0


def patience(terms: Terms) -> Patience:
    return Patience(terms.backoff, terms.tries, terms.left(), terms.clock, terms.random)


def patiently(question: Callable[[Terms], T], terms: Terms) -> T:
    """The answer to a question that is asked again while that may help (rule 1). Raises the last `FetchError`."""
    begun = terms.begun()
    held = patience(begun)
    while True:
        try:
            return question(begun.after(held.tried))
        except FetchError as error:
            if not may_pass(error) or not held.wait(asked_to_wait(error)):
                raise
