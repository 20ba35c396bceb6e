"""Who drives a call: the event loop where one runs, else the thread that asks.

Rules:
1. A call is advanced where it is awaited. On a loop, what waits (a host function's answer, WASI sleeping, a turn to compute) lets
   the loop go on; without a loop the thread waits in place. The code above is the same: it awaits, and `ground.going.in_place` runs
   such a coroutine without a loop.
2. On a loop calls compute one after the other, when it is the turn of their deployment (`ground/fair_queue.py`). In one turn of the
   loop one long piece is computed, or a few short ones. So what else the loop has to do waits for little, however many calls compute.
3. How long one looks away from a call that sleeps grows with what it slept so far. One that wrote output meanwhile does not sleep: each
   piece of its output is a pause of its own.
4. A call that is cancelled, because nobody waits for it any more, is closed on the spot.
"""

from __future__ import annotations

import asyncio

from greentic.ground.clock import CLOCK
from greentic.ground.fair_queue import FairQueue, fair_queue_of
from greentic.ground.going import in_task
from greentic.wasm.call import Call
from greentic.wasm.traps import HostFailure, Trap, Waited

LONG = 0.001
"""Seconds of computing after which other calls on the loop wait for its next turn."""
LEAST_SLEEP, MOST_SLEEP, SLEEP_SHARE = 0.001, 0.05, 0.05
"""Between two looks at a call that sleeps in WASI: a share of what it slept so far, within bounds."""


def loop_here() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if one does."""
    return asyncio._get_running_loop()


async def finish(call: Call) -> object:
    """What a call answers; it is closed then. Raises `Trap`, `HostFailure` or `ValueMismatch`."""
    trapped = False
    try:
        loop = loop_here()
        if loop is not None:
            return await _on_loop(call, fair_queue_of(loop))
        return _without(call)
    except Trap:
        trapped = True
        if call.output is not None:
            call.output.trapped = True
        raise
    finally:
        call.context.over(call.computed, trapped=trapped)
        call.close()


async def _on_loop(call: Call, queue: FairQueue) -> object:
    asleep = 0.0
    if not queue.begin(call.context.lane):
        await queue.mine(call.context.lane)
    while True:
        before = call.computed
        pause = call.advance()
        if call.computed - before > LONG:
            queue.took_long()
        if pause is None:
            return call.result
        if pause == "computes":
            asleep = 0.0
            await queue.mine(call.context.lane)
            continue
        began = CLOCK.monotonic()
        left = call.left()
        if pause == "asks" or call.wrote():
            asleep = 0.0
        if pause == "asks":
            call.answer(await _answer(call, left))
        else:
            await asyncio.sleep(0 if asleep == 0 else min(left, _nap(asleep)))
        asleep += CLOCK.monotonic() - began
        call.waited += CLOCK.monotonic() - began


async def _answer(call: Call, seconds: float) -> object:
    """What a host function comes to within some time."""
    asked = call.asked
    assert asked is not None
    call.asked = None
    await in_task()
    try:
        async with asyncio.timeout(seconds) as limit:
            return await asked
    except HostFailure:
        raise
    except TimeoutError:
        if limit.expired():
            raise Waited(f"it waited longer than {call.limit:g} s") from None
        raise HostFailure("a host function failed: TimeoutError") from None
    except Exception as error:
        raise HostFailure(f"a host function failed: {type(error).__name__}") from error


def _without(call: Call) -> object:
    asleep = 0.0
    while True:
        pause = call.advance()
        if pause is None:
            return call.result
        if pause == "computes":
            asleep = 0.0
            continue
        began = CLOCK.monotonic()
        left = call.left()
        if pause == "asks" or call.wrote():
            asleep = 0.0
        if pause == "asks":
            call.answer(asyncio.run(_answer(call, left)))
        else:
            CLOCK.sleep(0 if asleep == 0 else min(left, _nap(asleep)))
        asleep += CLOCK.monotonic() - began
        call.waited += CLOCK.monotonic() - began


def _nap(asleep: float) -> float:
    return min(max(asleep * SLEEP_SHARE, LEAST_SLEEP), MOST_SLEEP)
