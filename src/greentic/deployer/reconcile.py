"""`op env reconcile` and `op env diff`: make the cluster match the environment, or tell what would change (spec: kubernetes 3.6).

Rules:
1. A bound identity has no say over namespaces, so the Namespace is left out of what it applies.
2. `applied` lists every desired object that is as desired, `created` and `changed` what this run wrote; `pruned` what was really
   deleted. A run that writes nothing reports the same `applied`.
3. A dry run asks the server to try every object, too: "in sync" is said only if the server agrees.
4. A run that failed part of the way reports what was done, what failed and what was left; running it again goes on.
5. Runs that wrote, or tried to, are in the audit log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import Annotated, NamedTuple, cast

import msgspec

from greentic.cluster.apply import (
    PARALLEL,
    Outcome,
    Rules,
    conflict_json,
    read_live,
    reconcile,
    server_changes,
)
from greentic.cluster.wait import DEFAULT_SECONDS, LOG_HEAD, wait_healthy
from greentic.deployer.binding import Deployer, resolve
from greentic.deployer.cluster_identity import Reached, reach
from greentic.deployer.rollout_view import RolloutView
from greentic.ground import variables
from greentic.ground.disk import try_exclusive
from greentic.ground.documents import Json, JsonObject, parse
from greentic.ground.errors import Conflict, GreenticError, InvalidArgument
from greentic.k8s import names
from greentic.k8s.answers import RECORDED_IMAGE
from greentic.k8s.objects import ApiRefused, Cluster, Ref, refs_json
from greentic.k8s.ownership import FieldChange
from greentic.k8s.plan import Item, Plan, make_plan
from greentic.k8s.render import render
from greentic.model.environment import Environment
from greentic.model.ids import check_env_id
from greentic.model.pod_view import is_present, routed_ids
from greentic.operate.change import Context
from greentic.operate.payload import Payload
from greentic.store.audit import Change, outcome_of

TIMEOUT_VARIABLE = "GREENTIC_K8S_WARM_READY_TIMEOUT_SECS"
MAX_SHOWN = 200
MAX_TEXT = 160
SECRET_KINDS = frozenset({"Secret"})

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


def reconcile_environment(context: Context, payload: EnvReconcilePayload) -> JsonObject:
    """Apply, prune and wait; or, as a dry run, only tell."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    seconds = wait_seconds(payload.timeout)
    rules = Rules(payload.adopt, payload.force, payload.recreate)
    with nullcontext() if payload.dry_run else alone(context, env_id):
        # read once nobody else writes, so that an older document never wins
        deployer = resolve(context, env_id, payload.kind, live=True)
        objects = applicable(deployer)
        reached = reach(context, deployer)
        if payload.dry_run:
            report = _told(deployer, reached, _dry(reached, objects, deployer, rules))
        else:
            report = apply_objects(context, deployer, reached, objects, rules, None if payload.no_wait else seconds)
    warnings = [*deployer.answers.warnings(), *unpullable(deployer.env)]
    return report | {"warnings": list[Json](warnings)} if warnings else report


def applicable(deployer: Deployer) -> list[JsonObject]:
    """The objects as they may be applied. Raises `Conflict` if nobody said which image to run."""
    if deployer.answers.runtime_image == RECORDED_IMAGE:
        raise Conflict(
            f"environment `{deployer.env.environment_id}` does not say which image its pods run, and there is no default",
            hint="build the worker's image, push it to your registry, and answer runtime_image with its digest (docs/cloud.md)",
        )
    return render(deployer.desired)


def unpullable(env: Environment) -> list[str]:
    """What is to be said about revisions that pods have no place to pull from."""
    routed = routed_ids(env)
    return [
        f"revision `{r.revision_id}` has no bundle_source_uri: pods cannot pull it and answer nothing for it"
        for r in env.revisions
        if r.bundle_source_uri is None and (is_present(r) or r.revision_id in routed)
    ]


