"""The calls of an API server as spans of the verb or reconcile that makes them.

Rules:
1. A call is told by its method, its path with the names taken out, and its status: names stand in the log of who called, and those of
   Secrets belong nowhere else.
2. Of one trace the first `MOST_TOLD` calls have spans; how many more there were is told on the span around them.
3. A watch has no span: it is open for as long as somebody waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from greentic.k8s.objects import ApiRefused
from greentic.telemetry import tracing

MOST_TOLD = 256


class CallSpans:
    """The calls over one connection."""

    def __init__(self) -> None:
        self._trace, self._calls = "", 0

    @contextmanager
    def call(self, method: str, path: str) -> Iterator[None]:
        """One call, its repetitions included."""
        span = self._begun(method, path)
        if span is None:
            yield
            return
        try:
            yield
        except ApiRefused as error:
            span.attributes["http.response.status_code"] = error.status
            tracing.end(span, str(error.status))
            raise
        except BaseException as error:
            tracing.end(span, type(error).__name__)
            raise
        tracing.end(span)

    def _begun(self, method: str, path: str) -> tracing.Span | None:
        around = tracing.current()
        if around is None:
            return None
        if around.trace_id != self._trace:
            self._trace, self._calls = around.trace_id, 0
        self._calls += 1
        if self._calls > MOST_TOLD:
            around.attributes["greentic.kubernetes.calls_not_told"] = self._calls - MOST_TOLD
            return None
        span = tracing.begin(f"kubernetes {method}", "client")
        if span is not None:
            span.attributes |= {"http.request.method": method, "url.template": template(path)}
        return span


def answered(status: int) -> None:
    """What the call that is open here was answered."""
    span = tracing.current()
    if span is not None and span.kind == "client":
        span.attributes["http.response.status_code"] = status


def template(path: str) -> str:
    """A path of the API without the names in it."""
    parts = path.split("/")
    start = {"api": 3, "apis": 4}.get(parts[1], len(parts))
    rest = parts[start:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        start, rest = start + 2, rest[2:]
        parts[start - 1] = "{namespace}"
    if len(rest) > 1:
        parts[start + 1] = "{name}"
    return "/".join(parts[: start + 3])
