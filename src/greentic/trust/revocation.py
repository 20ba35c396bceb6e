"""Lists of bundles and keys that are not believed any more. Pure.

Rules:
1. A list is signed by a trusted key: a DSSE envelope over a statement whose predicate is the list itself.
2. Its version only grows: a worker that saw a higher one refuses a lower one. It ends to be good at `expires_at`.
3. A revoked bundle is refused wherever it comes from; what a revoked key signed counts as unsigned.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from greentic.trust.bundle_signature import canonical_sha256
from greentic.trust.dsse import (
    SignatureError,
    claimed_statement,
    envelope_bytes,
    read_envelope,
    sign,
    statement,
    verify_envelope,
)
from greentic.trust.keys import SigningKey

SCHEMA = "greentic.revocations.v1"
PREDICATE = "greentic.revocations-predicate.v1"
NAME = "revocations.json"
MAX_LIST = 4 << 20


class RevokedDigest(msgspec.Struct, frozen=True):
    digest: str
    reason: str


class RevokedKey(msgspec.Struct, frozen=True):
    key_id: str
    reason: str


class RevocationList(msgspec.Struct, frozen=True):
    """What is revoked. Times are Unix seconds."""

    schema: str
    version: int
    issued_at: int
    expires_at: int
    digests: list[RevokedDigest] = []
    keys: list[RevokedKey] = []

    def reason_of(self, digest: str) -> str | None:
        """Why a bundle is revoked, or nothing."""
        return next((r.reason for r in self.digests if r.digest == digest), None)

    @property
    def key_ids(self) -> frozenset[str]:
        return frozenset(k.key_id.lower() for k in self.keys)


class RevocationError(ValueError):
    """A list that cannot be relied on; the text says why."""


def empty(now: int) -> RevocationList:
    return RevocationList(SCHEMA, 0, now, now)


def sign_list(revoked: RevocationList, key: SigningKey) -> bytes:
    """The list as it is published."""
    document: dict[str, object] = msgspec.json.decode(msgspec.json.encode(revoked))
    return envelope_bytes(sign(statement(NAME, canonical_sha256(document), PREDICATE, document), key))


def read_list(data: bytes, trusted: Mapping[str, bytes]) -> RevocationList:
    """A published list, if a trusted key signed it. Raises `RevocationError`."""
    if len(data) > MAX_LIST:
        raise RevocationError(f"the list is larger than {MAX_LIST} bytes")
    try:
        envelope = read_envelope(data)
        claimed = claimed_statement(envelope)
        found = verify_envelope(envelope, trusted, canonical_sha256(claimed.predicate))
        if found.predicate_type != PREDICATE:
            raise RevocationError(f"it is a statement of the type `{found.predicate_type}`, expected `{PREDICATE}`")
        revoked = msgspec.convert(found.predicate, RevocationList)
    except SignatureError as error:
        raise RevocationError(str(error)) from None
    except msgspec.ValidationError as error:
        raise RevocationError(f"it does not parse: {error}") from None
    if revoked.schema != SCHEMA:
        raise RevocationError(f"its schema is `{revoked.schema}`, expected `{SCHEMA}`")
    return revoked


def check_fresh(revoked: RevocationList, now: int, seen: int) -> None:
    """Raise `RevocationError` for a list that has ended, or is older than one that was seen (rule 2)."""
    if revoked.version < seen:
        raise RevocationError(f"its version is {revoked.version}, and version {seen} was seen already")
    if revoked.expires_at <= now:
        raise RevocationError(f"it was good until {revoked.expires_at}, now is {now}")
