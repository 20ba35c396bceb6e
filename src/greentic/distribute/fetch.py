"""One bundle into one private file, hashed while it streams.

Rules:
1. Memory does not grow with the bundle: a few blocks are under way, received, hashed and written side by side.
2. The file is on stable storage when this returns; the digest is over exactly the bytes in it.
3. What was received is kept: after a cut connection, or with a journal after a killed process, only the rest is asked for.
   A source that cannot give a part, or gives one of another file, starts over.
4. Too large, too slow, cut short and busy are different errors; what may pass by itself is tried again, later each time and
   never all at the same moment, as long as there is progress or attempts are left (`net/terms`).
5. A large bundle that comes slowly is fetched over several connections, if the source can give parts.
6. There is always a way back. Before giving up with a part kept, the whole is asked for once; bytes that are not the wanted ones
   are dropped, after one try with everything from one answer if they were a mixture, or if nothing told where they end; room on the
   disk is asked for before a byte is, where the file system tells how large it is.
7. One deadline ends it all: names, connections, tokens, manifests, heads and bodies, however slowly they drip.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

from greentic.distribute.journal import Journal, Progress
from greentic.distribute.mirrors import hasty
from greentic.distribute.parallel import Helpers
from greentic.distribute.ranges import Ranges
from greentic.distribute.source import Body, Source
from greentic.distribute.sources import source_for
from greentic.ground import variables
from greentic.ground.backoff import Backoff
from greentic.ground.clock import CLOCK, Clock
from greentic.ground.disk import sync_data, sync_file
from greentic.ground.errors import DigestMismatch, FetchError, GreenticError, PartRefused, TooLarge
from greentic.net.addresses import shown
from greentic.net.terms import TRIES, Terms, asked_to_wait, may_pass, patience, terms_of

MAX_BUNDLE_BYTES = 4 << 30
TOTAL_SECONDS = 3600.0
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


class FetchLimits(NamedTuple):
    bundle_bytes: int = MAX_BUNDLE_BYTES
    total_seconds: float = TOTAL_SECONDS
    tries: int = TRIES
    """Tries without any progress."""
    jitter: bool = True


def fetch_limits(environ: Mapping[str, str]) -> FetchLimits:
    """The limits, as `GREENTIC_FETCH_TOTAL_SECONDS` and `GREENTIC_FETCH_MAX_BYTES` change them. Raises `InvalidArgument`."""
    limits = FetchLimits()
    seconds = variables.seconds("GREENTIC_FETCH_TOTAL_SECONDS", environ, least=0.001)
    size = variables.count("GREENTIC_FETCH_MAX_BYTES", environ, least=1)
    return limits._replace(
        total_seconds=seconds or limits.total_seconds, bundle_bytes=min(size or MAX_BUNDLE_BYTES, MAX_BUNDLE_BYTES)
    )


def fetch_into(
    file: BinaryIO,
    reference: str,
    *,
    source: Source | None = None,
    wanted: str | None = None,
    mirror: bool = False,
    patient: bool = True,
    limits: FetchLimits | None = None,
    progress: Told | None = None,
    clock: Clock | None = None,
    terms: Terms | None = None,
    journal: Journal | None = None,
) -> Fetched:
    """Fetch `reference` into `file`, a private file open for writing; empty, unless `journal` tells what is in it.

    `limits` and `terms` are how it is asked; a program of the operator that names none goes by its variables.
    `wanted` is the digest that the bytes must have, if it is known; `mirror` says that another address is the bundle's own. Who is not
    `patient` has others to ask, and tries once (`distribute/mirrors`, rule 3).
    Raises `FetchError` or its kinds, `DigestMismatch` for other bytes than the wanted ones, which are dropped, and `OSError`.
    """
    environ = variables.environment()
    limits = fetch_limits(environ) if limits is None else limits
    asked = terms_of(environ, clock or CLOCK) if terms is None else terms
    if not patient:
        limits, asked = limits._replace(tries=1), hasty(asked)
    asked = asked._replace(
        total=limits.total_seconds, tries=limits.tries, backoff=Backoff(jitter=limits.jitter)
    ).begun()
    text = reference
    if source is None:
        # One patience for the whole download: what is asked on the way is asked once a try.
        source, text = source_for(reference, asked._replace(tries=1), mirror=mirror)
    return _Download(file, source, text, limits, asked, wanted, progress, journal).run()


class _Download:
    def __init__(
        self,
        file: BinaryIO,
        source: Source,
        reference: str,
        limits: FetchLimits,
        terms: Terms,
        wanted: str | None,
        progress: Told | None,
        journal: Journal | None,
    ) -> None:
        self._file, self._source, self._reference, self._limits = file, source, reference, limits
        self._terms, self._clock, self._wanted = terms, terms.clock, wanted
        self._progress, self._journal = progress, journal
        self._shown = shown(reference)
        self._name = hashlib.sha256(reference.encode(errors="replace")).hexdigest()
        self.done, self.total, self._validator = Ranges(), None, None
        self._moved = self._answers = 0
        self._untold_end, self._coding = False, ""
        self._told_digest: str | None = None
        self._hasher, self._hashed = hashlib.sha256(), 0
        before = journal.load() if journal is not None else None
        if before is not None:
            self.done, self.total = before.done, before.total
            self._validator = before.validator if before.reference == self._name else None
        self._resumed = self.done.covered
        if not self._resumed:
            file.truncate(0)  # what another source left here is nobody's

    def run(self) -> Fetched:
        self._receive()
        digest = self._digest()
        expected = self._wanted or self._told_digest
        doubtful = self._answers > 1 or self._resumed or self._untold_end
        if expected not in (None, digest) and doubtful and self._terms.left():
            self._start_over()  # a mixture of several answers may be at fault, or a cut that looks like an end
            self._receive()
            digest = self._digest()
            expected = self._wanted or self._told_digest
        if expected not in (None, digest):
            self._drop()
            why = f" ({self._coding})" if self._coding else ""
            if self._wanted is None:
                raise FetchError(f"digest mismatch for `{self._shown}`: expected layer {expected}, got {digest}{why}")
            raise DigestMismatch(
                f"the bytes are `{digest}`, expected `{expected}`{why}", actual=digest, why=self._coding
            )
        if self._coding and expected is None:
            self._drop()
            raise FetchError(f"read downloaded bundle body {self._shown}: {self._coding}")
        sync_file(self._file.fileno())
        return Fetched(digest, self.done.covered, self._moved, self._resumed)

    def _receive(self) -> None:
        """Ask until everything is here. Raises `FetchError`."""
        held, best, whole = patience(self._terms), self.done.covered, False
        while self.total is None or self.done.first_gap(self.total) is not None:
            try:
                self._advance(whole)
                if self.total is None:
                    self.total = self.done.covered  # the end came without an announcement
            except GreenticError as error:
                self._note()
                if not isinstance(error, FetchError) or isinstance(error, TooLarge):
                    raise
                if self.done.covered > best:
                    held.progressed()
                    best = self.done.covered
                if may_pass(error) and held.wait(asked_to_wait(error)):
                    continue
                if whole or not self.done.covered or not self._terms.left():
                    raise
                whole = True  # what is kept stays until the whole begins to come

    def _advance(self, whole: bool) -> None:
        """Open the source at the first gap, or for the whole, and read until its end. Raises `FetchError`."""
        gap = self.done.first_gap(self.total)
        if gap is None:
            return
        start, end = (0, -1) if whole else gap
        try:
            body = self._source.open(self._reference, start, self._validator if start else None)
        except PartRefused:
            body = self._source.open(self._reference)
        try:
            if start and body.offset == start and self._is_another(body):
                # The pinned digest would catch another file, but only after all of it had come.
                body.close()
                body = self._source.open(self._reference)
            if body.offset != start or whole:
                self._start_over()
                end = -1
            self._check_size(body.total)
            self._check_room(body.total)
            self.total, self._validator = body.total, body.validator
            self._answers += 1
            self._told_digest, self._untold_end, self._coding = body.digest, body.untold_end, body.coding
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

    def _drop(self) -> None:
        """Leave nothing of what came."""
        self._start_over()
        if self._journal is not None:
            self._journal.clear()

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
                        writing.submit(sync_data, fd)
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
                        here = self.done.add(start, position).joined(helpers.done)
                        self._progress(here.covered, self.total)
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
            if not self._terms.left():
                raise FetchError(
                    f"read downloaded bundle body {self._shown}: not done after {self._limits.total_seconds:g} s"
                )
        return filled

    def _small(self, body: Body) -> None:
        """A bundle of one block needs no threads; what came of one that was cut is kept as well."""
        buffer = memoryview(bytearray(_BLOCK + 1))
        filled = self._fill(body, buffer)
        try:
            if body.length is not None and filled < body.length:
                filled += self._fill(body, buffer[filled:])  # tells why it ended
        finally:
            self._check_size(filled)
            if filled > _BLOCK:
                raise self._too_large(filled)
            _write(self._file.fileno(), buffer[:filled], 0)
            self._hasher.update(buffer[:filled])
            self._hashed, self._moved = filled, self._moved + filled
            self.done = Ranges().add(0, filled)
        self.total = filled
        if self._progress is not None:
            self._progress(filled, filled)

    def _digest(self) -> str:
        """The digest of the file; what was not hashed while it came is hashed now."""
        size, fd = self.done.covered, self._file.fileno()
        view = memoryview(bytearray(_BLOCK))
        while self._hashed < size and (
            count := os.preadv(fd, [view[: min(_BLOCK, size - self._hashed)]], self._hashed)
        ):
            self._hasher.update(view[:count])
            self._hashed += count
        return f"sha256:{self._hasher.hexdigest()}"

    @staticmethod
    def _settle(entry: tuple[memoryview, Future[None] | None, Future[None], int]) -> memoryview:
        block, hashed, written, _ = entry
        if hashed is not None:
            hashed.result()
        written.result()
        return block

    def _note(self) -> None:
        if self._journal is not None and self.done.covered:
            self._journal.save(Progress(self.done, self.total, self._validator, self._name))

    def _check_size(self, size: int | None) -> None:
        if size is not None and size > self._limits.bundle_bytes:
            raise self._too_large(size)

    def _check_room(self, total: int | None) -> None:
        """Raise `OSError` before a byte is received that would have no room."""
        if total is None:
            return
        status = os.fstatvfs(self._file.fileno())
        tells_its_size = status.f_blocks > 0
        if tells_its_size and total - self.done.covered > status.f_bavail * status.f_frsize:
            raise OSError(errno.ENOSPC, f"No space left for a bundle of {total} bytes")

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(f"bundle {self._shown} has {size} bytes or more, the limit is {self._limits.bundle_bytes}")


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
