"""How large a value may be that a flow makes. Pure.

Rules:
1. Templates can double a value in every step. What is made is measured as it would be written, values that stand in several
   places counted in each, before it is kept or sent anywhere.
2. Depth is bounded too: readers and writers of JSON and CBOR descend as deep as the value goes.
3. So is the sum of all that a run keeps: outputs of nodes, variables, and what it said. A run has many nodes.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from greentic.ground.errors import FlowFailure

MAX_DEPTH = 128
MAX_SIZE = 4 << 20
"""Characters of the texts of a value, and `NODE` for each of its members."""
MAX_KEPT = 64 << 20
"""Bytes, as it would be written, of all that a run keeps together."""
NODE = 8

T = TypeVar("T")


def bounded(value: T) -> T:
    """The value itself. Raises `FlowFailure` for one that is too large or too deep."""
    if isinstance(value, str | dict | list):
        left = _left(value, MAX_SIZE, MAX_DEPTH)
        if left < 0:
            raise FlowFailure(f"a value became larger than {MAX_SIZE} bytes")
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


def _left(value: object, left: int, depth: int) -> int:
    if isinstance(value, str):
        return left - len(value)
    if isinstance(value, dict):
        if depth <= 0:
            raise FlowFailure(f"a value became deeper than {MAX_DEPTH} levels")
        for key, item in value.items():
            left -= NODE + len(key)
            if isinstance(item, str | dict | list):
                left = _left(item, left, depth - 1)
            if left < 0:
                break
    elif isinstance(value, list):
        if depth <= 0:
            raise FlowFailure(f"a value became deeper than {MAX_DEPTH} levels")
        left -= NODE * len(value)
        for item in value:
            if left < 0:
                break
            if isinstance(item, str | dict | list):
                left = _left(item, left, depth - 1)
    return left
