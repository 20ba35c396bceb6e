"""`op env publish`, `pull`, `history`, `rollback`: an environment as an artifact that workers and operators follow.

Rules:
1. What is published is what pods may see, sealed by the operator's key as a generation of its own. Generations only grow: above the
   store's, what the place has, and what this store has published there.
2. The same content is not published twice. A place that holds another environment, or what this trust root does not vouch for, is not
   published over.
3. Rolling back publishes old content as a new generation; the store stays as it is, and says so again with the next `publish`. Twice is
   two steps back, never forward again.
4. What is pulled is believed by the keys of the trust root or of `--trust-anchor`, never because of where it lies. A place that shows an
   older generation than was seen of it (published from here, or lying at the output) is not believed, unless that one was asked for.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from greentic.ground.clock import timestamp
from greentic.ground.disk import io_error, replace_file
from greentic.ground.documents import JsonObject, compact, decode, read_file, replace
from greentic.ground.errors import Conflict, FetchError, GreenticError, InvalidArgument, NotFound, UntrustedBundle
from greentic.ground.lock import held
from greentic.ground.reply import Reply
from greentic.materialize.trusted import read_anchor
from greentic.model.delivery import delivery_of, sealed_content, with_delivery
from greentic.model.environment import DOCUMENT, Environment
from greentic.model.ids import check_env_id, digest_of_bytes
from greentic.model.pod_view import for_pods
from greentic.net.addresses import shown
from greentic.net.terms import own_terms
from greentic.operate.change import Context, Done, run
from greentic.operate.payload import Payload
from greentic.publication.artifact import Edition, NothingPublished, check_claims, manifest_of, one_step_back, press
from greentic.publication.place import Place, history, newest, place_of, push, read_document
from greentic.store.audit import Change
from greentic.store.environments import environment_of
from greentic.store.seal import sealed_as
from greentic.trust.policy import unsealed
from greentic.trust.statements import canonical_sha256

RECORD = "published.json"
MAX_RECORD = 1 << 20
PlaceText = Annotated[str, msgspec.Meta(description="oci://registry/repository:tag, https://…, or a directory")]


class EnvPublishPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    place: PlaceText


class EnvPullPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    place: PlaceText
    output: Annotated[str | None, msgspec.Meta(description="a directory for environment.json")] = None
    generation: Annotated[int | None, msgspec.Meta(description="not the newest one")] = None
    trust_anchor: Annotated[str | None, msgspec.Meta(description="a file with the keys that must have sealed it")] = (
        None
    )


class EnvHistoryPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    place: PlaceText


class EnvRollbackPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    place: PlaceText
    generation: Annotated[int | None, msgspec.Meta(description="whose content; default: one step back")] = None


class EnvPublished(Reply, frozen=True, kw_only=True):
    environment_id: str
    place: str
    generation: int
    published: bool
    """Whether anything was: the same content is not published twice."""
    manifest: str
    """Its digest."""
    document: str
    """The digest of `environment.json`."""
    document_bytes: int | None
    """Nothing where it was not read, as it was published already."""
    moved_bytes: int
    rollback_of: int | None = None


class EnvPulled(Reply, frozen=True, kw_only=True):
    environment_id: str
    place: str
    generation: int
    manifest: str
    document: str
    document_bytes: int
    output: str | UnsetType = UNSET


class EnvEdition(Reply, frozen=True, kw_only=True):
    generation: int
    manifest: str
    document: str
    created_at: str
    rollback_of: int | None


class EnvHistory(Reply, frozen=True, kw_only=True):
    environment_id: str
    place: str
    editions: list[EnvEdition]


class _Sent(msgspec.Struct, frozen=True):
    """What this store published last at one place."""

    generation: int = 0
    manifest: str = ""
    content: str = ""
    """The digest of the document without its generation."""


class _Record(msgspec.Struct, frozen=True):
    """What this store has published, by place."""

    places: dict[str, _Sent] = {}


class _Before(NamedTuple):
    """What a place holds, believed."""

    edition: Edition
    content: str
    size: int | None


def publish(context: Context, payload: EnvPublishPayload) -> EnvPublished:
    """Push what pods may see of an environment."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    with _alone(context, env_id), _asking(env_id, payload.place):
        env = _keyed(context, for_pods(context.store.load(env_id)))
        place = place_of(payload.place, own_terms(), push=True)
        before = _standing(context, place, payload.place, env_id)
        content = _content(env)
        if before is not None and before.content == content:
            return _told(payload.place, before.edition, before.size)
        return _push(context, env, content, place, payload.place, before, "publish", delivery_of(env).generation)


