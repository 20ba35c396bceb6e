"""`op bundles`: deployments, their routes and their signed revenue policies (formats: op 4).

Checks of `add`, in order, under the lock: duplicate, operator key, trust, share. Ids that become path parts are checked
before anything else. Removing a deployment deletes the files of its revisions and keeps the signed billing history.
"""

from __future__ import annotations

from typing import Annotated, get_args

import msgspec
from msgspec import UNSET, UnsetType

from greentic.ground.clock import timestamp
from greentic.ground.documents import Json, JsonObject, replace, to_json
from greentic.ground.errors import Conflict, InvalidArgument, NotFound
from greentic.ground.reply import Reply
from greentic.model.environment import (
    DEPLOYMENT_SCHEMA,
    BundleDeployment,
    Environment,
    RevenueShare,
    RouteBinding,
    Status,
    TenantSelector,
)
from greentic.model.ids import LOCAL_ENV, check_env_id, check_segment, check_ulid
from greentic.model.routes import impossible_matcher
from greentic.operate.change import Context, Done, Idempotency, checked_key, run, whole
from greentic.operate.payload import Key, Payload, Ulid
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.store.operator_key import load as load_operator_key
from greentic.store.recovery import remove_revision
from greentic.store.signed_policy import check_trusted, write_policy

DEFAULT_PARTY = "greentic"
LOCAL_CUSTOMER = "local-dev"
DEFAULT_AUTHORIZATION = "auth.json"


class TenantSelectorPayload(Payload, frozen=True, kw_only=True):
    tenant: str = "default"
    team: str = "default"


class RouteBindingPayload(Payload, frozen=True, kw_only=True):
    hosts: list[str] = []
    path_prefixes: list[str] = []
    tenant_selector: TenantSelectorPayload | None = None


class SharePayload(Payload, frozen=True, kw_only=True):
    party_id: str
    basis_points: int


Overrides = Annotated[
    dict[str, dict[str, object]],
    msgspec.Meta(
        description="pack id to key to value; replaces what was there",
        extra_json_schema={"additionalProperties": {"type": "object"}},
    ),
]


class BundleAddPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    bundle_id: str
    route_binding: RouteBindingPayload
    customer_id: Annotated[
        str | None, msgspec.Meta(description=f"who is billed; `{LOCAL_CUSTOMER}` in env `{LOCAL_ENV}`")
    ] = None
    revenue_share: list[SharePayload] | None = None
    authorization_ref: str | None = None
    config_overrides: Overrides | None = None
    idempotency_key: Key | None = None


class BundleUpdatePayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: Ulid
    status: Annotated[
        Status | None,
        msgspec.Meta(extra_json_schema={"enum": [*get_args(Status)]}),
    ] = None
    route_binding: RouteBindingPayload | None = None
    revenue_share: list[SharePayload] | None = None
    config_overrides: Overrides | None = None
    idempotency_key: Key | None = None


class BundleRemovePayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: Ulid
    idempotency_key: Key | None = None


class DeploymentSummary(Reply, frozen=True, kw_only=True):
    """What the verbs tell about a deployment."""

    environment_id: str
    bundle_id: str
    deployment_id: str
    customer_id: str
    status: str
    current_revision_count: int
    hosts: list[str]
    pruned_revision_ids: list[str] | UnsetType = UNSET
    """Of `remove`: the revisions that went with it."""


class DeploymentList(Reply, frozen=True, kw_only=True):
    environment_id: str
    deployments: list[DeploymentSummary]


def summary(deployment: BundleDeployment) -> DeploymentSummary:
    return DeploymentSummary(
        environment_id=deployment.env_id,
        bundle_id=deployment.bundle_id,
        deployment_id=deployment.deployment_id,
        customer_id=deployment.customer_id,
        status=deployment.status,
        current_revision_count=len(deployment.current_revisions),
        hosts=deployment.route_binding.hosts,
    )


def find_deployment(env: Environment, deployment_id: str) -> BundleDeployment:
    deployment = env.deployment(deployment_id)
    if deployment is None:
        raise NotFound(
            f"deployment `{deployment_id}` not found in env `{env.environment_id}`",
            hint=f"gtc op bundles list {env.environment_id}",
        )
    return deployment


def customer_of(env_id: str, customer_id: str | None) -> str:
    """The billing principal. Raises `InvalidArgument` where one must be told."""
    if customer_id is None:
        if env_id != LOCAL_ENV:
            raise InvalidArgument(
                f"customer_id is required for non-local env `{env_id}` (the billing principal; P6)",
                hint="say who is billed: customer_id=NAME",
            )
        return LOCAL_CUSTOMER
    return check_segment(customer_id, field="customer_id")


