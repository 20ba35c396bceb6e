"""What an operator needs in a cluster: definition, account, rights, fence, and the operator itself (formats: operator 5). Pure.

Rules:
1. Everything but the definition of `Environment` is in the one namespace that the operator keeps; no right reaches beyond it.
2. The operator's own objects carry none of an environment's labels, so that it never prunes itself.
3. Its pod meets the restricted profile, as workers do, and has a token of the API server, which they do not have.
4. Its shape is answered as that of workers. Where it has a proxy the fence lets it there, and the API server is not asked through it.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from greentic.controller.election import LEASE as NAME
from greentic.controller.wish import KEYS
from greentic.ground.documents import Json, JsonObject
from greentic.k8s.answers import Answers
from greentic.k8s.pods import AUTHORITIES_DIR, HOME, REGISTRY_DIR, literal, with_answered
from greentic.shape.pod_place import placed, resources
from greentic.shape.pod_settings import CA_KEY
from greentic.shape.pod_shape import Shape
from greentic.shape.restricted import restricted_container, restricted_pod

PORT = 8081
NO_PROXY, API_SERVER = "NO_PROXY", "$(KUBERNETES_SERVICE_HOST)"
"""The kubelet puts the address there."""
GROUP, VERSION = "greentic.ai", "v1alpha1"
WRITTEN = ("get", "list", "watch", "create", "patch", "delete")

ARENAS: JsonObject = {"name": "MALLOC_ARENA_MAX", "value": "2"}
"""For the C library: with a heap for each thread an operator of many revisions holds a third more."""
TABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("apps", "deployments", WRITTEN),
    ("", "services", WRITTEN),
    ("", "configmaps", WRITTEN),
    ("", "secrets", ("get", "list", "create", "patch", "delete")),
    ("policy", "poddisruptionbudgets", WRITTEN),
    ("networking.k8s.io", "networkpolicies", WRITTEN),
    ("networking.k8s.io", "ingresses", WRITTEN),
    ("gateway.networking.k8s.io", "httproutes", WRITTEN),
    ("autoscaling", "horizontalpodautoscalers", WRITTEN),
    ("", "serviceaccounts", WRITTEN),
    ("", "pods", ("get", "list", "watch", "patch")),
    ("", "pods/proxy", ("get",)),
    ("", "events", ("create",)),
    ("coordination.k8s.io", "leases", ("get", "create", "update")),
    (GROUP, "environments", ("get", "list", "watch")),
    (GROUP, "environments/status", ("patch",)),
)
"""What it may do, in its namespace."""


class Asked(NamedTuple):
    """What to render."""

    name: str
    image: str
    answers: Answers
    """What they say of the cluster (namespace, pulling, users, authorities) holds for the operator's pod, too."""
    spec: JsonObject
    """The wish."""
    kind: str = "Environment"
    replicas: int = 2
    ports: tuple[int, ...] = ()
    """Where the published environment and the API server are, beside 443 and 6443."""


def definition() -> JsonObject:
    """The definition of `Environment`."""
    text, switch = {"type": "string"}, {"type": "boolean"}
    types: dict[str, JsonObject] = {
        "everySeconds": {"type": "number"}, "paused": dict(switch), "dryRun": dict(switch), "adopt": dict(switch),
        "answers": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }  # fmt: skip
    properties: JsonObject = {key: {**types.get(key, text), "description": line} for key, line in KEYS.items()}
    whatever: JsonObject = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema: JsonObject = {
        "type": "object",
        "properties": {"spec": {"type": "object", "required": ["from"], "properties": properties}, "status": whatever},
    }

    def column(name: str, path: str, kind: str = "string") -> JsonObject:
        return {"name": name, "type": kind, "jsonPath": path}

    def condition(name: str) -> JsonObject:
        return column(name, f".status.conditions[?(@.type=='{name}')].status")

    version: JsonObject = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            column("Generation", ".status.published.generation", "integer"),
            *map(condition, ("Ready", "Synced", "Degraded")),
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"environments.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "Environment",
                "listKind": "EnvironmentList",
                "plural": "environments",
                "singular": "environment",
            },
            "versions": [version],
        },
    }


def wish_object(asked: Asked, spec_text: str) -> JsonObject:
    """The object that holds the wish."""
    metadata: JsonObject = {"name": asked.name, "namespace": asked.answers.namespace}
    if asked.kind == "ConfigMap":
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"spec.yaml": spec_text}}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Environment", "metadata": metadata, "spec": asked.spec}


def rendered(asked: Asked, spec_text: str) -> list[JsonObject]:
    """All objects, in the order of applying."""
    labels: JsonObject = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": asked.name}
    rbac = "rbac.authorization.k8s.io"

    def head(version: str, kind: str, name: str = NAME) -> JsonObject:
        return {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "namespace": asked.answers.namespace, "labels": dict(labels)},
        }

    table = [row for row in TABLE if asked.kind == "Environment" or row[0] != GROUP]
    rules: list[Json] = [{"apiGroups": [g], "resources": [r], "verbs": list(verbs)} for g, r, verbs in table]
    subject: JsonObject = {"kind": "ServiceAccount", "name": NAME, "namespace": asked.answers.namespace}
    namespace: JsonObject = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": asked.answers.namespace}}
    objects = [definition()] if asked.kind == "Environment" else []
    return [
        *objects,
        namespace,
        head("v1", "ServiceAccount"),
        head(f"{rbac}/v1", "Role") | {"rules": rules},
        head(f"{rbac}/v1", "RoleBinding")
        | {"roleRef": {"apiGroup": rbac, "kind": "Role", "name": NAME}, "subjects": [subject]},
        head("networking.k8s.io/v1", "NetworkPolicy") | {"spec": _fence(asked, labels)},
        wish_object(asked, spec_text),
        head("apps/v1", "Deployment") | {"spec": _deployment(asked, labels)},
    ]


