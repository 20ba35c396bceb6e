"""Which request something is done for: an id that stands in the log and in the answer.

Rules:
1. A caller's `x-request-id` is taken if it is short and inert; any other is replaced by one of ours, which begins with the process.
2. It follows the request into what is awaited for it. Nothing takes it back: the next request of a connection sets its own.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from itertools import count

from greentic.ground.clock import RANDOM

FIELD = b"x-request-id"
_INERT = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:+=/-]{0,127}")
_prefix = RANDOM.octets(6).hex().encode()
_numbers = count(1)
_request: ContextVar[bytes | None] = ContextVar("request", default=None)


def begin(stated: bytes | None) -> bytes:
    """The id of a request that comes in now."""
    found = stated if stated is not None and _INERT.fullmatch(stated) else b"%b-%x" % (_prefix, next(_numbers))
    _request.set(found)
    return found


def current() -> bytes | None:
    """The id of the request that this is done for, if it is for one."""
    return _request.get()


def go_on(request: bytes | None) -> None:
    """Work for a request in another thread."""
    _request.set(request)
