"""`op env doctor` and `op env repair` (formats: op 4).

The doctor examines environments that do not even load, and changes nothing. Repair takes routed revisions whose files are
gone out of their splits; on a machine that never had the files (a worker that pulls), it must not be run.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from greentic.distribute.sources import is_relative
from greentic.ground.clock import timestamp
from greentic.ground.documents import replace
from greentic.ground.errors import GreenticError, InvalidArgument, NotFound
from greentic.ground.reply import Reply
from greentic.history.left_namespaces import left_namespaces
from greentic.history.line_chain import breaks, end_missing
from greentic.materialize.placed import is_bootable, verified_packs
from greentic.model.descriptors import REGISTERED, SLOTS, split_descriptor, version_tuple
from greentic.model.environment import Environment
from greentic.model.ids import check_env_id, is_contained_ref
from greentic.model.lifecycle import with_current_revisions
from greentic.model.revision_files import lock_ref
from greentic.model.routes import overlaps
from greentic.model.traffic import rescale
from greentic.net.addresses import shown
from greentic.operate.change import Context, Done, run
from greentic.operate.payload import Payload
from greentic.pack.load import load_packs
from greentic.pack.named_cards import with_cards
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.store.layout import EnvPaths


class StaleRevision(Reply, frozen=True, kw_only=True):
    """A routed revision whose lock file is absent."""

    deployment_id: str
    revision_id: str
    bundle_id: str
    recorded_pack_list_lock_ref: str
    expected_path: str
    detail: str | UnsetType = UNSET
    fix: str | UnsetType = UNSET


class Validity(Reply, frozen=True, kw_only=True):
    """Whether the document loads, and if not, the error's kind and message."""

    status: Literal["ok", "error"]
    kind: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


class Finding(Reply, frozen=True, kw_only=True):
    kind: str
    message: str
    revision_id: str | UnsetType = UNSET
    fix: str | UnsetType = UNSET


class SlotMismatch(Reply, frozen=True, kw_only=True):
    kind: str
    bound_slot: str
    handler_slot: str


class VersionSkew(Reply, frozen=True, kw_only=True):
    kind: str
    requested: str
    supported: str


class Kinds(Reply, frozen=True, kw_only=True):
    """What is odd about the kinds that are bound."""

    unknown_kinds: list[str]
    slot_mismatches: list[SlotMismatch]
    version_skew: list[VersionSkew]


class ExtensionKinds(Kinds, frozen=True, kw_only=True):
    count: int


class Unloadable(Reply, frozen=True, kw_only=True):
    """What is told of an environment that does not load."""

    environment_id: str
    validate: Validity
    backups: list[str]
    """The newest kept copies of the document, by name."""
    checked_at: str


class EnvExamined(Kinds, frozen=True, kw_only=True):
    environment_id: str
    validate: Validity
    bound_slots: list[str]
    missing_slots: list[str]
    extensions: ExtensionKinds
    stale_revisions: list[StaleRevision]
    has_runtime: bool
    checked_at: str
    findings: list[Finding] | UnsetType = UNSET


class Repaired(Reply, frozen=True, kw_only=True):
    environment_id: str
    mode: Literal["check", "apply"]
    stale_revisions: list[StaleRevision]
    repaired: int
    detail: str


def stale_revisions(env: Environment, paths: EnvPaths) -> list[StaleRevision]:
    routed = {e.revision_id for s in env.traffic_splits for e in s.entries}
    found: list[StaleRevision] = []
    for revision in env.revisions:
        ref = revision.pack_list_lock_ref
        if revision.revision_id in routed and is_contained_ref(ref) and not paths.ref(ref).exists():
            found.append(
                StaleRevision(
                    deployment_id=revision.deployment_id,
                    revision_id=revision.revision_id,
                    bundle_id=revision.bundle_id,
                    recorded_pack_list_lock_ref=ref,
                    expected_path=str(paths.ref(ref)),
                )
            )
    return found


def _audit_findings(paths: EnvPaths) -> list[Finding]:
    """Where lines of the log were changed, moved or taken out."""
    try:
        lines = paths.audit.read_bytes().splitlines() if paths.audit.exists() else []
    except OSError as error:
        return [Finding(kind="audit-unreadable", message=f"`{paths.audit}`: {error.strerror}")]
    fix = "compare with a copy of the log; what follows is chained again"
    found = [
        Finding(kind="audit-chain", message=f"{paths.audit.name}, line {b.number}: {b.why}", fix=fix)
        for b in breaks(lines)
    ]
    backups = sorted(path.name for path in paths.backups.glob("environment.json.*.bak"))
    replaced = backups[-1].removeprefix("environment.json.").partition("Z")[0] + "Z" if backups else None
    missing = end_missing(lines, replaced)
    if missing:
        found.append(Finding(kind="audit-end", message=f"{paths.audit.name}: {missing}", fix=fix))
    return [*found, *_left_findings(lines, paths.root.name)]


