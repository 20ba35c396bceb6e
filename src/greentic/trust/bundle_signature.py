"""Signatures of bundles, revisions and environments: statements, and what a policy makes of them. Pure.

Rules:
1. A bundle is signed by a DSSE envelope over an in-toto statement: its sha256, and a SLSA provenance of how it was built.
2. A policy counts different trusted keys, not signatures. `off` looks at nothing, `warn` tells, `require` refuses; what cannot be
   read or is about something else counts for nothing and is told.
3. A revision and an environment are signed over the canonical JSON of what says what runs: sorted keys, no spaces.
4. A revoked key counts for nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from greentic.trust.dsse import (
    Envelope,
    SignatureError,
    claimed_statement,
    envelope_bytes,
    read_envelope,
    sign,
    statement,
    verify_envelope,
)
from greentic.trust.keys import SigningKey

PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "gtbundle"
REVISION_PREDICATE = "greentic.revision-predicate.v1"
SEAL_PREDICATE = "greentic.environment-seal.v1"
MAX_SIGNATURES = 32


class Verdict(NamedTuple):
    """What signatures prove."""

    keys: tuple[str, ...]
    """Ids of the trusted keys whose signatures hold, each once."""
    faults: tuple[str, ...]


def sign_bundle(name: str, sha256_hex: str, key: SigningKey, *, builder: str, at: str) -> bytes:
    """The signature of a bundle, as it is stored beside it."""
    predicate: dict[str, object] = {
        "buildDefinition": {"buildType": BUILD_TYPE, "externalParameters": {"name": name}, "resolvedDependencies": []},
        "runDetails": {"builder": {"id": builder}, "metadata": {"finishedOn": at}},
    }
    return envelope_bytes(sign(statement(name, sha256_hex, PROVENANCE, predicate), key))


def canonical_sha256(content: object) -> str:
    """The hex sha256 of a JSON value in canonical form (rule 3)."""
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def sign_content(name: str, content: object, predicate_type: str, key: SigningKey, at: str) -> dict[str, object]:
    """An envelope over a JSON value, as it stands in a document."""
    payload = statement(name, canonical_sha256(content), predicate_type, {"signed_at": at})
    found: dict[str, object] = msgspec.json.decode(msgspec.json.encode(sign(payload, key)))
    return found


def statement_time(envelope: object) -> str:
    """When an envelope of `sign_content` says that it was made; empty if it does not say."""
    try:
        told = claimed_statement(_envelope(envelope)).predicate.get("signed_at")
    except SignatureError:
        return ""
    return told if isinstance(told, str) else ""


def judge(
    envelopes: Sequence[object], trusted: Mapping[str, bytes], sha256_hex: str, revoked: frozenset[str]
) -> Verdict:
    """Which trusted keys vouch for the artifact with this digest.

    `envelopes` are DSSE envelopes, as bytes or decoded; `trusted` maps key ids in lower case to raw public keys.
    """
    alive = {key_id: key for key_id, key in trusted.items() if key_id not in revoked}
    keys: dict[str, None] = {}
    faults: list[str] = []
    for raw in envelopes[:MAX_SIGNATURES]:
        try:
            envelope = _envelope(raw)
            # Each signature by itself, so that an envelope with several counts for each key that holds.
            for signature in envelope.signatures[:MAX_SIGNATURES]:
                single = Envelope(envelope.payload_type, envelope.payload, [signature])
                verify_envelope(single, alive, sha256_hex)
                keys[signature.keyid.lower()] = None
        except SignatureError as error:
            faults.append(str(error))
    if not envelopes:
        faults.append("there is no signature")
    return Verdict(tuple(keys), tuple(faults))


def _envelope(raw: object) -> Envelope:
    return read_envelope(raw if isinstance(raw, bytes) else msgspec.json.encode(raw))


def counted(verdict: Verdict, wanted: Sequence[str], threshold: int) -> str | None:
    """Why a verdict is not enough, or nothing. `wanted` are the key ids that count; none means all that are trusted."""
    ids = {key_id.lower() for key_id in wanted}
    holding = [key_id for key_id in verdict.keys if not ids or key_id in ids]
    if len(holding) >= threshold:
        return None
    needed = f"{threshold} signature(s)" + (f" of {', '.join(sorted(ids))}" if ids else " by trusted keys")
    why = f" ({'; '.join(dict.fromkeys(verdict.faults))})" if verdict.faults else ""
    return f"{needed} needed, {len(holding)} found{why}"
