"""`gtc bundle inspect|verify` and `gtc pack inspect`: what an artifact holds, without running or unpacking anything."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from greentic.activate.warm import looked_into, warnings_of
from greentic.author.source_files import ends_with
from greentic.bundle.compression import NAMES
from greentic.bundle.contents import Contents, counts_not, open_bundle, pack_config_inputs, pack_paths, strict_faults
from greentic.flow.lint import Where, nowhere
from greentic.flow.select import unanswerable
from greentic.ground.disk import io_error, replace_file
from greentic.ground.documents import Json, JsonObject, open_file
from greentic.ground.errors import Conflict, GreenticError, InvalidArgument, MalformedArtifact
from greentic.materialize.placed import file_digest
from greentic.model.ids import is_digest
from greentic.model.revision_files import make_lock, pack_config
from greentic.pack.archive import PackArchive
from greentic.pack.load import LoadedPack, check_together, headers, load_pack
from greentic.pack.located import LocatedPack
from greentic.trust.gate import VerifiedBundle, pin


def _open(path: Path) -> BinaryIO:
    if not path.is_file():
        told = "does not exist" if not os.path.lexists(path) else "is not a file"
        raise InvalidArgument(
            f"`{path}` {told}", hint="build it first: gtc pack build, gtc bundle build" if path.is_dir() else None
        )
    try:
        return open_file(path)
    except OSError as error:
        raise io_error(path, error) from None


def inspect_bundle(path: Path, where: Mapping[str, Where] = MappingProxyType({})) -> JsonObject:
    """Digest, entries, packs, and what a strict reader or a worker would not like; `where` is by path of a pack where its flows stand."""
    with _open(path) as file, named(path, ".gtbundle"):
        return _bundle(pin(file), where)


_MEANT = {
    ".gtpack": "it is a pack: gtc pack inspect {}",
    ".gtbundle": "it is a bundle: gtc bundle inspect {}",
    ".ygtc": "it is a flow, which runs in the directory of its pack: gtc flow run DIR FLOW; by itself: gtc flow lint {}",
}
"""What a file may be that is not what was expected, by how its name ends."""


@contextmanager
def named(path: Path, expected: str) -> Iterator[None]:
    """What is wrong with the bytes of a file, with its name, and what else it may be. `expected` is how such a file ends."""
    try:
        yield
    except MalformedArtifact as error:
        error.message = f"`{path}`: {error.message}"
        meant = next((told for ending, told in _MEANT.items() if ending != expected and ends_with(path, ending)), None)
        error.hint = error.hint or (None if meant is None else meant.format(shlex.quote(str(path))))
        raise


def _looked_at(path: Path, where: Where) -> LoadedPack:
    return looked_into((load_pack(LocatedPack(path.stem, path, file_digest(path)), where=where),), where)[0]


def _bundle(bundle: VerifiedBundle, where: Mapping[str, Where] = MappingProxyType({})) -> JsonObject:
    contents = open_bundle(bundle)
    found = pack_paths(contents.entries)
    packs: list[Json] = []
    warnings: list[str] = []
    loaded: list[LoadedPack] = []
    seen: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="greentic-inspect-") as scratch:
        for number, pack_path in enumerate(found):
            entry = contents.find(pack_path)
            place = Path(scratch) / str(number) / Path(pack_path).name
            place.parent.mkdir()
            with place.open("wb") as copy:  # block by block: a pack may be larger than memory should be
                for block in entry.blocks if entry else ():
                    copy.write(contents.image.read(block))
            row = _pack_row(place)
            if row["loads"]:
                try:
                    pack = _looked_at(place, where.get(pack_path, nowhere))
                    check_together(pack, seen)
                    loaded.append(pack)
                except GreenticError as error:
                    row = {"loads": False, "error": error.message}
            packs.append({"path": pack_path, **row})
            if not row["loads"]:
                warnings.append(f"pack `{pack_path}` does not load: {row['error']}")
        told = unanswerable(headers(loaded), loaded[0].manifest_id) if loaded else []
        warnings += warnings_of(tuple(loaded)) + told
    odd = [(e.path, counts_not(e.path, link=e.kind == "link")) for e in contents.entries if e.kind != "directory"]
    warnings += [f"`{path}` {no.why}: it counts as no pack" for path, no in odd if no is not None]
    files = [e for e in contents.entries if e.kind == "file"]
    return {
        "digest": bundle.digest,
        "size": bundle.size,
        "compression": NAMES.get(contents.image.superblock.compressor, "unknown"),
        "unpacked_bytes": sum(e.size for e in files),
        "strict_faults": list[Json](strict_faults(contents)),
        "packs": packs,
        "refused": _refused(contents, found),
        "warnings": list[Json](warnings),
        "entries": [{"path": e.path, "kind": e.kind, "size": e.size} for e in contents.entries],
    }


def _refused(contents: Contents, packs: list[str]) -> str | None:
    """Why staging refuses this bundle in every environment, or nothing: found by what staging itself asks."""
    try:
        known = {pack.pack_id for pack in make_lock("", dict.fromkeys(packs, "")).packs}
        for source, raw in pack_config_inputs(contents):
            told = raw if isinstance(raw, dict) else {}  # which environment it is for only staging knows
            env_id, bundle_id = str(told.get("env_id")), str(told.get("bundle_id"))
            pack_config(source, raw, env_id=env_id, bundle_id=bundle_id, revision_id="", known_packs=known)
    except GreenticError as error:
        return error.message
    return None


def check_stageable(path: Path) -> list[str]:
    """What a strict reader would refuse. Raises `InvalidArgument` for a bundle that no environment would stage."""
    with _open(path) as file:
        contents = open_bundle(pin(file))
        refused = _refused(contents, pack_paths(contents.entries))
        faults = strict_faults(contents)
    if refused is not None:
        raise InvalidArgument(f"no environment would stage this bundle: {refused}")
    return faults


def _pack_row(path: Path) -> JsonObject:
    try:
        with open_file(path) as file:
            manifest = PackArchive(file).manifest
    except GreenticError as error:
        return {"loads": False, "error": error.message}
    return {
        "loads": True,
        "manifest_id": manifest.pack_id,
        "version": manifest.version,
        "kind": manifest.kind,
        "flows": list[Json](f.id for f in manifest.flows),
    }


def verify_bundle(path: Path, digest: str | None) -> JsonObject:
    """Whether every pack of the bundle loads and, where one is told, the digest is this one. Raises the typed fault."""
    with _open(path) as file:
        bundle = pin(file)
        if digest is not None and not is_digest(f"sha256:{digest.removeprefix('sha256:').lower()}"):
            raise InvalidArgument(f"--digest `{digest}` is not `sha256:` and 64 hex digits")
        if digest is not None and digest.removeprefix("sha256:").lower() != bundle.digest.removeprefix("sha256:"):
            raise Conflict(
                f"`{path}` is `{bundle.digest}`, expected `{digest}`",
                hint="this is not the bundle that was pinned; do not use it",
            )
        with named(path, ".gtbundle"):
            report = _bundle(bundle)
    rows = report["packs"]
    broken = [r for r in rows if isinstance(r, dict) and not r["loads"]] if isinstance(rows, list) else []
    if broken:
        told = "; ".join(f"{r['path']}: {r['error']}" for r in broken)
        raise InvalidArgument(f"{len(broken)} pack(s) of `{path}` do not load: {told}")
    if report["refused"] is not None:
        raise InvalidArgument(f"no environment would stage `{path}`: {report['refused']}")
    return {
        "verified": True,
        "digest": report["digest"],
        "size": report["size"],
        "packs": rows,
        "warnings": report["warnings"],
    }


def inspect_pack(path: Path, where: Where = nowhere) -> JsonObject:
    """Manifest, flows, and the load report of one pack; `where` tells in which source its flows stand."""
    with _open(path), named(path, ".gtpack"):
        pack = _looked_at(path, where)
    with _open(path) as file:
        archive = PackArchive(file)
        entries: list[Json] = [{"path": name, "size": info.file_size} for name, info in archive.entries.items()]
        manifest = archive.manifest
    components: list[Json] = [
        {
            "id": c.id,
            "version": str(c.manifest.get("version", "")),
            "sha256": c.sha256,
            "path": c.path,
            "source": c.reference,
        }
        for c in pack.components
    ]
    return {
        "digest": pack.digest,
        "pack_id": pack.pack_id,
        "manifest_id": manifest.pack_id,
        "version": manifest.version,
        "kind": manifest.kind,
        "publisher": manifest.publisher,
        "warnings": list[Json]([*pack.warnings, *unanswerable(headers([pack]), pack.manifest_id)]),
        "flows": [{"id": f.flow_id, "kind": f.kind, "entry": f.entry, "nodes": len(f.plan.nodes)} for f in pack.flows],
        "signed": pack.signed,
        "components": components,
        "entries": entries,
    }


def write_checked(out: Path, pack: bytes, where: Where = nowhere) -> JsonObject:
    """Write a pack that a worker would load, and tell what it holds; one that it would refuse is not written. Raises why."""
    if out.is_dir() or not out.name:
        raise InvalidArgument(
            f"`{out}` is a directory; expected the name of a file", hint="gtc pack build DIR --out FILE"
        )
    with tempfile.TemporaryDirectory(prefix="greentic-build-") as scratch:
        place = Path(scratch) / "built.gtpack"
        place.write_bytes(pack)
        found = inspect_pack(place, where)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, pack, durable=True)
    except OSError as error:
        raise io_error(error.filename or out, error) from error
    return found
