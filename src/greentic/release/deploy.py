"""`op deploy`: add, stage, warm and route in one call (formats: op 4).

Each step is the verb itself, with its own audit event. What fails half way is taken back: the revision that was made is archived, and
a deployment that was new goes again, for it would claim its routes and serve nothing at them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from greentic.deployments import bundles, revisions, traffic
from greentic.deployments.bundles import Overrides, RouteBindingPayload, SharePayload
from greentic.deployments.stage import DEFAULT_DRAIN_SECONDS, RevisionStagePayload, stage
from greentic.distribute.sources import check_source
from greentic.ground.errors import Conflict, GreenticError, InvalidArgument, NotFound
from greentic.ground.reply import Reply
from greentic.model.environment import BundleDeployment, Environment
from greentic.model.ids import LOCAL_ENV, check_env_id, check_segment
from greentic.operate.change import Context, checked_key
from greentic.operate.payload import Payload


class RemotePinsPayload(Payload, frozen=True, kw_only=True, forbid_unknown_fields=True):
    bundle_digest: Annotated[str | None, msgspec.Meta(description="what the bundle's sha256 must be")] = None
    pack_list: list[dict[str, object]] = []
    pack_list_lock_ref: str | None = None
    config_digest: str | None = None
    signature_sidecar_ref: str | None = None
    drain_seconds: int | None = None


class BundleDeployPayload(Payload, frozen=True, kw_only=True):
    environment_id: str = LOCAL_ENV
    bundle_id: str
    bundle_path: Annotated[str | None, msgspec.Meta(description="the .gtbundle to deploy")] = None
    bundle_source_uri: Annotated[str | None, msgspec.Meta(description="where a worker pulls the same bytes")] = None
    customer_id: str | None = None
    remote_pins: Annotated[RemotePinsPayload | None, msgspec.Meta(description="pins that the revision gets")] = None
    idempotency_key: Annotated[str | None, msgspec.Meta(description="of the traffic split")] = None
    config_overrides: Overrides | None = None
    route_binding: Annotated[RouteBindingPayload | None, msgspec.Meta(description="default: every path")] = None
    revenue_share: list[SharePayload] | None = None


class Deployed(Reply, frozen=True, kw_only=True):
    environment_id: str
    bundle_id: str
    deployment_id: str
    revision_id: str
    reused_deployment: bool
    superseded_revisions: list[str]
    """What took the traffic before."""
    traffic: str = "100% (10000 bps)"
    status: str = "routed"
    warnings: list[str] | UnsetType = UNSET
    """Where there are any: what loads and can never work, by pack."""


def deploy(context: Context, payload: BundleDeployPayload) -> Deployed:
    """Bring a bundle into service under 100 % of its deployment's traffic."""
    env_id = check_env_id(payload.environment_id)
    bundle_id = check_segment(payload.bundle_id, field="bundle_id")
    customer_id = bundles.customer_of(env_id, payload.customer_id)
    key = checked_key(payload.idempotency_key)
    if payload.bundle_source_uri is not None:
        written = check_source(payload.bundle_source_uri, "bundle_source_uri")
        payload = msgspec.structs.replace(payload, bundle_source_uri=written)
    if payload.bundle_path is None and payload.bundle_source_uri is None:
        raise InvalidArgument(
            "deploy: missing `--bundle <PATH>`", hint=f"gtc op deploy --env {env_id} --bundle ./my.gtbundle"
        )
    try:
        env = context.store.load(env_id)
    except NotFound:
        raise NotFound(
            f"environment `{env_id}` not found — run `gtc op env init` (then `gtc op trust-root bootstrap {env_id}`) "
            "before deploying"
        ) from None
    _check_selector(payload.route_binding)
    deployment = next((d for d in env.bundles if (d.bundle_id, d.customer_id) == (bundle_id, customer_id)), None)
    if deployment is not None:
        _check_binding(payload, deployment)
        known = _already(env, deployment, key)
        return known or _routed(context, payload, env_id, deployment.deployment_id, is_new=False)
    try:
        deployment_id = bundles.add(context, _add_payload(payload, env_id, customer_id)).deployment_id
    except Conflict:
        if (bundle_id, customer_id) not in {(d.bundle_id, d.customer_id) for d in context.store.load(env_id).bundles}:
            raise
        return deploy(context, payload)  # another one added it meanwhile: as if it had been there before
    with serving_or_gone(context, env_id, deployment_id):
        return _routed(context, payload, env_id, deployment_id, is_new=True)


