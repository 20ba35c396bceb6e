"""The seam to a cluster: what reconciling needs of an API server, and the errors that it answers with.

Rules:
1. Objects are plain JSON. Which kinds exist here is a closed table; nothing else is ever asked for.
2. Every error is a `Conflict` for programs, with what the server said, about which object, and the next step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, cast

from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import Conflict


class Kind(NamedTuple):
    """One kind of object, and where it is served."""

    name: str
    plural: str
    group: str = ""
    versions: tuple[str, ...] = ("v1",)
    """Versions that this program can write, best first."""
    namespaced: bool = True

    def api_version(self, version: str | None = None) -> str:
        chosen = version or self.versions[0]
        return f"{self.group}/{chosen}" if self.group else chosen


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Namespace", "namespaces", namespaced=False),
        Kind("ServiceAccount", "serviceaccounts"),
        Kind("Role", "roles", "rbac.authorization.k8s.io"),
        Kind("RoleBinding", "rolebindings", "rbac.authorization.k8s.io"),
        Kind("Secret", "secrets"),
        Kind("ConfigMap", "configmaps"),
        Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io"),
        Kind("Service", "services"),
        Kind("PodDisruptionBudget", "poddisruptionbudgets", "policy", ("v1", "v1beta1")),
        Kind("Deployment", "deployments", "apps"),
        Kind("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling", ("v2", "v2beta2")),
        Kind("Ingress", "ingresses", "networking.k8s.io"),
        Kind("HTTPRoute", "httproutes", "gateway.networking.k8s.io", ("v1", "v1beta1")),
        Kind("Gateway", "gateways", "gateway.networking.k8s.io", ("v1", "v1beta1")),
        Kind("Pod", "pods"),
        Kind("CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io", namespaced=False),
        Kind("Environment", "environments", "greentic.ai", ("v1alpha1",)),
        Kind("Lease", "leases", "coordination.k8s.io"),
        Kind("Event", "events"),
    )
}
"""In the order in which objects are applied: permissions and policies before configuration, workloads, then what leads to them."""
ADDED: dict[str, str] = {
    "HTTPRoute": "install the Gateway API (its custom resource definitions and a controller), or answer expose: ingress",
}
"""Kinds that a cluster has only if somebody brought them, with what to do."""


class Ref(NamedTuple):
    """What names an object in a cluster."""

    kind: str
    name: str
    namespace: str | None

    def __str__(self) -> str:
        return f"{self.kind} `{self.name}`" + (f" in namespace `{self.namespace}`" if self.namespace else "")


def objects_in(value: Json) -> list[JsonObject]:
    """The objects of a list; none where there is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def ref_of(thing: JsonObject) -> Ref:
    """The reference of an object. Raises `Conflict` for a kind that this program does not handle."""
    metadata = metadata_of(thing)
    kind = KINDS.get(str(thing.get("kind")))
    if kind is None:
        raise Conflict(f"unsupported object `{thing.get('apiVersion')}/{thing.get('kind')}`")
    namespace = metadata.get("namespace")
    if kind.namespaced and not isinstance(namespace, str):
        raise Conflict(f"{kind.name} `{metadata.get('name')}` has no metadata.namespace")
    return Ref(kind.name, str(metadata.get("name")), namespace if isinstance(namespace, str) else None)


def metadata_of(thing: JsonObject) -> JsonObject:
    metadata = thing.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def labels_of(thing: JsonObject) -> dict[str, str]:
    labels = metadata_of(thing).get("labels")
    return cast("dict[str, str]", labels) if isinstance(labels, dict) else {}


def member(thing: JsonObject, *path: str) -> JsonObject:
    """An object inside an object; empty where there is none."""
    found: JsonObject = thing
    for part in path:
        inner = found.get(part)
        found = inner if isinstance(inner, dict) else {}
    return found


class ClusterUnreachable(Conflict):
    """The API server gave no answer."""


class FieldConflict(NamedTuple):
    """A field that somebody else manages."""

    manager: str
    field: str


