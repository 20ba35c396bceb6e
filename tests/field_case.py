"""Runs one case of the field so that it can run beside others: `python field_case.py CASE/try.py LEASES`.

The cases look for a free port in a range and hand its number on; two that look at the same time may find the same. Here each number is
leased by a lock on a file below LEASES, which ends with this process. Verbs of `gtc` are forked, not started (forked_gtc.py). What a case
would start with `nice` is started without: beside others that are not polite it would be done last, and all would wait for it.
"""

from __future__ import annotations

import fcntl
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from forked_gtc import fork_the_verbs

PORTS = range(25_000, 29_000)
"""Below the ports that the kernel gives to whoever asks for any."""
_held: list[int] = []


def lease(directory: Path) -> int:
    """A loopback port that nobody listens on and no other case was given."""
    for number in PORTS:
        fd = os.open(directory / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(("127.0.0.1", number))
        except OSError:
            os.close(fd)
        else:
            _held.append(fd)
            return number
    raise SystemExit(f"no port of {PORTS.start} to {PORTS.stop - 1} is free")


def start_as_all_others() -> None:
    """From here on, `subprocess.run` of `nice` in this process is one of what it was to start."""
    real = subprocess.run

    def run(words: Sequence[str], **told: object) -> subprocess.CompletedProcess[str]:
        return real(words[1:] if words[0] == "nice" else words, **told)  # type: ignore[call-overload,no-any-return]

    subprocess.run = run  # type: ignore[assignment]


def main(case: Path, leases: Path) -> None:
    fork_the_verbs(os.environ["GTC"])
    start_as_all_others()
    sys.path[0:1] = [str(case.parent), str(case.parent.parent)]
    import lib  # the library of the case's group

    lib.free_port = lambda: lease(leases)
    sys.argv = [str(case)]
    runpy.run_path(str(case), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
