"""What one call of a component may use (formats: components 6).

Rules:
1. Whoever is to serve reads the limits before anything else, components or not: one that makes no sense ends the boot, and is
   no fault of a deployment. So the engine is not loaded for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from greentic.ground import variables


class CallLimits(NamedTuple):
    """What one call of a component may use."""

    seconds: float = 10.0
    """Time of its own computing, and as much again of waiting for others."""
    memory_bytes: int = 256 << 20
    """Of all its memories together."""
    total_bytes: int = 2048 << 20
    """Of all running calls together."""
    table_elements: int = 100_000
    instances: int = 64
    memories: int = 4


DEFAULT_LIMITS = CallLimits()


def call_limits(environ: Mapping[str, str] | None = None) -> CallLimits:
    """The limits, as `GREENTIC_COMPONENT_SECONDS`, `…_MEMORY_MB` and `…_TOTAL_MB` change them. Raises `InvalidArgument`."""
    found = DEFAULT_LIMITS
    seconds = variables.seconds("GREENTIC_COMPONENT_SECONDS", environ, least=0.001, most=3600)
    memory = variables.count("GREENTIC_COMPONENT_MEMORY_MB", environ, least=1, most=4096)
    total = variables.count("GREENTIC_COMPONENT_TOTAL_MB", environ, least=1, most=1 << 20)
    if seconds is not None:
        found = found._replace(seconds=seconds)
    if memory is not None:
        found = found._replace(memory_bytes=memory << 20)
    if total is not None:
        found = found._replace(total_bytes=total << 20)
    return found
