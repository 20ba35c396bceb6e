"""The processes of one worker: which of them must come up for it to serve, and what becomes of one that does not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from greentic.ground.errors import BootError
from greentic.worker import processes
from greentic.worker.processes import Sockets, supervise
from greentic.worker.settings import StartOptions, read_settings

SERVES = "printf 1 >/dev/fd/{fd}; exec sleep 600"
FAILS = "exit 3"
SILENT = "exec sleep 600"


class Scripted:
    """What each process that is started does, one after the other; the last goes on."""

    def __init__(self, *scripts: str) -> None:
        self.scripts, self.started = list(scripts), list[subprocess.Popen[bytes]]()
        self.served: list[list[bool]] = []
        self.warned: list[str] = []

    def spawn(self, *_: object) -> tuple[subprocess.Popen[bytes], int]:
        reading, writing = os.pipe()
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        words = ["sh", "-c", script.format(fd=writing)]
        self.started.append(subprocess.Popen(words, pass_fds=[writing], process_group=0))
        os.close(writing)
        return self.started[-1], reading

    def run(self, workers: int) -> None:
        """Supervise until the worker says that it serves."""

        def serving() -> None:
            self.served.append([p.poll() is None for p in self.started])
            os.kill(os.getpid(), signal.SIGTERM)

        settings = read_settings(StartOptions("local", workers=str(workers)), {})
        with socket.socket() as bound:
            supervise(
                Sockets(bound), settings, [], {}, serving, lambda text: None, lambda text: None, self.warned.append
            )


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Scripted] = []

    def make(*scripts: str) -> Scripted:
        made.append(Scripted(*scripts))
        monkeypatch.setattr(processes, "_spawn", made[-1].spawn)
        return made[-1]

    yield make
    assert all(p.poll() is not None for one in made for p in one.started), "somebody is left behind"


def test_one_that_cannot_boot_beside_one_that_serves_is_started_again(scripted: Any) -> None:
    """A document that was damaged after the first one served kept the second from booting, and both were ended."""
    one = scripted(SERVES, FAILS, FAILS, SERVES)
    one.run(2)
    assert one.served == [[True, False, False, True]]
    assert [w.partition("; ")[0].split(" ", 3)[3] for w in one.warned] == ["ended with 3"] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_where_none_can_boot_the_worker_ends_and_says_so(scripted: Any, workers: int) -> None:
    one = scripted(FAILS)
    with pytest.raises(BootError, match="ended with 3 before it served"):
        one.run(workers)
    assert one.served == [] and len(one.started) == workers


def test_a_silent_one_keeps_the_others_from_nothing(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "READY_SECONDS", 0.3)
    one = scripted(SERVES, SILENT)
    one.run(2)
    assert one.served == [[True, True]]
    alone = scripted(SILENT)
    with pytest.raises(BootError, match=r"did not serve within 0.3 s"):
        alone.run(2)
