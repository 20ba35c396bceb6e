"""`op traffic ramp`: move a deployment's traffic to a new revision step by step, or back at once (spec: none; keys that others ignore).

Rules:
1. The document says how far the ramp is before anything is waited for, so that it can be killed at any moment and resumed.
2. A step that is resumed is judged anew: what happened while nobody looked is not compared.
3. Every step is one change under the lock, with its line in the audit log: begin, advance, done, abort.
4. A split that somebody else changed is left as it is: the ramp is over, whether anybody has noted it yet or not.
5. A worker tells of all its processes; behind one address there may be several workers (a Service), of which one answers. What a process
   told last counts until it is seen again: both slices of it are of one moment, so that old news is fair, too.
6. Nothing is begun while a worker is silent: a mistyped address would be told of two minutes after the traffic went.
7. A worker that cannot have the new revision serves the old one on, or nothing if it has just begun, and counts no turn of it. It is as one
   that does not answer: a ramp would wait for its turns for ever.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec

from greentic.deployments import revisions
from greentic.deployments.worker_status import (
    HttpWorkers,
    ProcessStatus,
    TurnCounts,
    Workers,
    WorkerStatus,
    checked_addresses,
)
from greentic.ground.clock import timestamp
from greentic.ground.documents import replace
from greentic.ground.errors import Conflict, FetchError, InvalidArgument, NotFound
from greentic.ground.reply import Reply
from greentic.model.environment import Environment, Revision, SplitEntry
from greentic.model.ids import check_env_id, check_ulid
from greentic.model.ramp_record import WHOLE, Ramp, State, ramps_of, with_ramp
from greentic.model.traffic import next_split, put_split
from greentic.operate.change import Context, Done, run
from greentic.operate.payload import Payload, Ulid
from greentic.rollout.ramp import (
    Observed,
    RampLimits,
    Slice,
    Verdict,
    decide,
    p99,
    read_seconds,
    read_share,
    read_steps,
    with_metrics,
)
from greentic.store.audit import Change, Generations
from greentic.store.environments import Transaction
from greentic.telemetry.counts import BOUNDS

_OVERTAKEN = "the split was changed by somebody else; it was left as it is"
LOOK_SECONDS = 1.0
"""Between two looks at the workers."""
CODES = (("aborted", 1),)
"""Exit codes by state: who waits for a ramp, as a pipeline does, is not to take going back for having arrived."""
_NOT_ITS_FAULT = frozenset({"gone", "busy", "store"})


class TrafficRampPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: Ulid
    to: Annotated[str | None, msgspec.Meta(description="the new revision")] = None
    steps: str = "1%,10%,50%,100%"
    pause: Annotated[str, msgspec.Meta(description="how long each step is watched at least")] = "5m"
    max_errors: Annotated[str, msgspec.Meta(description="failed turns beyond those of the control slice")] = "1%"
    max_p99: Annotated[str, msgspec.Meta(description="slower than the p99 of the control slice")] = "+20%"
    min_turns: Annotated[int, msgspec.Meta(ge=1)] = 100
    at: Annotated[list[str], msgspec.Meta(description="addresses of all workers")] = []
    resume: bool = False
    status: bool = False


class RampSummary(Reply, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: str
    to: str
    old: str
    state: State
    reason: str
    weight_bps: int
    """Of the new revision now."""
    step: int
    """From 1."""
    steps: list[int]
    generation: int


class _Baseline(NamedTuple):
    """The counts of one process when a step began."""

    new: TurnCounts
    control: TurnCounts


def ramp(context: Context, payload: TrafficRampPayload, workers: Workers | None = None) -> RampSummary:
    """Begin, resume or show the ramp of a deployment; returns when it is done or aborted."""
    workers = workers or HttpWorkers(context.clock)
    env_id = check_env_id(payload.environment_id)
    deployment_id = check_ulid(payload.deployment_id, field="deployment_id")
    env = context.store.load(env_id)
    known = ramps_of(env).get(deployment_id)
    if payload.status or payload.resume:
        if known is None:
            raise NotFound(f"no ramp of deployment `{deployment_id}` in env `{env_id}`")
        if payload.status or known.state != "running":
            return _summary(env_id, _overtaken(known) if _is_overtaken(env, known) else known)
        begun = known
        if payload.at:
            begun = replace(begun, at=checked_addresses(payload.at))
    else:
        if known is not None and known.state == "running" and not _is_overtaken(env, known):
            raise Conflict(
                f"a ramp of deployment `{deployment_id}` to `{known.to}` runs",
                hint=f"gtc op traffic ramp {env_id} --deployment {deployment_id} --resume",
            )
        begun = _wanted(context, env, deployment_id, payload)
        _check_heard(env_id, workers, begun)
        begun = _change(context, env_id, begun, "begin", "")
    return _summary(env_id, _carry_out(context, env_id, begun, workers))


def _check_heard(env_id: str, workers: Workers, wanted: Ramp) -> None:
    """Raise `Conflict` unless every worker answers and serves: nobody would see what the first step does (rule 6)."""
    _, silence = _ask(workers, wanted)
    if silence:
        raise Conflict(
            f"{silence}; nothing was changed: a ramp is judged by what every worker tells",
            hint=f"gtc op env status {env_id} {' '.join(f'--at {shlex.quote(at)}' for at in wanted.at)} shows who answers",
        )


def _wanted(context: Context, env: Environment, deployment_id: str, payload: TrafficRampPayload) -> Ramp:
    """The ramp that a payload asks for. Raises `InvalidArgument` or `Conflict`."""
    if payload.to is None or not payload.at:
        raise InvalidArgument("traffic ramp: missing `--to <REV>` or `--at <URL>`")
    to = revisions.find_revision(env, check_ulid(payload.to, field="to"))
    if to.deployment_id != deployment_id:
        raise InvalidArgument(f"revision `{to.revision_id}` belongs to deployment `{to.deployment_id}`")
    if to.lifecycle != "ready":
        raise Conflict(f"revision `{to.revision_id}` is {to.lifecycle}; a ramp goes to a ready one")
    split = env.split(deployment_id)
    served = [] if split is None else [e for e in split.entries if e.weight_bps and e.revision_id != to.revision_id]
    if split is None or len(served) != 1 or served[0].weight_bps != WHOLE:
        raise Conflict(
            f"a ramp begins where one other revision has all the traffic of deployment `{deployment_id}`",
            hint=f"give it to one: gtc op traffic set {env.environment_id} REVISION=100 --deployment {deployment_id} --idempotency-key KEY",
        )
    found = Ramp(
        deployment_id=deployment_id, to=to.revision_id, old=served[0].revision_id, steps=read_steps(payload.steps),
        pause_seconds=read_seconds(payload.pause), max_errors=read_share(payload.max_errors, "max_errors"),
        max_p99=read_share(payload.max_p99, "max_p99"), min_turns=payload.min_turns,
        at=checked_addresses(payload.at), generation=split.generation, updated_at=timestamp(context.clock.now_ns()),
    )  # fmt: skip
    _limits(found, to)
    return found


def _carry_out(context: Context, env_id: str, current: Ramp, workers: Workers) -> Ramp:
    """Look, decide and change until the ramp is over (rule 1)."""
    clock = context.clock
    while current.state == "running":
        baselines: dict[str, _Baseline] = {}
        newest: dict[str, ProcessStatus] = {}
        began = answered = clock.monotonic()
        while True:
            answers, silence = _ask(workers, current)
            now = clock.monotonic()
            answered = answered if silence else now
            newest |= {process.process: process for answer in answers for process in answer.processes()}
            new, control = _window(current, newest.values(), baselines)
            env = context.store.load(env_id)
            revision = env.revision(current.to)
            seen = Observed(
                new, control, now - began, current.pause_seconds, revision.lifecycle if revision else "", now - answered,
                silence, current.reference_p99,
            )  # fmt: skip
            verdict = decide(seen, _limits(current, revision))
            if _is_overtaken(env, current):
                verdict = Verdict("abort", _OVERTAKEN)
            context.view.say(f"{current.weight / 100:g}%: {verdict.do}: {verdict.reason}")
            if verdict.do != "hold":
                break
            clock.sleep(min(LOOK_SECONDS, current.pause_seconds or LOOK_SECONDS))
        basis = p99(control.buckets) if control else None
        current = replace(current, reference_p99=basis if basis is not None and basis < BOUNDS[-1] else None)
        current = _change(context, env_id, current, verdict.do, verdict.reason)
    return current


def _is_overtaken(env: Environment, ramp: Ramp) -> bool:
    """Whether somebody else changed the split of a ramp that nobody has ended yet (rule 4)."""
    split = env.split(ramp.deployment_id)
    return ramp.state == "running" and (split is None or split.generation != ramp.generation)


def _overtaken(ramp: Ramp) -> Ramp:
    return replace(ramp, state="aborted", reason=_OVERTAKEN)


def _limits(current: Ramp, revision: Revision | None) -> RampLimits:
    limits = RampLimits(current.max_errors, current.max_p99, current.min_turns)
    return limits if revision is None else with_metrics(limits, revision.abort_metrics)


def _change(context: Context, env_id: str, current: Ramp, do: str, reason: str) -> Ramp:
    """One step of the ramp in the document, with its split and its audit line (rule 3)."""
    last = current.step + 1 == len(current.steps)
    state: State = "aborted" if do == "abort" else "done" if do == "advance" and last else "running"
    step = current.step + 1 if do == "advance" and not last else current.step
    moved = replace(current, step=step, state=state, reason=reason, updated_at=timestamp(context.clock.now_ns()))
    entries = moved.entries()
    if state != "running":
        entries = [SplitEntry(revision_id=current.to if state == "done" else current.old, weight_bps=WHOLE)]
    change = Change(
        env_id, "traffic", "ramp",
        {"deployment_id": moved.deployment_id, "to": moved.to, "do": "done" if state == "done" else do,
         "weights": [[e.revision_id, e.weight_bps] for e in entries], "reason": reason},
    )  # fmt: skip

    def action(transaction: Transaction) -> Done[Ramp]:
        env = transaction.load()
        split = env.split(moved.deployment_id)
        if split is None or split.generation != moved.generation:  # rule 4
            left, kept = _overtaken(moved), ramps_of(env).get(moved.deployment_id)
            if kept is not None and kept.generation == moved.generation:  # else another ramp began meanwhile
                transaction.save(with_ramp(env, left))
            return Done(left)
        new = next_split(
            env, deployment_id=moved.deployment_id, bundle_id=split.bundle_id, entries=entries,
            updated_at=moved.updated_at, updated_by="ramp", idempotency_key=f"ramp-{context.mint()}",
            authorization_ref=split.authorization_ref,
        )  # fmt: skip
        kept = replace(moved, generation=new.generation)
        env = with_ramp(put_split(env, new), kept)
        transaction.save(env)
        transaction.refresh_projection(env)
        return Done(kept, Generations(split.generation, new.generation))

    return run(context, change, action)


def _ask(workers: Workers, of: Ramp) -> tuple[list[WorkerStatus], str]:
    """What the workers tell, and who of them does not, or cannot serve what the split says (rule 7), with the reason."""
    found, silence = [], ""
    for address in of.at:
        try:
            told = workers.ask(address)
        except FetchError as error:
            silence = silence or f"a worker does not answer: {error}"
            continue
        found.append(told)
        rows = [row for process in told.processes() for row in process.unavailable]
        for row in rows:
            if row.deployment_id == of.deployment_id:
                silence = silence or f"a worker cannot serve the new split: {row.error}"
    return found, silence


def _window(
    current: Ramp, newest: Iterable[ProcessStatus], baselines: dict[str, _Baseline]
) -> tuple[Slice, Slice | None]:
    """What happened since the step began, in all processes that were seen; the first sight of one is its beginning (rule 5)."""
    new, control = Slice(), Slice()
    for status in newest:
        rows = {r.revision_id: r for r in status.revisions}
        if current.to not in rows:
            continue  # it has not followed yet
        old = rows.get(current.old)
        now = _Baseline(rows[current.to].counts, (old.control if old else None) or TurnCounts())
        first = baselines.setdefault(status.process, now)
        new, control = _plus(new, first.new, now.new), _plus(control, first.control, now.control)
    return new, control if current.weight < WHOLE else None


def _plus(total: Slice, before: TurnCounts, after: TurnCounts) -> Slice:
    """A slice with what one process counted in between."""
    failed = [sum(n for kind, n in c.failures.items() if kind not in _NOT_ITS_FAULT) for c in (before, after)]
    old = before.latency.counts or (0,) * len(total.buckets)
    grown = after.latency.counts or (0,) * len(total.buckets)
    return Slice(
        total.turns + max(0, after.turns - before.turns),
        total.failures + max(0, failed[1] - failed[0]),
        tuple(t + max(0, b - a) for t, a, b in zip(total.buckets, old, grown, strict=True)),
    )


def _summary(env_id: str, current: Ramp) -> RampSummary:
    weight = {"running": current.weight, "done": WHOLE, "aborted": 0}[current.state]
    return RampSummary(
        environment_id=env_id, deployment_id=current.deployment_id, to=current.to, old=current.old, state=current.state,
        reason=current.reason, weight_bps=weight, step=current.step + 1, steps=current.steps,
        generation=current.generation,
    )  # fmt: skip
