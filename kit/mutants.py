#!/usr/bin/env python3
"""Whether the tests would notice: change one thing of a module at a time (mutations.py) and run the tests that execute it.

    kit/mutants.py run [ROOM | MODULE …] [--minutes N] [--nice N]   all rooms of LANES, or some; goes on where it stopped
    kit/mutants.py page                                             print docs/mutants.md from what was found

For each module: its lane's tests run once, with a record of which test executes which line; then each mutant meets the tests that
execute its line, quickest first, in a process that is forked from one that has loaded what takes long to load. A mutant is killed by a
failing test or by taking far longer than the tests took. What was found is kept in kit/mutants.json by the digest of the module, so a
module that did not change is not tried again; why a survivor may live is written there beside it, by hand, and kept.
Coverage decides nothing here: a line that no test executes has survivors.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutations import Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "greentic"
FOUND = ROOT / "kit" / "mutants.json"
PAGE = ROOT / "docs" / "mutants.md"
LANES = {
    "trust": ["test_trust.py"],
    "store": ["test_store.py", "test_trust.py"],
    "distribute": ["test_distribute.py", "test_delivery.py"],
    "materialize": ["test_store.py", "test_artifact.py", "test_delivery.py", "test_serve.py", "test_pod_worker.py"],
    "activate": ["test_activate.py", "test_serve.py"],
    "ingress": ["test_serve.py", "test_activate.py", "test_hostile.py"],
}
"""The tests of each room. Those that start programs see no mutant, and are left out by their marks."""
MORE = {"trust/revocation.py": ["test_delivery.py"], "trust/bundle_signature.py": ["test_delivery.py"], "store/seal.py": ["test_delivery.py"],
        "store/signed_policy.py": ["test_delivery.py"]}  # fmt: skip
"""Tests of single modules beside those of their room."""
SLOWEST = 3.0
"""Seconds; a test that takes longer meets no mutant."""
MEMORY = 6 << 30
LEAST = 0.85
"""The share that must be killed."""


class Survivor(TypedDict):
    key: str
    line: int
    why: str
    """Why it may live; empty as long as nobody looked."""


class Result(TypedDict):
    sha256: str
    tried: int
    """How many mutants were tried so far; the module is done when it is `of`."""
    of: int
    killed: int
    survivors: list[Survivor]


class Lane(NamedTuple):
    """What a module's mutants meet."""

    tests: dict[str, float]
    """Seconds of each test."""
    by_line: dict[int, set[str]]
    """Which tests execute which line; a line of the module's own level is executed by all."""


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


