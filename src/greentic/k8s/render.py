"""From an environment to the objects of a cluster (formats: cluster 3). Pure.

Rules:
1. Twelve objects of the environment, one more with development secrets, then a Deployment and a Service for each revision that
   is present, in the order of the document. The order is that of the list, not that of applying.
2. A document that does not fit a ConfigMap, or is not to be in one, is in a registry if one is answered: pods get a pointer, and the
   projection is left out. What pods read is checked against the size that a cluster accepts before anything leaves this function.
3. More objects stand after those of the environment, and an autoscaler after a pair, only where answers ask for them.
4. Nothing in the objects depends on the moment: the same environment, answers and store give the same objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from greentic.ground.documents import JsonObject, compact
from greentic.ground.errors import Conflict
from greentic.k8s import names, pods
from greentic.k8s.answers import Answers
from greentic.k8s.exposed import exposing_objects
from greentic.k8s.network_policies import network_policies
from greentic.k8s.objects import member, metadata_of
from greentic.k8s.plan import MARKED, SECURITY, kinds_text
from greentic.k8s.scaling import accompanying, service_accounts
from greentic.model.delivery import delivery_of
from greentic.model.environment import DOCUMENT, Environment, Revision, document_digest
from greentic.model.pod_view import present_revisions, routed_ids
from greentic.model.pointer import POINTER_FILE, Pointer, pointer_to, read_pointer
from greentic.model.projection import RUNTIME_CONFIG_SCHEMA, RuntimeConfig, project

MAX_DATA = 1 << 20
"""Bytes that a ConfigMap or a Secret may hold."""


class DesiredObjects(NamedTuple):
    """What to render."""

    env: Environment
    """As pods get it (`model.pod_view.for_pods`), sealed where it is sealed."""
    answers: Answers
    store: str
    """The identity of the store that owns the objects."""
    secrets_bound: bool = False
    """Whether development secrets go to the pods."""
    dev_secrets: str | None = None
    """Those secrets, as base64; unknown when rendering without a cluster."""


def render(desired: DesiredObjects) -> list[JsonObject]:
    """All objects. Raises `Conflict` if pods would have to read more than a cluster accepts."""
    return list(rendering(desired))


def rendering(desired: DesiredObjects) -> Iterator[JsonObject]:
    """The same, one after another, for who does not keep them."""
    env, namespace = desired.env, desired.answers.namespace
    workers = (worker_objects(desired, revision) for revision in present_revisions(env))
    for things in chain([_environment_objects(desired)], workers):
        for thing in things:
            _check_size(thing, env)
            assert metadata_of(thing).get("namespace", namespace) == namespace
            yield thing


def pointed(answers: Answers, env: Environment, document: bytes) -> Pointer | None:
    """The pointer that pods get instead of a document, if they do (rule 2)."""
    repository = answers.environment_registry
    fits = len(DOCUMENT) + len(document) <= MAX_DATA
    if repository is None or (fits and not answers.environment_always_there):
        return None
    return pointer_to(env.environment_id, repository, document_digest(document), delivery_of(env).generation)


def digest_for_pods(env_store: JsonObject) -> str:
    """The digest of the document that a rendered `gtc-env-store` gives pods, itself or by a pointer."""
    data = member(env_store, "data")
    if POINTER_FILE in data:
        return read_pointer(str(data[POINTER_FILE]).encode()).document
    return document_digest(str(data.get(DOCUMENT)).encode())


def worker_objects(desired: DesiredObjects, revision: Revision) -> list[JsonObject]:
    """The objects of one revision: its pair, and what stands beside it."""
    env, answers, store = desired.env, desired.answers, desired.store
    deployment = pods.worker(env, revision, answers, answers.namespace, store, _secrets_hash(desired))
    pair = [deployment, pods.worker_service(env, revision, answers.namespace, store)]
    return [*pair, *accompanying(deployment, pods.worker_shape(answers, revision))]


def _secrets_hash(desired: DesiredObjects) -> str | None:
    return pods.secrets_hash(desired.dev_secrets) if desired.secrets_bound else None


def _environment_objects(desired: DesiredObjects) -> list[JsonObject]:
    env, answers, namespace = desired.env, desired.answers, desired.answers.namespace

    def labels(component: str) -> JsonObject:
        return names.component_labels(env.environment_id, component) | {names.STORE: desired.store}

    router_selector = names.component_labels(env.environment_id, "router")
    env_store, *projected = _documents(env, answers, labels("env-store"), labels("router"))
    router = pods.router(env, answers, namespace, labels("router"), _secrets_hash(desired))
    budget, *scaled = accompanying(router, answers.router)  # of routers there are always several
    objects: list[JsonObject] = [
        _namespace(namespace, labels("namespace")),
        env_store,
        *projected,
        router,
        _router_service(answers, namespace, labels("router"), router_selector),
        budget,
        *network_policies(env, answers, namespace, labels("network-policy")),
        *([_dev_secrets(desired, labels("dev-secrets"))] if desired.secrets_bound else []),
    ]
    shapes = [answers.router, *([answers.worker] if present_revisions(env) else [])]
    objects += [
        *service_accounts(shapes, env.environment_id, desired.store, namespace),
        *scaled,
        *exposing_objects(env, answers.exposure, namespace, labels("router-ingress")),
    ]
    kinds = {str(thing["kind"]) for thing in objects} & MARKED
    env_store["metadata"] = metadata_of(env_store) | {"annotations": {names.KINDS: kinds_text(kinds)}}
    return objects


def _namespace(name: str, labels: JsonObject) -> JsonObject:
    restricted: JsonObject = {f"{SECURITY}{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels | restricted}}


def _documents(env: Environment, answers: Answers, labels: JsonObject, of_router: JsonObject) -> list[JsonObject]:
    """What pods read: the document and its projection, or what points to the document (rule 2)."""
    document = compact(env)
    pointer = pointed(answers, env, document)
    if pointer is not None:
        return [_config_map(names.ENV_STORE, answers.namespace, labels, POINTER_FILE, compact(pointer).decode())]
    config = project(env) or RuntimeConfig(schema=RUNTIME_CONFIG_SCHEMA, env_id=env.environment_id, revisions=[])
    text = compact(config).decode()
    return [
        _config_map(names.ENV_STORE, answers.namespace, labels, DOCUMENT, document.decode()),
        _config_map(names.RUNTIME_CONFIG, answers.namespace, of_router, "runtime-config.json", text),
    ]


def _dev_secrets(desired: DesiredObjects, labels: JsonObject) -> JsonObject:
    secret: JsonObject = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": names.DEV_SECRETS, "namespace": desired.answers.namespace, "labels": labels},
    }
    if desired.dev_secrets is not None:
        secret["data"] = {pods.DEV_SECRETS_KEY: desired.dev_secrets}
    return secret


def _router_service(answers: Answers, namespace: str, labels: JsonObject, selector: JsonObject) -> JsonObject:
    """The way in. Without a store that routers share, a caller's next message has to find the one where its conversation waits."""
    thing = pods.service(names.ROUTER, namespace, labels, selector, answers.service_type)
    spec = thing["spec"]
    assert isinstance(spec, dict)
    spec["sessionAffinity"] = "ClientIP" if answers.redis_secret is None else "None"
    return thing


def _config_map(name: str, namespace: str, labels: JsonObject, key: str, text: str) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "data": {key: text},
    }


def _check_size(thing: JsonObject, env: Environment) -> None:
    data = thing.get("data")
    if not isinstance(data, dict):
        return
    size = sum(len(key) + len(str(value).encode()) for key, value in data.items())
    if size <= MAX_DATA:
        return
    routed = routed_ids(env)
    idle = [r.revision_id for r in present_revisions(env) if r.revision_id not in routed]
    metadata = thing["metadata"]
    name = metadata["name"] if isinstance(metadata, dict) else ""
    raise Conflict(
        f"{thing['kind']} `{name}` would hold {size} bytes, and a cluster accepts {MAX_DATA}; nothing was applied "
        f"({len(env.revisions)} revisions are present or routed, {len(idle)} of them without traffic)",
        hint=(
            f"archive what has no traffic: gtc op revisions archive {env.environment_id} revision_id={idle[0]}"
            + (f" (and {len(idle) - 1} more)" if len(idle) > 1 else "")
            if idle
            else "answer environment_registry: then the document lies there, and the ConfigMap points to it"
        ),
    )
