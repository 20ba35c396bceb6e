"""Pulls that nobody has to wait for to the end: not the next change of an environment, and not a process that stops.

Rules:
1. A pull runs in a thread that ends with the process: what it has by then is gone on with later.
2. It is waited for while that is `wanted`. Where something newer has come meanwhile, what is not here yet is left to go on by itself, is
   told as that, and is not waited for again: a slow source of one deployment holds up no other.
3. Of one bundle of a revision from one address one pull runs. Who asks again is given that one, with its failure, and then it is
   forgotten.
4. When one that was left has ended, `came` is told, so that somebody looks again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import TypeAlias

from greentic.ground.errors import FetchError
from greentic.pack.located import LocatedPack

Packs: TypeAlias = tuple[LocatedPack, ...]
Pull: TypeAlias = Callable[[], Packs]
_FIRST_TICK, _TICK = 0.005, 0.25
"""How long between two questions whether what runs is waited for still."""


class StillComing(FetchError):
    """What was left to come by itself; no fault of anybody's."""


class UnderWay:
    """The pulls of one process; one thread asks for them."""

    def __init__(self) -> None:
        self.wanted: Callable[[], bool] = lambda: True
        self.came: Callable[[], None] = lambda: None
        self.guard = "landlock: nothing was fetched"
        """What guards the threads that pull, in words."""
        self._left: dict[str, Future[Packs]] = {}

    def begin(self, pulls: Mapping[str, Pull], width: int, guarded: Callable[[], str]) -> dict[str, Future[Packs]]:
        """Begin what is not under way, so many at once, each thread guarded first; all that were asked for, by key."""
        self._left = {key: one for key, one in self._left.items() if key in pulls or not one.done()}
        running = {key: self._left.get(key) or Future[Packs]() for key in pulls}
        jobs: queue.SimpleQueue[tuple[Future[Packs], Pull]] = queue.SimpleQueue()
        for key, pull in pulls.items():
            if key not in self._left:
                jobs.put((running[key], pull))
        for _ in range(min(width, jobs.qsize())):
            threading.Thread(target=self._work, args=(jobs, guarded), daemon=True, name="pull").start()
        return running

    def ended(self, key: str, pull: Future[Packs]) -> Packs:
        """What a pull brought. Raises what it raises, or `StillComing` for one that is left (rule 2)."""
        tick = _FIRST_TICK
        while not pull.done():
            if key in self._left or not self.wanted():
                if key not in self._left:
                    self._left[key] = pull
                    pull.add_done_callback(lambda _: self.came())
                raise StillComing("the bundle is still on its way; it is served once it is here")
            wait([pull], tick)
            tick = min(2 * tick, _TICK)
        self._left.pop(key, None)
        return pull.result()

    def _work(self, jobs: queue.SimpleQueue[tuple[Future[Packs], Pull]], guarded: Callable[[], str]) -> None:
        self.guard = guarded()
        while True:
            try:
                future, pull = jobs.get_nowait()
            except queue.Empty:
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(pull())
            except BaseException as error:  # noqa: BLE001  it is raised where somebody waits for it
                future.set_exception(error)
