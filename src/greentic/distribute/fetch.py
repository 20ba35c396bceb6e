"""One bundle into one private file, hashed while it streams.

Rules:
1. Memory does not grow with the bundle: a few blocks are under way, received, hashed and written side by side.
2. The file is on stable storage when this returns; the digest is over exactly the bytes in it.
3. Too large, too slow and cut short are different errors; what may pass by itself is tried again a few times from the start.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

from greentic.distribute.source import Body, Source, source_for
from greentic.ground.clock import Clock, SystemClock
from greentic.ground.errors import FetchError, TooLarge

MAX_BUNDLE_BYTES = 4 << 30
TOTAL_SECONDS = 3600.0
ATTEMPTS = 3
BACKOFF_SECONDS = 0.25
_BLOCK = 1 << 20
_BLOCKS = 6
_SYNC_EVERY = 32 << 20

Progress = Callable[[int, int | None], None]
"""Told bytes so far and bytes announced."""


class Fetched(NamedTuple):
    digest: str
    """`sha256:<hex>`"""
    size: int


class FetchLimits(NamedTuple):
    bundle_bytes: int = MAX_BUNDLE_BYTES
    total_seconds: float = TOTAL_SECONDS
    attempts: int = ATTEMPTS


def fetch_into(
    file: BinaryIO,
    reference: str,
    *,
    source: Source | None = None,
    limits: FetchLimits = FetchLimits(),  # noqa: B008  an immutable value
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Fetched:
    """Fetch `reference` into `file`, an empty private file open for writing. Raises `FetchError` or its kinds."""
    clock = clock or SystemClock()
    text = reference
    if source is None:
        source, text = source_for(reference)
    deadline = clock.monotonic() + limits.total_seconds
    for attempt in range(1, limits.attempts + 1):
        try:
            return _once(file, source, text, limits, deadline, progress, clock)
        except TooLarge:
            raise
        except FetchError as error:
            if attempt == limits.attempts or not _may_pass(error) or clock.monotonic() >= deadline:
                raise
            clock.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            file.seek(0)
            file.truncate()
    raise AssertionError


def _may_pass(error: FetchError) -> bool:
    """Whether trying again could help: cut connections and servers that are overloaded, not refusals."""
    cause = error.__cause__
    text = error.message
    return (
        isinstance(cause, OSError)
        or "http status: 5" in text
        or "http status: 429" in text
        or type(error) is not FetchError
    )


def _once(
    file: BinaryIO,
    source: Source,
    reference: str,
    limits: FetchLimits,
    deadline: float,
    progress: Progress | None,
    clock: Clock,
) -> Fetched:
    body = source.open(reference)
    try:
        if body.length is not None and body.length > limits.bundle_bytes:
            raise _too_large(reference, body.length, limits)
        return _stream(file, body, reference, limits, deadline, progress, clock)
    finally:
        body.close()


def _stream(
    file: BinaryIO,
    body: Body,
    reference: str,
    limits: FetchLimits,
    deadline: float,
    progress: Progress | None,
    clock: Clock,
) -> Fetched:
    fd = file.fileno()
    hasher = hashlib.sha256()
    total = 0
    if body.length is not None and body.length <= _BLOCK:
        return _small(file, body, reference, limits, progress)
    with ThreadPoolExecutor(1, "hash") as hashing, ThreadPoolExecutor(1, "write") as writing:
        free = [memoryview(bytearray(_BLOCK)) for _ in range(_BLOCKS)]
        pending: list[tuple[memoryview, Future[None], Future[None]]] = []
        unsynced = 0
        while True:
            if not free:
                free.append(_settle(pending.pop(0)))
            block = free.pop()
            filled = 0
            while filled < _BLOCK:
                count = body.read_into(block[filled:])
                if not count:
                    break
                filled += count
                if clock.monotonic() > deadline:
                    raise FetchError(
                        f"read downloaded bundle body {reference}: not done after {limits.total_seconds:g} s"
                    )
            if not filled:
                break
            if total + filled > limits.bundle_bytes:
                raise _too_large(reference, total + filled, limits)
            piece = block[:filled]
            pending.append((block, hashing.submit(hasher.update, piece), writing.submit(_write, fd, piece, total)))
            total += filled
            unsynced += filled
            if unsynced >= _SYNC_EVERY:  # keep the disk busy while the network is
                writing.submit(os.fdatasync, fd)
                unsynced = 0
            if progress is not None:
                progress(total, body.length)
        for entry in pending:
            _settle(entry)
        writing.submit(os.fsync, fd).result()
    return Fetched(f"sha256:{hasher.hexdigest()}", total)


def _small(file: BinaryIO, body: Body, reference: str, limits: FetchLimits, progress: Progress | None) -> Fetched:
    """A bundle of one block needs no threads."""
    buffer = memoryview(bytearray(_BLOCK + 1))
    filled = 0
    while filled < len(buffer) and (count := body.read_into(buffer[filled:])):
        filled += count
    if filled > limits.bundle_bytes or filled > _BLOCK:
        raise _too_large(reference, filled, limits)
    _write(file.fileno(), buffer[:filled], 0)
    os.fsync(file.fileno())
    if progress is not None:
        progress(filled, body.length)
    return Fetched(f"sha256:{hashlib.sha256(buffer[:filled]).hexdigest()}", filled)


def _settle(entry: tuple[memoryview, Future[None], Future[None]]) -> memoryview:
    block, hashed, written = entry
    hashed.result()
    written.result()
    return block


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def _too_large(reference: str, size: int, limits: FetchLimits) -> TooLarge:
    return TooLarge(f"bundle {reference} has {size} bytes or more, the limit is {limits.bundle_bytes}")
