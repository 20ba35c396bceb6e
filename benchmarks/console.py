"""Rows about the console: how long a person waits for the first view of a large environment, in a real browser."""

from __future__ import annotations

import subprocess
from pathlib import Path

from measure import BIN, Row, spread

from browser import Browser
from greentic.ground.documents import from_json, pretty
from greentic.model.environment import Environment
from greentic.model.ids import ulid_from_int
from test_model_rules import deployment, raw_env, revision, split

REVISIONS = 1000
TIMES = 7


def console_rows(scratch: Path) -> list[Row]:
    browser = Browser(scratch)
    try:
        rows = []
        for deployments in (1, REVISIONS // 2):
            store = _store(scratch / f"console-{deployments}", deployments)
            told = f"the console's first view of {REVISIONS:,} revisions in {deployments} deployment{'s' * (deployments > 1)}"
            rows.append((told, spread(_first_views(browser, store)), "", "", "≤ 1 s"))
        return rows
    finally:
        browser.close()


def _store(root: Path, deployments: int) -> Path:
    """A store with one environment of so many deployments that share the revisions."""
    ids = [ulid_from_int(1_000_000 + number) for number in range(deployments)]
    each = REVISIONS // deployments
    bundles, revisions, splits = [], [], []
    for number, dep in enumerate(ids):
        route = {"tenant_selector": {"tenant": "t", "team": "d"}, "path_prefixes": [f"/b{number}"]}
        bundles.append(deployment(dep, bundle_id=f"bot-{number}", route_binding=route))
        own = [ulid_from_int(1 + number * each + n) for n in range(each)]
        revisions += [revision(rid, dep, bundle_id=f"bot-{number}", sequence=n + 1) for n, rid in enumerate(own)]
        splits.append(split((own[-1], 10_000), dep=dep, bundle_id=f"bot-{number}"))
    raw = raw_env(bundles=bundles, revisions=revisions, traffic_splits=splits)
    (root / "prod").mkdir(parents=True)
    (root / "prod" / "environment.json").write_bytes(pretty(from_json(Environment, raw)))
    return root


def _first_views(browser: Browser, store: Path) -> list[float]:
    """Seconds from the address to the deployments on the page, each with a console that has seen nothing yet."""
    found = []
    for _ in range(TIMES):
        words = [str(BIN / "gtc"), "console", "prod", "--store-root", str(store)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            browser.open(process.stdout.readline().removeprefix("console: ").strip())
            browser.until("document.querySelector('.card')")
            found.append(browser.run("return performance.now()") / 1000)
            process.terminate()
    return found
