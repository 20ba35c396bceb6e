"""`op revisions`: warm, drain, archive, retry, list (formats: op 4); `stage` has a file of its own.

Warming really loads what it warms: a revision that does not load becomes `failed`. What is still in use is not archived where workers
are asked.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from greentic.activate.warm import Loadable, check_loadable
from greentic.deployments.worker_status import HttpWorkers, Workers, checked_addresses
from greentic.ground.clock import timestamp
from greentic.ground.documents import replace
from greentic.ground.errors import Conflict, FetchError, GreenticError, NotFound
from greentic.ground.reply import Reply
from greentic.materialize.placed import verified_packs
from greentic.materialize.prune import let_go, of_revisions
from greentic.model.environment import Environment, Revision
from greentic.model.ids import check_env_id, check_ulid
from greentic.model.lifecycle import Verb, check_not_routed, put_revision, walk
from greentic.operate.change import Context, Done, Idempotency, checked_key, run, whole
from greentic.operate.payload import Key, Payload, Ulid
from greentic.pack.located import LocatedPack
from greentic.store.audit import Change
from greentic.store.environments import Transaction

WAIT_SECONDS = 3600.0


class RevisionTransitionPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    revision_id: Ulid
    idempotency_key: Key | None = None


class ArchiveOptions(NamedTuple):
    """Whom to ask whether a revision is still in use."""

    at: list[str] = []
    """Addresses of workers."""
    wait: bool = False
    """Wait until nobody uses it, at most `WAIT_SECONDS`."""


NOBODY_ASKED = ArchiveOptions()


class RevisionSummary(Reply, frozen=True, kw_only=True):
    """What the verbs tell about a revision."""

    revision_id: str
    deployment_id: str
    bundle_id: str
    sequence: int
    """Its place among the deployment's revisions, from 1."""
    lifecycle: str
    warnings: list[str] | UnsetType = UNSET
    """Where there are any: after a warm what loads and can never work, by pack; after a stage that no worker could pull it."""


class RevisionList(Reply, frozen=True, kw_only=True):
    environment_id: str
    revisions: list[RevisionSummary]


def summary(revision: Revision) -> RevisionSummary:
    return RevisionSummary(
        revision_id=revision.revision_id,
        deployment_id=revision.deployment_id,
        bundle_id=revision.bundle_id,
        sequence=revision.sequence,
        lifecycle=revision.lifecycle,
    )


def find_revision(env: Environment, revision_id: str) -> Revision:
    revision = env.revision(revision_id)
    if revision is None:
        raise NotFound(
            f"revision `{revision_id}` not found in env `{env.environment_id}`",
            hint=f"gtc op revisions list {env.environment_id}",
        )
    return revision


def warm(context: Context, payload: RevisionTransitionPayload) -> RevisionSummary:
    """staged to ready, if the revision's packs are there, are what was pinned, and load; else it becomes failed."""
    return _transition(context, payload, "warm", "ready")


def drain(context: Context, payload: RevisionTransitionPayload) -> RevisionSummary:
    """ready to draining: no new sessions; what runs may end."""
    return _transition(context, payload, "drain", "draining")


def archive(
    context: Context,
    payload: RevisionTransitionPayload,
    options: ArchiveOptions = NOBODY_ASKED,
    workers: Workers | None = None,
) -> RevisionSummary:
    """To archived, from wherever it is, unless traffic still names it or a worker that is asked still has somebody on it."""
    if options.at:
        env_id = check_env_id(payload.environment_id)
        revision = find_revision(context.store.load(env_id), check_ulid(payload.revision_id, field="revision_id"))
        _check_left(context, revision.revision_id, options, workers or HttpWorkers(context.clock))
    return _transition(context, payload, "archive", "archived")


