"""`gtc bundle export`: an environment with its bundles, signatures and revocations in one file, for a worker without a network.

The archive is a plain tar; the same environment and bundles give the same bytes. What is exported are the routed revisions of
active deployments; their bundles are taken from this machine if they are here, else from where workers would pull them.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import BinaryIO

from greentic.distribute.bundle_cache import cache_directory, open_cache
from greentic.distribute.fetch import Fetched, fetch_into
from greentic.distribute.journal import Journal
from greentic.distribute.mirrors import first_of, references
from greentic.ground.disk import io_error, place
from greentic.ground.documents import JsonObject, pretty
from greentic.ground.errors import Conflict, NotFound
from greentic.model.delivery import delivery_of
from greentic.model.environment import DOCUMENT, Environment, Revision
from greentic.model.ids import check_env_id, is_digest
from greentic.net.document import read_small
from greentic.net.terms import own_terms
from greentic.store.environments import EnvironmentStore
from greentic.store.layout import EnvPaths
from greentic.trust.revocation import MAX_LIST
from greentic.trust.revocation import NAME as REVOCATIONS


def routed(env: Environment) -> list[Revision]:
    """The routed revisions of active deployments, one for each bundle."""
    active = {d.deployment_id for d in env.bundles if d.status == "active"}
    wanted = {e.revision_id for s in env.traffic_splits if s.deployment_id in active for e in s.entries}
    by_digest = {r.bundle_digest: r for r in env.revisions if r.revision_id in wanted}
    return [by_digest[digest] for digest in sorted(by_digest)]


def export(store: EnvironmentStore, env_id: str, out: Path) -> JsonObject:
    """Write the archive. Raises `Conflict` for a bundle that cannot be had as it was pinned."""
    env_id = check_env_id(env_id)
    env = store.load(env_id)
    paths = store.paths(env_id)
    revisions = routed(env)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            _add(archive, DOCUMENT, io.BytesIO(data := pretty(env)), len(data))
            listed = _revocations(env)
            if listed is not None:
                _add(archive, REVOCATIONS, io.BytesIO(listed), len(listed))
            for revision in revisions:
                with _bundle(env, paths, revision) as bundle:
                    size = os.fstat(bundle.fileno()).st_size
                    _add(archive, f"bundles/{revision.bundle_digest.replace(':', '-')}", bundle, size)
        place(temporary, out)
    except OSError as error:
        raise io_error(Path(error.filename or out), error) from None
    finally:
        temporary.unlink(missing_ok=True)
    return {
        "path": str(out),
        "environment_id": env_id,
        "bundles": [r.bundle_digest for r in revisions],
        "size": out.stat().st_size,
    }


def _add(archive: tarfile.TarFile, name: str, data: BinaryIO, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    archive.addfile(info, data)


def _revocations(env: Environment) -> bytes | None:
    reference = env.revocation.list_ref
    found = read_small(reference, MAX_LIST, own_terms()) if reference else None
    if found is None and env.revocation.required:
        raise NotFound("the environment requires a revocation list, and there is none at its address")
    return found


def _bundle(env: Environment, paths: EnvPaths, revision: Revision) -> BinaryIO:
    """The pinned bundle, open for reading."""
    digest = revision.bundle_digest
    if not is_digest(digest):
        raise Conflict(f"revision `{revision.revision_id}` was recorded without its bundle; it cannot be exported")
    cache = open_cache(cache_directory())
    if cache is None:
        raise Conflict("exporting needs a cache of bundles", hint="set HOME, or GREENTIC_BUNDLE_CACHE_DIR")
    here = paths.revision(revision.revision_id) / "bundle.gtbundle"
    if here.is_file():
        with here.open("rb") as file:
            cache.add(digest, file)

    def download(file: BinaryIO, journal: Journal) -> Fetched:
        uri = revision.bundle_source_uri
        if uri is None:
            raise Conflict(f"the bundle of revision `{revision.revision_id}` is not here, and has no source")

        def fetch(reference: str, patient: bool) -> Fetched:
            mirror = reference != uri
            return fetch_into(file, reference, wanted=digest, mirror=mirror, patient=patient, journal=journal)

        return first_of(references(uri, digest, delivery_of(env).mirrors), fetch, lambda reference, why: None)

    return cache.obtain(digest, download).file
