"""Several processes of one worker behind one socket (formats: worker 14).

Rules:
1. The first process boots like any worker: it pulls, compiles and binds. Then it starts the others, which find everything on
   the disk and in the cache, and only watches over them.
2. They share the socket, and a private directory where conversations wait, unless Redis is configured.
3. It says that the worker serves when every process does. One that ends is started again, a little later each time, whether it had
   served or not: what keeps it from booting, such as a document that was damaged meanwhile, is none of the others' affair.
4. SIGTERM and SIGINT go on to every process; each drains, and the exit code is 0. If the first process is killed, the others see it
   and drain too: nobody would look after them, and they would hold the address against whatever is started next.
5. Each process follows the environment for itself, also where a seed is mounted; SIGHUP goes on to every one that serves.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NamedTuple

from greentic.ground import variables
from greentic.ground.clock import CLOCK
from greentic.ground.errors import BootError
from greentic.ingress.scraping import DIRECTORY
from greentic.telemetry.tallies import TALLIES
from greentic.worker.settings import IngressSettings, Settings

SOCKET_FD, READY_FD, METRICS_FD = "GREENTIC_INHERITED_SOCKET", "GREENTIC_READY_FD", "GREENTIC_INHERITED_METRICS"
READY_SECONDS = 120.0
STOP_SECONDS = 60.0
"""How long a process may take to stop after its drain delay; longer than it gives itself."""
MAX_BACKOFF = 30.0
STABLE_SECONDS = 30.0
"""A process that lived this long counts as well again."""


class Inherited(NamedTuple):
    """What a started process got from the first one."""

    socket: socket.socket
    ready_fd: int | None
    """A pipe that the first process reads for as long as it lives."""
    metrics: socket.socket | None = None
    """For scrapers."""

    def ready(self) -> None:
        """Tell the first process that this one serves."""
        if self.ready_fd is not None:
            with contextlib.suppress(OSError):  # it is gone, which the loop notices
                os.write(self.ready_fd, b"1")


def inherited(environ: Mapping[str, str]) -> Inherited | None:
    """The socket that the first process bound, if this is one of those that it started."""
    told, ready = variables.count(SOCKET_FD, environ), variables.count(READY_FD, environ)
    scraped = variables.count(METRICS_FD, environ)
    metrics = None if scraped is None else socket.socket(fileno=scraped)
    return None if told is None else Inherited(socket.socket(fileno=told), ready, metrics)


class _Process:
    """One serving process, and how long to wait before it is started again."""

    def __init__(self, start: Callable[[], tuple[subprocess.Popen[bytes], int]]) -> None:
        self._start = start
        self.backoff = 0.5
        self.restart_at: float | None = None
        self.ready_fd = -1
        self.serves = False
        """Whether it told that it serves; signals may be sent to it then."""

    def begin(self) -> None:
        """Start it. Raises `OSError` when the system has no room for another process."""
        self.close()
        self.serves = False
        self.process, self.ready_fd = self._start()
        self.began, self.restart_at = CLOCK.monotonic(), None

    def close(self) -> None:
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1

    def serves_now(self) -> bool:
        """Whether it told, since it was last asked, that it serves."""
        if self.ready_fd < 0 or not select.select([self.ready_fd], [], [], 0)[0]:
            return False
        # The pipe stays open: its breaking says that this process is gone.
        self.serves = bool(os.read(self.ready_fd, 1))
        return self.serves

    def ended(self) -> int | None:
        return self.process.poll()

    def look(self) -> None:
        """Let it look at its environment, if it serves: one that begins looks anyway, and would not know the signal yet."""
        if self.serves:
            self.process.send_signal(signal.SIGHUP)

    def later(self, now: float) -> None:
        self.backoff = 0.5 if now - self.began > STABLE_SECONDS else min(self.backoff * 2, MAX_BACKOFF)
        self.restart_at = now + self.backoff


class Sockets(NamedTuple):
    """What the first process has bound for the others."""

    bound: socket.socket
    metrics: socket.socket | None = None

    def close(self) -> None:
        self.bound.close()
        if self.metrics is not None:
            self.metrics.close()


def supervise(
    sockets: Sockets,
    settings: Settings,
    arguments: list[str],
    environ: Mapping[str, str],
    serving: Callable[[], None],
    ends: Callable[[str], None],
    told: Callable[[str], None],
    warned: Callable[[str], None],
) -> None:
    """Run the processes until a signal. `serving` is called once all of them serve, `ends` when they are to. Raises `BootError`."""
    from greentic.sessions.shared_directory import SharedDirectory  # one process shares with nobody
    from greentic.telemetry.siblings import leave_first

    shared = SharedDirectory()
    with contextlib.suppress(OSError):  # no room: the metrics begin with the other processes
        leave_first(shared.path / DIRECTORY, TALLIES.rows())
    given = {**environ, "GREENTIC_SHARED_SESSIONS": str(shared.path), "GREENTIC_WORKERS": "1"}
    if settings.offline:
        given["GREENTIC_OFFLINE"] = "1"
    stopping: list[str] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append("ctrl_c" if number == signal.SIGINT else "sigterm")

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    processes: list[_Process] = []

    def look(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.look()

    previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, look)
    try:
        for _ in range(settings.ingress.workers):
            process = _Process(lambda: _spawn(sockets, arguments, given, shared.fileno()))
            process.begin()
            processes.append(process)
        _await_ready(processes, stopping, warned)
        if not stopping:
            serving()
        while not stopping:
            for process in processes:
                _tend(process, told, warned)
            CLOCK.sleep(0.1)
        ends(stopping[0])
    finally:
        sockets.close()  # the last process that closes the door is to be the last that holds it: who knocks here waits in vain
        _stop(processes, stopping, settings.ingress)
        for number, handler in previous.items():
            signal.signal(number, handler)
        shared.close()


def _tend(process: _Process, told: Callable[[str], None], warned: Callable[[str], None]) -> None:
    """Start a process again that ended, when its time has come, and tell what became of it."""
    now = CLOCK.monotonic()
    code = process.ended()
    if code is not None and process.restart_at is None:
        process.later(now)
        warned(f"worker process {process.process.pid} ended with {code}; starting another in {process.backoff:g} s")
    elif process.serves_now():
        told(f"worker process {process.process.pid} serves")
    elif process.restart_at is not None and now >= process.restart_at:
        try:
            process.begin()
        except OSError as error:
            process.later(now)
            warned(f"a worker process cannot be started ({error.strerror}); again in {process.backoff:g} s")


def _spawn(
    sockets: Sockets, arguments: list[str], given: Mapping[str, str], shared: int
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process; `shared` is what it holds as long as it uses the sessions of all."""
    reading, writing = os.pipe()
    environment = {**given, SOCKET_FD: str(sockets.bound.fileno()), READY_FD: str(writing)}
    passed = [sockets.bound.fileno(), writing, shared]
    if sockets.metrics is not None:
        environment[METRICS_FD] = str(sockets.metrics.fileno())
        passed.append(sockets.metrics.fileno())
    words = [sys.executable, "-m", "greentic.cli.start", *arguments]
    try:
        process = subprocess.Popen(words, env=environment, pass_fds=passed, stdin=subprocess.DEVNULL, process_group=0)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return process, reading


