"""What hostile flows, components, callers and peers can do to a worker: nothing but fail by themselves."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import cbor2
import pytest
from msgspec.structs import replace
from wasmtime import wat2wasm

import wat
from conftest import make_pack
from greentic.components.host import MAX_LOGS, EgressFailed, EgressRefused
from greentic.components.interfaces import _from_cbor
from greentic.components.runtime import ComponentRuntime, RevisionComponents
from greentic.components.secret_files import SecretFiles
from greentic.expressions.template import compile_value
from greentic.flow import engine as flow_engine
from greentic.flow.engine import MAX_STEPS, Exhausted
from greentic.flow.results import interpret
from greentic.ground.errors import FlowFailure, MalformedArtifact
from greentic.net.egress import EgressPolicy, read_policy, refused_address
from greentic.pack import manifest
from greentic.pack.load import load_pack
from greentic.sessions.directory_store import DirectoryStore
from greentic.sessions.memory_store import MemoryStore
from greentic.sessions.stored_state import StoredState
from greentic.sessions.value_store import MAX_WAITING
from greentic.wasm.call_limits import DEFAULT_LIMITS
from greentic.wasm.compile_cache import CompileCache
from greentic.wasm.component import HostFailure
from greentic.wasm.engine import engine
from greentic.wasm.values import ValueMismatch, converter_for
from test_activate import ECHO, Stage, placed
from test_distribute import EvilServer
from test_flow import World, flow, node, to
from test_wasm import CALLER, Requests, call, context, loaded

# -- flows ----------------------------------------------------------------------------------------------------------


def test_calls_of_flows_share_one_budget_of_steps():
    again = [node(f"n{i}", "flow.call", {"flow_id": "main"}, to(f"n{i + 1}")) for i in range(5)]
    world = World(flow(*again, node("n5", "emit.response", {"text": "x"})))
    with pytest.raises(Exhausted, match=f"more than {MAX_STEPS} steps"):
        world.start({})


def test_a_run_has_an_end_in_time(monkeypatch):
    monkeypatch.setattr(flow_engine, "MAX_SECONDS", 0.001)
    with pytest.raises(Exhausted, match="took longer"):
        World(flow(node("a", "var.set", {"name": "x", "value": 1}, to("a")))).start({})


@pytest.mark.parametrize(
    "value", ["{{vars.x}}{{vars.x}}{{vars.x}}{{vars.x}}!", ["{{vars.x}}", "{{vars.x}}"], {"a": "{{vars.x}}"}]
)
def test_values_that_grow_in_every_step_end_the_run(value):
    grow = node("a", "emit.log", {"text": "x"}, to("a"))
    grow["input"]["mapping"] = {"text": "x", "vars_out": {"x": value}}
    world = World(flow(node("s", "var.set", {"name": "x", "value": "0123456789"}, to("a")), grow))
    with pytest.raises(FlowFailure, match="larger than|deeper than|more than"):
        world.start({})


@pytest.mark.parametrize(
    "template",
    [
        "code {{007}}",
        "x {{1e999}}",
        "a {{#if (eq x 01)}}y{{/if}}",
        "{{entry.list[" + "9" * 5000 + "]}}",
        "{{" + "(" * 3000,
    ],
)
def test_odd_numbers_in_templates_are_faults_of_their_node(template):
    compiled = compile_value(template)
    if compiled.faults:
        assert "template render failed" in compiled.faults[0]
    else:
        assert World(flow(node("a", "emit.response", {"text": template}))).start({"list": [1]}).output == [{"text": ""}]


def test_threat_confused_types_an_error_is_an_error_whatever_ok_says():
    for value in ({"ok": True, "error": {"code": "x"}}, {"ok": None, "error": {"code": "x"}}, {"error": {"code": "x"}}):
        with pytest.raises(FlowFailure, match="x"):
            interpret("c", value, catches_errors=False)
    assert interpret("c", {"ok": True, "error": {"code": "x"}, "result": 1}, catches_errors=False).output.ok


def test_flows_of_an_extension_replace_those_of_the_manifest(tmp_path):
    flows = {"flows": [{"id": "main", "flow_type": "messaging", "start": "two", "nodes": {
        "one": {"component_id": "emit.response", "payload": {"text": "one"}}, "two": {"component": "emit.response", "operation_payload": {"text": "two {{entry.text}}"}},
    }}]}  # fmt: skip
    data = make_pack(
        "p",
        ECHO,
        {"echo": wat.node_06()},
        extensions={"greentic.pack.runtime_flow": {"kind": "x", "version": "1", "inline": flows}},
    )
    assert Stage(tmp_path, data).turn({"text": "hi"}).output == [{"text": "two hi"}]
    with pytest.raises(MalformedArtifact, match="no list `flows`"):
        load_pack(placed(tmp_path, make_pack("p", ECHO, extensions={"greentic.pack.runtime_flows": {"inline": {}}})))


# -- components -----------------------------------------------------------------------------------------------------


def test_a_damaged_manifest_says_what_of_it_not_what_the_library_did():
    for value, told in (
        ({"at": cbor2.CBORTag(0, "2026-01-01T00:00:00Z")}, "it uses a tag, which no pack may"),
        ({1: "a"}, "not int"),
        ({}, "pack manifest schema is 'missing', expected `pack-v1`"),
        ({"schema_version": "pack-v1"}, "invalid symbol index nothing in pack_ids"),
    ):
        with pytest.raises(MalformedArtifact) as error:
            manifest.decode(cbor2.dumps(value))
        assert told in error.value.message


def test_threat_cbor_bomb_few_bytes_never_become_many():
    chain = b"\x80"
    for _ in range(40):
        chain = b"\xd8\x1c\x82" + chain + b"\xd8\x1d\x00"
    wide = cbor2.dumps([["x" * 1000] * 300] * 100)
    strings = cbor2.dumps(["a" * 5000] * 5000, string_referencing=True)
    for bomb in (
        chain,
        strings,
        cbor2.dumps(cbor2.CBORTag(5, [10**9, 1])),
        cbor2.dumps(cbor2.CBORTag(35, "(a{999}){999}")),
        wide,
        b"\x81" * 5000,
        b"\xa1\x82\x01\x02\x03",
        b"\xc2\x59\x40\x00" + b"\xff" * 16384,
    ):
        with pytest.raises(FlowFailure, match="is no CBOR"):
            _from_cbor(bomb, "it")
    plain = {"a": [1, 2.5, None, True, {"b": "c"}]}
    assert _from_cbor(cbor2.dumps(plain), "it") == plain and _from_cbor(cbor2.dumps(b"\x01\x02"), "it") == [1, 2]


def test_values_in_errors_are_described_and_not_shown():
    from wasmtime import component as c

    for value, kind in (
        ("planted-secret", c.U32()),
        ({"planted-secret": 1}, c.String()),
        (b"planted-secret", c.Bool()),
        ("\ud800", c.Char()),
        (1e39, c.F32()),
    ):
        with pytest.raises(ValueMismatch) as error:
            converter_for(kind).lower(value, [])
        assert "planted" not in str(error.value)


def test_an_interrupt_in_a_host_function_is_not_swallowed():
    class Stop(BaseException):
        pass

    class Host:
        def function(self, interface: str, name: str):
            def stop(context: object, arguments: list[object]) -> object:
                raise Stop

            return stop

    ping = wat.Function("ping", {}, "u32")
    wasm = wat.node_06(f"(drop (call $ping)) {wat.ok_06(*wat.payload_06())}", {"test:host/ping@1.0.0": [ping]})
    with pytest.raises(Stop):
        call(wasm, 1, host=Host())

    class Wrong(Host):
        def function(self, interface: str, name: str):
            return lambda context, arguments: {}["planted-secret"]

    with pytest.raises((HostFailure, FlowFailure)) as error:
        call(wasm, 1, host=Wrong())
    assert "planted" not in str(error.value)


def test_an_import_with_resources_that_nobody_answers_ends_a_call_with_the_reason():
    """`wasi:http` would go past the rules of egress; the text says what to use instead."""
    core = '(core module $m (func (export "run") (result i32) (i32.const 7))) (core instance $i (instantiate $m))'
    calling = (
        '(core func $new (canon lower (func $t "[constructor]fields"))) '
        '(core module $m (import "h" "new" (func $new (result i32))) (func (export "run") (result i32) (call $new))) '
        '(core instance $i (instantiate $m (with "h" (instance (export "new" (func $new))))))'
    )
    out = '(func $run (result u32) (canon lift (core func $i "run"))) (instance $api (export "run" (func $run))) (export "test:api/run@1.0.0" (instance $api))'
    for imported, told in (
        ("wasi:http/types@0.2.3", "ask through `greentic:http/http-client`"),
        ("other:made-up/things@0.9.0", "is not provided by this worker"),
    ):
        types = f'(import "{imported}" (instance $t (export "fields" (type $f (sub resource))) (export "[constructor]fields" (func (result (own $f))))))'
        component = loaded(bytes(wat2wasm(f"(component {types} {core} {out})")))
        export = component.find("test:api/run@1.0.0", "run")
        assert export is not None and component.unanswered == [f"{imported}#[constructor]fields"]
        assert component.call(export, [], context(), DEFAULT_LIMITS) == 7  # it imports what it never calls
        assert told in component.explain()[0]
        component = loaded(bytes(wat2wasm(f"(component {types} {calling} {out})")))
        with pytest.raises(HostFailure, match=told):
            component.call(component.find("test:api/run@1.0.0", "run"), [], context(), DEFAULT_LIMITS)
    plain = loaded(
        bytes(wat2wasm(f'(component (import "test:other/none@1.0.0" (instance (export "do" (func)))) {core} {out})'))
    )
    export = plain.find("test:api/run@1.0.0", "run")
    assert export is not None and plain.call(export, [], context(), DEFAULT_LIMITS) == 7


def test_a_component_logs_so_much_a_call_and_no_more():
    log: list[str] = []
    one = context(log)
    for _ in range(MAX_LOGS * 3):
        one.log("stdout", "x" * 100_000)
    assert len(log) == MAX_LOGS + 1 and max(map(len, log)) < 5000


def test_compiled_code_belongs_to_the_bytes_and_not_to_a_claim(tmp_path):
    cache, wasm = CompileCache(tmp_path / "c"), wat.node_06()
    with pytest.raises(MalformedArtifact, match="has the sha256"):
        cache.load(engine(), wasm, "c", sha256="0" * 64)
    assert cache.load(engine(), wasm, "c", sha256=wat.sha256(wasm)).seconds > 0


def test_results_of_another_type_fail_the_call(tmp_path):
    for result, body in (("u32", "(i32.const 7)"), (None, "")):
        wasm = wat.component(
            "greentic:component/node@0.6.0",
            [wat.Function("invoke", {"op": "string", "envelope": "string"}, result, body)],
        )
        with pytest.raises(FlowFailure):
            call(wasm, {"a": 1})
        wasm = wat.component(
            "greentic:component/component-runtime@0.6.0",
            [wat.Function("run", {"a": wat.BYTES, "b": wat.BYTES}, result, body)],
        )
        with pytest.raises(FlowFailure):
            call(wasm, {"a": 1})


def test_configuration_is_what_is_published_then_a_declared_secret(tmp_path, monkeypatch):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "api_key").write_text("from-secret\r\n")
    monkeypatch.setenv("GREENTIC_SECRETS_DIR", str(tmp_path / "secrets"))
    pack = load_pack(
        placed(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()}, secret_requirements=[{"key": "API_KEY"}]))
    )
    runtime = ComponentRuntime(None, StoredState(MemoryStore()), lambda *_: None)
    calls = RevisionComponents((pack,), runtime, {"pack": {"base": "https://x", "n": 3}}).of_pack("p")
    ready = calls._own["echo"]
    one = calls._host("echo", ready, type("C", (), {"caller": CALLER, "trace": None})(), calls._config)
    get = runtime.made.host.function("greentic:runtime-config@1.0.0", "get")
    assert [asyncio.run(get(one, [key])) for key in ("base", "n", "API_KEY", "other")] == [
        "https://x",
        "3",
        "from-secret",
        None,
    ]


def test_the_secret_of_the_nearest_scope_wins(tmp_path):
    file = tmp_path / "dev"
    file.write_text("name=general\nsecrets://local/acme/_/x/name=tenant\nsecrets://local/acme/red/x/name=team\n")
    secrets = SecretFiles(None, {"GREENTIC_DEV_SECRETS_PATH": str(file)})
    assert [
        secrets.get(replace(CALLER, **more), "name")
        for more in ({"team": "red"}, {"team": "blue"}, {"tenant": "other"})
    ] == [b"team", b"tenant", b"general"]


# -- requests of components -----------------------------------------------------------------------------------------


HTTP = Requests(read_policy("127.0.0.1"))


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000],
)
def test_threat_slow_peer_a_request_ends_by_its_deadline_however_slowly_it_drips(answer):
    began = time.monotonic()
    with pytest.raises(EgressFailed, match="no answer within"):
        HTTP.send("GET", EvilServer(answer, pause=0.02).url, [], None, 0.4)
    assert time.monotonic() - began < 20  # the whole answer would take longer than a minute


def test_answers_are_whole_and_bounded():
    for answer, why in (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "ended after 5 of 10"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000), "larger than"),
        (b"gibberish\r\n\r\n", "no HTTP"),
    ):
        with pytest.raises(EgressFailed, match=why):
            HTTP.send("GET", EvilServer(answer).url, [], None, 5)


@pytest.mark.parametrize(
    "headers",
    [
        [("X A", "b")],
        [("X\tA", "b")],
        [("A", "b\r\nHost: evil")],
        [("A", "b\n c")],
        [("A", "planted-secret\x00")],
        [("", "b")],
        [("A:", "b")],
        [("é", "b")],
    ],
)
def test_threat_header_injection_is_refused_and_not_shown(headers):
    peer = EvilServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(EgressFailed) as error:
        HTTP.send("GET", peer.url, headers, None, 5)
    assert "planted" not in str(error.value) and peer.requests == []
    for name in ("Upgrade", "TE", "Expect", "Proxy-Authorization", "connection", "Content-length"):
        HTTP.send("GET", peer.url, [(name, "planted")], None, 5)
    assert all(b"planted" not in request for request in peer.requests)


@pytest.mark.parametrize(
    "url",
    [
        "http://exa mple.com/",
        "http://a\x7fb/",
        "http://127.0.0.1/planted secret",
        "http://127.0.0.1/a\r\nb",
        "http://[::1%25x]/",
        "http://é/",
    ],
)
def test_odd_urls_are_failures_that_the_component_gets_as_values(url):
    with pytest.raises((EgressFailed, EgressRefused)) as error:
        Requests(read_policy("unrestricted")).send("GET", url, [], None, 1)
    assert "planted" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::a9fe:a9fe",
        "::ffff:0:a9fe:a9fe",
        "fd00:ec2::23",
        "fd20:ce::254",
    ],
)
def test_threat_ssrf_addresses_that_lead_to_a_metadata_service(address):
    assert refused_address(EgressPolicy("unrestricted"), address) is not None


@pytest.mark.parametrize("address", ["64:ff9b::a00:1", "2002:a00:1::", "fec0::1", "::1", "fd12::1", "::7f00:1"])
def test_threat_ssrf_addresses_that_lead_to_a_private_network(address):
    assert refused_address(EgressPolicy("public"), address) is not None
    assert refused_address(EgressPolicy("public"), "64:ff9b::808:808") is None and read_policy("[::1]").hosts == (
        "::1",
    )


# -- where turns run and wait ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_few_wait_for_a_conversation_and_others_do_not_wait_for_it(tmp_path, kind):
    values = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path)
    failed: list[str] = []
    got = threading.Semaphore(0)

    def want() -> None:
        try:
            with values.hold("busy"):
                pass
        except FlowFailure as failure:
            failed.append(str(failure))
        got.release()

    with values.hold("busy"):
        threads = [threading.Thread(target=want) for _ in range(MAX_WAITING + 3)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            assert got.acquire(timeout=30)
        with values.hold("other"):
            assert len(failed) == 3 and all("are waiting already" in text for text in failed)
    for thread in threads:
        thread.join()
    assert len(failed) == 3


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    values = DirectoryStore(tmp_path / "values")
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda self, target: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(FlowFailure, match="No space"):
        values.set("k", b"v")
    assert list((tmp_path / "values").iterdir()) == []


def test_threat_deep_body_ends_as_a_failed_run():
    deep: object = "x"
    for _ in range(5000):
        deep = [deep]
    for template in ("a {{entry.k}}", "{{entry.k}}"):
        with pytest.raises(FlowFailure, match="recursion|deeper than"):
            World(flow(node("a", "emit.response", {"text": template}))).start({"k": deep})
    lookup = World(flow(node("a", "emit.response", {"text": "a {{lookup entry.list entry.k}}"})))
    assert lookup.start({"list": [1], "k": "9" * 5000}).output == [{"text": "a "}]


def test_threat_runaway_component_a_hundred_thousand_mixed_calls_leave_nothing():
    """Answered, abandoned while suspended, trapped, out of time, out of memory, with a host that breaks or never answers."""
    program = Path(__file__).with_name("mixed_calls.py")
    done = subprocess.run([sys.executable, str(program), "100000"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["calls"] == found["suspended"] == 0 and sum(found["ended"].values()) == 100_000, found
    assert {"answered", "abandoned", "Trap", "HostFailure", "Waited"} <= set(found["ended"]), found
    assert found["grown"] < 16 << 10, found  # KiB; 100 bytes a call would be half of it, a store far more
