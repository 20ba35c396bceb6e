"""Why a revision may run, as a chain of steps: from a worker's proof, or from what the document and `/status` say. Pure.

Rules:
1. A proof is shown as the worker gave it, step by step, with the verdict of `env verify` over it: whose signature holds, and in what the
   worker differs from what is wanted. What is not believed is shown, too, and called so.
2. Where there is no proof, the chain is made from the environment's document and `/status`, and marked as not signed: it tells what is
   wanted and what a worker says, and no more.
3. A step that is not known is shown with its members all the same; order is the worker's.
"""

from __future__ import annotations

from greentic.console.picture import signed_by
from greentic.console.workers import LiveStatus, ToldProof
from greentic.ground.documents import Json, JsonObject
from greentic.model.delivery import Delivery
from greentic.model.environment import BundleDeployment, Revision, TrafficSplit
from greentic.net.addresses import shown
from greentic.release.env_verify import Judged

MAX_STEPS, MAX_DIFFERENCES = 32, 50


def proven(address: str, proof: ToldProof, judged: Judged, revision_id: str) -> JsonObject:
    """The chain of a revision from a proof, without steps if it is not in it, and what the proof is worth."""
    chain: JsonObject = {"at": address, "signed": judged.worker.state != "unproven", "keyids": proof.keyids}
    steps = _steps(proof.statement, revision_id)
    return chain | {"served": steps is not None, "steps": [*(steps or [])], "verdict": verdict(judged, revision_id)}


def verdict(judged: Judged, revision_id: str) -> JsonObject:
    """What a proof is worth, for the page: its state, who signed, and the differences of one revision and of the whole worker."""
    own = [d for d in judged.differences if d.revision_id in ("", revision_id)]
    return {
        "state": judged.worker.state,
        "behind": judged.worker.behind,
        "reason": judged.worker.reason,
        "key_id": judged.worker.key_id,
        "pinned": judged.worker.pinned,
        "differences": [{"field": d.field, "expected": d.expected, "found": d.found} for d in own[:MAX_DIFFERENCES]],
        "elsewhere": len({d.revision_id for d in judged.differences} - {"", revision_id}),
        "warnings": [*judged.warnings[:MAX_DIFFERENCES]],
    }


def _steps(statement: JsonObject, revision_id: str) -> list[JsonObject] | None:
    rows = statement.get("revisions")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("revision_id") == revision_id:
            chain = row.get("chain")
            steps = [step for step in chain[:MAX_STEPS] if isinstance(step, dict)] if isinstance(chain, list) else []
            return [{"step": str(s.get("step", "")), "members": _members(s)} for s in steps]
    return None


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
    return {"at": address, "signed": False, "keyids": [], "served": row is not None, "steps": [*steps]}


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


def _members(step: JsonObject) -> JsonObject:
    return {key: value for key, value in step.items() if key != "step"}


def _pack(pack: dict[str, object]) -> JsonObject:
    """The members of a pack that say which one it is."""
    told = {key: pack[key] for key in ("pack_id", "version", "digest", "signed") if key in pack}
    return {key: value if isinstance(value, bool) else str(value) for key, value in told.items()}