class ApiRefused(Conflict):
    """The API server answered no."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        reason: str = "",
        conflicts: tuple[FieldConflict, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.reason, self.conflicts = status, reason, conflicts

    @property
    def forbidden(self) -> bool:
        return self.status == 403 and not (self.denied or self.over_quota or self.leaving)

    @property
    def leaving(self) -> bool:
        """Whether the namespace is being deleted, which servers call forbidden as well."""
        return self.status == 403 and "because it is being terminated" in self.message

    @property
    def over_quota(self) -> bool:
        """Whether a quota of the namespace has no room, which servers call forbidden as well."""
        return self.status == 403 and "exceeded quota" in self.message

    @property
    def denied(self) -> bool:
        """Whether an admission webhook or policy said no."""
        return "denied the request" in self.message or "denied request" in self.message

    @property
    def immutable(self) -> bool:
        return self.status == 422 and not (self.denied or self.another) and "field is immutable" in self.message

    @property
    def another(self) -> bool:
        """Whether the object is not the one that the request was about: made, replaced or deleted meanwhile."""
        replaced = self.status == 422 and "metadata.uid: Invalid value" in self.message
        return replaced or (self.status == 409 and not self.conflicts)

    @property
    def unconditional(self) -> bool:
        """Whether this kind is created without a condition only: Services, by servers before 1.23."""
        return "resourceVersion should not be set on objects to be created" in self.message

    @property
    def cause(self) -> str:
        """What it is in a word, for a condition."""
        if self.over_quota:
            return "QuotaExceeded"
        if self.leaving:
            return "NamespaceTerminating"
        return "RightsMissing" if self.forbidden else "AdmissionDenied" if self.denied else "ApiRefused"


class Listed(NamedTuple):
    """A list, and the version of the cluster's state that it shows."""

    items: list[JsonObject]
    resource_version: str


class Event(NamedTuple):
    """What a watch tells: ADDED, MODIFIED, DELETED, and the object."""

    type: str
    thing: JsonObject


class Cluster(Protocol):
    """An API server, reached as one identity. Every method raises `ClusterUnreachable` or `ApiRefused`."""

    def versions(self, group: str) -> tuple[str, ...]:
        """The versions of a group that are served."""
        ...

    def get(self, ref: Ref) -> JsonObject | None: ...

    def list(self, kind: str, namespace: str | None, selector: str | None = None) -> Listed: ...

    def pages(self, kind: str, namespace: str | None, selector: str | None = None) -> Iterator[Listed]:
        """The same list a part at a time, for who does not keep it; at least one. Refused with 410 where the rest is gone."""
        ...

    def apply(self, thing: JsonObject, *, force: bool, dry_run: bool = False) -> JsonObject:
        """Server-side apply; what was stated with the object's metadata afterwards, or, of a dry run, the whole object.

        With a `uid` or a `resourceVersion` among what is stated it is about that object alone; refused (`another`) if it is not there.
        """
        ...

    def create(self, thing: JsonObject) -> JsonObject: ...

    def update(self, thing: JsonObject) -> JsonObject:
        """Write a whole object over exactly the version that it names; refused with 409 if there is another by now."""
        ...

    def patch_status(self, ref: Ref, status: JsonObject) -> JsonObject:
        """Merge into an object's status; the object afterwards."""
        ...

    def delete(self, ref: Ref, *, uid: str, resource_version: str | None, foreground: bool = False) -> bool:
        """Delete exactly the object that was seen; whether there was one to delete."""
        ...

    def watch(
        self, kind: str, namespace: str, selector: str | None, resource_version: str, seconds: float
    ) -> Iterator[Event]:
        """Changes since a version, for at most so many seconds. Ends silently; a version that is too old is refused with 410."""
        ...

    def merge(self, ref: Ref, patch: JsonObject) -> None:
        """A merge patch of an object, whoever made it; with a `uid` or `resourceVersion` in it, as for `apply`."""
        ...

    def ask_pod(self, namespace: str, pod: str, port: int, path: str) -> JsonObject:
        """What a pod answers to a GET, as a JSON object; asked once, by way of the API server."""
        ...

    def log(self, namespace: str, pod: str, container: str, *, previous: bool, lines: int) -> str:
        """The last lines of a pod's container; empty if there are none."""
        ...

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """A review or a token request."""
        ...
