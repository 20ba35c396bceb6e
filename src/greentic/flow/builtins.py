"""The kinds of nodes but for emit and flow.call (formats: flows 8, 9).

Rules:
1. `component.exec` reads `{component, operation, input, config}` of its payload and drops the rest; a component node takes
   the whole payload as input, unless it is such an envelope itself.
2. State belongs to the environment and tenant, not to the session.
3. Remote runtimes, agents and tools are not there on one machine: calls and agents end the run, tools answer with an error
   that is a value.
"""

from __future__ import annotations

import msgspec

from greentic.expressions.paths import MISSING
from greentic.expressions.template import compile_value
from greentic.expressions.value_range import in_range
from greentic.flow.bounds import bounded
from greentic.flow.cards import before_dispatch, card_invocation, inlined_call
from greentic.flow.node_names import NodeNames
from greentic.flow.nodes import NodePlan
from greentic.flow.ports import Caller, ComponentCall, Ports, ProviderCall, scope
from greentic.flow.results import Jump, Result, interpret, redirects
from greentic.flow.state import Map, NodeOutput
from greentic.ground.beside import kept
from greentic.ground.errors import FlowFailure

_ENVELOPE_KEYS = frozenset({"input", "operation", "op", "component", "component_ref", "config"})


class Wait(msgspec.Struct, frozen=True):
    """The run waits for the next message and goes on behind the node."""

    output: NodeOutput
    reason: str


async def call_builtin(
    node: NodePlan,
    payload: object,
    names: NodeNames,
    ports: Ports,
    caller: Caller,
    flow_id: str,
    attempt: int,
    entry: object,
) -> Result | Wait:
    """Run a node of any kind but emit and flow.call. `entry` is the message of the turn. Raises `FlowFailure`."""
    if node.kind in ("exec", "component"):
        return await _component(node, payload, ports, caller, flow_id, attempt, entry)
    if node.kind == "flow.goto":
        return _goto(payload, names)
    if node.kind == "session.wait":
        return _wait(payload)
    if node.kind == "var.set":
        return await _set_variable(node, names, ports)
    if node.kind in ("state.get", "state.set"):
        return await _state(node.kind, payload, ports, caller)
    if node.kind == "provider.invoke":
        return await _provider(node, payload, names, ports, caller)
    if node.kind == "remote":
        return _remote(node, payload)
    if node.kind == "tool":
        return _tool(node, payload)
    raise FlowFailure(f"{node.component} node cannot run: this build was compiled without the agentic feature")


# -- components -----------------------------------------------------------------------------------------------------


async def _component(
    node: NodePlan, payload: object, ports: Ports, caller: Caller, flow_id: str, attempt: int, entry: object
) -> Result:
    component, operation, given, config = node.component, node.operation, payload, None
    if node.kind == "exec":
        if not isinstance(payload, dict):
            raise FlowFailure("invalid payload for component.exec")
        component = _text(payload.get("component")) or _text(payload.get("component_ref")) or component
        given, config = payload.get("input"), payload.get("config")
        operation = operation or _text(payload.get("operation")) or _text(payload.get("op"))
        if "card_source" in payload or "card_spec" in payload:
            given = payload
    elif isinstance(payload, dict):
        operation = operation or _text(payload.get("operation")) or _text(payload.get("op"))
        if "input" in payload and payload.keys() <= _ENVELOPE_KEYS:
            given, config = payload["input"], payload.get("config")
    if not operation:
        told = node.mapping.get("operation") if isinstance(node.mapping, dict) else None
        suffix = "" if told is None else f" (mapping says {told!r})"
        raise FlowFailure(
            f"missing operation for node `{node.id}` (component `{component}`); expected node.component.operation to be set"
            + suffix
        )
    given = before_dispatch(component, given, entry)
    card = card_invocation(given, config, ports.assets)
    call = ComponentCall(
        component, operation, inlined_call(given, ports.assets) if card is None else card, config, flow_id, node.id,
        caller, attempt, card is not None, ports.trace,
    )  # fmt: skip
    value = in_range(await ports.components.call(call))
    return interpret(component, value, catches_errors=node.routing.catches_errors)


