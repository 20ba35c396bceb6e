"""`op traffic`: set, show, rollback, clear (formats: op 4).

Checks of `set`, in order: entries parse, environment loads, revisions exist and belong to the deployment (all before the
log), then under the lock: deployment, revisions again, idempotency, readiness, weights.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from greentic.deployments.bundles import find_deployment
from greentic.deployments.revisions import find_revision
from greentic.deployments.ulids import revision_ulid
from greentic.ground.clock import timestamp
from greentic.ground.documents import Json, JsonObject, from_json, replace
from greentic.ground.errors import Conflict, InvalidArgument, NotFound, SpecViolation
from greentic.ground.reply import Reply
from greentic.model.environment import Environment, SplitEntry, TrafficSplit
from greentic.model.ids import check_env_id, check_ulid
from greentic.model.lifecycle import way_to_ready
from greentic.model.traffic import check_weights, next_split, put_split, same_entries, unstash, without_split
from greentic.operate.change import Context, Done, Idempotency, checked_key, run, whole
from greentic.operate.payload import Key, Payload, Ulid
from greentic.store.audit import Change, Generations
from greentic.store.environments import Transaction

DEFAULT_OPERATOR = "operator"


class SplitEntryPayload(Payload, frozen=True, kw_only=True):
    revision_id: Ulid
    weight_bps: Annotated[int | None, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 10_000})] = None
    weight_percent: Annotated[int | None, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 100})] = None


class TrafficSetPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: Ulid
    entries: list[SplitEntryPayload]
    idempotency_key: str
    updated_by: str = DEFAULT_OPERATOR
    authorization_ref: str | None = None


class TrafficShowPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: Ulid
    idempotency_key: str | None = None


class RollbackOptions(NamedTuple):
    """How far back; nothing means one step."""

    to: str | None = None
    """A retained revision that takes everything."""


ONE_STEP_BACK = RollbackOptions()


class TrafficClearPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: Ulid
    survivor: Annotated[str | None, msgspec.Meta(description="a ready revision that takes everything")] = None
    idempotency_key: Key | None = None
    updated_by: str = DEFAULT_OPERATOR


class EntrySummary(Reply, frozen=True, kw_only=True):
    revision_id: str
    weight_bps: int
    """Of 10,000."""


class SplitSummary(Reply, frozen=True, kw_only=True):
    """What the verbs tell about a deployment's split."""

    environment_id: str
    deployment_id: str
    bundle_id: str
    generation: int
    entries: list[EntrySummary]
    has_previous: bool
    """Whether it can be rolled back."""


