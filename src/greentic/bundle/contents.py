"""The `.gtbundle`: which packs count, and what a strict reader expects (formats: bundle 2).

Rules:
1. Packs are regular files named `*.gtpack` under `packs/` and under each directory of `providers/` but `deployer`, found
   by walking, never by what `bundle.yaml` says. Links, files elsewhere and names that end in another case do not count; what
   is named like a pack where packs are looked for, and is none, is told (`counts_not`).
2. A bundle needs `bundle-manifest.json`; its content is checked by `inspect` alone, because real bundles that workers
   accept do not pass a strict reader.
3. What a bundle is called is the sha256 of the whole file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import msgspec

from greentic.bundle.limits import DEFAULT_LIMITS, BundleLimits
from greentic.bundle.squashfs_reader import Entry, SquashImage
from greentic.ground.documents import parse
from greentic.ground.errors import LimitExceeded, MalformedArtifact
from greentic.model.ids import is_contained_ref, shown
from greentic.trust.gate import VerifiedBundle

T = TypeVar("T")

MANIFEST = "bundle-manifest.json"
LOCK = "bundle-lock.json"
PACK_CONFIG_DIR = "state/pack-configs"
PACK_SUFFIX = ".gtpack"
MAX_DOCUMENT = 4 << 20
"""Most bytes of a JSON document inside a bundle."""
MAX_DOCUMENTS = 32 << 20
"""Most bytes of all pack configurations of a bundle together."""


class Contents(NamedTuple):
    """What an image holds, checked against the limits; no data block was read yet."""

    image: SquashImage
    entries: list[Entry]
    by_path: dict[str, Entry]

    def find(self, path: str) -> Entry | None:
        return self.by_path.get(path)


def listed(bundle: VerifiedBundle, limits: BundleLimits = DEFAULT_LIMITS) -> Contents:
    """What an image holds, bundle or not. Raises `MalformedArtifact`."""
    image = SquashImage(bundle.read_at, bundle.size, limits)
    entries = list(image.entries())
    return Contents(image, entries, {entry.path: entry for entry in entries})


def open_bundle(bundle: VerifiedBundle, limits: BundleLimits = DEFAULT_LIMITS) -> Contents:
    """List a verified bundle. Raises `MalformedArtifact` for anything that is no bundle."""
    contents = listed(bundle, limits)
    manifest = contents.find(MANIFEST)
    if manifest is None or manifest.kind != "file":
        raise MalformedArtifact(f"is not a .gtbundle: extracted tree has no {MANIFEST}")
    return contents


def is_pack(path: str) -> bool:
    """Whether a regular file at this path is one of the bundle's packs (rule 1)."""
    parts = path.split("/")
    if not parts[-1].endswith(PACK_SUFFIX) or parts[-1] == PACK_SUFFIX:
        return False
    if parts[0] == "packs":
        return len(parts) > 1
    return parts[0] == "providers" and len(parts) > 2 and parts[1] != "deployer"


class NoPack(NamedTuple):
    """Why something that is named like a pack counts as none."""

    why: str
    next_step: str


def counts_not(path: str, *, link: bool) -> NoPack | None:
    """Why nobody takes this for a pack though it is named like one; nothing if it is one, or nobody looks for packs there."""
    top, *below = path.split("/")
    name = path.rpartition("/")[2]
    looked = top == "packs" or (top == "providers" and below[:1] != ["deployer"])
    if not below or not looked or not name.lower().endswith(PACK_SUFFIX):
        return None
    if link:
        return NoPack("is a link, and packs are regular files", "put a copy there instead of the link")
    if not name.endswith(PACK_SUFFIX):
        return NoPack(f"ends in `{name[-len(PACK_SUFFIX) :]}`, and packs in `{PACK_SUFFIX}`", "rename the file")
    if name == PACK_SUFFIX:
        return NoPack(f"has no name before `{PACK_SUFFIX}`, and a pack's id is its name", "rename the file")
    if top == "providers" and len(below) < 2:
        return NoPack("lies beside the domains of `providers/`", "put it below packs/ or providers/<domain>/")
    return None


