"""Who we are to a registry (formats: delivery 3).

Rules:
1. `OCI_USERNAME` and `OCI_PASSWORD`, both set, are for the registries that `OCI_REGISTRY` lists. Without it they are for the registry
   that a revision's own address names, and for no mirror. First that fits; then the files of logins; then nobody.
2. A file of logins is the configuration of Docker or podman's `auth.json`. One that a variable names goes before one that lies where
   it lies by default, and Docker's before podman's (`_PLACES`); the first that knows the registry counts.
3. Each is read as Docker reads it: the helper of the registry, the general store, then `auths`, whose keys are hosts with or without
   scheme and path. A store that is not installed or knows nothing leaves the word to `auths`. Of several keys the one counts whose path
   the repository lies furthest below, as Kubernetes and podman have it, then one without a path, then any; then the one that names the
   host rather than a pattern for its parts (`*.example.com`), which Kubernetes takes, too.
4. The files are optional: one that is missing, empty, unreadable, or in a place of somebody else is done without, and said.
5. A password goes to its registry, and to a token server over https of the same host or domain, or of a host that `OCI_REGISTRY`
   lists too. What another server answers to a redirect gets nothing.
6. Secrets are never part of an error.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec

from greentic.ground import variables
from greentic.ground.documents import open_file, parse
from greentic.ground.errors import FetchError
from greentic.ground.optional import done_without
from greentic.registry.reference import DEFAULT_REGISTRY

HELPER_SECONDS = 30
MAX_CONFIG = 4 << 20
_HELPER = re.compile(r"[A-Za-z0-9._-]+\Z")
_HUB = "https://index.docker.io/v1/"
_ALIASES = {DEFAULT_REGISTRY: (_HUB, "index.docker.io", "registry-1.docker.io")}
_KINDS = frozenset({"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ltd", "ne", "net", "nom", "or", "org", "plc"})
"""Names below which a country keeps the domains of one kind of owner."""
TOKEN_USER = "<token>"  # noqa: S105


class Credentials(msgspec.Struct, frozen=True):
    """A user with a password; with `<token>` as user the password is an identity token."""

    user: str
    password: str

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    @property
    def identity_token(self) -> str | None:
        return self.password if self.user == TOKEN_USER else None

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


def credentials_for(
    registry: str, environ: Mapping[str, str], *, mirror: bool = False, repository: str = ""
) -> Credentials | None:
    """The credentials for a registry, if there are any. Raises `FetchError` for a configuration that cannot be used."""
    user, password = variables.text("OCI_USERNAME", environ), environ.get("OCI_PASSWORD", "")
    if user and password:
        meant = variables.listed("OCI_REGISTRY", environ)
        if registry in meant or (not meant and not mirror):
            return Credentials(user, password)
    for file in _login_files(environ):
        found = _of_config(_config(file), registry, environ, repository)
        if found is not None:
            return found
    return None


def _of_config(
    config: Mapping[str, object], registry: str, environ: Mapping[str, str], repository: str
) -> Credentials | None:
    """What one file of logins knows (rule 3). Raises `FetchError`."""
    names = (registry, *_ALIASES.get(registry, ()))
    helpers = config.get("credHelpers")
    for name in names:
        helper = helpers.get(name) if isinstance(helpers, dict) else None
        if isinstance(helper, str) and helper:
            return _ask_helper(helper, _asked_as(registry), environ)
    store = config.get("credsStore")
    if isinstance(store, str) and store:
        try:
            found = _ask_helper(store, _asked_as(registry), environ)
        except FetchError as error:
            done_without("the credential store of a file of logins", error.message)
        else:
            if found is not None:
                return found
    auths = config.get("auths")
    return _of_auths(auths, names, repository) if isinstance(auths, dict) else None


def may_have_password(realm_host: str, registry_host: str, environ: Mapping[str, str]) -> bool:
    """Whether a token server may be told the password of a registry that names it (rule 5). Hosts are without ports."""
    if realm_host == registry_host:
        return True
    if realm_host in {_host(name) for name in variables.listed("OCI_REGISTRY", environ)}:
        return True
    ours, theirs = registry_host.split("."), realm_host.split(".")
    if any(_is_address(host) for host in (realm_host, registry_host)):
        return False
    # registry.example.com with auth.example.com or example.com: one domain, of at least two names, and not that of a country's companies.
    domain = ours[1:] if len(ours) > 2 and not _is_public(ours[1:]) else ours
    return len(domain) >= 2 and theirs[-len(domain) :] == domain


def _is_public(names: list[str]) -> bool:
    """Whether anybody can have a name below these, as below `co.uk`."""
    return len(names) == 2 and len(names[1]) == 2 and names[0] in _KINDS


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _asked_as(registry: str) -> str:
    """What a helper knows a registry by."""
    return _HUB if registry == DEFAULT_REGISTRY else registry


def _of_auths(auths: Mapping[str, object], names: tuple[str, ...], repository: str) -> Credentials | None:
    """The entry of a repository, or of its registry: the key that fits best, and of those that fit alike the registry's very name."""
    fitting = [
        (-_fit(key, repository), rank, key, entry)
        for key, entry in auths.items()
        if isinstance(key, str) and isinstance(entry, dict) and (rank := _rank(key, names)) is not None
    ]
    for _, _, key, entry in sorted(fitting, key=lambda found: found[:2]):
        found = _of_entry(key, entry)
        if found is not None:
            return found
    return None


