"""`make bench`: everything side by side in one run, several repetitions, medians and spread; renders docs/performance.md.

Needs curl, wrk, unsquashfs, mksquashfs and chromium (Debian: curl wrk squashfs-tools chromium chromium-driver); as root also the lab's
programs (lab/build.sh). Ratios hold when the machine's speed drifts, for both sides of a row are measured in turn.
"""

from __future__ import annotations

import compileall
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from components import component_rows
from console import console_rows
from delivery import delivery_rows
from living import follow_rows, storm_rows, swap_rows
from measure import (
    BIN,
    MIB,
    POST_LUA,
    PYTHON,
    ROOT,
    Boot,
    Row,
    answers,
    author,
    big_bundle,
    distributor,
    free_port,
    paired,
    quiet,
    spread,
    timed,
    worker,
    wrk,
)
from operated import operator_rows
from published import published_rows
from telemetry import telemetry_rows
from turns import turn_rows

from cluster import cluster_rows
from greentic.author.bundle_build import build_bundle
from greentic.distribute.fetch import fetch_into
from greentic.ground.documents import from_json, json_object, pretty
from greentic.materialize.staging import StagingArea
from greentic.model.environment import Environment
from greentic.model.ids import ulid_from_int
from greentic.store.environments import EnvironmentStore, read_generation
from greentic.store.files import KEEP_BACKUPS
from greentic.trust.gate import pin


def boot_rows(scratch: Path) -> list[Row]:
    bundle = scratch / "dist" / "small"
    build_bundle(ROOT / "examples" / "hello-bundle", bundle)
    fixture = ROOT.parent / "shared" / "fixtures" / "perf-smoke-bundle.gtbundle"
    if fixture.exists():
        shutil.copyfile(fixture, bundle)
    with distributor(scratch / "dist") as url:
        author(scratch / "boot", bundle, f"{url}/small")
        boot = Boot(scratch / "boot")
        left, right, ratio = paired(boot, quiet(*PYTHON), 9)
    return [
        (
            "cold boot, small bundle, to the first 200",
            spread(left),
            f"`python -c pass` {spread(right)}",
            f"{ratio:.1f} ×",
            "≤ 8 ×",
        )
    ]


def large_rows(scratch: Path) -> list[Row]:
    bundle = big_bundle(scratch, 512 * MIB, compressible=False)
    bundle.rename(scratch / "dist" / "large")
    with distributor(scratch / "dist") as url:
        pipe = quiet("sh", "-c", f"curl -s {url}/large | sha256sum")

        def fetch() -> float:
            target = scratch / "fetched"
            target.unlink(missing_ok=True)
            with target.open("w+b") as file:
                return timed(lambda: fetch_into(file, f"{url}/large"))

        left, right, ratio = paired(fetch, pipe, 5)
        rows = [
            (
                "fetch + hash + durable file, 512 MiB",
                spread(left),
                f"`curl -s URL \\| sha256sum` {spread(right)}",
                f"{1 / ratio:.2f} × as fast",
                "≥ 2 ×",
            )
        ]
        (scratch / "fetched").unlink()
        small = scratch / "dist" / "small"
        author(scratch / "idle", small, f"{url}/small")
        idle = Boot(scratch / "idle")
        idle()
        author(scratch / "large-boot", scratch / "dist" / "large", f"{url}/large")
        boot = Boot(scratch / "large-boot")
        left, right, ratio = paired(boot, pipe, 3)
        rows.append(
            (
                "cold boot with a 512 MiB bundle",
                spread(left),
                f"`curl -s URL \\| sha256sum` {spread(right)}",
                f"{ratio:.2f} ×",
                "≤ 1.3 ×",
            )
        )
        rows.append(
            (
                "… its peak memory",
                f"{boot.peak} MiB",
                f"small bundle {idle.peak} MiB",
                f"+{boot.peak - idle.peak} MiB",
                "≤ +64 MiB",
            )
        )
    shutil.rmtree(scratch / "large-boot")
    (scratch / "dist" / "large").unlink()
    return rows


