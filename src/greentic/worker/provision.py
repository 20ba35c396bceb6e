"""From an environment document to an activation: the one pipeline of boot and swap, values handed down (formats: worker 3).

    Environment + Trusted ► ServingPlan ► Obtained ► Loaded ► Activation

Rules:
1. Nothing here decides by itself: what to pull is the plan's, whom to trust is the policy's, whose failure ends a boot is the plan's.
2. What the worker has is not had again: revisions that are served are neither hashed nor loaded another time.
3. The projection on the disk is that of the very document that was provisioned, without the deployments that are not served.
4. While something serves, a deployment whose new revisions cannot be had goes on with the old ones, unless trust refuses those now.
5. While something serves, only deployments that a document touches, and those that are not served, go through the pipeline; the rest is
   taken over as it is. All do where whom to trust has changed, and in a worker that is for one revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from greentic.activate.activation import Activation, Loaded, Loader, activate, joined, load_revisions
from greentic.activate.turn import ActiveRevision
from greentic.distribute.bundle_cache import BundleCache, open_cache
from greentic.ground.errors import BootError, GreenticError, SpecViolation
from greentic.materialize.placed import survey
from greentic.materialize.pull import Events, Means, Obtained, pull
from greentic.materialize.sandbox import forbid_core_files
from greentic.materialize.serving_plan import Fault, Scope, ServingPlan, as_seen, ends_boot, serving_plan
from greentic.materialize.trusted import Examiner, protections
from greentic.materialize.under_way import StillComing, UnderWay
from greentic.model.delivery import generation_of
from greentic.model.environment import Environment, Revision
from greentic.model.projection import Projected
from greentic.model.touched import every_deployment, only, touched
from greentic.model.traffic import wanted_revisions
from greentic.net.addresses import shown
from greentic.pack.located import LocatedPack
from greentic.store.environments import EnvironmentStore
from greentic.store.in_use import InUse
from greentic.store.layout import EnvPaths
from greentic.telemetry.log import OperatorLog
from greentic.telemetry.phases import phase
from greentic.telemetry.tallies import TALLIES
from greentic.trust.policy import Trusted, verdict
from greentic.worker.candidate import Candidate
from greentic.worker.settings import Settings
from greentic.worker.tidy import hold, make_room
from greentic.worker.trust_files import shortly


class Bench(msgspec.Struct, frozen=True):
    """What provisioning works with, made once for a worker."""

    store: EnvironmentStore
    paths: EnvPaths
    """Of the worker's environment."""
    settings: Settings
    examiner: Examiner
    log: OperatorLog
    loader: Loader
    cookie_key: bytes
    events: Callable[[OperatorLog], Events]
    """Who is told how pulling goes."""
    projected: Projected
    """What made the projection that this process wrote last."""
    in_use: InUse | None = None
    """Where this process tells which revisions it holds; nothing where that cannot be told."""
    under_way: UnderWay = msgspec.field(default_factory=UnderWay)


def provision(bench: Bench, candidate: Candidate, serving: Activation | None = None) -> Activation:
    """The activation of one document; `serving` is what runs now, if anything does.

    Raises `BootError` for a document that is refused, and at a boot for a failure that ends it. Nothing is changed by a document
    that is refused. While something serves, the failure of a deployment leaves that deployment as it was (rule 4).
    """
    settings, log, env = bench.settings, bench.log, candidate.env
    boot = serving is None
    trust = _established(bench, env, boot=boot)
    candidate.adopt(bench.paths)
    with bench.store.transaction(settings.env_id):
        pass  # entering the lock repairs what a killed process left
    whole = as_seen(env, settings.scope)  # of thousands, a revision's own worker looks at one
    changed = _changed(whole, serving, trust, settings.scope)
    held = {i: r for i, r in serving.revisions.items() if r.deployment_id in changed} if serving else {}
    plan = _planned(bench, only(whole, changed), trust, held)
    cache = open_cache(settings.cache_directory)
    with phase("pull", boot=boot):
        obtained = _pulled(bench, plan, cache, trust.delivery.mirrors)
    loaded, faults = _loaded(bench, plan, obtained, trust, held, boot=boot)
    for fault in faults.values():
        TALLIES.add("greentic_refusals", (fault.why,))
    _tell(log, plan.env, faults)
    _project(bench, whole, frozenset(faults))
    if obtained.packs:
        log.info(
            "pull",
            f"materialized {len(obtained.packs)} revision(s) from bundle sources for env `{env.environment_id}` "
            f"({len(faults)} foreign revision(s) skipped)",
        )
    try:
        activation = activate(plan.env, loaded, faults, bench.cookie_key, _still_good(serving, trust, faults))
    except SpecViolation as error:
        raise BootError(f"activating environment `{env.environment_id}`") from error
    return joined(whole, changed, activation, serving)._replace(
        protections=protections(trust, [obtained.guard, forbid_core_files()]),
        trusted=trust,
        generation=generation_of(candidate.env),
    )