async def _provider(node: NodePlan, payload: object, names: NodeNames, ports: Ports, caller: Caller) -> Result:
    source = payload if isinstance(payload, dict) else {}
    operation = _text(source.get("op")) or _text(source.get("operation"))
    if operation is None:
        raise FlowFailure("provider.invoke requires an op")
    given = source.get("input")
    raw = node.mapping if isinstance(node.mapping, dict) else {}
    if raw.get("in_map") is not None:
        mapped = _Mapped(names, {"input": given, "result": given})
        made = await compile_value(raw["in_map"], pointers=True).rendered(mapped, ports.pause)
        given = await bounded(made, ports.pause)
    kind = _text(source.get("provider_type"))
    call = ProviderCall(_text(source.get("provider_id")), kind, operation, given, caller, ports.trace)
    value = in_range(await ports.components.call_provider(call))
    if raw.get("out_map") is not None:
        mapped = _Mapped(names, {"input": given, "result": value})
        made = await compile_value(raw["out_map"], pointers=True).rendered(mapped, ports.pause)
        value = await bounded(made, ports.pause)
    return Result(NodeOutput(True, value))


class _Mapped:
    """The names of a node, with those of a mapping in front."""

    def __init__(self, names: NodeNames, more: Map) -> None:
        self._names, self._more = names, more

    def named(self, name: str) -> object:
        return self._more[name] if name in self._more else self._names.named(name)


# -- the engine's own -----------------------------------------------------------------------------------------------


def _goto(payload: object, names: NodeNames) -> Result:
    source = payload if isinstance(payload, dict) else {}
    flow = _text(source.get("flow_id")) or _text(source.get("flow"))
    if flow is None:
        raise FlowFailure("missing_flow")
    node = source.get("node")
    given = source.get("input")
    if given is None:
        given = names.named("prev")
    target = Jump(flow, node if isinstance(node, str) and node else None, given, redirects(source))
    return Result(NodeOutput(True, given), target)


def _wait(payload: object) -> Wait:
    reason = payload if isinstance(payload, str) else payload.get("reason") if isinstance(payload, dict) else None
    return Wait(NodeOutput(True, payload), reason if isinstance(reason, str) else "waiting for the next message")


async def _set_variable(node: NodePlan, names: NodeNames, ports: Ports) -> Result:
    if node.assigned is None or not isinstance(node.assigned[0], str) or not node.assigned[0]:
        raise FlowFailure("var.set requires a non-empty name")
    name, value = node.assigned
    names.variables[str(name)] = await bounded(await value.rendered(names, ports.pause), ports.pause)
    return Result(NodeOutput(True, {"ok": True}))


async def _state(kind: str, payload: object, ports: Ports, caller: Caller) -> Result:
    if ports.state is None:
        raise FlowFailure("state store is not configured for this runtime")
    source = payload if isinstance(payload, dict) else {}
    key = source.get("key")
    if not isinstance(key, str) or not key:
        raise FlowFailure("state node payload missing required `key` (non-empty string)")
    scope = state_scope(caller)
    if kind == "state.set":
        value = source.get("value")
        await kept(ports.state, ports.state.set, scope, key, value)
        return Result(NodeOutput(True, {"key": key, "value": value}))
    found = await kept(ports.state, ports.state.get, scope, key)
    if found is MISSING:
        return Result(NodeOutput(True, {"key": key, "value": None, "found": False}))
    return Result(NodeOutput(True, {"key": key, "value": found, "found": True}))


def state_scope(caller: Caller) -> str:
    """Whose values a run reads and writes (rule 2)."""
    return scope("runner", caller.env, caller.tenant)


# -- elsewhere ------------------------------------------------------------------------------------------------------


def _remote(node: NodePlan, payload: object) -> Result:
    source = payload if isinstance(payload, dict) else {}
    if node.component == "approval.call" and _approves_itself(source.get("input")):
        return Result(NodeOutput(True, {"approved": True, "automatic": True}))
    raise FlowFailure(f"{node.component} node dispatched but no RemoteDispatchHandler configured")


def _approves_itself(given: object) -> bool:
    """Whether a risk is low enough, or a confidence high enough, for no person to be asked."""
    if not isinstance(given, dict):
        return False
    mode = given.get("mode")
    if mode == "above_risk":
        risk, limit = given.get("risk"), given.get("risk_threshold")
        return isinstance(risk, int | float) and isinstance(limit, int | float) and risk < limit
    if mode == "above_confidence":
        sure, limit = given.get("confidence"), given.get("confidence_threshold")
        return isinstance(sure, int | float) and isinstance(limit, int | float) and sure >= limit
    return False


def _tool(node: NodePlan, payload: object) -> Result:
    source = payload if isinstance(payload, dict) else {}
    kind = node.component.partition(":")[0]
    what = "MCP server" if kind == "mcp" else "A2A agent"
    failed = {"error": f"{kind} node `{node.id}`: no {what} is configured for this runtime"}
    name = _text(source.get("output"))
    value: Map = {name: failed} if name else dict(failed)
    return Result(NodeOutput(not node.routing.catches_errors, value))


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None
