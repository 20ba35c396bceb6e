"""`/status/proof`: what a worker serves and how it came to, signed (threats: lying-worker).

Rules:
1. Who may read `/status` may read this: it says the same, with a signature. A nonce is bounded and of few characters.
2. The chain of an activation is made once and kept with it; a question costs a signature. Trees are read when they are first asked for, so
   that no boot waits for it.
3. One proof at a time, beside the loop: many questions wait for each other and hold up no request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from greentic import __version__
from greentic.activate.activation import Activation
from greentic.activate.lease import Serving
from greentic.activate.turn import ActiveRevision
from greentic.ground.beside import beside
from greentic.ground.clock import Clock, timestamp
from greentic.materialize.serving_plan import Scope
from greentic.materialize.tree import tree_digest
from greentic.net.addresses import shown
from greentic.store.layout import EnvPaths
from greentic.trust.keys import SigningKey, public_pem
from greentic.trust.proof import (
    SCHEMA,
    Bundle,
    Compiled,
    Component,
    Pack,
    Packs,
    Proof,
    ProvenRevision,
    ProvenScope,
    ProvenWorker,
    Routed,
    Served,
    Signatures,
    Source,
    Step,
    Tree,
    is_nonce,
    signed_proof,
    signers,
    told_routes,
)


class BadNonce(ValueError):
    """A nonce that is not taken; the text says why."""


def nonce_of(query: bytes) -> str:
    """The nonce of a query; empty if there is none. Raises `BadNonce` (rule 1)."""
    found = [part[6:] for part in query.split(b"&") if part.startswith(b"nonce=")]
    text = found[0].decode("latin-1") if found else ""
    if len(found) > 1 or not is_nonce(text):
        raise BadNonce("nonce: expected at most 128 letters, digits, dots, dashes, tildes and underscores, once")
    return text


class Prover:
    """Answers what is asked with proofs of one worker."""

    def __init__(self, serving: Serving, key: SigningKey, paths: EnvPaths, clock: Clock, scope: Scope) -> None:
        self._serving, self._key, self._paths, self._clock = serving, key, paths, clock
        self._scope = ProvenScope(scope.own_revision, scope.alone)
        self._one = asyncio.Lock()
        self._worker: ProvenWorker | None = None
        self._of: Activation | None = None
        """The activation whose revisions are kept."""
        self._revisions: list[ProvenRevision] = []
        self._trees: dict[str, str | None] = {}
        """By content of a loaded revision."""

    async def answer(self, nonce: str) -> bytes:
        """A signed proof of what is served now."""
        async with self._one:
            return await beside(self._signed, nonce)

    def _signed(self, nonce: str) -> bytes:
        activation, since = self._serving.activation, self._serving.since
        if self._worker is None:
            public = self._key.public
            self._worker = ProvenWorker(
                os.uname().nodename, self._key.key_id, self._serving.process, __version__,
                timestamp(self._serving.started), public_pem(public), self._scope,
            )  # fmt: skip
        if activation is not self._of:
            self._revisions = self._chains(activation, since)
            self._of = activation
        proof = Proof(
            SCHEMA, activation.env.environment_id, activation.generation, nonce, timestamp(self._clock.now_ns()),
            self._worker, self._revisions,
        )  # fmt: skip
        return signed_proof(proof, self._key)

    def _chains(self, activation: Activation, since: Mapping[str, int]) -> list[ProvenRevision]:
        self._trees = {
            r.content: self._trees[r.content] if r.content in self._trees else self._tree(r)
            for r in activation.revisions.values()
        }
        records = {r.revision_id: r for r in activation.env.revisions}
        deployments = {d.deployment_id: d for d in activation.env.bundles}
        trusted, found = activation.trusted, []
        for revision in activation.revisions.values():
            record, deployment = records.get(revision.revision_id), deployments.get(revision.deployment_id)
            known = signers(record, trusted) if record is not None and trusted is not None else []
            policy = trusted.delivery.signatures.mode if trusted is not None else "off"
            began = since.get(revision.revision_id, self._serving.started)
            chain: list[Step] = [
                Source(None if revision.source is None else shown(revision.source)),
                Bundle(revision.digest),
                Signatures(policy, known),
                Tree(self._trees[revision.content]),
                _packs(revision),
                _compiled(revision),
                Routed(
                    [] if deployment is None else told_routes(deployment),
                    activation.dispatchers[revision.deployment_id].weights[revision.revision_id],
                ),
                Served(timestamp(began), activation.generation),
            ]
            found.append(ProvenRevision(revision.deployment_id, revision.revision_id, revision.bundle_id, chain))
        return found

    def _tree(self, revision: ActiveRevision) -> str | None:
        root = self._paths.revision(revision.revision_id).resolve() / "bundle"
        inside = [p.place for p in revision.packs if p.place.path.is_relative_to(root)]
        return tree_digest(root, {p.path.relative_to(root).as_posix(): p.digest for p in inside})


def _packs(revision: ActiveRevision) -> Packs:
    return Packs(
        [
            Pack(p.pack_id, p.digest, [Component(c.id, f"sha256:{c.sha256}") for c in p.components])
            for p in revision.packs
        ]
    )


def _compiled(revision: ActiveRevision) -> Compiled:
    if not any(pack.components for pack in revision.packs):
        return Compiled(None, None)
    from greentic.wasm.native import SUPPORTED  # loaded already, where there are components

    return Compiled("wasmtime", SUPPORTED)
