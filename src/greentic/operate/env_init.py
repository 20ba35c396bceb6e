"""`op env init` and `op env migrate-dev` (formats: op 4)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from greentic.ground.clock import timestamp
from greentic.ground.documents import Json, JsonObject, from_json, json_object, parse, pretty, read_file, replace
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.ground.reply import Reply
from greentic.model.descriptors import DEFAULT_BINDINGS, split_descriptor
from greentic.model.environment import Environment
from greentic.model.hosts import DEFAULT_LISTEN
from greentic.model.ids import LOCAL_ENV, check_env_id
from greentic.model.local import fresh_local, healed_local
from greentic.model.projection import RUNTIME_SCHEMA, EnvironmentRuntime
from greentic.operate.change import Context, Done, run
from greentic.operate.env import checked_public_url
from greentic.operate.payload import Payload
from greentic.operate.trust_root import OperatorTrusted, trust_operator
from greentic.store.audit import Change
from greentic.store.environments import Transaction, read_document

OLD_NAME = "dev"
"""What the local environment was called once."""


class EnvInitPayload(Payload, frozen=True, kw_only=True):
    public_url: Annotated[str | None, msgspec.Meta(description="public origin of a new environment")] = None


class EnvInitialized(Reply, frozen=True, kw_only=True):
    environment_id: str
    bound_slots: list[str]
    pack_count: int
    public_base_url: str | None
    trust_root: OperatorTrusted | None
    """What was trusted; nothing if there was a trust root already."""
    outcome: Literal["created", "healed", "untouched"]
    added_slots: list[str] | UnsetType = UNSET


def init(context: Context, payload: EnvInitPayload) -> EnvInitialized:
    """Create the environment `local` with the default bindings and a trust root, or add what is missing."""
    url = checked_public_url(payload.public_url)
    target: JsonObject = {"environment_id": LOCAL_ENV, "public_base_url_applied": url is not None}
    change = Change(LOCAL_ENV, "env", "init", target)

    def action(transaction: Transaction) -> Done[EnvInitialized]:
        exists = transaction.paths.environment.exists()
        if exists and url is not None:
            raise InvalidArgument(
                f"env `{LOCAL_ENV}` already exists; use `op env set-public-url <env_id> <URL>` to overwrite the "
                "persisted public URL"
            )
        if exists:
            env, added = healed_local(transaction.load())
            outcome: Literal["created", "healed", "untouched"] = "healed" if added else "untouched"
            if added:
                transaction.save(env)
        else:
            env, added, outcome = fresh_local(url), list[str](), "created"
            transaction.create(env)
        _runtime(context, transaction, env)
        trust = None if transaction.paths.trust_root.exists() else trust_operator(context, transaction)
        return Done(
            EnvInitialized(
                environment_id=LOCAL_ENV,
                bound_slots=[b.slot for b in env.packs],
                pack_count=len(env.packs),
                public_base_url=env.host_config.public_base_url,
                trust_root=trust,
                outcome=outcome,
                added_slots=list(added) or UNSET,
            )
        )

    return run(context, change, action, may_create=True)


def _runtime(context: Context, transaction: Transaction, env: Environment) -> None:
    """`runtime.json` of the local-process deployer; facts that did not change are not written again."""
    kind = DEFAULT_BINDINGS[0][1]
    binding = env.binding("deployer")
    if binding is None or split_descriptor(binding.kind)[0] != split_descriptor(kind)[0]:
        return
    old = context.store.runtime(env.environment_id)
    if old is not None and split_descriptor(old.generated_by)[0] != split_descriptor(kind)[0]:
        return
    discovered: dict[str, object] = {"listen_addr": env.host_config.listen_addr or DEFAULT_LISTEN}
    if old is not None and old.discovered == discovered:
        return
    transaction.save_runtime(
        EnvironmentRuntime(
            schema=RUNTIME_SCHEMA,
            environment_id=env.environment_id,
            discovered=discovered,
            generated_at=timestamp(context.clock.now_ns()),
            generated_by=kind,
            generation=1 if old is None else old.generation + 1,
        )
    )


class MigrateDevPayload(Payload, frozen=True, kw_only=True):
    target: str
    check: bool = False
    apply: bool = False


class MigrationFinding(Reply, frozen=True, kw_only=True):
    kind: str
    severity: str
    location: str
    message: str


class DevMigration(Reply, frozen=True, kw_only=True):
    from_env: str
    to_env: str
    clean: bool
    """Whether nothing is left to migrate."""
    findings: list[MigrationFinding]
    applied: bool | UnsetType = UNSET


def migrate_dev(context: Context, payload: MigrateDevPayload) -> DevMigration:
    """Rename the environment `dev` of old stores to `target`, documents included; `check` only looks."""
    if payload.check == payload.apply:
        raise InvalidArgument("migrate-dev requires exactly one of --check or --apply")
    target = check_env_id(payload.target, field="env_id")
    if target == OLD_NAME:
        raise InvalidArgument(f"migrate-dev: the target must not be `{OLD_NAME}` itself")
    store = context.store
    old, new = store.paths(OLD_NAME), store.paths(target)
    half_way = new.environment.exists() and _id_in(read_file(new.environment)) == OLD_NAME
    pending = old.environment.exists() or half_way
    finding = MigrationFinding(
        kind="environment-directory",
        severity="warning",
        location=str(old.root if old.environment.exists() else new.root),
        message=f"environment `{OLD_NAME}` becomes `{target}` with --apply",
    )
    result = DevMigration(from_env=OLD_NAME, to_env=target, clean=not pending, findings=[finding] if pending else [])
    if payload.check or not pending:
        return result
    if old.environment.exists():
        if new.root.exists():
            raise Conflict(f"environment directory `{new.root}` exists already", hint="migrate to another name")
        with store.transaction(OLD_NAME):
            read_document(old.environment, Environment)  # what cannot be read stays where it is
            store.disk.rename(old.root, new.root)
            store.disk.sync_directory(store.root)
    change = Change(target, "env", "migrate-dev", {"from_env": OLD_NAME, "to_env": target})

    def action(transaction: Transaction) -> Done[DevMigration]:
        env = from_json(Environment, _renamed(json_object(read_document(new.environment, Environment)), target))
        transaction.save(env)
        transaction.refresh_projection(env)
        runtime = new.runtime
        if runtime.exists():
            raw = parse(read_file(runtime))
            if isinstance(raw, dict):
                transaction.files.replace(runtime, pretty(raw | {"environment_id": target}))
        return Done(replace(result, clean=True, applied=True))

    return run(context, change, action)


def _id_in(data: bytes) -> Json:
    try:
        document = parse(data)
    except ValueError:
        return None
    return document.get("environment_id") if isinstance(document, dict) else None


def _renamed(value: Json, target: str) -> Json:
    """The document with every environment id and every scoped reference changed."""
    if isinstance(value, list):
        return [_renamed(item, target) for item in value]
    if isinstance(value, dict):
        return {
            key: target if key in ("environment_id", "env_id") and item == OLD_NAME else _renamed(item, target)
            for key, item in value.items()
        }
    if isinstance(value, str):
        for scheme in ("secret", "runtime"):
            if value.startswith(f"{scheme}://{OLD_NAME}/"):
                return f"{scheme}://{target}/" + value[len(scheme) + 4 + len(OLD_NAME) :]
    return value
