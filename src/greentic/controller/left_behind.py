"""What an environment left in namespaces that were answered before (`history/left_namespaces`).

Who can ask a cluster tells only what still has a workload of this environment; who may not look there says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from greentic.ground.errors import GreenticError
from greentic.k8s import names
from greentic.k8s.objects import KINDS, ApiRefused, Cluster
from greentic.k8s.plan import PRUNED_KINDS, Owner, is_ours


class Left(NamedTuple):
    """What a look into namespaces that were left found."""

    told: list[str]
    """What is to be said of those in which something is, or may be."""
    empty: list[str]
    """Those in which nothing of the owner runs any more."""


def take_away(owner: Owner, namespace: str) -> str:
    """The command that takes away what was left, and nothing that another store has there for an environment of that name."""
    kinds = ",".join(KINDS[kind].plural for kind in PRUNED_KINDS if kind != "HTTPRoute")
    return f"kubectl -n {namespace} delete {kinds} -l {names.owner_selector(owner.env_id)},{names.STORE}={owner.store}"


def left_behind(cluster: Cluster, namespaces: Mapping[str, str], owner: Owner) -> Left:
    """What is in the namespaces that were left."""
    found, empty = list[str](), list[str]()
    for left, at in namespaces.items():
        try:
            listed = cluster.list("Deployment", left, names.owner_selector(owner.env_id)).items
            told = "still runs there" if any(is_ours(thing, owner) for thing in listed) else ""
            empty += [] if told else [left]
        except ApiRefused as error:
            told = "may still be there, which this identity may not see" if error.forbidden else ""
        except GreenticError:
            told = ""  # what asks next tells why
        if told:
            found.append(
                f"namespace `{left}` was answered before, and what was applied to it (last at {at[:19]}Z) {told}. "
                f"Next: {take_away(owner, left)}"
            )
    return Left(found, empty)
