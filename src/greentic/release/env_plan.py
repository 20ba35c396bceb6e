"""What `env apply` is to do: a manifest, an environment and what lies around them in, a list of typed steps out. Pure.

Rules:
1. Nothing is read, asked or downloaded here. What counts beside the two documents is handed in as `Surroundings`.
2. Every wish of the manifest is one step, `create`, `update` or `no-op`; the order is that of carrying out. What is to go is told by
   `env_unnamed`.
3. A step holds the payload of the verb that does it, so that whoever carries it out decides nothing.
4. A bundle is converged when its split routes exactly the wanted digests with the wanted weights and sources.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from greentic.deployments import bundles
from greentic.deployments.stage import DEFAULT_DRAIN_SECONDS, RevisionStagePayload
from greentic.ground.errors import Conflict
from greentic.model.descriptors import split_descriptor
from greentic.model.environment import BundleDeployment, Environment, ExtensionBinding
from greentic.model.ids import check_segment
from greentic.operate import config, env_init, env_packs, trust_root
from greentic.release.env_manifest import (
    EnvManifest,
    ManifestBundle,
    ManifestExtension,
    ManifestPack,
    WantedRevision,
    route_payload,
    wanted_revisions,
)

MAX_DETAIL_DIGEST = 8

Action = Literal["create", "update", "no-op", "delete"]


class Artifact(NamedTuple):
    """The bundle of a wanted revision, as it was found."""

    digest: str
    path: Path | None
    """Where its bytes are; nothing for one that is pulled when it is staged, as its digest was told."""


class Surroundings(NamedTuple):
    """What the plan depends on beside manifest and environment."""

    artifacts: dict[tuple[str | None, str | None], Artifact]
    """By path and source, as the manifest writes them; what is not in it was not there."""
    answers: dict[str, bytes]
    """What the manifest answers, by slot, in the stored form."""
    kept_answers: dict[str, bytes]
    """What the environment has of the same, by slot."""
    operator_key: str | None
    """The id of the operator's key; nothing if there is none yet."""
    trusted: bool
    """Whether the environment trusts it."""


class Missing(NamedTuple):
    """A file that the manifest names and that is not there."""

    key: str
    source: str


class BindPack(NamedTuple):
    """Bind a capability slot; the answers are written first."""

    payload: env_packs.EnvPackBindingPayload
    answers: bytes | None


class BindExtension(NamedTuple):
    binding: ExtensionBinding


class DeployBundle(NamedTuple):
    """Stage and warm every wanted revision, then route to them; the deployment is made where there is none."""

    bundle: ManifestBundle
    customer_id: str
    wanted: tuple[tuple[WantedRevision, Artifact], ...]


Doing = (
    env_init.EnvInitPayload
    | config.ConfigSetPayload
    | trust_root.TrustRootBootstrapPayload
    | bundles.BundleUpdatePayload
    | BindPack
    | BindExtension
    | DeployBundle
)


class Step(NamedTuple):
    """One wish of the manifest."""

    kind: str
    key: str
    action: Action
    detail: str
    """For people: what it changes, or that it changes nothing."""
    doing: Doing


class Plan(NamedTuple):
    steps: list[Step]
    missing: list[Missing]

    @property
    def todo(self) -> list[Step]:
        return [s for s in self.steps if s.action != "no-op"]


def make_plan(manifest: EnvManifest, env_id: str, env: Environment | None, around: Surroundings, base: Path) -> Plan:
    """The steps. `env` is nothing where the environment is still to be made; `base` is what paths are relative to, for messages.

    Raises `InvalidArgument` for a binding or id that cannot be, and `Conflict` for a bundle that is not what the manifest says.
    """
    steps = [_environment(manifest, env_id, env), *_host(manifest, env_id, env)]
    if manifest.trust_root is not None:
        steps.append(_trust_root(env_id, around))
    steps += [_pack(env_id, env, pack, around) for pack in manifest.packs]
    missing: list[Missing] = []
    for bundle in manifest.bundles:
        steps += _bundle(env_id, env, bundle, around, base, missing)
    steps += [_extension(env, wanted) for wanted in manifest.extensions]
    return Plan(steps, missing)


# -- environment and trust ------------------------------------------------------------------------------------------


