"""The objects by which routers are reached from outside: an Ingress, or routes of the Gateway API. Pure.

Rules:
1. An Ingress leads every host to the routers, which draw revisions. cert-manager's solver pods are let in where an issuer is answered.
2. With the Gateway API the traffic split is in the data plane: an HTTPRoute a deployment, the Services of its workers behind it, each with
   its basis points as weight. What no deployment claims goes to the routers, and so does a deployment of which a weighted revision
   has no worker.
3. Which deployment a request belongs to is decided as routers do it (`model.routes`): the longest prefix, the earlier one on a tie. A
   Gateway prefers the more exact host and then the older route, so no host and prefix stands in two routes, and a deployment that
   takes any host is told all hosts by name.
4. Scheme and port are the Gateway's, whose listeners may be somebody else's: what callers use is told where it can be read
   (`gateway_urls`).
5. Every field that a server would fill in is stated, so that a comparison finds nothing to change.
"""

from __future__ import annotations

from collections.abc import Iterable

from greentic.ground.documents import Json, JsonObject, shown
from greentic.ground.errors import Conflict
from greentic.k8s import names
from greentic.k8s.objects import member, metadata_of, objects_in
from greentic.k8s.pods import PORT
from greentic.model.environment import Environment, TrafficSplit
from greentic.model.pod_view import is_present
from greentic.model.routes import Route, route_table
from greentic.shape.exposure import Exposure, Gateway, is_route_path
from greentic.shape.syntax import host_name

GATEWAY_GROUP = "gateway.networking.k8s.io"
MATCHES, RULES, HOSTS, BACKENDS = 8, 16, 16, 16
"""What an HTTPRoute may hold: matches of a rule, rules, host names, backends of a rule."""
SOLVER_LABEL, SOLVER_PORT = "acme.cert-manager.io/http01-solver", 8089
_EVERY = "/"
_PORTS = {"HTTP": 80, "HTTPS": 443}


def exposing_objects(
    env: Environment, exposure: Exposure | None, namespace: str, labels: JsonObject
) -> list[JsonObject]:
    """The objects of an exposure. Raises `Conflict` for what does not fit the Gateway API."""
    if exposure is None:
        return []
    if exposure.gateway is not None:
        return _routes(env, exposure.gateway, exposure.hosts, namespace, labels)
    found = [_ingress(exposure, namespace, labels)]
    if exposure.issuer is not None:
        found.append(_solver_policy(namespace, labels))
    return found


