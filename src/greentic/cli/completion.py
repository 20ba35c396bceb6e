"""`gtc completion SHELL`, and what its scripts ask: the words that may stand where the cursor is.

Rules:
1. The answer comes from the tables and parsers that help is printed from, and from the store: environments, bundles, revisions as
   `bundle@3`. Nothing is asked over a network, and nothing is written. Where nothing is offered the shell completes files.
2. Completing never fails: what cannot be read has no candidates.
3. A candidate is a word that a shell takes as it stands; names of others that are not are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from greentic.ground.errors import GreenticError
from greentic.operate.verb import ENV
from greentic.terminal.completion_scripts import HELP, SCRIPTS, USAGE
from greentic.terminal.streams import say

if TYPE_CHECKING:
    from greentic.cli.command import Command

_WORD = re.compile(r"[A-Za-z0-9@._:/=-]{1,128}\Z")
_FORM, _ENTRY = "--output", "entries"
_FIELDS = {"--output": _FORM, "--answers": "", "--store-root": ""}
"""Flags of every verb that take a value."""
_NAMED = frozenset({"deployment_id", "revision_id", "survivor", "to", "bundle", _ENTRY})
"""Members of payloads that a bundle or a revision is named by."""
_WITH_PARSERS = ("bundle", "pack", "flow", "cache", "console", "distributor")


def main(argv: list[str]) -> int:
    """Run `gtc completion <argv>`; returns the exit code."""
    if len(argv) == 1 and argv[0] not in SCRIPTS and not argv[0].startswith("-"):
        from greentic.ground.nearest import one_of

        print(f"error: no script for '{argv[0]}'{one_of(argv[0], SCRIPTS)}", file=sys.stderr)
        return 2
    if len(argv) != 1 or argv[0] not in SCRIPTS:
        if argv in (["-h"], ["--help"]):
            from greentic.terminal.fitted import fitted_here

            say(fitted_here(HELP))
            return 0
        print(USAGE, file=sys.stderr)
        return 2
    say(SCRIPTS[argv[0]].removesuffix("\n"))
    return 0


def complete(argv: list[str], commands: Iterable[str]) -> int:
    """Run `gtc complete -- WORDS…`, the last of which is the one that is being typed."""
    words = argv[1:] if argv[:1] == ["--"] else argv
    before, typed = words[:-1], words[-1] if words else ""
    for word in candidates(before, typed, commands):
        if word.startswith(typed) and _WORD.match(word):
            print(word)
    return 0


def candidates(before: list[str], typed: str, commands: Iterable[str] = ()) -> list[str]:
    """What may come after some words; more than fits what is typed, which the caller looks at."""
    if before[:1] == ["help"]:
        return candidates(before[1:], typed, commands)
    if not before:
        return [*commands, "help"]
    if before[0] == "op":
        return _of_op(before[1:], typed)
    if before[0] == "completion":
        return list(SCRIPTS)
    parser = _parser(before[0])
    return [] if parser is None else _of_parser(parser, before[1:], typed)


def _parser(command: str) -> argparse.ArgumentParser | None:
    """The parser of a command that has one."""
    import importlib

    if command not in _WITH_PARSERS:
        return None
    made: argparse.ArgumentParser | Command = importlib.import_module(f"greentic.cli.{command}").parser()
    return made if isinstance(made, argparse.ArgumentParser) else made.with_output()


def _of_parser(parser: argparse.ArgumentParser, before: list[str], typed: str) -> list[str]:
    """What a parser takes behind some words: a verb, a flag, a word of a flag, an environment."""
    flags: dict[str, argparse.Action] = {}
    places: list[argparse.Action] = []
    for action in parser._actions:
        flags |= dict.fromkeys(action.option_strings, action)
        if not action.option_strings:
            places.append(action)
    root, given, flag = None, 0, None
    for word in before:
        name, equals, value = word.partition("=")
        if flag is not None:
            root = Path(word) if flag.dest == "store_root" else root
            flag = None
        elif name in flags:
            root = Path(value) if value and flags[name].dest == "store_root" else root
            flag = flags[name] if not equals and flags[name].nargs != 0 else None
        elif places and isinstance(places[0].choices, dict):  # its verbs
            chosen = places[0].choices.get(word)
            return [] if chosen is None else _of_parser(chosen, before[before.index(word) + 1 :], typed)
        else:
            given += 1
    if flag is not None:
        return [str(choice) for choice in flag.choices or ()]
    if typed.startswith("-"):
        return list(flags)
    place = places[given] if given < len(places) else None
    if place is not None and place.metavar == "ENV":
        return _environments(root)
    return [] if place is None else [str(choice) for choice in place.choices or ()]


def _of_op(before: list[str], typed: str) -> list[str]:
    from greentic.cli import op_table

    root, words = _without_globals(before)
    if not words:
        return op_table.nouns()
    verb = op_table.DEPLOY if words[0] == op_table.DEPLOY.noun else None
    if verb is None:
        if len(words) == 1:
            return [v.verb for v in op_table.VERBS if v.noun == words[0]]
        verb = op_table.find(words[0], words[1])
    if verb is None:
        return []
    if typed.startswith("-"):
        own = [*(f.name for f in verb.flags), *(["--watch"] if verb.watch else [])]
        return [*own, "--output", "--answers", "--schema", "--store-root", "--help"]
    fields = _FIELDS | {f.name: f.field for f in verb.flags if not f.switch}
    given, flags, open_flag = _placed(words[1 if verb.noun == "deploy" else 2 :], fields)
    if open_flag is not None:
        meant = fields[open_flag]
    elif len(given) < len(verb.positionals):
        meant = verb.positionals[len(given)]
    else:
        meant = _ENTRY if verb.noun == "traffic" else ""
    if meant == _FORM:
        return ["table", "wide", "json", "yaml", "name"]
    if meant in (ENV, "target"):
        return _environments(root)
    return _names(root, flags.get("--env") or "".join(given[:1])) if meant in _NAMED else []


def _placed(words: list[str], fields: Mapping[str, str]) -> tuple[list[str], dict[str, str], str | None]:
    """The plain words behind a verb, its flags with their values, and the flag whose value is being typed. `fields` are those of flags that
    take one."""
    given: list[str] = []
    flags: dict[str, str] = {}
    waiting: str | None = None
    for word in words:
        name, equals, value = word.partition("=")
        if waiting is not None:
            flags[waiting], waiting = word, None
        elif not word.startswith("-"):
            given.append(word)
        elif equals:
            flags[name] = value
        elif name in fields:
            waiting = name
    return given, flags, waiting


def _without_globals(words: list[str]) -> tuple[Path | None, list[str]]:
    """The store that was named, and the words without flags that stand before the noun, and without it."""
    root: Path | None = None
    left: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name == "--store-root" or (name in ("--answers", "--output") and not left):
            if not equals and rest:
                value = rest.pop(0)
            root = Path(value) if name == "--store-root" and value else root
        elif word != "--schema":
            left.append(word)
    return root, left


def _environments(root: Path | None) -> list[str]:
    with contextlib.suppress(OSError, GreenticError):
        return sorted(path.parent.name for path in _store(root).glob("*/environment.json"))
    return []


def _names(root: Path | None, env_id: str) -> list[str]:
    """The bundles of an environment, and its revisions as verbs take them."""
    from greentic.store.environments import EnvironmentStore

    with contextlib.suppress(OSError, GreenticError):
        env = EnvironmentStore(_store(root)).load(env_id)
        live = [r for r in env.revisions if r.lifecycle != "archived"]
        return [*sorted({d.bundle_id for d in env.bundles}), *(f"{r.bundle_id}@{r.sequence}" for r in live)]
    return []


def _store(root: Path | None) -> Path:
    from greentic.store.layout import default_store_root

    return root or default_store_root()
