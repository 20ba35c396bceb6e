"""What a program may import. Nothing else of the package is promised: modules, names and signatures elsewhere may change any day.

Rules:
1. Everything here is typed, takes plain values and paths, and answers values; errors are `GreenticError` with a stable `kind`.
2. A call does what the verb of the same name does, with its checks, its lock and its event in the audit log.
   Deployments and revisions may be named as there: `bundle`, `bundle@3`, or their ULID.
3. Nothing is kept between calls but the store's directory: another program, or `gtc op`, may work on the same store at once.
4. What `serve` starts sees nothing of the caller's home and store, listens on loopback alone, and is gone when its block ends.
"""

from __future__ import annotations

import http.client
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from greentic.author.bundle_build import Built, build_bundle
from greentic.deployments import bundles, revisions, traffic
from greentic.deployments.bundles import DeploymentSummary
from greentic.deployments.revisions import RevisionSummary
from greentic.deployments.stage import RevisionStagePayload
from greentic.deployments.stage import stage as stage_revision
from greentic.deployments.traffic import SplitSummary
from greentic.deployments.ulids import with_ulids
from greentic.ground import variables
from greentic.ground.documents import Json, compact, parse
from greentic.ground.errors import BootError, Conflict, GreenticError, InvalidArgument, NotFound
from greentic.model.environment import Environment
from greentic.operate import env, env_init, trust_root
from greentic.operate.change import Context
from greentic.operate.env import EnvSummary
from greentic.release.deploy import BundleDeployPayload, Deployed, deploy
from greentic.store.environments import EnvironmentStore
from greentic.store.layout import default_store_root

__all__ = [
    "Answer", "Built", "Conflict", "Deployed", "DeploymentSummary", "EnvSummary", "Environment", "Environments", "GreenticError",
    "InvalidArgument", "NotFound", "RevisionSummary", "Served", "SplitSummary", "build_bundle", "serve",
]  # fmt: skip

START_SECONDS = 120.0
STOP_SECONDS = 60.0
_LISTENS = re.compile(r" on http://127\.0\.0\.1:(\d+)")


