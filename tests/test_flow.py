"""Flows as functions of values: templates, conditions, nodes, runs, waiting, and what a load report finds."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from greentic.expressions import handlebars
from greentic.expressions.conditions import Facts, holds, parse_condition
from greentic.expressions.paths import MISSING, follow, parse_path
from greentic.expressions.template import compile_value
from greentic.flow.cards import before_dispatch, card_invocation, inlined_call
from greentic.flow.engine import MAX_CALLS, MAX_STEPS, Completed, Exhausted, Parked, Run
from greentic.flow.envelope import dropped_keys, envelope_of, split_input
from greentic.flow.graph import read_graph
from greentic.flow.lint import Known, lint_flow
from greentic.flow.lint_names import names_of
from greentic.flow.node_names import NodeNames, entry_view, submitted, without_action
from greentic.flow.nodes import FlowPlan, plan_flow
from greentic.flow.ports import Caller, ComponentCall, Ports
from greentic.flow.results import Jump, Respond, interpret
from greentic.flow.state import NodeOutput, RunState, read_snapshot
from greentic.ground.errors import FlowFailure
from simulators import FakeClock, SimulatedAssets, SimulatedComponents, SimulatedState, resume, start

CALLER = Caller("local", "default", session="s", channel="main", provider="provider")


def node(
    node_id: str, component: str, mapping: object = None, routing: object = "End", operation: str | None = None
) -> dict[str, object]:
    return {
        "id": node_id,
        "component": {"id": component, "operation": operation, "pack_alias": None},
        "input": {"mapping": mapping},
        "output": {"mapping": {}},
        "routing": routing,
    }


def to(target: str) -> dict[str, object]:
    return {"Next": {"node_id": target}}


def when(*routes: object) -> dict[str, object]:
    return {"Custom": list(routes)}


def flow(*nodes: dict[str, object], flow_id: str = "main", start_at: str | None = None, extra: object = None):
    entry = {} if start_at is None else {"default": start_at}
    return plan_flow(
        read_graph(flow_id, {"nodes": list(nodes), "entrypoints": entry, "metadata": {"extra": extra or {}}})
    )


class World:
    """A pack with simulated components, assets and state."""

    def __init__(self, *plans, **components) -> None:
        self.components = SimulatedComponents(components)
        self.assets, self.state = SimulatedAssets(), SimulatedState()
        self.ports = Ports({p.id: p for p in plans}, self.components, self.assets, self.state, FakeClock())

    def run(self, flow_id: str = "main", **more: object) -> Run:
        return Run("pack", flow_id, CALLER, self.ports, **more)

    def start(self, payload: object, flow_id: str = "main"):
        return start(self.run(flow_id), payload)

    def resume(self, parked: Parked, payload: object):
        """Through the stored form, as a worker does."""
        stored = msgspec.json.decode(msgspec.json.encode(parked.snapshot.to_json()))
        return resume(self.run(parked.snapshot.flow_id), read_snapshot(stored, "pack"), payload)


# -- templates ------------------------------------------------------------------------------------------------------

BODY = {
    "word": "hi",
    "n": 7,
    "f": 1.5,
    "big": 1e20,
    "yes": True,
    "none": None,
    "empty": "",
    "list": [1, "two", {"k": "v"}],
    "obj": {"a": {"b": [10, 20]}, "x y": "sp"},
}


def rendered(template: object, *, pointers: bool = False) -> object:
    state = RunState(BODY, vars={"v": 3})
    state.nodes["a"] = NodeOutput(True, {"text": "A"})
    return compile_value(template, pointers=pointers).render(NodeNames(state, {"p": 1}, FakeClock()))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{entry.n}}", 7), ("{{ entry.list }}", [1, "two", {"k": "v"}]), ("{{entry.none}}", None), ("{{entry.nope.deeper}}", ""), ("{{{entry.word}}}", "hi"),
        ("{{this.entry.word}}", "hi"), ("{{entry.list[2].k}}", "v"), ('{{entry.obj["x y"]}}', "sp"), ("{{entry.obj['x y']}}", "sp"), ("{{entry.list[9]}}", ""),
        ("{{vars.v}}", 3), ("{{prev.p}}", 1), ("{{node.a.data}}", {"text": "A"}), ("{{node.a.errors}}", []), ("{{state.redirect_count}}", 0), ("{{}}", ""),
        ("n={{entry.n}} f={{entry.f}} {{entry.yes}} [{{entry.none}}] {{entry.word}}", "n=7 f=1.5 true [] hi"), ("x{{entry.list}}", "x[1, two, [object]]"),
        ("o={{entry.obj}}", "o=[object]"), ("b={{entry.big}}", "b=1e20"), ("{{entry.word}} {{entry.n}}", "hi 7"), ("{{#if entry.yes}}y{{/if}}", "y"),
        ("{{entry.word}} {{entry.nope}}", ""), ("is {{#if entry.nope}}a{{else if entry.yes}}b{{else}}c{{/if}}", "is b"), ("{{upper entry.word}}", ""),
        ("a{{#unless entry.yes}}x{{else}}z{{/unless}}b", "azb"), ("[{{#each entry.list}}{{@index}}:{{this}}{{#unless @last}},{{/unless}}{{/each}}]", "[0:1,1:two,2:[object]]"),
        ("{{#each entry.obj as |v k|}}{{k}};{{/each}}", "a;x y;"), ("w{{#with entry.obj.a}}{{b}}{{../word}}{{/with}}", "w[10, 20]"), ("{{#each entry.list}}{{@root.vars.v}}{{/each}}.", "333."),
        ("e{{#if (and (eq entry.n 7) (gt entry.f 1) (not entry.empty))}}1{{/if}}", "e1"), ("l={{lookup entry.obj \"x y\"}}", "l=sp"), ("c{{! x }}{{!-- {{y}} --}}d", "cd"), ("n={{len entry.list}}", "n=3"),
        ("\\{{entry.word}} end", "{{entry.word}} end"), ("{entry.word}", "{entry.word}"), (["{{entry.n}}", {"{{k}}": "{{entry.word}}"}], [7, {"{{k}}": "hi"}]), (5, 5),
        ("a\n{{#if entry.yes}}\nb\n{{/if}}\nc", "a\nb\nc"), ("a {{~#if entry.yes~}} b {{~/if~}} c", "abc"), ("v={{#if entry.zero includeZero=true}}1{{/if}}", "v="),
        ("{{#each entry.nope}}x{{else}}none{{/each}}!", "none!"), ("z={{entry.obj.a.b.[1]}}", "z=20"), ("s={{#with entry.n}}{{this}}{{/with}}", "s=7"),
    ],
)  # fmt: skip
def test_templates(template, expected):
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("a {{entry.word", "not closed"), ("x{{upper entry.word}}", "helper not defined: `upper`; there are and, eq, gt"), ("l={{entry.list.name}}", "no index"), ("x{{entry.list[0].k}}", "list.[0]"), ("x{{#if entry.yes}}y", "not closed"),
        ("x{{/if}}", "closes nothing"), ("x{{#loop entry}}{{/loop}}", "helper not defined"), ("x{{#eq 1 1}}{{/eq}}", "no block helper"), ("x{{> partial}}", "partials"), ("x{{#if}}{{/if}}", "one argument"), ("x{{(eq 1 }}", "helper not defined"),
        ("x{{#if (eq entry.n}}y{{/if}}", "not closed"), ("x{{eq entry.n}}", "two arguments"), ("x{{a | b}}", "cannot be read|helper not defined|does not end"),
    ],
)  # fmt: skip
def test_templates_that_cannot_render(template, why):
    with pytest.raises(FlowFailure, match=why):
        rendered(template)


def test_pointers_where_they_are_allowed():
    assert (
        rendered("/entry/obj/a/b/1", pointers=True) == 20
        and rendered("/entry/obj/x y", pointers=True) == "sp"
        and rendered("/entry/n", pointers=False) == "/entry/n"
    )
    with pytest.raises(FlowFailure, match="mapping path `/entry/nope` not found"):
        rendered("/entry/nope", pointers=True)


def test_a_template_that_never_ends_is_stopped():
    names = NodeNames(RunState({"l": list(range(60))}), MISSING, FakeClock())
    for inner, why in (
        ("y" * 100, "longer than"),
        ("y", "more than 100000 steps"),
        ("{{#if y}}{{/if}}", "more than 100000 steps"),
    ):
        with pytest.raises(FlowFailure, match=why):
            compile_value("x" + "{{#each @root.entry.l}}" * 4 + inner + "{{/each}}" * 4).render(names)
    with pytest.raises(handlebars.TemplateError, match="nest deeper"):
        handlebars.parse("{{#if x}}" * 100 + "{{/if}}" * 100)
    with pytest.raises(handlebars.TemplateError, match="nest deeper"):
        handlebars.parse("{{eq " + "(not " * 100 + "x" + ")" * 100 + " 1}}")


@given(st.text(max_size=40))
def test_any_text_renders_or_fails_with_a_typed_error(text):
    for template in (text, f"x{{{{{text}}}}}", f"a{{{{#if {text}}}}}b{{{{/if}}}}"):
        try:
            rendered(template)
        except FlowFailure:
            pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text("abc", min_size=1), x, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=4), JSON, min_size=1, max_size=4))
def test_an_exact_expression_keeps_the_value_and_its_type(body):
    state = RunState(body)
    for key, value in body.items():
        got = compile_value("{{entry.%s}}" % key).render(NodeNames(state, MISSING, FakeClock()))
        assert got == value and type(got) is type(value)


def test_paths():
    assert (
        parse_path("a.b[0]['c d']") == ("a", "b", 0, "c d")
        and parse_path("this.a") == ("a",)
        and parse_path("a[") is None
        and parse_path("a]") is None
    )
    assert (
        follow({"1": "x"}, (1,)) == "x"
        and follow([5], ("0",)) == 5
        and follow("text", ("x",)) is MISSING
        and repr(MISSING) == "MISSING"
    )


# -- conditions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('t == "hello"', True), ("t == HELLO", True), ("t == 'hello'", False), ("n == 5", True), ("n >= 5", True), ("n > 5", False), ("n < 10", True), ("n <= 4", False), ("s > 10", True),
        ("s > ten", False), ("t > 1", False), ("t contains ELL", True), ("t contains z", False), ("nope == x", False), ("nope != x", True), ("t != hello", False), ("b == true", True), ("z == null", True),
        ('o == {"a":1}', True), ("o.a == 1", True), ("l.0 == 1", False), ("named == shadow", True), ("no operator", False), ("nope contains x", False), ("t.deeper == x", False), ("s > 1_0", False),
    ],
)  # fmt: skip
def test_conditions(text, expected):
    payload = {"t": "Hello", "n": 5, "s": "101", "b": True, "z": None, "o": {"a": 1}, "l": [1], "named": "payload"}
    facts = Facts(payload, lambda name: "shadow" if name == "named" else MISSING)
    assert holds(parse_condition(text), facts) is expected


# -- runs -----------------------------------------------------------------------------------------------------------


def test_a_chain_answers_with_everything_it_emitted_once():
    world = World(
        flow(
            node("a", "emit.response", {"text": "1"}, to("b")),
            node("b", "emit.log", {"message": "m"}, to("c")),
            node("c", "var.set", {"name": "x", "value": "{{prev.message}}"}, to("d")),
            node("d", "emit.response", ["{{vars.x}}", "y"]),
        )
    )
    assert world.start({"text": "hi"}) == Completed([{"text": "1"}, {"message": "m"}, ["m", "y"], "m", "y"])
    assert World(flow(node("a", "emit.response", {"t": 1}))).start(None) == Completed([{"t": 1}])


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (flow(), "flow main has no start node"), (flow(node("a", "emit.response"), start_at="b"), "node b not found"), (flow(node("a", "emit.response", {}, to("x"))), "node x not found"),
        (flow(node("a", "emit.response", {}), extra={"vars_init": {"b": {"required": True}, "a": {"required": True}, "c": {"default": 1, "required": True}}}), "required flow variable not provided: a, b$"),
        (flow(node("a", "session.wait", "r")), "session.wait node a requires a non-empty route"), (flow(node("a", "acme.none", {}, operation="run")), "component 'acme.none' not found in pack"),
        (flow(node("a", "component.exec", "text", operation="run")), "invalid payload for component.exec"), (flow(node("a", "component.exec", {"component": "c"})), "missing operation for node `a`"),
        (flow(node("a", "flow.goto", {"flow_id": "main"})), "redirect_limit"), (flow(node("a", "flow.goto", {"flow_id": "x"})), "unknown_flow:x"), (flow(node("a", "flow.goto", {"flow": "main", "node": "z"})), "unknown_node:z"),
        (flow(node("a", "flow.goto", {})), "missing_flow"), (flow(node("a", "flow.call", {})), "requires a non-empty flow_id"), (flow(node("a", "provider.invoke", {})), "provider.invoke requires an op"),
        (flow(node("a", "state.get", {})), "missing required `key`"), (flow(node("a", "var.set", {"value": 1})), "var.set requires"), (flow(node("a", "approval.call", {"input": {"mode": "always"}}, operation="x")), "no RemoteDispatchHandler configured"),
        (flow(node("a", "dw.agent", {}, operation="x")), "compiled without the"), (flow(node("a", "emit.response", {"t": "a {{x"})), "failed to render node input template"),
    ],
)  # fmt: skip
def test_runs_that_fail(plan, why):
    with pytest.raises(FlowFailure, match=why):
        World(plan).start({})


def test_a_run_has_a_last_step_and_calls_have_a_deepest_one():
    with pytest.raises(FlowFailure, match=f"more than {MAX_STEPS} steps"):
        World(
            flow(
                node("a", "var.set", {"name": "x", "value": 1}, to("b")),
                node("b", "var.set", {"name": "x", "value": 1}, to("a")),
            )
        ).start({})
    endless = World(flow(node("a", "flow.call", {"flow_id": "main"})))
    assert f"calls nest deeper than {MAX_CALLS}" in str(endless.start({}).output)
    with pytest.raises(Exhausted, match="more than 5 steps"):
        start(World(flow(node("a", "var.set", {"name": "x", "value": 1}, to("a")))).run(max_steps=5), {})


def test_waiting_and_resuming_goes_on_behind_the_node():
    world = World(
        flow(
            node("ask", "emit.response", {"text": "name?"}, to("w")),
            node("w", "session.wait", {"reason": "a name"}, to("greet")),
            node("greet", "emit.response", {"text": "hello {{entry.text}} {{node.ask.text}} {{prev.reason}}"}),
        )
    )
    parked = world.start({"text": "x"})
    assert isinstance(parked, Parked) and (parked.reason, parked.output) == ("a name", [{"text": "name?"}])
    assert world.resume(parked, {"text": "Ann"}) == Completed([{"text": "hello Ann name? a name"}])
    with pytest.raises(FlowFailure, match="snapshot pack other does not match requested pack"):
        read_snapshot(parked.snapshot.to_json() | {"pack_id": "other"}, "pack")
    for damaged in (None, {}, {"pack_id": "pack"}, parked.snapshot.to_json() | {"state": 5}):
        with pytest.raises(FlowFailure):
            read_snapshot(damaged, "pack")


def test_a_card_waits_for_a_route_and_two_clicks_never_advance_two_cards():
    card = ("ask", "emit.response")
    routes = when({"condition": "response.action == a", "to": "second"})
    world = World(
        flow(
            node(*card, {"text": "first"}, routes),
            node(
                "second",
                "emit.response",
                {"text": "second"},
                when({"condition": "response.action == a", "to": "third"}),
            ),
            node("third", "emit.response", {"text": "3"}),
        )
    )
    first = world.start({"text": "hi"})
    assert first.reason == "awaiting user submit at node `ask`" and first.snapshot.awaiting_submit
    again = world.resume(first, {"metadata": {"action": "zzz", "field": "v"}})
    assert isinstance(again, Parked) and again.output == [
        {"text": "first"},
        {"text": "first", "answers": {"field": "v"}},
    ]
    second = world.resume(again, {"metadata": {"action": "a"}})
    assert isinstance(second, Parked) and second.snapshot.next_node == "second"
    assert world.resume(second, {"metadata": {"action": "a"}}).output[-1] == {"text": "3"}


def test_answers_are_restricted_to_what_the_node_names():
    world = World(
        flow(
            node(
                "a",
                "emit.response",
                {"input": {"text": "t"}, "answer_fields": ["x"]},
                when({"condition": "response.action == go", "to": "b"}),
            ),
            node("b", "emit.response", {"got": "{{node.a.answers}}"}),
        )
    )
    done = world.resume(world.start({}), {"metadata": {"action": "go", "x": 1, "y": 2}})
    assert done.output[-1] == {"got": {"x": 1}}


def test_flow_call_and_jumps():
    sub = flow(node("s", "emit.response", {"text": "sub {{entry.x}}"}), flow_id="sub")
    waits = flow(node("w", "session.wait", "r", to("e")), node("e", "emit.response"), flow_id="waits")
    main = flow(
        node("call", "flow.call", {"flow_id": "sub", "input": {"x": "{{entry.text}}"}}, to("say")),
        node("say", "emit.response", {"whole": "{{node.call}}"}),
    )
    assert World(main, sub).start({"text": "1"}).output == [{"whole": [{"text": "sub 1"}]}]
    failing = World(flow(node("call", "flow.call", {"flow": "none"})))
    assert failing.start({}).output["metadata"] == {
        "error_kind": "flow_execution_failed",
        "error_message": "flow none not registered for pack pack",
        "flow_id": "none",
    }
    with pytest.raises(FlowFailure, match="flow.call cannot pause"):
        World(flow(node("call", "flow.call", {"flow": "waits"})), waits).start({})
    jump = World(
        flow(
            node("a", "emit.response", {"t": 1}, to("go")),
            node("go", "flow.goto", {"flow_id": "waits", "input": {"y": 2}}),
        ),
        waits,
    )
    parked = jump.start({"text": "x"})
    assert parked.snapshot.next_flow == "waits" and parked.snapshot.flow_id == "main"
    assert jump.resume(parked, {}) == Completed([None])


def test_components_get_input_and_config_and_their_failures_take_the_error_route():
    def answer(call: ComponentCall) -> object:
        return (
            {"ok": False, "error": {"code": "E", "message": "bad"}}
            if call.operation == "fail"
            else {"got": call.input, "config": call.config, "op": call.operation}
        )

    world = World(
        flow(
            node("a", "component.exec", {"component": "c", "operation": "run", "input": {"x": "{{entry.text}}"}, "config": {"k": 1}, "dropped": 1}, to("b")),
            node("b", "c.other", {"whole": 1}, to("f")),
            node("f", "c", {"input": 1, "operation": "fail"}, when({"condition": "event == on_error", "to": "caught"}, {"to": "missed"})),
            node("caught", "emit.response", {"code": "{{node.f.error.code}}", "errors": "{{node.f.errors}}", "a": "{{node.a.data}}", "b": "{{node.b.data}}"}),
            node("missed", "emit.response", {}),
        ),
        c=answer,
    )  # fmt: skip
    out = world.start({"text": "t"}).output[0]
    assert out["a"] == {"got": {"x": "t"}, "config": {"k": 1}, "op": "run"} and out["b"] == {
        "got": {"whole": 1},
        "config": None,
        "op": "other",
    }
    assert out["code"] == "E" and out["errors"][0]["message"] == "bad"
    with pytest.raises(FlowFailure, match="component c failed: E: bad"):
        World(flow(node("f", "c", {"input": 1}, operation="fail")), c=answer).start({})


def test_what_an_answer_of_a_component_means():
    assert interpret("c", {"error": {"code": "x", "message": "m", "status": 4}}, catches_errors=True).output.ok is False
    with pytest.raises(FlowFailure, match="returned tool error: x: m .status 4."):
        interpret("c", {"error": {"code": "x", "message": "m", "status": 4}}, catches_errors=False)
    assert interpret("c", {"error": {"code": "x"}, "result": 1}, catches_errors=False).output.ok and interpret(
        "c", [1], catches_errors=False
    ).output.payload == [1]
    for nothing in ("", None):
        said = {"ok": False, "error": {"code": nothing, "message": nothing}}
        for told in (said, {"ok": False, "error": {}}, {"ok": False, "error": ""}):
            with pytest.raises(FlowFailure, match=r"c failed: component_error: component reported error$"):
                interpret("c", told, catches_errors=False)
        with pytest.raises(FlowFailure, match=r"returned tool error: component_error: component reported error$"):
            interpret("c", {"error": {"code": nothing, "message": nothing, "status": None}}, catches_errors=False)
        with pytest.raises(FlowFailure, match=r"c failed: 0: component reported error$"):
            interpret("c", {"ok": False, "error": {"code": 0, "message": nothing}}, catches_errors=False)
    jump = interpret(
        "c",
        {"greentic_control": {"v": 1, "action": "jump", "flow": "f", "node": "n", "payload": 1, "max_redirects": 9}},
        catches_errors=False,
    ).control
    assert jump == Jump("f", "n", 1, 9)
    assert interpret(
        "c", {"greentic_control": {"v": 1, "action": "respond", "text": "t"}}, catches_errors=False
    ).control == Respond({"text": "t"})
    for version in (2, 1.0, True, "1", None):
        ignored = {"greentic_control": {"v": version, "action": "jump"}}
        assert interpret("c", ignored, catches_errors=False).control is None
    for broken in ({"flow": ""}, {"flow": "f", "node": 5}):
        with pytest.raises(FlowFailure, match="jump_failed"):
            interpret("c", {"greentic_control": {"v": 1, "action": "jump", **broken}}, catches_errors=False)


def test_control_of_a_component_jumps_and_responds():
    other = flow(node("o", "emit.response", {"text": "{{prev.k}}"}), flow_id="other")
    world = World(
        flow(node("a", "c", {"x": 1}, operation="jump")),
        other,
        c=lambda call: {
            "greentic_control": {
                "v": 1,
                "action": call.operation,
                "flow": "other",
                "payload": {"k": "v"},
                "text": "bye",
            }
        },
    )
    assert world.start({}).output == [{"text": "v"}]
    world = World(
        flow(node("a", "c", {"x": 1}, to("b"), operation="respond"), node("b", "emit.response", {})),
        c=lambda call: {"greentic_control": {"v": 1, "action": "respond", "text": "bye"}},
    )
    assert world.start({}).output == [{"text": "bye"}]


def test_an_answer_that_says_it_failed_is_no_success_however_it_says_why():
    routes = when({"condition": "event == on_error", "to": "e"}, {"to": "s"})
    said = node("e", "emit.response", {"text": "{{node.a.errors[0].message}}"})
    for answer, text in (
        ({"ok": False, "error": "no stock"}, "no stock"),
        ({"ok": False, "error": {"message": "no stock"}}, "no stock"),
        ({"ok": False, "error": None, "text": "data"}, "data"),
        ({"ok": "false", "error": "", "text": "data"}, "data"),
    ):
        plan = flow(
            node("a", "c", {"i": 1}, routes, operation="x"),
            said,
            node("s", "emit.response", {"text": "{{node.a.text}}"}),
        )
        assert World(plan, c=lambda call, answer=answer: answer).start({}).output == [{"text": text}]
    with pytest.raises(FlowFailure, match="component c failed: component_error: no stock"):
        interpret("c", {"ok": False, "error": "no stock"}, catches_errors=False)


def test_outcomes_and_events_choose_routes():
    routes = when({"event": "on_error", "to": "e"}, {"condition": "event == tall", "to": "t"}, {"to": "s"})
    nodes = [node(name, "emit.response", {"r": name}) for name in ("e", "t", "s")]
    for answer, taken in (({"ok": False, "error": {}}, "e"), ({"outcome": "tall"}, "t"), ({}, "s")):
        assert World(
            flow(node("a", "c", {"i": 1}, routes, operation="x"), *nodes), c=lambda call, answer=answer: answer
        ).start({}).output == [{"r": taken}]


def test_state_belongs_to_environment_and_tenant():
    plan = flow(
        node("g", "state.get", {"key": "k"}, to("s")),
        node("s", "state.set", {"key": "k", "value": {"v": "{{entry.text}}"}}, to("e")),
        node("e", "emit.response", {"before": "{{node.g.found}}", "value": "{{node.g.value}}"}),
    )
    world = World(plan)
    assert world.start({"text": "1"}).output == [{"before": False, "value": None}] and world.start(
        {"text": "2"}
    ).output == [{"before": True, "value": {"v": "1"}}]
    other = replace(world.run(), caller=replace(CALLER, tenant="other"))
    assert start(other, {}).output == [{"before": False, "value": None}]
    with pytest.raises(FlowFailure, match="state store is not configured"):
        start(replace(world.run(), ports=replace(world.ports, state=None)), {})


def test_tools_fail_as_values_and_approvals_may_approve_themselves():
    plan = flow(
        node("m", "mcp", {"server": "s", "tool": "t", "output": "r"}, to("e")),
        node("e", "emit.response", {"m": "{{node.m.r.error}}"}),
    )
    assert "no MCP server is configured" in World(plan).start({}).output[0]["m"]
    assert "A2A" in str(World(flow(node("m", "a2a:helper", {"message": "x"}))).start({}).output)
    for told, approved in (
        ({"mode": "above_risk", "risk": 1, "risk_threshold": 5}, True),
        ({"mode": "above_confidence", "confidence": 0.9, "confidence_threshold": 0.8}, True),
    ):
        assert (
            World(flow(node("a", "approval.call", {"input": told}, operation="x"))).start({}).output["approved"]
            is approved
        )
    with pytest.raises(FlowFailure):
        World(
            flow(
                node(
                    "a",
                    "approval.call",
                    {"input": {"mode": "above_risk", "risk": 9, "risk_threshold": 5}},
                    operation="x",
                )
            )
        ).start({})


def test_providers_are_called_through_mappings():
    plan = flow(
        node(
            "p",
            "provider.invoke",
            {
                "provider_type": "t",
                "op": "send",
                "input": {"to": "{{entry.text}}"},
                "in_map": {"body": "/input/to"},
                "out_map": {"id": "{{result.id}}"},
            },
        )
    )
    world = World(plan)
    world.components.providers["t"] = lambda call: {"id": f"{call.operation}:{call.input['body']}"}
    assert world.start({"text": "ann"}).output == {"id": "send:ann"}


def test_variables_are_set_behind_a_node():
    world = World(
        flow(
            node("a", "c", {"input": 1, "vars_out": {"x": "{{prev.n}}", "y": "/prev/n"}}, to("e"), operation="o"),
            node("e", "emit.response", {"v": "{{vars}}"}),
            extra={"vars_init": {"d": {"default": 0}}},
        ),
        c=lambda call: {"n": call.input},
    )
    assert world.start({}).output == [{"v": {"d": 0, "x": 1, "y": 1}}]


def test_slots_are_given_to_the_extractor():
    world = World(
        flow(
            node(
                "a",
                "component.exec",
                {"component": "ai.greentic.component-slot-extractor", "operation": "o", "input": {"t": 1}},
            ),
            extra={"greentic.slot_schema": {"s": 1}},
        ),
        **{"ai.greentic.component-slot-extractor": lambda call: call.input},
    )
    assert world.start({}).output == {"slot_definitions": {"s": 1}, "t": 1}


def test_the_trace_tells_each_step():
    told: list[tuple[object, ...]] = []
    begun: list[tuple[object, ...]] = []

    class Trace:
        def enter(self, *what: object) -> None:
            begun.append(what)

        def step(self, *what: object) -> None:
            told.append(what)

    world = World(flow(node("a", "emit.response", {"t": 1}, to("b")), node("b", "session.wait", "r", to("a"))))
    start(replace(world.run(), ports=replace(world.ports, trace=Trace())), {})
    assert begun == [t[:3] for t in told]
    assert [(t[1], t[2], t[5]) for t in told] == [
        ("a", "emit", "b"),
        ("b", "session.wait", "wait for the next message"),
    ]


# -- what templates see ---------------------------------------------------------------------------------------------


def test_entry_submitted_fields_and_actions():
    message = {"input": {"text": "t", "metadata": {"action": "a", "locale": "de"}, "order": 5}}
    assert (
        submitted(message) == {"locale": "de", "order": 5}
        and entry_view(message)["order"] == 5
        and entry_view("word") == "word"
    )
    assert (
        without_action(message)["input"]["metadata"] == {"locale": "de"}
        and without_action({"metadata": {"action": 1}}) == {"metadata": {}}
        and without_action(5) == 5
    )
    assert (
        rendered("{{now.date}}") == "2026-09-21"
        and rendered("{{now.iso}}").endswith(".123Z")
        and rendered("{{now.epoch_ms}}") == 1_790_000_000_123
    )


# -- cards ----------------------------------------------------------------------------------------------------------


def test_cards_are_promoted_and_read_from_the_pack():
    assets = SimulatedAssets(
        {
            "cards/a.json": b'{"type": "AdaptiveCard"}',
            "i18n/en.json": b'{"k": "v"}',
            "i18n/_manifest.json": b'["de", "en"]',
            "i18n/de.json": b'{"k": "w"}',
            "cards/bad.json": b"{",
        }
    )
    card = card_invocation({"x": 1}, {"default_card_asset": "assets/cards/a.json", "default_source": "ASSET"}, assets)
    assert card == {
        "x": 1,
        "card_source": "inline",
        "card_spec": {"inline_json": {"type": "AdaptiveCard"}, "i18n_inline": {"de": {"k": "w"}, "en": {"k": "v"}}},
    }
    assert card_invocation({"config": {"default_card_inline": {"a": 1}}}, None, assets)["card_source"] == "inline"
    assert card_invocation({"x": 1}, None, assets) is None and card_invocation("x", None, assets) is None
    broken = {"card_source": "asset", "card_spec": {"asset_path": "assets/cards/bad.json"}}
    assert card_invocation(broken, None, assets) == broken  # the component says what is wrong with it
    assert (
        inlined_call(
            {"call": {"payload": {"card_source": "asset", "card_spec": {"asset_path": "cards/a.json"}}}}, assets
        )["call"]["payload"]["card_source"]
        == "inline"
    )
    entry = {"metadata": {"toCardId": "b", "locale": "de"}}
    assert before_dispatch("x.adaptive-card", {"y": 1}, entry) == {
        "y": 1,
        "card_source": "asset",
        "card_spec": {"asset_path": "assets/cards/b.json"},
        "locale": "de",
    }
    assert before_dispatch("other", {"y": 1}, entry) == {"y": 1} and before_dispatch("other", 5, entry) == 5


def test_a_card_node_gives_the_component_the_card_raw():
    world = World(
        flow(
            node("a", "x.adaptive-card", {"card_source": "inline", "card_spec": {"inline_json": {}}}, operation="card")
        ),
        **{"x.adaptive-card": lambda call: {"card": call.card, "input": call.input}},
    )
    assert world.start({}).output == {
        "card": True,
        "input": {"card_source": "inline", "card_spec": {"inline_json": {}}},
    }


# -- envelopes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "split"),
    [
        ("text", (None, "text", None)), ({"a": 1}, (None, {"a": 1}, None)), ({"op": "o", "a": 1}, ("o", {"a": 1}, None)), ({"input": {"b": 2}, "a": 1}, (None, {"b": 2}, None)),
        ({"payload": 1, "config": {"c": 1}}, (None, 1, {"c": 1})), ({"envelope": {"op": "o", "payload": 1, "metadata": 2}}, ("o", 1, 2)), ({"envelope": 5}, (None, 5, None)), ({"op": None, "a": 1}, (None, {"op": None, "a": 1}, None)),
    ],
)  # fmt: skip
def test_inputs_are_split(value, split):
    assert split_input(value) == split


def test_envelopes_carry_json_as_numbers():
    call = ComponentCall(
        "c", "run", {"a": 1}, {"k": 2}, "f", "n", replace(CALLER, tenant="bad tenant", user="u", team="t")
    )
    shown = envelope_of(call).to_json()
    assert (
        json.loads(bytes(shown["payload"])) == {"config": {"k": 2}, "input": {"a": 1}}
        and bytes(shown["metadata"]) == b"null"
    )
    assert shown["ctx"] == {
        "env": "local",
        "tenant": "tenant.default",
        "tenant_id": "tenant.default",
        "session_id": "s",
        "flow_id": "f",
        "node_id": "n",
        "attempt": 1,
        "provider_id": "provider",
        "user_id": "u",
        "team_id": "t",
    }
    assert dropped_keys({"input": 1, "a": 1}) == ["a"] and dropped_keys({"a": 1}) == [] and dropped_keys(5) == []


# -- the load report ------------------------------------------------------------------------------------------------


def test_a_load_report_finds_what_would_fail_silently():
    plan = flow(
        node("a", "component.exec", {"component": "gone", "operation": "run", "event": "x", "input": {"payload": 1, "lost": 2}}, when({"next": "b"}, {"condition": "nonsense", "to": "zz"}, 5)),
        node("b", "emit.response", {"t": "{{a}} {{b}}", "u": "x {{c"}, to("nowhere")),
        node("c", "flow.call", {"flow_id": "none"}), node("w", "session.wait", {}), node("o", "c", {"input": 1, "payload": 2, "lost": 3}),
        start_at="missing",
    )  # fmt: skip
    found = "\n".join(lint_flow(plan, Known(lambda name, op: name == "c", frozenset({"main"}))))
    for said in (
        "starts at `missing`", "unknown routing key `next`", "'nonsense' has no operator", "a route is no mapping", "goes on to `zz`", "goes on to `nowhere`", "several expressions", "template render failed",
        "component.exec drops `event`", "the component never sees `lost` of `input`", "component 'gone' not found in pack", "flow.call of `none`", "session.wait without a node behind it", "no operation is named", "node o: the component never sees `lost`",
    ):  # fmt: skip
        assert said in found, said
    assert lint_flow(flow(), Known(lambda *a: True, frozenset())) == ["flow main has no nodes"]
    assert (
        lint_flow(flow(node("a", "emit.response", {"t": "x {{entry.t}}"})), Known(lambda *a: True, frozenset())) == []
    )


def findings(nodes: list[dict[str, object]], *more: FlowPlan) -> list[str]:
    plan = flow(*nodes)
    names = names_of([plan, *more])
    told = lint_flow(plan, Known(lambda *a: True, frozenset({"main"}), names=names))
    return [text.removeprefix("flow main: node a: ") for text in told]


def test_a_call_of_a_flow_that_waits_and_a_jump_to_a_node_that_is_not_there_are_told():
    """Both compile, and fail at the first message that comes there."""
    waits = flow(
        node("say", "emit.response", {"t": 1}, to("w")), node("w", "session.wait", {}, to("say")), flow_id="waits"
    )
    asks = flow(node("say", "emit.response", {"t": 1}, when(("response.text == x", "say"))), flow_id="asks")
    round_about = flow(node("x", "emit.log", {}, to("y")), node("y", "emit.log", {}, to("x")), flow_id="round")
    more = (waits, asks, round_about)

    def of(kind: str, **mapping: object) -> list[str]:
        plan = flow(node("a", kind, mapping))
        known = Known(lambda *a: True, frozenset({"main", *(m.id for m in more)}), names=names_of([plan, *more]))
        return [text.removeprefix("flow main: node a: ") for text in lint_flow(plan, known)]

    assert of("flow.call", flow_id="waits") == [
        "flow.call of `waits` fails: a flow that is called cannot wait, as it does at node `w`"
    ]
    assert (
        of("flow.call", flow="asks") == of("flow.call", flow="round") == []
    )  # it may get along without, and it is told elsewhere
    assert of("flow.goto", flow="waits", node="sya") == [
        "flow.goto goes to node `sya` of `waits`, which has none; did you mean `say`?"
    ]
    for target in ("w", "", None, "{{entry.to}}", 7):
        assert of("flow.goto", flow="waits", node=target) == []
    assert of("flow.goto", flow="waits") == []


def test_a_wait_that_asks_what_the_next_message_says_is_told():
    """Its routing is decided before that message comes, so it answers the one before."""
    said = "its conditions are asked before it waits, of the message that led here; ask for the next one at the node behind it"

    def of(kind: str, condition: str) -> list[str]:
        return findings(
            [
                node("a", kind, {"reason": "x"}, when({"condition": condition, "to": "b"}, {"to": "b"})),
                node("b", "emit.response", {"t": 1}),
            ]
        )

    for condition in ("entry.text == 42", "response.action == book", "in.metadata.action != x"):
        assert of("session.wait", condition) == [said], condition
    assert said not in of("session.wait", "node.b.t == 1")  # what is known when it begins to wait
    assert of("emit.response", "entry.text == 42") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Hello {{name}}!", "there is no name `name`"),
        ("x{{#if (gt count 3)}}y{{/if}}", "there is no name `count`"),
        ("x{{#each items}}{{this.name}}{{/each}}", "there is no name `items`"),
        ("x{{#if entry.text}}{{user}}{{/if}}", "there is no name `user`"),
        ("Hello {{node.b.name}} {{node.looked.name}}", "there is no node `looked`"),
        ("{{node.bb}}", "there is no node `bb`; did you mean `b`?"),
        ("{{vars.cuont}}", "no node sets a variable `cuont`; did you mean `count`?"),
        ("{{now.time}}", "`now` has date, epoch_ms, iso"),
        ("{{state.stock}}", "`state` has entry, input, nodes, park_turns, redirect_count; what `state.set` kept"),
        ("{{entry.metadata.n + 1}}", "nothing is calculated, and there is no name `n + 1`"),
        ("{{entry.text | upper}}", "nothing is calculated, and there is no name `text | upper`"),
    ],
)
def test_a_template_that_asks_for_what_is_never_there_is_told(text, told):
    others = [node("b", "emit.response", {}), node("v", "var.set", {"name": "count", "value": 1})]
    found = findings([node("a", "emit.response", {"t": [text]}), *others])
    assert len(found) == 1 and f"prints nothing: {told}" in found[0], found


def test_names_that_may_be_there_are_not_told():
    elsewhere = flow(node("other", "c", {"vars_out": {"who": "{{prev}}"}, "x": 1}))
    texts = [
        "Hi {{vars.who}} {{node.other.x}} {{entry.anything.[0]}} {{prev.x}} {{in.y}}!",
        "x{{#each entry.items as |item|}}{{item.name}} {{other}} {{../x}} {{@root.entry.text}}{{/each}}",
        "x{{#with entry.who}}{{name}}{{else}}{{entry.text}}{{/with}} {{lookup entry.m entry.k}}",
        '{{node["other"].x}}', "{{entry.First Name}}", "{{state.nodes.a}}", "{{now}}", "no {template}",
    ]  # fmt: skip
    assert findings([node("a", "emit.response", {"t": texts})], elsewhere) == []
    provider = node(
        "p", "provider.invoke", {"provider_type": "x", "op": "o", "in_map": {"q": "a {{input.q}} {{result}}"}}
    )
    assert findings([provider]) == []


@pytest.mark.parametrize(
    ("route", "told"),
    [
        ({"condition": "entry.text == hi && entry.n == 1", "to": "b"}, "is one comparison"),
        ({"condition": "entry.text == hi or entry.text == ho", "to": "b"}, "is one comparison"),
        ({"condition": "entry.text == 'hi'", "to": "b"}, 'compares with the quotes; write hi or "hi"'),
        ({"condition": "{{entry.text}} == hi", "to": "b"}, "is no template"),
        ({"condition": "entry.l[0] == 1", "to": "b"}, "a position in a list"),
        ({"condition": "entry.l.0 == 1", "to": "b"}, "a position in a list"),
        ({"condition": "vars.n > 1", "to": "b"}, "asks for `vars`, which this node does not say"),
        ({"condition": "respons.text == hi", "to": "b"}, "asks for `respons`"),
        ({"condition": "node.bb.x == 1", "to": "b"}, "there is no node `bb`; did you mean `b`?"),
        ({"condition": "event == on_eror", "to": "b"}, "did you mean `on_error`?"),
        ({"condition": True, "to": "b"}, "is no text and not asked; the route is always taken"),
        ({"condition": "entry.text == hi", "out": True}, "a route without `to` is passed over, and the flow waits here; `to: out` ends it"),
    ],
)  # fmt: skip
def test_a_route_that_is_never_taken_is_told(route, told):
    found = findings([node("a", "emit.response", {"x": 1}, when(route)), node("b", "emit.response", {})])
    assert len(found) == 1 and told in found[0], found


def test_routes_that_may_be_taken_are_not_told_and_what_stands_behind_one_that_always_is_is():
    taken = [
        "entry.text == fish and chips", 'entry.text == "it\'s"', "x == 1", "answers.name == Ada", "response.text contains no",
        "event == on_error", "event == approved", "node.b.x >= 2", "entry.v1.2nd == 1",
    ]  # fmt: skip
    nodes = [node("a", "emit.response", {"x": 1}, when(*({"condition": c, "to": "b"} for c in taken)))]
    assert findings([*nodes, node("b", "emit.response", {})]) == []
    unknown = node(
        "a", "c.op", {}, when({"condition": "state == done", "to": "a"}, {"event": "on_error", "to": "a"}, {"to": "a"})
    )
    assert findings([unknown]) == []
    behind = when({"to": "b"}, {"condition": "x == 1", "to": "a"})
    found = findings([node("a", "emit.response", {"x": 1}, behind), node("b", "emit.response", {})])
    assert found == ["the route to `a` is never taken: the one to `b` before it always is"]
    ended = when({"out": True})
    assert findings([node("a", "emit.response", {"x": 1}, ended)]) == []
    for form in ("end", {"next": {"node_id": "a"}}, [{"to": "a"}], 5):
        assert "is none that is known; the flow ends here" in findings([node("a", "emit.response", {}, form)])[0]
    for form in (None, "End", "Reply", {"End": None}):
        assert findings([node("a", "emit.response", {}, form)]) == []
    branch: dict[str, object] = {"Branch": {"on_status": {"ok": "b"}, "default": None}}
    found = findings([node("a", "emit.response", {"x": 1}, branch), node("b", "emit.response", {})])
    assert found == ["the statuses `ok` are not asked: it ends here"]
    found = findings([node("a", "emit.response", {"{{entry.text}}": 1})])
    assert found == ["the name `{{entry.text}}` is no template and stays as it is"]


def test_a_route_to_out_ends_the_flow_unless_a_node_has_that_name():
    routes = when({"condition": "entry.text == stop", "to": "out"}, {"to": "b"})
    nodes = [node("a", "emit.response", {"x": 1}, routes), node("b", "emit.response", {"x": 2})]
    assert World(flow(*nodes)).start({"text": "stop"}) == Completed([{"x": 1}])
    assert World(flow(*nodes)).start({"text": "go"}) == Completed([{"x": 1}, {"x": 2}])
    assert World(flow(*nodes, node("out", "emit.response", {"x": 3}))).start({"text": "stop"}) == Completed(
        [{"x": 1}, {"x": 3}]
    )
    assert findings(nodes) == []
    with pytest.raises(FlowFailure, match="session.wait node w requires a non-empty route"):
        World(flow(node("w", "session.wait", {}, when({"condition": "entry.text == x", "to": "out"})))).start(
            {"text": "x"}
        )


def test_what_a_node_cannot_do_without_and_variables_without_a_value_are_told():
    kinds = (
        ("state.get", "key"),
        ("state.set", "key"),
        ("var.set", "name"),
        ("provider.invoke", "op"),
        ("flow.call", "flow_id"),
    )
    for kind, word in kinds:
        for without in ({"value": 1}, {word: ""}, {word: ["x"]}, {word: True}, "x"):
            assert findings([node("a", kind, without)]) == [f"{kind} without `{word}` fails"]
        assert not any("without" in text for text in findings([node("a", kind, {word: "x", "provider_type": "p"})]))
    declared = {"a": {"default": None}, "b": {"required": True}, "c": 1, "d": {}, "e": {"required": True, "default": 1}}
    plan = flow(node("s", "emit.response", {"t": "{{vars.a}}{{vars.e}} {{vars.c}}"}), extra={"vars_init": declared})
    told = "\n".join(lint_flow(plan, Known(lambda *a: True, frozenset())))
    for said in ("no node sets a variable `c`", "variable b: it is required", "variable c: it stays unset"):
        assert said in told, told
    assert all(f"variable {name}:" not in told and f"variable `{name}`" not in told for name in "ade")
    pointed = [node("v", "var.set", {"name": "x", "value": ["/help", "/entry/text"]})]
    plan = flow(*pointed)
    assert [text.partition(": there")[0] for text in lint_flow(plan, Known(lambda *a: True, frozenset()))] == [
        "flow main: node v: `/help` is a pointer that fails"
    ]


def test_jumps_are_counted_for_each_message():
    menu = flow(node("w", "session.wait", {}, to("go")), node("go", "flow.goto", {"flow_id": "main"}), flow_id="menu")
    world = World(flow(node("g", "flow.goto", {"flow_id": "menu"})), menu)
    parked = world.start({"text": "hi"})
    for turn in range(10):
        parked = world.resume(parked, {"text": str(turn)})
        assert isinstance(parked, Parked)
    with pytest.raises(
        FlowFailure, match="redirect_limit: more than 3 jumps for one message; `max_redirects` allows more"
    ):
        World(flow(node("g", "flow.goto", {"flow_id": "main"}))).start({})