def diff(context: Context, payload: EnvDiffPayload) -> JsonObject:
    """What a reconcile would change."""
    return reconcile_environment(
        context,
        EnvReconcilePayload(
            environment_id=payload.environment_id,
            kind=payload.kind,
            adopt=payload.adopt,
            force=payload.force,
            dry_run=True,
        ),
    )


def apply_objects(
    context: Context, deployer: Deployer, reached: Reached, objects: list[JsonObject], rules: Rules, seconds: int | None
) -> JsonObject:
    """Reconcile these objects and report; with `seconds`, wait for their health. Raises `Conflict` with the report so far."""
    env_id, namespace = deployer.env.environment_id, deployer.answers.namespace
    view = context.view
    wanted = for_identity(objects, reached)
    report: JsonObject = {}
    try:
        outcome = reconcile(reached.cluster, wanted, namespace, deployer.owner, rules, context.store.random, view.say)
        report = _told(deployer, reached, _report(outcome)) | {
            "requests": reached.api.requests,
            "writes": reached.api.writes,
        }
        _check(outcome, report)
        if seconds is not None:
            healthy = {ref: thing for ref, thing in outcome.objects.items() if ref.kind == "Deployment"}
            wait_healthy(reached.cluster, namespace, names.owner_selector(env_id), healthy, seconds, RolloutView(view))
            report["ready"] = list[Json](sorted(ref.name for ref in healthy))
    except GreenticError as error:
        error.report = report or None
        if reached.api.writes:
            _audit(context, env_id, report, error)
        raise
    finally:
        view.close()
    if reached.api.writes:
        _audit(context, env_id, report, None)
    return report


def for_identity(objects: list[JsonObject], reached: Reached) -> list[JsonObject]:
    """What this identity may apply (rule 1)."""
    return [o for o in objects if o["kind"] != "Namespace"] if reached.identity == "bound" else objects


def _told(deployer: Deployer, reached: Reached, more: JsonObject) -> JsonObject:
    return {
        "environment_id": deployer.env.environment_id,
        "kind": deployer.kind,
        "answers_ref": deployer.answers_ref,
        "identity": reached.identity,
        "namespace": deployer.answers.namespace,
        **more,
    }


def _report(outcome: Outcome) -> JsonObject:
    report: JsonObject = {
        "applied": refs_json(outcome.applied),
        "applied_count": len(outcome.applied),
        "created": refs_json(outcome.created),
        "changed": refs_json(outcome.changed),
        "unchanged_count": sum(i.action == "unchanged" for i in outcome.plan.items),
        "pruned": refs_json(outcome.pruned),
        "pruned_count": len(outcome.pruned),
    }
    if outcome.left_alone:
        report["left_alone"] = refs_json(outcome.left_alone)
    if outcome.plan.unattributed:
        report["unattributed"] = refs_json(outcome.plan.unattributed)
    if outcome.failures:
        report["failed"] = [{**f.ref.json(), "message": f.error.message} for f in outcome.failures]
        report["not_attempted"] = refs_json(outcome.left)
    return report


def _check(outcome: Outcome, report: JsonObject) -> None:
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


def _audit(context: Context, env_id: str, report: JsonObject, error: GreenticError | None) -> None:
    target: JsonObject = {"environment_id": env_id}
    target |= {k: report[k] for k in ("namespace", "identity", "applied_count", "pruned_count") if k in report}
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


# -- telling --------------------------------------------------------------------------------------------------------


