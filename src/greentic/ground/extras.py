"""Packages that only some programs need: which extra of the project brings each.

Rules:
1. What is needed only to run, build or reach something is imported where that begins, so that everything else works without it.
2. Where it is missing, the error names what was wanted, the package, and the command that brings it: to the Python that runs this
   program, and from the clone if it runs from one. Another package might have our name in an index.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path

from greentic.ground.errors import GreenticError

BROUGHT_BY = {"httptools": "worker", "redis": "worker", "wasmtime": "worker"}
"""The extra by the name that is imported."""


class MissingPackage(GreenticError):
    """A package that an extra brings is not installed."""

    kind, prefix = "missing-package", "missing package: "


def install(extra: str) -> str:
    """The command that brings what an extra has (rule 2)."""
    clone = Path(__file__).resolve().parents[3]
    package = ["-e", f"{clone}[{extra}]"] if (clone / "pyproject.toml").is_file() else [f"greentic[{extra}]"]
    return shlex.join([sys.executable, "-m", "pip", "install", *package])


def need(package: str, what: str) -> None:
    """Import a package for `what`. Raises `MissingPackage`."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != package:
            raise  # it is there, and something that it stands on is not
        raise MissingPackage(
            f"{what} needs the package `{package}`, which is not installed",
            hint=install(BROUGHT_BY[package]),
        ) from None
