"""The six NetworkPolicies of an environment (formats: cluster 3). Pure.

Rules:
1. Everything is denied; each policy opens one thing, and all six always exist, so that a later reconcile closes an opening
   in place. A closed direction is written by leaving its rules out.
2. DNS goes to the cluster's resolvers, wherever they run, to caches on the node, and to answered networks.
3. Workers are reached by the router only; the router by everyone, or by the answered namespaces and networks. With `expose: gateway`
   those reach workers as well, for there the Gateway draws revisions. The answered namespaces of scrapers reach the port of metrics
   of both.
4. Pods that pull may reach what bundles come from. A source that names a Service of the cluster opens the pods of its namespace
   (policies see the pod's port, so no port is named): `<name>` its own, `<name>.<namespace>.svc` that one. A source that is an
   address opens this address and its port. Any other opens any address, or the answered networks, on its port and on 443, where
   registries redirect to. Answered ports, and that of Redis where it is answered, lead to addresses and pods. `egress: open` opens
   everything.
5. What no worker ever asks (`net.addresses`: link-local, metadata services) is excepted from every network that is opened, and is never
   opened by itself. There is one list of these, the worker's own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from greentic.ground.documents import Json, JsonObject
from greentic.k8s import names
from greentic.k8s.answers import Answers
from greentic.k8s.pods import METRICS_PORT, PORT
from greentic.model.delivery import delivery_of
from greentic.model.environment import Environment, Revision
from greentic.model.pod_view import present_revisions, routed_ids
from greentic.net.addresses import REGISTRIES, never_reached
from greentic.shape.excepted import LINK_LOCAL_4, within
from greentic.shape.syntax import is_dns_label

HTTPS, REDIS = 443, 6379
_PORTS = {"http://": 80, "https://": HTTPS} | dict.fromkeys(REGISTRIES, HTTPS)
"""By how a reference begins."""
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


class Destinations(NamedTuple):
    """What a set of sources asks for."""

    ports: frozenset[int] = frozenset()
    """Of sources that are names outside of the cluster."""
    namespaces: frozenset[str] = frozenset()
    """Of sources that are Services of the cluster; the empty text is the pods' own namespace."""
    addresses: frozenset[tuple[str, int]] = frozenset()
    """Sources that are plain addresses, as networks of one, with their ports."""


def destinations(uris: Iterable[str], insecure: Iterable[str]) -> Destinations:
    """What pods have to reach for these source URIs; what is no address of a server asks for nothing."""
    ports: set[int] = set()
    namespaces: set[str] = set()
    addresses: set[tuple[str, int]] = set()
    plain = set(insecure)
    for uri in uris:
        try:
            parts = urlsplit(uri)
            host, told = parts.hostname, parts.port
        except ValueError:
            continue
        usual = _PORTS.get(f"{parts.scheme}://")
        if usual is None or not host:
            continue
        port = told or (80 if parts.netloc.rpartition("@")[2] in plain else usual)
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            namespace = _namespace(host)
            if namespace is None:
                ports.add(port)
            else:
                namespaces.add(namespace)
            continue
        if never_reached(host) is None:
            addresses.add((str(ipaddress.ip_network(address)), port))
    return Destinations(frozenset(ports), frozenset(namespaces), frozenset(addresses))


def _namespace(host: str) -> str | None:
    """The namespace of a Service's name, empty for the pods' own; nothing if the name is none of the cluster's."""
    labels = host.removesuffix(".").split(".")
    if len(labels) == 1:
        return ""
    return labels[1] if labels[2:3] == ["svc"] and is_dns_label(labels[1]) else None


def network_policies(env: Environment, answers: Answers, namespace: str, labels: JsonObject) -> list[JsonObject]:
    """The six, in their order."""
    router = names.component_labels(env.environment_id, "router")
    workers = names.component_labels(env.environment_id, "worker")
    to_workers: JsonObject = {"to": [_pods(workers)], "ports": [_tcp(PORT)]}
    to_worker: list[Json] = [{"from": [_pods(router)], "ports": [_tcp(PORT)]}]
    if answers.exposure is not None and answers.exposure.gateway is not None:
        to_worker.append(_ingress(answers))
    scraped = _scraped(answers)
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
                "ingress": [_ingress(answers), *scraped],
                "egress": [to_workers],
            },
        ),
        (
            "gtc-allow-workers",
            {
                "podSelector": {"matchLabels": dict(workers)},
                "policyTypes": ["Ingress"],
                "ingress": [*to_worker, *scraped],
            },
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
    peers: list[Json] = [resolvers, *_networks([str(LINK_LOCAL_4), *answers.dns_cidrs])]
    return {"to": peers, "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def _scraped(answers: Answers) -> list[Json]:
    """Who reaches the port of metrics."""
    if not answers.metrics_namespaces:
        return []
    return [{"from": [_namespace_peer(n) for n in answers.metrics_namespaces], "ports": [_tcp(METRICS_PORT)]}]


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
    if answers.environment_registry is not None:
        uris.append(answers.environment_registry)
    more = sorted({*answers.egress_ports, *([REDIS] if answers.redis_secret is not None else [])})
    if not uris and not more:
        return []
    wanted = destinations(uris, answers.oci_insecure_registries)
    ports: list[Json] = [_tcp(port) for port in sorted({HTTPS, *wanted.ports})]
    peers = [_opened(cidr) for cidr in answers.egress_cidrs or ("0.0.0.0/0", "::/0")]
    rules: list[Json] = [{"to": peers, "ports": ports}]
    if more:
        # some network plugins do not count pods among addresses
        anywhere: list[Json] = [*peers, {"namespaceSelector": {}}]
        rules.append({"to": anywhere, "ports": [_tcp(port) for port in more]})
    for cidr, port in sorted(wanted.addresses):
        rules.append({"to": [_opened(cidr)], "ports": [_tcp(port)]})
    if wanted.namespaces:
        # the pods' own namespace needs no label, which old clusters do not set by themselves
        selected = {"" if name == answers.namespace else name for name in wanted.namespaces}
        rules.append({"to": [_namespace_peer(name) for name in sorted(selected)]})
    return rules


def _opened(cidr: str) -> Json:
    """A network to open, without what rule 5 excepts."""
    network = ipaddress.ip_network(cidr)
    inside: list[Json] = [str(n) for n in within(network)]
    block: JsonObject = {"cidr": str(network)}
    return {"ipBlock": block | {"except": inside} if inside else block}


def _namespace_peer(name: str) -> Json:
    if not name:
        return {"podSelector": {}}
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE_LABEL: name}}}


def _networks(cidrs: Iterable[str]) -> list[Json]:
    return [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


def _pods(labels: JsonObject) -> JsonObject:
    return {"podSelector": {"matchLabels": dict(labels)}}


def _tcp(port: int) -> JsonObject:
    return {"protocol": "TCP", "port": port}
