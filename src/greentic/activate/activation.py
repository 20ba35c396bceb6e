"""What a worker serves at one moment: routes, dispatchers and loaded revisions, made once and swapped whole (formats: worker 13).

Rules:
1. An activation is never changed, only replaced. Who answers a request holds on to the one that it started with.
2. It is made from parts that are shared by content: a revision whose packs and configuration are the same is not loaded again, and a
   change of weights loads nothing.
3. A deployment takes part whole: if one revision of its split does not load, the deployment is unavailable, and only it.
4. Of a document that differs in some deployments, those alone are made anew and put into what serves (`joined`); it is the activation that
   the whole document would have given.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from greentic.activate.dispatch import Choice, Dispatcher
from greentic.activate.turn import ActiveRevision, flow_index
from greentic.components.runtime import ComponentRuntime, RevisionComponents
from greentic.ground.documents import JsonObject
from greentic.ground.errors import BootError, GreenticError
from greentic.materialize.placed import config_refs, read_pack_config
from greentic.materialize.serving_plan import Fault
from greentic.model.environment import BundleDeployment, Environment, Revision
from greentic.model.ramp_record import control_slice
from greentic.model.routes import Routes, route_table
from greentic.model.traffic import wanted_revisions
from greentic.pack.load import load_packs
from greentic.pack.located import LocatedPack
from greentic.pack.signature import PackSignaturePolicy
from greentic.store.layout import EnvPaths
from greentic.trust.policy import Trusted

Packs = Mapping[str, tuple[LocatedPack, ...]]
"""By revision, where its packs are, their digests verified."""


class Loader(NamedTuple):
    """What loading a revision needs beside its packs."""

    paths: EnvPaths
    runtime: ComponentRuntime
    policy: PackSignaturePolicy


class Activation(NamedTuple):
    """Everything that answering needs (rule 1)."""

    env: Environment
    routes: Routes
    dispatchers: dict[str, Dispatcher]
    revisions: dict[str, ActiveRevision]
    unavailable: Mapping[str, Fault]
    """Deployments that are not served, and why."""
    endpoints: dict[str, frozenset[str]]
    """The bundles that each messaging endpoint is linked to."""
    protections: JsonObject = {}
    """What guarded the way here, for `/status`."""
    trusted: Trusted | None = None
    """What was believed when it was made."""
    generation: int = 0
    """Of the document that it was made from."""


class Loaded(msgspec.Struct, frozen=True):
    """What of an environment could be loaded."""

    revisions: dict[str, ActiveRevision]
    failed: dict[str, Fault]
    """By deployment."""


def load_revisions(
    env: Environment, wanted: Iterable[Revision], packs: Packs, loader: Loader, parts: Mapping[str, ActiveRevision]
) -> Loaded:
    """Load what is wanted, taking what is among `parts` (by content) from there (rules 2 and 3)."""
    deployments = {d.deployment_id: d for d in env.bundles}
    revisions: dict[str, ActiveRevision] = {}
    failed: dict[str, Fault] = {}
    for revision in wanted:
        if revision.deployment_id in failed:
            continue
        try:
            revisions[revision.revision_id] = load_revision(
                deployments[revision.deployment_id], revision, packs[revision.revision_id], loader, parts
            )
        except GreenticError as error:
            wrapped = BootError(f"loading revision `{revision.revision_id}`")
            wrapped.__cause__ = error
            failed[revision.deployment_id] = Fault("broken", revision.revision_id, wrapped)
    return Loaded({i: r for i, r in revisions.items() if r.deployment_id not in failed}, failed)


def load_revision(
    deployment: BundleDeployment,
    revision: Revision,
    packs: tuple[LocatedPack, ...],
    loader: Loader,
    parts: Mapping[str, ActiveRevision],
) -> ActiveRevision:
    """One revision, loaded, or the same one as before. Raises the typed error of what does not load."""
    config = published_config(loader.paths, deployment, revision)
    content = content_of(revision, packs, config)
    known = parts.get(content)
    if known is not None:
        return known
    loaded = tuple(load_packs(list(packs), loader.policy))
    components = RevisionComponents(loaded, loader.runtime, config, revision.deployment_id)
    return ActiveRevision(
        revision_id=revision.revision_id,
        deployment_id=revision.deployment_id,
        bundle_id=revision.bundle_id,
        digest=revision.bundle_digest,
        source=revision.bundle_source_uri,
        packs=components.told(loaded),
        flows=flow_index(loaded),
        components=components,
        content=content,
    )


def content_of(revision: Revision, packs: tuple[LocatedPack, ...], config: dict[str, dict[str, object]]) -> str:
    """What makes two loaded revisions interchangeable (rule 2), as a key."""
    pinned = [(p.pack_id, p.digest, str(p.path)) for p in packs]
    named = (
        revision.revision_id,
        revision.deployment_id,
        revision.bundle_id,
        revision.bundle_digest,
        revision.bundle_source_uri,
    )
    return msgspec.json.encode([named, pinned, config], order="deterministic").decode()


def activate(
    env: Environment, loaded: Loaded, unavailable: Mapping[str, Fault], key: bytes, before: Activation | None = None
) -> Activation:
    """The activation of what was loaded, without routes, which `joined` gives. `key` signs cookies of the old form.

    A deployment that is unavailable now and was served `before` goes on as it was; its fault is told all the same. One whose weights
    are the same keeps its dispatcher.
    """
    served = before.dispatchers if before is not None else {}
    splits = {s.deployment_id: s for s in env.traffic_splits}
    choices: dict[str, list[Choice]] = {}
    for revision in wanted_revisions(env):
        if revision.revision_id not in loaded.revisions:
            continue
        entries = splits[revision.deployment_id].entries
        weight = next(e.weight_bps for e in entries if e.revision_id == revision.revision_id)
        choice = Choice(revision.revision_id, weight, revision.lifecycle == "draining")
        choices.setdefault(revision.deployment_id, []).append(choice)
    dispatchers: dict[str, Dispatcher] = {}
    for deployment_id, found in choices.items():
        generation, control = splits[deployment_id].generation, control_slice(env, deployment_id)
        old = served.get(deployment_id)
        if old is None or not old.equals(env.environment_id, found, generation, control, key):
            old = Dispatcher(env.environment_id, deployment_id, found, generation=generation, key=key, control=control)
        dispatchers[deployment_id] = old
    faults = {**unavailable, **loaded.failed}
    revisions = dict(loaded.revisions)
    bound = {d.deployment_id for d in env.bundles if d.status == "active"}
    for deployment_id in faults.keys() & bound if before is not None else ():
        kept = served.get(deployment_id)
        if before is not None and kept is not None:
            dispatchers[deployment_id] = kept
            revisions |= {i: before.revisions[i] for i in kept.weights}
    endpoints = {e.endpoint_id: frozenset(e.linked_bundles) for e in env.messaging_endpoints}
    return Activation(env, Routes(()), dispatchers, revisions, faults, endpoints)


def joined(whole: Environment, touched: Collection[str], part: Activation, before: Activation | None) -> Activation:
    """The activation of the `whole` document: `part` of what was `touched`, the rest as it was `before` (rule 4)."""
    if before is None:
        return part._replace(env=whole, routes=Routes(route_table(whole)))
    same = len(whole.bundles) == len(before.env.bundles) and all(map(operator.is_, whole.bundles, before.env.bundles))
    return part._replace(
        env=whole,
        routes=before.routes if same else Routes(route_table(whole)),
        dispatchers={i: d for i, d in before.dispatchers.items() if i not in touched} | part.dispatchers,
        revisions={i: r for i, r in before.revisions.items() if r.deployment_id not in touched} | part.revisions,
        unavailable={i: f for i, f in before.unavailable.items() if i not in touched} | dict(part.unavailable),
    )


def published_config(paths: EnvPaths, deployment: BundleDeployment, revision: Revision) -> dict[str, dict[str, object]]:
    """What components read as configuration, by pack: that of the revision, with the overrides of its deployment on top."""
    found: dict[str, dict[str, object]] = {}
    for ref in config_refs(paths, revision):
        config = read_pack_config(paths, ref, revision.revision_id)
        found[config.pack_id] = dict(config.non_secret)
    for pack_id, overrides in (deployment.config_overrides or {}).items():
        found[pack_id] = found.get(pack_id, {}) | overrides
    return found
