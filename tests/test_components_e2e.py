"""Components in real workers: the tutorial, the examples, several processes, runaways, and sessions over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import wat
from conftest import PROGRAMS, ROOT, gtc, make_bundle, make_pack
from greentic.author.bundle_build import build_bundle
from greentic.deployments.worker_status import HttpWorkers
from test_activate import ASK, component_node, redis_server
from test_flow import node
from test_programs import Worker, ask, distributor, real  # noqa: F401  (fixtures)
from waiting import PATIENCE, children, lives, until

ECHO_TEXT = component_node("echo", "{{entry.text}}")
MOST_MODULES = 210
"""Modules of ours that a boot without components loads, a few more than today: each costs it a third of a millisecond."""


def deployed(real, root: Path, url: str, bundle: Path) -> None:  # noqa: F811
    (root / "b").write_bytes(bundle.read_bytes())
    real.deployed(bundle, f"{url}/b")
    real.strip()


def post(port: int, body: object, **headers: str) -> tuple[object, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/", json.dumps(body), {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    data, told = json.loads(answer.read()), dict(answer.getheaders())
    connection.close()
    return data[0]["payload"], told


@pytest.mark.xdist_group("builds")  # one build of a component at a time: each is kept for the next
@pytest.mark.e2e
def test_the_tutorial_works_line_by_line(tmp_path, compiled_components):
    """Every `sh` block of docs/tutorial.md runs in one shell, and what the `text` block behind it promises is printed."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(str(free.getsockname()[1]))
    text = text.replace("18080", ports[0]).replace("18090", ports[1])
    blocks = re.findall(r"```(sh|text)\n(.*?)```", text, re.DOTALL)
    script = "set -euo pipefail\n" + "".join(
        f"{body}\necho '== {n}'\n" for n, (kind, body) in enumerate(blocks) if kind == "sh"
    )
    environ = dict(os.environ.items()) | {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(Path.home() / ".cache"),
    }
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        started = [int(file.read_text()) for file in tmp_path.glob("*.pid")]
        try:
            until(lambda: not any(map(lives, started)), "the tutorial's last line ends what it started")
        finally:
            for pid in filter(lives, started):
                os.kill(pid, signal.SIGKILL)
    parts = {number: said for said, number in re.findall(r"(?s)(.*?)== (\d+)\n", done.stdout)}
    checked = 0
    for number, (kind, body) in enumerate(blocks):
        if kind == "text":
            for line in body.splitlines():
                assert line in parts[str(number - 1)] + done.stderr, f"{line!r} is not in:\n{parts[str(number - 1)]}"
                checked += 1
    assert checked >= 12


@pytest.mark.xdist_group("builds")
@pytest.mark.e2e
def test_both_examples_are_built_and_answer(tmp_path, compiled_components):
    receipt = build_bundle(ROOT / "examples" / "receipt-bundle", tmp_path / "receipt.gtbundle")
    assert receipt.packs == ["packs/receipt.gtpack"]
    run = gtc(
        "flow",
        "run",
        str(ROOT / "examples/receipt-bundle/packs/receipt"),
        "main",
        "--input",
        '{"text": "2 tea 1.80, 1 cake 3.50"}',
    )
    assert run.returncode == 0 and "Total: 7.10" in run.stdout, run.stderr
    hello = gtc(
        "flow",
        "run",
        str(ROOT / "examples/hello-bundle/packs/hello"),
        "main",
        "--input",
        '{"text": "order"}',
        "--input",
        '{"text": "tea"}',
        "--output",
        "table",
    )
    assert (
        "TEA, coming up." in hello.stdout
        and "(session.wait)" in hello.stdout
        and "the flow waits for the next message" in hello.stdout
    )
    for pack in ("hello-bundle/packs/hello", "receipt-bundle/packs/receipt"):
        assert json.loads(gtc("flow", "lint", str(ROOT / "examples" / pack)).stdout)["result"]["findings"] == 0