def _rank(key: str, names: tuple[str, ...]) -> int | None:
    """How exactly a key names one of the hosts, 0 before all; nothing if it names none of them."""
    if key in names:
        return names.index(key)
    host = _host_and_port(key)
    if host in names:
        return len(names)
    return len(names) + 1 if any(_matches(host, name) for name in names) else None


def _matches(pattern: str, host: str) -> bool:
    """Whether a host is one of a pattern, part by part: `*.example.com` is none of `example.com`, nor of `a.b.example.com`."""
    (names, colon, port), (others, *rest) = pattern.partition(":"), host.partition(":")
    parts, of = names.split("."), others.split(".")
    return [colon, port] == rest and len(parts) == len(of) and all(map(fnmatchcase, of, parts))


def _fit(key: str, repository: str) -> int:
    """How well a key of a host fits: 1 without a path, more for the longer path above the repository, 0 for another path."""
    path = key.removeprefix("https://").removeprefix("http://").partition("/")[2].strip("/")
    if path in ("", "v1", "v2"):
        return 1
    return 1 + len(path) if f"{repository}/".startswith(f"{path}/") else 0


def _host_and_port(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _host(name: str) -> str:
    host = _host_and_port(name)
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


class _LoginFile(NamedTuple):
    """Where logins may lie."""

    path: Path
    what: str
    told: bool
    """Whether a variable names it, whoever it belongs to."""
    variable: str


_DOCKER, _PODMAN = "the Docker configuration", "podman's file of logins"
_PLACES = (
    ("DOCKER_CONFIG", "config.json", _DOCKER, True),
    ("REGISTRY_AUTH_FILE", "", _PODMAN, True),
    ("HOME", ".docker/config.json", _DOCKER, False),
    ("XDG_RUNTIME_DIR", "containers/auth.json", _PODMAN, False),
    ("XDG_CONFIG_HOME", "containers/auth.json", _PODMAN, False),
    ("HOME", ".config/containers/auth.json", _PODMAN, False),
)
"""Variable, what is put behind it, what it is, and whether the variable is there to name it (rule 2)."""


def _login_files(environ: Mapping[str, str]) -> Iterator[_LoginFile]:
    told = variables.path("DOCKER_CONFIG", environ) is not None
    for variable, behind, what, names_it in _PLACES:
        top = variables.path(variable, environ)
        if top is None or (told and what == _DOCKER and not names_it):
            continue
        variable = variable if names_it else "DOCKER_CONFIG" if what == _DOCKER else "REGISTRY_AUTH_FILE"
        yield _LoginFile(top / behind if behind else top, what, names_it, variable)


def _config(file: _LoginFile) -> dict[str, object]:
    """What a file of logins holds; nothing where there is none that can be used (rule 4)."""
    path, what = file.path, file.what
    try:
        with open_file(path) as opened:
            owner = os.fstat(opened.fileno()).st_uid
            if not file.told and owner not in (0, os.geteuid()):
                done_without(
                    what, f"`{path}` belongs to another user ({owner}); set {file.variable} to use it all the same"
                )
                return {}
            data = opened.read(MAX_CONFIG + 1)
        if not data.strip():
            return {}
        raw = parse(data)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        done_without(what, f"`{path}` cannot be read: {why}")
        return {}
    return dict[str, object](raw) if isinstance(raw, dict) else {}


def _of_entry(name: str, entry: Mapping[str, object]) -> Credentials | None:
    token, auth = entry.get("identitytoken"), entry.get("auth")
    if isinstance(token, str) and token:
        return Credentials(TOKEN_USER, token)
    if isinstance(auth, str) and auth:
        try:
            # Docker skips line ends, which `base64` puts into long values.
            plain = base64.b64decode(auth.replace("\r", "").replace("\n", ""), validate=True).decode()
        except (binascii.Error, ValueError):
            raise FetchError(f"a file of logins has no usable `auth` for `{name}`") from None
        user, colon, password = plain.partition(":")
        return Credentials(user, password.rstrip("\0")) if colon else None
    user_name, password_text = entry.get("username"), entry.get("password")
    if isinstance(user_name, str) and isinstance(password_text, str) and user_name:
        return Credentials(user_name, password_text)
    return None


def _ask_helper(helper: str, name: str, environ: Mapping[str, str]) -> Credentials | None:
    """What a credential helper knows of a registry. Raises `FetchError` if it cannot be asked."""
    import subprocess  # a boot that asks no helper does not pay for it

    program = f"docker-credential-{helper}"
    if not _HELPER.match(helper):
        raise FetchError(f"a file of logins names the credential helper `{helper[:80]!r}`, which is no name")
    found = shutil.which(program, path=variables.text("PATH", environ) or None)
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
        if b"not found" in done.stdout:
            return None
        raise FetchError(f"the credential helper `{program}` refused `{name}` (exit code {done.returncode})")
    try:
        told = parse(done.stdout)
    except ValueError:
        told = None
    user, secret = (told.get("Username"), told.get("Secret")) if isinstance(told, dict) else (None, None)
    if not isinstance(user, str) or not isinstance(secret, str):
        raise FetchError(f"the credential helper `{program}` answered something that is no credential")
    return Credentials(user, secret) if secret else None
