"""Asking workers what they serve: `/status`, as values with types.

Rules:
1. The operator wrote the address, so loopback and private ones are asked like others; an answer is small, or it is refused.
2. Counts belong to a process. One that is asked tells of all processes of its worker; who compares, compares within one process.
3. What waits on a revision is asked for by its id: the worker looks it up where it waits, which may be shared by several workers.
4. A worker is asked once, within seconds, over the proxies and with the authorities that the variables name for everything else.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import msgspec

from greentic.ground import variables
from greentic.ground.clock import CLOCK, Clock
from greentic.ground.documents import decode
from greentic.ground.errors import FetchError, InvalidArgument
from greentic.net.addresses import WEB, check_authored, lower_scheme, shown
from greentic.net.document import read_small
from greentic.net.terms import Terms, terms_of

S = TypeVar("S")

MAX_STATUS = 8 << 20
ASK_SECONDS = 5.0
ASKING = "asking"
"""What errors call it: a status is no bundle."""


class Latency(msgspec.Struct, frozen=True):
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


class TurnCounts(msgspec.Struct, frozen=True):
    """The counts of a revision, or of a slice of it, since the process began."""

    turns: int = 0
    failures: dict[str, int] = {}
    in_flight: int = 0
    parked: int = 0
    latency: Latency = Latency()


class RevisionRow(msgspec.Struct, frozen=True):
    """A revision that a worker serves, or (without a deployment) that drains."""

    revision_id: str
    counts: TurnCounts = TurnCounts()
    control: TurnCounts | None = None
    deployment_id: str = ""
    weight_bps: int = 0


class Applied(msgspec.Struct, frozen=True):
    generation: int = 0
    digest: str = ""


class Following(msgspec.Struct, frozen=True):
    desired: Applied = Applied()
    serving: Applied = Applied()
    error: str | None = None


class UnavailableRow(msgspec.Struct, frozen=True):
    deployment_id: str
    reason: str = ""
    error: str = ""


class WaitingRow(msgspec.Struct, frozen=True):
    """Conversations that wait on the revision that was asked about (rule 3)."""

    revision_id: str
    parked: int
    shared: bool = False
    """Whether other workers see the same conversations."""


class ProcessStatus(msgspec.Struct, frozen=True):
    """What a process of a worker tells of itself."""

    env_id: str
    process: str = ""
    revisions: tuple[RevisionRow, ...] = ()
    draining_revisions: tuple[RevisionRow, ...] = ()
    unavailable: tuple[UnavailableRow, ...] = ()
    following: Following | None = None

    def counts(self, revision_id: str) -> list[TurnCounts]:
        """What it counted of a revision."""
        return [r.counts for r in (*self.revisions, *self.draining_revisions) if r.revision_id == revision_id]


class Held(NamedTuple):
    """What a worker, or several, still hold of a revision."""

    running: int = 0
    parked: int = 0
    silent: int = 0
    """Processes that may hold something and did not say."""
    shared: bool = False

    @property
    def nothing(self) -> bool:
        return not (self.running or self.parked or self.silent)

    def __str__(self) -> str:
        text = f"{self.running} request(s) and {self.parked} conversation(s) on it"
        return text + (f"; {unheard(self.silent)}" if self.silent else "")


def unheard(silent: int) -> str:
    """That so many processes of a worker did not say what they hold or serve, in words."""
    return f"{silent} of its processes did not answer"


def together(workers: list[Held]) -> Held:
    """What several workers hold. Of those that share their conversations each sees the same ones."""
    own = sum(held.parked for held in workers if not held.shared)
    shared = max((held.parked for held in workers if held.shared), default=0)
    return Held(sum(held.running for held in workers), own + shared, sum(held.silent for held in workers))


class WorkerStatus(ProcessStatus, frozen=True):
    """What a worker tells of itself: the process that was asked, and what the others of it told that one."""

    others: tuple[ProcessStatus, ...] = ()
    silent: int = 0
    """Processes that did not answer the one that was asked."""
    waiting: WaitingRow | None = None

    def processes(self) -> tuple[ProcessStatus, ...]:
        """All that told anything."""
        return (self, *self.others)

    def held(self, revision_id: str) -> Held:
        """What is held of a revision."""
        counts = [c for process in self.processes() for c in process.counts(revision_id)]
        known = self.waiting if self.waiting is not None and self.waiting.revision_id == revision_id else None
        parked = sum(c.parked for c in counts) if known is None else known.parked
        return Held(
            sum(c.in_flight for c in counts), parked, silent=self.silent, shared=known is not None and known.shared
        )


class Workers(Protocol):
    """Whoever can be asked."""

    def ask(self, address: str, revision_id: str | None = None) -> WorkerStatus:
        """Its status, with what waits on a revision if one is named. Raises `FetchError`."""
        ...


class HttpWorkers:
    """Workers at http or https addresses."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._terms = asking(clock)

    def ask(self, address: str, revision_id: str | None = None) -> WorkerStatus:
        data = fetched(address, status_path(revision_id), MAX_STATUS, self._terms)
        return read_status(data, WorkerStatus, address)


def url_of(address: str, path: str) -> str:
    """Where something of a worker stands."""
    return f"{address.rstrip('/')}{path}"


def fetched(address: str, path: str, limit: int, terms: Terms) -> bytes | None:
    """What a worker answers at one of its paths, if there is such a place. Raises `FetchError` that names the worker."""
    return read_small(url_of(address, path), limit, terms, doing=ASKING)


def asking(clock: Clock, seconds: float = ASK_SECONDS) -> Terms:
    """The terms on which a worker is asked (rule 4)."""
    return terms_of(variables.environment(), clock)._replace(total=seconds, tries=1)


def status_path(revision_id: str | None = None) -> str:
    """Where a worker tells its status, and what waits on a revision."""
    return "/status" if revision_id is None else f"/status?revision={revision_id}"


def proof_path(nonce: str) -> str:
    """Where a worker proves what it serves, in answer to a question that was never asked before."""
    return f"/status/proof?nonce={nonce}"


def read_status(data: bytes | None, form: type[S], address: str) -> S:
    """What a worker answered to `/status`, as far as `form` looks at it. Raises `FetchError`."""
    if data is None:
        raise FetchError(f"there is no worker at `{address}`: it has no /status")
    try:
        return decode(data, form)
    except ValueError as error:
        raise FetchError(f"what `{address}` answers is no status of a worker: {error}") from None


def checked_addresses(addresses: list[str]) -> list[str]:
    """Addresses of workers, or `InvalidArgument`: they are shown wherever a worker is, so they hold no credentials."""
    for address in addresses:
        check_authored(address, "at:", "a worker's status asks for none: write the address alone")
        if not lower_scheme(address).startswith(WEB):
            raise InvalidArgument(f"at: `{shown(address)}` is no address of a worker; expected http:// or https://")
    return addresses
