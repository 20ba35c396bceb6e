#!/usr/bin/env python3
"""Whether the tests would notice: change one thing of a module at a time (mutations.py) and run the tests that execute it.

    kit/mutants.py run [ROOM | MODULE …] [--sample N] [--again] [--quick]   all rooms of LANES, or some; goes on where it stopped

Each file of tests runs once, with a record of which test executes which line; then each mutant meets the tests that execute its line,
quickest first, in a process that is forked from one that has loaded what takes long to load. A mutant is killed by a failing test or by
taking far longer than the tests took. A module has many mutants, and a sample is tried: they stand in the order of the digests of their
names, so a larger sample contains the smaller one and chance decides nothing twice. What was found is kept in kit/mutants.json by the
digest of the module; `--again` tries its survivors once more, after tests were added. A room's first file of tests is of its rules and
quick, and so is a module's own; with `--quick` mutants meet these alone, so what is killed is killed, and what lives may fall to the
rest with `--again`. Why a survivor may live is written by hand in kit/survivors.toml, by kind. A run ends with 1 where a room is below
LEAST.
Coverage decides nothing here: a line that no test executes has survivors.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple, TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutations import Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "greentic"
FOUND = ROOT / "kit" / "mutants.json"
PAGE = ROOT / "docs" / "mutants.md"
EXPLAINED = ROOT / "kit" / "survivors.toml"
LANES = {
    "trust": ["test_trust.py", "test_trust_policy.py", "test_trust_verdict.py"],
    "store": ["test_store_rules.py", "test_store.py", "test_trust_policy.py"],
    "distribute": [
        "test_bundle_sources.py",
        "test_asking.py",
        "test_distribute.py",
        "test_delivery.py",
        "test_bounds.py",
    ],
    "materialize": [
        "test_materialize_rules.py",
        "test_archives.py",
        "test_store.py",
        "test_artifact.py",
        "test_trust_policy.py",
        "test_pod_worker.py",
        "test_delivery.py",
    ],
    "activate": ["test_activate_rules.py", "test_dispatch.py", "test_activate.py", "test_follow.py"],
    "httpd": ["test_http1.py", "test_front.py", "test_ingress_rules.py", "test_front_attack.py"],
    "ingress": ["test_ingress_rules.py", "test_activate.py", "test_serve.py"],
    "net": ["test_net_rules.py", "test_addresses.py", "test_asking.py", "test_hostile.py"],
}
"""The tests of each room, the quick ones of its rules first. Those that start programs see no mutant, and are left out by their marks."""
OWN = {
    "distribute/bundle_cache.py": ["test_bundle_cache.py"], "distribute/fetch.py": ["test_fetch_rules.py"],
    "distribute/mirrors.py": ["test_source_rules.py"], "distribute/parallel.py": ["test_source_rules.py"],
    "distribute/publish.py": ["test_publish_rules.py"], "distribute/serve_directory.py": ["test_serve_directory.py"],
    "distribute/file_source.py": ["test_source_rules.py"], "distribute/sources.py": ["test_source_rules.py"],
    "distribute/http_source.py": ["test_source_rules.py"],
    "httpd/front.py": ["test_httpd_rules.py", "test_front.py"], "httpd/room.py": ["test_httpd_rules.py", "test_front.py"],
    "httpd/http1.py": ["test_httpd_rules.py"], "net/addresses.py": ["test_addresses.py"],
    "net/egress.py": ["test_proxies.py"], "net/proxies.py": ["test_proxies.py"], "net/dial.py": ["test_request_rules.py"],
    "net/document.py": ["test_request_rules.py"], "net/request.py": ["test_request_rules.py"],
    "net/terms.py": ["test_request_rules.py"], "store/proof_key.py": ["test_proof.py"], "trust/proof.py": ["test_proof.py"],
    "trust/proof_verdict.py": ["test_proof.py"],
}  # fmt: skip
"""The quick tests of the rules of single modules, which their mutants meet before all others."""
MORE = {
    "store/cookie_key.py": ["test_serve.py", "test_pod_worker.py"], "store/in_use.py": ["test_retention.py"], "store/seal.py": ["test_delivery.py"], "store/signed_policy.py": ["test_delivery.py"],
    "materialize/seed.py": ["test_serve.py"], "materialize/serving_plan.py": ["test_serve.py"],
    "materialize/prune.py": ["test_retention.py"], "materialize/retention.py": ["test_retention.py"],
    "activate/activation.py": ["test_serve.py"], "activate/lease.py": ["test_serve.py"], "activate/turn.py": ["test_conversations.py"],
    "activate/flow_spans.py": ["test_traces.py"],
    "ingress/auth.py": ["test_pod_worker.py"], "ingress/access_log.py": ["test_log.py"], "ingress/metrics.py": ["test_metrics.py"],
    "ingress/request_span.py": ["test_traces.py"], "ingress/status_proof.py": ["test_proof.py"], "ingress/steps.py": ["test_steps.py"],
}  # fmt: skip
"""Tests of single modules beside those of their room."""
SAMPLE = 25
"""Mutants of a module that are tried."""
SLOWEST = 3.0
"""Seconds; a test that takes longer meets no mutant."""
LONGEST = 20.0
"""Seconds of tests that one mutant meets."""
MEMORY = 6 << 30
LEAST = 0.85
"""The share that must be killed."""


class Survivor(TypedDict):
    key: str
    line: int


class Result(TypedDict):
    sha256: str
    tried: int
    """How many were tried so far."""
    of: int
    """How many mutants the module has."""
    killed: int
    survivors: list[Survivor]


class Measured(NamedTuple):
    """One file of tests, run on the code as it is."""

    seconds: dict[str, float]
    """Of each test that is quick and passes."""
    data: Path
    """The record of the lines that each executes."""


class Lane(NamedTuple):
    """What a module's mutants meet."""

    tests: dict[str, float]
    """Seconds of each test."""
    by_line: dict[int, set[str]]
    """Which tests execute which line; a line of the module's own level is executed by all."""

    def meeting(self, mutant: Mutant) -> set[str]:
        """The tests that execute what was changed."""
        return self.by_line.get(mutant.line) or self.by_line.get(mutant.statement, set())


