"""What a bound service account may do, and the objects that grant it (formats: cluster 6). Pure.

Rules:
1. One table feeds the Role, the capability list and the access reviews, so they cannot disagree.
2. Nothing outside the namespace. `list` and `watch` are there because deleting what is left over and waiting for health need them.
   Pods are asked what they serve (`pods/proxy`) and annotated, so that the kubelet looks at once (`patch`); a reconcile does without
   either.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.ground.documents import Json, JsonObject
from greentic.k8s import names

ACCOUNT, ROLE = "greentic-deployer", "greentic-deployer-min"

TABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("apps", "deployments", ("get", "create", "patch", "delete", "list", "watch")),
    ("", "services", ("get", "create", "patch", "delete", "list")),
    ("", "configmaps", ("get", "create", "patch", "delete", "list")),
    ("", "secrets", ("get", "create", "patch", "delete", "list")),
    ("", "serviceaccounts", ("get", "create", "patch", "delete", "list")),
    ("policy", "poddisruptionbudgets", ("get", "create", "patch", "delete", "list")),
    ("networking.k8s.io", "networkpolicies", ("get", "create", "patch", "delete", "list")),
    ("autoscaling", "horizontalpodautoscalers", ("get", "create", "patch", "delete", "list")),
    ("networking.k8s.io", "ingresses", ("get", "create", "patch", "delete", "list")),
    ("gateway.networking.k8s.io", "httproutes", ("get", "create", "patch", "delete", "list")),
    ("", "pods", ("get", "list", "watch", "patch")),
    ("", "pods/log", ("get",)),
    ("", "pods/proxy", ("get",)),
)


class Operation(NamedTuple):
    """One thing that the deployer does."""

    group: str
    resource: str
    verb: str

    @property
    def capability(self) -> str:
        return f"k8s.rbac.allow:{self.group or 'core'}/{self.resource}:{self.verb}"

    def review(self, namespace: str) -> JsonObject:
        """The access review that asks whether the identity may do it."""
        resource, _, subresource = self.resource.partition("/")
        attributes: JsonObject = {"namespace": namespace, "group": self.group, "resource": resource, "verb": self.verb}
        if subresource:
            attributes["subresource"] = subresource
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }


def operations() -> list[Operation]:
    return [Operation(group, resource, verb) for group, resource, verbs in TABLE for verb in verbs]


def grants(env_id: str, namespace: str, store: str) -> list[JsonObject]:
    """Service account, Role and RoleBinding that let the deployer do its work and nothing else."""
    labels = names.owner_labels(env_id, store)

    def head(kind: str, name: str, version: str = "v1") -> JsonObject:
        metadata: JsonObject = {"name": name, "namespace": namespace, "labels": dict(labels)}
        return {"apiVersion": version, "kind": kind, "metadata": metadata}

    rbac = "rbac.authorization.k8s.io"
    rules: list[Json] = [
        {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for group, resource, verbs in TABLE
    ]
    subject: JsonObject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
    return [
        head("ServiceAccount", ACCOUNT),
        head("Role", ROLE, f"{rbac}/v1") | {"rules": rules},
        head("RoleBinding", ROLE, f"{rbac}/v1")
        | {"roleRef": {"apiGroup": rbac, "kind": "Role", "name": ROLE}, "subjects": [subject]},
    ]


def identity_secret(env_id: str, namespace: str, store: str, bearer_base64: str) -> JsonObject:
    """Where the bound token is kept in the cluster, for another machine with this environment."""
    labels = names.owner_labels(env_id, store) | {names.COMPONENT: "deployer-identity"}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": names.IDENTITY_SECRET, "namespace": namespace, "labels": labels},
        "data": {"bearer": bearer_base64},
    }
