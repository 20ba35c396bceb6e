"""`op bundles retire`: take a deployment out of service in one resumable sequence (formats: op 4).

The order: mark archived, take the split away, drain what is ready, archive the revisions, remove the deployment. Every step
is idempotent; a run that was interrupted is run again.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from greentic.deployments import bundles, revisions, traffic
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.ground.reply import Reply
from greentic.model.descriptors import split_descriptor
from greentic.model.environment import BundleDeployment, Environment
from greentic.model.ids import check_env_id
from greentic.model.naming import is_part
from greentic.operate.change import Context
from greentic.operate.payload import Key, Payload

_LOCAL_DEPLOYER = "greentic.deployer.local-process"


class BundleRetirePayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    bundle: Annotated[str, msgspec.Meta(description="bundle id, or deployment ULID or its beginning or end")]
    customer_id: str | None = None
    store_only: Annotated[bool, msgspec.Meta(description="only the store; what a deployer runs stays")] = False
    force_drain: Annotated[bool, msgspec.Meta(description="archive without waiting for draining sessions")] = False
    idempotency_key: Key | None = None


class HookResult(Reply, frozen=True, kw_only=True):
    """What became of a revision beside the store; a local store has nothing there to tear down."""

    revision_id: str
    result: str = "done"


class Absent(Reply, frozen=True, kw_only=True):
    """There was nothing to retire."""

    environment_id: str
    bundle: str
    state: Literal["absent"] = "absent"


class Retired(Reply, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: str
    bundle_id: str
    customer_id: str
    state: Literal["retired"] = "retired"
    marked_retiring: bool
    split_cleared: bool
    drained: list[str]
    drain_hook: list[HookResult]
    archived: list[str]
    teardown: list[HookResult]
    pruned_revision_ids: list[str]


def retire(context: Context, payload: BundleRetirePayload) -> Retired | Absent:
    """Retire a deployment; one that is not there is `absent`, which is no error."""
    env_id = check_env_id(payload.environment_id)
    env = context.store.load(env_id)
    deployment = _find(env, payload)
    if deployment is None:
        return Absent(environment_id=env_id, bundle=payload.bundle)
    _check_deployer(env, payload)
    deployment_id = deployment.deployment_id
    marked = deployment.status != "archived"
    if marked:
        bundles.update(
            context,
            bundles.BundleUpdatePayload(environment_id=env_id, deployment_id=deployment_id, status="archived"),
        )
    cleared = traffic.clear(context, traffic.TrafficClearPayload(environment_id=env_id, deployment_id=deployment_id))
    own = [r for r in env.revisions if r.deployment_id == deployment_id]
    drained = [r.revision_id for r in own if r.lifecycle == "ready"]
    for revision_id in drained:
        revisions.drain(context, revisions.RevisionTransitionPayload(environment_id=env_id, revision_id=revision_id))
    archived = [r.revision_id for r in own if r.lifecycle != "archived"]
    for revision_id in archived:
        revisions.archive(context, revisions.RevisionTransitionPayload(environment_id=env_id, revision_id=revision_id))
    removed = bundles.remove(context, bundles.BundleRemovePayload(environment_id=env_id, deployment_id=deployment_id))
    return Retired(
        environment_id=env_id,
        deployment_id=deployment_id,
        bundle_id=deployment.bundle_id,
        customer_id=deployment.customer_id,
        marked_retiring=marked,
        split_cleared=cleared.changed,
        drained=drained,
        drain_hook=[HookResult(revision_id=r) for r in drained],
        archived=archived,
        teardown=[HookResult(revision_id=r) for r in archived],
        pruned_revision_ids=removed.pruned_revision_ids or [],
    )


def _find(env: Environment, payload: BundleRetirePayload) -> BundleDeployment | None:
    own = [d for d in env.bundles if payload.customer_id in (None, d.customer_id)]
    found = [d for d in own if payload.bundle == d.bundle_id or payload.bundle.upper() == d.deployment_id]
    found = found or [d for d in own if is_part(payload.bundle, d.deployment_id)]
    if len(found) > 1:
        ids = ", ".join(f"{d.deployment_id} (customer {d.customer_id})" for d in found)
        raise InvalidArgument(f"bundle `{payload.bundle}` is ambiguous: {ids}", hint="name the customer or the ULID")
    if not found:
        return None
    linked = [e.endpoint_id for e in env.messaging_endpoints if found[0].bundle_id in e.linked_bundles]
    siblings = [
        d for d in env.bundles if d.bundle_id == found[0].bundle_id and d is not found[0] and d.status == "active"
    ]
    if linked and not siblings:
        raise Conflict(f"bundle `{found[0].bundle_id}` is linked by messaging endpoint(s) {', '.join(linked)}")
    return found[0]


def _check_deployer(env: Environment, payload: BundleRetirePayload) -> None:
    binding = env.binding("deployer")
    if binding is None or payload.store_only or split_descriptor(binding.kind)[0] == _LOCAL_DEPLOYER:
        return
    raise Conflict(
        f"env `{env.environment_id}` is bound to `{binding.kind}`, which this verb cannot tear down",
        hint=f"gtc op bundles retire {env.environment_id} {payload.bundle} --store-only, then gtc op env reconcile {env.environment_id}",
    )
