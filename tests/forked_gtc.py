"""Runs a script that authors stores by many short runs of `gtc op`: `python forked_gtc.py SCRIPT WORD…`.

Most of the time of such a run goes into loading the same modules again. So one process loads them, and each run of a verb that the script
asks `subprocess.run` for is a fork of it: a process of its own with the environment, the directory and the streams that it was given, in
which the program's `main` runs. All else is started as ever, workers above all.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

ROOMS = ("deployments", "materialize", "operate", "store")
"""What most verbs load. A module that is not in these rooms is loaded by each run, as in the real program."""
WITH_A_CLUSTER = (*ROOMS, "cluster", "deployer", "examine", "k8s", "manifests", "publication", "release")
"""What verbs load that ask a cluster."""
KNOWN = {"env", "cwd", "capture_output", "text", "timeout", "check", "stdin"}
"""What a run may be told. One that is told anything else is a real one."""
LARGEST = 1 << 20
SERVE = "serve"


class Forks:
    """The process that has the program loaded, with the modules of some rooms. It ends with who made it."""

    def __init__(self, rooms: Sequence[str]) -> None:
        self._asks, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asked:  # not forked from here: who asks may have threads
            words = [sys.executable, __file__, SERVE, str(asked.fileno()), *rooms]
            self._process = subprocess.Popen(words, pass_fds=[asked.fileno()])

    def run(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        cwd: str,
        streams: tuple[BinaryIO, BinaryIO],
        seconds: float | None,
    ) -> int:
        """The exit code of one run. Raises `subprocess.TimeoutExpired`."""
        told, tells = socket.socketpair()
        with told, told.makefile("rb") as said:
            with tells:
                handed = [tells.fileno(), *(stream.fileno() for stream in streams)]
                socket.send_fds(self._asks, [json.dumps([words, dict(environ), cwd]).encode()], handed)
            pid = int(said.readline())
            told.settimeout(seconds)
            try:
                ended = said.readline()
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, seconds or 0) from None
            return int(ended) if ended else -signal.SIGKILL


def _serve(asked: socket.socket, rooms: Sequence[str]) -> NoReturn:
    """Fork for each run that is asked for. A run tells by itself how it ended, so nobody waits for it here."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for room in rooms:
        package = importlib.import_module(f"greentic.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    import greentic.cli.gtc
    import greentic.cli.op
    import greentic.cli.traces  # noqa: F401

    while True:
        message, handed, _, _ = socket.recv_fds(asked, LARGEST, 3)
        if not message:
            os._exit(0)
        if not os.fork():
            asked.close()
            _be_the_program(*json.loads(message), *handed)
        for fd in handed:
            os.close(fd)


def _be_the_program(words: list[str], environ: dict[str, str], cwd: str, tells: int, out: int, err: int) -> NoReturn:
    os.write(tells, b"%d\n" % os.getpid())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    for number, fd in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(fd, number)
    sys.argv = words
    from greentic.cli.gtc import main

    try:
        main()
        code: object = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001  # as the interpreter ends a program
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(tells, b"%d\n" % (code if isinstance(code, int) else 1))
    os._exit(0)


def _of_a_start(environ: Mapping[str, str]) -> bool:
    """Whether there are variables that only a program that is started anew obeys."""
    return any(os.environ.get(name) != value for name, value in environ.items() if name.startswith(("LD_", "PYTHON")))


def fork_the_verbs(gtc: str, rooms: Sequence[str] = ROOMS) -> None:
    """From here on, `subprocess.run` of `gtc op` in this process is a fork of a process that has it loaded."""
    forks, real = Forks(rooms), subprocess.run

    def run(words: Sequence[str], **told: object) -> subprocess.CompletedProcess[str]:
        environ, cwd, seconds = told.get("env") or os.environ, told.get("cwd") or os.getcwd(), told.get("timeout")
        if list(words[:2]) != [gtc, "op"] or set(told) - KNOWN or not told.get("text") or _of_a_start(environ):  # type: ignore[arg-type]
            return real(words, **told)  # type: ignore[call-overload,no-any-return]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = forks.run([str(w) for w in words], environ, str(cwd), (out, err), seconds)  # type: ignore[arg-type]
            said = []
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read().decode())
        done = subprocess.CompletedProcess(list(words), code, *said)
        if told.get("check"):
            done.check_returncode()
        return done

    subprocess.run = run  # type: ignore[assignment]


def main(gtc: str, script: Path) -> None:
    fork_the_verbs(gtc)
    sys.path[0] = str(script.parent)
    sys.argv = sys.argv[2:]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == SERVE:
        _serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3:])
    main(sys.argv[1], Path(sys.argv[2]))
