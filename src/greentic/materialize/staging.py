"""From a verified bundle to a revision directory, with no half state (formats: bundle 3).

Rules:
1. A revision is built in a private directory beside its final place: bundle, unpacked tree, lock, pack configurations.
   The bundle's digest passed the gate before anything here reads it.
2. It comes to its place by a rename under the environment lock. A revision that is there already is moved aside first,
   and back if anything fails; it is deleted only when the new one is in place.
3. What a kill leaves is finished by `recovery`: staging directories are held by a lock, so that the dead can be told.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import BinaryIO

import msgspec

from greentic.bundle.contents import open_bundle, pack_paths
from greentic.bundle.limits import DEFAULT_LIMITS
from greentic.ground.disk import Disk, exclusive, owner_of, sync_file
from greentic.ground.documents import open_file, pretty
from greentic.ground.errors import GreenticError, InvalidArgument, MalformedArtifact
from greentic.materialize.placed import BUNDLE_NAME, PACK_CONFIGS, configs_of
from greentic.materialize.unpack import unpack
from greentic.model.ids import is_semver
from greentic.model.revision_files import PackListLock, make_lock, pack_config_ref
from greentic.pack.archive import PackArchive
from greentic.store.layout import EnvPaths
from greentic.store.recovery import ASIDE_SUFFIX, LOCK_NAME, STAGING_PREFIX
from greentic.trust.gate import VerifiedBundle

_PIECE = 1 << 20
"""Bytes that are copied at once."""


class Staged(msgspec.Struct, frozen=True):
    """A revision that lies complete in its staging directory."""

    revision_id: str
    digest: str
    lock: PackListLock
    versions: dict[str, str]
    """Pack version by pack id, from the manifests of the packs that load."""
    config_refs: list[str]


class StagingArea:
    """A private directory in which one revision is built. Use as a context manager: what is not placed is deleted."""

    def __init__(self, paths: EnvPaths, disk: Disk, revision_id: str, token: str) -> None:
        self._paths, self._disk = paths, disk
        self.revision_id = revision_id
        self.directory = paths.revisions / f"{STAGING_PREFIX}{revision_id}-{token}"
        self._fd = -1

    def __enter__(self) -> StagingArea:
        self._disk.make_directory(self._paths.revisions)
        while not self._made():
            pass
        return self

    def _made(self) -> bool:
        """Make and lock the directory; whether it is there still, for recovery deletes one that is not locked yet."""
        self._disk.make_directory(self.directory, 0o700)
        try:
            self._fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if owner_of(self._paths.revisions) is not None:
            os.fchown(self._fd, 0, -1)  # until it is placed: who may write in it could lead root elsewhere
            if any(os.scandir(self._fd)):
                os.close(self._fd)
                raise OSError(errno.ENOTEMPTY, "somebody wrote in it", str(self.directory))
        exclusive(self._fd)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._fd), self.directory.lstat()):
                return True
        os.close(self._fd)
        return False

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self.directory.exists():
            self._disk.remove_tree(self.directory)

    def create_bundle_file(self) -> BinaryIO:
        """A new private file for the bundle's bytes, open for writing and reading."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self.directory / BUNDLE_NAME, flags, 0o600), "w+b")

    def adopt(self, path: Path, file: BinaryIO) -> None:
        """Have an open bundle as the bundle's file: a second name of it where that can be, else a copy."""
        target = self.directory / BUNDLE_NAME
        try:
            if owner_of(self._paths.revisions) is not None:
                raise OSError(errno.EXDEV, "the file would be given away, the cache's with it")
            os.link(path, target, follow_symlinks=False)
            if target.lstat().st_ino == os.fstat(file.fileno()).st_ino:
                return
            target.unlink()
        except OSError:
            target.unlink(missing_ok=True)
        with self.create_bundle_file() as copy:
            offset = 0
            while piece := os.pread(file.fileno(), _PIECE, offset):  # its position is not ours to move
                copy.write(piece)
                offset += len(piece)
            copy.flush()
            sync_file(copy.fileno())

    def fill(
        self,
        bundle: VerifiedBundle,
        *,
        env_id: str,
        bundle_id: str,
        shown_as: str,
    ) -> Staged:
        """Unpack the bundle, write the lock and the pack configurations. `shown_as` names the bundle in errors.

        Raises `InvalidArgument` (or its kinds) for anything that is no bundle of this environment.
        """
        try:
            contents = open_bundle(bundle, DEFAULT_LIMITS)
            packs = pack_paths(contents.entries)
            target = self.directory / "bundle"
            target.mkdir(mode=0o755)
            digests = unpack(contents, target)
        except MalformedArtifact as error:
            raise type(error)(f"extract bundle `{shown_as}`: {error.message}", hint=error.hint) from None
        lock = make_lock(self.revision_id, {path: digests[path] for path in packs})
        refs: list[str] = []
        for config in configs_of(contents, lock, env_id=env_id, bundle_id=bundle_id, revision_id=self.revision_id):
            self._disk.make_directory(self.directory / PACK_CONFIGS)
            self._disk.write_new(self.directory / PACK_CONFIGS / f"{config.pack_id}.json", pretty(config))
            refs.append(pack_config_ref(self.revision_id, config.pack_id))
        self._disk.write_new(self.directory / LOCK_NAME, pretty(lock))
        return Staged(self.revision_id, bundle.digest, lock, self._versions(lock), refs)

    def _versions(self, lock: PackListLock) -> dict[str, str]:
        """Versions as the packs' own manifests tell them; staging does not need packs that load."""
        versions: dict[str, str] = {}
        prefix = f"revisions/{self.revision_id}/"
        for pack in lock.packs:
            path = self.directory / pack.path.removeprefix(prefix)
            try:
                with path.open("rb") as file:
                    told = PackArchive(file).manifest.version
            except GreenticError:
                continue
            if is_semver(told):  # the document takes no other, whatever a pack says of itself
                versions[pack.pack_id] = told
        return versions


def place(area: StagingArea, paths: EnvPaths, disk: Disk) -> None:
    """Bring a filled staging directory to its place (rule 2). Only under the environment lock."""
    _leave_to_owner(area.directory)
    target = paths.revision(area.revision_id)
    aside = target.with_name(target.name + ASIDE_SUFFIX)
    moved = target.exists()
    if moved:
        disk.rename(target, aside)
    try:
        disk.rename(area.directory, target)
        disk.sync_directory(paths.revisions)
    except OSError:
        if moved and not target.exists():
            disk.rename(aside, target)
        raise
    if moved:
        disk.remove_tree(aside)


def _leave_to_owner(directory: Path) -> None:
    """Give a tree that root filled in somebody else's store to them, now that it is whole."""
    owner = owner_of(directory.parent)
    if owner is None:
        return
    with contextlib.suppress(OSError):  # not every root may
        for _, directories, files, at in os.fwalk(directory):
            for name in (*directories, *files):
                os.chown(name, *owner, dir_fd=at, follow_symlinks=False)
        os.chown(directory, *owner, follow_symlinks=False)


def copy_private(source: Path, target: BinaryIO) -> None:
    """Copy an operator's bundle into the private file. Raises `InvalidArgument` for anything but a regular file."""
    if not source.is_file():
        raise InvalidArgument(f"bundle `{source}` is not a file", hint="pass the path of a .gtbundle file")
    with open_file(source) as file:
        while block := file.read(1 << 20):
            target.write(block)
    target.flush()
    sync_file(target.fileno())
