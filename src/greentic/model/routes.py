"""Which deployment a request belongs to (formats: worker 5).

Rules:
1. Only active deployments are candidates, in the order of the environment.
2. A host list matches the `Host` header without its port, ignoring case, whole names only; an empty list matches anything.
3. A prefix matches a path that equals it or goes on with `/`; an empty list means the root.
4. The longest matching prefix wins, the earlier deployment on a tie. A host match gives no advantage.
5. Finding costs what the path is long, however many deployments there are: two looks into a table for each `/` of the path. What was
   asked before is not looked for again; of strangers only short questions are remembered, and so many at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

from greentic.model.environment import BundleDeployment, Environment
from greentic.model.hosts import host_without_port

REMEMBERED = 1024
SHORT = 512
"""Characters of a question that is remembered."""


class Route(NamedTuple):
    """A deployment's binding, ready to be matched."""

    deployment_id: str
    bundle_id: str
    tenant: str
    team: str
    hosts: frozenset[str]
    prefixes: tuple[str, ...]


def normal_prefix(prefix: str) -> str:
    """The prefix with one leading slash and none at its end; the root is the empty string."""
    inner = prefix.strip("/")
    return f"/{inner}" if inner else ""


def route_table(env: Environment) -> list[Route]:
    """The routes of the active deployments (rule 1)."""
    return [_route(d) for d in env.bundles if d.status == "active"]


def _route(deployment: BundleDeployment) -> Route:
    binding = deployment.route_binding
    return Route(
        deployment.deployment_id,
        deployment.bundle_id,
        binding.tenant_selector.tenant,
        binding.tenant_selector.team,
        frozenset(host_without_port(h) if "[" in h else _comparable(h) for h in binding.hosts),
        tuple(normal_prefix(p) for p in binding.path_prefixes) or ("",),
    )


def _comparable(host: str) -> str:
    """A host as it stands in a header: lower case, and ASCII where a name can be."""
    if host.isascii():
        return host.lower()
    from greentic.ground.host_name import ascii_host  # rare, and no boot needs it

    try:
        return ascii_host(host)
    except ValueError:
        return host.lower()


class Routes:
    """The routes of one environment, found by host and path (rules 2 to 5). Iterated in the order of the environment."""

    __slots__ = ("_by_place", "_by_tenant", "_look", "_remembered", "_routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._by_place: dict[tuple[str | None, str], int] = {}
        """By host (None for any) and prefix, the earliest route."""
        self._by_tenant: dict[str, Route] = {}
        self._look = partial(_look, self._routes, self._by_place)
        self._remembered = lru_cache(REMEMBERED)(self._look)
        for number, route in enumerate(self._routes):
            self._by_tenant.setdefault(route.tenant, route)
            for host in route.hosts or (None,):
                for prefix in route.prefixes:
                    self._by_place.setdefault((host, prefix), number)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def find(self, host_header: str, path: str) -> Route | None:
        """The route of a request, if any."""
        short = len(host_header) + len(path) <= SHORT
        return self._remembered(host_header, path) if short else self._look(host_header, path)

    def of_tenant(self, tenant: str) -> Route | None:
        """The route of a tenant: the first that has it, else the only one there is."""
        found = self._by_tenant.get(tenant)
        return self._routes[0] if found is None and len(self._routes) == 1 else found


def _look(
    routes: tuple[Route, ...], by_place: dict[tuple[str | None, str], int], host_header: str, path: str
) -> Route | None:
    host, prefix = host_without_port(host_header), path
    while True:
        of_host, of_any = by_place.get((host, prefix)), by_place.get((None, prefix))
        if of_host is not None or of_any is not None:
            return routes[min(n for n in (of_host, of_any) if n is not None)]
        if not prefix:
            return None
        prefix = prefix[: max(prefix.rfind("/"), 0)]


def impossible_matcher(hosts: Iterable[str], prefixes: Iterable[str] = ()) -> str | None:
    """The first host or prefix that no request can ever match, and why; nothing if each of them can match one.

    Each is asked, for an impossible one beside a possible one is a mistake that nobody would notice. A `Host` header has no scheme,
    path, blank or port left when it is compared, and there are no wildcards; a path has no query, fragment or blank.
    """
    for host in hosts:
        if not _possible_host(host):
            return f"the host {host[:80]!r} cannot stand in a Host header (to 253: no scheme, port, path, wildcard)"
    for prefix in prefixes:
        if not _possible_prefix(prefix):
            return f"the prefix {prefix[:80]!r} cannot begin a path (up to 8000 bytes: no query, fragment or blank)"
    return None


def _possible_host(host: str) -> bool:
    if host.startswith("["):
        return host.endswith("]") and len(host) > 2
    return 0 < len(host) <= 253 and host.isprintable() and not any(c in host for c in " /:*?#@[]")


def _possible_prefix(prefix: str) -> bool:
    return len(prefix.encode(errors="replace")) <= 8000 and prefix.isprintable() and not any(c in prefix for c in " ?#")


def overlaps(env: Environment) -> list[tuple[str, str, str]]:
    """Pairs of active deployments that claim the same host and prefix, with the prefix; the second never gets it."""
    found: list[tuple[str, str, str]] = []
    routes = route_table(env)
    claimed: dict[str, list[int]] = {}
    for number, route in enumerate(routes):
        for prefix in set(route.prefixes):
            claimed.setdefault(prefix, []).append(number)
    for index, first in enumerate(routes):
        for number in sorted({n for prefix in first.prefixes for n in claimed[prefix] if n > index}):
            second = routes[number]
            if not first.hosts or not second.hosts or first.hosts & second.hosts:
                found += [
                    (first.deployment_id, second.deployment_id, prefix or "/")
                    for prefix in second.prefixes
                    if prefix in first.prefixes
                ]
    return found
