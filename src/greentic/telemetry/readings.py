"""What was read from the counters at one moment, as a value that adds up with others and goes to a file. Pure.

Rules:
1. A reading is a list of numbers: one of a counter or gauge; of a histogram the count of each bucket and, last, the sum.
2. Processes and their past add up family by family, each as its row says (`families`). Of a process that is gone only what is a
   sum for good counts: its counters and histograms.
3. The packed form is a row of frames, so that neither writing nor reading a large one holds anybody up. A file of an unknown
   family, or one that is damaged, adds nothing from there on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from greentic.telemetry.families import FAMILIES

Labels = tuple[str, ...]
Row = tuple[str, Labels, list[float]]
"""Family, values of its labels, and numbers."""
FRAME_ROWS = 500
_LENGTH = 4
_rows = msgspec.msgpack.Decoder(list[Row])


class Others(msgspec.Struct, frozen=True):
    """What the other processes of a worker told."""

    alive: list[bytes] = []
    gone: list[bytes] = []
    answered: int = 0


class Told(msgspec.Struct, frozen=True):
    """What the other processes of a worker say of themselves."""

    statuses: list[bytes] = []
    silent: int = 0
    """How many did not answer in time."""


class Siblings(Protocol):
    async def gathered(self) -> Others:
        """The packed readings of the other processes. Raises `Conflict` or `OSError`."""
        ...

    async def statuses(self) -> Told:
        """The statuses of the other processes, as JSON. Raises `OSError`."""
        ...


class NoSiblings:
    """The one process of a worker."""

    async def gathered(self) -> Others:
        return Others()

    async def statuses(self) -> Told:
        return Told()


class Readings:
    """The sum of what was put in."""

    def __init__(self) -> None:
        self.families: dict[str, dict[Labels, list[float]]] = {}

    def add(self, row: Row, *, alive: bool = True) -> None:
        """Add one row; that of a process that is gone as rule 2 says."""
        name, labels, numbers = row
        family = FAMILIES.get(name)
        if family is None or (not alive and family.kind in ("gauge", "info")):
            return
        found = self.families.setdefault(name, {})
        before = found.get(labels)
        if before is None or len(before) != len(numbers):
            found[labels] = list(numbers)
        elif family.adding == "sum":
            found[labels] = [a + b for a, b in zip(before, numbers, strict=True)]
        else:
            pick = max if family.adding == "most" else min
            found[labels] = [pick(a, b) for a, b in zip(before, numbers, strict=True)]

    def rows(self) -> Iterator[Row]:
        """Everything, family by family in the order of the table."""
        for name in FAMILIES:
            for labels, numbers in self.families.get(name, {}).items():
                yield name, labels, numbers


def packed(rows: Iterable[Row]) -> Iterator[bytes]:
    """Rows as frames (rule 3)."""
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) == FRAME_ROWS:
            yield _frame(held)
            held = []
    if held:
        yield _frame(held)


def _frame(rows: list[Row]) -> bytes:
    data = msgspec.msgpack.encode(rows)
    return len(data).to_bytes(_LENGTH, "big") + data


def unpacked(data: bytes) -> Iterator[list[Row]]:
    """The rows of each frame."""
    at = 0
    while at + _LENGTH <= len(data):
        end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "big")
        if end > len(data):
            return
        try:
            yield _rows.decode(data[at + _LENGTH : end])
        except msgspec.MsgspecError:
            return
        at = end
