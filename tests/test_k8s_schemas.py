"""What is rendered is valid to the newest servers and to older ones: strictly, for every answer that changes an object.

All combinations would be thousands; every pair of values of two answers is in some case, which is where such mistakes are. Objects that
are the same in several cases are validated once. Routes of the Gateway API are no part of Kubernetes' own schemas; what their published
form asks for is written down here.
"""

from __future__ import annotations

import functools
import json
from itertools import combinations
from typing import Any

import jsonschema
import pytest
from kubernetes_validate import utils

from greentic.ground.documents import compact
from test_k8s_render import environment, rendered

VERSIONS = [
    v for v in dict.fromkeys(utils.all_versions()) if [int(n) for n in utils.major_minor(v).split(".")] >= [1, 27]
]

PLACED = {
    "node_selector": {"pool": "bots"},
    "tolerations": [
        {"key": "bots", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 30}
    ],
    "priority_class": "high",
    "topology_spread": [{"maxSkew": 2, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "In", "values": ["amd64"]}]}]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 5,
                    "preference": {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                }
            ],
        },
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "namespaces": ["n"], "labelSelector": {}}}
            ]
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "topologyKey": "zone",
                    "labelSelector": {
                        "matchLabels": {"a": "b"},
                        "matchExpressions": [{"key": "c", "operator": "Exists"}],
                    },
                }
            ]
        },
    },
}
ONES = (
    {},
    {"labels": {"team": "bots"}, "annotations": {"a.example.com/b": "c"}, "env": {"OTEL_SERVICE_NAME": "bot"}},
    PLACED,
)
SIZES = (
    {},
    {"resources": {"requests": {"cpu": 0.5, "ephemeral-storage": "1Gi"}, "limits": {"cpu": None, "memory": "1536Mi"}}},
)
MANY = (
    {},
    {"replicas": 3},
    {"autoscale": {"min": 2, "max": 9, "cpu": 70}},
    {"autoscale": {"min": 2, "max": 9, "in_flight": 20}},
)
ACCOUNTS = (
    {},
    {"service_account": "there"},
    {"service_account": {"name": "ours", "annotations": {"x.example.com/role": "r"}}},
)
NAMED = {"hosts": ["bots.example.com", "*.example.com"]}
EXPOSED = (
    {},
    {"expose": "ingress"},
    {"expose": "ingress", **NAMED, "ingress_class": "nginx", "tls_secret": "tls"},
    {"expose": "ingress", **NAMED, "cluster_issuer": "letsencrypt"},
    {"expose": "gateway", **NAMED, "gateway": "infra/public", "ingress_namespaces": "infra"},
)
SETTINGS = (
    {},
    {"uid": "none", "size_limit": {"home": "8Gi", "tmp": "500M"}, "extra_ca": "authorities"},
    {"size_limit": {"home": None, "tmp": None}},
    {
        "component_egress": "api.example.com",
        "component_limits": {"seconds": 2.5, "total_mb": 512},
        "pack_signatures": "require",
        "pack_signers": "ab" * 32,
    },
)
OLDER = (
    {},
    {
        "redis_secret": "r",
        "secrets_secret": "s",
        "ingress_tokens_secret": "t",
        "registry_secret": "p",
        "trust_anchor_config_map": "a",
    },
    {
        "service_type": "LoadBalancer",
        "image_pull_policy": "Always",
        "image_pull_secrets": "x",
        "egress": "open",
        "dns_cidrs": "10.0.0.10",
    },
    {
        "egress_cidrs": "203.0.113.0/24,2001:db8::/32",
        "egress_ports": "5432",
        "ingress_cidrs": "198.51.100.0/24",
        "drain_delay_seconds": 9,
    },
)
AXES: dict[str, tuple[Any, ...]] = {
    "ones": ONES, "sizes": SIZES, "many": MANY, "accounts": ACCOUNTS, "exposed": EXPOSED, "settings": SETTINGS, "older": OLDER,
    "secrets": (False, True),
}  # fmt: skip


