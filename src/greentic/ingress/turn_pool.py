"""Where turns run: beside the event loop, one at a time as long as they are short (spec: packs-flows-components 8.6).

Rules:
1. Threads that call components for microseconds get into each other's way, so one thread, the first, takes all turns.
2. A turn that is still running after `PATIENCE` while others wait loses that place to a spare thread, and its own thread
   becomes a spare one when it is done. So a long turn never holds up the others, and the loop never waits for any.
3. There are at most `MAX_THREADS`; beyond that turns wait. A stopping pool finishes what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

PATIENCE = 0.01
MAX_THREADS = 32

T = TypeVar("T")


class _Job(Generic[T]):
    __slots__ = ("future", "loop", "work")

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
        self.work, self.loop, self.future = work, loop, future

    def run(self) -> None:
        try:
            result = self.work()
        except BaseException as error:  # noqa: BLE001  it belongs to whoever waits for the turn
            self._tell(self._fail, error)
            return
        self._tell(self._finish, result)

    def _tell(self, how: Callable[..., None], what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self.loop.call_soon_threadsafe(how, what)

    def _finish(self, result: T) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class TurnPool:
    """Runs turns in threads. Used from one event loop."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._first: int | None = None
        """The thread that takes the turns."""
        self._began: float | None = None
        """When the turn that the first thread runs began."""
        self._spares: list[threading.Event] = []
        self._threads = 0
        self._watching = False

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """The result of some work, awaitable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job: _Job[T] = _Job(work, loop, future)
        self._jobs.put(job)  # type: ignore[arg-type]
        if self._first is None:
            self._promote()
        if not self._watching:
            self._watching = True
            loop.call_later(PATIENCE, self._watch, loop)
        return future

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the first place away if its turn takes long while others wait (rule 2)."""
        self._watching = False
        if self._jobs.empty():
            return
        began = self._began
        if began is not None and time.monotonic() - began >= PATIENCE:
            self._promote()
        if not self._jobs.empty():
            self._watching = True
            loop.call_later(PATIENCE, self._watch, loop)

    def _promote(self) -> None:
        with self._lock:
            # Without a thread to spare nothing changes, and the next look tries again.
            if self._spares:
                self._began = None
                self._first = -1  # whoever wakes takes the place
                self._spares.pop().set()
            elif self._threads < MAX_THREADS:
                self._began = None
                self._threads += 1
                self._first = -1
                threading.Thread(target=self._work, name=f"turn-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        me = threading.get_ident()
        event = threading.Event()
        while True:
            with self._lock:
                self._first = me
            while self._first == me:
                job = self._jobs.get()
                if job is None:
                    return
                self._began = time.monotonic()
                job.run()
                if self._first == me:
                    self._began = None
            event.clear()
            with self._lock:
                self._spares.append(event)
            event.wait()

    def stop(self) -> None:
        """Forget what has not begun."""
        try:
            while True:
                self._jobs.get_nowait()
        except Empty:
            self._jobs.put(None)
