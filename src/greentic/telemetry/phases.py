"""The phases in which a worker comes to serve a document: how long each took at the boot, and a span for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from greentic.ground.clock import CLOCK
from greentic.telemetry.tallies import TALLIES
from greentic.telemetry.tracing import whole, within


@contextmanager
def booting() -> Iterator[None]:
    """A boot from its first step to its last."""
    with whole("boot"), _timed("whole"):
        yield


@contextmanager
def phase(name: str, *, boot: bool) -> Iterator[None]:
    """Time what is done inside; it is shown if it is part of the boot."""
    with within(name):
        if not boot:
            yield
            return
        with _timed(name):
            yield


@contextmanager
def _timed(name: str) -> Iterator[None]:
    began = CLOCK.monotonic()
    try:
        yield
    finally:
        TALLIES.set("greentic_boot_seconds", (name,), CLOCK.monotonic() - began)
