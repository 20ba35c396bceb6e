"""What blocks, beside the event loop: a bounded number of threads for calls that cannot be awaited.

Rules:
1. Only what waits goes here (files, names, Redis), nothing that computes, and nothing that may wait without an end.
2. Without a loop the caller's thread waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

from greentic.ground.clock import Clock

MAX_THREADS = 16

P = ParamSpec("P")
T = TypeVar("T")

_threads: ThreadPoolExecutor | None = None


async def beside(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What a blocking function returns or raises, without stopping the loop."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return function(*arguments, **named)
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="beside")
    return await loop.run_in_executor(_threads, lambda: function(*arguments, **named))


class Kept(Protocol):
    """Something that keeps values, here or elsewhere."""

    @property
    def local(self) -> bool:
        """Whether asking it takes no time worth speaking of."""
        ...


async def kept(store: Kept, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What a function of a store returns: asked at once where the store is here, else beside the loop."""
    return function(*arguments, **named) if store.local else await beside(function, *arguments, **named)


async def nap(seconds: float, clock: Clock) -> None:
    """Wait for some time: on the loop where there is one, else by the clock."""
    if asyncio._get_running_loop() is None:
        clock.sleep(seconds)
    else:
        await asyncio.sleep(seconds)