def pairwise() -> list[dict[str, int]]:
    """Cases in which every two values of two axes meet: each time the case that covers most of what is left, axis by axis."""
    names = list(AXES)
    left = {
        ((a, i), (b, j)) for a, b in combinations(names, 2) for i in range(len(AXES[a])) for j in range(len(AXES[b]))
    }
    cases = []
    while left:
        case = dict(min(left))
        for name in names:
            if name not in case:
                case[name] = max(
                    range(len(AXES[name])),
                    key=lambda v: (sum(_pair(names, (name, v), other) in left for other in case.items()), v),
                )
        cases.append(case)
        left -= {_pair(names, one, other) for one, other in combinations(case.items(), 2)}
    return cases


def _pair(names: list[str], one: tuple[str, int], other: tuple[str, int]) -> tuple:
    return (one, other) if names.index(one[0]) < names.index(other[0]) else (other, one)


def answers_of(case: dict[str, int]) -> tuple[dict, bool]:
    chosen = {name: AXES[name][index] for name, index in case.items()}
    pods = {**chosen["ones"], **chosen["sizes"], **chosen["many"], **chosen["accounts"]}
    flat = {"router": pods, "worker": pods, **chosen["settings"], **chosen["older"], **chosen["exposed"]}
    return flat, chosen["secrets"]


@functools.cache
def every_object() -> dict[bytes, str]:
    """Each different object of all cases, with an example of the answers that made it."""
    found: dict[bytes, str] = {}
    for case in pairwise():
        answers, secrets = answers_of(case)
        for thing in rendered(environment(), answers, secrets_bound=secrets, dev_secrets="QT1i" if secrets else None):
            found.setdefault(compact(thing, sort=True), json.dumps(answers))
    return found


def test_every_two_answers_meet():
    cases = pairwise()
    met = {_pair(list(AXES), one, other) for case in cases for one, other in combinations(case.items(), 2)}
    assert len(met) == sum(len(AXES[a]) * len(AXES[b]) for a, b in combinations(AXES, 2)) and len(cases) < 40
    kinds = {json.loads(text)["kind"] for text in every_object()}
    assert kinds >= {"HorizontalPodAutoscaler", "Ingress", "HTTPRoute", "ServiceAccount", "Secret", "Deployment"}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_rendered_is_valid_strictly(version, monkeypatch):
    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    wrong = []
    for text, answers in every_object().items():
        thing = json.loads(text)
        if thing["kind"] == "HTTPRoute":
            continue
        try:
            utils.validate(thing, version, strict=True)
        except utils.ValidationError as error:
            wrong.append((thing["kind"], list(error.path), error.message, answers))
    assert not wrong


def test_a_field_that_no_server_knows_is_seen():
    thing = json.loads(next(t for t in every_object() if b'"kind":"Ingress"' in t))
    thing["spec"]["surprise"] = True
    with pytest.raises(utils.ValidationError):
        utils.validate(thing, VERSIONS[0], strict=True)


def test_the_newest_schemas_are_looked_at():
    assert {utils.major_minor(v) for v in VERSIONS} >= {f"1.{n}" for n in range(27, 38)}


NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}


def closed(**members: object) -> dict:
    return {"type": "object", "additionalProperties": False, "required": list(members), "properties": members}


def some(item: object, most: int) -> dict:
    return {"type": "array", "minItems": 1, "maxItems": most, "items": item}


HTTP_ROUTE = closed(
    apiVersion={"const": "gateway.networking.k8s.io/v1"},
    kind={"const": "HTTPRoute"},
    metadata=closed(name=NAME, namespace=NAME, labels={"type": "object"}),
    spec=closed(
        parentRefs=some(
            closed(group={"const": "gateway.networking.k8s.io"}, kind={"const": "Gateway"}, namespace=NAME, name=NAME), 32
        ),
        hostnames=some(
            {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}, 16
        ),
        rules=some(
            closed(
                matches=some(
                    closed(path=closed(type={"const": "PathPrefix"}, value={"type": "string", "pattern": "^/", "maxLength": 1024})), 8
                ),
                backendRefs=some(
                    closed(
                        kind={"const": "Service"}, name=NAME, port={"type": "integer"},
                        weight={"type": "integer", "minimum": 0, "maximum": 1_000_000},
                    ), 16,
                ),
            ), 16,
        ),
    ),
)  # fmt: skip


def test_routes_have_the_form_that_the_gateway_api_publishes():
    routes = [json.loads(t) for t in every_object() if b'"kind":"HTTPRoute"' in t]
    assert len(routes) >= 3
    for route in routes:
        jsonschema.validate(route, HTTP_ROUTE)
