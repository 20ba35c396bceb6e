"""Capability slots, pack descriptors and references (formats: environment 8)."""

from __future__ import annotations

import re

from greentic.ground.errors import SpecViolation
from greentic.model.ids import is_semver

SLOTS = ("deployer", "secrets", "telemetry", "sessions", "state", "revocation")
"""Slots that hold one binding each, in the order in which they are reported."""
N_PER_ENV_SLOTS = {"messaging": "op messaging endpoint", "extension": "op extensions"}
"""Slots that are not bound through `op env-packs`, with the verb that does."""

DEFAULT_BINDINGS = (
    ("deployer", "greentic.deployer.local-process@0.1.0"),
    ("secrets", "greentic.secrets.dev-store@0.1.0"),
    ("telemetry", "greentic.telemetry.stdout@0.1.0"),
    ("sessions", "greentic.sessions.in-memory@0.1.0"),
    ("state", "greentic.state.in-memory@0.1.0"),
)
"""What `env init` binds; nothing else binds by itself."""

REGISTERED = {kind.partition("@")[0]: (slot, kind.partition("@")[2]) for slot, kind in DEFAULT_BINDINGS} | {
    "greentic.deployer.k8s": ("deployer", "1.0.0")
}
"""Slot and newest supported version of every pack kind that this program knows."""

_INSTANCE = r"[a-z0-9-]+"
_DESCRIPTOR_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")


def split_descriptor(text: str) -> tuple[str, str]:
    """Path and version of `<path>@<semver>`. Raises `SpecViolation` with the first rule that it breaks."""
    path, at, version = text.partition("@")
    if not at:
        raise SpecViolation(f"pack descriptor missing `@<semver>` suffix: `{text}`")
    if not path:
        raise SpecViolation(f"pack descriptor path is empty: `{text}`")
    if "." not in path:
        raise SpecViolation(f"pack descriptor path must contain at least one `.`: `{path}`")
    for char in path:
        if char not in _DESCRIPTOR_CHARS:
            raise SpecViolation(f"pack descriptor path contains invalid character `{char}`: `{path}`")
    if not is_semver(version):
        raise SpecViolation(f"pack descriptor version is not valid SemVer: `{version}`")
    return path, version


def is_instance_id(text: str) -> bool:
    return bool(re.fullmatch(_INSTANCE, text))


def ref_env(ref: str, scheme: str) -> str:
    """The environment segment of `<scheme>://<env>/<path>`. Raises `SpecViolation`."""
    label = f"{scheme}-ref"
    if not ref.startswith(f"{scheme}://"):
        raise SpecViolation(f"{label} must start with `{scheme}://`: `{ref}`")
    rest = ref[len(scheme) + 3 :]
    if not rest:
        raise SpecViolation(f"{label} path is empty: `{ref}`")
    env, slash, path = rest.partition("/")
    if not env or not slash or not path:
        raise SpecViolation(f"{label} must carry an env segment: `{scheme}://<env>/<path>`, got `{ref}`")
    return env


def version_tuple(version: str) -> tuple[int, int, int]:
    """Major, minor and patch of a SemVer string."""
    core = re.split(r"[-+]", version, maxsplit=1)[0]
    major, minor, patch = core.split(".")
    return int(major), int(minor), int(patch)
