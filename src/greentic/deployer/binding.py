"""Which deployer an environment is bound to, its answers, and what it would render (formats: cluster 1, 5).

Rules:
1. `--kind` unset means the environment's binding; with `@` it is a full descriptor; without, it has to be the bound path.
2. Verbs that reach a cluster need a binding of the same path; rendering may preview an unbound descriptor.
3. Answers that are recorded and cannot be read are a `Conflict`, never a silent default. A binding of another kind has none.
4. Answers are looked at whole when they are bound, so that a mistake is told before anything is applied; a key that stands twice is one.
5. Pods are told the URL by which they are exposed, unless `set-public-url` says another.
6. Pods get secrets of the development store only, and only where the secrets slot is bound to it.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

from greentic.ground import variables
from greentic.ground.disk import real_path
from greentic.ground.documents import Json, JsonObject, parse, read_file, repeated_key, replace, unmarked
from greentic.ground.errors import Conflict, GreenticError, InvalidArgument, SpecViolation
from greentic.k8s.answers import Answers, read_answers
from greentic.k8s.names import label_value, store_identity
from greentic.k8s.plan import Owner
from greentic.k8s.render import MAX_DATA, DesiredObjects, render
from greentic.model.descriptors import split_descriptor, version_tuple
from greentic.model.environment import Environment, EnvPackBinding
from greentic.model.hosts import host_without_port
from greentic.model.ids import is_contained_ref
from greentic.model.pod_view import for_pods
from greentic.operate import env_packs
from greentic.operate.change import Context
from greentic.operate.env_packs import BindingSummary
from greentic.shape.exposure import fits
from greentic.store.layout import DEV_SECRETS, EnvPaths
from greentic.store.seal import resealed

KUBERNETES = "greentic.deployer.k8s"
DEV_STORE = "greentic.secrets.dev-store"
STORE_ID = "GREENTIC_STORE_ID"
"""Names the store's identity where its directory is another one each time, as in a pipeline."""
_MAX_ANSWERS = 1 << 20


class Deployer(NamedTuple):
    """An environment's deployer, resolved."""

    env: Environment
    kind: str
    """The full descriptor."""
    answers_ref: str | None
    answers: Answers
    owner: Owner
    desired: DesiredObjects


def is_kubernetes(binding: EnvPackBinding | None) -> bool:
    """Whether a binding of the deployer slot is to the deployer that this room is."""
    return binding is not None and binding.kind.startswith(f"{KUBERNETES}@")


def add(context: Context, payload: env_packs.EnvPackBindingPayload) -> BindingSummary:
    """Bind a free slot, and tell what is wrong with a deployer's answers."""
    return _with_warning(context, payload, env_packs.add(context, payload))


def update(context: Context, payload: env_packs.EnvPackBindingPayload) -> BindingSummary:
    """Bind a bound slot to something else, and tell what is wrong with a deployer's answers."""
    return _with_warning(context, payload, env_packs.update(context, payload))


def _with_warning(context: Context, payload: env_packs.EnvPackBindingPayload, done: BindingSummary) -> BindingSummary:
    """The reply with a warning where it is due: binding may come before the file, rendering may not."""
    if payload.answers_ref is None or not payload.kind.startswith(f"{KUBERNETES}@"):
        return done
    try:
        render(resolve(context, payload.environment_id, None, live=False).desired)
    except GreenticError as error:
        return replace(done, warnings=[error.message])
    return done


def resolve(
    context: Context, env_id: str, kind: str | None, *, live: bool, loaded: Environment | None = None
) -> Deployer:
    """The deployer of an environment. `live` verbs reach a cluster (rule 2) and know the secrets' values.

    `loaded` is its document, if it was read already. Raises `NotFound`, `InvalidArgument` or `Conflict`.
    """
    env = context.store.load(env_id) if loaded is None else loaded
    paths = context.store.paths(env_id)
    binding = env.binding("deployer")
    descriptor = _descriptor(binding, kind, env_id)
    path = _checked(descriptor)
    if live and binding is None:
        raise Conflict("env has no deployer binding", hint=_bind(env_id))
    if live and binding is not None and binding.kind.partition("@")[0] != path:
        raise InvalidArgument(f"--kind `{descriptor}` is not the env's deployer `{binding.kind}`")
    answered = binding if binding is not None and binding.kind.partition("@")[0] == path else None
    ref = answered.answers_ref if answered is not None else None
    answers = _read_answers(paths, ref, env_id)
    owner = Owner(env_id, _store_id(paths))
    bound = _secrets_bound(env)
    secrets = _dev_secrets(paths) if bound and live else None
    document = resealed(with_public_url(for_pods(env), answers), context.store.disk)
    return Deployer(
        env, descriptor, ref, answers, owner, DesiredObjects(document, answers, owner.store, bound, secrets)
    )


def recorded_answers(context: Context, env_id: str) -> JsonObject:
    """The answers of the environment's deployer as they were recorded. Raises `Conflict` for those that cannot be read."""
    binding = context.store.load(env_id).binding("deployer")
    if binding is None or binding.answers_ref is None:
        return {}
    found = _answers(context.store.paths(env_id), binding.answers_ref)
    return found if isinstance(found, dict) else {}


