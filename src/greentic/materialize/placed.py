"""Reading revision directories: what is there, whole and still what was pinned (formats: worker 13; bundle 3).

Rules:
1. A reference is checked as text before the disk is touched; then it must be a regular file below the environment directory, links
   followed.
2. The lock names exactly the packs that are pinned: those of the revision's list or, where that is empty, those of its bundle, whose
   digest is pinned. The bundle is then hashed each time; no list on the disk is believed for it (threats: pinned-subset).
3. Pack configurations are those of the pinned bundle. A revision names them all, or names neither them nor packs.
4. A bundle that lies beside the packs is the pinned one, or they are not used: who changes the pin of a revision means other bytes.
   Where none lies there, and where stores of old pin none, the digests of the packs are all there is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from greentic.bundle.contents import Contents, open_bundle, pack_config_inputs, pack_paths
from greentic.bundle.limits import DEFAULT_LIMITS
from greentic.ground.documents import check_each_once, from_json, open_file, parse, pretty, read_file
from greentic.ground.errors import GreenticError, SpecViolation, StoreError
from greentic.model.environment import DIGEST_PLACEHOLDER, PackListEntry, Revision
from greentic.model.ids import is_contained_ref
from greentic.model.revision_files import (
    PackConfig,
    PackListLock,
    check_lock,
    diverging_packs,
    lock_ref,
    make_lock,
    pack_config,
    pack_config_ref,
    pack_list,
)
from greentic.pack.located import LocatedPack
from greentic.store.layout import EnvPaths
from greentic.trust.gate import verify_file

MAX_LOCK = 16 << 20
BUNDLE_NAME = "bundle.gtbundle"
PACK_CONFIGS = "pack-configs"


class RevisionFault(StoreError):
    """A revision directory is missing, incomplete or not what was pinned."""


def regular_file(paths: EnvPaths, ref: str) -> Path:
    """The file of an env-relative reference. Raises `RevisionFault`."""
    if not is_contained_ref(ref):
        raise RevisionFault(f"`{ref}` is not a valid pack ref: it must stay below the environment directory")
    path = paths.ref(ref)
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise RevisionFault(f"`{ref}` does not exist below `{paths.root}`") from None
    if not real.is_relative_to(paths.root.resolve()) or not real.is_file():
        raise RevisionFault(f"`{ref}` is not a valid pack ref: it is not a regular file below `{paths.root}`")
    return real


def read_lock(paths: EnvPaths, ref: str, revision_id: str) -> PackListLock:
    """A revision's lock. Raises `RevisionFault`."""
    path = regular_file(paths, ref)
    if path.stat().st_size > MAX_LOCK:
        raise RevisionFault(f"`{ref}` is larger than {MAX_LOCK} bytes")
    try:
        data = read_file(path, MAX_LOCK)
        lock = from_json(PackListLock, parse(data))
        check_each_once(data, pretty(lock))
        check_lock(lock, revision_id)
    except (ValueError, SpecViolation) as error:
        raise RevisionFault(f"`{ref}`: {getattr(error, 'message', error)}") from None
    return lock


def verified_packs(paths: EnvPaths, revision: Revision) -> list[LocatedPack]:
    """The packs of a materialized revision, in the lock's order, every digest computed anew. Raises `RevisionFault`."""
    ref = revision.pack_list_lock_ref
    if ref != lock_ref(revision.revision_id):
        raise RevisionFault(
            f"revision `{revision.revision_id}` has the pack list lock `{ref}`, expected `{lock_ref(revision.revision_id)}`; "
            "it was recorded without its bundle",
            hint="stage it again with a bundle: gtc op revisions stage",
        )
    lock = read_lock(paths, ref, revision.revision_id)
    wrong, configs = _compared(paths, revision, lock)
    if wrong:
        raise RevisionFault(
            f"pack list of revision `{revision.revision_id}` diverges from its lock: {', '.join(wrong)}"
        )
    packs: list[LocatedPack] = []
    for pack in lock.packs:
        path = regular_file(paths, pack.path)
        found = file_digest(path)
        if found != pack.digest:
            raise RevisionFault(
                f"revision pack `{pack.path}` does not match pinned digest `{pack.digest}`: it is `{found}`"
            )
        packs.append(LocatedPack(pack.pack_id, path, pack.digest))
    if configs is not None:
        _check_configs(paths, revision, configs)
    return packs


def left_to_bundle(revision: Revision) -> bool:
    """Whether the document lists neither packs nor configurations, as other programs' or those by hand may (rules 2 and 3)."""
    return not revision.pack_list and not revision.pack_config_refs


def config_refs(paths: EnvPaths, revision: Revision) -> list[str]:
    """References of the revision's pack configurations, which were compared with the pinned bundle."""
    if not left_to_bundle(revision):
        return revision.pack_config_refs
    found = (paths.revision(revision.revision_id) / PACK_CONFIGS).glob("*.json")
    return sorted(pack_config_ref(revision.revision_id, path.name.removesuffix(".json")) for path in found)


def _compared(paths: EnvPaths, revision: Revision, lock: PackListLock) -> tuple[list[str], list[PackConfig] | None]:
    """Ids of packs that stand on one side alone, or differ (rule 2); and the bundle's pack configurations, if there is need to ask."""
    if revision.pack_list and not revision.pack_config_refs:
        wrong = diverging_packs(revision.pack_list, lock)
        if not wrong and revision.bundle_digest != DIGEST_PLACEHOLDER:
            _check_bundle(paths, revision)
        return wrong, None
    with _pinned_bundle(paths, revision) as contents:
        wrong = diverging_packs(revision.pack_list or _packs_of(contents, revision), lock)
        if wrong:
            return wrong, None
        ids = {"env_id": revision.env_id, "bundle_id": revision.bundle_id, "revision_id": revision.revision_id}
        return [], list(configs_of(contents, lock, **ids))