def _fence(asked: Asked, labels: JsonObject) -> JsonObject:
    """Who reaches the operator, and whom it reaches: the namespace denies everything else."""
    ports = sorted({443, 6443, *asked.ports, *(_port(url) for url in _proxies(asked.answers.operator).values())})
    out: list[Json] = [{"protocol": "TCP", "port": port} for port in ports]
    dns: list[Json] = [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]
    return {
        "podSelector": {"matchLabels": dict(labels)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": PORT}]}],
        "egress": [{"ports": out}, {"ports": dns}],
    }


def _deployment(asked: Asked, labels: JsonObject) -> JsonObject:
    shape = asked.answers.operator
    metadata: JsonObject = {"labels": {**shape.labels, **labels}}
    if shape.annotations:
        metadata["annotations"] = dict[str, Json](shape.annotations)
    return {
        "replicas": asked.replicas,
        "selector": {"matchLabels": dict(labels)},
        "template": {"metadata": metadata, "spec": _pod(asked) | placed(shape, labels)},
    }


def _pod(asked: Asked) -> JsonObject:
    answers = asked.answers
    mounts, volumes, told = _mounted(answers)
    own: JsonObject = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}

    def probe(path: str) -> JsonObject:
        get: JsonObject = {"path": path, "port": PORT, "scheme": "HTTP"}
        return {"httpGet": get, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 6}

    env: list[Json] = [{"name": name, "value": literal(value)} for name, value in told.items()]
    env += [own, ARENAS]
    args: list[Json] = ["--name", literal(asked.name), "--namespace", literal(answers.namespace)]
    container: JsonObject = {
        "name": "operator",
        "image": asked.image,
        "command": ["/usr/local/bin/greentic-operator"],
        "args": [*args, "--kind", asked.kind, "--identity", "$(POD_NAME)"],
        "env": _around_proxies(with_answered(env, answers.operator, "operator"), answers.operator),
        "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
        "resources": resources(answers.operator),
        "securityContext": restricted_container(),
        "livenessProbe": probe("/livez"),
        "readinessProbe": probe("/readyz"),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if answers.image_pull_policy is not None:
        container["imagePullPolicy"] = answers.image_pull_policy
    pod: JsonObject = {
        "serviceAccountName": NAME,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": restricted_pod(answers.settings.user),
        "containers": [container],
        "volumes": volumes,
    }
    if answers.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in answers.image_pull_secrets]
    return pod


def _mounted(answers: Answers) -> tuple[list[Json], list[Json], dict[str, str]]:
    """Mounts, volumes, and the variables that tell of them."""
    mounts: list[Json] = [{"name": "home", "mountPath": HOME}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  of the pod
    volumes: list[Json] = [{"name": "home", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    told = {"HOME": HOME}

    def add(name: str, path: str, source: JsonObject) -> None:
        mounts.append({"name": name, "mountPath": path, "readOnly": True})
        volumes.append({"name": name, **source})

    if answers.oci_insecure_registries:
        told["GREENTIC_OCI_INSECURE_REGISTRIES"] = ",".join(answers.oci_insecure_registries)
    if answers.registry_secret is not None:
        items: list[Json] = [{"key": ".dockerconfigjson", "path": "config.json"}]
        add("registry", REGISTRY_DIR, {"secret": {"secretName": answers.registry_secret, "items": items}})
        told["DOCKER_CONFIG"] = REGISTRY_DIR
    if answers.settings.extra_ca is not None:
        add("authorities", AUTHORITIES_DIR, {"configMap": {"name": answers.settings.extra_ca}})
        told["GREENTIC_CA_FILES"] = f"{AUTHORITIES_DIR}/{CA_KEY}"
    return mounts, volumes, told


def _proxies(shape: Shape) -> dict[str, str]:
    """The answered proxies."""
    return {k: v for k, v in shape.env.items() if k.upper().endswith("_PROXY") and k.upper() != NO_PROXY and v}


def _port(proxy: str) -> int:
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}").port or 80


def _around_proxies(env: list[Json], shape: Shape) -> list[Json]:
    """The variables, where the API server of the cluster is asked around a proxy (rule 4)."""
    if not _proxies(shape):
        return env
    name = next((k for k in shape.env if k.upper() == NO_PROXY), NO_PROXY)
    beside = shape.env.get(name, "")
    told: JsonObject = {"name": name, "value": ",".join([API_SERVER, *([literal(beside)] if beside else [])])}
    return [*(v for v in env if not (isinstance(v, dict) and v["name"] == name)), told]
