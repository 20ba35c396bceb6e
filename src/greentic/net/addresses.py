"""Addresses as values: which there are, which are never asked, how they are shown. Pure.

Rules:
1. There is one definition of what is metadata, link-local, private: components' requests, sources of bundles and rendered network
   policies all read it here.
2. Link-local and metadata addresses are refused in every spelling: as a name, as an IPv4 address inside an IPv6 one, as a number.
3. An answer leads no further inside than where it came from: who answers from a public address names no private one, who answers
   from another machine names no loopback one. What the operator wrote may be anywhere but in rule 2.
4. What people see of an address is `shown`: a signed query and a password are never part of it.
5. Credentials in an address are refused where it is written down, not only where it is asked.
6. A scheme may be written in capitals: who chooses by it asks `lower_scheme` first.
"""

from __future__ import annotations

import ipaddress
import re
from enum import IntEnum

from greentic.ground.errors import FetchError, InvalidArgument

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


WEB = ("http://", "https://")
REGISTRIES = ("oci://", "repo://", "store://")
"""How a reference begins that a registry is asked for; the last two stand for registries that the environment names."""
METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog", "instance-data"})
METADATA = _networks(
    "169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32",
    "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128",
)  # fmt: skip
"""Where clouds tell a machine its secrets."""
LINK_LOCAL = _networks("169.254.0.0/16", "fe80::/10")
LOOPBACK = _networks("127.0.0.0/8", "::1/128")
PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")
"""Networks of one organisation, those of carriers and the old site-local ones included."""
NEVER = METADATA + LINK_LOCAL
"""What nobody may reach through us; beside it unspecified and multicast addresses, which are no machine's."""

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


class Reach(IntEnum):
    """How far inside an address is (rule 3)."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2


def parsed(text: str) -> Address:
    """An address, or the IPv4 address that it leads to (rule 2). Raises `ValueError`."""
    found = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return found
    if found.ipv4_mapped is not None:
        return found.ipv4_mapped
    if int(found) > 1:  # neither `::` nor `::1`
        for network, bits in _EMBEDDING:
            if found in network:
                return ipaddress.IPv4Address(int(found) >> bits & 0xFFFFFFFF)
    return found


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def among(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def never_reached(address: str) -> str | None:
    """Why nobody may reach an address (rule 2), or nothing."""
    found = parsed(address)
    if among(found, NEVER) or found.is_unspecified or found.is_multicast:
        return f"the address {found} is link-local or a metadata service"
    return None


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet."""
    found = parsed(address)
    return found.is_global and not among(found, PRIVATE)


def reach(address: str) -> Reach:
    """How far inside an address is."""
    if among(parsed(address), LOOPBACK):
        return Reach.LOOPBACK
    return Reach.PUBLIC if is_public(address) else Reach.PRIVATE


def check_address(host: str, address: str, outermost: Reach = Reach.LOOPBACK) -> None:
    """Raise `FetchError` for an address that is never asked, or lies further inside than `outermost` (rules 2, 3)."""
    refused = never_reached(address)
    if refused is not None:
        raise FetchError(
            f"`{host}`: {refused}; bundles never come from there", hint="use the distributor's own address"
        )
    if reach(address) > outermost:
        raise FetchError(
            f"`{host}` is at {parsed(address)}, a {reach(address).name.lower()} address; who answers from a "
            f"{outermost.name.lower()} one may not lead there",
            hint="write the inner address itself as the source, if it is meant",
        )


def check_host_name(host: str) -> None:
    """Raise `FetchError` for a name of a metadata service, or `InvalidArgument` for a host that is none."""
    if not host:
        raise InvalidArgument("the bundle reference has no host")
    if host.rstrip(".").lower() in METADATA_NAMES:
        raise FetchError(f"`{host}` is a metadata service; bundles never come from there")


OF_REGISTRIES = (
    "give workers the credentials of a registry by DOCKER_CONFIG or OCI_USERNAME, OCI_PASSWORD and OCI_REGISTRY, or publish under an "
    "address that needs none"
)
"""What to do instead of writing credentials into an address."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")


def lower_scheme(address: str) -> str:
    """An address with its scheme in lower case (rule 6); a path stays as it is."""
    return _SCHEME.sub(lambda scheme: scheme[0].lower(), address, count=1) if _SCHEME.match(address) else address


_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?\Z")
_PORT = re.compile(r"(?::\d{0,5})?\Z")


def shown(url: str) -> str:
    """An address for people: without user, password, the values of its query, and control characters. Never raises."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in url)
    scheme, found, rest = lower_scheme(text).partition("://")
    if not found or scheme == "file":
        return _without_user(text)
    bare = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = bare.partition("/")
    if not _holds_digest(scheme, authority):
        authority = authority.rpartition("@")[2]
        host = authority.rpartition("]")[2] if authority.startswith("[") else authority.lstrip(":")
        if scheme in ("http", "https") and not _PORT.match(host[host.find(":") :] if ":" in host else ""):
            return f"{scheme}://…"  # what should be a port may be a password
    query = "?…" if "?" in rest else ""
    return f"{scheme}://{authority}{slash}{path}{query}"


_BEGINNING = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:/{0,2}|//)?")
"""How what was meant for an address may begin, with a slash too few or without a scheme."""


def _without_user(text: str) -> str:
    """A path as it is; what was meant for an address without its user and password."""
    begins = _BEGINNING.match(text)
    start = begins.end() if begins else 0
    user, at, _ = text[start:].partition("/")[0].rpartition("@")
    return text[:start] + text[start + len(user) + 1 :] if at and ":" in text[:start] + user else text


def is_host_and_port(text: str) -> bool:
    """Whether a text is a host, with or without a port, as registries are named."""
    return _HOST.match(text) is not None


def check_authored(url: str, what: str, hint: str = OF_REGISTRIES) -> None:
    """Raise `InvalidArgument` for an address with a user or password in it (rule 5); `what` is named in the error."""
    scheme, found, rest = lower_scheme(url.strip()).partition("://")
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    if found and "@" in authority and not _holds_digest(scheme, authority):
        raise InvalidArgument(
            f"{what} `{shown(url)}`: credentials do not belong into an address, which many can read",
            hint=hint,
        )


def _holds_digest(scheme: str, authority: str) -> bool:
    """Whether the `@` is that of `name@sha256:…`, which has no host in front."""
    return f"{scheme}://" in REGISTRIES and authority.partition("@")[2].startswith("sha256:")
