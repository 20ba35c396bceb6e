"""`env show` and the lists at a terminal: deployments, routes, revisions with weights. Environment → blocks, pure.

Rules:
1. A revision goes by its short name; the ULID is in the wide form.
2. What is archived is counted, and listed in the wide form.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from greentic.model.delivery import MEMBER, delivery_of
from greentic.model.environment import BundleDeployment, Environment, Revision
from greentic.model.naming import revision_name
from greentic.terminal.table_layout import EMPTY, Block, Cell, Column, Line, Table, cell
from greentic.terminal.words import age, counted, digest, share, source, state

_REVISION = (
    Column("revision", tells_apart=True), Column("weight", 0, whole=True), Column("state", 1), Column("digest", 3, whole=True),
    Column("age", 2, right=True), Column("source", 4, tells_apart=True), Column("ulid", 5, whole=True),
)  # fmt: skip


def environment(env: Environment, now_ns: int, *, wide: bool = False) -> list[Block]:
    """The picture of a whole environment."""
    own = _by_deployment(env)
    weights = _weights(env)
    blocks: list[Block] = [_headline(env), _counts(env)]
    for deployment in env.bundles:
        blocks += [EMPTY, _deployment(deployment), _routes(deployment)]
        blocks += _revisions(own[deployment.deployment_id], weights, now_ns, wide=wide)
    if not env.bundles:
        blocks += [EMPTY, Line((cell("no deployments", "dim"),))]
    return blocks


def revisions(env: Environment, now_ns: int, *, wide: bool = False) -> list[Block]:
    """`revisions list`: every revision, in the order of the document."""
    return [_revision_table(env.revisions, _weights(env), now_ns, wide=wide)]


def traffic(env: Environment, deployment_id: str, now_ns: int, *, wide: bool = False) -> list[Block]:
    """`traffic show`: who gets how much of one deployment."""
    split = env.split(deployment_id)
    if split is None:
        return []
    known = {r.revision_id: r for r in env.revisions}
    routed = [known[e.revision_id] for e in split.entries if e.revision_id in known]
    back = "can be rolled back" if split.previous_split_ref is not None else "nothing to roll back to"
    line = (cell(split.bundle_id, "bold"), cell(f"generation {split.generation}"), cell(f"by {split.updated_by}"))
    told = (cell(f"{age(split.updated_at, now_ns)} ago", "dim"), cell(back, "dim"))
    return [Line((*line, *told), shrinks=True), _revision_table(routed, _weights(env), now_ns, wide=wide)]


def deployments(env: Environment, now_ns: int, *, wide: bool = False) -> list[Block]:
    """`bundles list`."""
    columns = [
        Column("bundle", tells_apart=True),
        Column("state", whole=True),
        Column("customer", 3),
        Column("serves", 1),
        Column("routes", 2),
        Column("age", 4, right=True),
    ]
    own, weights = _by_deployment(env), _weights(env)
    rows = []
    for deployment in env.bundles:
        live = [r for r in own[deployment.deployment_id] if weights.get(r.revision_id)]
        serves = ", ".join(f"@{r.sequence} {weights[r.revision_id] / 100:g}%" for r in live)
        rows.append([
            cell(deployment.bundle_id, "bold"), state(deployment.status), cell(deployment.customer_id), cell(serves or "nothing"),
            cell(", ".join(_places(deployment))), cell(age(deployment.created_at, now_ns)), *_ulid(deployment.deployment_id, wide),
        ])  # fmt: skip
    return [Table([*columns, *([Column("ulid", whole=True)] if wide else [])], rows)]


def _headline(env: Environment) -> Line:
    name = env.name if env.name != env.environment_id else ""
    return Line((cell(env.environment_id, "bold"), *([cell(name)] if name else [])), shrinks=True)


def _counts(env: Environment) -> Line:
    told = [counted(len(env.bundles), "deployment"), counted(len(env.revisions), "revision")]
    if env.host_config.public_base_url:
        told.append(env.host_config.public_base_url)
    if MEMBER in env.extra:
        told.append(f"generation {delivery_of(env).generation}")
    return Line([cell(text + ("," if i < len(told) - 1 else ""), "dim") for i, text in enumerate(told)])


def _deployment(deployment: BundleDeployment) -> Line:
    return Line(
        (cell(deployment.bundle_id, "bold"), state(deployment.status), cell(f"for {deployment.customer_id}", "dim")),
        shrinks=True,
    )


def _routes(deployment: BundleDeployment) -> Line:
    return Line([Cell(" "), *(cell(place) for place in _places(deployment) or ["no route"])])


def _places(deployment: BundleDeployment) -> list[str]:
    """Hosts with each of their prefixes, as one would write the address."""
    binding = deployment.route_binding
    return [f"{host}{prefix}" for host in binding.hosts or [""] for prefix in binding.path_prefixes or ["/"]]


def _revisions(own: list[Revision], weights: dict[str, int], now_ns: int, *, wide: bool) -> Iterator[Block]:
    live = [r for r in own if wide or r.lifecycle != "archived" or r.revision_id in weights]
    newest = sorted(live, key=lambda r: (-weights.get(r.revision_id, 0), -r.sequence))
    if newest:
        yield _revision_table(newest, weights, now_ns, wide=wide, indent=2)
    if len(own) > len(live):
        yield Line((Cell(" "), cell(f"and {len(own) - len(live)} archived", "dim")))


def _revision_table(
    shown: list[Revision], weights: dict[str, int], now_ns: int, *, wide: bool, indent: int = 0
) -> Table:
    rows = [
        [
            cell(revision_name(r), "bold"), share(weights[r.revision_id]) if r.revision_id in weights else cell("-", "dim"),
            state(r.lifecycle), digest(r.bundle_digest), cell(age(r.created_at, now_ns)), cell(source(r), "dim"),
            *_ulid(r.revision_id, wide),
        ]
        for r in shown
    ]  # fmt: skip
    return Table(_REVISION if wide else _REVISION[:-1], rows, indent)


def _ulid(ulid: str, wide: bool) -> list[Cell]:
    return [cell(ulid, "dim")] if wide else []


def _by_deployment(env: Environment) -> defaultdict[str, list[Revision]]:
    own: defaultdict[str, list[Revision]] = defaultdict(list)
    for revision in env.revisions:
        own[revision.deployment_id].append(revision)
    return own


def _weights(env: Environment) -> dict[str, int]:
    return {e.revision_id: e.weight_bps for s in env.traffic_splits for e in s.entries}
