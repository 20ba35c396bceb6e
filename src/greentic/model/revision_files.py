"""Documents beside a revision: its pack list lock and pack configurations (formats: environment 12)."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

import msgspec

from greentic.ground.documents import Document
from greentic.ground.errors import InvalidArgument, SpecViolation
from greentic.ground.repeated import repeated
from greentic.model.environment import PackListEntry
from greentic.model.ids import Ulid

LOCK_SCHEMA = "greentic.pack-list-lock.v1"
PACK_CONFIG_SCHEMA = "greentic.pack-config.v1"
PACK_CONFIG_INPUT_SCHEMA = "greentic.pack-config-input.v1"


class LockedPack(Document, frozen=True, kw_only=True):
    pack_id: str
    path: str
    digest: str


class PackListLock(Document, frozen=True, kw_only=True):
    schema: str
    revision_id: Ulid
    packs: list[LockedPack]


class PackConfig(Document, frozen=True, kw_only=True):
    schema: str
    pack_id: str
    revision_id: Ulid
    non_secret: dict[str, object] = msgspec.field(default_factory=dict)
    secret_refs: dict[str, str] = msgspec.field(default_factory=dict)
    runtime_refs: dict[str, str] = msgspec.field(default_factory=dict)


class PackConfigInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle carries; the one document whose unknown keys are refused."""

    schema: str
    pack_id: str
    env_id: str
    bundle_id: str
    non_secret: dict[str, object] = msgspec.field(default_factory=dict)
    secret_refs: dict[str, str] = msgspec.field(default_factory=dict)


def lock_ref(revision_id: str) -> str:
    """Where a staged revision's lock lies, relative to the environment directory."""
    return f"revisions/{revision_id}/pack-list.lock"


def pack_config_ref(revision_id: str, pack_id: str) -> str:
    """Where the configuration of a pack lies, env-relative."""
    return f"revisions/{revision_id}/pack-configs/{pack_id}.json"


def make_lock(revision_id: str, digests: dict[str, str]) -> PackListLock:
    """The lock for packs by path inside the bundle, sorted component by component (formats: bundle 3).

    Raises `InvalidArgument` when two packs share a file stem: the stem is the pack's id.
    """
    packs: list[LockedPack] = []
    seen: dict[str, str] = {}
    for path in sorted(digests, key=lambda p: p.encode().split(b"/")):
        stem = PurePosixPath(path).name.removesuffix(".gtpack")
        if stem in seen:
            raise InvalidArgument(
                f"bundle stages two packs with the same pack id `{stem}`: `{seen[stem]}` and `{path}`. Pack ids come from "
                "the file stem, so rename one of the files"
            )
        seen[stem] = path
        packs.append(LockedPack(pack_id=stem, path=f"revisions/{revision_id}/bundle/{path}", digest=digests[path]))
    return PackListLock(schema=LOCK_SCHEMA, revision_id=revision_id, packs=packs)


def pack_list(lock: PackListLock, versions: dict[str, str]) -> list[PackListEntry]:
    """The revision's pack list, sorted by pack id; a version that no manifest tells is `0.0.0`."""
    entries = [
        PackListEntry(pack_id=p.pack_id, version=versions.get(p.pack_id, "0.0.0"), digest=p.digest) for p in lock.packs
    ]
    return sorted(entries, key=lambda e: e.pack_id)


def diverging_packs(recorded: list[PackListEntry], lock: PackListLock) -> list[str]:
    """Ids of packs that are recorded and locked differently, or stand on one side alone (threats: pinned-subset)."""
    pinned = Counter((e.pack_id, e.digest) for e in recorded)
    locked = Counter((p.pack_id, p.digest) for p in lock.packs)
    return sorted({pack_id for pack_id, _ in (pinned - locked) | (locked - pinned)})


def pack_config(
    source: str, raw: object, *, env_id: str, bundle_id: str, revision_id: str, known_packs: set[str]
) -> PackConfig:
    """The pack configuration that an input of a bundle becomes. `source` is the input's file name.

    Raises `InvalidArgument` for the first check that fails (formats: environment 12).
    """

    def refuse(reason: str) -> InvalidArgument:
        return InvalidArgument(f"pack-config-input `{source}`: {reason}")

    try:
        found = msgspec.convert(raw, PackConfigInput)
    except msgspec.ValidationError as error:
        raise refuse(str(error)) from None
    if found.schema != PACK_CONFIG_INPUT_SCHEMA:
        raise refuse(f"unexpected schema `{found.schema}` (want `{PACK_CONFIG_INPUT_SCHEMA}`)")
    if found.env_id != env_id:
        raise refuse(f"env_id `{found.env_id}` does not match target env `{env_id}`")
    if found.bundle_id != bundle_id:
        raise refuse(f"bundle_id `{found.bundle_id}` does not match target bundle `{bundle_id}`")
    if found.pack_id not in known_packs:
        raise refuse(f"pack_id `{found.pack_id}` is not in the bundle's pack-list.lock")
    stem = PurePosixPath(source).name.removesuffix(".json")
    if stem != found.pack_id:
        raise refuse(f"file stem `{stem}` disagrees with embedded pack_id `{found.pack_id}`")
    for key, ref in found.secret_refs.items():
        if not ref.startswith("secret://") or ref.count("/") < 3:
            raise refuse(f"secret_refs.{key} = `{ref}` is not a valid `secret://` URI (expected secret://<env>/<path>)")
        scope = f"secret://{env_id}/{bundle_id}/{found.pack_id}/{key}"
        if ref != scope:
            raise refuse(f"secret_refs.{key} = `{ref}` is not scoped to `{scope}`")
    return PackConfig(
        schema=PACK_CONFIG_SCHEMA,
        pack_id=found.pack_id,
        revision_id=revision_id,
        non_secret=dict(sorted(found.non_secret.items())),
        secret_refs=dict(sorted(found.secret_refs.items())),
    )


def check_lock(lock: PackListLock, revision_id: str) -> None:
    """Raise `SpecViolation` unless the lock is this revision's and pins at least one pack, and each once."""
    if lock.schema != LOCK_SCHEMA:
        raise SpecViolation(f"schema discriminator mismatch: expected `{LOCK_SCHEMA}`, got `{lock.schema}`")
    if lock.revision_id.upper() != revision_id:
        raise SpecViolation(f"pack-list.lock is for revision `{lock.revision_id}`, expected `{revision_id}`")
    if not lock.packs:
        raise SpecViolation(f"revision `{revision_id}` resolved to no pinned packs")
    twice = repeated(pack.pack_id for pack in lock.packs)
    if twice is not None:
        raise SpecViolation(f"pack-list.lock of revision `{revision_id}` names pack `{twice}` twice")