class Kind(TypedDict):
    """Survivors that may live for one reason; `kit/survivors.toml` has a list of them."""

    name: str
    why: str
    survivors: list[str]
    """`module: key`."""


def explained() -> list[Kind]:
    kinds: list[Kind] = tomllib.loads(EXPLAINED.read_text())["kind"] if EXPLAINED.exists() else []
    return kinds


def in_order(name: str, source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of the sample."""
    return sorted(mutants(source), key=lambda one: hashlib.sha256(f"{name}: {one.key}".encode()).digest())


def modules(chosen: list[str]) -> list[str]:
    """`room/module.py` of each module that was chosen."""
    found = [path.relative_to(SOURCE).as_posix() for room in LANES for path in sorted((SOURCE / room).glob("*.py"))]
    return [name for name in found if not chosen or any(name == one or name.startswith(f"{one}/") for one in chosen)]


def load() -> dict[str, Result]:
    found: dict[str, Result] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    return found


def save(results: dict[str, Result]) -> None:
    temporary = FOUND.with_suffix(".new")
    temporary.write_text(json.dumps(dict(sorted(results.items())), indent=1, ensure_ascii=False) + "\n")
    temporary.replace(FOUND)


def run(names: list[str], sample: int, again: bool, until: float, quick: bool = False) -> None:
    """Try the sample of each module until a moment; what was found is saved after each mutant."""
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        tree = Path(scratch, "tree")
        for name in ("src", "tests", "examples", "docs", "scripts", "kit", "image"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for name in names:
            source = (tree / "src" / "greentic" / name).read_text()
            every, digest = in_order(name, source), hashlib.sha256(source.encode()).hexdigest()
            now = load().get(name)
            if now is None or now["sha256"] != digest or now["of"] != len(every):
                now = {"sha256": digest, "tried": 0, "of": len(every), "killed": 0, "survivors": []}
            left = every[now["tried"] : sample]
            alive = {one["key"] for one in now["survivors"]} if again else set()
            if not left and not alive:
                continue
            met = tests_of(name, quick)
            for file in met:
                if file not in measured:
                    measured[file] = _measure(tree, file)
            lane = _lane(tree, name, [measured[file] for file in met])
            for mutant in [*(one for one in every if one.key in alive), *left]:
                if time.monotonic() >= until:
                    print("out of time; run it again to go on", flush=True)
                    return
                lives = _lives(tree, name, mutant, lane)
                _count(now, mutant, lives)
                save({**load(), name: now})
                if lives:
                    print(f"{name}:{mutant.line}: lives: {mutant.key}", flush=True)
            (tree / "src" / "greentic" / name).write_text(source)
            print(f"{name}: {now['killed']} of {now['tried']} killed", flush=True)


def _count(now: Result, mutant: Mutant, lives: bool) -> None:
    """Put down what became of a mutant, which may have been among the survivors."""
    others = [one for one in now["survivors"] if one["key"] != mutant.key]
    if len(others) == len(now["survivors"]):
        now["tried"] += 1
    now["survivors"] = [*others, {"key": mutant.key, "line": mutant.line}] if lives else others
    now["killed"] = now["tried"] - len(now["survivors"])


def tests_of(name: str, quick: bool = False) -> list[str]:
    """The files of tests that a module's mutants meet, those of its rules first; with `quick` these alone."""
    rules, *others = LANES[name.partition("/")[0]]
    return list(dict.fromkeys([*OWN.get(name, []), rules, *([] if quick else [*others, *MORE.get(name, [])])]))


def _measure(tree: Path, file: str) -> Measured:
    """Run a file of tests once on the code as it is, with a record of the lines that each executes."""
    report, data = tree / "report.xml", tree / f"coverage-{file}"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "--dist=no", "-m", "not e2e and not conformance and not field", "-k", "not prefix_signed", f"tests/{file}",
         f"--junit-xml={report}", "-o", "junit_family=xunit1", "--cov=greentic", "--cov-context=test", "--cov-report="],
        cwd=tree, env=_environment(tree) | {"COVERAGE_FILE": str(data)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    from xml.etree import ElementTree

    cases = [
        case
        for case in ElementTree.parse(report).iter("testcase")
        if not {child.tag for child in case} & {"failure", "error", "skipped"}
    ]
    seconds = {f"{case.get('file')}::{case.get('name')}": float(case.get("time") or 0) for case in cases}
    quick = {test: taken for test, taken in seconds.items() if taken <= SLOWEST}
    if not quick:
        raise SystemExit(f"no test in {file} passes quickly on the code as it is, so no mutant can be judged")
    print(f"{file}: {len(quick)} of {len(seconds)} tests, {sum(quick.values()):.0f} seconds", flush=True)
    return Measured(quick, data)


def _lane(tree: Path, name: str, files: list[Measured]) -> Lane:
    """Which of the tests execute which lines of a module. What runs when it is imported is met by all that execute any line of it."""
    from coverage import CoverageData

    tests: dict[str, float] = {}
    by_line: dict[int, set[str]] = {}
    on_import: set[int] = set()
    for quick, data in files:
        tests |= quick
        read = CoverageData(str(data))
        read.read()
        for line, contexts in read.contexts_by_lineno(str(tree / "src" / "greentic" / name)).items():
            by_line.setdefault(line, set()).update({one.partition("|")[0] for one in contexts} & quick.keys())
            if "" in contexts:
                on_import.add(line)
    everyone: set[str] = set().union(*by_line.values())
    return Lane(tests, {line: everyone if line in on_import else some for line, some in by_line.items()})


def _lives(tree: Path, name: str, mutant: Mutant, lane: Lane) -> bool:
    """Whether no test notices."""
    tests = sorted(lane.meeting(mutant), key=lane.tests.__getitem__)
    if not tests:
        return True
    together = itertools.accumulate(lane.tests[test] for test in tests)
    tests = [test for test, seconds in zip(tests, together, strict=True) if seconds <= LONGEST]
    (tree / "src" / "greentic" / name).write_text(mutant.source)
    allowed = 20 + 5 * sum(lane.tests[test] for test in tests)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _be_tested(tree, tests)
        os._exit(1)
    deadline = time.monotonic() + allowed
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            _kill_all_of(child)
            os.waitpid(child, 0)
            return False
        time.sleep(0.01)
    _kill_all_of(child)
    return os.waitstatus_to_exitcode(status) == 0


def _be_tested(tree: Path, tests: list[str]) -> None:
    """In the forked process: run the tests, and end with 0 iff all pass."""
    os.setsid()
    os.chdir(tree)
    quiet = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(quiet, fd)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.environ.update(_environment(tree))
    sys.path[0:0] = [str(tree / "src")]
    import pytest

    code = pytest.main(
        [
            "-x",
            "-q",
            "-n",
            "0",
            "--dist=no",
            "-p",
            "no:cacheprovider",
            "--no-header",
            f"--basetemp={tree / 'scratch'}",
            *tests,
        ]
    )
    os._exit(0 if code == 0 else 1)


def _kill_all_of(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def _environment(tree: Path) -> dict[str, str]:
    return dict(os.environ) | {
        "PYTHONPATH": str(tree / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / "hypothesis"),
    }


def _preload() -> None:
    """Load what takes long and is not ours, so that a forked process has it."""
    import cryptography.hazmat.primitives.asymmetric.ed25519
    import hypothesis.strategies
    import msgspec
    import pytest
    import wasmtime.component
    import yaml

    assert all((cryptography, hypothesis, msgspec, pytest, wasmtime, yaml))


def standing(results: dict[str, Result]) -> dict[str, tuple[int, int]]:
    """How many were killed and tried in each room."""
    return {
        room: (sum(one["killed"] for one in own), sum(one["tried"] for one in own))
        for room in LANES
        for own in [[one for name, one in results.items() if name.startswith(f"{room}/")]]
    }


def below(results: dict[str, Result]) -> list[str]:
    """The rooms where less than LEAST of what was tried is killed."""
    return [room for room, (killed, tried) in standing(results).items() if killed < LEAST * tried]


def page() -> str:
    """docs/mutants.md."""
    results, kinds = load(), explained()
    lines = [
        "# Mutants", "",
        "Whether the tests would notice: `make mutants` changes one thing of a module at a time and runs the tests that execute it. Printed by",
        "`make docs` from `kit/mutants.json` (what was found, by the digest of each module) and `kit/survivors.toml` (why a survivor may",
        f"live, by hand). It is a sample, {SAMPLE} of a module as a rule, the same each time. Not part of the test command: it takes hours, and",
        f"`MUTANTS='trust store/audit.py'` chooses rooms or modules. Below {LEAST:.0%} killed in a room, of what was tried, it ends with 1.", "",
        "| room | modules tried | mutants of these | tried | killed | |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for room, (killed, tried) in standing(results).items():
        own = {name: one for name, one in results.items() if name.startswith(f"{room}/")}
        share = f"{killed / tried:.0%}" if tried else "not tried yet"
        of = sum(one["of"] for one in own.values())
        lines.append(f"| `{room}/` | {len(own)} of {len(modules([room]))} | {of} | {tried} | {killed} | {share} |")
    alive = {f"{name}: {one['key']}" for name, result in results.items() for one in result["survivors"]}
    told = {survivor for kind in kinds for survivor in kind["survivors"]}
    rest: Kind = {"name": "Not looked at yet", "why": "", "survivors": sorted(alive - told)}
    lines += ["", "## Survivors", ""]
    for kind in [*kinds, rest]:
        own = [survivor for survivor in kind["survivors"] if survivor in alive]
        if own:
            lines += [f"### {kind['name']}", "", *([kind["why"].strip(), ""] if kind["why"] else [])]
            lines += [*(f"* `{_cell(survivor)}`" for survivor in own), ""]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("`", "'")


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("chosen", nargs="*", metavar="ROOM|MODULE")
    running.add_argument("--sample", type=int, default=SAMPLE)
    running.add_argument("--again", action="store_true", help="try the survivors once more")
    running.add_argument("--quick", action="store_true", help="meet the quick tests of rules only")
    running.add_argument("--minutes", type=float, default=600)
    running.add_argument("--nice", type=int, default=10)
    told = parser.parse_args(words)
    os.nice(told.nice)
    _preload()
    run(modules(told.chosen), told.sample, told.again, time.monotonic() + told.minutes * 60, told.quick)
    for room in (low := below(load())):
        print(f"{room}/: less than {LEAST:.0%} of what was tried is killed; docs/mutants.md lists the survivors")
    sys.exit(1 if low else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
