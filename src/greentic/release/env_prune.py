"""`op env prune`: what retention lets go of one environment, and of the caches that all environments share; a dry run only tells."""

from __future__ import annotations

from typing import Annotated

import msgspec

from greentic.distribute.bundle_cache import cache_directory, max_bytes, open_cache
from greentic.ground.disk import io_error
from greentic.ground.documents import JsonObject, replace
from greentic.ground.reply import Reply
from greentic.materialize.prune import Caches, let_go, let_go_of_caches, of_caches, of_history, of_revisions
from greentic.materialize.retention import Goes
from greentic.model.environment import Environment
from greentic.model.ids import U32, check_env_id
from greentic.operate.change import Context, Done, run
from greentic.operate.payload import Payload
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.wasm.compiled_files import default_directory

Days = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]


class EnvPrunePayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    keep_revisions: Annotated[
        U32 | None, msgspec.Meta(description="archived revisions of each deployment that stay unpacked; remembered")
    ] = None
    audit_days: Annotated[
        Days | None, msgspec.Meta(description="days of audit log and backups that stay; remembered")
    ] = None
    dry_run: Annotated[bool, msgspec.Meta(description="only tell what would go")] = False


class PruneLine(Reply, frozen=True, kw_only=True):
    """One thing that goes."""

    kind: str
    name: str
    size: int
    reason: str


class EnvPruned(Reply, frozen=True, kw_only=True):
    environment_id: str
    dry_run: bool
    keep_revisions: int | None
    audit_days: int | None
    goes: list[PruneLine]
    freed: int
    """Bytes, as far as only these held them."""


def prune(context: Context, payload: EnvPrunePayload) -> EnvPruned:
    """Let go what nobody needs. Raises `IoError`; what went until then went whole."""
    env_id = check_env_id(payload.environment_id)
    caches = Caches(open_cache(cache_directory()), max_bytes(), default_directory())
    if payload.dry_run:
        with context.store.transaction(env_id) as transaction:
            env = _retaining(transaction.load(), payload)
            goes = [*_of(transaction, env), *of_caches(context.store, caches)]
        return _told(env, payload, goes)

    def action(transaction: Transaction) -> Done[tuple[Environment, list[Goes]]]:
        before = transaction.load()
        env = _retaining(before, payload)
        if env != before:
            transaction.save(env)
        goes = _of(transaction, env)
        lines = sum(g.kind == "audit" for g in goes)
        target: JsonObject = {
            "revisions": [g.name for g in goes if g.kind == "revision"],
            "backups": sum(g.kind == "backup" for g in goes),
            "audit_lines": lines,
            "audit_last_sha256": transaction.audit.last_of_first(lines) if lines else None,
        }
        let_go(goes, transaction)
        return Done((env, goes), target=target)

    env, goes = run(context, Change(env_id, "env", "prune", {}), action)
    try:
        goes = [*goes, *let_go_of_caches(of_caches(context.store, caches), caches)]
    except OSError as error:
        raise io_error(error.filename or str(default_directory()), error) from error
    return _told(env, payload, goes)


def _retaining(env: Environment, payload: EnvPrunePayload) -> Environment:
    """The environment with the retention that the payload asks for."""
    kept = env.retention
    return replace(
        env,
        retention=replace(
            kept,
            keep_revisions=kept.keep_revisions if payload.keep_revisions is None else payload.keep_revisions,
            audit_retention_days=kept.audit_retention_days if payload.audit_days is None else payload.audit_days,
        ),
    )


def _of(transaction: Transaction, env: Environment) -> list[Goes]:
    return [*of_revisions(transaction, env), *of_history(transaction, env)]


def _told(env: Environment, payload: EnvPrunePayload, goes: list[Goes]) -> EnvPruned:
    lines = [g for g in goes if g.kind == "audit"]
    rows = [PruneLine(kind=g.kind, name=g.name, size=g.size, reason=g.reason) for g in goes if g.kind != "audit"]
    if lines:
        size = sum(g.size for g in lines)
        rows.append(PruneLine(kind="audit", name=f"the first {len(lines)} lines", size=size, reason=lines[0].reason))
    return EnvPruned(
        environment_id=env.environment_id, dry_run=payload.dry_run, keep_revisions=env.retention.keep_revisions,
        audit_days=env.retention.audit_retention_days, goes=rows, freed=sum(r.size for r in rows),
    )  # fmt: skip
