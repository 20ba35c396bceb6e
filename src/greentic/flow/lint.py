"""What is wrong with a flow, told when it is loaded instead of when it runs (formats: flows 12). Pure.

Every finding is a warning: real packs have them, and run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from greentic.expressions.doubts import doubted_condition
from greentic.expressions.template import is_call
from greentic.flow.envelope import dropped_keys
from greentic.flow.graph import Node
from greentic.flow.lint_names import LintFinding, NamesOfPack, absent_facts, absent_names, names_of, unset_variables
from greentic.flow.nodes import OUT, FlowPlan, NodePlan
from greentic.ground.nearest import did_you_mean, nearest

_ROUTE_KEYS = frozenset({"condition", "to", "event"})
_EXEC_KEYS = frozenset({"component", "component_ref", "operation", "op", "input", "config"})
_SETTINGS = frozenset({"vars_out", "response_timeout_secs", "answer_fields"})
_EMITS = ("response", "log")
"""What is written; any other word behind `emit.` does the same."""
_NEEDED = {"state.get": ("key",), "state.set": ("key",), "var.set": ("name",), "provider.invoke": ("op", "operation")}
"""What kinds of nodes cannot do without."""
_STOPS = frozenset({"session.wait", "agent", "remote", "flow.goto"})
"""Kinds of nodes behind which a run does not simply go on."""
HasComponent = Callable[[str, str | None], bool]
Where = Callable[[str, str | None, str], str]
"""What stands before a finding about a flow, a node of it, and a text there: where that is in a source, as `FILE:LINE:COLUMN: `."""


def nowhere(flow_id: str, node_id: str | None, about: str) -> str:
    """Of a flow whose source is not there."""
    return ""


class Known(msgspec.Struct, frozen=True):
    """What the pack of a flow has."""

    component: HasComponent
    flows: frozenset[str]
    operations: Callable[[str, str | None], frozenset[str] | None] = lambda name, operation: None
    """What a component says that it offers; nothing if it does not say."""
    names: NamesOfPack | None = None
    """The nodes and variables of all its flows; nothing if they are those of the one flow."""
    where: Where = nowhere


def lint_flow(plan: FlowPlan, known: Known) -> list[str]:
    """The warnings about a flow, in the order of its nodes."""
    return [*findings(plan, known)]


def findings(plan: FlowPlan, known: Known) -> Iterator[str]:
    """The same, made as they are taken: to find what may have been meant takes its time."""
    if not plan.nodes:
        yield f"{known.where(plan.id, None, '')}flow {plan.id} has no nodes"
    for node_id, found in _found(plan, known) if plan.nodes else ():
        at = "" if node_id is None else f"node {node_id}: "
        yield f"{known.where(plan.id, node_id, found.about)}flow {plan.id}: {at}{found.text}"


def _found(plan: FlowPlan, known: Known) -> Iterator[tuple[str | None, LintFinding]]:
    names = known.names or names_of([plan])
    if plan.graph.start is not None and plan.graph.start not in plan.nodes:
        yield None, LintFinding(f"starts at `{plan.graph.start}`, which is no node")
    for node_id, node in plan.nodes.items():
        stored = plan.graph.nodes[node_id]
        yield from ((node_id, LintFinding(text)) for text in _node(stored, node, known, names))
        yield from ((node_id, found) for found in _several_expressions(stored.mapping))
        yield from ((node_id, found) for found in absent_names(node, names))
        yield from ((node_id, found) for found in _routing(stored, node, plan, names))
    yield from ((None, LintFinding(text)) for text in (*_endless(plan), *unset_variables(plan)))


def _node(stored: Node, node: NodePlan, known: Known, names: NamesOfPack) -> list[str]:
    found = [*node.payload.faults]
    found += [fault for _, template in node.variables for fault in template.faults]
    if node.assigned is not None:
        found += node.assigned[1].faults
    mapping = stored.mapping if isinstance(stored.mapping, dict) else {}
    if node.kind == "exec":
        dropped = sorted(mapping.keys() - _EXEC_KEYS - _SETTINGS)
        if dropped and "card_source" not in mapping and "card_spec" not in mapping:
            found.append(f"component.exec drops {_listed(dropped)}; only `input` and `config` reach the component")
        found += [
            f"the component never sees {_listed(keys)} of `input`"
            for keys in [dropped_keys(mapping.get("input"))]
            if keys
        ]
    elif node.kind == "component":
        keys = [key for key in dropped_keys(mapping) if key not in _SETTINGS]
        if keys and not {*mapping} <= _EXEC_KEYS:
            found.append(f"the component never sees {_listed(keys)}")
    if node.kind in ("exec", "component"):
        operation = node.operation or _text(mapping.get("operation")) or _text(mapping.get("op"))
        if "{{" not in node.component and not known.component(node.component, operation):
            found.append(f"component '{node.component}' not found in pack")
        if operation is None:
            found.append("no operation is named")
        offered = None if "{{" in node.component else known.operations(node.component, operation)
        if operation is not None and "{{" not in operation and offered and operation not in offered:
            found.append(
                f"component '{node.component}' offers no operation `{operation}`; it offers {_listed(sorted(offered))}"
            )
    if node.kind == "agent" or (node.kind == "remote" and node.component != "approval.call"):
        found.append(f"{node.component} cannot run here: there is no such runtime")
    if node.kind == "emit":
        word = node.component.removeprefix("emit.")
        meant = None if word in _EMITS else nearest(word, _EMITS)
        if meant is not None:
            found.append(f"`{node.component}` does what any `emit.` does; did you mean `emit.{meant}`?")
    if node.kind == "tool":
        found.append(f"{node.component} answers with an error: no such server is configured")
    if node.kind in ("flow.call", "flow.goto"):
        flow = _flow_of(node)
        if flow is None or ("{{" not in flow and flow not in known.flows):
            found.append(f"{node.kind} of `{flow}`, which is no flow of the pack")
        elif flow in names.flows:
            found += _led_to(node, names.flows[flow])
    needed = _NEEDED.get(node.kind)
    if needed is not None and not any(mapping.get(word) for word in needed):
        found.append(f"{node.kind} without `{needed[0]}` fails")
    if node.kind == "session.wait" and node.routing.next is None and not node.routing.routes:
        found.append("session.wait without a node behind it")
    if node.kind == "session.wait" and any(route.asks_message for route in node.routing.routes):
        found.append(
            "its conditions are asked before it waits, of the message that led here; ask for the next one at the node behind it"
        )
    return found


def _led_to(node: NodePlan, flow: FlowPlan) -> list[str]:
    """What never works of a call of a flow, or a jump to it."""
    if node.kind == "flow.call":
        at: str | None = flow.graph.first() if flow.nodes else None
        passed: set[str] = set()
        while at in flow.nodes and at not in passed:
            if flow.nodes[at].kind == "session.wait":
                return [f"flow.call of `{flow.id}` fails: a flow that is called cannot wait, as it does at node `{at}`"]
            passed.add(at)
            at = _goes_on_to(flow.nodes[at])
        return []
    mapping = node.mapping if isinstance(node.mapping, dict) else {}
    to = mapping.get("node")
    if not isinstance(to, str) or not to or "{{" in to or to in flow.nodes:
        return []
    return [f"flow.goto goes to node `{to}` of `{flow.id}`, which has none{did_you_mean(to, flow.nodes)}"]


def _endless(plan: FlowPlan) -> list[str]:
    """Ways that a run can only leave by failing: circles, and calls of the flow by itself, that nothing decides about."""
    found: list[str] = []
    seen: set[str] = set()
    for first in plan.nodes:
        way: list[str] = []
        at: str | None = first
        while at in plan.nodes and at not in seen:
            seen.add(at)
            way.append(at)
            at = _goes_on_to(plan.nodes[at])
        if at in way:
            found.append(f"goes round {_listed(way[way.index(at) :])} without an end: no node there waits or decides")
    at = plan.graph.first()
    passed: set[str] = set()
    while at in plan.nodes and at not in passed:
        passed.add(at)
        node = plan.nodes[at]
        if node.kind in ("flow.call", "flow.goto") and _flow_of(node) == plan.id:
            found.append(f"node {at}: {node.kind} of its own flow, before anything waits or decides, never ends")
        at = _goes_on_to(node)
    return found


def _goes_on_to(node: NodePlan) -> str | None:
    """The node behind one that neither waits nor decides."""
    return None if node.kind in _STOPS or node.routing.routes else node.routing.next


def _flow_of(node: NodePlan) -> str | None:
    mapping = node.mapping if isinstance(node.mapping, dict) else {}
    return _text(mapping.get("flow_id")) or _text(mapping.get("flow"))


def _routing(stored: Node, node: NodePlan, plan: FlowPlan, names: NamesOfPack) -> list[LintFinding]:
    found: list[LintFinding] = []
    routing = stored.routing if isinstance(stored.routing, dict) else {}
    if stored.routing not in (None, "End", "Reply") and not routing.keys() & {
        "Next",
        "Branch",
        "Custom",
        "End",
        "Reply",
    }:
        return [LintFinding(f"its routing {str(stored.routing)[:60]!r} is none that is known; the flow ends here")]
    if "Custom" in routing:
        entries = routing["Custom"]
        if not isinstance(entries, list):
            return [LintFinding("its routing is no list; the flow ends here")]
        always = None
        for entry in entries:
            if not isinstance(entry, dict):
                found.append(LintFinding("a route is no mapping"))
                continue
            found += _route(entry, node, names)
            if always is not None:
                told = f"the route to `{entry.get('to')}` is never taken: the one to `{always}` before it always is"
                found.append(LintFinding(told, str(entry.get("condition") or entry.get("to"))))
            elif _text(entry.get("to")) and not isinstance(entry.get("condition"), str) and "event" not in entry:
                always = entry["to"]
    if isinstance(branch := routing.get("Branch"), dict):
        statuses, default = branch.get("on_status"), branch.get("default")
        asked = (
            f"the statuses {_listed(sorted(statuses))} are"
            if isinstance(statuses, dict) and statuses
            else "the others are"
        )
        on = "ends here" if default is None else f"goes on to `{default}` alone"
        found.append(LintFinding(f"{asked} not asked: it {on}"))
    targets = [node.routing.next, *(route.to for route in node.routing.routes)]
    found += [
        LintFinding(f"goes on to `{to}`, which is no node", to)
        for to in targets
        if to is not None and to != OUT and to not in plan.nodes
    ]
    return found


def _route(entry: dict[str, object], node: NodePlan, names: NamesOfPack) -> Iterator[LintFinding]:
    unknown = sorted(entry.keys() - _ROUTE_KEYS - {"out", "reply", "status"})
    if unknown:
        yield LintFinding(
            f"unknown routing key {_listed(unknown)}; only `condition`, `to` and `event` count", unknown[0]
        )
    condition = entry.get("condition")
    about = condition if isinstance(condition, str) else ""
    if isinstance(condition, str):
        for told in (*doubted_condition(condition), *absent_facts(condition, node, names)):
            yield LintFinding(told, about)
    elif condition is not None:
        yield LintFinding(f"the condition {condition!r} is no text and not asked; the route is always taken")
    if node.routing.parks and not unknown and _text(entry.get("to")) is None:
        yield LintFinding("a route without `to` is passed over, and the flow waits here; `to: out` ends it", about)


def _several_expressions(value: object) -> list[LintFinding]:
    """Texts that other workers read as a single path, and print nothing for; and names that nobody renders."""
    if isinstance(value, dict):
        odd = [LintFinding(f"the name `{n[:60]}` is no template and stays as it is", n) for n in value if "{{" in n]
        return odd + [found for item in value.values() for found in _several_expressions(item)]
    if isinstance(value, list):
        return [found for item in value for found in _several_expressions(item)]
    if not isinstance(value, str):
        return []
    text = value.strip()
    if not (text.startswith("{{") and text.endswith("}}")):
        return []
    inner = text.lstrip("{").rstrip("}").strip()
    elsewhere = "and print nothing, unless other text is before or behind it"
    if "{{" in inner or "}}" in inner:
        told = f"`{text[:60]}` is several expressions; other workers read it as one path {elsewhere}"
        return [LintFinding(told, value)]
    if is_call(inner):
        return [LintFinding(f"`{text[:60]}` calls a helper; other workers read it as a path {elsewhere}", value)]
    return []


def _listed(keys: list[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None