def _left_findings(lines: list[bytes], env_id: str) -> list[Finding]:
    """Namespaces that were answered before; whether something is in them only a cluster knows."""
    return [
        Finding(
            kind="left-behind",
            message=f"namespace `{namespace}` was reconciled last at {at[:19]}Z, and another one since: what was applied stays until "
            "somebody takes it away",
            fix=f"gtc op env status {env_id} asks the cluster whether it is there, and has the command that takes it away; "
            "once it is gone, the next reconcile that writes notes it",
        )
        for namespace, at in left_namespaces(lines).items()
    ]


def doctor(context: Context, env_id: str) -> EnvExamined | Unloadable:
    """Everything that is wrong, or may be, without changing it."""
    env_id = check_env_id(env_id, field="env_id")
    paths = context.store.paths(env_id)
    checked_at = timestamp(context.clock.now_ns())
    try:
        env = context.store.load(env_id)
    except NotFound:
        raise
    except GreenticError as error:
        return Unloadable(
            environment_id=env_id,
            validate=Validity(status="error", kind=error.kind, message=str(error)),
            backups=[p.name for p in sorted(paths.backups.glob("environment.json.*.bak"))[-5:]],
            checked_at=checked_at,
        )
    findings = [
        *_route_findings(env), *_revision_findings(env, paths), *_load_findings(env, paths),
        *_audit_findings(paths),
    ]  # fmt: skip
    stale = [
        replace(
            s,
            detail=f"traffic is routed to this revision, but `{s.expected_path}` does not exist",
            fix=f"gtc op env repair {env_id} --apply, unless this machine pulls its bundles at boot",
        )
        for s in stale_revisions(env, paths)
    ]
    kinds = _kinds([(b.kind, b.slot) for b in env.packs])
    extensions = _kinds([(b.kind, "extension") for b in env.extensions])
    return EnvExamined(
        environment_id=env_id,
        validate=Validity(status="ok"),
        bound_slots=[b.slot for b in env.packs],
        missing_slots=[s for s in SLOTS if env.binding(s) is None],
        unknown_kinds=kinds.unknown_kinds,
        slot_mismatches=kinds.slot_mismatches,
        version_skew=kinds.version_skew,
        extensions=ExtensionKinds(
            count=len(env.extensions),
            unknown_kinds=extensions.unknown_kinds,
            slot_mismatches=extensions.slot_mismatches,
            version_skew=extensions.version_skew,
        ),
        stale_revisions=stale,
        has_runtime=context.store.runtime(env_id) is not None,
        checked_at=checked_at,
        findings=findings or UNSET,
    )


def _load_findings(env: Environment, paths: EnvPaths) -> list[Finding]:
    """What loading the packs of routed revisions says; those that are not on this machine are left to the worker."""
    routed = {e.revision_id for s in env.traffic_splits for e in s.entries}
    found: list[Finding] = []
    for revision in env.revisions:
        if revision.revision_id not in routed or not paths.ref(lock_ref(revision.revision_id)).is_file():
            continue
        try:
            packs = [with_cards(pack) for pack in load_packs(verified_packs(paths, revision))]
        except GreenticError as error:
            fix = "repair the bundle and stage it again: gtc op revisions stage"
            found.append(
                Finding(kind="does-not-load", revision_id=revision.revision_id, message=error.message, fix=fix)
            )
            continue
        found += [
            Finding(kind="load-warning", revision_id=revision.revision_id, message=f"{pack.pack_id}: {warning}")
            for pack in packs
            for warning in pack.warnings
        ]
    return found


def _kinds(bindings: list[tuple[str, str]]) -> Kinds:
    unknown: list[str] = []
    mismatches: list[SlotMismatch] = []
    skew: list[VersionSkew] = []
    for kind, slot in bindings:
        path, version = split_descriptor(kind)
        if path not in REGISTERED:
            unknown.append(kind)
            continue
        handler_slot, supported = REGISTERED[path]
        if handler_slot != slot:
            mismatches.append(SlotMismatch(kind=kind, bound_slot=slot, handler_slot=handler_slot))
        if version_tuple(version) > version_tuple(supported):
            skew.append(VersionSkew(kind=kind, requested=version, supported=supported))
    return Kinds(unknown_kinds=unknown, slot_mismatches=mismatches, version_skew=skew)