def rollback(context: Context, payload: EnvRollbackPayload) -> EnvPublished:
    """Publish the content of an older generation as a new one (rule 3)."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    with _alone(context, env_id), _asking(env_id, payload.place):
        place = place_of(payload.place, own_terms(), push=True)
        before = _standing(context, place, payload.place, env_id)
        if before is None:
            raise NotFound(f"nothing is published at `{shown(payload.place)}`")
        if payload.generation is None:
            wanted = _older(place, payload.place, env_id)
        else:
            wanted = _chosen(place, payload.place, env_id, payload.generation)
        old = _believed(place, wanted, payload.place, env_id, context.store.trust_root(env_id).public_keys())
        old, own = _keyed(context, old), delivery_of(context.store.load(env_id)).generation
        return _push(context, old, _content(old), place, payload.place, before, "rollback", own, wanted.generation)


def pull(context: Context, payload: EnvPullPayload) -> EnvPulled:
    """Read a published environment, check its seal, and write it where it is asked for."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    keys = (
        read_anchor(Path(payload.trust_anchor))
        if payload.trust_anchor
        else context.store.trust_root(env_id).public_keys()
    )
    if not keys:
        raise InvalidArgument(
            f"environment `{env_id}` has no trust root here, so nobody's seal is believed",
            hint="--trust-anchor FILE names the keys",
        )
    with _asking(env_id, payload.place):
        place = place_of(payload.place, own_terms())
        edition = _chosen(place, payload.place, env_id, payload.generation)
        if payload.generation is None:
            _check_no_older(edition, _seen(context, payload, env_id), payload.place)
        env = _believed(place, edition, payload.place, env_id, keys)
    data = compact(env)
    told = EnvPulled(
        environment_id=env_id, place=shown(payload.place), generation=edition.generation, manifest=edition.digest,
        document=edition.document, document_bytes=len(data),
    )  # fmt: skip
    if payload.output is None:
        return told
    path = Path(payload.output) / DOCUMENT
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, read_document(place, edition, payload.place), 0o644, durable=True)
    except OSError as error:
        raise io_error(path, error) from error
    return replace(told, output=str(path))


def _seen(context: Context, payload: EnvPullPayload, env_id: str) -> int:
    """The newest generation that is known of a place (rule 4)."""
    sent = _record(context.store.paths(env_id).root / RECORD).places.get(payload.place, _Sent()).generation
    if payload.output is None:
        return sent
    path = Path(payload.output) / DOCUMENT
    try:
        return max(sent, delivery_of(environment_of(read_file(path), path, env_id)).generation)
    except (OSError, ValueError, GreenticError):  # nothing of this environment lies there
        return sent


def _check_no_older(edition: Edition, seen: int, where: str) -> None:
    if edition.generation < seen:
        raise Conflict(
            f"`{shown(where)}` shows generation {edition.generation} as its newest, and generation {seen} was seen; nothing was written",
            hint=f"who keeps the place may have taken it back, or somebody shows you the past: --generation {edition.generation} takes it "
            "nevertheless",
        )


