"""Bringing onto this disk what a plan wants pulled: fetch, gate, unpack, materialize (formats: worker 3; bundle 3).

Several bundles are fetched at once, each into its own private directory; each comes to its place under the environment
lock. What happens is told as events; what it means is for others to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from typing import BinaryIO, NamedTuple, Protocol

from greentic.distribute import bundle_cache
from greentic.distribute.bundle_cache import BundleCache, Download
from greentic.distribute.fetch import Fetched, FetchLimits, fetch_into
from greentic.distribute.journal import Journal
from greentic.distribute.mirrors import first_of, references
from greentic.ground.disk import io_error
from greentic.ground.errors import BootError, Conflict, DigestMismatch, FetchError, GreenticError, NotFound
from greentic.ground.optional import done_without
from greentic.materialize.placed import RevisionFault, left_to_bundle, verified_packs
from greentic.materialize.prune import needed_digests
from greentic.materialize.sandbox import restrict_writes
from greentic.materialize.serving_plan import ServingPlan
from greentic.materialize.staging import StagingArea, place
from greentic.materialize.under_way import UnderWay
from greentic.model.environment import Environment, Revision
from greentic.model.ids import is_digest
from greentic.model.revision_files import diverging_packs, lock_ref
from greentic.net.addresses import shown
from greentic.net.terms import Terms
from greentic.pack.located import LocatedPack
from greentic.store.environments import EnvironmentStore
from greentic.telemetry.tallies import TALLIES
from greentic.telemetry.tracing import within
from greentic.trust.gate import VerifiedBundle, admit, mismatch

PARALLEL = 4
"""How many bundles are fetched at once."""

Moved = Callable[[int, int | None], None]
"""Told bytes so far and bytes announced; from any thread."""


class Events(Protocol):
    """Who is told how pulling goes; from any thread."""

    def pulling(self, reference: str) -> Moved:
        """A download of `reference` begins."""
        ...

    def passed_over(self, revision: Revision, reference: str, why: str) -> None:
        """One source does not have the bundle; the next is asked."""
        ...

    def here_already(self, revision: Revision) -> None: ...

    def resumed(self, revision: Revision, fetched: Fetched) -> None: ...

    def close(self) -> None:
        """Nothing more is pulled for now."""
        ...


class Means(NamedTuple):
    """How bundles come to this worker."""

    store: EnvironmentStore
    cache: BundleCache | None
    mirrors: list[str]
    limits: FetchLimits
    events: Events
    terms: Terms = Terms()
    """How servers are asked. Where none may be, what is not in the cache is not to be had."""


class Obtained(NamedTuple):
    """What pulling brought."""

    packs: Mapping[str, tuple[LocatedPack, ...]]
    """By revision: what was pulled and is in its place now."""
    failed: Mapping[str, GreenticError]
    """By revision: `BootError` with the cause."""
    guard: str
    """What guarded the fetching, in words."""


def pull(plan: ServingPlan, means: Means, under_way: UnderWay | None = None) -> Obtained:
    """Pull what the plan wants, until a failure that ends the boot. What is left of it goes on by itself (`materialize/under_way`)."""
    under_way = UnderWay() if under_way is None else under_way
    packs: dict[str, tuple[LocatedPack, ...]] = {}
    failed: dict[str, GreenticError] = {}
    if not plan.pull:
        return Obtained(packs, failed, under_way.guard)
    writable = [means.store.paths(plan.env.environment_id).root, *([means.cache.directory] if means.cache else [])]
    pulls = {_name(r): partial(copy_context().run, materialize, plan.env, r, means) for r in plan.pull}
    begun = under_way.begin(pulls, PARALLEL, lambda: restrict_writes(writable))
    for revision in plan.pull:
        if any(plan.is_fatal(r.deployment_id) for r in plan.pull if r.revision_id in failed):
            begun[_name(revision)].cancel()
            continue
        try:
            packs[revision.revision_id] = under_way.ended(_name(revision), begun[_name(revision)])
        except GreenticError as error:
            failed[revision.revision_id] = error
    return Obtained(packs, failed, under_way.guard)


def _name(revision: Revision) -> str:
    """What is pulled for a revision, and from where."""
    return f"{revision.revision_id} {revision.bundle_digest} {revision.bundle_source_uri}"


def materialize(env: Environment, revision: Revision, means: Means) -> tuple[LocatedPack, ...]:
    """Fetch one bundle, let it through the gate, unpack it, and bring it to its place. Raises `BootError` with the cause."""
    uri, store = revision.bundle_source_uri or "", means.store
    paths = store.paths(env.environment_id)
    deployment = env.deployment(revision.deployment_id)
    fetching = f"fetching bundle `{shown(uri)}` for revision `{revision.revision_id}`"
    materializing = f"materializing revision `{revision.revision_id}` from bundle `{shown(uri)}`"
    step, named = fetching, {"greentic.bundle": revision.bundle_id, "greentic.revision": revision.revision_id}
    try:
        if deployment is None:
            raise NotFound(f"deployment `{revision.deployment_id}` for revision `{revision.revision_id}` has no bundle")
        with (
            StagingArea(paths, store.disk, revision.revision_id, store.random.octets(6).hex()) as area,
            ExitStack() as stack,
        ):
            with within("fetch", **named):
                bundle = _obtain(area, stack, means, revision)
            step = materializing
            if revision.pack_list_lock_ref != lock_ref(revision.revision_id):
                raise Conflict(
                    f"materialized pack-list lock ref `{lock_ref(revision.revision_id)}` diverges from revision "
                    f"`{revision.revision_id}`'s `{revision.pack_list_lock_ref}`"
                )
            with within("unpack", **named):
                staged = area.fill(
                    bundle,
                    env_id=env.environment_id,
                    bundle_id=deployment.bundle_id,
                    shown_as=shown(uri),
                )
            wrong = diverging_packs(revision.pack_list, staged.lock)
            if wrong and revision.pack_list:  # an empty list leaves it to the bundle's digest, which was verified
                raise RevisionFault(f"packs {', '.join(wrong)} of the bundle are not those that the revision records")
            if set(staged.config_refs) != set(revision.pack_config_refs) and not left_to_bundle(revision):
                raise RevisionFault("the bundle configures other packs than the revision records")
            with store.transaction(env.environment_id):
                try:  # another process may have placed it meanwhile, and be loading it
                    return tuple(verified_packs(paths, revision))
                except RevisionFault:
                    place(area, paths, store.disk)
        return tuple(LocatedPack(p.pack_id, paths.ref(p.path), p.digest) for p in staged.lock.packs)
    except DigestMismatch as error:
        raise BootError(materializing) from error
    except OSError as error:
        raise BootError(step) from io_error(error.filename or paths.root, error)
    except GreenticError as error:
        raise BootError(step) from error


def _count(fetched: Fetched | None) -> None:
    """Count a bundle that came from its source, or was in the cache."""
    TALLIES.add("greentic_pulls", ("cache" if fetched is None else "source",))
    if fetched is not None:
        TALLIES.add("greentic_pulled_bytes", (), fetched.moved)
        if fetched.resumed:
            TALLIES.add("greentic_pull_resumes")
            TALLIES.add("greentic_pull_resumed_bytes", (), fetched.resumed)


def _obtain(area: StagingArea, stack: ExitStack, means: Means, revision: Revision) -> VerifiedBundle:
    """The pinned bundle, open and verified, and in the staging area. Raises `FetchError` or `DigestMismatch`."""
    uri, digest = revision.bundle_source_uri or "", revision.bundle_digest
    found, pinned = references(uri, digest, means.mirrors), digest if is_digest(digest) else None

    def download(file: BinaryIO, journal: Journal | None) -> Fetched:
        if means.terms.offline:
            from greentic.net.request import PULLING  # a boot that asks nobody needs nothing else of it

            raise FetchError(f"{PULLING} {shown(uri)}: this worker runs without a network")

        def fetch(reference: str, patient: bool) -> Fetched:
            return fetch_into(
                file,
                reference,
                wanted=pinned,
                mirror=reference != uri,
                patient=patient,
                limits=means.limits,
                progress=means.events.pulling(shown(reference)),
                terms=means.terms._replace(clock=means.store.clock, random=means.store.random),
                journal=journal,
            )

        return first_of(found, fetch, lambda reference, why: means.events.passed_over(revision, reference, why))

    try:
        obtained = _cached(means, pinned, download)
        if obtained is None:
            file = stack.enter_context(area.create_bundle_file())
            fetched = download(file, None)
            _count(fetched)
            with within("gate"):
                return admit(file, fetched.digest, fetched.size, digest, revision_id=revision.revision_id)
    except DigestMismatch as error:
        raise mismatch(error.actual, digest, revision_id=revision.revision_id, why=error.why) from None
    file = stack.enter_context(obtained.file)
    _count(obtained.fetched)
    if obtained.fetched is None:
        means.events.here_already(revision)
    elif obtained.fetched.resumed:
        means.events.resumed(revision, obtained.fetched)
    area.adopt(obtained.path, file)
    with within("gate"):
        return admit(file, obtained.digest, obtained.size, digest, revision_id=revision.revision_id)


def _cached(means: Means, pinned: str | None, download: Download) -> bundle_cache.CachedBundle | None:
    """The bundle by way of the cache; nothing where there is none, or it takes nothing (delivery 3): that costs time only."""
    if means.cache is None or pinned is None:
        return None
    try:
        return means.cache.obtain(pinned, download, lambda: needed_digests(means.store))
    except OSError as error:
        done_without("the cache of bundles", error)
        return None
