"""Binding, serving and stopping (formats: worker 4).

Rules:
1. The socket is bound before anything serves, so that a busy port is known, and said, before the banner.
2. On SIGTERM or SIGINT the worker is not ready any more, keeps serving for the drain delay, then lets in who already waits at the
   door, closes it, finishes what runs and exits with 0. A second signal ends it at once; that of several processes ends the first one of
   them, which ends the others, for who stops a service signals each. The death of the process that started this one counts as a signal.
3. SIGHUP asks the worker to look at its environment again; it never ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from greentic.activate.activation import Activation
from greentic.activate.lease import Serving
from greentic.ground.beside import beside
from greentic.ground.documents import JsonObject, compact
from greentic.ground.errors import BootError
from greentic.httpd.front import Front
from greentic.httpd.room import TURNS, places, raise_file_limit
from greentic.ingress.app import WorkerApp, is_probe
from greentic.ingress.auth import TOKENS_FILE, BearerGate, load_tokens
from greentic.ingress.operator_paths import load_later
from greentic.ingress.scraping import Scraping
from greentic.ingress.status import brief
from greentic.ingress.trusted_peer import TrustedPeers
from greentic.model.elements import Elements
from greentic.model.environment import DOCUMENT
from greentic.model.hosts import host_without_port, join_listen_addr
from greentic.store.layout import EnvPaths
from greentic.telemetry.log import OperatorLog, tell
from greentic.telemetry.service_manager import tell_manager
from greentic.telemetry.tracing import whole
from greentic.worker.boot import Booted
from greentic.worker.candidate import Candidate, read_candidate
from greentic.worker.follow import Alone, Follower, FollowSteps, undisturbed
from greentic.worker.processes import Sockets, inherited, supervise
from greentic.worker.provision import provision
from greentic.worker.settings import StartOptions, bind_address, candidate_ports
from greentic.worker.tidy import after_swap
from greentic.worker.together import WithSiblings
from greentic.worker.trust_files import TrustFiles
from greentic.worker.watch import POLL_SECONDS, DirectoryWatch

if TYPE_CHECKING:
    from greentic.ingress.status_proof import Prover

BACKLOG = 1024
ACCEPT_AT_ONCE = 2
"""Connections that a process takes in one go; who takes all that wait leaves none to the other processes."""
SWITCH_SECONDS = 0.0005
"""How long a thread that prepares a change computes before the loop has its turn again; by default it would be ten times as long."""
SWAP_SECONDS = 30.0
LEAVE_SECONDS = 2.0
"""How long the end waits for a look at the environment that runs: the interpreter would be taken apart under it."""
WATCHED = frozenset({DOCUMENT, "..data", "trust-root.json", TOKENS_FILE})
"""Names whose change is worth a look: the document, who is trusted and who may call, and the link that a mounted ConfigMap swaps."""


def bind(host: str, port: int, *, strict: bool) -> tuple[socket.socket, list[str]]:
    """A bound, not yet listening socket, with the warnings of finding it. Raises `BootError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = candidate_ports(port, strict=strict)
    for candidate in ports:
        # The protocol is named because asyncio sets TCP_NODELAY only where it finds it.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, candidate))
            bound.listen(BACKLOG)
        except OSError as error:
            bound.close()
            if error.errno != errno.EADDRINUSE:
                raise BootError(f"cannot listen on {join_listen_addr(host, candidate)}: {error.strerror}") from error
            continue
        if candidate == port:
            return bound, []
        return bound, [f"requested port {port} is in use; using port {candidate} instead"]
    if strict:
        raise BootError(f"port {port} of {host} is in use", hint="stop what listens there, or choose another port")
    raise BootError(f"no available port found in range {ports.start}-{ports.stop - 1}")


def serve(booted: Booted, options: StartOptions, environ: Mapping[str, str]) -> None:
    """Serve until a signal, in this process or in several. Raises `BootError` if the socket cannot be bound."""
    activation, log, ingress = booted.activation, booted.log, booted.bench.settings.ingress
    given = inherited(environ)
    gate = BearerGate(
        load_tokens(booted.store.paths(activation.env.environment_id), ingress.tokens_file), enabled=ingress.bearer_gate
    )
    sockets = Sockets(given.socket, given.metrics) if given is not None else _bound(booted, gate)
    bound = sockets.bound
    address = bound.getsockname()
    listen = join_listen_addr(str(address[0]), int(address[1]))

    def serving() -> None:
        line = banner(activation.env.environment_id, len(activation.revisions), len(activation.dispatchers), listen)
        log.info("start", f"revision ingress listening on http://{listen}")
        log.info("start", line)
        tell(sys.stdout, f"\n{line}. Press Ctrl+C to stop.\n")
        tell_manager("READY=1", environ)

    def ends(asked: str) -> None:
        log.info("start", f"runtime shutdown requested via {asked}")
        if given is None:
            tell_manager("STOPPING=1", environ)

    def told(text: str) -> None:
        log.info("start", text, show=True)

    def warned(text: str) -> None:
        log.warn("start", text)

    if given is not None:
        _run(booted, gate, sockets, listen, given.ready, ends, given.ready_fd)
        return
    if ingress.workers == 1:
        _run(booted, gate, sockets, listen, serving, ends)
    else:
        _holds_nothing(booted)  # who serves tells for itself
        supervise(sockets, booted.bench.settings, options.arguments(), environ, serving, ends, told, warned)


def _bound(booted: Booted, gate: BearerGate) -> Sockets:
    """The sockets that the worker listens on, with what is to be said about them."""
    activation, log, ingress = booted.activation, booted.log, booted.bench.settings.ingress
    told = bind_address(activation.env.host_config.listen_addr, ingress.gateway)
    for warning in told.warnings:
        log.warn("start", warning)
    host, _, port = told.value.rpartition(":")
    bound, warnings = bind(host.strip("[]"), int(port), strict=ingress.strict_port)
    for warning in warnings:
        log.warn("start", warning)
    for bundle_id in gate.unknown(d.bundle_id for d in activation.env.bundles):
        log.warn(
            "start", f"an ingress token is for bundle `{bundle_id}`, which is not in this environment; it opens nothing"
        )
    if not gate.configured and activation.revisions and host.strip("[]") not in ("127.0.0.1", "::1"):
        log.info(
            "start", "no ingress token is configured: anyone who reaches this address can drive the worker", show=True
        )
    if ingress.metrics_addr is None:
        return Sockets(bound)
    scraped, _ = bind(*ingress.metrics_addr, strict=True)
    name = scraped.getsockname()
    log.info(
        "start",
        f"metrics are told to anybody who asks {join_listen_addr(str(name[0]), int(name[1]))} for /metrics",
        show=True,
    )
    return Sockets(bound, scraped)


def _run(
    booted: Booted,
    gate: BearerGate,
    sockets: Sockets,
    listen: str,
    ready: Callable[[], None],
    ends: Callable[[str], None],
    starter: int | None = None,
) -> None:
    """Serve in this process. `starter` is a pipe that breaks when the process that started this one dies."""
    sys.setswitchinterval(SWITCH_SECONDS)
    activation, ingress = booted.activation, booted.bench.settings.ingress
    peers = _peers(booted, activation, listen)
    serving = Serving(activation, booted.store.clock, shared=booted.services.conversations.values.shared)
    app = WorkerApp(
        serving, listen, gate, booted.log, booted.services, peers,
        shared_sessions=ingress.shared_sessions, prover=lambda: _prover(booted, serving), access_log=ingress.access_log,
    )  # fmt: skip
    front = Front(app, places(ingress.max_connections, raise_file_limit()), is_probe, app.lane)
    scraping = Scraping(
        app.metrics, front, sockets.metrics, lambda: booted.bench.loader.runtime.held_bytes, booted.log,
        lambda: compact(brief(app.own_status())),
    )  # fmt: skip
    try:
        asyncio.run(_serve(booted, app, front, sockets.bound, scraping, ready, ends, starter))
    finally:
        _holds_nothing(booted)


def _holds_nothing(booted: Booted) -> None:
    if booted.bench.in_use is not None:
        booted.bench.in_use.close()


def _prover(booted: Booted, serving: Serving) -> Prover:
    from greentic.ingress.status_proof import Prover  # no boot waits for what few ask

    settings = booted.bench.settings
    return Prover(serving, booted.proof_key, booted.store.paths(settings.env_id), booted.store.clock, settings.scope)


async def _serve(
    booted: Booted,
    app: WorkerApp,
    front: Front,
    bound: socket.socket,
    scraping: Scraping,
    ready: Callable[[], None],
    ends: Callable[[str], None],
    starter: int | None,
) -> None:
    """Accept until a signal says to stop, then stop as rule 2 says."""
    log, ingress = booted.log, booted.bench.settings.ingress
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _, context: log.error("serve", str(context.get("exception") or context["message"]))
    )
    stop, at_once = asyncio.Event(), asyncio.Event()

    def asked(name: str) -> None:
        if app.draining:
            if starter is None:
                stop.set()
                at_once.set()
            return
        app.draining = front.draining = True
        ends(name)
        loop.call_later(ingress.drain_delay, stop.set)

    loop.add_signal_handler(signal.SIGTERM, asked, "sigterm")
    loop.add_signal_handler(signal.SIGINT, asked, "ctrl_c")
    if starter is not None:
        loop.add_reader(starter, _orphaned, loop, starter, asked)
    server = await loop.create_server(front.connection, sock=bound, backlog=ACCEPT_AT_ONCE)
    bound.listen(BACKLOG)  # asyncio lets no more wait than it accepts at once
    front.start()
    follower = _follower(booted, app, loop)
    booted.bench.under_way.came = follower.wake

    def asked_to_look() -> None:
        log.info("follow", "asked to look again", show=True)
        follower.wake()

    loop.add_signal_handler(signal.SIGHUP, asked_to_look)
    await scraping.start(app.serving.process, booted.bench.settings.sessions.shared_directory)
    ready()
    follower.start()
    loading = asyncio.ensure_future(beside(load_later))
    await stop.wait()
    await loading
    follower.stop()
    await _close_door(server, bound, front)
    closing = asyncio.ensure_future(front.close(ingress.finish_seconds))
    await asyncio.wait({closing, asyncio.ensure_future(at_once.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if closing.done() and (cut := closing.result()):
        log.warn(
            "start", f"{cut} connection(s) were cut: their requests did not end within {ingress.finish_seconds:g} s"
        )
    await scraping.stop()
    follower.join(LEAVE_SECONDS)


def _orphaned(loop: asyncio.AbstractEventLoop, starter: int, asked: Callable[[str], None]) -> None:
    """The pipe is broken: nobody reads its other end."""
    loop.remove_reader(starter)
    asked("the end of the first process")


async def _close_door(server: asyncio.Server, bound: socket.socket, front: Front) -> None:
    """Accept no more, but serve who waits at the door: closing it resets them, with what they have sent."""
    loop = asyncio.get_running_loop()
    loop.remove_reader(bound)
    for _ in range(TURNS):  # what asyncio has accepted becomes a connection only while its server is open
        await asyncio.sleep(0)
    waiting: list[socket.socket] = []
    with contextlib.suppress(OSError):  # nobody waits, or there are no more files
        while len(waiting) < BACKLOG:
            waiting.append(bound.accept()[0])
    server.close()
    for one in waiting:
        one.setblocking(False)
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(front.connection, one)


def _follower(booted: Booted, app: WorkerApp, loop: asyncio.AbstractEventLoop) -> Follower:
    """What keeps this process serving what its environment says. Swaps happen on the loop."""
    bench, store, settings, serving = booted.bench, booted.store, booted.bench.settings, app.serving

    def swap(new: Activation) -> None:
        done, peers = threading.Event(), _peers(booted, new, app.listen_addr)

        def flip() -> None:
            serving.swap(new)
            app.peers = peers
            done.set()

        loop.call_soon_threadsafe(flip)
        done.wait(SWAP_SECONDS)

    def tell(state: JsonObject) -> None:
        serving.following = state

    tokens_file = settings.ingress.tokens_file
    published, paths = booted.published, bench.paths
    elements = Elements() if published is None else published.elements
    trust_files = TrustFiles(bench.examiner)

    def read() -> Candidate:
        reread_tokens(app.gate, paths, tokens_file, booted.log)
        found = read_candidate(store, settings, elements) if published is None else published.read()
        return found._replace(trust=trust_files.digest(found.env))

    def provisioned(found: Candidate) -> Activation:
        bench.under_way.wanted = undisturbed(watch, read, found, every, store.clock)
        with whole("change"):
            return provision(bench, found, serving.activation)

    def tidy() -> bool:
        return after_swap(store, settings, booted.log, bench.in_use, serving, elements)

    steps = FollowSteps(read, provisioned, swap, tell, tidy)
    directories, names = [paths.root], WATCHED
    directories += [settings.seed] if settings.seed is not None else []
    for file in (tokens_file, settings.trust_anchor):
        if file is not None:
            directories, names = [*directories, file.parent], names | {file.name}
    watch = DirectoryWatch(directories, names)
    shared = settings.sessions.shared_directory
    together = Alone() if shared is None else WithSiblings(shared, store.clock, booted.digest)
    every = POLL_SECONDS if settings.published is None else settings.published.every
    return Follower(
        steps=steps,
        watch=watch,
        serving=booted.activation,
        digest=booted.digest,
        log=booted.log,
        clock=store.clock,
        random=store.random,
        together=together,
        every=every,
        trust=trust_files.digest(booted.activation.env),
    )


def reread_tokens(gate: BearerGate, paths: EnvPaths, named: Path | None, log: OperatorLog) -> None:
    """Take over the tokens that are there now. A file that does not load leaves the old ones in force, and is told."""
    try:
        changed = gate.take_over(load_tokens(paths, named))
    except BootError as error:
        log.error("follow", f"the ingress tokens stay as they were: {error}")
        return
    if changed:
        log.info("follow", "the ingress tokens were replaced", show=True)


def _peers(booted: Booted, activation: Activation, listen: str) -> TrustedPeers:
    """Whom to trust under the names of this worker: its address, what it routes, its public name, what is allowed."""
    ingress = booted.bench.settings.ingress
    public = (activation.env.host_config.public_base_url or "").partition("://")[2].partition("/")[0]
    hosts = {host_without_port(listen), *ingress.allowed_hosts}
    hosts |= {host for route in activation.routes for host in route.hosts}
    hosts |= {host_without_port(public)} if public else set()
    return TrustedPeers(hosts, trust_loopback=ingress.trust_loopback)


def banner(env_id: str, revisions: int, deployments: int, listen: str) -> str:
    """The line that tools look for (formats: worker 3)."""
    if revisions:
        return (
            f"serving {revisions} revision(s) for env `{env_id}` across {deployments} deployment(s) on http://{listen}"
        )
    return (
        f"no bundles attached to env `{env_id}` — serving probes only on http://{listen} "
        "(attach a bundle with `gtc op bundles add`)"
    )
