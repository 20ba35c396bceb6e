"""DSSE envelopes around in-toto statements, and around payloads of a type of their own (formats: environment 13; trust 4).

Rules of verification, in order:
1. The payload type is exactly `application/vnd.in-toto+json`, the payload a statement of the exact type, and its predicate of the
   type that the reader expects: a signature means one thing, whoever asks.
2. At least one signature is by a trusted key (ids compared without case; an empty id never matches) and verifies; a bad
   one does not spoil a good one.
3. The first subject's sha256 is the artifact's.
A payload of another type than a statement's is what its own reader asks for by that type; rule 2 holds for it alike.
The ways to fail are different errors, for they call for different remedies.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from greentic.ground.documents import check_each_once, compact, decode
from greentic.trust.keys import SigningKey, verify

MAX_ENVELOPE = 8 << 20
"""Most bytes of an envelope; the largest are lists of what was revoked."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


class SignatureError(ValueError):
    """An envelope does not prove what it should."""


class MalformedEnvelope(SignatureError):
    pass


class WrongKind(SignatureError):
    """A good statement, about something else than the reader asks for."""


class NoTrustedKey(SignatureError):
    pass


class BadSignature(SignatureError):
    pass


class SubjectMismatch(SignatureError):
    pass


class Signature(msgspec.Struct, frozen=True):
    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, rename={"payload_type": "payloadType"}):
    payload_type: str
    payload: str
    signatures: list[Signature]


class Subject(msgspec.Struct, frozen=True):
    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, rename={"type_": "_type", "predicate_type": "predicateType"}):
    type_: str
    subject: list[Subject]
    predicate_type: str
    predicate: dict[str, object]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(subject: str, sha256_hex: str, predicate_type: str, predicate: dict[str, object]) -> bytes:
    """A compact in-toto statement about one artifact."""
    return msgspec.json.encode(
        Statement(STATEMENT_TYPE, [Subject(subject, {"sha256": sha256_hex})], predicate_type, predicate)
    )


def sign(payload: bytes, key: SigningKey, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    signature = base64.b64encode(key.sign(pae(payload_type, payload))).decode()
    return Envelope(payload_type, base64.b64encode(payload).decode(), [Signature(key.key_id, signature)])


def envelope_bytes(envelope: Envelope) -> bytes:
    """Pretty JSON without a final newline, as signatures are stored."""
    return msgspec.json.format(msgspec.json.encode(envelope), indent=2)


def read_envelope(data: bytes, limit: int = MAX_ENVELOPE) -> Envelope:
    try:
        found = decode(data, Envelope, limit=limit)
        if data != envelope_bytes(found):
            check_each_once(data, compact(found))
        return found
    except ValueError as error:
        raise MalformedEnvelope(f"not a DSSE envelope: {error}") from None


def claimed_statement(envelope: Envelope) -> Statement:
    """What an envelope says, before anybody vouches for it. Raises `MalformedEnvelope`."""
    return _read(envelope)[1]


def claimed_payload(envelope: Envelope, payload_type: str) -> bytes:
    """The payload of an envelope of this type, before anybody vouches for it. Raises `MalformedEnvelope`."""
    if envelope.payload_type != payload_type:
        raise MalformedEnvelope(f"payload type is `{envelope.payload_type[:100]}`, expected `{payload_type}`")
    return _decode(envelope.payload, "payload")


def _read(envelope: Envelope) -> tuple[bytes, Statement]:
    payload = claimed_payload(envelope, PAYLOAD_TYPE)
    try:
        found = decode(payload, Statement)
        check_each_once(payload, compact(found))
    except ValueError as error:
        raise MalformedEnvelope(f"payload is not an in-toto statement: {error}") from None
    if found.type_ != STATEMENT_TYPE:
        raise MalformedEnvelope(f"statement type is `{found.type_}`, expected `{STATEMENT_TYPE}`")
    return payload, found


def verify_envelope(
    envelope: Envelope, trusted: Mapping[str, bytes], sha256_hex: str, predicate_type: str
) -> Statement:
    """The statement of this predicate type that a trusted key made about the artifact with this digest.

    `trusted` maps key ids in lower case to raw public keys. Raises one of the errors above.
    """
    payload, found = _read(envelope)
    if found.predicate_type != predicate_type:
        raise WrongKind(f"it is a statement of the type `{found.predicate_type}`, expected `{predicate_type}`")
    check_signed(envelope, trusted, payload)
    recorded = found.subject[0].digest.get("sha256", "") if found.subject else ""
    if not recorded:
        raise SubjectMismatch("the statement has no sha256 subject")
    if recorded.lower().removeprefix("sha256:") != sha256_hex.lower().removeprefix("sha256:"):
        raise SubjectMismatch(f"the statement is about sha256 {recorded}, the artifact is {sha256_hex}")
    return found


def check_signed(envelope: Envelope, trusted: Mapping[str, bytes], payload: bytes) -> None:
    """Raise `NoTrustedKey` or `BadSignature` unless a trusted key signed the payload of this envelope (rule 2)."""
    known = [s for s in envelope.signatures if s.keyid and s.keyid.lower() in trusted]
    if not known:
        ids = ", ".join(s.keyid for s in envelope.signatures) or "none"
        raise NoTrustedKey(f"no signature by a trusted key (signed by: {ids})")
    message = pae(envelope.payload_type, payload)
    for signature in known:
        try:
            raw = base64.b64decode(signature.sig, validate=True)
        except (binascii.Error, ValueError):
            continue
        if verify(trusted[signature.keyid.lower()], raw, message):
            return
    raise BadSignature("no signature by a trusted key verifies")


def _decode(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedEnvelope(f"{what} is not base64: {error}") from None
