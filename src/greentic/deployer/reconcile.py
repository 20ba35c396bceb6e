"""`op env reconcile` and `op env diff`: make the cluster match the environment, or tell what would change (formats: cluster 5).

Rules:
1. A bound identity has no say over namespaces, so the Namespace is left out of what it applies.
2. `applied` lists every desired object that is as desired, `created` and `changed` what this run wrote; `pruned` what was really
   deleted. A run that writes nothing reports the same `applied`.
3. A dry run asks the server to try every object, too: "in sync" is said only if the server agrees.
4. A run that failed part of the way reports what was done, what failed and what was left; running it again goes on.
5. Runs that wrote, or tried to, are in the audit log.
6. Healthy is what is rolled out and says that it serves the very document that was applied. Routers are asked after every run, workers
   only after one that wrote: what a worker serves is its own revision, whatever becomes of the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from greentic.cluster.apply import ApplyRules, Outcome, converge
from greentic.cluster.verdicts import added, remarks
from greentic.cluster.wait import DEFAULT_SECONDS, LOG_HEAD, wait_healthy
from greentic.cluster.wait_served import AwaitedDocument, Heard, wait_served
from greentic.cluster.way_in import WayIn, way_in
from greentic.controller.keeping import put_back
from greentic.controller.left_behind import left_behind
from greentic.deployer.binding import Deployer, public_url_warnings, resolve
from greentic.deployer.cluster_identity import Reached, reach
from greentic.deployer.dry_run import DryRun, dry_run
from greentic.deployer.rollout_view import RolloutView
from greentic.deployer.told import ObjectFailed, ObjectTold, all_told, failed
from greentic.ground import variables
from greentic.ground.clock import CLOCK
from greentic.ground.disk import try_exclusive
from greentic.ground.documents import Json, JsonObject, compact, replace
from greentic.ground.errors import Conflict, GreenticError, InvalidArgument
from greentic.ground.reply import Reply, reply_object
from greentic.history.left_namespaces import EMPTY, left_in
from greentic.k8s import names
from greentic.k8s.objects import ref_of
from greentic.k8s.plan import Plan
from greentic.k8s.render import digest_for_pods, pointed, render
from greentic.model.environment import Environment
from greentic.model.ids import check_env_id
from greentic.model.pod_view import is_present, routed_ids
from greentic.net.terms import own_terms
from greentic.operate.change import Context
from greentic.operate.payload import Payload
from greentic.operate.view import View
from greentic.publication.pointed import push_document
from greentic.store.audit import Change, outcome_of

TIMEOUT_VARIABLE = "GREENTIC_K8S_WARM_READY_TIMEOUT_SECS"

Timeout = Annotated[
    int | None,
    msgspec.Meta(description=f"seconds to wait for health (default: ${TIMEOUT_VARIABLE} or {DEFAULT_SECONDS})"),
]
KindText = Annotated[str | None, msgspec.Meta(description="the deployer's descriptor, if not the bound one's")]


class EnvReconcilePayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    kind: KindText = None
    dry_run: Annotated[bool, msgspec.Meta(description="only tell what would change")] = False
    no_wait: Annotated[bool, msgspec.Meta(description="do not wait until pods are healthy")] = False
    timeout: Timeout = None
    adopt: Annotated[bool, msgspec.Meta(description="take over objects of others under our names")] = False
    force: Annotated[bool, msgspec.Meta(description="take over fields that others manage")] = False
    recreate: Annotated[bool, msgspec.Meta(description="delete and make again what cannot be changed in place")] = False


class EnvDiffPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    kind: KindText = None
    adopt: bool = False
    force: bool = False


def wait_seconds(told: int | None) -> int:
    """How long to wait. Raises `InvalidArgument`."""
    if told is not None:
        if told < 1:
            raise InvalidArgument(f"timeout: {told} is no number of seconds")
        return told
    return variables.count(TIMEOUT_VARIABLE, least=1, most=86_400) or DEFAULT_SECONDS


class ReconcileReport(Reply, frozen=True, kw_only=True):
    """What a reconcile did (rule 2)."""

    environment_id: str
    kind: str
    """The deployer's descriptor."""
    answers_ref: str | None
    identity: str
    namespace: str
    applied: list[ObjectTold]
    applied_count: int
    created: list[ObjectTold]
    changed: list[ObjectTold]
    unchanged_count: int
    pruned: list[ObjectTold]
    pruned_count: int
    left_alone: list[ObjectTold] | UnsetType = UNSET
    unattributed: list[ObjectTold] | UnsetType = UNSET
    failed: list[ObjectFailed] | UnsetType = UNSET
    not_attempted: list[ObjectTold] | UnsetType = UNSET
    requests: int
    writes: int
    ready: list[str] | UnsetType = UNSET
    """The Deployments that were waited for."""
    serving: list[str] | UnsetType = UNSET
    """The pods that said that they serve the document."""
    urls: list[str] | UnsetType = UNSET
    """What callers use, where an exposure is answered."""
    addresses: list[str] | UnsetType = UNSET
    """Where that is, as far as the cluster has given it an address: of the Ingress, the load balancer or the Gateway."""
    warnings: list[str] | UnsetType = UNSET


