"""What an environment left in namespaces that were answered before: a reconcile goes where the answers say, and takes away nothing
elsewhere.

Rules:
1. The log of changes tells into which namespaces it was reconciled, and when last. All but the one in use were left.
2. Who can ask a cluster tells only what still has a workload of this environment; who may not look there says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from greentic.ground.documents import read_file
from greentic.ground.errors import GreenticError
from greentic.history.trail import entries
from greentic.k8s import names
from greentic.k8s.objects import KINDS, ApiRefused, Cluster
from greentic.k8s.plan import PRUNED_KINDS, Owner, is_ours
from greentic.store.layout import EnvPaths

_MARK = b'"reconcile"'


def left_namespaces(lines: Iterable[bytes], used: str | None = None) -> dict[str, str]:
    """The namespaces that were left, with when they were written to last; in use is `used`, or the newest of all (rule 1)."""
    found: dict[str, str] = {}
    for entry in entries(line for line in lines if _MARK in line):
        namespace = entry.target.get("namespace")
        if entry.verb == "env reconcile" and isinstance(namespace, str):
            found.pop(namespace, None)
            found[namespace] = entry.at
    found.pop(used or next(reversed(found), ""), None)
    return found


def left_in(paths: EnvPaths, used: str) -> dict[str, str]:
    """The same of an environment's own log; nothing where that cannot be read, which others tell."""
    try:
        return left_namespaces(read_file(paths.audit).splitlines(), used)
    except (OSError, ValueError):
        return {}


def take_away(env_id: str, namespace: str) -> str:
    """The command that takes away what was left."""
    kinds = ",".join(KINDS[kind].plural for kind in PRUNED_KINDS if kind != "HTTPRoute")
    return f"kubectl -n {namespace} delete {kinds} -l {names.owner_selector(env_id)}"


def left_behind(cluster: Cluster, namespaces: Mapping[str, str], owner: Owner) -> list[str]:
    """What is to be said of those namespaces that were left in which something is (rule 2)."""
    found: list[str] = []
    for left, at in namespaces.items():
        try:
            listed = cluster.list("Deployment", left, names.owner_selector(owner.env_id)).items
            told = "still runs there" if any(is_ours(thing, owner) for thing in listed) else ""
        except ApiRefused as error:
            told = "may still be there, which this identity may not see" if error.forbidden else ""
        except GreenticError:
            told = ""  # what asks next tells why
        if told:
            found.append(
                f"namespace `{left}` was answered before, and what was applied to it (last at {at[:19]}Z) {told}. "
                f"Next: {take_away(owner.env_id, left)}"
            )
    return found
