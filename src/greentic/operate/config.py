"""`op config`: what an environment is configured with, and its host fields (spec: env-store-and-op 4.11)."""

from __future__ import annotations

import contextlib
from typing import Annotated

import msgspec

from greentic.ground.clock import timestamp
from greentic.ground.documents import Json, JsonObject, parse, replace, to_json
from greentic.ground.errors import InvalidArgument
from greentic.model.descriptors import SLOTS
from greentic.model.ids import check_env_id, is_contained_ref
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


def show(context: Context, payload: ConfigShowFilter) -> JsonObject:
    """Host fields, bindings and whether their answers are there."""
    env_id = check_env_id(payload.environment_id)
    if payload.slot is not None and payload.slot not in SLOTS:
        raise InvalidArgument(f"slot: unknown slot `{payload.slot}`; expected one of {', '.join(SLOTS)}")
    env = context.store.load(env_id)
    runtime = context.store.runtime(env_id)
    packs = [b for b in env.packs if payload.slot in (None, b.slot)]
    paths = context.store.paths(env_id)
    return {
        "environment_id": env_id,
        "host_config": to_json(env.host_config),
        "credentials_ref": env.credentials_ref,
        "packs": to_json(packs),
        "pack_answers": {b.slot: _answers(paths, b.answers_ref) for b in packs},
        "runtime": None if runtime is None else to_json(runtime),
        "snapshot_at": timestamp(context.clock.now_ns()),
    }


def _answers(paths: EnvPaths, ref: str | None) -> Json:
    if ref is None or not is_contained_ref(ref):
        return {"present": False}
    with contextlib.suppress(OSError, ValueError):
        answers = parse(paths.ref(ref).read_bytes())
        return (
            {"present": True, "keys": list[Json](sorted(answers))} if isinstance(answers, dict) else {"present": True}
        )
    return {"present": False}


def set_config(context: Context, payload: ConfigSetPayload) -> JsonObject:
    """Set the given fields; `env update` can clear them."""
    env_id = check_env_id(payload.environment_id)
    given: dict[str, object] = {
        "region": payload.region,
        "tenant_org_id": payload.tenant_org_id,
        "listen_addr": checked_listen_addr(payload.listen_addr),
        "public_base_url": checked_public_url(payload.public_base_url),
        "gui_enabled": payload.gui_enabled,
    }
    host = {key: value for key, value in given.items() if value is not None}
    fields: list[Json] = [*(["name"] if payload.name is not None else []), *host]
    change = Change(env_id, "config", "set", {"fields": fields})

    def action(transaction: Transaction) -> Done:
        env = transaction.load()
        env = replace(env, host_config=replace(env.host_config, **host), name=payload.name or env.name)
        transaction.save(env)
        return Done({"environment_id": env_id, "host_config": to_json(env.host_config), "name": env.name})

    return run(context, change, action)
