"""Bringing what is routed onto this disk: fetch, gate, unpack, materialize (spec: worker 2.3 to 2.5).

Several bundles are fetched at once, each into its own private directory; each comes to its place under the environment
lock. What is on the disk already, whole and with its pinned digests, is not fetched again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from greentic.distribute.fetch import fetch_into
from greentic.ground.errors import BootError, Conflict, GreenticError, NotFound
from greentic.model.environment import Environment, Revision
from greentic.model.revision_files import diverging_packs, lock_ref
from greentic.serve.log import OperatorLog
from greentic.serve.progress import PullView
from greentic.serve.pull_plan import Policy, wanted_revisions
from greentic.store.disk import io_error
from greentic.store.environments import EnvironmentStore
from greentic.store.revisions import LocatedPack, RevisionFault, verified_packs
from greentic.store.staging import StagingArea, place
from greentic.trust.gate import admit

PARALLEL = 4
"""How many bundles are fetched at once."""


class Pulled(NamedTuple):
    """What is on the disk after pulling."""

    packs: dict[str, list[LocatedPack]]
    """By revision, the packs of every revision that can be served, digests verified."""
    materialized: int
    skipped: dict[str, str]
    """Deployments that are not served, and why."""


def pull(store: EnvironmentStore, env: Environment, policy: Policy, log: OperatorLog, view: PullView) -> Pulled:
    """Make every wanted revision available, or say why not. Raises `BootError` for a fatal failure."""
    wanted = wanted_revisions(env)
    if policy.warning:
        log.warn("pull", policy.warning)
    packs: dict[str, list[LocatedPack]] = {}
    missing: list[Revision] = []
    skipped: dict[str, str] = {}
    for revision in wanted:
        try:
            packs[revision.revision_id] = verified_packs(store.paths(env.environment_id), revision)
        except GreenticError as fault:
            if revision.bundle_source_uri is not None:
                missing.append(revision)
            else:
                _quarantine(env, revision, fault, skipped, log)
    with ThreadPoolExecutor(max(1, min(PARALLEL, len(missing))), "pull") as pool:
        waiting = [(revision, pool.submit(_materialize, store, env, revision, view)) for revision in missing]
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
    materialized = sum(r.revision_id in packs for r in missing)
    if materialized or skipped:
        log.info(
            "pull",
            f"materialized {materialized} revision(s) from bundle sources for env `{env.environment_id}` "
            f"({len(skipped)} foreign revision(s) skipped)",
        )
    return Pulled(packs, materialized, skipped)


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


def _materialize(store: EnvironmentStore, env: Environment, revision: Revision, view: PullView) -> list[LocatedPack]:
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
        with StagingArea(paths, store.disk, revision.revision_id, store.random.octets(6).hex()) as area:
            with area.create_bundle_file() as file:
                fetched = fetch_into(file, uri, progress=view.start(uri), clock=store.clock)
                step = materializing
                bundle = admit(
                    file, fetched.digest, fetched.size, revision.bundle_digest, revision_id=revision.revision_id
                )
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
    except OSError as error:
        raise BootError(step) from io_error(error.filename or paths.root, error)
    except GreenticError as error:
        raise BootError(step) from error