def reconcile_environment(context: Context, payload: EnvReconcilePayload) -> ReconcileReport | DryRun:
    """Apply, prune and wait; or, as a dry run, only tell."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    seconds = wait_seconds(payload.timeout)
    rules = ApplyRules(payload.adopt, payload.force, payload.recreate)
    with nullcontext() if payload.dry_run else alone(context, env_id):
        # read once nobody else writes, so that an older document never wins
        deployer = resolve(context, env_id, payload.kind, live=True)
        objects = applicable(deployer)
        reached = reach(context, deployer)
        urls = public_url_warnings(deployer.env, deployer.answers)
        namespaces = left_in(context.store.paths(env_id), deployer.answers.namespace)
        left = left_behind(reached.cluster, namespaces, deployer.owner)
        warnings = [*deployer.answers.warnings(), *unpullable(deployer.env), *urls, *left.told] or UNSET
        if payload.dry_run:
            wanted = for_identity(objects, reached)
            told = dry_run(reached.cluster, reached.identity, wanted, deployer, rules)
            return replace(told, warnings=[*(warnings or []), *(told.warnings or [])] or UNSET)
        push_pointed(deployer, context.view)
        wait = None if payload.no_wait else seconds
        report = apply_objects(context, deployer, reached, objects, rules, wait, left_empty=left.empty)
        return replace(report, warnings=[*(warnings or []), *(report.warnings or [])] or UNSET)


def applicable(deployer: Deployer) -> list[JsonObject]:
    """The objects as they may be applied. Raises `Conflict` if nobody said which image to run."""
    if not deployer.answers.image_answered:
        raise Conflict(
            f"environment `{deployer.env.environment_id}` does not say which image its pods run, and there is no default",
            hint="build the worker's image, push it to your registry, and answer runtime_image with its digest (docs/cloud.md)",
        )
    return render(deployer.desired)


def push_pointed(deployer: Deployer, view: View) -> bool:
    """Put the document where pods are pointed to, before they are; whether anything was sent. Raises `FetchError`."""
    env, answers = deployer.desired.env, deployer.answers
    document = compact(env)
    if pointed(answers, env, document) is None or answers.environment_registry is None:
        return False
    view.say(f"pushing the document, {len(document)} bytes, to {answers.environment_registry}")
    return push_document(env, document, answers.environment_registry, own_terms())


def unpullable(env: Environment) -> list[str]:
    """What is to be said about revisions that pods have no place to pull from."""
    routed = routed_ids(env)
    return [
        f"revision `{r.revision_id}` has no bundle_source_uri: pods cannot pull it and answer nothing for it"
        for r in env.revisions
        if r.bundle_source_uri is None and (is_present(r) or r.revision_id in routed)
    ]


def diff(context: Context, payload: EnvDiffPayload) -> ReconcileReport | DryRun:
    """What a reconcile would change."""
    same = msgspec.structs.asdict(payload)
    return reconcile_environment(context, EnvReconcilePayload(**same, dry_run=True))


def apply_objects(
    context: Context,
    deployer: Deployer,
    reached: Reached,
    objects: list[JsonObject],
    rules: ApplyRules,
    seconds: int | None,
    *,
    left_empty: Sequence[str] = (),
) -> ReconcileReport:
    """Reconcile these objects and report; with `seconds`, wait for their health. Raises `Conflict` with the report so far.

    `left_empty` are namespaces that the log may forget (`history/left_namespaces`).
    """
    env_id, namespace = deployer.env.environment_id, deployer.answers.namespace
    view = context.view
    wanted = for_identity(objects, reached)
    report: ReconcileReport | None = None
    kept: list[str] = []

    def planned(plan: Plan) -> None:
        if not plan.in_sync:  # what is in sync nobody puts back, and it costs no request more
            kept.extend(put_back(reached.cluster, namespace, deployer.owner))
        for text in kept:
            view.warn(text)

    try:
        outcome = converge(
            reached.cluster, wanted, namespace, deployer.owner, rules, context.store.random, view.say, planned
        )
        report = _report(deployer, reached, outcome)
        report = replace(report, warnings=[*kept, *(report.warnings or [])] or UNSET)
        _check(outcome)
        if seconds is not None:
            healthy = {ref: thing for ref, thing in outcome.objects.items() if ref.kind == "Deployment"}
            ends = CLOCK.monotonic() + seconds
            wait_healthy(reached.cluster, namespace, names.owner_selector(env_id), healthy, seconds, RolloutView(view))
            report = replace(report, ready=sorted(ref.name for ref in healthy))
            left = max(ends - CLOCK.monotonic(), 1.0)
            heard = _heard(reached, deployer, objects, outcome, left, RolloutView(view))
            unheard = [heard.warning] if heard.warning else []
            report = replace(report, serving=heard.pods, warnings=[*unheard, *(report.warnings or [])] or UNSET)
    except GreenticError as error:
        error.report = None if report is None else reply_object(report)
        if reached.api.writes:
            _audit(context, env_id, report, error, left_empty)
        raise
    finally:
        view.close()
    found = way_in(reached.cluster, deployer.answers.exposure, outcome.objects, namespace)
    report = replace(report, urls=_urls(deployer, found), addresses=found.addresses or UNSET)
    if reached.api.writes:
        _audit(context, env_id, report, None, left_empty)
    return report


def _heard(
    reached: Reached, deployer: Deployer, objects: list[JsonObject], outcome: Outcome, seconds: float, view: RolloutView
) -> Heard:
    """Wait until pods serve what they were given (rule 6)."""
    document = next(o for o in objects if ref_of(o).name == names.ENV_STORE)
    wrote = ref_of(document) in (*outcome.created, *outcome.changed)
    pods_of = [t for r, t in outcome.objects.items() if r.kind == "Deployment" and (wrote or r.name == names.ROUTER)]
    if not pods_of:
        return Heard([])
    selector = names.owner_selector(deployer.env.environment_id)
    wanted = AwaitedDocument(digest_for_pods(document), deployer.answers.namespace, selector, pods_of)
    return wait_served(reached.cluster, wanted, seconds, view)


def _urls(deployer: Deployer, found: WayIn) -> list[str] | UnsetType:
    exposure = deployer.answers.exposure
    if exposure is None:
        return UNSET
    told = deployer.env.host_config.public_base_url
    return list(dict.fromkeys([*([] if told is None else [told]), *exposure.urls, *found.urls]))


def for_identity(objects: list[JsonObject], reached: Reached) -> list[JsonObject]:
    """What this identity may apply (rule 1)."""
    return [o for o in objects if o["kind"] != "Namespace"] if reached.identity == "bound" else objects


def _report(deployer: Deployer, reached: Reached, outcome: Outcome) -> ReconcileReport:
    failures, items = [failed(f.ref, f.error.message) for f in outcome.failures], outcome.plan.items
    return ReconcileReport(
        environment_id=deployer.env.environment_id,
        kind=deployer.kind,
        answers_ref=deployer.answers_ref,
        identity=reached.identity,
        namespace=deployer.answers.namespace,
        applied=all_told(outcome.applied),
        applied_count=len(outcome.applied),
        created=all_told(outcome.created),
        changed=all_told(outcome.changed),
        unchanged_count=sum(i.action == "unchanged" for i in items),
        pruned=all_told(outcome.pruned),
        pruned_count=len(outcome.pruned),
        left_alone=all_told(outcome.left_alone) or UNSET,
        unattributed=all_told(outcome.plan.unattributed) or UNSET,
        failed=failures or UNSET,
        not_attempted=all_told(outcome.left) if failures else UNSET,
        requests=reached.api.requests,
        writes=reached.api.writes,
        warnings=[*remarks([i.live for i in items if i.live is not None]), *added(items)] or UNSET,
    )


def _check(outcome: Outcome) -> None:
    """Raise `Conflict` if anything failed (rule 4)."""
    if not outcome.failures:
        return
    first = outcome.failures[0].error
    others = f" (and {len(outcome.failures) - 1} more)" if len(outcome.failures) > 1 else ""
    written = len(outcome.created) + len(outcome.changed)
    raise Conflict(
        f"{first.message}{others}; {written} object(s) were written, {len(outcome.left)} not attempted",
        hint=first.hint or "once the cause is gone, the same reconcile finishes it",
    )


def _audit(
    context: Context,
    env_id: str,
    report: ReconcileReport | None,
    error: GreenticError | None,
    left_empty: Sequence[str],
) -> None:
    target: JsonObject = {"environment_id": env_id, **({EMPTY: list[Json](left_empty)} if left_empty else {})}
    if report is not None:
        target |= {
            "namespace": report.namespace,
            "identity": report.identity,
            "applied_count": report.applied_count,
            "pruned_count": report.pruned_count,
        }
    change = Change(env_id, "env", "reconcile", target)
    with context.store.transaction(env_id) as transaction:
        event = transaction.audit.intend(change)
        # a pod's own words are for whoever runs this, not for the log
        told = Conflict(error.message.partition(LOG_HEAD)[0]) if isinstance(error, Conflict) else error
        transaction.audit.record(event, change, outcome_of(told))


@contextmanager
def alone(context: Context, env_id: str) -> Iterator[None]:
    """Keep a second reconcile of the same store out. Raises `NotFound` without an environment, and `Conflict`."""
    path = context.store.existing(env_id).root / ".reconcile.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not try_exclusive(fd):
            raise Conflict(
                f"another reconcile of environment `{env_id}` is running",
                hint="wait for it; what is left is done by the next one",
            )
        yield
    finally:
        os.close(fd)
