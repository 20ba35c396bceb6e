"""What makes an environment document legal; the first broken rule wins (formats: environment 10).

The rules in order, each a function below: (1) schema, (2) host environment id, (3) public URL, (4) one binding a slot,
(5) credentials scope, (6) revisions, (7) deployments with shares and overrides, (8 to 11) current revisions and known
packs, (12 to 15) splits, (16) messaging endpoints, (17) extensions. Beyond the existing program, what is found by its id stands once:
revisions, deployments, the splits of a deployment, and revisions in a split. Of two records each reader might take another one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from greentic.ground.documents import replace
from greentic.ground.errors import SpecViolation
from greentic.ground.repeated import repeated
from greentic.model.descriptors import is_instance_id, ref_env, split_descriptor
from greentic.model.environment import (
    DEPLOYMENT_SCHEMA,
    ENDPOINT_SCHEMA,
    ENVIRONMENT_SCHEMA,
    REVISION_SCHEMA,
    SPLIT_SCHEMA,
    BundleDeployment,
    Environment,
    MessagingEndpoint,
    RevenueShare,
    Revision,
    TrafficSplit,
)
from greentic.model.hosts import check_public_base_url
from greentic.model.touched import only, touched
from greentic.model.traffic import check_weights

MAX_OVERRIDE_PACKS = 32
MAX_OVERRIDE_KEYS = 64
MAX_OVERRIDE_BYTES = 16_384


def validate(env: Environment) -> None:
    """Raise `SpecViolation` for the first rule that `env` breaks."""
    check_schema(env.schema, ENVIRONMENT_SCHEMA)
    _same_env(env, env.host_config.env_id, "host_config")
    if env.host_config.public_base_url is not None:
        check_public_base_url(env.host_config.public_base_url)
    _slots(env)
    if env.credentials_ref is not None:
        _scoped(env, "credentials_ref", env.credentials_ref)
    revisions: dict[str, Revision] = {}
    for revision in env.revisions:
        check_schema(revision.schema, REVISION_SCHEMA)
        _same_env(env, revision.env_id, "revision")
        revisions[revision.revision_id] = revision
    for deployment in env.bundles:
        _same_env(env, deployment.env_id, "bundle_deployment")
        check_schema(deployment.schema, DEPLOYMENT_SCHEMA)
        check_revenue_share(deployment.revenue_share)
        check_overrides(deployment.config_overrides)
    _each_once(env)
    _current_revisions(env, revisions)
    _override_packs(env)
    _splits(env, revisions)
    _endpoints(env)
    _extensions(env)


def validate_change(env: Environment, before: Environment) -> None:
    """`validate` for an environment that comes after a legal one: what a deployment that is as it was obeys is not looked at again.

    The rules across deployments are that an id is of one revision, and those of endpoints. What breaks any rule is told as by the whole.
    """
    single = len({r.revision_id for r in env.revisions}) == len(env.revisions)
    if single and env.environment_id == before.environment_id:
        try:
            validate(replace(only(env, touched(before, env)), messaging_endpoints=[]))
            _endpoints(env)
        except SpecViolation:
            pass
        else:
            return
    validate(env)


def check_schema(actual: str, expected: str) -> None:
    if actual != expected:
        raise SpecViolation(f"schema discriminator mismatch: expected `{expected}`, got `{actual}`")


def check_revenue_share(shares: Iterable[RevenueShare]) -> None:
    total = 0
    for share in shares:
        if share.basis_points > 10_000:
            raise SpecViolation(f"basis-points entry exceeds 10000: {share.basis_points}")
        total += share.basis_points
    if total != 10_000:
        raise SpecViolation(f"basis-points entries must sum to 10000, got {total}")


def check_overrides(overrides: dict[str, dict[str, object]]) -> None:
    """Limits of `config_overrides` (formats: environment 4)."""
    if len(overrides) > MAX_OVERRIDE_PACKS:
        raise SpecViolation(
            f"bundle config_overrides carries {len(overrides)} packs, exceeds cap of {MAX_OVERRIDE_PACKS}"
        )
    for pack, keys in overrides.items():
        if not pack:
            raise SpecViolation("bundle config_overrides carries an empty pack id")
        if len(keys) > MAX_OVERRIDE_KEYS:
            raise SpecViolation(
                f"bundle config_overrides for pack `{pack}` carries {len(keys)} keys, exceeds cap of {MAX_OVERRIDE_KEYS}"
            )
        if any(not key for key in keys):
            raise SpecViolation(f"bundle config_overrides for pack `{pack}` carries an empty key")
    if overrides and (size := len(msgspec.json.encode(overrides))) > MAX_OVERRIDE_BYTES:
        raise SpecViolation(f"bundle config_overrides is {size} bytes, exceeds cap of {MAX_OVERRIDE_BYTES}")


def _same_env(env: Environment, actual: str, where: str) -> None:
    if actual != env.environment_id:
        raise SpecViolation(f"env_id mismatch in {where}: expected `{env.environment_id}`, got `{actual}`")


def _scoped(env: Environment, field: str, ref: str) -> None:
    scope = ref_env(ref, "secret")
    if scope != env.environment_id:
        raise SpecViolation(f"{field} ref `{ref}` is scoped to env `{scope}`, expected `{env.environment_id}`")


def _each_once(env: Environment) -> None:
    for what, ids in (
        ("revisions have the id", (r.revision_id for r in env.revisions)),
        ("bundle deployments have the id", (d.deployment_id for d in env.bundles)),
        ("traffic splits are for deployment", (s.deployment_id for s in env.traffic_splits)),
    ):
        twice = repeated(ids)
        if twice is not None:
            raise SpecViolation(f"two {what} `{twice}`")


def _slots(env: Environment) -> None:
    seen: set[str] = set()
    for binding in env.packs:
        if binding.slot in seen:
            raise SpecViolation(f"duplicate capability slot `{binding.slot}` in Environment.packs")
        seen.add(binding.slot)
        split_descriptor(binding.kind)


def _current_revisions(env: Environment, revisions: dict[str, Revision]) -> None:
    for deployment in env.bundles:
        for revision_id in deployment.current_revisions:
            revision = revisions.get(revision_id)
            if revision is None:
                raise SpecViolation(f"reference to unknown revision `{revision_id}`")
            if revision.deployment_id != deployment.deployment_id:
                raise SpecViolation(
                    f"bundle `{deployment.deployment_id}` current_revision `{revision_id}` belongs to deployment "
                    f"`{revision.deployment_id}`"
                )
            if revision.bundle_id != deployment.bundle_id:
                raise SpecViolation(
                    f"bundle deployment `{deployment.deployment_id}` current_revision `{revision_id}` belongs to bundle "
                    f"`{revision.bundle_id}`, not deployment's `{deployment.bundle_id}`"
                )


def _override_packs(env: Environment) -> None:
    if not any(deployment.config_overrides for deployment in env.bundles):
        return
    known: dict[str, set[str]] = {}
    for revision in env.revisions:
        if revision.lifecycle != "archived":
            known.setdefault(revision.deployment_id, set()).update(p.pack_id for p in revision.pack_list)
    for deployment in env.bundles:
        packs = known.get(deployment.deployment_id)
        for pack in deployment.config_overrides if packs else ():
            if packs is not None and pack not in packs:
                raise SpecViolation(
                    f"bundle deployment `{deployment.deployment_id}` config_overrides references pack `{pack}` "
                    "which is not in any current revision's pack_list"
                )


def _splits(env: Environment, revisions: dict[str, Revision]) -> None:
    deployments: dict[str, BundleDeployment] = {d.deployment_id: d for d in env.bundles}
    for split in env.traffic_splits:
        _same_env(env, split.env_id, "traffic_split")
        check_schema(split.schema, SPLIT_SCHEMA)
        check_weights(split.entries)
        deployment = deployments.get(split.deployment_id)
        if deployment is None:
            raise SpecViolation(f"traffic split references unknown deployment `{split.deployment_id}`")
        if split.bundle_id != deployment.bundle_id:
            raise SpecViolation(
                f"traffic split for deployment `{split.deployment_id}` carries bundle `{split.bundle_id}`, but the "
                f"BundleDeployment record holds bundle `{deployment.bundle_id}`"
            )
        _split_entries(split, revisions)


def _split_entries(split: TrafficSplit, revisions: dict[str, Revision]) -> None:
    for entry in split.entries:
        revision = revisions.get(entry.revision_id)
        if revision is None:
            raise SpecViolation(f"reference to unknown revision `{entry.revision_id}`")
        if revision.deployment_id != split.deployment_id:
            raise SpecViolation(
                f"split entry revision `{entry.revision_id}` belongs to deployment `{revision.deployment_id}`, "
                f"not split's `{split.deployment_id}`"
            )
        if revision.bundle_id != split.bundle_id:
            raise SpecViolation(
                f"split entry revision `{entry.revision_id}` belongs to bundle `{revision.bundle_id}`, "
                f"not split's `{split.bundle_id}`"
            )
    twice = repeated(entry.revision_id for entry in split.entries)
    if twice is not None:
        raise SpecViolation(f"traffic split for deployment `{split.deployment_id}` names revision `{twice}` twice")


def _endpoints(env: Environment) -> None:
    bundles = {d.bundle_id for d in env.bundles}
    ids: set[str] = set()
    providers: set[tuple[str, str]] = set()
    for endpoint in env.messaging_endpoints:
        check_schema(endpoint.schema, ENDPOINT_SCHEMA)
        _same_env(env, endpoint.env_id, "messaging_endpoint")
        _endpoint_fields(env, endpoint)
        if endpoint.endpoint_id in ids:
            raise SpecViolation(f"duplicate messaging endpoint `{endpoint.endpoint_id}`")
        ids.add(endpoint.endpoint_id)
        pair = (endpoint.provider_type, endpoint.provider_id)
        if pair in providers:
            raise SpecViolation(f"duplicate messaging endpoint for provider `{pair[0]}` / `{pair[1]}`")
        providers.add(pair)
        for bundle in endpoint.linked_bundles:
            if bundle not in bundles:
                raise SpecViolation(
                    f"messaging endpoint `{endpoint.endpoint_id}` links bundle `{bundle}` which is not deployed"
                )


def _endpoint_fields(env: Environment, endpoint: MessagingEndpoint) -> None:
    for field in ("provider_id", "provider_type"):
        if not getattr(endpoint, field):
            raise SpecViolation(f"messaging endpoint `{endpoint.endpoint_id}` has an empty {field}")
    for ref in [*endpoint.secret_refs, *filter(None, [endpoint.webhook_secret_ref])]:
        _scoped(env, f"messaging endpoint `{endpoint.endpoint_id}` secret", ref)
    welcome = endpoint.welcome_flow
    if welcome is not None:
        if not welcome.flow_id:
            raise SpecViolation(f"messaging endpoint `{endpoint.endpoint_id}` welcome_flow has an empty flow_id")
        if welcome.bundle_id not in endpoint.linked_bundles:
            raise SpecViolation(
                f"messaging endpoint `{endpoint.endpoint_id}` welcome_flow names bundle `{welcome.bundle_id}` "
                "which is not linked"
            )


def _extensions(env: Environment) -> None:
    seen: set[tuple[str, str | None]] = set()
    for binding in env.extensions:
        path, _ = split_descriptor(binding.kind)
        if binding.instance_id is not None and not is_instance_id(binding.instance_id):
            raise SpecViolation(f"extension instance id `{binding.instance_id}` must match [a-z0-9-]+")
        key = (path, binding.instance_id)
        if key in seen:
            raise SpecViolation(
                f"duplicate extension binding for path `{path}` / instance `{binding.instance_id or ''}` "
                "in Environment.extensions"
            )
        seen.add(key)
