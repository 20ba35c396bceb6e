"""What a worker reads: the runtime configuration, a projection of the environment (formats: environment 11).

Rules:
1. One block per split entry, splits and entries in stored order; zero weights are kept, the lifecycle is not consulted.
2. Deployments that are not active are left out: a worker would refuse the whole environment for them.
3. No split at all projects to nothing, and the file is deleted; splits that are all left out project to an empty list.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import force_setattr

from greentic.ground.documents import Document
from greentic.ground.errors import SpecViolation
from greentic.model.environment import Environment, Revision, TrafficSplit
from greentic.model.ids import U32, U64, Timestamp, Ulid, is_contained_ref
from greentic.model.validate import check_schema

RUNTIME_CONFIG_SCHEMA = "greentic.runtime-config.v1"
RUNTIME_SCHEMA = "greentic.environment-runtime.v1"


class RuntimeBlock(Document, frozen=True, kw_only=True):
    deployment_id: Ulid
    revision_id: Ulid
    bundle_id: str
    pack_list_refs: list[str] = msgspec.field(default_factory=list)
    pack_config_refs: list[str] = msgspec.field(default_factory=list)
    weight_bps: U32

    def __post_init__(self) -> None:
        force_setattr(self, "deployment_id", self.deployment_id.upper())
        force_setattr(self, "revision_id", self.revision_id.upper())


class RuntimeConfig(Document, frozen=True, kw_only=True):
    schema: str
    env_id: str
    revisions: list[RuntimeBlock]


class EnvironmentRuntime(Document, frozen=True, kw_only=True):
    """`runtime.json`: discovered facts."""

    schema: str
    environment_id: str
    discovered: dict[str, object] = msgspec.field(default_factory=dict)
    generated_at: Timestamp
    generated_by: str
    generation: U64


def project(env: Environment, *, skipped: frozenset[str] = frozenset()) -> RuntimeConfig | None:
    """The runtime configuration of `env` without the deployments in `skipped`; `None` when nothing is routed."""
    splits = [s for s in env.traffic_splits if s.deployment_id not in skipped]
    if not any(s.entries for s in splits):
        return None
    active = {d.deployment_id for d in env.bundles if d.status == "active"}
    revisions = {(r.revision_id, r.deployment_id): r for r in env.revisions}
    blocks = [
        _block(split, entry.revision_id, entry.weight_bps, revisions.get((entry.revision_id, split.deployment_id)))
        for split in splits
        if split.deployment_id in active
        for entry in split.entries
    ]
    return RuntimeConfig(schema=RUNTIME_CONFIG_SCHEMA, env_id=env.environment_id, revisions=blocks)


def _block(split: TrafficSplit, revision_id: str, weight: int, revision: Revision | None) -> RuntimeBlock:
    return RuntimeBlock(
        deployment_id=split.deployment_id,
        revision_id=revision_id,
        bundle_id=split.bundle_id,
        pack_list_refs=[revision.pack_list_lock_ref] if revision and revision.pack_list_lock_ref else [],
        pack_config_refs=list(revision.pack_config_refs) if revision else [],
        weight_bps=weight,
    )


def check_runtime_config(config: RuntimeConfig, env_id: str) -> None:
    """The loader's rules that need no disk (formats: environment 11). Raises `SpecViolation`."""
    check_schema(config.schema, RUNTIME_CONFIG_SCHEMA)
    if config.env_id != env_id:
        raise SpecViolation(f"runtime-config env_id mismatch: expected `{env_id}`, got `{config.env_id}`")
    for block in config.revisions:
        if block.weight_bps > 10_000:
            raise SpecViolation(f"runtime-config weight exceeds 10000: {block.weight_bps}")
        for ref in [*block.pack_list_refs, *block.pack_config_refs]:
            if not is_contained_ref(ref):
                raise SpecViolation(f"runtime-config: `{ref}` is not a valid pack ref")


def check_deployments(config: RuntimeConfig) -> None:
    """Per deployment: one bundle, no revision twice, weights that sum to 10000. Raises `SpecViolation`."""
    groups: dict[str, list[RuntimeBlock]] = {}
    for block in config.revisions:
        groups.setdefault(block.deployment_id, []).append(block)
    for deployment_id, blocks in groups.items():
        if len({b.bundle_id for b in blocks}) > 1:
            raise SpecViolation(f"runtime-config: deployment `{deployment_id}` carries more than one bundle id")
        if len({b.revision_id for b in blocks}) != len(blocks):
            raise SpecViolation(f"runtime-config: deployment `{deployment_id}` names a revision twice")
        total = sum(b.weight_bps for b in blocks)
        if total != 10_000:
            raise SpecViolation(f"runtime-config: weights of deployment `{deployment_id}` sum to {total}, not 10000")
