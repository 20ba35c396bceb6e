"""What a worker has seen: the newest generation and revocation list, kept where their loss shows (threats: state-beside).

Rules:
1. They are kept twice: in the environment's directory, and in a directory of the user for this environment's directory. The newer of
   both counts; deleting or setting back one changes nothing, and is told.
2. A copy that cannot be read is told while the other can; if none can, nothing is believed (`UntrustedBundle`). Only one whose text is
   damaged is said to be worth deleting: what the system does not let us read may be whole.
3. Only what passed every check is remembered: first the list, then the numbers that say that it was seen. So a number without its
   list means that the list was taken away.
4. A place that cannot be written is done without, and told. Writing is not durable against a power cut; rule 1 covers one lost copy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import msgspec

from greentic.ground.disk import make_directory, replace_file
from greentic.ground.documents import decode
from greentic.ground.errors import UntrustedBundle
from greentic.store.layout import EnvPaths
from greentic.trust.revocation import MAX_LIST
from greentic.trust.revocation import NAME as REVOCATIONS

SEEN, KEPT_LIST = "worker-seen.json", REVOCATIONS
MAX_SEEN = 1 << 16
_DAMAGED = "delete it, if the document and its revocation list are the right ones"
_CLOSED = "let the worker read it: look at its owner, its permissions and the limits of the process"


class Seen(msgspec.Struct, frozen=True):
    """The newest that this worker saw."""

    generation: int = 0
    revocations: int = 0
    """The version of the revocation list; 0 for none."""


class Recalled(NamedTuple):
    """What the places say."""

    seen: Seen
    lists: tuple[tuple[Path, bytes], ...]
    """Every kept list; what they are worth is for others to say."""
    warnings: tuple[str, ...]


NOTHING_SEEN = Recalled(Seen(), (), ())


class Memory(NamedTuple):
    """Where one environment's newest is kept."""

    places: tuple[Path, ...]

    def recall(self) -> Recalled:
        """The newest of all places. Raises `UntrustedBundle` if what is there cannot be read (rule 2)."""
        found: dict[Path, Seen] = {}
        lists: list[tuple[Path, bytes]] = []
        damaged: list[str] = []
        hint = _DAMAGED
        for place in self.places:
            try:
                data = _read(place / SEEN, MAX_SEEN)
                if data is not None:
                    found[place] = decode(data, Seen)
            except OSError as error:
                hint = _CLOSED
                damaged.append(f"`{place / SEEN}` cannot be read: {error.strerror}")
            except ValueError as error:
                damaged.append(f"`{place / SEEN}` cannot be read: {error}")
            try:
                if (listed := _read(place / KEPT_LIST, MAX_LIST)) is not None:
                    lists.append((place / KEPT_LIST, listed))
            except OSError as error:
                hint = _CLOSED
                damaged.append(f"`{place / KEPT_LIST}` cannot be read: {error.strerror}")
        if damaged and not found:
            raise UntrustedBundle("; ".join(damaged), hint=hint)
        seen = Seen(
            max((s.generation for s in found.values()), default=0),
            max((s.revocations for s in found.values()), default=0),
        )
        lost = [
            f"`{p / SEEN}` was lost or set back; it is made again"
            for p in self.places
            if found and found.get(p) != seen
        ]
        return Recalled(seen, tuple(lists), (*damaged, *lost))

    def remember(self, seen: Seen, listed: bytes | None) -> tuple[str, ...]:
        """Keep what passed every check (rule 3); answers what could not be written."""
        warnings: list[str] = []
        for place in self.places:
            try:
                make_directory(place, 0o700)
                if listed is not None:
                    _keep(place / KEPT_LIST, listed)
                _keep(place / SEEN, msgspec.json.encode(seen))
            except OSError as error:
                warnings.append(
                    f"`{place / SEEN}` cannot be written, an older document would not be noticed there: {error.strerror}"
                )
        return tuple(warnings)

    def forget(self) -> None:
        """Nothing was seen: for an environment that is made or destroyed by its operator. Raises `OSError`."""
        for place in self.places:
            (place / SEEN).unlink(missing_ok=True)
            (place / KEPT_LIST).unlink(missing_ok=True)


def memory_of(paths: EnvPaths, state_directory: Path | None) -> Memory:
    """The memory of an environment; `state_directory` is the user's, if there is one (rule 1)."""
    if state_directory is None:
        return Memory((paths.root,))
    place = hashlib.sha256(bytes(paths.root.resolve())).hexdigest()[:32]
    return Memory((paths.root, state_directory / "seen" / place))


def _read(path: Path, limit: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _keep(path: Path, data: bytes) -> None:
    if _read(path, len(data)) != data:
        replace_file(path, data, 0o600)
