"""One digest over an unpacked bundle: every name, what stands there, and its bytes.

Rules:
1. An entry is its kind, its path and what it holds: a file its digest, a link its target. A file that may be executed is another kind than
   one that may not. The digest is over the entries in the order of their paths' bytes.
2. What is known already (packs, hashed when they were loaded) is not read again, so that this costs little where packs are large.
3. Nothing is followed. A tree with something in it that no unpacking makes has no digest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

MAX_ENTRIES = 1_000_000


def tree_digest(root: Path, known: Mapping[str, str]) -> str | None:
    """`sha256:<hex>` of the tree at `root`, or nothing where it is not there or no unpacked bundle.

    `known` are digests, `sha256:<hex>`, by path below the root.
    """
    entries: list[tuple[bytes, str, str]] = []
    pending = [""]
    try:
        while pending:
            directory = pending.pop()
            for entry in os.scandir(root / directory):
                path = f"{directory}/{entry.name}" if directory else entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(path)
                    kind, holds = "directory", ""
                elif stat.S_ISLNK(mode):
                    kind, holds = "link", os.readlink(root / path)  # noqa: PTH115  as it is written, not as a path
                elif stat.S_ISREG(mode):
                    kind = "program" if mode & stat.S_IXUSR else "file"
                    holds = known.get(path) or _digest(root / path)
                else:
                    return None
                entries.append((os.fsencode(path), kind, holds))
                if len(entries) > MAX_ENTRIES:
                    return None
    except OSError:
        return None
    hasher = hashlib.sha256()
    for name, kind, holds in sorted(entries):
        hasher.update(b"%b\0%b\0%b\0" % (kind.encode(), name, os.fsencode(holds)))
    return f"sha256:{hasher.hexdigest()}"


def _digest(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
