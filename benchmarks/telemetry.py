"""Rows about what a worker tells of itself: what scraping and tracing cost its turns, and a large page of metrics."""

from __future__ import annotations

import asyncio
import gc
import http.client
import statistics
import sys
import threading
import time
from pathlib import Path

from measure import POST_LUA, ROOT, Row, author, processor_seconds, spread, worker_process, wrk

sys.path[:0] = [str(ROOT / "tests")]

from collector import collecting
from conftest import make_bundle
from greentic.ingress.metrics import Metrics
from greentic.telemetry.tallies import Tallies
from storm import made_pack
from test_metrics import serving

REVISIONS = 2_000
SCRAPE_SECONDS = 1.0
SHARE = "0.01"
WRK_SECONDS = 3


def telemetry_rows(scratch: Path) -> list[Row]:
    post = scratch / "post.lua"
    post.write_text(POST_LUA)
    root = scratch / "telemetry"
    root.mkdir()
    bundle = make_bundle(root, {"app": made_pack(0)})
    for name in ("plain", "scraped", "traced"):
        author(root / name, bundle, bundle.as_uri())
    rows = []
    with collecting() as collector, worker_process(root / "plain") as plain:
        with worker_process(root / "scraped") as scraped, _scraping(scraped[0]):
            rows.append(_row("a turn, scraped every second", scraped, plain, post, "≥ 0.97 ×"))
        tracing = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": SHARE,
        }
        with worker_process(root / "traced", **tracing) as traced:
            rows.append(_row("a turn, one of a hundred traced", traced, plain, post, "≥ 0.95 ×"))
    rows.append(_page())
    return rows


class _scraping:
    """Scrapes a worker every second."""

    def __init__(self, port: int) -> None:
        self._port, self._over = port, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(SCRAPE_SECONDS):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            connection.request("GET", "/metrics")
            connection.getresponse().read()
            connection.close()


def _row(what: str, one: tuple[int, int], plain: tuple[int, int], post: Path, target: str) -> Row:
    """Turns a second beside those of a worker with neither; the ratio is that of processor time a turn, which others on the machine do
    not change."""
    left, right = [], []
    for _ in range(5):
        left.append(_turns(one, post))
        right.append(_turns(plain, post))
    ratio = statistics.median(b[1] / a[1] for a, b in zip(left, right, strict=True))
    return (what, _told(left), f"neither {_told(right)}", f"{ratio:.2f} ×", target)


def _turns(worker: tuple[int, int], post: Path) -> tuple[float, float]:
    """Turns a second, and seconds of processor time that one took."""
    port, pid = worker
    before = processor_seconds(pid)
    rate, _ = wrk(port, "/", 16, post)
    return rate, (processor_seconds(pid) - before) / (rate * WRK_SECONDS)


def _told(found: list[tuple[float, float]]) -> str:
    rates = [rate for rate, _ in found]
    cost = statistics.median(cost for _, cost in found)
    return f"{statistics.median(rates):,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f}), {cost * 1e6:.0f} µs of processor time each"


def _page() -> Row:
    """How long a page of a thousand deployments with two revisions takes, and how long it keeps the loop from anything else."""
    metrics = Metrics(serving(REVISIONS), list, tallies=Tallies())
    took: list[float] = []
    held: list[float] = []

    async def measured() -> None:
        late = 0.0

        async def beside() -> None:
            nonlocal late
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0)
                late = max(late, time.perf_counter() - began)

        other = asyncio.ensure_future(beside())
        await asyncio.sleep(0)
        for _ in range(9):
            late, began = 0.0, time.perf_counter()
            await metrics.page(None)
            took.append(time.perf_counter() - began)
            held.append(late)
        other.cancel()

    gc.freeze()  # as a worker does once it has booted
    asyncio.run(measured())
    gc.unfreeze()
    return (
        f"`/metrics` of {REVISIONS // 2:,} deployments with two revisions",
        spread(took),
        f"the loop is held for {spread(held)} at most",
        "",
        "≤ 100 ms, ≤ 5 ms",
    )
