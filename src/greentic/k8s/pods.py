"""Deployments and Services of the router and of workers (formats: cluster 3, 4). Pure.

Rules:
1. Router and workers run the same image with the same arguments; a worker also learns which revision it is for.
2. Pods meet the *restricted* pod security profile, get no token of the API server, and have no init container: the environment
   document is mounted as a directory and read by the worker itself.
3. A pod follows the document that is mounted, so nothing of the document is in the template but what a running pod cannot follow:
   its environment, its own revision, and how long it may take to finish. Only a change of the template replaces pods, one at a
   time, a new one ready before an old one stops; a stopping pod keeps serving until nobody sends to it any more.
4. Started: the bundles are pulled, verified and loaded, which may take long. Ready: it serves and is not stopping. Alive: it
   answers at all.
"""

from __future__ import annotations

import hashlib

from greentic.ground.documents import Json, JsonObject, compact
from greentic.ground.errors import Conflict
from greentic.k8s import names
from greentic.k8s.answers import Answers
from greentic.k8s.objects import objects_in
from greentic.model.environment import Environment, Revision
from greentic.model.pod_view import is_left
from greentic.shape.placement import Spread
from greentic.shape.pod_place import placed, resources
from greentic.shape.pod_settings import CA_KEY
from greentic.shape.pod_shape import Shape
from greentic.shape.restricted import restricted_container, restricted_pod

PORT = 8080
METRICS_PORT = 9464
"""Where scrapers ask, if some may."""
HOME = "/var/greentic"
SEED, SESSION = "/etc/greentic/env-store", "/etc/greentic/session"
DEV_SECRETS_DIR, DEV_SECRETS_KEY = "/etc/greentic/dev-secrets", ".dev.secrets.env"
REGISTRY_DIR = "/etc/greentic/registry"
SECRETS_DIR, TOKENS_DIR, TRUST_DIR = "/etc/greentic/secrets", "/etc/greentic/ingress", "/etc/greentic/trust"
AUTHORITIES_DIR = "/etc/greentic/ca"
STARTUP_SECONDS = 600
"""How long a pod may take to pull and load before it counts as failed; as long as a rollout may stand still."""
FINISH_SECONDS = 30
"""How long running requests may take once the door is closed (the worker's own limit)."""
ROUTER_FINISH_SECONDS = (FINISH_SECONDS, 300, 3600)
"""The same for routers, in steps: a grace period cannot be changed in a running pod, and revisions come and go."""
NO_SECRETS = hashlib.sha256(b"<empty>").hexdigest()


def secrets_hash(encoded: str | None) -> str:
    """The hash of the development store's base64 text (formats: cluster 3)."""
    return NO_SECRETS if encoded is None else hashlib.sha256(encoded.encode()).hexdigest()


def checksum(pod: JsonObject, dev_store: str | None, shape: Shape) -> str:
    """What changes exactly when pods have to be replaced (rule 3): the hash of the pod as it is stated here with its answered labels and
    annotations, whatever webhooks make of it, and of the development secrets."""
    marks: list[Json] = [dict[str, Json](shape.labels), dict[str, Json](shape.annotations)]
    return hashlib.sha256(compact([dev_store, pod, *(marks if any(marks) else [])], sort=True)).hexdigest()


def worker_shape(answers: Answers, revision: Revision) -> Shape:
    """The shape of a revision's worker; one that was left rests, with everything of it at hand."""
    return answers.worker._replace(replicas=0, autoscale=None) if is_left(revision) else answers.worker


