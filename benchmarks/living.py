"""Rows about a living worker: the storm, and what following costs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from measure import Row

from storm import storm

TURNS = 1_000_000


def storm_rows(scratch: Path) -> list[Row]:
    turns = int(os.environ.get("STORM_TURNS") or TURNS)
    with storm(scratch / "storm") as blowing:
        began = time.perf_counter()
        found = blowing.run(turns)
        seconds = time.perf_counter() - began
        assert blowing.end() == 0
    return [
        (
            f"a storm of {found.turns:,} turns on two processes in {seconds:.0f} s, {found.flips} changes",
            f"{found.failed} failed",
            f"{found.lost} of the {found.held} connections of a killed process broke, apart",
            "",
            "0 failed",
        )
    ]
