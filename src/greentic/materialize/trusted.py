"""What a worker believes before it pulls: seal, generation, revocations (threats: stripped-signature, state-beside).

Rules:
1. A trust anchor is given beside the document, by an argument or a mounted file. With one, the document must carry a seal by one
   of its keys that is not revoked: who edits the document cannot edit the trust. Without one the document is believed as it is.
2. The generation never goes back, and neither does the revocation list's version, unless that is explicitly allowed.
3. Revocation lists are believed by the anchor's keys, without an anchor by the document's, never by a key that an earlier list revoked.
   Of the published list and the kept ones the newest that is believed holds. One that has ended still revokes what it names; where a
   list is required it must not have ended. A list that was seen and is gone refuses everything. Where the published one can be done
   without, because none is required or a kept one is good, its server is waited for `SPARE_SECONDS`: a worker asks again soon.
4. `examine` reads and changes nothing, so that a document that is refused leaves no trace; `establish` remembers what passed.
5. What is to be told stands in `Trusted.warnings`; what may be served of the document is `trust.policy.verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from greentic.ground.clock import Clock, unix_seconds
from greentic.ground.documents import Json, JsonObject, read_file
from greentic.ground.errors import BootError, FetchError, GreenticError, TrustRootError, UntrustedBundle
from greentic.materialize.remembered import NOTHING_SEEN, Memory, Recalled, Seen
from greentic.model.delivery import Delivery, delivery_of
from greentic.model.environment import Environment, Revocation
from greentic.net.addresses import shown
from greentic.net.document import read_small
from greentic.net.terms import Terms
from greentic.trust.keys import KeyFormatError, key_id, read_public_pem
from greentic.trust.policy import Trusted, unsatisfiable, unsealed
from greentic.trust.revocation import (
    MAX_LIST,
    RevocationError,
    RevocationList,
    check_version,
    ended,
    read_list,
)
from greentic.trust.root import read_trust_root

ALLOW_ROLLBACK = "GREENTIC_ALLOW_ROLLBACK"
MAX_ANCHOR = 1 << 20
IF_MEANT = f", or, if the older is meant, start with {ALLOW_ROLLBACK}=1"
"""What a worker can do about an older document, and an operator cannot."""
SPARE_SECONDS = 10.0


class Examined(msgspec.Struct, frozen=True):
    """A document that passed every check, and what is to be remembered of it."""

    trusted: Trusted
    seen: Seen
    listed: bytes | None
    """The revocation list in force, as it was published."""


class BelievedList(msgspec.Struct, frozen=True):
    """The revocation list in force."""

    revoked: RevocationList | None = None
    data: bytes | None = None
    warnings: tuple[str, ...] = ()


class Examiner(NamedTuple):
    """What the documents of one environment are examined by, made once."""

    memory: Memory
    anchor: Path | None
    """The file of the trust anchor, read at each look."""
    terms: Terms
    """How the place of the revocation list is asked."""
    clock: Clock
    allow_rollback: bool = False

    def establish(self, env: Environment) -> Trusted:
        """`examine`, and remember the newest. Raises `BootError` with the cause; then nothing was changed."""
        found = self.examine(env)
        unwritten = self.memory.remember(found.seen, found.listed)
        return found.trusted._replace(warnings=(*found.trusted.warnings, *unwritten))

    def examine(self, env: Environment, offered: bytes | None = None) -> Examined:
        """Check seal, generation and revocations of a document; changes nothing. Raises `BootError` with the cause.

        `offered` is a revocation list that came with the document, no more trusted than one that is published.
        """
        try:
            return _examined(self, env, offered)
        except (GreenticError, KeyFormatError) as error:
            raise BootError(f"trust in environment `{env.environment_id}`") from (
                error if isinstance(error, GreenticError) else TrustRootError(str(error))
            )


def _examined(by: Examiner, env: Environment, offered: bytes | None) -> Examined:
    """Raises `GreenticError` or `KeyFormatError` for a document that does not pass."""
    delivery = delivery_of(env)
    anchors = {} if by.anchor is None else read_anchor(by.anchor)
    # The list stands where the sealed document says, so the seal is judged without it first and with it below.
    _check_seal(env, delivery, anchors, frozenset())
    keys = document_keys(delivery)
    recalled = by.memory.recall()
    if delivery.generation < recalled.seen.generation and not by.allow_rollback:
        raise UntrustedBundle(
            f"the environment has generation {delivery.generation}, and this worker has seen {recalled.seen.generation}",
            hint="an older document was put in place, or one that was not counted with those that were published: author a "
            f"later one (gtc op delivery set ENV --generation {recalled.seen.generation + 1}){IF_MEANT}",
        )
    if by.allow_rollback:
        recalled = NOTHING_SEEN._replace(warnings=recalled.warnings)
    believed = believed_list(
        env.revocation,
        anchors or keys,
        recalled,
        unix_seconds(by.clock),
        offered=offered,
        terms=by.terms,
        spare=SPARE_SECONDS,
    )
    revoked_keys = believed.revoked.key_ids if believed.revoked else frozenset[str]()
    if revoked_keys:
        _check_seal(env, delivery, anchors, revoked_keys)
    why = unsatisfiable(delivery.signatures, keys, revoked_keys)
    if why is not None:
        raise UntrustedBundle(why, hint="name whom to trust: gtc op trust-root add, gtc op delivery set --key")
    version = believed.revoked.version if believed.revoked else recalled.seen.revocations
    trusted = Trusted(delivery, keys, believed.revoked, bool(anchors), (*recalled.warnings, *believed.warnings))
    return Examined(trusted, Seen(delivery.generation, version), believed.data)


def document_keys(delivery: Delivery) -> dict[str, bytes]:
    """The public keys that a document carries, by key id. Raises `UntrustedBundle` or `KeyFormatError`."""
    keys = {name.lower(): read_public_pem(pem) for name, pem in delivery.keys.items()}
    if any(key_id(key) != name for name, key in keys.items()):
        raise UntrustedBundle("the document carries a public key under another key's id")
    return keys


def read_anchor(path: Path) -> dict[str, bytes]:
    """The keys of a trust anchor: a trust root document, or public keys as PEM. Raises `TrustRootError`."""
    try:
        data = read_file(path, MAX_ANCHOR)
    except OSError as error:
        raise TrustRootError(f"the trust anchor `{path}` cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise TrustRootError(f"the trust anchor `{path}` cannot be read: {error}") from None
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


def _check_seal(
    env: Environment, delivery: Delivery, anchors: Mapping[str, bytes], revoked_keys: frozenset[str]
) -> None:
    if not anchors:
        return
    why = unsealed(env, delivery, anchors, revoked_keys)
    if why is not None:
        raise UntrustedBundle(
            f"`environment.json` is not sealed by a key of the trust anchor: {why}",
            hint="author it with gtc op (gtc op delivery set seals it), or give the worker the operator's anchor",
        )


def believed_list(
    asked: Revocation,
    keys: Mapping[str, bytes],
    recalled: Recalled,
    now: int,
    *,
    terms: Terms,
    offered: bytes | None = None,
    spare: float | None = None,
) -> BelievedList:
    """The revocation list in force (rule 3). Raises `UntrustedBundle` where one is required, or was seen, and cannot be had.

    `spare` is how long the published one is waited for at most where it can be done without; as long as `terms` say if it is not told.
    """
    reference = asked.list_ref
    if not reference:
        if asked.required:
            raise UntrustedBundle("a revocation list is required, and the environment does not say where it is")
        return BelievedList()
    warnings: list[str] = []
    best: tuple[RevocationList, bytes] | None = None
    newest = recalled.seen.revocations
    candidates: list[tuple[str, bytes | None]] = [(f"file://{path}", data) for path, data in recalled.lists]
    candidates += [("the list of the archive", offered)] if offered is not None else []
    candidates.append((reference, None))  # the kept ones first: they say which keys sign no list any more
    for where, data in candidates:
        try:
            if data is None:
                needed = asked.required and (best is None or ended(best[0], now) is not None)
                needed = needed or (best is None and bool(recalled.seen.revocations))
                total = terms.total if needed or spare is None else min(terms.total, spare)
                data = read_small(where, MAX_LIST, terms._replace(total=total))
            if data is None:
                raise RevocationError("it is not there")
            revoked_before = best[0].key_ids if best else frozenset[str]()
            revoked = read_list(data, keys, revoked_before)
            check_version(revoked, newest)
        except (RevocationError, FetchError) as error:
            warnings.append(f"the revocation list `{shown(where)}` is not used: {getattr(error, 'message', error)}")
            continue
        best, newest = (revoked, data), revoked.version
    if best is None:
        if asked.required or recalled.seen.revocations:
            lost = "is required" if asked.required else f"of version {recalled.seen.revocations} was seen, and is gone"
            raise UntrustedBundle(
                f"a revocation list {lost}: {'; '.join(warnings)}",
                hint="publish it again where the environment says (gtc op delivery show)",
            )
        return BelievedList(warnings=tuple(warnings))
    why = ended(best[0], now)
    if why is not None and asked.required:
        raise UntrustedBundle("; ".join([f"a revocation list is required: {why}", *warnings]))
    if why is not None:
        warnings.append(
            f"the revocation list of version {best[0].version} has ended, what it revokes stays revoked: {why}"
        )
    return BelievedList(best[0], best[1], tuple(warnings))


def protections(trusted: Trusted, sandbox: Sequence[str]) -> JsonObject:
    """What guarded a boot, for `/status`."""
    revoked: Json = None
    if trusted.revoked is not None:
        revoked = {"version": trusted.revoked.version, "expires_at": trusted.revoked.expires_at}
    return {
        "anchor": trusted.anchored,
        "signatures": trusted.delivery.signatures.mode,
        "generation": trusted.delivery.generation,
        "revocations": revoked,
        "warnings": list[Json](trusted.warnings),
        "sandbox": list[Json](sandbox),
    }