def _dry(reached: Reached, objects: list[JsonObject], deployer: Deployer, rules: Rules) -> JsonObject:
    wanted = for_identity(objects, reached)
    seen = read_live(reached.cluster, deployer.answers.namespace, deployer.owner, wanted)
    plan = make_plan(seen.visible(wanted), seen.live, deployer.owner, adopt=rules.adopt)
    verdict = _server_side(reached.cluster, plan, rules) if seen.live else Verdict([], frozenset(), frozenset())
    writes = [i for i in plan.writes if i.ref not in verdict.overridden | verdict.left_alone]
    in_sync = not (writes or plan.deletions or verdict.refused or plan.refused)
    return {
        "dry_run": True,
        "in_sync": in_sync,
        "changes_pending": not in_sync,
        "changes": [_item(i) for i in writes],
        "unchanged_count": len(plan.items) - len(writes),
        "deletions": refs_json([d.ref for d in plan.deletions]),
        "conflicts": [conflict_json(ref, c) for ref, c in plan.conflicts],
        "not_ours": [{**i.ref.json(), "reason": i.refused} for i in plan.refused],
        "refused_by_server": cast("list[Json]", verdict.refused),
        "overridden_by_admission": refs_json(sorted(verdict.overridden)),
        "left_alone": refs_json(sorted(verdict.left_alone)),
        "unattributed": refs_json(plan.unattributed),
    }


class Verdict(NamedTuple):
    """What the server says about a plan (rule 3)."""

    refused: list[JsonObject]
    """Refusals, and objects that it would change although nothing of ours differs."""
    overridden: frozenset[Ref]
    """Objects that differ from what is stated and would stay so, because a webhook says otherwise."""
    left_alone: frozenset[Ref]
    """A namespace that this identity may not change."""


def _server_side(cluster: Cluster, plan: Plan, rules: Rules) -> Verdict:
    refused: list[JsonObject] = []
    overridden: set[Ref] = set()
    left_alone: set[Ref] = set()

    def ask(item: Item) -> None:
        if item.refused is not None or (item.conflicts and not rules.force):
            return
        try:
            after = server_changes(cluster, item, force=rules.force)
        except ApiRefused as error:
            if error.forbidden and item.ref.kind == "Namespace" and item.live is not None:
                left_alone.add(item.ref)
            else:
                refused.append({**item.ref.json(), "message": error.message})
            return
        if after is None and item.action == "update":
            overridden.add(item.ref)
        elif after is not None and item.action == "unchanged":
            refused.append(
                {**item.ref.json(), "message": "the server would change it, although nothing that is ours differs"}
            )

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(ask, plan.items))
    return Verdict(refused, frozenset(overridden), frozenset(left_alone))


def _item(item: Item) -> JsonObject:
    if item.action == "create":
        return {**item.ref.json(), "action": "create"}
    fields = [f for change in item.changes for f in _fields(item.ref, change)]
    shown: list[Json] = list(fields[:MAX_SHOWN])
    return {**item.ref.json(), "action": "update", "fields": shown, "field_count": len(fields)}


def _fields(ref: Ref, change: FieldChange) -> list[JsonObject]:
    """A change for people; a JSON document in a text is compared inside, values of Secrets are never shown."""
    if ref.kind in SECRET_KINDS and change.path.startswith((".data", ".stringData")):
        return [{"field": change.path, "before": "(secret)" if change.before else None, "after": "(secret)"}]
    if isinstance(change.before, str) and isinstance(change.after, str) and change.after.startswith("{"):
        with suppress(ValueError):
            return [
                _shown(f"{change.path}{p}", b, a)
                for p, b, a in inner_changes(parse(change.before), parse(change.after))
            ]
    return [_shown(change.path, change.before, change.after)]


def _shown(path: str, before: Json, after: Json) -> JsonObject:
    return {"field": path, "before": _short(before), "after": _short(after)}


def _short(value: Json) -> Json:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]}… ({len(value)} characters)"
    return value


def inner_changes(before: Json, after: Json, path: str = "") -> list[tuple[str, Json, Json]]:
    """The places where two JSON values differ, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(k for k in after if k not in before)]
        return [c for k in keys for c in inner_changes(before.get(k), after.get(k), f"{path}.{k}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            c for i, (b, a) in enumerate(zip(before, after, strict=True)) for c in inner_changes(b, a, f"{path}[{i}]")
        ]
    return [] if before == after else [(path, before, after)]
