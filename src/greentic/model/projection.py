"""What a worker reads: the runtime configuration, a projection of the environment (formats: environment 11).

Rules:
1. One block per split entry, splits and entries in stored order; zero weights are kept, the lifecycle is not consulted.
2. Deployments that are not active are left out: a worker would refuse the whole environment for them.
3. No split at all projects to nothing, and the file is deleted; splits that are all left out project to an empty list.
4. `Projected` makes the same bytes as `pretty` of the whole, from the texts of splits: that of a split is made again only where the split
   or a revision that it names is another record than before.
"""

from __future__ import annotations

import operator

import msgspec
from msgspec.structs import force_setattr

from greentic.ground.documents import Document, pretty
from greentic.model.environment import Environment, Revision, TrafficSplit
from greentic.model.ids import U32, U64, Timestamp, Ulid

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
    if not _routes_anything(env, skipped):
        return None
    revisions = _by_deployment(env)
    blocks = [
        _block(split, entry.revision_id, entry.weight_bps, revisions.get((entry.revision_id, split.deployment_id)))
        for split in _projected(env, skipped)
        for entry in split.entries
    ]
    return RuntimeConfig(schema=RUNTIME_CONFIG_SCHEMA, env_id=env.environment_id, revisions=blocks)


def _routes_anything(env: Environment, skipped: frozenset[str]) -> bool:
    return any(s.entries and s.deployment_id not in skipped for s in env.traffic_splits)


def _projected(env: Environment, skipped: frozenset[str]) -> list[TrafficSplit]:
    """The splits that have blocks (rule 2)."""
    active = {d.deployment_id for d in env.bundles if d.status == "active"} - skipped
    return [s for s in env.traffic_splits if s.deployment_id in active]


def _by_deployment(env: Environment) -> dict[tuple[str, str], Revision]:
    return {(r.revision_id, r.deployment_id): r for r in env.revisions}


class _Made(msgspec.Struct, frozen=True):
    """The text of a split's blocks, and of which records it was made."""

    split: TrafficSplit
    revisions: tuple[Revision | None, ...]
    text: bytes


class Projected:
    """The bytes of one environment's runtime configuration, document after document (rule 4)."""

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}
        self.text: bytes | None = None
        """What was made last."""
        self.made = 0
        """For how many splits a text was made."""

    def of(self, env: Environment, skipped: frozenset[str] = frozenset()) -> bytes | None:
        """`pretty` of what `project` makes; `None` when nothing is routed."""
        revisions, made, texts = _by_deployment(env), dict[str, _Made](), list[bytes]()
        for split in _projected(env, skipped):
            named = tuple(revisions.get((entry.revision_id, split.deployment_id)) for entry in split.entries)
            known = self._made.get(split.deployment_id)
            if known is None or known.split is not split or not _same(known.revisions, named):
                self.made += 1
                known = _Made(split, named, _text(split, named))
            made[split.deployment_id] = known
            if known.text:
                texts.append(known.text)
        self._made = made
        if not _routes_anything(env, skipped):
            self.text = None
            return None
        head = pretty(RuntimeConfig(schema=RUNTIME_CONFIG_SCHEMA, env_id=env.environment_id, revisions=[]))
        self.text = head
        if texts:
            self.text = head.removesuffix(b"[]\n}\n") + b"[\n    " + b",\n    ".join(texts) + b"\n  ]\n}\n"
        return self.text


def _same(before: tuple[Revision | None, ...], now: tuple[Revision | None, ...]) -> bool:
    return len(before) == len(now) and all(map(operator.is_, before, now))


def _text(split: TrafficSplit, named: tuple[Revision | None, ...]) -> bytes:
    """The blocks of one split as they stand in the whole, without what stands around them."""
    blocks = [_block(split, e.revision_id, e.weight_bps, r) for e, r in zip(split.entries, named, strict=True)]
    whole = pretty(RuntimeConfig(schema="", env_id="", revisions=blocks))
    return whole.partition(b"[\n    ")[2].removesuffix(b"\n  ]\n}\n")


def _block(split: TrafficSplit, revision_id: str, weight: int, revision: Revision | None) -> RuntimeBlock:
    return RuntimeBlock(
        deployment_id=split.deployment_id,
        revision_id=revision_id,
        bundle_id=split.bundle_id,
        pack_list_refs=[revision.pack_list_lock_ref] if revision and revision.pack_list_lock_ref else [],
        pack_config_refs=list(revision.pack_config_refs) if revision else [],
        weight_bps=weight,
    )
