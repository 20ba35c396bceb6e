"""The namespaces that an environment was reconciled into before: a reconcile goes where the answers say, and takes away nothing elsewhere.

The log of changes tells into which it was, and when last. All but the one in use were left, until a reconcile that looked there has found
nothing any more (`EMPTY`).
"""

from __future__ import annotations

from collections.abc import Iterable

from greentic.ground.documents import read_file
from greentic.history.trail import entries
from greentic.store.layout import EnvPaths

_MARK = b'"reconcile"'
EMPTY = "left_empty"
"""In the log, of a reconcile: namespaces that were left, and in which nothing was found any more."""


def left_namespaces(lines: Iterable[bytes], used: str | None = None) -> dict[str, str]:
    """The namespaces that were left, with when they were written to last; in use is `used`, or the newest of all."""
    found: dict[str, str] = {}
    for entry in entries(line for line in lines if _MARK in line):
        namespace = entry.target.get("namespace")
        if entry.verb == "env reconcile" and isinstance(namespace, str):
            found.pop(namespace, None)
            found[namespace] = entry.at
        empty = entry.target.get(EMPTY)
        for name in empty if entry.verb == "env reconcile" and isinstance(empty, list) else []:
            found.pop(str(name), None)
    found.pop(used or next(reversed(found), ""), None)
    return found


def left_in(paths: EnvPaths, used: str) -> dict[str, str]:
    """The same of an environment's own log; nothing where that cannot be read, which others tell."""
    try:
        return left_namespaces(read_file(paths.audit).splitlines(), used)
    except (OSError, ValueError):
        return {}
