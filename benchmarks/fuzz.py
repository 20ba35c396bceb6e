"""`make fuzz`: a million and more inputs for every parser of untrusted bytes, each parser in a process of its own.

Goes on where the last run stopped (`build/fuzz.json`) until each target has its share of `--inputs`, or `--minutes` are over. Prints for
each parser the inputs, typed refusals by kind, the slowest input and the memory that the process grew by. A defect ends the run with its
number; `input_of` in `tests/fuzzing.py` makes the input again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "fuzz.json"
STEP = 5_000
"""Inputs of one process; less than a minute on an idle core."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together (default: 1,000,000)")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long; the next run goes on")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--target", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--again", action="store_true", help="forget what earlier runs did")
    parser.add_argument("--step", nargs=3, metavar=("TARGET", "START", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    if given.step:
        return _step(given.step[0], int(given.step[1]), int(given.step[2]))
    return _lane(given)


def _step(name: str, start: int, count: int) -> int:
    """One process's part: prints a report as JSON, or the defect."""
    from fuzz_targets import TARGETS
    from fuzzing import Defect, run

    target = next(t for t in TARGETS if t.name == name)
    try:
        report = run(target, count, start)
    except Defect as defect:
        print(str(defect), file=sys.stderr)
        return 1
    print(json.dumps(report._asdict()))
    return 0


def _lane(given: argparse.Namespace) -> int:
    from fuzz_targets import TARGETS

    targets = [t for t in TARGETS if not given.target or t.name in given.target]
    shares = sum(t.share for t in targets)
    totals = {} if given.again or not KEPT.exists() else json.loads(KEPT.read_text())
    ends = time.monotonic() + 60 * given.minutes if given.minutes else None
    steps = []
    for target in targets:
        wanted, done = -(-given.inputs * target.share // shares), totals.get(target.name, {}).get("inputs", 0)
        steps += [(at - done, target.name, at, min(STEP, wanted - at)) for at in range(done, wanted, STEP)]
    failed: set[str] = set()  # targets that are done for this run, so that what is counted has no gaps

    def work(step: tuple[int, str, int, int]) -> tuple[str, dict | str | None]:
        over = step[1] in failed or (ends is not None and time.monotonic() > ends)
        return step[1], None if over else _process(*step[1:])

    with ThreadPoolExecutor(given.jobs) as pool:
        # The first step of every target, then the second: a run that is stopped has seen all of them.
        for name, answer in pool.map(work, sorted(steps)):
            if answer is None or name in failed:
                continue
            if isinstance(answer, str):
                print(f"DEFECT {answer}", flush=True)
                failed.add(name)
                continue
            _add(totals, name, answer)
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(totals, indent=1))
    _print(totals)
    return 1 if failed else 0


def _process(name: str, start: int, count: int) -> dict | str:
    """The report of a process of its own, or what it said when it failed."""
    environ = os.environ | {"HOME": "/nonexistent"}
    words = [sys.executable, __file__, "--step", name, str(start), str(count)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environ)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()[-2000:]


def _add(totals: dict, name: str, report: dict) -> None:
    kept = totals.setdefault(
        name, {"inputs": 0, "taken": 0, "refused": {}, "slowest": 0.0, "slowest_input": 0, "peak": 0}
    )
    kept["inputs"] += report["inputs"]
    kept["taken"] += report["taken"]
    kept["refused"] = dict(Counter(kept["refused"]) + Counter(report["refused"]))
    if report["slowest"] > kept["slowest"]:
        kept["slowest"], kept["slowest_input"] = report["slowest"], report["slowest_input"]
    kept["peak"] = max(kept["peak"], report["peak"])


def _print(totals: dict) -> None:
    print(f"{'parser':<16}{'inputs':>10}{'taken':>10}{'slowest':>10}{'memory':>10}  refused")
    for name, row in sorted(totals.items()):
        refused = ", ".join(f"{kind} {count}" for kind, count in sorted(row["refused"].items()))
        print(
            f"{name:<16}{row['inputs']:>10,}{row['taken']:>10,}{row['slowest']:>9.2f}s{row['peak'] >> 20:>7} MiB  {refused}"
        )
    print(f"{'':<16}{sum(r['inputs'] for r in totals.values()):>10,}")


if __name__ == "__main__":
    raise SystemExit(main())