def _environment(manifest: EnvManifest, env_id: str, env: Environment | None) -> Step:
    url = manifest.environment.public_base_url
    kind = "ensure-environment"
    if env is None:
        doing = env_init.EnvInitPayload(public_url=url)
        return Step(kind, env_id, "create", "env init with the default bindings", doing)
    changed = url is not None and url.rstrip("/") != env.host_config.public_base_url
    detail = f"public_base_url → {url}" if changed else "exists (public_base_url unchanged)"
    payload = config.ConfigSetPayload(environment_id=env_id, public_base_url=url)
    return Step(kind, env_id, "update" if changed else "no-op", detail, payload)


def _host(manifest: EnvManifest, env_id: str, env: Environment | None) -> list[Step]:
    wanted = manifest.environment
    fields: dict[str, object] = {
        "region": wanted.region,
        "tenant_org_id": wanted.tenant_org_id,
        "listen_addr": wanted.listen_addr,
        "gui_enabled": wanted.gui_enabled,
        "name": wanted.name,
    }
    given = {k: v for k, v in fields.items() if v is not None}
    if not given:
        return []
    now = {k: env.name if k == "name" else getattr(env.host_config, k) for k in given} if env is not None else {}
    changed = sorted(k for k in given if now.get(k) != given[k])
    payload = msgspec.convert({"environment_id": env_id, **given}, config.ConfigSetPayload)
    detail = f"sets {', '.join(changed)}" if changed else "host fields unchanged"
    return [Step("update-host-config", env_id, "update" if changed else "no-op", detail, payload)]


def _trust_root(env_id: str, around: Surroundings) -> Step:
    detail = "operator key will be generated and trusted"
    if around.operator_key is not None:
        told = "already trusted" if around.trusted else "will be trusted"
        detail = f"operator key {around.operator_key[:8]} {told}"
    payload = trust_root.TrustRootBootstrapPayload(environment_id=env_id)
    return Step("bootstrap-trust-root", env_id, "no-op" if around.trusted else "update", detail, payload)


# -- packs and extensions -------------------------------------------------------------------------------------------


def answers_place(slot: str) -> str:
    """Where the answers of a slot's binding are kept, relative to the environment's directory."""
    return f"env-packs/{slot}/answers.json"


def _pack(env_id: str, env: Environment | None, pack: ManifestPack, around: Surroundings) -> Step:
    answers = around.answers.get(pack.slot)
    ref = None if answers is None else answers_place(pack.slot)
    wanted = env_packs.checked_binding(pack.slot, pack.kind, pack.pack_ref, ref)
    current = env.binding(pack.slot) if env else None
    same = (
        current is not None
        and (answers is None or around.kept_answers.get(pack.slot) == answers)
        and (current.kind, current.pack_ref, current.answers_ref) == (wanted.kind, wanted.pack_ref, wanted.answers_ref)
    )
    payload = env_packs.EnvPackBindingPayload(
        environment_id=env_id, slot=wanted.slot, kind=pack.kind, pack_ref=pack.pack_ref, answers_ref=ref
    )
    return Step(
        f"{'update' if current else 'add'}-pack-binding",
        pack.slot,
        _action(same, current),
        _bound(pack.kind, same),
        BindPack(payload, answers),
    )


def _extension(env: Environment | None, wanted: ManifestExtension) -> Step:
    binding = ExtensionBinding(
        kind=wanted.kind, pack_ref=wanted.pack_ref, instance_id=wanted.instance_id, answers_ref=wanted.answers_ref
    )
    current = bound_extension(env, binding)
    same = current is not None and (current.kind, current.pack_ref, current.answers_ref) == (
        binding.kind,
        binding.pack_ref,
        binding.answers_ref,
    )
    key = f"{split_descriptor(wanted.kind)[0]}/{wanted.instance_id or ''}".rstrip("/")
    kind = f"{'update' if current else 'add'}-extension"
    return Step(kind, key, _action(same, current), _bound(wanted.kind, same), BindExtension(binding))


def bound_extension(env: Environment | None, binding: ExtensionBinding) -> ExtensionBinding | None:
    """The extension that a binding would replace: of the same path and instance, whatever its version."""
    key = (split_descriptor(binding.kind)[0], binding.instance_id)
    found = env.extensions if env else []
    return next((e for e in found if (split_descriptor(e.kind)[0], e.instance_id) == key), None)


def _action(same: bool, current: object | None) -> Action:
    return "no-op" if same else "update" if current else "create"


def _bound(kind: str, same: bool) -> str:
    return f"{kind} {'already bound' if same else '→ bound'}"


# -- bundles --------------------------------------------------------------------------------------------------------


