"""Rows about flows and components."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
import types
import urllib.request
from pathlib import Path

from measure import POST_LUA, ROOT, Boot, Row, author, distributor, paired, spread, timed, worker, wrk

import wat
from conftest import make_bundle, make_pack
from greentic.author.pack_build import build_pack
from greentic.ground.going import in_place
from greentic.pack.archive import PackArchive
from simulators import start
from test_activate import Stage, component_node
from test_flow import World, flow, node, to, when

CALLS = 2000
PAYLOAD = {"text": "hi", "numbers": list(range(40)), "note": "some words to carry along, as a small message has them"}
ECHO = {"main": {"nodes": [component_node("echo", "{{entry.text}}")]}}


def component_rows(scratch: Path) -> list[Row]:
    """Every row of this module; `scratch/dist` is served where a distributor is needed."""
    rows = [*_call_rows(), _memory_row(), _flow_row(), _compile_row(scratch)]
    return rows + _turn_rows(scratch) + _boot_rows(scratch) + [_probe_row(scratch)]


def _call_rows() -> list[Row]:
    """Our host beside the library's own conversion, each call in a fresh instance, exchanging `list<u8>`."""
    import cbor2
    from wasmtime import Store
    from wasmtime import component as c

    from greentic.wasm.call_limits import DEFAULT_LIMITS
    from greentic.wasm.engine import engine
    from test_wasm import context, loaded

    component = loaded(wat.node_06())
    export = component.entry_point[1]  # type: ignore[index]
    data = cbor2.dumps(PAYLOAD)
    tenant = {
        "tenant-id": "t",
        "team-id": None,
        "user-id": None,
        "env-id": "e",
        "trace-id": "",
        "correlation-id": "",
        "deadline-ms": 1,
        "attempt": 1,
        "idempotency-key": None,
        "i18n-id": "",
    }
    envelope = {
        "ctx": tenant,
        "flow-id": "f",
        "step-id": "s",
        "component-id": "c",
        "attempt": 1,
        "payload-cbor": data,
        "metadata-cbor": None,
    }
    where = context()

    def ours() -> float:
        return (
            timed(
                lambda: [
                    component.call(export, ["run", envelope], where, DEFAULT_LIMITS) and None for _ in range(CALLS)
                ]
            )
            / CALLS
        )

    def record(fields: dict[str, object]) -> object:
        made = types.SimpleNamespace()
        for name, value in fields.items():
            setattr(made, name, record(value) if isinstance(value, dict) else value)
        return made

    stock = c.Component(engine().engine, wat.node_06())
    linker = c.Linker(engine().engine)
    outer = stock.get_export_index("greentic:component/node@0.6.0")
    index = stock.get_export_index("invoke", outer)

    def once() -> None:
        store = Store(engine().engine)
        store.set_epoch_deadline(1000)
        instance = linker.instantiate(store, stock)
        function = instance.get_func(store, index)  # type: ignore[arg-type]
        function(store, "run", record(envelope))  # type: ignore[misc]

    def theirs() -> float:
        return timed(lambda: [once() for _ in range(CALLS // 10)]) / (CALLS // 10)

    left, right, ratio = paired(ours, theirs, 7)

    def us(values: list[float]) -> str:
        return spread(values, 1e6, " µs")

    return [
        (
            f"component call, fresh instance, {len(data)} bytes each way",
            us(left),
            f"the library's own conversion {us(right)}",
            f"{1 / ratio:.1f} × as fast",
            "≥ 3 ×",
        )
    ]


def _memory_row() -> Row:
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); from test_wasm import *\n"
        "c = loaded(wat.node_06()); e = c.entry_point[1]\n"
        "go = lambda n: [c.call(e, ['run', {'ctx': {}, 'payload-cbor': b'p' * 500}], context(), DEFAULT_LIMITS) and None for _ in range(n)]\n"
        "go(2000); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; go(20000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = int(
        subprocess.run(
            [sys.executable, "-c", code, str(ROOT / "tests")], check=True, capture_output=True, text=True
        ).stdout
    )
    return ("growth of memory over 20,000 calls", f"{grown} KiB", "after 2,000 calls", "", "none")


def _flow_row() -> Row:
    nodes = [
        node(
            "n0",
            "emit.response",
            {"text": "hi {{entry.text}}"},
            when({"condition": "entry.text == never", "to": "n9"}, {"to": "n1"}),
        )
    ]
    nodes += [
        node(
            f"n{i}",
            "emit.response" if i % 2 else "var.set",
            {"text": f"{{{{node.n{i - 1}.text}}}} {i}"} if i % 2 else {"name": "x", "value": "{{prev.text}}"},
            to(f"n{i + 1}")
            if i % 3
            else when({"condition": "entry.text contains zzz", "to": "n0"}, {"to": f"n{i + 1}"}),
        )
        for i in range(1, 9)
    ]
    nodes.append(node("n9", "emit.response", {"text": "{{vars.x}} end", "whole": "{{entry}}"}))
    world = World(flow(*nodes))
    run = world.run()
    took = [timed(lambda: [start(run, {"text": "hello"}) and None for _ in range(1000)]) / 1000 for _ in range(9)]
    return (
        "flow of ten pure nodes",
        spread(took, 1e6, " µs"),
        f"{statistics.median(took) * 1e5:.1f} µs a node",
        "",
        "≤ 60 µs",
    )


def _compile_row(scratch: Path) -> Row:
    """A component written in Python: compiled now, and loaded compiled."""
    from greentic.wasm.compile_cache import CompileCache
    from greentic.wasm.engine import engine

    path = scratch / "receipt.gtpack"
    path.write_bytes(build_pack(ROOT / "examples" / "receipt-bundle" / "packs" / "receipt").data)
    with path.open("rb") as file:
        wasm = PackArchive(file).read("components/receipts.wasm")
    sha256 = wat.sha256(wasm)
    first, second = [], []
    for number in range(3):
        cache = CompileCache(scratch / f"compiled-{number}")
        first.append(cache.load(engine(), wasm, "receipts", sha256=sha256).seconds)
        second.append(timed(lambda cache=cache: cache.load(engine(), wasm, "receipts", sha256=sha256)))
    share = statistics.median(s / f for s, f in zip(second, first, strict=True))
    size = f"{len(wasm) / 1e6:.0f} MB"
    return (
        f"component of {size}, compiled before",
        spread(second),
        f"compiled now {spread(first)}",
        f"{share:.1%}",
        "≤ 2 %",
    )


def _turn_rows(scratch: Path) -> list[Row]:
    post = scratch / "post.lua"
    post.write_text(POST_LUA)
    (scratch / "turns").mkdir()
    data = make_pack("p", ECHO, {"echo": wat.node_06()})
    bundle = make_bundle(scratch / "turns", {"app": data})
    author(scratch / "turn-store", bundle, f"file://{bundle}")
    stage = Stage(scratch / "turns", data)
    from greentic.flow.ports import Caller, ComponentCall

    calls = stage.revision.components.of_pack("p")
    request = ComponentCall("echo", "run", "hi", None, "main", "c", Caller("local", "default", session="s"))
    rows: list[Row] = []
    with worker(scratch / "turn-store") as one, worker(scratch / "turn-store", GREENTIC_WORKERS="2") as two:
        rates: dict[str, list[float]] = {"bare": [], "1": [], "16": [], "two": []}
        for _ in range(5):
            rates["bare"].append(CALLS / timed(lambda: [in_place(calls.call(request)) and None for _ in range(CALLS)]))
            rates["1"].append(wrk(one, "/", 1, post)[0])
            rates["16"].append(wrk(one, "/", 16, post)[0])
            rates["two"].append(wrk(two, "/", 16, post)[0])
    shown = {name: f"{statistics.median(v):,.0f}/s ({min(v):,.0f} to {max(v):,.0f})" for name, v in rates.items()}

    def ratio(mine: str, other: str) -> float:
        return statistics.median(x / y for x, y in zip(rates[mine], rates[other], strict=True))

    rows.append(
        (
            "HTTP turn with one small component, 1 connection",
            shown["1"],
            "existing worker 960/s",
            f"{statistics.median(rates['1']) / 960:.1f} ×",
            "ahead",
        )
    )
    rows.append(
        (
            "… 16 connections, one process",
            shown["16"],
            f"bare calls in one process {shown['bare']}; existing worker 1,600/s",
            f"{ratio('16', 'bare'):.2f} ×",
            "≥ 0.6 ×",
        )
    )
    rows.append(
        (
            "… 16 connections, two processes",
            shown["two"],
            f"one process {shown['16']}",
            f"{ratio('two', '16'):.2f} ×",
            "≥ 1.6 ×",
        )
    )
    return rows


def _boot_rows(scratch: Path) -> list[Row]:
    shutil.copyfile(scratch / "turns" / "made.gtbundle", scratch / "dist" / "component")
    with distributor(scratch / "dist") as url:
        author(scratch / "boot-component", scratch / "dist" / "component", f"{url}/component")
        boot = Boot(scratch / "boot-component")
        cold, warm = [], []
        for _ in range(5):
            shutil.rmtree(scratch / "home" / ".cache", ignore_errors=True)
            cold.append(boot())
            warm.append(boot())
    return [
        (
            "cold boot with a small component, compiled before",
            spread(warm),
            f"compiled now {spread(cold)}; existing worker 31 and 185 ms",
            "",
            "",
        )
    ]


def _probe_row(scratch: Path) -> Row:
    """`/healthz` while turns compute for a second each, all the time."""
    target = 1.0
    (scratch / "busy").mkdir()
    iterations = 200_000_000
    from test_wasm import call

    took = timed(lambda: call(wat.busy(iterations // 10), "x"))
    iterations = int(iterations / 10 * target / took)
    flows = {"main": {"nodes": [component_node("busy", "{{entry.text}}")]}}
    bundle = make_bundle(scratch / "busy", {"app": make_pack("p", flows, {"busy": wat.busy(iterations)})})
    author(scratch / "busy-store", bundle, f"file://{bundle}")
    with worker(scratch / "busy-store", GREENTIC_COMPONENT_SECONDS="30") as port:
        stop = threading.Event()
        spent: list[float] = []

        def compute() -> None:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/", b'{"text":"x"}', {"content-type": "application/json"}
            )
            while not stop.is_set():
                spent.append(timed(lambda: json.load(urllib.request.urlopen(request, timeout=60))))

        thread = threading.Thread(target=compute)
        thread.start()
        time.sleep(0.5)
        measured = [wrk(port, "/healthz", 2, None) for _ in range(3)]
        stop.set()
        thread.join()
    p99 = [m[1] for m in measured]
    return (
        "`/healthz` p99 while a component computes",
        f"{statistics.median(p99):.2f} ms ({min(p99):.2f} to {max(p99):.2f})",
        f"a turn takes {spread(spent, 1, ' s')}",
        "",
        "≤ 20 ms",
    )
