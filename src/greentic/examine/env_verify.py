"""`op env verify`: what each worker proves that it serves, against what the environment wants.

Rules:
1. Every question has a nonce of its own; an answer that is signed by another key, or to another question, is not believed.
2. What is not believed, not answered or differs is told for each worker, field by field; the exit code is that of the worst.
3. Trees are compared where this store has the revision unpacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec

from greentic.deployments.worker_status import asking, checked_addresses, fetched, proof_path
from greentic.ground.clock import Clock
from greentic.ground.errors import FetchError, GreenticError, InvalidArgument
from greentic.ground.reply import Reply
from greentic.materialize.tree import tree_digest
from greentic.materialize.trusted import document_keys, read_anchor
from greentic.model.delivery import delivery_of, generation_of
from greentic.model.environment import Environment
from greentic.model.ids import check_env_id
from greentic.model.traffic import wanted_revisions
from greentic.operate.change import Context
from greentic.operate.payload import Payload
from greentic.store.layout import EnvPaths
from greentic.trust.keys import KeyFormatError, is_key_id
from greentic.trust.proof import MAX_PROOF, BelievedProof, ProofError, Signatures, read_proof
from greentic.trust.proof_verdict import Known, judge

ASK_SECONDS = 30.0
"""A worker reads its trees when it is first asked."""
NONCE_BYTES = 24

State = Literal["serves", "behind", "differs", "unproven", "silent"]
_WORSE: tuple[State, ...] = ("serves", "behind", "differs", "unproven", "silent")
CODES = (("behind", 2), ("differs", 1), ("unproven", 1), ("silent", 1))
"""Exit codes by state: who is behind comes by itself, the others do not."""


class EnvVerifyPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    at: Annotated[list[str], msgspec.Meta(description="addresses of workers to ask")] = []
    proof_keys: Annotated[
        list[str], msgspec.Meta(description="who must have signed: ids of keys, or files with public keys")
    ] = []


class WorkerProof(Reply, frozen=True, kw_only=True):
    """What one worker proved."""

    at: str
    state: State
    behind: int
    """Generations that it has yet to follow."""
    reason: str | None
    """Why nothing is proven."""
    worker: str | None
    """The machine or pod that it says it runs on."""
    process: str | None
    version: str | None
    generation: int | None
    key_id: str | None
    pinned: bool
    """Whether its key is one that was named."""


class ProofDifference(Reply, frozen=True, kw_only=True):
    """One field in which a worker is not what is wanted."""

    at: str
    revision_id: str
    field: str
    expected: str
    found: str


class EnvVerified(Reply, frozen=True, kw_only=True):
    environment_id: str
    generation: int
    state: State
    """The worst of all workers."""
    workers: list[WorkerProof]
    differences: list[ProofDifference]
    warnings: list[str]


class Provers(Protocol):
    """Whoever can be asked for a proof."""

    def ask(self, address: str, nonce: str) -> bytes:
        """Raises `FetchError`."""
        ...


class HttpProvers:
    """Workers at http or https addresses."""

    def __init__(self, clock: Clock) -> None:
        self._terms = asking(clock, ASK_SECONDS)

    def ask(self, address: str, nonce: str) -> bytes:
        data = fetched(address, proof_path(nonce), MAX_PROOF, self._terms)
        if data is None:
            raise FetchError(f"there is no worker at `{address}` that proves what it serves")
        return data


def verify(context: Context, payload: EnvVerifyPayload, provers: Provers | None = None) -> EnvVerified:
    """Ask the workers, and compare. Raises for what the operator said wrong, never for what a worker does."""
    env_id = check_env_id(payload.environment_id)
    if not payload.at:
        raise InvalidArgument("env verify: missing `--at <URL>`", hint=f"gtc op env verify {env_id} --at http://WORKER")
    env = context.store.load(env_id)
    pins = pinned_keys(payload.proof_keys)
    known = _known(env, context.store.paths(env_id))
    asked = provers or HttpProvers(context.clock)
    workers: list[WorkerProof] = []
    differences: list[ProofDifference] = []
    warnings: dict[str, None] = {}
    for address in checked_addresses(payload.at):
        context.view.say(f"asking {address}")
        nonce = context.store.random.octets(NONCE_BYTES).hex()
        try:
            believed = read_proof(asked.ask(address, nonce), nonce, pins)
        except FetchError as error:
            workers.append(_unproven(address, "silent", error.message))
            continue
        except ProofError as error:
            workers.append(_unproven(address, "unproven", str(error)))
            continue
        found = judge(env, believed.proof, known)
        workers.append(_worker(address, believed, found.state, found.behind))
        differences += [
            ProofDifference(at=address, revision_id=d.revision_id, field=d.field, expected=d.expected, found=d.found)
            for d in found.differences
        ]
        warnings |= dict.fromkeys(_warnings(address, believed))
    worst = max((w.state for w in workers), key=_WORSE.index)
    return EnvVerified(
        environment_id=env_id, generation=generation_of(env), state=worst, workers=workers, differences=differences,
        warnings=list(warnings),
    )  # fmt: skip


def pinned_keys(told: list[str]) -> list[str]:
    """The ids of the keys that were named. Raises `InvalidArgument` or `TrustRootError`."""
    found: list[str] = []
    for text in told:
        path = Path(text)
        if is_key_id(text) and not path.exists():
            found.append(text.lower())
        elif path.exists():
            found += read_anchor(path)
        else:
            raise InvalidArgument(f"proof key: `{text[:100]}` is neither a file nor the id of a key (32 hex digits)")
    return found


def known_keys(env: Environment) -> dict[str, bytes]:
    """The public keys of a document by id. Raises `InvalidArgument`."""
    try:
        return document_keys(delivery_of(env))
    except (GreenticError, KeyFormatError) as error:
        raise InvalidArgument(f"the keys of environment `{env.environment_id}` do not parse: {error}") from None


def _known(env: Environment, paths: EnvPaths) -> Known:
    keys = known_keys(env)
    trees = {r.revision_id: tree_digest(paths.revision(r.revision_id) / "bundle", {}) for r in wanted_revisions(env)}
    return Known(keys, {revision_id: digest for revision_id, digest in trees.items() if digest is not None})


def _unproven(address: str, state: State, reason: str) -> WorkerProof:
    return WorkerProof(
        at=address, state=state, behind=0, reason=reason, worker=None, process=None, version=None, generation=None,
        key_id=None, pinned=False,
    )  # fmt: skip


def _worker(address: str, believed: BelievedProof, state: State, behind: int) -> WorkerProof:
    worker = believed.proof.worker
    return WorkerProof(
        at=address, state=state, behind=behind, reason=None, worker=worker.id, process=worker.process,
        version=worker.version, generation=believed.proof.generation, key_id=worker.key_id, pinned=believed.pinned,
    )  # fmt: skip


def _warnings(address: str, believed: BelievedProof) -> list[str]:
    worker, revisions = believed.proof.worker, believed.proof.revisions
    told = []
    if not believed.pinned:
        told.append(f"nobody vouches for the key of `{address}`; to pin it: --proof-key {worker.key_id}")
    if worker.scope.own_revision is not None and worker.scope.alone:
        told.append(f"`{address}` says that it is for revision `{worker.scope.own_revision}` alone")
    told += [
        f"revision `{r.revision_id}`: the key `{s.key_id}` that signed its {s.of} is revoked, says `{address}`"
        for r in revisions
        for step in r.chain
        if isinstance(step, Signatures)
        for s in step.signatures
        if s.revoked
    ]
    return told
