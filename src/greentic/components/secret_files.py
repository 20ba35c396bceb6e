"""Where the secrets of components come from (formats: components 5).

Rules:
1. `GREENTIC_SECRETS_DIR` is a directory with a file per secret, as a cluster mounts one; the file's name is the secret's
   canonical name. A final line feed is not part of the value.
2. The development store is a file of `NAME=value` lines: `GREENTIC_DEV_SECRETS_PATH`, else
   `<environment>/.greentic/dev/.dev.secrets.env`. A name is canonical, or `secrets://<env>/<tenant>/<team or _>/…/<name>`,
   which holds for that tenant alone and goes first.
3. Values are read when they are asked for, so that a rotated secret is used at once. They are never logged or listed.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from greentic.components.host import SECRET_BYTES, canonical_name
from greentic.flow.ports import Caller
from greentic.ground import variables
from greentic.ground.documents import read_file
from greentic.store.layout import DEV_SECRETS

DIRECTORY, DEV_FILE = "GREENTIC_SECRETS_DIR", "GREENTIC_DEV_SECRETS_PATH"


class SecretFiles:
    """Secrets in files, read-only."""

    def __init__(self, environment_directory: Path | None, environ: Mapping[str, str] | None = None) -> None:
        self._directory = variables.path(DIRECTORY, environ)
        self._dev: list[Path] = []
        told = variables.path(DEV_FILE, environ)
        if told is not None:
            self._dev = [told]
        elif environment_directory is not None:
            self._dev = [environment_directory / path for path in DEV_SECRETS]

    def get(self, caller: Caller, key: str) -> bytes | None:
        """The value, or nothing. Raises `OSError` for a file that is there and cannot be read, or is too large."""
        if self._directory is not None:
            value = _read(self._directory / key)
            if value is not None:
                return value.removesuffix(b"\n").removesuffix(b"\r")
        for path in self._dev:
            data = _read(path)
            if data is not None:
                return _find(data, caller, key)
        return None

    def put(self, caller: Caller, key: str, value: bytes) -> bool:
        """Components cannot change what the operator gave."""
        return False


def _read(path: Path) -> bytes | None:
    try:
        return read_file(path, SECRET_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:  # a part of a secret, or of the secrets, would pass for the whole
        raise OSError(errno.EFBIG, str(error), str(path)) from None


def _find(data: bytes, caller: Caller, key: str) -> bytes | None:
    general: bytes | None = None
    scoped: dict[str, bytes] = {}
    scopes = (
        f"secrets://{caller.env}/{caller.tenant}/{caller.team or '_'}/",
        f"secrets://{caller.env}/{caller.tenant}/_/",
    )
    for line in data.splitlines():
        name_raw, equals, value = line.strip().partition(b"=")
        name = name_raw.decode(errors="replace").removeprefix("export ").strip()
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) >= 2 and value[:1] == value[-1:] and value[:1] in (b'"', b"'"):
            value = value[1:-1]
        if name.startswith("secrets://"):
            if canonical_name(name.rpartition("/")[2]) == key:
                scoped |= {scope: value for scope in scopes if name.startswith(scope)}
        elif canonical_name(name) == key:
            general = value
    return next((scoped[scope] for scope in scopes if scope in scoped), general)
