"""What must not be written down: how a secret is recognised in a text that somebody gave, and what is shown instead.

Rules:
1. A private key in PEM, and an address with a user and password, are secrets wherever they stand.
2. A payload that holds one is refused before anything is written of it. Records (audit, ledger, errors) show such a text withheld, in
   case it came another way.
"""

from __future__ import annotations

import re

from greentic.ground.documents import Json, JsonObject

WITHHELD = "(withheld: it holds a secret)"
PRIVATE_KEY = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"
_CREDENTIALS = r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s/?#@:]*:[^\s/?#@]*@"
"""Each part ends where the next begins, so that a long text takes no longer than its length."""


def secret_in(value: Json) -> tuple[str, str] | None:
    """Where a JSON value holds a secret, and what kind of one; nothing if it holds none. Never the secret itself."""
    pending: list[tuple[str, Json]] = [("", value)]
    while pending:
        at, found = pending.pop()
        if isinstance(found, str):
            what = _kind(found)
            if what is not None:
                return at, what
        elif isinstance(found, dict):
            for key, inner in found.items():
                if _kind(key) is not None:
                    return at, "a private key or password as a name"
                pending.append((f"{at}.{key}" if at else key, inner))
        elif isinstance(found, list):
            pending.extend((f"{at}[{number}]", inner) for number, inner in enumerate(found))
    return None


def without_secrets(value: Json) -> Json:
    """The value with every text that holds a secret withheld (rule 2)."""
    if isinstance(value, str):
        return WITHHELD if _kind(value) is not None else value
    if isinstance(value, dict):
        return {str(without_secrets(key)): without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return value


def object_without_secrets(value: JsonObject) -> JsonObject:
    """`without_secrets` of an object."""
    found = without_secrets(value)
    return found if isinstance(found, dict) else {}


def _kind(text: str) -> str | None:
    if re.search(PRIVATE_KEY, text):
        return "a private key"
    return "an address with a password" if re.search(_CREDENTIALS, text) else None
