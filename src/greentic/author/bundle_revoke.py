"""`gtc bundle revoke`: bundles and keys on a signed list that workers refuse."""

from __future__ import annotations

from pathlib import Path

import msgspec

from greentic.author.bundle_sign import read_key
from greentic.ground.clock import Clock, timestamp, unix_seconds
from greentic.ground.disk import io_error, replace_file
from greentic.ground.documents import JsonObject, read_given
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.model.ids import is_digest
from greentic.trust import revocation
from greentic.trust.keys import is_key_id


def revoke(
    file: Path, digests: list[str], keys: list[str], reason: str, key_file: Path | None, days: int, clock: Clock
) -> JsonObject:
    """Put bundles and keys on a signed list: made if it is not there, else with the next version."""
    key = read_key(key_file)
    now = unix_seconds(clock)
    current = revocation.empty(now)
    try:
        if file.exists():
            current = revocation.read_list(read_given(file), {key.key_id: key.public})
    except OSError as error:
        raise io_error(file, error) from None
    except ValueError as error:
        raise Conflict(f"`{file}` is no list that this key signed: {error}") from None
    for digest in digests:
        if not is_digest(digest):
            raise InvalidArgument(f"`{digest}` is not `sha256:` and 64 lower-case hex digits")
    for key_id in keys:
        if not is_key_id(key_id):
            raise InvalidArgument(f"`{key_id}` is no id of a key; expected 32 hex digits, as gtc bundle sign prints")
    if key.key_id in current.key_ids:
        raise Conflict(
            f"the key `{key.key_id}` is revoked by this very list, so no worker believes another list by it",
            hint="sign with another key of the trust anchor: gtc bundle revoke --key FILE",
        )
    kept = [d for d in current.digests if d.digest not in digests]
    kept_keys = [k for k in current.keys if k.key_id.lower() not in {gone.lower() for gone in keys}]
    revoked = msgspec.structs.replace(
        current,
        version=current.version + 1,
        issued_at=now,
        expires_at=now + days * 86_400,
        digests=[*kept, *(revocation.RevokedDigest(d, reason) for d in digests)],
        keys=[*kept_keys, *(revocation.RevokedKey(k.lower(), reason) for k in keys)],
    )
    try:
        replace_file(file, revocation.sign_list(revoked, key))
    except OSError as error:
        raise io_error(file, error) from None
    return {
        "path": str(file),
        "version": revoked.version,
        "expires_at": timestamp(revoked.expires_at * 1_000_000_000),
        "digests": [d.digest for d in revoked.digests],
        "keys": [k.key_id for k in revoked.keys],
        "key_id": key.key_id,
    }
