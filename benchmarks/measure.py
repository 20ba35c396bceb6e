"""What every benchmark needs: timing in turn, a distributor and workers as processes, a load generator."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from conftest import Author
from greentic.author.bundle_build import build_bundle
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore

BIN = Path(sys.executable).parent
PYTHON = [sys.executable, "-c", "pass"]
MIB = 1 << 20
Row = tuple[str, str, str, str, str]


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def paired(
    ours: Callable[[], float], theirs: Callable[[], float], repetitions: int
) -> tuple[list[float], list[float], float]:
    """Both sides in turn after a warm-up; the median of the ratios pair by pair."""
    ours(), theirs()
    left, right = [], []
    for _ in range(repetitions):
        left.append(ours())
        right.append(theirs())
    return left, right, statistics.median(a / b for a, b in zip(left, right, strict=True))


def spread(values: list[float], unit: float = 1000, suffix: str = " ms") -> str:
    return f"{statistics.median(values) * unit:.0f}{suffix} ({min(values) * unit:.0f} to {max(values) * unit:.0f})"


def quiet(*command: str, **options: object) -> Callable[[], float]:
    return lambda: timed(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    )


@contextlib.contextmanager
def distributor(root: Path, *flags: str) -> Iterator[str]:
    """In a process of its own, as a real one would be; what it was asked for stands in `<root>.log`."""
    log = root.with_name(f"{root.name}.log")
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(BIN / "gtc"), "distributor", "serve", str(root), "--port", "0", *flags],
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    try:
        while (found := re.search(r"http://[0-9.:]+(?=/)", log.read_text())) is None:
            time.sleep(0.01)
        yield found.group(0)
    finally:
        process.terminate()  # a background shell has its children ignore an interrupt
        process.wait()


def memory(pid: int, field: str) -> float:
    """MiB of a process: `VmRSS` is what it holds now, `VmHWM` the most that it held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def processor_seconds(pid: int) -> float:
    """Seconds of processor time, user and system, that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Boot:
    """One cold boot: from starting the process to its first 200."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.peak = 0

    def __call__(self) -> float:
        env = self.store / "local"
        (env / "runtime-config.json").unlink(missing_ok=True)
        shutil.rmtree(env / "revisions", ignore_errors=True)
        shutil.rmtree(Path(os.environ["HOME"]) / ".cache" / "greentic" / "bundles", ignore_errors=True)  # cold is cold
        port = free_port()
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GREENTIC_")} | {
            "GREENTIC_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{port}"
        }
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(BIN / "greentic-start"), "start", "--env", "local", "--store-root", str(self.store)],
            env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not answers(port):
            if process.poll() is not None:
                raise SystemExit("the worker did not boot")
            time.sleep(0.001)
        took = time.perf_counter() - began
        self.peak = max(self.peak, int(memory(process.pid, "VmHWM")))
        process.terminate()
        process.wait()
        return took


def big_bundle(scratch: Path, size: int, *, compressible: bool) -> Path:
    source = scratch / f"source-{size}-{compressible}"
    shutil.copytree(ROOT / "examples" / "hello-bundle", source)
    (source / "packs" / "data").mkdir()
    rand = random.Random(1)
    with (source / "packs" / "data" / "blob.bin").open("wb") as file:
        for _ in range(size // MIB):
            file.write(
                (rand.randbytes(MIB // 4) + b"compressible " * 100_000)[:MIB] if compressible else rand.randbytes(MIB)
            )
    out = scratch / f"{size}-{compressible}.gtbundle"
    build_bundle(source, out)
    shutil.rmtree(source)
    return out


POST_LUA = """wrk.method = "POST"
wrk.body = '{"text":"hi"}'
wrk.headers["Content-Type"] = "application/json"
"""


@contextlib.contextmanager
def worker(store: Path, **environ: str) -> Iterator[int]:
    """A running worker, by its port."""
    with worker_process(store, **environ) as (port, _):
        yield port


@contextlib.contextmanager
def worker_process(store: Path, **environ: str) -> Iterator[tuple[int, int]]:
    """A running worker, by its port and its process."""
    port = free_port()
    process = subprocess.Popen(
        [str(BIN / "greentic-start"), "start", "--env", "local", "--store-root", str(store)],
        env=os.environ | {"GREENTIC_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{port}"} | environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not answers(port):
            if process.poll() is not None:
                raise SystemExit("the worker did not boot")
            time.sleep(0.02)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def author(root: Path, bundle: Path, uri: str) -> Author:
    made = Author(Context(EnvironmentStore(root))).create()
    made.deployed(bundle, uri)
    return made


def said(port: int, path: str = "/") -> str:
    """What a flow answers to a message. What fails is no measurement."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", b'{"text":"hi"}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = str(answer.read().decode())
    if "error_kind" in text:
        raise SystemExit(f"the flow fails: {text[:500]}")
    return text


def wrk(port: int, path: str, connections: int, script: Path | None) -> tuple[float, float]:
    """Requests per second and p99 in milliseconds."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        "-d3s",
        "--latency",
        f"http://127.0.0.1:{port}{path}",
        *(["-s", str(script)] if script else []),
    ]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"not every request was answered: {out}")
    value, unit = re.search(r"99%\s+([0-9.]+)(us|ms|s)", out).groups()  # type: ignore[union-attr]
    return float(re.search(r"Requests/sec:\s+([0-9.]+)", out).group(1)), float(value) * {
        "us": 0.001,
        "ms": 1,
        "s": 1000,
    }[unit]  # type: ignore[union-attr]
