"""A storm: constant load on a worker of two processes, while everything around it changes.

Rules:
1. Load never pauses, and every request must be answered 200. What is not is a failure, whoever is to blame.
2. One kind of failure is counted apart: the requests that a process held when it was killed with SIGKILL, at most one for each
   connection that it had.
3. What happens is driven by what can be seen (a generation that is served, a process that is ready), not by guessed times.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import PROGRAMS, Author, make_bundle, make_pack
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore
from test_flow import node
from waiting import PATIENCE, children, until

CONNECTIONS = 8
FLIP_SECONDS = 0.2
_SCRIPT = """wrk.method = "POST"
wrk.body = '{"text":"hi"}'
wrk.headers["Content-Type"] = "application/json"
"""


class Told(NamedTuple):
    """What the load generator saw."""

    turns: int
    failed: int
    """Answers other than 200, and connections that broke (rule 1)."""


class Outcome(NamedTuple):
    turns: int
    failed: int
    held: int
    """Connections that the killed process had."""
    lost: int
    """Requests that failed while a process was killed."""
    flips: int


class Distributor:
    """A distributor that can be killed and comes back at the same address."""

    def __init__(self, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as bound:
            self.port = int(bound.getsockname()[1])
        self._root = root
        self.start()

    def start(self) -> None:
        words = [str(PROGRAMS / "gtc"), "distributor", "serve", str(self._root), "--port", str(self.port)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self._process.poll() is None and listens(self.port), "the distributor listens")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Worker:
    """A worker of two processes that starts empty."""

    def __init__(self, root: Path, document: bytes, processes: int = 2, **told: str) -> None:
        self.document = root / "local" / "environment.json"
        self.document.parent.mkdir(parents=True)
        self.document.write_bytes(document)
        with socket.create_server(("127.0.0.1", 0)) as bound:
            self.port = int(bound.getsockname()[1])
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GREENTIC_")} | {
            "GREENTIC_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{self.port}",
            "GREENTIC_BUNDLE_CACHE_DIR": str(root / "cache"),
            "GREENTIC_DRAIN_DELAY_SECONDS": "1",
            **told,
        }
        words = [
            str(PROGRAMS / "greentic-start"),
            "start",
            "--env",
            "local",
            "--store-root",
            str(root),
            "--strict-port",
        ]
        self.log = root / "worker.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*words, "--workers", str(processes)], env=environ, stdout=log, stderr=subprocess.STDOUT
            )
        until(self._boots, "the worker serves")

    def _boots(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the worker did not boot:\n{self.log.read_text()}")
        return "Press Ctrl+C" in self.log.read_text()

    def follow(self, document: bytes) -> None:
        """Put a document in place as a mount does: whole, by a rename."""
        new = self.document.with_suffix(".new")
        new.write_bytes(document)
        new.rename(self.document)

    def status(self) -> dict[str, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/status")
            found: dict[str, object] = json.loads(connection.getresponse().read())
            return found

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Load:
    """The load generator, for as long as a phase takes."""

    def __init__(self, port: int, script: Path, seconds: int) -> None:
        words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
        self._process = subprocess.Popen([*words, f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE, text=True)

    @property
    def blows(self) -> bool:
        return self._process.poll() is None

    def told(self) -> Told:
        out = self._process.communicate(timeout=PATIENCE * 10)[0]
        turns = int(re.search(r"(\d+) requests in", out).group(1))  # type: ignore[union-attr]
        other = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        broken = sum(map(int, errors.groups())) if errors else 0
        return Told(turns, broken + (int(other.group(1)) if other else 0))


class Storm:
    """Everything that the storm is made of, below one directory."""

    def __init__(self, root: Path, revisions: int = 6) -> None:
        (root / "dist").mkdir(parents=True)
        self.script = root / "post.lua"
        self.script.write_text(_SCRIPT)
        self.author = Author(Context(EnvironmentStore(root / "author"))).create()
        self.distributor = Distributor(root / "dist")
        self.deployment = self.author.add()
        self.revisions = []
        for number in range(revisions):
            made = make_bundle(root / f"b{number}", {"app": made_pack(number)})
            made.rename(root / "dist" / f"{number}.gtbundle")
            uri = f"http://127.0.0.1:{self.distributor.port}/{number}.gtbundle"
            staged = self.author.stage(self.deployment, root / "dist" / f"{number}.gtbundle", uri)
            self.revisions.append(self.author.warm(staged))
        self.flips, self.known = 0, revisions - 1
        """How many revisions are routed to in turn; the last one is kept for the outage."""
        self._document = self.author.context.store.paths("local").environment
        self.worker = Worker(root / "worker", self._routed((self.revisions[0], 10_000)))

    def _routed(self, *weights: tuple[str, int]) -> bytes:
        self.flips += 1
        self.author.route(self.deployment, *weights, key=f"flip-{self.flips}")
        return self._document.read_bytes()

    def flip(self) -> None:
        """Another revision, or other weights of two, among those that may be known."""
        number = self.flips % self.known
        new, old = self.revisions[number], self.revisions[(number + 1) % self.known]
        share = (10_000, 5000, 100, 9900)[self.flips % 4]
        entries = [(new, share), *([(old, 10_000 - share)] if share < 10_000 else [])]
        self.worker.follow(self._routed(*entries))

    def serves(self, revision: str) -> bool:
        rows = self.worker.status()["revisions"]
        return isinstance(rows, list) and any(row["revision_id"] == revision for row in rows)

    def run(self, turns: int) -> Outcome:
        """Blow until so many turns were made and all has happened (rules 1 to 3)."""
        done = failed = 0
        for phase in (self._flips, self._outage, self._rolls):
            found = self._under_load(phase)
            done, failed = done + found.turns, failed + found.failed
        held, lost = 0, 0

        def killed() -> None:
            nonlocal held
            held = self._killed()

        found = self._under_load(killed)
        done, lost = done + found.turns, found.failed
        while done < turns:
            found = self._under_load(self._flips, 20 if turns > 100_000 else 2)
            done, failed = done + found.turns, failed + found.failed
        return Outcome(done, failed + max(0, lost - held), held, min(lost, held), self.flips)

    def _under_load(self, phase: Callable[[], None], seconds: int = 4) -> Told:
        load = Load(self.worker.port, self.script, seconds)
        phase()
        while load.blows:
            self.flip()
            time.sleep(FLIP_SECONDS)
        return load.told()

    def _flips(self) -> None:
        """Weights ramp and revisions flip, new ones among them (the last one stays unknown)."""
        for _ in range(12):
            self.flip()
            time.sleep(FLIP_SECONDS)

    def _outage(self) -> None:
        """The distributor dies when a revision is wanted that nobody has pulled, and comes back."""
        last = self.revisions[-1]
        self.distributor.kill()
        self.worker.follow(self._routed((last, 10_000)))
        until(lambda: _error_or_unavailable(self.worker.status()), "the outage is told")
        self.distributor.start()
        self.worker.process.send_signal(signal.SIGHUP)
        until(lambda: self.serves(last), "the revision comes by itself")
        self.known = len(self.revisions)

    def _rolls(self) -> None:
        """Each process is asked to stop, while another takes its place."""
        for pid in children(self.worker.process.pid):
            before = set(children(self.worker.process.pid))
            os.kill(pid, signal.SIGTERM)
            self._replaced(pid, before)

    def _killed(self) -> int:
        before = set(children(self.worker.process.pid))
        port = self.worker.port
        until(lambda: sum(connections_of(pid, port) for pid in before) == CONNECTIONS, "the load is connected")
        pid = max(before, key=lambda pid: connections_of(pid, port))
        held = connections_of(pid, port)
        os.kill(pid, signal.SIGKILL)
        self._replaced(pid, before)
        return held

    def _replaced(self, pid: int, before: set[int]) -> None:
        until(lambda: pid not in children(self.worker.process.pid), f"process {pid} ends")
        until(lambda: len(children(self.worker.process.pid)) == 2, f"process {pid} is replaced")
        (new,) = set(children(self.worker.process.pid)) - before
        until(lambda: f"worker process {new} serves" in self.worker.log.read_text(), f"process {new} serves")

    def end(self) -> int:
        """Stop everything; the exit code of the worker."""
        self.distributor.kill()
        return self.worker.stop()


def made_pack(number: int) -> bytes:
    """A pack whose answer tells which it is."""
    return make_pack("app", {"main": {"nodes": [node("a", "emit.response", {"text": f"revision {number}"})]}})


@contextlib.contextmanager
def storm(root: Path) -> Iterator[Storm]:
    made = Storm(root)
    try:
        yield made
    finally:
        if made.worker.process.poll() is None:
            made.end()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def connections_of(pid: int, port: int) -> int:
    """How many connections to a port a process has accepted."""
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01"
    }
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(link).removeprefix("socket:[").removesuffix("]") in inodes
    return found


def _error_or_unavailable(status: dict[str, object]) -> bool:
    following = status["following"]
    return bool(status["unavailable"]) or (isinstance(following, dict) and following["error"] is not None)
