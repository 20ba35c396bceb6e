"""`op env`: create, show, list, update, set-public-url, destroy (formats: op 4)."""

from __future__ import annotations

import contextlib
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from greentic.ground import variables
from greentic.ground.clock import compact_stamp
from greentic.ground.documents import Json, replace
from greentic.ground.errors import Conflict, InvalidArgument, NotFound, SpecViolation
from greentic.ground.nearest import one_of
from greentic.ground.reply import Reply
from greentic.ground.user_cache import user_state
from greentic.model.environment import Environment, HostConfig, new_environment
from greentic.model.hosts import check_public_base_url, split_listen_addr
from greentic.model.ids import check_env_id
from greentic.model.projection import EnvironmentRuntime
from greentic.operate.change import Context, Done, run
from greentic.operate.payload import NullableText, Payload
from greentic.store.audit import Change
from greentic.store.environments import Transaction

CLEARABLE = ("region", "tenant_org_id", "listen_addr", "public_base_url", "gui_enabled", "default_bundle")
DESTROYED = ".destroyed"


class EnvCreatePayload(Payload, frozen=True, kw_only=True):
    environment_id: Annotated[str, msgspec.Meta(description="letters, digits, `.`, `-`, `_`")]
    name: str
    region: NullableText = None
    tenant_org_id: NullableText = None
    listen_addr: NullableText = None
    public_base_url: Annotated[
        str | None, msgspec.Meta(description="http(s) origin", extra_json_schema={"type": ["string", "null"]})
    ] = None
    clear: Annotated[
        list[str] | None, msgspec.Meta(description=f"host fields to unset (update only): {', '.join(CLEARABLE)}")
    ] = None


class EnvSummary(Reply, frozen=True, kw_only=True):
    """What `env create`, `update` and `list` tell about an environment."""

    environment_id: str
    name: str
    region: str | None
    tenant_org_id: str | None
    pack_count: int
    bundle_count: int
    revision_count: int
    listen_addr: str | UnsetType = UNSET
    public_base_url: str | UnsetType = UNSET


class EnvShown(Reply, frozen=True, kw_only=True):
    environment: Environment
    runtime: EnvironmentRuntime | None


class BrokenEnv(Reply, frozen=True, kw_only=True):
    """An environment that does not load, and why."""

    environment_id: str
    kind: str
    message: str


class EnvList(Reply, frozen=True, kw_only=True):
    environments: list[EnvSummary]
    broken: list[BrokenEnv] | UnsetType = UNSET
    """Those that do not load; never among the others."""


class PublicUrlSet(Reply, frozen=True, kw_only=True):
    environment_id: str
    host_config: HostConfig


class EnvDestroyed(Reply, frozen=True, kw_only=True):
    environment_id: str
    destroyed: bool
    backup: str
    """Where the directory was moved to."""


def summary(env: Environment) -> EnvSummary:
    host = env.host_config
    return EnvSummary(
        environment_id=env.environment_id,
        name=env.name,
        region=host.region,
        tenant_org_id=host.tenant_org_id,
        pack_count=len(env.packs),
        bundle_count=len(env.bundles),
        revision_count=len(env.revisions),
        listen_addr=UNSET if host.listen_addr is None else host.listen_addr,
        public_base_url=UNSET if host.public_base_url is None else host.public_base_url,
    )


def checked_listen_addr(text: str | None) -> str | None:
    if text is not None:
        try:
            split_listen_addr(text)
        except ValueError as error:
            raise InvalidArgument(
                f'listen_addr "{text}" is not a valid socket address: {error}',
                hint="write it as 127.0.0.1:8080 or [::1]:8080",
            ) from None
    return text


def checked_public_url(url: str | None) -> str | None:
    if url is None:
        return None
    try:
        return check_public_base_url(url)
    except SpecViolation as error:
        raise InvalidArgument(f"public_base_url: {error.message}") from None


def create(context: Context, payload: EnvCreatePayload) -> EnvSummary:
    """Write a new, empty environment."""
    env_id = check_env_id(payload.environment_id)
    host = HostConfig(
        env_id=env_id,
        region=payload.region,
        tenant_org_id=payload.tenant_org_id,
        listen_addr=checked_listen_addr(payload.listen_addr),
        public_base_url=checked_public_url(payload.public_base_url),
    )
    env = new_environment(env_id, payload.name, host)
    change = Change(env_id, "env", "create", {"environment_id": env_id})

    def action(transaction: Transaction) -> Done[EnvSummary]:
        transaction.create(env)
        return Done(summary(env))

    created = run(context, change, action, may_create=True)
    _forget_seen(context, env_id)
    return created


