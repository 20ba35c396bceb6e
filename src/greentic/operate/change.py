"""How every mutating verb runs: existence, lock, idempotency, intent, change, event.

Rules, in this order:
1. A verb on an environment that does not exist is `not-found` and leaves no trace, unless the verb creates it.
2. Under the lock: what a killed process left is finished; then the ledger is asked; then the intent is written.
3. The change happens; its outcome, success or typed error, becomes the event of the intent.
4. A broken document rule is `store` for most verbs and `spec` where the caller's own numbers are at fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from greentic.ground.clock import Clock
from greentic.ground.disk import io_error
from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import AuditError, GreenticError, InvalidArgument, SpecViolation, StoreError
from greentic.ground.reply import reply_object
from greentic.model.ids import mint_ulid
from greentic.operate.payload import Payload
from greentic.operate.view import QUIET, View
from greentic.store.audit import NO_GENERATIONS, Change, Generations, outcome_of
from greentic.store.environments import EnvironmentStore, Transaction
from greentic.store.ledger import fingerprint

R = TypeVar("R")
"""What a verb answers: a `Reply`."""


class Done(msgspec.Struct, Generic[R], frozen=True):
    """What a change gives back."""

    result: R
    generations: Generations = NO_GENERATIONS
    target: JsonObject | None = None
    """A fuller target for the event than the intent had."""


class Idempotency(msgspec.Struct, Generic[R], frozen=True):
    """A caller's key, the thing that it belongs to, and the whole payload that (`whole`) it stands for."""

    key: str | None
    scope: str
    payload: Json
    form: type[R]
    """What a recorded reply is read as."""


class Context(msgspec.Struct, frozen=True):
    """What verbs work with."""

    store: EnvironmentStore
    view: View = QUIET

    @property
    def clock(self) -> Clock:
        return self.store.clock

    def mint(self) -> str:
        return mint_ulid(self.store.clock, self.store.random)


def whole(payload: Payload, **beside: Json) -> Json:
    """All that a payload asks for, but its key; `beside` is what its files hold, such as a digest."""
    asked: JsonObject = msgspec.to_builtins(payload)
    asked.pop("idempotency_key", None)
    return asked | beside


MAX_KEY = 1024
"""Characters of an idempotency key: it stands in the document, in the ledger and in each line of the audit log about it."""


def checked_key(key: str | None) -> str | None:
    """An idempotency key, which may be absent but not blank. Raises `InvalidArgument`."""
    if key is not None and not key.strip():
        raise InvalidArgument("idempotency_key: idempotency key must not be empty")
    if key is not None and len(key) > MAX_KEY:
        raise InvalidArgument(f"idempotency_key: it has {len(key)} characters, and at most {MAX_KEY} are kept")
    return key


def run(
    context: Context,
    change: Change,
    action: Callable[[Transaction], Done[R]],
    *,
    idempotency: Idempotency[R] | None = None,
    may_create: bool = False,
    spec_errors: bool = False,
) -> R:
    """Run one change as the rules say and return its result. Raises the typed error of whatever failed."""
    with context.store.transaction(change.env_id, may_create=may_create) as transaction:
        event_id = transaction.audit.intend(change)
        try:
            done = _with_ledger(transaction, change, action, idempotency)
        except OSError as error:
            raise _recorded(
                transaction, event_id, change, io_error(error.filename or transaction.paths.root, error)
            ) from error
        except GreenticError as error:
            if isinstance(error, SpecViolation) and not spec_errors:
                raise _recorded(transaction, event_id, change, StoreError(str(error), hint=error.hint)) from error
            raise _recorded(transaction, event_id, change, error) from error.__cause__
        told = change if done.target is None else Change(
            change.env_id, change.noun, change.verb, done.target, change.idempotency_key
        )  # fmt: skip
        transaction.audit.record(event_id, told, outcome_of(None), done.generations)
        return done.result


def _with_ledger(
    transaction: Transaction,
    change: Change,
    action: Callable[[Transaction], Done[R]],
    idempotency: Idempotency[R] | None,
) -> Done[R]:
    if idempotency is None or idempotency.key is None:
        return action(transaction)
    print_ = fingerprint(idempotency.payload)
    place = (change.noun, change.verb, idempotency.scope, idempotency.key, print_)
    recorded = transaction.ledger.find(*place)
    if recorded is not None:
        return Done(_read(recorded, idempotency))
    done = action(transaction)
    transaction.ledger.record(*place, reply_object(done.result))
    return done


def _read(recorded: JsonObject, idempotency: Idempotency[R]) -> R:
    """A recorded reply. Raises `StoreError` for one that another version wrote otherwise."""
    try:
        return msgspec.convert(recorded, idempotency.form)
    except msgspec.ValidationError as error:
        raise StoreError(
            f"the reply that was recorded for idempotency key `{idempotency.key}` cannot be read: {error}",
            hint="the change was made; use a new key for a new one",
        ) from None


def _recorded(transaction: Transaction, event_id: str, change: Change, error: GreenticError) -> GreenticError:
    """The error, once it is in the log. If the log fails too, the log's error wins where something was changed."""
    try:
        transaction.audit.record(event_id, change, outcome_of(error))
    except AuditError as audit_error:
        if transaction.committed:
            return audit_error
    return error
