"""Spans: what was done for one request, verb or boot, and within what.

Rules:
1. Without a tracer there are no spans, and asking for one costs a look at a name. With one, only what is sampled has spans; for a
   request that is not, a number is drawn and no id made. Other servers are told that it is not sampled.
2. The span that is open follows into what is awaited, and into threads that are given their context. Whoever opens one says when it
   ends; that of a request is set anew with each request of a connection.
3. A caller's `traceparent` is taken if it is exactly what the standard says, its `tracestate` if it is short and inert; anything else
   is as if it were not there (W3C Trace Context 1.0; threats: hostile-trace-context).
4. Names and attributes come from what operators wrote or from closed lists, as labels of metrics do; never a session, user or text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Literal, ParamSpec, TypeVar

import msgspec

from greentic.ground.clock import CLOCK, RANDOM, random_bits

Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool
P = ParamSpec("P")
T = TypeVar("T")
_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]([0-9a-f])(-.*)?\Z")
_STATE = re.compile(rb"[\x20-\x7e]{1,512}\Z")
_SAMPLED = b"13579bdf"
MAX_ERROR = 500


class Remote(msgspec.Struct, frozen=True):
    """Where a trace comes from."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""


class Span:
    """One thing that was done."""

    __slots__ = (
        "attributes",
        "began",
        "ended",
        "error",
        "kind",
        "name",
        "parent",
        "parent_id",
        "span_id",
        "state",
        "trace_id",
    )

    def __init__(self, name: str, kind: Kind, trace_id: str, parent_id: str, state: str, parent: Span | None) -> None:
        self.name, self.kind, self.trace_id, self.parent_id, self.state = name, kind, trace_id, parent_id, state
        self.parent = parent
        """The one that is open again once this one ended."""
        self.span_id = f"{random_bits(64):016x}"
        self.began = CLOCK.now_ns()
        self.ended = 0
        self.attributes: dict[str, Value] = {}
        self.error: str | None = None


class Sampling(msgspec.Struct, frozen=True):
    """Which traces are sampled."""

    share: float
    """Of all traces, by their id."""
    as_told: bool = False
    """Whether the share is only of those for which no caller decides."""

    def takes(self, remote: Remote) -> bool:
        """Whether the trace of a caller is sampled."""
        return remote.sampled if self.as_told else int(remote.trace_id[18:], 16) < self.share * (1 << 56)


class Tracer(msgspec.Struct, frozen=True):
    """Decides what is traced, and who is given what ended."""

    sampling: Sampling
    take: Callable[[Span], None]

    def root(self, name: str, kind: Kind, remote: Remote | None = None) -> Span | None:
        """Open the first span of a trace here, if it is sampled; what was open in this context is not any more."""
        if remote is not None:
            taken = self.sampling.takes(remote)
            span = Span(name, kind, remote.trace_id, remote.span_id, remote.state, None) if taken else None
            _open.set(remote if span is None else span)
            return span
        drawn = RANDOM.fraction()
        if drawn >= self.sampling.share:
            if _open.get() is not None:
                _open.set(None)
            return None
        span = Span(name, kind, f"{random_bits(72):018x}{int(drawn * (1 << 56)):014x}", "", "", None)
        _open.set(span)
        return span


_open: ContextVar[Span | Remote | None] = ContextVar("span", default=None)
"""The span that is open here, or the trace of a caller that is not sampled."""
_installed: Tracer | None = None
_refused: str | None = None


def install(tracer: Tracer | None) -> None:
    """Trace with it from now on, or not at all."""
    global _installed
    _installed = tracer


def installed() -> Tracer | None:
    return _installed


def refuse(why: str) -> None:
    """Tell that tracing was asked for and cannot be."""
    global _refused
    _refused = why


def refused() -> str | None:
    """Why there is no tracing though it was asked for."""
    return _refused


def current() -> Span | None:
    """The span that is open here."""
    found = _open.get()
    return found if isinstance(found, Span) else None


def begin(name: str, kind: Kind = "internal") -> Span | None:
    """Open a span within the one that is open, if one is."""
    parent = _open.get()
    if not isinstance(parent, Span):
        return None
    span = Span(name, kind, parent.trace_id, parent.span_id, parent.state, parent)
    _open.set(span)
    return span


def end(span: Span, error: str | None = None) -> None:
    """Close a span; the one around it is open again."""
    span.ended = CLOCK.now_ns()
    if error is not None:
        span.error = error[:MAX_ERROR]
    _open.set(span.parent)
    if _installed is not None:
        _installed.take(span)


def within(name: str, **attributes: Value) -> AbstractContextManager[Span | None]:
    """Do something in a span of its own, if there is one around it. What it raises is told by its type."""
    return _held(begin(name), attributes)


def carried(work: Callable[P, T]) -> Callable[P, T]:
    """The same for another thread: what it does is within what is open here."""
    here = _open.get()
    if here is None:
        return work

    def within_it(*words: P.args, **named: P.kwargs) -> T:
        before = _open.set(here)
        try:
            return work(*words, **named)
        finally:
            _open.reset(before)

    return within_it


def whole(name: str, **attributes: Value) -> AbstractContextManager[Span | None]:
    """Do something that is a trace of its own, such as a boot or a verb, if anything is traced."""
    return _held(None if _installed is None else _installed.root(name, "internal"), attributes)


@contextmanager
def _held(span: Span | None, attributes: dict[str, Value]) -> Iterator[Span | None]:
    """A span that begins now and ends with what is done in it."""
    if span is None:
        yield None
        return
    span.attributes.update(attributes)
    try:
        yield span
    except BaseException as failure:
        end(span, type(failure).__name__)
        raise
    end(span)


def told_others() -> list[tuple[str, str]]:
    """The fields of a request to another server that tell it what it is part of, and whether that is sampled."""
    part = _open.get()
    if part is None:
        if _installed is None:
            return []
        part = Remote(f"{random_bits(128):032x}", f"{random_bits(64):016x}", False)
    parent = ("traceparent", f"00-{part.trace_id}-{part.span_id}-0{int(isinstance(part, Span))}")
    return [parent, ("tracestate", part.state)] if part.state else [parent]


def remote_of(traceparent: bytes | None, tracestate: bytes | None) -> Remote | None:
    """What a caller says of its trace, if it says so rightly (rule 3)."""
    if traceparent is None or len(traceparent) > 512:
        return None
    found = _PARENT.match(traceparent)
    if found is None or (found[4] and traceparent.startswith(b"00")):
        return None
    state = tracestate.decode() if tracestate is not None and _STATE.match(tracestate) else ""
    return Remote(found[1].decode(), found[2].decode(), found[3] in _SAMPLED, state)
