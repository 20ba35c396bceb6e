"""Rows about what a turn costs: processor time, imports, waiting, other load, a quota, memory, and neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cbor2
from measure import (
    POST_LUA,
    Row,
    answers,
    author,
    free_port,
    memory,
    processor_seconds,
    said,
    spread,
    timed,
    worker,
    worker_process,
    wrk,
)

import wat
from conftest import make_bundle, make_pack
from greentic.flow.ports import Caller, ComponentCall
from greentic.ground.going import in_place
from greentic.wasm.call_limits import DEFAULT_LIMITS
from test_activate import Stage, component_node
from test_wasm import READ, READS, RUN, STATE, call, context, loaded, says

CALLS = 2000
ROUNDS = 3
CARD_BYTES = 20_000
CARD_PLACE = 16_384
"""Above where the component writes its answer, below where its arguments are put."""
WAITING = 1000

HELLO = """
import asyncio
from greentic.httpd.front import Answer, Front
from greentic.httpd.room import places
async def main():
    front = Front(lambda incoming, peer: Answer(200, b"ok", [(b"content-type", b"text/plain")]), places(4096, 65536), lambda path: False)
    server = await asyncio.get_running_loop().create_server(front.connection, "127.0.0.1", PORT)
    front.start()
    await server.serve_forever()
asyncio.run(main())
"""


def turn_rows(scratch: Path) -> list[Row]:
    """Every row of this module."""
    place = scratch / "cost"
    place.mkdir()
    post = place / "post.lua"
    post.write_text(POST_LUA)
    stores = {name: _store(place, name, wasm) for name, wasm in _components().items()}
    return [
        *_cost_rows(place, stores, post),
        *_kinds_rows(stores, post),
        *_load_rows(stores, post),
        _busy_row(place, stores, post),
        *_neighbour_rows(place, post),
        _waiting_row(place),
        *_memory_rows(scratch, stores, post),
    ]


def _components() -> dict[str, bytes]:
    """A small one; the same that reads its state first; one that answers with a card of `CARD_BYTES`."""
    echo = wat.ok_06(*wat.payload_06())
    read = READS.removesuffix(wat.ok_06("(i32.load (i32.const 2052))", "(i32.load (i32.const 2056))"))
    card = cbor2.dumps({"card": _card(), "text": "a card"})
    told = "".join(f"\\{byte:02x}" for byte in card)
    return {
        "small": wat.node_06(),
        "state": wat.node_06(f"{read} {echo}", {STATE: [READ]}, says("abc")),
        "card": wat.node_06(
            wat.ok_06(f"(i32.const {CARD_PLACE})", f"(i32.const {len(card)})"),
            data=f'(data (i32.const {CARD_PLACE}) "{told}")',
        ),
    }


def _card() -> dict[str, object]:
    row = {"type": "TextBlock", "text": "a line of a card as large as real ones are", "wrap": True}
    card: dict[str, object] = {"type": "AdaptiveCard", "version": "1.5", "body": [row]}
    card["body"] = [row] * ((CARD_BYTES - len(json.dumps(card))) // (len(json.dumps(row)) + 2))
    return card


def _bundle(place: Path, name: str, wasm: bytes) -> tuple[Path, bytes]:
    (place / name).mkdir()
    pack = make_pack("p", {"main": {"nodes": [component_node("c", "{{entry.text}}")]}}, {"c": wasm})
    return make_bundle(place / name, {"app": pack}), pack


def _store(place: Path, name: str, wasm: bytes) -> Path:
    bundle, _ = _bundle(place, name, wasm)
    author(place / f"store-{name}", bundle, bundle.as_uri())
    return place / f"store-{name}"


def _rate(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f}/s ({min(values):,.0f} to {max(values):,.0f})"


def _pairs(left: list[float], right: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(left, right, strict=True))


@contextlib.contextmanager
def _hello() -> Iterator[tuple[int, int]]:
    """A server that says hello on our own front: its port and its process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", HELLO.replace("PORT", str(port))])
    try:
        _until_answers(port, process)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def _until_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    while not answers(port):
        if process.poll() is not None:
            raise SystemExit("it did not start")
        time.sleep(0.02)


