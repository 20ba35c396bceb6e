"""`op config`: what an environment is configured with, and its host fields (formats: op 4)."""

from __future__ import annotations

import contextlib
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from greentic.ground.clock import timestamp
from greentic.ground.documents import Json, parse, read_file, replace
from greentic.ground.errors import InvalidArgument
from greentic.ground.nearest import one_of
from greentic.ground.reply import Reply
from greentic.model.descriptors import SLOTS
from greentic.model.environment import Environment, EnvPackBinding, HostConfig
from greentic.model.ids import check_env_id, is_contained_ref
from greentic.model.projection import EnvironmentRuntime
from greentic.operate.change import Context, Done, run
from greentic.operate.env import checked_listen_addr, checked_public_url
from greentic.operate.payload import NullableText, Payload
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.store.layout import EnvPaths


class ConfigShowFilter(Payload, frozen=True, kw_only=True):
    environment_id: str
    slot: Annotated[
        str | None, msgspec.Meta(extra_json_schema={"type": ["string", "null"], "enum": [None, *SLOTS]})
    ] = None


class ConfigSetPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    name: NullableText = None
    region: NullableText = None
    tenant_org_id: NullableText = None
    listen_addr: Annotated[
        str | None, msgspec.Meta(description="socket address", extra_json_schema={"type": ["string", "null"]})
    ] = None
    public_base_url: Annotated[
        str | None, msgspec.Meta(description="http(s) origin", extra_json_schema={"type": ["string", "null"]})
    ] = None
    gui_enabled: Annotated[
        bool | None, msgspec.Meta(description="serve the console", extra_json_schema={"type": ["boolean", "null"]})
    ] = None


class AnswersShown(Reply, frozen=True, kw_only=True):
    """Whether a binding's answers are there, and their keys; never their values."""

    present: bool
    keys: list[str] | UnsetType = UNSET


class ConfigShown(Reply, frozen=True, kw_only=True):
    environment_id: str
    host_config: HostConfig
    credentials_ref: str | None
    packs: list[EnvPackBinding]
    pack_answers: dict[str, AnswersShown]
    """By slot."""
    runtime: EnvironmentRuntime | None
    snapshot_at: str


class ConfigSet(Reply, frozen=True, kw_only=True):
    environment_id: str
    host_config: HostConfig
    name: str


def show(context: Context, payload: ConfigShowFilter) -> ConfigShown:
    """Host fields, bindings and whether their answers are there."""
    env_id = check_env_id(payload.environment_id)
    if payload.slot is not None and payload.slot not in SLOTS:
        raise InvalidArgument(f"slot: unknown slot `{payload.slot}`{one_of(payload.slot, SLOTS)}")
    env = context.store.load(env_id)
    runtime = context.store.runtime(env_id)
    packs = [b for b in env.packs if payload.slot in (None, b.slot)]
    paths = context.store.paths(env_id)
    return ConfigShown(
        environment_id=env_id,
        host_config=env.host_config,
        credentials_ref=env.credentials_ref,
        packs=packs,
        pack_answers={b.slot: _answers(paths, b.answers_ref) for b in packs},
        runtime=runtime,
        snapshot_at=timestamp(context.clock.now_ns()),
    )


def _answers(paths: EnvPaths, ref: str | None) -> AnswersShown:
    if ref is not None and is_contained_ref(ref):
        with contextlib.suppress(OSError, ValueError):
            answers = parse(read_file(paths.ref(ref)))
            return AnswersShown(present=True, keys=sorted(answers) if isinstance(answers, dict) else UNSET)
    return AnswersShown(present=False)


def set_config(context: Context, payload: ConfigSetPayload) -> ConfigSet:
    """Set the given fields; `env update` can clear them."""
    env_id = check_env_id(payload.environment_id)
    host = _host_fields(payload)
    fields: list[Json] = [*(["name"] if payload.name is not None else []), *host]
    change = Change(env_id, "config", "set", {"fields": fields})

    def action(transaction: Transaction) -> Done[ConfigSet]:
        env = configured(transaction.load(), payload)
        transaction.save(env)
        return Done(ConfigSet(environment_id=env_id, host_config=env.host_config, name=env.name))

    return run(context, change, action)


def configured(env: Environment, payload: ConfigSetPayload) -> Environment:
    """The environment with the given fields. Raises `InvalidArgument`."""
    host = replace(env.host_config, **_host_fields(payload))
    return replace(env, host_config=host, name=payload.name or env.name)


def _host_fields(payload: ConfigSetPayload) -> dict[str, object]:
    given: dict[str, object] = {
        "region": payload.region,
        "tenant_org_id": payload.tenant_org_id,
        "listen_addr": checked_listen_addr(payload.listen_addr),
        "public_base_url": checked_public_url(payload.public_base_url),
        "gui_enabled": payload.gui_enabled,
    }
    return {key: value for key, value in given.items() if value is not None}