@pytest.mark.xdist_group("builds")
@pytest.mark.e2e
def test_the_command_lines_of_authoring(tmp_path):
    assert json.loads(gtc("pack", "new", str(tmp_path / "p")).stdout)["result"]["pack_id"] == "p"
    again = gtc("pack", "new", str(tmp_path / "p"))
    assert again.returncode == 1 and json.loads(again.stderr)["error"]["kind"] == "conflict"
    assert gtc("pack", "new", str(tmp_path / "bad id")).returncode == 1
    bad = tmp_path / "bad.ygtc"
    bad.write_text(
        'id: m\ntype: messaging\nnodes:\n  a: { emit.response: { text: "x {{y" }, routing: [ { next: b } ] }\n'
    )
    found = json.loads(gtc("flow", "lint", str(bad)).stdout)["result"]
    assert found["findings"] == 2 and gtc("flow", "lint", str(bad), "--strict").returncode == 1
    bad.write_text("id: m\ntype: nothing\n")
    assert "Unknown flow type" in gtc("flow", "lint", str(bad)).stderr
    for words in (
        ["run", str(tmp_path / "none"), "main"],
        ["run", str(tmp_path), "main"],
        ["run", str(ROOT / "examples/hello-bundle/packs/hello"), "nope"],
        ["run", str(ROOT / "examples/hello-bundle/packs/hello"), "main", "--input", "{"],
        ["run", str(ROOT / "examples/hello-bundle/packs/hello"), "main", "--input", "@/none"],
    ):
        failed = gtc("flow", *words)
        assert failed.returncode == 1 and json.loads(failed.stderr)["error"]["kind"] in (
            "not-found",
            "invalid-argument",
        ), words
    (tmp_path / "p" / "components" / "greeter" / "app.py").write_text("this is no python(\n")
    broken = gtc("flow", "run", str(tmp_path / "p"), "main")
    assert broken.returncode == 1 and "does not build" in broken.stderr
    source = tmp_path / "p" / "pack.yaml"
    for wasm in ("../x.wasm", "flows/main.ygtc", "components/none.wat"):
        source.write_text(source.read_text().replace(re.search(r"wasm: (\S+)", source.read_text()).group(1), wasm))
        assert gtc("pack", "build", str(tmp_path / "p"), "--out", str(tmp_path / "o")).returncode == 1


@pytest.mark.e2e
def test_threat_runaway_component_the_worker_answers_while_a_component_computes(tmp_path, distributor, real):  # noqa: F811
    root, url = distributor
    flows = {"main": {"nodes": [component_node("spin")]}, "job": {"kind": "job", "nodes": [ECHO_TEXT]}}
    deployed(
        real,
        root,
        url,
        make_bundle(tmp_path, {"app": make_pack("p", flows, {"spin": wat.spinning(), "echo": wat.node_06()})}),
    )
    worker = Worker(tmp_path / "store", tmp_path, GREENTIC_COMPONENT_SECONDS="2")
    port = worker.port()
    answers: list[object] = []
    running = [threading.Thread(target=lambda: answers.append(post(port, {"text": "x"})[0])) for _ in range(3)]
    for thread in running:
        thread.start()
    probes = 0
    while any(t.is_alive() for t in running):
        assert ask(port, "GET", "/healthz") == (200, b"ok")
        probes += not answers
        running[0].join(0.01)
    told = [a["metadata"]["error_message"] for a in answers]
    assert probes > 20 and len(told) == 3 and all("computed longer than 2 s" in text for text in told), (
        probes,
        answers,
    )
    assert worker.stop() == 0


@pytest.mark.e2e
def test_several_processes_serve_share_conversations_and_are_replaced(tmp_path, distributor, real):  # noqa: F811
    root, url = distributor
    deployed(real, root, url, make_bundle(tmp_path, {"app": make_pack("p", ASK)}))
    worker = Worker(tmp_path / "store", tmp_path, GREENTIC_WORKERS="2")
    port = worker.port()

    first = children(worker.process.pid)
    assert len(first) == 2
    for number in range(12):
        session = f"s{number}"
        assert post(port, {"text": "x"}, x_greentic_session=session)[0]["status"] == "pending"
        assert post(port, {"text": session}, x_greentic_session=session)[0] == {"text": f"hello {session}"}
    # Whichever is asked tells of both, and what waits is looked up where it waits.
    revision = json.loads(ask(port, "GET", "/status")[1])["revisions"][0]["revision_id"]
    workers, at = HttpWorkers(), f"http://127.0.0.1:{port}"
    told = workers.ask(at, revision)
    assert sorted(int(p.process.partition(".")[0]) for p in told.processes()) == sorted(first)
    assert sum(c.turns for p in told.processes() for c in p.counts(revision)) == 24
    assert told.held(revision) == (0, 0, 0, True)
    assert post(port, {"text": "x"}, x_greentic_session="waits")[0]["status"] == "pending"
    assert workers.ask(at, revision).held(revision) == (0, 1, 0, True)
    refused = gtc("op", "revisions", "archive", "local", revision, "--at", at, "--store-root", str(tmp_path / "store"))
    assert refused.returncode == 1 and "0 request(s) and 1 conversation(s) on it" in refused.stderr + refused.stdout
    os.kill(first[0], signal.SIGKILL)
    until(lambda: f"worker process {first[0]} ended" in worker.out.read_text(), worker.out.read_text)
    until(lambda: len(set(children(worker.process.pid)) - set(first)) == 1, worker.out.read_text)
    assert ask(port, "GET", "/healthz") == (200, b"ok")
    (ended,) = [line for line in worker.out.read_text().splitlines() if "starting another" in line]
    assert json.loads(ended)["level"] == "warn", (
        "a process that was killed is no progress; with --quiet nobody heard of it"
    )
    assert worker.stop() == 0
    for pid in first:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.e2e
