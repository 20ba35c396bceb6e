"""Booting from one file, without a network: an exported environment with its bundles (`gtc bundle export`).

Rules:
1. The file is a tar with `environment.json`, maybe `revocations.json`, and bundles under `bundles/sha256-<hex>`: regular files of
   these names, nothing else. It is read once, from front to back, and bounded.
2. It is no more trusted than a server: a bundle enters the cache if its bytes have the digest of its name, and every check of a
   boot follows. Nothing is fetched.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import BinaryIO, cast

from greentic.distribute.bundle_cache import BundleCache
from greentic.distribute.fetch import MAX_BUNDLE_BYTES
from greentic.ground.disk import replace_file
from greentic.ground.errors import BootError, GreenticError, MalformedArtifact
from greentic.store.layout import EnvPaths

ENVIRONMENT, REVOCATIONS = "environment.json", "revocations.json"
MAX_ENTRIES = 10_000
MAX_DOCUMENT = 64 << 20
_BUNDLE = re.compile(r"bundles/sha256-([0-9a-f]{64})\Z")


def import_archive(path: Path, paths: EnvPaths, cache: BundleCache) -> int:
    """Put the environment in its place and the bundles into the cache; how many bundles were new. Raises `BootError`."""
    new, seen_environment = 0, False
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for number, member in enumerate(archive):
                if number >= MAX_ENTRIES:
                    raise MalformedArtifact(f"it has more than {MAX_ENTRIES} entries")
                if not member.isreg():
                    raise MalformedArtifact(f"`{member.name[:100]}` is no regular file")
                content = cast(BinaryIO, archive.extractfile(member))
                bundle = _BUNDLE.match(member.name)
                if bundle is not None:
                    if member.size > MAX_BUNDLE_BYTES:
                        raise MalformedArtifact(f"`{member.name}` is larger than {MAX_BUNDLE_BYTES} bytes")
                    new += cache.add(f"sha256:{bundle.group(1)}", content)
                elif member.name in (ENVIRONMENT, REVOCATIONS):
                    if member.size > MAX_DOCUMENT:
                        raise MalformedArtifact(f"`{member.name}` is larger than {MAX_DOCUMENT} bytes")
                    _put(paths.root / member.name, content.read())
                    seen_environment = seen_environment or member.name == ENVIRONMENT
                else:
                    raise MalformedArtifact(f"`{member.name[:100]}` does not belong into an exported environment")
        if not seen_environment:
            raise MalformedArtifact(f"it holds no {ENVIRONMENT}")
    except (OSError, tarfile.TarError, GreenticError) as error:
        cause = error if isinstance(error, GreenticError) else MalformedArtifact(str(error))
        raise BootError(f"booting from `{path}`") from cause
    return new


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)
