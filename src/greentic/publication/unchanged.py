"""When "unchanged" is believed of a place.

Rules:
1. A question that is repeated has a condition, but for every `DOUBTED`th: a cache in between that says "unchanged" whatever it is asked
   would else be believed for ever.
2. Who is asked without a condition answers with what there is; "unchanged" is then no answer, and told as that.
"""

from __future__ import annotations

DOUBTED = 20
"""At a look every half minute, what a cache holds back is seen within ten minutes, for one small document."""
NOT_MODIFIED = 304
INSTEAD = "it says that nothing changed since, and was not asked that; a cache in between may hold old answers"


class Condition:
    """What one place is asked with, time after time."""

    def __init__(self) -> None:
        self._asked = 0

    def of(self, known: str | None) -> str | None:
        """What the next question has as its condition: what is known, or nothing (rule 1)."""
        self._asked = self._asked + 1 if known else 0
        return None if self._asked % DOUBTED == 0 else known
