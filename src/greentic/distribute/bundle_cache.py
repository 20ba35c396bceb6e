"""Bundles by content, shared by every environment and process of a user (formats: delivery 3).

Rules:
1. A path is a digest: `sha256/<2 hex>/<62 hex>`, read-only. An entry comes by rename, whole and on stable storage.
2. An entry is hashed again when a process first uses it. One that is not what its name says is deleted and fetched.
3. Of several processes that want the same bundle one downloads; the others wait and use it. They wait while it goes on: who is
   stopped, or hangs, costs the others a download without the cache.
4. A partial download stands below `partial/` with its journal, and is never looked at as an entry. What was received and
   does not match is deleted.
5. Above a size, the entries that were not used for longest go, but none that a caller says it needs.
6. Where the disk is full, the same make room before a download is given up, old partial downloads first.
7. The directory belongs to this user alone. One that cannot be made means that there is no cache, which costs time only; so does one
   that takes nothing (a full or read-only disk, a directory that was deleted) for who can do without it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from greentic.distribute.fetch import Fetched
from greentic.distribute.journal import Journal
from greentic.ground import variables
from greentic.ground.clock import CLOCK, Clock, unix_seconds
from greentic.ground.disk import (
    LOCK_SECONDS,
    exclusive_for,
    make_directory,
    place,
    sync_directory,
    sync_file,
    try_exclusive,
)
from greentic.ground.documents import open_file
from greentic.ground.errors import DigestMismatch, InvalidArgument
from greentic.ground.least_used import Item, beyond
from greentic.ground.optional import done_without
from greentic.ground.user_cache import user_cache
from greentic.model.ids import is_digest
from greentic.trust.gate import digest_of

VARIABLE = "GREENTIC_BUNDLE_CACHE_DIR"
SIZE_VARIABLE = "GREENTIC_CACHE_MAX_BYTES"
DEFAULT_MAX_BYTES = 3 << 30
PARTIAL_DAYS = 7
_BLOCK = 1 << 20

Needed = Callable[[], frozenset[str]]
"""Which digests must stay."""
Download = Callable[[BinaryIO, Journal], Fetched]
"""Fetches the bundle into a file that may hold a part of it."""


class Entry(msgspec.Struct, frozen=True):
    """One bundle of the cache."""

    digest: str
    size: int
    used: float
    """When it was last used, in seconds since 1970."""


class CachedBundle(NamedTuple):
    """A bundle of the cache, open for reading, its digest computed from what is open."""

    file: BinaryIO
    path: Path
    digest: str
    size: int
    fetched: Fetched | None
    """What was moved for it; nothing if it was there."""


def cache_directory(environ: Mapping[str, str] | None = None) -> Path | None:
    """`GREENTIC_BUNDLE_CACHE_DIR`, else `bundles` below the user's cache; nothing without a home, or for `off`."""
    found = variables.environment() if environ is None else environ
    told = variables.text(VARIABLE, found)
    if told:
        return None if told == "off" else Path(told)
    base = user_cache(found)
    return None if base is None else base / "bundles"


def max_bytes(environ: Mapping[str, str] | None = None) -> int:
    """How large the cache may be. Raises `InvalidArgument`."""
    told = variables.count(SIZE_VARIABLE, environ)
    return DEFAULT_MAX_BYTES if told is None else told


def open_cache(directory: Path | None) -> BundleCache | None:
    """The cache, or nothing where it cannot be (rule 7)."""
    if directory is None:
        return None
    try:
        return BundleCache(directory)
    except OSError as error:
        done_without("the cache of bundles", error)
        return None


_verified: set[tuple[int, int, int]] = set()
"""Entries that this process has hashed: device, inode, time of change."""


