"""The engine of a process: settings that compiled code depends on, where instances lie, and the tick at which calls give way.

Rules:
1. There is one engine a process, made when the first component is loaded.
2. A ticker advances the engine's epoch every `TICK_SECONDS` while calls run, and sleeps while none do. At a tick a call gives
   way; it ends when it has computed for longer than it may.
3. Instances lie in a pool that is reserved once, since making and dropping a memory costs more than a small call. Where the
   address space does not allow that (`ulimit -v`, small containers) each instance gets its own, nothing is reserved for it to grow,
   and `allocator` says why.
4. What all suspended calls hold together is bounded: whose turn takes it beyond the bound is ended (`Share`).
5. Everything that changes compiled code stands in `SETTINGS` and is part of the key under which it is cached.
"""

from __future__ import annotations

import mmap
import os
import threading

from wasmtime import Config, Engine

from greentic.ground.clock import CLOCK
from greentic.ground.errors import BootError
from greentic.ground.optional import done_without
from greentic.wasm import native

TICK_SECONDS = 0.005
IDLE_TICKS = 200
"""How long the ticker goes on when nothing runs."""
SETTINGS = "async-1"
"""Raised whenever the configuration below changes compiled code."""
MAX_WASM_STACK = 1 << 20
"""Bytes of native stack for a component's recursion."""
STACK = MAX_WASM_STACK + (512 << 10)
"""Bytes of the stack that a call runs on; host functions do not run there, only what takes their arguments."""
MAX_CALLS = 2048
"""Calls that may run or wait in one process: what the pool has places for."""
_MAX_MEMORY = 4 << 30
_POOL = {
    "total_component_instances": MAX_CALLS,
    "total_core_instances": MAX_CALLS * 12,
    "total_memories": MAX_CALLS + MAX_CALLS // 2,
    "total_tables": MAX_CALLS * 8,
    "total_stacks": MAX_CALLS,
    "max_memories_per_component": 8,
    "max_memories_per_module": 4,
    "max_tables_per_component": 128,
    "max_tables_per_module": 16,
    "max_core_instances_per_component": 256,
    "max_core_instance_size": 4 << 20,
    "max_component_instance_size": 4 << 20,
    "table_elements": 100_000,
    "linear_memory_keep_resident": 128 << 10,
    "table_keep_resident": 16 << 10,
    "async_stack_keep_resident": 16 << 10,
    "max_unused_warm_slots": 64,
}
_RESERVED = (_POOL["total_memories"] + 64) * ((4 << 30) + (64 << 20))
"""Bytes of address space that the pool reserves, about; none of them is in use before an instance is."""


class Share:
    """What the suspended calls of a process hold together: how far its resident memory is above that of a process without any."""

    def __init__(self) -> None:
        self.suspended = 0
        self._page = os.sysconf("SC_PAGE_SIZE")
        try:
            self._file: int | None = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            done_without("the bound on the memory of all running calls together", error.strerror)
            self._file = None
        self._base = self._resident()

    def _resident(self) -> int:
        return 0 if self._file is None else int(os.pread(self._file, 128, 0).split()[1]) * self._page

    def held(self) -> int:
        """Bytes, about."""
        return self._resident() - self._base

    def begin(self) -> None:
        """A call is suspended for the first time."""
        self.suspended += 1

    def end(self) -> None:
        """A call that was suspended is gone."""
        self.suspended -= 1
        if not self.suspended:
            self._base = self._resident()


class ComponentEngine:
    """The engine, its ticker and what its calls share."""

    def __init__(self) -> None:
        refused = native.check()
        if refused is not None:
            raise BootError(refused, hint="install the locked requirements: scripts/setup.sh")
        config = Config()
        config.epoch_interruption = True
        config.max_wasm_stack = MAX_WASM_STACK
        native.config_async_stack(native.address(config), STACK)
        self.allocator = "pooling"
        """`pooling`, or `plain` and why."""
        why = _no_room_for(_RESERVED)
        self.narrow = why is not None
        """Whether there is little address space, so that nothing is reserved beforehand."""
        if why is None:
            _use_pool(config)
        else:
            self.allocator = f"plain: {why}"
            done_without("the pool of component instances", why)
            config.memory_reservation = config.memory_reservation_for_growth = config.memory_guard_size = 0
            config.parallel_compilation = False  # each thread reserves memory of its own
        self.engine = Engine(config)
        self.address = native.address(self.engine)
        self.share = Share()
        self.calls = 0
        """Calls that are not over."""
        self._awake = threading.Event()
        self._ticking = False
        threading.Thread(target=self._tick, name="epoch", daemon=True).start()

    def began(self) -> None:
        """A call begins."""
        self.calls += 1
        if not self._ticking:
            self._ticking = True
            self._awake.set()

    def ended(self) -> None:
        """A call is over."""
        self.calls -= 1

    def _tick(self) -> None:
        idle = 0
        while True:
            if idle >= IDLE_TICKS:
                self._awake.clear()
                self._ticking = False
                if not self.calls:  # one that began meanwhile saw the ticker awake
                    self._awake.wait()
                self._ticking = True
                idle = 0
            CLOCK.sleep(TICK_SECONDS)
            native.increment_epoch(self.address)
            idle = 0 if self.calls else idle + 1


def _use_pool(config: Config) -> None:
    pool = native.pool_new()
    for name, value in _POOL.items():
        native.set_pool(pool, name, value)
    native.set_pool(pool, "max_memory_size", _MAX_MEMORY)
    native.config_pool(native.address(config), pool)
    native.pool_delete(pool)


def _no_room_for(size: int) -> str | None:
    """Why so much address space cannot be reserved. The library would end the process, so it is tried before."""
    try:
        mmap.mmap(
            -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0), prot=0
        ).close()
    except (OSError, ValueError, OverflowError) as error:
        return f"{size >> 40} TiB of address space cannot be reserved ({getattr(error, 'strerror', None) or error})"
    return None


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
    kind = engine().allocator.partition(":")[0]
    return f"wasmtime-{native.SUPPORTED}-{SETTINGS}-{kind}"
