"""The real programs, started as processes: command lines, a worker's life, and the recorded behaviour of the existing ones."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import PROGRAMS, ROOT, SHARED, Author, gtc, need
from greentic.cli import op_table
from greentic.distribute.serve_directory import DirectoryServer
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore
from waiting import children, lives, until


def own_network() -> list[str]:
    """Words that give a program a network of its own, where one may be made: the recordings choose ports by themselves."""
    inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if os.geteuid() or not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        return []
    return inside


def conformance(script: str, *words: str, by: Sequence[str] = ()) -> None:
    if not (SHARED / "conformance").is_dir():
        pytest.skip("needs the recorded behaviour beside the project (../shared/conformance)")
    done = subprocess.run(
        [*own_network(), sys.executable, *by, str(SHARED / "conformance" / script), *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_asked_to_end_leaves_nothing_behind(tmp_path, number):
    """A build that is cancelled left its half of a bundle in the author's directory, for good."""
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(ROOT / "examples" / "hello-bundle", source)
    out.mkdir()
    with (source / "packs" / "hello" / "assets" / "fill.bin").open("wb") as fill:
        for _ in range(64):
            fill.write(os.urandom(1 << 20))
    # A shell that began in the background may have had the signal ignored, which stays so across `exec`.
    code = (
        "import os, signal, sys; signal.signal(int(sys.argv[1]), signal.SIG_DFL); os.execv(sys.argv[2], sys.argv[2:])"
    )
    words = [sys.executable, "-c", code, str(int(number)), str(PROGRAMS / "gtc"), "bundle", "build", str(source)]
    words += ["--out", str(out / "hello.gtbundle")]
    building = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: building.poll() is not None or list(out.iterdir()))
    building.send_signal(number)
    told = building.communicate(timeout=60)
    assert building.returncode == -number and told == ("", "") and not list(out.iterdir())


SCENARIOS = ["01", "02", "03", "04", "06", "07", "08", "09", "10", "11"]
STARTED = ("01", "07")
"""Where each verb is a program that is started, as people start it: from an environment to its traffic, and all in one step."""
FORKED = (str(ROOT / "tests" / "forked_gtc.py"), str(PROGRAMS / "gtc"))
"""Elsewhere it is a fork of one that has loaded itself."""


@pytest.mark.conformance
@pytest.mark.parametrize("number", SCENARIOS)
def test_the_verbs_do_what_was_recorded(number):
    by = () if number in STARTED else FORKED
    conformance("replay.py", "--program", str(PROGRAMS / "gtc"), "--only", f"{number}-", by=by)


PARTS = 6
"""The recorded cases that boot a worker are compared in as many parts, so that several processes can share them."""


@pytest.mark.conformance
@pytest.mark.parametrize("cases", ["boot-cases.json", "flow-cases.json"])
@pytest.mark.parametrize("part", range(PARTS))
def test_the_worker_does_what_was_recorded(cases, part, tmp_path):
    recorded = SHARED / "conformance" / cases
    chosen = json.loads(recorded.read_text())[part::PARTS] if recorded.exists() else []
    (tmp_path / cases).write_text(json.dumps(chosen))
    conformance(
        "boot.py",
        "--author",
        str(PROGRAMS / "gtc"),
        "--worker",
        str(PROGRAMS / "greentic-start"),
        str(tmp_path / cases),
        by=FORKED,
    )


@pytest.mark.conformance
def test_packs_are_built_as_recorded():
    conformance("packs.py", "--build", f"{PROGRAMS / 'gtc'} pack build {{dir}} --out {{out}}")


# -- command lines --------------------------------------------------------------------------------------------------


def test_every_verb_explains_itself_with_an_example():
    for verb in op_table.VERBS:
        words = ["op", verb.noun] if verb.noun == "deploy" else ["op", verb.noun, verb.verb]
        assert verb.example.startswith("gtc " + " ".join(words))
    shown = gtc("op", "revisions", "stage", "--help")
    assert shown.returncode == 0 and "example:" in shown.stdout and "--bundle FILE" in shown.stdout
    for words in ([], ["op"], ["op", "env"]):
        assert gtc(*words, "--help").returncode == 0 and gtc(*words).returncode == 2
    assert gtc("--version").stdout.startswith("gtc ")


