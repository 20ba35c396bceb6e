"""Commands that a program names in what it says, as they can be copied. Pure.

Rules:
1. A command that was told another store than the usual one tells it on to the commands that it names. Copied without it they would
   act on another environment of the same name.
2. What installs a part of this project does so for the Python that runs, and in a clone from there: another `pip` may stand first among
   the programs, and another package have our name in an index.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import GreenticError

_TAKING = re.compile(
    r"gtc op(?= [a-z])|gtc cache (?:list|verify|prune)\b|gtc console(?= [^-\s])|gtc bundle export\b|greentic-start(?: start)?(?= --)"
)
"""Beginnings of commands that take `--store-root`, up to where it can stand; the name of a program alone is none."""


_NAMED_BY_ULID = re.compile(r"`([0-7][0-9A-HJKMNP-TV-Z]{25})`")
_OF_DEPLOYMENT = re.compile(r"(--deployment )([0-7][0-9A-HJKMNP-TV-Z]{25})\b")
_INSTALLING = re.compile(r"pip install 'greentic\[([a-z-]+)\]'")


def _install(extra: str) -> str:
    """What brings an extra (rule 2)."""
    clone = Path(__file__).parents[3]
    package = ["-e", f"{clone}[{extra}]"] if (clone / "pyproject.toml").is_file() else [f"greentic[{extra}]"]
    return shlex.join([sys.executable, "-m", "pip", "install", *package])


def filled(text: str, result: JsonObject) -> str:
    """A next step with what stands in braces taken from the result of a verb."""
    for key, value in result.items():
        if isinstance(value, str | int):
            text = text.replace("{" + key + "}", shlex.quote(str(value)))
    return text


def copyable(text: str, store_root: Path | None) -> str:
    """A text with its commands for this store and this Python."""
    text = _INSTALLING.sub(lambda found: _install(found[1]), text)
    if store_root is None or "--store-root" in text:
        return text
    told = f" --store-root {shlex.quote(str(store_root))}"
    return _TAKING.sub(lambda found: found[0] + told, text)


def with_names(error: GreenticError, names: Mapping[str, str]) -> GreenticError:
    """The error with what people call a thing before its ULID, for people; who reads a program's errors goes by the ULID alone.

    A deployment has a name here only where no other one has it, so a command of its next step takes it, too.
    """
    error.hint = error.hint and _OF_DEPLOYMENT.sub(
        lambda found: found[0] if found[2] not in names else f"{found[1]}{shlex.quote(names[found[2]])}", error.hint
    )
    error.message = _NAMED_BY_ULID.sub(
        lambda found: f"`{names[found[1]]}` ({found[1]})" if found[1] in names else found[0], error.message
    )
    return error


def with_next_step(error: GreenticError, store_root: Path | None, *, for_people: bool) -> GreenticError:
    """The error, its next step and that of what caused it for this store. What programs read of a message stays as others print it."""
    told: BaseException | None = error
    while told is not None:
        if isinstance(told, GreenticError):
            told.hint = told.hint and copyable(told.hint, store_root)
            told.message = copyable(told.message, store_root) if for_people else told.message
        told = told.__cause__
    return error


def all_copyable(value: Json, store_root: Path | None) -> Json:
    """A result, all that it says for this store: for people."""
    if store_root is None:
        return value
    if isinstance(value, str):
        return copyable(value, store_root)
    if isinstance(value, list):
        return [all_copyable(item, store_root) for item in value]
    return {k: all_copyable(v, store_root) for k, v in value.items()} if isinstance(value, dict) else value