def _cost_rows(place: Path, stores: dict[str, Path], post: Path) -> list[Row]:
    """Rate and processor time of a turn, beside bare calls and beside hello-world."""
    _, pack = _bundle(place, "bare", _components()["small"])
    calls = Stage(place / "bare", pack).revision.components.of_pack("p")
    request = ComponentCall("c", "run", "hi", None, "main", "c", Caller("local", "default", session="s"))
    rates: dict[str, list[float]] = {"bare": [], "turn": [], "hello": []}
    costs: dict[str, list[float]] = {"bare": [], "turn": [], "hello": []}
    with worker_process(stores["small"]) as (port, pid), _hello() as (hello, hello_pid):
        said(port)
        for _ in range(ROUNDS):
            began = time.process_time()
            rates["bare"].append(CALLS / timed(lambda: [in_place(calls.call(request)) and None for _ in range(CALLS)]))
            costs["bare"].append((time.process_time() - began) / CALLS)
            for name, at, process, path in (("turn", port, pid, "/"), ("hello", hello, hello_pid, "/")):
                before = processor_seconds(process)
                found = wrk(at, path, 16, post)
                rates[name].append(found[0])
                costs[name].append((processor_seconds(process) - before) / (found[0] * 3))
    ideal = [a + b for a, b in zip(costs["bare"], costs["hello"], strict=True)]
    return [
        (
            "HTTP turn with one small component, 16 connections",
            _rate(rates["turn"]),
            f"bare calls {_rate(rates['bare'])}",
            f"{_pairs(rates['turn'], rates['bare']):.2f} ×",
            "≥ 0.6 ×",
        ),
        (
            "… processor time of a turn",
            spread(costs["turn"], 1e6, " µs"),
            f"bare call {spread(costs['bare'], 1e6, ' µs')} + hello-world on the same front {spread(costs['hello'], 1e6, ' µs')}",
            f"{_pairs(costs['turn'], ideal):.2f} ×",
            "≤ 1.5 ×",
        ),
    ]


def _kinds_rows(stores: dict[str, Path], post: Path) -> list[Row]:
    """The same turn with a component that reads its state, and one that answers with a card."""
    rates: dict[str, list[float]] = {name: [] for name in stores}
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(worker(store)) for name, store in stores.items()}
        for port in ports.values():
            said(port)
        for _ in range(ROUNDS):
            for name, port in ports.items():
                rates[name].append(wrk(port, "/", 16, post)[0])
    small = f"the small one {_rate(rates['small'])}"
    return [
        (
            "… with a read of the state",
            _rate(rates["state"]),
            small,
            f"{_pairs(rates['state'], rates['small']):.2f} ×",
            "≥ 0.8 ×",
        ),
        ("… with a card of 20 KB", _rate(rates["card"]), small, f"{_pairs(rates['card'], rates['small']):.2f} ×", ""),
    ]


@contextlib.contextmanager
def _competitors(number: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _load_rows(stores: dict[str, Path], post: Path) -> list[Row]:
    """Turns beside a busy process on each core, and under a quota of half a core where the machine lets us."""
    rows: list[Row] = []
    with worker_process(stores["small"]) as (port, pid):
        for connections in (1, 16):
            quiet, loaded = [], []
            for _ in range(ROUNDS):
                quiet.append(wrk(port, "/", connections, post)[0])
                with _competitors(os.cpu_count() or 1):
                    loaded.append(wrk(port, "/", connections, post)[0])
            rows.append(
                (
                    f"turns beside a busy process on each core, {connections} connection(s)",
                    _rate(loaded),
                    f"quiet {_rate(quiet)}",
                    f"{_pairs(loaded, quiet):.2f} ×",
                    "≥ 0.5 ×",
                )
            )
        whole = wrk(port, "/", 16, post)
        with _half_a_core(pid) as how:
            half = wrk(port, "/", 16, post)
        rows.append(
            (
                f"… p99 with half a core ({how}), 16 connections",
                f"{half[1]:.1f} ms at {half[0]:,.0f}/s",
                f"whole {whole[1]:.1f} ms at {whole[0]:,.0f}/s",
                f"{half[1] / whole[1]:.1f} ×",
                "no cliff",
            )
        )
    return rows


@contextlib.contextmanager
def _half_a_core(pid: int) -> Iterator[str]:
    """A control group with half a core; where none can be made, one core that is shared with a busy process."""
    for root, file, quota in (
        ("/sys/fs/cgroup", "cpu.max", "50000 100000"),
        ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "50000"),
    ):
        group = Path(root) / f"greentic-bench-{os.getpid()}"
        if not (Path(root) / file).parent.joinpath("cgroup.controllers" if file == "cpu.max" else file).exists():
            continue  # another version of control groups
        try:
            group.mkdir()
            (group / file).write_text(quota)
            (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        try:
            yield "control group"
        finally:
            (Path(root) / "cgroup.procs").write_text(str(pid))
            group.rmdir()
        return
    allowed = os.sched_getaffinity(pid)
    core = min(allowed)
    threads = [int(t.name) for t in Path(f"/proc/{pid}/task").iterdir()]
    competitor = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"])
    try:
        for thread in threads:
            os.sched_setaffinity(thread, {core})
        yield "one core shared with a busy loop"
    finally:
        competitor.kill()
        competitor.wait()
        for thread in threads:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, allowed)


