"""The engine of a process: settings that compiled code depends on, and the clock that ends runaway components.

Rules:
1. There is one engine a process, made when the first component is loaded.
2. A ticker advances the engine's epoch every `TICK_SECONDS`. A call gets a deadline in ticks; code that is still running
   then is trapped. The default deadline of a store would trap at once, so every store gets one.
3. Everything that changes compiled code stands in `SETTINGS` and is part of the key under which it is cached.
"""

from __future__ import annotations

import os
import threading
import time
from typing import NamedTuple

from wasmtime import Config, Engine

from greentic.ground.errors import BootError
from greentic.wasm import native

TICK_SECONDS = 0.01
SETTINGS = "epochs-1"
"""Raised whenever the configuration below changes compiled code."""
MAX_WASM_STACK = 1 << 20
"""Bytes of native stack for a component's recursion."""


class CallLimits(NamedTuple):
    """What one call of a component may use."""

    seconds: float = 10.0
    """Time of computing; host calls end by the same deadline."""
    memory_bytes: int = 256 << 20
    """Of each memory; nearly every component has one."""
    table_elements: int = 100_000
    instances: int = 64
    memories: int = 4


DEFAULT_LIMITS = CallLimits()


def call_limits(environ: dict[str, str] | None = None) -> CallLimits:
    """The limits, as `GREENTIC_COMPONENT_SECONDS` and `GREENTIC_COMPONENT_MEMORY_MB` change them. Raises `BootError`."""
    found = os.environ if environ is None else environ
    limits = DEFAULT_LIMITS
    seconds, megabytes = found.get("GREENTIC_COMPONENT_SECONDS"), found.get("GREENTIC_COMPONENT_MEMORY_MB")
    try:
        if seconds:
            limits = limits._replace(seconds=float(seconds))
        if megabytes:
            limits = limits._replace(memory_bytes=int(megabytes) << 20)
    except ValueError:
        raise BootError(
            f"GREENTIC_COMPONENT_SECONDS=`{seconds}` and GREENTIC_COMPONENT_MEMORY_MB=`{megabytes}` must be numbers"
        ) from None
    if not 0 < limits.seconds <= 3600 or not 0 < limits.memory_bytes <= 4 << 30:
        raise BootError("a component may compute up to 3600 s and use up to 4096 MB")
    return limits


class ComponentEngine:
    """The engine and its ticker."""

    def __init__(self) -> None:
        refused = native.check()
        if refused is not None:
            raise BootError(refused, hint="install the locked requirements: scripts/setup.sh")
        config = Config()
        config.epoch_interruption = True
        config.max_wasm_stack = MAX_WASM_STACK
        self.engine = Engine(config)
        self.address = native.address(self.engine)
        threading.Thread(target=self._tick, name="epoch", daemon=True).start()

    def _tick(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            native.increment_epoch(self.address)


_lock = threading.Lock()
_engine: ComponentEngine | None = None


def engine() -> ComponentEngine:
    """The engine of this process (rule 1)."""
    global _engine
    if _engine is None:
        with _lock:
            if _engine is None:
                _engine = ComponentEngine()
    return _engine


def engine_version() -> str:
    """What compiled code fits: the library's version and our settings."""
    return f"wasmtime-{native.SUPPORTED}-{SETTINGS}"
