"""Who we are to a registry (spec: worker 3.4).

Rules, first that fits:
1. `OCI_USERNAME` and `OCI_PASSWORD`, both set.
2. The Docker configuration (`DOCKER_CONFIG/config.json`, else `~/.docker/config.json`): the credential helper of the registry, its
   entry in `auths`, then the general credential store.
3. Nobody.
Secrets are never part of an error.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from greentic.ground.errors import FetchError

HELPER_SECONDS = 30
MAX_CONFIG = 4 << 20
_HELPER = re.compile(r"[A-Za-z0-9._-]+\Z")
_ALIASES = {"docker.io": ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")}


class Credentials(NamedTuple):
    """A user with a password; with `<token>` as user the password is an identity token."""

    user: str
    password: str

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def credentials_for(registry: str, environ: Mapping[str, str]) -> Credentials | None:
    """The credentials for a registry, if there are any. Raises `FetchError` for a configuration that cannot be used."""
    user, password = environ.get("OCI_USERNAME", ""), environ.get("OCI_PASSWORD", "")
    if user and password:
        return Credentials(user, password)
    config = _docker_config(environ)
    names = (registry, f"https://{registry}", f"https://{registry}/", *_ALIASES.get(registry, ()))
    helpers = config.get("credHelpers")
    for name in names:
        helper = helpers.get(name) if isinstance(helpers, dict) else None
        if isinstance(helper, str):
            return _ask_helper(helper, name, environ)
    auths = config.get("auths")
    for name in names:
        entry = auths.get(name) if isinstance(auths, dict) else None
        found = _of_entry(name, entry) if isinstance(entry, dict) else None
        if found is not None:
            return found
    store = config.get("credsStore")
    if isinstance(store, str):
        for name in names:
            found = _ask_helper(store, name, environ, may_be_missing=True)
            if found is not None:
                return found
    return None


def _docker_config(environ: Mapping[str, str]) -> dict[str, object]:
    told, home = environ.get("DOCKER_CONFIG"), environ.get("HOME")
    if not told and not home:
        return {}
    path = Path(told) / "config.json" if told else Path(home or "") / ".docker" / "config.json"
    try:
        with path.open("rb") as file:
            raw = json.loads(file.read(MAX_CONFIG))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FetchError(f"the Docker configuration `{path}` cannot be read: {error}") from None
    return raw if isinstance(raw, dict) else {}


def _of_entry(name: str, entry: dict[str, object]) -> Credentials | None:
    token, auth = entry.get("identitytoken"), entry.get("auth")
    if isinstance(token, str) and token:
        return Credentials("<token>", token)
    if isinstance(auth, str) and auth:
        try:
            user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise FetchError(f"the Docker configuration has no usable `auth` for `{name}`") from None
        return Credentials(user, password.rstrip("\0")) if colon else None
    user_name, password_text = entry.get("username"), entry.get("password")
    if isinstance(user_name, str) and isinstance(password_text, str):
        return Credentials(user_name, password_text)
    return None


def _ask_helper(
    helper: str, name: str, environ: Mapping[str, str], *, may_be_missing: bool = False
) -> Credentials | None:
    program = f"docker-credential-{helper}"
    if not _HELPER.match(helper):
        raise FetchError(f"the Docker configuration names the credential helper `{helper}`, which is no name")
    found = shutil.which(program, path=environ.get("PATH"))
    if found is None:
        raise FetchError(f"the credential helper `{program}` for `{name}` is not installed")
    try:
        done = subprocess.run(
            [found, "get"],
            input=name.encode(),
            capture_output=True,
            timeout=HELPER_SECONDS,
            env=dict(environ),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"the credential helper `{program}` did not answer: {type(error).__name__}") from None
    if done.returncode:
        if may_be_missing or b"not found" in done.stdout:
            return None
        raise FetchError(f"the credential helper `{program}` refused `{name}` (exit code {done.returncode})")
    try:
        told = json.loads(done.stdout)
        return Credentials(str(told["Username"]), str(told["Secret"]))
    except (ValueError, KeyError, TypeError):
        raise FetchError(f"the credential helper `{program}` answered something that is no credential") from None
