"""Progressive delivery: what is decided from counts, what is carried out, and that a killed ramp goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from conftest import Author
from greentic.activate.dispatch import Choice, Dispatcher
from greentic.cli import op
from greentic.deployments import revisions, traffic
from greentic.deployments.env_status import EnvStatusPayload, status
from greentic.deployments.worker_status import (
    Applied,
    Following,
    Latency,
    ProcessStatus,
    RevisionRow,
    TurnCounts,
    UnavailableRow,
    WaitingRow,
    WorkerStatus,
)
from greentic.ground import documents
from greentic.ground.errors import Conflict, FetchError, InvalidArgument
from greentic.model.ramp_record import MEMBER, ControlSlice, control_slice, ramps_of
from greentic.rollout.ramp import Observed, RampLimits, Slice, decide, lowest, read_seconds, read_steps, with_metrics
from greentic.rollout.ramp_run import TrafficRampPayload, ramp
from greentic.telemetry.counts import BOUNDS
from simulators import Killed

LIMITS = RampLimits(0.01, 0.2, 50)
BUCKETS = st.lists(st.integers(0, 5000), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1).map(tuple)


def seen(new: Slice, control: Slice | None, **more: object) -> Observed:
    return Observed(new, control, 60.0, 60.0, "ready")._replace(**more)


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    buckets = draw(BUCKETS)
    return Slice(sum(buckets), draw(st.integers(0, sum(buckets))), buckets)


@given(slices())
def test_equal_counts_never_abort(same):
    assert decide(seen(same, same), LIMITS).do != "abort"
    if same.turns >= 50:
        assert decide(seen(same, same), LIMITS).do == "advance"


@given(slices(), slices())
def test_more_failures_than_allowed_never_advance(new, control):
    if new.error_share > control.error_share + LIMITS.max_errors:
        assert decide(seen(new, control), LIMITS).do != "advance"


@given(slices(), slices())
def test_little_traffic_never_advances(new, control):
    if min(new.turns, control.turns) < LIMITS.min_turns:
        assert decide(seen(new, control), LIMITS).do != "advance"


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_the_lowest_share_is_below_what_was_seen(hits, of):
    assert 0 <= lowest(min(hits, of), of) <= min(hits, of) / of


def at(bucket: int, turns: int) -> tuple[int, ...]:
    return tuple(turns if i == bucket else 0 for i in range(len(BOUNDS) + 1))


def test_what_is_decided_and_why():
    good = Slice(1000, 1, at(2, 1000))
    assert decide(seen(Slice(1000, 200, at(2, 1000)), good), LIMITS).do == "abort"
    assert decide(seen(Slice(20, 20, at(2, 20)), good), LIMITS).do == "abort"  # few, and plain
    assert decide(seen(Slice(60, 1, at(2, 60)), good), LIMITS).do == "hold"  # more, and maybe chance
    late = decide(seen(Slice(1000, 0, at(6, 1000)), good), LIMITS)
    assert late.do == "abort" and "longer than" in late.reason
    assert "too little" in decide(seen(Slice(3, 0, at(2, 3)), good), LIMITS).reason
    assert "pause" in decide(seen(good, good, waited=1.0), LIMITS).reason
    assert decide(seen(good, good, lifecycle="archived"), LIMITS).reason == "the new revision is archived"
    assert decide(seen(good, good, silence="refused"), LIMITS).do == "hold"
    assert decide(seen(good, good, silence="refused", silent=120.0), LIMITS).do == "abort"
    assert decide(seen(good, None), LIMITS).do == "advance"
    assert decide(seen(Slice(1000, 0, at(6, 1000)), None, reference_p99=0.004), LIMITS).do == "abort"


def test_limits_and_words():
    assert with_metrics(LIMITS, ["errors>0.5%", "p99>+10%"]) == RampLimits(0.005, 0.1, 50)
    assert with_metrics(LIMITS, ["errors>5%"]) == LIMITS
    with pytest.raises(InvalidArgument, match="not understood"):
        with_metrics(LIMITS, ["mood<3"])
    assert read_steps("1%,10%,50%,100%") == [100, 1000, 5000, 10_000] and read_seconds("5m") == 300
    for wrong in ("1%", "50%,10%,100%", "0%,100%", "x"):
        with pytest.raises(InvalidArgument):
            read_steps(wrong)


def test_a_control_slice_is_as_large_as_the_new_revisions_share_and_only_grows():
    def members(weight: int) -> set[int]:
        control = ControlSlice("A", "control:B", weight / (10_000 - weight))
        choices = [Choice("A", 10_000 - weight, False), Choice("B", weight, False)]
        found = Dispatcher("e", "D", choices, generation=1, key=b"k", control=control)
        drawn = {n: found.of_session(str(n)) for n in range(8000)}
        assert not any(found.in_control(str(n).encode(), "B") for n in drawn)
        return {n for n, r in drawn.items() if found.in_control(str(n).encode(), r)}

    small, large = members(1000), members(3000)
    assert 650 < len(small) < 950 and 2150 < len(large) < 2650
    assert len(small - large) < len(small) / 3  # but who went over to the new revision, they stay


class SimulatedWorkers:
    """Workers whose counts grow with each look, as the split of the document says."""

    def __init__(self, author: Author, deployment: str, failing: str = "", turns: int = 200) -> None:
        self.author, self.deployment, self.failing, self.turns = author, deployment, failing, turns
        self.total: dict[str, int] = {}
        self.weights: list[int] = []
        self.die_at: int | None = None
        self.silent = False
        """Whether they say nothing once a ramp has begun."""
        self.absent = False
        """Whether they say nothing at all."""
        self.alone = False
        """Whether they are asked for no ramp."""
        self.held: dict[str, TurnCounts] = {}
        self.others: tuple[ProcessStatus, ...] = ()
        self.lacks = ""
        """A deployment that they cannot serve as its split says, once a ramp has begun; with `alone` at once."""

    def ask(self, address: str, revision_id: str | None = None) -> WorkerStatus:
        env = self.author.context.store.load("local")
        begun = self.deployment in ramps_of(env)
        if self.absent or (self.silent and (begun or self.alone)):
            raise FetchError("refused")
        if not begun and not self.alone:  # whether they are there: nothing is counted yet
            return WorkerStatus("local", "1", ())
        if self.lacks:
            lacking = (UnavailableRow(self.lacks, "unreachable", "the source is gone"),)
            return WorkerStatus("local", "1", unavailable=lacking)
        entries = env.split(self.deployment).entries
        self.weights.append(entries[-1].weight_bps)
        if self.die_at is not None and len(self.weights) >= self.die_at:
            raise Killed
        control = control_slice(env, self.deployment)
        rows = []
        for entry in entries:
            revision = entry.revision_id
            if entry.weight_bps:
                self.total[revision] = self.total.get(revision, 0) + self.turns
            counts = self._counts(revision)
            rows.append(
                RevisionRow(
                    revision, counts, counts if control and control.revision_id == revision else None, self.deployment
                )
            )
        drains = tuple(RevisionRow(r, c) for r, c in self.held.items())
        return WorkerStatus("local", "1", tuple(rows), drains, others=self.others)

    def _counts(self, revision: str) -> TurnCounts:
        turns = self.total.get(revision, 0)
        failed = turns if revision == self.failing else 0
        return TurnCounts(turns, {"flow": failed}, latency=Latency(BOUNDS, at(2, turns)))


@pytest.fixture
def two(author: Author, hello) -> tuple[Author, str, str, str]:
    author.create()
    deployment, old = author.deployed(hello)
    return author, deployment, old, author.warm(author.stage(deployment, hello))


def asked(deployment: str, to: str | None = None, **more: object) -> TrafficRampPayload:
    given = {"pause": "3s", "min_turns": 50, "at": ["http://w"], **more}
    return TrafficRampPayload(environment_id="local", deployment_id=deployment, to=to, **given)


def entries(author: Author, deployment: str) -> list[tuple[str, int]]:
    return [(e.revision_id, e.weight_bps) for e in author.context.store.load("local").split(deployment).entries]


def test_a_ramp_goes_up_step_by_step_with_a_line_for_each(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    done = ramp(author.context, asked(deployment, new), workers)
    assert (done.state, done.weight_bps) == ("done", 10_000) and entries(author, deployment) == [(new, 10_000)]
    assert sorted(set(workers.weights)) == [100, 1000, 5000, 10_000] and workers.weights == sorted(workers.weights)
    lines = [e["target"]["do"] for e in author.audit() if e["verb"] == "ramp" and "result" in e]
    assert lines == ["begin", "advance", "advance", "advance", "done"]


def test_what_several_processes_behind_one_address_told_is_added_up(two):
    """Each look is answered by one of two, in turn: neither alone has counted enough when both together have."""
    author, deployment, _, new = two
    workers = SimulatedWorkers(author, deployment, turns=15)
    one, looks = workers.ask, []

    def of_two(address: str) -> WorkerStatus:
        looks.append(address)
        return structs.replace(one(address), process=f"p{len(looks) % 2}")

    workers.ask = of_two  # type: ignore[method-assign]
    done = ramp(author.context, asked(deployment, new, pause="1s", min_turns=100, steps="50%,100%"), workers)
    assert done.state == "done"
    first = workers.weights.index(10_000)  # looks of the first step: both processes are needed to have enough
    assert 5 <= first <= 7


def test_a_failing_revision_is_taken_back_at_once(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment, failing=new)
    told = ramp(author.context, asked(deployment, new), workers)
    assert told.state == "aborted" and "turns failed" in told.reason and set(workers.weights) == {100}
    assert entries(author, deployment) == [(old, 10_000)] and len(workers.weights) == 2


@pytest.mark.parametrize("die_at", range(1, 16, 2))
def test_a_killed_ramp_goes_on_where_it_was(two, die_at):
    author, deployment, _, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.die_at = die_at
    with pytest.raises(Killed):
        ramp(author.context, asked(deployment, new), workers)
    before = entries(author, deployment)[-1][1]
    with pytest.raises(Conflict, match="runs"):
        ramp(author.context, asked(deployment, new), workers)
    assert ramp(author.context, asked(deployment, status=True), workers).state == "running"
    workers.die_at = None
    seen_before = len(workers.weights)
    assert ramp(author.context, asked(deployment, resume=True), workers).state == "done"
    assert workers.weights[seen_before] == before and entries(author, deployment) == [(new, 10_000)]


def test_a_revision_that_nobody_calls_is_held_with_the_reason(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment, turns=0)
    workers.die_at = 500  # nothing changes, however long it is watched
    with pytest.raises(Killed):
        ramp(author.context, asked(deployment, new), workers)
    assert entries(author, deployment) == [(old, 9900), (new, 100)]
    assert set(workers.weights) == {100}


def test_a_revision_that_is_slow_is_taken_back(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    usual = workers._counts
    workers._counts = lambda r: structs.replace(  # type: ignore[method-assign]
        usual(r), latency=Latency(BOUNDS, at(8 if r == new else 2, usual(r).turns))
    )
    told = ramp(author.context, asked(deployment, new), workers)
    assert told.state == "aborted" and "took longer than" in told.reason
    assert entries(author, deployment) == [(old, 10_000)]


@pytest.mark.parametrize("lifecycle", ["archived", "failed", "draining"])
def test_a_revision_that_is_no_longer_ready_meanwhile_is_taken_back(two, lifecycle):
    author, deployment, old, new = two
    store, workers = author.context.store, SimulatedWorkers(author, deployment)
    usual = workers.ask

    def ask(address: str) -> WorkerStatus:
        if len(workers.weights) == 2:
            env = store.load("local")
            rows = [documents.replace(r, lifecycle=lifecycle) if r.revision_id == new else r for r in env.revisions]
            with store.transaction("local") as transaction:
                transaction.save(documents.replace(env, revisions=rows))
        return usual(address)

    workers.ask = ask  # type: ignore[method-assign]
    told = ramp(author.context, asked(deployment, new), workers)
    assert told.state == "aborted" and f"the new revision is {lifecycle}" in told.reason
    assert entries(author, deployment) == [(old, 10_000)] and len(workers.weights) == 3


def test_silence_holds_and_then_aborts(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.silent = True
    told = ramp(author.context, asked(deployment, new), workers)
    assert told.state == "aborted" and "for 120 s a worker does not answer: fetch failed: refused" in told.reason
    assert entries(author, deployment) == [(old, 10_000)]


def test_a_worker_that_cannot_have_the_new_revision_holds_and_then_aborts(two):
    """Its turns were waited for for ever, while every worker that began answered 503."""
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.lacks = deployment
    told = ramp(author.context, asked(deployment, new), workers)
    assert (
        told.state == "aborted" and "for 120 s a worker cannot serve the new split: the source is gone" in told.reason
    )
    assert entries(author, deployment) == [(old, 10_000)]


def test_what_another_deployment_lacks_is_nothing_to_a_ramp(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.others = (
        ProcessStatus("local", "2", unavailable=(UnavailableRow("01M8GZ6J46H8XNASD1T1XCJZ55", "broken", "x"),)),
    )
    assert ramp(author.context, asked(deployment, new), workers).state == "done"


def test_nothing_begins_where_a_worker_cannot_serve_the_deployment(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.lacks, workers.alone = deployment, True
    with pytest.raises(Conflict, match="the source is gone; nothing was changed"):
        ramp(author.context, asked(deployment, new), workers)
    assert not ramps_of(author.context.store.load("local"))


def test_nothing_begins_while_a_worker_is_silent(two):
    """A mistyped address was told of after two minutes, with the first step of the traffic on the new revision all the while."""
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.absent = True
    with pytest.raises(Conflict, match="refused; nothing was changed") as caught:
        ramp(author.context, asked(deployment, new, at=["http://w", "http://v"]), workers)
    assert caught.value.hint == "gtc op env status local --at http://w --at http://v shows who answers"
    assert entries(author, deployment) == [(old, 10_000)] and not ramps_of(author.context.store.load("local"))
    workers.absent = False
    assert ramp(author.context, asked(deployment, new), workers).state == "done"


def test_a_split_that_somebody_else_changed_is_left(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.die_at = 2
    with pytest.raises(Killed):
        ramp(author.context, asked(deployment, new), workers)
    workers.die_at = None
    assert ramp(author.context, asked(deployment, status=True), workers).state == "running"
    words = [
        "--store-root",
        str(author.context.store.root),
        "traffic",
        "ramp",
        "local",
        "--deployment",
        deployment,
        "--status",
    ]
    assert op.main(words) == 0
    author.route(deployment, (old, 7000), (new, 3000), key="mine")
    assert op.main(words) == 1  # a pipeline is not to take it for a release
    told = ramp(author.context, asked(deployment, status=True), workers)
    assert told.state == "aborted" and "changed by somebody else" in told.reason
    told = ramp(author.context, asked(deployment, resume=True), workers)
    assert told.state == "aborted" and entries(author, deployment) == [(old, 7000), (new, 3000)]
    assert ramps_of(author.context.store.load("local"))[deployment].state == "aborted"


def test_a_ramp_that_somebody_else_overtook_is_in_nobodys_way(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    overtaking = SimulatedWorkers(author, deployment)

    def overtakes(address: str, revision_id: str | None = None) -> WorkerStatus:
        if deployment in ramps_of(author.context.store.load("local")):
            author.route(deployment, (old, 10_000), key="back")
            assert ramp(author.context, asked(deployment, new), overtaking).state == "done"
        return WorkerStatus("local", "1", ())

    workers.ask = overtakes  # type: ignore[method-assign]
    first = ramp(author.context, asked(deployment, new), workers)
    assert first.state == "aborted" and "changed by somebody else" in first.reason
    assert ramps_of(author.context.store.load("local"))[deployment].state == "done"
    assert entries(author, deployment) == [(new, 10_000)]


def test_abort_metrics_of_the_revision_count(two, hello):
    author, deployment, _, _ = two
    odd = author.warm(author.stage(deployment, hello, abort_metrics=["mood<3"]))
    before = author.context.store.paths("local").environment.read_bytes()
    with pytest.raises(InvalidArgument, match="mood"):
        ramp(author.context, asked(deployment, odd), SimulatedWorkers(author, deployment))
    assert author.context.store.paths("local").environment.read_bytes() == before and MEMBER.encode() not in before


def test_back_to_any_retained_revision(two, hello):
    author, deployment, old, new = two
    author.route(deployment, (new, 10_000), key="2")
    author.route(deployment, (author.warm(author.stage(deployment, hello)), 10_000), key="3")
    shown = traffic.TrafficShowPayload(environment_id="local", deployment_id=deployment)
    traffic.rollback(author.context, shown, traffic.RollbackOptions(old))
    assert entries(author, deployment) == [(old, 10_000)]
    revisions.archive(author.context, author.transition(new))
    with pytest.raises(Conflict, match="only `Ready`"):
        traffic.rollback(author.context, shown, traffic.RollbackOptions(new))


def test_a_revision_in_use_is_not_archived(two):
    author, deployment, _, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.alone = True
    workers.held[new] = TurnCounts(in_flight=1, parked=2)
    options = revisions.ArchiveOptions(["http://w"])
    with pytest.raises(Conflict, match=r"1 request\(s\) and 2 conversation\(s\)"):
        revisions.archive(author.context, author.transition(new), options, workers)
    clock = author.context.clock
    sleep, clock.sleep = clock.sleep, lambda seconds: (sleep(seconds), workers.held.clear())
    told = revisions.archive(author.context, author.transition(new), options._replace(wait=True), workers)
    assert told.lifecycle == "archived"


def test_what_any_process_of_a_worker_holds_is_held(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.alone = True
    workers.others = (ProcessStatus("local", "2", (), (RevisionRow(new, TurnCounts(in_flight=1)),)),)
    options = revisions.ArchiveOptions(["http://w"])
    with pytest.raises(Conflict, match=r"1 request\(s\) and 0 conversation\(s\)"):
        revisions.archive(author.context, author.transition(new), options, workers)
    payload = EnvStatusPayload(environment_id="local", at=["http://w"])
    workers.others = (
        ProcessStatus(
            "local", "2", (RevisionRow(old, TurnCounts(50)),), following=Following(error="torn", serving=Applied(3))
        ),
    )
    told = status(author.context, payload, workers)
    assert told.revisions[0].turns == 200 * len(workers.weights) + 50
    assert [(w.error, w.serving_generation) for w in told.workers] == [("torn", 3)]


@pytest.mark.parametrize(
    ("told", "held"),
    [
        (WorkerStatus("e", revisions=(RevisionRow("A", TurnCounts(in_flight=1, parked=2)),)), (1, 2, 0, False)),
        (WorkerStatus("e", others=(ProcessStatus("e", revisions=(RevisionRow("A", TurnCounts(parked=2)),)),)), (0, 2, 0, False)),
        # looked up where it waits: what a process counted is of no matter
        (WorkerStatus("e", revisions=(RevisionRow("A", TurnCounts(parked=2)),), waiting=WaitingRow("A", 0, True)), (0, 0, 0, True)),
        (WorkerStatus("e", waiting=WaitingRow("B", 3)), (0, 0, 0, False)),
        (WorkerStatus("e", silent=1), (0, 0, 1, False)),
    ],
)  # fmt: skip
def test_what_a_worker_holds_of_a_revision(told, held):
    assert told.held("A") == held and told.held("A").nothing == (not any(held[:3]))


def test_the_state_of_an_environment_is_told(two):
    author, deployment, old, new = two
    workers = SimulatedWorkers(author, deployment)
    workers.alone = True
    told = status(author.context, EnvStatusPayload(environment_id="local", at=["http://w"]), workers)
    assert [(r.revision_id, r.weight_bps, r.measured_bps, r.turns) for r in told.revisions] == [
        (old, 10_000, 10_000, 200)
    ]
    workers.silent = True
    (line,) = status(author.context, EnvStatusPayload(environment_id="local", at=["http://w"]), workers).workers
    assert not line.answers and "refused" in line.error
