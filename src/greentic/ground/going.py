"""Running a coroutine without a task: in place where there is no loop, and at once where it does not have to wait.

Rules:
1. Code that may have to wait is written once, as a coroutine. Where no loop runs, what it waits for waits in place, so the
   coroutine comes to its end in one go (`in_place`).
2. On a loop a task costs more than a short turn. `begun` runs a coroutine up to where it first waits; most come to their end
   before, and only the others need a task.
3. What needs a task of its own, such as a timeout, asks for it first (`in_task`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import TypeVar

T = TypeVar("T")


def in_place(running: Coroutine[object, object, T]) -> T:
    """What a coroutine comes to, in a thread without a loop."""
    try:
        running.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    running.close()
    raise RuntimeError("what runs in place has waited for an event loop")


def begun(running: Coroutine[object, object, T]) -> T | Coroutine[object, object, T]:
    """What a coroutine comes to, if it does not have to wait; else the rest of it, to be awaited."""
    try:
        awaited = running.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    return _rest(running, awaited)


async def _rest(running: Coroutine[object, object, T], awaited: object) -> T:
    return await _passed_on(running, awaited)


@coroutine
def _passed_on(running: Coroutine[object, object, T], awaited: object) -> Generator[object, object, T]:
    try:
        while True:
            try:
                sent = yield awaited
            except BaseException as error:  # noqa: BLE001  it belongs to what runs
                awaited = running.throw(error)
            else:
                awaited = running.send(sent)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def in_task() -> None:
    """Come back in a task of one's own, if there is none yet."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)