def router(env: Environment, answers: Answers, namespace: str, labels: JsonObject, dev_store: str | None) -> JsonObject:
    """The router's Deployment. `dev_store` is the hash of the development secrets, if there are any."""
    selector = names.component_labels(env.environment_id, "router")
    longest = max((_finish(r) for r in env.revisions), default=FINISH_SECONDS)
    finish = next(s for s in ROUTER_FINISH_SECONDS if s >= longest)
    spread = [Spread(1, key, "ScheduleAnyway") for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")]
    shape = answers.router
    if shape.topology_spread is None:
        shape = shape._replace(topology_spread=spread)
    pod = _pod(env, answers, shape, "router", [], dev_store, finish, selector)
    return _deployment(names.ROUTER, namespace, labels, shape, selector, selector, dev_store, pod)


def worker(
    env: Environment, revision: Revision, answers: Answers, namespace: str, store: str, dev_store: str | None
) -> JsonObject:
    """The Deployment of one revision's worker."""
    own = names.worker_labels(env.environment_id, revision)
    identity = {
        "GREENTIC_REVISION_ID": revision.revision_id,
        "GREENTIC_DEPLOYMENT_ID": revision.deployment_id,
        "GREENTIC_BUNDLE_ID": revision.bundle_id,
        "GREENTIC_BUNDLE_DIGEST": revision.bundle_digest,
        "GREENTIC_REVISION_SCOPE": "own",
    }
    more: list[Json] = [{"name": name, "value": literal(value)} for name, value in identity.items()]
    selector: JsonObject = {names.REVISION: names.label_value(revision.revision_id)}
    pod = _pod(env, answers, answers.worker, "worker", more, dev_store, _finish(revision), selector)
    name = names.worker_name(revision.revision_id)
    shape = worker_shape(answers, revision)
    return _deployment(name, namespace, own | {names.STORE: store}, shape, selector, own, dev_store, pod)


def _finish(revision: Revision) -> int:
    """How long requests of a revision may take to end."""
    return max(FINISH_SECONDS, min(revision.drain_seconds, 3600))


def service(name: str, namespace: str, labels: JsonObject, selector: JsonObject, kind: str = "ClusterIP") -> JsonObject:
    """A Service on the workers' port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "type": kind,
            "selector": dict(selector),
            # `protocol` is written out: older servers refuse to merge a port without it
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": PORT}],
        },
    }


def worker_service(env: Environment, revision: Revision, namespace: str, store: str) -> JsonObject:
    labels = names.worker_labels(env.environment_id, revision) | {names.STORE: store}
    selector: JsonObject = {names.REVISION: names.label_value(revision.revision_id)}
    return service(names.worker_name(revision.revision_id), namespace, labels, selector)


def _deployment(
    name: str,
    namespace: str,
    labels: JsonObject,
    shape: Shape,
    selector: JsonObject,
    pod_labels: JsonObject,
    dev_store: str | None,
    pod: JsonObject,
) -> JsonObject:
    seen = checksum(pod, dev_store, shape)
    annotations: JsonObject = {**shape.annotations, names.CHECKSUM: seen, **_scraping(pod)}
    replicas: JsonObject = {} if shape.autoscale is not None else {"replicas": shape.replicas}
    if dev_store is not None:
        annotations[names.DEV_STORE_HASH] = dev_store
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**shape.labels, **labels},
            # what `kubectl rollout history` shows for each replacement
            "annotations": {"kubernetes.io/change-cause": f"template {seen[:12]}, image {_image(pod)}"},
        },
        "spec": {
            **replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": STARTUP_SECONDS,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": dict(selector)},
            "template": {
                "metadata": {"labels": {**shape.labels, **pod_labels}, "annotations": annotations},
                "spec": pod,
            },
        },
    }


def _image(pod: JsonObject) -> str:
    return str(objects_in(pod["containers"])[0]["image"])


def _pod(
    env: Environment, answers: Answers, shape: Shape, component: str, more: list[Json], dev_store: str | None, finish: int,
    selector: JsonObject,
) -> JsonObject:  # fmt: skip
    home = answers.settings.router_home if component == "router" else answers.settings.worker_home
    mounts, volumes, mounted = _mounts(answers, home, dev_store is not None)
    container: JsonObject = {
        "name": component,
        "image": answers.runtime_image,
        "args": _arguments(env.environment_id),
        "env": with_answered(
            [*_variables(env.environment_id, answers, shape, finish), *mounted, *more], shape, component
        ),
        "ports": _ports(answers),
        "resources": resources(shape),
        "securityContext": restricted_container(),
        "startupProbe": _probe("/livez", period=2, failures=STARTUP_SECONDS // 2),
        "readinessProbe": _probe("/readyz", period=2, failures=3),
        "livenessProbe": _probe("/livez", period=10, failures=6),
        # what a worker prints when it cannot start is why it ended
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if answers.image_pull_policy is not None:
        container["imagePullPolicy"] = answers.image_pull_policy
    pod: JsonObject = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": answers.drain_delay_seconds + finish + 5,
        "securityContext": restricted_pod(answers.settings.user),
        "containers": [container],
        "volumes": volumes,
    }
    if answers.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in answers.image_pull_secrets]
    return pod | placed(shape, selector)


_TOLD_OTHERWISE = {"GREENTIC_ENV", "GREENTIC_ENV_FROM", "GREENTIC_ENV_FROM_SECONDS"}
"""What a pod serves comes by its arguments and the ConfigMap."""


def with_answered(own: list[Json], shape: Shape, component: str) -> list[Json]:
    """A pod's variables with the answered ones. Raises `Conflict` for one that the pod is told already."""
    taken = {variable["name"] for variable in objects_in(own)} | _TOLD_OTHERWISE
    for name in shape.env:
        if name in taken:
            raise Conflict(
                f"invalid binding answers: {component}.env.{name}: pods are told it already",
                hint="answer the key that stands for it (docs/kubernetes.md), or leave it out",
            )
    answered: list[Json] = [{"name": name, "value": literal(value)} for name, value in shape.env.items()]
    return own + answered


def _ports(answers: Answers) -> list[Json]:
    ports: list[Json] = [{"name": "http", "containerPort": PORT, "protocol": "TCP"}]
    if answers.metrics_namespaces:
        ports.append({"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"})
    return ports


def _scraping(pod: JsonObject) -> JsonObject:
    """The annotations that scrapers look for, where a pod has a port for them."""
    if len(objects_in(objects_in(pod["containers"])[0]["ports"])) == 1:
        return {}
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT), "prometheus.io/path": "/metrics"}


