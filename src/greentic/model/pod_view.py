"""What pods need of an environment, and nothing else (formats: cluster 3). Pure.

Rules:
1. Present in a cluster are the revisions that are warming, ready or draining. Pods get those and what traffic is routed to;
   archived, failed and staged revisions stay in the store.
2. Pods get no reference to the deployer's credentials and none of its binding.
3. All pods are given the same document and follow it. A worker acts on its own revision and deployment alone, as if that had all the
   traffic: what happens to others does not concern it.
"""

from __future__ import annotations

from greentic.ground.documents import replace
from greentic.model.environment import (
    SPLIT_SCHEMA,
    Environment,
    Health,
    Lifecycle,
    Retention,
    Revision,
    SplitEntry,
    TrafficSplit,
)

LEFT = "greentic:left"
"""A member of a draining revision that nobody is on any more: its worker runs no pod."""
PRESENT: frozenset[Lifecycle] = frozenset({"warming", "ready", "draining"})


def is_present(revision: Revision) -> bool:
    """Whether the revision has objects in the cluster (rule 1)."""
    return revision.lifecycle in PRESENT


def left(revision: Revision) -> Revision:
    """The revision, marked as left by everybody."""
    return replace(revision, extra={**revision.extra, LEFT: True})


def is_left(revision: Revision) -> bool:
    """Whether nobody is on the revision. One that came back into service is not left, whatever was noted before."""
    return revision.lifecycle == "draining" and revision.extra.get(LEFT) is True


def present_revisions(env: Environment) -> list[Revision]:
    return [r for r in env.revisions if is_present(r)]


def routed_ids(env: Environment) -> frozenset[str]:
    """The revisions that some split names, whatever their weight."""
    return frozenset(e.revision_id for s in env.traffic_splits for e in s.entries)


def for_pods(env: Environment) -> Environment:
    """The environment as all its pods get it (rules 1 and 2). Its seal, if it had one, no longer fits."""
    routed = routed_ids(env)
    revisions = [r for r in env.revisions if is_present(r) or r.revision_id in routed]
    return replace(
        _with_revisions(env, revisions),
        packs=[b for b in env.packs if b.slot != "deployer"],
        credentials_ref=None,
        retention=Retention(),
        health=Health(),
    )


def for_worker(env: Environment, revision_id: str) -> Environment | None:
    """What the worker of one revision acts on (rule 3); nothing if the environment does not have it."""
    own = env.revision(revision_id)
    if own is None:
        return None
    alone = replace(
        env,
        bundles=[d for d in env.bundles if d.deployment_id == own.deployment_id],
        traffic_splits=[_whole_split(env, own)],
        messaging_endpoints=[e for e in env.messaging_endpoints if own.bundle_id in e.linked_bundles],
    )
    lifecycle: Lifecycle = "ready" if own.lifecycle == "draining" else own.lifecycle
    return _with_revisions(alone, [replace(own, lifecycle=lifecycle)])


def with_own_revision(env: Environment, revision_id: str) -> Environment:
    """The environment in which a revision that is not routed has all the traffic of its deployment; else the same one."""
    own = env.revision(revision_id)
    if own is None or revision_id in routed_ids(env):
        return env
    others = [s for s in env.traffic_splits if s.deployment_id != own.deployment_id]
    return replace(env, traffic_splits=[*others, _whole_split(env, own)])


def _with_revisions(env: Environment, revisions: list[Revision]) -> Environment:
    kept = {r.revision_id for r in revisions}
    bundles = [replace(d, current_revisions=[i for i in d.current_revisions if i in kept]) for d in env.bundles]
    return replace(env, revisions=revisions, bundles=bundles)


def _whole_split(env: Environment, own: Revision) -> TrafficSplit:
    entry = SplitEntry(revision_id=own.revision_id, weight_bps=10_000)
    split = env.split(own.deployment_id)
    if split is not None:
        return replace(split, entries=[entry])
    return TrafficSplit(
        schema=SPLIT_SCHEMA,
        env_id=env.environment_id,
        deployment_id=own.deployment_id,
        bundle_id=own.bundle_id,
        generation=0,
        entries=[entry],
        updated_at=own.created_at,
        updated_by="worker",
        idempotency_key=own.revision_id,
        authorization_ref="auth.json",
    )