def pack_paths(entries: Iterable[Entry]) -> list[str]:
    """Paths of the packs, sorted component by component. Raises `MalformedArtifact` if there are none, or one that no lock can name."""
    found = [e.path for e in entries if e.kind == "file" and is_pack(e.path)]
    if not found:
        raise MalformedArtifact("contains no .gtpack artifacts under packs/ or providers/<domain>/")
    for path in found:
        if not is_contained_ref(path):
            raise MalformedArtifact(
                f"`{shown(path)}` is a pack that no worker loads: no part of its path may have `:`, `\\` or a control character"
            )
    return sorted(found, key=lambda p: p.encode().split(b"/"))


def pack_config_inputs(contents: Contents) -> Iterator[tuple[str, object]]:
    """File name and parsed content of every `state/pack-configs/*.json`, in order of their names."""
    found = [
        e
        for e in contents.entries
        if e.kind == "file"
        and e.path.startswith(f"{PACK_CONFIG_DIR}/")
        and e.path.count("/") == 2
        and e.path.endswith(".json")
    ]
    if (total := sum(entry.size for entry in found)) > MAX_DOCUMENTS:
        raise LimitExceeded(f"the files of `{PACK_CONFIG_DIR}` have {total} bytes together, more than {MAX_DOCUMENTS}")
    for entry in sorted(found, key=lambda e: e.path.encode()):
        yield entry.path.rsplit("/", 1)[1], _document(contents, entry)


def _document(contents: Contents, entry: Entry) -> object:
    if entry.size > MAX_DOCUMENT:
        raise LimitExceeded(f"`{entry.path}` has {entry.size} bytes, more than {MAX_DOCUMENT}")
    try:
        return parse(contents.image.content(entry))
    except ValueError as error:
        raise MalformedArtifact(f"`{entry.path}` is not JSON: {error}") from None


class BundleManifest(msgspec.Struct, frozen=True):
    """`bundle-manifest.json` as the strict reader wants it."""

    format_version: str
    bundle_id: str
    bundle_name: str
    requested_mode: str
    locale: str
    artifact_extension: str
    generated_resolved_files: list[str] = []
    generated_setup_files: list[str] = []
    app_packs: list[str] = []
    extension_providers: list[str] = []
    catalogs: list[str] = []
    hooks: list[str] = []
    subscriptions: list[str] = []
    capabilities: list[str] = []
    resolved_targets: list[dict[str, object]] = []


class BundleLock(msgspec.Struct, frozen=True):
    """`bundle-lock.json` as the strict reader wants it."""

    schema_version: int
    bundle_id: str
    requested_mode: str
    build_format_version: str
    workspace_root: str
    lock_file: str
    setup_state_files: list[str] = []


def strict_faults(contents: Contents) -> list[str]:
    """What a strict reader would refuse, one line each; a worker serves the bundle all the same."""
    faults: list[str] = []
    manifest = _typed(contents, MANIFEST, BundleManifest, faults)
    lock = _typed(contents, LOCK, BundleLock, faults)
    if manifest is not None:
        if manifest.format_version != "gtbundle-v1":
            faults.append(f"unsupported bundle format version: {manifest.format_version}")
        if not manifest.bundle_id.strip():
            faults.append("bundle manifest bundle_id is empty")
        if manifest.artifact_extension != ".gtbundle":
            faults.append(f"unexpected artifact extension: {manifest.artifact_extension}")
        for path in [*manifest.generated_resolved_files, *manifest.generated_setup_files]:
            if contents.find(path) is None:
                faults.append(f"listed file is missing: {path}")
    if lock is not None:
        if lock.build_format_version != "bundle-lock-v1":
            faults.append(f"unsupported bundle lock version: {lock.build_format_version}")
        if lock.workspace_root != "bundle.yaml" or lock.lock_file != "bundle.lock.json":
            faults.append("bundle lock names an unexpected workspace_root or lock_file")
    if manifest is not None and lock is not None:
        if manifest.bundle_id != lock.bundle_id:
            faults.append("bundle manifest and lock bundle_id do not match")
        if manifest.requested_mode != lock.requested_mode:
            faults.append("bundle manifest and lock requested_mode do not match")
        if manifest.generated_setup_files != lock.setup_state_files:
            faults.append("bundle manifest and lock setup files do not match")
    return faults


def _typed(contents: Contents, path: str, form: type[T], faults: list[str]) -> T | None:
    entry = contents.find(path)
    if entry is None or entry.kind != "file":
        faults.append(f"{path} is missing")
        return None
    try:
        return msgspec.convert(_document(contents, entry), form)
    except (msgspec.ValidationError, MalformedArtifact) as error:
        faults.append(f"{path}: {error}")
        return None
