"""One run of a flow, from a message to an answer or to the next waiting (formats: flows 5, 8).

Rules:
1. The next node follows from the routing: the target of `Next`, the first route that holds, or nothing, which completes, as does
   the target `out` where no node has that name.
2. A node with conditions of which none holds waits there for the next message, and then runs again.
3. What was emitted is the answer, with the last output behind it unless it was said already; without any emission the last
   output is the answer.
4. A run takes at most `MAX_STEPS` steps and `MAX_SECONDS`, the flows that it calls included, jumps for one message at most as often as
   it may, and calls flows at most `MAX_CALLS` deep. Running out of these ends the whole run, whoever called.
5. What a run makes is bounded in size and depth, and so is all that it keeps together (`flow.bounds`).
6. A message answers one question: a route that asked for its action or text takes them for the rest of the turn.
7. What a run needs from outside it asks its ports for, and awaits. On a loop others go on meanwhile; without one the same code
   runs in place (`ground.going`).
8. What a run did beside answering is remembered (`Budget.acted`): such a run is never made again.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from greentic.expressions.conditions import holds
from greentic.expressions.paths import MISSING
from greentic.flow.activity import failure_payload
from greentic.flow.bounds import MAX_KEPT, Kept, bounded
from greentic.flow.builtins import Wait, call_builtin
from greentic.flow.node_names import NodeNames, node_view, submitted, without_action
from greentic.flow.nodes import OUT, FlowPlan, NodePlan
from greentic.flow.ports import Caller, Ports
from greentic.flow.results import Jump, Respond, Result
from greentic.flow.state import NodeOutput, RunState, Snapshot
from greentic.ground.errors import FlowFailure

MAX_STEPS = 10_000
"""Nodes that one run may execute."""
MAX_SECONDS = 900.0
"""Time from the start of a run to its answer."""
MAX_CALLS = 16
"""How deeply `flow.call` may nest."""
PIECE_SECONDS = 0.005
"""How long a run goes on before it lets the loop do something else."""
_ACTING = frozenset({"exec", "component", "provider.invoke", "state.set"})
"""Kinds of nodes that may have an effect. A call that failed is not counted: it says itself whether it may be repeated."""
SLOT_EXTRACTOR = "ai.greentic.component-slot-extractor"


class Completed(msgspec.Struct, frozen=True):
    output: object


class Parked(msgspec.Struct, frozen=True):
    """A run that waits for the next message; `output` is what it says meanwhile."""

    snapshot: Snapshot
    reason: str
    output: object


Outcome = Completed | Parked


class Exhausted(FlowFailure):
    """A run that took all it may take; no flow that called another goes on after it."""


class Budget(msgspec.Struct):
    """What is left of a run, shared by the flows that it calls."""

    steps: int
    until: float
    kept: Kept = msgspec.field(default_factory=Kept)
    """What the flow that runs now keeps, and how much more it may."""
    acted: bool = False
    """Whether a step was done that may have had an effect: a call that came back, a value that was kept."""


class Run(msgspec.Struct, frozen=True):
    """What stays the same during a run."""

    pack_id: str
    flow_id: str
    caller: Caller
    ports: Ports
    attempt: int = 1
    depth: int = 0
    max_steps: int = MAX_STEPS
    budget: Budget | None = None
    """Made when the run begins."""


def new_budget(run: Run) -> Budget:
    """What a run may take, from now."""
    return Budget(run.max_steps, run.ports.clock.monotonic() + MAX_SECONDS)


def attempt_of(run: Run, number: int) -> Run:
    """A try of a run, with all that it may take."""
    return replace(run, attempt=number, budget=new_budget(run))


async def start(run: Run, payload: object) -> Outcome:
    """Run a flow from its start. Raises `FlowFailure`."""
    plan = _flow(run.ports, run.flow_id, run.pack_id)
    state = RunState({} if payload is None else payload)
    _seed_variables(plan, state)
    return await _loop(run, plan, plan.graph.first(), state)


def fate(plan: FlowPlan) -> str:
    """What a run of a flow without nodes ends with, whatever the message."""
    try:
        _seed_variables(plan, RunState({}))
        return f"node {plan.graph.first()} not found"
    except FlowFailure as failure:
        return str(failure)


async def resume(run: Run, snapshot: Snapshot, payload: object) -> Outcome:
    """Go on with a parked run. Raises `FlowFailure`."""
    plan = _flow(run.ports, snapshot.next_flow or snapshot.flow_id, run.pack_id)
    state = snapshot.state
    state.entry = {} if payload is None else payload
    state.egress, state.taken, state.redirect_count = [], False, 0
    if snapshot.awaiting_submit:
        state.answering, state.answers = snapshot.next_node, submitted(state.entry)
    return await _loop(replace(run, flow_id=snapshot.flow_id), plan, snapshot.next_node, state)


def _flow(ports: Ports, flow_id: str, pack_id: str) -> FlowPlan:
    plan = ports.flows.get(flow_id)
    if plan is None:
        raise FlowFailure(f"flow {flow_id} not registered for pack {pack_id}")
    return plan


def _seed_variables(plan: FlowPlan, state: RunState) -> None:
    declared = plan.graph.extra.get("vars_init")
    missing: list[str] = []
    for name, how in declared.items() if isinstance(declared, dict) else ():
        if isinstance(how, dict) and "default" in how:
            state.vars[name] = how["default"]
        elif isinstance(how, dict) and how.get("required") is True:
            missing.append(name)
    if missing:
        raise FlowFailure(f"required flow variable not provided: {', '.join(sorted(missing))}")


async def _loop(run: Run, plan: FlowPlan, node_id: str, state: RunState) -> Outcome:
    clock = run.ports.clock
    budget = run.budget
    if budget is None:
        budget = new_budget(run)
        run = replace(run, budget=budget)
    began = clock.monotonic()
    while budget.steps > 0:
        budget.steps -= 1
        now = clock.monotonic()
        if now > budget.until:
            raise Exhausted(f"flow {run.flow_id} took longer than {MAX_SECONDS:g} s")
        if now - began > PIECE_SECONDS:
            await run.ports.pause()
            began = clock.monotonic()
        node = plan.nodes.get(node_id)
        if node is None:
            raise FlowFailure(f"node {node_id} not found")
        names = NodeNames(state, state.last_output, run.ports.clock)
        if run.ports.trace is not None:
            run.ports.trace.enter(plan.id, node.id, node.kind)
        result, payload = await _execute(run, plan, node, state, names)
        output = result.output if state.answering is None else _answered(node, result.output, state)
        _remember(budget, state, node, output)
        if node.variables:
            await _set_variables(run, budget, state, node, output)
        if budget.kept.room < 0:
            raise Exhausted(f"flow {run.flow_id} keeps more than {MAX_KEPT} bytes: outputs, variables and what it said")
        if isinstance(result, Result) and result.control is not None:
            control = result.control
            if isinstance(control, Respond):
                state.egress.append(control.message)
                _traced(run, plan, node, payload, output, "respond")
                return Completed(_output(state, MISSING))
            _traced(run, plan, node, payload, output, f"jump to {control.flow}")
            plan, node_id = _jump(run, control, state)
            continue
        following, asked = _following(node, output, names)
        if state.answering == node_id:
            state.answering = None
            state.entry = without_action(state.entry)
            asked = following is not None
        state.taken = state.taken or asked
        ends = following == OUT and OUT not in plan.nodes
        following = None if ends else following
        if isinstance(result, Wait):
            if following is None:
                raise FlowFailure(f"session.wait node {node_id} requires a non-empty route")
            _traced(run, plan, node, payload, output, "wait for the next message")
            return _park(run, plan, following, state, result.reason, awaiting_submit=False, final=MISSING)
        if following is None:
            if node.routing.parks and not ends:
                _traced(run, plan, node, payload, output, "wait for a submit")
                reason = f"awaiting user submit at node `{node_id}`"
                return _park(run, plan, node_id, state, reason, awaiting_submit=True, final=output.payload)
            _traced(run, plan, node, payload, output, "end")
            return Completed(_output(state, output.payload))
        _traced(run, plan, node, payload, output, following)
        node_id = following
    raise Exhausted(f"flow {run.flow_id} took more than {run.max_steps} steps")


def _remember(budget: Budget, state: RunState, node: NodePlan, output: NodeOutput) -> None:
    """Keep what a node left behind: its output, and the variable that it is there for."""
    # What is said stays, each time it is said; another output takes the place of the one before.
    kept = budget.kept
    kept.put(("said", str(len(state.egress))) if node.kind == "emit" else ("node", node.id), output.payload)
    state.nodes[node.id], state.views[node.id] = output, node_view(output)
    state.last_output = output.payload
    if node.assigned is not None:
        name = str(node.assigned[0])
        kept.put(("variable", name), state.vars.get(name))


async def _set_variables(run: Run, budget: Budget, state: RunState, node: NodePlan, output: NodeOutput) -> None:
    """Keep what a node puts into variables; of many the rest is not made once there is no room."""
    after = NodeNames(state, output.payload, run.ports.clock)
    for name, template in node.variables:
        if budget.kept.room < 0:
            break
        state.vars[name] = await bounded(await template.rendered(after, run.ports.pause), run.ports.pause)
        budget.kept.put(("variable", name), state.vars[name])


async def _execute(
    run: Run, plan: FlowPlan, node: NodePlan, state: RunState, names: NodeNames
) -> tuple[Result | Wait, object]:
    """Run one node: its output, control or wish to wait, and the payload that it was given."""
    try:
        plain = node.payload.gently is None
        payload = node.payload.render(names) if plain else await node.payload.rendered(names, run.ports.pause)
        if not node.payload.constant:
            await bounded(payload, run.ports.pause)
    except FlowFailure as failure:
        raise FlowFailure(f"failed to render node input template: {failure}") from None
    if node.kind == "emit":
        state.egress.append(payload)
        return Result(NodeOutput(True, payload)), payload
    if node.kind == "exec" and node.component == SLOT_EXTRACTOR:
        payload = _with_slots(payload, plan)
    if node.kind == "flow.call":
        return await _call_flow(run, payload), payload
    result = await call_builtin(node, payload, names, run.ports, run.caller, plan.id, run.attempt, state.entry)
    if run.budget is not None and node.kind in _ACTING:
        run.budget.acted = True
    return result, payload


def _with_slots(payload: object, plan: FlowPlan) -> object:
    schema = plan.graph.extra.get("greentic.slot_schema")
    if schema is None or not isinstance(payload, dict):
        return payload
    inner = payload.get("input")
    inner = inner if isinstance(inner, dict) else {}
    return {**payload, "input": {"slot_definitions": schema, **inner}}


async def _call_flow(run: Run, payload: object) -> Result:
    """Run another flow as a subroutine; how it fails is its output, as that of any other turn."""
    source = payload if isinstance(payload, dict) else {}
    named = source.get("flow_id", source.get("flow"))
    flow_id = named.strip() if isinstance(named, str) else ""
    if not flow_id:
        raise FlowFailure("flow.call requires a non-empty flow_id")
    if run.depth >= MAX_CALLS:
        raise FlowFailure(f"flow.call failed for {flow_id}: calls nest deeper than {MAX_CALLS}")
    budget = run.budget if run.budget is not None else new_budget(run)
    mine, budget.kept = budget.kept, Kept(budget.kept.room)  # what the other flow keeps goes with it
    try:
        outcome = await start(replace(run, flow_id=flow_id, depth=run.depth + 1, budget=budget), source.get("input"))
    except Exhausted:
        raise
    except FlowFailure as failure:
        if run.caller.session is None or run.depth + 1 >= MAX_CALLS:
            raise FlowFailure(
                f"flow.call failed for {flow_id}: {failure}", retryable=failure.retryable, backoff_ms=failure.backoff_ms
            ) from None
        return Result(NodeOutput(True, failure_payload(flow_id, str(failure))))
    finally:
        budget.kept = mine
    if isinstance(outcome, Parked):
        raise FlowFailure(f"flow.call cannot pause (flow {flow_id} waiting: {outcome.reason})")
    return Result(NodeOutput(True, outcome.output))


def _answered(node: NodePlan, output: NodeOutput, state: RunState) -> NodeOutput:
    """The output of a node that was waiting for a submit, with what was submitted."""
    if state.answering != node.id or not isinstance(output.payload, dict):
        return output
    answers = state.answers
    if node.answer_fields is not None:
        answers = {key: answers[key] for key in node.answer_fields if key in answers}
    return NodeOutput(output.ok, {**output.payload, "answers": answers}, output.meta)


def _following(node: NodePlan, output: NodeOutput, names: NodeNames) -> tuple[str | None, bool]:
    """The node that comes next (rule 1), and whether the message decided it (rule 6)."""
    if not node.routing.routes:
        return node.routing.next, False
    facts = names.facts(output, node.routing)
    for route in node.routing.routes:
        if route.to is None:
            continue
        if route.event is not None and facts.named("event") != route.event:
            continue
        if route.condition is None or holds(route.condition, facts):
            return route.to, route.asks_message
    return None, False


def _jump(run: Run, jump: Jump, state: RunState) -> tuple[FlowPlan, str]:
    if state.redirect_count >= jump.max_redirects:
        raise FlowFailure(
            f"redirect_limit: more than {jump.max_redirects} jumps for one message; `max_redirects` allows more"
        )
    if not jump.flow:
        raise FlowFailure("missing_flow")
    plan = run.ports.flows.get(jump.flow)
    if plan is None:
        raise FlowFailure(f"unknown_flow:{jump.flow}")
    if jump.node is not None and jump.node not in plan.nodes:
        raise FlowFailure(f"unknown_node:{jump.node}")
    if jump.node is None and plan.graph.start is None and not plan.nodes:
        raise FlowFailure(f"jump_failed: flow {jump.flow} has no start node")
    state.redirect_count += 1
    state.last_output = {} if jump.payload is None else jump.payload
    return plan, jump.node if jump.node is not None else plan.graph.first()


def _park(
    run: Run, plan: FlowPlan, node_id: str, state: RunState, reason: str, *, awaiting_submit: bool, final: object
) -> Parked:
    output = _output(state, final)
    state.park_turns += 1
    moved = None if plan.id == run.flow_id else plan.id
    return Parked(Snapshot(run.pack_id, run.flow_id, moved, node_id, awaiting_submit, state), reason, output)


def _output(state: RunState, final: object) -> object:
    """The answer of a turn (rule 3)."""
    if not state.egress:
        return None if final is MISSING else final
    said = list(state.egress)
    if isinstance(final, list):
        return said + final
    if final is not MISSING and final is not None and final != said[-1]:
        said.append(final)
    return said


def _traced(run: Run, plan: FlowPlan, node: NodePlan, payload: object, output: NodeOutput, then: str) -> None:
    if run.ports.trace is not None:
        run.ports.trace.step(plan.id, node.id, node.kind, payload, output.payload, then)
