"""What a worker pulls, and whose failure it may survive (spec: worker 2.3, 2.4). Pure.

Rules:
1. Wanted are the revisions that some split of an active deployment names, in the order of the document. The state of the
   disk decides for each: whole there, to be fetched, or not available.
2. A worker that is for one revision serves that even while nothing is routed to it, with all the traffic of its deployment, so
   that being ready means that it loads. In its own scope it serves nothing else.
3. Without an own revision every failure is fatal. With one that is routed, a failure in another deployment is skipped and
   told; a failure of a sibling in the same deployment is fatal, because its split would no longer be whole.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.ground.errors import BootError
from greentic.model.environment import Environment, Revision
from greentic.model.pod_view import for_worker, with_own_revision


class Policy(NamedTuple):
    """Whose failure ends the boot."""

    own_deployment: str | None
    warning: str | None = None

    def is_fatal(self, revision: Revision) -> bool:
        return self.own_deployment is None or revision.deployment_id == self.own_deployment


def as_seen(env: Environment, own_revision: str | None, *, alone: bool) -> Environment:
    """The environment as a worker serves it (rule 2). Raises `BootError` if its own revision is not there."""
    if own_revision is None:
        return env
    if not alone:
        return with_own_revision(env, own_revision)
    seen = for_worker(env, own_revision)
    if seen is None:
        raise BootError(
            f"GREENTIC_REVISION_ID=`{own_revision}` is not in environment `{env.environment_id}`, and nothing else is to be served",
            hint="reconcile again: the revision was taken out of the environment",
        )
    return seen


def wanted_revisions(env: Environment) -> list[Revision]:
    """The routed revisions of active deployments (rule 1)."""
    active = {d.deployment_id for d in env.bundles if d.status == "active"}
    routed = {
        (split.deployment_id, entry.revision_id)
        for split in env.traffic_splits
        if split.deployment_id in active
        for entry in split.entries
    }
    return [r for r in env.revisions if (r.deployment_id, r.revision_id) in routed]


def policy(env: Environment, own_revision: str | None) -> Policy:
    """Whose failure is fatal (rule 3)."""
    if own_revision is None:
        return Policy(None)
    for revision in wanted_revisions(env):
        if revision.revision_id == own_revision:
            return Policy(revision.deployment_id)
    return Policy(
        None,
        f"GREENTIC_REVISION_ID=`{own_revision}` names no routed revision in environment `{env.environment_id}`; "
        "every revision pull failure will abort the boot",
    )
