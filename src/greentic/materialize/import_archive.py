"""Booting from one file, without a network: an exported environment with its bundles (`gtc bundle export`).

Rules:
1. The file is a tar with `environment.json`, maybe `revocations.json`, and bundles under `bundles/sha256-<hex>`: regular files of
   these names, each once, nothing else, and no bundle that the environment does not pin. It is bounded.
2. It is no more trusted than a server, and changes nothing before every check has passed (threats: refused-import): it is read whole
   and every bundle hashed, the environment decoded and examined as at a boot; only then bundles and environment come to their places.
3. Its revocation list is one more that may be believed. It never replaces the one that is kept by being there.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from greentic.distribute.bundle_cache import BundleCache
from greentic.distribute.fetch import MAX_BUNDLE_BYTES
from greentic.ground.disk import io_error, make_directory, replace_file
from greentic.ground.documents import open_file
from greentic.ground.errors import BootError, DigestMismatch, GreenticError, MalformedArtifact
from greentic.materialize.remembered import Memory
from greentic.materialize.trusted import Examined
from greentic.model.environment import DOCUMENT, Environment
from greentic.store.environments import environment_of
from greentic.store.layout import EnvPaths
from greentic.trust.revocation import NAME as REVOCATIONS

MAX_ENTRIES = 10_000
MAX_DOCUMENT = 64 << 20
_BUNDLE = re.compile(r"bundles/sha256-([0-9a-f]{64})\Z")

Examine = Callable[[Environment, bytes | None], Examined]
"""The checks of a boot for an environment and the revocation list that came with it; raises, and changes nothing."""


class _Documents(NamedTuple):
    """What an archive holds, beside the bytes of its bundles."""

    environment: bytes
    revocations: bytes | None
    bundles: frozenset[str]
    """Digests, `sha256:<hex>`; each was found to be true."""


def import_archive(path: Path, paths: EnvPaths, cache: BundleCache, memory: Memory, examine: Examine) -> int:
    """Put the environment in its place and the bundles into the cache; how many bundles were new. Raises `BootError`."""
    try:
        found = _read(path)
        env = environment_of(found.environment, path / DOCUMENT, paths.root.name)
        unpinned = found.bundles - {r.bundle_digest for r in env.revisions}
        if unpinned:
            raise MalformedArtifact(f"bundle `{min(unpinned)}` is pinned by no revision of the environment")
        examined = examine(env, found.revocations)
        new = sum(cache.add(digest, content) for digest, content in _bundles(path) if digest in found.bundles)
        make_directory(paths.root)
        replace_file(paths.environment, found.environment, 0o600, durable=True)
        memory.remember(examined.seen, examined.listed)
    except (OSError, tarfile.TarError, GreenticError) as error:
        raise BootError(f"booting from `{path}`") from _cause(path, error)
    return new


def _cause(path: Path, error: OSError | tarfile.TarError | GreenticError) -> GreenticError:
    """Why: of a full disk, say, the archive is not to blame."""
    if isinstance(error, GreenticError):
        return error
    if isinstance(error, OSError):
        return io_error(error.filename or path, error)
    return MalformedArtifact(
        f"no archive of an environment: {error}", hint=f"gtc bundle export ENV --out {path.name} makes one"
    )


def _read(path: Path) -> _Documents:
    """The whole archive, checked (rule 1). Raises `MalformedArtifact`."""
    documents: dict[str, bytes] = {}
    bundles: set[str] = set()
    for name, size, content in _members(path):
        bundle = _BUNDLE.match(name)
        if name in documents or (bundle is not None and f"sha256:{bundle.group(1)}" in bundles):
            raise MalformedArtifact(f"`{name}` is in it twice")
        if bundle is not None:
            if size > MAX_BUNDLE_BYTES:
                raise MalformedArtifact(f"`{name}` is larger than {MAX_BUNDLE_BYTES} bytes")
            actual = hashlib.file_digest(cast(io.BufferedReader, content), "sha256").hexdigest()
            if actual != bundle.group(1):
                raise DigestMismatch(f"`{name}` has the digest `sha256:{actual}`")
            bundles.add(f"sha256:{actual}")
        elif name in (DOCUMENT, REVOCATIONS):
            if size > MAX_DOCUMENT:
                raise MalformedArtifact(f"`{name}` is larger than {MAX_DOCUMENT} bytes")
            documents[name] = content.read()
        else:
            raise MalformedArtifact(f"`{name[:100]}` does not belong into an exported environment")
    if DOCUMENT not in documents:
        raise MalformedArtifact(f"it holds no {DOCUMENT}")
    return _Documents(documents[DOCUMENT], documents.get(REVOCATIONS), frozenset(bundles))


def _bundles(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    for name, _, content in _members(path):
        if bundle := _BUNDLE.match(name):
            yield f"sha256:{bundle.group(1)}", content


def _members(path: Path) -> Iterator[tuple[str, int, BinaryIO]]:
    """Name, size and content of every member, front to back."""
    with open_file(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for number, member in enumerate(archive):
            if number >= MAX_ENTRIES:
                raise MalformedArtifact(f"it has more than {MAX_ENTRIES} entries")
            if not member.isreg():
                raise MalformedArtifact(f"`{member.name[:100]}` is no regular file")
            yield member.name, member.size, cast(BinaryIO, archive.extractfile(member))
