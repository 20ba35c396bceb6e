"""What a serving process does for those who scrape it: an address of its own, siblings that are asked, a look at the loop.

Rules:
1. The first process binds the address, before anything serves; the others inherit it like the worker's own.
2. Scrapers have few places, and none of them is one of the worker's.
3. A worker serves without its metrics adding up, too: what is missing there is told once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from greentic.ground.errors import GreenticError
from greentic.ground.optional import done_without
from greentic.httpd.front import Front
from greentic.httpd.room import Places
from greentic.ingress.metrics import Metrics, scraped
from greentic.telemetry.log import OperatorLog
from greentic.telemetry.readings import Row
from greentic.telemetry.tallies import TALLIES

if TYPE_CHECKING:
    from greentic.telemetry.siblings import SharedReadings

PLACES = Places(32, 4)
DIRECTORY = "metrics"
"""In the directory that the processes of one worker share."""
DELAY_SECONDS = 0.1
"""Between two looks at the loop."""


class LoopDelay:
    """How late the loop is: what a caller waits for that no turn is to blame for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = loop.time() + DELAY_SECONDS
        self._timer = loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        TALLIES.observe("greentic_event_loop_delay_seconds", (), max(now - self._due, 0.0))
        self._due = now + DELAY_SECONDS
        self._timer = self._loop.call_at(self._due, self._look)

    def stop(self) -> None:
        self._timer.cancel()


class Scraping:
    """The side of a process that scrapers see."""

    def __init__(
        self,
        metrics: Metrics,
        front: Front,
        bound: socket.socket | None,
        memory: Callable[[], int],
        log: OperatorLog,
        status: Callable[[], bytes],
    ) -> None:
        """`memory` tells how much the components' calls hold, `status` what this process tells of itself to the others."""
        self._metrics, self._front, self._bound, self._memory = metrics, front, bound, memory
        self._log, self._status = log, status
        self._delay: LoopDelay | None = None
        self._siblings: SharedReadings | None = None
        self._door: tuple[asyncio.Server, Front] | None = None
        metrics.sources.append(self._looked_up)

    async def start(self, process: str, shared: Path | None) -> None:
        """Begin; `shared` is the directory of a worker of several processes."""
        loop = asyncio.get_running_loop()
        self._delay = LoopDelay(loop)
        if shared is not None:
            from greentic.telemetry.siblings import SharedReadings

            siblings = SharedReadings(shared / DIRECTORY, process, self._metrics.packed, self._status)
            try:
                await siblings.start()
            except (OSError, GreenticError) as error:
                done_without("adding up the metrics of several processes", error)
            else:
                self._metrics.siblings = self._siblings = siblings
        if self._bound is not None:
            front = Front(scraped(self._metrics), PLACES, lambda path: path == "/livez")
            server = await loop.create_server(front.connection, sock=self._bound, backlog=PLACES.full)
            front.start()
            self._door = server, front

    async def stop(self) -> None:
        """Leave what was counted to the others, and close."""
        if self._delay is not None:
            self._delay.stop()
        if self._door is not None:
            server, front = self._door
            server.close()
            await front.close(0.1)
        if self._siblings is not None:
            try:
                await self._siblings.close()
            except OSError as error:  # the directory is gone with the first process
                done_without("leaving its metrics to the other processes", error)

    def _looked_up(self) -> Iterator[Row]:
        yield "greentic_connections", (), [len(self._front.connections)]
        yield "greentic_connections_refused", (), [self._front.refused]
        yield "greentic_component_memory_bytes", (), [self._memory()]
        yield "greentic_log_lines_dropped", ("disk",), [self._log.dropped]
