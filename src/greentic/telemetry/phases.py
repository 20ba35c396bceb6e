"""The phases in which a worker comes to serve a document: how long each took at the boot, and a span for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from greentic.ground.clock import CLOCK
from greentic.telemetry.tallies import TALLIES
from greentic.telemetry.tracing import within


@contextmanager
def phase(name: str, *, boot: bool) -> Iterator[None]:
    """Time what is done inside; it is shown if it is part of the boot."""
    began = CLOCK.monotonic()
    try:
        with within(name):
            yield
    finally:
        if boot:
            TALLIES.set("greentic_boot_seconds", (name,), CLOCK.monotonic() - began)