class Environments:
    """The environments of one store: a directory, `~/.greentic/environments` if none is named."""

    def __init__(self, root: Path | None = None) -> None:
        self._context = Context(EnvironmentStore(root or default_store_root()))

    def create(self, env_id: str, name: str) -> EnvSummary:
        """A new, empty environment that trusts this machine's operator key, which is made if there is none."""
        made = env.create(self._context, env.EnvCreatePayload(environment_id=env_id, name=name))
        trust_root.bootstrap(self._context, trust_root.TrustRootBootstrapPayload(environment_id=env_id))
        return made

    def init_local(self) -> env_init.EnvInitialized:
        """The environment `local`, made or completed."""
        return env_init.init(self._context, env_init.EnvInitPayload())

    def read(self, env_id: str) -> Environment:
        """The document as it is now. Raises `NotFound`, and `GreenticError` for one that does not load."""
        return env.show(self._context, env_id).environment

    def add(
        self, env_id: str, bundle_id: str, *, customer_id: str | None = None, path_prefixes: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> DeploymentSummary:  # fmt: skip
        """A deployment: a route, still without a revision."""
        binding = bundles.RouteBindingPayload(hosts=list(hosts), path_prefixes=list(path_prefixes))
        payload = bundles.BundleAddPayload(
            environment_id=env_id, bundle_id=bundle_id, customer_id=customer_id, route_binding=binding
        )
        return bundles.add(self._context, payload)

    def stage(
        self, env_id: str, deployment_id: str, bundle: Path | None = None, *, source_uri: str | None = None
    ) -> RevisionSummary:
        """Pin a bundle as a new revision: from a file, else pulled from its source, which is where workers pull it."""
        payload = RevisionStagePayload(
            environment_id=env_id,
            deployment_id=deployment_id,
            bundle_path=None if bundle is None else str(bundle),
            bundle_source_uri=source_uri,
        )
        return stage_revision(self._context, with_ulids(self._context, payload))

    def warm(self, env_id: str, revision_id: str) -> RevisionSummary:
        """Load a staged revision; it is ready if that works, else failed, and `Conflict` says why."""
        payload = revisions.RevisionTransitionPayload(environment_id=env_id, revision_id=revision_id)
        return revisions.warm(self._context, with_ulids(self._context, payload))

    def route(self, env_id: str, deployment_id: str, weights: Mapping[str, int], *, key: str) -> SplitSummary:
        """Route a deployment's traffic: revisions and their parts of 10,000. The same `key` and weights again change nothing."""
        entries = [traffic.SplitEntryPayload(revision_id=r, weight_bps=w) for r, w in weights.items()]
        payload = traffic.TrafficSetPayload(
            environment_id=env_id, deployment_id=deployment_id, entries=entries, idempotency_key=key
        )
        return traffic.set_traffic(self._context, with_ulids(self._context, payload))

    def deploy(
        self, env_id: str, bundle_id: str, bundle: Path | None = None, *, source_uri: str | None = None,
        customer_id: str | None = None, path_prefixes: Sequence[str] = (), hosts: Sequence[str] = (),
    ) -> Deployed:  # fmt: skip
        """Add, stage, warm and route in one call; a deployment that is there keeps its route and gets the new revision."""
        binding = bundles.RouteBindingPayload(hosts=list(hosts), path_prefixes=list(path_prefixes))
        payload = BundleDeployPayload(
            environment_id=env_id,
            bundle_id=bundle_id,
            bundle_path=None if bundle is None else str(bundle),
            bundle_source_uri=source_uri,
            customer_id=customer_id,
            route_binding=binding if hosts or path_prefixes else None,
        )
        return deploy(self._context, payload)


# -- a worker for a test --------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a worker answered."""

    status: int
    body: bytes

    def json(self) -> Json:
        """Raises `ValueError` for a body that is no JSON."""
        return parse(self.body)


class Served(NamedTuple):
    """A running worker."""

    port: int
    log: list[str]
    """What it has printed so far, line by line."""

    def send(self, message: Json, path: str = "/", headers: Mapping[str, str] | None = None) -> Answer:
        """POST a message as JSON; `{"text": …}` is what flows expect."""
        return self.request("POST", path, compact(message), {"Content-Type": "application/json", **(headers or {})})

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own. Raises `OSError` if the worker is gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        finally:
            connection.close()


@contextmanager
def serve(bundle: Path, settings: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve a bundle by a real worker on a free port of the loopback address, until the block ends.

    `settings` are the worker's variables (docs/variables.md). Raises `BootError` with what the programs said if the bundle cannot be
    deployed or the worker does not start.
    """
    with tempfile.TemporaryDirectory(prefix="greentic-serve-") as scratch:
        kept = {
            k: v for k, v in variables.environment().items() if not k.startswith(("GREENTIC_", "GTC_")) and k != "PORT"
        }
        environ = {**kept, "HOME": scratch, "USERPROFILE": scratch, "GREENTIC_GATEWAY_LISTEN_ADDR": "127.0.0.1:0"}
        for words in (["env", "init"], ["deploy", "--bundle", str(bundle.resolve()), "--bundle-id", "served"]):
            _run(["greentic.cli.gtc", "op", *words], environ)
        process = subprocess.Popen(
            [sys.executable, "-m", "greentic.cli.start", "start", "--env", "local"],
            env=environ | dict(settings or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            yield _started(process)
        finally:
            _stop(process)


def _run(words: list[str], environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BootError(f"`{' '.join(words)}` failed: {done.stderr.strip()}")


def _started(process: subprocess.Popen[str]) -> Served:
    """Wait until the worker listens. Raises `BootError`."""
    log: list[str] = []
    listens: queue.Queue[int | None] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, log, listens), daemon=True, name="worker-output").start()
    try:
        port = listens.get(timeout=START_SECONDS)
    except queue.Empty:
        raise BootError(f"the worker did not listen within {START_SECONDS:g} s:\n{''.join(log)}") from None
    if port is None:
        raise BootError(f"the worker ended before it listened:\n{''.join(log)}")
    return Served(port, log)


def _read(output: IO[str], log: list[str], listens: queue.Queue[int | None]) -> None:
    """Collect what the worker prints, as long as it runs, and tell its port, or that it ended."""
    for line in output:
        log.append(line)
        found = _LISTENS.search(line)
        if found:
            listens.put(int(found.group(1)))
    listens.put(None)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
