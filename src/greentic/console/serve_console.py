"""Serving the console: on loopback, until it is interrupted.

Rules:
1. It listens on 127.0.0.1 and on no other address; there is no option for another.
2. The front is the worker's own (`httpd/front.py`): the same limits on heads, bodies and silence.
3. The address with the token is printed once, to whoever started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple

from greentic.console.changes import Changes
from greentic.console.console_app import ConsoleApp
from greentic.console.door import Door
from greentic.console.workers import Watched
from greentic.deployments.worker_status import checked_addresses
from greentic.examine.env_verify import pinned_keys
from greentic.ground.errors import Conflict
from greentic.httpd.front import Front
from greentic.httpd.room import Places
from greentic.store.environments import EnvironmentStore

HOST = "127.0.0.1"
PLACES = Places(full=64, reserved=4)
BACKLOG = 64
STOP_SECONDS = 2.0


class ConsoleOptions(NamedTuple):
    """What a console is asked to show."""

    env_id: str
    addresses: list[str]
    port: int = 0
    allow_changes: bool = False
    proof_keys: tuple[str, ...] = ()
    """Who must have signed proofs: ids of keys, or files with public keys."""


def serve_console(store: EnvironmentStore, options: ConsoleOptions, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is given the address that opens it.

    Raises `NotFound` for an environment that is not there, `InvalidArgument` for an address or a key, `Conflict` for a port that is taken.
    """
    store.load(options.env_id)
    addresses = checked_addresses(options.addresses)
    watched = Watched(addresses, store.clock, store.random, pinned_keys([*options.proof_keys]))
    with contextlib.closing(_bound(options.port)) as bound:
        port = int(bound.getsockname()[1])
        door = Door(port, store.random)
        changes = Changes(store, options.env_id, addresses, allowed=options.allow_changes)
        app = ConsoleApp(store, options.env_id, watched, door, changes)
        asyncio.run(_serve(app, bound, lambda: ready(f"http://{HOST}:{port}/open/{door.token}")))


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        raise Conflict(
            f"cannot listen on {HOST}:{port}: {error.strerror}", hint="choose another --port, or 0 for a free one"
        ) from error
    return bound


async def _serve(app: ConsoleApp, bound: socket.socket, ready: Callable[[], None]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    front = Front(app, PLACES, lambda path: False)
    server = await loop.create_server(front.connection, sock=bound, backlog=BACKLOG)
    front.start()
    ready()
    await stop.wait()
    server.close()
    await front.close(STOP_SECONDS)
