"""One revision in the cluster: `op env apply-revision`, `op env apply-traffic`, `op revisions warm --rollout` (formats: cluster 7).

Rules:
1. A present revision's pair, with its autoscaler where there is one, is applied and waited for, with what its pods read, are and are
   fenced by: the document, the account and the policies.
   An absent one's pair is deleted. Routers follow that document, so weights that were set before go with it; no pod is replaced.
2. `warm --rollout` renders the revision while it is warming, applies the pair and waits; only then is it ready. If its pods do
   not become healthy it is failed, with the reason. Anything else that goes wrong (the cluster, somebody else's reconcile) leaves
   it warming, to be called again. A failed one's pair stays to be looked at until the next reconcile deletes it. What loads and can
   never work is told as by a plain `warm`, by each call that makes it ready.
3. Without `--rollout` no verb that authors an environment needs a cluster. Where one is bound, warming says whether it was asked.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NoReturn

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict

from greentic.cluster.apply import ApplyRules
from greentic.cluster.wait import RolloutFailed
from greentic.deployer.binding import Deployer, is_kubernetes, resolve
from greentic.deployer.cluster_identity import Reached, reach
from greentic.deployer.reconcile import (
    KindText,
    ReconcileReport,
    Timeout,
    alone,
    applicable,
    apply_objects,
    push_pointed,
    wait_seconds,
)
from greentic.deployments import revisions
from greentic.deployments.revisions import (
    RevisionSummary,
    RevisionTransitionPayload,
    find_revision,
    loaded_or_failed,
    summary,
)
from greentic.ground.clock import timestamp
from greentic.ground.documents import JsonObject, replace
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.ground.reply import Reply
from greentic.k8s.names import ENV_STORE, worker_name
from greentic.k8s.objects import ref_of
from greentic.k8s.render import worker_objects
from greentic.model.environment import Lifecycle, Revision
from greentic.model.ids import check_env_id, check_ulid
from greentic.model.lifecycle import put_revision, walk
from greentic.model.pod_view import is_present
from greentic.operate.change import Context, Done, checked_key, run
from greentic.operate.payload import Payload, Ulid
from greentic.store.audit import Change
from greentic.store.environments import Transaction


class ApplyRevisionPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    revision_id: Ulid
    kind: KindText = None
    timeout: Timeout = None
    no_wait: bool = False
    adopt: bool = False
    force: bool = False


class ApplyTrafficPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: Ulid
    kind: KindText = None


class RevisionWarmPayload(RevisionTransitionPayload, frozen=True, kw_only=True):
    schema_title: ClassVar[str] = "RevisionTransitionPayload"

    rollout: Annotated[bool, msgspec.Meta(description="ready only once it runs in the cluster")] = False
    timeout: Annotated[int | None, msgspec.Meta(description="with rollout: seconds to wait for that")] = None


class RevisionWarmed(RevisionSummary, frozen=True, kw_only=True):
    cluster_asked: bool | UnsetType = UNSET
    """Where a cluster is bound: whether the revision is known to run there, or was only loaded here."""


class RevisionApplied(Reply, frozen=True, kw_only=True):
    environment_id: str
    kind: str
    """The deployer's descriptor."""
    revision_id: str
    lifecycle: str
    action: Literal["warmed", "archived"]
    worker_name: str
    answers_ref: str | None
    identity: str
    pruned_count: int