def told_history(context: Context, payload: EnvHistoryPayload) -> EnvHistory:
    """The published generations, the newest first, as their manifests tell them."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    with _asking(env_id, payload.place):
        place = place_of(payload.place, own_terms())
        editions = [_of(env_id, e, payload.place) for e in history(place, payload.place)]
    return EnvHistory(
        environment_id=env_id,
        place=shown(payload.place),
        editions=[
            EnvEdition(
                generation=e.generation, manifest=e.digest, document=e.document, created_at=e.created, rollback_of=e.rollback_of
            )
            for e in editions
        ],
    )  # fmt: skip


@contextmanager
def _asking(env_id: str, where: str) -> Iterator[None]:
    """Errors of a place say what to do next."""
    try:
        yield
    except FetchError as error:
        told = shown(where)
        error.hint = error.hint or (
            f"nothing was changed here. Check the address, and that it answers; if so, what lies at `{told}` was changed or damaged: "
            f"gtc op env history {env_id} {told} lists what is published, and another name is free to publish under"
        )
        raise


def _standing(context: Context, place: Place, where: str, env_id: str) -> _Before | None:
    """What stands at the place, if anything does. Raises `Conflict` for what may not be published over (rule 2)."""
    try:
        edition = newest(place, where)
    except NothingPublished:
        return None
    assert edition is not None
    sent = _record(context.store.paths(env_id).root / RECORD).places.get(where, _Sent())
    if edition.digest == sent.manifest:  # our own, so nothing of it has to be read
        return _Before(edition, sent.content, None)
    try:
        keys = context.store.trust_root(env_id).public_keys()
        env = _believed(place, edition, where, env_id, keys)
        return _Before(edition, _content(env), len(compact(env)))
    except (FetchError, UntrustedBundle) as error:
        raise Conflict(
            f"`{shown(where)}` holds what environment `{env_id}` did not publish: {error.message}",
            hint="publish under another name, or delete what is there if it is not needed",
        ) from error


def _of(env_id: str, edition: Edition, where: str) -> Edition:
    if edition.env_id != env_id:
        raise FetchError(
            f"`{shown(where)}` is environment `{edition.env_id}`, asked for was `{env_id}`",
            hint=f"name the place of `{env_id}`, or ask for `{edition.env_id}`",
        )
    return edition


def _believed(place: Place, edition: Edition, where: str, env_id: str, keys: Mapping[str, bytes]) -> Environment:
    """The environment of an edition, if one of the keys has sealed it (rule 4). Raises `FetchError` or `UntrustedBundle`."""
    _of(env_id, edition, where)
    data = read_document(place, edition, where)
    try:
        env = environment_of(data, Path(shown(where)), env_id)
        delivery = delivery_of(env)
    except GreenticError as error:
        raise FetchError(f"`{shown(where)}`: {error.message}") from error
    check_claims(edition, env, where)
    why = unsealed(env, delivery, keys, frozenset())
    if why is not None:
        raise UntrustedBundle(
            f"generation {edition.generation} is not sealed by a trusted key: {why}",
            hint="somebody without the operator's key wrote it, or another operator did: --trust-anchor FILE names whose seals count",
        )
    return env


def _chosen(place: Place, where: str, env_id: str, generation: int | None) -> Edition:
    """The edition of a generation, else the newest. Raises `NotFound`."""
    for edition in history(place, where):
        if generation is None or edition.generation == generation:
            return _of(env_id, edition, where)
    named = "generation" if generation is None else f"generation {generation}"
    raise NotFound(f"no {named} is published at `{shown(where)}`", hint=_history(env_id, where))


def _older(place: Place, where: str, env_id: str) -> Edition:
    """The edition that is one step back. Raises `NotFound`."""
    found = one_step_back(history(place, where))
    if found is None:
        raise NotFound(
            f"no generation older than what was gone back to is published at `{shown(where)}`",
            hint=f"{_history(env_id, where)}; --generation N takes any of them",
        )
    return _of(env_id, found, where)


def _history(env_id: str, where: str) -> str:
    return f"what is: gtc op env history {env_id} {shlex.quote(shown(where))}"


def _keyed(context: Context, env: Environment) -> Environment:
    """The environment with the keys that it would be published with."""
    root = context.store.trust_root(env.environment_id)
    keys = {k.key_id.lower(): k.public_key_pem for k in root.keys}
    return with_delivery(env, replace(delivery_of(env), keys=keys))


def _content(env: Environment) -> str:
    """The digest of a document without its generation and seal."""
    return canonical_sha256(sealed_content(env, generation=False))


def _push(
    context: Context, env: Environment, content: str, place: Place, where: str, before: _Before | None, verb: str, own: int,
    rollback_of: int | None = None,
) -> EnvPublished:  # fmt: skip
    """Publish as the next generation (rule 1). `own` is the store's."""
    env_id = env.environment_id
    path = context.store.paths(env_id).root / RECORD
    record = _record(path)
    there = before.edition.generation if before is not None else 0
    generation = max(own, there + 1, record.places.get(where, _Sent()).generation + 1)
    sealed = sealed_as(env, generation, context.store.trust_root(env_id), context.store.disk, context.clock)
    document = compact(sealed)
    pressed = press(document)
    context.view.say(f"publishing generation {generation}: {len(document)} bytes, {len(pressed.layer)} compressed")
    previous = before.edition.digest if before is not None else None
    created = timestamp(context.clock.now_ns())
    manifest = manifest_of(env_id, generation, pressed, previous, rollback_of, created)
    moved, digest = push(place, pressed, manifest), digest_of_bytes(manifest)
    told = EnvPublished(
        environment_id=env_id, place=shown(where), generation=generation, published=True, manifest=digest,
        document=pressed.document, document_bytes=len(document), moved_bytes=len(pressed.layer) if moved else 0,
        rollback_of=rollback_of,
    )  # fmt: skip
    target: JsonObject = {"environment_id": env_id, "place": shown(where), "generation": generation, "manifest": digest}
    sent = _Sent(generation, digest, content)
    kept = msgspec.json.encode(_Record({**record.places, where: sent}))

    def action(_: object) -> Done[EnvPublished]:
        replace_file(path, kept, 0o600, durable=True)
        return Done(told)

    return run(context, Change(env_id, "env", verb, target), action)


def _record(path: Path) -> _Record:
    try:
        return decode(read_file(path, MAX_RECORD), _Record)
    except FileNotFoundError:
        return _Record()
    except (OSError, ValueError) as error:
        raise Conflict(
            f"`{path}` cannot be read: {error}", hint="delete it, if what is published at the place is the newest"
        ) from error


def _told(where: str, edition: Edition, size: int | None) -> EnvPublished:
    return EnvPublished(
        environment_id=edition.env_id, place=shown(where), generation=edition.generation, published=False,
        manifest=edition.digest, document=edition.document, document_bytes=size, moved_bytes=0, rollback_of=edition.rollback_of,
    )  # fmt: skip


def _alone(context: Context, env_id: str) -> AbstractContextManager[None]:
    """Keep a second publishing of the same store out, so that generations are counted once."""
    root = context.store.existing(env_id).root
    return held(root / ".publish.lock", context.store.disk, context.clock)
