"""The life of a revision (formats: environment 6).

Rules:
1. There are no self transitions and `archived` is final; what a verb may do stands in `CHAINS`.
2. A verb walks a chain of (from, to) pairs in one change: wherever the state equals `from` it becomes `to`; at the end the
   state must be the last `to`, else the verb is refused and nothing changes.
3. A verb on a revision that already is where the chain ends succeeds and changes nothing but a time stamp.
4. A revision that a traffic split names cannot be archived, whatever its weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from greentic.ground.documents import replace
from greentic.ground.errors import Conflict
from greentic.model.environment import Environment, Lifecycle, Revision

Chain = tuple[tuple[Lifecycle, Lifecycle], ...]
Verb = Literal["warm", "drain", "archive", "retry"]

CHAINS: dict[Verb, Chain] = {
    "warm": (("staged", "warming"), ("warming", "ready")),
    "drain": (("ready", "draining"),),
    "archive": (
        ("staged", "archived"),
        ("warming", "archived"),
        ("ready", "archived"),
        ("failed", "archived"),
        ("draining", "inactive"),
        ("inactive", "archived"),
    ),
    "retry": (("failed", "staged"),),
}


def walk(revision: Revision, verb: Verb) -> tuple[Lifecycle, bool]:
    """Where `verb` takes the revision, and whether it moved. Raises `Conflict` that lists the accepted states (rule 2)."""
    chain = CHAINS[verb]
    state = revision.lifecycle
    for before, after in chain:
        if state == before:
            state = after
    final = chain[-1][1]
    if state != final:
        accepted = ", ".join(dict.fromkeys(before.capitalize() for before, _ in chain))
        raise Conflict(
            f"revision `{revision.revision_id}` is in `{revision.lifecycle.capitalize()}`; expected one of [{accepted}]",
            hint=way_to_ready(revision.lifecycle),
        )
    return state, state != revision.lifecycle


def way_to_ready(state: Lifecycle) -> str | None:
    """What leads from a state to `ready`; nothing where it is waited for."""
    if state == "failed":
        return "repair the cause, then `gtc op revisions retry` and `gtc op revisions warm`"
    if state == "staged":
        return "gtc op revisions warm"
    if state in ("draining", "archived"):
        named = "a draining revision does not come back" if state == "draining" else "an archived revision is final"
        return f"{named}; stage the bundle again with `gtc op revisions stage`"
    return None


def check_not_routed(env: Environment, revision: Revision) -> None:
    """Raise `Conflict` if any split still names the revision (rule 4)."""
    uses = [
        f"deployment `{split.deployment_id}` / bundle `{split.bundle_id}` ({entry.weight_bps}bps)"
        for split in env.traffic_splits
        for entry in split.entries
        if entry.revision_id == revision.revision_id
    ]
    if uses:
        raise Conflict(
            f"revision `{revision.revision_id}` is still referenced by live traffic split(s): [{', '.join(uses)}]; "
            "rebalance via `gtc op traffic set` before archiving",
            hint=f"gtc op traffic set {env.environment_id} OTHER=100 --deployment {revision.deployment_id} --idempotency-key KEY; "
            f"or, to end all of it, gtc op bundles retire {env.environment_id} {revision.deployment_id}",
        )


def put_revision(env: Environment, revision: Revision) -> Environment:
    """The environment with `revision` in the place of its namesake and `current_revisions` in line with it."""
    revisions = [revision if r.revision_id == revision.revision_id else r for r in env.revisions]
    return with_current_revisions(replace(env, revisions=revisions), [revision.deployment_id])


def with_current_revisions(env: Environment, deployment_ids: Iterable[str]) -> Environment:
    """`current_revisions` of the named deployments = their revisions that are not archived, in stored order."""
    wanted = set(deployment_ids)
    current: dict[str, list[str]] = {d: [] for d in wanted}
    for revision in env.revisions:
        deployment = current.get(revision.deployment_id)
        if deployment is not None and revision.lifecycle != "archived":
            deployment.append(revision.revision_id)
    bundles = [
        replace(d, current_revisions=current[d.deployment_id]) if d.deployment_id in wanted else d for d in env.bundles
    ]
    return replace(env, bundles=bundles)
