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

from greentic.ground.documents import Document, decode, from_json, parse, replace
from greentic.ground.errors import SpecViolation
from greentic.model.environment import BundleDeployment, Environment, Revision, TrafficSplit

_LISTS: dict[str, type[Document]] = {
    "bundles": BundleDeployment,
    "revisions": Revision,
    "traffic_splits": TrafficSplit,
}
Records = dict[tuple[str, bytes], Document]


class Elements:
    """The records of the newest document that was read."""

    def __init__(self) -> None:
        self._known: Records = {}

    def environment(self, data: bytes) -> Environment:
        """The environment in a JSON text. Raises `ValueError` or `SpecViolation` with the place of the damage."""
        try:
            found, records = _read(data, self._known)
        except (ValueError, SpecViolation):
            return from_json(Environment, parse(data))
        self._known = records
        return found


def _read(data: bytes, known: Records) -> tuple[Environment, Records]:
    members = decode(data, dict[str, msgspec.Raw])
    records: Records = {}
    lists: dict[str, object] = {}
    for name in _LISTS.keys() & members.keys():
        lists[name] = [
            _record(name, bytes(raw), known, records) for raw in decode(bytes(members[name]), list[msgspec.Raw])
        ]
    rest = {name: [] if name in lists else parse(bytes(raw)) for name, raw in members.items()}
    return replace(from_json(Environment, rest), **lists), records


def _record(name: str, text: bytes, known: Records, records: Records) -> Document:
    key = (name, text)
    record = known.get(key)
    if record is None:
        record = from_json(_LISTS[name], parse(text))
    records[key] = record
    return record
