"""What a reconcile would change: `op env diff`, and the dry run of `op env reconcile`. Nothing is written.

Rules:
1. The plan is compared with what the server says to every object: "in sync" is said only if it agrees.
2. A value of a Secret is never shown, neither the old one nor the new one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from greentic.cluster.apply import PARALLEL, ApplyRules, server_changes
from greentic.cluster.live import read_live
from greentic.cluster.refusals import SECRET_KINDS, without_secrets
from greentic.cluster.verdicts import added, leaving, remarks
from greentic.controller.keeping import put_back
from greentic.deployer.binding import Deployer
from greentic.deployer.told import (
    FieldTold,
    ObjectChange,
    ObjectConflict,
    ObjectFailed,
    ObjectNotOurs,
    ObjectTold,
    all_told,
    conflict,
    created,
    failed,
    not_ours,
    updated,
)
from greentic.ground.documents import Json, JsonObject, parse
from greentic.ground.reply import Reply
from greentic.k8s.objects import ApiRefused, Cluster, Ref
from greentic.k8s.ownership import FieldChange
from greentic.k8s.plan import Item, Plan, make_plan
from greentic.telemetry.tracing import carried

MAX_SHOWN = 200
MAX_TEXT = 160


class DryRun(Reply, frozen=True, kw_only=True):
    """What would change, and what stands in the way."""

    environment_id: str
    kind: str
    """The deployer's descriptor."""
    answers_ref: str | None
    identity: str
    namespace: str
    dry_run: bool = True
    in_sync: bool
    changes_pending: bool
    changes: list[ObjectChange]
    unchanged_count: int
    deletions: list[ObjectTold]
    conflicts: list[ObjectConflict]
    not_ours: list[ObjectNotOurs]
    refused_by_server: list[ObjectFailed]
    overridden_by_admission: list[ObjectTold]
    left_alone: list[ObjectTold]
    unattributed: list[ObjectTold]
    warnings: list[str] | UnsetType = UNSET


def dry_run(cluster: Cluster, identity: str, wanted: list[JsonObject], deployer: Deployer, rules: ApplyRules) -> DryRun:
    """Compare, ask the server, and tell. Raises `Conflict` where the cluster cannot be read."""
    seen = read_live(cluster, deployer.answers.namespace, deployer.owner, wanted)
    plan = make_plan(seen.visible(wanted), seen.live, deployer.owner, adopt=rules.adopt)
    verdict = _server_side(cluster, plan, rules) if seen.live else ServerVerdict([], frozenset(), frozenset())
    writes = [i for i in plan.writes if i.ref not in verdict.overridden | verdict.left_alone]
    there = [i.live for i in plan.items if i.live is not None]
    in_sync = not (writes or plan.deletions or verdict.refused or plan.refused or leaving(there))
    kept = [] if in_sync else put_back(cluster, deployer.answers.namespace, deployer.owner)
    return DryRun(
        environment_id=deployer.env.environment_id,
        kind=deployer.kind,
        answers_ref=deployer.answers_ref,
        identity=identity,
        namespace=deployer.answers.namespace,
        in_sync=in_sync,
        changes_pending=not in_sync,
        changes=[_change(i) for i in writes],
        unchanged_count=len(plan.items) - len(writes),
        deletions=all_told(d.ref for d in plan.deletions),
        conflicts=[conflict(ref, c) for ref, c in plan.conflicts],
        not_ours=[not_ours(i.ref, i.refused or "") for i in plan.refused],
        refused_by_server=verdict.refused,
        overridden_by_admission=all_told(sorted(verdict.overridden)),
        left_alone=all_told(sorted(verdict.left_alone)),
        unattributed=all_told(plan.unattributed),
        warnings=[*kept, *remarks(there), *added(plan.items)] or UNSET,
    )


class ServerVerdict(NamedTuple):
    """What the server says about a plan (rule 3)."""

    refused: list[ObjectFailed]
    """Refusals, and objects that it would change although nothing of ours differs."""
    overridden: frozenset[Ref]
    """Objects that differ from what is stated and would stay so, because a webhook says otherwise."""
    left_alone: frozenset[Ref]
    """A namespace that this identity may not change."""


def _server_side(cluster: Cluster, plan: Plan, rules: ApplyRules) -> ServerVerdict:
    refused: list[ObjectFailed] = []
    overridden: set[Ref] = set()
    left_alone: set[Ref] = set()

    def ask(item: Item) -> None:
        if item.refused is not None or item.taken or (item.conflicts and not rules.force):
            return  # what is taken away first, no server can try
        try:
            after = server_changes(cluster, item, force=rules.force)
        except ApiRefused as error:
            if error.forbidden and item.ref.kind == "Namespace" and item.live is not None:
                left_alone.add(item.ref)
            else:
                refused.append(failed(item.ref, without_secrets(error.message, item.stated)))
            return
        if after is None and item.action == "update":
            overridden.add(item.ref)
        elif after is not None and item.action == "unchanged":
            refused.append(failed(item.ref, "the server would change it, although nothing that is ours differs"))

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(carried(ask), plan.items))
    return ServerVerdict(refused, frozenset(overridden), frozenset(left_alone))


def _change(item: Item) -> ObjectChange:
    if item.action == "create":
        return created(item.ref)
    return updated(item.ref, [f for change in item.changes for f in _fields(item.ref, change)], MAX_SHOWN)


def _fields(ref: Ref, change: FieldChange) -> list[FieldTold]:
    """A change for people; a JSON document in a text is compared inside, values of Secrets are never shown (rule 2)."""
    if ref.kind in SECRET_KINDS and not change.path.startswith(".metadata.labels"):
        before, after = ("(secret)" if value else None for value in (change.before, change.after))
        return [FieldTold(field=change.path, before=before, after=after)]
    if isinstance(change.before, str) and isinstance(change.after, str) and change.after.startswith("{"):
        with suppress(ValueError):
            return [
                _shown(f"{change.path}{p}", b, a)
                for p, b, a in inner_changes(parse(change.before), parse(change.after))
            ]
    return [_shown(change.path, change.before, change.after)]


def _shown(path: str, before: Json, after: Json) -> FieldTold:
    return FieldTold(field=path, before=_short(before), after=_short(after))


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
