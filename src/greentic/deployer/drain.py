"""`op revisions drain`, and with `--rollout` in the cluster: a revision leaves when nobody is on it any more.

Rules:
1. A revision with weight is not drained: `traffic set` takes the weight away first.
2. Pods are told first, as they follow the document. Then every ready pod is asked what it still holds of the revision, until that is
   nothing, or the window ends: `drain_seconds` of the revision, or `--timeout`. A pod that cannot be asked may hold something.
3. When the window ends with somebody on it, the verb fails and the worker goes on. Else the document says that the revision is left, and
   its worker is scaled to nothing. `revisions archive` and a reconcile prune it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict

from greentic.cluster.apply import ApplyRules
from greentic.cluster.served import is_ready
from greentic.deployer.binding import resolve
from greentic.deployer.cluster_identity import Reached, reach
from greentic.deployer.reconcile import Timeout, alone, wait_seconds
from greentic.deployer.rollout import apply_pair
from greentic.deployments import revisions
from greentic.deployments.revisions import RevisionSummary, RevisionTransitionPayload, find_revision, summary
from greentic.deployments.worker_status import Held, WorkerStatus, status_path, together, unheard
from greentic.ground.backoff import Backoff
from greentic.ground.documents import JsonObject, compact, decode
from greentic.ground.errors import Conflict, GreenticError, InvalidArgument
from greentic.k8s.names import owner_selector
from greentic.k8s.objects import metadata_of
from greentic.k8s.pods import PORT
from greentic.model.environment import Environment
from greentic.model.ids import check_env_id, check_ulid
from greentic.model.lifecycle import put_revision
from greentic.model.pod_view import left
from greentic.operate.change import Context, Done, checked_key, run
from greentic.store.audit import Change
from greentic.store.environments import Transaction

_AGAIN = Backoff(first=0.5, longest=3.0)
MAX_NAMED = 5


class RevisionDrainPayload(RevisionTransitionPayload, frozen=True, kw_only=True):
    schema_title: ClassVar[str] = "RevisionTransitionPayload"

    rollout: Annotated[
        bool, msgspec.Meta(description="wait in the cluster until nobody is on it, and scale it to nothing")
    ] = False
    timeout: Timeout = None


class RevisionDrained(RevisionSummary, frozen=True, kw_only=True):
    """A revision, and, with a rollout, what became of its worker."""

    replicas: int | UnsetType = UNSET
    waited_seconds: int | UnsetType = UNSET
    pods_asked: int | UnsetType = UNSET


class Holding(NamedTuple):
    """What pods still hold of a revision."""

    asked: int
    held: Held
    """By those that told it."""
    silent: tuple[str, ...]
    """Pods that did not answer, or not for all of their processes, with why."""

    @property
    def nothing(self) -> bool:
        return self.held.nothing and not self.silent

    def __str__(self) -> str:
        return f"{self.held}" + (f"; not heard: {'; '.join(self.silent[:MAX_NAMED])}" if self.silent else "")


def drain(context: Context, payload: RevisionDrainPayload) -> RevisionDrained:
    """ready to draining; with `rollout` until nobody is on it, and its worker is gone."""
    if not payload.rollout:
        return RevisionDrained(**asdict(revisions.drain(context, payload)))
    env_id = check_env_id(payload.environment_id)
    revision_id = check_ulid(payload.revision_id, field="revision_id")
    if checked_key(payload.idempotency_key) is not None:
        raise InvalidArgument("idempotency_key: a rollout is repeated by calling it again, not by a key")
    env = resolve(context, env_id, None, live=True).env
    revision = find_revision(env, revision_id)
    check_unweighted(env, revision_id)
    seconds = revision.drain_seconds if payload.timeout is None else wait_seconds(payload.timeout)
    if revision.lifecycle != "draining":
        revisions.drain(context, RevisionTransitionPayload(environment_id=env_id, revision_id=revision_id))
    with alone(context, env_id):
        deployer = resolve(context, env_id, None, live=True)
        reached = reach(context, deployer)
        apply_pair(context, deployer, reached, find_revision(deployer.env, revision_id), ApplyRules(), None)
        began = context.clock.monotonic()
        holding = await_nobody(context, reached, deployer.answers.namespace, env_id, revision_id, seconds)
        _leave(context, env_id, revision_id)
        deployer = resolve(context, env_id, None, live=True)
        apply_pair(context, deployer, reached, find_revision(deployer.env, revision_id), ApplyRules(), None)
    told = summary(find_revision(deployer.env, revision_id))
    waited = int(context.clock.monotonic() - began)
    return RevisionDrained(**asdict(told), replicas=0, waited_seconds=waited, pods_asked=holding.asked)


def check_unweighted(env: Environment, revision_id: str) -> None:
    """Raise `Conflict` while traffic is drawn to a revision (rule 1)."""
    for split in env.traffic_splits:
        weight = sum(e.weight_bps for e in split.entries if e.revision_id == revision_id)
        if weight:
            raise Conflict(
                f"revision `{revision_id}` still has {weight} of 10000 parts of the traffic of deployment `{split.deployment_id}`",
                hint=f"gtc op traffic set {env.environment_id} OTHER=100 --deployment {split.deployment_id} --idempotency-key KEY",
            )


def await_nobody(
    context: Context, reached: Reached, namespace: str, env_id: str, revision_id: str, seconds: float
) -> Holding:
    """Wait until no pod holds anything of a revision (rule 2). Raises `Conflict` when the window ends before."""
    ends, tried = context.clock.monotonic() + seconds, 0
    while True:
        holding = held_by_pods(reached, namespace, env_id, revision_id)
        if holding.nothing:
            return holding
        if context.clock.monotonic() >= ends:
            raise Conflict(
                f"revision `{revision_id}` is still in use after {seconds:g} s: {holding}; its worker was left running",
                hint="call it again, or with a longer --timeout; what it holds ends by itself when its conversations do",
            )
        tried += 1
        context.view.say(f"waiting: {holding}")
        context.clock.sleep(_AGAIN.pause(tried, context.store.random))


def held_by_pods(reached: Reached, namespace: str, env_id: str, revision_id: str) -> Holding:
    """Ask every ready pod of the environment, by way of the API server."""
    told, asked, silent = list[Held](), 0, list[str]()
    for pod in reached.cluster.list("Pod", namespace, owner_selector(env_id)).items:
        if not is_ready(pod):
            continue
        name, asked = str(metadata_of(pod).get("name")), asked + 1
        try:
            status = reached.cluster.ask_pod(namespace, name, PORT, status_path(revision_id))
            held = decode(compact(status), WorkerStatus).held(revision_id)
        except (GreenticError, ValueError) as error:
            silent.append(f"`{name}`: {getattr(error, 'message', error)}")
            continue
        if held.silent:
            silent.append(f"`{name}`: {unheard(held.silent)}")
        told.append(held._replace(silent=0))  # told with the name of its pod
    return Holding(asked, together(told), tuple(silent))


def _leave(context: Context, env_id: str, revision_id: str) -> None:
    """Say in the document that nobody is on the revision (rule 3)."""
    target: JsonObject = {"revision_id": revision_id, "lifecycle_to": "draining", "left": True}
    change = Change(env_id, "revisions", "drain", target, context.mint())

    def action(transaction: Transaction) -> Done[RevisionSummary]:
        env = transaction.load()
        check_unweighted(env, revision_id)
        revision = left(find_revision(env, revision_id))
        transaction.save(put_revision(env, revision))
        return Done(summary(revision))

    run(context, change, action)
