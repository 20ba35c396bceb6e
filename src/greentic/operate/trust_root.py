"""`op trust-root`: whose signatures an environment believes (formats: op 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from greentic.ground.disk import io_error
from greentic.ground.documents import JsonObject, read_given
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.ground.reply import Reply
from greentic.model.delivery import MEMBER, delivery_of
from greentic.model.ids import check_env_id
from greentic.operate.change import Context, Done, Idempotency, R, checked_key, run
from greentic.operate.payload import NullableText, Payload, refuse_secrets
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.store.operator_key import load_or_generate
from greentic.trust.keys import MAX_PEM, KeyFormatError, public_pem, read_public_pem
from greentic.trust.policy import unsatisfiable
from greentic.trust.root import TrustRoot, add_key, remove_key


class TrustRootBootstrapPayload(Payload, frozen=True, kw_only=True):
    environment_id: str


class TrustRootAddPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    key_id: Annotated[str, msgspec.Meta(description="32 hex characters, derived from the key")]
    public_key_pem: Annotated[
        str | None, msgspec.Meta(description="the key itself", extra_json_schema={"type": ["string", "null"]})
    ] = None
    public_key_file: Annotated[
        str | None, msgspec.Meta(description="a file that holds it", extra_json_schema={"type": ["string", "null"]})
    ] = None
    idempotency_key: NullableText = None


class TrustRootRemovePayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    key_id: str
    idempotency_key: NullableText = None


class OperatorTrusted(Reply, frozen=True, kw_only=True):
    environment_id: str
    operator_key_id: str
    operator_public_key_pem: str
    trusted_key_count: int


class TrustedKeyShown(Reply, frozen=True, kw_only=True):
    key_id: str
    public_key_pem: str


class TrustedKeys(Reply, frozen=True, kw_only=True):
    environment_id: str
    keys: list[TrustedKeyShown]


class KeyAdded(Reply, frozen=True, kw_only=True):
    environment_id: str
    added_key_id: str
    trusted_key_count: int


class KeyRemoved(Reply, frozen=True, kw_only=True):
    environment_id: str
    removed_key_id: str
    removed_public_key_pem: str | None
    """Nothing where the key was not there."""
    trusted_key_count: int
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


def trust_operator(context: Context, transaction: Transaction) -> OperatorTrusted:
    """Load or generate the operator's key and trust it; what `bootstrap` and `env init` tell about it."""
    store = context.store
    key = load_or_generate(store.disk, store.random)
    pem = public_pem(key.public)
    root = add_key(store.trust_root(transaction.env_id), key.key_id, pem)
    transaction.save_trust_root(root)
    return OperatorTrusted(
        environment_id=transaction.env_id,
        operator_key_id=key.key_id,
        operator_public_key_pem=pem,
        trusted_key_count=len(root.keys),
    )


def bootstrap(context: Context, payload: TrustRootBootstrapPayload) -> OperatorTrusted:
    """Trust the operator's own key, generating it if there is none. An environment that does not exist trusts nobody."""
    env_id = check_env_id(payload.environment_id)
    change = Change(env_id, "trust-root", "bootstrap", {"environment_id": env_id})
    return run(context, change, lambda transaction: _resealed(transaction, Done(trust_operator(context, transaction))))


def list_keys(context: Context, env_id: str) -> TrustedKeys:
    env_id = check_env_id(env_id, field="env_id")
    root = context.store.trust_root(env_id)
    shown = [TrustedKeyShown(key_id=k.key_id, public_key_pem=k.public_key_pem) for k in root.keys]
    return TrustedKeys(environment_id=env_id, keys=shown)


def add(context: Context, payload: TrustRootAddPayload) -> KeyAdded:
    """Trust another key; its id must be the one derived from it."""
    env_id = check_env_id(payload.environment_id)
    pem = _pem(payload)
    key = checked_key(payload.idempotency_key)
    change = Change(env_id, "trust-root", "add", _told(payload, pem), key or context.mint())

    def action(transaction: Transaction) -> Done[KeyAdded]:
        root = add_key(context.store.trust_root(env_id), payload.key_id, pem)
        transaction.save_trust_root(root)
        told = KeyAdded(environment_id=env_id, added_key_id=payload.key_id, trusted_key_count=len(root.keys))
        return _resealed(transaction, Done(told))

    stands_for = Idempotency(key, "", {"key_id": payload.key_id.lower(), "pem": pem}, KeyAdded)
    return run(context, change, action, idempotency=stands_for)


def remove(context: Context, payload: TrustRootRemovePayload) -> KeyRemoved:
    """Stop trusting a key; one that is not there is no error."""
    env_id = check_env_id(payload.environment_id)
    key = checked_key(payload.idempotency_key)
    change = Change(env_id, "trust-root", "remove", {"key_id": payload.key_id}, key or context.mint())

    def action(transaction: Transaction) -> Done[KeyRemoved]:
        before: TrustRoot = context.store.trust_root(env_id)
        root, gone = remove_key(before, payload.key_id)
        told = KeyRemoved(
            environment_id=env_id,
            removed_key_id=payload.key_id,
            removed_public_key_pem=None if gone is None else gone.public_key_pem,
            trusted_key_count=len(root.keys),
        )
        if gone is None:
            warning = f"no key `{payload.key_id}` is trusted here, so nothing was changed"
            return Done(msgspec.structs.replace(told, warnings=[warning]))
        policy = delivery_of(transaction.load()).signatures
        why = unsatisfiable(policy, root.public_keys())
        if why is not None:
            raise Conflict(
                f"without the key `{payload.key_id}` no bundle would be served: {why}",
                hint="add the key that takes its place first, or: gtc op delivery set --signatures warn",
            )
        transaction.save_trust_root(root)
        return _resealed(transaction, Done(told))

    return run(context, change, action, idempotency=Idempotency(key, "", payload.key_id.lower(), KeyRemoved))


def _resealed(transaction: Transaction, done: Done[R]) -> Done[R]:
    """Carry the changed trust root into a sealed document, so that workers count the same keys from now on."""
    env = transaction.load()
    if MEMBER in env.extra:
        transaction.save(env)
    return done


def _told(payload: TrustRootAddPayload, pem: str) -> JsonObject:
    """What the log says of a key that is to be added.

    What a file holds is not told before it was recognised as a public key; a text in the payload itself is told as other programs
    do, once it was found to hold no secret.
    """
    try:
        read_public_pem(pem)
    except KeyFormatError:
        if payload.public_key_pem is None:
            return {"key_id": payload.key_id}
    return {"key_id": payload.key_id, "public_key_pem": pem}


def _pem(payload: TrustRootAddPayload) -> str:
    if payload.public_key_pem is not None and payload.public_key_file is not None:
        raise InvalidArgument("trust-root add: `public_key_pem` and `public_key_file` are mutually exclusive")
    if payload.public_key_pem is not None:
        return payload.public_key_pem
    if payload.public_key_file is None:
        raise InvalidArgument("trust-root add: one of `public_key_pem` or `public_key_file` is required")
    path = Path(payload.public_key_file)
    try:
        pem = read_given(path, MAX_PEM).decode("ascii", "replace")
    except OSError as error:
        raise io_error(path, error) from None
    except ValueError as error:
        raise InvalidArgument(f"trust-root add: `{path}` is no public key: {error}") from None
    refuse_secrets({"public_key_file": pem}, "trust-root add: ")
    return pem