def apply_revision(context: Context, payload: ApplyRevisionPayload) -> RevisionApplied:
    """Apply or delete the pair of one revision. The namespace is taken to be there."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    revision_id = check_ulid(payload.revision_id, field="revision_id")
    seconds = wait_seconds(payload.timeout)
    with alone(context, env_id):
        deployer = resolve(context, env_id, payload.kind, live=True)
        revision = find_revision(deployer.env, revision_id)
        reached = reach(context, deployer)
        rules = ApplyRules(payload.adopt, payload.force)
        report = apply_pair(context, deployer, reached, revision, rules, None if payload.no_wait else seconds)
    return RevisionApplied(
        environment_id=env_id,
        kind=deployer.kind,
        revision_id=revision.revision_id,
        lifecycle=revision.lifecycle,
        action="warmed" if is_present(revision) else "archived",
        worker_name=worker_name(revision.revision_id),
        answers_ref=deployer.answers_ref,
        identity=reached.identity,
        pruned_count=report.pruned_count,
    )


def apply_pair(
    context: Context, deployer: Deployer, reached: Reached, revision: Revision, rules: ApplyRules, seconds: int | None
) -> ReconcileReport:
    """Apply the pair of a revision with what its pods read (rule 1), or delete it."""
    objects = applicable(deployer)  # what does not fit the cluster is told before anything is applied
    pair = worker_objects(deployer.desired, revision)
    if is_present(revision):
        push_pointed(deployer, context.view)
        read = [o for o in objects if o["kind"] in ("NetworkPolicy", "ServiceAccount") or ref_of(o).name == ENV_STORE]
        return apply_objects(context, deployer, reached, [*read, *pair], rules._replace(scope=frozenset()), seconds)
    return apply_objects(context, deployer, reached, [], rules._replace(scope=frozenset(map(ref_of, pair))), None)


def apply_traffic(context: Context, payload: ApplyTrafficPayload) -> NoReturn:
    """Refused: weights of this deployer live in the document. Says what to run instead."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    resolve(context, env_id, payload.kind, live=True)
    raise Conflict(
        f"environment `{env_id}` runs on Kubernetes, where routers draw by the weights of the document",
        hint=f"gtc op traffic set {env_id} …, then gtc op env reconcile {env_id}",
    )


def warm(context: Context, payload: RevisionWarmPayload) -> RevisionWarmed:
    """staged to ready; with `rollout` it also has to run in the cluster that the environment is bound to (rule 3)."""
    done = _with_rollout(context, payload) if payload.rollout else revisions.warm(context, payload)
    bound = is_kubernetes(context.store.load(payload.environment_id).binding("deployer"))
    return RevisionWarmed(**asdict(done), cluster_asked=payload.rollout if bound else UNSET)


def _with_rollout(context: Context, payload: RevisionWarmPayload) -> RevisionSummary:
    """staged, warming, the pair healthy in the cluster, ready (rule 2)."""
    env_id = check_env_id(payload.environment_id)
    revision_id = check_ulid(payload.revision_id, field="revision_id")
    if checked_key(payload.idempotency_key) is not None:
        raise InvalidArgument("idempotency_key: a rollout is repeated by calling it again, not by a key")
    seconds = wait_seconds(payload.timeout)
    before = find_revision(resolve(context, env_id, None, live=True).env, revision_id)
    warnings: list[str] | UnsetType = UNSET
    if before.lifecycle != "ready":
        warnings = _move(context, env_id, revision_id, "warming").warnings
    try:
        with alone(context, env_id):
            deployer = resolve(context, env_id, None, live=True)
            revision = find_revision(deployer.env, revision_id)
            apply_pair(context, deployer, reach(context, deployer), revision, ApplyRules(), seconds)
    except RolloutFailed as error:
        if before.lifecycle == "ready":
            raise
        _move(context, env_id, revision_id, "failed")
        raise Conflict(
            f"revision `{revision_id}` did not become ready in the cluster and is failed: {error.message}",
            hint=f"gtc op env reconcile {env_id} deletes its pair; after a repair: gtc op revisions retry {env_id} {revision_id}",
        ) from error
    return replace(_move(context, env_id, revision_id, "ready"), warnings=warnings)


def _move(context: Context, env_id: str, revision_id: str, goal: Lifecycle) -> RevisionSummary:
    """One step of the revision's life, as a change of its own."""
    target: JsonObject = {"revision_id": revision_id, "lifecycle_to": goal}
    change = Change(env_id, "revisions", "warm", target, context.mint())

    def action(transaction: Transaction) -> Done[RevisionSummary]:
        env = transaction.load()
        revision = find_revision(env, revision_id)
        warnings: list[str] = []
        if goal == "warming":
            if revision.lifecycle != "warming":  # one that is was left so by a rollout that did not end
                walk(revision, "warm")
            warnings = loaded_or_failed(transaction, env, revision)
        if goal == "ready":
            revision = replace(revision, warmed_at=timestamp(context.clock.now_ns()))
        revision = replace(revision, lifecycle=goal)
        transaction.save(put_revision(env, revision))
        transaction.refresh_projection(transaction.load())
        return Done(replace(summary(revision), warnings=warnings or UNSET))

    return run(context, change, action)
