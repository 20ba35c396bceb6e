"""Rows about delivery: registries, resume, reuse, parts, and a storm of boots."""

from __future__ import annotations

import heapq
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import BIN, MIB, Row, answers, author, big_bundle, distributor, free_port, paired, quiet, spread, timed

from greentic.author.bundle_publish import publish_file
from greentic.distribute.fetch import fetch_into
from greentic.ground.backoff import Backoff
from greentic.net.terms import TRIES
from greentic.trust.gate import digest_of

OBTAIN = (
    "import sys; from pathlib import Path; from greentic.distribute.bundle_cache import BundleCache\n"
    "from greentic.distribute.fetch import fetch_into\n"
    "got = BundleCache(Path(sys.argv[1])).obtain(sys.argv[2], lambda f, j: fetch_into(f, sys.argv[3], journal=j)); print(got.fetched.moved)"
)


def delivery_rows(scratch: Path) -> list[Row]:
    directory = scratch / "delivery"
    directory.mkdir()
    rows = []
    if shutil.which("docker-registry"):
        rows.append(_oci_row(directory))
    rows += [_resume_row(directory), _twenty_row(directory), _parts_row(directory), *_storm_rows()]
    return rows


def _noise(path: Path, size: int) -> str:
    rand = random.Random(size)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(rand.randbytes(MIB))
    with path.open("rb") as file:
        return digest_of(file)[0]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _oci_row(directory: Path) -> Row:
    path = directory / "oci.bin"
    digest = _noise(path, 256 * MIB)
    name = f"127.0.0.1:{free_port()}"
    (directory / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}}}\nhttp: {{addr: {name}}}\n"
    )
    registry = subprocess.Popen(
        ["docker-registry", "serve", str(directory / "registry.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ["GREENTIC_OCI_INSECURE_REGISTRIES"] = name
    try:
        while not _listens(int(name.partition(":")[2])):
            time.sleep(0.05)
        told = publish_file(path, f"oci://{name}/bench/blob:1", None)

        def pull(reference: str) -> float:
            with (directory / "pulled").open("w+b") as file:
                return timed(lambda: fetch_into(file, reference))

        left, right, ratio = paired(
            lambda: pull(str(told["bundle_source_uri"])), lambda: pull(f"http://{name}/v2/bench/blob/blobs/{digest}"), 7
        )
    finally:
        registry.terminate()
        registry.wait()
        del os.environ["GREENTIC_OCI_INSECURE_REGISTRIES"]
    return (
        "pull of 256 MiB from a registry (`oci://`)",
        spread(left),
        f"the same blob over plain http {spread(right)}",
        f"{ratio:.2f} ×",
        "≤ 1.1 ×",
    )


def _resume_row(directory: Path) -> Row:
    root = directory / "resume"
    root.mkdir()
    size = 128 * MIB
    digest = _noise(root / "b", size)
    shares = []
    with distributor(root, "--rate", "32MiB") as url:
        for number in range(3):
            words = [sys.executable, "-c", OBTAIN, str(directory / f"resume-{number}"), digest, f"{url}/b"]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
            journal = directory / f"resume-{number}" / "partial" / f"{digest.removeprefix('sha256:')}.json"
            while process.poll() is None and _covered(journal) < size * 0.9:
                time.sleep(0.002)
            process.kill()
            process.wait()
            moved = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            shares.append(moved / size)
    return (
        "resume after `kill -9` at 90 % of 128 MiB",
        spread(shares, 100, " % moved"),
        "all of it: 100 %",
        f"{statistics.median(shares):.2f} ×",
        "≤ 0.12 ×",
    )


def _covered(journal: Path) -> int:
    try:
        return sum(end - start for start, end in json.loads(journal.read_text())["done"])
    except (OSError, ValueError):
        return 0


def _twenty_row(directory: Path) -> Row:
    root = directory / "twenty"
    root.mkdir()
    bundle = big_bundle(directory, 64 * MIB, compressible=False)
    shutil.copy(bundle, root / "b.gtbundle")
    with distributor(root) as url:
        author(directory / "first", bundle, f"{url}/b.gtbundle")
        document = next((directory / "first").rglob("environment.json"))
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GREENTIC_")} | {
            "GREENTIC_BUNDLE_CACHE_DIR": str(directory / "shared")
        }
        processes, ports = [], []
        began = time.perf_counter()
        for number in range(20):
            store = directory / f"worker-{number}" / "local"
            store.mkdir(parents=True)
            shutil.copy(document, store / "environment.json")
            ports.append(free_port())
            words = [
                str(BIN / "greentic-start"),
                "start",
                "--env",
                "local",
                "--store-root",
                str(store.parent),
                "--strict-port",
            ]
            processes.append(
                subprocess.Popen(
                    words,
                    env=environ | {"GREENTIC_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{ports[-1]}"},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        ready = 0
        for port, process in zip(ports, processes, strict=True):
            while process.poll() is None and not answers(port):
                time.sleep(0.02)
            ready += process.poll() is None
        seconds = time.perf_counter() - began
        for process in processes:
            process.terminate()
            process.wait()
    log = root.with_name(f"{root.name}.log").read_text()
    moved, parts = (len(re.findall(rf'"GET [^"]+" {status}', log)) for status in (200, 206))
    return (
        f"20 workers boot the same 64 MiB bundle at once ({ready} ready)",
        f"{moved} download(s) with {parts} more connections for parts of it, the last ready after {seconds:.1f} s",
        "20 downloads without a shared store",
        f"{moved / 20:.2f} ×",
        "1 download",
    )


def _parts_row(directory: Path) -> Row:
    root = directory / "parts"
    root.mkdir()
    _noise(root / "b", 128 * MIB)
    with distributor(root, "--rate", "20MiB") as url:

        def ours() -> float:
            with (directory / "parts.out").open("w+b") as file:
                return timed(lambda: fetch_into(file, f"{url}/b"))

        left, right, _ = paired(ours, quiet("curl", "-s", "-o", "/dev/null", f"{url}/b"), 3)
    ratio = statistics.median(r / o for o, r in zip(left, right, strict=True))
    return (
        "128 MiB from a server that gives each connection 20 MiB/s",
        spread(left),
        f"one connection (curl) {spread(right)}",
        f"{ratio:.2f} × as fast",
        "≥ 3 ×",
    )


# -- a storm of boots, in simulated time ------------------------------------------------------------------------------

WORKERS, CAP, LINE, SIZE, ASKED, RESTART = 1000, 64, 1e9, 64 * MIB, 2.0, 10.0


class _Chance:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def octets(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def fraction(self) -> float:
        return self._random.random()


def storm(*, jitter: bool, seed: int = 1) -> tuple[float, int, int, int]:
    """Seconds to the last ready worker, retries, restarted workers, most requests that the server refused in one second.

    1,000 workers ask at once; the server takes 64 connections, shares its line among them, and answers others with 503 and
    `Retry-After: 2`. A worker that is out of attempts ends and is started again after 10 s.
    """
    chance = _Chance(seed)
    events = [(0.0, number, 1) for number in range(WORKERS)]
    heapq.heapify(events)
    busy: list[float] = []
    last, retries, restarts = 0.0, 0, 0
    refused: dict[int, int] = {}
    while events:
        now, worker, attempt = heapq.heappop(events)
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        if len(busy) < CAP:
            end = now + SIZE / (LINE / CAP)
            heapq.heappush(busy, end)
            last = max(last, end)
            continue
        refused[int(now)] = refused.get(int(now), 0) + 1
        if attempt >= TRIES:
            restarts += 1
            heapq.heappush(events, (now + RESTART, worker, 1))
            continue
        retries += 1
        heapq.heappush(events, (now + Backoff(jitter=jitter).pause(attempt, chance, ASKED), worker, attempt + 1))
    return last, retries, restarts, max(refused.values())


def _storm_rows() -> list[Row]:
    shown, seconds = {}, {}
    for jitter in (True, False):
        runs = [storm(jitter=jitter, seed=seed) for seed in range(5)]
        seconds[jitter] = statistics.median(r[0] for r in runs)
        retries, restarts, worst = (int(statistics.median(r[i] for r in runs)) for i in (1, 2, 3))
        shown[jitter] = (
            f"last ready after {seconds[jitter]:.0f} s, {retries:,} retries, {restarts:,} restarts, {WORKERS * SIZE / 1e9:.0f} GB, at most {worst:,} refused in a second"
        )
    return [
        (
            "storm of 1,000 boots (simulated), with jitter",
            shown[True],
            f"without: {shown[False]}",
            f"{seconds[True] / seconds[False]:.2f} ×",
            "",
        )
    ]
