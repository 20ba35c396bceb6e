"""What a server asks of who wants in: the WWW-Authenticate fields (RFC 9110 section 11.6.1). Pure.

Rules:
1. All fields count, and each may hold several challenges, in any order.
2. Schemes and names of parameters are without case; values are tokens or quoted strings with escapes; blanks may stand around `=`.
3. What does not parse is passed over. Of a parameter that stands twice the first counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

MAX_CHALLENGES = 32
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"""[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+.^_`|~0-9A-Za-z:/?&=-]+))""", re.DOTALL)
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Challenge(msgspec.Struct, frozen=True):
    """One way to be let in."""

    scheme: str
    """In lower case."""
    parameters: dict[str, str]
    """By name in lower case."""


def challenges(fields: Sequence[str]) -> list[Challenge]:
    """The challenges of all fields, in their order."""
    found: list[Challenge] = []
    for field in fields:
        current: Challenge | None = None
        at = 0
        while at < len(field) and len(found) < MAX_CHALLENGES:
            name = _TOKEN.match(field, at)
            if name is None:
                at += 1
                continue
            at = name.end()
            value = _VALUE.match(field, at) if current is not None else None
            if value is not None and current is not None:
                quoted, token = value.groups()
                text = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
                current.parameters.setdefault(name.group().lower(), text)
                at = value.end()
                continue
            current = Challenge(name.group().lower(), {})
            found.append(current)
            credentials = _TOKEN68.match(field, at)
            at = credentials.end() if credentials is not None else at
    return found
