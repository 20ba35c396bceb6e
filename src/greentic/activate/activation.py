"""What a worker serves at one moment: routes, dispatchers and loaded revisions, made once and swapped whole (spec: worker 5).

Rules:
1. Only active deployments with all their routed revisions on the disk take part; the projection on the disk says the same.
2. Any revision that does not load fails the whole activation: at boot the process ends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from greentic.activate.dispatch import Choice, Dispatcher
from greentic.activate.turn import ActiveRevision, flow_index
from greentic.components.runtime import ComponentRuntime, RevisionComponents
from greentic.ground.documents import JsonObject
from greentic.ground.errors import BootError, GreenticError
from greentic.materialize.placed import LocatedPack, read_pack_config
from greentic.model.environment import Environment, Revision
from greentic.model.projection import RuntimeConfig, check_deployments, check_runtime_config
from greentic.model.routes import Route, route_table
from greentic.pack.load import load_packs
from greentic.pack.signature import SignaturePolicy
from greentic.store.environments import EnvironmentStore
from greentic.store.layout import EnvPaths
from greentic.worker.settings import given_file

SIGNING_KEY_BYTES = 32
SHARED_KEY = "GREENTIC_SIGNING_KEY_FILE"
"""Names a file with the key that several workers share, so that a caller stays on its revision whichever of them answers."""


class Activation(NamedTuple):
    """Everything that answering needs; never changed, only replaced."""

    env: Environment
    routes: list[Route]
    dispatchers: dict[str, Dispatcher]
    revisions: dict[str, ActiveRevision]
    skipped: dict[str, str]
    """Deployments that are not served, and why."""
    endpoints: dict[str, frozenset[str]]
    """The bundles that each messaging endpoint is linked to."""
    protections: JsonObject = {}
    """What guarded the boot, for `/status`."""


def activate(
    store: EnvironmentStore,
    env: Environment,
    config: RuntimeConfig | None,
    packs: dict[str, list[LocatedPack]],
    skipped: dict[str, str],
    runtime: ComponentRuntime,
    policy: SignaturePolicy,
) -> Activation:
    """Load what the projection names. Raises `BootError` with the cause."""
    if config is not None:
        check_runtime_config(config, env.environment_id)
        check_deployments(config)
    key = signing_key(store.paths(env.environment_id), store)
    revisions: dict[str, ActiveRevision] = {}
    choices: dict[str, list[Choice]] = {}
    known = {r.revision_id: r for r in env.revisions}
    for block in config.revisions if config else []:
        revision = known[block.revision_id]
        try:
            loaded = tuple(load_packs(packs[block.revision_id], policy))
            components = RevisionComponents(loaded, runtime, published_config(store, env, revision))
        except GreenticError as error:
            raise BootError(f"loading revision `{block.revision_id}`") from error
        draining = revision.lifecycle == "draining"
        revisions[block.revision_id] = ActiveRevision(
            block.revision_id, block.deployment_id, block.bundle_id, revision.bundle_digest, revision.bundle_source_uri,
            block.weight_bps, draining, loaded, flow_index(loaded), components,
        )  # fmt: skip
        choices.setdefault(block.deployment_id, []).append(Choice(block.revision_id, block.weight_bps, draining))
    dispatchers = {
        deployment_id: Dispatcher(
            env.environment_id, deployment_id, found, generation=_generation(env, deployment_id), key=key
        )
        for deployment_id, found in choices.items()
    }
    endpoints = {e.endpoint_id: frozenset(e.linked_bundles) for e in env.messaging_endpoints}
    return Activation(env, route_table(env), dispatchers, revisions, skipped, endpoints)


def published_config(store: EnvironmentStore, env: Environment, revision: Revision) -> dict[str, dict[str, object]]:
    """What components read as configuration, by pack: that of the revision, with the overrides of its deployment on top."""
    found: dict[str, dict[str, object]] = {}
    for ref in revision.pack_config_refs:
        config = read_pack_config(store.paths(env.environment_id), ref, revision.revision_id)
        found[config.pack_id] = dict(config.non_secret)
    deployment = env.deployment(revision.deployment_id)
    for pack_id, overrides in (deployment.config_overrides or {}).items() if deployment else ():
        found[pack_id] = found.get(pack_id, {}) | overrides
    return found


def _generation(env: Environment, deployment_id: str) -> int:
    split = env.split(deployment_id)
    return 0 if split is None else split.generation


def signing_key(paths: EnvPaths, store: EnvironmentStore) -> bytes:
    """The key of the affinity cookies: the one that this worker shares with others, else its own, made at the first boot.

    Raises `BootError` for a file of another length.
    """
    shared = given_file(os.environ, SHARED_KEY)
    path = shared if shared is not None and shared.exists() else paths.signing_key
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = store.random.octets(SIGNING_KEY_BYTES)
        _write_key(path, key)
    except OSError as error:
        raise BootError(f"cannot read `{path}`: {error.strerror}") from error
    if len(key) != SIGNING_KEY_BYTES:
        raise BootError(f"`{path}` has {len(key)} bytes, expected {SIGNING_KEY_BYTES}; delete it to regenerate it")
    return key


def _write_key(path: Path, key: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(key)
        temporary.replace(path)
    except OSError as error:
        raise BootError(f"cannot write `{path}`: {error.strerror}") from error