def test_the_readme_tells_command_lines_that_exist():
    """Each command of the README is known to the program, with every flag that it uses."""
    text = (ROOT / "README.md").read_text()
    commands = [
        line.strip().removeprefix("$ ")
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.S)
        for line in block.splitlines()
    ]
    commands = [c.partition(" #")[0] for c in commands if c.startswith(("gtc ", "greentic-start ", "$ gtc"))]
    assert len(commands) >= 10
    for command in commands:
        words = command.split()
        names = [w for w in words[1:] if not w.startswith("-") and "=" not in w][: 3 if words[1] == "op" else 2]
        if words[0] == "greentic-start":
            shown = subprocess.run(
                [str(PROGRAMS / "greentic-start"), "start", "--help"], capture_output=True, text=True
            )
        elif words[1] == "op" and names[1] == "deploy":
            shown = gtc("op", "deploy", "--help")
        else:
            shown = gtc(*names, "--help")
        assert shown.returncode == 0, command
        for flag in re.findall(r"(?<=\s)--[a-z-]+", command):
            assert flag in shown.stdout or flag in ("--answers", "--output", "--store-root", "--schema"), (
                f"{flag} of `{command}`"
            )
    listed = set(re.findall(r"^\| `([a-z-]+)` \| ([a-z, -]+) \|", text, re.M))
    assert listed == {
        (n, ", ".join(v.verb for v in op_table.VERBS if v.noun == n)) for n in op_table.nouns() if n != "deploy"
    }


def test_words_flags_and_files_make_the_same_payload(tmp_path):
    store = ["--store-root", str(tmp_path / "s")]
    (tmp_path / "a.yaml").write_text("environment_id: prod\nname: From a file\nsurprise: 1\n")
    made = json.loads(
        gtc("op", *store, "--answers", str(tmp_path / "a.yaml"), "env", "create", "name=Laid over").stdout
    )
    assert made["result"]["name"] == "Laid over" and "surprise" in made["result"]["warnings"][0]
    gtc("op", *store, "trust-root", "bootstrap", "prod")
    added = gtc(
        "op",
        "bundles",
        "add",
        "prod",
        "bundle_id=b",
        "customer_id=c",
        'route_binding={"path_prefixes":["/a"]}',
        'route_binding.hosts=["h"]',
        *store,
    )
    assert json.loads(added.stdout)["result"]["hosts"] == ["h"]
    for words, code in (
        (["env", "show"], 2), (["env", "show", "a", "b"], 2), (["traffic", "set", "prod", "x=1.5", "--deployment", "d"], 1), (["bundles", "add", "prod", "nope=1"], 1),
        (["bundles", "update", "prod", "deployment_id=x", "revenue_share={"], 1), (["--output", "xml", "env", "list"], 2), (["--answers"], 2),
    ):  # fmt: skip
        assert gtc("op", *store, *words).returncode == code, words


def test_tables_and_hints_for_people(tmp_path):
    shown = gtc("op", "--store-root", str(tmp_path / "s"), "--output", "table", "env", "create", "prod", "--name", "P")
    assert (
        "environment_id" in shown.stdout
        and f"next: gtc op --store-root {tmp_path / 's'} trust-root bootstrap prod" in shown.stdout
    )
    failed = gtc("op", "--store-root", str(tmp_path / "s"), "--output", "table", "env", "show", "nope")
    assert failed.returncode == 1 and "error (not-found)" in failed.stderr and "next: " in failed.stderr
    listed = gtc("op", "--store-root", str(tmp_path / "s"), "--output", "table", "env", "list")
    assert "environment " in listed.stdout and "prod" in listed.stdout


def test_a_verb_loads_only_what_it_needs(tmp_path):
    code = "import sys; sys.argv = ['gtc', 'op', '--store-root', sys.argv[1], 'env', 'list']\nfrom greentic.cli.gtc import main\ntry: main()\nexcept SystemExit: pass\nprint(sorted(m for m in sys.modules if m.split('.')[0] in ('uvicorn', 'asyncio', 'cryptography', 'rich', 'yaml', 'zipfile', 'http', 'difflib', '_hashlib')), sum(m.startswith('greentic') for m in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    loaded, count = done.stderr.rsplit(maxsplit=1)
    assert loaded == "[]" and int(count) <= 71, f"{count} modules of ours: who needs the new ones for this verb?"


