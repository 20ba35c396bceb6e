"""What a download has got, on disk beside its partial file, so that the next one goes on there.

Rules:
1. A journal belongs to a digest and a partial file. It never says that a file is whole: that is what the digest is for.
2. It is written by rename and may lag behind the file; what it does not list is fetched again.
3. One that does not parse, or does not fit its file, counts as none.
4. Addresses may be signed, so none stands in it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from greentic.distribute.ranges import Ranges, read_ranges
from greentic.ground.disk import replace_file
from greentic.ground.documents import decode, read_file

MAX_JOURNAL = 1 << 20


class Progress(msgspec.Struct, frozen=True):
    """Where a download is."""

    done: Ranges
    total: int | None
    validator: str | None
    """The validator of the server that the bytes came from; another mirror's does not fit it."""
    reference: str
    """Whom the validator is of: a name for the address that does not tell it."""


class Journal:
    """The journal of one partial file."""

    def __init__(self, path: Path, partial: Path) -> None:
        self._path, self._partial = path, partial

    def load(self) -> Progress | None:
        """What is there already (rule 3)."""
        try:
            raw = decode(read_file(self._path, MAX_JOURNAL), dict[str, Any])
            done = read_ranges(raw["done"])
            total, validator = raw["total"], raw["validator"]
            size = self._partial.stat().st_size
        except (OSError, KeyError, TypeError, ValueError):
            return None
        if not done.within(size) or (total is not None and (type(total) is not int or not done.within(total))):
            return None
        reference = raw.get("reference")
        return Progress(
            done,
            total,
            validator if isinstance(validator, str) else None,
            reference if isinstance(reference, str) else "",
        )

    def save(self, progress: Progress) -> None:
        """A journal that cannot be written costs a later download its head start, not this one its life."""
        document = {
            "done": [list(span) for span in progress.done.spans],
            "total": progress.total,
            "validator": progress.validator,
            "reference": progress.reference,
        }
        with contextlib.suppress(OSError):
            replace_file(self._path, msgspec.json.encode(document), 0o600)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
