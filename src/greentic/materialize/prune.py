"""Carrying out what retention says: looking at what there is, and letting go what the plan names.

Rules:
1. Revisions, backups and the log go under the environment's lock, after a look under the same lock. A revision goes whole or not at all.
2. A cache is shared by all environments of a user. What goes of it was not needed when it was looked at; it can be had again.
3. A bundle or download that another process works on is left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from greentic.distribute.bundle_cache import PARTIAL_DAYS, BundleCache
from greentic.ground.clock import unix_seconds
from greentic.ground.documents import open_file
from greentic.ground.errors import InvalidArgument
from greentic.ground.least_used import Item
from greentic.materialize.retention import DAY, Goes, Needed, Rules, There, needed_bundles, needed_revisions, plan
from greentic.model.environment import DOCUMENT, Environment
from greentic.model.ids import DIGEST, check_ulid
from greentic.store.environments import MAX_DOCUMENT, EnvironmentStore, Transaction
from greentic.store.in_use import in_use
from greentic.store.layout import EnvPaths
from greentic.store.recovery import remove_revision
from greentic.wasm import compiled_files

_DIGEST = re.compile(DIGEST.encode())


class Caches(NamedTuple):
    """What all environments of a user share, and how large it may be."""

    bundles: BundleCache | None
    bundle_bytes: int
    components: Path | None = None
    component_bytes: int = compiled_files.MAX_BYTES
    loaded: frozenset[str] = frozenset()
    """Compiled entries that the asker has loaded."""


def of_revisions(transaction: Transaction, env: Environment) -> list[Goes]:
    """The unpacked revisions that go. Nothing goes while it cannot be known what processes hold."""
    held = in_use(transaction.paths.in_use, transaction.store.clock)
    if held is None:
        return []
    # Of thousands hardly ever one may go: what is not archived stays, whatever else is said of it.
    stays = held | {r.revision_id for r in env.revisions if r.lifecycle != "archived"}
    there = There(revisions=tuple(unpacked(transaction.paths, stays)))
    if not there.revisions:
        return []
    return plan(there, Needed(needed_revisions(env, held)), _rules(transaction.store, None))


def of_history(transaction: Transaction, env: Environment) -> list[Goes]:
    """The backups and the lines of the log that go."""
    there = There(backups=transaction.files.kept(), audit=tuple(transaction.audit.kept()))
    return plan(there, Needed({}), _rules(transaction.store, None)._replace(days=env.retention.audit_retention_days))


def needed_digests(store: EnvironmentStore) -> frozenset[str]:
    """The bundles that needed revisions of all environments have. Of a document that does not load, every digest that stands in it."""
    found: set[str] = set()
    good, broken = store.survey()
    for env in good:
        held = in_use(store.paths(env.environment_id).in_use, store.clock)
        everything = frozenset(r.revision_id for r in env.revisions)
        found |= needed_bundles(env, everything if held is None else held)
    for one in broken:
        with open_file(store.root / one.environment_id / DOCUMENT) as file:
            found.update(digest.decode() for digest in _DIGEST.findall(file.read(MAX_DOCUMENT)))
    return frozenset(found)


def of_caches(store: EnvironmentStore, caches: Caches) -> list[Goes]:
    """What goes of the caches of this user."""
    bundles, partials = caches.bundles, list[Item]()
    entries = [] if bundles is None else [Item(e.digest, e.size, e.used) for e in bundles.entries()]
    if bundles is not None:
        partials = bundles.unfinished()
    components = [] if caches.components is None else compiled_files.entries(caches.components)
    # Every environment is read only if something has to go.
    too_many = sum(e.size for e in entries) > caches.bundle_bytes
    needed = Needed({}, needed_digests(store) if too_many else frozenset(), caches.loaded)
    return plan(There((), tuple(entries), tuple(partials), tuple(components)), needed, _rules(store, caches))


def _rules(store: EnvironmentStore, caches: Caches | None) -> Rules:
    sizes = (0, 0) if caches is None else (caches.bundle_bytes, caches.component_bytes)
    return Rules(unix_seconds(store.clock), *sizes, PARTIAL_DAYS * DAY)


def let_go(goes: Iterable[Goes], transaction: Transaction) -> None:
    """Delete revisions and backups, and cut the log. Raises `OSError`."""
    lines = 0
    for thing in goes:
        if thing.kind == "revision":
            remove_revision(transaction.paths, thing.name, transaction.store.disk)
        elif thing.kind == "backup":
            transaction.store.disk.remove(transaction.paths.backups / thing.name)
        lines += thing.kind == "audit"
    if lines:
        transaction.files.write(transaction.paths.audit, transaction.audit.without_first(lines), mode=0o644)


def let_go_of_caches(goes: Iterable[Goes], caches: Caches) -> list[Goes]:
    """Delete what the plan names of the caches; what went. Raises `OSError`."""
    gone = []
    for thing in goes:
        if thing.kind == "component" and caches.components is not None:
            compiled_files.drop(caches.components, thing.name)
        elif thing.kind == "bundle" and caches.bundles is not None:
            caches.bundles.drop(thing.name)
        elif caches.bundles is None or not caches.bundles.give_up(thing.name, PARTIAL_DAYS * DAY):
            continue
        gone.append(thing)
    return gone


def unpacked(paths: EnvPaths, besides: Collection[str] = ()) -> list[Item]:
    """The revisions that are unpacked, `besides` some, with the bytes that only they hold."""
    found = []
    if paths.revisions.is_dir():
        for name in sorted({entry.name for entry in os.scandir(paths.revisions)}.difference(besides)):
            path = paths.revisions / name
            if _is_ulid(path.name) and path.is_dir() and not path.is_symlink():
                found.append(Item(path.name, _size(path), path.stat().st_mtime))
    return found


def _is_ulid(name: str) -> bool:
    try:
        return check_ulid(name, field="name") == name
    except InvalidArgument:
        return False


def _size(directory: Path) -> int:
    """Bytes of the files below; a bundle that the cache has, too, would free nothing."""
    total, pending = 0, [str(directory)]
    while pending:
        with suppress(OSError):
            for entry in os.scandir(pending.pop()):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                found = entry.stat(follow_symlinks=False)
                total += found.st_size if found.st_nlink == 1 else 0
    return total
