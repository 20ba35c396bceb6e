"""What the demo starts and stops.

Rules:
1. A process is remembered by its id and the moment it started, so that an id that was given to somebody else is never signalled.
2. A process outlives the step that started it; its output goes to a log below the demo's directory.
3. Waiting looks at the process as well as at its address: one that ended is told at once, with its log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

STATE = Path(__file__).resolve().parent.parent / ".demo"
"""Everything that the demo makes."""
PATIENCE = 120.0
"""Seconds until something that was started must answer."""


class Failed(Exception):
    """The demo cannot go on; the text is for the person."""


def log_of(name: str) -> Path:
    return STATE / f"{name}.log"


def start(name: str, *command: object, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program under a name, remember it, and let it run."""
    with log_of(name).open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=None if environ is None else dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    _record(name).write_text(f"{process.pid} {_started(process.pid)}\n")
    return process


def running(name: str) -> int | None:
    """The id of the process of that name, none if it ended or never was."""
    try:
        pid, _, began = _record(name).read_text().strip().partition(" ")
    except OSError:
        return None
    return int(pid) if began and _started(int(pid)) == began else None


def stop(name: str) -> None:
    """End the process of that name, at last by force."""
    pid = running(name)
    if pid is not None:
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while running(name) is not None and time.monotonic() < deadline:
            _reap(pid)
            time.sleep(0.05)
        if running(name) is not None:
            _signal(pid, signal.SIGKILL)
        print(f"stopped {name} (process {pid})", flush=True)
    _record(name).unlink(missing_ok=True)


def kill(name: str) -> None:
    """End the process of that name as a power cut would."""
    pid = running(name)
    if pid is None:
        raise Failed(f"the {name} does not run; its log:\n{log_of(name).read_text()}")
    print(f"$ kill -9 {pid}", flush=True)
    _signal(pid, signal.SIGKILL)
    _record(name).unlink()


def wait_for(name: str, address: str) -> None:
    """Until the process of that name answers at an address, with whatever status."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if running(name) is None:
                break
            time.sleep(0.05)
    raise Failed(f"the {name} did not come up; its log:\n{log_of(name).read_text()}")


def port_free(port: int, what: str, variable: str) -> None:
    """Fail where a port is taken, naming by whom if that can be seen."""
    with socket.socket() as tried, contextlib.suppress(OSError):
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(("127.0.0.1", port))
        return
    who = ""
    if shutil.which("ss"):
        told = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=False).stdout
        who = f" by users:{told.partition('users:')[2].splitlines()[0].strip()}" if "users:" in told else ""
    raise Failed(
        f"port {port} ({what}) is taken{who}. Stop it (./demo.sh host-stop, if it is an earlier demo), or choose another:"
        f" {variable}=PORT ./demo.sh …"
    )


def _record(name: str) -> Path:
    return STATE / f"{name}.pid"


def _started(pid: int) -> str:
    """When a process started, in the words of the system; empty if it ended (one that nobody waited for yet included)."""
    with contextlib.suppress(OSError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else rest[18]
    if Path("/proc/self").exists():
        return ""
    told = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    state, _, began = told.strip().partition(" ")
    return "" if state.startswith("Z") else "".join(began.split())


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap(pid: int) -> None:
    """Collect a child that ended, where the process is one of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
