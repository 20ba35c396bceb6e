"""Signatures of packs (formats: pack 8).

Rules:
1. What is signed is a BLAKE3 over the manifest, the SBOM, and path, line feed and hash of every SBOM entry in the order of
   paths. `sig` signs the 32 bytes of it with Ed25519; the first certificate of the chain holds the key.
2. A policy says what a signature is worth: `ignore` looks at nothing, `warn` tells of faults, `require` refuses them. Under
   `require` a missing signature is a fault, and so is a key that is not among the allowed ones: `require` without a list of whom to
   trust is refused where it is configured, and accepts nobody. There is no state in which a check is configured and skipped.
3. A signature vouches for what the SBOM lists, so under `require` the SBOM must be true of the archive and complete.
4. A certificate counts from its first day to its last, also that of an allowed key; a revoked key counts for nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

import msgspec

from greentic.ground import variables
from greentic.ground.clock import CLOCK, unix_seconds
from greentic.ground.documents import check_each_once, compact, decode, shown
from greentic.ground.errors import Conflict, InvalidArgument, MalformedArtifact
from greentic.pack.archive import LEGACY_SBOM, MANIFEST, SBOM, PackArchive
from greentic.trust.keys import key_id

SIGNATURE, CHAIN = "signatures/pack.sig", "signatures/chain.pem"
DEV_SUBJECT = "greentic-dev-local"
POLICY, SIGNERS = "GREENTIC_PACK_SIGNATURES", "GREENTIC_PACK_SIGNERS"
Mode = Literal["ignore", "warn", "require"]
"""The words of `POLICY`."""


class PackSignaturePolicy(NamedTuple):
    """What is asked of the signatures of packs. `keys` are BLAKE3 fingerprints of public keys, in hex."""

    mode: Mode = "warn"
    keys: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    """Key ids, as revocation lists name them."""


class PackSignature(msgspec.Struct, frozen=True, omit_defaults=True):
    """`signatures/pack.sig`."""

    alg: str
    sig: str
    digest: str
    signed_at_utc: str
    key_fingerprint: str | None = None


class UntrustedPack(Conflict):
    """A pack whose signature the policy does not accept."""


def read_signature_policy(environ: Mapping[str, str]) -> PackSignaturePolicy:
    """The policy that variables tell. Raises `InvalidArgument`."""
    mode = cast("Mode", variables.word(POLICY, environ) or PackSignaturePolicy().mode)
    fingerprints = frozenset(key.lower() for key in variables.listed(SIGNERS, environ))
    for fingerprint in fingerprints:
        if len(fingerprint) != 64 or any(c not in "0123456789abcdef" for c in fingerprint):
            raise InvalidArgument(
                f"{SIGNERS}: `{fingerprint}` is no fingerprint of a key; expected 64 hex digits, as `gtc pack sign` prints"
            )
    if mode == "require" and not fingerprints:
        raise InvalidArgument(
            f"signatures of packs are required ({POLICY}), and {SIGNERS} names nobody whose signature counts",
            hint=f"{SIGNERS}=<key_fingerprint that `gtc pack sign` prints>",
        )
    return PackSignaturePolicy(mode, fingerprints)


def signed_digest(archive: PackArchive) -> bytes:
    """The 32 bytes that a signature signs (rule 1)."""
    from blake3 import blake3

    name = SBOM if SBOM in archive.entries else LEGACY_SBOM
    digest = blake3(archive.read(MANIFEST))
    digest.update(archive.read(name))
    for path, file_hash in sorted(archive.sbom().files.items()):
        digest.update(f"{path}\n{file_hash}".encode())
    return digest.digest()


def fingerprint_of(public_key: bytes) -> str:
    """The fingerprint of a raw public key."""
    from blake3 import blake3

    return blake3(public_key).hexdigest()


def signature_warnings(archive: PackArchive, policy: PackSignaturePolicy, sbom_warnings: list[str]) -> list[str]:
    """What is wrong with a pack's signature under the policy. Raises `UntrustedPack` where it is required."""
    if policy.mode == "ignore":
        return []
    faults = _faults(archive, policy, sbom_warnings, unix_seconds(CLOCK))
    if faults and policy.mode == "require":
        raise UntrustedPack(
            f"the signature of pack `{archive.manifest.pack_id}` is required and not accepted: {'; '.join(faults)}",
            hint="sign it with an allowed key: gtc pack sign FILE --key KEY",
        )
    # An unsigned pack is the rule in the field; telling of it each time would hide what matters.
    return [] if not (SIGNATURE in archive.entries or CHAIN in archive.entries) else faults


def _faults(archive: PackArchive, policy: PackSignaturePolicy, sbom_warnings: list[str], now: int) -> list[str]:
    if SIGNATURE not in archive.entries:
        return [f"signature file `{SIGNATURE}` missing"]
    if CHAIN not in archive.entries:
        return [f"signature chain `{CHAIN}` missing"]
    limit = archive.limits.signature_bytes
    try:
        data = archive.read(SIGNATURE, limit=limit)
        signature = decode(data, PackSignature)
        check_each_once(data, compact(signature))
        raw = base64.urlsafe_b64decode(signature.sig + "=" * (-len(signature.sig) % 4))
        digest = signed_digest(archive)
    except ValueError as error:
        return [f"`{SIGNATURE}` cannot be read: {error}"]
    except MalformedArtifact as error:
        return [error.message]
    if signature.alg != "ed25519":
        return [f"signature algorithm {shown(signature.alg)}, expected `ed25519`"]
    if signature.digest.lower() != digest.hex():
        return [f"signature digest mismatch: expected {shown(signature.digest)}, found {digest.hex()}"]
    try:
        key, faults, out_of_time = _chain_key(archive.read(CHAIN, limit=limit), now)
    except MalformedArtifact as error:
        return [error.message]
    if key is None:
        return faults
    if not _verifies(key, raw, digest):
        return [*faults, "signature verification failed"]
    fingerprint = fingerprint_of(key)
    if key_id(key) in policy.revoked:
        return [f"signed by the key {fingerprint}, which is revoked"]
    if fingerprint not in policy.keys and (policy.keys or policy.mode == "require"):
        faults.append(f"signed by the key {fingerprint}, which is not among the allowed ones")
    if policy.keys and fingerprint in policy.keys:
        faults = []  # a named key needs no certificate to be believed
    faults += out_of_time
    return faults + ([f"SBOM: {w}" for w in sbom_warnings] if policy.mode == "require" else [])


def _verifies(key: bytes, signature: bytes, digest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, digest)
    except (InvalidSignature, ValueError):
        return False
    return True


def _chain_key(pem: bytes, now: int) -> tuple[bytes | None, list[str], list[str]]:
    """The raw key of the first certificate, what is to be said about the chain, and whether it is out of its time."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        chain = x509.load_pem_x509_certificates(pem)
        key = chain[0].public_key()
        made_here = chain[0].issuer == chain[0].subject and DEV_SUBJECT in chain[0].subject.rfc4514_string()
        first, last = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    except (ValueError, TypeError, IndexError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        return None, [f"`{CHAIN}` cannot be read: {error}"], []
    if not isinstance(key, Ed25519PublicKey):
        return None, [f"the certificate of `{CHAIN}` has no Ed25519 key"], []
    faults: list[str] = []
    if made_here:
        faults.append("dev self-signed certificate is not allowed under strict policy")
    if len(chain) > 1:
        faults.append("more than one certificate; the chain is not validated")
    valid = first.timestamp() <= now <= last.timestamp()
    out_of_time = [] if valid else [f"the certificate is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d} only"]
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw), faults, out_of_time
