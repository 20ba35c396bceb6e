"""References to registries, as text (formats: delivery 1, 3). Pure.

Rules:
1. `oci://[host[:port]/]repository[:tag][@sha256:…]`. Without a host it is docker.io, where a single name is below `library/`;
   without tag and digest the tag is `latest`. A digest wins over a tag, and is the manifest's, not the bundle's.
2. `repo://x` and `store://x` stand for `oci://<base>/x`, the base from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from greentic.ground import variables
from greentic.ground.errors import FetchError
from greentic.ground.host_name import ascii_host
from greentic.model.ids import is_digest
from greentic.net.addresses import is_host_and_port, lower_scheme, shown

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
DEFAULT_REGISTRY = "docker.io"
_BASES = {"repo://": "GREENTIC_REPO_REGISTRY_BASE", "store://": "GREENTIC_STORE_REGISTRY_BASE"}


class OciReference(msgspec.Struct, frozen=True):
    registry: str
    """`host[:port]`, as it was written but for letters beyond ASCII."""
    repository: str
    tag: str | None
    digest: str | None

    @property
    def wanted(self) -> str:
        """What a manifest is asked for by."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def parse(text: str) -> OciReference:
    """A reference without its scheme. Raises `FetchError`."""

    def refuse(reason: str) -> FetchError:
        return FetchError(f"invalid OCI reference `{shown(f'oci://{text}').removeprefix('oci://')}`: {reason}")

    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise refuse("the digest is not `sha256:` and 64 hex digits")
    first, slash, others = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, rest = _in_ascii(first), others
    else:
        registry = DEFAULT_REGISTRY
    head, colon, tag = rest.rpartition(":")
    if colon and "/" not in tag:
        rest = head
        if not _TAG.match(tag):
            raise refuse("the tag has a character that tags do not have")
    else:
        tag = ""
    if not is_host_and_port(registry):
        raise refuse("the registry is no host")
    if not _REPOSITORY.match(rest):
        raise refuse("the repository must be lower-case names with slashes between them")
    if registry == DEFAULT_REGISTRY and "/" not in rest:
        rest = f"library/{rest}"
    return OciReference(registry, rest, tag or None if tag or digest else "latest", digest or None)


def _in_ascii(registry: str) -> str:
    """`host[:port]` as it is asked; one that cannot be made ASCII stays as it is, and is refused."""
    host, colon, port = registry.partition(":")
    try:
        return registry if registry.isascii() else f"{ascii_host(host)}{colon}{port}"
    except ValueError:
        return registry


def mapped(reference: str, environ: Mapping[str, str]) -> OciReference:
    """The registry reference of an `oci://`, `repo://` or `store://` reference. Raises `FetchError`."""
    reference = lower_scheme(reference)
    if reference.startswith("oci://"):
        return parse(reference.removeprefix("oci://"))
    for scheme, variable in _BASES.items():
        if reference.startswith(scheme):
            base = variables.text(variable, environ)
            if not base:
                raise FetchError(f"{scheme} reference {shown(reference)} requires {variable} to map to OCI")
            base = lower_scheme(base).removeprefix("oci://").rstrip("/")
            return parse(f"{base}/{reference.removeprefix(scheme).lstrip('/')}")
    raise FetchError(f"`{shown(reference)}` is no reference of a registry")
