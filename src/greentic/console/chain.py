"""Why a revision may run, as a chain of steps: from a worker's proof, or from what the document and `/status` say. Pure.

Rules:
1. A proof whose signature holds is shown as the worker gave it, step by step, with the verdict of `gtc op env verify` on it.
2. Where there is no proof, the chain is made from the environment's document and `/status`, and marked as not signed: it tells what is
   wanted and what a worker says, and no more.
3. Order is the worker's.
"""

from __future__ import annotations

import msgspec

from greentic.console.picture import signed_by
from greentic.console.workers import LiveStatus
from greentic.ground.documents import Json, JsonObject
from greentic.model.delivery import Delivery
from greentic.model.environment import BundleDeployment, Revision, TrafficSplit
from greentic.net.addresses import shown
from greentic.trust.proof import BelievedProof, Step
from greentic.trust.proof_verdict import ProofVerdict

MAX_STEPS = 32


def proven(address: str, believed: BelievedProof, verdict: ProofVerdict, revision_id: str) -> JsonObject | None:
    """The chain of a revision from a proof, and what it is worth; nothing if the worker does not serve it."""
    row = next((r for r in believed.proof.revisions if r.revision_id == revision_id), None)
    if row is None:
        return None
    differences = [d for d in verdict.differences if d.revision_id in ("", revision_id)]
    state = "behind" if verdict.behind else "differs" if differences else "serves"
    return proof_head(address, believed) | {
        "state": state,
        "behind": verdict.behind,
        "differences": [{"field": d.field, "expected": d.expected, "found": d.found} for d in differences],
        "steps": [_step(step) for step in row.chain[:MAX_STEPS]],
    }


def proof_head(address: str, believed: BelievedProof) -> JsonObject:
    """Who signed a proof, and whether the operator had named that key."""
    return {"at": address, "signed": True, "key_id": believed.proof.worker.key_id, "pinned": believed.pinned}


def told(
    address: str, status: LiveStatus, revision: Revision, split: TrafficSplit | None, deployment: BundleDeployment | None,
    delivery: Delivery,
) -> JsonObject:  # fmt: skip
    """The chain of a revision without a proof (rule 2), with what a worker says of it."""
    row = next((r for r in status.revisions if r.revision_id == revision.revision_id), None)
    steps = [*documented(revision, split, deployment, delivery)]
    if row is not None:
        packs: list[Json] = [_pack(pack) for pack in row.packs]
        steps.insert(-1, {"step": "packs", "members": {"packs": packs}})  # routes come after what they lead to
        same = row.bundle_digest == revision.bundle_digest
        members: JsonObject = {"bundle_digest": row.bundle_digest, "as_pinned": same, "weight_bps": row.weight_bps}
        if status.following is not None:
            members["generation"] = status.following.serving.generation
        steps.append({"step": "serving", "members": {"worker": status.process, **members}})
    return {"at": address, "signed": False, "served": row is not None, "steps": [*steps]}


def documented(
    revision: Revision, split: TrafficSplit | None, deployment: BundleDeployment | None, delivery: Delivery
) -> list[JsonObject]:
    """What the document says about a revision, as the first steps of a chain."""
    source = revision.bundle_source_uri
    weights = {} if split is None else {e.revision_id: e.weight_bps for e in split.entries}
    routes: JsonObject = {"weight_bps": weights.get(revision.revision_id, 0)}
    if deployment is not None:
        routes["hosts"] = [*deployment.route_binding.hosts]
        routes["path_prefixes"] = [*deployment.route_binding.path_prefixes]
    return [
        {"step": "source", "members": {"url": None if source is None else shown(source)}},
        {"step": "bundle", "members": {"digest": revision.bundle_digest}},
        {
            "step": "signatures",
            "members": {"keyids": list[Json](signed_by(revision)), "policy": delivery.signatures.mode},
        },
        {"step": "routes", "members": routes},
    ]


def _step(step: Step) -> JsonObject:
    members: JsonObject = msgspec.to_builtins(step)
    return {"step": members.pop("step"), "members": members}


def _pack(pack: dict[str, object]) -> JsonObject:
    """The members of a pack that say which one it is."""
    told = {key: pack[key] for key in ("pack_id", "version", "digest", "signed") if key in pack}
    return {key: value if isinstance(value, bool) else str(value) for key, value in told.items()}
