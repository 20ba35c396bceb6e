"""Where components may send requests (spec: packs-flows-components 4.8). Pure.

Rules:
1. `none` refuses everything, `public` everything that is not a public address, a list of hosts everything but these.
   `unrestricted` refuses only what rule 2 does.
2. Link-local and metadata addresses and names are refused always, in every spelling.
3. A host of a list may have a private address; `*.example.com` stands for every name below.
"""

from __future__ import annotations

import ipaddress
from typing import Literal, NamedTuple

METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog", "instance-data"})
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(a)
    for a in ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254")
)
_EMBEDDING = tuple(
    (ipaddress.IPv6Network(network), bits)
    for network, bits in (
        ("64:ff9b::/96", 0),
        ("64:ff9b:1::/48", 0),
        ("2002::/16", 80),
        ("::ffff:0:0:0/96", 0),
        ("::/96", 0),
    )
)
"""Networks whose addresses lead to an IPv4 address (translation and tunnels), and how far from its end that stands in them."""
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


class EgressPolicy(NamedTuple):
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
    hosts = tuple(_host(item) for item in told.split(",") if item.strip())
    for host in hosts:
        if "/" in host or (":" in host and not _is_address(host)):
            raise ValueError(f"`{host}` is no host; expected names such as `api.example.com` or `*.example.com`")
    return EgressPolicy("hosts", hosts)


def _host(text: str) -> str:
    """A host as it stands in a parsed address: lower case, an IPv6 address without its brackets."""
    name = text.strip().lower().rstrip(".")
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def refused_host(policy: EgressPolicy, host: str) -> str | None:
    """Why a host may not be asked, or nothing; its addresses are to be checked too."""
    name = host.lower().rstrip(".")
    if policy.mode == "none":
        return "http client disabled by policy"
    if not name:
        return "the address has no host"
    if name in METADATA_NAMES:
        return f"`{host}` is a metadata service"
    if policy.mode == "hosts" and not any(_covers(pattern, name) for pattern in policy.hosts):
        return f"`{host}` is not among the allowed hosts"
    return None


def _covers(pattern: str, name: str) -> bool:
    return name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))


def never_reached(address: str) -> str | None:
    """Why nobody may reach an address (rule 2), or nothing."""
    parsed = _address(address)
    if parsed.is_link_local or parsed in METADATA_ADDRESSES or parsed.is_unspecified or parsed.is_multicast:
        return f"the address {parsed} is link-local or a metadata service"
    return None


def refused_address(policy: EgressPolicy, address: str) -> str | None:
    """Why an address may not be reached, or nothing."""
    refused = never_reached(address)
    if refused is not None or policy.mode != "public":
        return refused
    parsed = _address(address)
    public = parsed.is_global and not (parsed.version == 6 and parsed in _SITE_LOCAL)
    return None if public else f"the address {parsed} is not public"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address, or the IPv4 address that it leads to (rule 2: in every spelling)."""
    parsed = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed
    if parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    if int(parsed) > 1:  # neither `::` nor `::1`
        for network, bits in _EMBEDDING:
            if parsed in network:
                return ipaddress.IPv4Address(int(parsed) >> bits & 0xFFFFFFFF)
    return parsed