def _busy_row(place: Path, stores: dict[str, Path], post: Path) -> Row:
    """Probes while ten callers at a time have a component compute for a second."""
    tenth = 20_000_000
    iterations = int(tenth / timed(lambda: call(wat.busy(tenth), "x")))
    bundle, _ = _bundle(place, "ten", wat.busy(iterations))
    author(place / "ten-store", bundle, bundle.as_uri())
    body = place / "ten.lua"
    body.write_text(POST_LUA)
    with worker(place / "ten-store", GREENTIC_COMPONENT_SECONDS="60") as port:
        load = subprocess.Popen(
            ["wrk", "-t1", "-c10", "-d12s", "--timeout", "60s", "-s", str(body), f"http://127.0.0.1:{port}/"],
            stdout=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.5)
            p99 = [wrk(port, "/healthz", 2, None)[1] for _ in range(ROUNDS)]
        finally:
            load.kill()
            load.wait()
    return ("`/healthz` p99 while ten components compute for a second each", spread(p99, 1), "", "", "≤ 20 ms")


def _neighbour_rows(place: Path, post: Path) -> list[Row]:
    """One deployment is flooded; what it costs another one of the same worker."""
    bundle, _ = _bundle(place, "neighbours", _components()["small"])
    made = author(place / "neighbours-store", bundle, bundle.as_uri())
    made.deployed(bundle, bundle.as_uri(), bundle_id="other", prefixes=["/other"])
    quiet, flooded = [], []
    with worker(place / "neighbours-store") as port:
        for _ in range(ROUNDS):
            quiet.append(wrk(port, "/other", 1, post)[1])
            flood = subprocess.Popen(
                ["wrk", "-t1", "-c64", "-d5s", "-s", str(post), f"http://127.0.0.1:{port}/"], stdout=subprocess.DEVNULL
            )
            time.sleep(0.5)
            flooded.append(wrk(port, "/other", 1, post)[1])
            flood.kill()
            flood.wait()
    return [
        (
            "p99 of a deployment while another is flooded by 64 connections",
            spread(flooded, 1),
            f"quiet {spread(quiet, 1)}",
            f"{_pairs(flooded, quiet):.1f} ×",
            "≤ 1.2 ×",
        )
    ]


class _Slow:
    """A host whose functions answer after a second."""

    def function(self, interface: str, name: str) -> object:
        async def later(where: object, arguments: object) -> object:
            await asyncio.sleep(1)
            return ("ok", b"{}")

        return later


def _waiting_row(place: Path) -> Row:
    """A thousand calls that wait a second each for a host function, on one loop."""
    component = loaded(_components()["state"], _Slow())
    export = component.entry_point[1]  # type: ignore[index]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    async def all_of_them() -> tuple[float, int]:
        before, began = resident(), time.perf_counter()
        running = [
            asyncio.ensure_future(component.invoke(export, list(RUN), context(), DEFAULT_LIMITS))
            for _ in range(WAITING)
        ]
        await asyncio.sleep(0.5)
        most = resident() - before
        await asyncio.gather(*running)
        return time.perf_counter() - began, most

    took, held = asyncio.run(all_of_them())
    return (
        f"{WAITING:,} calls that wait a second each, one process",
        f"{took:.2f} s",
        f"{held / WAITING / 1024:.0f} KiB a call while they wait",
        "",
        "about 1 s",
    )


def _memory_rows(scratch: Path, stores: dict[str, Path], post: Path) -> list[Row]:
    rows: list[Row] = []
    for name, store, target in (
        ("an empty flow", scratch / "serve", "≤ 45 MiB"), ("one small component", stores["small"], "≤ 70 MiB"),
    ):  # fmt: skip
        with worker_process(store) as (port, pid):
            wrk(port, "/", 1, post)
            wrk(port, "/", 1, post)
            first = int(memory(pid, "VmRSS"))
            wrk(port, "/", 16, post)
            wrk(port, "/", 16, post)
            rows.append(
                (
                    f"memory of a worker with {name}",
                    f"{first} MiB",
                    f"after more than 20,000 turns {int(memory(pid, 'VmRSS'))} MiB",
                    "",
                    target,
                )
            )
    return rows
