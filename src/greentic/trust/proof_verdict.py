"""Whether what a worker proves is what an environment wants: one verdict, a pure function over (environment, proof).

Rules:
1. Equality, not subset: a revision that is served and not wanted counts like one that is wanted and not served.
2. A worker that says that it is for one revision is compared with what that means, and with nothing else.
3. A generation that is higher than the environment's is a difference, not an advance: the worker has another document.
4. What the asker does not know (the digest of a tree that he does not have) is not compared. Everything else is, field by field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from greentic.model.delivery import Delivery, delivery_of, generation_of
from greentic.model.environment import Environment, Revision
from greentic.model.pod_view import for_worker, with_own_revision
from greentic.model.traffic import wanted_revisions
from greentic.net.addresses import shown
from greentic.trust.policy import Trusted
from greentic.trust.proof import (
    Bundle,
    Compiled,
    Packs,
    Proof,
    ProvenRevision,
    Routed,
    Served,
    Signatures,
    Source,
    Tree,
    signers,
    told_routes,
)

NOTHING, UNTOLD = "nothing", "not told"


class Difference(NamedTuple):
    """One field in which a worker is not what was wanted."""

    revision_id: str
    """Empty for what is of the whole worker."""
    field: str
    expected: str
    found: str


class ProofVerdict(NamedTuple):
    """What a believed proof means for an environment."""

    state: Literal["serves", "behind", "differs"]
    behind: int
    """Generations that the worker has yet to follow."""
    differences: tuple[Difference, ...]


class Known(NamedTuple):
    """What the asker knows beside the document."""

    keys: Mapping[str, bytes]
    """Raw public keys of the document by id."""
    trees: Mapping[str, str]
    """By revision, the digest of its unpacked tree."""


def judge(env: Environment, proof: Proof, known: Known) -> ProofVerdict:
    """Compare a proof with an environment."""
    if proof.environment_id != env.environment_id:
        other = Difference("", "environment_id", env.environment_id, proof.environment_id)
        return ProofVerdict("differs", 0, (other,))
    wanted = generation_of(env)
    differences: list[Difference] = []
    if proof.generation > wanted:
        differences.append(Difference("", "generation", str(wanted), str(proof.generation)))
    scope = proof.worker.scope
    seen: Environment | None = env
    if scope.own_revision is not None:
        seen = (for_worker if scope.alone else with_own_revision)(env, scope.own_revision)
    if seen is None:
        differences.append(Difference(scope.own_revision or "", "revision", "none of this id", "served"))
    else:
        differences += _revisions(seen, proof, known)
    behind = max(wanted - proof.generation, 0)
    state: Literal["serves", "behind", "differs"] = "behind" if behind else "differs" if differences else "serves"
    return ProofVerdict(state, behind, tuple(differences))


def _revisions(env: Environment, proof: Proof, known: Known) -> list[Difference]:
    found = {(r.deployment_id, r.revision_id): r for r in proof.revisions}
    expected = {(r.deployment_id, r.revision_id): r for r in wanted_revisions(env)}
    differences = [Difference(key[1], "revision", "served", NOTHING) for key in expected if key not in found]
    differences += [Difference(key[1], "revision", NOTHING, "served") for key in found if key not in expected]
    if len(found) != len(proof.revisions):
        differences.append(Difference("", "revisions", "each once", "one of them twice"))
    delivery = delivery_of(env)
    for key, revision in expected.items():
        if key not in found:
            continue
        told, wanted = _told(found[key]), _wanted(env, delivery, revision, proof.generation, known)
        differences += [
            Difference(revision.revision_id, field, value, told.get(field, UNTOLD))
            for field, value in wanted.items()
            if told.get(field, UNTOLD) != value
        ]
    return differences


def _wanted(env: Environment, delivery: Delivery, revision: Revision, generation: int, known: Known) -> dict[str, str]:
    """The fields of a revision as the environment wants them, as texts."""
    deployment = env.deployment(revision.deployment_id)
    split = env.split(revision.deployment_id)
    weights = {} if split is None else {e.revision_id: e.weight_bps for e in split.entries}
    trusted = Trusted(delivery, known.keys, None, False)
    fields = {
        "bundle_id": revision.bundle_id,
        "source": NOTHING if revision.bundle_source_uri is None else shown(revision.bundle_source_uri),
        "bundle": revision.bundle_digest,
        "policy": delivery.signatures.mode,
        "signatures": _listed(f"{s.of} {s.key_id}" for s in signers(revision, trusted)),
        "packs": _listed(f"{p.pack_id} {p.digest}" for p in revision.pack_list),
        "routes": _listed(told_routes(deployment)) if deployment is not None else NOTHING,
        "weight_bps": str(weights.get(revision.revision_id, 0)),
        "generation": str(generation),  # what serves is of the document that the worker says it serves
    }
    if not revision.pack_list:  # what the bundle has; its digest is compared
        del fields["packs"]
    tree = known.trees.get(revision.revision_id)
    return fields if tree is None else fields | {"tree": tree}


def _told(revision: ProvenRevision) -> dict[str, str]:
    """The same fields as the worker tells them. A step that stands twice is told twice, and equals nothing."""
    fields: dict[str, str] = {}

    def tell(field: str, value: str) -> None:
        fields[field] = f"{fields[field]}; {value}" if field in fields else value

    tell("bundle_id", revision.bundle_id)
    for step in revision.chain:
        match step:
            case Source(uri):
                tell("source", NOTHING if uri is None else uri)
            case Bundle(digest):
                tell("bundle", digest)
            case Signatures(policy, signatures):
                tell("policy", policy)
                tell("signatures", _listed(f"{s.of} {s.key_id}" for s in signatures))
            case Tree(digest):
                tell("tree", NOTHING if digest is None else digest)
            case Packs(packs):
                tell("packs", _listed(f"{p.pack_id} {p.digest}" for p in packs))
            case Compiled():
                pass  # what it was compiled with is each worker's own
            case Routed(routes, weight):
                tell("routes", _listed(routes))
                tell("weight_bps", str(weight))
            case Served(_, generation):
                tell("generation", str(generation))
    return fields


def _listed(texts: Iterable[str]) -> str:
    """A list as a text that no other list has."""
    found = sorted(texts)
    return msgspec.json.encode(found).decode() if found else NOTHING
