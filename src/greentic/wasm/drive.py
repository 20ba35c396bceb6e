"""Who drives a call: the event loop where one runs, else the thread that asks.

Rules:
1. A call is advanced where it is awaited. On a loop, what waits (a host function's answer, WASI sleeping, a turn to compute) lets
   the loop go on; without a loop the thread waits in place. The code above is the same: it awaits, and `ground.going.in_place` runs
   such a coroutine without a loop.
2. On a loop calls compute one after the other, lane by lane and within one first come first served (`Turns`); a lane is a
   deployment. In one turn of the loop one long piece is computed, or a few short ones of each lane. So what else the loop has to do
   waits for little, however many calls compute, and who comes in a lane that had nothing yet does not wait for those of others.
3. A call that is cancelled, because nobody waits for it any more, is closed on the spot.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from weakref import WeakKeyDictionary

from greentic.ground.clock import CLOCK
from greentic.ground.going import in_task
from greentic.wasm.call import Call, HostFailure, Trap, Waited

AT_ONCE = 16
"""Calls that are let on in one turn of the loop while none of them computes long."""
EACH_AT_ONCE = 4
"""How many of one lane."""
LONG = 0.001
"""Seconds of computing after which other calls on the loop wait for its next turn."""
LEAST_SLEEP, MOST_SLEEP, SLEEP_SHARE = 0.001, 0.05, 0.05
"""Between two looks at a call that sleeps in WASI: a share of what it slept so far, within bounds."""


class Turns:
    """Whose turn it is to compute on a loop (rule 2)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lanes: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._had: dict[str, int] = {}
        """Calls of each lane that began, or were let on, in this turn of the loop."""
        self._all_had = 0
        self._long = self._coming = False
        """Whether a long piece was computed in this turn of the loop, and whether the next turn is asked for."""

    def begin(self, lane: str) -> bool:
        """Whether a call that comes now goes on at once; else it has to wait until it is `mine`."""
        had = self._had.get(lane, 0)
        if self._long or lane in self._lanes or had >= EACH_AT_ONCE or (had and self._all_had >= AT_ONCE):
            return False
        self._count(lane)
        self._ask()
        return True

    async def mine(self, lane: str) -> None:
        """Wait for a turn of the loop in which no other call computed long."""
        again = False
        while True:
            future = self._loop.create_future()
            line = self._lanes.setdefault(lane, deque())
            if again:  # somebody else woke with us and computed long; we stay first
                line.appendleft(future)
                self._lanes.move_to_end(lane, last=False)
            else:
                line.append(future)
            self._ask()
            await future
            if not self._long:
                return
            again = True

    def take(self) -> None:
        """Note that a long piece was computed; the next one comes with the next turn of the loop."""
        self._long = True
        self._ask()

    def _count(self, lane: str) -> None:
        self._had[lane] = self._had.get(lane, 0) + 1
        self._all_had += 1

    def _ask(self) -> None:
        if not self._coming:
            self._coming = True
            # Two steps: what the loop finds ready meanwhile, a new request for one, goes before the next piece.
            self._loop.call_soon(self._loop.call_soon, self._next)

    def _next(self) -> None:
        # After a long piece one at a time; else several, for most calls are far shorter than a turn may take.
        most = 1 if self._long else AT_ONCE
        self._long = self._coming = False
        self._had, self._all_had = {}, 0
        passed = 0
        while self._all_had < most and passed < len(self._lanes):
            lane, waiting = next(iter(self._lanes.items()))
            self._lanes.move_to_end(lane)
            if self._had.get(lane, 0) >= EACH_AT_ONCE:
                passed += 1
                continue
            passed = 0
            future = waiting.popleft()
            if not waiting:
                del self._lanes[lane]
            if not future.done():
                future.set_result(None)
                self._count(lane)
        if self._lanes or self._had:
            self._ask()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """The turns of a loop."""
    found = _turns.get(loop)
    if found is None:
        found = _turns[loop] = Turns(loop)
    return found


def loop_here() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if one does."""
    return asyncio._get_running_loop()


async def finish(call: Call) -> object:
    """What a call answers; it is closed then. Raises `Trap`, `HostFailure` or `ValueMismatch`."""
    trapped = False
    try:
        loop = loop_here()
        if loop is not None:
            return await _on_loop(call, turns_of(loop))
        return _without(call)
    except Trap:
        trapped = True
        raise
    finally:
        call.context.over(call.computed, trapped=trapped)
        call.close()


async def _on_loop(call: Call, turns: Turns) -> object:
    asleep = 0.0
    if not turns.begin(call.context.lane):
        await turns.mine(call.context.lane)
    while True:
        before = call.computed
        pause = call.advance()
        if call.computed - before > LONG:
            turns.take()
        if pause is None:
            return call.result
        if pause == "computes":
            asleep = 0.0
            await turns.mine(call.context.lane)
            continue
        began = CLOCK.monotonic()
        left = call.left()
        if pause == "asks":
            asleep = 0.0
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
        if pause == "asks":
            asleep = 0.0
            call.answer(asyncio.run(_answer(call, left)))
        else:
            CLOCK.sleep(0 if asleep == 0 else min(left, _nap(asleep)))
        asleep += CLOCK.monotonic() - began
        call.waited += CLOCK.monotonic() - began


def _nap(asleep: float) -> float:
    return min(max(asleep * SLEEP_SHARE, LEAST_SLEEP), MOST_SLEEP)
