"""Lists that come in pages, and whose rest the server has let go of meanwhile (410): they are begun again.

Rules:
1. The rest of a list is of the moment when it began, which a server keeps for minutes. What came of one that expired is let go: pages of
   two moments may hold an object twice, or not at all.
2. So it is for who keeps what came to begin anew, whole; at most `TRIES` times, for a server may be too slow for any list.
3. One list is begun anew by one: `ApiServer.list` does where all is kept, `live.read_live` where pages are looked at and let go. Nobody
   does around them, or a list would be asked for tries times tries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from greentic.k8s.objects import ApiRefused

TRIES = 4
_EXPIRED = 410

T = TypeVar("T")


def unexpired(read: Callable[[], T]) -> T:
    """What `read` makes of whole lists; it is called again where one of them expired. Raises the last `ApiRefused`."""
    for _ in range(TRIES - 1):
        try:
            return read()
        except ApiRefused as error:
            if error.status != _EXPIRED:
                raise
    return read()
