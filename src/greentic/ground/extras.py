"""Packages that only some programs need: which extra of the project brings each.

Rules:
1. What is needed only to run, build or reach something is imported where that begins, so that everything else works without it.
2. Where it is missing, the error names what was wanted, the package, and the extra that brings it.
"""

from __future__ import annotations

import importlib

from greentic.ground.errors import GreenticError

BROUGHT_BY = {"httptools": "worker", "redis": "worker", "wasmtime": "worker"}
"""The extra by the name that is imported."""


class MissingPackage(GreenticError):
    """A package that an extra brings is not installed."""

    kind, prefix = "missing-package", "missing package: "


def need(package: str, what: str) -> None:
    """Import a package for `what`. Raises `MissingPackage`."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != package:
            raise  # it is there, and something that it stands on is not
        raise MissingPackage(
            f"{what} needs the package `{package}`, which is not installed",
            hint=f"pip install 'greentic[{BROUGHT_BY[package]}]'",
        ) from None
