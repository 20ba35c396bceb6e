"""What a worker serves, and how it comes by it: one value, made once, that everything after it only carries out. Pure.

Rules:
1. Wanted are the revisions that some split of an active deployment names, in the order of the document. For each: refused by trust;
   else kept, if it is whole on the disk; else pulled, if it has a source; else absent.
2. A worker that is for one revision serves that even while nothing is routed to it, with all the traffic of its deployment, so
   that being ready means that it loads. In its own scope it serves nothing else.
3. A deployment is served whole or not at all: one revision of its split that cannot be had makes it unavailable, and only it.
4. Whose failure ends a boot: that of any deployment where all are required; that of its own deployment in a worker that is for a
   routed revision (formats: worker 3); and any, if otherwise nothing at all would be served. What is merely absent never does: no
   other boot would find it either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from greentic.ground.errors import BootError, DigestMismatch, GreenticError
from greentic.model.environment import Environment, Revision
from greentic.model.pod_view import for_worker, with_own_revision
from greentic.model.traffic import wanted_revisions
from greentic.pack.located import LocatedPack

Reason = Literal["refused", "absent", "unreachable", "broken"]
"""Trust says no; not on the disk and without a source; not to be had from its source; had, and does not load."""


class Scope(msgspec.Struct, frozen=True):
    """What a worker is asked to serve."""

    own_revision: str | None = None
    alone: bool = False
    """Whether it serves its own revision and nothing else."""
    require_all: bool = False
    """Whether the failure of any deployment ends the boot."""


class Fault(msgspec.Struct, frozen=True):
    """Why a deployment is not served."""

    reason: Reason
    revision_id: str
    error: GreenticError

    @property
    def passing(self) -> bool:
        """Whether trying again, without a change of the environment, can help."""
        return self.reason in ("unreachable", "broken")

    @property
    def why(self) -> str:
        """The reason; `digest` for bytes that are not the pinned ones."""
        return "digest" if isinstance(self.error.__cause__, DigestMismatch) else self.reason

    @property
    def text(self) -> str:
        """The innermost cause, as people read it."""
        cause = self.error.__cause__
        return str(cause) if isinstance(cause, GreenticError) else self.error.message


class ServingPlan(msgspec.Struct, frozen=True):
    """What to do for one environment document."""

    env: Environment
    """As this worker sees it (rule 2)."""
    keep: Mapping[str, tuple[LocatedPack, ...]]
    """By revision: on the disk, whole and with its pinned digests."""
    pull: tuple[Revision, ...]
    unavailable: Mapping[str, Fault]
    """By deployment: what is not served, and why."""
    scope: Scope
    own_deployment: str | None = None
    """The deployment whose failure ends the boot of a worker that is for one revision."""
    warning: str | None = None

    def is_fatal(self, deployment_id: str) -> bool:
        """Whether the failure of a deployment ends a boot even while others are served (rule 4)."""
        if self.own_deployment is not None:
            return deployment_id == self.own_deployment
        return self.scope.require_all or self.scope.own_revision is not None


def ends_boot(plan: ServingPlan, faults: Mapping[str, Fault], served: int) -> Fault | None:
    """The fault that ends a boot, if one does (rule 4). `served` is how many deployments are served."""
    real = {deployment: fault for deployment, fault in faults.items() if fault.reason != "absent"}
    for deployment, fault in real.items():
        if plan.is_fatal(deployment):
            return fault
    return next(iter(real.values()), None) if not served else None


def serving_plan(
    env: Environment,
    scope: Scope,
    refused: Mapping[str, GreenticError],
    disk: Mapping[str, tuple[LocatedPack, ...] | GreenticError],
) -> ServingPlan:
    """The plan for a document. `refused` and `disk` say by revision whom trust refuses and what the disk holds.

    Raises `BootError` if a worker's own revision is not in the environment and nothing else is to be served.
    """
    seen = as_seen(env, scope)
    keep: dict[str, tuple[LocatedPack, ...]] = {}
    pull: list[Revision] = []
    unavailable: dict[str, Fault] = {}
    for revision in wanted_revisions(seen):
        found = disk.get(revision.revision_id)
        if revision.revision_id in refused:
            fault = Fault("refused", revision.revision_id, refused[revision.revision_id])
            unavailable.setdefault(revision.deployment_id, fault)
        elif isinstance(found, tuple):
            keep[revision.revision_id] = found
        elif revision.bundle_source_uri is not None:
            pull.append(revision)
        else:
            error = found if isinstance(found, GreenticError) else absent(revision)
            unavailable.setdefault(revision.deployment_id, Fault("absent", revision.revision_id, error))
    own, warning = _own_deployment(seen, scope)
    # What belongs to an unavailable deployment is not worth fetching: it is served whole or not at all.
    wanted = tuple(r for r in pull if r.deployment_id not in unavailable)
    return ServingPlan(seen, keep, wanted, unavailable, scope, own, warning)


def as_seen(env: Environment, scope: Scope) -> Environment:
    """The environment as a worker serves it (rule 2). Raises `BootError` if its own revision is not there."""
    if scope.own_revision is None:
        return env
    if not scope.alone:
        return with_own_revision(env, scope.own_revision)
    seen = for_worker(env, scope.own_revision)
    if seen is None:
        raise BootError(
            f"GREENTIC_REVISION_ID=`{scope.own_revision}` is not in environment `{env.environment_id}`, "
            "and nothing else is to be served",
            hint="reconcile again: the revision was taken out of the environment",
        )
    return seen


def absent(revision: Revision) -> GreenticError:
    """The error of a revision that is neither on the disk nor to be had."""
    return BootError(
        f"revision `{revision.revision_id}` has no bundle_source_uri and is not on this disk",
        hint="stage it with a source: gtc op revisions stage --source-uri",
    )


def _own_deployment(env: Environment, scope: Scope) -> tuple[str | None, str | None]:
    """The deployment of the own revision if that is routed, and what is to be warned about if not."""
    if scope.own_revision is None:
        return None, None
    for revision in wanted_revisions(env):
        if revision.revision_id == scope.own_revision:
            return revision.deployment_id, None
    return None, (
        f"GREENTIC_REVISION_ID=`{scope.own_revision}` names no routed revision in environment `{env.environment_id}`; "
        "every revision pull failure will abort the boot"
    )
