"""Rows about a living worker: the storm, and what following costs."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

from measure import Row, spread, timed

from conftest import Author, make_bundle
from greentic.activate.dispatch import Choice, Dispatcher
from greentic.ground.documents import from_json, json_object, pretty
from greentic.model.environment import Environment
from greentic.model.ids import ulid_from_int
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore
from storm import Worker, made_pack, storm

TURNS, DEPLOYMENTS = 1_000_000, 1000


def storm_rows(scratch: Path) -> list[Row]:
    turns = int(os.environ.get("STORM_TURNS") or TURNS)
    with storm(scratch / "storm") as blowing:
        began = time.perf_counter()
        found = blowing.run(turns)
        seconds = time.perf_counter() - began
        assert blowing.end() == 0
    return [
        (
            f"a storm of {found.turns:,} turns on two processes in {seconds:.0f} s, {found.flips} changes",
            f"{found.failed} failed",
            f"{found.lost} of the {found.held} connections of a killed process broke, apart",
            "",
            "0 failed",
        )
    ]


def follow_rows(scratch: Path) -> list[Row]:
    """What following costs: a change of weights until it is seen, with one deployment and with a thousand, and choosing a revision."""
    few, many = (_visible(scratch / f"follow-{number}", number) for number in (1, DEPLOYMENTS))
    rows = [
        ("a change of weights, seen after the file changed", spread(few), "", "", "≤ 50 ms"),
        (
            f"… of one among {DEPLOYMENTS:,} deployments",
            spread(many),
            f"one deployment {spread(few)}",
            f"{statistics.median(many) / statistics.median(few):.1f} ×",
            "≤ 3 ×",
        ),
    ]
    for number, target in ((2, "≤ 10 µs"), (20, "≤ 50 µs")):
        seconds = _choosing(number)
        rows.append((f"choosing one of {number} revisions", spread(seconds, 1e6, " µs"), "", "", target))
    return rows


def _choosing(number: int) -> list[float]:
    """Seconds for one choice among so many revisions, each the mean of a thousand."""
    choices = [Choice(ulid_from_int(n), 10_000 // number, False) for n in range(number)]
    dispatcher = Dispatcher("local", "D", choices, generation=1, key=b"k" * 32)
    return [timed(lambda: [dispatcher.of_session(str(n)) for n in range(1000)]) / 1000 for _ in range(9)]


def _visible(root: Path, number: int) -> list[float]:
    """Seconds from the rename of a document until the worker says that it serves its generation."""
    author = Author(Context(EnvironmentStore(root / "author"))).create()
    bundle = make_bundle(root, {"app": made_pack(0)})
    author.deployed(bundle, bundle.as_uri())
    document = json_object(author.context.store.load("local"))
    text = json.dumps([document[key][0] for key in ("bundles", "revisions", "traffic_splits")])  # type: ignore[index, call-overload]
    deployment, revision = (json.loads(text)[1][key] for key in ("deployment_id", "revision_id"))
    rows = []
    for n in range(number):
        copy = text.replace(deployment, ulid_from_int(2 * n + 1)).replace(revision, ulid_from_int(2 * n + 2))
        rows.append(json.loads(copy.replace('"demo"', f'"b{n}"')))
        rows[-1][0]["route_binding"]["path_prefixes"] = [f"/{n}"]
    document |= {
        "bundles": [r[0] for r in rows],
        "revisions": [r[1] for r in rows],
        "traffic_splits": [r[2] for r in rows],
    }

    def changed() -> bytes:
        rows[0][2]["generation"] += 1
        return pretty(from_json(Environment, document))

    worker = Worker(root / "worker", changed(), processes=1)
    found = []
    try:
        for _ in range(9):
            data = changed()
            line = f"serving generation {sum(r[2]['generation'] for r in rows)} "
            began = time.perf_counter()
            worker.follow(data)
            while line not in worker.log.read_text():
                time.sleep(0.001)
            found.append(time.perf_counter() - began)
    finally:
        worker.stop()
    return found
