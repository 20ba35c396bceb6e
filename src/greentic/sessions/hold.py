"""Holding a conversation while one of its turns runs, without stopping anybody else (rules 2 and 3 of `value_store`).

Rules:
1. On a loop who waits is a waiting turn, not a thread: first come first served, few of them, for some time.
2. A store that other processes use too is asked again and again, less and less often; one that is asked over a network is asked
   beside the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from weakref import WeakKeyDictionary

from greentic.ground.beside import beside
from greentic.ground.clock import CLOCK
from greentic.ground.going import in_task
from greentic.sessions.value_store import HOLD_SECONDS, MAX_WAITING, ValueStore, still_held, waiting_already

_Queues = dict[tuple[int, str], "deque[asyncio.Future[None]]"]
_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queues] = WeakKeyDictionary()


@asynccontextmanager
async def held(values: ValueStore, key: str, most: int = MAX_WAITING) -> AsyncIterator[None]:
    """Hold a key of a store, for which so many may wait. Raises `ConversationBusy` if too many wait for it, or for too long."""
    loop = asyncio._get_running_loop()
    if loop is None:
        with values.hold(key):
            yield
        return
    queues = _queues.setdefault(loop, {})
    place = (id(values), key)
    await _my_turn(loop, queues, place, most)
    try:
        if values.local:
            with await _taken(values, key):
                yield
            return
        hold = values.hold(key)
        await beside(hold.__enter__)
        try:
            yield
        finally:
            await beside(hold.__exit__, None, None, None)
    finally:
        _pass_on(queues, place)


async def _my_turn(loop: asyncio.AbstractEventLoop, queues: _Queues, place: tuple[int, str], most: int) -> None:
    waiting = queues.get(place)
    if waiting is None:
        queues[place] = deque()
        return
    if len(waiting) >= most:
        raise waiting_already(len(waiting))
    future: asyncio.Future[None] = loop.create_future()
    waiting.append(future)
    try:
        await in_task()
        await asyncio.wait_for(future, HOLD_SECONDS)
    except BaseException as error:
        if future in waiting:
            waiting.remove(future)
        elif future.done() and not future.cancelled():
            _pass_on(queues, place)
        if isinstance(error, TimeoutError):
            raise still_held() from None
        raise


def _pass_on(queues: _Queues, place: tuple[int, str]) -> None:
    waiting = queues[place]
    while waiting:
        future = waiting.popleft()
        if not future.done():
            future.set_result(None)
            return
    del queues[place]


async def _taken(values: ValueStore, key: str) -> AbstractContextManager[object]:
    ends, pause = CLOCK.monotonic() + HOLD_SECONDS, 0.001
    while True:
        found = values.hold_at_once(key)
        if found is not None:
            return found
        if CLOCK.monotonic() >= ends:
            raise still_held()
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)
