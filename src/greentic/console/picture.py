"""An environment document as the page shows it: deployments with their routes, splits, revisions and ramps. Pure.

Rules:
1. What comes out is plain JSON, complete and small: a thousand revisions are one answer.
2. Addresses are shown without what could be a credential; nothing that a document keeps for other programs is passed on.
3. Revisions of a deployment stand in the order that people look for them: those with traffic first, then the newest.
"""

from __future__ import annotations

from collections import defaultdict

from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import SpecViolation
from greentic.model.delivery import Delivery, delivery_of, signatures_of
from greentic.model.environment import BundleDeployment, Environment, Revision, TrafficSplit
from greentic.model.ramp_record import WHOLE, Ramp, ramps_of
from greentic.net.addresses import shown


def picture(env: Environment, digest: str) -> JsonObject:
    """The environment for the page. `digest` names the document that it was read from."""
    revisions: defaultdict[str, list[Revision]] = defaultdict(list)
    for revision in env.revisions:
        revisions[revision.deployment_id].append(revision)
    splits = {split.deployment_id: split for split in env.traffic_splits}
    ramps, fault = _ramps(env)
    delivery = _delivery(env)
    return {
        "environment_id": env.environment_id,
        "name": env.name,
        "region": env.host_config.region,
        "public_base_url": env.host_config.public_base_url,
        "digest": digest,
        "generation": delivery.generation,
        "sealed": delivery.seal is not None,
        "signatures": {"mode": delivery.signatures.mode, "threshold": delivery.signatures.threshold},
        "fault": fault,
        "deployments": [
            _deployment(d, splits.get(d.deployment_id), revisions[d.deployment_id], ramps.get(d.deployment_id))
            for d in env.bundles
        ],
    }


def signed_by(revision: Revision) -> list[str]:
    """The key ids of the signatures that a revision carries, as its document has them; nobody checked them here."""
    try:
        found = signatures_of(revision)
    except SpecViolation:
        return []
    envelopes = [*found.bundle, *([] if found.revision is None else [found.revision])]
    lists = [envelope.get("signatures") for envelope in envelopes]
    rows = [row for rows in lists if isinstance(rows, list) for row in rows if isinstance(row, dict)]
    return list(dict.fromkeys(str(row["keyid"]) for row in rows if row.get("keyid")))


def _ramps(env: Environment) -> tuple[dict[str, Ramp], str | None]:
    try:
        return ramps_of(env), None
    except SpecViolation as error:
        return {}, str(error)


def _delivery(env: Environment) -> Delivery:
    try:
        return delivery_of(env)
    except SpecViolation:
        return Delivery()


def _deployment(
    deployment: BundleDeployment, split: TrafficSplit | None, revisions: list[Revision], ramp: Ramp | None
) -> JsonObject:
    weights = {} if split is None else {entry.revision_id: entry.weight_bps for entry in split.entries}
    binding = deployment.route_binding
    ordered = sorted(revisions, key=lambda r: (-weights.get(r.revision_id, 0), -r.sequence))
    return {
        "deployment_id": deployment.deployment_id,
        "bundle_id": deployment.bundle_id,
        "customer_id": deployment.customer_id,
        "status": deployment.status,
        "created_at": deployment.created_at,
        "hosts": [*binding.hosts],
        "path_prefixes": [*binding.path_prefixes],
        "tenant": binding.tenant_selector.tenant,
        "split": None
        if split is None
        else {
            "generation": split.generation,
            "updated_at": split.updated_at,
            "updated_by": split.updated_by,
            "can_go_back": split.previous_split_ref is not None,
        },
        "revisions": [_revision(r, weights.get(r.revision_id)) for r in ordered],
        "ramp": None if ramp is None else _ramp(ramp),
    }


def _revision(revision: Revision, weight: int | None) -> JsonObject:
    return {
        "revision_id": revision.revision_id,
        "sequence": revision.sequence,
        "lifecycle": revision.lifecycle,
        "digest": revision.bundle_digest,
        "source": None if revision.bundle_source_uri is None else shown(revision.bundle_source_uri),
        "created_at": revision.created_at,
        "warmed_at": revision.warmed_at,
        "weight_bps": weight,
        "packs": len(revision.pack_list),
        "signed_by": list[Json](signed_by(revision)),
    }


def _ramp(ramp: Ramp) -> JsonObject:
    weight = {"running": ramp.weight, "done": WHOLE, "aborted": 0}[ramp.state]
    return {
        "to": ramp.to, "old": ramp.old, "steps": [*ramp.steps], "step": ramp.step, "state": ramp.state,
        "reason": ramp.reason, "weight_bps": weight, "pause_seconds": ramp.pause_seconds,
        "max_errors": ramp.max_errors, "max_p99": ramp.max_p99, "min_turns": ramp.min_turns,
        "updated_at": ramp.updated_at,
    }  # fmt: skip
