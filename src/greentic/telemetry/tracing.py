"""Spans: what was done for one request, verb or boot, and within what.

Rules:
1. Without a tracer there are no spans, and asking for one costs a look at a name. With one, only what is sampled has spans.
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
from typing import Literal, NamedTuple

from greentic.ground.clock import CLOCK, RANDOM

Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_STATE = re.compile(r"[\x20-\x7e]{1,512}\Z")
MAX_ERROR = 500


class Remote(NamedTuple):
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
        self.span_id = RANDOM.octets(8).hex()
        self.began = CLOCK.now_ns()
        self.ended = 0
        self.attributes: dict[str, Value] = {}
        self.error: str | None = None

    @property
    def traceparent(self) -> str:
        """What tells another server of it."""
        return f"00-{self.trace_id}-{self.span_id}-01"


Sampler = Callable[[str, Remote | None], bool]
"""Whether the trace of an id is sampled, with the parent that a caller told."""


class Tracer(NamedTuple):
    """Decides what is traced, and who is given what ended."""

    sampler: Sampler
    take: Callable[[Span], None]

    def root(self, name: str, kind: Kind, remote: Remote | None = None) -> Span | None:
        """Open the first span of a trace here, if it is sampled; what was open in this context is not any more."""
        trace_id = RANDOM.octets(16).hex() if remote is None else remote.trace_id
        span = None
        if self.sampler(trace_id, remote):
            parent_id, state = ("", "") if remote is None else (remote.span_id, remote.state)
            span = Span(name, kind, trace_id, parent_id, state, None)
        _open.set(span)
        return span


_open: ContextVar[Span | None] = ContextVar("span", default=None)
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
    return _open.get()


def begin(name: str, kind: Kind = "internal") -> Span | None:
    """Open a span within the one that is open, if one is."""
    parent = _open.get()
    if parent is None:
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


def remote_of(traceparent: bytes | None, tracestate: bytes | None) -> Remote | None:
    """What a caller says of its trace, if it says so rightly (rule 3)."""
    if traceparent is None or len(traceparent) > 512:
        return None
    found = _PARENT.match(traceparent.decode("latin-1"))
    if found is None or (found[4] and traceparent[:2] == b"00"):
        return None
    if set(found[1]) == {"0"} or set(found[2]) == {"0"}:
        return None
    state = "" if tracestate is None else tracestate.decode("latin-1")
    return Remote(found[1], found[2], bool(int(found[3], 16) & 1), state if _STATE.match(state) else "")


def by_share(share: float) -> Sampler:
    """Sample a share of all traces by their id, whatever a caller says."""
    bound = int(share * (1 << 56))
    return lambda trace_id, remote: int(trace_id[18:], 16) < bound


def by_parent(otherwise: Sampler) -> Sampler:
    """Sample what a caller samples; where none told, as `otherwise` says."""
    return lambda trace_id, remote: otherwise(trace_id, None) if remote is None else remote.sampled
