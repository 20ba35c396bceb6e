"""`op env-packs`: which pack serves which capability slot (formats: op 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from greentic.ground.documents import JsonObject, from_json, replace
from greentic.ground.errors import Conflict, InvalidArgument, NotFound, SpecViolation
from greentic.ground.nearest import one_of
from greentic.ground.reply import Reply
from greentic.model.descriptors import N_PER_ENV_SLOTS, SLOTS, split_descriptor
from greentic.model.environment import Environment, EnvPackBinding, Slot
from greentic.model.ids import check_env_id
from greentic.model.traffic import stash, unstash
from greentic.operate.change import Context, Done, Idempotency, checked_key, run, whole
from greentic.operate.payload import Key, NullableText, Payload
from greentic.store.audit import Change, Generations
from greentic.store.environments import Transaction

SlotName = Annotated[Slot, msgspec.Meta(extra_json_schema={"type": "string", "enum": list(SLOTS)})]
Kind = Annotated[str, msgspec.Meta(description="<path>@<semver>, such as greentic.deployer.k8s@1.0.0")]


class EnvPackBindingPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    slot: SlotName
    kind: Kind
    pack_ref: str
    answers_ref: NullableText = None
    idempotency_key: Key | None = None


class EnvPackRemovePayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    slot: SlotName
    idempotency_key: Key | None = None


class BindingSummary(Reply, frozen=True, kw_only=True):
    """What the verbs tell about a binding."""

    environment_id: str
    slot: str
    kind: str
    pack_ref: str
    generation: int
    has_previous: bool
    """Whether it can be rolled back."""
    warnings: list[str] | UnsetType = UNSET


class BindingList(Reply, frozen=True, kw_only=True):
    environment_id: str
    bindings: list[BindingSummary]


def summary(env_id: str, binding: EnvPackBinding) -> BindingSummary:
    return BindingSummary(
        environment_id=env_id,
        slot=binding.slot,
        kind=binding.kind,
        pack_ref=binding.pack_ref,
        generation=binding.generation,
        has_previous=binding.previous_binding_ref is not None,
    )


def add(context: Context, payload: EnvPackBindingPayload) -> BindingSummary:
    """Bind a free slot."""
    binding = _binding(payload)

    def action(transaction: Transaction) -> Done[BindingSummary]:
        env = transaction.load()
        if env.binding(payload.slot) is not None:
            raise Conflict(
                f"slot `{payload.slot}` already bound on env `{env.environment_id}`; use update",
                hint=f"gtc op env-packs update {env.environment_id} slot={payload.slot} kind={payload.kind} …",
            )
        transaction.save(replace(env, packs=[*env.packs, binding]))
        return Done(summary(env.environment_id, binding), Generations(None, binding.generation))

    return _run(context, payload, "add", payload.kind, action)


def update(context: Context, payload: EnvPackBindingPayload) -> BindingSummary:
    """Bind a bound slot to something else; the old binding is kept for one rollback."""
    fresh = _binding(payload)

    def action(transaction: Transaction) -> Done[BindingSummary]:
        env = transaction.load()
        old = _bound(env, payload.slot)
        binding = replace(
            fresh,
            generation=old.generation + 1,
            previous_binding_ref=stash(old, "previous_binding_ref"),
            extra=old.extra,
        )
        transaction.save(_with(env, binding))
        return Done(summary(env.environment_id, binding), Generations(old.generation, binding.generation))

    return _run(context, payload, "update", payload.kind, action)


def remove(context: Context, payload: EnvPackRemovePayload) -> BindingSummary:
    _check_slot(payload.slot)

    def action(transaction: Transaction) -> Done[BindingSummary]:
        env = transaction.load()
        old = _bound(env, payload.slot)
        transaction.save(replace(env, packs=[b for b in env.packs if b.slot != payload.slot]))
        return Done(summary(env.environment_id, old), Generations(old.generation, None))

    return _run(context, payload, "remove", None, action)


def rollback(context: Context, payload: EnvPackRemovePayload) -> BindingSummary:
    """Back to the binding before the current one; once."""
    _check_slot(payload.slot)

    def action(transaction: Transaction) -> Done[BindingSummary]:
        env = transaction.load()
        current = _bound(env, payload.slot)
        stashed = unstash(current.previous_binding_ref)
        if stashed is None:
            raise Conflict(
                f"slot `{payload.slot}` on env `{env.environment_id}` has no previous binding to roll back to"
            )
        restored = replace(
            from_json(EnvPackBinding, stashed), generation=current.generation + 1, previous_binding_ref=None
        )
        if restored.slot != payload.slot:
            raise SpecViolation(f"the stashed binding is for slot `{restored.slot}`")
        transaction.save(_with(env, restored))
        return Done(summary(env.environment_id, restored), Generations(current.generation, restored.generation))

    return _run(context, payload, "rollback", None, action)


def list_bindings(context: Context, env_id: str) -> BindingList:
    env = context.store.load(check_env_id(env_id, field="env_id"))
    return BindingList(environment_id=env.environment_id, bindings=[summary(env.environment_id, b) for b in env.packs])


def checked_binding(slot: str, kind: str, pack_ref: str, answers_ref: str | None) -> EnvPackBinding:
    """A new binding of generation 0. Where `answers_ref` leads is checked when it is read. Raises `InvalidArgument`."""
    _check_slot(slot)
    try:
        split_descriptor(kind)
    except SpecViolation as error:
        raise InvalidArgument(f"kind: {error.message}") from None
    return EnvPackBinding(slot=slot, kind=kind, pack_ref=pack_ref, answers_ref=answers_ref)  # type: ignore[arg-type]


def _binding(payload: EnvPackBindingPayload) -> EnvPackBinding:
    return checked_binding(payload.slot, payload.kind, payload.pack_ref, payload.answers_ref)


def _check_slot(slot: str) -> None:
    if slot in N_PER_ENV_SLOTS:
        raise InvalidArgument(
            f"slot `{slot}` is N-per-env and is not bound via `op env-packs`; use `{N_PER_ENV_SLOTS[slot]}` instead"
        )
    if slot not in SLOTS:
        raise InvalidArgument(f"slot: unknown slot `{slot}`{one_of(slot, SLOTS)}")


def _bound(env: Environment, slot: str) -> EnvPackBinding:
    binding = env.binding(slot)
    if binding is None:
        raise NotFound(f"slot `{slot}` not bound on env `{env.environment_id}`")
    return binding


def _with(env: Environment, binding: EnvPackBinding) -> Environment:
    return replace(env, packs=[binding if b.slot == binding.slot else b for b in env.packs])


def _run(
    context: Context,
    payload: EnvPackBindingPayload | EnvPackRemovePayload,
    verb: str,
    kind: str | None,
    action: Callable[[Transaction], Done[BindingSummary]],
) -> BindingSummary:
    env_id = check_env_id(payload.environment_id)
    key = checked_key(payload.idempotency_key)
    target: JsonObject = {"slot": payload.slot} if kind is None else {"slot": payload.slot, "kind": kind}
    return run(
        context,
        Change(env_id, "env-packs", verb, target, key or context.mint()),
        action,
        idempotency=Idempotency(key, payload.slot, whole(payload), BindingSummary),
    )
