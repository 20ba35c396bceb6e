"""What a node is: its kind and everything about it that does not change between runs (formats: flows 4).

Rules:
1. A component id that is not native, has a dot and comes without any operation is split at its last dot.
2. What can be decided when a flow is loaded is decided then: kinds, templates, conditions, side settings.
3. `vars_out` and `response_timeout_secs` are settings of the engine; components do not see them. What an emit node prints
   is what it was given, so they stay there.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from greentic.expressions.conditions import Condition, parse_condition
from greentic.expressions.template import Compiled, compile_value
from greentic.flow.graph import FlowGraph, Node

Kind = Literal[
    "emit", "exec", "component", "flow.call", "flow.goto", "provider.invoke", "session.wait", "state.get", "state.set",
    "var.set", "agent", "remote", "tool",
]  # fmt: skip

EXEC = "component.exec"
BUILTINS: tuple[Kind, ...] = (
    "flow.call", "flow.goto", "provider.invoke", "session.wait", "state.get", "state.set", "var.set",
)  # fmt: skip
REMOTE = frozenset({"sorla.call", "operala.call", "agentic.call", "telco-x.call", "approval.call"})
AGENTS = frozenset({"dw.agent", "dw.agent_graph"})
_NATIVE = (
    "component.exec", "flow.", "emit.", "session.", "provider.", "dw.", "sorla.", "operala.", "agentic.", "approval.",
    "var.", "mcp:", "a2a:", "state.get", "state.set", "telco-x.call",
)  # fmt: skip
_SETTINGS = ("vars_out", "response_timeout_secs")
_ANSWERS = frozenset({"metadata", "text"})
"""Members of a message in which a person answers."""
OUT = "out"
"""The target behind which there is nothing, unless a node has that name."""
ERROR_EVENTS = ("on_error", "on_cancel", "on_timeout")
SUCCESS_EVENTS = ("on_success", "on_complete", "on_submit")


class Edge(msgspec.Struct, frozen=True):
    """One entry of conditional routing; `condition` is none for an unconditional one."""

    condition: Condition | None
    event: str | None
    to: str | None

    @property
    def asks_message(self) -> bool:
        """Whether the condition asks for the message's action or text, or for a field that was submitted with them."""
        path = () if self.condition is None else self.condition.path
        return path[:1] == ("response",) or (path[:1] in (("entry",), ("in",)) and not _ANSWERS.isdisjoint(path[1:]))


class Routing(msgspec.Struct, frozen=True):
    """Where a run goes after a node. With `routes` the first that holds wins, else `next`; nothing ends the run."""

    next: str | None = None
    routes: tuple[Edge, ...] = ()
    parks: bool = False
    """Whether the run waits at this node when no route was taken: some route has a condition."""
    success_event: str = SUCCESS_EVENTS[0]
    error_event: str = ERROR_EVENTS[0]
    catches_errors: bool = False


class NodePlan(msgspec.Struct, frozen=True):
    """A node, ready to run."""

    id: str
    kind: Kind
    component: str
    """The component, or the target of an exec, agent, remote or tool node."""
    operation: str | None
    payload: Compiled
    variables: tuple[tuple[str, Compiled], ...]
    """`vars_out`."""
    assigned: tuple[object, Compiled] | None
    """Name and value of a `var.set`."""
    answer_fields: tuple[str, ...] | None
    routing: Routing
    mapping: object


class FlowPlan(msgspec.Struct, frozen=True):
    """A flow, ready to run."""

    graph: FlowGraph
    nodes: dict[str, NodePlan]
    waits: bool = False
    """Whether a run may come to wait for a next message."""

    @property
    def id(self) -> str:
        return self.graph.id


def plan_flow(graph: FlowGraph) -> FlowPlan:
    """Decide everything about a flow that does not depend on a run. Never raises: faults are told when they are met."""
    nodes = {node.id: plan_node(node) for node in graph.nodes.values()}
    return FlowPlan(graph, nodes, any(n.kind == "session.wait" or n.routing.parks for n in nodes.values()))


