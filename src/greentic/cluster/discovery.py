"""Which versions of a group a server serves, and when to believe that it serves none.

Rules:
1. One answer is for all groups and is kept: what is served stays so while this program runs.
2. A server that starts lists only what it has come to, and says 404 for the rest. So it is asked when it says that it is ready; one that
   does not become ready in time, or may not be asked, is taken at its word.
3. That a group is not there is believed for `ABSENT_SECONDS`: somebody may bring it later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from greentic.ground.clock import Clock
from greentic.ground.documents import JsonObject
from greentic.k8s.objects import objects_in

READY = "/readyz"
GROUPS = "/apis"
ABSENT_SECONDS = 60.0


class Discovery:
    """The groups of one server. `until_ready` returns when it is ready, or when waiting is over; `ask` answers `GROUPS`."""

    def __init__(self, until_ready: Callable[[], None], ask: Callable[[], JsonObject], clock: Clock) -> None:
        self._until_ready, self._ask, self._clock = until_ready, ask, clock
        self._found: dict[str, tuple[str, ...]] = {}
        self._absent: dict[str, float] = {}
        self._asking = threading.Lock()

    def versions(self, group: str) -> tuple[str, ...]:
        """The versions of a group, best first as the server says; none if it does not serve it."""
        with self._asking:  # several lists begin at once, and one answer is enough for all
            if group not in self._found and self._clock.monotonic() >= self._absent.get(group, float("-inf")):
                self._until_ready()
                self._found |= _groups(self._ask())
                self._absent[group] = self._clock.monotonic() + ABSENT_SECONDS
            return self._found.get(group, ())


def _groups(answer: JsonObject) -> dict[str, tuple[str, ...]]:
    return {
        str(group.get("name")): tuple(str(served.get("version")) for served in objects_in(group.get("versions")))
        for group in objects_in(answer.get("groups"))
    }
