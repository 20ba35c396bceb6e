"""What an operator needs in a cluster: definition, account, rights, fence, and the operator itself (formats: operator 5). Pure.

Rules:
1. Everything but the definition of `Environment` is in the one namespace that the operator keeps; no right reaches beyond it.
2. The operator's own objects carry none of an environment's labels, so that it never prunes itself.
3. Its pod meets the restricted profile, as workers do, and has a token of the API server, which they do not have.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.controller.election import LEASE as NAME
from greentic.controller.wish import KEYS
from greentic.ground.documents import Json, JsonObject
from greentic.k8s.pods import HOME, REGISTRY_DIR, literal
from greentic.shape.pod_settings import USER
from greentic.shape.restricted import restricted_container, restricted_pod

PORT = 8081
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
    namespace: str
    image: str
    spec: JsonObject
    """The wish."""
    kind: str = "Environment"
    replicas: int = 2
    registry_secret: str | None = None
    insecure_registries: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    """Where the published environment and the API server are, beside 443 and 6443."""
    pull_policy: str | None = None


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
    metadata: JsonObject = {"name": asked.name, "namespace": asked.namespace}
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
            "metadata": {"name": name, "namespace": asked.namespace, "labels": dict(labels)},
        }

    table = [row for row in TABLE if asked.kind == "Environment" or row[0] != GROUP]
    rules: list[Json] = [{"apiGroups": [g], "resources": [r], "verbs": list(verbs)} for g, r, verbs in table]
    subject: JsonObject = {"kind": "ServiceAccount", "name": NAME, "namespace": asked.namespace}
    namespace: JsonObject = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": asked.namespace}}
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
    ports = sorted({443, 6443, *asked.ports})
    out: list[Json] = [{"protocol": "TCP", "port": port} for port in ports]
    dns: list[Json] = [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]
    inward: list[Json] = [{"protocol": "TCP", "port": PORT}]
    return {
        "podSelector": {"matchLabels": dict(labels)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": inward}],
        "egress": [{"ports": out}, {"ports": dns}],
    }


def _variables(told: dict[str, str]) -> list[Json]:
    return [{"name": name, "value": literal(value)} for name, value in told.items()]


def _deployment(asked: Asked, labels: JsonObject) -> JsonObject:
    mounts: list[Json] = [{"name": "home", "mountPath": HOME}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  of the pod
    volumes: list[Json] = [{"name": "home", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    told = {"HOME": HOME}
    if asked.insecure_registries:
        told["GREENTIC_OCI_INSECURE_REGISTRIES"] = ",".join(asked.insecure_registries)
    if asked.registry_secret is not None:
        items: list[Json] = [{"key": ".dockerconfigjson", "path": "config.json"}]
        mounts.append({"name": "registry", "mountPath": REGISTRY_DIR, "readOnly": True})
        volumes.append({"name": "registry", "secret": {"secretName": asked.registry_secret, "items": items}})
        told["DOCKER_CONFIG"] = REGISTRY_DIR
    own: JsonObject = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}

    def probe(path: str) -> JsonObject:
        return {
            "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
            "periodSeconds": 10,
            "timeoutSeconds": 3,
            "failureThreshold": 6,
        }

    args: list[Json] = ["--name", literal(asked.name), "--namespace", literal(asked.namespace)]
    container: JsonObject = {
        "name": "operator",
        "image": asked.image,
        "command": ["/usr/local/bin/greentic-operator"],
        "args": [*args, "--kind", asked.kind, "--identity", "$(POD_NAME)"],
        "env": [*_variables(told), own, ARENAS],
        "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "securityContext": restricted_container(),
        "livenessProbe": probe("/livez"),
        "readinessProbe": probe("/readyz"),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if asked.pull_policy is not None:
        container["imagePullPolicy"] = asked.pull_policy
    pod: JsonObject = {
        "serviceAccountName": NAME,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": restricted_pod(USER),
        "containers": [container],
        "volumes": volumes,
    }
    return {
        "replicas": asked.replicas,
        "selector": {"matchLabels": dict(labels)},
        "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
    }
