"""How routers are reached from outside: not at all, by an Ingress, or by the Gateway API. Pure.

Rules:
1. An Ingress brings its certificate: a TLS Secret that is there, or one that cert-manager makes by one issuer. With the Gateway API the
   certificate is the Gateway's, whose listeners are somebody else's.
2. A host is a name: no scheme, no port, no path. Each stands once.
3. An answer that means nothing with the chosen way is refused, so that nobody takes it to hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from greentic.ground.documents import JsonObject
from greentic.ground.repeated import repeated
from greentic.shape.syntax import host_name, invalid, namespace_name, object_name

Way = Literal["ingress", "gateway"]
_OF_INGRESS = ("ingress_class", "tls_secret", "issuer", "cluster_issuer")
_ISSUER_KIND = {"issuer": "cert-manager.io/issuer", "cluster_issuer": "cert-manager.io/cluster-issuer"}
MADE_SECRET = "gtc-router-tls"  # noqa: S105  a name
"""Where cert-manager keeps the certificate, unless a Secret is named."""

MAX_ROUTE_PATH = 1024
_ROUTE_PATH = re.compile(r"/(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*\Z")


class Gateway(NamedTuple):
    """The Gateway that routes attach to."""

    namespace: str
    name: str


class Exposure(NamedTuple):
    """The way in from outside."""

    way: Way
    hosts: tuple[str, ...] = ()
    ingress_class: str | None = None
    tls_secret: str | None = None
    issuer: tuple[str, str] | None = None
    """cert-manager's annotation and its value."""
    gateway: Gateway | None = None

    @property
    def urls(self) -> list[str]:
        """What callers use, as far as it is told here: a Gateway's scheme and port are its listeners'."""
        if self.way == "gateway":
            return []
        scheme = "https" if self.tls_secret is not None else "http"
        return [f"{scheme}://{host}" for host in self.hosts if not host.startswith("*.")]


def read_exposure(given: JsonObject, listed: Callable[[str], tuple[str, ...]]) -> Exposure | None:
    """The exposure of the answers, if any; `listed` reads a list among them. Raises `Conflict`."""
    way = given.get("expose")
    if way not in (None, "none", "ingress", "gateway"):
        raise invalid(f"expose `{way}` is not valid; expected none, ingress or gateway")
    meaningless = {"ingress": ("gateway",), "gateway": _OF_INGRESS}.get(str(way), ("hosts", "gateway", *_OF_INGRESS))
    for key in meaningless:
        if key in given:
            why = "the Gateway has the certificate and the class" if way == "gateway" else f"expose is {way or 'none'}"
            raise invalid(f"{key} is answered and means nothing: {why}")
    if way not in ("ingress", "gateway"):
        return None
    hosts = tuple(host_name(text, f"hosts[{index}]") for index, text in enumerate(listed("hosts")))
    twice = repeated(hosts)
    if twice is not None:
        raise invalid(f"hosts: `{twice}` is there twice")
    return _ingress(given, hosts) if way == "ingress" else _gateway(given, hosts)


def _ingress(given: JsonObject, hosts: tuple[str, ...]) -> Exposure:
    names = {key: object_name(str(given[key]), key) for key in _OF_INGRESS if key in given}
    issuers = [key for key in _ISSUER_KIND if key in names]
    if len(issuers) > 1:
        raise invalid("issuer and cluster_issuer are both answered; a certificate comes from one")
    issuer = (_ISSUER_KIND[issuers[0]], names[issuers[0]]) if issuers else None
    secret = names.get("tls_secret") or (MADE_SECRET if issuer else None)
    if secret is not None and not hosts:
        raise invalid("hosts: a certificate is for names; answer them")
    return Exposure("ingress", hosts, names.get("ingress_class"), secret, issuer)


def _gateway(given: JsonObject, hosts: tuple[str, ...]) -> Exposure:
    namespace, slash, name = str(given.get("gateway", "")).partition("/")
    if not slash:
        raise invalid("gateway: expected NAMESPACE/NAME of the Gateway that routes attach to")
    if not hosts:
        raise invalid("hosts: routes of the Gateway API are for names; answer them")
    return Exposure(
        "gateway", hosts, gateway=Gateway(namespace_name(namespace, "gateway"), object_name(name, "gateway"))
    )


def fits(pattern: str, host: str) -> bool:
    """Whether an exposed host is this one, or stands for it: `*.` is exactly one label, as an Ingress has it."""
    return host == pattern or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])


def is_route_path(path: str) -> bool:
    """Whether the Gateway API takes a path as the prefix of a route: its servers check these very things (CRD of v1)."""
    there = f"{path.lower()}/"
    return (
        len(path) <= MAX_ROUTE_PATH
        and _ROUTE_PATH.match(path) is not None
        and not any(part in there for part in ("//", "/./", "/../", "%2f"))
    )