def update(context: Context, payload: EnvCreatePayload) -> EnvSummary:
    """Set the name and the given host fields; `clear` unsets fields."""
    env_id = check_env_id(payload.environment_id)
    given: dict[str, object] = {
        "region": payload.region,
        "tenant_org_id": payload.tenant_org_id,
        "listen_addr": checked_listen_addr(payload.listen_addr),
        "public_base_url": checked_public_url(payload.public_base_url),
    }
    changes = {key: value for key, value in given.items() if value is not None}
    for field in payload.clear or []:
        if field not in CLEARABLE:
            raise InvalidArgument(f"clear: `{field}` cannot be cleared{one_of(field, CLEARABLE)}")
        if field in changes:
            raise InvalidArgument(f"clear: `{field}` is given a value in the same call")
        changes[field] = None
    fields: list[Json] = ["name", *changes]
    change = Change(env_id, "env", "update", {"environment_id": env_id, "fields": fields})

    def action(transaction: Transaction) -> Done[EnvSummary]:
        env = transaction.load()
        env = replace(env, name=payload.name, host_config=replace(env.host_config, **changes))
        transaction.save(env)
        return Done(summary(env))

    return run(context, change, action)


def show(context: Context, env_id: str) -> EnvShown:
    """The whole document and `runtime.json`."""
    env_id = check_env_id(env_id, field="env_id")
    return EnvShown(environment=context.store.load(env_id), runtime=context.store.runtime(env_id))


def list_all(context: Context) -> EnvList:
    """Every environment; those that do not load stand under `broken`, never among the others."""
    good, broken = context.store.survey()
    lost = [BrokenEnv(environment_id=b.environment_id, kind=b.kind, message=b.message) for b in broken]
    return EnvList(environments=[summary(env) for env in good], broken=lost or UNSET)


class SetPublicUrlPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    url: str


def set_public_url(context: Context, payload: SetPublicUrlPayload) -> PublicUrlSet:
    """Overwrite the persisted public URL."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    url = checked_public_url(payload.url)
    change = Change(env_id, "env", "set-public-url", {"environment_id": env_id})

    def action(transaction: Transaction) -> Done[PublicUrlSet]:
        env = transaction.load()
        env = replace(env, host_config=replace(env.host_config, public_base_url=url))
        transaction.save(env)
        return Done(PublicUrlSet(environment_id=env_id, host_config=env.host_config))

    return run(context, change, action)


class DestroyPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    confirm: bool = False


def destroyable(context: Context, payload: DestroyPayload) -> Environment:
    """The environment, if it may be destroyed: confirmed, and no traffic is routed. Raises `InvalidArgument`, `NotFound`, `Conflict`."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    if not payload.confirm:
        raise InvalidArgument("destroy requires --confirm", hint=f"gtc op env destroy {env_id} --confirm")
    if not context.store.exists(env_id):
        raise NotFound(f"environment `{env_id}`")
    env = context.store.load(env_id)
    _check_unrouted(env)
    return env


def destroy(context: Context, payload: DestroyPayload) -> EnvDestroyed:
    """Take the environment out of the store; its directory stays under `.destroyed/`. What runs in a cluster is the deployer's."""
    store = context.store
    env_id = destroyable(context, payload).environment_id
    kept = store.root / DESTROYED / f"{env_id}.{compact_stamp(context.clock.now_ns())}"
    change = Change(env_id, "env", "destroy", {"environment_id": env_id})

    def action(transaction: Transaction) -> Done[EnvDestroyed]:
        _check_unrouted(transaction.load())
        transaction.committed = True
        return Done(EnvDestroyed(environment_id=env_id, destroyed=True, backup=str(kept)))

    result = run(context, change, action)
    with store.transaction(env_id) as transaction:
        store.disk.make_directory(kept.parent)
        _forget_seen(context, env_id)
        store.disk.rename(transaction.paths.root, kept)
        store.disk.sync_directory(store.root)
    return result


def _forget_seen(context: Context, env_id: str) -> None:
    """What this user's workers saw of an environment of this name belongs to one that is gone; a new one begins anew."""
    with contextlib.suppress(OSError):
        from greentic.materialize.remembered import memory_of  # of all verbs of an environment only its end

        memory_of(context.store.paths(env_id), user_state(variables.environment())).forget()


def _check_unrouted(env: Environment) -> None:
    env_id, routed = env.environment_id, [s.deployment_id for s in env.traffic_splits]
    if routed:
        # where a cluster is bound its workers go with the environment, not with each bundle
        flag = "" if env.binding("deployer") is None else " --store-only"
        each = "" if len(routed) == 1 else ", and so for each of them"
        raise Conflict(
            f"env `{env_id}` still routes traffic to {len(routed)} deployment(s): {', '.join(routed)}",
            hint=f"gtc op bundles retire {env_id} {routed[0]}{flag}{each}",
        )
