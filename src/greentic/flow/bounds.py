"""How large a value may be that a flow makes.

Rules:
1. Templates can double a value in every step. What is made is measured as it would be written, values that stand in several
   places counted in each, before it is kept or sent anywhere.
2. Depth is bounded too: readers and writers of JSON and CBOR descend as deep as the value goes.
3. So is the sum of all that a run keeps: outputs of nodes, variables, and what it said. A run has many nodes.
4. A large value is gone through in pieces: a worker does something else in between.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from greentic.expressions.handlebars_render import Pause
from greentic.ground.errors import FlowFailure

MAX_DEPTH = 128
MAX_SIZE = 4 << 20
"""Characters of the texts of a value, and `NODE` for each of its members."""
MAX_KEPT = 64 << 20
"""Bytes, as it would be written, of all that a run keeps together."""
NODE = 8
PIECE = 10_000
"""Members after which the loop may do something else: two milliseconds."""

T = TypeVar("T")


async def bounded(value: T, pause: Pause) -> T:
    """The value itself. Raises `FlowFailure` for one that is too large or too deep (rules 1, 2 and 4)."""
    if isinstance(value, str) and len(value) <= MAX_SIZE:  # as most are
        return value
    left, gone_through = MAX_SIZE, 0
    inside = [iter((value,))]
    while inside:
        for item in inside[-1]:
            gone_through += 1
            if isinstance(item, str):
                left -= len(item)
            elif isinstance(item, dict):
                left -= NODE * len(item) + sum(map(len, item))
                inside.append(iter(item.values()))
                break
            elif isinstance(item, list):
                left -= NODE * len(item)
                inside.append(iter(item))
                break
            if gone_through >= PIECE:
                break
        else:
            inside.pop()
        if left < 0:
            raise FlowFailure(f"a value became larger than {MAX_SIZE} bytes")
        if len(inside) > MAX_DEPTH + 1:
            raise FlowFailure(f"a value became deeper than {MAX_DEPTH} levels")
        if gone_through >= PIECE:
            gone_through = 0
            await pause()
    return value


class Kept:
    """How large the things are that a run keeps (rule 3). A flow that is called has its own, and takes from the same room."""

    __slots__ = ("_sizes", "room")

    def __init__(self, room: int = MAX_KEPT) -> None:
        self.room = room
        """What may still be kept; below nothing where there was no room for what was put."""
        self._sizes: dict[tuple[str, str], int] = {}

    def put(self, place: tuple[str, str], value: object) -> None:
        """Count a value in place of what was there."""
        size = NODE
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict | list):  # most are cards: writing one takes a twentieth of walking through it
            size += len(msgspec.json.encode(value))
        self.room -= size - self._sizes.get(place, 0)
        self._sizes[place] = size
