"""A merge patch by which what others added to an object is ours (`k8s.added`): the apply that follows takes it away. Pure.

Server-side apply takes away what was ours and is not stated any more, and only that. So the book of who manages what (`managedFields`) is
written first, of the very version that was seen. The object itself changes in one step, which the server checks as a whole.
"""

from __future__ import annotations

import copy

from greentic.ground.documents import Json, JsonObject
from greentic.k8s.names import FIELD_MANAGER
from greentic.k8s.objects import member, metadata_of, objects_in
from greentic.k8s.ownership import Addition


def handed_over(live: JsonObject, taken: list[Addition]) -> JsonObject:
    """The patch that makes these additions ours."""
    metadata = metadata_of(live)
    entries = copy.deepcopy(objects_in(metadata.get("managedFields")))
    own = next((e for e in entries if e.get("manager") == FIELD_MANAGER and e.get("operation") == "Apply"), None)
    if own is None:
        own = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {}}
        own["apiVersion"] = live["apiVersion"]
        entries.append(own)
    others = [member(entry, "fieldsV1") for entry in entries if entry is not own]
    for addition in taken:
        steps = next((found for found in (_whole(tree, addition.steps) for tree in others) if found), addition.steps)
        told: JsonObject = {}
        for tree in others:
            told |= _cut(tree, steps)
        _put(member(own, "fieldsV1"), steps, told)
    kept: list[Json] = [entry for entry in entries if entry.get("fieldsV1")]
    seen = {key: value for key, value in metadata.items() if key in ("uid", "resourceVersion")}
    return {"metadata": {**seen, "managedFields": kept}}


def _whole(tree: JsonObject, steps: tuple[str, ...]) -> tuple[str, ...]:
    """The steps to what a tree has as a whole, at a place or above it; none where it has nothing there."""
    for at, step in enumerate(steps, 1):
        inner = tree.get(step)
        if not isinstance(inner, dict):
            return ()
        if not inner:
            return steps[:at]
        tree = inner
    return steps


def _cut(tree: JsonObject, steps: tuple[str, ...]) -> JsonObject:
    """Take a place out of a tree, and what becomes empty by it: an empty tree would be the whole. What was there."""
    step, *rest = steps
    inner = tree.get(step)
    if not isinstance(inner, dict):
        return {}
    cut = _cut(inner, tuple(rest)) if rest else inner
    if not rest or not inner:
        del tree[step]
    return cut


def _put(tree: JsonObject, steps: tuple[str, ...], told: JsonObject) -> None:
    *way, last = steps
    for step in way:
        inner = tree.setdefault(step, {".": {}} if step.startswith("k:") else {})
        assert isinstance(inner, dict)
        tree = inner
    tree[last] = told
