"""How an environment's bundles are delivered and trusted: mirrors, signatures, generation (keys that others ignore).

Rules:
1. Everything stands in one member of the document, `greentic:delivery`; of a revision in `greentic:signatures`. Programs that
   do not know them keep them or ignore them.
2. The generation only grows. A worker that saw a higher one refuses a lower one.
3. The policy says what signatures are worth: `off`, `warn`, `require`, by whom (key ids; none: any trusted key) and by how many.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from greentic.ground.documents import Document, JsonObject, from_json, json_object, replace, to_json
from greentic.ground.errors import SpecViolation
from greentic.model.environment import Environment, Revision

MEMBER = "greentic:delivery"
SIGNATURES = "greentic:signatures"

Mode = Literal["off", "warn", "require"]


class SignaturePolicy(Document, frozen=True, kw_only=True):
    """What is asked of the signatures of bundles."""

    mode: Mode = "off"
    keys: list[str] = msgspec.field(default_factory=list)
    """Key ids that count; none means every key of the trust root."""
    threshold: int = 1


class Delivery(Document, frozen=True, kw_only=True):
    """The member of the environment document."""

    generation: int = 0
    mirrors: list[str] = msgspec.field(default_factory=list)
    signatures: SignaturePolicy = msgspec.field(default_factory=SignaturePolicy)
    keys: dict[str, str] = msgspec.field(default_factory=dict)
    """Public keys (PEM) of the trust root by key id, so that a worker can check offline."""
    seal: dict[str, object] | None = None
    """A DSSE envelope by the operator over the document without this seal."""


def delivery_of(env: Environment) -> Delivery:
    """The delivery of an environment. Raises `SpecViolation`."""
    raw = env.extra.get(MEMBER)
    return Delivery() if raw is None else from_json(Delivery, raw)


def generation_of(env: Environment) -> int:
    """What counts the changes of a document: the sealed generation, else the sum of those of its splits."""
    try:
        sealed = delivery_of(env).generation
    except SpecViolation:
        sealed = 0
    return sealed or sum(split.generation for split in env.traffic_splits)


def with_delivery(env: Environment, delivery: Delivery) -> Environment:
    return replace(env, extra={**env.extra, MEMBER: to_json(delivery)})


def sealed_content(env: Environment, *, generation: bool = True) -> Environment:
    """What a seal is over: the whole document but the seal itself; on request without its generation."""
    member = env.extra.get(MEMBER)
    if not isinstance(member, dict):
        return env
    kept = {key: value for key, value in member.items() if key != "seal" and (generation or key != "generation")}
    return replace(env, extra={**env.extra, MEMBER: kept})


def signed_content(revision: Revision) -> JsonObject:
    """What the operator's signature of a revision is over: all that says what runs, nothing that changes in its life."""
    kept = (
        "schema", "revision_id", "env_id", "bundle_id", "deployment_id", "sequence", "created_at", "bundle_digest",
        "bundle_source_uri", "pack_list", "pack_list_lock_ref", "pack_config_refs", "config_digest",
    )  # fmt: skip
    document = json_object(revision)
    return {key: document[key] for key in kept if key in document}


class RevisionSignatures(Document, frozen=True, kw_only=True):
    """The member of a revision: DSSE envelopes of the bundle's publishers, and of the operator who staged it."""

    bundle: list[dict[str, object]] = msgspec.field(default_factory=list)
    revision: dict[str, object] | None = None


def signatures_of(revision: Revision) -> RevisionSignatures:
    """Raises `SpecViolation`."""
    raw = revision.extra.get(SIGNATURES)
    return RevisionSignatures() if raw is None else from_json(RevisionSignatures, raw)


def with_signatures(revision: Revision, signatures: RevisionSignatures) -> Revision:
    return replace(revision, extra={**revision.extra, SIGNATURES: to_json(signatures)})


def check_policy(policy: SignaturePolicy) -> SignaturePolicy:
    """The policy, or `SpecViolation`."""
    if not 1 <= policy.threshold <= 16:
        raise SpecViolation(f"a threshold of {policy.threshold} signatures makes no sense; expected 1 to 16")
    if policy.keys and policy.threshold > len(set(policy.keys)):
        raise SpecViolation(
            f"{policy.threshold} signatures are asked for, and only {len(set(policy.keys))} key(s) count"
        )
    return policy
