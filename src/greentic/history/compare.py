"""What differs between two documents, place by place. Pure.

Rules:
1. Records in lists are the same record when their id is the same, wherever they stand; other lists are compared as a whole.
2. In an object `null` and nothing are the same, as in these documents; false is not 0.
3. A place is written as one would say it: `revisions[01J…].lifecycle`.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.ground.documents import Json, JsonObject

_IDS = ("revision_id", "deployment_id", "endpoint_id", "slot", "kind")
"""What names a record, the most telling first; a split has the id of its deployment."""


class Difference(NamedTuple):
    """A place with what was there and what is; nothing for a place that is not there."""

    path: str
    before: Json
    after: Json


def differences(before: Json, after: Json, path: str = "") -> list[Difference]:
    """Every place where `after` differs from `before`."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: list[Difference] = []
        for key in [*before, *(k for k in after if k not in before)]:
            found += differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        return found
    if isinstance(before, list) and isinstance(after, list):
        old, new = _by_id(before), _by_id(after)
        if old is not None and new is not None and (old or new):
            found = []
            for name in [*old, *(n for n in new if n not in old)]:
                found += differences(old.get(name), new.get(name), f"{path}[{name}]")
            return found
    return [] if _same(before, after) else [Difference(path, before, after)]


def _same(before: Json, after: Json) -> bool:
    """Whether both are the same JSON; Python holds `false` equal to 0 and `true` to 1."""
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_same(before[k], after[k]) for k in before)
    return isinstance(before, bool) == isinstance(after, bool) and before == after


def _by_id(rows: list[Json]) -> dict[str, Json] | None:
    """Records by their id; nothing for a list of something else, or with an id twice."""
    found: dict[str, Json] = {}
    for row in rows:
        name = _id(row) if isinstance(row, dict) else None
        if name is None or name in found:
            return None
        found[name] = row
    return found


def _id(row: JsonObject) -> str | None:
    return next((str(row[key]) for key in _IDS if isinstance(row.get(key), str)), None)
