"""`op env apply`: make an environment what one file says (spec: env-store-and-op 4.10).

Rules:
1. First a plan: every step compared with what is there, `create`, `update` or `no-op`. `--dry-run` stops here, `--check`
   fails if anything is to do.
2. Applying runs the verbs of the plan in order, each with its own audit event. Nothing is ever deleted.
3. A bundle is converged when its split routes exactly the wanted digests with the wanted weights and sources.
4. A second apply of the same file does nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from greentic.distribute.fetch import fetch_into
from greentic.ground.documents import Json, JsonObject, compact, pretty, replace
from greentic.ground.errors import Conflict, InvalidArgument, NotFound, NotYetImplemented
from greentic.materialize.placed import file_digest
from greentic.model.descriptors import split_descriptor
from greentic.model.environment import BundleDeployment, Environment, ExtensionBinding
from greentic.model.ids import LOCAL_ENV, check_env_id, check_segment
from greentic.operate import bundles, config, env_packs, revisions, traffic, trust_root
from greentic.operate.change import Context, Done, run
from greentic.operate.env_init import EnvInitPayload, init
from greentic.release import deploy
from greentic.release.env_manifest import (
    EnvManifest,
    ManifestBundle,
    ManifestPack,
    WantedRevision,
    check_manifest,
    route_payload,
    unsupported_sections,
    wanted_revisions,
)
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.store.operator_key import key_path
from greentic.store.operator_key import load as load_operator_key

MAX_DETAIL_DIGEST = 8


class Step(NamedTuple):
    """One step of the plan, and what does it."""

    kind: str
    key: str
    action: str
    detail: str
    run: Callable[[], object]

    def told(self) -> JsonObject:
        return {
            "kind": self.kind,
            "key": self.key,
            "action": self.action,
            "detail": self.detail,
            "idempotency_key": None,
        }


class ApplyOptions(NamedTuple):
    dry_run: bool = False
    check: bool = False
    updated_by: str = traffic.DEFAULT_OPERATOR
    base: Path = Path()
    """What relative paths in the manifest are relative to."""


def apply(context: Context, manifest: EnvManifest, options: ApplyOptions) -> JsonObject:
    """Plan, and unless told otherwise, do. Raises `Conflict` for drift in a check."""
    check_manifest(manifest)
    env_id = check_env_id(manifest.environment.id)
    unsupported = unsupported_sections(manifest)
    if unsupported:
        raise NotYetImplemented(
            f"env apply: the manifest's section(s) {', '.join(unsupported)} belong to subsystems that this program does "
            "not have",
            hint="take them out of the manifest; everything else can be applied",
        )
    with tempfile.TemporaryDirectory(prefix="gtc-apply-") as scratch:
        planner = _Planner(context, manifest, env_id, options, Path(scratch))
        steps, missing = planner.plan()
        todo = [s for s in steps if s.action != "no-op"]
        mode = "check" if options.check else "dry-run" if options.dry_run else "apply"
        report: JsonObject = {
            "manifest_schema": manifest.schema,
            "environment_id": env_id,
            "mode": mode,
            "steps": [s.told() for s in steps],
            "changed": len(todo),
            "no_op": len(steps) - len(todo),
            "undiffable": 0,
            "missing": list[Json](missing),
            "warnings": [],
        }
        if mode == "dry-run":
            return report
        if mode == "check":
            if todo or missing:
                pending = "; ".join(f"{s.kind} {s.key}: {s.detail}" for s in todo)
                raise Conflict(
                    f"env `{env_id}` is not converged: {len(todo)} pending change(s) — run `gtc op env apply --answers "
                    f"<manifest>` to reconcile ({pending})"
                )
            return report
        if missing:
            names = ", ".join(str(m["source"]) for m in missing)
            raise InvalidArgument(f"env apply: {len(missing)} missing input(s): {names}")
        for step in todo:
            step.run()
        after, _ = _Planner(context, manifest, env_id, options, Path(scratch)).plan()
        failures: list[Json] = [s.told() for s in after if s.action != "no-op"]
        report["verify"] = {"checked": 1 + len(manifest.bundles), "failures": failures}
        return report


class _Planner:
    """Compares the manifest with the environment; reads files, changes nothing."""

    def __init__(
        self, context: Context, manifest: EnvManifest, env_id: str, options: ApplyOptions, scratch: Path
    ) -> None:
        self.context, self.manifest, self.env_id, self.options, self.scratch = (
            context,
            manifest,
            env_id,
            options,
            scratch,
        )
        self.missing: list[JsonObject] = []

    def plan(self) -> tuple[list[Step], list[JsonObject]]:
        store = self.context.store
        env = store.load(self.env_id) if store.exists(self.env_id) else None
        if env is None and self.env_id != LOCAL_ENV:
            raise NotFound(
                f"environment `{self.env_id}`", hint=f"gtc op env create {self.env_id} --name NAME, then apply again"
            )
        steps = [self._environment(env), *self._host(env)]
        if self.manifest.trust_root is not None:
            steps.append(self._trust_root())
        steps += [self._pack(env, p) for p in self.manifest.packs]
        for bundle in self.manifest.bundles:
            steps += self._bundle(env, bundle)
        steps += self._extensions(env)
        return steps, self.missing

    # -- environment and trust --------------------------------------------------------------------------------------

    def _environment(self, env: Environment | None) -> Step:
        url = self.manifest.environment.public_base_url
        if env is None:
            return Step(
                "ensure-environment", self.env_id, "create", "env init with the default bindings",
                lambda: init(self.context, EnvInitPayload(public_url=url)),
            )  # fmt: skip
        changed = url is not None and url.rstrip("/") != env.host_config.public_base_url
        detail = f"public_base_url → {url}" if changed else "exists (public_base_url unchanged)"
        return Step(
            "ensure-environment", self.env_id, "update" if changed else "no-op", detail,
            lambda: config.set_config(self.context, config.ConfigSetPayload(environment_id=self.env_id, public_base_url=url)),
        )  # fmt: skip

    def _host(self, env: Environment | None) -> list[Step]:
        wanted = self.manifest.environment
        given: dict[str, object] = {
            "region": wanted.region,
            "tenant_org_id": wanted.tenant_org_id,
            "listen_addr": wanted.listen_addr,
            "gui_enabled": wanted.gui_enabled,
        }
        given = {k: v for k, v in given.items() if v is not None}
        if wanted.name is not None:
            given["name"] = wanted.name
        if not given:
            return []
        now: dict[str, object] = {}
        if env is not None:
            now = {k: env.name if k == "name" else getattr(env.host_config, k) for k in given}
        changed = sorted(k for k in given if now.get(k) != given[k])
        payload = msgspec.convert({"environment_id": self.env_id, **given}, config.ConfigSetPayload)
        return [
            Step(
                "update-host-config", self.env_id, "update" if changed else "no-op",
                f"sets {', '.join(changed)}" if changed else "host fields unchanged",
                lambda: config.set_config(self.context, payload),
            )
        ]  # fmt: skip

    def _trust_root(self) -> Step:
        trusted = False
        detail = "operator key will be generated and trusted"
        if key_path().exists():
            key = load_operator_key(self.context.store.disk)
            trusted = self.context.store.trust_root(self.env_id).trusts(key.key_id)
            detail = f"operator key {key.key_id[:8]} {'already trusted' if trusted else 'will be trusted'}"
        payload = trust_root.TrustRootBootstrapPayload(environment_id=self.env_id)
        return Step(
            "bootstrap-trust-root", self.env_id, "no-op" if trusted else "update", detail,
            lambda: trust_root.bootstrap(self.context, payload),
        )  # fmt: skip

    # -- packs and extensions ---------------------------------------------------------------------------------------

    def _pack(self, env: Environment | None, pack: ManifestPack) -> Step:
        answers = self._answers(pack)
        ref = None if answers is None else f"env-packs/{pack.slot}/answers.json"
        wanted = env_packs.checked_binding(pack.slot, pack.kind, pack.pack_ref, ref)
        current = env.binding(pack.slot) if env else None
        paths = self.context.store.paths(self.env_id)
        same_answers = answers is None or (
            paths.ref(ref or "").is_file() and paths.ref(ref or "").read_bytes() == answers
        )
        same = current is not None and same_answers and (current.kind, current.pack_ref, current.answers_ref) == (
            wanted.kind, wanted.pack_ref, wanted.answers_ref
        )  # fmt: skip
        payload = env_packs.EnvPackBindingPayload(
            environment_id=self.env_id, slot=wanted.slot, kind=pack.kind, pack_ref=pack.pack_ref, answers_ref=ref
        )

        def bind() -> None:
            if answers is not None and ref is not None:
                with self.context.store.transaction(self.env_id) as transaction:
                    transaction.files.replace(paths.ref(ref), answers)
            exists = self.context.store.load(self.env_id).binding(pack.slot) is not None
            (env_packs.update if exists else env_packs.add)(self.context, payload)

        action = "no-op" if same else "update" if current else "create"
        return Step(
            f"{'update' if current else 'add'}-pack-binding", pack.slot, action,
            f"{pack.kind} {'already bound' if same else '→ bound'}", bind,
        )  # fmt: skip

    def _answers(self, pack: ManifestPack) -> bytes | None:
        if pack.answers is not None:
            return pretty(pack.answers)
        if pack.answers_ref is None:
            return None
        path = self.options.base / pack.answers_ref
        if not path.is_file():
            raise InvalidArgument(f"pack `{pack.slot}`: answers file `{path}` does not exist")
        return path.read_bytes()

    def _extensions(self, env: Environment | None) -> list[Step]:
        steps = []
        for wanted in self.manifest.extensions:
            binding = ExtensionBinding(
                kind=wanted.kind,
                pack_ref=wanted.pack_ref,
                instance_id=wanted.instance_id,
                answers_ref=wanted.answers_ref,
            )
            path = split_descriptor(wanted.kind)[0]
            current = next(
                (
                    e
                    for e in (env.extensions if env else [])
                    if (split_descriptor(e.kind)[0], e.instance_id) == (path, wanted.instance_id)
                ),
                None,
            )
            same = current is not None and (current.kind, current.pack_ref, current.answers_ref) == (
                binding.kind, binding.pack_ref, binding.answers_ref
            )  # fmt: skip
            action = "no-op" if same else "update" if current else "create"
            steps.append(
                Step(
                    f"{'update' if current else 'add'}-extension",
                    f"{path}/{wanted.instance_id or ''}".rstrip("/"),
                    action,
                    f"{wanted.kind} {'already bound' if same else '→ bound'}",
                    lambda binding=binding, current=current: self._bind_extension(binding, current),  # type: ignore[misc]
                )
            )
        return steps

    def _bind_extension(self, binding: ExtensionBinding, current: ExtensionBinding | None) -> None:
        verb = "update" if current else "add"
        target: JsonObject = {"kind": binding.kind, "instance_id": binding.instance_id}

        def action(transaction: Transaction) -> Done:
            env = transaction.load()
            if current is None:
                env = replace(env, extensions=[*env.extensions, binding])
            else:
                fresh = replace(binding, generation=current.generation + 1, extra=current.extra)
                env = replace(env, extensions=[fresh if e == current else e for e in env.extensions])
            transaction.save(env)
            return Done({})

        run(self.context, Change(self.env_id, "extensions", verb, target, self.context.mint()), action)

    # -- bundles ----------------------------------------------------------------------------------------------------

    def _bundle(self, env: Environment | None, bundle: ManifestBundle) -> list[Step]:
        check_segment(bundle.bundle_id, field="bundle_id")
        customer = bundles.customer_of(self.env_id, bundle.customer_id)
        wanted: list[tuple[WantedRevision, Path, str]] = []
        for revision in wanted_revisions(bundle):
            located = self._artifact(bundle, revision)
            if located is not None:
                wanted.append((revision, *located))
        deployment = None
        if env is not None:
            deployment = next(
                (d for d in env.bundles if (d.bundle_id, d.customer_id) == (bundle.bundle_id, customer)), None
            )
        kind = "deploy-split" if bundle.revisions else "deploy-bundle"
        steps = []
        if deployment is not None and env is not None:
            steps += self._metadata(bundle, deployment)
            converged = self._converged(env, deployment, wanted)
            if converged:
                detail = (
                    f"split converged ({len(wanted)} revision(s))"
                    if bundle.revisions
                    else f"digest match ({_short(wanted[0][2])})"
                )
                return [Step(kind, bundle.bundle_id, "no-op", detail, lambda: None), *steps]
        names = ", ".join(f"{r.name or bundle.bundle_id}@{_short(d)}" for r, _, d in wanted)
        action = "update" if deployment else "create"
        detail = (
            f"split not converged → deploy {len(wanted)} revision(s) [{names}]" if deployment else f"{names} → routed"
        )
        return [Step(kind, bundle.bundle_id, action, detail, lambda: self._deploy(bundle, customer, wanted)), *steps]

    def _artifact(self, bundle: ManifestBundle, revision: WantedRevision) -> tuple[Path, str] | None:
        """The local file and digest of a wanted revision; a missing file is noted."""
        if revision.path is not None:
            path = self.options.base / revision.path
            if not path.is_file():
                self.missing.append({"kind": "bundle_artifact", "key": bundle.bundle_id, "source": str(path)})
                return None
        else:
            path = self._pulled(revision.source_uri or "")
        digest = file_digest(path)
        if revision.digest is not None and revision.digest != digest:
            raise Conflict(
                f"bundle `{bundle.bundle_id}`: `{path}` is `{digest}`, the manifest says `{revision.digest}`"
            )
        return path, digest

    def _pulled(self, uri: str) -> Path:
        """A URI-only bundle, pulled once a run to learn its digest."""
        name = compact(uri).hex()[:64]
        path = self.scratch / f"{name}.gtbundle"
        if not path.exists():
            with (self.scratch / f"{name}.part").open("w+b") as file:
                fetch_into(file, uri)
            shutil.move(file.name, path)
        return path

    def _metadata(self, bundle: ManifestBundle, deployment: BundleDeployment) -> list[Step]:
        changes: dict[str, object] = {}
        if bundle.status is not None and bundle.status != deployment.status:
            changes["status"] = bundle.status
        if bundle.config_overrides is not None and bundle.config_overrides != deployment.config_overrides:
            changes["config_overrides"] = bundle.config_overrides
        if bundle.route_binding is not None:
            payload = route_payload(bundle.route_binding)
            if bundles.binding_of(payload, keep=deployment.route_binding) != deployment.route_binding:
                changes["route_binding"] = msgspec.to_builtins(payload)
        if bundle.revenue_share is not None:
            shares = [(s.party_id, s.basis_points) for s in bundle.revenue_share]
            if shares != [(s.party_id, s.basis_points) for s in deployment.revenue_share]:
                changes["revenue_share"] = msgspec.to_builtins(bundle.revenue_share)
        if not changes:
            return []
        payload_update = msgspec.convert(
            {"environment_id": self.env_id, "deployment_id": deployment.deployment_id, **changes},
            bundles.BundleUpdatePayload,
        )
        return [
            Step(
                "update-bundle", bundle.bundle_id, "update", f"sets {', '.join(sorted(changes))}",
                lambda: bundles.update(self.context, payload_update),
            )
        ]  # fmt: skip

    @staticmethod
    def _converged(
        env: Environment, deployment: BundleDeployment, wanted: list[tuple[WantedRevision, Path, str]]
    ) -> bool:
        split = env.split(deployment.deployment_id)
        if split is None:
            return False
        have = []
        for entry in split.entries:
            revision = env.revision(entry.revision_id)
            if revision is None or revision.lifecycle != "ready":
                return False
            have.append((revision.bundle_digest, revision.bundle_source_uri or "", entry.weight_bps))
        return sorted(have) == sorted((digest, r.source_uri or "", r.weight_bps) for r, _, digest in wanted)

    def _deploy(self, bundle: ManifestBundle, customer: str, wanted: list[tuple[WantedRevision, Path, str]]) -> None:
        env = self.context.store.load(self.env_id)
        deployment = next(
            (d for d in env.bundles if (d.bundle_id, d.customer_id) == (bundle.bundle_id, customer)), None
        )
        if deployment is None:
            payload = msgspec.convert(
                {
                    "environment_id": self.env_id,
                    "bundle_id": bundle.bundle_id,
                    "customer_id": customer,
                    "route_binding": msgspec.to_builtins(route_payload(bundle.route_binding)),
                    "revenue_share": msgspec.to_builtins(bundle.revenue_share),
                    "config_overrides": bundle.config_overrides,
                },
                bundles.BundleAddPayload,
            )
            deployment_id = str(bundles.add(self.context, payload)["deployment_id"])
        else:
            deployment_id = deployment.deployment_id
        entries = [
            traffic.SplitEntryPayload(
                revision_id=self._revision(deployment_id, revision, path, digest), weight_bps=revision.weight_bps
            )
            for revision, path, digest in wanted
        ]
        traffic.set_traffic(
            self.context,
            traffic.TrafficSetPayload(
                environment_id=self.env_id,
                deployment_id=deployment_id,
                entries=entries,
                idempotency_key=_split_key(bundle, deployment_id, [e.revision_id for e in entries]),
                updated_by=self.options.updated_by,
            ),
        )
        if deployment is None and bundle.status not in (None, "active"):
            update = msgspec.convert(
                {"environment_id": self.env_id, "deployment_id": deployment_id, "status": bundle.status},
                bundles.BundleUpdatePayload,
            )
            bundles.update(self.context, update)

    def _revision(self, deployment_id: str, wanted: WantedRevision, path: Path, digest: str) -> str:
        payload = revisions.RevisionStagePayload(
            environment_id=self.env_id,
            deployment_id=deployment_id,
            bundle_path=str(path),
            bundle_source_uri=wanted.source_uri,
            bundle_digest=digest,
            drain_seconds=revisions.DEFAULT_DRAIN_SECONDS if wanted.drain_seconds is None else wanted.drain_seconds,
            abort_metrics=wanted.abort_metrics,
        )
        return deploy.make_revision(self.context, payload)


def _split_key(bundle: ManifestBundle, deployment_id: str, revision_ids: list[str]) -> str:
    """The key of a new split: what it routes is new, so the key is too."""
    kind = "deploy-split" if bundle.revisions else "deploy"
    return f"{kind}:{deployment_id}:{'+'.join(revision_ids)}"


def _short(digest: str) -> str:
    return digest[: len("sha256:") + MAX_DETAIL_DIGEST]
