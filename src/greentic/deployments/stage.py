"""`op revisions stage`: record a new revision of a deployment, with its bytes pinned and unpacked, or by its pins alone (formats: op 4).

Rules:
1. The bundle is copied or pulled, pinned and unpacked outside the lock in a private directory, so that nobody waits for it; the
   finished revision comes to its place under the lock.
2. What is recorded is what was pinned: a digest that the caller names, and a source that is to be compared, must be the same bytes.
3. Signatures are looked for as the environment's policy asks, and those that are believed are kept in the revision.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import msgspec

from greentic.deployments.bundles import find_deployment
from greentic.deployments.revisions import RevisionSummary, summary
from greentic.distribute.fetch import fetch_into
from greentic.distribute.sources import never_pulled, settled, signatures_at
from greentic.ground.clock import timestamp, unix_seconds
from greentic.ground.disk import io_error
from greentic.ground.documents import parse, replace
from greentic.ground.errors import Conflict, FetchError, GreenticError, InvalidArgument, UntrustedBundle
from greentic.materialize.remembered import NOTHING_SEEN
from greentic.materialize.staging import Staged, StagingArea, copy_private, place
from greentic.materialize.trusted import SPARE_SECONDS, believed_list
from greentic.model.delivery import (
    MEMBER,
    RevisionSignatures,
    delivery_of,
    signatures_of,
    signed_content,
    with_signatures,
)
from greentic.model.environment import DIGEST_PLACEHOLDER, REVISION_SCHEMA, Environment, PackListEntry, Revision
from greentic.model.ids import U32, check_env_id, check_ulid, is_digest, is_semver
from greentic.model.lifecycle import with_current_revisions
from greentic.model.revision_files import lock_ref, pack_list
from greentic.net.addresses import check_authored, shown
from greentic.net.terms import own_terms
from greentic.operate.change import Context, Done, Idempotency, checked_key, run, whole
from greentic.operate.payload import Key, Payload, Ulid
from greentic.store import operator_key
from greentic.store.audit import Change
from greentic.store.environments import Transaction
from greentic.trust.gate import pin
from greentic.trust.policy import bundle_unsigned, unsatisfiable
from greentic.trust.statements import REVISION, sign_content

DEFAULT_DRAIN_SECONDS = 30


class PackListPayload(Payload, frozen=True, kw_only=True):
    pack_id: str
    version: str
    digest: str
    source_uri: str | None = None


class RevisionStagePayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    deployment_id: Ulid
    bundle_path: Annotated[str | None, msgspec.Meta(description="the .gtbundle to pin and unpack")] = None
    bundle_source_uri: Annotated[str | None, msgspec.Meta(description="where a worker pulls the same bytes")] = None
    bundle_digest: str | None = None
    pack_list: list[PackListPayload] = []
    pack_list_lock_ref: str | None = None
    config_digest: str | None = None
    signature_sidecar_ref: str | None = None
    drain_seconds: U32 = DEFAULT_DRAIN_SECONDS
    abort_metrics: list[str] = []
    verify_source: Annotated[
        bool, msgspec.Meta(description="with a local bundle too: pull it from its source and compare")
    ] = False
    idempotency_key: Key | None = None


def stage(context: Context, payload: RevisionStagePayload) -> RevisionSummary:
    """Record a new revision: with a bundle (from `bundle_path`, or pulled from `bundle_source_uri`), or by its pins alone."""
    env_id = check_env_id(payload.environment_id)
    deployment_id = check_ulid(payload.deployment_id, field="deployment_id")
    key = checked_key(payload.idempotency_key)
    if payload.bundle_source_uri is not None:
        written = settled(payload.bundle_source_uri, "bundle_source_uri")
        payload = msgspec.structs.replace(payload, bundle_source_uri=written)
    for pack in payload.pack_list:
        check_authored(pack.source_uri or "", f"source_uri of pack `{pack.pack_id}`")
    change = Change(env_id, "revisions", "stage", {"deployment_id": deployment_id, "lifecycle_to": "staged"}, key)
    store = context.store
    paths = store.paths(env_id)
    env = store.load(env_id)  # a missing environment leaves no trace
    revision_id = context.mint()
    with ExitStack() as stack:
        area: StagingArea | None = None
        prepared: Revision | GreenticError
        try:
            deployment = find_deployment(env, deployment_id)
            if payload.bundle_path is None and payload.bundle_source_uri is None:
                prepared = _pinned_only(payload, revision_id, env_id, deployment.bundle_id, deployment_id)
            else:
                area = stack.enter_context(StagingArea(paths, store.disk, revision_id, store.random.octets(6).hex()))
                staged = _fill(area, payload, env_id=env_id, bundle_id=deployment.bundle_id)
                prepared = _with_bundle(payload, staged, env_id, deployment.bundle_id, deployment_id)
                prepared = with_publisher(context, env, prepared, payload)
        except OSError as error:
            prepared = io_error(error.filename or paths.revisions, error)
        except GreenticError as error:
            prepared = error

        def action(transaction: Transaction) -> Done[RevisionSummary]:
            current = transaction.load()
            find_deployment(current, deployment_id)
            if isinstance(prepared, GreenticError):
                raise prepared
            revision = _signed(context, current, _numbered(context, current, prepared))
            if area is not None:
                place(area, paths, store.disk)
            try:
                current = replace(current, revisions=[*current.revisions, revision])
                transaction.save(with_current_revisions(current, [deployment_id]))
            except BaseException:
                store.disk.remove_tree(paths.revision(revision_id))
                raise
            return Done(_staged(revision))

        digest = prepared.bundle_digest if isinstance(prepared, Revision) else None
        # The same bytes from another place are the same request.
        asked = whole(msgspec.structs.replace(payload, bundle_path=None), digest=digest)
        return run(context, change, action, idempotency=Idempotency(key, deployment_id, asked, RevisionSummary))


def _staged(revision: Revision) -> RevisionSummary:
    """What is told of a new revision. A source that nobody pulls from is recorded, as the existing program does, and told."""
    reason = never_pulled(revision.bundle_source_uri or "")
    if reason is None:
        return summary(revision)
    told = (
        f"bundle_source_uri: {reason}: workers refuse this revision; stage another one with a source that they can ask"
    )
    return msgspec.structs.replace(summary(revision), warnings=[told])


def with_publisher(context: Context, env: Environment, revision: Revision, payload: RevisionStagePayload) -> Revision:
    """The revision with its publisher's signatures, checked as the policy asks; not a revoked one. Raises `UntrustedBundle`."""
    policy, terms = delivery_of(env).signatures, own_terms()
    trusted = context.store.trust_root(env.environment_id).public_keys()
    now = unix_seconds(context.clock)
    try:
        believed = believed_list(env.revocation, trusted, NOTHING_SEEN, now, terms=terms, spare=SPARE_SECONDS).revoked
    except UntrustedBundle:
        if policy.mode != "off":
            raise
        believed = None  # whoever serves it is the one who needs the list
    if believed is not None and (reason := believed.reason_of(revision.bundle_digest)) is not None:
        raise UntrustedBundle(
            f"bundle `{revision.bundle_digest}` is revoked (list version {believed.version}): {reason}"
        )
    if policy.mode == "off":
        return revision
    try:
        found = signatures_at(payload.bundle_path or payload.bundle_source_uri or "", terms)
        if not found and payload.bundle_path and payload.bundle_source_uri:
            found = signatures_at(payload.bundle_source_uri, terms)
    except FetchError as error:
        if policy.mode == "require":
            raise
        found, _ = [], error
    gone = believed.key_ids if believed is not None else frozenset[str]()
    why = unsatisfiable(policy, trusted, gone) or bundle_unsigned(found, revision.bundle_digest, policy, trusted, gone)
    if why is not None and policy.mode == "require":
        stranger = (
            f"trust who signed it: gtc op trust-root add {env.environment_id} --key-id HEX --public-key-file FILE; or "
        )
        raise UntrustedBundle(
            f"signatures are required in environment `{env.environment_id}`: {why}",
            hint=f"{stranger if found else ''}gtc bundle sign FILE, publish the .sig beside it, and stage again",
        )
    kept = [parsed for data in found if (parsed := _envelope(data)) is not None] if why is None else []
    return with_signatures(revision, RevisionSignatures(bundle=kept))