def _probe(path: str, *, period: int, failures: int) -> JsonObject:
    get: JsonObject = {"path": path, "port": PORT, "scheme": "HTTP"}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures}


def literal(text: str) -> str:
    """A text that stands for itself among a pod's arguments and variables, where `$(NAME)` is another variable's value."""
    return text.replace("$", "$$")


def _arguments(env_id: str) -> list[Json]:
    return ["start", "--env", literal(env_id)]


def _variables(env_id: str, answers: Answers, shape: Shape, finish: int) -> list[Json]:
    told = {
        "GREENTIC_ENV_ID": env_id,
        "HOME": HOME,
        "GREENTIC_GATEWAY_LISTEN_ADDR": "0.0.0.0",  # noqa: S104  a pod's own address
        "GREENTIC_GATEWAY_PORT": str(PORT),
        "GREENTIC_STRICT_PORT": "1",
        "GREENTIC_SEED_DIR": SEED,
        "GREENTIC_DRAIN_DELAY_SECONDS": str(answers.drain_delay_seconds),
        "GREENTIC_FINISH_SECONDS": str(finish),
        "GREENTIC_SIGNING_KEY_FILE": f"{SESSION}/{names.SESSION_KEY}",
        # images of the existing runtime unpack damaged files under a CPU limit without it
        "RAYON_NUM_THREADS": "4",
        **answers.settings.variables(shape),
    }
    if answers.metrics_namespaces:
        told["GREENTIC_METRICS_ADDR"] = f"0.0.0.0:{METRICS_PORT}"
    if answers.oci_insecure_registries:
        told["GREENTIC_OCI_INSECURE_REGISTRIES"] = ",".join(answers.oci_insecure_registries)
    return [{"name": name, "value": literal(value)} for name, value in told.items()]


def _mounts(answers: Answers, home: str | None, dev_secrets: bool) -> tuple[list[Json], list[Json], list[Json]]:
    """Volume mounts, volumes, and the variables that point to them."""
    mounts: list[Json] = []
    volumes: list[Json] = []
    variables: list[Json] = []

    def add(name: str, path: str, source: JsonObject, *, read_only: bool = True) -> None:
        mount: JsonObject = {"name": name, "mountPath": path}
        if read_only:
            mount["readOnly"] = True
        mounts.append(mount)
        volumes.append({"name": name, **source})

    def tell(name: str, value: str) -> None:
        variables.append({"name": name, "value": value})

    add("greentic-home", HOME, _scratch(home), read_only=False)
    add("tmp", "/tmp", _scratch(answers.settings.tmp_size), read_only=False)  # noqa: S108  of the pod
    add("env-store", SEED, {"configMap": {"name": names.ENV_STORE}})
    add("session", SESSION, {"secret": {"secretName": names.SESSION_KEY, "optional": True}})
    if dev_secrets:
        add("dev-secrets", DEV_SECRETS_DIR, {"secret": {"secretName": names.DEV_SECRETS, "optional": True}})
        tell("GREENTIC_DEV_SECRETS_PATH", f"{DEV_SECRETS_DIR}/{DEV_SECRETS_KEY}")
    if answers.secrets_secret is not None:
        add("secrets", SECRETS_DIR, {"secret": {"secretName": answers.secrets_secret}})
        tell("GREENTIC_SECRETS_DIR", SECRETS_DIR)
    if answers.ingress_tokens_secret is not None:
        add("ingress-tokens", TOKENS_DIR, {"secret": {"secretName": answers.ingress_tokens_secret}})
        tell("GREENTIC_INGRESS_TOKENS", f"{TOKENS_DIR}/ingress-tokens.json")
        tell("GREENTIC_TRUST_LOOPBACK", "off")  # a proxy in the pod would speak for everybody
    if answers.registry_secret is not None:
        items: list[Json] = [{"key": ".dockerconfigjson", "path": "config.json"}]
        add("registry", REGISTRY_DIR, {"secret": {"secretName": answers.registry_secret, "items": items}})
        tell("DOCKER_CONFIG", REGISTRY_DIR)
    if answers.trust_anchor_config_map is not None:
        add("trust", TRUST_DIR, {"configMap": {"name": answers.trust_anchor_config_map}})
        tell("GREENTIC_TRUST_ANCHOR", f"{TRUST_DIR}/trust-anchor.json")
    if answers.settings.extra_ca is not None:
        add("authorities", AUTHORITIES_DIR, {"configMap": {"name": answers.settings.extra_ca}})
        tell("GREENTIC_CA_FILES", f"{AUTHORITIES_DIR}/{CA_KEY}")
    if answers.redis_secret is not None:
        reference: JsonObject = {"secretKeyRef": {"name": answers.redis_secret, "key": "url"}}
        variables.append({"name": "GREENTIC_RUNNER_REDIS_URL", "valueFrom": reference})
    return mounts, volumes, variables


def _scratch(size: str | None) -> JsonObject:
    """A volume that is empty at first, and goes with the pod."""
    return {"emptyDir": {} if size is None else {"sizeLimit": size}}
