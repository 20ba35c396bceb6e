"""Where an exposure is reached from outside, as the cluster says: addresses of a load balancer, an Ingress or a Gateway.

Only what there is of these is asked for, one request each. A Gateway is somebody else's: who may not see it is told nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from greentic.ground.documents import JsonObject
from greentic.k8s import names
from greentic.k8s.exposed import gateway_addresses, gateway_urls
from greentic.k8s.objects import ApiRefused, Cluster, Ref, member, objects_in
from greentic.shape.exposure import Exposure


class WayIn(NamedTuple):
    """What is known of it beyond what was answered."""

    urls: list[str]
    addresses: list[str]


def way_in(cluster: Cluster, exposure: Exposure | None, applied: Mapping[Ref, JsonObject], namespace: str) -> WayIn:
    """The way to what was applied. Raises `ClusterUnreachable`."""
    found: list[str] = []
    for ref, thing in applied.items():
        balanced = (
            ref.kind == "Service" and ref.name == names.ROUTER and member(thing, "spec").get("type") == "LoadBalancer"
        )
        if ref.kind != "Ingress" and not balanced:
            continue
        status = member(cluster.get(ref) or {}, "status", "loadBalancer")
        found += [str(one.get("ip") or one.get("hostname")) for one in objects_in(status.get("ingress"))]
    if exposure is None or exposure.gateway is None:
        return WayIn([], found)
    gateway = _seen(cluster, Ref("Gateway", exposure.gateway.name, exposure.gateway.namespace))
    return WayIn(gateway_urls(gateway, exposure.hosts, namespace), [*found, *gateway_addresses(gateway)])


def _seen(cluster: Cluster, ref: Ref) -> JsonObject:
    try:
        return cluster.get(ref) or {}
    except ApiRefused:
        return {}
