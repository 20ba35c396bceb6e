"""The six NetworkPolicies of an environment (spec: kubernetes 2.7 to 2.12). Pure.

Rules:
1. Everything is denied; each policy opens one thing, and all six always exist, so that a later reconcile closes an opening
   in place. A closed direction is written by leaving its rules out.
2. DNS goes to the cluster's resolvers, wherever they run, to caches on the node, and to answered networks.
3. Workers are reached by the router only; the router by everyone, or by the answered namespaces and networks.
4. Pods that pull may reach what bundles come from: pods, where a source names a Service of the cluster, as `<name>` or with
   `.svc` (policies see the pod's port, so no port is named); any address but the link-local ones, or the answered networks,
   on the ports that sources name and on 443, where registries redirect to; answered ports, and that of Redis where it is answered,
   to addresses and pods. `egress: open` opens everything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from greentic.ground.documents import Json, JsonObject
from greentic.k8s import names
from greentic.k8s.answers import Answers
from greentic.k8s.pods import PORT
from greentic.model.delivery import delivery_of
from greentic.model.environment import Environment, Revision
from greentic.model.pod_view import present_revisions, routed_ids

HTTPS, REDIS = 443, 6379
LINK_LOCAL = "169.254.0.0/16"
"""Where caches of DNS listen on a node, and, on other ports, instance metadata."""
_SCHEMES = {"http": 80, "https": HTTPS, "oci": HTTPS, "repo": HTTPS, "store": HTTPS}
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


class Reach(NamedTuple):
    """What a set of sources asks for."""

    ports: frozenset[int]
    inside: bool
    """Whether some source is a Service of the cluster."""
    addresses: frozenset[str]
    """Sources that are plain addresses, which may be those of Services."""


def reach(uris: Iterable[str], insecure: Iterable[str] = ()) -> Reach:
    """What pods have to reach for these source URIs."""
    ports, inside, addresses = {HTTPS}, False, set()
    plain = set(insecure)
    for uri in uris:
        parts = urlsplit(uri)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            continue
        try:
            port = parts.port
        except ValueError:
            continue
        host = parts.hostname
        default = 80 if parts.netloc.rpartition("@")[2] in plain else _SCHEMES[parts.scheme]
        ports.add(port or default)
        try:
            addresses.add(f"{ipaddress.ip_address(host)}/{32 if '.' in host else 128}")
            inside = True
        except ValueError:
            labels = host.split(".")
            inside = inside or len(labels) == 1 or labels[2:3] == ["svc"]
    return Reach(frozenset(ports), inside, frozenset(addresses))


def policies(env: Environment, answers: Answers, namespace: str, labels: JsonObject) -> list[JsonObject]:
    """The six, in their order."""
    router = names.component_labels(env.environment_id, "router")
    workers = names.component_labels(env.environment_id, "worker")
    to_workers: JsonObject = {"to": [_pods(workers)], "ports": [_tcp(PORT)]}
    from_router: JsonObject = {"from": [_pods(router)], "ports": [_tcp(PORT)]}
    routed = routed_ids(env)
    present = present_revisions(env)
    everyone = _egress(env, answers, [r for r in present if r.bundle_source_uri])
    routing = _egress(env, answers, [r for r in env.revisions if r.revision_id in routed and r.bundle_source_uri])
    told: list[tuple[str, JsonObject]] = [
        ("gtc-default-deny", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        ("gtc-allow-dns", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [_dns(answers)]}),
        (
            "gtc-allow-router",
            {
                "podSelector": {"matchLabels": dict(router)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [_ingress(answers)],
                "egress": [to_workers],
            },
        ),
        (
            "gtc-allow-workers",
            {"podSelector": {"matchLabels": dict(workers)}, "policyTypes": ["Ingress"], "ingress": [from_router]},
        ),
        ("gtc-allow-worker-egress", _egress_spec(workers, everyone)),
        ("gtc-allow-router-egress", _egress_spec(router, routing)),
    ]
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
            "spec": spec,
        }
        for name, spec in told
    ]


def _egress_spec(selector: JsonObject, rules: list[Json]) -> JsonObject:
    spec: JsonObject = {"podSelector": {"matchLabels": dict(selector)}, "policyTypes": ["Egress"]}
    return spec | {"egress": rules} if rules else spec


def _dns(answers: Answers) -> JsonObject:
    names_: list[Json] = ["kube-dns", "node-local-dns"]
    resolvers: JsonObject = {
        "namespaceSelector": {},
        "podSelector": {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": names_}]},
    }
    peers: list[Json] = [resolvers, *_networks([LINK_LOCAL, *answers.dns_cidrs])]
    return {"to": peers, "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def _ingress(answers: Answers) -> JsonObject:
    peers = _networks(answers.ingress_cidrs)
    peers += [{"namespaceSelector": {"matchLabels": {_NAMESPACE_LABEL: n}}} for n in answers.ingress_namespaces]
    rule: JsonObject = {"ports": [_tcp(PORT)]}
    return rule | {"from": peers} if peers else rule


def _egress(env: Environment, answers: Answers, pulled: list[Revision]) -> list[Json]:
    """The egress rules of pods that pull these revisions."""
    if answers.egress_open:
        return [{}]
    uris = [r.bundle_source_uri or "" for r in pulled]
    uris += delivery_of(env).mirrors if pulled else []
    if env.revocation.list_ref is not None:
        uris.append(env.revocation.list_ref)
    more = sorted({*answers.egress_ports, *([REDIS] if answers.redis_secret is not None else [])})
    if not uris and not more:
        return []
    wanted = reach(uris, answers.oci_insecure_registries)
    ports: list[Json] = [_tcp(port) for port in sorted(wanted.ports)]
    peers = _networks(answers.egress_cidrs) or [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": [LINK_LOCAL]}},
        {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10"]}},
    ]
    rules: list[Json] = [{"to": peers, "ports": ports}]
    if more:
        # some network plugins do not count pods among addresses
        anywhere: list[Json] = [*peers, {"namespaceSelector": {}}]
        rules.append({"to": anywhere, "ports": [_tcp(port) for port in more]})
    if wanted.inside:
        inside: list[Json] = [{"namespaceSelector": {}}]
        inside += [{"ipBlock": {"cidr": address}} for address in sorted(wanted.addresses)]
        rules.append({"to": inside})
    return rules


def _networks(cidrs: Iterable[str]) -> list[Json]:
    return [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


def _pods(labels: JsonObject) -> JsonObject:
    return {"podSelector": {"matchLabels": dict(labels)}}


def _tcp(port: int) -> JsonObject:
    return {"protocol": "TCP", "port": port}