def unpack_rows(scratch: Path) -> list[Row]:
    bundle = big_bundle(scratch, 200 * MIB, compressible=True)
    paths = EnvironmentStore(scratch / "unpack").paths("local")
    disk = EnvironmentStore(scratch).disk

    def ours() -> float:
        os.sync()  # what the run before wrote must not be paid for here
        with StagingArea(paths, disk, ulid_from_int(1), "x") as area, bundle.open("rb") as file:
            verified = pin(file)
            return timed(lambda: area.fill(verified, env_id="local", bundle_id="hello", shown_as="x"))

    def theirs() -> float:
        shutil.rmtree(scratch / "out", ignore_errors=True)
        os.sync()
        return quiet("unsquashfs", "-no-progress", "-d", str(scratch / "out"), str(bundle))()

    left, right, ratio = paired(ours, theirs, 7)
    shutil.rmtree(scratch / "out")
    return [("unpack 200 MiB, gzip", spread(left), f"`unsquashfs` {spread(right)}", f"{ratio:.2f} ×", "≤ 1.5 ×")]


def command_rows(scratch: Path) -> list[Row]:
    gtc = str(BIN / "gtc")
    bundle = scratch / "dist" / "small"
    one = author(scratch / "one", bundle, "http://127.0.0.1:1/x")
    author(scratch / "many", bundle, "http://127.0.0.1:1/x")
    shutil.rmtree(scratch / "many")
    shutil.copytree(scratch / "one", scratch / "many")
    path = scratch / "many" / "local" / "environment.json"
    document = json_object(one.context.store.load("local"))
    first = document["revisions"][0]  # type: ignore[index, call-overload]
    document["revisions"] = [
        first,
        *(first | {"revision_id": ulid_from_int(i + 1), "sequence": i + 2} for i in range(999)),
    ]  # type: ignore[operator]
    path.write_bytes(pretty(from_json(Environment, document)))
    revision, deployment = str(first["revision_id"]), str(first["deployment_id"])  # type: ignore[index, call-overload]
    count = iter(range(1_000_000))

    def traffic(store: str) -> Callable[[], float]:
        return lambda: quiet(
            gtc, "op", "--store-root", str(scratch / store), "traffic", "set", "local", f"{revision}=100", "--deployment", deployment, "--idempotency-key", f"k{next(count)}"
        )()  # fmt: skip

    rows = []
    for name, command, target in (
        ("`gtc --help`", [gtc, "--help"], "≤ 5 ×"),
        ("`gtc op env show`", [gtc, "op", "--store-root", str(scratch / "one"), "env", "show", "local"], "≤ 5 ×"),
    ):
        left, right, ratio = paired(quiet(*command), quiet(*PYTHON), 15)
        rows.append((name, spread(left), f"`python -c pass` {spread(right)}", f"{ratio:.1f} ×", target))
    left, right, ratio = paired(traffic("many"), traffic("one"), 9)
    rows.append(
        ("`traffic set`, 1,000 revisions", spread(left), f"one revision {spread(right)}", f"{ratio:.1f} ×", "≤ 3 ×")
    )
    return rows + _looking_rows(gtc, scratch / "many")


