"""`gtc flow`: run, lint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

from greentic.cli.command import Command, command, told
from greentic.ground.documents import Json, JsonObject, compact
from greentic.terminal.output import Form, print_success, printed, tell_people

_EXAMPLES = """examples:
  gtc flow run ./my-pack main --input '{"text": "Ada"}'
  gtc flow run my.gtpack main --input '{"text": "hi"}' --input '{"metadata": {"action": "next"}}'
  gtc flow lint flows/main.ygtc
  gtc flow lint ./my-pack"""


def parser() -> Command:
    """The words that it takes."""
    flow = command("flow", "Run a flow on the spot, and find what is wrong with it.", _EXAMPLES, "run|lint")
    verbs = flow.verbs
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
    return flow


def main(argv: list[str]) -> int:
    arguments = parser().parsed(argv)
    return told("flow", arguments, lambda form: (_run if arguments.verb == "run" else _lint)(form, arguments))


def _lint(form: Form, arguments: argparse.Namespace) -> int:
    from greentic.author.flow_run import lint

    found = lint(arguments.paths)
    if form == "table":
        from greentic.terminal.finding_lines import print_findings

        print_findings(found)
    else:
        print_success(form, "flow", "lint", found, "")
    return 1 if arguments.strict and found["findings"] else 0


def _run(form: Form, arguments: argparse.Namespace) -> int:
    """Run the flow; 1 if one of its turns failed, with the reason on the standard error output."""
    from greentic.author.flow_run import Step, run_flow

    steps: list[JsonObject] = []

    def shown(step: Step) -> None:
        row = {"flow": step.flow, "node": step.node, "kind": step.kind, "then": step.then}
        steps.append({**row, "payload": cast(Json, step.payload), "output": cast(Json, step.output)})
        if form == "table":
            print(printed(f"{len(steps):>3}. {step.flow}/{step.node} ({step.kind})"))
            print(
                printed(f"     in   {_short(step.payload)}\n     out  {_short(step.output)}\n     then {step.then}"),
                flush=True,
            )

    result = run_flow(arguments.pack, arguments.flow, arguments.input or ["{}"], shown)
    if form == "json":
        print_success(form, "flow", "run", {**result, "steps": [*steps]}, "")
    rows = result["turns"]
    turns = rows if isinstance(rows, list) else []
    failed = [str(row["failed"]) for row in turns if isinstance(row, dict) and "failed" in row]
    for number, answer in enumerate(turns if form == "table" else [], 1):
        waiting = " (the flow waits for the next message)" if isinstance(answer, dict) and answer["waiting"] else ""
        print(f"\nanswer {number}{waiting}:")
        print(printed(f"  {compact(answer['output'] if isinstance(answer, dict) else answer).decode()}"))
    for kind in ("log", "warnings") if form == "table" or failed else ():
        lines = result[kind]
        for line in lines if isinstance(lines, list) else []:
            tell_people(f"{kind.removesuffix('s')}: {line}")
    for text in failed:
        tell_people(f"error: the flow failed: {text}")
    return 1 if failed else 0


def _short(value: object) -> str:
    text = compact(value).decode()
    return text if len(text) <= 160 else f"{text[:157]}…"
