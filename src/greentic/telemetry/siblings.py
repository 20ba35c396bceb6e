"""The processes of one worker tell each other what they counted, through files in a directory that they share.

Rules:
1. Who is asked for the worker's metrics writes its readings and asks the others to write theirs, waits a while, and adds up.
2. What was told once stays told: the file of a process that was killed counts on, so no counter ever goes back. What it counted after
   it was asked last is lost. What the first process counted at the boot is a file, too, and is taken for that of a living one.
3. A process that begins folds the files of those that are gone into one. Files are read and folded under one lock.
4. A process that does not answer in time is taken with what it wrote last, and not counted among those that answered.
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
from greentic.telemetry.readings import Others, Readings, Row, packed, unpacked

PATIENCE = 1.0
FIRST, PAST = "first", "past"
_LOCK_SECONDS = 2.0


class SharedReadings:
    """The readings of several processes in one directory."""

    def __init__(self, directory: Path, process: str, own: Callable[[], Awaitable[list[bytes]]]) -> None:
        """`process` is the name of this one; `own` comes to its packed readings."""
        self._directory, self._process, self._own = directory, process, own
        self._server: asyncio.Server | None = None
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Answer the others from now on."""
        await beside(fold, self._directory)
        path = self._directory / f"{self._process}.sock"
        try:
            self._server = await asyncio.start_unix_server(self._asked, path)
        except OSError as error:  # the name of a directory may be too long for a socket
            done_without("adding up the metrics of several processes", error)

    async def gathered(self) -> Others:
        """Ask the others and read what they wrote (rules 1 and 4). Raises `Conflict` or `OSError`."""
        names = [path.stem for path in self._directory.glob("*.sock") if path.stem != self._process]
        own = asyncio.ensure_future(self._write())  # what it is about to tell is to stay told, too
        answers = await asyncio.gather(*(self._ask(name) for name in names))
        await own
        files = await beside(_read, self._directory)
        files.pop(self._process, None)
        living = {FIRST, *(name for name, answered in zip(names, answers, strict=True) if answered)}
        return Others(
            [data for name, data in files.items() if name in living],
            [data for name, data in files.items() if name not in living],
            sum(answers),
        )

    async def close(self) -> None:
        """Leave what this process counted, and answer nobody any more."""
        await self._write()
        if self._server is not None:
            self._server.close()
            (self._directory / f"{self._process}.sock").unlink(missing_ok=True)

    async def _write(self) -> None:
        async with self._writing:
            data = b"".join(await self._own())
            await beside(replace_file, self._directory / f"{self._process}.counts", data, 0o600)

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await self._write()
            writer.write(b"1")
            await writer.drain()
        writer.close()

    async def _ask(self, name: str) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._directory / f"{name}.sock")
                try:
                    return await reader.read(1) == b"1"
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False


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
