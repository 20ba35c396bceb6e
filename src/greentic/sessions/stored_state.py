"""State of flows and components: JSON by scope and key in a value store."""

from __future__ import annotations

from greentic.expressions.paths import MISSING
from greentic.expressions.value_range import in_range
from greentic.ground.errors import FlowFailure
from greentic.sessions.value_store import ValueStore, kept_text, read_kept


class StoredState:
    """The state store of flows and components."""

    def __init__(self, values: ValueStore, namespace: str = "greentic:state") -> None:
        self._values, self._namespace = values, namespace

    @property
    def local(self) -> bool:
        """Whether it answers without asking over a network."""
        return self._values.local

    def get(self, scope: str, key: str) -> object:
        """Raises `FlowFailure` for what cannot be read, or is no JSON any more."""
        found = self._values.get(f"{self._namespace}:{scope}:{key}")
        if found is None:
            return MISSING
        try:
            return in_range(read_kept(found))
        except ValueError as error:
            raise FlowFailure(f"the stored state `{key}` is damaged: {error}") from None

    def set(self, scope: str, key: str, value: object) -> None:
        self._values.set(f"{self._namespace}:{scope}:{key}", kept_text(value))

    def delete(self, scope: str, key: str) -> bool:
        return self._values.delete(f"{self._namespace}:{scope}:{key}")
