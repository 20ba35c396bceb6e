"""Tracing for a program: switched on by the standard variables, and nothing of it imported without them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from greentic.ground import variables

if TYPE_CHECKING:
    from greentic.telemetry.exporter import Sender
    from greentic.telemetry.otel_settings import TraceSettings
    from greentic.telemetry.otlp_answer import Rejected

_PASSING = (429, 502, 503, 504)
_ANSWER_BYTES = 64 << 10


@contextmanager
def traced(program: str) -> Iterator[None]:
    """Trace what the program does inside, if a collector is told; at the end what is left is sent."""
    if not any(variables.text(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        if variables.text("OTLP_ENDPOINT"):  # as the existing worker has it
            from greentic.telemetry.tracing import refuse

            refuse("OTLP_ENDPOINT is not read; the variable is OTEL_EXPORTER_OTLP_ENDPOINT")
        yield
        return
    from greentic.ground.errors import InvalidArgument
    from greentic.telemetry import tracing
    from greentic.telemetry.exporter import Exporter
    from greentic.telemetry.otel_settings import read_trace_settings
    from greentic.telemetry.otlp import as_json, as_protobuf

    try:
        settings = read_trace_settings(variables.environment(), program, f"{program}-{os.getpid()}")
    except InvalidArgument as error:
        tracing.refuse(error.message)
        yield
        return
    if settings is None:
        yield
        return
    encode, resource = as_json if settings.form == "http/json" else as_protobuf, settings.resource
    exporter = Exporter(lambda spans: encode(spans, resource), sender(settings), delay=settings.delay)
    tracing.install(tracing.Tracer(settings.sampling, exporter.take))
    try:
        yield
    finally:
        exporter.close()
        tracing.install(None)


def sender(settings: TraceSettings) -> Sender:
    """What sends a request to the collector, by the ways that everything of ours goes out."""
    kind = "application/json" if settings.form == "http/json" else "application/x-protobuf"
    headers = {**settings.headers, "Content-Type": kind}

    def send(body: bytes, seconds: float | None) -> Rejected | None:
        from greentic.ground.errors import FetchError, GreenticError
        from greentic.net.addresses import shown
        from greentic.net.request import read_body
        from greentic.net.request import send as ask
        from greentic.net.terms import terms_of
        from greentic.telemetry.exporter import NotSent
        from greentic.telemetry.otlp_answer import is_page, rejected

        limit, name = seconds or settings.timeout, shown(settings.endpoint)
        try:
            terms = terms_of(variables.environment())._replace(
                idle=limit, connect=limit, total=limit, offline=False
            )  # who names a collector means it
            answer = ask(
                settings.endpoint,
                settings.endpoint,
                terms,
                method="POST",
                headers=headers,
                body=body,
                doing="collector",
            )
            status, page = answer.status, is_page(answer.one("Content-Type"))
            told = read_body(answer, f"collector {name}: what it answers", _ANSWER_BYTES)
        except GreenticError as error:
            raise NotSent(error.message, passing=isinstance(error, FetchError)) from None
        if not 200 <= status < 300:
            raise NotSent(f"collector {name}: http status: {status}", passing=status in _PASSING)
        if page:
            raise NotSent(f"collector {name}: it answers a page of HTML, which no collector does", passing=False)
        return rejected(told, settings.form)

    return send
