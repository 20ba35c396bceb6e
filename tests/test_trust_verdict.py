"""Whether a revision may be served, as a table: what is signed, what is asked for, what is revoked."""

from __future__ import annotations

import msgspec
import pytest

from greentic.ground.errors import UntrustedBundle
from greentic.model.delivery import Delivery, RevisionSignatures, SignaturePolicy, with_signatures
from greentic.model.environment import Revision
from greentic.trust import policy, revocation, statements
from test_k8s_render import ONE, revision
from test_trust_policy import HEX, KEY, KEYS, NOW, OTHER, listed

DIGEST = f"sha256:{HEX}"


def signed(bundle: bool, operator: bool) -> Revision:
    """A revision with the signature of the bundle, the operator's, both or none."""
    envelope: dict[str, object] = msgspec.to_builtins(statements.signed_statement(statements.BUNDLE, "x", HEX, {}, KEY))
    own = RevisionSignatures(bundle=[envelope] if bundle else [])
    made = with_signatures(revision(ONE, bundle_digest=DIGEST), own)
    if operator:
        content = policy.signed_content(made)
        mine = statements.sign_content(statements.REVISION, "x", content, KEY, "")
        made = with_signatures(made, RevisionSignatures(bundle=own.bundle, revision=mine))
    return made


def judged(made: Revision, mode: str, revoked: revocation.RevocationList | None = None) -> policy.Verdict:
    asked = msgspec.convert({"mode": mode}, SignaturePolicy)
    return policy.verdict(policy.Trusted(Delivery(generation=1, signatures=asked), KEYS, revoked, True), made)


@pytest.mark.parametrize("mode", ["off", "warn", "require"])
@pytest.mark.parametrize("bundle", [True, False])
@pytest.mark.parametrize("operator", [True, False])
def test_a_revision_needs_both_signatures_where_they_are_asked_for(mode, bundle, operator):
    found, good = judged(signed(bundle, operator), mode), bundle and operator
    assert found.allowed is (good or mode != "require")
    assert (found.warning is None) is (good or mode != "warn")
    assert (found.reason is None and found.refusal is None and found.hint is None) is found.allowed
    if not good and mode != "off":
        told = found.reason or found.warning or ""
        assert ONE in told and ("operator's signature" in told) is bundle
    if found.refusal is not None:
        assert isinstance(found.refusal, UntrustedBundle) and "signatures are required" in str(found.refusal)


@pytest.mark.parametrize("mode", ["off", "warn", "require"])
def test_a_revoked_digest_is_refused_whatever_is_signed_and_another_is_not(mode):
    for digest, gone in ((DIGEST, True), (f"sha256:{'0' * 64}", False)):
        found = judged(signed(True, True), mode, revocation.read_list(listed(3, digests=(digest,)), KEYS))
        assert found.allowed is not gone
        assert ("leaks" in str(found.refusal) and "version 3" in str(found.refusal)) is gone


def test_a_revoked_key_signs_nothing():
    revoked = revocation.read_list(listed(1, KEY.key_id), KEYS)
    assert not judged(signed(True, True), "require", revoked).allowed
    other = revocation.read_list(listed(1, OTHER.key_id), KEYS)
    assert judged(signed(True, True), "require", other).allowed


def test_a_list_has_ended_at_its_very_second():
    found = revocation.read_list(listed(1, until=NOW), KEYS)
    assert [revocation.ended(found, now) is None for now in (NOW - 1, NOW, NOW + 1)] == [True, False, False]


@pytest.mark.parametrize("data", [b"", b"{}", b"not json"])
def test_what_is_no_envelope_is_no_list(data):
    with pytest.raises(revocation.RevocationError):
        revocation.read_list(data, KEYS)
