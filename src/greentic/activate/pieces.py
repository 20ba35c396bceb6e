"""Long work on a loop in pieces: who computes long gives way, and takes turns with the others that do (`Ports.pause`).

Rules:
1. In one turn of the loop one piece is computed, however many runs are long: whoever comes with something short waits for one piece.
2. Whose piece it is goes round by lane, a lane being a deployment; within one, first come first served.
3. Without a loop there is nobody to give way to.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from weakref import WeakKeyDictionary

_Lines = OrderedDict[str, "deque[asyncio.Future[None]]"]
_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lines] = WeakKeyDictionary()


async def piece_done(lane: str) -> None:
    """Come back for the next piece of a lane when it is its turn."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return
    lines = _lines.setdefault(loop, OrderedDict())
    if not lines:
        loop.call_soon(_next, loop, lines)
    turn: asyncio.Future[None] = loop.create_future()
    lines.setdefault(lane, deque()).append(turn)
    await turn


def _next(loop: asyncio.AbstractEventLoop, lines: _Lines) -> None:
    """Let one go on (rules 1 and 2); who left meanwhile is passed over."""
    came = False
    while lines and not came:
        lane, line = next(iter(lines.items()))
        turn = line.popleft()
        lines.move_to_end(lane)
        if not line:
            del lines[lane]
        if not turn.done():
            turn.set_result(None)
            came = True
    if lines:
        loop.call_soon(_next, loop, lines)