def _check_left(context: Context, revision_id: str, options: ArchiveOptions, workers: Workers) -> None:
    """Raise `Conflict` while a worker has requests or conversations on the revision; with `wait`, wait until none has."""
    addresses = checked_addresses(list(options.at))
    ends = context.clock.monotonic() + (WAIT_SECONDS if options.wait else 0.0)
    while True:
        held = []
        for address in addresses:
            try:
                holding = workers.ask(address, revision_id).held(revision_id)
            except FetchError as error:
                held.append(str(error))  # who cannot be asked may have somebody on it
                continue
            if not holding.nothing:
                held.append(f"`{address}` has {holding}")
        if not held:
            return
        if context.clock.monotonic() >= ends:
            raise Conflict(
                f"revision `{revision_id}` is still in use: {'; '.join(held)}",
                hint="archive with --wait, or when they have ended",
            )
        context.view.say(f"waiting: {'; '.join(held)}")
        context.clock.sleep(1.0)


def retry(context: Context, payload: RevisionTransitionPayload) -> RevisionSummary:
    """failed back to staged, for another warm."""
    return _transition(context, payload, "retry", "staged")


def _transition(context: Context, payload: RevisionTransitionPayload, verb: Verb, goal: str) -> RevisionSummary:
    env_id = check_env_id(payload.environment_id)
    revision_id = check_ulid(payload.revision_id, field="revision_id")
    key = checked_key(payload.idempotency_key)
    change = Change(
        env_id, "revisions", verb, {"revision_id": revision_id, "lifecycle_to": goal}, key or context.mint()
    )
    ahead: LookedAt | None = None
    if verb == "warm":
        # A missing revision is told before anything is logged, as other programs do.
        ahead = _look_ahead(context, find_revision(context.store.load(env_id), revision_id))

    def action(transaction: Transaction) -> Done[RevisionSummary]:
        env = transaction.load()
        revision = find_revision(env, revision_id)
        state, moved = walk(revision, verb)
        warnings: list[str] = []
        if verb == "archive" and moved:
            check_not_routed(env, revision)
        if verb == "warm":
            if moved:
                warnings = loaded_or_failed(transaction, env, revision, ahead)
            revision = replace(revision, warmed_at=timestamp(context.clock.now_ns()))
        env = put_revision(env, replace(revision, lifecycle=state))
        transaction.save(env)
        transaction.refresh_projection(env)
        if verb == "archive" and moved:
            _retain(transaction, env)
        told = summary(replace(revision, lifecycle=state))
        return Done(msgspec.structs.replace(told, warnings=warnings or UNSET))

    return run(context, change, action, idempotency=Idempotency(key, revision_id, whole(payload), RevisionSummary))


class LookedAt(NamedTuple):
    """What loading some packs found, before the lock was taken."""

    located: list[LocatedPack]
    found: Loadable


def _look_ahead(context: Context, revision: Revision) -> LookedAt | None:
    """Load the packs and compile their components before the lock is taken, so that nobody waits for it; faults are told under it."""
    with suppress(GreenticError):
        if revision.lifecycle == "staged":
            located = verified_packs(context.store.paths(revision.env_id), revision)
            return LookedAt(located, check_loadable(located))
    return None


def loaded_or_failed(
    transaction: Transaction, env: Environment, revision: Revision, ahead: LookedAt | None = None
) -> list[str]:
    """Load what is warmed, unless the very packs were loaded `ahead`, and tell what a worker would warn about.

    A failure is saved as the revision's state and told as a `Conflict`.
    """
    try:
        located = verified_packs(transaction.paths, revision)
        return (ahead.found if ahead is not None and ahead.located == located else check_loadable(located)).warnings
    except GreenticError as error:
        transaction.save(put_revision(env, replace(revision, lifecycle="failed")))
        raise Conflict(
            f"revision `{revision.revision_id}` failed warm/ready health gate (checks: [RuntimeConfig]): {error.message}",
            hint="repair the bundle and stage it again, or `gtc op revisions retry` after a passing fault",
        ) from error


def _retain(transaction: Transaction, env: Environment) -> None:
    """Delete the files of revisions that retention lets go, where it says anything."""
    if env.retention.keep_revisions is not None:
        let_go(of_revisions(transaction, env), transaction)


def list_revisions(context: Context, env_id: str) -> RevisionList:
    env = context.store.load(check_env_id(env_id, field="env_id"))
    return RevisionList(environment_id=env.environment_id, revisions=[summary(r) for r in env.revisions])
