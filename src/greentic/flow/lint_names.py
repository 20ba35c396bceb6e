"""Names that are never there: what templates and conditions of a node ask for, against what the flow has (formats: flows 12). Pure.

Rules:
1. Told is what nothing can put there: a name that no template sees, a node or a variable that no flow of the pack has.
2. A condition sees the output of its node. What that may be is known of an `emit` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from greentic.expressions.conditions import parse_condition
from greentic.expressions.doubts import doubted_path
from greentic.expressions.paths import Step
from greentic.flow.nodes import ERROR_EVENTS, SUCCESS_EVENTS, FlowPlan, NodePlan
from greentic.ground.nearest import did_you_mean, nearest

TEMPLATES_SEE = ("entry", "in", "node", "now", "prev", "state", "vars")
_CONDITIONS_SEE = ("entry", "event", "in", "node", "response")
_NOW = ("date", "epoch_ms", "iso")
_STATE = ("entry", "input", "nodes", "park_turns", "redirect_count")
_MAPPED = ("input", "result")
"""What the maps of `provider.invoke` see besides."""


class LintFinding(NamedTuple):
    """What is told of a node, and the text of its source that it is about, if it is about one."""

    text: str
    about: str = ""


class NamesOfPack(msgspec.Struct, frozen=True):
    """The nodes and variables of all flows of a pack: a jump takes them along."""

    nodes: frozenset[str]
    variables: frozenset[str]


def names_of(plans: Iterable[FlowPlan]) -> NamesOfPack:
    nodes: set[str] = set()
    variables: set[str] = set()
    for plan in plans:
        nodes.update(plan.nodes)
        variables.update(name for name, how in _declared(plan) if isinstance(how, dict) and "default" in how)
        for node in plan.nodes.values():
            variables.update(name for name, _ in node.variables)
            if node.assigned is not None:
                variables.add(str(node.assigned[0]))
    return NamesOfPack(frozenset(nodes), frozenset(variables))


def _declared(plan: FlowPlan) -> list[tuple[str, object]]:
    declared = plan.graph.extra.get("vars_init")
    return [*declared.items()] if isinstance(declared, dict) else []


def unset_variables(plan: FlowPlan) -> list[str]:
    """The variables that a flow declares and that have no value when it begins."""
    return [
        f"variable {name}: it is required and has no default, which nothing else provides: no run goes well"
        if isinstance(how, dict) and how.get("required") is True
        else f"variable {name}: it stays unset; write {{default: …}}"
        for name, how in _declared(plan)
        if not (isinstance(how, dict) and ("default" in how or how.get("required") in (None, False)))
    ]


def absent_names(node: NodePlan, names: NamesOfPack) -> list[LintFinding]:
    """What the templates of a node ask for that is never there."""
    templates = [node.payload, *(template for _, template in node.variables)]
    if node.assigned is not None:
        templates.append(node.assigned[1])
    more = _MAPPED if node.kind == "provider.invoke" else ()
    found = {
        LintFinding(
            f"`{asked.text[:60]}` {'prints nothing' if '{{' in asked.text else 'is a pointer that fails'}: {why}",
            asked.text,
        ): None
        for template in templates
        for asked in template.asked
        if (why := _absent(asked.path, names, (*TEMPLATES_SEE, *more)))
    }
    return [*found]


def _absent(path: tuple[Step, ...], names: NamesOfPack, seen: tuple[str, ...]) -> str | None:
    if str(path[0]).startswith("!"):
        return None  # a comment
    calculated = doubted_path(path)
    if calculated is not None:
        return f"nothing is calculated, and there is no name `{calculated}`"
    first, second = path[0], str(path[1]) if len(path) > 1 else None
    if first not in seen:
        return f"there is no name `{first}`; there are {', '.join(f'`{name}`' for name in sorted(seen))}"
    if second is None:
        return None
    if first == "node" and second not in names.nodes:
        return f"there is no node `{second}`{did_you_mean(second, names.nodes)}"
    if first == "vars" and second not in names.variables:
        return f"no node sets a variable `{second}`{did_you_mean(second, names.variables)}"
    if first == "now" and second not in _NOW:
        return f"`now` has {', '.join(_NOW)}"
    if first == "state" and second not in _STATE:
        return f"`state` has {', '.join(_STATE)}; what `state.set` kept is read by `state.get`"
    return None


def absent_facts(text: str, node: NodePlan, names: NamesOfPack) -> Iterator[str]:
    """Why a condition of a node asks for something that is never there."""
    condition = parse_condition(text)
    first = condition.path[0] if condition.path else ""
    if first == "node" and len(condition.path) > 1 and condition.path[1] not in names.nodes:
        yield f"the condition {text!r}: there is no node `{condition.path[1]}`{did_you_mean(condition.path[1], names.nodes)}"
    events = (*SUCCESS_EVENTS, *ERROR_EVENTS)
    meant = nearest(condition.value, events) if condition.value.startswith("on") else None
    if condition.path == ("event",) and condition.value not in events and meant is not None:
        yield f"the condition {text!r}: did you mean `{meant}`?"
    if first in _CONDITIONS_SEE or not condition.operator or node.kind != "emit":
        return
    mapping = node.mapping if isinstance(node.mapping, dict) else {}
    said = mapping.get("input", mapping.get("payload", mapping))
    if isinstance(said, dict) and first not in {*said, "answers"} and "{{" not in text:
        there = ", ".join(f"`{name}`" for name in (*_CONDITIONS_SEE, *map(str, said)))
        yield f"the condition {text!r} asks for `{first}`, which this node does not say; there are {there}"
