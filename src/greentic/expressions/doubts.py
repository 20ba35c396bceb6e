"""What of a condition or a path can hardly be what its author meant, told before it runs (formats: flows 6, 12). Pure.

Rules:
1. Only what never does what it looks like: a second comparison, quotes that belong to the text, a position in a list, a sum.
2. Whether a name is there is not asked here; that needs the flow.
"""

from __future__ import annotations

import re

from greentic.expressions.conditions import Condition, parse_condition
from greentic.expressions.paths import Step

_SECOND = re.compile(r"&&|\|\||\s(?:and|or)\s.*(?:[=!<>]=|[<>]|\scontains\s)", re.IGNORECASE)
_POSITION = re.compile(r"[\[\]]|\A[0-9]+\Z")
_CALCULATED = re.compile(r"\s[-+*/%|?]\s?|[|*+]|\(")


def doubted_condition(text: str) -> list[str]:
    """Why a condition hardly holds when its author expects it to."""
    condition = parse_condition(text)
    if not condition.operator:
        return [f"the condition {text!r} has no operator and never holds"]
    return [f"the condition {text!r} {why}" for why in _doubts(text, condition)]


def _doubts(text: str, condition: Condition) -> list[str]:
    if "{{" in text:
        return ["is no template: it begins with a path, such as `entry.text`, and compares with a fixed text"]
    found: list[str] = []
    if _SECOND.search(text):
        found.append("is one comparison, so what follows belongs to the text; write one route for each")
    value = condition.value
    if len(value) > 1 and value[0] == value[-1] == "'":
        found.append(f'compares with the quotes; write {value[1:-1]} or "{value[1:-1]}"')
    if any(_POSITION.search(step) for step in condition.path):
        found.append("asks for a position in a list, and conditions follow names of objects only")
    return found


def doubted_path(path: tuple[Step, ...]) -> str | None:
    """The step of a path that looks calculated: what stands there is taken for a name."""
    return next((step for step in path if isinstance(step, str) and _CALCULATED.search(step)), None)
