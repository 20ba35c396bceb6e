"""A worker's own housekeeping: room before a pull, and after a swap what nobody needs any more goes (threats: needed-gone).

Rules:
1. What is served, what drains and what is being prepared is told to others before it is needed, and taken back only here.
2. A worker does not fail because it could not tidy up: that is told.
"""

from __future__ import annotations

from collections.abc import Iterable

from greentic.activate.lease import Serving
from greentic.distribute.bundle_cache import open_cache
from greentic.ground.errors import GreenticError
from greentic.materialize.prune import Caches, let_go, let_go_of_caches, of_caches, of_revisions
from greentic.model.elements import Elements
from greentic.model.environment import Revision
from greentic.store.environments import EnvironmentStore
from greentic.store.in_use import InUse
from greentic.telemetry.log import OperatorLog
from greentic.wasm.compiled_files import default_directory
from greentic.worker.settings import Settings


def hold(held: InUse | None, wanted: Iterable[Revision], log: OperatorLog) -> None:
    """Tell that these revisions are being prepared."""
    try:
        if held is not None:
            held.also(r.revision_id for r in wanted)
    except OSError as error:
        log.warn("tidy", f"what this process holds cannot be told: {error}")


def make_room(store: EnvironmentStore, settings: Settings, log: OperatorLog, elements: Elements | None = None) -> None:
    """Let go what nobody needs, of this environment and of the caches; `elements` are what was read of the document."""
    caches = Caches(open_cache(settings.cache_directory), settings.cache_bytes, default_directory())
    try:
        with store.transaction(settings.env_id) as transaction:
            goes = of_revisions(transaction, transaction.load(elements))
            let_go(goes, transaction)
        gone = [*goes, *let_go_of_caches(of_caches(store, caches), caches)]
    except (OSError, GreenticError) as error:
        log.warn("tidy", f"what nobody needs was not taken away: {error}")
        return
    for thing in gone:
        log.info("tidy", f"{thing.kind} `{thing.name}` went, {thing.size} bytes: {thing.reason}")


def after_swap(
    store: EnvironmentStore,
    settings: Settings,
    log: OperatorLog,
    held: InUse | None,
    serving: Serving,
    elements: Elements | None = None,
) -> bool:
    """Tell what is still held, and let go the rest; whether something still drains, so that this is to be done again."""
    serving.sweep()
    still = list(serving.draining)
    try:
        if held is not None:
            held.say({*serving.activation.revisions, *still})
    except OSError as error:
        log.warn("tidy", f"what this process holds cannot be told: {error}")
        return True
    make_room(store, settings, log, elements)
    return bool(still)
