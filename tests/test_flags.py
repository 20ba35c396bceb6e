"""Every flag that an error, a hint, a help text or a page names exists, and exists where it is named.

Read from the source: the flags that are defined, and the texts that name some. A new flag needs no entry here.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections import defaultdict
from pathlib import Path
from typing import NoReturn, get_args, get_type_hints

import pytest

from greentic.cli import op_table
from greentic.ground.reply import Reply

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "greentic"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
GLOBAL = frozenset({"--store-root", "--answers", "--output", "--schema", "--help"})
PROGRAMS = [
    ROOT / "image" / "build.py",
    *(ROOT / "benchmarks").glob("*.py"),
    *(ROOT / "lab").glob("*.py"),
    *(ROOT / "scripts").glob("*.py"),
    *(ROOT / "kit").glob("*.py"),
    *(ROOT / "scripts").glob("*.py"),
]
FOREIGN = {
    "kubectl": {
        "--force-conflicts",
        "--server-side",
        "--delete-emptydir-data",
        "--duration",
        "--for",
        "--minify",
        "--previous",
        "--raw",
    },
    "aws, az, gcloud": {"--name", "--attach-acr", "--enable-network-policy", "--network-policy"},
    "cargo, tinygo, npx, wasm-tools": {"--adapt", "--release", "--target", "--wit-package", "--wit-world"},
    "git, make, pip, docker, podman, pytest": set(),
}
"""Flags of other people's programs that our texts tell, by program."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def constants(tree: ast.AST) -> list[str]:
    """The texts of a module; where a value is put into one, `X` stands."""
    whole = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr)]
    inside = {id(part) for n in whole for part in n.values}
    filled = ["".join(p.value if isinstance(p, ast.Constant) else "X" for p in n.values) for n in whole]
    plain = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [*filled, *(str(n.value) for n in plain if id(n) not in inside)]


def defined(path: Path) -> set[str]:
    """The flags that a module defines: given to a parser or a row of the table, or listed in a tuple."""
    found: set[str] = set()
    text = path.read_text()
    for node in ast.walk(ast.parse(text)) if "--" in text else ():
        inside: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            inside = list(node.args) if name in ("add_argument", "Flag") else []
        elif isinstance(node, ast.Tuple):
            inside = list(node.elts)
        found |= {
            n.value
            for n in inside
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and FLAG.fullmatch(n.value)
        }
    return found


@functools.cache  # and not when the module is loaded: every process of a run loads it
def everything() -> set[str]:
    """The flags of all programs, ours and other people's."""
    ours = set().union(*map(defined, [*SOURCE.rglob("*.py"), *PROGRAMS]))
    return ours | {"--help", "--version"} | set().union(*FOREIGN.values())


@functools.cache
def others() -> dict[str, set[str]]:
    """The flags of the programs that have no table of verbs."""
    names = ("bundle", "pack", "flow", "cache", "console", "distributor")
    found = {f"gtc {name}": defined(SOURCE / "cli" / f"{name}.py") for name in names}
    return found | {"greentic-start": defined(SOURCE / "cli" / "start.py")}


def verb_flags(noun: str, verb: str, rest: str = "") -> set[str] | None:
    row = op_table.named(noun, "run" if noun == "deploy" else verb, FLAG.findall(rest))
    return None if row is None else {f.name for f in row.flags} | GLOBAL | ({"--watch"} if row.watch else set())


def wrong(text: str) -> list[str]:
    """What a text names and does not exist; after `gtc op NOUN VERB` it has to be a flag of that verb."""
    found = [flag for flag in FLAG.findall(text) if flag not in everything()]
    for command in re.finditer(r"gtc op ([a-z-]+)(?: ([a-z-]+))?([^\n`;#]*)", text):
        noun, verb, rest = command[1], command[2] or "", re.split(r", (?!\d)|\. |\) |: ", command[3])[0]
        known = verb_flags(noun, verb, rest)
        if known is not None:
            found += [f"{flag} of gtc op {noun} {verb}" for flag in FLAG.findall(rest) if flag not in known]
    for program, flags in others().items():
        for command in re.finditer(rf"(?<![\w-]){program} ([^\n`;#|]*)", text):
            rest = re.split(r", (?!\d)|\. |\) |: ", command[1])[0]
            found += [
                f"{flag} of {program}" for flag in FLAG.findall(rest) if flag not in flags | {"--help", "--version"}
            ]
    return found


def test_what_does_not_exist_is_found():
    assert wrong(constants(ast.parse("f'gtc op env repair {env} --bundle x'"))[0]) == ["--bundle of gtc op env repair"]
    assert wrong("run it with --no-such-thing") == ["--no-such-thing"]
    assert wrong("gtc op env repair prod --bundle x") == ["--bundle of gtc op env repair"]
    assert wrong("gtc bundle sign FILE --threshold 2") == ["--threshold of gtc bundle"]
    assert wrong("gtc op env repair prod --apply, unless it is --answers") == []


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_errors_hints_and_docstrings_name_flags_that_exist(path):
    assert [(text, found) for text in constants(ast.parse(path.read_text())) if (found := wrong(text))] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_pages_name_flags_that_exist(path):
    lines: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        if found := wrong(line):
            lines[line] += found
    assert dict(lines) == {}


def test_nouns_and_verbs_that_hints_name_exist():
    for path in sorted(SOURCE.rglob("*.py")):
        for text in constants(ast.parse(path.read_text())):
            for noun, verb in re.findall(r"gtc op ([a-z-]+)(?: ([a-z-]+))?", text):
                assert noun in op_table.nouns(), (path.name, text)
                known = {v.verb for v in op_table.VERBS if v.noun == noun}
                assert not verb or noun == "deploy" or verb in known, (path.name, text)


@pytest.mark.parametrize("verb", op_table.VERBS, ids=lambda v: f"{v.noun}-{v.verb}")
def test_every_verb_answers_a_value_with_names_and_types(verb):
    module, _, name = verb.call.partition(":")
    answered = get_type_hints(getattr(importlib.import_module(module), name))["return"]
    forms = get_args(answered) or (answered,)
    assert all(form is NoReturn or (isinstance(form, type) and issubclass(form, Reply)) for form in forms), answered


def test_what_several_verbs_may_say_names_the_verb_that_takes_the_flag() -> None:
    """A reconcile, a rollout of one revision, a drain and an operator meet the same refusals, and take different flags."""
    flag = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
    others = frozenset({"--timeout"})  # of whatever waits for a cluster
    told = [
        (path.name, node.value)
        for path in sorted((SOURCE / "cluster").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for found in flag.finditer(node.value)
        if found[0] not in others and not re.search(r"(gtc|kubectl) [^;,]*$", node.value[: found.start()])
    ]
    assert told == []


def test_a_next_step_is_a_command_or_a_sentence_and_no_flag_alone():
    """Whoever copies a flag alone has to find out whose it is."""
    bare = re.compile(r"--[a-z-]+ [A-Z{][^ ]*\Z|gtc op [a-z-]+ [a-z-]+ first\Z")
    told = [
        (path.name, keyword.value.value)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "hint" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
    ]
    assert len(told) > 100 and [where for where in told if bare.fullmatch(where[1])] == []
