"""`op delivery`: mirrors, signatures and revocations of an environment (`greentic:delivery`, keys that others ignore)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from greentic.distribute.mirrors import check_mirror
from greentic.distribute.sources import settled
from greentic.ground.documents import replace
from greentic.ground.errors import InvalidArgument
from greentic.ground.reply import Reply
from greentic.model.delivery import Delivery, Mode, check_policy, delivery_of, with_delivery
from greentic.model.environment import Environment, Revocation
from greentic.model.ids import check_env_id
from greentic.net.document import check_small
from greentic.operate.change import Context, Done, run
from greentic.operate.payload import Payload
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.trust.keys import is_key_id
from greentic.trust.policy import unsatisfiable

MAX_GENERATION = 2**52
"""Any larger number is a mistake, and what all readers of JSON keep."""


class DeliverySetPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    mirrors: Annotated[
        list[str] | None, msgspec.Meta(description="templates with {sha256}, {digest} or {name}, tried in order")
    ] = None
    signatures: Annotated[Mode | None, msgspec.Meta(description="what bundles' signatures are worth")] = None
    keys: Annotated[list[str] | None, msgspec.Meta(description="key ids that count; none: all of the trust root")] = (
        None
    )
    threshold: (
        Annotated[int, msgspec.Meta(ge=1, le=16, description="how many different keys must have signed")] | None
    ) = None
    revocations: Annotated[str | None, msgspec.Meta(description="where the signed list of revoked bundles is")] = None
    revocations_required: Annotated[bool | None, msgspec.Meta(description="refuse to boot without a good list")] = None
    generation: (
        Annotated[
            int,
            msgspec.Meta(ge=1, le=MAX_GENERATION, description="the document's next one, above what workers have seen"),
        ]
        | None
    ) = None


class DeliveryShown(Reply, frozen=True, kw_only=True):
    """How bundles reach the workers of an environment, and what must be true of them."""

    environment_id: str
    generation: int
    mirrors: list[str]
    signatures: Mode
    keys: list[str]
    threshold: int
    trusted_keys: list[str]
    """Their ids."""
    sealed: bool
    revocations: str | None
    revocations_required: bool


def shown(env: Environment) -> DeliveryShown:
    """What an environment's document says of its delivery. Raises `SpecViolation`."""
    delivery = delivery_of(env)
    return DeliveryShown(
        environment_id=env.environment_id,
        generation=delivery.generation,
        mirrors=delivery.mirrors,
        signatures=delivery.signatures.mode,
        keys=delivery.signatures.keys,
        threshold=delivery.signatures.threshold,
        trusted_keys=list(delivery.keys),
        sealed=delivery.seal is not None,
        revocations=env.revocation.list_ref,
        revocations_required=env.revocation.required,
    )


def show(context: Context, env_id: str) -> DeliveryShown:
    """The delivery of an environment, as it stands."""
    return shown(context.store.load(check_env_id(env_id, field="env_id")))


def set_delivery(context: Context, payload: DeliverySetPayload) -> DeliveryShown:
    """Change what is given, leave the rest; from then on the environment is sealed at every change."""
    env_id = check_env_id(payload.environment_id)
    if payload.revocations:
        where = check_small(settled(payload.revocations, "the revocation list"), "the revocation list")
        payload = msgspec.structs.replace(payload, revocations=where)
    for key in payload.keys or ():
        if not is_key_id(key):
            raise InvalidArgument(f"keys: `{key}` is no id of a key; expected 32 hex digits, as gtc bundle sign prints")
    mirrors = None if payload.mirrors is None else [check_mirror(text) for text in payload.mirrors]
    change = Change(env_id, "delivery", "set", {"signatures": payload.signatures}, context.mint())

    def action(transaction: Transaction) -> Done[DeliveryShown]:
        env = transaction.load()
        before: Delivery = delivery_of(env)
        policy = check_policy(
            replace(
                before.signatures,
                mode=payload.signatures or before.signatures.mode,
                keys=before.signatures.keys if payload.keys is None else [k.lower() for k in payload.keys],
                threshold=before.signatures.threshold if payload.threshold is None else payload.threshold,
            )
        )
        trusted = transaction.store.trust_root(env_id).public_keys()
        unknown = [key for key in payload.keys or () if key.lower() not in {known.lower() for known in trusted}]
        if unknown and policy.mode == "require":
            raise InvalidArgument(
                f"keys: `{unknown[0]}` is not in the trust root, so its signatures would count for nothing",
                hint=f"trust it first: gtc op trust-root add {env_id}",
            )
        why = unsatisfiable(policy, trusted)
        if why is not None:
            raise InvalidArgument(
                f"{why}; every bundle would be refused, and nobody is never read as anybody",
                hint=f"trust a key first: gtc op trust-root add {env_id}, or gtc op trust-root bootstrap {env_id}",
            )
        delivery = replace(before, mirrors=before.mirrors if mirrors is None else mirrors, signatures=policy)
        if payload.generation is not None:
            if payload.generation <= before.generation:
                raise InvalidArgument(
                    f"generation: {payload.generation} is not above {before.generation}, which the document has; generations only grow"
                )
            delivery = replace(delivery, generation=payload.generation - 1)  # saving counts one on
        env = with_delivery(env, delivery)
        if payload.revocations is not None or payload.revocations_required is not None:
            now: Revocation = env.revocation
            required = now.required if payload.revocations_required is None else payload.revocations_required
            where = payload.revocations if payload.revocations is not None else now.list_ref
            env = replace(env, revocation=replace(now, required=required, list_ref=where or None))
        transaction.save(env)
        return Done(shown(transaction.load()))

    return run(context, change, action)
