"""Ed25519 keys as other programs store them (formats: trust 1).

Rules:
1. Ed25519 only. Private keys are PKCS#8 PEM, version 1 or 2 on reading (the library takes version 1 only), version 1 on writing.
2. A version 2 file carries its public key; it must be the one that belongs to the seed.
3. A key id is the first 16 bytes of SHA-256 over the 32 raw public bytes, in lower-case hex.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

MAX_PEM = 1 << 14
"""Most bytes of a file with a key."""
_OID_ED25519 = bytes.fromhex("06032b6570")
_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
_PKCS8_V1_PREFIX = bytes.fromhex("302e020100300506032b657004220420")


class KeyFormatError(ValueError):
    """The text or bytes are not an Ed25519 key of the expected form."""


class SigningKey(msgspec.Struct, frozen=True):
    """A private key: its 32-byte seed, with everything derived from it."""

    seed: bytes

    @property
    def public(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def key_id(public: bytes) -> str:
    """32 lower-case hex characters (rule 3)."""
    return hashlib.sha256(public).digest()[:16].hex()


def is_key_id(text: str) -> bool:
    """Whether a text is of the form of a key id, in either case (rule 3)."""
    return len(text) == 32 and all(c in "0123456789abcdef" for c in text.lower())


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` over `message` is by the holder of `public`, under strict rules.

    Small-order public keys are refused, and OpenSSL refuses a scalar that is not reduced.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(public) != 32 or len(signature) != 64 or public in _SMALL_ORDER or signature[:32] in _SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# The encodings of the eight points of small order, non-canonical ones included: a signature by such a "key" proves nothing.
_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
)


def public_pem(public: bytes) -> str:
    """The key as SPKI PEM."""
    return _armour("PUBLIC KEY", _SPKI_PREFIX + public)


def private_pem(seed: bytes) -> str:
    """The key as PKCS#8 version 1 PEM, which every reader accepts."""
    return _armour("PRIVATE KEY", _PKCS8_V1_PREFIX + seed)


def read_public_pem(pem: str) -> bytes:
    """The 32 raw bytes of an SPKI PEM. Raises `KeyFormatError`."""
    der = _unarmour("PUBLIC KEY", pem)
    if len(der) != 44 or not der.startswith(_SPKI_PREFIX):
        raise KeyFormatError("public key PEM: expected an Ed25519 SubjectPublicKeyInfo of 44 bytes")
    return der[12:]


def read_private_pem(pem: str) -> SigningKey:
    """The key of a PKCS#8 PEM, version 1 or 2. Raises `KeyFormatError`."""
    outer = _Der(_unarmour("PRIVATE KEY", pem))
    body = _Der(outer.take(0x30))
    outer.end()
    version = body.take(0x02)
    if version not in (b"\0", b"\1"):
        raise KeyFormatError(f"private key PEM: unknown PKCS#8 version {version.hex() or 'none'}")
    algorithm = body.take(0x30)
    if algorithm != _OID_ED25519:
        raise KeyFormatError("private key PEM: not an Ed25519 key")
    inner = _Der(body.take(0x04))
    seed = inner.take(0x04)
    inner.end()
    if len(seed) != 32:
        raise KeyFormatError(f"private key PEM: the seed has {len(seed)} bytes, expected 32")
    key = SigningKey(seed)
    if body.peek() == 0xA0:
        body.take(0xA0)
    if body.peek() == 0x81:
        public = body.take(0x81)
        if public[:1] != b"\0" or public[1:] != key.public:
            raise KeyFormatError("private key PEM: the embedded public key does not belong to the seed")
    body.end()
    return key


class _Der:
    """Just enough DER: definite lengths, one tag after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def peek(self) -> int | None:
        return self._data[self._at] if self._at < len(self._data) else None

    def take(self, tag: int) -> bytes:
        if self.peek() != tag:
            raise KeyFormatError(f"key: expected DER tag 0x{tag:02x} at byte {self._at}")
        if self._at + 2 > len(self._data):
            raise KeyFormatError("key: DER ends inside a header")
        length, start = self._data[self._at + 1], self._at + 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 2 or start + count > len(self._data):
                raise KeyFormatError("key: DER length is not of a supported form")
            length = int.from_bytes(self._data[start : start + count], "big")
            start += count
        if start + length > len(self._data):
            raise KeyFormatError("key: DER value ends after the data")
        self._at = start + length
        return self._data[start : start + length]

    def end(self) -> None:
        if self._at != len(self._data):
            raise KeyFormatError(f"key: {len(self._data) - self._at} bytes after the end of a DER value")


def _armour(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _unarmour(label: str, pem: str) -> bytes:
    lines = [line.strip() for line in pem.strip().splitlines()]
    if len(lines) < 3 or lines[0] != f"-----BEGIN {label}-----" or lines[-1] != f"-----END {label}-----":
        raise KeyFormatError(f"{label.lower()} PEM: expected one block `-----BEGIN {label}-----`")
    try:
        return base64.b64decode("".join(lines[1:-1]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyFormatError(f"{label.lower()} PEM: {error}") from None
