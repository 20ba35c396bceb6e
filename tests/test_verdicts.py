"""What controllers say about what was applied: an autoscaler without metrics, a route that no Gateway takes. It is told, and stops nothing."""

from __future__ import annotations

import json

import pytest

from conftest import IMAGE, Author
from greentic.cluster.verdicts import MAX_TOLD, remarks, verdicts
from greentic.controller import judging
from greentic.deployer import cluster_status, reconcile
from greentic.deployer.dry_run import DryRun
from greentic.deployments.env_status import EnvStatusPayload
from greentic.ground.documents import Json, JsonObject
from greentic.k8s import names
from greentic.k8s.objects import Ref, member
from test_controller import NS, Scene, place, scene
from waiting import until

__all__ = ("place", "scene")
UNMEASURED: JsonObject = {
    "type": "ScalingActive",
    "status": "False",
    "reason": "FailedGetResourceMetric",
    "message": "the server could not find the requested resource (get pods.metrics.k8s.io)",
}


def judged(kind: str, *conditions: JsonObject, name: str = "gtc-router") -> JsonObject:
    listed: JsonObject = {"conditions": list(conditions)}
    status: JsonObject = listed if kind == "HorizontalPodAutoscaler" else {"parents": [listed]}
    return {"kind": kind, "metadata": {"name": name, "namespace": NS}, "status": status}


def said(type_: str, status: str, reason: str = "Why", **more: Json) -> JsonObject:
    return {"type": type_, "status": status, "reason": reason, "message": "because", **more}


def routed(*parents: tuple[str, JsonObject], generation: int = 2) -> JsonObject:
    """A route that names Gateway `infra/public`, and what controllers say about Gateways."""
    told: list[Json] = [
        {"parentRef": {"namespace": "infra", "name": name}, "conditions": [said]} for name, said in parents
    ]
    return {
        "kind": "HTTPRoute", "metadata": {"name": "gtc-router", "namespace": NS, "generation": generation},
        "spec": {"parentRefs": [{"namespace": "infra", "name": "public"}]}, "status": {"parents": told},
    }  # fmt: skip


AT_MOST = said("ScalingLimited", "True", "TooManyReplicas")


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (judged("HorizontalPodAutoscaler", UNMEASURED), "HorizontalPodAutoscaler `gtc-router` in namespace `gtc-local` does not scale: Failed"),
        (judged("HorizontalPodAutoscaler", said("AbleToScale", "False"), UNMEASURED), "does not scale: Why: because. Next: "),
        (judged("HorizontalPodAutoscaler", said("ScalingActive", "False", "ScalingDisabled")), ""),
        (judged("HorizontalPodAutoscaler", said("ScalingActive", "Unknown")), ""),
        (judged("HorizontalPodAutoscaler", said("ScalingLimited", "False"), said("ScalingActive", "True")), ""),
        (judged("HTTPRoute", said("Accepted", "False", "NotAllowedByListeners")), "leads nowhere: NotAllowedByListeners: because. Next: a listener"),
        (judged("HTTPRoute", said("Accepted", "False", "NotAllowedByListeners")), "has to allow routes of namespace `gtc-local`"),
        (judged("HTTPRoute", said("Accepted", "False", "NoMatchingListenerHostname")), "answer hosts that one takes"),
        (judged("HTTPRoute", said("Accepted", "False", "NoMatchingParent")), "Next: the Gateway has to be there"),
        (judged("HTTPRoute", said("ResolvedRefs", "False", "RefNotPermitted")), "a ReferenceGrant in that one has to allow HTTPRoutes of `gtc-local`"),
        (judged("HTTPRoute", said("ResolvedRefs", "False", "BackendNotFound")), "gtc op env reconcile makes it"),
        (routed(("public", said("Accepted", "False", observedGeneration=2))), "leads nowhere"),
        (routed(("public", said("Accepted", "False", observedGeneration=1))), ""),
        (routed(("former", said("Accepted", "False", observedGeneration=2))), ""),
        (routed(("public", said("Accepted", "True")), ("former", said("Accepted", "False"))), ""),
        (judged("HorizontalPodAutoscaler", AT_MOST), ""),
        (judged("HTTPRoute", said("Accepted", "True"), said("ResolvedRefs", "False", "RefNotPermitted")), "RefNotPermitted"),
        (judged("HTTPRoute", said("Accepted", "True"), said("ResolvedRefs", "True")), ""),
        ({**judged("HTTPRoute"), "status": {}}, ""),
        ({**judged("HTTPRoute"), "status": {"parents": "x"}}, ""),
        (judged("Deployment", UNMEASURED), ""),
    ],
)  # fmt: skip
def test_what_a_controller_says_is_told_in_a_sentence(thing, told):
    found = verdicts([thing])
    assert len(found) == bool(told) and told in "".join(found)


