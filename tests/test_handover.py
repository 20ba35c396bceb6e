"""Who keeps an environment's objects changes hands, over HTTP (`served_cluster`): what others apply from rendered files, and what `env reconcile` does.

On a real API server the same is in `tests/cluster/test_reconcile.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import IMAGE, Author, bind_deployer
from greentic.deployer import cluster_status, reconcile
from greentic.deployer.dry_run import DryRun
from greentic.deployments.env_status import EnvStatusPayload
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict
from greentic.k8s import names
from greentic.k8s.objects import Ref, member, metadata_of, objects_in, ref_of
from greentic.manifests import env_render
from greentic.operate import env
from greentic.release.retire import BundleRetirePayload, retire
from served_cluster import ServedCluster
from simulators import LivingCluster, applied_by

NS = "gtc-local"
STORE = Ref("ConfigMap", names.ENV_STORE, NS)
LAST = "kubectl.kubernetes.io/last-applied-configuration"
TOOLS = [("kubectl-client-side-apply", "Update"), ("kubectl", "Apply")]


@pytest.fixture
def served(author: Author, hello: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedCluster]:
    author.create()
    author.deployed(hello, "https://bundles.example.com/hello.gtbundle", "one", ("/one",))
    bind_deployer(author)
    found = ServedCluster(LivingCluster())
    monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig(tmp_path / "kubeconfig", "person")))
    yield found
    found.close()


def rendered(author: Author) -> list[JsonObject]:
    return list(
        env_render.render_objects(author.context, env_render.EnvRenderPayload(environment_id="local")).manifests
    )


def kubectl(cluster: LivingCluster, things: list[JsonObject], manager: str, operation: str) -> None:
    """Apply as another tool does, with what a client-side one notes beside it and a server fills in."""
    for thing in things:
        if operation == "Update":
            noted: JsonObject = {**member(thing, "metadata", "annotations"), LAST: json.dumps(thing)}
            thing = {**thing, "metadata": {**metadata_of(thing), "annotations": noted}}
        made = applied_by(thing, manager, operation)
        if thing["kind"] == "Deployment":
            made = {**made, "spec": {**member(made, "spec"), "progressDeadlineSeconds": 600}}
        cluster.put(made)


def reconciled(author: Author, **how: object) -> reconcile.ReconcileReport | DryRun:
    payload = reconcile.EnvReconcilePayload(environment_id="local", no_wait=True, **how)
    return reconcile.reconcile_environment(author.context, payload)


def moved(author: Author, url: str) -> None:
    env.set_public_url(author.context, env.SetPublicUrlPayload(environment_id="local", url=url))


def managers(thing: JsonObject) -> set[str]:
    return {str(entry["manager"]) for entry in objects_in(metadata_of(thing).get("managedFields"))}


@pytest.mark.parametrize(("manager", "operation"), TOOLS, ids=[name for name, _ in TOOLS])
def test_what_another_tool_applied_goes_over_to_a_reconcile(author, served, manager, operation):
    cluster = served.cluster
    files = rendered(author)
    assert files == rendered(author)
    kubectl(cluster, files, manager, operation)
    plan = reconciled(author, dry_run=True)
    assert plan.conflicts == [] and plan.not_ours == [] and plan.deletions == []
    over = reconciled(author)
    assert over.created == [] and over.applied_count == len(files) and over.pruned == []
    assert reconciled(author).writes == 0
    document = cluster.objects[STORE]
    assert managers(document) == {manager, names.FIELD_MANAGER}
    assert (LAST in member(document, "metadata", "annotations")) is (operation == "Update")

    moved(author, "https://one.example.com")
    before = len(served.done)
    with pytest.raises(Conflict, match=rf"environment.json.* of ConfigMap .* is managed by `{manager}`") as refused:
        reconciled(author)
    assert "--force takes them over" in str(refused.value.hint)
    assert [asked for asked in served.done[before:] if asked.verb != "create"] == []
    assert "gtc-env-store" in {told.name for told in reconciled(author, force=True).changed}
    assert reconciled(author).writes == 0
    moved(author, "https://two.example.com")
    reconciled(author)  # the field is ours alone by now
    assert "two.example.com" in str(member(cluster.objects[STORE], "data")["environment.json"])


@pytest.mark.parametrize(("manager", "operation"), TOOLS, ids=[name for name, _ in TOOLS])
def test_what_a_reconcile_applied_goes_over_to_another_tool_and_comes_back(author, served, manager, operation):
    cluster = served.cluster
    reconciled(author)
    moved(author, "https://one.example.com")
    files = rendered(author)
    kubectl(cluster, files, manager, operation)
    assert managers(cluster.objects[STORE]) == {manager}
    plan = reconciled(author, dry_run=True)
    assert plan.not_ours == [] and plan.conflicts == [] and plan.deletions == []
    assert reconciled(author).created == [] and reconciled(author).writes == 0
    retire(author.context, BundleRetirePayload(environment_id="local", bundle="one", store_only=True))
    pruned = reconciled(author, force=True).pruned
    assert {told.kind for told in pruned} == {"Deployment", "Service"}
    assert {ref_of(thing) for thing in rendered(author)} <= set(cluster.objects)


ROUTED = {
    "runtime_image": IMAGE, "expose": "gateway", "gateway": "infra/public", "hosts": ["bots.example.com"], "ingress_cidrs": "10.0.0.0/8",
}  # fmt: skip
NEXT = {
    ("Accepted", "NotAllowedByListeners"): "has to allow routes of namespace `gtc-local`",
    ("ResolvedRefs", "RefNotPermitted"): "a ReferenceGrant in that one has to allow HTTPRoutes of `gtc-local`",
}


@pytest.mark.parametrize(("type_", "reason"), NEXT)
def test_a_route_that_a_gateway_of_another_namespace_does_not_take_is_told_with_the_next_step(
    author, served, type_, reason
):
    """What the controller of a Gateway writes into a route's status, told by the verbs that look."""
    (author.context.store.paths("local").root / "answers.json").write_text(json.dumps(ROUTED))
    reconciled(author)
    routes = [ref for ref in served.cluster.objects if ref.kind == "HTTPRoute"]
    assert routes and not cluster_status.status(author.context, EnvStatusPayload(environment_id="local")).warnings
    for ref in routes:
        thing = served.cluster.objects[ref]
        said = {"type": type_, "status": "False", "reason": reason, "message": "no"}
        parent = {"parentRef": {"namespace": "infra", "name": "public"}, "conditions": [said]}
        served.cluster.put({**thing, "status": {"parents": [parent]}})
    told = cluster_status.status(author.context, EnvStatusPayload(environment_id="local")).warnings
    assert len(told) == len(routes) and all(f"leads nowhere: {reason}: no. Next: " in text for text in told)
    assert all(NEXT[type_, reason] in text for text in told)
    assert set(told) <= set(reconciled(author, dry_run=True).warnings)
