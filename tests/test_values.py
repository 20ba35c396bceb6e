"""Values cross the border whole, or are refused with a sentence; what can never work is said early."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
import types
from pathlib import Path

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_pack
from greentic.author.component_build import build_failure
from greentic.author.flow_compile import FlowSourceError, compile_flow
from greentic.author.flow_run import run_flow
from greentic.author.inspect import inspect_pack
from greentic.cli import flow as flow_command
from greentic.expressions import handlebars
from greentic.expressions.conditions import Facts, holds, parse_condition
from greentic.expressions.handlebars_helpers import TemplateError
from greentic.expressions.handlebars_render import render
from greentic.expressions.paths import MISSING
from greentic.expressions.template import compile_value
from greentic.expressions.value_range import GREATEST, LEAST, compared, fault, in_range
from greentic.flow.activity import activity_of, invoke_activity
from greentic.flow.cards import card_invocation
from greentic.flow.engine import Run
from greentic.flow.graph import read_graph
from greentic.flow.lint import Known, lint_flow
from greentic.flow.nodes import plan_flow
from greentic.flow.ports import Caller, ComponentCall, Ports, ProviderCall
from greentic.flow.select import ASKED, FlowHeader, NoFlow, select, unanswerable
from greentic.ground.errors import FlowFailure
from greentic.ingress.identity import stranger_identity
from greentic.sessions.conversation import Conversations
from greentic.sessions.memory_store import MemoryStore
from simulators import FakeClock, SimulatedAssets, SimulatedComponents, SimulatedState, start
from test_flow import node, to

# -- the range ------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=-(10**300), max_value=10**300))
def test_an_integer_is_whole_or_the_nearest_float(number):
    for place in (number, [number], {"a": {"b": [number]}}):
        found = in_range(place)
        while isinstance(found, dict | list):
            found = found[0] if isinstance(found, list) else next(iter(found.values()))
        assert found == (number if LEAST <= number <= GREATEST else float(number))
        assert isinstance(found, int) is (LEAST <= number <= GREATEST)
    for activity in (activity_of({"text": "x", "metadata": {"n": number}}), invoke_activity({"n": number})):
        data = cbor2.dumps(activity.payload)
        assert cbor2.loads(data, tag_hook=lambda *_: pytest.fail("a tag was written")) == activity.payload


def test_what_needs_no_change_is_the_same_object_and_what_no_float_holds_is_refused():
    value = {"a": [1, {"b": GREATEST}], "c": "x"}
    assert in_range(value) is value
    with pytest.raises(FlowFailure, match="too large"):
        in_range({"a": [10**400]})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, {"b": {1}}]}, "a set at .a[1].b is no JSON value"),
        ({"a": b"x"}, "a bytes at .a"),
        ({"a": math.nan}, "nan at .a is no JSON number"),
        ({"a": 1 << 64}, "does not fit into 64 bits"),
        ({"a": "\ud800"}, "half a surrogate pair at .a"),
        ({"\udfff": 1}, "half a surrogate pair at a name of the value"),
        ({"a": {1: 2}}, "the name 1 at .a is no text"),
    ],
)
def test_a_value_that_is_none_is_told_with_its_place(value, told):
    assert told in fault(value)
    with pytest.raises(FlowSourceError) as error:
        compile_flow({"id": "x", "type": "messaging", "nodes": {"n": {"emit.response": value}}})
    assert told.split(" at ")[0] in str(error.value)


@given(st.integers(-(10**40), 10**40), st.integers(-3, 3))
def test_large_integers_are_compared_whole(number, more):
    facts = Facts({"n": number}, lambda name: MISSING)
    for operator, right in (
        (">", number > number + more),
        ("<", number < number + more),
        (">=", number >= number + more),
    ):
        assert holds(parse_condition(f"n {operator} {number + more}"), facts) is right


def test_a_text_is_a_number_only_as_the_existing_worker_reads_it():
    assert [compared(t) for t in ("1_0", " 1", "٣", "", "x", "1.5", "+2", "-0", "1e3")] == [
        None, None, None, None, None, 1.5, 2, 0, 1000.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"), [(1e16, "1e16"), (1.0, "1.0"), (1e-7, "1e-7"), (0.1, "0.1"), (1e21, "1e21")]
)
def test_floats_print_as_the_existing_worker_prints_them(value, text):
    names = types.SimpleNamespace(named=lambda name: value)
    assert compile_value("a {{x}}").render(names) == f"a {text}"
    assert msgspec.json.encode(value).decode() == text and holds(
        parse_condition(f"v == {text}"), Facts({"v": value}, lambda n: MISSING)
    )


# -- the guest ------------------------------------------------------------------------------------------------------


@pytest.fixture
def guest(monkeypatch):
    """The part of a Python component that is ours, outside of any component."""

    class Err(Exception):
        def __init__(self, value: object) -> None:
            self.value = value

    def record(*names: str):
        return lambda *values: types.SimpleNamespace(**dict(zip(names, values, strict=True)))

    node_module = types.SimpleNamespace(
        NodeError=record("code", "message", "retryable", "backoff_ms", "details"),
        InvocationResult=record("ok", "output", "metadata"),
        InvocationEnvelope=object,
    )
    exports = types.SimpleNamespace(Node=object, node=node_module)
    for name, module in (
        ("componentize_py_types", types.SimpleNamespace(Err=Err)),
        ("wit_world", types.SimpleNamespace(exports=exports)),
        ("wit_world.exports", exports),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    path = Path(__file__).parent.parent / "src/greentic/sdk/guest/greentic_component.py"
    spec = importlib.util.spec_from_file_location("greentic_component_guest", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    module.Err = Err
    return module


def invoke(guest, function, payload: object = None) -> object:
    guest._operations.clear()
    guest.operation("op")(function)
    context = types.SimpleNamespace(tenant_id="t", env_id="e", user_id=None, correlation_id="s", attempt=1)
    data = payload if isinstance(payload, bytes) else cbor2.dumps(payload)
    envelope = types.SimpleNamespace(ctx=context, flow_id="f", step_id="n", attempt=1, payload_cbor=data)
    try:
        return cbor2.loads(guest.Node().invoke("op", envelope).output)
    except guest.Err as error:
        return error.value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(LEAST, GREATEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_every_json_value_goes_through_a_component_whole(guest):
    @settings(max_examples=200)
    @given(json_values)
    def through(value):
        assert invoke(guest, lambda payload, call: payload, value) == value

    through()


class Loop(list):
    pass


def test_an_answer_that_is_none_is_told_with_its_place_and_never_repeated(guest):
    import datetime
    import decimal

    loop: list[object] = []
    loop.append(loop)

    async def later() -> None: ...

    for answer, told in (
        ({"when": datetime.date(2026, 1, 1)}, "a date at .when"),
        ({"a": [1, {2}]}, "a set at .a[1]"),
        ({"d": decimal.Decimal(1)}, "a Decimal at .d"),
        ({"n": 2**70}, "an integer at .n that does not fit"),
        ({"t": "\ud83d"}, "half a surrogate pair at .t"),
        ({"f": math.inf}, "inf at .f"),
        ({(1, 2): 1}, "a tuple as a name"),
        (loop, "more than 128 levels"),
        (later(), "not `async def`"),
        ({"a": {1: "one", "1": "text"}}, "names at .a that are the same as texts"),
    ):
        failure = invoke(guest, lambda payload, call, answer=answer: answer)
        assert told in failure.message and "`op`" in failure.message and failure.retryable is False, told


def test_a_mistake_of_the_author_has_a_code_that_no_worker_repeats(guest):
    def wrong(payload, call):
        raise KeyError("\ud800")

    failure = invoke(guest, wrong)
    assert failure.code == "exception" and failure.retryable is False and failure.message.startswith("KeyError")
    assert not any(word in failure.code for word in ("transient", "unavailable", "internal", "timeout"))

    def told(payload, call):
        raise guest.Failure("busy", "later", retryable=True, backoff_ms=500)

    failure = invoke(guest, told)
    assert (failure.code, failure.retryable, failure.backoff_ms) == ("busy", True, 500)


class Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_whatever_an_operation_raises_is_told_and_never_a_trap(guest):
    for raised, told in (
        (SystemExit(2), "SystemExit: 2"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (GeneratorExit("g"), "GeneratorExit: g"),
        (Untellable(), "Untellable: (what cannot be told as a text)"),
    ):

        def raising(payload, call, raised=raised):
            raise raised

        failure = invoke(guest, raising)
        assert (failure.code, failure.retryable) == ("exception", False)
        assert re.fullmatch(re.escape(told) + r" \(line \d+ of test_values\.py\)", failure.message)
    for pause, milliseconds in (
        (1.5, 2),
        (-1, 0),
        (2**70, 2**64 - 1),
        ("100", None),
        (math.inf, None),
        (math.nan, None),
    ):

        def busy(payload, call, pause=pause):
            raise guest.Failure("busy", Untellable(), retryable=True, backoff_ms=pause)

        failure = invoke(guest, busy)
        assert (failure.code, failure.backoff_ms) == ("busy", milliseconds), pause


def test_an_operation_without_a_name_or_with_a_second_function_is_told_when_it_is_built(guest):
    with pytest.raises(TypeError, match=r'such as @operation\("greet"\)'):
        guest.operation(lambda payload, call: payload)
    for wrong in (lambda: 1, lambda payload: 1, lambda self, payload, call: 1):
        with pytest.raises(TypeError, match=r"`greet` takes \(payload, call\), and its function \d argument"):
            guest.operation("greet")(wrong)

    async def later(payload, call): ...

    with pytest.raises(TypeError, match="`greet` is an `async def`; operations are plain functions"):
        guest.operation("greet")(later)
    for right in (lambda payload, call, more=1: 1, lambda *all: 1, lambda payload, *more: 1, print):
        guest._operations.clear()
        guest.operation("greet")(right)
    with pytest.raises(ValueError, match="two functions are offered as `greet`"):
        guest.operation("greet")


def test_a_tag_is_refused_instead_of_its_content_taken_for_the_value(guest):
    for number in (2**64, -(2**64) - 1):
        failure = invoke(guest, lambda payload, call: payload, cbor2.dumps(number))
        assert failure.code == "exception" and "tag" in failure.message


# -- said early -----------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.lists(
        st.builds(FlowHeader, st.sampled_from("pq"), st.text("abc", min_size=1), st.sampled_from(["messaging", "event"]),
                  st.booleans(), st.booleans()),
        max_size=5,
    )
)  # fmt: skip
def test_what_selection_refuses_every_time_is_what_is_told(flows):
    told = unanswerable(flows, "p")
    for flow_type, what in ASKED:
        try:
            select([(h, h) for h in flows], "p", flow_type, "t")
            assert not any(text.startswith(what + " cannot") for text in told)
        except NoFlow:
            assert any(text.startswith(what + " cannot") for text in told)


def test_a_pack_that_no_message_selects_is_told_by_inspect_and_lint(tmp_path, capsys):
    flows = {name: {"nodes": [node("a", "emit.response", {"text": "x"})]} for name in ("one", "two")}
    path = tmp_path / "p.gtpack"
    path.write_bytes(make_pack("p", flows))
    (told,) = [w for w in inspect_pack(path)["warnings"] if "cannot be answered" in w]
    assert "`one`, `two`" in told and "all but one are to have the tag `internal`" in told
    assert flow_command.main(["lint", "--strict", "--output", "json", str(path)]) == 1
    assert told in json.loads(capsys.readouterr().out)["result"]["checked"][0]["findings"]


def test_what_cannot_run_is_linted():
    nodes = [
        node("a", "dw.agent", {}, to("b")),
        node("b", "sorla.call", {}, to("c")),
        node("c", "mcp:x", {}, to("d")),
        node("d", "component.exec", {"component": "bank", "operation": "pya"}),
    ]
    known = Known(lambda name, op: True, frozenset(), lambda name, op: frozenset({"pay", "ask"}))
    told = lint_flow(plan_flow(read_graph("main", {"nodes": nodes})), known)
    assert [text.split(": ")[1] for text in told] == ["node a", "node b", "node c", "node d"]
    assert "offers no operation `pya`; it offers `ask`, `pay`" in told[3]
    silent = Known(lambda name, op: True, frozenset())
    assert not lint_flow(plan_flow(read_graph("main", {"nodes": nodes[3:]})), silent)


KNOWN = Known(lambda name, operation: True, frozenset({"main", "other"}))


def told_of(*nodes: dict[str, object]) -> list[str]:
    return lint_flow(plan_flow(read_graph("main", {"nodes": list(nodes)})), KNOWN)


def test_a_mistyped_emit_is_told_and_another_word_is_not():
    (told,) = told_of(node("a", "emit.respons", {"text": "hi"}))
    assert told.endswith("node a: `emit.respons` does what any `emit.` does; did you mean `emit.response`?")
    assert not told_of(*(node(f"n{i}", f"emit.{w}", {}) for i, w in enumerate(["response", "log", "card", "message"])))


def test_what_never_ends_is_told_and_what_waits_or_decides_is_not():
    def says(name: str, *routing: object) -> dict[str, object]:
        return node(name, "emit.response", {"text": "x"}, *routing)

    (told,) = told_of(says("in", to("a")), says("a", to("b")), says("b", to("a")), says("other", to("a")))
    assert "goes round `a`, `b` without an end" in told
    assert "goes round `a` without an end" in told_of(says("a", to("a")))[0]
    for between in (
        node("b", "session.wait", "more", to("a")),
        says("b", {"Custom": [{"condition": "text == 1", "to": "a"}]}),
        node("b", "flow.goto", {"flow": "other"}, to("a")),
    ):
        assert not told_of(says("a", to("b")), between)
    for kind in ("flow.call", "flow.goto"):
        itself = node("b", kind, {"flow": "main"})
        (told,) = told_of(says("a", to("b")), itself)
        assert f"node b: {kind} of its own flow, before anything waits or decides, never ends" in told
        assert not any("never ends" in t for t in told_of(node("a", "session.wait", "more", to("b")), itself))
        assert not told_of(says("a", to("b")), node("b", kind, {"flow": "other"}))


def test_an_id_that_is_no_text_is_told_as_that():
    for wrong in (5, [1], {"a": 1}, True):
        with pytest.raises(FlowSourceError, match="`id` is a text, found "):
            compile_flow({"id": wrong, "type": "messaging", "nodes": {}})
    for missing in ({}, {"id": None}, {"id": ""}):
        with pytest.raises(FlowSourceError, match="missing required property `id`"):
            compile_flow(missing | {"type": "messaging", "nodes": {}})


# -- authors --------------------------------------------------------------------------------------------------------


def test_a_failed_flow_ends_with_1_and_its_reason_on_stderr(tmp_path, capsys):
    path = tmp_path / "p.gtpack"
    path.write_bytes(make_pack("p", {"main": {"nodes": [node("a", "emit.response", {"text": "x"}, to("gone"))]}}))
    for form in ("json", "table"):
        assert flow_command.main(["run", str(path), "main", "--output", form]) == 1
        said = capsys.readouterr()
        assert "error: the flow failed: node gone not found" in said.err
    path.write_bytes(make_pack("p", {"main": {"nodes": [node("a", "emit.response", {"text": "x"})]}}))
    assert flow_command.main(["run", str(path), "main", "--output", "json"]) == 0
    assert not capsys.readouterr().err
    assert "failed" not in run_flow(path, "main", ["{}"], lambda step: None)["turns"][0]


SYNTAX = """Traceback (most recent call last):
  File "/venv/bin/componentize-py", line 8, in <module>
    sys.exit(script())
             ^^^^^^^^
