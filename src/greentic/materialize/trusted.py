"""What a worker believes before it pulls: seal, generation, signatures, revocations (threats: stripped-signature).

Rules:
1. A trust anchor is given beside the document, by an argument or a mounted file. With one, the document must carry a seal by one
   of its keys: who edits the document cannot edit the trust. Without one the document is believed as it is.
2. The policy of the (sealed) document says what signatures of bundles are worth. `require` without a good signature refuses.
   The operator's signature of a revision is checked wherever it stands, and must stand under `require`.
3. The generation never goes back, and neither does the revocation list's version, unless that is explicitly allowed.
4. A revoked bundle is refused. A list that is required and cannot be had, or has ended, refuses everything.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from greentic.ground.disk import replace_file
from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import BootError, FetchError, GreenticError, SpecViolation, TrustRootError, UntrustedBundle
from greentic.model.delivery import (
    Delivery,
    delivery_of,
    sealed_content,
    signatures_of,
    signed_content,
)
from greentic.model.environment import Environment, Revision
from greentic.net.addresses import shown
from greentic.net.document import read_small
from greentic.store.layout import EnvPaths
from greentic.telemetry.log import OperatorLog
from greentic.trust.bundle_signature import canonical_sha256, counted, judge
from greentic.trust.keys import KeyFormatError, key_id, read_public_pem
from greentic.trust.revocation import MAX_LIST, RevocationError, RevocationList, check_fresh, read_list
from greentic.trust.root import read_trust_root

ANCHOR, ALLOW_ROLLBACK = "GREENTIC_TRUST_ANCHOR", "GREENTIC_ALLOW_ROLLBACK"
SEEN = "worker-seen.json"
KEPT_LIST = "revocations.json"
MAX_ANCHOR = 1 << 20


class Seen(msgspec.Struct, frozen=True):
    """The newest that this worker saw."""

    generation: int = 0
    revocations: int = 0


class Trust(NamedTuple):
    """What may be served."""

    delivery: Delivery
    keys: dict[str, bytes]
    """Raw public keys by key id."""
    revoked: RevocationList | None
    anchored: bool
    warnings: tuple[str, ...]

    def check(self, revision: Revision, log: OperatorLog) -> None:
        """Raise `UntrustedBundle` for a revision that may not be served; tell what is only warned about."""
        if self.revoked is not None and (reason := self.revoked.reason_of(revision.bundle_digest)) is not None:
            raise UntrustedBundle(
                f"bundle `{revision.bundle_digest}` of revision `{revision.revision_id}` is revoked "
                f"(list version {self.revoked.version}): {reason}",
                hint="route traffic to another revision: gtc op traffic set",
            )
        policy = self.delivery.signatures
        if policy.mode == "off":
            return
        why = self._unsigned(revision)
        if why is None:
            return
        text = f"revision `{revision.revision_id}`: {why}"
        if policy.mode == "require":
            raise UntrustedBundle(
                f"signatures are required, and not accepted for {text}",
                hint="sign the bundle (gtc bundle sign) and stage it again",
            )
        log.warn("trust", text)

    def _unsigned(self, revision: Revision) -> str | None:
        policy, revoked = self.delivery.signatures, self.revoked.key_ids if self.revoked else frozenset[str]()
        try:
            found = signatures_of(revision)
        except SpecViolation as error:
            return f"its signatures do not parse: {error.message}"
        verdict = judge(found.bundle, self.keys, revision.bundle_digest.removeprefix("sha256:"), revoked)
        why = counted(verdict, policy.keys, policy.threshold)
        if why is not None:
            return f"bundle: {why}"
        own = judge(
            [] if found.revision is None else [found.revision],
            self.keys,
            canonical_sha256(signed_content(revision)),
            revoked,
        )
        why = counted(own, [], 1)
        return None if why is None else f"the operator's signature of the revision: {why}"


def establish(
    env: Environment, paths: EnvPaths, log: OperatorLog, anchor: Path | None, *, allow_rollback: bool
) -> Trust:
    """Check seal, generation and revocations, and remember the newest. Raises `BootError` with the cause."""
    try:
        delivery = delivery_of(env)
        anchors = {} if anchor is None else read_anchor(anchor)
        _check_seal(env, delivery, anchors)
        keys = {name.lower(): read_public_pem(pem) for name, pem in delivery.keys.items()}
        if any(key_id(key) != name for name, key in keys.items()):
            raise UntrustedBundle("the document carries a public key under another key's id")
        seen = _seen(paths)
        if delivery.generation < seen.generation and not allow_rollback:
            raise UntrustedBundle(
                f"the environment has generation {delivery.generation}, and this worker has seen {seen.generation}",
                hint=f"an older document was put in place; if that is meant, start with {ALLOW_ROLLBACK}=1",
            )
        trusted = anchors or keys
        revoked, warnings = _revocations(env, paths, trusted, 0 if allow_rollback else seen.revocations)
    except (GreenticError, KeyFormatError) as error:
        raise BootError(f"trust in environment `{env.environment_id}`") from (
            error if isinstance(error, GreenticError) else TrustRootError(str(error))
        )
    newest = Seen(delivery.generation, revoked.version if revoked else seen.revocations)
    if newest != seen:
        _remember(paths, newest, log)
    for warning in warnings:
        log.warn("trust", warning)
    return Trust(delivery, keys, revoked, bool(anchors), tuple(warnings))


def read_anchor(path: Path) -> dict[str, bytes]:
    """The keys of a trust anchor: a trust root document, or public keys as PEM. Raises `TrustRootError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ANCHOR)
    except OSError as error:
        raise TrustRootError(f"the trust anchor `{path}` cannot be read: {error.strerror}") from None
    if data.lstrip().startswith(b"{"):
        keys = dict(read_trust_root(data).public_keys())
    else:
        end = "-----END PUBLIC KEY-----"
        blocks = [block + end for block in data.decode(errors="replace").split(end)[:-1]]
        try:
            public = [read_public_pem(block) for block in blocks]
        except KeyFormatError as error:
            raise TrustRootError(f"the trust anchor `{path}` does not parse: {error}") from None
        keys = {key_id(key): key for key in public}
    if not keys:
        raise TrustRootError(f"the trust anchor `{path}` holds no key")
    return keys


def _check_seal(env: Environment, delivery: Delivery, anchors: dict[str, bytes]) -> None:
    if not anchors:
        return
    verdict = judge(
        [] if delivery.seal is None else [delivery.seal], anchors, canonical_sha256(sealed_content(env)), frozenset()
    )
    why = counted(verdict, [], 1)
    if why is not None:
        raise UntrustedBundle(
            f"`environment.json` is not sealed by a key of the trust anchor: {why}",
            hint="author it with gtc op (gtc op delivery set seals it), or give the worker the operator's anchor",
        )


def _revocations(
    env: Environment, paths: EnvPaths, trusted: dict[str, bytes], seen: int
) -> tuple[RevocationList | None, list[str]]:
    """The list of the environment: from where it is published, else the one that was kept (rule 4)."""
    reference = env.revocation.list_ref
    if not reference:
        if env.revocation.required:
            raise UntrustedBundle("a revocation list is required, and the environment does not say where it is")
        return None, []
    kept = paths.root / KEPT_LIST
    warnings: list[str] = []
    now = int(time.time())
    for where in (reference, f"file://{kept}"):
        try:
            data = read_small(where, MAX_LIST)
            if data is None:
                raise RevocationError("it is not there")
            revoked = read_list(data, trusted)
            check_fresh(revoked, now, seen)
        except (RevocationError, FetchError) as error:
            warnings.append(f"the revocation list `{shown(where)}` is not used: {getattr(error, 'message', error)}")
            continue
        if where == reference:
            replace_file(kept, data)
        return revoked, warnings
    if env.revocation.required:
        raise UntrustedBundle("a revocation list is required: " + "; ".join(warnings))
    return None, warnings


def _seen(paths: EnvPaths) -> Seen:
    try:
        return msgspec.json.decode((paths.root / SEEN).read_bytes(), type=Seen)
    except FileNotFoundError:
        return Seen()
    except (OSError, msgspec.MsgspecError) as error:
        raise UntrustedBundle(
            f"`{paths.root / SEEN}` cannot be read: {error}", hint="delete it, if the document is the right one"
        ) from None


def _remember(paths: EnvPaths, seen: Seen, log: OperatorLog) -> None:
    path = paths.root / SEEN
    try:
        replace_file(path, msgspec.json.encode(seen))
    except OSError as error:
        log.warn("trust", f"`{path}` cannot be written, an older document would not be noticed: {error.strerror}")


def protections(trust: Trust, sandbox: Sequence[str]) -> JsonObject:
    """What guarded a boot, for `/status`."""
    revoked: Json = None
    if trust.revoked is not None:
        revoked = {"version": trust.revoked.version, "expires_at": trust.revoked.expires_at}
    return {
        "anchor": trust.anchored,
        "signatures": trust.delivery.signatures.mode,
        "generation": trust.delivery.generation,
        "revocations": revoked,
        "warnings": list[Json](trust.warnings),
        "sandbox": list[Json](sandbox),
    }