def binding_of(payload: RouteBindingPayload, *, keep: RouteBinding | None = None) -> RouteBinding:
    """The stored binding. Raises `InvalidArgument` for a host or prefix that no request can have."""
    selector = payload.tenant_selector or TenantSelectorPayload()
    binding = RouteBinding(
        hosts=payload.hosts,
        path_prefixes=payload.path_prefixes,
        tenant_selector=TenantSelector(tenant=selector.tenant, team=selector.team),
        extra=keep.extra if keep else {},
    )
    reason = impossible_matcher(binding.hosts, binding.path_prefixes)
    if reason is not None:
        raise InvalidArgument(f"route_binding: {reason}, so no request could ever reach it")
    return binding


def shares_of(payload: list[SharePayload] | None) -> list[RevenueShare]:
    if payload is None:
        return [RevenueShare(party_id=DEFAULT_PARTY, basis_points=10_000)]
    for share in payload:
        if not 0 <= share.basis_points <= 2**32 - 1:
            raise InvalidArgument(
                f"revenue_share: basis_points {share.basis_points} of `{share.party_id}` is out of range"
            )
    return [RevenueShare(party_id=s.party_id, basis_points=s.basis_points) for s in payload]


def add(context: Context, payload: BundleAddPayload) -> DeploymentSummary:
    """Create a deployment: a route and a signed revenue policy. The bundle itself comes with `revisions stage`."""
    env_id = check_env_id(payload.environment_id)
    bundle_id = check_segment(payload.bundle_id, field="bundle_id")
    customer_id = customer_of(env_id, payload.customer_id)
    key = checked_key(payload.idempotency_key)
    shares = shares_of(payload.revenue_share)
    overrides = payload.config_overrides or {}
    made(payload, "", "")  # what is wrong with it is told before the environment is locked
    target: JsonObject = {
        "bundle_id": bundle_id,
        "customer_id": customer_id,
        "revenue_share": to_json(shares),
        "config_overrides": override_keys(overrides),
    }
    change = Change(env_id, "bundles", "add", target, key or context.mint())

    def action(transaction: Transaction) -> Done[DeploymentSummary]:
        env = transaction.load()
        if any((d.bundle_id, d.customer_id) == (bundle_id, customer_id) for d in env.bundles):
            raise Conflict(f"bundle `{bundle_id}` for customer `{customer_id}` already deployed in env `{env_id}`")
        deployment = made(payload, context.mint(), timestamp(context.clock.now_ns()))
        deployment = _signed(context, transaction, deployment, is_new=True)
        transaction.save(replace(env, bundles=[*env.bundles, deployment]))
        return Done(summary(deployment))

    idempotency = Idempotency(key, f"{bundle_id}/{customer_id}", whole(payload), DeploymentSummary)
    return run(context, change, action, idempotency=idempotency)


def made(payload: BundleAddPayload, deployment_id: str, at: str) -> BundleDeployment:
    """The deployment that a payload asks for, its policy still to be signed. Raises `InvalidArgument`."""
    return BundleDeployment(
        schema=DEPLOYMENT_SCHEMA,
        deployment_id=deployment_id,
        env_id=payload.environment_id,
        bundle_id=check_segment(payload.bundle_id, field="bundle_id"),
        customer_id=customer_of(payload.environment_id, payload.customer_id),
        status="active",
        route_binding=binding_of(payload.route_binding),
        revenue_share=shares_of(payload.revenue_share),
        revenue_policy_ref="",
        created_at=at,
        authorization_ref=payload.authorization_ref or DEFAULT_AUTHORIZATION,
        config_overrides=payload.config_overrides or {},
    )


def updated(deployment: BundleDeployment, payload: BundleUpdatePayload) -> BundleDeployment:
    """A deployment with the given parts replaced; a new share is still to be signed. Raises `InvalidArgument`."""
    if payload.status is not None:
        deployment = replace(deployment, status=payload.status)
    if payload.route_binding is not None:
        deployment = replace(deployment, route_binding=binding_of(payload.route_binding, keep=deployment.route_binding))
    if payload.config_overrides is not None:
        deployment = replace(deployment, config_overrides=payload.config_overrides)
    if payload.revenue_share is not None:
        deployment = replace(deployment, revenue_share=shares_of(payload.revenue_share))
    return deployment


