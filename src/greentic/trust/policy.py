"""What a signature is worth: one verdict, a pure function over values that somebody else has read. Pure; tells nobody, raises nothing.

Rules:
1. `off` looks at no signature, `warn` tells, `require` refuses. There is no state in which a check is configured and skipped.
2. `require` needs somebody to be trusted: a policy that nobody, or too few, could ever satisfy is refused where it is configured and
   where it is read, and never read as "anybody".
3. A revoked bundle is refused under every policy. What a revoked key signed counts as unsigned, whatever it signed.
4. Under `warn` and `require` a revision needs the signatures of its bundle's publishers and that of the operator who staged it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from greentic.ground.errors import SpecViolation, UntrustedBundle
from greentic.model.delivery import (
    Delivery,
    SignaturePolicy,
    sealed_content,
    signatures_of,
    signed_content,
)
from greentic.model.environment import Environment, Revision
from greentic.trust.revocation import RevocationList
from greentic.trust.statements import BUNDLE, REVISION, SEAL, canonical_sha256, vouched


class Trusted(NamedTuple):
    """What is believed of one environment document, all checks passed."""

    delivery: Delivery
    keys: Mapping[str, bytes]
    """Raw public keys by key id: whose signatures count."""
    revoked: RevocationList | None
    """The newest list that is believed."""
    anchored: bool
    """Whether a trust anchor was given, and the document is sealed by it."""
    warnings: tuple[str, ...] = ()

    @property
    def revoked_keys(self) -> frozenset[str]:
        """Ids of the keys that count for nothing (rule 3)."""
        return self.revoked.key_ids if self.revoked else frozenset()


class Verdict(msgspec.Struct, frozen=True):
    """Whether a revision may be served."""

    allowed: bool
    reason: str | None = None
    """Why not."""
    hint: str | None = None
    warning: str | None = None
    """What is to be told of one that may."""

    @property
    def refusal(self) -> UntrustedBundle | None:
        """The error of a revision that may not be served."""
        return None if self.allowed else UntrustedBundle(self.reason or "it is not trusted", hint=self.hint)


def verdict(trusted: Trusted, revision: Revision) -> Verdict:
    """Whether a revision of the document may be served."""
    revoked = trusted.revoked
    if revoked is not None and (reason := revoked.reason_of(revision.bundle_digest)) is not None:
        return Verdict(
            False,
            f"bundle `{revision.bundle_digest}` of revision `{revision.revision_id}` is revoked "
            f"(list version {revoked.version}): {reason}",
            "route traffic to another revision: gtc op traffic set",
        )
    policy = trusted.delivery.signatures
    why = None if policy.mode == "off" else unsigned(revision, policy, trusted.keys, trusted.revoked_keys)
    if why is None:
        return Verdict(True)
    text = f"revision `{revision.revision_id}`: {why}"
    if policy.mode == "warn":
        return Verdict(True, warning=text)
    return Verdict(
        False,
        f"signatures are required, and not accepted for {text}",
        "sign the bundle (gtc bundle sign) and stage it again",
    )


def unsigned(
    revision: Revision, policy: SignaturePolicy, keys: Mapping[str, bytes], revoked: Collection[str]
) -> str | None:
    """Why the signatures of a revision are not enough (rule 4), or nothing."""
    try:
        found = signatures_of(revision)
    except SpecViolation as error:
        return f"its signatures do not parse: {error.message}"
    lacking = bundle_unsigned(found.bundle, revision.bundle_digest, policy, keys, revoked)
    if lacking is not None:
        return f"bundle: {lacking}"
    own = [] if found.revision is None else [found.revision]
    lacking = vouched(REVISION, own, canonical_sha256(signed_content(revision)), keys, revoked=revoked).lacking
    return None if lacking is None else f"the operator's signature of the revision: {lacking}"


def bundle_unsigned(
    envelopes: Collection[object],
    digest: str,
    policy: SignaturePolicy,
    keys: Mapping[str, bytes],
    revoked: Collection[str],
) -> str | None:
    """Why the signatures of a bundle are not enough, or nothing. `digest` is `sha256:<hex>`."""
    return vouched(
        BUNDLE, list(envelopes), digest.removeprefix("sha256:"), keys,
        revoked=revoked, wanted=policy.keys, threshold=policy.threshold,
    ).lacking  # fmt: skip


def unsealed(
    env: Environment, delivery: Delivery, anchors: Mapping[str, bytes], revoked: Collection[str]
) -> str | None:
    """Why the document is not sealed by a key of the anchor, or nothing."""
    seal = [] if delivery.seal is None else [delivery.seal]
    return vouched(SEAL, seal, canonical_sha256(sealed_content(env)), anchors, revoked=revoked).lacking


def unsatisfiable(policy: SignaturePolicy, keys: Collection[str], revoked: Collection[str] = ()) -> str | None:
    """Why nobody could ever satisfy a policy that requires signatures (rule 2), or nothing. `keys` are the trusted ids."""
    if policy.mode != "require":
        return None
    trusted = {key_id.lower() for key_id in keys} - set(revoked)
    counting = trusted & {key_id.lower() for key_id in policy.keys} if policy.keys else trusted
    if len(counting) >= policy.threshold:
        return None
    whom = f"the keys {', '.join(policy.keys)}" if policy.keys else "the keys of the trust root"
    return f"signatures are required by {policy.threshold} of {whom}, and {len(counting)} of them is trusted"
