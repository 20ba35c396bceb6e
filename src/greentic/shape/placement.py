"""Where pods may run, in the words of Kubernetes: tolerations, affinity, spreading. Pure.

Rules:
1. Members are named as in a pod, so that they can be copied from one. What is not named here is refused; it would be dropped by a server
   that does not know it, or be a word that was mistyped.
2. What the types cannot say is checked as the API server does: a key without an operator that needs none, values that an operator
   does not take, weights from 1 to 100, one constraint for a place and a rule.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from greentic.ground.digits import whole_number
from greentic.shape.syntax import invalid, label_value, qualified

LARGEST = (1 << 63) - 1
"""The largest number that a server compares with."""
Effect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
Weight = Annotated[int, msgspec.Meta(ge=1, le=100)]
Matching = Literal["In", "NotIn", "Exists", "DoesNotExist"]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """A part of a pod as it is written there (rule 1)."""


class Toleration(Strict, frozen=True):
    key: str | None = None
    operator: Literal["Equal", "Exists"] | None = None
    value: str | None = None
    effect: Effect | None = None
    toleration_seconds: int | None = None


class LabelRequirement(Strict, frozen=True):
    key: str
    operator: Matching
    values: list[str] = []


class LabelSelector(Strict, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: list[LabelRequirement] = []


class NodeRequirement(Strict, frozen=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] = []


class NodeTerm(Strict, frozen=True):
    match_expressions: list[NodeRequirement] = []
    match_fields: list[NodeRequirement] = []


class NodeTerms(Strict, frozen=True):
    node_selector_terms: Annotated[list[NodeTerm], msgspec.Meta(min_length=1)]


class PreferredNode(Strict, frozen=True):
    weight: Weight
    preference: NodeTerm


class NodeAffinity(Strict, frozen=True):
    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredNode] = []


class PodTerm(Strict, frozen=True):
    topology_key: Annotated[str, msgspec.Meta(min_length=1)]
    label_selector: LabelSelector | None = None
    namespaces: list[str] = []


class PreferredPod(Strict, frozen=True):
    weight: Weight
    pod_affinity_term: PodTerm


class PodAffinity(Strict, frozen=True):
    required_during_scheduling_ignored_during_execution: list[PodTerm] = []
    preferred_during_scheduling_ignored_during_execution: list[PreferredPod] = []


class Affinity(Strict, frozen=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class Spread(Strict, frozen=True):
    max_skew: Annotated[int, msgspec.Meta(ge=1)]
    topology_key: Annotated[str, msgspec.Meta(min_length=1)]
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    label_selector: LabelSelector | None = None
    """The pods themselves, where it is not told."""


def check_tolerations(found: list[Toleration], where: str) -> None:
    """Raise `Conflict` for a toleration that an API server refuses."""
    for index, one in enumerate(found):
        place = f"{where}[{index}]"
        if one.key is not None:
            qualified(one.key, f"{place}.key")
        elif one.operator != "Exists":
            raise invalid(f"{place}.operator: without a key it must be Exists")
        if one.operator == "Exists" and one.value:
            raise invalid(f"{place}.value: Exists takes no value")
        if one.operator != "Exists":
            label_value(one.value or "", f"{place}.value")
        if one.toleration_seconds is not None and one.effect != "NoExecute":
            raise invalid(f"{place}.tolerationSeconds: counts with effect NoExecute alone")


def check_affinity(found: Affinity, where: str) -> None:
    """Raise `Conflict` for an affinity that an API server refuses."""
    nodes = found.node_affinity
    if nodes is not None:
        at = f"{where}.nodeAffinity"
        required = nodes.required_during_scheduling_ignored_during_execution
        for index, term in enumerate(required.node_selector_terms if required else []):
            _check_node(term, f"{at}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{index}]")
        for index, preferred in enumerate(nodes.preferred_during_scheduling_ignored_during_execution):
            _check_node(
                preferred.preference, f"{at}.preferredDuringSchedulingIgnoredDuringExecution[{index}].preference"
            )
    for name, pods in (("podAffinity", found.pod_affinity), ("podAntiAffinity", found.pod_anti_affinity)):
        if pods is None:
            continue
        for index, pod in enumerate(pods.required_during_scheduling_ignored_during_execution):
            _check_pod(pod, f"{where}.{name}.requiredDuringSchedulingIgnoredDuringExecution[{index}]")
        for index, choice in enumerate(pods.preferred_during_scheduling_ignored_during_execution):
            at = f"{where}.{name}.preferredDuringSchedulingIgnoredDuringExecution[{index}].podAffinityTerm"
            _check_pod(choice.pod_affinity_term, at)


def check_spread(found: list[Spread], where: str) -> None:
    """Raise `Conflict` for constraints that an API server refuses."""
    seen: set[tuple[str, str]] = set()
    for index, one in enumerate(found):
        qualified(one.topology_key, f"{where}[{index}].topologyKey")
        if (one.topology_key, one.when_unsatisfiable) in seen:
            raise invalid(f"{where}[{index}]: `{one.topology_key}` with {one.when_unsatisfiable} is there twice")
        seen.add((one.topology_key, one.when_unsatisfiable))
        if one.label_selector is not None:
            _check_selector(one.label_selector, f"{where}[{index}].labelSelector")


def _check_node(term: NodeTerm, where: str) -> None:
    for index, one in enumerate(term.match_expressions):
        place = f"{where}.matchExpressions[{index}]"
        qualified(one.key, f"{place}.key")
        _check_values(one.operator, one.values, place)
        if one.operator in ("Gt", "Lt") and whole_number(one.values[0].removeprefix("-"), LARGEST) is None:
            raise invalid(f"{place}.values[0]: {one.operator} compares with a whole number, got `{one.values[0][:60]}`")
    for index, one in enumerate(term.match_fields):
        if one.key != "metadata.name" or one.operator not in ("In", "NotIn") or len(one.values) != 1:
            raise invalid(f"{where}.matchFields[{index}]: only metadata.name, In or NotIn, one value")


def _check_pod(term: PodTerm, where: str) -> None:
    qualified(term.topology_key, f"{where}.topologyKey")
    if term.label_selector is not None:
        _check_selector(term.label_selector, f"{where}.labelSelector")


def _check_selector(found: LabelSelector, where: str) -> None:
    for key, value in found.match_labels.items():
        qualified(key, f"{where}.matchLabels")
        label_value(value, f"{where}.matchLabels.{key}")
    for index, one in enumerate(found.match_expressions):
        place = f"{where}.matchExpressions[{index}]"
        qualified(one.key, f"{place}.key")
        _check_values(one.operator, one.values, place)


def _check_values(operator: str, values: list[str], where: str) -> None:
    if operator in ("In", "NotIn") and not values:
        raise invalid(f"{where}.values: {operator} needs at least one value")
    if operator in ("Exists", "DoesNotExist") and values:
        raise invalid(f"{where}.values: {operator} takes none")
    if operator in ("Gt", "Lt") and len(values) != 1:
        raise invalid(f"{where}.values: {operator} takes one value")
