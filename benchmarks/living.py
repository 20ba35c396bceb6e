"""Rows about a living worker: the storm, and what following costs."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from measure import POST_LUA, Row, spread, timed, wrk

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
    (few, _), (many, held) = (_visible(scratch / f"follow-{number}", number) for number in (1, DEPLOYMENTS))
    quiet, changing = zip(*held, strict=True)
    rows = [
        ("a change of weights, seen after the file changed", spread(few), "", "", "≤ 50 ms"),
        (
            f"… of one among {DEPLOYMENTS:,} deployments",
            spread(many),
            f"one deployment {spread(few)}",
            f"{statistics.median(many) / statistics.median(few):.1f} ×",
            "≤ 3 ×",
        ),
        (
            "… the longest of some thousand requests meanwhile, a change every 200 ms",
            spread([*changing]),
            f"without changes {spread([*quiet])}",
            "",
            "≤ 10 ms",
        ),
    ]
    for number, target in ((2, "≤ 10 µs"), (20, "≤ 50 µs")):
        seconds = _choosing(number)
        rows.append((f"choosing one of {number} revisions", spread(seconds, 1e6, " µs"), "", "", target))
    return rows


def swap_rows(scratch: Path) -> list[Row]:
    """A new revision of a bundle that is in the cache until it serves, and what such changes cost the others meanwhile."""
    root = scratch / "swap"
    author = Author(Context(EnvironmentStore(root / "author"))).create()
    bundle = make_bundle(root, {"app": made_pack(0)})
    author.deployed(bundle, bundle.as_uri())
    document = json_object(author.context.store.load("local"))
    deployment, revision, split = (document[key][0] for key in ("bundles", "revisions", "traffic_splits"))  # type: ignore[index, call-overload]
    text, count = json.dumps([deployment, revision, split]), itertools.count()

    def changed() -> bytes:
        number = next(count)
        rows = json.loads(text.replace(revision["revision_id"], ulid_from_int(number + 1)))
        rows[2]["generation"] += number
        return pretty(
            from_json(Environment, document | {"bundles": rows[:1], "revisions": rows[1:2], "traffic_splits": rows[2:]})
        )

    worker = Worker(root / "worker", changed(), processes=1)
    post = root / "post.lua"
    post.write_text(POST_LUA)
    took, quiet, swapping = [], [], []
    try:
        for _ in range(9):
            told = worker.log.read_text().count("serving generation ")
            began = time.perf_counter()
            worker.follow(changed())
            while worker.log.read_text().count("serving generation ") == told:
                time.sleep(0.001)
            took.append(time.perf_counter() - began)
        for _ in range(3):
            quiet.append(wrk(worker.port, "/", 16, post)[1])
            ends = threading.Event()
            flips = threading.Thread(
                target=lambda ends=ends: [worker.follow(changed()) and None for _ in iter(lambda: ends.wait(0.2), True)]
            )
            flips.start()
            swapping.append(wrk(worker.port, "/", 16, post)[1])
            ends.set()
            flips.join()
    finally:
        worker.stop()
    ratio = statistics.median(a / b for a, b in zip(swapping, quiet, strict=True))
    return [
        ("a new revision of a cached bundle, until it serves", spread(took), "", "", "≤ 100 ms and compiling"),
        (
            "p99 of turns while such changes come every 200 ms, 16 connections",
            spread(swapping, 1),
            f"quiet {spread(quiet, 1)}",
            f"{ratio:.1f} ×",
            "≤ 2 ×",
        ),
    ]


def _choosing(number: int) -> list[float]:
    """Seconds for one choice among so many revisions, each the mean of a thousand."""
    choices = [Choice(ulid_from_int(n), 10_000 // number, False) for n in range(number)]
    dispatcher = Dispatcher("local", "D", choices, generation=1, key=b"k" * 32)
    return [timed(lambda: [dispatcher.of_session(str(n)) for n in range(1000)]) / 1000 for _ in range(9)]


def _longest(port: int, meanwhile: Callable[[float], object]) -> float:
    """Seconds of the longest answer to a probe in two seconds, while something else is done every fifth of a second."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    longest, began, told = 0.0, time.perf_counter(), 0
    while (now := time.perf_counter()) - began < 2:
        if (now - began) // 0.2 >= told:
            told += 1
            meanwhile(now)
            now = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        longest = max(longest, time.perf_counter() - now)
    connection.close()
    return longest


def _visible(root: Path, number: int) -> tuple[list[float], list[tuple[float, float]]]:
    """Seconds from the rename of a document until the worker says that it serves its generation, and the longest answers without and
    with such changes.
    """
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
        held = []
        for _ in range(3):
            documents = iter([changed() for _ in range(12)])
            quiet = _longest(worker.port, lambda now: None)
            held.append((quiet, _longest(worker.port, lambda now: worker.follow(next(documents)))))  # noqa: B023
    finally:
        worker.stop()
    return found, held
