"""Whether applying an object would change anything: a comparison by field ownership. Pure.

Server-side apply sets what we state, removes what we stated before and no longer do, and leaves everything else alone. The live
object's `managedFields` tell what we stated before and how each list is merged, so that the outcome can be told without asking.

Rules:
1. A field that we state is in order if it is ours and has our value. One that is not ours yet is a change, even with the same
   value: applying would make it ours.
2. A field that is ours and that we no longer state is a change: applying would take it away.
3. Lists are compared as the server merges them: by key, as a set, or whole, as its bookkeeping shows, of what we own or, of an item that is
   not ours yet, of what others do. What defaults fill in inside keyed items is not ours and does not count.
4. A changed field that somebody else manages is a conflict, with that manager's name.
5. What others put beside what we state is an addition, if a manager owns it. What none owns came from defaults or from admission.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from greentic.ground.documents import Json, JsonObject
from greentic.k8s.names import FIELD_MANAGER
from greentic.k8s.objects import FieldConflict, metadata_of


class FieldChange(NamedTuple):
    """One field, its live value and the stated one; nothing stands for absence."""

    path: str
    before: Json
    after: Json


class Difference(NamedTuple):
    changes: list[FieldChange]
    conflicts: list[FieldConflict]


class Addition(NamedTuple):
    """What is there beside what we state: a change that takes it away, the steps there as `managedFields` writes them, who manages it."""

    change: FieldChange
    steps: tuple[str, ...]
    managers: list[str]


_Tree = dict[str, "_Tree"]
_IDENTITY = ("name", "namespace")


def compare(stated: JsonObject, live: JsonObject) -> Difference:
    """What applying `stated` over `live` would do."""
    own, others = _managers(live)
    found = _Comparison(others)
    body = {key: value for key, value in stated.items() if key not in ("apiVersion", "kind")}
    body["metadata"] = {key: value for key, value in metadata_of(stated).items() if key not in _IDENTITY}
    found.objects(body, live, own or {}, "", [tree for _, tree in others])
    return Difference(found.changes, found.conflicts)


def additions(stated: JsonObject, live: JsonObject, *, unowned: bool = False) -> Iterator[Addition]:
    """What others put beside what is stated (rule 5), metadata and status apart; `unowned`: whether somebody owns it or not."""
    body = {key: value for key, value in live.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    yield from _added(stated, body, _managers(live)[1], "", (), unowned=unowned)


def _added(
    stated: Json, live: Json, others: list[tuple[str, _Tree]], path: str, steps: tuple[str, ...], *, unowned: bool
) -> Iterator[Addition]:
    """The additions in a value of which these managers own something."""
    if not others and not unowned:
        return
    pairs: list[tuple[str, str, Json, Json]] = []
    if isinstance(stated, dict) and isinstance(live, dict):
        pairs = [(f"f:{key}", _field(path, key), stated.get(key), value) for key, value in live.items()]
    elif isinstance(stated, list) and isinstance(live, list):
        for step in dict.fromkeys(_steps([tree for _, tree in others])):
            first = [next((i for i in items if _is_item(step, i)), None) for items in (stated, live)]
            pairs.append((step, f"{path}[{_shown(step)}]", first[0], first[1]))
    for step, inner, said, there in pairs:
        below = [(name, tree) for name, tree in ((n, _down(t, step)) for n, t in others) if tree is not None]
        if said is not None:
            yield from _added(said, there, below, inner, (*steps, step), unowned=unowned)
        elif (below or unowned) and there not in (None, {}, []):
            yield Addition(FieldChange(inner, there, None), (*steps, step), [name for name, _ in below])


def applied_fields(live: JsonObject) -> JsonObject | None:
    """The tree of what we applied of an object; nothing if we never did."""
    return cast("JsonObject | None", _managers(live)[0])


def owners_of(live: JsonObject, *path: str) -> set[str]:
    """Who else manages a field."""
    found: set[str] = set()
    for name, tree in _managers(live)[1]:
        inner: _Tree | None = tree
        for part in path:
            inner = _down(inner, f"f:{part}")
        if inner is not None:
            found.add(name)
    return found


def _managers(live: JsonObject) -> tuple[_Tree | None, list[tuple[str, _Tree]]]:
    """What we own, and what others own, by their names."""
    own: _Tree | None = None
    others: list[tuple[str, _Tree]] = []
    entries = metadata_of(live).get("managedFields")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("fieldsV1"), dict):
            continue
        tree = cast(_Tree, entry["fieldsV1"])
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply":
            own = tree
        else:
            others.append((str(entry.get("manager")), tree))
    return own, others


class _Comparison:
    """Walks stated and live values side by side, with the ownership trees at the same place."""

    def __init__(self, others: list[tuple[str, _Tree]]) -> None:
        self.changes: list[FieldChange] = []
        self.conflicts: list[FieldConflict] = []
        self._names = [name for name, _ in others]

    def objects(
        self, stated: JsonObject, live: JsonObject, own: _Tree, path: str, others: list[_Tree | None] | list[_Tree]
    ) -> None:
        for key, value in stated.items():
            step = f"f:{key}"
            self._value(value, live.get(key), own.get(step), _field(path, key), [_down(t, step) for t in others])
        for step in own:
            name = step[2:]
            if step.startswith("f:") and name not in stated:
                self.changes.append(FieldChange(_field(path, name), live.get(name), None))

    def _value(self, stated: Json, live: Json, own: _Tree | None, path: str, others: list[_Tree | None]) -> None:
        if isinstance(stated, dict) and stated and own != {} and isinstance(live, dict):
            self.objects(stated, live, own or {}, path, others)
        elif isinstance(stated, list) and stated and isinstance(live, list) and _is_keyed(own, others):
            self._keyed(stated, live, own or {}, path, others)
        elif own is None and stated == {} and isinstance(live, dict):
            return  # the server keeps no book about an empty object
        elif own is None or stated != live:
            if stated != live:
                self._contested(path, others)
            self.changes.append(FieldChange(path, live, stated))

    def _keyed(self, stated: list[Json], live: list[Json], own: _Tree, path: str, others: list[_Tree | None]) -> None:
        """A list that the server merges item by item (rule 3)."""
        seen: set[str] = set()
        keys = _steps([own])
        for item in stated:
            step = next((k for k in (*keys, *_steps(others)) if _is_item(k, item)), None)
            if step is None:
                self.changes.append(FieldChange(_item(path, item), None, item))
                continue
            seen.add(step)
            if step.startswith("v:"):
                if item not in live or step not in own:
                    self.changes.append(FieldChange(_item(path, item), item if item in live else None, item))
                continue
            there = next((i for i in live if _is_item(step, i)), None)
            inner = [_down(t, step) for t in others]
            if isinstance(item, dict) and isinstance(there, dict):
                self.objects(item, there, own.get(step, {}), path + f"[{_shown(step)}]", inner)
            else:
                self.changes.append(FieldChange(path + f"[{_shown(step)}]", None, item))
        for step in keys:
            if step not in seen:
                gone = next((i for i in live if _is_item(step, i)), None)
                self.changes.append(FieldChange(path + f"[{_shown(step)}]", gone, None))

    def _contested(self, path: str, others: list[_Tree | None]) -> None:
        for name, tree in zip(self._names, others, strict=True):
            if tree is not None:
                self.conflicts.append(FieldConflict(name, path))


_WHOLE: _Tree = {}


def _down(tree: _Tree | None, step: str) -> _Tree | None:
    """The tree one step below; what owns a value whole owns everything in it."""
    if tree is None:
        return None
    return _WHOLE if tree == {} else tree.get(step)


def _is_keyed(own: _Tree | None, others: Sequence[_Tree | None]) -> bool:
    """Whether a list is merged item by item: as we own it, or, if nothing of it is ours, as others do."""
    return bool(_steps(others)) if own is None else own != _WHOLE


def _steps(trees: Sequence[_Tree | None]) -> list[str]:
    """By what the items of a list are merged, as these trees show it."""
    return [step for tree in trees for step in tree or {} if step.startswith(("k:", "v:"))]


def _is_item(step: str, item: Json) -> bool:
    if step.startswith("v:"):
        return bool(json.loads(step[2:]) == item)
    return isinstance(item, dict) and all(item.get(k) == v for k, v in json.loads(step[2:]).items())


def _field(path: str, key: str) -> str:
    return f"{path}.{key}" if key.replace("-", "").replace("_", "").isalnum() else f"{path}[{key}]"


def _item(path: str, item: Json) -> str:
    if isinstance(item, dict):
        name = next((k for k in ("name", "mountPath", "containerPort", "port", "topologyKey") if k in item), None)
        return f"{path}[{name}={item[name]}]" if name else f"{path}[+]"
    return f"{path}[{item}]"


def _shown(step: str) -> str:
    if step.startswith("v:"):
        return step[2:].strip('"')
    return ",".join(f"{k}={v}" for k, v in json.loads(step[2:]).items())