def update(context: Context, payload: BundleUpdatePayload) -> DeploymentSummary:
    """Replace the given parts of a deployment; a new share writes and signs the next policy version."""
    env_id = check_env_id(payload.environment_id)
    deployment_id = check_ulid(payload.deployment_id, field="deployment_id")
    key = checked_key(payload.idempotency_key)
    target: JsonObject = {"deployment_id": deployment_id}
    if payload.revenue_share is not None:
        target["revenue_share"] = to_json(shares_of(payload.revenue_share))
    if payload.config_overrides is not None:
        target["config_overrides"] = override_keys(payload.config_overrides)
    change = Change(env_id, "bundles", "update", target, key or context.mint())

    def action(transaction: Transaction) -> Done[DeploymentSummary]:
        env = transaction.load()
        deployment = updated(find_deployment(env, deployment_id), payload)
        if payload.revenue_share is not None:
            deployment = _signed(context, transaction, deployment, is_new=False)
        env = replace(env, bundles=[deployment if d.deployment_id == deployment_id else d for d in env.bundles])
        transaction.save(env)
        transaction.refresh_projection(env)
        return Done(summary(deployment))

    return run(context, change, action, idempotency=Idempotency(key, deployment_id, whole(payload), DeploymentSummary))


def remove(context: Context, payload: BundleRemovePayload) -> DeploymentSummary:
    """Delete a deployment that is no longer live, its archived revisions and their files."""
    env_id = check_env_id(payload.environment_id)
    deployment_id = check_ulid(payload.deployment_id, field="deployment_id")
    key = checked_key(payload.idempotency_key)
    change = Change(env_id, "bundles", "remove", {"deployment_id": deployment_id}, key or context.mint())

    def action(transaction: Transaction) -> Done[DeploymentSummary]:
        env = transaction.load()
        deployment = find_deployment(env, deployment_id)
        env, pruned = without_deployment(env, deployment)
        transaction.save(env)
        transaction.refresh_projection(env)
        delete_revision_files(transaction, pruned)
        result = replace(summary(deployment), pruned_revision_ids=pruned, current_revision_count=0)
        told: JsonObject = {"deployment_id": deployment_id, "pruned_revision_ids": list[Json](pruned)}
        return Done(result, target=told)

    return run(context, change, action, idempotency=Idempotency(key, deployment_id, whole(payload), DeploymentSummary))


def without_deployment(env: Environment, deployment: BundleDeployment) -> tuple[Environment, list[str]]:
    """The environment without a deployment and its revisions. Raises `Conflict` while it is live."""
    deployment_id = deployment.deployment_id
    splits = sum(s.deployment_id == deployment_id for s in env.traffic_splits)
    own = [r for r in env.revisions if r.deployment_id == deployment_id]
    live = sum(r.lifecycle != "archived" for r in own)
    if splits or live:
        raise Conflict(
            f"deployment `{deployment_id}` is still live: {splits} traffic split(s), {live} non-archived revision(s). "
            "Archive revisions and clear the split first.",
            hint=f"gtc op bundles retire {env.environment_id} {deployment.bundle_id} does all of it",
        )
    env = replace(
        env,
        bundles=[d for d in env.bundles if d.deployment_id != deployment_id],
        revisions=[r for r in env.revisions if r.deployment_id != deployment_id],
    )
    return env, [r.revision_id for r in own]


def delete_revision_files(transaction: Transaction, revision_ids: list[str]) -> None:
    for revision_id in revision_ids:
        remove_revision(transaction.paths, revision_id, transaction.store.disk)


def list_deployments(context: Context, env_id: str) -> DeploymentList:
    env = context.store.load(check_env_id(env_id, field="env_id"))
    return DeploymentList(environment_id=env.environment_id, deployments=[summary(d) for d in env.bundles])


def override_keys(overrides: dict[str, dict[str, object]]) -> JsonObject:
    """Overrides as the audit log tells them: keys, never values."""
    return {pack: list[Json](sorted(keys)) for pack, keys in overrides.items()}


def _signed(
    context: Context, transaction: Transaction, deployment: BundleDeployment, *, is_new: bool
) -> BundleDeployment:
    key = load_operator_key(context.store.disk)
    root = context.store.trust_root(transaction.env_id)
    check_trusted(key, root, transaction.paths)
    ref = write_policy(transaction.paths, transaction.files, context.clock, key, root, deployment, is_new=is_new)
    return replace(deployment, revenue_policy_ref=ref)
