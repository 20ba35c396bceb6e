"""The document of a large environment, read again: what did not change is taken from before (formats: environment 1).

Rules:
1. Deployments, revisions and splits are records by themselves: the same bytes are the same record, parsed once and shared by the
   documents that hold it. Records are never changed in place, so sharing them is safe.
2. What comes out equals what `from_json` makes of the whole text, unknown members included, and so does what is refused: a text that
   is damaged anywhere is read as a whole, for an error that names the place in it. How deep a record is is looked at when it is parsed:
   for all of them together that costs more than reading what changed.
3. Only the records of the newest document are kept.
"""

from __future__ import annotations

import msgspec

from greentic.ground.documents import MAX_VALUES, Document, check_values, from_json, parse, replace, texts_in, texts_of
from greentic.ground.errors import SpecViolation
from greentic.model.environment import BundleDeployment, Environment, Revision, TrafficSplit

_LISTS: dict[str, type[Document]] = {
    "bundles": BundleDeployment,
    "revisions": Revision,
    "traffic_splits": TrafficSplit,
}


class Known(msgspec.Struct, frozen=True):
    """The records of one list, with their texts."""

    texts: list[bytes]
    records: list[Document]


Records = dict[str, Known]
_NONE = Known([], [])


class Elements:
    """The records of the newest document that was read."""

    def __init__(self) -> None:
        self._known: Records = {}
        self._last: tuple[bytes, Environment] | None = None
        self.valid: Environment | None = None
        """The last one that was found to be legal: what is read again from the same bytes is that very value."""

    def environment(self, data: bytes) -> Environment:
        """The environment in a JSON text. Raises `ValueError` or `SpecViolation` with the place of the damage."""
        if self._last is not None and self._last[0] == data:
            return self._last[1]
        try:
            found, records = _read(data, self._known)
        except (ValueError, SpecViolation):
            return from_json(Environment, parse(data))
        self._known, self._last = records, (data, found)
        return found


def _read(data: bytes, known: Records) -> tuple[Environment, Records]:
    members = texts_of(data)
    lists = {
        name: _known_of(texts_in(members[name]), known.get(name, _NONE)) for name in _LISTS.keys() & members.keys()
    }
    rest = {name: raw for name, raw in members.items() if name not in lists}
    if sum(map(len, rest.values())) + sum(found.missing() for found in lists.values()) > MAX_VALUES:
        check_values(data)
    others = {name: parse(bytes(raw), inside=1) for name, raw in rest.items()} | {name: [] for name in lists}
    records = {name: found.whole(_LISTS[name]) for name, found in lists.items()}
    return replace(from_json(Environment, others), **{n: k.records for n, k in records.items()}), records


class _Found(msgspec.Struct):
    """The texts of a list, and those records that are known already."""

    texts: list[bytes]
    records: list[Document | None]

    def missing(self) -> int:
        """Bytes of the texts that are to be parsed."""
        return sum(len(text) for text, record in zip(self.texts, self.records, strict=True) if record is None)

    def whole(self, form: type[Document]) -> Known:
        """The same with every record."""
        made = dict[bytes, Document]()
        for at, record in enumerate(self.records):
            if record is None:
                text = self.texts[at]
                self.records[at] = made[text] = made.get(text) or from_json(form, parse(text, inside=2))
        return Known(self.texts, [record for record in self.records if record is not None])


def _known_of(texts: list[bytes], known: Known) -> _Found:
    if len(texts) == len(known.texts):
        found = [r if t == old else None for t, old, r in zip(texts, known.texts, known.records, strict=True)]
    else:
        found = [None] * len(texts)
    if None in found:  # only then a text is looked for in other places
        moved = dict(zip(known.texts, known.records, strict=True))
        found = [moved.get(text) if record is None else record for text, record in zip(texts, found, strict=True)]
    return _Found(texts, found)