def test_an_autoscaler_at_its_maximum_is_told_to_who_looks_and_is_in_nobodys_way():
    full: JsonObject = {
        **judged("HorizontalPodAutoscaler", AT_MOST, said("ScalingActive", "True")),
        "spec": {"maxReplicas": 5},
    }
    few = judged("HorizontalPodAutoscaler", said("ScalingLimited", "True", "TooFewReplicas"))
    assert verdicts([full]) == [] and remarks([few]) == []
    (told,) = remarks([full])
    assert "is at its maximum of 5: TooManyReplicas: because. Next: answer a larger autoscale.max" in told


def test_of_many_the_first_are_told():
    found = verdicts(judged("HorizontalPodAutoscaler", UNMEASURED, name=f"a-{n}") for n in range(MAX_TOLD + 7))
    assert len(found) == MAX_TOLD + 1 and found[-1] == "and 7 more"


SCALED = {"runtime_image": IMAGE, "router": {"autoscale": {"min": 2, "max": 5, "cpu": 70}}}
SCALER = Ref("HorizontalPodAutoscaler", names.ROUTER, NS)


def reconciled(author: Author, **how: object) -> reconcile.ReconcileReport | DryRun:
    payload = reconcile.EnvReconcilePayload(environment_id="local", no_wait=True, **how)
    return reconcile.reconcile_environment(author.context, payload)


def test_the_status_of_an_environment_tells_what_controllers_say_where_anything_is_for_them(bound, cluster):
    asked = EnvStatusPayload(environment_id="local")
    reconciled(bound)
    before = cluster.requests
    assert not cluster_status.status(bound.context, asked).warnings and cluster.requests == before
    answers = bound.context.store.paths("local").root / "answers.json"
    answers.write_text(json.dumps(SCALED))
    reconciled(bound)
    assert not cluster_status.status(bound.context, asked).warnings
    cluster.objects[SCALER]["status"] = {"conditions": [UNMEASURED]}
    (told,) = cluster_status.status(bound.context, asked).warnings
    assert "does not scale: FailedGetResourceMetric" in told
    cluster.objects[SCALER]["status"] = {"conditions": [AT_MOST]}
    (told,) = cluster_status.status(bound.context, asked).warnings
    assert "is at its maximum of 5" in told
    reported = reconciled(bound).warnings or []
    assert "is at its maximum of 5" in " ".join(reported)
    cluster.objects[SCALER]["metadata"]["labels"][names.STORE] = "another"
    assert not cluster_status.status(bound.context, asked).warnings


def test_a_status_is_told_without_a_way_to_the_cluster(bound, monkeypatch):
    (bound.context.store.paths("local").root / "answers.json").write_text(json.dumps(SCALED))
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    found = cluster_status.status(bound.context, EnvStatusPayload(environment_id="local"))
    assert found.revisions and "the cluster was not asked: cannot reach the cluster" in found.warnings[0]


def test_a_reconcile_without_metrics_applies_all_and_tells_it_from_the_next_on(bound, cluster):
    """Whether the first one does is a matter of moments: what was just made is not judged."""
    (bound.context.store.paths("local").root / "answers.json").write_text(json.dumps(SCALED))
    first = reconciled(bound)
    assert "does not scale" not in str(first.warnings) and SCALER in cluster.objects
    cluster.objects[SCALER]["status"] = {"conditions": [UNMEASURED]}
    writes = cluster.writes
    for how in ({}, {"dry_run": True}):
        told = reconciled(bound, **how)
        assert [w for w in told.warnings if "does not scale: FailedGetResourceMetric" in w and "metrics server" in w]
    assert cluster.writes == writes
    cluster.objects[SCALER]["status"] = {"conditions": [said("ScalingActive", "True")]}
    assert "does not scale" not in str(reconciled(bound).warnings)


def test_an_operator_without_metrics_serves_and_says_so(scene: Scene, monkeypatch):
    monkeypatch.setattr(judging, "JUDGE_EVERY", 0.0)
    monkeypatch.setattr(judging, "JUDGED_SECONDS", 0.0)
    scene.wish(answers=SCALED)
    scene.start()
    scene.synced()
    until(lambda: scene.condition("Ready").get("status") == "True")
    assert scene.condition("Degraded")["status"] == "False"
    with scene.cluster.news:
        scene.cluster.put({**scene.cluster.objects[SCALER], "status": {"conditions": [UNMEASURED]}})
    until(lambda: scene.condition("Degraded").get("reason") == "NotActedOn", str(scene.running[-1].logged))
    assert "pods.metrics.k8s.io" in scene.condition("Degraded")["message"]
    assert (scene.condition("Ready")["status"], scene.condition("Synced")["status"]) == ("True", "True")
    scene.cluster.put({**scene.cluster.objects[SCALER], "status": {"conditions": [said("ScalingActive", "True")]}})
    until(lambda: scene.condition("Degraded").get("status") == "False")
    assert member(scene.cluster.objects[SCALER], "spec")["maxReplicas"] == 5
