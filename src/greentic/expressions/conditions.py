"""Conditions of routes (formats: flows 6).

Rules:
1. `path OP value`. Operators are tried in the order of `OPERATORS`; the first that occurs anywhere splits the text.
2. The value is trimmed, of blanks and then of double quotes around it; single quotes belong to it.
3. `==` compares texts without case; numbers, booleans, lists and objects by their JSON. What is missing equals nothing, so
   `!=` holds for it. The orderings hold only between numbers, integers compared whole; `contains` looks for a part, without case.
4. A path is names joined by dots, members of objects only.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from greentic.expressions.paths import MISSING
from greentic.expressions.value_range import compared

OPERATORS = ("==", "!=", ">=", "<=", ">", "<", " contains ")


class Condition(msgspec.Struct, frozen=True):
    path: tuple[str, ...]
    operator: str
    """Empty for a text without an operator; such a condition never holds."""
    value: str


class Facts(msgspec.Struct, frozen=True):
    """What a condition may ask about: the node's payload, and names that shadow its fields."""

    payload: object
    named: Callable[[str], object]
    """The value of such a name, or `MISSING`."""


def parse_condition(text: str) -> Condition:
    """Read a condition; one that cannot be read never holds."""
    for operator in OPERATORS:
        left, found, right = text.partition(operator)
        if found:
            path = tuple(part.strip() for part in left.strip().split("."))
            return Condition(path, operator.strip(), right.strip().strip('"'))
    return Condition((), "", "")


def holds(condition: Condition, facts: Facts) -> bool:
    """Whether the condition holds (rule 3)."""
    value = _resolve(condition.path, facts)
    operator = condition.operator
    if operator == "==":
        return value is not MISSING and _text(value).lower() == condition.value.lower()
    if operator == "!=":
        return value is MISSING or _text(value).lower() != condition.value.lower()
    if value is MISSING:
        return False
    if operator == "contains":
        return condition.value.lower() in _text(value).lower()
    left, right = compared(_text(value)), compared(condition.value)
    if left is None or right is None:
        return False
    return {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}.get(operator, False)


def _resolve(path: tuple[str, ...], facts: Facts) -> object:
    if not path:
        return MISSING
    value: object = facts.named(path[0])
    if value is MISSING:
        value = facts.payload.get(path[0], MISSING) if isinstance(facts.payload, dict) else MISSING
    for name in path[1:]:
        if not isinstance(value, dict):
            return MISSING
        value = value.get(name, MISSING)
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