def _looking_rows(gtc: str, store: Path) -> list[Row]:
    """What is looked at in an environment of 1,000 revisions, with a log of `LOGGED` changes and as many backups as are kept."""
    kept = EnvironmentStore(store).paths("local")
    made = sorted(kept.backups.glob("environment.json.*.bak"))
    first, *_, last = (path.read_bytes() for path in made)
    for path in made:
        path.unlink()
    backups = [kept.backups / f"environment.json.20200101T0000{n:02d}.000000000Z.bak" for n in range(KEEP_BACKUPS)]
    for path in backups:
        path.write_bytes(first if path is backups[0] else last)
    lines = kept.audit.read_bytes().splitlines(keepends=True)
    kept.audit.write_bytes(b"".join(lines * (2 * LOGGED // len(lines))))
    oldest = str(read_generation(backups[0]))  # behind all the others
    rows = []
    for words in (["env", "show", "local"], ["env", "log", "local"], ["env", "diff", "local", "--from", oldest]):
        left, right, _ = paired(quiet(gtc, "op", "--store-root", str(store), *words), quiet(*PYTHON), 5)
        told = " ".join(words[:2])
        rows.append(
            (f"`gtc op {told}`, 1,000 revisions", spread(left), f"`python -c pass` {spread(right)}", "", "≤ 1 s")
        )
    return rows


LOGGED = 1_000
"""Changes of a log that is read: two lines each."""
HELLO = """
import uvicorn
async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["method"] == "POST": await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), (b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
uvicorn.run(app, port=PORT, http="httptools", loop="asyncio", lifespan="off", log_config=None, access_log=False, server_header=False, date_header=False)
"""


def serve_rows(scratch: Path) -> list[Row]:
    post = scratch / "post.lua"
    post.write_text(POST_LUA)
    hello_port = free_port()
    author(scratch / "serve", scratch / "dist" / "small", f"file://{scratch}/dist/small")
    hello = subprocess.Popen([sys.executable, "-c", HELLO.replace("PORT", str(hello_port))])
    orientation = {("POST", 1): "existing worker 2,900/s", ("POST", 16): "existing worker 5,500/s"}
    try:
        while not answers(hello_port):
            time.sleep(0.05)
        with worker(scratch / "serve") as port:
            rows = []
            for name, path, script in (("GET", "/healthz", None), ("POST", "/", post)):
                for connections in (1, 16):
                    left, right = [], []
                    for _ in range(5):
                        left.append(wrk(port, path, connections, script))
                        right.append(wrk(hello_port, path, connections, script))
                    ratio = statistics.median(a[0] / b[0] for a, b in zip(left, right, strict=True))
                    mine, other = ([statistics.median(v[i] for v in side) for i in (0, 1)] for side in (left, right))
                    low, high = min(v[0] for v in left), max(v[0] for v in left)
                    beside = orientation.get((name, connections))
                    rows.append(
                        (
                            f"`{name} {path}`, empty flow, {connections} connection(s)"
                            if name == "POST"
                            else f"`{name} {path}`, {connections} connection(s)",
                            f"{mine[0]:,.0f}/s ({low:,.0f} to {high:,.0f}), p99 {mine[1]:.2f} ms",
                            f"hello-world {other[0]:,.0f}/s, p99 {other[1]:.2f} ms" + (f"; {beside}" if beside else ""),
                            f"{ratio:.2f} ×",
                            "≥ 0.7 ×" if name == "POST" else "≥ 0.6 ×",
                        )
                    )
            return rows
    finally:
        hello.terminate()
        hello.wait()


def main() -> None:
    for program in ("curl", "wrk", "unsquashfs"):
        if shutil.which(program) is None:
            raise SystemExit(f"make bench needs `{program}` (Debian: curl wrk squashfs-tools)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    compileall.compile_dir(ROOT / "src", quiet=1)  # as an installed package is
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR")) as directory:
        scratch = Path(directory)
        (scratch / "dist").mkdir()
        os.environ["HOME"] = str(scratch / "home")
        (scratch / "home").mkdir()
        for part in (
            boot_rows,
            command_rows,
            serve_rows,
            component_rows,
            turn_rows,
            console_rows,
            unpack_rows,
            large_rows,
            delivery_rows,
            cluster_rows,
            follow_rows,
            swap_rows,
            telemetry_rows,
            published_rows,
            operator_rows,
            storm_rows,
        ):
            for row in _measured(part, scratch):
                print(" | ".join(row), flush=True)
                rows.append(row)
    table = [
        "| what | ours | beside | ratio | target |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    (ROOT / "docs" / "performance.md").write_text(
        HEAD.format(python=platform.python_version(), cores=os.cpu_count()) + "\n".join(table) + "\n"
    )
    if any(row[1] == "not measured" for row in rows):
        raise SystemExit("a part of the benchmark could not be measured; its row says why")


def _measured(part: Callable[[Path], list[Row]], scratch: Path) -> list[Row]:
    """The rows of a part; one that fails is a row that says so, and takes nothing from the others."""
    began = time.monotonic()
    try:
        return part(scratch)
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever it is, the other rows are worth having
        traceback.print_exc()
        told = " ".join(f"{type(error).__name__}: {error}".split()).replace("|", "\\|")[:200]
        return [(f"`{part.__name__}`", "not measured", told, "", "")]
    finally:
        print(f"# {part.__name__}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


HEAD = """# Performance

Rendered by `make bench` (CPython {python}, {cores} cores): medians with the smallest and largest value, both sides of a row
measured in turn in one run. The ratios are what to look at; absolute times belong to the machine. The load generator runs on the
same cores as the server.

"""

if __name__ == "__main__":
    main()
