"""The environment `local`: what it has when it is made, and what an old one lacks (formats: environment 8)."""

from __future__ import annotations

from greentic.ground.documents import replace
from greentic.model.descriptors import DEFAULT_BINDINGS
from greentic.model.environment import Environment, EnvPackBinding, HostConfig, new_environment
from greentic.model.hosts import DEFAULT_LISTEN
from greentic.model.ids import LOCAL_ENV


def fresh_local(public_base_url: str | None = None) -> Environment:
    """A new `local` with the default bindings."""
    host = HostConfig(env_id=LOCAL_ENV, listen_addr=DEFAULT_LISTEN, public_base_url=public_base_url)
    return healed_local(new_environment(LOCAL_ENV, LOCAL_ENV, host))[0]


def healed_local(env: Environment) -> tuple[Environment, list[str]]:
    """The environment with every default slot bound, and the slots that were not."""
    missing = [(slot, kind) for slot, kind in DEFAULT_BINDINGS if env.binding(slot) is None]
    added = [EnvPackBinding(slot=slot, kind=kind, pack_ref=kind) for slot, kind in missing]  # type: ignore[arg-type]
    return replace(env, packs=[*env.packs, *added]), [slot for slot, _ in missing]
