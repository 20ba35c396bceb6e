"""Where components may send requests (formats: components 6). Pure.

Rules:
1. `none` refuses everything, `public` everything that is not a public address, a list of hosts everything but these.
   `unrestricted` refuses only what rule 2 does.
2. Link-local and metadata addresses and names (`net/addresses`) are refused always, in every spelling.
3. Hosts are compared in ASCII (`ground/host_name`). A host of a list may have a private address; `*.example.com` stands for every
   name below.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from greentic.ground.host_name import ascii_host
from greentic.net.addresses import METADATA_NAMES, is_address, is_public, never_reached, parsed, shown


class EgressPolicy(msgspec.Struct, frozen=True):
    """What `GREENTIC_HTTP_EGRESS` says."""

    mode: Literal["none", "public", "unrestricted", "hosts"] = "public"
    hosts: tuple[str, ...] = ()


def read_policy(text: str | None) -> EgressPolicy:
    """The policy of a text: `none`, `public`, `unrestricted`, or hosts with commas between them. Raises `ValueError`."""
    told = (text or "").strip()
    if not told or told == "public":
        return EgressPolicy()
    if told == "none":
        return EgressPolicy("none")
    if told == "unrestricted":
        return EgressPolicy("unrestricted")
    hosts = tuple(_pattern(item) for item in told.split(",") if item.strip())
    for host in hosts:
        odd = any(c.isspace() or not c.isprintable() for c in host)
        if odd or "/" in host or (":" in host and not is_address(host)):
            raise ValueError(
                f"`{shown(host)[:100]}` is no host; expected names such as `api.example.com` or `*.example.com`"
            )
    return EgressPolicy("hosts", hosts)


def _pattern(text: str) -> str:
    """A host, or `*.` and one."""
    text = text.strip()
    return f"*.{_host(text[2:])}" if text.startswith("*.") else _host(text)


def _host(text: str) -> str:
    """A host as it stands in a parsed address: in lower case and ASCII, an IPv6 address without its brackets."""
    name = ascii_host(text.strip()).rstrip(".")
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def refused_host(policy: EgressPolicy, host: str) -> str | None:
    """Why a host may not be asked, or nothing; its addresses are to be checked too."""
    if policy.mode == "none":
        return "http client disabled by policy"
    try:
        name = ascii_host(host).rstrip(".")
    except ValueError as error:
        return str(error)
    if not name:
        return "the address has no host"
    if name in METADATA_NAMES:
        return f"`{host}` is a metadata service"
    if policy.mode == "hosts" and not any(_covers(pattern, name) for pattern in policy.hosts):
        return f"`{host}` is not among the allowed hosts"
    return None


def _covers(pattern: str, name: str) -> bool:
    return name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))


def refused_address(policy: EgressPolicy, address: str) -> str | None:
    """Why an address may not be reached, or nothing."""
    refused = never_reached(address)
    if refused is not None or policy.mode != "public":
        return refused
    return None if is_public(address) else f"the address {parsed(address)} is not public"