AssertionError:   File "/0/app.py", line 4
    def greet(payload, call)
                            ^
SyntaxError: expected ':'

Caused by:
    SyntaxError: expected ':' (app.py, line 4)
Stack backtrace:
   0: main
  30: _start
"""


def test_a_build_tells_the_mistake_and_not_the_machinery():
    reason, hint = build_failure(SYNTAX)
    assert (
        reason == "File \"/0/app.py\", line 4 | def greet(payload, call) | SyntaxError: expected ':'" and hint is None
    )
    reason, hint = build_failure("AttributeError: module 'app' has no attribute 'Node'")
    assert "has no `Node`" in reason and "from greentic_component import Node" in hint
    reason, hint = build_failure(
        'Traceback\n  File "/bin/tool", line 8\nAssertionError:\n\nCaused by:\n  1: Exited with i32 exit status 1'
    )
    assert "app.py ends while it is imported" in reason and "sys.exit" in hint
    assert build_failure("something else\n_start") == ("something else | _start", None)
    assert build_failure("") == ("the tool said nothing", None)


# -- bad input: only typed errors -----------------------------------------------------------------------------------

scraps = st.lists(
    st.sampled_from([*"{}#/[]().|=\"'~@& \n\\abe01-", "{{", "}}", "#if ", "each ", "else", "this", "\ud800", "é"]),
    max_size=40,
).map("".join)


@settings(max_examples=300)
@given(scraps, json_values)
def test_any_template_is_rendered_or_refused(text, value):
    try:
        template = handlebars.parse(text)
        render(template, lambda name: value)
    except TemplateError:
        pass
    try:
        compile_value({"a": [text]}, pointers=True).render(types.SimpleNamespace(named=lambda name: value))
    except FlowFailure:
        pass


@settings(max_examples=300)
@given(st.one_of(scraps, st.text()), json_values)
def test_any_condition_holds_or_not(text, value):
    assert holds(parse_condition(text), Facts(value, lambda name: value if name == "a" else MISSING)) in (True, False)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | scraps,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "type", "nodes", "a", "b", "routing", "to", "condition", "event", "emit.response", "component.exec",
             "session.wait", "flow.call", "flow.goto", "var.set", "state.get", "start", "card_source", "card_spec", "input",
             "Custom", "Next", "component", "operation", "mapping", "vars_out", "in_map", "provider.invoke", "op", "key"]
        ) | st.text(max_size=3),
        inner, max_size=4,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=200)
@given(anything)
def test_any_flow_source_is_compiled_or_refused(source):
    for given_source in (
        source,
        {"id": "x", "type": "messaging", "nodes": source},
        {"id": "x", "type": "http", "nodes": {"a": source}},
    ):
        try:
            compiled = compile_flow(given_source)
        except FlowSourceError:
            continue
        plan_flow(read_graph("x", compiled))


def as_json(value: object) -> object:
    """What a decoder of JSON could have made of it."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, float) and not math.isfinite(value):
        return 0
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@settings(max_examples=200)
@given(st.sampled_from(["emit.response", "component.exec", "flow.call", "flow.goto", "session.wait", "state.get", "state.set",
                        "var.set", "provider.invoke", "approval.call", "mcp:x", "c.op", "dw.agent"]), anything, anything, anything)  # fmt: skip
