"""Which deployments two documents differ in, so that a change costs what it touches. Pure.

Rules:
1. A deployment is its record, its revisions, its split and its ramp. It is untouched only where all of them are the very records that the
   document before had (`model/elements.py` shares them), in the same order: what is only equal may differ, as `true` from 1.
2. Nothing of a deployment depends on another: a split names revisions of its own deployment alone (`model/validate.py`). What belongs to
   the environment as a whole is for whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from greentic.ground.documents import Document, compact, replace
from greentic.model import ramp_record
from greentic.model.environment import BundleDeployment, Environment, Revision, TrafficSplit

_D = TypeVar("_D", bound=Document)


def touched(old: Environment, new: Environment) -> frozenset[str]:
    """The deployments that are new, gone, or not in all as they were (rule 1)."""
    return frozenset(
        _differing(old.bundles, new.bundles, _of_deployment)
        | _differing(old.revisions, new.revisions, _of_revision)
        | _differing(old.traffic_splits, new.traffic_splits, _of_split)
        | _ramped(old, new)
    )


def every_deployment(env: Environment) -> frozenset[str]:
    """All deployments that a document has anything of."""
    return frozenset(
        {d.deployment_id for d in env.bundles}
        | {r.deployment_id for r in env.revisions}
        | {s.deployment_id for s in env.traffic_splits}
    )


def only(env: Environment, deployments: Collection[str]) -> Environment:
    """The environment with these deployments alone."""
    return replace(
        env,
        bundles=[d for d in env.bundles if d.deployment_id in deployments],
        revisions=[r for r in env.revisions if r.deployment_id in deployments],
        traffic_splits=[s for s in env.traffic_splits if s.deployment_id in deployments],
    )


def _of_deployment(record: BundleDeployment) -> str:
    return record.deployment_id


def _of_revision(record: Revision) -> str:
    return record.deployment_id


def _of_split(record: TrafficSplit) -> str:
    return record.deployment_id


def _differing(old: list[_D], new: list[_D], key: Callable[[_D], str]) -> set[str]:
    if len(old) == len(new):  # then what stands where nothing else stood stands in its order, too
        return {key(record) for pair in zip(old, new, strict=True) if pair[0] is not pair[1] for record in pair}
    before, after = _grouped(old, key), _grouped(new, key)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _grouped(records: Iterable[_D], key: Callable[[_D], str]) -> dict[str, list[int]]:
    """By deployment, which records it has; both documents live, so that no two of them have one identity."""
    found: dict[str, list[int]] = {}
    for record in records:
        found.setdefault(key(record), []).append(id(record))
    return found


def _ramped(old: Environment, new: Environment) -> set[str]:
    """The deployments whose ramps differ; what is no object of ramps concerns everybody."""
    before, after = (env.extra.get(ramp_record.MEMBER, {}) for env in (old, new))
    if not isinstance(before, dict) or not isinstance(after, dict):
        return set(every_deployment(old) | every_deployment(new))
    return {
        str(name)
        for name in before.keys() | after.keys()
        if name not in before or name not in after or compact(before[name]) != compact(after[name])
    }
