"""`expose: gateway` on a real API server that serves HTTPRoutes, by a definition of their shape; who would carry them out is played by the test."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from world import PAUSE, Kubectl, World

from waiting import until

pytestmark = pytest.mark.alone  # what the server serves comes and goes
GROUP = "gateway.networking.k8s.io"
TEXT, NUMBER = {"type": "string"}, {"type": "integer", "format": "int32"}


def listed(item: dict) -> dict:
    return {"type": "array", "items": item}


def fields(**told: dict) -> dict:
    return {"type": "object", "properties": told}


PARENT = fields(group={**TEXT, "default": GROUP}, kind={**TEXT, "default": "Gateway"}, namespace=TEXT, name=TEXT)
BACKEND = fields(
    group=TEXT, kind={**TEXT, "default": "Service"}, name=TEXT, port=NUMBER,
    weight={**NUMBER, "default": 1, "minimum": 0, "maximum": 1_000_000},
)  # fmt: skip
PATH = fields(type={**TEXT, "default": "PathPrefix"}, value={**TEXT, "default": "/"})
RULE = fields(matches={**listed(fields(path=PATH)), "maxItems": 64}, backendRefs={**listed(BACKEND), "maxItems": 16})
SPEC = fields(
    parentRefs={**listed(PARENT), "maxItems": 32}, hostnames={**listed(TEXT), "maxItems": 16}, rules={**listed(RULE), "maxItems": 16}
)  # fmt: skip
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": f"httproutes.{GROUP}",
        "annotations": {"api-approved.kubernetes.io": "unapproved, the shape alone for a test"},
    },
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute", "listKind": "HTTPRouteList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": fields(
                        spec=SPEC, status={"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    )
                },
            }
        ],
    },
}
ANSWERS = {
    "runtime_image": PAUSE, "expose": "gateway", "gateway": "infra/public", "hosts": ["bots.example.com"], "ingress_namespaces": "infra",
}  # fmt: skip


@pytest.fixture
def routes(kubectl: Kubectl) -> Iterator[None]:
    """A cluster to which somebody has added HTTPRoutes, for as long as a test runs."""
    kubectl.apply(DEFINITION)
    try:
        kubectl.run("wait", "--for=condition=Established", f"crd/httproutes.{GROUP}", "--timeout=60s")
        until(lambda: kubectl.get("httproutes", "-A") is not None, "the server to serve them")
        yield
    finally:
        kubectl.run("delete", "crd", f"httproutes.{GROUP}", "--wait=true")


def weights(thing: dict | None) -> dict[str, int]:
    assert thing is not None
    return {b["name"]: b["weight"] for rule in thing["spec"]["rules"] for b in rule["backendRefs"]}


def test_the_split_is_the_weights_of_routes_and_goes_with_the_answer(world: World, routes: None):
    world.author(**ANSWERS)
    first = world.ready()
    second = world.ready(weight=None)
    made = world.reconcile("--no-wait").result
    name = f"gtc-{world.deployment.lower()}"
    assert "HTTPRoute" in {c["kind"] for c in made["created"]}
    assert weights(world.get("httproute", name)) == {world.worker(first): 10_000}
    same = world.reconcile("--no-wait").result
    assert same["writes"] == 0 and same["requests"] <= 13 and world.op("env", "diff", world.env_id).code == 0

    # what moves is the route's weights and the document; no pod is made anew
    world.route({first: 77, second: 23})
    moved = world.reconcile("--no-wait").result
    assert {c["kind"] for c in moved["changed"]} == {"HTTPRoute", "ConfigMap"} and moved["created"] == []
    assert weights(world.get("httproute", name)) == {world.worker(first): 7_700, world.worker(second): 2_300}

    # a hand-made change is taken back, and what a controller says of the route is told
    patch = {"spec": {"hostnames": ["evil.example.com"]}}
    n = world.namespace
    world.kubectl.run("-n", n, "patch", "httproute", name, "--type=merge", "-p", json.dumps(patch))
    assert world.op("env", "diff", world.env_id).code == 2
    assert world.reconcile("--no-wait", "--force").result["writes"] == 1
    found = world.get("httproute", name)
    assert found is not None and found["spec"]["hostnames"] == ["bots.example.com"]
    refused = {
        "parentRef": {"group": GROUP, "kind": "Gateway", "namespace": "infra", "name": "public"},
        "controllerName": "example.com/controller",
        "conditions": [
            {
                "type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no listener takes it",
                "observedGeneration": found["metadata"]["generation"], "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }  # fmt: skip
    status = f"/apis/{GROUP}/v1/namespaces/{n}/httproutes/{name}/status"
    judged = json.dumps({**found, "status": {"parents": [refused]}})
    world.kubectl.run("replace", "--raw", status, "-f", "-", stdin=judged)
    told = world.reconcile("--no-wait").result
    assert told["writes"] == 0 and any("NotAllowedByListeners" in w for w in told["warnings"])

    # unanswered it goes, and somebody else's stays
    theirs = {
        "apiVersion": f"{GROUP}/v1", "kind": "HTTPRoute", "metadata": {"name": "theirs", "namespace": n}, "spec": {"hostnames": ["x.example.com"]},
    }  # fmt: skip
    world.kubectl.apply(theirs)
    world.answer(runtime_image=PAUSE)
    assert "HTTPRoute" in {p["kind"] for p in world.reconcile("--no-wait").result["pruned"]}
    assert world.get("httproute", name) is None and world.get("httproute", "theirs") is not None


def test_routes_that_somebody_brings_later_are_found(world: World, kubectl: Kubectl, request: pytest.FixtureRequest):
    world.author(**ANSWERS)
    world.ready()
    before = world.reconcile("--no-wait")
    assert before.code == 1 and "install the Gateway API" in before.error["hint"]
    assert world.kubectl.get("namespace", world.namespace) is None  # nothing was applied
    request.getfixturevalue("routes")
    assert "HTTPRoute" in {c["kind"] for c in world.reconcile("--no-wait").result["created"]}
