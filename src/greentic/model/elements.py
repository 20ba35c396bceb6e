"""The document of a large environment, read again: what did not change is taken from before (formats: environment 1).

Rules:
1. Deployments, revisions and splits are records by themselves: the same bytes are the same record, parsed once and shared by the
   documents that hold it. Records are never changed in place, so sharing them is safe.
2. What comes out equals what `from_json` makes of the whole text, unknown members included, and so does what is refused: a text that
   is damaged anywhere is read as a whole, for an error that names the place in it.
3. Only the records of the newest document are kept.
"""

from __future__ import annotations

import msgspec

from greentic.ground.documents import Document, decode, from_json, parse, replace, texts_in
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
    members = decode(data, dict[str, msgspec.Raw])  # the bounds of size and depth are those of the whole text
    records: Records = {}
    lists: dict[str, list[Document]] = {}
    for name in _LISTS.keys() & members.keys():
        records[name] = _records(name, members[name], known.get(name, _NONE))
        lists[name] = records[name].records
    rest = {name: [] if name in lists else parse(bytes(raw)) for name, raw in members.items()}
    return replace(from_json(Environment, rest), **lists), records


def _records(name: str, raw: msgspec.Raw, known: Known) -> Known:
    texts = texts_in(raw)
    if len(texts) == len(known.texts):
        found = [r if t == old else None for t, old, r in zip(texts, known.texts, known.records, strict=True)]
    else:
        found = [None] * len(texts)
    form, moved = _LISTS[name], dict[bytes, Document]()
    if None in found:  # only then a text is looked for in other places
        moved = dict(zip(known.texts, known.records, strict=True))
    for at, record in enumerate(found):
        if record is None:
            text = texts[at]
            found[at] = moved[text] = moved.get(text) or from_json(form, parse(text))
    return Known(texts, [record for record in found if record is not None])
