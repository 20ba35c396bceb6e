"""One bundle into one private file, hashed while it streams.

Rules:
1. Memory does not grow with the bundle: a few blocks are under way, received, hashed and written side by side.
2. The file is on stable storage when this returns; the digest is over exactly the bytes in it.
3. What was received is kept: after a cut connection, or with a journal after a killed process, only the rest is asked for.
   A source that cannot give a part, or gives one of another file, starts over.
4. Too large, too slow, cut short and busy are different errors; what may pass by itself is tried again, later each time and
   never all at the same moment, as long as there is progress or attempts are left.
5. A large bundle that comes slowly is fetched over several connections, if the source can give parts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

from greentic.distribute.journal import Journal, Progress
from greentic.distribute.parallel import Helpers
from greentic.distribute.ranges import Ranges
from greentic.distribute.source import Body, Source, source_for
from greentic.ground.clock import Clock, Random, SystemClock, SystemRandom
from greentic.ground.errors import FetchError, InvalidArgument, PartRefused, ServerBusy, TooLarge, Truncated

MAX_BUNDLE_BYTES = 4 << 30
TOTAL_SECONDS = 3600.0
ATTEMPTS = 5
"""Tries without any progress."""
BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 20.0
_BLOCK = 1 << 20
_BLOCKS = 6
_SYNC_EVERY = 32 << 20
_JOURNAL_EVERY, _JOURNAL_SECONDS = 1 << 20, 0.02
"""A journal is written after so many bytes, and no more often than this."""

Told = Callable[[int, int | None], None]
"""Told bytes so far and bytes announced."""


class Fetched(NamedTuple):
    digest: str
    """`sha256:<hex>`"""
    size: int
    moved: int
    """Bytes that were received for it now."""
    resumed: int
    """Bytes that were there already."""
    whole: bool = True
    """Whether all of it came in one answer, so that no mixture can be at fault for a wrong digest."""


class FetchLimits(NamedTuple):
    bundle_bytes: int = MAX_BUNDLE_BYTES
    total_seconds: float = TOTAL_SECONDS
    attempts: int = ATTEMPTS
    jitter: bool = True


def fetch_limits(environ: Mapping[str, str]) -> FetchLimits:
    """The limits, as `GREENTIC_FETCH_TOTAL_SECONDS` and `GREENTIC_FETCH_MAX_BYTES` change them. Raises `InvalidArgument`."""
    limits = FetchLimits()
    seconds, size = environ.get("GREENTIC_FETCH_TOTAL_SECONDS"), environ.get("GREENTIC_FETCH_MAX_BYTES")
    try:
        if seconds:
            limits = limits._replace(total_seconds=float(seconds))
        if size:
            limits = limits._replace(bundle_bytes=min(int(size), MAX_BUNDLE_BYTES))
    except ValueError:
        raise InvalidArgument(
            f"GREENTIC_FETCH_TOTAL_SECONDS=`{seconds}` and GREENTIC_FETCH_MAX_BYTES=`{size}` must be numbers"
        ) from None
    return limits


def fetch_into(
    file: BinaryIO,
    reference: str,
    *,
    source: Source | None = None,
    limits: FetchLimits = FetchLimits(),  # noqa: B008  an immutable value
    progress: Told | None = None,
    clock: Clock | None = None,
    random: Random | None = None,
    journal: Journal | None = None,
) -> Fetched:
    """Fetch `reference` into `file`, a private file open for writing; empty, unless `journal` tells what is in it.

    Raises `FetchError` or its kinds.
    """
    text = reference
    if source is None:
        source, text = source_for(reference)
    download = _Download(
        file, source, text, limits, progress, clock or SystemClock(), random or SystemRandom(), journal
    )
    return download.run()


def may_pass(error: FetchError) -> bool:
    """Whether trying again could help: cut connections and servers that are overloaded, not refusals."""
    return isinstance(error, Truncated | ServerBusy) or isinstance(error.__cause__, OSError)


def backoff(attempt: int, asked: float, random: Random, *, jitter: bool) -> float:
    """Seconds before the next try: twice as long each time, a random part of it, and never less than the server asks."""
    longest: float = min(BACKOFF_SECONDS * 2 ** min(attempt - 1, 20), MAX_BACKOFF_SECONDS)
    if not jitter:
        return max(longest, asked)
    share = int.from_bytes(random.octets(2), "big") / 65535
    # What the server asked for is spread too: those who were told the same moment must not all come then.
    return asked + share * max(longest, asked / 2)


class _Download:
    def __init__(
        self,
        file: BinaryIO,
        source: Source,
        reference: str,
        limits: FetchLimits,
        progress: Told | None,
        clock: Clock,
        random: Random,
        journal: Journal | None,
    ) -> None:
        self._file, self._source, self._reference, self._limits = file, source, reference, limits
        self._progress, self._clock, self._random, self._journal = progress, clock, random, journal
        self._deadline = clock.monotonic() + limits.total_seconds
        self.done, self.total, self._validator = Ranges(), None, None
        self._moved = self._answers = 0
        self._expected: str | None = None
        self._hasher, self._hashed = hashlib.sha256(), 0
        before = journal.load() if journal is not None else None
        if before is not None:
            self.done, self.total = before.done, before.total
            self._validator = before.validator if before.reference == reference else None
        self._resumed = self.done.covered

    def run(self) -> Fetched:
        best, attempt = self.done.covered, 0
        while self.total is None or self.done.first_gap(self.total) is not None:
            try:
                self._advance()
                if self.total is None:
                    self.total = self.done.covered  # the end came without an announcement
            except TooLarge:
                raise
            except FetchError as error:
                self._note()
                attempt = 1 if self.done.covered > best else attempt + 1
                best = max(best, self.done.covered)
                if attempt >= self._limits.attempts or not may_pass(error) or self._clock.monotonic() >= self._deadline:
                    raise
                asked = error.retry_after if isinstance(error, ServerBusy) else 0.0
                self._clock.sleep(backoff(attempt, asked, self._random, jitter=self._limits.jitter))
        return self._finish()

    def _advance(self) -> None:
        """Open the source at the first gap and read until its end. Raises `FetchError`."""
        gap = self.done.first_gap(self.total)
        if gap is None:
            return
        start, end = gap
        try:
            body = self._source.open(self._reference, start, self._validator)
        except PartRefused:
            self._start_over()
            body = self._source.open(self._reference)
            start, end = 0, -1
        try:
            if start and body.offset == start and self._is_another(body):
                # The pinned digest would catch another file, but only after all of it had come.
                body.close()
                self._start_over()
                body = self._source.open(self._reference)
            if body.offset != start:
                self._start_over()
                end = -1
            self._check_size(body.total)
            self.total, self._validator = body.total, body.validator
            self._answers += 1
            self._expected = body.digest
            if body.offset == 0 and body.length is not None and body.length <= _BLOCK and not self.done.covered:
                self._small(body)
            else:
                self._stream(body, body.offset, self.total if end < 0 else end)
        finally:
            body.close()

    def _is_another(self, body: Body) -> bool:
        """Whether a part is of another file than what is here."""
        validators = {self._validator, body.validator} - {None}
        return self.total not in (None, body.total) or len(validators) > 1

    def _start_over(self) -> None:
        self.done, self.total, self._validator = Ranges(), None, None
        self._hasher, self._hashed, self._resumed, self._answers = hashlib.sha256(), 0, 0, 0
        self._file.truncate(0)

    def _stream(self, body: Body, start: int, end: int | None) -> None:
        """Read from `start` to `end`, or to where somebody else has been; hash what follows what is hashed."""
        position, unsynced, unnoted, noted = start, 0, 0, self._clock.monotonic()
        fd = self._file.fileno()
        helpers = Helpers(self._source, self._reference, fd, self._validator, self._clock)
        with ThreadPoolExecutor(1, "hash") as hashing, ThreadPoolExecutor(1, "write") as writing:
            free = [memoryview(bytearray(_BLOCK)) for _ in range(_BLOCKS)]
            pending: list[tuple[memoryview, Future[None] | None, Future[None], int]] = []
            try:
                while end is None or position < end:
                    if not free:
                        free.append(self._settle(pending.pop(0)))
                    block = free.pop()
                    wanted = _BLOCK if end is None else min(_BLOCK, end - position)
                    filled = self._fill(body, block[:wanted])
                    if not filled:
                        break
                    self._check_size(position + filled)
                    piece = block[:filled]
                    hashed = None
                    if position == self._hashed:
                        hashed = hashing.submit(self._hasher.update, piece)
                        self._hashed += filled
                    pending.append((block, hashed, writing.submit(_write, fd, piece, position), position))
                    position += filled
                    self._moved += filled
                    unsynced, unnoted = unsynced + filled, unnoted + filled
                    if unsynced >= _SYNC_EVERY:  # keep the disk busy while the network is
                        writing.submit(os.fdatasync, fd)
                        unsynced = 0
                    if body.resumable and end is not None:
                        end = helpers.help(position, end)
                    if unnoted >= _JOURNAL_EVERY and self._clock.monotonic() - noted >= _JOURNAL_SECONDS:
                        while len(pending) > 1 and pending[0][2].done():
                            free.append(self._settle(pending.pop(0)))
                        self.done = self.done.add(start, pending[0][3]).joined(helpers.done)
                        self._note()
                        unnoted, noted = 0, self._clock.monotonic()
                    if self._progress is not None:
                        self._progress(self.done.covered + position - start, self.total)
            finally:
                for entry in pending:
                    self._settle(entry)
                self.done = self.done.add(start, position)
                got = helpers.finish()
                self.done, self._moved = self.done.joined(got), self._moved + got.covered
                self._answers += bool(got.covered)

    def _fill(self, body: Body, block: memoryview) -> int:
        filled = 0
        while filled < len(block):
            try:
                count = body.read_into(block[filled:])
            except FetchError:
                if filled:
                    return filled  # what came is kept; the next read tells the rest
                raise
            if not count:
                break
            filled += count
            if self._clock.monotonic() > self._deadline:
                raise FetchError(
                    f"read downloaded bundle body {self._reference}: not done after {self._limits.total_seconds:g} s"
                )
        return filled

    def _small(self, body: Body) -> None:
        """A bundle of one block needs no threads."""
        buffer = memoryview(bytearray(_BLOCK + 1))
        filled = 0
        while filled < len(buffer) and (count := body.read_into(buffer[filled:])):
            filled += count
        self._check_size(filled)
        if filled > _BLOCK:
            raise self._too_large(filled)
        _write(self._file.fileno(), buffer[:filled], 0)
        self._hasher.update(buffer[:filled])
        self._hashed, self._moved = filled, self._moved + filled
        self.total, self.done = filled, Ranges().add(0, filled)
        if self._progress is not None:
            self._progress(filled, filled)

    def _finish(self) -> Fetched:
        size = self.done.covered
        buffer = bytearray(_BLOCK)
        view = memoryview(buffer)
        fd = self._file.fileno()
        while self._hashed < size and (
            count := os.preadv(fd, [view[: min(_BLOCK, size - self._hashed)]], self._hashed)
        ):
            self._hasher.update(view[:count])
            self._hashed += count
        os.fsync(fd)
        digest = f"sha256:{self._hasher.hexdigest()}"
        if self._expected not in (None, digest):
            self._file.truncate(0)
            if self._journal is not None:
                self._journal.clear()
            raise FetchError(f"digest mismatch for `{self._reference}`: expected layer {self._expected}, got {digest}")
        whole = self._answers <= 1 and not self._resumed
        return Fetched(digest, size, self._moved, self._resumed, whole)

    @staticmethod
    def _settle(entry: tuple[memoryview, Future[None] | None, Future[None], int]) -> memoryview:
        block, hashed, written, _ = entry
        if hashed is not None:
            hashed.result()
        written.result()
        return block

    def _note(self) -> None:
        if self._journal is not None and self.done.covered:
            self._journal.save(Progress(self.done, self.total, self._validator, self._reference))

    def _check_size(self, size: int | None) -> None:
        if size is not None and size > self._limits.bundle_bytes:
            raise self._too_large(size)

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(f"bundle {self._reference} has {size} bytes or more, the limit is {self._limits.bundle_bytes}")


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
