"""`gtc cache`: the bundles that this user's workers share."""

from __future__ import annotations

from greentic.distribute.bundle_cache import BundleCache, cache_directory, max_bytes
from greentic.ground.clock import timestamp
from greentic.ground.disk import io_error
from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import NotFound
from greentic.materialize.prune import Caches, let_go_of_caches, needed_digests, of_caches
from greentic.store.environments import EnvironmentStore
from greentic.wasm.compiled_files import default_directory


def _cache() -> BundleCache:
    directory = cache_directory()
    if directory is None:
        raise NotFound("there is no cache of bundles on this machine", hint="set HOME, or GREENTIC_BUNDLE_CACHE_DIR")
    try:
        return BundleCache(directory)
    except OSError as error:
        raise io_error(directory, error) from None


def list_entries(store: EnvironmentStore) -> JsonObject:
    """What is there, the one that was used last first."""
    cache, needed = _cache(), needed_digests(store)
    entries = cache.entries()
    rows: list[Json] = [
        {
            "digest": e.digest,
            "size": e.size,
            "used": timestamp(int(e.used) * 1_000_000_000),
            "needed": e.digest in needed,
        }
        for e in reversed(entries)
    ]
    partial: list[Json] = [{"digest": digest, "bytes": size} for digest, size in cache.partials()]
    return {
        "directory": str(cache.directory), "size": sum(e.size for e in entries), "limit": max_bytes(), "entries": rows, "partial": partial,
    }  # fmt: skip


def verify(store: EnvironmentStore) -> JsonObject:
    """Hash everything anew; what is not what its name says is deleted."""
    cache = _cache()
    gone = cache.verify()
    return {"directory": str(cache.directory), "verified": len(cache.entries()), "deleted": [*gone]}


def prune(store: EnvironmentStore, limit: int | None) -> JsonObject:
    """Delete what was not used for longest, until the rest fits; what is needed stays. Compiled components and old downloads, too."""
    cache = _cache()
    caches = Caches(cache, max_bytes() if limit is None else limit, default_directory())
    gone = let_go_of_caches(of_caches(store, caches), caches)

    def names(kind: str) -> list[Json]:
        return [g.name for g in gone if g.kind == kind]

    return {
        "directory": str(cache.directory), "deleted": names("bundle"), "partial": names("partial"),
        "components": names("component"), "freed": sum(g.size for g in gone),
    }  # fmt: skip