def _await_ready(processes: list[_Process], stopping: list[str], warned: Callable[[str], None]) -> None:
    """Wait until all serve, or some for so long (rule 3). Raises `BootError` where none does."""
    deadline = CLOCK.monotonic() + READY_SECONDS
    while not stopping:
        select.select([p.ready_fd for p in processes if not p.serves and p.ended() is None], [], [], 0.1)
        for process in processes:
            process.serves_now()
        late, codes = CLOCK.monotonic() > deadline, [p.ended() for p in processes]
        if any(p.serves for p in processes):
            if late or all(p.serves for p in processes):
                return
            for process in processes:
                _tend(process, lambda text: None, warned)
        elif late:
            raise BootError(f"a worker process did not serve within {READY_SECONDS:g} s")
        elif None not in codes:
            raise BootError(f"a worker process ended with {codes[0]} before it served")


def _stop(processes: list[_Process], stopping: list[str], ingress: IngressSettings) -> None:
    for process in processes:
        if process.ended() is None:
            process.process.send_signal(signal.SIGTERM)
    deadline = CLOCK.monotonic() + ingress.drain_delay + STOP_SECONDS + ingress.finish_seconds
    for process in processes:
        while process.ended() is None:
            CLOCK.sleep(0.02)
            if len(stopping) > 1 or CLOCK.monotonic() > deadline:  # a second signal ends everything at once
                process.process.kill()
        process.close()