def test_any_node_runs_or_fails_by_a_typed_error(component, mapping, routing, message):
    mapping, routing, message = as_json(mapping), as_json(routing), in_range(as_json(message))
    plan = plan_flow(read_graph("main", {"nodes": [node("a", component, mapping, routing), node("b", "emit.x", {})]}))
    components = SimulatedComponents({})

    async def echo(call: ComponentCall | ProviderCall) -> object:
        return call.input

    components.call_provider = components.call = echo
    lint_flow(plan, Known(lambda name, op: True, frozenset()))
    ports = Ports({"main": plan}, components, SimulatedAssets(), SimulatedState(), FakeClock())
    try:
        start(Run("p", "main", Caller("e", "t", session="s"), ports, max_steps=60), message)
    except Exception as error:  # noqa: BLE001
        assert isinstance(error, FlowFailure), repr(error)


@settings(max_examples=300)
@given(anything, anything)
def test_any_card_is_read_or_refused(given_card, config):
    try:
        card_invocation(as_json(given_card), as_json(config), SimulatedAssets())
    except FlowFailure:
        pass


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=80), st.binary(max_size=60).map(lambda b: b.decode("latin-1"))))
def test_any_session_cookie_is_taken_or_replaced(text):
    seen = stranger_identity(text, b"0" * 32, shared=False)
    assert seen.identity.session


@settings(max_examples=300)
@given(st.binary(max_size=200) | anything.map(lambda v: json.dumps(as_json(v)).encode()))
def test_any_stored_conversation_is_read_or_refused(data):
    values = MemoryStore()
    conversations = Conversations(values, "s")
    values.set("k", data)
    values.set("k:answers", data)
    conversations.waiting("k")
    conversations.answered("k", "id")
    conversations.keep_answer("k", "id", 1, parked=False)
    assert conversations.answered("k", "id").output == 1


@settings(max_examples=500)
@given(st.binary(max_size=80))
def test_any_cbor_is_decoded_or_refused_by_the_guest(data):
    module = _GUEST.setdefault("module", _load_decoder())
    try:
        module["decode"](data)
    except ValueError:
        pass  # inside the guarded part: told as `exception`


_GUEST: dict[str, dict[str, object]] = {}


def _load_decoder() -> dict[str, object]:
    """The decoder alone, which needs nothing of a component."""
    text = (Path(__file__).parent.parent / "src/greentic/sdk/guest/greentic_component.py").read_text()
    names: dict[str, object] = {}
    exec("import struct, math\nfrom typing import Any\n" + text[text.index("def decode(") :], names)
    return names