def run(names: list[str], until: float) -> None:
    """Try the mutants of each module until a moment; what was found is saved after each."""
    measured: dict[tuple[str, ...], dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        tree = Path(scratch, "tree")
        for name in ("src", "tests", "examples", "docs", "scripts", "kit", "image"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for name in names:
            source = (SOURCE / name).read_text()
            every, results = mutants(source), load()
            digest = hashlib.sha256(source.encode()).hexdigest()
            before = results.get(name)
            whys = {one["key"]: one["why"] for one in before["survivors"]} if before else {}
            now: Result = before if before and before["sha256"] == digest and before["of"] == len(every) else {
                "sha256": digest, "tried": 0, "of": len(every), "killed": 0, "survivors": [],
            }  # fmt: skip
            if now["tried"] == now["of"]:
                continue
            if time.monotonic() >= until:
                print("out of time; run it again to go on", flush=True)
                return
            files = (*LANES[name.partition("/")[0]], *MORE.get(name, []))
            if files not in measured:
                measured[files] = _measure(tree, files)
            lane = _lane(tree, files, name, measured[files])
            for mutant in every[now["tried"] :]:
                if time.monotonic() >= until:
                    break
                if _lives(tree, name, mutant, lane):
                    now["survivors"].append({"key": mutant.key, "line": mutant.line, "why": whys.get(mutant.key, "")})
                    print(f"{name}:{mutant.line}: lives: {mutant.key}", flush=True)
                else:
                    now["killed"] += 1
                now["tried"] += 1
                results = load()
                results[name] = now
                save(results)
            (tree / "src" / "greentic" / name).write_text(source)
            print(f"{name}: {now['killed']} of {now['tried']} killed, {now['of'] - now['tried']} to go", flush=True)


def _measure(tree: Path, files: tuple[str, ...]) -> dict[str, float]:
    """Run tests once on the code as it is, with a record of the lines that each executes; the seconds of each that is quick and passes."""
    report, data = tree / "report.xml", _record(tree, files)
    data.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "--dist=no", "-m", "not e2e and not conformance and not field", "-k", "not prefix_signed", *(f"tests/{file}" for file in files),
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
        raise SystemExit(
            f"none of the tests in {', '.join(files)} passes quickly on the code as it is, so no mutant can be judged"
        )
    return quick


def _record(tree: Path, files: tuple[str, ...]) -> Path:
    return tree / ("coverage-" + "-".join(file.removesuffix(".py") for file in files))


def _lane(tree: Path, files: tuple[str, ...], name: str, tests: dict[str, float]) -> Lane:
    """Which of the tests execute which lines of a module. What runs when it is imported is met by all that execute any line of it."""
    from coverage import CoverageData

    read = CoverageData(str(_record(tree, files)))
    read.read()
    lines = read.contexts_by_lineno(str(tree / "src" / "greentic" / name))
    by_line = {line: {one.partition("|")[0] for one in contexts} & tests.keys() for line, contexts in lines.items()}
    everyone: set[str] = set().union(*by_line.values())
    for line, contexts in lines.items():
        if "" in contexts:
            by_line[line] = everyone
    return Lane(tests, by_line)


def _lives(tree: Path, name: str, mutant: Mutant, lane: Lane) -> bool:
    """Whether no test notices."""
    tests = sorted(lane.by_line.get(mutant.line, set()), key=lane.tests.__getitem__)
    if not tests:
        return True
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


def page() -> str:
    """docs/mutants.md."""
    results = load()
    lines = [
        "# Mutants", "",
        "Whether the tests would notice: `make mutants` changes one thing of a module at a time and runs the tests that execute it. Printed by",
        "`kit/mutants.py page` from `kit/mutants.json`; why a survivor may live is written there, beside it. Not part of the test command: it takes",
        "hours, and `MUTANTS='trust store/audit.py'` chooses rooms or modules. At least 85 in a hundred must be killed in each room.", "",
        "| room | modules tried | mutants | killed | |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for room in LANES:
        own = {name: one for name, one in results.items() if name.startswith(f"{room}/") and one["tried"]}
        tried, killed = sum(one["tried"] for one in own.values()), sum(one["killed"] for one in own.values())
        share = f"{killed / tried:.0%}" if tried else ""
        lines.append(
            f"| `{room}/` | {len(own)} of {len(modules([room]))} | {tried} | {killed} | {share or 'not tried yet'} |"
        )
    lines += ["", "## Survivors", ""]
    for name, one in results.items():
        if one["survivors"]:
            left = "" if one["tried"] == one["of"] else f" ({one['of'] - one['tried']} mutants not tried yet)"
            lines += [
                f"### `{name}`: {one['killed']} of {one['tried']} killed{left}",
                "",
                "| change | why it may live |",
                "|---|---|",
            ]
            lines += [
                f"| `{_cell(survivor['key'])}` | {survivor['why'] or 'not looked at yet'} |"
                for survivor in one["survivors"]
            ]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("chosen", nargs="*", metavar="ROOM|MODULE")
    running.add_argument("--minutes", type=float, default=600)
    running.add_argument("--nice", type=int, default=10)
    commands.add_parser("page").add_argument("--write", action="store_true")
    told = parser.parse_args(words)
    if told.command == "page":
        if told.write:
            PAGE.write_text(page())
        else:
            sys.stdout.write(page())
        return
    os.nice(told.nice)
    _preload()
    run(modules(told.chosen), time.monotonic() + told.minutes * 60)


if __name__ == "__main__":
    main(sys.argv[1:])
