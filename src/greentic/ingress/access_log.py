"""The access log: one line for each request that was answered, where it is asked for.

Rules:
1. A line has method, path, code, bytes and seconds, who asked, and the deployment and revision that answered, under the names that
   metrics have for them; never a query, a field or a body. The seconds begin when the whole request was there: its waiting for its turn
   is in them.
2. A request whose caller left is told with the code 499, as others do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import msgspec

from greentic.ground.clock import CLOCK
from greentic.httpd.front import Answer
from greentic.httpd.http1 import Incoming
from greentic.telemetry.log import OperatorLog

MAX_PATH = 512
GONE = 499


class Access(msgspec.Struct, frozen=True):
    """One request that is to be told."""

    log: OperatorLog
    peer: str
    incoming: Incoming

    def answered(self, answer: Answer) -> None:
        """Tell that it was answered."""
        self._tell(answer.code, len(answer.body), answer.served_by)

    async def awaited(self, answering: Coroutine[object, object, Answer]) -> Answer:
        """The answer, told once it is there."""
        try:
            answer = await answering
        except asyncio.CancelledError:
            self._tell(GONE, 0)
            raise
        self.answered(answer)
        return answer

    def _tell(self, code: int, size: int, served_by: tuple[str, str] | None = None) -> None:
        method, path = self.incoming.head.method, self.incoming.head.path[:MAX_PATH]
        seconds = round(CLOCK.monotonic() - self.incoming.came, 6)
        deployment, revision = served_by or (None, None)
        self.log.info(
            "access",
            f"{self.peer} {method} {path} {code} {size} {seconds * 1000:.1f} ms",
            peer=self.peer,
            method=method,
            path=path,
            code=code,
            bytes=size,
            seconds=seconds,
            deployment=deployment,
            revision=revision,
        )
