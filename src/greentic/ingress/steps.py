"""The steps of one turn, for a trusted caller who asks for them (`X-Greentic-Steps`; formats: worker 10).

Rules:
1. Only a trusted peer gets steps, and only those of its own turn; nobody else's request is looked at, and nothing is kept.
2. They are bounded: so many steps, so many lines, so many bytes of a value. What is beyond is counted or cut, and said.
3. A value is written down when its node ran, for a later node may change it.
"""

from __future__ import annotations

import msgspec

from greentic.ground.clock import Clock
from greentic.ground.documents import Json, JsonObject

MAX_STEPS = 200
MAX_LINES = 200
MAX_VALUE = 16 << 10
"""Bytes of an input or output, as JSON."""
SHOWN = 2_000
"""Characters of one that is larger."""


class Steps:
    """Writes down what a run tells (`flow.ports.Trace`)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()
        self._rows: list[JsonObject] = []
        self._said: list[Json] = []
        self._left_out = self._lines = 0

    def enter(self, flow_id: str, node_id: str, kind: str) -> None:
        """A node begins; it is written down when it is done."""

    def step(self, flow_id: str, node_id: str, kind: str, payload: object, output: object, then: str) -> None:
        """One node ran; it took the time since the one before it."""
        now = self._clock.monotonic()
        took, self._last = now - self._last, now
        log, self._said = self._said, []
        if len(self._rows) >= MAX_STEPS:
            self._left_out += 1
            return
        self._rows.append(
            {"flow": flow_id, "node": node_id, "kind": kind, "seconds": round(took, 6), "input": _bounded(payload),
             "output": _bounded(output), "then": then, "log": log}
        )  # fmt: skip

    def said(self, component: str, stream: str, text: str) -> None:
        """A component wrote a line while a node ran."""
        self._lines += 1
        if self._lines <= MAX_LINES:
            self._said.append({"source": f"component {component} ({stream})", "text": text})

    def told(self) -> JsonObject:
        """All of it. Lines that belong to no step were written by the node that failed."""
        return {
            "steps": [*self._rows],
            "left_out": self._left_out,
            "log": self._said,
            "lines_left_out": max(0, self._lines - MAX_LINES),
        }


def _bounded(value: object) -> Json:
    data = msgspec.json.encode(value)
    if len(data) <= MAX_VALUE:
        return msgspec.Raw(data)  # type: ignore[return-value]  # JSON that is written as it is
    return {"cut": data[: SHOWN * 4].decode(errors="replace")[:SHOWN], "bytes": len(data)}
