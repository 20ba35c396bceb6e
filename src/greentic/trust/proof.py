"""What a worker proves about itself, signed by its own key (threats: lying-worker). Pure.

It says which bytes serve, who vouched for them, and since when.

Rules:
1. A proof is a DSSE envelope of a payload type of its own, so that it is no statement and no statement is a proof.
2. It carries the nonce of who asked: an answer to another question proves nothing. No clock is compared.
3. It names its key and carries the public half. That is worth what the asker knows of the key: ids that were pinned, or nothing yet.
4. No address in it holds a credential: whoever made it wrote what `net.addresses.shown` gives.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from greentic.ground.documents import check_each_once, decode
from greentic.ground.errors import SpecViolation
from greentic.model.delivery import signatures_of, signed_content
from greentic.model.environment import BundleDeployment, Revision
from greentic.trust.dsse import SignatureError, check_signed, claimed_payload, envelope_bytes, read_envelope, sign
from greentic.trust.keys import KeyFormatError, SigningKey, key_id, read_public_pem
from greentic.trust.policy import Trusted
from greentic.trust.statements import BUNDLE, REVISION, canonical_sha256, vouched

SCHEMA = "greentic.proof.v1"
PAYLOAD_TYPE = "application/vnd.greentic.proof.v1+json"
MAX_PROOF = 64 << 20
"""Most bytes of a proof that is read."""
MAX_NONCE = 128
_NONCE_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")


class Signer(msgspec.Struct, frozen=True):
    """A key whose signature holds."""

    key_id: str
    valid_until: str | None
    """None: nothing but a revocation ends it."""
    revoked: bool
    of: str
    """`bundle` for its publisher, `revision` for the operator who staged it."""


class Component(msgspec.Struct, frozen=True):
    id: str
    digest: str


class Pack(msgspec.Struct, frozen=True):
    pack_id: str
    digest: str
    components: list[Component] = []


class _Step(msgspec.Struct, frozen=True, tag_field="step"):
    """One link from the source to what serves."""


class Source(_Step, frozen=True, tag="source"):
    uri: str | None


class Bundle(_Step, frozen=True, tag="bundle"):
    digest: str


class Signatures(_Step, frozen=True, tag="signatures"):
    policy: str
    signatures: list[Signer] = []


class Tree(_Step, frozen=True, tag="tree"):
    digest: str | None
    """None where the unpacked tree is no longer on the disk."""


class Packs(_Step, frozen=True, tag="packs"):
    packs: list[Pack] = []


class Compiled(_Step, frozen=True, tag="compiled"):
    """None where there is nothing to compile."""

    library: str | None
    version: str | None


class Routed(_Step, frozen=True, tag="routes"):
    routes: list[str]
    weight_bps: int


class Served(_Step, frozen=True, tag="serving"):
    since: str
    generation: int


Step = Source | Bundle | Signatures | Tree | Packs | Compiled | Routed | Served


class ProvenRevision(msgspec.Struct, frozen=True):
    """One revision that serves, and how it came to."""

    deployment_id: str
    revision_id: str
    bundle_id: str
    chain: list[Step]


class ProvenScope(msgspec.Struct, frozen=True):
    """What the worker is asked to serve of its environment: everything, or one revision."""

    own_revision: str | None = None
    alone: bool = False


class ProvenWorker(msgspec.Struct, frozen=True):
    id: str
    key_id: str
    process: str
    version: str
    started_at: str
    public_key_pem: str = ""
    scope: ProvenScope = ProvenScope()


class Proof(msgspec.Struct, frozen=True):
    """All that a worker serves at one moment."""

    schema: str
    environment_id: str
    generation: int
    nonce: str
    issued_at: str
    worker: ProvenWorker
    revisions: list[ProvenRevision]


class ProofError(ValueError):
    """A proof that proves nothing; the text says why."""


class BelievedProof(NamedTuple):
    """A proof whose signature and nonce hold."""

    proof: Proof
    pinned: bool
    """Whether its key is one that the asker knew before."""


def is_nonce(text: str) -> bool:
    """Whether a worker takes this as a nonce; an empty one asks for a proof that anybody may replay."""
    return len(text) <= MAX_NONCE and _NONCE_CHARACTERS.issuperset(text)


def signed_proof(proof: Proof, key: SigningKey) -> bytes:
    """The proof as it is answered."""
    return envelope_bytes(sign(msgspec.json.encode(proof), key, PAYLOAD_TYPE))


def read_proof(data: bytes, nonce: str, pinned: Collection[str]) -> BelievedProof:
    """The proof that a worker answered to this nonce. `pinned` are the ids of keys, one of which must have signed; none: any key.

    Raises `ProofError`.
    """
    try:
        envelope = read_envelope(data, MAX_PROOF)
        payload = claimed_payload(envelope, PAYLOAD_TYPE)
        proof = decode(payload, Proof, limit=MAX_PROOF)
        check_each_once(payload, msgspec.json.encode(proof))
    except (SignatureError, ValueError) as error:
        raise ProofError(f"it is no proof: {error}") from None
    if proof.schema != SCHEMA:
        raise ProofError(f"its schema is `{proof.schema[:100]}`, expected `{SCHEMA}`")
    try:
        public = read_public_pem(proof.worker.public_key_pem)
    except KeyFormatError as error:
        raise ProofError(f"it carries no public key: {error}") from None
    own = key_id(public)
    if proof.worker.key_id != own:
        raise ProofError(f"it names the key `{proof.worker.key_id[:64]}` and carries the key `{own}`")
    if pinned and own not in {pin.lower() for pin in pinned}:
        raise ProofError(f"it is signed by the key `{own}`, expected {' or '.join(f'`{pin}`' for pin in pinned)}")
    try:
        check_signed(envelope, {own: public}, payload)
    except SignatureError as error:
        raise ProofError(f"its signature does not hold: {error}") from None
    if proof.nonce != nonce:
        raise ProofError("it answers another question: its nonce is not the one that was sent, so it may be replayed")
    return BelievedProof(proof, bool(pinned))


def signers(revision: Revision, trusted: Trusted) -> list[Signer]:
    """The known keys whose signatures of a revision hold, and whether each is revoked by now."""
    try:
        found = signatures_of(revision)
    except SpecViolation:
        return []
    of_bundle = vouched(BUNDLE, list(found.bundle), revision.bundle_digest.removeprefix("sha256:"), trusted.keys)
    own = [] if found.revision is None else [found.revision]
    of_revision = vouched(REVISION, own, canonical_sha256(signed_content(revision)), trusted.keys)
    gone = trusted.revoked_keys
    return [Signer(i, None, i in gone, "bundle") for i in of_bundle.keys] + [
        Signer(i, None, i in gone, "revision") for i in of_revision.keys
    ]


def told_routes(deployment: BundleDeployment) -> list[str]:
    """The routes of a deployment, a text for each host, prefix and tenant."""
    binding = deployment.route_binding
    tenant = binding.tenant_selector
    return [
        *(f"host {host}" for host in binding.hosts),
        *(f"prefix {prefix}" for prefix in binding.path_prefixes),
        f"tenant {tenant.tenant}/{tenant.team}",
    ]