def _check_bundle(paths: EnvPaths, revision: Revision) -> None:
    """Raise `RevisionFault` if the bundle beside the packs is not the pinned one (rule 4)."""
    path = paths.revision(revision.revision_id) / BUNDLE_NAME
    try:
        with path.open("rb") as file:
            verify_file(file, revision.bundle_digest, revision_id=revision.revision_id)
    except FileNotFoundError:
        return
    except (OSError, GreenticError) as error:
        raise RevisionFault(f"the packs lie beside another bundle, `{path}`: {error}") from None


@contextmanager
def _pinned_bundle(paths: EnvPaths, revision: Revision) -> Iterator[Contents]:
    """The revision's own bundle, once it is the pinned one. Raises `RevisionFault`, also for what is found wrong in it."""
    path = paths.revision(revision.revision_id) / BUNDLE_NAME
    of_it = "pack configurations" if revision.pack_list else "packs"
    try:
        with (
            path.open("rb") as file,
            verify_file(file, revision.bundle_digest, revision_id=revision.revision_id) as bundle,
        ):
            yield open_bundle(bundle, DEFAULT_LIMITS)
    except (OSError, GreenticError) as error:
        raise RevisionFault(f"the {of_it} of `{path}` cannot be compared: {error}") from None


def _packs_of(contents: Contents, revision: Revision) -> list[PackListEntry]:
    """The packs of a bundle, hashed anew, as a revision would list them."""
    digests: dict[str, str] = {}
    for path in pack_paths(contents.entries):
        digest = hashlib.sha256()
        for block in contents.by_path[path].blocks:
            digest.update(contents.image.read(block))
        digests[path] = f"sha256:{digest.hexdigest()}"
    return pack_list(make_lock(revision.revision_id, digests), {})


def configs_of(
    contents: Contents, lock: PackListLock, *, env_id: str, bundle_id: str, revision_id: str
) -> Iterator[PackConfig]:
    """What the pack configurations of a bundle become. Raises `InvalidArgument` for one of another environment or bundle, or of no pack."""
    known = {p.pack_id for p in lock.packs}
    for source, raw in pack_config_inputs(contents):
        yield pack_config(source, raw, env_id=env_id, bundle_id=bundle_id, revision_id=revision_id, known_packs=known)


def _check_configs(paths: EnvPaths, revision: Revision, configs: list[PackConfig]) -> None:
    """Raise `RevisionFault` unless the pack configurations are those of the pinned bundle, no more, no less, no other (rule 3).

    No document holds their digests; the bundle's does, so they are made once more from it.
    """
    expected = {pack_config_ref(revision.revision_id, c.pack_id): c for c in configs}
    if set(expected) != set(config_refs(paths, revision)):
        told = (
            "has other pack configurations beside it"
            if left_to_bundle(revision)
            else "records other pack configurations"
        )
        raise RevisionFault(f"revision `{revision.revision_id}` {told} than its bundle has")
    for ref, config in expected.items():
        if read_pack_config(paths, ref, revision.revision_id) != config:
            raise RevisionFault(f"`{ref}` is not the configuration that the pinned bundle carries")


def survey(
    paths: EnvPaths, wanted: Iterable[Revision], at_hand: Mapping[str, tuple[str, tuple[LocatedPack, ...]]]
) -> dict[str, tuple[LocatedPack, ...] | GreenticError]:
    """What the disk holds of each wanted revision: its packs, or why they are not usable. What is `at_hand`, packs of a bundle with a
    digest, is not read again."""
    found: dict[str, tuple[LocatedPack, ...] | GreenticError] = {}
    for revision in wanted:
        bundle, packs = at_hand.get(revision.revision_id, (None, ()))
        if bundle == revision.bundle_digest and not diverging_digests(revision, packs):
            found[revision.revision_id] = packs
            continue
        try:
            found[revision.revision_id] = tuple(verified_packs(paths, revision))
        except GreenticError as fault:
            found[revision.revision_id] = fault
    return found


def diverging_digests(revision: Revision, packs: tuple[LocatedPack, ...]) -> bool:
    """Whether packs at hand are not exactly those that the revision pins."""
    return {(p.pack_id, p.digest) for p in packs} != {(p.pack_id, p.digest) for p in revision.pack_list}


def read_pack_config(paths: EnvPaths, ref: str, revision_id: str) -> PackConfig:
    """A pack configuration of the revision. Raises `RevisionFault`."""
    try:
        data = read_file(regular_file(paths, ref), MAX_LOCK)
        config = from_json(PackConfig, parse(data))
        check_each_once(data, pretty(config))
    except (ValueError, SpecViolation) as error:
        raise RevisionFault(f"`{ref}`: {getattr(error, 'message', error)}") from None
    if config.revision_id.upper() != revision_id:
        raise RevisionFault(f"`{ref}` is for revision `{config.revision_id}`, expected `{revision_id}`")
    return config


def is_bootable(revision: Revision) -> bool:
    """Whether a worker could ever pull the revision: a source, a real pin and the lock reference of a staged bundle."""
    return (
        revision.bundle_source_uri is not None
        and revision.bundle_digest != DIGEST_PLACEHOLDER
        and revision.pack_list_lock_ref == lock_ref(revision.revision_id)
    )


def file_digest(path: Path) -> str:
    with open_file(path) as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