def _envelope(data: bytes) -> dict[str, object] | None:
    """A signature as it is recorded; nothing for bytes beside a bundle that are none, which prove nothing and do no harm."""
    try:
        parsed = parse(data)
    except ValueError:
        return None
    return dict(parsed) if isinstance(parsed, dict) else None


def _signed(context: Context, env: Environment, revision: Revision) -> Revision:
    """The revision signed by the operator, in an environment that is set up for it. Raises `OperatorKeyError`."""
    if MEMBER not in env.extra:
        return revision
    root = context.store.trust_root(env.environment_id)
    key = operator_key.load_trusted(context.store.disk, root, env.environment_id)
    at = timestamp(context.clock.now_ns())
    own = sign_content(REVISION, f"{revision.revision_id}.json", signed_content(revision), key, at)
    return with_signatures(revision, replace(signatures_of(revision), revision=own))


def _fill(area: StagingArea, payload: RevisionStagePayload, *, env_id: str, bundle_id: str) -> Staged:
    """Bring the bundle into the staging area, pin it and unpack it."""
    with area.create_bundle_file() as file:
        if payload.bundle_path is not None:
            copy_private(Path(payload.bundle_path), file)
            shown_as = payload.bundle_path
            if payload.verify_source:
                _compare(file, payload.bundle_source_uri)
        else:
            uri = payload.bundle_source_uri or ""
            shown_as = shown(uri)
            fetch_into(file, uri)
        bundle = pin(file)
        if payload.bundle_digest not in (None, DIGEST_PLACEHOLDER, bundle.digest):
            raise Conflict(
                f"bundle `{shown_as}` is `{bundle.digest}`, but `bundle_digest` says `{payload.bundle_digest}`",
                hint="stage the bundle that was meant, or leave bundle_digest out",
            )
        return area.fill(bundle, env_id=env_id, bundle_id=bundle_id, shown_as=shown_as)


