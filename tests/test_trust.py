"""Keys, envelopes, trust roots and the digest gate."""

from __future__ import annotations

import base64
import io
import os

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from greentic.ground.errors import DigestMismatch, TrustRootError
from greentic.trust import dsse, gate, keys, revocation, root, statements

SEED = bytes(range(32))
KEY = keys.SigningKey(SEED)


def pkcs8(body: bytes) -> str:
    text = base64.b64encode(body).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"


def der(tag: int, body: bytes) -> bytes:
    return bytes([tag, len(body)]) + body


OID = bytes.fromhex("300506032b6570")
V1 = der(0x30, bytes.fromhex("020100") + OID + der(4, der(4, SEED)))
V2 = der(0x30, bytes.fromhex("020101") + OID + der(4, der(4, SEED)) + der(0x81, b"\0" + KEY.public))
V2_ATTRIBUTES = der(
    0x30, bytes.fromhex("020101") + OID + der(4, der(4, SEED)) + der(0xA0, b"") + der(0x81, b"\0" + KEY.public)
)


def test_what_we_write_the_library_reads():
    loaded = serialization.load_pem_private_key(keys.private_pem(SEED).encode(), None)
    assert isinstance(loaded, Ed25519PrivateKey) and loaded.private_bytes_raw() == SEED
    public = serialization.load_pem_public_key(keys.public_pem(KEY.public).encode())
    assert public.public_bytes_raw() == KEY.public == keys.read_public_pem(keys.public_pem(KEY.public))


@pytest.mark.parametrize("body", [V1, V2, V2_ATTRIBUTES])
def test_private_keys_of_both_versions(body):
    assert keys.read_private_pem(pkcs8(body)).seed == SEED


@pytest.mark.parametrize(
    "body",
    [
        b"", V1[:-1], V1 + b"\0", V1[:20], der(0x30, bytes.fromhex("020102") + OID + der(4, der(4, SEED))),
        der(0x30, bytes.fromhex("020100300506032b6571") + der(4, der(4, SEED))), der(0x30, bytes.fromhex("020100") + OID + der(4, der(4, SEED[:-1]))),
        der(0x30, bytes.fromhex("020101") + OID + der(4, der(4, SEED)) + der(0x81, b"\0" + bytes(32))),
        b"\x30\x84\x7f\xff\xff\xff", b"\x30", b"\x30\x81", bytes.fromhex("30820005") + b"x",
    ],
)  # fmt: skip
def test_private_keys_that_are_refused(body):
    with pytest.raises(keys.KeyFormatError):
        keys.read_private_pem(pkcs8(body))


def test_long_der_lengths_are_understood():
    body = V2[2:]
    assert keys.read_private_pem(pkcs8(b"\x30\x81" + bytes([len(body)]) + body)).seed == SEED
    assert keys.read_private_pem(pkcs8(b"\x30\x82" + len(body).to_bytes(2, "big") + body)).seed == SEED


@given(st.binary(max_size=100))
def test_any_bytes_as_a_key_are_refused_or_read(data):
    try:
        keys.read_private_pem(pkcs8(data))
    except keys.KeyFormatError:
        pass


@pytest.mark.parametrize(
    "pem", ["", "garbage", "-----BEGIN PUBLIC KEY-----\n%%%\n-----END PUBLIC KEY-----", keys.private_pem(SEED)]
)
def test_public_keys_that_are_refused(pem):
    with pytest.raises(keys.KeyFormatError):
        keys.read_public_pem(pem)
    with pytest.raises(keys.KeyFormatError):
        keys.read_public_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")


def test_signatures_verify_strictly():
    signature = KEY.sign(b"m")
    assert keys.verify(KEY.public, signature, b"m")
    assert not keys.verify(KEY.public, signature, b"n")
    assert not keys.verify(KEY.public, signature[:-1], b"m")
    order = 2**252 + 27742317777372353535851937790883648493
    malleable = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not keys.verify(KEY.public, malleable, b"m")
    identity = bytes([1]) + bytes(31)
    assert not keys.verify(identity, identity + bytes(32), b"anything")
    assert KEY.key_id == keys.key_id(KEY.public) and len(KEY.key_id) == 32


HEX = "ab" * 32
TRUSTED = {KEY.key_id: KEY.public}


def envelope(**more: object) -> dsse.Envelope:
    return dsse.sign(dsse.statement("v1.json", HEX, "t", {"a": 1}), KEY)


def test_an_envelope_proves_its_subject():
    written = dsse.envelope_bytes(envelope())
    assert not written.endswith(b"\n") and b'"payloadType": "application/vnd.in-toto+json"' in written
    found = dsse.verify_envelope(dsse.read_envelope(written), TRUSTED, f"sha256:{HEX.upper()}", "t")
    assert found.predicate == {"a": 1}
    assert dsse.pae("t", b"xy") == b"DSSEv1 1 t 2 xy"


