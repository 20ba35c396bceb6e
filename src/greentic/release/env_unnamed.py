"""`op env apply --prune`: what an environment has beyond its manifest, and taking it away (formats: op 5).

Rules:
1. Only deployments are pruned: bindings, extensions and trusted keys that a manifest does not name stay.
2. Nothing goes that nobody has seen: a plan is confirmed by its digest, which covers each deployment with its revisions and weights. If
   anything of that changed meanwhile the digest is another, and nothing is done.
3. The manifest is applied first, so that what takes over is there before anything goes.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from greentic.ground.documents import Json, compact
from greentic.ground.errors import Conflict
from greentic.model.environment import BundleDeployment, Environment
from greentic.operate.change import Context
from greentic.release.retire import BundleRetirePayload, retire

CONFIRM_DIGITS = 12


class Surplus(NamedTuple):
    """Deployments that no wish of the manifest is for."""

    deployments: tuple[BundleDeployment, ...]
    digest: str
    """What confirms exactly this plan (rule 2); empty if nothing is to go."""

    def told(self, env: Environment) -> list[tuple[str, str]]:
        """Of each its name, and what goes with it."""
        return [(f"{d.bundle_id}/{d.customer_id}", _detail(env, d)) for d in self.deployments]


NOTHING = Surplus((), "")


def surplus(env: Environment | None, wanted: frozenset[tuple[str, str]]) -> Surplus:
    """What is beyond the wanted pairs of bundle and customer. Pure."""
    if env is None:
        return NOTHING
    found = tuple(d for d in env.bundles if (d.bundle_id, d.customer_id) not in wanted)
    if not found:
        return NOTHING
    rows: list[Json] = []
    for deployment in sorted(found, key=lambda d: d.deployment_id):
        split = env.split(deployment.deployment_id)
        weights: list[Json] = [[e.revision_id, e.weight_bps] for e in split.entries] if split is not None else []
        own: list[Json] = [
            [r.revision_id, r.lifecycle] for r in env.revisions if r.deployment_id == deployment.deployment_id
        ]
        rows.append([deployment.deployment_id, deployment.status, weights, own])
    return Surplus(found, hashlib.sha256(compact([env.environment_id, rows])).hexdigest()[:CONFIRM_DIGITS])


def check_confirmed(env: Environment, found: Surplus, confirm: str | None) -> None:
    """Raise `Conflict` unless exactly this plan was confirmed."""
    if not found.deployments or confirm == found.digest:
        return
    listed = "; ".join(f"{name}: {detail}" for name, detail in found.told(env))
    why = "nobody has confirmed that" if confirm is None else f"what `{confirm[:40]}` confirmed is another plan"
    raise Conflict(
        f"{len(found.deployments)} deployment(s) of env `{env.environment_id}` are in no bundle of the manifest and would be retired, "
        f"and {why}; nothing was changed ({listed})",
        hint=f"if that is meant: the same command with --confirm {found.digest}",
    )


def prune(context: Context, env_id: str, found: Surplus) -> None:
    """Retire what is surplus; what a cluster runs of it goes with the next reconcile."""
    for deployment in found.deployments:
        payload = BundleRetirePayload(environment_id=env_id, bundle=deployment.deployment_id, store_only=True)
        retire(context, payload)


def _detail(env: Environment, deployment: BundleDeployment) -> str:
    own = sum(r.deployment_id == deployment.deployment_id and r.lifecycle != "archived" for r in env.revisions)
    split = env.split(deployment.deployment_id)
    routed = "with traffic" if split is not None and any(e.weight_bps for e in split.entries) else "without traffic"
    prefixes = ", ".join([*deployment.route_binding.hosts, *deployment.route_binding.path_prefixes]) or "no route"
    return f"retire {deployment.deployment_id} ({routed}, {own} revision(s), {prefixes})"