def _bundle(
    env_id: str,
    env: Environment | None,
    bundle: ManifestBundle,
    around: Surroundings,
    base: Path,
    missing: list[Missing],
) -> list[Step]:
    check_segment(bundle.bundle_id, field="bundle_id")
    customer = bundles.customer_of(env_id, bundle.customer_id)
    wanted: list[tuple[WantedRevision, Artifact]] = []
    for revision in wanted_revisions(bundle):
        artifact = around.artifacts.get((revision.path, revision.source_uri))
        if artifact is None:
            missing.append(Missing(bundle.bundle_id, str(base / (revision.path or revision.source_uri or ""))))
            continue
        if revision.digest not in (None, artifact.digest):
            raise Conflict(
                f"bundle `{bundle.bundle_id}`: `{artifact.path}` is `{artifact.digest}`, the manifest says `{revision.digest}`"
            )
        wanted.append((revision, artifact))
    deployment = deployed(env, bundle.bundle_id, customer)
    doing = DeployBundle(bundle, customer, tuple(wanted))
    kind = "deploy-split" if bundle.revisions else "deploy-bundle"
    metadata = [] if deployment is None else _metadata(env_id, bundle, deployment)
    names = ", ".join(f"{r.name or bundle.bundle_id}@{_short(a.digest)}" for r, a in wanted)
    if deployment is None:
        return [Step(kind, bundle.bundle_id, "create", f"{names} → routed", doing)]
    if _converged(env, deployment, wanted):
        detail = f"digest match ({_short(wanted[0][1].digest)})"
        if bundle.revisions:
            detail = f"split converged ({len(wanted)} revision(s))"
        return [Step(kind, bundle.bundle_id, "no-op", detail, doing), *metadata]
    detail = f"split not converged → deploy {len(wanted)} revision(s) [{names}]"
    return [Step(kind, bundle.bundle_id, "update", detail, doing), *metadata]


def add_payload(env_id: str, doing: DeployBundle) -> bundles.BundleAddPayload:
    """What makes the deployment."""
    return msgspec.convert(
        {
            "environment_id": env_id,
            "bundle_id": doing.bundle.bundle_id,
            "customer_id": doing.customer_id,
            "route_binding": msgspec.to_builtins(route_payload(doing.bundle.route_binding)),
            "revenue_share": msgspec.to_builtins(doing.bundle.revenue_share),
            "config_overrides": doing.bundle.config_overrides,
        },
        bundles.BundleAddPayload,
    )


def stage_payload(env_id: str, deployment_id: str, wanted: WantedRevision, artifact: Artifact) -> RevisionStagePayload:
    """What stages a wanted revision."""
    return RevisionStagePayload(
        environment_id=env_id,
        deployment_id=deployment_id,
        bundle_path=None if artifact.path is None else str(artifact.path),
        bundle_source_uri=wanted.source_uri,
        bundle_digest=artifact.digest,
        drain_seconds=DEFAULT_DRAIN_SECONDS if wanted.drain_seconds is None else wanted.drain_seconds,
        abort_metrics=wanted.abort_metrics,
    )


def deployed(env: Environment | None, bundle_id: str, customer_id: str) -> BundleDeployment | None:
    found = env.bundles if env else []
    return next((d for d in found if (d.bundle_id, d.customer_id) == (bundle_id, customer_id)), None)


def _metadata(env_id: str, bundle: ManifestBundle, deployment: BundleDeployment) -> list[Step]:
    """What the manifest says about a deployment and is otherwise there; what it leaves out stays as it is."""
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
    update = msgspec.convert(
        {"environment_id": env_id, "deployment_id": deployment.deployment_id, **changes}, bundles.BundleUpdatePayload
    )
    return [Step("update-bundle", bundle.bundle_id, "update", f"sets {', '.join(sorted(changes))}", update)]


def _converged(
    env: Environment | None, deployment: BundleDeployment, wanted: list[tuple[WantedRevision, Artifact]]
) -> bool:
    split = env.split(deployment.deployment_id) if env else None
    if env is None or split is None or not wanted:
        return False
    have = []
    for entry in split.entries:
        revision = env.revision(entry.revision_id)
        if revision is None or revision.lifecycle != "ready":
            return False
        have.append((revision.bundle_digest, revision.bundle_source_uri or "", entry.weight_bps))
    return sorted(have) == sorted((a.digest, r.source_uri or "", r.weight_bps) for r, a in wanted)


def _short(digest: str) -> str:
    return digest[: len("sha256:") + MAX_DETAIL_DIGEST]
