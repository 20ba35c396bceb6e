"""The component host: values, interfaces, limits, imports, the compile cache. The components are written in tests/wat.py."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import stat
import subprocess
import sys
import threading
import unittest.mock

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from wasmtime import component as c
from wasmtime import wat2wasm

import wat
from greentic.components import interfaces
from greentic.components.host import (
    EgressFailed,
    EgressRefused,
    Grants,
    HostCall,
    HostImports,
    HttpResponse,
    canonical_name,
)
from greentic.components.http_client import PolicedHttp
from greentic.components.interfaces import invoke_node, invoke_provider
from greentic.components.secret_files import SecretFiles
from greentic.flow.ports import Caller, ComponentCall, ProviderCall
from greentic.ground import optional
from greentic.ground.disk import exclusive
from greentic.ground.errors import BootError, FlowFailure, InvalidArgument, MalformedArtifact
from greentic.ground.going import in_place
from greentic.net.egress import EgressPolicy, read_policy, refused_address, refused_host
from greentic.telemetry.component_output import line_of
from greentic.wasm import native
from greentic.wasm.call_limits import DEFAULT_LIMITS, call_limits
from greentic.wasm.compile_cache import COMPILING_SECONDS, CompileCache
from greentic.wasm.compiled_files import default_directory
from greentic.wasm.component import HostFailure, LoadedComponent, Trap
from greentic.wasm.engine import engine
from greentic.wasm.format import check_component
from greentic.wasm.traps import MAX_BYTES_OUT
from greentic.wasm.values import ValueMismatch
from simulators import FakeClock, SimulatedState

CALLER = Caller("local", "acme", session="s1", channel="main", provider="provider")
SHORT = DEFAULT_LIMITS._replace(seconds=0.05)


class NoHost:
    def function(self, interface: str, name: str) -> None:
        return None


def loaded(wasm: bytes, host: object = None) -> LoadedComponent:
    return LoadedComponent(engine(), c.Component(engine().engine, wasm), host or NoHost())


def context(log: list[str] | None = None, grants: Grants = Grants(), caller: Caller = CALLER) -> HostCall:  # noqa: B008
    told = [] if log is None else log
    return HostCall("c", caller, grants, 60.0, lambda name, stream, text: told.append(line_of(name, stream, text)))


def call(
    wasm: bytes,
    value: object,
    *,
    host: object = None,
    card: bool = False,
    limits=DEFAULT_LIMITS,
    caller: Caller = CALLER,
    **more: object,
) -> object:
    request = ComponentCall("c", "run", value, None, "main", "n", caller, 1, card)
    return in_place(invoke_node(loaded(wasm, host), "c", request, context(caller=caller, **more), limits))


# -- values ---------------------------------------------------------------------------------------------------------

COLOR = ("enum", "color", ["red", "green"])
SHAPE = ("variant", "shape", {"dot": None, "circle": "f64", "named": "string"})
PERMS = ("flags", "perms", ["read", "write", "execute"])
INNER = ("record", "inner", {"b": "bool", "c": "char", "maybe": wat.opt("string"), "color": COLOR})
RICH = ("record", "rich", {
    "u8": "u8", "s8": "s8", "u16": "u16", "s16": "s16", "u32": "u32", "s32": "s32", "u64": "u64", "s64": "s64", "f64": "f64", "text": "string", "bytes": wat.BYTES,
    "numbers": ("list", "u32"), "inner": INNER, "inners": ("list", INNER), "pair": ("tuple", ["string", "u8"]), "shape": SHAPE, "perms": PERMS,
    "result": ("result", "string", COLOR), "empty": ("result", None, None), "nested": wat.opt(("option", "u64")), "nothing": wat.opt(wat.BYTES),
})  # fmt: skip
INNERS = st.fixed_dictionaries(
    {
        "b": st.booleans(),
        "c": st.characters(exclude_categories=["Cs"]),  # a surrogate is no Unicode scalar value
        "maybe": st.none() | st.text(max_size=9),
        "color": st.sampled_from(["red", "green"]),
    }
)


def whole(low: int, high: int):
    return st.integers(low, high)


VALUES = st.fixed_dictionaries({
    "u8": whole(0, 255), "s8": whole(-128, 127), "u16": whole(0, 65535), "s16": whole(-32768, 32767), "u32": whole(0, 2**32 - 1), "s32": whole(-(2**31), 2**31 - 1),
    "u64": whole(0, 2**64 - 1), "s64": whole(-(2**63), 2**63 - 1), "f64": st.floats(allow_nan=False), "text": st.text(), "bytes": st.binary(max_size=300),
    "numbers": st.lists(whole(0, 2**32 - 1), max_size=5), "inner": INNERS, "inners": st.lists(INNERS, max_size=3), "pair": st.tuples(st.text(max_size=5), whole(0, 255)),
    "shape": st.just(("dot", None)) | st.tuples(st.just("circle"), st.floats(allow_nan=False)) | st.tuples(st.just("named"), st.text(max_size=5)),
    "perms": st.sets(st.sampled_from(["read", "write", "execute"])), "result": st.tuples(st.just("ok"), st.text(max_size=5)) | st.tuples(st.just("err"), st.sampled_from(["red", "green"])),
    "empty": st.sampled_from([("ok", None), ("err", None)]), "nested": st.none() | whole(0, 2**64 - 1), "nothing": st.none() | st.binary(max_size=9),
})  # fmt: skip
echo = None


@settings(max_examples=150)
@given(VALUES)
def test_every_value_comes_back_as_it_went(value):
    global echo
    if echo is None:
        echo = loaded(wat.identity(RICH))
    assert echo.call(echo.find("test:echo/echo@1.0.0", "echo"), [value], context(), DEFAULT_LIMITS) == value


@pytest.mark.parametrize(
    "wrong",
    [
        {"u8": 256}, {"u8": -1}, {"u8": True}, {"u8": "1"}, {"text": 5}, {"bytes": "x"}, {"numbers": 5}, {"inner": 5}, {"pair": ("x",)}, {"shape": "dot"}, {"shape": ("square", 1)}, {"perms": {"x"}},
        {"result": ("maybe", 1)}, {"inner": {"b": True, "c": "xy", "color": "red"}}, {"inner": {"b": True, "c": "\ud800", "color": "red"}}, {"inner": {"b": True, "c": "x", "color": "blue"}}, {"inner": {"b": True, "c": "x"}}, {"bytes": bytes(1 << 25)}, {"f64": "x"},
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused_by_name(wrong):
    good = {
        "u8": 1, "s8": 1, "u16": 1, "s16": 1, "u32": 1, "s32": 1, "u64": 1, "s64": 1, "f64": 1.0, "text": "", "bytes": b"", "numbers": [], "inner": {"b": True, "c": "x", "color": "red"}, "inners": [],
        "pair": ("", 1), "shape": ("dot", None), "perms": set(), "result": ("ok", ""), "empty": ("ok", None),
    }  # fmt: skip
    component = loaded(wat.identity(RICH))
    export = component.find("test:echo/echo@1.0.0", "echo")
    assert component.call(export, [good], context(), DEFAULT_LIMITS)["nested"] is None  # what is not there is none
    with pytest.raises(ValueMismatch):
        component.call(export, [good | wrong], context(), DEFAULT_LIMITS)
    with pytest.raises(Trap, match="takes 1 arguments"):
        component.call(export, [], context(), DEFAULT_LIMITS)


# -- interfaces -----------------------------------------------------------------------------------------------------


def test_node_06_gets_the_payload_alone():
    assert call(wat.node_06(), {"a": [1, "x", None, 2.5]}) == {"a": [1, "x", None, 2.5]}
    assert call(wat.node_06(), {"input": {"b": 1}, "config": {"k": 2}, "dropped": 3}) == {"b": 1}
    assert call(wat.node_06(), {"card_source": "inline"}, card=True) == {"card_source": "inline"}
    assert (
        call(wat.node_06(), "") is None
        and call(wat.node_06(), '{"json": 1}') == {"json": 1}
        and call(wat.node_06(), "text") == "text"
    )


@pytest.mark.parametrize(
    ("tenant", "version", "i18n"),
    [(wat.TENANT_05A, "0.5.0", True), (wat.TENANT_05B, "0.5.0", True), (wat.TENANT_04, "0.4.0", False)],
)
def test_node_05_in_both_tenant_forms_and_04_get_the_envelope(tenant, version, i18n):
    verified = replace(CALLER, user="ann", team="red")
    envelope = call(wat.node_05(tenant, version, i18n=i18n), {"a": 1}, caller=verified)
    assert json.loads(bytes(envelope["payload"])) == {"a": 1} and envelope["op"] == "run"
    assert envelope["ctx"] == {
        "env": "local",
        "tenant": "acme",
        "tenant_id": "acme",
        "session_id": "s1",
        "flow_id": "main",
        "node_id": "n",
        "attempt": 1,
        "provider_id": "provider",
        "user_id": "ann",
        "team_id": "red",
    }
    assert call(wat.node_05(tenant, version, i18n=i18n), {"card_spec": 1}, card=True) == {"card_spec": 1}


def test_the_runtime_gets_the_whole_envelope():
    envelope = call(wat.runtime(), "hi")
    assert bytes(envelope["payload"]) == b'"hi"' and envelope["node_id"] == "n"


def test_providers_exchange_json():
    component = loaded(wat.provider())
    request = ProviderCall(None, "t", "send", {"to": "ann"}, CALLER)
    assert in_place(invoke_provider(component, "c", request, context(), DEFAULT_LIMITS)) == {"to": "ann"}
    with pytest.raises(FlowFailure, match="does not export"):
        in_place(invoke_provider(loaded(wat.node_06()), "c", request, context(), DEFAULT_LIMITS))
    with pytest.raises(FlowFailure, match="exports no node"):
        call(wat.provider(), 1)


def test_failures_of_a_component_are_values():
    failed = call(wat.error_06("E1", "it broke", retryable=True), {})
    assert failed == {"ok": False, "error": {"code": "E1", "message": "it broke", "retryable": True, "backoff_ms": 250}}
    refused = call(wat.node_06(wat.ok_06(*wat.payload_06(), ok=False)), {"why": "x"})
    assert refused["error"]["code"] == "COMPONENT_INVOCATION_FAILED" and refused["error"]["message"] == '{"why":"x"}'


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"\xa1",
        b"\x9f" * 300,
        b"\xc1\xfb\x7f\xf8\0\0\0\0\0\0",
        b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x01\x02",
        b"\x43abc",
    ],
)
def test_what_a_component_answers_is_read_or_refused(payload):
    at = f'(data (i32.const 16) "{"".join(f"{chr(92)}{b:02x}" for b in payload)}")'
    wasm = wat.node_06(wat.ok_06("(i32.const 16)", f"(i32.const {len(payload)})"), data=at)
    try:
        json.dumps(call(wasm, {}))
    except FlowFailure as failure:
        assert "is no CBOR" in str(failure)


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (0, "2026-01-02T00:00:00Z"),
        (1, 1577836800),
        (37, [0] * 16),
        (100, 500),
        (1004, "2026-01-02"),
        (24, [1]),
        (4242, {"a": 1}),
    ],
)
def test_the_content_of_a_tag_is_the_value_whatever_the_library_makes_of_it(tag, content):
    from greentic.components.interfaces import _from_cbor

    written = bytes(content) if tag in (24, 37) else content
    assert _from_cbor(cbor2.dumps({"at": [cbor2.CBORTag(tag, written)]}), "it") == {"at": [content]}


def test_an_answer_that_cannot_be_read_says_what_of_it():
    from greentic.components.interfaces import _from_cbor

    with pytest.raises(FlowFailure, match="takes: it uses a tag that has no meaning in JSON"):
        _from_cbor(cbor2.dumps(cbor2.CBORTag(35, "a")), "it")
    with pytest.raises(FlowFailure, match="can't decode byte 0xc3"):
        _from_cbor(b"\x62\xc3\x28", "it")
    for written in ({"text": "hello"}, [1], "hello", 12, None, True):
        with pytest.raises(FlowFailure, match="takes: it is the text of JSON"):
            _from_cbor(json.dumps(written).encode(), "it")
    assert [_from_cbor(cbor2.dumps(n), "it") for n in (-25, -24, 23, 24)] == [-25, -24, 23, 24]
    with pytest.raises(FlowFailure, match="component c: `output-cbor` is no CBOR"):
        call(wat.node_06(wat.ok_06("(i32.const 16)", "(i32.const 1)"), data='(data (i32.const 16) "\\ff")'), {})


def test_an_answer_that_is_too_large_to_cross_says_how_large_one_may_be():
    pages = (MAX_BYTES_OUT >> 16) + 3
    fits, over = (
        wat.node_06(wat.ok_06("(i32.const 131072)", f"(i32.const {MAX_BYTES_OUT + more})"), pages=pages)
        for more in (-100, 1)
    )
    assert call(fits, {}) == 0  # a zero, and more behind it
    with pytest.raises(FlowFailure, match=f"it hands over too much at once; .* may have {MAX_BYTES_OUT}"):
        call(over, {})


@settings(max_examples=80)
@given(st.binary(max_size=60))
def test_any_output_is_json_or_a_typed_failure(data):
    from greentic.components.interfaces import _from_cbor

    try:
        json.dumps(_from_cbor(data, "it"))
    except FlowFailure:
        pass


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.dates()
)
_KEYS = st.text(max_size=3) | st.integers() | st.binary(max_size=3)


@settings(max_examples=80)
@given(
    st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4)),
    st.integers(0, 400),
)
def test_a_value_is_taken_as_it_stands_exactly_if_making_it_again_would_change_nothing(value, most):
    with unittest.mock.patch.object(interfaces, "MAX_ANSWER", most):
        try:
            made: object = interfaces._Plain().of(value)
        except ValueError:
            made = ...
        assert interfaces._is_plain(value) == (repr(made) == repr(value))


# -- limits ---------------------------------------------------------------------------------------------------------


def test_threat_runaway_component_an_endless_loop_ends_and_the_next_call_works():
    component = loaded(wat.spinning())
    request = ComponentCall("c", "run", {}, None, "main", "n", CALLER)
    with pytest.raises(FlowFailure, match="interrupt .it computed longer than 0.05 s"):
        in_place(invoke_node(component, "c", request, context(), SHORT))
    assert call(wat.node_06(), 1) == 1


def test_threat_runaway_component_memory_is_limited():
    with pytest.raises(FlowFailure, match="trapped: wasm trap: wasm `unreachable`"):
        call(wat.hungry(), {}, limits=DEFAULT_LIMITS._replace(memory_bytes=8 << 20))
    with pytest.raises(FlowFailure, match="exceeds memory limits"):
        call(wat.node_06(pages=64), {}, limits=DEFAULT_LIMITS._replace(memory_bytes=1 << 20))


def test_threat_runaway_component_a_trap_or_deep_recursion_ends_only_its_call():
    component = loaded(wat.trapping())
    request = ComponentCall("c", "run", {}, None, "main", "n", CALLER)
    for _ in range(3):
        with pytest.raises(
            FlowFailure, match="component c trapped: wasm trap: wasm `unreachable` instruction executed"
        ):
            in_place(invoke_node(component, "c", request, context(), DEFAULT_LIMITS))
    deep = wat.Function("invoke", {"op": "string", "envelope": wat.ENVELOPE}, wat.RESULT_06, "(call 1 (local.get 0))")
    with pytest.raises(FlowFailure, match="stack"):
        call(wat.component("greentic:component/node@0.6.0", [deep]), {})
    assert call(wat.node_06(), 1) == 1


WASI = """(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "now" (func (result u64)))))
  (import "test:host/asks@1.0.0" (instance $asks (export "ask" (func (result u32)))))
  (core func $now (canon lower (func $clock "now")))
  (core func $ask (canon lower (func $asks "ask")))
  (core module $m
    (import "h" "now" (func $now (result i64))) (import "h" "ask" (func $ask (result i32)))
    (func (export "run") (result i32) (drop (call $now)) (call $ask))
    (func (export "spin") (result i32) (loop (br 0)) (i32.const 0)))
  (core instance $i (instantiate $m (with "h" (instance (export "now" (func $now)) (export "ask" (func $ask))))))
  (func $run (result u32) (canon lift (core func $i "run")))
  (func $spin (result u32) (canon lift (core func $i "spin")))
  (instance $api (export "run" (func $run)) (export "spin" (func $spin)))
  (export "test:api/run@1.0.0" (instance $api)))"""


class Answers:
    """A host that answers one function, at once or later."""

    def __init__(self, later: bool) -> None:
        self.later = later

    def function(self, interface: str, name: str) -> object:
        async def answer() -> int:
            await asyncio.sleep(0)
            return 7

        return (lambda where, arguments: answer() if self.later else 7) if name == "ask" else None


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("loop", [False, True])
def test_a_component_that_imports_wasi_asks_the_host_like_any_other(later, loop):
    """The library polls it in a thread of its own, where nothing of ours is at hand by itself."""
    component = loaded(bytes(wat2wasm(WASI)), Answers(later))
    begin = (component.find("test:api/run@1.0.0", "run"), [], context(), DEFAULT_LIMITS)

    async def on_a_loop() -> object:
        return await component.invoke(*begin)

    assert (asyncio.run(on_a_loop()) if loop else component.call(*begin)) == 7


def test_threat_runaway_component_what_it_computes_counts_as_computing_where_it_imports_wasi():
    """Its thread is the library's: who looks at the own thread's time takes it for one that sleeps."""
    component = loaded(bytes(wat2wasm(WASI)), Answers(False))
    running = component.begin(component.find("test:api/run@1.0.0", "spin"), [], context(), SHORT)
    try:
        with pytest.raises(Trap, match="computed longer"):
            while True:
                running.advance()
        assert running.computed > SHORT.seconds
    finally:
        running.close()


def test_limits_are_read_from_the_environment():
    assert call_limits({}) == DEFAULT_LIMITS
    assert call_limits({"GREENTIC_COMPONENT_SECONDS": "2.5", "GREENTIC_COMPONENT_MEMORY_MB": "64"})[:2] == (
        2.5,
        64 << 20,
    )
    for wrong in (
        {"GREENTIC_COMPONENT_SECONDS": "x"},
        {"GREENTIC_COMPONENT_SECONDS": "-1"},
        {"GREENTIC_COMPONENT_MEMORY_MB": "99999"},
    ):
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            call_limits(wrong)


# -- imports --------------------------------------------------------------------------------------------------------

HOST_ERROR = ("record", "host-error", {"code": "string", "message": "string"})
DONE = ("enum", "done", ["ok"])
CTX = wat.opt(("record", "ctx", {"tenant": "string"}))
READ = wat.Function("read", {"key": "string", "ctx": CTX}, ("result", wat.BYTES, HOST_ERROR))
WRITE = wat.Function("write", {"key": "string", "value": wat.BYTES, "ctx": CTX}, ("result", DONE, HOST_ERROR))
DELETE = wat.Function("delete", {"key": "string", "ctx": CTX}, ("result", DONE, HOST_ERROR))
KEY = "(i32.const 16) (i32.const 3)"
NO_CTX = "(i32.const 0) (i32.const 0) (i32.const 0)"
RETURN = 2048
"""Where imports put what they return: a result whose payload, or error code, is a vector at RETURN + 4."""
SHOWN = wat.ok_06(f"(i32.load (i32.const {RETURN + 4}))", f"(i32.load (i32.const {RETURN + 8}))")
READS = f"(call $read {KEY} {NO_CTX} (i32.const {RETURN})) {SHOWN}"


def says(text: str) -> str:
    """A text at 16, as a data segment."""
    return f'(data (i32.const 16) "{text}")'


class ScriptedHttp:
    def __init__(self, answer: HttpResponse | Exception) -> None:
        self.answer, self.asked = answer, []

    async def send(self, *request: object) -> HttpResponse:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def imports(state: SimulatedState | None = None, http_client: object = None, secrets: object = None) -> HostImports:
    return HostImports(
        http_client or ScriptedHttp(HttpResponse(200, [], b"")),
        secrets or SecretFiles(None, {}),
        state or SimulatedState(),
    )


def raw(function: str, interface: str, arguments: list[object], host: HostImports, where: HostCall) -> object:
    """What an import answers, without a component."""
    answer = host.function(interface, function)(where, arguments)
    return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer


class Gated:
    """Host functions that answer only once a gate is open."""

    def __init__(self, host: HostImports) -> None:
        self.host, self.gate, self.asked = host, asyncio.Event(), 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.host, name)

    def function(self, interface: str, name: str) -> object:
        answer = self.host.function(interface, name)

        async def later(where: HostCall, arguments: list[object]) -> object:
            self.asked += 1
            await self.gate.wait()
            found = answer(where, arguments)
            return await found if asyncio.iscoroutine(found) else found

        return later


RUN = ["run", {"ctx": {}, "flow-id": "", "step-id": "", "component-id": "", "payload-cbor": b"\x00"}]


def test_threat_waiting_component_calls_that_wait_hold_up_nobody():
    async def scenario() -> None:
        state = SimulatedState()
        state.set("component:local:acme:_:_", "abc", "value")
        host = Gated(imports(state))
        slow, quick = loaded(wat.node_06(READS, {STATE: [READ]}, says("abc")), host), loaded(wat.node_06())
        waiting = [
            asyncio.ensure_future(slow.invoke(slow.entry_point[1], RUN, context(), DEFAULT_LIMITS)) for _ in range(100)
        ]
        while host.asked < len(waiting):
            await asyncio.sleep(0)
        assert await quick.invoke(quick.entry_point[1], RUN, context(), DEFAULT_LIMITS)
        assert not any(call.done() for call in waiting)
        waiting.pop().cancel()  # a caller who leaves takes its call along
        host.gate.set()
        assert {answer[1]["output-cbor"] for answer in await asyncio.gather(*waiting)} == {b'"value"'}

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_threat_waiting_component_a_call_that_is_never_answered_ends_by_its_deadline():
    async def scenario() -> None:
        slow = loaded(wat.node_06(READS, {STATE: [READ]}, says("abc")), Gated(imports(SimulatedState())))
        limits = DEFAULT_LIMITS._replace(seconds=0.2)
        with pytest.raises((Trap, HostFailure), match="waited longer than 0.2 s"):
            await slow.invoke(slow.entry_point[1], RUN, context(), limits)

    asyncio.run(asyncio.wait_for(scenario(), 60))


STATE = "greentic:state/state-store@1.0.0"
SECRETS = "greentic:secrets-store/secrets-store@1.0.0"


def test_state_is_read_through_a_component():
    state = SimulatedState()
    state.set("component:local:acme:_:_", "abc", "value")
    component = loaded(wat.node_06(READS, {STATE: [READ]}, says("abc")), imports(state))
    answer = component.call(
        component.entry_point[1],
        ["run", {"ctx": {}, "flow-id": "", "step-id": "", "component-id": "", "payload-cbor": b"\x00"}],
        context(),
        DEFAULT_LIMITS,
    )
    assert answer[1]["output-cbor"] == b'"value"'
    assert component.imports[STATE] == ("read",) and component.unanswered == []


def test_state_is_granted_scoped_and_json():
    host, state = imports(state := SimulatedState()), state
    assert raw("write", STATE, ["k", b'{"a": 1}', None], host, context()) == ("ok", "ok") and raw(
        "read", STATE, ["k", None], host, context()
    ) == ("ok", b'{"a": 1}')
    other = context(caller=replace(CALLER, tenant="else"))
    assert raw("read", STATE, ["k", None], host, other)[1]["code"] == "not_found"
    assert raw("write", STATE, ["k", b"no json", None], host, context())[1]["code"] == "internal"
    withheld = context(grants=Grants(state_read=False, state_write=False))
    assert [
        raw(n, STATE, a, host, withheld)[1]["code"]
        for n, a in (("read", ["k", None]), ("write", ["k", b"1", None]), ("delete", ["k", None]))
    ] == ["denied"] * 3
    assert (
        raw("delete", STATE, ["k", None], host, context()) == ("ok", "ok")
        and raw("read", STATE, ["k", None], host, context())[0] == "err"
    )


def test_secrets_are_declared_found_or_told_apart(tmp_path):
    (tmp_path / "api_token").write_bytes(b"s3cret\n")
    host = imports(secrets=SecretFiles(None, {"GREENTIC_SECRETS_DIR": str(tmp_path)}))
    granted = context(grants=Grants(secrets=frozenset({"api_token", "gone"})))
    assert raw("get", SECRETS, ["API-Token"], host, granted) == ("ok", b"s3cret") and raw(
        "get", SECRETS, ["gone"], host, granted
    ) == ("err", "not-found")
    log: list[str] = []
    assert raw("get", SECRETS, ["other"], host, context(log)) == ("err", "denied") and raw(
        "get", SECRETS, [" "], host, context()
    ) == ("err", "invalid-key")
    assert "not declared" in log[0]
    assert (
        raw("put", "greentic:secrets-store/secrets-store@1.1.0", ["api_token", b"x"], host, granted) is None
        and (tmp_path / "api_token").read_bytes() == b"s3cret\n"
    )
    (tmp_path / "gone").mkdir()
    assert raw("get", SECRETS, ["gone"], host, granted) == ("err", "internal")
    (tmp_path / "api_token").write_bytes(b"s" * (1 << 20))
    assert raw("get", SECRETS, ["api_token"], host, granted) == ("ok", b"s" * (1 << 20))
    (tmp_path / "api_token").write_bytes(b"s" * ((1 << 20) + 1))  # a part of it would pass for the whole
    assert raw("get", SECRETS, ["api_token"], host, granted) == ("err", "internal")


def test_a_secret_error_crosses_the_border():
    get = wat.Function(
        "get",
        {"key": "string"},
        ("result", wat.opt(wat.BYTES), ("enum", "secrets-error", ["not-found", "denied", "invalid-key", "internal"])),
    )
    at = wat.payload_offset(get.result)
    body = f"(call $get {KEY} (i32.const {RETURN})) (i32.store8 (i32.const 3000) (i32.load8_u (i32.const {RETURN + at}))) {wat.ok_06('(i32.const 3000)', '(i32.const 1)')}"
    wasm = wat.node_06(body, {SECRETS: [get]}, says("abc"))
    assert call(wasm, {}, host=imports(), grants=Grants(secrets=frozenset({"abc"}))) == 0  # not-found
    assert call(wasm, {}, host=imports()) == 1  # denied


def test_development_secrets_are_lines_of_a_file(tmp_path):
    file = tmp_path / ".greentic" / "dev" / ".dev.secrets.env"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# a comment\nTOKEN='general'\nsecrets://local/acme/_/messaging/token=\"for acme\"\nsecrets://local/else/_/x/token=other\nexport OTHER=1\nnoise\n"
    )
    found = SecretFiles(tmp_path, {})
    assert (
        found.get(CALLER, "token") == b"for acme"
        and found.get(replace(CALLER, tenant="third"), "token") == b"general"
        and found.get(CALLER, "other") == b"1"
    )
    assert (
        found.get(CALLER, "nope") is None
        and SecretFiles(tmp_path, {"GREENTIC_DEV_SECRETS_PATH": str(tmp_path / "none")}).get(CALLER, "token") is None
    )
    assert [canonical_name(n) for n in ("API-Token", "a/b c", "__x__", "é")] == ["api_token", "a_b_c", "x", "secret"]


HTTP = "greentic:http/http-client@1.1.0"
REQUEST = {"method": "GET", "url": "http://x/", "headers": [("a", "b")], "body": None}


def test_http_answers_and_refusals_are_values():
    answering = ScriptedHttp(HttpResponse(201, [("x", "y")], b"body"))
    log: list[str] = []
    options = {"timeout-ms": 5, "allow-insecure": True, "follow-redirects": None}
    assert raw("send", HTTP, [REQUEST, options, None], imports(http_client=answering), context(log)) == (
        "ok",
        {"status": 201, "headers": [("x", "y")], "body": b"body"},
    )
    assert answering.asked[0][4] == 0.005 and "`allow-insecure` is not supported" in log[0]
    assert raw(
        "send",
        "greentic:http/client@1.0.0",
        [REQUEST, None],
        imports(http_client=ScriptedHttp(EgressFailed("gone"))),
        context(),
    )[1] == {"code": "unavailable", "message": "gone"}
    assert (
        raw("send", HTTP, [REQUEST, None, None], imports(http_client=ScriptedHttp(EgressRefused("no"))), context())[1][
            "code"
        ]
        == "denied"
    )
    assert (
        raw("send", HTTP, [REQUEST, None, None], imports(), context(grants=Grants(http=False)))[1]["message"]
        == "http client disabled by policy"
    )
    old = "greentic:host/http-v1@1.0.0"
    assert raw(
        "request", old, ["GET", "http://x/", [("a", "b"), "c: d"], None], imports(http_client=answering), context()
    ) == ("ok", b"body") and answering.asked[-1][2] == [("a", "b"), ("c", "d")]
    assert raw(
        "request",
        old,
        ["GET", "http://x/", [], b""],
        imports(http_client=ScriptedHttp(EgressFailed("gone"))),
        context(),
    ) == ("err", "unavailable: gone")


def test_the_other_imports():
    log: list[str] = []
    host = imports()
    assert (
        raw("log", "greentic:telemetry/logger-api@1.0.0", [None, [("k", "v")], None], host, context(log))
        == ("ok", "ok")
        and "k=v" in log[0]
    )
    assert (
        raw("should-cancel", "greentic:component/control@0.6.0", [], host, context()) is False
        and raw("get", "greentic:host/kv-v1@1.0.0", ["n", "k"], host, context()) is None
    )
    configured = context()
    configured.config = {"base": "https://x", "n": {"a": 1}}
    assert [raw("get", "greentic:runtime-config@1.0.0", [k], host, configured) for k in ("base", "n", "z")] == [
        "https://x",
        '{"a": 1}',
        None,
    ]
    with pytest.raises(HostFailure, match="no OAuth broker"):
        raw("get-token", "greentic:oauth-broker/broker-v1@1.0.0", ["x"], host, context())
    assert host.function("unknown:x/y@1.0.0", "z") is None


def test_a_missing_import_is_told_when_it_is_called_and_only_then():
    strange = wat.Function("f", {"key": "string"}, "u32")
    unused = wat.node_06("", {"strange:thing/api@2.0.0": [strange]})
    component = loaded(unused)
    assert component.unanswered == ["strange:thing/api@2.0.0#f"] and call(unused, 5) == 5
    used = wat.node_06(f"(drop (call $f {KEY})) {wat.ok_06(*wat.payload_06())}", {"strange:thing/api@2.0.0": [strange]})
    with pytest.raises(FlowFailure, match="the import `strange:thing/api@2.0.0#f` is not provided by this worker"):
        call(used, 5)


def test_a_host_function_that_breaks_ends_its_call_alone():
    class Broken:
        def function(self, interface: str, name: str):
            return lambda where, arguments: 1 / 0

    wasm = wat.node_06(READS, {STATE: [READ]}, says("abc"))
    with pytest.raises(FlowFailure, match="a host function failed: ZeroDivisionError"):
        call(wasm, {}, host=Broken())
    assert call(wat.node_06(), 1) == 1


def test_components_are_called_from_many_threads_without_mixing_callers():
    state = SimulatedState()
    for tenant in ("a", "b", "c", "d"):
        state.set(f"component:local:{tenant}:_:_", "abc", tenant * 20)
    component = loaded(wat.node_06(READS, {STATE: [READ]}, says("abc")), imports(state))
    wrong: list[object] = []

    def work(tenant: str) -> None:
        for _ in range(300):
            where = context(caller=replace(CALLER, tenant=tenant))
            answer = component.call(
                component.entry_point[1], ["run", {"ctx": {}, "payload-cbor": b""}], where, DEFAULT_LIMITS
            )
            if answer[1]["output-cbor"] != json.dumps(tenant * 20).encode():
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(t,)) for t in ("a", "b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_many_calls_take_no_more_memory():
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); import wat\n"
        "from test_wasm import loaded, context, wat, imports, STATE, READ, READS, says, DEFAULT_LIMITS, SimulatedState\n"
        "s = SimulatedState(); s.set('component:local:acme:_:_', 'abc', 'x' * 500)\n"
        "c = loaded(wat.node_06(READS, {STATE: [READ]}, says('abc')), imports(s)); e = c.entry_point[1]\n"
        "go = lambda n: [c.call(e, ['run', {'ctx': {}, 'payload-cbor': b'p' * 500}], context(), DEFAULT_LIMITS) and None for _ in range(n)]\n"
        "go(2000); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; go(8000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 2048, done.stdout  # KiB; a leak of one argument a call would be 4000


# -- egress ---------------------------------------------------------------------------------------------------------


def test_egress_policies():
    public, hosts = EgressPolicy(), read_policy("api.example.com, *.foo.org ,127.0.0.1")
    assert (
        read_policy(None) == public
        and read_policy("none").mode == "none"
        and hosts.hosts == ("api.example.com", "*.foo.org", "127.0.0.1")
    )
    assert (
        refused_host(public, "example.com") is None
        and "metadata" in refused_host(public, "Metadata.Google.Internal.")
        and refused_host(EgressPolicy("none"), "x") == "http client disabled by policy"
    )
    assert [refused_host(hosts, h) is None for h in ("API.example.com", "a.foo.org", "foo.org", "evil.com", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (
        "not public" in refused_address(public, "10.0.0.1")
        and "not public" in refused_address(public, "::ffff:127.0.0.1")
        and refused_address(public, "1.1.1.1") is None
    )
    assert (
        refused_address(hosts, "10.0.0.1") is None
        and refused_address(EgressPolicy("unrestricted"), "169.254.169.254") is not None
        and refused_address(hosts, "fe80::1%eth0") is not None
    )
    for wrong in ("http://x", "x/y"):
        with pytest.raises(ValueError):
            read_policy(wrong)


class Peer(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("X-Got", self.headers.get("X-Sent", ""))
        self.send_header("Location", "http://169.254.169.254/")
        self.end_headers()
        self.wfile.write(body.upper())

    def log_message(self, *a: object) -> None:
        pass


class Requests:
    """The client, from a thread without a loop."""

    def __init__(self, policy: EgressPolicy) -> None:
        self.client = PolicedHttp(policy)

    def send(self, *request: object) -> HttpResponse:
        return asyncio.run(self.client.send(*request))


@pytest.fixture
def peer():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_requests_of_components_go_where_the_policy_lets_them(peer):
    allowed = Requests(read_policy("127.0.0.1"))
    answer = allowed.send("post", f"http://127.0.0.1:{peer}/x?q=1", [("X-Sent", "v"), ("Host", "evil")], b"hi", 5)
    assert (answer.status, answer.body, dict(answer.headers)["x-got"]) == (200, b"HI", "v")
    assert allowed.send("POST", f"http://127.0.0.1:{peer}/moved", [], None, 5).status == 302  # not followed
    for url, error in (
        (f"http://localhost:{peer}/", EgressRefused),
        ("ftp://127.0.0.1/", EgressRefused),
        ("http://127.0.0.1:1/", EgressFailed),
        ("http://[", EgressFailed),
        ("http://127.0.0.1:99999/", EgressFailed),
    ):
        with pytest.raises(error):
            allowed.send("GET", url, [], None, 5)
    with pytest.raises(EgressFailed, match="the method is none of"):
        allowed.send("TRACE", "http://127.0.0.1/", [], None, 5)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{}/",
        "http://0x7f000001:{}/",
        "http://2130706433:{}/",
        "http://[::ffff:127.0.0.1]:{}/",
        "http://169.254.169.254/",
        "http://localhost:{}/",
    ],
)
def test_threat_ssrf_components_reach_no_private_address_by_any_spelling(peer, url):
    with pytest.raises((EgressRefused, EgressFailed)):
        Requests(EgressPolicy()).send("POST", url.format(peer), [], b"", 5)


# -- the compile cache ----------------------------------------------------------------------------------------------


def test_compiled_code_is_kept_and_loaded(tmp_path):
    cache = CompileCache(tmp_path / "cache")
    first = cache.load(engine(), wat.node_06(), "c")
    assert first.seconds > 0 and CompileCache(tmp_path / "cache").load(engine(), wat.node_06(), "c").seconds == 0
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700 and cache.has(wat.sha256(wat.node_06()))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "no-record", "wrong-record"])
def test_threat_foreign_native_code_an_entry_that_is_not_ours_is_made_again(tmp_path, damage):
    cache = CompileCache(tmp_path / "cache")
    cache.load(engine(), wat.node_06(), "c")
    code, record = next(cache.directory.glob("*.cwasm")), next(cache.directory.glob("*.sha256"))
    data = bytearray(code.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        code.write_bytes(data)
    elif damage in ("cut", "empty"):
        code.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    elif damage == "no-record":
        record.unlink()
    else:
        record.write_text("0" * 64)
    again = cache.load(engine(), wat.node_06(), "c")
    assert again.seconds > 0 and cache.load(engine(), wat.node_06(), "c").seconds == 0


def test_threat_foreign_native_code_compiled_code_under_a_components_name_is_refused():
    code = bytes(c.Component(engine().engine, wat.node_06()).serialize())
    with pytest.raises(MalformedArtifact, match="is no WebAssembly component"):
        check_component(code, "c")
    with pytest.raises(MalformedArtifact, match="core WebAssembly module"):
        check_component(b"\0asm\x01\0\0\0" + bytes(20), "c")
    with pytest.raises(MalformedArtifact, match="does not compile"):
        CompileCache().load(engine(), wat.node_06()[:200], "c")


def test_a_cache_that_others_may_write_is_not_used(tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(BootError, match="this user alone"):
        CompileCache(tmp_path / "open")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(BootError):
        CompileCache(tmp_path / "link")
    assert (
        default_directory({"GREENTIC_COMPONENT_CACHE_DIR": "/x"}).as_posix() == "/x"
        and default_directory({"HOME": "/h"}).as_posix() == "/h/.cache/greentic/components"
    )


def test_a_home_that_cannot_be_written_costs_only_time():
    cache = CompileCache(default_directory({"HOME": "/proc/nowhere"}))
    assert (
        cache.load(engine(), wat.node_06(), "c").seconds > 0 and cache.load(engine(), wat.node_06(), "c").seconds == 0
    )


def test_the_cache_is_kept_below_a_size(tmp_path):
    cache = CompileCache(tmp_path / "cache")
    for number in range(4):
        cache.load(engine(), wat.busy(number + 1), "c")
        record = cache.directory / f"{wat.sha256(wat.busy(number + 1))}.sha256"
        os.utime(record, (number, number))
    size = next(cache.directory.glob("*.cwasm")).stat().st_size
    assert cache.prune(2 * size + size // 2) == 2
    assert [cache.has(wat.sha256(wat.busy(n + 1))) for n in range(4)] == [False, False, True, True]


def test_several_processes_compile_a_component_once(tmp_path):
    path = tmp_path / "c.wasm"
    path.write_bytes(wat.node_06())
    code = (
        "import sys, pathlib; from greentic.wasm.compile_cache import CompileCache; from greentic.wasm.engine import engine\n"
        "print(CompileCache(pathlib.Path(sys.argv[2])).load(engine(), pathlib.Path(sys.argv[1]).read_bytes(), 'c').seconds > 0)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert sorted(p.communicate(timeout=120)[0].strip() for p in started) == ["False", "False", "False", "True"]


LITTLE_ADDRESS_SPACE = """
import pathlib, resource, sys
import test_wasm, wat
from greentic.ground.errors import IoError, MalformedArtifact
from greentic.wasm.compile_cache import CompileCache
from greentic.wasm.engine import engine