class TrafficCleared(Reply, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: str
    mode: Literal["survivor", "cleared"]
    changed: bool
    survivor: str | UnsetType = UNSET
    split: SplitSummary | UnsetType = UNSET
    """With a survivor: what routes everything to it."""
    cleared_generation: int | None | UnsetType = UNSET
    """Without one: the split that went away, if there was any."""


def summary(split: TrafficSplit) -> SplitSummary:
    return SplitSummary(
        environment_id=split.env_id,
        deployment_id=split.deployment_id,
        bundle_id=split.bundle_id,
        generation=split.generation,
        entries=[EntrySummary(revision_id=e.revision_id, weight_bps=e.weight_bps) for e in split.entries],
        has_previous=split.previous_split_ref is not None,
    )


def set_traffic(context: Context, payload: TrafficSetPayload) -> SplitSummary:
    """Replace the deployment's split. The same key and entries again change nothing."""
    env_id = check_env_id(payload.environment_id)
    deployment_id = check_ulid(payload.deployment_id, field="deployment_id")
    entries = [_entry(e) for e in payload.entries]
    key = checked_key(payload.idempotency_key) or ""
    _check_revisions(context.store.load(env_id), deployment_id, entries)
    change = Change(env_id, "traffic", "set", {"deployment_id": deployment_id}, key)

    def action(transaction: Transaction) -> Done[SplitSummary]:
        env = transaction.load()
        deployment = find_deployment(env, deployment_id)
        _check_revisions(env, deployment_id, entries)
        current = env.split(deployment_id)
        if current is not None and current.idempotency_key == key:
            if not same_entries(current.entries, entries):
                raise Conflict(
                    f"idempotency key `{key}` already used for deployment `{deployment_id}` with different entries",
                    hint="use a new key for a new split",
                )
            transaction.refresh_projection(env)
            return Done(summary(current))
        _check_ready(env, entries)
        check_weights(entries)
        split = next_split(
            env,
            deployment_id=deployment_id,
            bundle_id=deployment.bundle_id,
            entries=entries,
            updated_at=timestamp(context.clock.now_ns()),
            updated_by=payload.updated_by,
            idempotency_key=key,
            authorization_ref=payload.authorization_ref or "auth.json",
        )
        return _put(transaction, env, current, split, change.target)

    weights: list[Json] = [[e.revision_id, e.weight_bps] for e in sorted(entries, key=lambda e: e.revision_id)]
    return run(
        context, change, action, idempotency=Idempotency(key, deployment_id, weights, SplitSummary), spec_errors=True
    )


def show(context: Context, payload: TrafficShowPayload) -> SplitSummary:
    env_id = check_env_id(payload.environment_id)
    deployment_id = check_ulid(payload.deployment_id, field="deployment_id")
    return summary(_split(context.store.load(env_id), deployment_id))


def rollback(context: Context, payload: TrafficShowPayload, options: RollbackOptions = ONE_STEP_BACK) -> SplitSummary:
    """One step back, to the split before the current one, or everything to a retained revision; if they are still ready."""
    env_id = check_env_id(payload.environment_id)
    deployment_id = check_ulid(payload.deployment_id, field="deployment_id")
    key = checked_key(payload.idempotency_key)
    to, beside = options.to, dict[str, Json]()
    if to is not None:
        to = check_ulid(revision_ulid(context, env_id, to, deployment_id), field="to")
        beside = {"to": to}
    target: JsonObject = {"deployment_id": deployment_id, **beside}
    asked = whole(payload, **beside)
    change = Change(env_id, "traffic", "rollback", target, key or context.mint())

    def action(transaction: Transaction) -> Done[SplitSummary]:
        env = transaction.load()
        current = _split(env, deployment_id)
        if to is not None:
            return _all_to(context, transaction, env, current, to, target)
        stashed = unstash(current.previous_split_ref)
        if stashed is None:
            raise Conflict(f"traffic split for `{deployment_id}` has no prior version to roll back to")
        previous = from_json(TrafficSplit, stashed)
        if previous.deployment_id != deployment_id:
            raise SpecViolation(f"the stashed split belongs to deployment `{previous.deployment_id}`")
        _check_revisions(env, deployment_id, previous.entries)
        _check_ready(env, previous.entries)
        restored = replace(
            previous,
            generation=current.generation + 1,
            updated_at=timestamp(context.clock.now_ns()),
            idempotency_key=f"rollback-{current.idempotency_key}",
            previous_split_ref=None,
        )
        return _put(transaction, env, current, restored, target)

    return run(
        context,
        change,
        action,
        idempotency=Idempotency(key, deployment_id, asked, SplitSummary),
        spec_errors=True,
    )


def _all_to(
    context: Context,
    transaction: Transaction,
    env: Environment,
    current: TrafficSplit,
    revision_id: str,
    target: JsonObject,
) -> Done[SplitSummary]:
    """Route everything to one revision that is still there."""
    entries = [SplitEntry(revision_id=revision_id, weight_bps=10_000)]
    _check_revisions(env, current.deployment_id, entries)
    _check_ready(env, entries)
    split = next_split(
        env,
        deployment_id=current.deployment_id,
        bundle_id=current.bundle_id,
        entries=entries,
        updated_at=timestamp(context.clock.now_ns()),
        updated_by=DEFAULT_OPERATOR,
        idempotency_key=f"rollback-{context.mint()}",
        authorization_ref=current.authorization_ref,
    )
    return _put(transaction, env, current, split, target)


def _put(
    transaction: Transaction, env: Environment, before: TrafficSplit | None, split: TrafficSplit, target: JsonObject
) -> Done[SplitSummary]:
    """Save the document with a split in place of the one before."""
    env = put_split(env, split)
    transaction.save(env)
    transaction.refresh_projection(env)
    generations = Generations(None if before is None else before.generation, split.generation)
    return Done(summary(split), generations, _told(target, before, split))


def _told(target: JsonObject, before: TrafficSplit | None, after: TrafficSplit | None) -> JsonObject:
    """What the log says of a change: of which deployment, and from which weights to which."""
    return target | {"weights_before": _weights(before), "weights": _weights(after)}


def _weights(split: TrafficSplit | None) -> list[Json]:
    return [[e.revision_id, e.weight_bps] for e in (split.entries if split is not None else ())]


def clear(context: Context, payload: TrafficClearPayload) -> TrafficCleared:
    """Give everything to one survivor, or take a retiring deployment's split away."""
    env_id = check_env_id(payload.environment_id)
    deployment_id = check_ulid(payload.deployment_id, field="deployment_id")
    key = checked_key(payload.idempotency_key)
    if payload.survivor is not None:
        return _to_survivor(context, payload, env_id, deployment_id, check_ulid(payload.survivor, field="survivor"))
    change = Change(
        env_id, "traffic", "clear", {"deployment_id": deployment_id, "survivor": None}, key or context.mint()
    )

    def action(transaction: Transaction) -> Done[TrafficCleared]:
        env = transaction.load()
        deployment = find_deployment(env, deployment_id)
        current = env.split(deployment_id)
        if deployment.status != "archived" and current is not None:
            raise Conflict(
                f"deployment `{deployment_id}` is not retiring (status `{deployment.status.capitalize()}`): clearing its "
                "split would take it offline",
                hint="set its status to archived first, or name a --survivor",
            )
        if current is not None:
            env = without_split(env, deployment_id)
            transaction.save(env)
        transaction.refresh_projection(env)
        gone = None if current is None else current.generation
        result = TrafficCleared(
            environment_id=env_id,
            deployment_id=deployment_id,
            mode="cleared",
            changed=current is not None,
            cleared_generation=gone,
        )
        return Done(result, Generations(gone, None), _told(change.target, current, None))

    idempotency = Idempotency(key, deployment_id, whole(payload), TrafficCleared)
    return run(context, change, action, idempotency=idempotency, spec_errors=True)


def _to_survivor(
    context: Context, payload: TrafficClearPayload, env_id: str, deployment_id: str, survivor: str
) -> TrafficCleared:
    before = context.store.load(env_id).split(deployment_id)
    split = set_traffic(
        context,
        TrafficSetPayload(
            environment_id=env_id,
            deployment_id=deployment_id,
            entries=[SplitEntryPayload(revision_id=survivor, weight_bps=10_000)],
            idempotency_key=payload.idempotency_key or f"traffic-clear:{deployment_id}:{survivor}",
            updated_by=payload.updated_by,
        ),
    )
    return TrafficCleared(
        environment_id=env_id,
        deployment_id=deployment_id,
        mode="survivor",
        survivor=survivor,
        changed=before is None or before.generation != split.generation,
        split=split,
    )


def _split(env: Environment, deployment_id: str) -> TrafficSplit:
    split = env.split(deployment_id)
    if split is None:
        raise NotFound(
            f"no traffic split for deployment `{deployment_id}` in env `{env.environment_id}`",
            hint=f"gtc op traffic set {env.environment_id} REV=100 --deployment {deployment_id} --idempotency-key KEY",
        )
    return split


def _entry(payload: SplitEntryPayload) -> SplitEntry:
    revision_id = check_ulid(payload.revision_id, field="revision_id")
    if payload.weight_bps is not None:
        if not 0 <= payload.weight_bps <= 2**32 - 1:
            raise InvalidArgument(f"weight_bps {payload.weight_bps} is out of range")
        return SplitEntry(revision_id=revision_id, weight_bps=payload.weight_bps)
    if payload.weight_percent is None:
        raise InvalidArgument("each entry must set weight_bps or weight_percent")
    if payload.weight_percent > 100:
        raise InvalidArgument(f"weight_percent {payload.weight_percent} > 100")
    if payload.weight_percent < 0:
        raise InvalidArgument(f"weight_percent {payload.weight_percent} < 0")
    return SplitEntry(revision_id=revision_id, weight_bps=payload.weight_percent * 100)


def _check_revisions(env: Environment, deployment_id: str, entries: list[SplitEntry]) -> None:
    known = {r.revision_id: r for r in env.revisions}
    for entry in entries:
        revision = known.get(entry.revision_id) or find_revision(env, entry.revision_id)
        if revision.deployment_id != deployment_id:
            raise InvalidArgument(
                f"revision `{entry.revision_id}` belongs to deployment `{revision.deployment_id}`, not `{deployment_id}`"
            )


def _check_ready(env: Environment, entries: list[SplitEntry]) -> None:
    known = {r.revision_id: r for r in env.revisions}
    for entry in entries:
        state = known[entry.revision_id].lifecycle
        if state != "ready":
            raise Conflict(
                f"revision `{entry.revision_id}` is `{state.capitalize()}`; only `Ready` revisions may receive traffic",
                hint=way_to_ready(state),
            )
