"""A ramp as the environment document holds it: how far traffic of a deployment has moved to a new revision (keys that others ignore). Pure.

Rules:
1. Everything stands in one member of the document, `greentic:ramp`, by deployment. So a ramp survives whoever carries it out.
2. Only a ramp that is `running` concerns a worker: it counts the turns of a control slice of the old revision, as large as the share
   of the new one.
3. A slice is drawn by a hash of its own, independent of which revision a client has: it is as the rest of the old revision's clients.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from greentic.ground.documents import Document, from_json, json_object, replace
from greentic.ground.errors import SpecViolation
from greentic.model.environment import Environment, SplitEntry
from greentic.model.ids import Timestamp, Ulid

MEMBER = "greentic:ramp"
WHOLE = 10_000

State = Literal["running", "done", "aborted"]


class Ramp(Document, frozen=True, kw_only=True):
    """One ramp of one deployment."""

    deployment_id: Ulid
    to: Ulid
    """The new revision."""
    old: Ulid
    """The revision that had all the traffic, and gets it back."""
    steps: list[int]
    """Basis points for the new revision, rising, the last 10,000."""
    step: int = 0
    """The index of the step that runs."""
    pause_seconds: float
    max_errors: float
    """How much larger than the control slice's the share of failed turns may be."""
    max_p99: float
    """How much slower than the control slice's the p99 may be, as a share of it."""
    min_turns: int
    at: list[str] = msgspec.field(default_factory=list)
    """Where workers are asked."""
    generation: int = 0
    """Of the split that the ramp wrote last."""
    reference_p99: float | None = None
    """Seconds; of the control slice in the last step that had one."""
    state: State = "running"
    reason: str = ""
    updated_at: Timestamp

    @property
    def weight(self) -> int:
        """Basis points of the new revision now."""
        return self.steps[self.step]

    def entries(self) -> list[SplitEntry]:
        """The split of the step that runs; the old revision stays warm until the end."""
        return [
            SplitEntry(revision_id=self.old, weight_bps=WHOLE - self.weight),
            SplitEntry(revision_id=self.to, weight_bps=self.weight),
        ]


class ControlSlice(msgspec.Struct, frozen=True):
    """Clients of the old revision that are counted apart."""

    revision_id: str
    name: str
    """What the slice is drawn by."""
    share: float
    """Of the old revision's clients."""


def ramps_of(env: Environment) -> dict[str, Ramp]:
    """The ramps of an environment by deployment. Raises `SpecViolation`."""
    raw = env.extra.get(MEMBER)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise SpecViolation(f"`{MEMBER}` is no object of ramps by deployment")
    return {key: _read(value) for key, value in raw.items()}


def _read(raw: object) -> Ramp:
    ramp = from_json(Ramp, raw)
    if not ramp.steps or not 0 <= ramp.step < len(ramp.steps):
        raise SpecViolation(f"the ramp of deployment `{ramp.deployment_id}` has no step {ramp.step}")
    return ramp


def with_ramp(env: Environment, ramp: Ramp) -> Environment:
    """The environment with this ramp as that of its deployment."""
    others = env.extra.get(MEMBER)
    ramps = dict(others) if isinstance(others, dict) else {}
    return replace(env, extra={**env.extra, MEMBER: ramps | {ramp.deployment_id: json_object(ramp)}})


def control_slice(env: Environment, deployment_id: str) -> ControlSlice | None:
    """The control slice of a deployment, if a ramp runs that leaves the old revision some traffic (rule 2)."""
    ramps = env.extra.get(MEMBER)
    if not isinstance(ramps, dict) or deployment_id not in ramps:
        return None
    try:
        ramp = _read(ramps[deployment_id])  # of its own alone: another one concerns another deployment
    except SpecViolation:
        return None  # it concerns who reads counts, not who asks the worker
    if ramp.state != "running" or ramp.weight >= WHOLE:
        return None
    return ControlSlice(ramp.old, f"control:{ramp.to}", min(1.0, ramp.weight / (WHOLE - ramp.weight)))
