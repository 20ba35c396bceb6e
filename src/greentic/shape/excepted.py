"""What no policy opens: the networks that no worker ever asks, as policies write them. Pure.

There is one list of link-local and metadata addresses, the worker's own (`net`). Here it only becomes networks: an exception of
a policy has to be one, and a cluster without IPv4 has the addresses of IPv4 inside of its own.
"""

from __future__ import annotations

import ipaddress

from greentic.net.addresses import LINK_LOCAL, METADATA, Network, among

LINK_LOCAL_4 = LINK_LOCAL[0]
"""Where caches of DNS listen on a node, and, on other ports, instance metadata."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Where the addresses of IPv4 are, at their end, for those who have IPv6 alone."""


def _networks() -> tuple[Network, ...]:
    own: list[Network] = [*LINK_LOCAL, *(n for n in METADATA if not among(n[0], LINK_LOCAL))]
    translated = [
        ipaddress.IPv6Network((int(_NAT64.network_address) + int(n.network_address), 96 + n.prefixlen))
        for n in own
        if isinstance(n, ipaddress.IPv4Network)
    ]
    return tuple(sorted([*own, *translated], key=lambda n: (n.version, int(n.network_address), n.prefixlen)))


EXCEPTED = _networks()


def within(network: Network) -> list[Network]:
    """What is to be excepted where `network` is opened."""
    return [n for n in EXCEPTED if _covers(network, n)]


def is_excepted(network: Network) -> bool:
    """Whether all of `network` is what no worker asks."""
    return any(_covers(n, network) for n in EXCEPTED)


def _covers(outer: Network, inner: Network) -> bool:
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)
