"""The helpers of templates: comparisons, `and`, `or`, `not`, `len` and `lookup` (formats: flows 7). Pure.

Rules:
1. Orderings hold between two numbers or two texts; between anything else they are false. Integers compare as integers, however
   large.
2. Missing equals null. A boolean equals no number.
3. Missing, null, false, 0 and what is empty are false.
"""

from __future__ import annotations

from collections.abc import Callable

from greentic.expressions.paths import MISSING, follow


class TemplateError(ValueError):
    """A template that cannot be read or rendered; the text says why."""


def truthy(value: object) -> bool:
    return value is not MISSING and bool(value)


def _compare(test: Callable[[float, float], bool]) -> Callable[[list[object]], object]:
    def helper(arguments: list[object]) -> object:
        left, right = _two(arguments)
        if isinstance(left, str) and isinstance(right, str):
            return test((left > right) - (left < right), 0)
        if isinstance(left, int | float) and isinstance(right, int | float):
            return test(left, right)
        return False

    return helper


def _two(arguments: list[object]) -> tuple[object, object]:
    if len(arguments) != 2:
        raise TemplateError(f"a comparison takes two arguments, found {len(arguments)}")
    return arguments[0], arguments[1]


def _equal(arguments: list[object]) -> bool:
    left, right = _two(arguments)
    left, right = (None if left is MISSING else left), (None if right is MISSING else right)
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _length(arguments: list[object]) -> object:
    value = arguments[0] if arguments else MISSING
    return len(value) if isinstance(value, str | list | dict) else 0


def _index(arguments: list[object]) -> object:
    container, key = _two(arguments)
    return follow(container, (key,)) if isinstance(key, str | int) else MISSING


COMPARING = frozenset({"eq", "ne", "gt", "gte", "lt", "lte"})
"""Helpers whose work grows with their arguments."""
HELPERS: dict[str, Callable[[list[object]], object]] = {
    "eq": _equal,
    "ne": lambda a: not _equal(a),
    "gt": _compare(lambda x, y: x > y),
    "gte": _compare(lambda x, y: x >= y),
    "lt": _compare(lambda x, y: x < y),
    "lte": _compare(lambda x, y: x <= y),
    "and": lambda a: all(map(truthy, a)),
    "or": lambda a: any(map(truthy, a)),
    "not": lambda a: not (a and truthy(a[0])),
    "len": _length,
    "lookup": _index,
}
