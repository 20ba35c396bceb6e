"""The boot of a worker that starts empty (spec: worker 2).

The steps, in order: seed, load and validate the environment, pull what is routed and not on the disk, project, activate.
Nothing listens before the last step is done. A fatal failure takes the projection away, so that no later start mistakes a
half-provisioned disk for a whole one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from greentic.ground.errors import BootError, GreenticError, NotFound
from greentic.model.environment import Environment
from greentic.model.ids import LOCAL_ENV
from greentic.model.local import fresh_local
from greentic.model.projection import RuntimeConfig
from greentic.serve.activation import Activation, activate
from greentic.serve.log import Level, OperatorLog
from greentic.serve.progress import pull_view
from greentic.serve.pull import pull
from greentic.serve.pull_plan import policy
from greentic.serve.seed import copy_seed
from greentic.serve.settings import StartOptions, env_id, own_revision
from greentic.store.environments import EnvironmentStore
from greentic.store.layout import default_store_root


class Booted(NamedTuple):
    """A worker that is ready to bind."""

    store: EnvironmentStore
    log: OperatorLog
    activation: Activation


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
    if told.value == LOCAL_ENV and not paths.environment.exists():
        with store.transaction(LOCAL_ENV, may_create=True) as transaction:
            transaction.create(fresh_local())
    env = _load(store, told.value)
    level: Level = "Debug" if options.level == "debug" else "Warn" if options.level == "warn" else "Info"
    log = OperatorLog(paths.root / "logs", store.clock, level=level)
    for warning in told.warnings:
        log.warn("start", warning)
    return Booted(store, log, provision(store, env, log))


def _load(store: EnvironmentStore, name: str) -> Environment:
    try:
        return store.load(name)
    except NotFound as error:
        missing = NotFound(f"environment `{name}` not found in `{store.root}`", hint=error.hint)
        raise BootError(f"loading environment `{name}` for bundle-less boot") from missing
    except GreenticError as error:
        raise BootError(f"loading environment `{name}` for bundle-less boot") from error


def provision(store: EnvironmentStore, env: Environment, log: OperatorLog) -> Activation:
    """Pull, project and activate one environment document. Raises `BootError`."""
    view = pull_view(log)
    try:
        with store.transaction(env.environment_id):
            pass  # entering the lock repairs what a killed process left
        pulled = pull(store, env, policy(env, own_revision(os.environ)), log, view)
        view.close()
        config = _project(store, env, frozenset(pulled.skipped))
        return activate(store, env, config, pulled.packs, pulled.skipped)
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
