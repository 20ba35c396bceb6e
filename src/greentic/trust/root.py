"""The trust root of an environment (formats: trust 3).

Rules:
1. No file and no keys mean: nobody is trusted, every check that needs a key is refused.
2. A key's id must be the one derived from the key; ids are compared without case and stored in lower case.
3. Adding a key that is there replaces it at the end of the list.
"""

from __future__ import annotations

from collections.abc import Mapping

from greentic.ground.documents import Document, from_json, parse, replace
from greentic.ground.errors import SpecViolation, TrustRootError
from greentic.trust.keys import KeyFormatError, key_id, read_public_pem

TRUST_ROOT_SCHEMA = "greentic.trust-root.v1"


class TrustedKey(Document, frozen=True, kw_only=True):
    key_id: str
    public_key_pem: str


class TrustRoot(Document, frozen=True, kw_only=True):
    schema: str
    keys: list[TrustedKey]

    def trusts(self, wanted: str) -> bool:
        return bool(wanted) and any(k.key_id.lower() == wanted.lower() for k in self.keys)

    def public_keys(self) -> Mapping[str, bytes]:
        """Raw public keys by id in lower case. Raises `TrustRootError` for a key that does not fit its id."""
        return {checked_key_id(k.key_id, k.public_key_pem): read_public_pem(k.public_key_pem) for k in self.keys}


EMPTY = TrustRoot(schema=TRUST_ROOT_SCHEMA, keys=[])


def read_trust_root(data: bytes) -> TrustRoot:
    """Parse `trust-root.json`. Raises `TrustRootError`."""
    try:
        root = from_json(TrustRoot, parse(data))
    except (ValueError, SpecViolation) as error:
        raise TrustRootError(f"trust-root.json does not parse: {getattr(error, 'message', error)}") from None
    if root.schema != TRUST_ROOT_SCHEMA:
        raise TrustRootError(f"trust-root schema `{root.schema}` is not the expected `{TRUST_ROOT_SCHEMA}`")
    return root


def checked_key_id(claimed: str, pem: str) -> str:
    """The key's own id in lower case, which must be the claimed one (rule 2). Raises `TrustRootError`."""
    if not claimed or any(c not in "0123456789abcdef" for c in claimed.lower()):
        raise TrustRootError(f"trust-root key_id `{claimed}` must be a non-empty hex string")
    try:
        derived = key_id(read_public_pem(pem))
    except KeyFormatError as error:
        raise TrustRootError(f"trust-root key validation: could not decode key ({error})") from None
    if claimed.lower() != derived:
        raise TrustRootError(
            f"trust-root key_id `{claimed}` does not match the derivation from the public key (`{derived}`)"
        )
    return derived


def add_key(root: TrustRoot, claimed: str, pem: str) -> TrustRoot:
    """The root with the key at its end (rule 3). Raises `TrustRootError`."""
    derived = checked_key_id(claimed, pem)
    others = [k for k in root.keys if k.key_id.lower() != derived]
    return replace(root, keys=[*others, TrustedKey(key_id=derived, public_key_pem=pem)])


def remove_key(root: TrustRoot, wanted: str) -> tuple[TrustRoot, TrustedKey | None]:
    """The root without the key, however often it is listed, and the key that went, if it was there."""
    gone = next((k for k in root.keys if k.key_id.lower() == wanted.lower()), None)
    return replace(root, keys=[k for k in root.keys if k.key_id.lower() != wanted.lower()]), gone