def _ingress(exposure: Exposure, namespace: str, labels: JsonObject) -> JsonObject:
    backend: JsonObject = {"service": {"name": names.ROUTER, "port": {"number": PORT}}}
    http: JsonObject = {"paths": [{"path": _EVERY, "pathType": "Prefix", "backend": backend}]}
    hosts: list[JsonObject] = [{"host": host} for host in exposure.hosts] or [{}]
    spec: JsonObject = {"rules": [{**host, "http": http} for host in hosts]}
    if exposure.ingress_class is not None:
        spec["ingressClassName"] = exposure.ingress_class
    if exposure.tls_secret is not None:
        spec["tls"] = [{"hosts": list(exposure.hosts), "secretName": exposure.tls_secret}]
    metadata: JsonObject = {"name": names.ROUTER, "namespace": namespace, "labels": dict(labels)}
    if exposure.issuer is not None:
        annotation, issuer = exposure.issuer
        metadata["annotations"] = {annotation: issuer}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def _solver_policy(namespace: str, labels: JsonObject) -> JsonObject:
    """Whoever asks may reach what proves that the host is ours; everything else of these pods stays closed."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "gtc-allow-certificates", "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "podSelector": {"matchLabels": {SOLVER_LABEL: "true"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": SOLVER_PORT}]}],
        },
    }


def _routes(
    env: Environment, gateway: Gateway, answered: tuple[str, ...], namespace: str, labels: JsonObject
) -> list[JsonObject]:
    """The routes of the Gateway API (rules 2 and 3)."""
    table = route_table(env)
    every = _hosts(answered, *(route.hosts for route in table))
    taken: set[tuple[str, str]] = set()
    found: list[JsonObject] = []
    for route in table:
        hosts_of: dict[tuple[str, ...], list[str]] = {}
        for prefix in dict.fromkeys(route.prefixes):
            free = tuple(host for host in _hosts(route.hosts) or every if (host, prefix) not in taken)
            taken |= {(host, prefix) for host in free}
            if free:
                hosts_of.setdefault(free, []).append(prefix)
        split = env.split(route.deployment_id)
        backends = None if split is None else _workers(env, split)
        for number, (hosts, prefixes) in enumerate(hosts_of.items()):
            name = f"gtc-{route.deployment_id.lower()}" + (f"-{number}" if number else "")
            found += _http_routes(
                name, route, gateway, hosts, prefixes, backends or [_backend(names.ROUTER, 1)], namespace, labels
            )
    rest = [host for host in every if (host, "") not in taken]
    if rest:
        found += _http_routes(names.ROUTER, None, gateway, rest, [""], [_backend(names.ROUTER, 1)], namespace, labels)
    return found


def gateway_urls(gateway: JsonObject, hosts: Iterable[str], namespace: str) -> list[str]:
    """What callers use of these hosts, as the listeners say that take them and our namespace's routes; https before http.

    Nothing while the Gateway has no address. A selector of namespaces is not followed: whether routes are taken stands in theirs.
    """
    if not gateway_addresses(gateway):
        return []
    home = metadata_of(gateway).get("namespace")
    listeners = [
        found
        for found in objects_in(member(gateway, "spec").get("listeners"))
        if found.get("protocol") in _PORTS
        and (home == namespace or member(found, "allowedRoutes", "namespaces").get("from") in ("All", "Selector"))
    ]
    urls: list[str] = []
    for host in (host for host in hosts if not host.startswith("*.")):
        taking = [found for found in listeners if _takes(found.get("hostname"), host)]
        taking.sort(key=lambda found: found.get("protocol") != "HTTPS")
        for found in taking[:1]:
            scheme, port = str(found["protocol"]).lower(), found.get("port")
            urls.append(f"{scheme}://{host}" + ("" if port == _PORTS[str(found["protocol"])] else f":{port}"))
    return urls


def gateway_addresses(gateway: JsonObject) -> list[str]:
    """Where a Gateway is, as far as it was given addresses."""
    found = objects_in(member(gateway, "status").get("addresses"))
    return [str(one["value"]) for one in found if one.get("value")]


def _takes(hostname: Json, host: str) -> bool:
    """Whether a listener takes a host; `*.` is one label or more there."""
    if not isinstance(hostname, str) or not hostname:
        return True
    return host == hostname.lower() or (hostname.startswith("*.") and host.endswith(hostname[1:].lower()))


def _hosts(*groups: Iterable[str]) -> tuple[str, ...]:
    """The hosts that a Gateway can match, each once: names. What a binding names beside them no request has here."""
    found: dict[str, None] = {}
    for host in (host for group in groups for host in (group if isinstance(group, tuple) else sorted(group))):
        try:
            found[host_name(host, "hosts")] = None
        except Conflict:
            continue
    return tuple(found)


def _workers(env: Environment, split: TrafficSplit) -> list[Json] | None:
    """The workers of a split with their weights; nothing if one that has traffic is not in the cluster."""
    found: list[Json] = []
    for entry in split.entries:
        revision = env.revision(entry.revision_id)
        if revision is not None and is_present(revision):
            found.append(_backend(names.worker_name(entry.revision_id), entry.weight_bps))
        elif entry.weight_bps:
            return None
    return found if 0 < len(found) <= BACKENDS else None


def _backend(name: str, weight: int) -> JsonObject:
    return {"kind": "Service", "name": name, "port": PORT, "weight": weight}


def _http_routes(
    name: str, route: Route | None, gateway: Gateway, hosts: Iterable[str], prefixes: list[str], backends: list[Json], namespace: str,
    labels: JsonObject,
) -> list[JsonObject]:  # fmt: skip
    """The routes of one group of hosts and prefixes, as many as it takes."""
    matches: list[Json] = [{"path": {"type": "PathPrefix", "value": prefix or _EVERY}} for prefix in prefixes]
    whose = names.ROUTER if route is None else route.deployment_id
    if len(matches) > MATCHES * RULES:
        raise Conflict(
            f"{len(matches)} path prefixes of `{whose}` do not fit an HTTPRoute, which holds {MATCHES * RULES}; nothing was applied",
            hint="spread them over several deployments, or answer expose: ingress",
        )
    for prefix in prefixes:
        if prefix and not is_route_path(prefix):
            raise Conflict(
                f"no HTTPRoute can match the path prefix {shown(prefix)} of `{whose}`; nothing was applied",
                hint="the Gateway API takes letters, digits, -._~!$&'()*+,;=:@, %xx but %2f, and no part that is empty, . or ..: "
                "change it with gtc op bundles update, or answer expose: ingress",
            )
    rules: list[Json] = [
        {"matches": matches[at : at + MATCHES], "backendRefs": backends} for at in range(0, len(matches), MATCHES)
    ]
    parent: JsonObject = {
        "group": GATEWAY_GROUP,
        "kind": "Gateway",
        "namespace": gateway.namespace,
        "name": gateway.name,
    }
    told: list[Json] = list(hosts)
    own: JsonObject = {} if route is None else {names.DEPLOYMENT: names.label_value(route.deployment_id)}
    return [
        {
            "apiVersion": f"{GATEWAY_GROUP}/v1",
            "kind": "HTTPRoute",
            "metadata": {
                "name": name + (f"-hosts-{at // HOSTS}" if at else ""), "namespace": namespace, "labels": {**labels, **own},
            },
            "spec": {"parentRefs": [parent], "hostnames": told[at : at + HOSTS], "rules": rules},
        }
        for at in range(0, len(told), HOSTS)
    ]  # fmt: skip
