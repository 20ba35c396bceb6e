"""The objects beside pods that their answered shape asks for: disruption budgets, autoscalers and service accounts. Pure.

Rules:
1. An autoscaler has the name of the Deployment that it scales, and is written as `autoscaling/v2`; older servers know the same body as
   `v2beta2`.
2. Of several pods of one Deployment a drain of nodes leaves one. A single pod has no budget: nobody could drain its node.
3. A service account is made only where its annotations are told; one that is named alone was there before and is not ours.
"""

from __future__ import annotations

from greentic.ground.documents import Json, JsonObject
from greentic.k8s import names
from greentic.k8s.objects import member, metadata_of
from greentic.shape.pod_shape import CPU, IN_FLIGHT, Account, Autoscale, Shape

ACCOUNT = "service-account"
"""The component of service accounts that pods have, as opposed to the deployer's own."""


def accompanying(deployment: JsonObject, shape: Shape) -> list[JsonObject]:
    """What a Deployment has beside it: a disruption budget where there are several pods (rule 2), its autoscaler."""
    metadata: JsonObject = {key: metadata_of(deployment)[key] for key in ("name", "namespace", "labels")}
    least = shape.autoscale.min if shape.autoscale is not None else member(deployment, "spec").get("replicas")
    budget: JsonObject = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {"minAvailable": 1, "selector": member(deployment, "spec", "selector")},
    }
    several = [budget] if isinstance(least, int) and least > 1 else []
    return several if shape.autoscale is None else [*several, _autoscaler(dict(metadata), shape.autoscale)]


def _autoscaler(metadata: JsonObject, scale: Autoscale) -> JsonObject:
    metric: JsonObject
    if scale.cpu is not None:
        target: JsonObject = {"type": "Utilization", "averageUtilization": scale.cpu}
        metric = {"type": "Resource", "resource": {"name": CPU, "target": target}}
    else:
        target = {"type": "AverageValue", "averageValue": str(scale.in_flight)}
        metric = {"type": "Pods", "pods": {"metric": {"name": IN_FLIGHT}, "target": target}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "minReplicas": scale.min,
            "maxReplicas": scale.max,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]},
            "metrics": [metric],
        },
    }


def service_accounts(shapes: list[Shape], env_id: str, store: str, namespace: str) -> list[JsonObject]:
    """The accounts that are made, each once."""
    made: dict[str, Account] = {s.account.name: s.account for s in shapes if s.account is not None and s.makes_account}
    labels = names.component_labels(env_id, ACCOUNT) | {names.STORE: store}
    return [_account(account, namespace, labels) for account in made.values()]


def _account(account: Account, namespace: str, labels: JsonObject) -> JsonObject:
    metadata: JsonObject = {"name": account.name, "namespace": namespace, "labels": dict(labels)}
    if account.annotations:
        metadata["annotations"] = dict[str, Json](account.annotations)
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}
