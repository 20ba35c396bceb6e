"""`gtc bundle sign`, and what `gtc bundle verify` says of signatures. A signature stands beside its bundle."""

from __future__ import annotations

from pathlib import Path

from greentic import __version__
from greentic.distribute.source import SIGNATURE_SUFFIX
from greentic.distribute.sources import signatures_at
from greentic.ground.clock import Clock, timestamp
from greentic.ground.disk import RealDisk, io_error, replace_file
from greentic.ground.documents import Json, JsonObject, open_file, read_file, read_given
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.net.terms import own_terms
from greentic.store import operator_key
from greentic.trust.gate import pin
from greentic.trust.keys import MAX_PEM, SigningKey, key_id, read_private_pem, read_public_pem
from greentic.trust.statements import BUNDLE, sign_bundle, vouched


def read_key(path: Path | None) -> SigningKey:
    """The private key of a file, else the operator's. Raises `InvalidArgument` or `OperatorKeyError`."""
    if path is None:
        return operator_key.load(RealDisk())
    try:
        return read_private_pem(read_given(path, MAX_PEM).decode(errors="replace"))
    except OSError as error:
        raise io_error(path, error) from None
    except ValueError as error:
        raise InvalidArgument(
            f"`{path}` is no Ed25519 private key: {error}", hint="openssl genpkey -algorithm ed25519 -out key.pem"
        ) from None


def sign_file(path: Path, key_file: Path | None, clock: Clock) -> JsonObject:
    """Sign a bundle; the signature comes to `<bundle>.sig`, and is verified there."""
    key = read_key(key_file)
    try:
        with open_file(path) as file, pin(file) as bundle:
            digest = bundle.digest
        signature = sign_bundle(
            path.name,
            digest.removeprefix("sha256:"),
            key,
            builder=f"greentic/{__version__}",
            at=timestamp(clock.now_ns()),
        )
        beside = path.with_name(path.name + SIGNATURE_SUFFIX)
        replace_file(beside, signature)
    except OSError as error:
        raise io_error(Path(error.filename or path), error) from None
    why = vouched(BUNDLE, [read_file(beside)], digest.removeprefix("sha256:"), {key.key_id: key.public}).lacking
    if why is not None:
        beside.unlink(missing_ok=True)
        raise Conflict(f"the signature of `{path}` does not verify: {why}")
    return {"path": str(beside), "digest": digest, "key_id": key.key_id}


def verify_signature(path: Path, digest: str, keys: list[Path]) -> JsonObject:
    """Whether one of the keys signed the bundle. Raises `Conflict`."""
    trusted: dict[str, bytes] = {}
    for file in keys:
        try:
            public = read_public_pem(read_given(file, MAX_PEM).decode(errors="replace"))
        except OSError as error:
            raise io_error(file, error) from None
        except ValueError as error:
            raise InvalidArgument(f"`{file}` is no public key: {error}") from None
        trusted[key_id(public)] = public
    found = vouched(BUNDLE, signatures_at(str(path), own_terms()), digest.removeprefix("sha256:"), trusted)
    if found.lacking is not None:
        raise Conflict(
            f"the signature of `{path}` is not accepted: {found.lacking}", hint="do not use it, or ask who publishes it"
        )
    return {"signed_by": list[Json](found.keys)}