def _established(bench: Bench, env: Environment, *, boot: bool) -> Trusted:
    """Whom to trust about a document. Raises `BootError` for one that is refused."""
    examiner = bench.examiner if boot else bench.examiner._replace(terms=shortly(bench.examiner.terms))
    with phase("trust", boot=boot):
        trust = examiner.establish(env)
    for warning in trust.warnings:
        bench.log.warn("trust", warning)
    return trust


def _planned(bench: Bench, part: Environment, trust: Trusted, held: Mapping[str, ActiveRevision]) -> ServingPlan:
    """What is to be had of a part of the environment; `held` are revisions of it that are served."""
    log, wanted = bench.log, wanted_revisions(part)
    hold(bench.in_use, wanted, log)
    refused: dict[str, GreenticError] = {}
    for revision in wanted:
        found = verdict(trust, revision)
        if found.warning is not None:
            log.warn("trust", found.warning)
        if found.refusal is not None:
            refused[revision.revision_id] = _because(f"trust in revision `{revision.revision_id}`", found.refusal)
    there = survey(bench.paths, wanted, _at_hand(held))
    plan = serving_plan(part, bench.settings.scope, refused, there)
    if plan.warning:
        log.warn("pull", plan.warning)
    if plan.pull:
        make_room(bench.store, bench.settings, log)  # before there is more on the disk, not after
    return plan


def _loaded(
    bench: Bench, plan: ServingPlan, obtained: Obtained, trust: Trusted, held: Mapping[str, ActiveRevision], *, boot: bool
) -> tuple[Loaded, dict[str, Fault]]:  # fmt: skip
    """What of a plan is loaded, and the deployments that are not. Raises `BootError` for a failure that ends a boot."""
    faults = {**plan.unavailable, **_unreachable(plan, obtained)}
    served = [r for r in wanted_revisions(plan.env) if r.deployment_id not in faults]
    if boot:
        _raise_if(ends_boot(plan, faults, len(served)))
    parts = {r.content: r for r in held.values()}
    loader = bench.loader._replace(policy=bench.loader.policy._replace(revoked=trust.revoked_keys))
    with phase("load", boot=boot):
        loaded = load_revisions(plan.env, served, {**plan.keep, **obtained.packs}, loader, parts)
    faults |= loaded.failed
    if boot:
        _raise_if(ends_boot(plan, faults, len(loaded.revisions)))
    return loaded, faults


def _still_good(serving: Activation | None, trust: Trusted, faults: Mapping[str, Fault]) -> Activation | None:
    """What serves, without those of the faulty deployments of which a revision is refused by now (rule 4)."""
    if serving is None or not faults:
        return serving
    wanted = {i for deployment_id in faults for i in _weights(serving, deployment_id)}
    known = {r.revision_id: r for r in serving.env.revisions if r.revision_id in wanted}
    gone = {deployment_id for deployment_id in faults if _is_refused(serving, deployment_id, trust, known)}
    return serving._replace(dispatchers={i: d for i, d in serving.dispatchers.items() if i not in gone})


def _weights(serving: Activation, deployment_id: str) -> Mapping[str, int]:
    dispatcher = serving.dispatchers.get(deployment_id)
    return {} if dispatcher is None else dispatcher.weights


