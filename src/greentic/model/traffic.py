"""Traffic splits: arithmetic, replacement, rollback (formats: environment 7; op 4).

Rules:
1. Weights are basis points; each is at most 10000 and together they are exactly 10000.
2. A new split stashes the one before it as an inline token, so that there is exactly one step back.
3. Generations of a deployment's splits only grow; a rollback is a new generation.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence

from greentic.ground.documents import Document, Json, compact, json_object, parse, replace
from greentic.ground.errors import SpecViolation
from greentic.model.environment import SPLIT_SCHEMA, Environment, Revision, SplitEntry, TrafficSplit

WHOLE = 10_000
STASH_PREFIX = "inline://"


def check_weights(entries: Iterable[SplitEntry]) -> None:
    """Raise `SpecViolation` unless the weights obey rule 1."""
    total = 0
    for entry in entries:
        if entry.weight_bps > WHOLE:
            raise SpecViolation(f"basis-points entry exceeds {WHOLE}: {entry.weight_bps}")
        total += entry.weight_bps
    if total != WHOLE:
        raise SpecViolation(
            f"basis-points entries must sum to {WHOLE}, got {total}",
            hint="weights are percent (REV=90), or basis points where they say so (REV=9000bps); together they are the whole",
        )


def same_entries(left: Sequence[SplitEntry], right: Sequence[SplitEntry]) -> bool:
    """Whether two splits route alike; the order of entries does not matter."""
    return sorted((e.revision_id, e.weight_bps) for e in left) == sorted((e.revision_id, e.weight_bps) for e in right)


def wanted_revisions(env: Environment) -> list[Revision]:
    """The routed revisions of active deployments, in the order of the document."""
    active = {d.deployment_id for d in env.bundles if d.status == "active"}
    routed = {
        (split.deployment_id, entry.revision_id)
        for split in env.traffic_splits
        if split.deployment_id in active
        for entry in split.entries
    }
    return [r for r in env.revisions if (r.deployment_id, r.revision_id) in routed]


def stash(document: Document, own_ref: str) -> str:
    """The token that holds `document` without its own stash (rule 2; keys sorted, as other writers do)."""
    value = json_object(document)
    value.pop(own_ref, None)
    return STASH_PREFIX + base64.urlsafe_b64encode(compact(value, sort=True)).decode().rstrip("=")


def unstash(token: str | None) -> Json:
    """What a token holds; `None` for anything that is no token."""
    if token is None or not token.startswith(STASH_PREFIX):
        return None
    text = token[len(STASH_PREFIX) :]
    try:
        return parse(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None


def next_split(
    env: Environment,
    *,
    deployment_id: str,
    bundle_id: str,
    entries: list[SplitEntry],
    updated_at: str,
    updated_by: str,
    idempotency_key: str,
    authorization_ref: str,
) -> TrafficSplit:
    """The split that replaces the deployment's current one, if any."""
    current = env.split(deployment_id)
    return TrafficSplit(
        schema=SPLIT_SCHEMA,
        env_id=env.environment_id,
        deployment_id=deployment_id,
        bundle_id=bundle_id,
        generation=0 if current is None else current.generation + 1,
        entries=entries,
        updated_at=updated_at,
        updated_by=updated_by,
        idempotency_key=idempotency_key,
        authorization_ref=authorization_ref,
        previous_split_ref=None if current is None else stash(current, "previous_split_ref"),
        extra={} if current is None else current.extra,
    )


def put_split(env: Environment, split: TrafficSplit) -> Environment:
    """The environment with `split` as its deployment's split, in the place of the old one or at the end."""
    splits = list(env.traffic_splits)
    for index, old in enumerate(splits):
        if old.deployment_id == split.deployment_id:
            splits[index] = split
            return replace(env, traffic_splits=splits)
    return replace(env, traffic_splits=[*splits, split])


def without_split(env: Environment, deployment_id: str) -> Environment:
    return replace(env, traffic_splits=[s for s in env.traffic_splits if s.deployment_id != deployment_id])


def rescale(entries: Sequence[SplitEntry]) -> list[SplitEntry]:
    """The entries scaled to exactly 10000; what rounding leaves goes to the heaviest. Empty if nothing weighs anything."""
    total = sum(e.weight_bps for e in entries)
    if not total:
        return []
    scaled = [replace(e, weight_bps=e.weight_bps * WHOLE // total) for e in entries]
    heaviest = max(range(len(scaled)), key=lambda i: scaled[i].weight_bps)
    missing = WHOLE - sum(e.weight_bps for e in scaled)
    scaled[heaviest] = replace(scaled[heaviest], weight_bps=scaled[heaviest].weight_bps + missing)
    return scaled


def equal_weights(count: int) -> list[int]:
    """`count` weights as equal as whole basis points allow; the first ones take the remainder."""
    share, rest = divmod(WHOLE, count)
    return [share + (1 if index < rest else 0) for index in range(count)]