def test_a_bad_signature_does_not_spoil_a_good_one():
    good = envelope()
    bad = dsse.Signature(KEY.key_id.upper(), base64.b64encode(bytes(64)).decode())
    unreadable = dsse.Signature(KEY.key_id, "%%%")
    mixed = msgspec.structs.replace(good, signatures=[unreadable, bad, *good.signatures])
    dsse.verify_envelope(mixed, TRUSTED, HEX, "t")
    with pytest.raises(dsse.BadSignature):
        dsse.verify_envelope(msgspec.structs.replace(good, signatures=[unreadable, bad]), TRUSTED, HEX, "t")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"payload_type": "x"}, dsse.MalformedEnvelope), ({"payload": "%"}, dsse.MalformedEnvelope), ({"payload": "AAAA"}, dsse.MalformedEnvelope),
        ({"signatures": []}, dsse.NoTrustedKey), ({"signatures": [dsse.Signature("", "AAAA")]}, dsse.NoTrustedKey),
    ],
)  # fmt: skip
def test_envelopes_that_prove_nothing(change, fault):
    with pytest.raises(fault):
        dsse.verify_envelope(msgspec.structs.replace(envelope(), **change), TRUSTED, HEX, "t")


def test_subjects_and_statement_types():
    with pytest.raises(dsse.SubjectMismatch, match="is about"):
        dsse.verify_envelope(envelope(), TRUSTED, "cd" * 32, "t")
    for payload in (
        dsse.statement("x", "", "t", {}),
        msgspec.json.encode(dsse.Statement(dsse.STATEMENT_TYPE, [], "t", {})),
    ):
        with pytest.raises(dsse.SubjectMismatch, match="no sha256"):
            dsse.verify_envelope(dsse.sign(payload, KEY), TRUSTED, HEX, "t")
    with pytest.raises(dsse.MalformedEnvelope, match="statement type"):
        dsse.verify_envelope(
            dsse.sign(msgspec.json.encode(dsse.Statement("other", [], "t", {})), KEY), TRUSTED, HEX, "t"
        )
    with pytest.raises(dsse.MalformedEnvelope):
        dsse.read_envelope(b"{")


def test_trust_roots():
    pem = keys.public_pem(KEY.public)
    trusted = root.add_key(root.EMPTY, KEY.key_id.upper(), pem)
    assert trusted.keys[0].key_id == KEY.key_id and trusted.trusts(KEY.key_id.upper()) and not trusted.trusts("")
    assert len(root.add_key(trusted, KEY.key_id, pem).keys) == 1
    assert trusted.public_keys() == TRUSTED
    left, gone = root.remove_key(trusted, KEY.key_id.upper())
    assert left.keys == [] and gone.key_id == KEY.key_id
    assert root.remove_key(left, "x") == (left, None)
    for claimed, key, text in (
        ("", pem, "hex string"),
        ("xyz", pem, "hex string"),
        ("00", pem, "does not match"),
        (KEY.key_id, "x", "decode"),
    ):
        with pytest.raises(TrustRootError, match=text):
            root.add_key(root.EMPTY, claimed, key)
    for data in (b"{", b'{"schema":"greentic.trust-root.v1"}', b'{"schema":"x","keys":[]}'):
        with pytest.raises(TrustRootError):
            root.read_trust_root(data)
    assert root.read_trust_root(b'{"schema":"greentic.trust-root.v1","keys":[],"more":1}').extra == {"more": 1}


# -- the gate -------------------------------------------------------------------------------------------------------


def opened(path, data: bytes = b"bundle"):
    path.write_bytes(data)
    return path.open("rb")


def test_only_the_gate_makes_verified_bundles(tmp_path):
    with pytest.raises(TypeError):
        gate.VerifiedBundle(object(), io.BytesIO(), "sha256:" + "a" * 64, 0)
    bundle = gate.pin(opened(tmp_path / "b"))
    assert gate.verify_file(opened(tmp_path / "b"), bundle.digest, revision_id="r").size == 6
    with bundle as held:
        assert held.read_at(2, 100) == b"ndle"
    assert bundle.file.closed


@pytest.mark.parametrize("pinned", ["sha256:00", "", "sha256:" + "a" * 64, "upper", "bare"])
def test_a_pin_that_is_not_the_digest_matches_nothing(tmp_path, pinned):
    actual = gate.pin(opened(tmp_path / "b")).digest
    told = {"upper": actual.upper(), "bare": actual.removeprefix("sha256:")}.get(pinned, pinned)
    with pytest.raises(DigestMismatch, match="refusing to serve unpinned bytes"):
        gate.verify_file(opened(tmp_path / "b"), told, revision_id="r")


