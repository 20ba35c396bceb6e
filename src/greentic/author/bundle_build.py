"""`gtc bundle build`: a `.gtbundle` from a directory (formats: bundle 2).

The directory has `bundle.yaml` and packs below `packs/` and `providers/<domain>/`: a `.gtpack` as it is, a directory with
`pack.yaml` built on the way. `bundle-manifest.json` and `bundle-lock.json` are written from `bundle.yaml` unless they are there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from greentic.author.inspect import check_stageable
from greentic.author.pack_build import SOURCE_FILE, BuiltPack, build_pack
from greentic.author.source_files import (
    MAX_SOURCE,
    check_outside,
    found_in,
    ignored,
    inside,
    one_somewhere,
    parsed,
    read_authored,
    typed,
)
from greentic.bundle.contents import LOCK, MANIFEST, BundleManifest, counts_not, is_pack
from greentic.bundle.squashfs_writer import write_image
from greentic.flow.lint import Where
from greentic.ground.disk import io_error, place, sync_file
from greentic.ground.documents import MAX_BYTES, JsonObject, pretty
from greentic.ground.errors import InvalidArgument, MalformedArtifact
from greentic.materialize.placed import file_digest
from greentic.model.ids import check_segment

BUNDLE_FILE = "bundle.yaml"
SCHEMA_VERSION = 1
_TOP = ("packs", "providers", "resolved", "tenants", "state")
"""What of the directory goes into a bundle, besides the documents at its root."""


class BundleSource(msgspec.Struct, frozen=True):
    """`bundle.yaml`, as far as the manifest repeats it."""

    bundle_id: str
    schema_version: int = SCHEMA_VERSION
    bundle_name: str | None = None
    locale: str = "en"
    mode: str = "create"
    app_packs: list[str] = []
    extension_providers: list[str] = []
    catalogs: list[str] = []
    hooks: list[str] = []
    subscriptions: list[str] = []
    capabilities: list[str] = []


class Built(NamedTuple):
    path: Path
    digest: str
    size: int
    packs: list[str]
    warnings: list[str]
    where: dict[str, Where]
    """By path of a pack that was built on the way, where in its source findings about its flows stand."""


def build_bundle(directory: Path, out: Path) -> Built:
    """Build the bundle of a directory into `out`. Raises `InvalidArgument`; the directory is left as it is."""
    if not directory.is_dir():
        raise InvalidArgument(f"`{directory}` is not a directory", hint="gtc bundle build DIR --out FILE")
    path = inside(directory, directory / BUNDLE_FILE)
    data = read_authored(path, MAX_SOURCE)
    raw = parsed(path, data)
    source = typed(path, BundleSource, raw)
    check_segment(source.bundle_id, field=f"{path}: `bundle_id`")
    check_outside(out, directory, _TOP)
    try:
        with tempfile.TemporaryDirectory(prefix="gtc-bundle-") as scratch:
            tree = Path(scratch)
            found = found_in(directory, _TOP, is_source)
            packs, built = _collect(directory, found.files, tree)
            (tree / BUNDLE_FILE).write_bytes(data)
            _documents(directory, tree, source, packs)
            told = [*ignored(path, BundleSource, raw), *_newer(path, source), *_named_elsewhere(path, source, packs)]
            told += [*found.told(directory), *(text for pack in built.values() for text in pack.warnings)]
            told += one_somewhere(directory, (p.relative_to(tree).as_posix() for p in sorted(tree.rglob("*"))))
            try:
                size, faults = _write(tree, out)
            except InvalidArgument as error:
                error.message = error.message.replace(scratch, str(directory))  # where its author has it
                raise
        stand = {name: pack.where for name, pack in built.items()}
        return Built(out, file_digest(out), size, packs, [*told, *faults], stand)
    except OSError as error:
        raise io_error(error.filename or out, error) from error


def _newer(path: Path, source: BundleSource) -> list[str]:
    if source.schema_version == SCHEMA_VERSION:
        return []
    return [
        f"{path}: `schema_version` is {source.schema_version}; this is read as {SCHEMA_VERSION}, the only one that is known"
    ]


def _named_elsewhere(path: Path, source: BundleSource, packs: list[str]) -> list[str]:
    """Packs that `bundle.yaml` lists and that are not in the bundle, as warnings: nobody fetches what is not in it."""
    there = {PurePosixPath(pack).stem for pack in packs}
    lists = {"app_packs": source.app_packs, "extension_providers": source.extension_providers}
    return [
        f"{path}: `{word}[{number}]` names `{name}`, which is not in the bundle; packs are what lies below packs/ and providers/"
        for word, names in lists.items()
        for number, name in enumerate(names)
        if "://" not in name and PurePosixPath(name).name.removesuffix(".gtpack") not in there
    ]


def _write(tree: Path, out: Path) -> tuple[int, list[str]]:
    """Write the bundle; returns its size, and what strict readers would refuse of it, as warnings."""
    if out.is_dir():
        raise InvalidArgument(
            f"`{out}` is a directory; expected the name of a file", hint="gtc bundle build DIR --out FILE"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            size = write_image(tree, file)
            file.flush()
            sync_file(file.fileno())
        faults = [f"strict readers would refuse it: {fault}" for fault in check_stageable(temporary)]
        place(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return size, faults


def _collect(directory: Path, files: list[Path], tree: Path) -> tuple[list[str], dict[str, BuiltPack]]:
    """Copy what belongs into a bundle; returns the paths of all packs, and by path those that were built on the way from their source."""
    packs: list[str] = []
    built: dict[str, BuiltPack] = {}
    for path in files:
        target = tree / path.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_source(path):
            target = target.with_name(f"{path.name}.gtpack")
            if (directory / target.relative_to(tree)).exists():
                raise InvalidArgument(f"`{path}` and `{path.name}.gtpack` beside it would be the same pack; keep one")
            pack = built[target.relative_to(tree).as_posix()] = _built(path)
            target.write_bytes(pack.data)
        elif path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            shutil.copyfile(path, target)
        name = target.relative_to(tree).as_posix()
        odd = counts_not(name, link=target.is_symlink())
        if odd is not None:
            raise InvalidArgument(f"`{path}` {odd.why}: nobody would load it", hint=odd.next_step)
        if is_pack(name) and not target.is_symlink():
            packs.append(name)
    if not packs:
        raise InvalidArgument(
            f"`{directory}` has no packs",
            hint="put a .gtpack, or a directory with pack.yaml, below packs/ or providers/<domain>/",
        )
    return packs, built


def is_source(path: Path) -> bool:
    """Whether a pack is built from a directory."""
    return (path / SOURCE_FILE).exists()


def _built(path: Path) -> BuiltPack:
    try:
        return build_pack(path)
    except MalformedArtifact as error:
        raise InvalidArgument(f"pack `{path}`: {error.message}") from None


def _documents(directory: Path, tree: Path, source: BundleSource, packs: list[str]) -> None:
    for name, document in ((MANIFEST, _manifest(source, packs)), (LOCK, _lock(source, packs))):
        own = inside(directory, directory / name)
        (tree / name).write_bytes(read_authored(own, MAX_BYTES) if own.exists() else pretty(document))


def _manifest(source: BundleSource, packs: list[str]) -> BundleManifest:
    return BundleManifest(
        format_version="gtbundle-v1",
        bundle_id=source.bundle_id,
        bundle_name=source.bundle_name or source.bundle_id,
        requested_mode=source.mode,
        locale=source.locale,
        artifact_extension=".gtbundle",
        app_packs=source.app_packs or [f"./{p}" for p in packs if p.startswith("packs/")],
        extension_providers=source.extension_providers,
        catalogs=source.catalogs,
        hooks=source.hooks,
        subscriptions=source.subscriptions,
        capabilities=source.capabilities,
    )


def _lock(source: BundleSource, packs: list[str]) -> JsonObject:
    return {
        "schema_version": 1,
        "bundle_id": source.bundle_id,
        "requested_mode": source.mode,
        "execution": "execute",
        "cache_policy": "workspace-local",
        "tool_version": "greentic",
        "build_format_version": "bundle-lock-v1",
        "workspace_root": "bundle.yaml",
        "lock_file": "bundle.lock.json",
        "catalogs": [],
        "app_packs": [{"reference": f"./{p}"} for p in packs if p.startswith("packs/")],
        "extension_providers": [{"reference": f"./{p}"} for p in packs if p.startswith("providers/")],
        "setup_state_files": [],
    }