class BundleCache:
    """A directory of bundles. Raises `OSError` if it cannot be made, or is not private."""

    def __init__(self, directory: Path, clock: Clock = CLOCK) -> None:
        make_directory(directory, 0o700)
        status = directory.lstat()
        if directory.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"`{directory}` must belong to this user alone")
        self.directory, self._clock = directory, clock
        for name in ("partial", "locks"):
            (directory / name).mkdir(mode=0o700, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a bundle is, or would be. Raises `InvalidArgument` for what is no digest."""
        if not is_digest(digest):
            raise InvalidArgument(f"`{digest}` is not `sha256:` and 64 lower-case hex digits")
        name = digest.removeprefix("sha256:")
        return self.directory / "sha256" / name[:2] / name[2:]

    def obtain(self, digest: str, download: Download, needed: Needed | None = None) -> CachedBundle:
        """The bundle, from here or downloaded now. Raises what `download` raises, `DigestMismatch` and `OSError`.

        With `needed`, a full disk costs what is not needed its place (rule 6).
        """
        there = self.find(digest)
        if there is not None:
            return there
        with self._locked(digest):
            there = self.find(digest)
            if there is not None:
                return there
            return self._download(digest, download, needed)

    def find(self, digest: str) -> CachedBundle | None:
        """The bundle if it is here and what its name says (rule 2)."""
        path = self.path(digest)
        try:
            file = open_file(path)
        except OSError:
            with contextlib.suppress(OSError):
                if not path.is_file():  # a fifo, a device or an empty directory, which no entry replaces
                    (path.rmdir if path.is_dir() else path.unlink)()
            return None
        status = os.fstat(file.fileno())
        seen = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if seen not in _verified:
            try:
                actual = digest_of(file)[0]
            except OSError:  # a damaged disk
                actual = ""
            if actual != digest:
                file.close()
                path.unlink(missing_ok=True)
                return None
        with contextlib.suppress(OSError):
            os.utime(file.fileno())
            status = os.fstat(file.fileno())
        _verified.add((status.st_dev, status.st_ino, status.st_mtime_ns))
        return CachedBundle(file, path, digest, status.st_size, None)

    def add(self, digest: str, source: BinaryIO) -> bool:
        """Put a bundle here that is at hand, such as one from an archive; whether it was new. Raises `DigestMismatch`."""
        found = self.find(digest)
        if found is not None:
            found.file.close()
            return False

        def copy(file: BinaryIO, journal: Journal) -> Fetched:
            hasher, size = hashlib.sha256(), 0
            file.truncate(0)
            while block := source.read(_BLOCK):
                hasher.update(block)
                file.write(block)
                size += len(block)
            file.flush()
            sync_file(file.fileno())
            return Fetched(f"sha256:{hasher.hexdigest()}", size, size, 0)

        self.obtain(digest, copy).file.close()
        return True

    def _download(self, digest: str, download: Download, needed: Needed | None) -> CachedBundle:
        name = digest.removeprefix("sha256:")
        partial = self.directory / "partial" / name
        journal = Journal(partial.with_name(f"{name}.json"), partial)
        try:
            fetched = _into(partial, journal, download)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or needed is None or not self._free(digest, needed):
                raise
            fetched = _into(partial, journal, download)
        if fetched.digest != digest:
            journal.clear()
            partial.unlink(missing_ok=True)
            raise DigestMismatch(f"the bytes are `{fetched.digest}`, expected `{digest}`", actual=fetched.digest)
        partial.chmod(0o400)
        target = self.path(digest)
        make_directory(target.parent, 0o700)
        opened = partial.open("rb", buffering=0)  # by its name it may go at once: who prunes takes no lock
        place(partial, target)
        sync_directory(target.parent.parent)
        journal.clear()
        status = os.fstat(opened.fileno())
        _verified.add((status.st_dev, status.st_ino, status.st_mtime_ns))
        return CachedBundle(opened, target, digest, fetched.size, fetched)

    @contextlib.contextmanager
    def _locked(self, digest: str) -> Iterator[None]:
        name = digest.removeprefix("sha256:")
        partial = self.directory / "partial" / name

        def signs() -> object:
            with contextlib.suppress(OSError):
                status = partial.stat()
                return status.st_ino, status.st_size, status.st_mtime_ns
            return None

        with self._lock_file(name) as file:
            exclusive_for(file.fileno(), LOCK_SECONDS, self._clock, signs)
            yield

    def _lock_file(self, name: str) -> BinaryIO:
        """The file of a lock; one that is a fifo is not waited for."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self.directory / "locks" / name, flags, 0o600), "rb", buffering=0)

    # -- upkeep -----------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Every bundle, the one that was not used for longest first."""
        found: list[Entry] = []
        for path in (self.directory / "sha256").glob("??/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                found.append(Entry(f"sha256:{path.parent.name}{path.name}", status.st_size, status.st_mtime))
        return sorted(found, key=lambda e: (e.used, e.digest))

    def partials(self) -> list[tuple[str, int]]:
        """Downloads that are not done: digest, and bytes on the disk."""
        found: list[tuple[str, int]] = []
        for path in sorted((self.directory / "partial").iterdir()):
            with contextlib.suppress(FileNotFoundError):  # one that has just come to its place is none any more
                if len(path.name) == 64:
                    found.append((f"sha256:{path.name}", path.lstat().st_size))
        return found

    def verify(self) -> list[str]:
        """Hash everything anew; the digests of the entries that were not what they should be, which are deleted."""
        gone: list[str] = []
        for entry in self.entries():
            with contextlib.suppress(FileNotFoundError), open_file(self.path(entry.digest)) as file:
                if digest_of(file)[0] != entry.digest:
                    self.path(entry.digest).unlink(missing_ok=True)
                    gone.append(entry.digest)
        return gone

    def prune(self, limit: int, needed: Needed) -> list[Entry]:
        """Delete what was not used for longest until the rest fits, but nothing that is needed; what went.

        `needed` is asked only if something has to go.
        """
        entries = {e.digest: e for e in self.entries()}
        keep = needed() if sum(e.size for e in entries.values()) > limit else frozenset[str]()
        gone = [
            entries[i.name] for i in beyond((Item(e.digest, e.size, e.used) for e in entries.values()), limit, keep)
        ]
        for entry in gone:
            self.drop(entry.digest)
        self._drop_partials(PARTIAL_DAYS * 86_400)
        return gone

    def drop(self, digest: str) -> None:
        """Let a bundle go; who has it open keeps it."""
        self.path(digest).unlink(missing_ok=True)

    def unfinished(self) -> list[Item]:
        """Downloads that are not done, with when somebody last went on with them."""
        found = []
        for digest, size in self.partials():
            with contextlib.suppress(OSError):
                path = self.directory / "partial" / digest.removeprefix("sha256:")
                found.append(Item(digest, size, path.stat().st_mtime))
        return found

    def _free(self, digest: str, needed: Needed) -> bool:
        """Give up everything that is not needed, for a download that has no room; whether that freed anything."""
        gone = self._drop_partials(0, but=digest)
        return bool(self.prune(0, needed)) or gone

    def _drop_partials(self, seconds: int, but: str = "") -> bool:
        """Give up downloads that nobody went on with for so long, unless somebody is at it; whether there were any."""
        gone = [digest for digest, _ in self.partials() if digest != but and self.give_up(digest, seconds)]
        return bool(gone)

    def give_up(self, digest: str, seconds: int) -> bool:
        """Delete a download that nobody went on with for so long, unless somebody is at it; whether it went."""
        name = digest.removeprefix("sha256:")
        path = self.directory / "partial" / name
        with contextlib.suppress(OSError), self._lock_file(name) as lock:
            if try_exclusive(lock.fileno()) and unix_seconds() - path.stat().st_mtime >= seconds:
                path.unlink()
                path.with_name(f"{name}.json").unlink(missing_ok=True)
                return True
        return False


def _into(partial: Path, journal: Journal, download: Download) -> Fetched:
    """Download into the partial file, from where its journal says that it is."""
    if journal.load() is None:
        journal.clear()
        partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "r+b") as file:
        return download(file, journal)
