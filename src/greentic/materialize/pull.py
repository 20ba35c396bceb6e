"""Bringing what is routed onto this disk: fetch, gate, unpack, materialize (spec: worker 2.3 to 2.5).

Several bundles are fetched at once, each into its own private directory; each comes to its place under the environment
lock. What is on the disk already, whole and with its pinned digests, is not fetched again.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

from greentic.distribute.bundle_cache import BundleCache, cache_directory, max_bytes, open_cache
from greentic.distribute.fetch import Fetched, FetchLimits, fetch_into, fetch_limits
from greentic.distribute.journal import Journal
from greentic.distribute.mirrors import first_of, references
from greentic.ground.disk import io_error
from greentic.ground.errors import BootError, Conflict, DigestMismatch, GreenticError, NotFound
from greentic.materialize.placed import LocatedPack, RevisionFault, verified_packs
from greentic.materialize.progress import PullView
from greentic.materialize.retained import needed_digests
from greentic.materialize.sandbox import restrict_writes
from greentic.materialize.serving_plan import Policy, wanted_revisions
from greentic.materialize.staging import StagingArea, place
from greentic.materialize.trusted import Trust
from greentic.model.environment import Environment, Revision
from greentic.model.ids import is_digest
from greentic.model.revision_files import diverging_packs, lock_ref
from greentic.store.environments import EnvironmentStore
from greentic.telemetry.log import OperatorLog
from greentic.trust.gate import VerifiedBundle, admit, mismatch

PARALLEL = 4
"""How many bundles are fetched at once."""


class Pulled(NamedTuple):
    """What is on the disk after pulling."""

    packs: dict[str, list[LocatedPack]]
    """By revision, the packs of every revision that can be served, digests verified."""
    materialized: int
    skipped: dict[str, str]
    """Deployments that are not served, and why."""
    landlock: str
    """What guarded the fetching, in words."""


def pull(
    store: EnvironmentStore, env: Environment, policy: Policy, log: OperatorLog, view: PullView, trust: Trust
) -> Pulled:
    """Make every wanted revision available, or say why not. Raises `BootError` for a fatal failure."""
    wanted = wanted_revisions(env)
    if policy.warning:
        log.warn("pull", policy.warning)
    packs: dict[str, list[LocatedPack]] = {}
    missing: list[Revision] = []
    skipped: dict[str, str] = {}
    for revision in wanted:
        try:
            trust.check(revision, log)
        except GreenticError as refused:
            if policy.is_fatal(revision):
                raise BootError(f"trust in revision `{revision.revision_id}`") from refused
            skipped[revision.deployment_id] = refused.message
            log.error(
                "trust", f"deployment `{revision.deployment_id}` is NOT served by this process: {refused.message}"
            )
            continue
        try:
            packs[revision.revision_id] = verified_packs(store.paths(env.environment_id), revision)
        except GreenticError as fault:
            if revision.bundle_source_uri is not None:
                missing.append(revision)
            else:
                _quarantine(env, revision, fault, skipped, log)
    cache = open_cache(cache_directory())
    delivered = Delivered(cache, trust.delivery.mirrors, log, store, fetch_limits(os.environ))
    told: list[str] = []
    writable = [store.paths(env.environment_id).root, *([cache.directory] if cache else [])]
    with ThreadPoolExecutor(
        max(1, min(PARALLEL, len(missing))), "pull", initializer=lambda: told.append(restrict_writes(writable))
    ) as pool:
        waiting = [(revision, pool.submit(_materialize, store, env, revision, view, delivered)) for revision in missing]
        fatal: BaseException | None = None
        for revision, future in waiting:
            if fatal is not None:
                future.cancel()
                continue
            try:
                packs[revision.revision_id] = future.result()
            except GreenticError as error:
                if policy.is_fatal(revision):
                    fatal = error
                    continue
                skipped[revision.deployment_id] = str(error.__cause__ or error)
                log.error(
                    "pull",
                    f"revision `{revision.revision_id}` of bundle `{revision.bundle_id}`, deployment "
                    f"`{revision.deployment_id}`, from {revision.bundle_source_uri} FAILED to materialize and is NOT served by "
                    f"this process: {error.__cause__ or error}; it belongs to another unit",
                )
    if fatal is not None:
        raise fatal
    if cache is not None and missing:
        _make_room(store, cache, log)
    materialized = sum(r.revision_id in packs for r in missing)
    if materialized or skipped:
        log.info(
            "pull",
            f"materialized {materialized} revision(s) from bundle sources for env `{env.environment_id}` "
            f"({len(skipped)} foreign revision(s) skipped)",
        )
    return Pulled(packs, materialized, skipped, told[0] if told else "landlock: nothing was fetched")


def _make_room(store: EnvironmentStore, cache: BundleCache, log: OperatorLog) -> None:
    """Keep the cache below its size; a worker does not fail because it could not tidy up."""
    try:
        gone = cache.prune(max_bytes(), lambda: needed_digests(store))
    except (OSError, GreenticError) as error:
        log.warn("cache", f"`{cache.directory}` was not pruned: {error}")
        return
    if gone:
        log.info("cache", f"dropped {len(gone)} bundle(s) that nothing needs, {sum(e.size for e in gone)} bytes")


def _quarantine(
    env: Environment, revision: Revision, fault: GreenticError, skipped: dict[str, str], log: OperatorLog
) -> None:
    skipped[revision.deployment_id] = fault.message
    log.error(
        "pull",
        f"deployment `{revision.deployment_id}` is QUARANTINED and will not serve: revision `{revision.revision_id}` has no "
        f"bundle_source_uri and is not on this disk ({fault.message}); stage it with a source, or run "
        f"`gtc op env repair {env.environment_id} --apply`",
    )


def _materialize(
    store: EnvironmentStore, env: Environment, revision: Revision, view: PullView, delivered: Delivered
) -> list[LocatedPack]:
    """Fetch one bundle, let it through the gate, unpack it, and bring it to its place. Raises `BootError` with the cause."""
    uri = revision.bundle_source_uri or ""
    paths = store.paths(env.environment_id)
    deployment = env.deployment(revision.deployment_id)
    fetching = f"fetching bundle `{uri}` for revision `{revision.revision_id}`"
    materializing = f"materializing revision `{revision.revision_id}` from bundle `{uri}`"
    step = fetching
    try:
        if deployment is None:
            raise NotFound(f"deployment `{revision.deployment_id}` for revision `{revision.revision_id}` has no bundle")
        with (
            StagingArea(paths, store.disk, revision.revision_id, store.random.octets(6).hex()) as area,
            ExitStack() as stack,
        ):
            bundle = _obtain(area, stack, delivered, revision, view)
            step = materializing
            if revision.pack_list_lock_ref != lock_ref(revision.revision_id):
                raise Conflict(
                    f"materialized pack-list lock ref `{lock_ref(revision.revision_id)}` diverges from revision "
                    f"`{revision.revision_id}`'s `{revision.pack_list_lock_ref}`"
                )
            staged = area.fill(
                bundle,
                env_id=env.environment_id,
                bundle_id=deployment.bundle_id,
                shown_as=revision.bundle_source_uri or "",
            )
            wrong = diverging_packs(revision.pack_list, staged.lock)
            if wrong:
                raise RevisionFault(f"packs {', '.join(wrong)} of the bundle are not those that the revision records")
            with store.transaction(env.environment_id):
                place(area, paths, store.disk)
        return [LocatedPack(p.pack_id, paths.ref(p.path), p.digest) for p in staged.lock.packs]
    except DigestMismatch as error:
        raise BootError(materializing) from error
    except OSError as error:
        raise BootError(step) from io_error(error.filename or paths.root, error)
    except GreenticError as error:
        raise BootError(step) from error


class Delivered(NamedTuple):
    """How bundles come to this worker."""

    cache: BundleCache | None
    mirrors: list[str]
    log: OperatorLog
    store: EnvironmentStore
    limits: FetchLimits


def _obtain(area: StagingArea, stack: ExitStack, how: Delivered, revision: Revision, view: PullView) -> VerifiedBundle:
    """The pinned bundle, open and verified, and in the staging area. Raises `FetchError` or `DigestMismatch`."""
    uri, digest = revision.bundle_source_uri or "", revision.bundle_digest
    found = references(uri, digest, how.mirrors)

    def told(reference: str, why: str) -> None:
        how.log.warn("pull", f"`{reference}` does not have the bundle of revision `{revision.revision_id}`: {why}")

    def download(file: BinaryIO, journal: Journal | None) -> Fetched:
        def fetch(reference: str) -> Fetched:
            progress = view.start(reference)
            return fetch_into(
                file,
                reference,
                limits=how.limits,
                progress=progress,
                clock=how.store.clock,
                random=how.store.random,
                journal=journal,
            )

        return first_of(found, fetch, told)

    if how.cache is None or not is_digest(digest):
        file = stack.enter_context(area.create_bundle_file())
        fetched = download(file, None)
        return admit(file, fetched.digest, fetched.size, digest, revision_id=revision.revision_id)
    try:
        obtained = how.cache.obtain(digest, download)
    except DigestMismatch as error:
        raise mismatch(error.actual, digest, revision_id=revision.revision_id) from None
    file = stack.enter_context(obtained.file)
    if obtained.fetched is None:
        how.log.info("pull", f"revision `{revision.revision_id}`: the bundle was here already", show=True)
    elif obtained.fetched.resumed:
        got = obtained.fetched
        how.log.info(
            "pull", f"resumed {uri}: {got.moved} bytes fetched, {got.resumed} of {got.size} were here", show=True
        )
    area.adopt(obtained.path, file)
    return admit(file, obtained.digest, obtained.size, digest, revision_id=revision.revision_id)
