"""The processes of one worker tell each other what they counted and what they serve, by way of a directory that they share.

Rules:
1. Who is asked for the worker's metrics writes its readings and asks the others to write theirs, waits a while, and adds up.
2. What was told once stays told: the file of a process that was killed counts on, so no counter ever goes back. Each tells unasked now
   and then, too; what it counted after it told last is lost. What the first process counted at the boot is a file, too, and is taken
   for that of a living one.
3. A process that begins folds the files of those that are gone into one. Files are read and folded under one lock.
4. A process that does not answer in time is taken with what it wrote last, and not counted among those that answered.
5. What it serves, a process says itself, when it is asked; nobody says it for one that does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from greentic.ground.beside import beside
from greentic.ground.clock import CLOCK
from greentic.ground.disk import RealDisk, replace_file
from greentic.ground.lock import held
from greentic.ground.optional import done_without
from greentic.telemetry.readings import Others, Readings, Row, Told, packed, unpacked

PATIENCE = 1.0
TELL_SECONDS, TELL_SHARE = 5.0, 200
"""Between two times that a process tells unasked, and at least so many times as long as telling took."""
MAX_TOLD = 64 << 20
"""Bytes of what a process tells at once."""
_COUNTS, _STATUS = b"c", b"s"
"""What a process is asked for."""
FIRST, PAST = "first", "past"
_LOCK_SECONDS = 2.0


class SharedReadings:
    """The readings of several processes in one directory."""

    def __init__(
        self,
        directory: Path,
        process: str,
        own: Callable[[], Awaitable[list[bytes]]],
        status: Callable[[], bytes] = lambda: b"{}",
    ) -> None:
        """`process` is the name of this one; `own` comes to its packed readings, `status` to what it says of itself."""
        self._directory, self._process, self._own, self._status = directory, process, own, status
        self._server: asyncio.Server | None = None
        self._telling: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Answer the others from now on."""
        await beside(fold, self._directory)
        path = self._directory / f"{self._process}.sock"
        try:
            self._server = await asyncio.start_unix_server(self._asked, path)
        except OSError as error:  # the name of a directory may be too long for a socket
            done_without("adding up the metrics of several processes", error)
        else:
            self._telling = asyncio.ensure_future(self._tell_now_and_then())

    async def gathered(self) -> Others:
        """Ask the others and read what they wrote (rules 1 and 4). Raises `Conflict` or `OSError`."""
        names = self._others()
        own = asyncio.ensure_future(self._write())  # what it is about to tell is to stay told, too
        answers = [told == b"1" for told in await asyncio.gather(*(self._ask(name, _COUNTS) for name in names))]
        await own
        files = await beside(_read, self._directory)
        files.pop(self._process, None)
        living = {FIRST, *(name for name, answered in zip(names, answers, strict=True) if answered)}
        return Others(
            [data for name, data in files.items() if name in living],
            [data for name, data in files.items() if name not in living],
            sum(answers),
        )

    async def statuses(self) -> Told:
        """Ask the others what they serve (rule 5). Raises `OSError`."""
        answers = await asyncio.gather(*(self._ask(name, _STATUS) for name in self._others()))
        return Told([told for told in answers if told], answers.count(b""))

    def _others(self) -> list[str]:
        return [path.stem for path in self._directory.glob("*.sock") if path.stem != self._process]

    async def close(self) -> None:
        """Leave what this process counted, and answer nobody any more."""
        if self._telling is not None:
            self._telling.cancel()
        await self._write()
        if self._server is not None:
            self._server.close()
            (self._directory / f"{self._process}.sock").unlink(missing_ok=True)

    async def _tell_now_and_then(self) -> None:
        pause = TELL_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = CLOCK.monotonic()
            with contextlib.suppress(OSError):  # who is asked for the metrics is told of it
                await self._write()
            pause = max(TELL_SECONDS, TELL_SHARE * (CLOCK.monotonic() - began))

    async def _write(self) -> None:
        async with self._writing:
            data = b"".join(await self._own())
            await beside(replace_file, self._directory / f"{self._process}.counts", data, 0o600)

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                wanted = await reader.read(1)
            if wanted == _STATUS:
                writer.write(self._status())
            elif wanted == _COUNTS:
                await self._write()
                writer.write(b"1")
            await writer.drain()
        writer.close()

    async def _ask(self, name: str, wanted: bytes) -> bytes | None:
        """What a process answers, which is nothing if it does not in time; `None` where there is none any more."""
        told = bytearray()
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._directory / f"{name}.sock")
                try:
                    writer.write(wanted)
                    while piece := await reader.read(1 << 20):
                        told += piece
                        if len(told) > MAX_TOLD:
                            return b""
                finally:
                    writer.close()
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except (OSError, TimeoutError):
            return b""
        return bytes(told)


def leave_first(directory: Path, rows: Iterable[Row]) -> None:
    """Keep what the first process counted at the boot, before there are others (rule 2). Raises `OSError`."""
    directory.mkdir(mode=0o700, exist_ok=True)
    replace_file(directory / f"{FIRST}.counts", b"".join(packed(rows)), 0o600)


def fold(directory: Path) -> None:
    """Add the files of processes that are gone to one (rule 3). Raises `Conflict`."""
    directory.mkdir(mode=0o700, exist_ok=True)
    with held(directory / ".lock", RealDisk(), CLOCK, wait_seconds=_LOCK_SECONDS):
        gone = [p for p in directory.glob("*.counts") if p.stem not in (FIRST, PAST) and not _listens(p)]
        if not gone:
            return
        past, total = directory / f"{PAST}.counts", Readings()
        for path in [past, *gone]:
            for frame in unpacked(path.read_bytes()) if path.exists() else ():
                for row in frame:
                    total.add(row, alive=False)
        replace_file(past, b"".join(packed(total.rows())), 0o600)
        for path in gone:
            path.unlink()
            path.with_suffix(".sock").unlink(missing_ok=True)


def _listens(path: Path) -> bool:
    """Whether the process that wrote a file still answers."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PATIENCE)
        try:
            asking.connect(str(path.with_suffix(".sock")))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # busy is not gone
    return True


def _read(directory: Path) -> dict[str, bytes]:
    with held(directory / ".lock", RealDisk(), CLOCK, wait_seconds=_LOCK_SECONDS):
        return {path.stem: path.read_bytes() for path in directory.glob("*.counts")}