@pytest.mark.parametrize(
    ("size", "digest"),
    [
        (2**31 - 1, "5fefa194f49ae30ba302f7736f39da8bdd0dcba6f3b87a78dc1e2972d7f822f1"),
        (2**31 + 1, "4ec7c05249cde176c7277af25f400dc66e87fabf7158179a191562d4338c42d3"),
        (2**32 - 1, "ee691271e0b832ab16fd78f2b418390f5000d6c16528180806bd0860b77e5493"),
        (2**32 + 1, "07d357bda5c988a206bb478ade5af844c26eaf242e951e5ac4d4f85b417ed69f"),
    ],
)
def test_threat_prefix_signed_digest_covers_the_whole_length(size, digest):
    """As `(head -c $((size - 1)) /dev/zero; printf x) | sha256sum` has it: the last byte counts, and so does every one before."""
    # In memory, for a hole costs nothing to read there; one on a disk takes its size of memory.
    with open(os.memfd_create("sparse"), "r+b") as file:
        file.truncate(size - 1)
        file.seek(size - 1)
        file.write(b"x")
        file.flush()
        assert gate.digest_of(file) == (f"sha256:{digest}", size)


def test_threat_verify_then_refetch_the_checked_file_is_the_read_one(tmp_path):
    path = tmp_path / "b"
    bundle = gate.pin(opened(path))
    os.replace(opened(tmp_path / "evil", b"evil!!").name, path)  # whoever swaps the name reaches nothing
    assert bundle.read_at(0, 6) == b"bundle"


def test_der_lengths_of_a_form_that_no_key_has_are_refused():
    for length in (b"\x80", b"\x83\x00\x00\x22", b"\x84" + bytes(4), b"\x82\x01"):
        text = base64.b64encode(b"\x30" + length + bytes(40)).decode()
        with pytest.raises(keys.KeyFormatError, match="DER"):
            keys.read_private_pem(f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")


def test_a_list_is_read_up_to_its_size_and_no_further(monkeypatch):
    data = revocation.sign_list(revocation.RevocationList(revocation.SCHEMA, 1, 1, 1), KEY)
    trusted = {KEY.key_id: KEY.public}
    monkeypatch.setattr(revocation, "MAX_LIST", len(data))
    assert revocation.read_list(data, trusted).version == 1
    monkeypatch.setattr(revocation, "MAX_LIST", len(data) - 1)
    with pytest.raises(revocation.RevocationError, match=f"larger than {len(data) - 1} bytes"):
        revocation.read_list(data, trusted)
    for odd in (b"", b"{}", b"no list"):
        with pytest.raises(revocation.RevocationError):
            revocation.read_list(odd, trusted)


def test_a_list_proves_nothing_new_from_its_end_on():
    until = revocation.RevocationList(revocation.SCHEMA, 1, 1, 5)
    assert revocation.ended(until, 4) is None and "until 5, now is 5" in str(revocation.ended(until, 5))


def test_only_what_a_list_names_is_revoked():
    named = revocation.RevokedDigest("sha256:" + "a" * 64, "leaked")
    listed = revocation.RevocationList(revocation.SCHEMA, 1, 1, 2, [named], [revocation.RevokedKey("AB", "lost")])
    assert listed.reason_of(named.digest) == "leaked" and listed.reason_of("sha256:" + "b" * 64) is None
    assert listed.key_ids == {"ab"}
    assert revocation.read_list(revocation.sign_list(listed, KEY), {KEY.key_id: KEY.public}) == listed
    with pytest.raises(revocation.RevocationError, match="signature"):
        revocation.read_list(revocation.sign_list(listed, KEY), {})


def test_what_a_signature_of_a_bundle_says_and_when():
    data = statements.sign_bundle("a.gtbundle", "a" * 64, KEY, builder="b", at="2026-01-01T00:00:00Z")
    trusted = {KEY.key_id: KEY.public}
    told = statements.vouched(statements.BUNDLE, [data], "a" * 64, trusted)
    assert told.lacking is None and told.statement.predicate["runDetails"]["builder"] == {"id": "b"}
    wanted = statements.vouched(statements.BUNDLE, [data], "a" * 64, trusted, wanted=["cd" * 32]).lacking
    assert wanted.startswith(f"1 signature(s) of {'cd' * 32} needed, 0 found")
    anybody = statements.vouched(statements.BUNDLE, [data], "b" * 64, trusted).lacking
    assert anybody.startswith("1 signature(s) by trusted keys needed, 0 found")
    content = {"a": 1}
    envelope = statements.sign_content(statements.SEAL, "e", content, KEY, "2026-01-01T00:00:00Z")
    assert statements.statement_time(envelope) == "2026-01-01T00:00:00Z"
    for odd in ({}, {"payload": "!"}, msgspec.json.decode(data)):
        assert statements.statement_time(odd) == ""


def test_base64_with_anything_else_in_it_is_no_envelope():
    good = msgspec.json.decode(dsse.envelope_bytes(dsse.sign(dsse.statement("x", "a" * 64, "https://p/v1", {}), KEY)))
    assert dsse.claimed_statement(dsse.read_envelope(msgspec.json.encode(good))).predicate == {}
    for odd in ("*", "\n", " ", "="):
        changed = good | {"payload": good["payload"][:4] + odd + good["payload"][4:]}
        with pytest.raises(dsse.SignatureError):
            dsse.claimed_statement(dsse.read_envelope(msgspec.json.encode(changed)))