def test_a_parked_conversation_resumes_on_the_revision_that_parked_it(tmp_path, distributor, real):  # noqa: F811
    """Whatever the weights say; and a stranger comes back by its cookie alone."""
    root, url = distributor
    deployment = real.add()
    revisions = []
    for name in ("one", "two"):
        nodes = [
            node("ask", "emit.response", {"text": f"{name}?"}, {"Next": {"node_id": "w"}}),
            node("w", "session.wait", "r", {"Next": {"node_id": "e"}}),
            node("e", "emit.response", {"text": f"{name} got {{{{entry.text}}}}"}),
        ]
        (tmp_path / name).mkdir()
        bundle = make_bundle(tmp_path / name, {"app": make_pack("p", {"main": {"nodes": nodes}})})
        (root / name).write_bytes(bundle.read_bytes())
        revisions.append(real.warm(real.stage(deployment, bundle, f"{url}/{name}")))
    real.route(deployment, (revisions[0], 5000), (revisions[1], 5000))
    worker = Worker(tmp_path / "store", tmp_path)
    port = worker.port()
    seen = set()
    for number in range(30):
        session = f"s{number}"
        asked = post(port, {"text": "x"}, x_greentic_session=session)[0]["response"][0]["text"].removesuffix("?")
        assert post(port, {"text": "y"}, x_greentic_session=session)[0] == {"text": f"{asked} got y"}
        seen.add(asked)
    assert seen == {"one", "two"} and worker.stop() == 0


@pytest.mark.e2e
def test_workers_with_redis_share_a_conversation(tmp_path, distributor, real):  # noqa: F811
    root, url = distributor
    deployed(real, root, url, make_bundle(tmp_path, {"app": make_pack("p", ASK)}))
    with redis_server(tmp_path) as address:
        first, second = (Worker(tmp_path / "store", tmp_path, GREENTIC_RUNNER_REDIS_URL=address) for _ in range(2))
        assert post(first.port(), {"text": "x"}, x_greentic_session="ann")[0]["status"] == "pending"
        assert post(second.port(), {"text": "Ann"}, x_greentic_session="ann")[0] == {"text": "hello Ann"}
        assert first.stop() == 0 and second.stop() == 0
    refused = Worker(tmp_path / "store", tmp_path, GREENTIC_RUNNER_REDIS_URL="redis://127.0.0.1:1/0")
    assert refused.ends() == 1 and "does not answer" in refused.out.read_text()


@pytest.mark.e2e
def test_unsigned_packs_are_refused_where_signatures_are_required(tmp_path, distributor, real):  # noqa: F811
    root, url = distributor
    deployed(real, root, url, make_bundle(tmp_path, {"app": make_pack("p", ASK)}))
    refused = Worker(tmp_path / "store", tmp_path, GREENTIC_PACK_SIGNATURES="require")
    assert refused.ends() == 1 and "GREENTIC_PACK_SIGNERS names nobody" in refused.out.read_text()
    wrong = Worker(tmp_path / "store", tmp_path, GREENTIC_PACK_SIGNATURES="perhaps")
    assert wrong.ends() == 1 and "expected `ignore` or `warn` or `require`" in wrong.out.read_text()
    for variable, value in (("GREENTIC_WORKERS", "0"), ("GREENTIC_RUNNER_SESSION_WAIT_TTL_SECS", "soon")):
        assert Worker(tmp_path / "store", tmp_path, **{variable: value}).ends() == 1


def test_a_worker_without_components_does_not_load_the_host(tmp_path, author, hello):
    author.create()
    author.deployed(hello)
    code = (
        "import sys; from pathlib import Path; import greentic.cli.start; from greentic.worker.boot import boot; from greentic.worker.settings import StartOptions; import greentic.worker.server\n"
        "boot(StartOptions('local', Path(sys.argv[1])), {})\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(author.context.store.root)], capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "greentic.worker.server" in loaded, done.stdout + done.stderr
    # Each of these is looked at here because it once was loaded by every boot, for what few boots need.
    rare = {
        "wasmtime", "redis", "cryptography", "yaml", "rich", "lightkube", "httptools", "inotify_simple",
        "dataclasses", "tempfile", "difflib", "json",
        "greentic.registry.client", "greentic.publication.place", "greentic.worker.published", "greentic.net.request",
        "greentic.sessions.shared_directory", "greentic.distribute.oci_source",
    }  # fmt: skip
    assert "cbor2" in loaded
    assert sorted(loaded & rare) == []
    own = [name for name in loaded if name.startswith("greentic")]
    assert len(own) <= MOST_MODULES, f"a boot loads {len(own)} modules of ours: who needs the new ones in every boot?"
