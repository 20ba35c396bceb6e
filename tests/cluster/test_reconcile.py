"""`env reconcile`, `env diff`, `apply-revision`, `sweep`, `destroy` on a real API server. Pods need not become ready here."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path

import pytest
from world import PAUSE, World

from waiting import until


def test_fourteen_then_no_write_then_twelve_and_two(world: World):
    world.author(runtime_image=PAUSE)
    revision = world.ready()
    first = world.reconcile("--no-wait").result
    assert (first["applied_count"], first["pruned_count"], first["identity"]) == (14, 0, "ambient")
    assert len(first["created"]) == 14
    worker = world.worker(revision)
    assert world.get("deployment", "gtc-router") and world.get("deployment", worker) and world.get("service", worker)
    again = world.reconcile("--no-wait").result
    assert (again["applied_count"], again["pruned_count"], again["writes"], again["created"], again["changed"]) == (
        14,
        0,
        0,
        [],
        [],
    )
    assert again["requests"] <= 13
    # traffic moves to a second revision, so that the first may be archived
    second = world.ready()
    world.op("revisions", "archive", world.env_id, f"revision_id={revision}").result
    last = world.reconcile("--no-wait").result
    assert (last["applied_count"], last["pruned_count"]) == (14, 2)
    assert world.get("deployment", worker) is None and world.get("service", worker) is None
    world.op("bundles", "retire", world.env_id, "hello", "--store-only").result
    bare = world.reconcile("--no-wait").result
    assert (bare["applied_count"], bare["pruned_count"]) == (12, 2)
    assert world.get("deployment", world.worker(second)) is None and world.get("deployment", "gtc-router")
    assert world.reconcile("--no-wait").result["pruned_count"] == 0


def test_archiving_the_only_revision_leaves_twelve(world: World):
    world.author(runtime_image=PAUSE)
    revision = world.ready(weight=None)
    assert world.reconcile("--no-wait").result["applied_count"] == 14
    world.op("revisions", "archive", world.env_id, f"revision_id={revision}").result
    gone = world.reconcile("--no-wait").result
    assert (gone["applied_count"], gone["pruned_count"]) == (12, 2)
    assert {p["kind"] for p in gone["pruned"]} == {"Deployment", "Service"}


def test_a_dry_run_writes_nothing_and_says_what_it_would(world: World):
    world.author(runtime_image=PAUSE)
    world.ready()
    fresh = world.reconcile("--dry-run")
    assert fresh.code == 2 and len(fresh.result["changes"]) == 14
    assert world.kubectl.get("namespace", world.namespace) is None
    world.reconcile("--no-wait").result
    same = world.op("env", "diff", world.env_id)
    assert same.code == 0 and same.result["in_sync"] is True
    world.answer(router_replicas=3, runtime_image=PAUSE)
    changed = world.op("env", "diff", world.env_id)
    assert changed.code == 2
    assert [
        (c["name"], [(f["field"], f["before"], f["after"]) for f in c["fields"]]) for c in changed.result["changes"]
    ] == [("gtc-router", [(".spec.replicas", 2, 3)])]
    world.reconcile("--no-wait").result
    assert world.get("deployment", "gtc-router")["spec"]["replicas"] == 3
    assert world.op("env", "diff", world.env_id).code == 0


SHAPE = {
    "resources": {"requests": {"cpu": "0.05", "memory": "0.25Gi"}, "limits": {"cpu": "1000m"}},
    "autoscale": {"min": 2, "max": 3, "cpu": 70},
    "topology_spread": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}],
    "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
    "service_account": {"name": "bots", "annotations": {"example.com/role": "bots"}},
    "labels": {"team": "bots"},
    "annotations": {"example.com/scrape": "no"},
}


def test_what_is_answered_of_shape_and_exposure_is_in_sync_and_goes_when_it_is_not_answered(world: World):
    world.author(runtime_image=PAUSE)
    revision = world.ready()
    world.reconcile("--no-wait").result
    exposed = {"expose": "ingress", "hosts": ["bots.example.com"], "ingress_class": "lab", "cluster_issuer": "lab"}
    settings = {"size_limit": {"home": "2048Mi"}, "component_limits": {"seconds": 2.5}}
    world.answer(runtime_image=PAUSE, router=SHAPE, worker=SHAPE, **exposed, **settings)
    made = world.reconcile("--no-wait").result
    assert sorted(c["kind"] for c in made["created"]) == [
        *["HorizontalPodAutoscaler"] * 2, "Ingress", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount",
    ]  # fmt: skip
    assert made["urls"] == ["https://bots.example.com"]
    assert world.reconcile("--no-wait").result["writes"] == 0
    assert world.op("env", "diff", world.env_id).code == 0
    assert world.get("deployment", world.worker(revision))["spec"]["template"]["spec"]["serviceAccountName"] == "bots"
    world.answer(
        runtime_image=PAUSE, expose="gateway", gateway="infra/public", hosts="a.example.com", ingress_cidrs="10.0.0.0/8"
    )
    without = world.reconcile("--no-wait")
    assert without.code == 1 and "HTTPRoute in no version" in without.error["message"]
    world.answer(runtime_image=PAUSE)
    assert world.reconcile("--no-wait").result["pruned_count"] == 6
    assert world.get("ingress", "gtc-router") is None and world.get("hpa", "gtc-router") is None
    pod = world.get("deployment", world.worker(revision))["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["serviceAccount"]) == (
        "default",
        "default",
    )  # of one that is gone no pod starts
    assert world.op("env", "diff", world.env_id).code == 0


DRIFT = [
    ("deployment", "gtc-router", {"spec": {"replicas": 4}}),
    (
        "deployment",
        "gtc-router",
        {"spec": {"template": {"spec": {"containers": [{"name": "router", "image": "stranger:1"}]}}}},
    ),
    ("service", "gtc-router", {"spec": {"selector": {"app.kubernetes.io/component": "other"}}}),
    ("networkpolicy", "gtc-default-deny", {"spec": {"policyTypes": ["Ingress"]}}),
    ("configmap", "gtc-env-store", {"data": {"environment.json": "{}"}}),
    ("poddisruptionbudget", "gtc-router", {"spec": {"minAvailable": 0}}),
]


ADDED = [
    ("service", "gtc-router", {"spec": {"selector": {"tier": "web"}}}, ".spec.selector.tier"),
    ("service", "gtc-router", {"spec": {"ports": [{"name": "more", "port": 9000}]}}, ".spec.ports[port=9000,protocol=TCP]"),
    ("networkpolicy", "gtc-default-deny", {"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}, ".spec.podSelector.matchLabels"),
    ("networkpolicy", "gtc-default-deny", {"spec": {"egress": [{}]}}, ".spec.egress"),
    ("configmap", "gtc-env-store", {"data": {"more.json": "{}"}}, ".data[more.json]"),
    ("poddisruptionbudget", "gtc-router", {"spec": {"minAvailable": None, "maxUnavailable": 1}}, ".spec.maxUnavailable"),
    ("deployment", "gtc-router", {"spec": {"template": {"spec": {"hostNetwork": True}}}}, ".spec.template.spec.hostNetwork"),
    (
        "deployment",
        "gtc-router",
        {"spec": {"template": {"spec": {"containers": [{"name": "router", "env": [{"name": "GREENTIC_HTTP_EGRESS", "value": "unrestricted"}]}]}}}},
        ".spec.template.spec.containers[name=router].env[name=GREENTIC_HTTP_EGRESS]",
    ),
    (
        "deployment",
        "gtc-router",
        {"spec": {"template": {"spec": {"containers": [{"name": "router", "command": ["sh"], "readinessProbe": {"exec": {"command": ["true"]}, "httpGet": None}}]}}}},
        ".spec.template.spec.containers[name=router].command",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "patch", "field"), ADDED, ids=lambda v: str(v)[-24:])
def test_threat_false_convergence_what_is_added_is_seen_named_and_taken_back(world: World, kind, name, patch, field):
    world.author(runtime_image=PAUSE)
    world.ready()
    world.reconcile("--no-wait").result
    before = world.get(kind, name)
    how = "merge" if kind in ("configmap", "networkpolicy", "poddisruptionbudget") else "strategic"
    world.kubectl.run(
        "-n", world.namespace, "patch", kind, name, "--type", how, "--field-manager=stranger", "-p", json.dumps(patch)
    )
    told = world.op("env", "diff", world.env_id)
    (change,) = told.result["changes"]
    assert told.code == 2 and {"field": field, "after": None} in [
        {key: f[key] for key in ("field", "after")} for f in change["fields"]
    ]
    refused = world.reconcile("--no-wait")
    assert (
        refused.code == 1
        and field.rpartition("[")[0] in refused.error["message"]
        and "`stranger`" in refused.error["message"]
    )
    assert [(c["kind"].lower(), c["name"]) for c in world.reconcile("--no-wait", "--force").result["changed"]] == [
        (kind, name)
    ]
    after = world.get(kind, name)
    assert {k: v for k, v in after.items() if k not in ("metadata", "status")} == {
        k: v for k, v in before.items() if k not in ("metadata", "status")
    }
    assert world.op("env", "diff", world.env_id).code == 0


def test_what_is_added_and_stays_is_told_and_in_sync(world: World):
    world.author(runtime_image=PAUSE)
    world.ready()
    world.reconcile("--no-wait").result
    side = {"spec": {"template": {"spec": {"containers": [{"name": "mesh", "image": PAUSE}]}}}}
    world.kubectl.run(
        "-n", world.namespace, "patch", "deployment", "gtc-router", "--field-manager=mesh", "-p", json.dumps(side)
    )
    told = world.op("env", "diff", world.env_id)
    assert told.code == 0 and ".spec.template.spec.containers[name=mesh] (`mesh`)" in told.result["warnings"][-1]
    again = world.reconcile("--no-wait").result
    assert again["changed"] == [] and "`mesh`" in again["warnings"][-1]
    assert len(world.get("deployment", "gtc-router")["spec"]["template"]["spec"]["containers"]) == 2


@pytest.mark.parametrize(("kind", "name", "patch"), DRIFT, ids=lambda v: str(v)[:24])
def test_threat_false_convergence_drift_is_seen_named_and_taken_back(world: World, kind, name, patch):
    world.author(runtime_image=PAUSE)
    world.ready()
    world.reconcile("--no-wait").result
    how = "strategic" if kind == "deployment" else "merge"
    world.kubectl.run(
        "-n", world.namespace, "patch", kind, name, "--type", how, "--field-manager=stranger", "-p", json.dumps(patch)
    )
    told = world.op("env", "diff", world.env_id)
    assert told.code == 2 and not told.result["in_sync"]
    assert [c["name"] for c in told.result["changes"]] == [name]
    assert {c["manager"] for c in told.result["conflicts"]} == {"stranger"}
    refused = world.reconcile("--no-wait").error
    assert (
        refused["kind"] == "conflict"
        and "`stranger`" in refused["message"]
        and "nothing was applied" in refused["message"]
    )
    taken = world.reconcile("--no-wait", "--force").result
    assert [c["name"] for c in taken["changed"]] == [name]
    assert world.op("env", "diff", world.env_id).code == 0


def test_what_others_add_and_manage_is_left_alone(world: World):
    world.author(runtime_image=PAUSE)
    world.ready()
    world.reconcile("--no-wait").result
    world.kubectl.run("-n", world.namespace, "annotate", "service", "gtc-router", "example.com/note=theirs")
    world.kubectl.run("-n", world.namespace, "label", "deployment", "gtc-router", "team=a")
    assert world.reconcile("--no-wait").result["writes"] == 0
    assert world.op("env", "diff", world.env_id).code == 0
    assert world.get("service", "gtc-router")["metadata"]["annotations"]["example.com/note"] == "theirs"


def test_a_strangers_object_under_our_name_needs_adopting(world: World):
    world.author(runtime_image=PAUSE)
    world.ready()
    world.kubectl.run("create", "namespace", world.namespace)
    world.kubectl.run("-n", world.namespace, "create", "configmap", "gtc-env-store", "--from-literal=mine=1")
    told = world.op("env", "diff", world.env_id)
    assert told.code == 2 and [n["name"] for n in told.result["not_ours"]] == ["gtc-env-store"]
    refused = world.reconcile("--no-wait").error
    assert "gtc-env-store" in refused["message"] and "--adopt" in refused["hint"]
    assert world.get("deployment", "gtc-router") is None
    assert world.reconcile("--no-wait", "--adopt").result["applied_count"] == 14
    assert world.get("configmap", "gtc-env-store")["data"].keys() == {"mine", "environment.json"}


def test_threat_prune_strangers_others_objects_survive(world: World, kubectl, tmp_path):
    world.author(runtime_image=PAUSE)
    revision = world.ready(weight=None)
    world.reconcile("--no-wait").result
    labels = {
        "app.kubernetes.io/managed-by": "greentic",
        "greentic.ai/env": world.env_id,
        "app.kubernetes.io/component": "worker",
    }
    strangers = {
        "plain": {},
        "unclaimed": labels,
        "other-store": labels | {"greentic.ai/store": "s-ffffffffffffffff"},
        "other-env": labels | {"greentic.ai/env": "dev"},
    }
    for name, given in strangers.items():
        kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": world.namespace, "labels": given},
            }
        )
    world.op("revisions", "archive", world.env_id, f"revision_id={revision}").result
    report = world.reconcile("--no-wait").result
    assert {p["name"] for p in report["pruned"]} == {world.worker(revision)}
    assert [u["name"] for u in report["unattributed"]] == ["unclaimed"]
    assert all(world.get("configmap", name) for name in strangers)


def test_orphans_of_a_lost_store_are_found(world: World):
    """A revision that the store no longer knows at all: its pair is an orphan, found by label and store."""
    world.author(runtime_image=PAUSE)
    revision = world.ready(weight=None)
    world.reconcile("--no-wait").result
    document = world.store / world.env_id / "environment.json"
    lost = json.loads(document.read_text())
    lost["revisions"], lost["bundles"][0]["current_revisions"] = [], []
    document.write_text(json.dumps(lost))
    looked = world.op("env", "sweep", world.env_id).result
    assert (looked["dry_run"], len(looked["orphans"]), looked["removed"]) == (True, 2, [])
    assert len(world.op("env", "sweep", world.env_id, "--apply").result["removed"]) == 2
    assert world.get("deployment", world.worker(revision)) is None
    assert world.op("env", "sweep", world.env_id).result["orphans"] == []


def test_two_stores_with_the_same_environment_do_not_fight(world: World, kubectl, tmp_path):
    world.author(runtime_image=PAUSE)
    world.ready()
    world.reconcile("--no-wait").result
    (tmp_path / "two").mkdir()
    second = World(kubectl, tmp_path / "two", world.env_id).author(runtime_image=PAUSE)
    second.ready()
    refused = second.reconcile("--no-wait").error
    assert "belongs to store" in refused["message"] and "nothing was applied" in refused["message"]
    assert world.reconcile("--no-wait").result["writes"] == 0


def test_two_reconciles_at_once_end_with_everything_applied(world: World):
    world.author(runtime_image=PAUSE)
    world.ready()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda _: world.reconcile("--no-wait"), range(3)))
    good = [r for r in replies if r.code == 0]
    assert good
    assert all("another reconcile" in r.error["message"] for r in replies if r.code != 0)
    assert world.reconcile("--no-wait").result["writes"] == 0


def test_an_immutable_field_is_named_and_recreated_only_if_asked(world: World, kubectl):
    world.author(runtime_image=PAUSE)
    world.ready()
    world.reconcile("--no-wait").result
    router = world.get("deployment", "gtc-router")
    kubectl.run("-n", world.namespace, "delete", "deployment", "gtc-router", "--wait=true")
    labels = router["metadata"]["labels"]
    spec = {
        "selector": {"matchLabels": {"app": "old"}},
        "template": {
            "metadata": {"labels": {"app": "old"} | labels},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        },
    }
    kubectl.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "gtc-router", "namespace": world.namespace, "labels": labels},
            "spec": spec,
        }
    )
    failed = world.reconcile("--no-wait", "--force").error
    assert "immutable" in failed["message"] and "--recreate" in failed["hint"]
    assert [f["name"] for f in failed["report"]["failed"]] == ["gtc-router"]
    assert world.reconcile("--no-wait", "--force", "--recreate").result["applied_count"] == 14
    until(
        lambda: (
            (world.get("deployment", "gtc-router") or {}).get("spec", {}).get("selector") == router["spec"]["selector"]
        ),
        "the router's selector",
    )


def test_a_namespace_on_its_way_out_is_told_before_anything_is_applied(world: World, kubectl):
    world.author(runtime_image=PAUSE)
    world.ready()
    kubectl.run("create", "namespace", world.namespace)
    holder = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": world.namespace, "finalizers": ["example.com/hold"]},
    }
    kubectl.apply(holder)
    kubectl.run("delete", "namespace", world.namespace, "--wait=false")
    told = world.reconcile("--no-wait").error
    assert "is being deleted" in told["message"] and "nothing was applied" in told["message"]
    kubectl.run(
        "-n", world.namespace, "patch", "configmap", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
    )
    until(lambda: kubectl.get("namespace", world.namespace) is None, "the namespace to go")
    assert world.reconcile("--no-wait").result["applied_count"] == 14


def test_an_environment_is_destroyed_with_all_that_it_made(world: World, kubectl):
    world.author(runtime_image=PAUSE)
    world.ready()
    world.reconcile("--no-wait").result
    assert "still routes traffic" in world.op("env", "destroy", world.env_id, "--confirm").error["message"]
    world.op("bundles", "retire", world.env_id, "hello", "--store-only").result
    kubectl.run("-n", world.namespace, "create", "configmap", "theirs", "--from-literal=a=1")
    gone = world.op("env", "destroy", world.env_id, "--confirm").result
    assert gone["cluster"]["removed_count"] >= 14
    left = kubectl.get(
        "-n", world.namespace, "configmaps,deployments,services,networkpolicies,poddisruptionbudgets,secrets"
    )["items"]
    assert {
        i["metadata"]["name"] for i in left if not i["metadata"]["name"].startswith(("kube-root-ca", "default-token"))
    } == {"theirs"}
    assert not (world.store / world.env_id).exists()


def test_a_namespace_goes_only_where_that_is_asked_for(world: World, kubectl):
    world.author(runtime_image=PAUSE)
    world.reconcile("--no-wait").result
    removed = world.op("env", "destroy", world.env_id, "--confirm", "--namespace").result["cluster"]["removed"]
    assert "Namespace" in {r["kind"] for r in removed}
    assert kubectl.get("namespace", world.namespace) is None


def test_the_written_yaml_is_what_a_reconcile_applies(world: World, kubectl, tmp_path):
    """GitOps: kubectl applies the rendered files with our manager's name, and a reconcile then finds nothing to do but its key."""
    world.author(runtime_image=PAUSE)
    world.ready()
    world.op("env", "render", world.env_id, "--output", tmp_path / "yaml").result
    served = kubectl.run("api-versions").split()
    for path in (tmp_path / "yaml").glob("*.yaml"):
        if "policy/v1" not in served:
            path.write_text(path.read_text().replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n"))
    kubectl.run("apply", "--server-side", "--field-manager=greentic-deployer", "-f", str(tmp_path / "yaml"))
    report = world.reconcile("--no-wait").result
    assert (report["applied_count"], report["created"], report["changed"]) == (14, [], [])


def rendered(world: World, directory: Path) -> dict[str, str]:
    """The files of a rendering."""
    world.op("env", "render", world.env_id, "--output", directory).result
    return {path.name: path.read_text() for path in directory.iterdir()}


def repository(world: World, files: dict[str, str], directory: Path) -> str:
    """A folder of a repository; on an old server with the version of a budget that it serves."""
    served = world.kubectl.run("api-versions").split()
    directory.mkdir()
    for file, text in files.items():
        older = text.replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n")
        (directory / file).write_text(text if "policy/v1" in served else older)
    return str(directory)


def in_sync(world: World, how: list[str], folder: str) -> None:
    """kubectl finds nothing to change.

    It reads an object and then asks what an apply would make of it; a controller that writes the object's status in
    between is shown as a difference. What really differs stays, so it asks again for a while."""

    def differences() -> str:
        return world.kubectl.differences(*how, "-f", folder)

    until(lambda: not differences(), differences)


@pytest.mark.parametrize("how", [[], ["--server-side"]], ids=["client-side", "server-side"])
def test_rendered_files_that_others_apply_are_stable_and_show_no_difference_afterwards(world: World, tmp_path, how):
    world.author(runtime_image=PAUSE)
    world.ready()
    files = rendered(world, tmp_path / "once")
    assert len(files) == 14 and files == rendered(world, tmp_path / "again")
    folder = repository(world, files, tmp_path / "repository")
    world.kubectl.run("apply", *how, "-f", folder)
    in_sync(world, how, folder)
    world.kubectl.run("apply", *how, "-f", folder)
    in_sync(world, how, folder)
    world.op("config", "set", world.env_id, "public_base_url=https://bots.example.com").result
    changed = repository(world, rendered(world, tmp_path / "later"), tmp_path / "changed")
    assert "bots.example.com" in world.kubectl.differences(*how, "-f", changed)


@pytest.mark.parametrize(
    ("how", "manager", "taking"),
    [([], "kubectl-client-side-apply", []), (["--server-side"], "kubectl", ["--force-conflicts"])],
    ids=["client-side", "server-side"],
)
def test_what_kubectl_applied_goes_over_to_a_reconcile_and_back(world: World, tmp_path, how, manager, taking):
    """Each of the two finds the other's objects as its own; a field that both state has two managers, and who changes it has to say so."""

    def url(text: str) -> None:
        world.op("config", "set", world.env_id, f"public_base_url={text}").result

    def committed(name: str) -> str:
        return repository(world, rendered(world, tmp_path / f"files-{name}"), tmp_path / name)

    world.author(runtime_image=PAUSE)
    revision = world.ready()
    first = committed("first")
    world.kubectl.run("apply", *how, "-f", first)
    plan = world.op("env", "diff", world.env_id)
    assert plan.code == 2 and plan.result["conflicts"] == [] and plan.result["not_ours"] == []
    over = world.reconcile("--no-wait").result
    assert over["created"] == [] and over["applied_count"] == 14 and "unattributed" not in over
    assert world.reconcile("--no-wait").result["writes"] == 0 and world.op("env", "diff", world.env_id).code == 0
    in_sync(world, how, first)

    url("https://one.example.com")
    refused = world.reconcile("--no-wait").error
    assert f"managed by `{manager}`" in refused["message"] and "--force takes them over" in refused["hint"]
    assert "one.example.com" not in world.get("configmap", "gtc-env-store")["data"]["environment.json"]
    taken = world.reconcile("--no-wait", "--force").result
    assert "gtc-env-store" in {c["name"] for c in taken["changed"]} and world.op("env", "diff", world.env_id).code == 0

    second = committed("second")
    in_sync(world, how, second)
    world.kubectl.run("apply", *how, "-f", second)
    in_sync(world, how, second)
    assert world.reconcile("--no-wait").result["writes"] == 0
    url("https://two.example.com")
    third = committed("third")
    if taking:
        with pytest.raises(AssertionError, match="greentic-deployer"):
            world.kubectl.run("apply", *how, "-f", third)
    world.kubectl.run("apply", *how, *taking, "-f", third)
    in_sync(world, how, third)
    assert "two.example.com" in world.get("configmap", "gtc-env-store")["data"]["environment.json"]
    world.reconcile("--no-wait").result
    in_sync(world, how, third)
    assert world.op("env", "diff", world.env_id).code == 0

    world.op("bundles", "retire", world.env_id, "hello", "--store-only").result
    assert {p["kind"] for p in world.reconcile("--no-wait", "--force").result["pruned"]} == {"Deployment", "Service"}
    assert world.get("deployment", world.worker(revision)) is None
