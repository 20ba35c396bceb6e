"""Lists of bundles and keys that are not believed any more. Pure.

Rules:
1. A list is signed by a trusted key: a DSSE envelope over a statement whose predicate is the list itself.
2. Its version only grows: a worker that saw a higher one refuses a lower one. At `expires_at` it ceases to prove that nothing else is
   revoked; what it revokes stays revoked.
3. A revoked bundle is refused wherever it comes from; what a revoked key signed counts as unsigned.
4. A revoked key signs no further list. The list that revokes its own signer is the last one by it; who wants a key gone for good
   takes it out of the trust anchor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from greentic.trust.dsse import SignatureError, claimed_statement, envelope_bytes, read_envelope
from greentic.trust.keys import SigningKey
from greentic.trust.statements import REVOCATIONS, canonical_sha256, signed_statement, vouched

SCHEMA = "greentic.revocations.v1"
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
    document: dict[str, object] = msgspec.to_builtins(revoked)
    return envelope_bytes(signed_statement(REVOCATIONS, NAME, canonical_sha256(document), document, key))


def read_list(data: bytes, trusted: Mapping[str, bytes], revoked_keys: Collection[str] = ()) -> RevocationList:
    """A published list, if a trusted key that was not revoked before signed it (rule 4). Raises `RevocationError`."""
    if len(data) > MAX_LIST:
        raise RevocationError(f"the list is larger than {MAX_LIST} bytes")
    try:
        claimed = claimed_statement(read_envelope(data))
    except SignatureError as error:
        raise RevocationError(str(error)) from None
    found = vouched(REVOCATIONS, [data], canonical_sha256(claimed.predicate), trusted, revoked=revoked_keys)
    if found.lacking is not None or found.statement is None:
        raise RevocationError(found.lacking or "nobody vouches for it")
    try:
        revoked = msgspec.convert(found.statement.predicate, RevocationList)
    except msgspec.ValidationError as error:
        raise RevocationError(f"it does not parse: {error}") from None
    if revoked.schema != SCHEMA:
        raise RevocationError(f"its schema is `{revoked.schema}`, expected `{SCHEMA}`")
    if revoked.version < 1:  # a worker that has seen 0 has seen none, and would not miss it
        raise RevocationError(f"its version is {revoked.version}, and the first one is 1")
    return revoked


def check_version(revoked: RevocationList, seen: int) -> None:
    """Raise `RevocationError` for a list that is older than one that was seen (rule 2)."""
    if revoked.version < seen:
        raise RevocationError(f"its version is {revoked.version}, and version {seen} was seen already")


def ended(revoked: RevocationList, now: int) -> str | None:
    """Why a list proves nothing new any more (rule 2), or nothing."""
    return f"it was good until {revoked.expires_at}, now is {now}" if revoked.expires_at <= now else None
