"""State of flows and components: JSON by scope and key in a value store."""

from __future__ import annotations

import msgspec

from greentic.expressions.paths import MISSING
from greentic.ground.value_range import in_range
from greentic.sessions.value_store import ValueStore


class StoredState:
    """The state store of flows and components."""

    def __init__(self, values: ValueStore, namespace: str = "greentic:state") -> None:
        self._values, self._namespace = values, namespace

    @property
    def local(self) -> bool:
        """Whether it answers without asking over a network."""
        return self._values.local

    def get(self, scope: str, key: str) -> object:
        found = self._values.get(f"{self._namespace}:{scope}:{key}")
        return MISSING if found is None else in_range(msgspec.json.decode(found))

    def set(self, scope: str, key: str, value: object) -> None:
        self._values.set(f"{self._namespace}:{scope}:{key}", msgspec.json.encode(value))

    def delete(self, scope: str, key: str) -> bool:
        return self._values.delete(f"{self._namespace}:{scope}:{key}")
