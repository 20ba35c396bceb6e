"""The boot of a worker that starts empty (formats: worker 3): the first swap, from nothing.

The steps, in order: settings, seed, environment, provisioning. Nothing listens before the last step is done. A fatal failure
takes the projection away, so that no later start mistakes a half-provisioned disk for a whole one; that is a rule of booting, for a
swap that fails leaves what serves.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from greentic.activate.activation import Activation, Loader
from greentic.activate.turn import TurnServices
from greentic.components.runtime import ComponentRuntime
from greentic.distribute.bundle_cache import open_cache
from greentic.ground.errors import BootError, GreenticError
from greentic.ground.optional import on_lack
from greentic.materialize.progress import LoggedPull
from greentic.materialize.pull import Events
from greentic.model.ids import LOCAL_ENV
from greentic.model.local import fresh_local
from greentic.model.projection import Projected
from greentic.store.cookie_key import cookie_key
from greentic.store.environments import EnvironmentStore
from greentic.store.in_use import InUse
from greentic.store.layout import EnvPaths, looked_into
from greentic.store.proof_key import proof_key
from greentic.telemetry.component_output import ComponentOutput
from greentic.telemetry.log import OperatorLog
from greentic.telemetry.log_lines import Level
from greentic.telemetry.phases import booting
from greentic.telemetry.tracing import refused
from greentic.trust.keys import SigningKey
from greentic.worker.candidate import Candidate, read_candidate
from greentic.worker.provision import Bench, provision
from greentic.worker.services import turn_services
from greentic.worker.settings import Settings, StartOptions, read_settings
from greentic.worker.trust_files import examiner_of

if TYPE_CHECKING:
    from greentic.worker.published import Published

_LEVELS: dict[str, Level] = {"debug": "Debug", "info": "Info", "warn": "Warn"}


class Booted(NamedTuple):
    """A worker that is ready to bind."""

    bench: Bench
    digest: str
    """Of the candidate that is served."""
    activation: Activation
    services: TurnServices
    proof_key: SigningKey
    """Of the worker: what it signs its proofs with."""
    published: Published | None = None
    """What is followed instead of the store."""

    @property
    def store(self) -> EnvironmentStore:
        return self.bench.store

    @property
    def log(self) -> OperatorLog:
        return self.bench.log


def boot(
    options: StartOptions, environ: Mapping[str, str], events: Callable[[OperatorLog], Events] = LoggedPull
) -> Booted:
    """Everything before the socket; `events` makes who is told how pulling goes. Raises `BootError`, whose cause is the reason."""
    with booting():
        return _boot(options, environ, events)


def _boot(options: StartOptions, environ: Mapping[str, str], events: Callable[[OperatorLog], Events]) -> Booted:
    settings = read_settings(options, environ)
    store = EnvironmentStore(settings.store_root)
    published = None
    if settings.published is not None:
        from greentic.worker.published import Published  # most workers follow no place

        published = Published(store, settings)
        settings = published.settings
    try:
        paths = store.paths(settings.env_id)
        sourced = published is not None or settings.archive is not None
        fresh = not sourced and settings.env_id == LOCAL_ENV and not store.exists(LOCAL_ENV)
        if fresh and settings.seed is None:
            looked_into(options.store_root)  # `local` needs no author, and a mistyped root would serve nothing
    except GreenticError as error:
        raise BootError(str(error), hint=error.hint) from None
    if settings.archive is not None:
        _from_archive(settings.archive, store, settings)
    if fresh:
        with store.transaction(LOCAL_ENV, may_create=True) as transaction:
            transaction.create(fresh_local())
    candidate = read_candidate(store, settings) if published is None else published.first()
    terminal = sys.stderr is not None and sys.stderr.isatty()
    shape = settings.log_shape or ("text" if terminal else "json")
    log = OperatorLog(paths.root / "logs", store.clock, level=_LEVELS[settings.level], shape=shape)
    if (why := refused()) is not None:
        log.warn("telemetry", f"nothing is traced: {why}")
    for warning in (*settings.warnings, *(published.warnings if published is not None else ())):
        log.warn("start", warning)
    on_lack(lambda text: log.warn("start", text))
    return from_nothing(store, settings, candidate, log, events)._replace(published=published)


def from_nothing(
    store: EnvironmentStore,
    settings: Settings,
    candidate: Candidate,
    log: OperatorLog,
    events: Callable[[OperatorLog], Events] = LoggedPull,
) -> Booted:
    """Provision one environment document for the first time. Raises `BootError`; the projection is gone then."""
    paths = store.paths(settings.env_id)
    try:
        services = turn_services(settings.env_id, settings.sessions, log, store.clock, store.random)
        runtime = ComponentRuntime(paths.root, services.state, ComponentOutput(log, store.clock), settings.components)
        key = cookie_key(paths.signing_key, settings.signing_key_file, store.random)
        bench = Bench(
            store=store,
            paths=paths,
            settings=settings,
            examiner=examiner_of(paths, settings, store.clock),
            log=log,
            loader=Loader(paths, runtime, settings.pack_signatures),
            cookie_key=key,
            events=events,
            projected=Projected(),
            in_use=_in_use(paths, store, log),
        )
        places, warned = bench.examiner.memory.places, lambda text: log.warn("start", text)
        own = proof_key(settings.proof_key, places, store.disk, store.random, warned)
        return Booted(bench, candidate.digest, provision(bench, candidate), services, own)
    except BaseException:
        with contextlib.suppress(OSError):
            paths.runtime_config.unlink(missing_ok=True)
        raise


def _in_use(paths: EnvPaths, store: EnvironmentStore, log: OperatorLog) -> InUse | None:
    """Where this process tells which revisions it holds; what cannot be told is said."""
    try:
        return InUse(paths.in_use, store.random, ())
    except OSError as error:
        log.warn("tidy", f"which revisions this process holds cannot be told: {error}")
        return None


def _from_archive(archive: Path, store: EnvironmentStore, settings: Settings) -> None:
    """Take environment and bundles from one file, once every check of a boot has passed; from then on nothing is fetched."""
    from greentic.materialize.import_archive import import_archive

    cache = open_cache(settings.cache_directory)
    if cache is None:
        raise BootError("booting from a file needs a directory for bundles: set HOME, or GREENTIC_BUNDLE_CACHE_DIR")
    paths = store.paths(settings.env_id)
    examiner = examiner_of(paths, settings, store.clock)
    import_archive(archive, paths, cache, examiner.memory, examiner.examine)
