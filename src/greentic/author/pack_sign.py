"""`gtc pack sign`: a signature of what the SBOM lists, beside it in the archive (formats: pack 8)."""

from __future__ import annotations

import base64
import datetime
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from greentic.author.source_files import read_authored
from greentic.ground.clock import Clock, timestamp
from greentic.ground.disk import io_error, replace_file
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.materialize.placed import file_digest
from greentic.pack.archive import PackArchive
from greentic.pack.limits import DEFAULT_PACK_LIMITS
from greentic.pack.signature import CHAIN, SIGNATURE, PackSignature, fingerprint_of, signed_digest
from greentic.trust.keys import MAX_PEM

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_MAX_CHAIN = DEFAULT_PACK_LIMITS.signature_bytes
_SIGNER = "greentic-pack-signer"
_REGULAR = 0o100644 << 16


def sign_pack(path: Path, key_file: Path, chain_file: Path | None, out: Path | None, clock: Clock) -> JsonObject:
    """Sign a pack with the Ed25519 key of a PKCS#8 PEM file. Without a certificate a self-signed one is made.

    Raises `Conflict` for a pack whose SBOM is not true, `InvalidArgument` for a key or certificate that cannot be used.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    data = read_authored(path, DEFAULT_PACK_LIMITS.archive_bytes)
    pem = read_authored(key_file, MAX_PEM)
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"`{key_file}` is no private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidArgument(f"`{key_file}` is no Ed25519 key", hint="openssl genpkey -algorithm ed25519 -out key.pem")
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    archive = PackArchive(io.BytesIO(data))
    faults = archive.sbom_warnings()
    if faults:
        raise Conflict(
            f"`{path}` cannot be signed, its SBOM is not true: {'; '.join(faults[:3])}", hint="build the pack again"
        )
    digest = signed_digest(archive)
    chain = _chain(chain_file, public) if chain_file is not None else _self_signed(key)
    signature = PackSignature(
        "ed25519", base64.urlsafe_b64encode(key.sign(digest)).decode().rstrip("="), digest.hex(), timestamp(clock.now_ns()),
        fingerprint_of(public),
    )  # fmt: skip
    target = out or path
    _write(target, _with_signature(data, msgspec.json.encode(signature), chain))
    return {
        "path": str(target),
        "digest": file_digest(target),
        "signed_digest": digest.hex(),
        "key_fingerprint": fingerprint_of(public),
    }


def _chain(path: Path, public: bytes) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = read_authored(path, _MAX_CHAIN)
    try:
        key = x509.load_pem_x509_certificates(pem)[0].public_key()
    except (ValueError, IndexError) as error:
        raise InvalidArgument(f"`{path}` holds no certificates: {error}") from None
    if not isinstance(key, Ed25519PublicKey) or key.public_bytes(Encoding.Raw, PublicFormat.Raw) != public:
        raise InvalidArgument(f"the first certificate of `{path}` is not that of the key")
    return pem


def _self_signed(key: Ed25519PrivateKey) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _SIGNER)])
    began = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, began, began + datetime.timedelta(days=36525))
    return builder.sign(key, None).public_bytes(Encoding.PEM)


def _with_signature(data: bytes, signature: bytes, chain: bytes) -> bytes:
    """The archive, entry for entry as it was, with the signature behind it; an older signature is left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            if info.filename not in (SIGNATURE, CHAIN):
                new.writestr(_entry(info.filename), old.read(info))
        for name, content in ((SIGNATURE, signature), (CHAIN, chain)):
            new.writestr(_entry(name), content)
    return out.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, _REGULAR
    return info


def _write(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data)
    except OSError as error:
        raise io_error(path, error) from None
