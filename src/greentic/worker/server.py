"""Binding, serving and draining (spec: worker 4.1, 4.14).

Rules:
1. The socket is bound before the server starts, so that a busy port is known, and said, before the banner.
2. On SIGTERM or SIGINT the worker is not ready any more, keeps serving for the drain delay, then closes the door, finishes
   what runs and exits with 0. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

from greentic.ground.errors import BootError
from greentic.ingress.app import WorkerApp
from greentic.ingress.auth import BearerGate, load_tokens
from greentic.model.hosts import join_listen_addr
from greentic.worker.boot import Booted
from greentic.worker.processes import inherited, supervise, worker_count
from greentic.worker.settings import (
    StartOptions,
    bearer_gate,
    bind_address,
    candidate_ports,
    drain_delay,
    finish_seconds,
    shared_sessions,
    strict_port,
    trusts_loopback,
)

BACKLOG = 1024
ACCEPT_AT_ONCE = 2
"""Connections that a process takes in one go; who takes all that wait leaves none to the other processes."""
GRACE_SECONDS = 30
"""How long running requests may take after the door is closed."""


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


def serve(booted: Booted, options: StartOptions) -> None:
    """Serve until a signal, in this process or in several. Raises `BootError` if the socket cannot be bound."""
    activation, log = booted.activation, booted.log
    given = inherited(os.environ)
    bound = given.socket if given is not None else _bound(booted, options)
    address = bound.getsockname()
    listen = join_listen_addr(str(address[0]), int(address[1]))

    def serving() -> None:
        line = banner(activation.env.environment_id, len(activation.revisions), len(activation.dispatchers), listen)
        log.info("start", f"revision ingress listening on http://{listen}")
        log.info("start", line)
        print(f"\n{line}. Press Ctrl+C to stop.", flush=True)

    if given is not None:
        _run(booted, bound, listen, given.ready)
        return
    count = worker_count(options.workers, os.environ)
    if count == 1:
        _run(booted, bound, listen, serving)
    else:
        supervise(bound, count, options.arguments(), serving, lambda text: log.info("start", text, show=True))


def _bound(booted: Booted, options: StartOptions) -> socket.socket:
    """The socket that the worker listens on, with what is to be said about it."""
    activation, log = booted.activation, booted.log
    told = bind_address(activation.env.host_config.listen_addr, os.environ)
    for warning in told.warnings:
        log.warn("start", warning)
    host, _, port = told.value.rpartition(":")
    bound, warnings = bind(host.strip("[]"), int(port), strict=strict_port(options.strict_port, os.environ))
    for warning in warnings:
        log.warn("start", warning)
    tokens = load_tokens(booted.store.paths(activation.env.environment_id))
    open_to_all = not BearerGate(tokens, enabled=bearer_gate(os.environ)).configured
    if open_to_all and activation.revisions and host.strip("[]") not in ("127.0.0.1", "::1"):
        log.info(
            "start", "no ingress token is configured: anyone who reaches this address can drive the worker", show=True
        )
    return bound


def _run(booted: Booted, bound: socket.socket, listen: str, serving: Callable[[], None]) -> None:
    """Serve in this process."""
    import uvicorn

    activation, log = booted.activation, booted.log
    gate = BearerGate(load_tokens(booted.store.paths(activation.env.environment_id)), enabled=bearer_gate(os.environ))
    app = WorkerApp(
        activation,
        listen,
        gate,
        log,
        booted.services,
        shared_sessions=shared_sessions(os.environ),
        trust_loopback=trusts_loopback(os.environ),
    )
    config = uvicorn.Config(
        app, http="httptools", ws="none", loop="asyncio", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, date_header=False, backlog=ACCEPT_AT_ONCE,
        timeout_graceful_shutdown=finish_seconds(os.environ, GRACE_SECONDS), timeout_keep_alive=75,
    )  # fmt: skip
    server = _server(
        uvicorn.Server, config, app, drain_delay(os.environ), lambda line: log.info("start", line), serving
    )
    server.run(sockets=[bound])
    app.pool.stop()


def banner(env_id: str, revisions: int, deployments: int, listen: str) -> str:
    """The line that tools look for (spec: worker 2.8)."""
    if revisions:
        return (
            f"serving {revisions} revision(s) for env `{env_id}` across {deployments} deployment(s) on http://{listen}"
        )
    return (
        f"no bundles attached to env `{env_id}` — serving probes only on http://{listen} "
        "(attach a bundle with `gtc op bundles add`)"
    )


def _server(  # type: ignore[no-untyped-def]  # noqa: ANN202
    base: type, config: object, app: WorkerApp, delay: float, told: Callable[[str], None], serving: Callable[[], None]
):
    """A server of the library that drains as rule 2 says."""

    class DrainingServer(base):  # type: ignore[misc]
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if app.draining:
                self.force_exit = True
                self.should_exit = True
                return
            app.draining = True
            name = "ctrl_c" if sig == signal.SIGINT else "sigterm"
            told(f"runtime shutdown requested via {name}")
            if delay:
                asyncio.get_running_loop().call_later(delay, self._close)
            else:
                self._close()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for listening in sockets or []:
                listening.listen(BACKLOG)  # the library lets no more wait than it accepts at once
            serving()

        def _close(self) -> None:
            self.should_exit = True

    return DrainingServer(config)