@contextlib.contextmanager
def serving_or_gone(context: Context, env_id: str, deployment_id: str) -> Iterator[None]:
    """For putting something that serves into a new deployment. If that fails, however it does, the deployment goes again."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(GreenticError):
            gone = bundles.BundleRemovePayload(environment_id=env_id, deployment_id=deployment_id)
            bundles.remove(context, gone)  # refused where somebody else has put something into it meanwhile
        raise


@contextlib.contextmanager
def routed_or_archived(context: Context, env_id: str) -> Iterator[list[str]]:
    """For routing to revisions, whose ids are put into the list as they are made. If that fails they are archived."""
    made: list[str] = []
    try:
        yield made
    except BaseException:
        for revision_id in made:
            abandon(context, env_id, revision_id)
        raise


def _routed(
    context: Context, payload: BundleDeployPayload, env_id: str, deployment_id: str, *, is_new: bool
) -> Deployed:
    """A new revision of a deployment under all of its traffic."""
    split = context.store.load(env_id).split(deployment_id)
    superseded = [e.revision_id for e in split.entries] if split else []
    with routed_or_archived(context, env_id) as own:
        made = make_revision(context, _stage_payload(payload, env_id, deployment_id))
        own.append(revision_id := made.revision_id)
        if not is_new and payload.config_overrides is not None:
            bundles.update(
                context,
                bundles.BundleUpdatePayload(
                    environment_id=env_id, deployment_id=deployment_id, config_overrides=payload.config_overrides
                ),
            )
        key = payload.idempotency_key or f"deploy:{deployment_id}:{revision_id}"
        traffic.set_traffic(
            context,
            traffic.TrafficSetPayload(
                environment_id=env_id,
                deployment_id=deployment_id,
                entries=[traffic.SplitEntryPayload(revision_id=revision_id, weight_bps=10_000)],
                idempotency_key=key,
            ),
        )
    return Deployed(
        environment_id=env_id,
        bundle_id=payload.bundle_id,
        deployment_id=deployment_id,
        revision_id=revision_id,
        reused_deployment=not is_new,
        superseded_revisions=superseded,
        warnings=made.warnings,
    )


def make_revision(context: Context, payload: RevisionStagePayload) -> revisions.RevisionSummary:
    """Stage and warm a bundle; a revision that does not warm is archived. Returns what `warm` tells."""
    env_id = payload.environment_id
    revision_id = stage(context, payload).revision_id
    try:
        return revisions.warm(
            context, revisions.RevisionTransitionPayload(environment_id=env_id, revision_id=revision_id)
        )
    except GreenticError:
        abandon(context, env_id, revision_id)
        raise


def _stage_payload(payload: BundleDeployPayload, env_id: str, deployment_id: str) -> RevisionStagePayload:
    pins = payload.remote_pins or RemotePinsPayload()
    return RevisionStagePayload(
        environment_id=env_id,
        deployment_id=deployment_id,
        bundle_path=payload.bundle_path,
        bundle_source_uri=payload.bundle_source_uri,
        bundle_digest=pins.bundle_digest,
        config_digest=pins.config_digest,
        signature_sidecar_ref=pins.signature_sidecar_ref,
        drain_seconds=DEFAULT_DRAIN_SECONDS if pins.drain_seconds is None else pins.drain_seconds,
    )


def abandon(context: Context, env_id: str, revision_id: str) -> None:
    """Archive a revision that never got traffic; its own failure must not hide the one that led here."""
    with contextlib.suppress(GreenticError):
        revisions.archive(context, revisions.RevisionTransitionPayload(environment_id=env_id, revision_id=revision_id))


def _add_payload(payload: BundleDeployPayload, env_id: str, customer_id: str) -> bundles.BundleAddPayload:
    return bundles.BundleAddPayload(
        environment_id=env_id,
        bundle_id=payload.bundle_id,
        customer_id=customer_id,
        route_binding=payload.route_binding or RouteBindingPayload(),
        revenue_share=payload.revenue_share,
        config_overrides=payload.config_overrides,
    )


def _check_selector(binding: RouteBindingPayload | None) -> None:
    if binding and binding.tenant_selector and not binding.hosts and not binding.path_prefixes:
        raise InvalidArgument(
            "route_binding: tenant_selector requires at least one host or path_prefix (a binding with no matchers would "
            "be unreachable)"
        )


def _check_binding(payload: BundleDeployPayload, deployment: BundleDeployment) -> None:
    if payload.route_binding is None:
        return
    if bundles.binding_of(payload.route_binding, keep=deployment.route_binding) != deployment.route_binding:
        raise Conflict(
            f"deploy: route_binding differs from the deployed binding for `{deployment.bundle_id}` — routing is bundle-level "
            "metadata and is not restored by `traffic rollback`. Run `gtc op bundles update --answers ...` to change routing "
            "on an existing deployment, then deploy again"
        )


def _already(env: Environment, deployment: BundleDeployment, key: str | None) -> Deployed | None:
    """What was answered to the same key, if it is the split of now that was made with it."""
    split = env.split(deployment.deployment_id)
    if key is None or split is None or split.idempotency_key != key or len(split.entries) != 1:
        return None
    return Deployed(
        environment_id=env.environment_id,
        bundle_id=deployment.bundle_id,
        deployment_id=deployment.deployment_id,
        revision_id=split.entries[0].revision_id,
        reused_deployment=True,
        superseded_revisions=[],
    )
