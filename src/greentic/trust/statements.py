"""What is signed here, each kind under its own name, and which keys vouch for it. Pure.

Rules:
1. Every signed statement says what it is: a DSSE payload type and an in-toto predicate type. Whoever reads one names the kind that
   it expects, and any other is worth nothing: the signature of a bundle is no seal, a seal is no revocation list.
2. Whoever uses a key asks `vouched`: who of these keys, that are not revoked, made a statement of this kind about these bytes, and are
   they enough? There is no second way to ask.
3. Different keys are counted, not signatures. What cannot be read or is about something else counts for nothing and is told.
4. A document is signed over its canonical JSON: sorted keys, no spaces. What it belongs to (environment, deployment) is part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

import msgspec

from greentic.ground.documents import compact
from greentic.trust.dsse import (
    Envelope,
    SignatureError,
    Statement,
    claimed_statement,
    envelope_bytes,
    read_envelope,
    sign,
    statement,
    verify_envelope,
)
from greentic.trust.keys import SigningKey

MAX_SIGNATURES = 32
BUILD_TYPE = "gtbundle"


class Kind(msgspec.Struct, frozen=True):
    """One kind of signed statement (rule 1). The payload type is that of in-toto for all."""

    predicate_type: str
    words: str
    """What it is, for people."""


BUNDLE = Kind("https://slsa.dev/provenance/v1", "the signature of a bundle")
REVISION = Kind("greentic.revision-predicate.v1", "the signature of a revision")
SEAL = Kind("greentic.environment-seal.v1", "the seal of an environment")
REVOCATIONS = Kind("greentic.revocations-predicate.v1", "a revocation list")
REVENUE_POLICY = Kind("greentic.revenue-policy-predicate.v1", "the signature of a revenue policy")
KINDS = (BUNDLE, REVISION, SEAL, REVOCATIONS, REVENUE_POLICY)


class Vouched(msgspec.Struct, frozen=True):
    """What signatures prove."""

    keys: tuple[str, ...]
    """Ids of the keys that count and whose signatures hold, each once."""
    lacking: str | None
    """Why they are not enough; nothing if they are."""
    statement: Statement | None = None
    """What was signed, if anybody vouches for it."""


def signed_statement(
    kind: Kind, subject: str, sha256_hex: str, predicate: dict[str, object], key: SigningKey
) -> Envelope:
    """A statement of a kind about the bytes with this digest, signed."""
    return sign(statement(subject, sha256_hex, kind.predicate_type, predicate), key)


def sign_bundle(name: str, sha256_hex: str, key: SigningKey, *, builder: str, at: str) -> bytes:
    """The signature of a bundle, as it is stored beside it: a SLSA provenance of how it was built."""
    predicate: dict[str, object] = {
        "buildDefinition": {"buildType": BUILD_TYPE, "externalParameters": {"name": name}, "resolvedDependencies": []},
        "runDetails": {"builder": {"id": builder}, "metadata": {"finishedOn": at}},
    }
    return envelope_bytes(signed_statement(BUNDLE, name, sha256_hex, predicate, key))


def sign_content(kind: Kind, name: str, content: object, key: SigningKey, at: str) -> dict[str, object]:
    """An envelope over a JSON value (rule 4), as it stands in a document."""
    envelope = signed_statement(kind, name, canonical_sha256(content), {"signed_at": at}, key)
    found: dict[str, object] = msgspec.to_builtins(envelope)
    return found


def canonical_sha256(content: object) -> str:
    """The hex sha256 of a JSON value or a document in canonical form (rule 4)."""
    return hashlib.sha256(compact(content, sort=True)).hexdigest()


def statement_time(envelope: object) -> str:
    """When an envelope of `sign_content` says that it was made; empty if it does not say."""
    try:
        told = claimed_statement(_envelope(envelope)).predicate.get("signed_at")
    except SignatureError:
        return ""
    return told if isinstance(told, str) else ""


def vouched(
    kind: Kind,
    envelopes: Sequence[object],
    sha256_hex: str,
    keys: Mapping[str, bytes],
    *,
    revoked: Collection[str] = (),
    wanted: Collection[str] = (),
    threshold: int = 1,
) -> Vouched:
    """Which keys made a statement of this kind about the bytes with this digest, and whether they are enough (rules 2 and 3).

    `envelopes` are DSSE envelopes, as bytes or decoded. `keys` maps the ids of trusted keys, in lower case, to raw public keys;
    `wanted` narrows them to the ids that count, none means all.
    """
    ids = {key_id.lower() for key_id in wanted}
    alive = {i: key for i, key in keys.items() if i not in revoked and (not ids or i in ids)}
    found: dict[str, Statement] = {}
    faults: dict[str, None] = {}
    for raw in envelopes[:MAX_SIGNATURES]:
        try:
            envelope = _envelope(raw)
            # Each signature by itself, so that an envelope with several counts for each key that holds.
            for signature in envelope.signatures[:MAX_SIGNATURES]:
                single = Envelope(envelope.payload_type, envelope.payload, [signature])
                try:
                    found[signature.keyid.lower()] = verify_envelope(single, alive, sha256_hex, kind.predicate_type)
                except SignatureError as error:
                    faults[_told(error, signature.keyid.lower(), revoked)] = None
        except SignatureError as error:
            faults[str(error)] = None
    if not envelopes:
        faults["there is no signature"] = None
    statement_found = next(iter(found.values()), None)
    if len(found) >= threshold:
        return Vouched(tuple(found), None, statement_found)
    needed = f"{threshold} signature(s)" + (f" of {', '.join(sorted(ids))}" if ids else " by trusted keys")
    why = f" ({'; '.join(faults)})" if faults else ""
    return Vouched(tuple(found), f"{needed} needed, {len(found)} found{why}", statement_found)


def _told(error: SignatureError, key_id: str, revoked: Collection[str]) -> str:
    return f"the key {key_id} is revoked" if key_id in revoked else str(error)


def _envelope(raw: object) -> Envelope:
    return read_envelope(raw if isinstance(raw, bytes) else msgspec.json.encode(raw))