def with_public_url(env: Environment, answers: Answers) -> Environment:
    """The environment with the URL that the exposure gives it (rule 5)."""
    urls = [] if answers.exposure is None else answers.exposure.urls
    if not urls or env.host_config.public_base_url is not None:
        return env
    return replace(env, host_config=replace(env.host_config, public_base_url=urls[0]))


def public_url_warnings(env: Environment, answers: Answers) -> list[str]:
    """What is to be said of a public URL that leads elsewhere, or is missing where nobody else can tell it."""
    told, exposure = env.host_config.public_base_url, answers.exposure
    if exposure is None:
        return []
    again = f"gtc op env set-public-url {env.environment_id} URL"
    if told is None:
        missing = f"pods are told no public URL, for scheme and port are the Gateway's: {again}"
        return [] if exposure.urls or exposure.way == "ingress" else [missing]
    host = host_without_port(told.partition("://")[2].partition("/")[0])
    if not exposure.hosts or any(fits(pattern, host) for pattern in exposure.hosts):
        return []
    return [f"the public URL `{told}` is none of the exposed hosts ({', '.join(exposure.hosts)}): {again}"]


def _store_id(paths: EnvPaths) -> str:
    told = variables.text(STORE_ID)
    return label_value(told) if told else store_identity(paths.root)


def _bind(env_id: str) -> str:
    return f"gtc op env-packs add {env_id} slot=deployer kind={KUBERNETES}@1.0.0 pack_ref=builtin"


def _descriptor(binding: EnvPackBinding | None, kind: str | None, env_id: str) -> str:
    if kind is None:
        if binding is None:
            once = f"{_bind(env_id)}; or for this once: --kind {KUBERNETES}@1.0.0"
            raise Conflict("env has no deployer binding; pass --kind <path>@<version>", hint=once)
        return binding.kind
    if "@" in kind:
        return kind
    if binding is None or binding.kind.partition("@")[0] != kind:
        raise InvalidArgument(
            f"--kind `{kind}` carries no version and does not match the env's deployer binding; pass a full `<path>@<version>`"
        )
    return binding.kind


def _checked(descriptor: str) -> str:
    """The descriptor's path, if it is a version of the Kubernetes deployer that this program is."""
    try:
        path, version = split_descriptor(descriptor)
    except SpecViolation as error:
        raise InvalidArgument(f"kind: {error.message}") from None
    if path != KUBERNETES:
        raise Conflict(
            f"only supported for `{KUBERNETES}`; the deployer is `{descriptor}`",
            hint="bind it: gtc op env-packs update",
        )
    if version_tuple(version)[0] != 1:
        raise Conflict(f"`{descriptor}` is not supported; this program is `{KUBERNETES}` >=1.0.0, <2.0.0")
    return path


def _read_answers(paths: EnvPaths, ref: str | None, env_id: str) -> Answers:
    """The answers that a binding refers to; the defaults if to none. Raises `Conflict` that says in which file."""
    if ref is None:
        return read_answers({}, env_id)
    found = _answers(paths, ref)
    try:
        return read_answers(found, env_id)
    except Conflict as error:
        where = f"the answers are in `{paths.ref(ref)}`"
        error.hint = where if error.hint is None else f"{error.hint}; {where}"
        raise


def _answers(paths: EnvPaths, ref: str) -> Json:
    again = f"answers_ref is a path below `{paths.root}`: write the file there, or bind another one with gtc op env-packs update"
    if not is_contained_ref(ref):
        raise Conflict(f"answers_ref `{ref}` leads out of the environment's directory", hint=again)
    path = paths.ref(ref)
    if not path.exists():
        raise Conflict(f"binding records answers_ref `{ref}`, but there is no file `{path}`", hint=again)
    if not real_path(path).is_relative_to(real_path(paths.root)):
        raise Conflict(f"answers_ref `{ref}` leads out of the environment's directory", hint=again)
    try:
        data = unmarked(read_file(path, _MAX_ANSWERS))
        answers = parse(data)
        twice = repeated_key(data)
        if twice is not None:
            raise ValueError(f"the key `{twice}` stands twice in one object")
        return answers
    except (OSError, ValueError) as error:
        raise Conflict(f"answers_ref `{ref}` cannot be read: {error}", hint=again) from error


def _secrets_bound(env: Environment) -> bool:
    binding = env.binding("secrets")
    if binding is None:
        return False
    path = binding.kind.partition("@")[0]
    if path != DEV_STORE:
        raise Conflict(
            f"pods cannot get their secrets from `{binding.kind}`; supported is `{DEV_STORE}`",
            hint="bring them as a Secret of the namespace, and answer its name as secrets_secret",
        )
    return True


def _dev_secrets(paths: EnvPaths) -> str | None:
    """The development store as base64, if there is one. Raises `Conflict`."""
    for place in DEV_SECRETS:
        file = paths.root / place
        try:
            data = read_file(file, MAX_DATA)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Conflict(f"the development secrets `{file}` cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise Conflict(f"the development secrets `{file}` are {error}") from None
        return base64.b64encode(data).decode()
    return None
