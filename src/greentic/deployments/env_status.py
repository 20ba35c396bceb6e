"""`op env status`: what an environment wants, and what the workers that can be asked really serve."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from greentic.deployments.worker_status import (
    HttpWorkers,
    ProcessStatus,
    Workers,
    WorkerStatus,
    checked_addresses,
    unheard,
)
from greentic.ground.errors import FetchError
from greentic.ground.reply import Reply
from greentic.model.environment import Environment
from greentic.model.ids import check_env_id
from greentic.operate.change import Context
from greentic.operate.payload import Payload


class EnvStatusPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    at: Annotated[list[str], msgspec.Meta(description="addresses of workers to ask")] = []


class WorkerLine(Reply, frozen=True, kw_only=True):
    """One worker."""

    at: str
    answers: bool
    error: str | None
    """Why it does not answer, or why it does not follow."""
    desired_generation: int | None
    desired_digest: str | None
    serving_generation: int | None
    serving_digest: str | None
    unavailable: list[str]
    """Deployments, with the reason."""


class RevisionLine(Reply, frozen=True, kw_only=True):
    """One routed or draining revision, over all workers that answered."""

    deployment_id: str
    revision_id: str
    weight_bps: int
    measured_bps: int | None
    """Its share of the deployment's turns; null without turns."""
    turns: int
    failures: int
    in_flight: int
    parked: int


class EnvStatus(Reply, frozen=True, kw_only=True):
    environment_id: str
    workers: list[WorkerLine]
    revisions: list[RevisionLine]
    warnings: list[str] | UnsetType = UNSET
    """What the cluster that it is bound to says of it (`deployer.cluster_status`)."""


def status(context: Context, payload: EnvStatusPayload, workers: Workers | None = None) -> EnvStatus:
    """Ask the workers, and add up what they counted since they began."""
    return status_of(context, context.store.load(check_env_id(payload.environment_id)), payload, workers)


def status_of(
    context: Context, env: Environment, payload: EnvStatusPayload, workers: Workers | None = None
) -> EnvStatus:
    """The same for a document that was read."""
    env_id = env.environment_id
    asked = workers or HttpWorkers(context.clock)
    lines: list[WorkerLine] = []
    answers: dict[str, ProcessStatus] = {}
    for address in checked_addresses(payload.at):
        try:
            told = asked.ask(address)
        except FetchError as error:
            lines.append(_line(address, None, error.message))
            continue
        if told.env_id != env_id:
            lines.append(_line(address, told, f"it serves environment `{told.env_id}`"))
            continue
        answers |= {process.process or address: process for process in told.processes()}
        lines.append(_line(address, told, _ails(told)))
    return EnvStatus(environment_id=env_id, workers=lines, revisions=_revisions(env, list(answers.values())))


def _ails(told: WorkerStatus) -> str | None:
    """What keeps a worker from following, in any of its processes."""
    errors = [p.following.error for p in told.processes() if p.following is not None and p.following.error]
    if told.silent:
        errors.append(unheard(told.silent))
    return errors[0] if errors else None


def _line(address: str, told: WorkerStatus | None, error: str | None) -> WorkerLine:
    """A worker is as far as the last of its processes."""
    followed = [p.following for p in told.processes() if p.following is not None] if told is not None else []
    following = min(followed, key=lambda f: f.serving.generation, default=None)
    return WorkerLine(
        at=address,
        answers=told is not None,
        error=error,
        desired_generation=following.desired.generation if following else None,
        desired_digest=following.desired.digest if following else None,
        serving_generation=following.serving.generation if following else None,
        serving_digest=following.serving.digest if following else None,
        unavailable=[f"{u.deployment_id}: {u.reason}" for u in told.unavailable] if told is not None else [],
    )


def _revisions(env: Environment, answers: list[ProcessStatus]) -> list[RevisionLine]:
    weights = {e.revision_id: e.weight_bps for s in env.traffic_splits for e in s.entries}
    counted = {r.revision_id: 0 for a in answers for r in (*a.revisions, *a.draining_revisions)}
    shown = [r for r in env.revisions if r.revision_id in weights or r.revision_id in counted]
    rows = {r.revision_id: [counts for answer in answers for counts in answer.counts(r.revision_id)] for r in shown}
    turns = {revision_id: sum(c.turns for c in counts) for revision_id, counts in rows.items()}
    lines = []
    for revision in shown:
        own = rows[revision.revision_id]
        total = sum(turns[r.revision_id] for r in shown if r.deployment_id == revision.deployment_id)
        lines.append(
            RevisionLine(
                deployment_id=revision.deployment_id,
                revision_id=revision.revision_id,
                weight_bps=weights.get(revision.revision_id, 0),
                measured_bps=round(turns[revision.revision_id] * 10_000 / total) if total else None,
                turns=turns[revision.revision_id],
                failures=sum(n for c in own for n in c.failures.values()),
                in_flight=sum(c.in_flight for c in own),
                parked=sum(c.parked for c in own),
            )
        )
    return lines
