"""Whose turn it is to compute on a loop: few short calls of each lane in one turn, one long piece, and nobody behind others' lines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from greentic.wasm.drive import AT_ONCE, EACH_AT_ONCE, Turns


def on_loop(test: Callable[[Turns], Coroutine[object, object, None]]) -> None:
    async def run() -> None:
        await test(Turns(asyncio.get_running_loop()))

    asyncio.run(run())


async def call(turns: Turns, lane: str, told: list[str]) -> None:
    """A short call."""
    if not turns.begin(lane):
        await turns.mine(lane)
    told.append(lane)


async def flooded(turns: Turns, told: list[str], number: int = 64) -> list[asyncio.Task[None]]:
    """So many calls of one lane that come at once; nobody had a turn of the loop after the first few."""
    tasks = [asyncio.create_task(call(turns, "flood", told)) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


def test_a_few_calls_of_a_lane_go_on_at_once_and_the_others_wait() -> None:
    async def test(turns: Turns) -> None:
        told: list[str] = []
        tasks = await flooded(turns, told)
        assert told == ["flood"] * EACH_AT_ONCE
        await asyncio.gather(*tasks)
        assert len(told) == 64

    on_loop(test)


def test_who_comes_in_another_lane_goes_before_everybody_who_waits() -> None:
    async def test(turns: Turns) -> None:
        told: list[str] = []
        tasks = await flooded(turns, told)
        await call(turns, "other", told)
        assert told.index("other") == EACH_AT_ONCE
        await asyncio.gather(*tasks)

    on_loop(test)


def test_a_lane_that_waits_is_let_on_in_the_next_turn_however_many_others_wait() -> None:
    async def test(turns: Turns) -> None:
        told: list[str] = []
        tasks = await flooded(turns, told)
        others = [asyncio.create_task(call(turns, "other", told)) for _ in range(EACH_AT_ONCE + 1)]
        await asyncio.gather(*others)
        assert told.count("flood") <= 3 * EACH_AT_ONCE
        await asyncio.gather(*tasks)

    on_loop(test)


def test_all_lanes_together_go_on_no_more_than_a_turn_takes_but_each_once() -> None:
    async def test(turns: Turns) -> None:
        began = [turns.begin(f"{lane}") for lane in range(2 * AT_ONCE) for _ in range(2)]
        assert began[::2] == [True] * 2 * AT_ONCE and sum(began[1::2]) == AT_ONCE // 2

    on_loop(test)


def test_after_a_long_piece_everybody_waits_for_the_next_turn_and_goes_one_by_one() -> None:
    async def test(turns: Turns) -> None:
        order: list[str] = []

        async def long(lane: str) -> None:
            if not turns.begin(lane):
                await turns.mine(lane)
            turns.take()
            order.append(lane)
            await turns.mine(lane)
            order.append(lane)

        async def beat() -> None:
            while True:
                order.append("|")
                await asyncio.sleep(0)

        beating = asyncio.create_task(beat())
        await asyncio.gather(*(long(lane) for lane in "abc"))
        beating.cancel()
        pieces = [turn for turn in "".join(order).split("|") if turn]
        assert sorted(pieces) == ["a", "a", "b", "b", "c", "c"]

    on_loop(test)


@pytest.mark.parametrize("gone", range(5))
def test_who_leaves_while_it_waits_takes_no_turn(gone: int) -> None:
    async def test(turns: Turns) -> None:
        told: list[str] = []
        tasks = await flooded(turns, told, EACH_AT_ONCE + 5)
        tasks[EACH_AT_ONCE + gone].cancel()
        await asyncio.wait(tasks)
        assert len(told) == EACH_AT_ONCE + 4 and turns.begin("flood") in (True, False)
        while not turns.begin("flood"):
            await asyncio.sleep(0)

    on_loop(test)
