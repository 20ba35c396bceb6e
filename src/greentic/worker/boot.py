"""The boot of a worker that starts empty (spec: worker 2).

The steps, in order: seed, load and validate the environment, pull what is routed and not on the disk, project, activate.
Nothing listens before the last step is done. A fatal failure takes the projection away, so that no later start mistakes a
half-provisioned disk for a whole one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from greentic.activate.activation import Activation, activate
from greentic.activate.turn import TurnServices
from greentic.components.runtime import ComponentRuntime
from greentic.distribute.bundle_cache import cache_directory, open_cache
from greentic.ground.errors import BootError, GreenticError, NotFound
from greentic.materialize.progress import pull_view
from greentic.materialize.pull import pull
from greentic.materialize.sandbox import forbid_core_files
from greentic.materialize.seed import copy_seed
from greentic.materialize.serving_plan import as_seen, policy
from greentic.materialize.trusted import establish, protections
from greentic.model.environment import Environment
from greentic.model.ids import LOCAL_ENV
from greentic.model.local import fresh_local
from greentic.model.projection import RuntimeConfig
from greentic.net.request import OFFLINE
from greentic.sessions.conversation import Conversations
from greentic.sessions.stored_state import StoredState
from greentic.sessions.value_store import DirectoryStore, MemoryStore, ValueStore
from greentic.store.environments import EnvironmentStore
from greentic.store.layout import EnvPaths, default_store_root
from greentic.telemetry.log import Level, OperatorLog
from greentic.worker.settings import (
    StartOptions,
    allow_rollback,
    env_id,
    given_file,
    own_revision,
    own_scope,
    signature_policy,
    wait_seconds,
)

SHARED_DIRECTORY = "GREENTIC_SHARED_SESSIONS"
"""Names the directory that the processes of one worker share; set by the process that starts them."""


class Booted(NamedTuple):
    """A worker that is ready to bind."""

    store: EnvironmentStore
    log: OperatorLog
    activation: Activation
    services: TurnServices


def boot(options: StartOptions) -> Booted:
    """Everything before the socket. Raises `BootError`, whose cause is the reason."""
    try:
        told = env_id(options.env, os.environ)
        store = EnvironmentStore(options.store_root or default_store_root())
        paths = store.paths(told.value)
    except (ValueError, GreenticError) as error:
        raise BootError(str(error)) from None
    os.environ["GREENTIC_ENV"] = told.value
    seed = os.environ.get("GREENTIC_SEED_DIR")
    if seed:
        copy_seed(Path(seed), paths.root)
    if options.archive is not None:
        _from_archive(options.archive, store.paths(told.value))
    if told.value == LOCAL_ENV and not paths.environment.exists():
        with store.transaction(LOCAL_ENV, may_create=True) as transaction:
            transaction.create(fresh_local())
    env = _load(store, told.value)
    level: Level = "Debug" if options.level == "debug" else "Warn" if options.level == "warn" else "Info"
    log = OperatorLog(paths.root / "logs", store.clock, level=level)
    for warning in told.warnings:
        log.warn("start", warning)
    services = turn_services(store, told.value, log)
    anchor = options.trust_anchor or given_file(os.environ, "GREENTIC_TRUST_ANCHOR")
    return Booted(store, log, provision(store, env, log, services, anchor), services)


def _from_archive(archive: Path, paths: EnvPaths) -> None:
    """Take environment and bundles from one file; from then on nothing is fetched."""
    from greentic.materialize.import_archive import import_archive

    cache = open_cache(cache_directory())
    if cache is None:
        raise BootError("booting from a file needs a directory for bundles: set HOME, or GREENTIC_BUNDLE_CACHE_DIR")
    import_archive(archive, paths, cache)
    os.environ[OFFLINE] = "1"


def turn_services(store: EnvironmentStore, env_id: str, log: OperatorLog) -> TurnServices:
    """Where conversations wait and state lives. Raises `BootError`."""
    values, kept = value_stores(os.environ)
    namespace = os.environ.get("GREENTIC_RUNNER_SESSION_NAMESPACE") or f"greentic:session:{env_id}"
    conversations = Conversations(values, namespace, wait_seconds(os.environ))
    state = StoredState(kept, f"greentic:state:{env_id}")
    return TurnServices(env_id, conversations, state, store.clock, store.random, lambda text: log.warn("turn", text))


def value_stores(environ: Mapping[str, str]) -> tuple[ValueStore, ValueStore]:
    """For conversations and for state: in Redis where one is told, in a directory where processes share it, else in memory.

    Stores of our own are bounded, so each has one, and many conversations of strangers never push out what components keep.
    """
    url = environ.get("GREENTIC_RUNNER_REDIS_URL", "").strip()
    if url:
        from greentic.sessions.redis_store import RedisStore

        store = RedisStore(url)
        return store, store
    shared = environ.get(SHARED_DIRECTORY)
    if shared:
        return DirectoryStore(Path(shared) / "conversations"), DirectoryStore(Path(shared) / "state")
    return MemoryStore(), MemoryStore()


def _load(store: EnvironmentStore, name: str) -> Environment:
    try:
        return store.load(name)
    except NotFound as error:
        missing = NotFound(f"environment `{name}` not found in `{store.root}`", hint=error.hint)
        raise BootError(f"loading environment `{name}` for bundle-less boot") from missing
    except GreenticError as error:
        raise BootError(f"loading environment `{name}` for bundle-less boot") from error


def provision(
    store: EnvironmentStore, env: Environment, log: OperatorLog, services: TurnServices, anchor: Path | None = None
) -> Activation:
    """Check, pull, project and activate one environment document. Raises `BootError`."""
    view = pull_view(log)
    try:
        with store.transaction(env.environment_id):
            pass  # entering the lock repairs what a killed process left
        trust = establish(env, store.paths(env.environment_id), log, anchor, allow_rollback=allow_rollback(os.environ))
        env = as_seen(env, own_revision(os.environ), alone=own_scope(os.environ))
        pulled = pull(store, env, policy(env, own_revision(os.environ)), log, view, trust)
        view.close()
        config = _project(store, env, frozenset(pulled.skipped))
        root = store.paths(env.environment_id).root
        runtime = ComponentRuntime(
            root, services.state, lambda source, text: log.info("component", f"{source}: {text}")
        )
        activation = activate(store, env, config, pulled.packs, pulled.skipped, runtime, signature_policy(os.environ))
        return activation._replace(protections=protections(trust, [pulled.landlock, forbid_core_files()]))
    except BaseException:
        view.close()
        with contextlib.suppress(OSError):
            store.paths(env.environment_id).runtime_config.unlink(missing_ok=True)
        raise


def _project(store: EnvironmentStore, env: Environment, skipped: frozenset[str]) -> RuntimeConfig | None:
    """The projection of the very document that was pulled for, without the deployments that are not served."""
    try:
        with store.transaction(env.environment_id) as transaction:
            return transaction.refresh_projection(env, skipped=skipped)
    except GreenticError as error:
        raise BootError(f"re-projecting runtime-config for env `{env.environment_id}`") from error