def _route_findings(env: Environment) -> list[Finding]:
    env_id = env.environment_id
    found = [
        Finding(
            kind="route-overlap",
            message=f"deployments `{first}` and `{second}` both claim `{prefix}` on the same host; the first gets it all",
            fix=f"gtc op bundles update {env_id} --deployment {second} route_binding.path_prefixes='[…]'",
        )
        for first, second, prefix in overlaps(env)
    ]
    serving = {s.deployment_id for s in env.traffic_splits}
    found += [
        Finding(
            kind="serves-nothing",
            message=f"deployment `{d.deployment_id}` of bundle `{d.bundle_id}` is active and has no traffic: requests to its routes fail, "
            "whoever else would take them",
            fix=f"route a revision to it: gtc op traffic set {env_id}; or take it away: gtc op bundles retire {env_id} {d.deployment_id}",
        )
        for d in env.bundles
        if d.status == "active" and d.deployment_id not in serving
    ]
    return found


def _revision_findings(env: Environment, paths: EnvPaths) -> list[Finding]:
    routed = {e.revision_id for s in env.traffic_splits for e in s.entries}
    found = [
        Finding(
            kind="not-pullable",
            message=f"revision `{r.revision_id}` is routed, but a worker that starts empty cannot pull it: it was staged "
            "without its bundle or without a source URI",
            fix=f"stage its bundle with a source: gtc op revisions stage {env.environment_id} --deployment {r.deployment_id} "
            "--bundle FILE --source-uri URI",
        )
        for r in env.revisions
        if r.revision_id in routed and not is_bootable(r)
    ]
    found += [
        Finding(
            kind="relative-source",
            message=f"revision `{r.revision_id}` is routed, and its source `{shown(r.bundle_source_uri or '')}` means another file in "
            "each directory that a worker is started in; stage it again with the whole path",
        )
        for r in env.revisions
        if r.revision_id in routed and is_relative(r.bundle_source_uri or "")
    ]
    known = {r.revision_id for r in env.revisions}
    found += [
        Finding(
            kind="orphan-files",
            message=f"`{path}` belongs to no revision",
            fix=f"gtc op env prune {env.environment_id}",
        )
        for path in orphans(known, paths)
    ]
    return found


def orphans(known: set[str], paths: EnvPaths) -> list[str]:
    """Directories below `revisions/` that no record names."""
    if not paths.revisions.is_dir():
        return []
    names = (p.name for p in sorted(paths.revisions.iterdir()) if p.is_dir())
    return [
        str(paths.revision(n)) for n in names if n not in known and not n.startswith(".") and not n.endswith(".bak")
    ]


class RepairPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    check: bool = False
    apply: bool = False


def repair(context: Context, payload: RepairPayload) -> Repaired:
    """Show (or with `apply`, take away) routes to revisions whose files are gone."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    if payload.check and payload.apply:
        raise InvalidArgument("repair takes one of --check or --apply")
    paths = context.store.paths(env_id)
    if not payload.apply:
        stale = stale_revisions(context.store.load(env_id), paths)
        return _told(env_id, "check", stale, 0)
    change = Change(env_id, "env", "repair", {"environment_id": env_id})

    def action(transaction: Transaction) -> Done[Repaired]:
        env = transaction.load()
        stale = stale_revisions(env, paths)
        if stale:
            env = without_stale(env, {s.revision_id for s in stale})
            transaction.save(env)
        for path in orphans({r.revision_id for r in env.revisions}, paths):
            context.store.disk.remove_tree(paths.revisions / path.rsplit("/", 1)[-1])
        if stale:
            transaction.refresh_projection(env)
        return Done(_told(env_id, "apply", stale, len(stale)))

    return run(context, change, action)


def without_stale(env: Environment, stale: set[str]) -> Environment:
    """The environment with stale revisions archived and out of every split, what is left rescaled to the whole."""
    splits = []
    for split in env.traffic_splits:
        kept = [e for e in split.entries if e.revision_id not in stale]
        if len(kept) != len(split.entries):
            scaled = rescale(kept)
            if not scaled:
                continue
            split = replace(split, entries=scaled)
        splits.append(split)
    revisions = [replace(r, lifecycle="archived") if r.revision_id in stale else r for r in env.revisions]
    env = replace(env, traffic_splits=splits, revisions=revisions)
    return with_current_revisions(env, {r.deployment_id for r in revisions if r.revision_id in stale})


def _told(env_id: str, mode: Literal["check", "apply"], stale: list[StaleRevision], repaired: int) -> Repaired:
    if not stale:
        detail = "no stale revisions; nothing to repair"
    elif repaired:
        detail = f"archived {repaired} revision(s) and took them out of their splits"
    else:
        detail = f"{len(stale)} stale revision(s); run with --apply to archive them"
    return Repaired(environment_id=env_id, mode=mode, stale_revisions=stale, repaired=repaired, detail=detail)
