"""The span of a request: from its arrival to its answer, within the trace of whoever asks.

Rules:
1. A caller's trace is gone on with, if it is told rightly; whether it is sampled is the sampler's business (`telemetry/tracing`).
2. The name is the method alone, and the path is an attribute without its query: what strangers ask for makes no names.
"""

from __future__ import annotations

from collections.abc import Coroutine

from greentic.ground.clock import CLOCK
from greentic.httpd.front import Answer
from greentic.httpd.http1 import Incoming
from greentic.telemetry import tracing
from greentic.telemetry.tracing import Span, Tracer

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
MAX_PATH = 256
SERVER_ERROR = 500


def begun(tracer: Tracer, incoming: Incoming, name: bytes) -> Span | None:
    """The span of a request from when it came, if it is sampled; the one before it on its connection is over in any case."""
    head = incoming.head
    parent = head.fields.get(b"traceparent")
    remote = None if parent is None else tracing.remote_of(parent, head.fields.get(b"tracestate"))
    span = tracer.root(head.method if head.method in _METHODS else "HTTP", "server", remote)
    if span is not None:
        span.began -= int((CLOCK.monotonic() - incoming.came) * 1e9)  # it waited for its turn
        span.attributes |= {
            "http.request.method": head.method[:20],
            "url.path": head.path[:MAX_PATH],
            "http.request.header.x-request-id": name.decode("latin-1"),
        }
    return span


def answered(span: Span, answer: Answer) -> Answer:
    """The answer, with which the span ends."""
    span.attributes["http.response.status_code"] = answer.code
    tracing.end(span, str(answer.code) if answer.code >= SERVER_ERROR else None)
    return answer


async def awaited(span: Span, answering: Coroutine[object, object, Answer]) -> Answer:
    """The same for an answer that takes time. A caller that leaves ends the span, too."""
    try:
        answer = await answering
    except BaseException as error:
        tracing.end(span, type(error).__name__)
        raise
    return answered(span, answer)