def _is_refused(serving: Activation, deployment_id: str, trust: Trusted, known: Mapping[str, Revision]) -> bool:
    """Whether trust refuses a revision that a deployment serves, or cannot tell."""
    try:
        return any(
            (revision := known.get(i)) is not None and verdict(trust, revision).refusal is not None
            for i in _weights(serving, deployment_id)
        )
    except GreenticError:
        return True


def _changed(env: Environment, serving: Activation | None, trust: Trusted, scope: Scope) -> frozenset[str]:
    """The deployments that are to be provisioned (rule 5)."""
    if serving is None:
        return every_deployment(env)
    if scope.own_revision is not None or not _trusts_as(serving.trusted, trust):
        return every_deployment(serving.env) | every_deployment(env)
    return touched(serving.env, env) | serving.unavailable.keys()


def _trusts_as(before: Trusted | None, now: Trusted) -> bool:
    """Whether the verdict on every revision is as it was."""
    if before is None:
        return False
    told = (before.delivery.signatures, before.keys, before.revoked)
    return told == (now.delivery.signatures, now.keys, now.revoked)


def _at_hand(held: Mapping[str, ActiveRevision]) -> Mapping[str, tuple[str, tuple[LocatedPack, ...]]]:
    """Of what bundle the packs are that are served; their digests were verified when they were loaded (rule 2)."""
    return {i: (r.digest, tuple(p.place for p in r.packs)) for i, r in held.items()}


def _pulled(bench: Bench, plan: ServingPlan, cache: BundleCache | None, mirrors: list[str]) -> Obtained:
    events = bench.events(bench.log)
    try:
        means = Means(bench.store, cache, mirrors, bench.settings.fetch, events, bench.settings.terms)
        return pull(plan, means, bench.under_way)
    finally:
        events.close()


def _unreachable(plan: ServingPlan, obtained: Obtained) -> dict[str, Fault]:
    by_id = {r.revision_id: r for r in plan.pull}
    return {by_id[i].deployment_id: Fault("unreachable", i, error) for i, error in obtained.failed.items()}


def _raise_if(fault: Fault | None) -> None:
    if fault is not None:
        raise fault.error


def _tell(log: OperatorLog, env: Environment, faults: Mapping[str, Fault]) -> None:
    """Say which deployments are not served, each with its reason and what to do."""
    for deployment_id, fault in faults.items():
        if isinstance(fault.error, StillComing):
            log.info("pull", f"revision `{fault.revision_id}` is not served yet: {fault.text}", show=True)
            continue
        revision = env.revision(fault.revision_id)
        log.error("trust" if fault.reason == "refused" else "pull", _told(env, deployment_id, fault, revision))


def _told(env: Environment, deployment_id: str, fault: Fault, revision: Revision | None) -> str:
    if fault.reason == "refused":
        return f"deployment `{deployment_id}` is NOT served by this process: {fault.text}"
    if fault.reason == "absent":
        return (
            f"deployment `{deployment_id}` is QUARANTINED and will not serve: revision `{fault.revision_id}` has no "
            f"bundle_source_uri and is not on this disk ({fault.text}); stage it with a source, or run "
            f"`gtc op env repair {env.environment_id} --apply`"
        )
    bundle, source = (revision.bundle_id, shown(revision.bundle_source_uri or "")) if revision else ("?", "?")
    return (
        f"revision `{fault.revision_id}` of bundle `{bundle}`, deployment `{deployment_id}`, from {source} FAILED to materialize "
        f"and is NOT served by this process: {fault.text}; it belongs to another unit"
    )


def _project(bench: Bench, env: Environment, unavailable: frozenset[str]) -> None:
    """Write the projection of the document (rule 3). Raises `BootError`."""
    try:
        with bench.store.transaction(bench.settings.env_id) as transaction:
            transaction.refresh_projection(env, skipped=unavailable, projected=bench.projected)
    except GreenticError as error:
        raise BootError(f"re-projecting runtime-config for env `{bench.settings.env_id}`") from error


def _because(text: str, cause: GreenticError) -> BootError:
    error = BootError(text)
    error.__cause__ = cause
    return error