def bound(more):
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))

bound(1 << 30)
assert engine().narrow
cache = CompileCache(pathlib.Path(sys.argv[1]))
assert test_wasm.call(wat.node_06(), {"a": "b" * 300_000}) == {"a": "b" * 300_000}  # its memory grows
cache.load(engine(), wat.node_06(), "small")
step = "(i32.store (i32.const 70000) (i32.mul (i32.load (i32.const 70000)) (i32.const 3)))"
large = wat.node_06(step * 40_000 + wat.ok_06(*wat.payload_06()))
bound(24 << 20)
for wasm, name in ((large, "large"), (large[:-9], "broken")):
    try:
        cache.load(engine(), wasm, name)
    except (IoError, MalformedArtifact) as error:
        print(type(error).__name__, error.message, error.hint)
    bound(1 << 30)
print(cache.load(engine(), large, "large").seconds > 0, cache.load(engine(), large, "large").seconds)
"""


def test_little_address_space_is_told_and_what_fits_is_served(tmp_path):
    """The library ends the process that finds no memory, and it reserved 2 GiB for each memory to grow."""
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_ADDRESS_SPACE, str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(__file__),
    )
    assert done.returncode == 0, done.stderr
    large, broken, kept = done.stdout.splitlines()
    assert (
        large.startswith("IoError memory: component large of 0.") and "does not compile in the address space" in large
    )
    assert "`ulimit -v`" in large
    assert broken.startswith("MalformedArtifact component broken does not compile: ")
    assert kept == "True 0.0"


def test_a_process_that_is_stopped_while_it_compiles_holds_nobody_up_for_good(tmp_path, monkeypatch):
    monkeypatch.setattr(optional, "_lacking", {})
    wasm, clock = wat.node_06(), FakeClock()
    cache = CompileCache(tmp_path, clock)
    with (cache.directory / f".{wat.sha256(wasm)}.lock").open("wb") as stopped:
        exclusive(stopped.fileno())
        made = cache.load(engine(), wasm, "echo")
        assert clock.monotonic() >= COMPILING_SECONDS and made.component is not None
        assert not cache.has(wat.sha256(wasm))  # whoever holds the lock may be writing there
        assert any("component echo: " in text for text in optional.lacking())
    cache.load(engine(), wasm, "echo")
    assert cache.has(wat.sha256(wasm))


def test_the_host_says_which_library_it_is_made_for(monkeypatch):
    assert native.check() is None
    monkeypatch.setattr(native, "SUPPORTED", "0.0.0")
    assert "is made for 0.0.0" in native.check()
