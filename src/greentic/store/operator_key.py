"""The operator's signing key on disk (formats: trust 2).

Rules:
1. `GTC_OPERATOR_KEY_PATH`, else `~/.greentic/operator/key.pem`; the public half stands beside it with `.pub` appended.
2. No directory on the way is a link, the file is a regular file, and nobody but its owner may read it.
3. Generating never overwrites: whoever comes second uses the first one's key.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from pathlib import Path

from greentic.ground import variables
from greentic.ground.clock import RANDOM, Random
from greentic.ground.disk import Disk
from greentic.ground.documents import read_file
from greentic.ground.errors import OperatorKeyError
from greentic.trust.keys import (
    MAX_PEM,
    SigningKey,
    key_id,
    private_pem,
    public_pem,
    read_private_pem,
    read_public_pem,
)
from greentic.trust.root import TrustRoot

ENV_PATH = "GTC_OPERATOR_KEY_PATH"


def key_path() -> Path:
    """Where the key is (rule 1). Raises `OperatorKeyError`."""
    told = variables.path(ENV_PATH)
    if told is not None:
        return told.absolute()
    home = variables.home_directory()
    if home is None:
        raise OperatorKeyError(
            f"cannot resolve operator key path: `${ENV_PATH}` is unset and no home directory is available",
            hint=f"set HOME, or {ENV_PATH} to the file of the key",
        )
    return home.absolute() / ".greentic" / "operator" / "key.pem"


def load(disk: Disk) -> SigningKey:
    """The existing key. Raises `OperatorKeyError`; a missing key is one."""
    path = key_path()
    _check_ancestors(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise OperatorKeyError(
            f"operator key io on {path}: {error.strerror} (os error {error.errno})",
            hint="create it and trust it: gtc op trust-root bootstrap <env-id>",
        ) from None
    except OSError as error:
        if path.is_symlink() or not path.is_file():
            raise _not_regular(path) from None
        raise OperatorKeyError(f"operator key io on {path}: {error.strerror} (os error {error.errno})") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(path)
        if status.st_mode & 0o077:
            raise OperatorKeyError(
                f"operator key `{path}` has insecure permissions (mode 0o{status.st_mode & 0o777:o}); expected mode `0600` "
                "(owner-only)",
                hint=f"chmod 600 {shlex.quote(str(path))}, and replace the key if others may have read it",
            )
        data = os.read(fd, MAX_PEM)
    finally:
        os.close(fd)
    try:
        key = read_private_pem(data.decode())
    except ValueError as error:
        raise OperatorKeyError(f"operator key parse: {error}") from None
    _check_public(path, key, disk)
    return key


def load_trusted(disk: Disk, root: TrustRoot, env_id: str) -> SigningKey:
    """The existing key, to sign for an environment whose trust root holds it. Raises `OperatorKeyError`."""
    key = load(disk)
    if not root.trusts(key.key_id):
        raise OperatorKeyError(
            f"operator key `{key.key_id}` is not in the trust root of env `{env_id}`; nobody would believe what it signs",
            hint=f"gtc op trust-root bootstrap {env_id}, or set {ENV_PATH} to a key that is trusted",
        )
    return key


def load_or_generate(disk: Disk, random: Random) -> SigningKey:
    """The existing key, or a new one (rule 3). Raises `OperatorKeyError`."""
    path = key_path()
    if not path.exists() and not path.is_symlink():
        _check_ancestors(path)
        try:
            disk.make_directory(path.parent, 0o700)
            write_once(path, private_pem(random.octets(32)).encode(), 0o600, disk, random)
        except OSError as error:
            raise OperatorKeyError(
                f"operator key io on {path}: {error.strerror} (os error {error.errno})",
                hint=f"set {ENV_PATH} to a file where it can be written",
            ) from None
    return load(disk)


def write_once(path: Path, data: bytes, mode: int, disk: Disk, random: Random = RANDOM) -> None:
    """Make a file whole or not at all; if another process was first, its file stays (rule 3)."""
    temporary = path.with_name(f".{path.name}.{random.octets(8).hex()}.tmp")
    disk.write_new(temporary, data, mode)
    try:
        with contextlib.suppress(FileExistsError):
            disk.link(temporary, path)
    finally:
        disk.remove(temporary)
    disk.sync_directory(path.parent)


def _check_ancestors(path: Path) -> None:
    for ancestor in path.parents:
        if ancestor.is_symlink():
            raise OperatorKeyError(
                f"operator key path `{path}`: ancestor `{ancestor}` is a symlink; "
                "a link on the way could lead the key elsewhere",
                hint=f"set {ENV_PATH} to the real path",
            )


def _not_regular(path: Path) -> OperatorKeyError:
    return OperatorKeyError(
        f"operator key `{path}` is not a regular file (symlinks, directories, FIFOs etc. are rejected)"
    )


def _check_public(path: Path, key: SigningKey, disk: Disk) -> None:
    sibling = path.with_name(path.name + ".pub")
    try:
        found = key_id(read_public_pem(read_file(sibling, MAX_PEM).decode()))
    except FileNotFoundError:
        try:
            write_once(sibling, public_pem(key.public).encode(), 0o644, disk)
        except OSError as error:
            raise OperatorKeyError(f"operator key io on {sibling}: {error.strerror} (os error {error.errno})") from None
        return
    except ValueError as error:
        raise OperatorKeyError(f"operator public key `{sibling}` does not parse: {error}") from None
    if found != key.key_id:
        raise OperatorKeyError(
            f"operator public key `{sibling}` is stale: id `{found}` does not match private-key id `{key.key_id}`",
            hint="delete the .pub file; it is made again from the private key",
        )