# -- a worker's life ------------------------------------------------------------------------------------------------


class Worker:
    """A running `greentic-start`."""

    def __init__(self, store: Path, tmp_path: Path, *words: str, **environ: str) -> None:
        self.out = tmp_path / f"worker-{time.monotonic_ns()}.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("GREENTIC_")}
        self.process = subprocess.Popen(
            [str(PROGRAMS / "greentic-start"), "start", "--env", "local", "--store-root", str(store), *words],
            env=clean | {"GREENTIC_GATEWAY_LISTEN_ADDR": "127.0.0.1:0"} | environ, stdout=self.out.open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def port(self) -> int:
        """Wait for the banner."""
        while True:
            found = re.search(r"on http://127\.0\.0\.1:(\d+)", self.out.read_text())
            if found:
                return int(found.group(1))
            assert self.process.poll() is None, self.out.read_text()
            time.sleep(0.01)

    def ends(self) -> int:
        return self.process.wait(60)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ends()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture
def distributor(tmp_path):
    root = tmp_path / "dist"
    root.mkdir()
    server = DirectoryServer(root, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def real(tmp_path) -> Author:
    return Author(Context(EnvironmentStore(tmp_path / "store"))).create()


@pytest.mark.e2e
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_a_service_manager_is_told_once_that_a_worker_serves_and_that_it_stops(tmp_path, real, processes, kind):
    """systemd's `Type=notify`: what is started behind the worker finds it serving."""
    name = str(tmp_path / "notify") if kind == "file" else f"\0greentic-{os.getpid()}-{processes}"
    told = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(60)
        worker = Worker(tmp_path / "store", tmp_path, "--workers", processes, NOTIFY_SOCKET=name.replace("\0", "@"))
        told.append(manager.recv(100))
        assert ask(worker.port(), "GET", "/readyz")[0] == 200
        assert worker.stop() == 0
        manager.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(manager.recv(100))
    assert told == [b"READY=1", b"STOPPING=1"]


def pending(pid: int) -> bool:
    """Whether a process that lives has not been given a signal yet."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # nobody was connected to it
        return False
    return any(int(found, 16) for found in re.findall(r"(?:Sig|Shd)Pnd:\s*([0-9a-f]+)", status))


@pytest.mark.e2e
def test_threat_drain_race_each_process_may_be_told_to_stop(tmp_path, real, hello):
    """systemd signals all processes of a service, and the first one theirs again: that is no second wish, which would cut who is answered."""
    real.deployed(hello)
    worker = Worker(tmp_path / "store", tmp_path, "--workers", "2")
    with contextlib.ExitStack() as open_ones:
        wires = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", worker.port()), timeout=60))
            for _ in range(6)
        ]
        for wire in wires:
            wire.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n")
            assert wire.recv(100).startswith(b"HTTP/1.1 100")
            wire.sendall(b'{"text')
        both = children(worker.process.pid)
        assert len(both) == 2
        for _ in ("by the manager", "by the first process"):
            for pid in filter(lives, both):
                os.kill(pid, signal.SIGTERM)
            until(lambda: worker.out.read_text().count("shutdown requested") == 2 and not any(map(pending, both)))
        for wire in wires:
            wire.sendall(b'":"x"}')
            assert wire.recv(100).startswith(b"HTTP/1.1 200")
    assert worker.stop() == 0


@pytest.mark.e2e
def test_a_service_manager_that_is_gone_is_done_without(tmp_path, real):
    worker = Worker(tmp_path / "store", tmp_path, NOTIFY_SOCKET=str(tmp_path / "gone"))
    assert ask(worker.port(), "GET", "/readyz")[0] == 200 and worker.stop() == 0


@pytest.mark.e2e
def test_a_worker_starts_empty_serves_and_drains(tmp_path, distributor, real, hello):
    root, url = distributor
    (root / "b").write_bytes(hello.read_bytes())
    real.deployed(hello, f"{url}/b")
    real.strip()
    worker = Worker(tmp_path / "store", tmp_path, GREENTIC_DRAIN_DELAY_SECONDS="1")
    port = worker.port()
    assert ask(port, "GET", "/healthz") == (200, b"ok")
    assert b"flow main has no start node" in ask(port, "POST", "/", b'{"text":"hi"}')[1]
    status = json.loads(ask(port, "GET", "/status")[1])
    assert status["revisions_active"] == 1 and status["revisions"][0]["bundle_source_uri"] == f"{url}/b"
    slow = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    slow.putrequest("POST", "/")
    slow.putheader("Content-Length", "2")
    slow.endheaders()
    worker.process.send_signal(signal.SIGTERM)
    while ask(port, "GET", "/readyz")[0] != 503:
        pass
    assert ask(port, "POST", "/", b"1")[0] == 200  # unready, and still serving
    slow.send(b"12")
    assert slow.getresponse().status == 200  # what was running is finished
    slow.close()
    assert worker.ends() == 0


@pytest.mark.e2e
def test_threat_drain_race_no_request_is_lost(tmp_path, real, hello):
    real.deployed(hello, f"file://{hello}")
    worker = Worker(tmp_path / "store", tmp_path, GREENTIC_DRAIN_DELAY_SECONDS="1")
    port, done, lost = worker.port(), [0], list[str]()
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                if ask(port, "GET", "/readyz")[0] != 200:
                    return  # unready: a load balancer goes elsewhere
                code = ask(port, "POST", "/", b'{"text":"x"}')[0]
            except OSError as error:
                lost.append(repr(error))
                return
            done[0] += 1
            if code != 200:
                lost.append(str(code))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    while done[0] < 50:
        time.sleep(0.01)
    assert worker.stop() == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert lost == [] and done[0] > 50


@pytest.mark.e2e
@pytest.mark.parametrize("change", ["flip", "append", "cut", "gone"])
def test_a_wrong_bundle_is_refused_and_nothing_is_left(tmp_path, distributor, real, hello, change):
    root, url = distributor
    data = hello.read_bytes()
    served = {"flip": data[:99] + bytes([data[99] ^ 1]) + data[100:], "append": data + b"x", "cut": data[:-1]}.get(
        change
    )
    if served is not None:
        (root / "b").write_bytes(served)
    _, rev = real.deployed(hello, f"{url}/b")
    real.strip()
    worker = Worker(tmp_path / "store", tmp_path)
    assert worker.ends() == 1
    said = worker.out.read_text()
    assert rev in said and "Next:" in said if change != "gone" else "http status: 404" in said
    paths = real.context.store.paths("local")
    assert not paths.runtime_config.exists() and not any(paths.revisions.iterdir())


@pytest.mark.e2e
def test_the_previous_revision_survives_a_refused_one(tmp_path, distributor, real, hello):
    """A good copy on the disk is only replaced by a good copy."""
    root, url = distributor
    (root / "b").write_bytes(b"not the bundle")
    _, rev = real.deployed(hello, f"{url}/b")
    pack = next(real.context.store.paths("local").revision(rev).rglob("*.gtpack"))
    whole = pack.read_bytes()
    pack.write_bytes(b"altered")
    worker = Worker(tmp_path / "store", tmp_path)
    assert worker.ends() == 1
    assert pack.read_bytes() == b"altered"  # still there, nothing half-done beside it
    pack.write_bytes(whole)
    worker = Worker(tmp_path / "store", tmp_path)
    assert worker.port() and worker.stop() == 0


@pytest.mark.e2e
def test_a_foreign_failure_is_skipped_and_told(tmp_path, distributor, real, hello):
    root, url = distributor
    (root / "good").write_bytes(hello.read_bytes())
    _, own = real.deployed(hello, f"{url}/good")
    foreign, _ = real.deployed(hello, f"{url}/missing", bundle_id="other", prefixes=("/other",))
    real.strip()
    before = real.context.store.paths("local").environment.read_bytes()
    strict = Worker(tmp_path / "store", tmp_path, "--require", "all", GREENTIC_BUNDLE_CACHE_DIR="off")
    assert strict.ends() == 1  # as recorded of a worker that is for no revision
    worker = Worker(tmp_path / "store", tmp_path, GREENTIC_REVISION_ID=own.lower(), GREENTIC_BUNDLE_CACHE_DIR="off")
    port = worker.port()
    status = json.loads(ask(port, "GET", "/status")[1])
    assert status["deployments_routed"] == 1 and foreign in status["skipped_deployments"]
    assert ask(port, "POST", "/other", b"1")[0] == 503 and ask(port, "POST", "/", b"1")[0] == 200
    assert worker.stop() == 0
    projected = json.loads(real.context.store.paths("local").runtime_config.read_text())
    assert [r["revision_id"] for r in projected["revisions"]] == [own]
    assert real.context.store.paths("local").environment.read_bytes() == before
    assert "is NOT served by this process" in worker.out.read_text()


@pytest.mark.e2e
def test_threat_torn_store_a_worker_killed_at_any_moment_boots_again(tmp_path, distributor, real, hello):
    root, url = distributor
    (root / "b").write_bytes(hello.read_bytes())
    real.deployed(hello, f"{url}/b")
    for delay in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25):
        real.strip()
        worker = Worker(tmp_path / "store", tmp_path)
        threading.Event().wait(delay)
        worker.process.kill()
        worker.ends()
    worker = Worker(tmp_path / "store", tmp_path)
    assert ask(worker.port(), "POST", "/", b"1")[0] == 200
    assert worker.stop() == 0
    assert not [p for p in real.context.store.paths("local").revisions.iterdir() if p.name.startswith(".staging")]


@pytest.mark.e2e
def test_a_stale_projection_does_not_suppress_the_pull(tmp_path, real, hello):
    dep, rev = real.deployed(hello, f"file://{hello}")
    paths = real.context.store.paths("local")
    stale = paths.runtime_config.read_bytes()
    new = real.warm(real.stage(dep, hello, f"file://{hello}"))
    real.route(dep, (new, 10_000), key="second")
    real.strip()
    paths.runtime_config.write_bytes(stale)
    worker = Worker(tmp_path / "store", tmp_path)
    status = json.loads(ask(worker.port(), "GET", "/status")[1])
    assert [r["revision_id"] for r in status["revisions"]] == [new] and rev not in worker.out.read_text()
    assert worker.stop() == 0


@pytest.mark.e2e
def test_wrong_command_lines_of_the_worker_exit_with_1():
    for words in (
        ["nonsense"],
        ["start", "--nope"],
        ["start", "--verbose", "--quiet"],
        ["start", "--bundle", "x"],
        ["start", "--env", "../x"],
    ):
        done = subprocess.run([str(PROGRAMS / "greentic-start"), *words], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.startswith("Error: "), words
    assert subprocess.run([str(PROGRAMS / "greentic-start"), "--version"], capture_output=True).returncode == 0


def test_no_script_opens_its_own_output_anew():
    """A file that a log is sent to would be cut to nothing by it, and be full of NUL bytes after."""
    scripts = [ROOT / "demo.sh", ROOT / ".ci" / "run", ROOT / "Makefile", *(ROOT / "scripts").glob("*.sh"), *(ROOT / "lab").glob("*.sh")]  # fmt: skip
    assert len(scripts) >= 5
    for path in [*scripts, *(ROOT / "demo").glob("*.py")]:
        assert not re.search(r"/dev/(stderr|stdout|fd/)|/proc/self/fd/", path.read_text()), path


def test_the_help_of_the_demo_tells_all_that_it_does():
    script = (ROOT / "demo.sh").read_text()
    done = subprocess.run([str(ROOT / "demo.sh"), "--help"], capture_output=True, text=True, check=True)
    told = set(re.findall(r"^  ./demo.sh ([a-z-]+)", done.stdout, re.MULTILINE))
    assert told == set(re.findall(r"^  ([a-z-]+)\) ", script, re.MULTILINE)) and len(told) > 10
    assert all(f"{name}_PORT (" in done.stdout for name in ("WORKER", "DISTRIBUTOR", "CONSOLE"))
    assert "set -e" not in done.stdout


@pytest.mark.xdist_group("builds")
@pytest.mark.e2e
def test_the_demo(tmp_path):
    """Both ways of the demo, on ports of its own."""
    import socket

    ports = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(str(free.getsockname()[1]))
    names = ("WORKER_PORT", "DISTRIBUTOR_PORT", "CONSOLE_PORT")
    environ = dict(os.environ.items()) | dict(zip(names, ports, strict=True))
    run = lambda *words: subprocess.run(
        [str(ROOT / "demo.sh"), *words], capture_output=True, text=True, env=environ, timeout=300
    )
    if any((ROOT / ".demo" / f"{name}.pid").exists() for name in ("console", "worker", "distributor")):
        pytest.skip("a demo is running; stop it with ./demo.sh host-stop")
    with (tmp_path / "log").open("wb") as log:
        pulled = subprocess.run([str(ROOT / "demo.sh"), "host-pull"], stdout=log, stderr=log, env=environ, timeout=300)
    try:
        told = (tmp_path / "log").read_text()
        assert pulled.returncode == 0, told
        assert "0. Build the example bundle" in told and "\0" not in told, "what is sent to a file is whole"
        assert "./demo.sh console" in told
        assert "serves what is wanted" in told and "greentic.status.v1" not in told, "a table, and no wall of JSON"
        assert "serving 1 revision(s) for env `local`" in told and '"text":"HI!"' in told
        shown = run("console")
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert re.search(rf"^console: http://127\.0\.0\.1:{ports[2]}/open/\S+$", shown.stdout, re.MULTILINE)
        assert ask(int(ports[2]), "GET", "/")[0] == 401
        busy = subprocess.run(
            [str(PROGRAMS / "gtc"), "distributor", "serve", str(tmp_path), "--port", ports[1]],
            capture_output=True,
            text=True,
        )
        assert busy.returncode == 1 and "cannot listen" in busy.stderr
    finally:
        stopped = run("host-stop")
    assert all(f"stopped {name}" in stopped.stdout for name in ("console", "worker", "distributor"))
    for word in ("tamper", "revoke"):
        refused = run(word)
        assert refused.returncode == 0 and "Refused:" in refused.stdout, refused.stdout + refused.stderr
    resumed = run("resume")
    assert resumed.returncode == 0 and "the second boot moved" in resumed.stdout, resumed.stdout + resumed.stderr
    need("docker-registry", "docker-registry")
    try:
        pulled = run("oci-pull")
        assert pulled.returncode == 0 and "The worker runs from oci://" in pulled.stdout, pulled.stdout + pulled.stderr
    finally:
        assert "stopped registry" in run("host-stop").stdout


def test_a_worker_whose_program_is_taken_away_tells_what_it_serves_still(tmp_path: Path, author, hello: Path) -> None:
    """What few ask was loaded when it was asked for: 500, once the program had been replaced below the worker."""
    author.create()
    author.deployed(hello)
    copy = tmp_path / "program"
    shutil.copytree(ROOT / "src" / "greentic", copy / "greentic", ignore=shutil.ignore_patterns("__pycache__"))
    worker = Worker(
        author.context.store.root, tmp_path, PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=""
    )
    try:
        port = worker.port()
        for name in ("ingress/__pycache__/status_proof", "telemetry/__pycache__/exposition"):
            until(lambda name=name: list((copy / "greentic").glob(f"{name}.*.pyc")), name)
        shutil.rmtree(copy)
        assert ask(port, "GET", "/metrics")[0] == 200
        assert ask(port, "GET", "/status/proof?nonce=" + "a" * 32)[0] == 200
        assert ask(port, "GET", "/status")[0] == 200
        assert ask(port, "POST", "/", b'{"text": "Ada"}')[0] == 200
    finally:
        assert worker.stop() == 0, worker.out.read_text()


TALKS = """#!/bin/sh
echo "Forwarding from 127.0.0.1:1 -> 1"
head -c 300000 /dev/zero | tr '\\0' '\\n'
: > "$TOLD"
exec sleep 60
"""
"""A kubectl that says more than a pipe holds, as a port does that was asked thousands of times."""


def test_a_forwarded_port_is_not_held_up_by_what_kubectl_prints(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "cluster")
    from world import Kubectl

    program, told = tmp_path / "kubectl", tmp_path / "told"
    program.write_text(TALKS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(told))
    with Kubectl(tmp_path / "kubeconfig").forward("a", "pod/b"):
        until(told.exists, "all of it was read")
