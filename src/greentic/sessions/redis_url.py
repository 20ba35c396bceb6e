"""Where conversations and state are kept, as variables say it: at an address of Redis, or in memory.

Rules:
1. An address alone means Redis, and none means memory.
2. The words of the existing worker, one for conversations and one for state, win; here both are kept in one place, so they may not differ.
"""

from __future__ import annotations

from collections.abc import Mapping

from greentic.ground import variables
from greentic.ground.errors import InvalidArgument

_KINDS = ("GREENTIC_RUNNER_SESSION_BACKEND", "GREENTIC_RUNNER_STATE_BACKEND")
_URL = "GREENTIC_RUNNER_REDIS_URL"


def redis_url(environ: Mapping[str, str]) -> str:
    """The address of Redis; empty for memory. Raises `InvalidArgument`."""
    url = variables.text(_URL, environ)
    said = {name: kind for name in _KINDS if (kind := variables.word(name, environ))}
    told = ", ".join(f"{name}=`{kind}`" for name, kind in said.items())
    if len(set(said.values())) > 1:
        raise InvalidArgument(f"{told}: conversations and state are kept in one place, expected one word for both")
    if "memory" in said.values():
        return ""
    if said and not url:
        raise InvalidArgument(f"{told}: expected {_URL} with the address, found none")
    return url