def plan_node(node: Node) -> NodePlan:
    mapping = node.mapping if isinstance(node.mapping, dict) else {}
    component, operation = _split(node, mapping)
    kind, target, operation = _classify(component, operation, mapping)
    fields = mapping.get("answer_fields")
    return NodePlan(
        id=node.id,
        kind=kind,
        component=target,
        operation=operation,
        payload=compile_value(_payload(kind, node.mapping)),
        variables=_variables(mapping),
        assigned=(mapping.get("name"), compile_value(mapping.get("value"), pointers=True))
        if kind == "var.set"
        else None,
        answer_fields=tuple(fields) if isinstance(fields, list) and all(isinstance(f, str) for f in fields) else None,
        routing=plan_routing(node.routing),
        mapping=node.mapping,
    )


def _split(node: Node, mapping: dict[str, object]) -> tuple[str, str | None]:
    named = _text(mapping.get("operation")) or _text(mapping.get("op"))
    component, operation = node.component, node.operation
    if operation is None and named is None and "." in component and not component.startswith(_NATIVE):
        component, _, operation = component.rpartition(".")
    return component, operation


def _classify(component: str, operation: str | None, mapping: dict[str, object]) -> tuple[Kind, str, str | None]:
    if component == EXEC and operation is not None and operation.startswith("emit."):
        return "emit", operation, operation
    if EXEC in (component, operation):
        target = _text(mapping.get("component")) or _text(mapping.get("component_ref")) or component
        if target.startswith("emit."):
            return "emit", target, operation
        return "exec", target, None if operation == EXEC else operation
    if operation is not None and operation.startswith("emit."):
        return "emit", operation, operation
    if component in BUILTINS:
        return component, component, operation
    if component in AGENTS:
        return "agent", component, operation
    if component in REMOTE:
        return "remote", component, operation
    if component.startswith("emit."):
        return "emit", component, operation
    if component.startswith(("mcp:", "a2a:")):
        return "tool", component, operation
    if component in ("mcp", "a2a") and {"server", "tool", "agent"} & mapping.keys():
        return "tool", component, operation
    return "component", component, operation


def _payload(kind: Kind, mapping: object) -> object:
    if kind == "var.set":
        return None
    if not isinstance(mapping, dict):
        return mapping
    if kind == "emit":
        return mapping.get("input", mapping.get("payload", mapping))
    if any(key in mapping for key in _SETTINGS):
        return {key: value for key, value in mapping.items() if key not in _SETTINGS}
    return mapping


def _variables(mapping: dict[str, object]) -> tuple[tuple[str, Compiled], ...]:
    wanted = mapping.get("vars_out")
    if not isinstance(wanted, dict):
        return ()
    return tuple((str(name), compile_value(value, pointers=True)) for name, value in wanted.items())


def plan_routing(routing: object) -> Routing:
    """The routing of a stored node. Statuses of a `Branch` are not consulted, unknown keys and forms end the run."""
    if not isinstance(routing, dict):
        return Routing()
    following = routing.get("Next")
    if isinstance(following, dict):
        return Routing(_text(following.get("node_id")))
    branch = routing.get("Branch")
    if isinstance(branch, dict):
        return Routing(_text(branch.get("default")))
    custom = routing.get("Custom")
    if not isinstance(custom, list):
        return Routing()
    routes: list[Edge] = []
    texts: list[str] = []
    for entry in custom:
        if not isinstance(entry, dict):
            continue
        condition, event = entry.get("condition"), _text(entry.get("event"))
        if isinstance(condition, str):
            texts.append(condition)
        parsed = parse_condition(condition) if isinstance(condition, str) else None
        routes.append(Edge(parsed, event, _text(entry.get("to"))))
    compared = [r.condition.value for r in routes if r.condition is not None and r.condition.path == ("event",)]
    catches = any(r.event in ERROR_EVENTS for r in routes) or any(e in t for e in ERROR_EVENTS for t in texts)
    return Routing(
        None,
        tuple(routes),
        bool(texts),
        next((e for e in SUCCESS_EVENTS if e in compared), SUCCESS_EVENTS[0]),
        next((e for e in ERROR_EVENTS if e in compared), ERROR_EVENTS[0]),
        catches,
    )


def _text(value: object) -> str | None:
    """A text without the blanks around it; nothing for anything else, and for the empty text."""
    return value.strip() or None if isinstance(value, str) else None