def _compare(file: BinaryIO, uri: str | None) -> None:
    """Raise `Conflict` unless workers would pull the same bytes as those at hand."""
    if uri is None:
        raise InvalidArgument("verify_source: there is no bundle_source_uri to compare the bundle with")
    with tempfile.TemporaryFile() as pulled:
        source = fetch_into(cast(BinaryIO, pulled), uri)
    local = pin(file).digest
    if source.digest != local:
        raise Conflict(
            f"the bundle at `{shown(uri)}` is `{source.digest}`, the one at hand is `{local}`",
            hint="publish the bundle that was meant (gtc bundle publish), or leave bundle_path out",
        )


def _with_bundle(
    payload: RevisionStagePayload, staged: Staged, env_id: str, bundle_id: str, deployment_id: str
) -> Revision:
    return revision_of(
        payload,
        revision_id=staged.revision_id,
        env_id=env_id,
        bundle_id=bundle_id,
        deployment_id=deployment_id,
        digest=staged.digest,
        packs=pack_list(staged.lock, staged.versions),
        lock=lock_ref(staged.revision_id),
        configs=staged.config_refs,
    )


def _pinned_only(
    payload: RevisionStagePayload, revision_id: str, env_id: str, bundle_id: str, deployment_id: str
) -> Revision:
    """A revision without bytes: recorded for inventory, it can be neither warmed nor pulled."""
    if payload.pack_list_lock_ref:
        raise InvalidArgument(
            f"pack_list_lock_ref `{payload.pack_list_lock_ref}` is not backed by any file: the revision's id is made now",
            hint="pass bundle_path, so that the bundle is pinned and its lock written",
        )
    digest = payload.bundle_digest or DIGEST_PLACEHOLDER
    if digest != DIGEST_PLACEHOLDER and not is_digest(digest):
        raise InvalidArgument(f"bundle_digest `{digest}` is not `sha256:` and 64 lower-case hex digits")
    packs = []
    for entry in payload.pack_list:
        if not is_semver(entry.version):
            raise InvalidArgument(f"pack version: `{entry.version}` of `{entry.pack_id}` is not SemVer")
        packs.append(
            PackListEntry(
                pack_id=entry.pack_id, version=entry.version, digest=entry.digest, source_uri=entry.source_uri
            )
        )
    return revision_of(
        payload,
        revision_id=revision_id,
        env_id=env_id,
        bundle_id=bundle_id,
        deployment_id=deployment_id,
        digest=digest,
        packs=packs,
        lock="",
        configs=[],
    )


def revision_of(
    payload: RevisionStagePayload,
    *,
    revision_id: str,
    env_id: str,
    bundle_id: str,
    deployment_id: str,
    digest: str,
    packs: list[PackListEntry],
    lock: str,
    configs: list[str],
) -> Revision:
    """The revision that a payload asks for, its place and time still to be told."""
    return Revision(
        schema=REVISION_SCHEMA,
        revision_id=revision_id,
        env_id=env_id,
        bundle_id=bundle_id,
        deployment_id=deployment_id,
        sequence=0,
        created_at="",
        bundle_digest=digest,
        bundle_source_uri=payload.bundle_source_uri,
        pack_list=packs,
        pack_list_lock_ref=lock,
        pack_config_refs=configs,
        config_digest=payload.config_digest or DIGEST_PLACEHOLDER,
        signature_sidecar_ref=payload.signature_sidecar_ref or "rev.sig",
        lifecycle="staged",
        drain_seconds=payload.drain_seconds,
        abort_metrics=payload.abort_metrics,
    )


def _numbered(context: Context, env: Environment, revision: Revision) -> Revision:
    """The revision with its place in the deployment's sequence and the time of recording."""
    now = timestamp(context.clock.now_ns())
    last = max((r.sequence for r in env.revisions if r.deployment_id == revision.deployment_id), default=0)
    return replace(revision, sequence=last + 1, created_at=now, staged_at=now)
