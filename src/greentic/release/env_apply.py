"""`op env apply`: make an environment what one file says (formats: op 5).

Rules:
1. First what the plan depends on is looked up, then the plan is made (`env_plan`, pure) and rehearsed (`env_rehearsal`): what would be
   refused later is refused before anything is done. `--dry-run` stops there and prints it, `--check` fails if anything is to do.
2. Applying runs the verbs of the plan in order, each with its own audit event. Nothing is deleted but with `--prune`, and then only what
   was confirmed (`env_unnamed`).
3. A bundle that is told by its source alone is pulled once, to learn its digest; one whose digest is told, too, is not pulled before it
   is staged.
4. A second apply of the same file does nothing: afterwards the plan is made once more, and what it would still do is told.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import UNSET, UnsetType

from greentic.author.source_files import read_authored
from greentic.deployments import bundles, traffic
from greentic.distribute.fetch import fetch_into
from greentic.ground.documents import MAX_BYTES, JsonObject, pretty, replace
from greentic.ground.errors import Conflict, InvalidArgument, NotFound, NotYetImplemented
from greentic.ground.reply import Reply
from greentic.materialize.placed import file_digest
from greentic.model.environment import ExtensionBinding
from greentic.model.ids import LOCAL_ENV, check_env_id
from greentic.operate import config, env_init, env_packs, trust_root
from greentic.operate.change import Context, Done, run
from greentic.release import deploy
from greentic.release.env_manifest import (
    EnvManifest,
    ManifestBundle,
    ManifestPack,
    check_manifest,
    unsupported_sections,
    wanted_revisions,
)
from greentic.release.env_plan import (
    Action,
    Artifact,
    BindExtension,
    BindPack,
    DeployBundle,
    Plan,
    Step,
    Surroundings,
    add_payload,
    answers_place,
    bound_extension,
    deployed,
    make_plan,
    stage_payload,
)
from greentic.release.env_rehearsal import rehearse
from greentic.release.env_unnamed import NOTHING, Surplus, check_confirmed, prune, surplus
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.store.operator_key import key_path
from greentic.store.operator_key import load as load_operator_key


class ApplyOptions(NamedTuple):
    dry_run: bool = False
    check: bool = False
    prune: bool = False
    confirm: str | None = None
    """The digest of the plan of what goes, as it was shown."""
    updated_by: str = traffic.DEFAULT_OPERATOR
    base: Path = Path()
    """What relative paths in the manifest are relative to."""


class StepTold(Reply, frozen=True, kw_only=True):
    kind: str
    key: str
    action: Action
    detail: str
    idempotency_key: None = None


class MissingInput(Reply, frozen=True, kw_only=True):
    kind: str
    key: str
    source: str


class Verified(Reply, frozen=True, kw_only=True):
    checked: int
    failures: list[StepTold]
    """What the plan would still do after everything was done."""


class ApplyReport(Reply, frozen=True, kw_only=True):
    manifest_schema: str
    environment_id: str
    mode: Literal["apply", "dry-run", "check"]
    steps: list[StepTold]
    changed: int
    no_op: int
    undiffable: int = 0
    missing: list[MissingInput]
    warnings: list[str] = []
    verify: Verified | UnsetType = UNSET
    confirm: str | UnsetType = UNSET
    """With `--prune`: what confirms this plan."""


def apply(context: Context, manifest: EnvManifest, options: ApplyOptions) -> ApplyReport:
    """Plan, and unless told otherwise, do. Raises `Conflict` for drift in a check."""
    manifest = check_manifest(manifest, options.base)
    env_id = check_env_id(manifest.environment.id)
    unsupported = unsupported_sections(manifest)
    if unsupported:
        raise NotYetImplemented(
            f"env apply: the manifest's section(s) {', '.join(unsupported)} belong to subsystems that this program does "
            "not have",
            hint="take them out of the manifest; everything else can be applied",
        )
    with tempfile.TemporaryDirectory(prefix="gtc-apply-") as scratch:
        artifacts = _artifacts(manifest, options.base, Path(scratch))
        plan = _plan(context, manifest, env_id, artifacts, options.base)
        extra = _surplus(context, manifest, env_id) if options.prune else NOTHING
        report = _report(manifest, env_id, plan, options)
        if extra.deployments:
            gone = _going(context, env_id, extra)
            report = replace(
                report, steps=[*report.steps, *gone], changed=report.changed + len(gone), confirm=extra.digest
            )
        if not plan.missing:
            rehearse(context, env_id, plan, packs_load=report.mode != "apply")
        if report.mode == "dry-run":
            return report
        if report.mode == "check":
            _check_converged(env_id, report.steps, plan)
            return report
        if plan.missing:
            names = ", ".join(m.source for m in plan.missing)
            raise InvalidArgument(f"env apply: {len(plan.missing)} missing input(s): {names}")
        if extra.deployments:
            check_confirmed(context.store.load(env_id), extra, options.confirm)
        for step in plan.todo:
            _carry_out(context, env_id, step, options.updated_by)
        prune(context, env_id, extra)
        left = [_told(s) for s in _plan(context, manifest, env_id, artifacts, options.base).todo]
        return replace(report, verify=Verified(checked=1 + len(manifest.bundles), failures=left))


def _report(manifest: EnvManifest, env_id: str, plan: Plan, options: ApplyOptions) -> ApplyReport:
    return ApplyReport(
        manifest_schema=manifest.schema,
        environment_id=env_id,
        mode="check" if options.check else "dry-run" if options.dry_run else "apply",
        steps=[_told(s) for s in plan.steps],
        changed=len(plan.todo),
        no_op=len(plan.steps) - len(plan.todo),
        missing=[MissingInput(kind="bundle_artifact", key=m.key, source=m.source) for m in plan.missing],
    )


def _told(step: Step) -> StepTold:
    return StepTold(kind=step.kind, key=step.key, action=step.action, detail=step.detail)


def _surplus(context: Context, manifest: EnvManifest, env_id: str) -> Surplus:
    """What the environment has beyond the manifest."""
    env = context.store.load(env_id) if context.store.exists(env_id) else None
    return surplus(env, frozenset((b.bundle_id, bundles.customer_of(env_id, b.customer_id)) for b in manifest.bundles))


def _going(context: Context, env_id: str, extra: Surplus) -> list[StepTold]:
    told = extra.told(context.store.load(env_id))
    return [StepTold(kind="bundle", key=name, action="delete", detail=detail) for name, detail in told]


def _check_converged(env_id: str, steps: list[StepTold], plan: Plan) -> None:
    todo = [s for s in steps if s.action != "no-op"]
    if todo or plan.missing:
        pending = "; ".join(f"{s.kind} {s.key}: {s.detail}" for s in todo)
        raise Conflict(
            f"env `{env_id}` is not converged: {len(todo)} pending change(s) — run `gtc op env apply --answers "
            f"<manifest>` to reconcile ({pending})"
        )


# -- what the plan depends on ---------------------------------------------------------------------------------------


def _plan(
    context: Context,
    manifest: EnvManifest,
    env_id: str,
    artifacts: dict[tuple[str | None, str | None], Artifact],
    base: Path,
) -> Plan:
    store = context.store
    env = store.load(env_id) if store.exists(env_id) else None
    if env is None and env_id != LOCAL_ENV:
        raise NotFound(f"environment `{env_id}`", hint=f"gtc op env create {env_id} --name NAME, then apply again")
    paths = store.paths(env_id)
    kept = {p.slot: paths.ref(answers_place(p.slot)) for p in manifest.packs if p.answers or p.answers_ref}
    key = load_operator_key(store.disk).key_id if manifest.trust_root and key_path().exists() else None
    around = Surroundings(
        artifacts,
        {p.slot: found for p in manifest.packs if (found := _answers(p, base)) is not None},
        {slot: read_authored(path, MAX_BYTES) for slot, path in kept.items() if path.is_file()},
        key,
        key is not None and store.trust_root(env_id).trusts(key),
    )
    return make_plan(manifest, env_id, env, around, base)


def _answers(pack: ManifestPack, base: Path) -> bytes | None:
    if pack.answers is not None:
        return pretty(pack.answers)
    if pack.answers_ref is None:
        return None
    return read_authored(base / pack.answers_ref, MAX_BYTES, f"pack `{pack.slot}`: answers file ")


def _artifacts(manifest: EnvManifest, base: Path, scratch: Path) -> dict[tuple[str | None, str | None], Artifact]:
    """The bundles that the manifest names, with their digests; files that are not there are left out."""
    found: dict[tuple[str | None, str | None], Artifact] = {}
    for bundle in manifest.bundles:
        for wanted in wanted_revisions(bundle):
            place = (wanted.path, wanted.source_uri)
            if place in found:
                continue
            if wanted.path is None and wanted.digest is not None:
                found[place] = Artifact(wanted.digest, None)
                continue
            path = _pulled(wanted.source_uri or "", scratch) if wanted.path is None else base / wanted.path
            if path.is_file():
                found[place] = Artifact(file_digest(path), path)
    return found


def _pulled(uri: str, scratch: Path) -> Path:
    """A bundle that is told by its source alone (rule 3)."""
    path = scratch / f"{hashlib.sha256(uri.encode()).hexdigest()}.gtbundle"
    with path.open("w+b") as file:
        fetch_into(file, uri)
    return path


# -- carrying out ---------------------------------------------------------------------------------------------------


def _carry_out(context: Context, env_id: str, step: Step, updated_by: str) -> None:
    doing = step.doing
    if isinstance(doing, env_init.EnvInitPayload):
        env_init.init(context, doing)
    elif isinstance(doing, config.ConfigSetPayload):
        config.set_config(context, doing)
    elif isinstance(doing, trust_root.TrustRootBootstrapPayload):
        trust_root.bootstrap(context, doing)
    elif isinstance(doing, bundles.BundleUpdatePayload):
        bundles.update(context, doing)
    elif isinstance(doing, BindPack):
        _bind_pack(context, doing)
    elif isinstance(doing, BindExtension):
        _bind_extension(context, env_id, doing.binding)
    else:
        _deploy(context, env_id, doing, updated_by)


def _bind_pack(context: Context, doing: BindPack) -> None:
    payload = doing.payload
    if doing.answers is not None and payload.answers_ref is not None:
        with context.store.transaction(payload.environment_id) as transaction:
            transaction.files.replace(transaction.paths.ref(payload.answers_ref), doing.answers)
    # `env init` of an earlier step may have bound the slot
    bound = context.store.load(payload.environment_id).binding(payload.slot) is not None
    (env_packs.update if bound else env_packs.add)(context, payload)


class ExtensionBound(Reply, frozen=True, kw_only=True):
    kind: str


def _bind_extension(context: Context, env_id: str, binding: ExtensionBinding) -> None:
    verb = "update" if bound_extension(context.store.load(env_id), binding) else "add"
    target: JsonObject = {"kind": binding.kind, "instance_id": binding.instance_id}

    def action(transaction: Transaction) -> Done[ExtensionBound]:
        env = transaction.load()
        current = bound_extension(env, binding)
        if current is None:
            env = replace(env, extensions=[*env.extensions, binding])
        else:
            fresh = replace(binding, generation=current.generation + 1, extra=current.extra)
            env = replace(env, extensions=[fresh if e == current else e for e in env.extensions])
        transaction.save(env)
        return Done(ExtensionBound(kind=binding.kind))

    run(context, Change(env_id, "extensions", verb, target, context.mint()), action)


def _deploy(context: Context, env_id: str, doing: DeployBundle, updated_by: str) -> None:
    there = deployed(context.store.load(env_id), doing.bundle.bundle_id, doing.customer_id)
    if there is not None:
        _route(context, env_id, doing, there.deployment_id, updated_by)
        return
    deployment_id = bundles.add(context, add_payload(env_id, doing)).deployment_id
    with deploy.serving_or_gone(context, env_id, deployment_id):
        _route(context, env_id, doing, deployment_id, updated_by)
    status = doing.bundle.status
    if status not in (None, "active"):
        update = bundles.BundleUpdatePayload(environment_id=env_id, deployment_id=deployment_id, status=status)
        bundles.update(context, update)


def _route(context: Context, env_id: str, doing: DeployBundle, deployment_id: str, updated_by: str) -> None:
    with deploy.routed_or_archived(context, env_id) as made:
        for wanted, artifact in doing.wanted:
            payload = stage_payload(env_id, deployment_id, wanted, artifact)
            made.append(deploy.make_revision(context, payload).revision_id)
        entries = [
            traffic.SplitEntryPayload(revision_id=revision_id, weight_bps=wanted.weight_bps)
            for revision_id, (wanted, _) in zip(made, doing.wanted, strict=True)
        ]
        traffic.set_traffic(
            context,
            traffic.TrafficSetPayload(
                environment_id=env_id,
                deployment_id=deployment_id,
                entries=entries,
                idempotency_key=_split_key(doing.bundle, deployment_id, made),
                updated_by=updated_by,
            ),
        )


def _split_key(bundle: ManifestBundle, deployment_id: str, revision_ids: list[str]) -> str:
    """The key of a new split: what it routes is new, so the key is too."""
    kind = "deploy-split" if bundle.revisions else "deploy"
    return f"{kind}:{deployment_id}:{'+'.join(revision_ids)}"
