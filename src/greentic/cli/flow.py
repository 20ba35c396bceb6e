"""`gtc flow`: run, lint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import cast

from greentic.cli.output import Form, chosen_form, print_failure, print_success
from greentic.ground.documents import Json, JsonObject, compact
from greentic.ground.errors import GreenticError

_EXAMPLES = """examples:
  gtc flow run ./my-pack main --input '{"text": "Ada"}'
  gtc flow run my.gtpack main --input '{"text": "hi"}' --input '{"metadata": {"action": "next"}}'
  gtc flow lint flows/main.ygtc
  gtc flow lint ./my-pack"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gtc flow",
        description="Run a flow on the spot, and find what is wrong with it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="run|lint")
    run = verbs.add_parser("run", help="run a flow of a pack file or pack directory, and show each step")
    run.add_argument("pack", type=Path, metavar="PACK")
    run.add_argument("flow", metavar="FLOW")
    run.add_argument(
        "--input", action="append", metavar="JSON", default=None,
        help="the body of a request, or @FILE; more of them go on with a flow that waits (default: {})",
    )  # fmt: skip
    lint = verbs.add_parser(
        "lint", help="routes to nowhere, conditions that never hold, dropped fields, missing components"
    )
    lint.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="a .ygtc file, a pack file or a pack directory"
    )
    lint.add_argument("--strict", action="store_true", help="exit with 1 if there is a finding")
    for verb in (run, lint):
        verb.add_argument("--output", choices=("json", "table"), help="default: a table at a terminal, else JSON")
    arguments = parser.parse_args(argv)
    form = chosen_form(arguments.output)
    try:
        if arguments.verb == "run":
            _run(form, arguments)
            return 0
        from greentic.author.flow_run import lint as lint_paths

        found = lint_paths(arguments.paths)
        print_success(form, "flow", "lint", found, "")
        return 1 if arguments.strict and found["findings"] else 0
    except GreenticError as error:
        print_failure(form, "flow", arguments.verb, error)
        return 1


def _run(form: Form, arguments: argparse.Namespace) -> None:
    from greentic.author.flow_run import Step, run_flow

    steps: list[JsonObject] = []

    def told(step: Step) -> None:
        row = {"flow": step.flow, "node": step.node, "kind": step.kind, "then": step.then}
        steps.append({**row, "payload": cast(Json, step.payload), "output": cast(Json, step.output)})
        if form == "table":
            print(f"{len(steps):>3}. {step.flow}/{step.node} ({step.kind})")
            print(
                f"     in   {_short(step.payload)}\n     out  {_short(step.output)}\n     then {step.then}", flush=True
            )

    result = run_flow(arguments.pack, arguments.flow, arguments.input or ["{}"], told)
    if form == "json":
        print_success(form, "flow", "run", {**result, "steps": [*steps]}, "")
        return
    turns = result["turns"]
    for number, answer in enumerate(turns if isinstance(turns, list) else [], 1):
        waiting = " (the flow waits for the next message)" if isinstance(answer, dict) and answer["waiting"] else ""
        print(f"\nanswer {number}{waiting}:")
        print(f"  {compact(answer['output'] if isinstance(answer, dict) else answer).decode()}")
    for kind in ("log", "warnings"):
        for line in result[kind] if isinstance(result[kind], list) else []:  # type: ignore[union-attr]
            print(f"{kind.removesuffix('s')}: {line}", file=sys.stderr)


def _short(value: object) -> str:
    text = compact(value).decode()
    return text if len(text) <= 160 else f"{text[:157]}…"
