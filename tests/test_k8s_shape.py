"""The shape of pods and the way in: what answers are refused and where, what they make of the objects, and what becomes of it in a cluster."""

from __future__ import annotations

import copy
import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import IMAGE
from greentic.bundle.limits import DEFAULT_LIMITS
from greentic.cli.gtc import main
from greentic.cluster.refusals import explained
from greentic.deployer import binding, reconcile, rollout, sweep
from greentic.distribute.bundle_cache import DEFAULT_MAX_BYTES
from greentic.distribute.fetch import MAX_BUNDLE_BYTES
from greentic.ground.documents import JsonObject, replace
from greentic.ground.errors import Conflict, PermissionMissing
from greentic.ground.reply import reply_object
from greentic.k8s import names
from greentic.k8s.answers import read_answers
from greentic.k8s.exposed import gateway_addresses, gateway_urls
from greentic.k8s.objects import ApiRefused, Ref, ref_of
from greentic.k8s.plan import make_plan
from greentic.manifests import env_render
from greentic.model.environment import HostConfig
from greentic.operate import env, env_packs
from greentic.shape.exposure import fits
from greentic.shape.pod_settings import WORKER_HOME
from greentic.shape.syntax import quantity
from greentic.wasm.compiled_files import MAX_BYTES
from test_deployer import E, reconciled
from test_k8s_plan import OWNER, live_of
from test_k8s_render import (
    DEPLOYMENT,
    ONE,
    OTHER,
    THREE,
    TWO,
    deployment,
    environment,
    named,
    policy,
    rendered,
    revision,
    split,
    template,
)  # fmt: skip

GATEWAY = {"expose": "gateway", "gateway": "infra/public", "hosts": ["bots.example.com"], "ingress_namespaces": "infra"}
INGRESS = {"expose": "ingress", "hosts": "bots.example.com", "ingress_class": "nginx"}
SCALED = {"autoscale": {"min": 2, "max": 5, "cpu": 70}}


# -- quantities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "written", "value"),
    [
        ("1024Mi", "1Gi", 2**30), ("1.5Gi", "1536Mi", 3 * 2**29), ("0.5", "500m", Fraction(1, 2)), (0.25, "250m", Fraction(1, 4)), ("1000m", "1", 1),
        (2, "2", 2), ("1000M", "1G", 10**9), ("1e3", "1k", 1000), ("1500", "1500", 1500), ("0", "0", 0), ("+3", "3", 3), ("1.", "1", 1), (".5Gi", "512Mi", 2**29),
    ],
)  # fmt: skip
def test_a_quantity_is_written_as_a_server_writes_it(told, written, value):
    assert quantity(told, "x") == (value, written)


@given(st.integers(0, 2**40), st.sampled_from(["", "Ki", "Mi", "k", "M", "m"]))
def test_writing_a_quantity_again_changes_nothing(number, unit):
    once = quantity(f"{number}{unit}", "x")
    assert quantity(once.text, "x") == once


# -- what is refused, and where ------------------------------------------------------------------------------------------


def term(**more: object) -> dict:
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", **more}]}}


REFUSED = [
    # limits below requests, units
    ({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}, "resources.limits.memory: 1Gi is below the request, 2Gi"),
    ({"resources": {"requests": {"cpu": "1 core"}}}, "resources.requests.cpu: `1 core` is no quantity"),
    ({"resources": {"limits": {"memory": "1GB"}}}, "resources.limits.memory: `1GB` is no quantity"),
    ({"resources": {"limits": {"memory": "400m"}}}, "resources.limits.memory: `400m` is not a whole number"),
    ({"resources": {"limits": {"cpu": "0.0001"}}}, "resources.limits.cpu: `0.0001` is finer"),
    ({"resources": {"limits": {"cpu": "-1"}}}, "resources.limits.cpu"),
    ({"resources": {"limits": {"cpu": 0}}}, "is nothing"),
    ({"resources": {"limits": {"gpu": 1}}}, "resources.limits.gpu: unknown resource"),
    ({"resources": {"requests": {"example.com/gpu": 1}, "limits": {"example.com/gpu": 2}}}, "the limit has to be the same"),
    ({"resources": {"claims": []}}, ".resources: object contains unknown field `claims`"),
    ({"resources": {"limits": {"memory": "300Mi"}}}, "leaves 44 MiB for components"),
    # how many
    ({"replicas": 0}, ".replicas"), ({"replicas": "3"}, ".replicas"), ({"replicas": 3, **SCALED}, "answer one of them"),
    ({"autoscale": {"min": 2, "max": 5}}, "neither is there"), ({"autoscale": {"min": 2, "max": 5, "cpu": 5, "in_flight": 5}}, "both are there"),
    ({"autoscale": {"min": 5, "max": 2, "cpu": 5}}, ".autoscale.max: 2 is below min 5"), ({"autoscale": {"max": 5, "cpu": 5}}, "missing required field `min`"),
    ({"resources": {"requests": {"cpu": None}}, **SCALED}, "autoscale.cpu is a share of the requested CPU"),
    # where
    ({"node_selector": {"a b": "c"}}, ".node_selector: `a b` is no key"), ({"node_selector": {"a": "c d"}}, ".node_selector.a: `c d` is no value"),
    ({"tolerations": [{"operator": "Equal"}]}, ".tolerations[0].operator: without a key"), ({"tolerations": [{"key": "a", "operator": "Is"}]}, ".tolerations[0].operator"),
    ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, ".tolerations[0].value"), ({"tolerations": [{"key": "a", "effect": "Never"}]}, ".tolerations[0].effect"),
    ({"tolerations": [{"key": "a", "tolerationSeconds": 5}]}, ".tolerations[0].tolerationSeconds"), ({"tolerations": [{"key": "a", "keys": 5}]}, ".tolerations[0]"),
    ({"topology_spread": [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}, ".topology_spread[0].maxSkew"),
    ({"topology_spread": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}] * 2}, ".topology_spread[1]: `z`"),
    ({"affinity": term(labelSelector={"matchExpressions": [{"key": "a", "operator": "In"}]})}, "labelSelector.matchExpressions[0].values: In needs"),
    ({"affinity": term(labelSelector={"matchLabels": {"a": "?"}})}, "labelSelector.matchLabels.a"), ({"affinity": term(label_selector={})}, ".affinity.podAntiAffinity"),
    ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}, "nodeSelectorTerms"),
    ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["b"]}]}]}}}}, "compares with a whole number"),
    ({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {"topologyKey": "z"}}]}}}, "[0].weight"),
    # who
    ({"labels": {"greentic.ai/env": "x"}}, "says whose objects"), ({"labels": {"app.kubernetes.io/managed-by": "x"}}, "says whose objects"), ({"labels": {"a": "-"}}, ".labels.a"),
    ({"annotations": {"greentic.ai/checksum": "x"}}, "deployer's own"), ({"annotations": {"a": "x" * (256 << 10)}}, "at most"), ({"annotations": {"-/a": "x"}}, "no key"),
    ({"service_account": "Bad_Name"}, ".service_account"), ({"service_account": {"annotations": {}}}, "missing required field `name`"), ({"priority_class": "Bad_Name"}, ".priority_class"),
    # variables
    ({"env": {"PATH": "x"}}, ".env.PATH: only GREENTIC_*"), ({"env": {"LD_PRELOAD": "x"}}, ".env.LD_PRELOAD: only"), ({"env": {"GREENTIC_SURPRISE": "x"}}, "no variable that a worker reads"),
    ({"env": {"HTTPS_PROXY": "http://user:pw@proxy:3128"}}, "HTTPS_PROXY: holds an address with a password"),
    ({"env": {"GREENTIC_RUNNER_REDIS_URL": "redis://:pw@redis:6379"}}, "GREENTIC_RUNNER_REDIS_URL: holds an address with a password"),
    ({"env": {"GREENTIC_LOG_FORMAT": "xml"}}, "GREENTIC_LOG_FORMAT=`xml`: expected `json` or `text`"),
    ({"env": {"GREENTIC_PACK_SIGNATURES": "perhaps"}}, "expected `ignore` or `warn` or `require`"),
    ({"env": {"GREENTIC_SECRET_A": "x"}}, "a secret would stand in the pod"), ({"env": {"OCI_PASSWORD": "x"}}, "a secret would stand"), ({"env": {"OTEL_A B": "x"}}, "no name of a variable"),
    ({"env": {"GREENTIC_READY_FD": "3"}}, "no variable that a worker reads"), ({"surprise": 1}, "object contains unknown field `surprise`"), ([], "expected `object`, got `array`"),
]  # fmt: skip


@pytest.mark.parametrize("whose", ["router", "worker"])
@pytest.mark.parametrize(("told", "text"), REFUSED)
def test_a_shape_that_makes_no_sense_is_refused_with_the_field(told, text, whose):
    with pytest.raises(Conflict) as refused:
        read_answers({whose: told}, "prod")
    assert text in str(refused.value) and whose in str(refused.value)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"router": {"replicas": 1}}, "router.replicas must be >= 2"), ({"router": {"autoscale": {"min": 1, "max": 2, "cpu": 5}}}, "router.autoscale.min must be >= 2"),
        ({"router": {"replicas": 3}, "router_replicas": 3}, "router.replicas and router_replicas are the same"), ({"router_replicas": 3, "router": SCALED}, "answer one of them"),
        ({"uid": 0}, "uid `0` is not valid"), ({"size_limit": {"home": "8 Gi"}}, "size_limit.home"), ({"size_limit": {"log": "8Gi"}}, "size_limit: object contains unknown field `log`"),
        ({"size_limit": {"tmp": "5"}}, "size_limit.tmp"), ({"extra_ca": "A_B"}, "extra_ca"), ({"component_egress": "https://a.example.com"}, "component_egress: "),
        ({"component_limits": {"memory_mb": 0}}, "component_limits.memory_mb"), ({"component_limits": {"total_mb": 100}}, "total_mb: 100 is below what one call may use, 256"),
        ({"component_limits": {"total_mb": 1000}}, "router.resources.limits.memory: 1Gi leaves 768 MiB"), ({"pack_signatures": "maybe"}, "pack_signatures"), ({"pack_signatures": "require"}, "somebody to trust"),
        ({"expose": "tunnel"}, "expose `tunnel`"), ({"expose": ["ingress"]}, "expose"), ({"expose": "ingress", "hosts": "https://bots.example.com/x"}, "hosts[0]: `https://bots.example.com/x` has a scheme"),
        ({"expose": "ingress", "hosts": ["a.example.com", "a.example.com:8080"]}, "hosts[1]: `a.example.com:8080` has a port"), ({"expose": "ingress", "hosts": "a.example.com/x"}, "has a path"),
        ({"expose": "ingress", "hosts": "10.0.0.1"}, "is an address"), ({"expose": "ingress", "hosts": "a_b.example.com"}, "no host name"), ({"expose": "ingress", "hosts": "a..b"}, "no host name"),
        ({"expose": "ingress", "hosts": ["A.example.com", "a.example.com"]}, "there twice"), ({"expose": "ingress", "hosts": "a.b", "issuer": "x", "cluster_issuer": "y"}, "issuer and cluster_issuer are both answered"),
        ({"expose": "ingress", "tls_secret": "t"}, "a certificate is for names"), ({"expose": "ingress", "gateway": "a/b"}, "gateway is answered and means nothing"),
        ({**GATEWAY, "tls_secret": "t"}, "the Gateway has the certificate"), ({**GATEWAY, "gateway": "public"}, "NAMESPACE/NAME"), ({**GATEWAY, "hosts": None}, "for names"),
        ({**GATEWAY, "ingress_namespaces": None}, "where they run"), ({"hosts": "a.example.com"}, "hosts is answered and means nothing: expose is none"), ({"expose": "none", "issuer": "i"}, "expose is none"),
        ({"router": {"service_account": "a"}, "worker": {"service_account": {"name": "a"}}}, "worker.service_account: `a` is answered otherwise"),
    ],
)  # fmt: skip
def test_settings_and_exposures_that_make_no_sense_are_refused(told, text):
    with pytest.raises(Conflict) as refused:
        read_answers(told, "prod")
    assert text in str(refused.value)


# -- what answers make of objects ------------------------------------------------------------------------------------------


def pods_of(answers: dict) -> tuple[dict, dict]:
    objects = rendered(environment(), answers)
    return template(named(objects, "Deployment", "gtc-router")), template(
        named(objects, "Deployment", f"gtc-worker-{ONE.lower()}")
    )


def variables(pod: dict) -> dict:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in pod["spec"]["containers"][0]["env"]}


def test_nothing_answered_asks_for_nothing_more():
    kinds = {o["kind"] for o in rendered(environment())}
    assert kinds == {"Namespace", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    for pod in pods_of({}):
        assert not pod["spec"].keys() & {
            "nodeSelector",
            "tolerations",
            "affinity",
            "priorityClassName",
            "serviceAccountName",
        }
        assert pod["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"},
        }  # fmt: skip
        assert variables(pod)["GREENTIC_COMPONENT_TOTAL_MB"] == "768"  # what the limit leaves


def test_routers_and_workers_have_shapes_of_their_own():
    told = {
        "router": {"resources": {"requests": {"memory": "2Gi"}}, "labels": {"team": "edge"}, "env": {"OTEL_SERVICE_NAME": "$(HOME)"}},
        "worker": {"resources": {"limits": {"memory": None, "cpu": None}}, "node_selector": {"pool": "bots"}, "annotations": {"a": "b"}, "replicas": 3},
    }  # fmt: skip
    router, worker = pods_of(told)
    assert router["spec"]["containers"][0]["resources"]["limits"]["memory"] == "2Gi"
    assert (
        variables(router)["GREENTIC_COMPONENT_TOTAL_MB"] == "1792"
        and variables(router)["OTEL_SERVICE_NAME"] == "$$(HOME)"
    )
    assert router["metadata"]["labels"]["team"] == "edge" and "team" not in worker["metadata"]["labels"]
    assert worker["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}}
    assert "GREENTIC_COMPONENT_TOTAL_MB" not in variables(worker) and worker["spec"]["nodeSelector"] == {"pool": "bots"}
    assert worker["metadata"]["annotations"]["a"] == "b" and "OTEL_SERVICE_NAME" not in variables(worker)
    objects = rendered(environment(), told)
    assert named(objects, "Deployment", f"gtc-worker-{ONE.lower()}")["spec"]["replicas"] == 3
    for thing in (o for o in objects if o["kind"] == "Deployment"):
        assert thing["spec"]["selector"]["matchLabels"].items() <= template(thing)["metadata"]["labels"].items()


@pytest.mark.parametrize("told", [{"labels": {"a": "b"}}, {"annotations": {"a": "b"}}, {"env": {"OTEL_A": "b"}}])
def test_every_change_of_a_template_is_a_new_checksum(told):
    plain, changed = pods_of({})[1], pods_of({"worker": told})[1]
    assert plain["metadata"]["annotations"][names.CHECKSUM] != changed["metadata"]["annotations"][names.CHECKSUM]


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"worker": {"env": {"GREENTIC_MAX_CONNECTIONS": "many"}}}, "worker.env: GREENTIC_MAX_CONNECTIONS=`many`: expected a whole number"),
        ({"router": {"env": {"GREENTIC_ACCESS_LOG": "perhaps"}}}, "router.env: GREENTIC_ACCESS_LOG=`perhaps` is neither yes nor no"),
        ({"worker": {"env": {"GREENTIC_FETCH_IDLE_SECONDS": "soon"}}}, "worker.env: GREENTIC_FETCH_IDLE_SECONDS"),
        ({"worker": {"env": {"OTEL_BSP_SCHEDULE_DELAY": "-1"}}}, "worker.env: OTEL_BSP_SCHEDULE_DELAY"),
        ({"worker": {"env": {"OTEL_SERVICE_NAME": "a\0b"}}}, "OTEL_SERVICE_NAME holds a zero byte"), ({"worker": {"env": {"OTEL_NEW": "\0"}}}, "OTEL_NEW holds a zero byte"),
        ({"pack_signers": ["ab" * 32, "me"]}, r"pack_signers\[1\]: `me` is no fingerprint"), ({"component_egress": "api example"}, "component_egress: `api example` is no host"),
        ({"component_egress": "a\0b"}, "component_egress: .* is no host"), ({"oci_insecure_registries": ["r:5000", "http://r"]}, r"oci_insecure_registries\[1\]: 'http://r' is no registry"),
        ({"oci_insecure_registries": "r:5000/x"}, r"oci_insecure_registries\[0\]"),
    ],
)  # fmt: skip
def test_what_no_pod_would_start_with_is_refused_before_anything_is_applied(told, where):
    """Pods ended at their boot, one after the other, with a reconcile that waited for them."""
    with pytest.raises(Conflict, match=where):
        read_answers(told, "prod")


@pytest.mark.parametrize(("name", "value"), [("GREENTIC_ACCESS_LOG", True), ("GREENTIC_MAX_CONNECTIONS", 100), ("GREENTIC_FETCH_IDLE_SECONDS", "2.5"), ("GREENTIC_WORKERS", "auto"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")])  # fmt: skip
def test_values_that_a_worker_takes_are_taken(name, value):
    assert read_answers({"worker": {"env": {name: value}}, "oci_insecure_registries": ["[::1]:5000", "r"]}, "prod")


def test_settings_reach_every_pod():
    told = {
        "uid": "none", "size_limit": {"home": "8192Mi"}, "extra_ca": "corporate", "component_egress": ["api.example.com", "*.example.org"],
        "component_limits": {"seconds": 2.5, "memory_mb": 64, "total_mb": 512}, "pack_signatures": "require", "pack_signers": f"{'ab' * 32},{'CD' * 32}",
    }  # fmt: skip
    for pod in pods_of(told):
        security = pod["spec"]["securityContext"]
        assert security == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
        assert volumes["greentic-home"]["emptyDir"] == {"sizeLimit": "8Gi"}
        assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "1Gi"}
        assert volumes["authorities"]["configMap"] == {"name": "corporate"}
        mounted = {m["name"]: m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
        told_ = variables(pod)
        assert told_["GREENTIC_CA_FILES"] == f"{mounted['authorities']}/ca.crt"
        assert told_["GREENTIC_HTTP_EGRESS"] == "api.example.com,*.example.org"
        assert (
            told_["GREENTIC_COMPONENT_SECONDS"],
            told_["GREENTIC_COMPONENT_MEMORY_MB"],
            told_["GREENTIC_COMPONENT_TOTAL_MB"],
        ) == ("2.5", "64", "512")
        assert (told_["GREENTIC_PACK_SIGNATURES"], told_["GREENTIC_PACK_SIGNERS"]) == (
            "require",
            f"{'ab' * 32},{'CD' * 32}",
        )


@pytest.mark.parametrize(
    ("told", "sizes"),
    [
        ({}, [(None, "1Gi"), ("16Gi", "1Gi")]),
        ({"size_limit": {"home": None}}, [(None, "1Gi"), (None, "1Gi")]),
        ({"size_limit": {"home": "2Gi", "tmp": None}}, [("2Gi", None), ("2Gi", None)]),
    ],
)
def test_volumes_have_a_size_that_no_pod_of_legal_bundles_reaches(told, sizes):
    """Routers hold as many revisions as are routed, so theirs has none unless it is answered."""
    found = [
        {v["name"]: v["emptyDir"].get("sizeLimit") for v in p["spec"]["volumes"] if "emptyDir" in v}
        for p in pods_of(told)
    ]
    assert [(volumes["greentic-home"], volumes["tmp"]) for volumes in found] == sizes
    worst = MAX_BUNDLE_BYTES + DEFAULT_MAX_BYTES + DEFAULT_LIMITS.total_bytes + MAX_BYTES
    assert worst <= quantity(WORKER_HOME, "").value


def test_a_variable_that_pods_are_told_already_is_refused_by_name():
    with pytest.raises(Conflict, match=r"worker\.env\.GREENTIC_HTTP_EGRESS: pods are told it already"):
        rendered(environment(), {"component_egress": "none", "worker": {"env": {"GREENTIC_HTTP_EGRESS": "public"}}})
    for name in (
        "GREENTIC_ENV",
        "GREENTIC_ENV_FROM",
        "GREENTIC_ENV_FROM_SECONDS",
    ):  # what they serve is the ConfigMap's
        with pytest.raises(Conflict, match=rf"router\.env\.{name}: pods are told it already"):
            rendered(environment(), {"router": {"env": {name: "5"}}})
    alone = rendered(environment(), {"worker": {"env": {"GREENTIC_HTTP_EGRESS": "none"}}})
    assert (
        variables(template(named(alone, "Deployment", f"gtc-worker-{ONE.lower()}")))["GREENTIC_HTTP_EGRESS"] == "none"
    )


def test_what_loosens_or_needs_something_else_is_warned_of():
    told = {
        "runtime_image": IMAGE, "component_egress": "unrestricted", "pack_signatures": "ignore",
        "router": {"env": {"GREENTIC_ANONYMOUS_SESSIONS": "shared"}, "autoscale": {"min": 2, "max": 3, "in_flight": 5}},
    }  # fmt: skip
    found = "\n".join(read_answers(told, "prod").warnings())
    for text in ("router.env.GREENTIC_ANONYMOUS_SESSIONS", "greentic_in_flight", "unrestricted", "ignore"):
        assert text in found
    assert read_answers({"runtime_image": IMAGE}, "prod").warnings() == []


def test_an_autoscaler_scales_its_deployment_and_replicas_are_not_ours():
    objects = rendered(
        environment(), {"worker": SCALED, "router": {"autoscale": {"min": 2, "max": 4, "in_flight": 20}}}
    )
    scalers = [o for o in objects if o["kind"] == "HorizontalPodAutoscaler"]
    assert [o["metadata"]["name"] for o in scalers] == [
        "gtc-router",
        *(f"gtc-worker-{r.lower()}" for r in (ONE, TWO, THREE)),
    ]
    for scaler in scalers:
        target = named(objects, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"] and target["metadata"]["labels"] == scaler["metadata"]["labels"]
    assert scalers[0]["spec"]["metrics"][0]["pods"]["target"] == {"type": "AverageValue", "averageValue": "20"}
    assert scalers[1]["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}


@pytest.mark.parametrize(
    ("worker", "kept"),
    [
        ({}, False),
        ({"replicas": 1}, False),
        ({"replicas": 2}, True),
        ({"autoscale": {"min": 1, "max": 8, "cpu": 70}}, False),
        ({"autoscale": {"min": 2, "max": 8, "cpu": 70}}, True),
    ],
)
def test_of_several_pods_a_drain_of_nodes_leaves_one_and_a_single_one_can_be_drained(worker, kept):
    """Behind a Gateway the workers answer themselves. Of one pod a budget would let nobody drain its node."""
    objects = rendered(environment(), {"worker": worker})
    budgets = {o["metadata"]["name"]: o for o in objects if o["kind"] == "PodDisruptionBudget"}
    workers = {f"gtc-worker-{r.lower()}" for r in (ONE, TWO, THREE)}
    assert set(budgets) == {"gtc-router", *(workers if kept else ())}
    for name, budget in budgets.items():
        deployment = named(objects, "Deployment", name)
        assert budget["spec"] == {"minAvailable": 1, "selector": deployment["spec"]["selector"]}
        assert budget["metadata"]["labels"] == deployment["metadata"]["labels"]


def test_a_budget_goes_with_the_replicas_that_asked_for_it(bound, cluster):
    answer(bound, worker={"replicas": 2})
    reconciled(bound)
    assert len(refs(cluster, "PodDisruptionBudget")) == 2
    orphan, ref = (
        "gtc-worker-orphan",
        next(r for r in cluster.objects if r.kind == "PodDisruptionBudget" and "worker" in r.name),
    )
    thing = json.loads(json.dumps(cluster.objects[ref]))
    thing["metadata"] |= {"name": orphan, "uid": orphan}
    thing["metadata"]["labels"][names.REVISION] = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    cluster.objects[ref._replace(name=orphan)] = thing
    assert [o.name for o in sweep.sweep(bound.context, sweep.SweepPayload(environment_id=E, apply=True)).removed] == [
        orphan
    ]
    answer(bound)
    reconciled(bound)
    assert refs(cluster, "PodDisruptionBudget") == {"gtc-router"}


def test_an_account_with_annotations_is_made_once_and_a_named_one_was_there():
    made = {"name": "bots", "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/bots"}}
    objects = rendered(environment(), {"router": {"service_account": made}, "worker": {"service_account": made}})
    accounts = [o for o in objects if o["kind"] == "ServiceAccount"]
    assert len(accounts) == 1 and accounts[0]["metadata"]["annotations"] == made["annotations"]
    assert accounts[0]["automountServiceAccountToken"] is False
    router = template(named(objects, "Deployment", "gtc-router"))["spec"]
    assert router["serviceAccountName"] == "bots" and router["automountServiceAccountToken"] is False
    there = rendered(environment(), {"worker": {"service_account": "bots"}})
    assert not [o for o in there if o["kind"] == "ServiceAccount"]


# -- the way in ----------------------------------------------------------------------------------------------------------------


def test_an_ingress_leads_to_the_routers_with_its_certificate():
    objects = rendered(
        environment(), {**INGRESS, "hosts": ["Bots.example.com", "*.example.org"], "cluster_issuer": "letsencrypt"}
    )
    thing = named(objects, "Ingress", "gtc-router")
    assert thing["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "letsencrypt"}
    assert thing["spec"]["tls"] == [{"hosts": ["bots.example.com", "*.example.org"], "secretName": "gtc-router-tls"}]
    assert thing["spec"]["ingressClassName"] == "nginx" and [r["host"] for r in thing["spec"]["rules"]] == [
        "bots.example.com",
        "*.example.org",
    ]
    solver = policy(objects, "gtc-allow-certificates")
    assert (
        solver["podSelector"]["matchLabels"] == {"acme.cert-manager.io/http01-solver": "true"}
        and "egress" not in solver
    )
    plain = rendered(environment(), {"expose": "ingress"})
    assert "host" not in named(plain, "Ingress", "gtc-router")["spec"]["rules"][0]
    assert "gtc-allow-certificates" not in {o["metadata"]["name"] for o in plain}


def routes(env_: object, **answers: object) -> dict[str, dict]:
    return {
        o["metadata"]["name"]: o["spec"] for o in rendered(env_, {**GATEWAY, **answers}) if o["kind"] == "HTTPRoute"
    }


def weights(spec: dict) -> dict[str, int]:
    return {b["name"]: b["weight"] for b in spec["rules"][0]["backendRefs"]}


def test_a_gateway_draws_by_the_basis_points_of_the_split():
    weighted = environment(
        traffic_splits=[split(DEPLOYMENT, "bot", (ONE, 9_999), (TWO, 1)), split(OTHER, "faq", (THREE, 10_000))]
    )
    found = routes(weighted)
    assert weights(found[f"gtc-{DEPLOYMENT.lower()}"]) == {
        f"gtc-worker-{ONE.lower()}": 9_999,
        f"gtc-worker-{TWO.lower()}": 1,
    }
    assert found[f"gtc-{DEPLOYMENT.lower()}"]["rules"][0]["matches"] == [
        {"path": {"type": "PathPrefix", "value": "/bot"}}
    ]
    assert weights(found["gtc-router"]) == {"gtc-router": 1} and found["gtc-router"]["hostnames"] == [
        "bots.example.com"
    ]
    assert len(found) == 3
    moved = environment(traffic_splits=[split(DEPLOYMENT, "bot", (TWO, 10_000)), split(OTHER, "faq", (THREE, 10_000))])
    assert weights(routes(moved)[f"gtc-{DEPLOYMENT.lower()}"]) == {f"gtc-worker-{TWO.lower()}": 10_000}


def test_a_revision_without_a_worker_leaves_its_deployment_to_the_routers():
    gone = environment(
        revisions=[revision(ONE, lifecycle="inactive"), revision(TWO), revision(THREE, OTHER, "faq")],
        traffic_splits=[split(DEPLOYMENT, "bot", (ONE, 5_000), (TWO, 5_000)), split(OTHER, "faq", (THREE, 10_000))],
    )
    assert weights(routes(gone)[f"gtc-{DEPLOYMENT.lower()}"]) == {"gtc-router": 1}


def test_no_host_and_prefix_stands_in_two_routes_and_the_earlier_deployment_has_it():
    first, second = deployment(revisions=(ONE,)), deployment(OTHER, "faq", (THREE,))
    first = replace(
        first, route_binding=replace(first.route_binding, hosts=["bots.example.com"], path_prefixes=["/", "/x"])
    )
    second = replace(second, route_binding=replace(second.route_binding, path_prefixes=["/", "/y"]))
    found = routes(environment(bundles=[first, second]), hosts=["bots.example.com", "other.example.com"])
    places = [
        (host, match["path"]["value"])
        for spec in found.values() for host in spec["hostnames"] for rule in spec["rules"] for match in rule["matches"]
    ]  # fmt: skip
    assert len(places) == len(set(places))
    assert ("bots.example.com", "/") in places and "gtc-router" not in found
    of_second = [spec for spec in found.values() if f"gtc-worker-{THREE.lower()}" in weights(spec)]
    assert {h for s in of_second if s["rules"][0]["matches"][0]["path"]["value"] == "/" for h in s["hostnames"]} == {
        "other.example.com"
    }


def test_more_prefixes_than_a_route_holds_are_refused():
    many = deployment(revisions=(ONE,))
    for count, fine in ((128, True), (129, False)):
        crowded = replace(
            many, route_binding=replace(many.route_binding, path_prefixes=[f"/p{i}" for i in range(count)])
        )
        env_ = environment(bundles=[crowded, deployment(OTHER, "faq", (THREE,))])
        if fine:
            assert len(routes(env_)[f"gtc-{DEPLOYMENT.lower()}"]["rules"]) == 16
        else:
            with pytest.raises(Conflict, match="129 path prefixes"):
                routes(env_)


@pytest.mark.parametrize(
    ("prefix", "fine"),
    [
        ("/a-b/c.d/~e", True), ("/a%20b", True), ("/a@b:c;d=e", True), ("/..a/b..", True), ("/" + "x" * 1023, True),
        ("/" + "x" * 1024, False), ("/größe", False), ("/a//b", False), ("/a/../b", False), ("/a/.", False), ("/a/..", False),
        ("/a%2Fb", False), ("/a%2fb", False), ("/a%zz", False), ("/a[b]", False), ("/a|b", False),
    ],
)  # fmt: skip
def test_a_prefix_that_no_gateway_takes_is_refused_before_anything_is_applied(prefix, fine):
    """Its servers check it; they would refuse the route after the document was written."""
    one = deployment(revisions=(ONE,))
    env_ = environment(bundles=[replace(one, route_binding=replace(one.route_binding, path_prefixes=[prefix]))])
    if fine:
        (rule,) = routes(env_)[f"gtc-{DEPLOYMENT.lower()}"]["rules"]
        assert rule["matches"][0]["path"]["value"] == prefix
    else:
        with pytest.raises(Conflict, match="no HTTPRoute can match") as refused:
            routes(env_)
        assert "answer expose: ingress" in (refused.value.hint or "") and prefix[:20] in str(refused.value)


def test_threat_unauthenticated_invoke_only_a_gateway_reaches_workers_beside_routers():
    assert (
        len(policy(rendered(environment(), {**INGRESS, "ingress_namespaces": "infra"}), "gtc-allow-workers")["ingress"])
        == 1
    )
    rules = policy(rendered(environment(), GATEWAY), "gtc-allow-workers")["ingress"]
    label = "kubernetes.io/metadata.name"
    assert rules[1]["from"] == [{"namespaceSelector": {"matchLabels": {label: "infra"}}}]
    assert policy(rendered(environment(), GATEWAY), "gtc-allow-router")["ingress"][0]["from"] == rules[1]["from"]


def test_pods_are_told_the_url_unless_another_was_set():
    tls = read_answers({**INGRESS, "tls_secret": "t"}, "prod")
    assert binding.with_public_url(environment(), tls).host_config.public_base_url == "https://bots.example.com"
    assert (
        binding.with_public_url(environment(), read_answers(INGRESS, "prod")).host_config.public_base_url
        == "http://bots.example.com"
    )
    own = environment(host_config=HostConfig(env_id="prod", public_base_url="https://front.example.net"))
    assert binding.with_public_url(own, tls) == own
    assert "none of the exposed hosts" in binding.public_url_warnings(own, tls)[0]
    fitting = environment(host_config=HostConfig(env_id="prod", public_base_url="https://bots.example.com:8443"))
    assert binding.public_url_warnings(fitting, tls) == []
    assert "set-public-url prod" in binding.public_url_warnings(environment(), read_answers(GATEWAY, "prod"))[0]
    assert binding.with_public_url(environment(), read_answers({}, "prod")) == environment()
    assert (
        fits("*.example.com", "a.example.com")
        and not fits("*.example.com", "a.b.example.com")
        and not fits("*.example.com", "example.com")
    )


# -- in a cluster ----------------------------------------------------------------------------------------------------------------


def answer(author, **told: object) -> None:
    import json

    (author.context.store.paths(E).root / "answers.json").write_text(json.dumps({"runtime_image": IMAGE, **told}))


def refs(cluster_, kind: str) -> set[str]:
    return {r.name for r in cluster_.objects if r.kind == kind}


def gateway(*listeners: dict, addresses: tuple[str, ...] = ("203.0.113.7",)) -> dict:
    told = [{"type": "IPAddress", "value": address} for address in addresses]
    named = {"name": "public", "namespace": "infra"}
    return {"kind": "Gateway", "metadata": named, "spec": {"listeners": list(listeners)}, "status": {"addresses": told}}


def listener(protocol: str, port: int, hostname: str | None = None, *, namespaces: str | None = "All") -> dict:
    host = {} if hostname is None else {"hostname": hostname}
    taken = {} if namespaces is None else {"allowedRoutes": {"namespaces": {"from": namespaces}}}
    return {"name": f"l{port}", "protocol": protocol, "port": port, **host, **taken}


@pytest.mark.parametrize(
    ("listeners", "urls"),
    [
        ([listener("HTTP", 80)], ["http://bots.example.com", "http://a.b.example.org"]),
        ([listener("HTTP", 80), listener("HTTPS", 443)], ["https://bots.example.com", "https://a.b.example.org"]),
        ([listener("HTTPS", 8443, "bots.example.com"), listener("HTTP", 8080)], ["https://bots.example.com:8443", "http://a.b.example.org:8080"]),
        ([listener("HTTPS", 443, "*.Example.org")], ["https://a.b.example.org"]),
        ([listener("HTTPS", 443, "*.bots.example.com")], []),
        ([listener("HTTP", 80, namespaces="Same")], []), ([listener("HTTP", 80, namespaces=None)], []),
        ([listener("HTTP", 80, namespaces="Selector")], ["http://bots.example.com", "http://a.b.example.org"]),
        ([listener("TLS", 443), listener("TCP", 80)], []), ([], []),
    ],
)  # fmt: skip
def test_what_callers_use_behind_a_gateway_is_what_its_listeners_take(listeners, urls):
    hosts = ("bots.example.com", "*.wild.example.com", "a.b.example.org")
    assert gateway_urls(gateway(*listeners), hosts, "gtc-local") == urls
    assert gateway_urls(gateway(*listeners, addresses=()), hosts, "gtc-local") == []


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"spec": [], "status": 7},
        {"spec": {"listeners": [None, {"protocol": "HTTP"}]}, "status": {"addresses": [{}]}},
    ],
)
def test_of_a_gateway_that_makes_no_sense_nothing_is_told(odd):
    assert gateway_urls(odd, ("bots.example.com",), "gtc-local") == [] == gateway_addresses(odd)


def test_a_report_tells_the_way_in_by_a_gateway_where_it_may_be_seen(bound, cluster, monkeypatch):
    answer(bound, expose="gateway", gateway="infra/public", hosts=["bots.example.com"], ingress_namespaces="infra")
    found = reply_object(reconciled(bound))
    assert found["urls"] == [] and "addresses" not in found
    cluster.objects[Ref("Gateway", "public", "infra")] = gateway(listener("HTTPS", 443))
    found = reply_object(reconciled(bound))
    assert found["urls"] == ["https://bots.example.com"] and found["addresses"] == ["203.0.113.7"]
    env.set_public_url(bound.context, env.SetPublicUrlPayload(environment_id=E, url="https://bots.example.com"))
    assert reply_object(reconciled(bound))["urls"] == ["https://bots.example.com"]
    get = cluster.get

    def unseen(ref: Ref) -> JsonObject | None:
        if ref.kind == "Gateway":
            raise ApiRefused("gateways is forbidden", status=403)
        return get(ref)

    monkeypatch.setattr(cluster, "get", unseen)
    assert "addresses" not in reply_object(reconciled(bound))


def test_what_is_no_longer_answered_is_removed_and_what_others_made_stays(bound, cluster):
    account = {"service_account": {"name": "bots"}}
    answer(bound, **INGRESS, router={**SCALED, **account}, worker=account)
    first = reconciled(bound)
    assert reply_object(first)["urls"] == ["http://bots.example.com"] and "addresses" not in reply_object(first)
    assert refs(cluster, "Ingress") == {"gtc-router"} and refs(cluster, "HorizontalPodAutoscaler") == {"gtc-router"}
    again = reconciled(bound)
    assert again.writes == first.writes and again.changed == []
    deployers = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "greentic-deployer", "namespace": "gtc-local"},
    }
    deployers["metadata"]["labels"] = names.owner_labels(
        E, next(iter(cluster.objects.values()))["metadata"]["labels"][names.STORE]
    )
    cluster.apply(deployers, force=False)
    foreign = copy.deepcopy(cluster.objects[Ref("Ingress", "gtc-router", "gtc-local")])
    foreign["metadata"] |= {"name": "theirs", "labels": {}, "uid": "theirs"}
    cluster.objects[Ref("Ingress", "theirs", "gtc-local")] = foreign
    answer(bound)
    gone = reconciled(bound)
    assert {(o.kind, o.name) for o in gone.pruned} == {
        ("Ingress", "gtc-router"), ("HorizontalPodAutoscaler", "gtc-router"), ("ServiceAccount", "bots"),
    }  # fmt: skip
    assert refs(cluster, "Ingress") == {"theirs"} and refs(cluster, "ServiceAccount") == {"greentic-deployer"}


@pytest.mark.parametrize("kind", ["Ingress", "HorizontalPodAutoscaler"])
def test_threat_prune_strangers_an_object_of_that_name_by_others_stops_the_run(bound, cluster, kind):
    answer(bound)
    reconciled(bound)
    theirs = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "gtc-router", "namespace": "gtc-local", "uid": "x"},
        "spec": {"a": 1},
    }
    cluster.objects[ref_of(theirs)] = theirs
    answer(bound, **INGRESS, router=SCALED)
    writes = cluster.writes
    with pytest.raises(Conflict, match=rf"{kind} `gtc-router`.*somebody else made it"):
        reconciled(bound)
    assert cluster.writes == writes and cluster.objects[ref_of(theirs)] == theirs
    answer(bound)
    assert reconciled(bound).pruned == [] and cluster.objects[ref_of(theirs)] == theirs


def test_a_cluster_without_the_gateway_api_is_told_before_anything_is_written(bound, cluster, monkeypatch):
    monkeypatch.setattr(cluster, "versions", lambda group: () if "gateway" in group else ("v1",))
    answer(bound, **GATEWAY)
    with pytest.raises(Conflict, match=r"HTTPRoute in no version of `gateway\.networking\.k8s\.io`") as refused:
        reconciled(bound)
    assert cluster.writes == 0 and "install the Gateway API" in refused.value.hint
    answer(bound)
    assert reconciled(bound).writes


def test_an_older_server_is_not_given_the_metric_that_it_would_double(bound, cluster, monkeypatch):
    answer(bound, worker={"autoscale": {"min": 1, "max": 2, "in_flight": 20}})
    with pytest.raises(Conflict, match="does not serve autoscaling/v2"):
        reconciled(bound)
    assert cluster.writes == 0
    monkeypatch.setattr(cluster, "versions", lambda group: ("v2", "v1"))
    assert "HorizontalPodAutoscaler" in {o.kind for o in reconciled(bound).created}


@pytest.mark.parametrize("status", [403, 404])
def test_kinds_that_nobody_asks_for_may_be_missing_or_hidden(bound, cluster, monkeypatch, status):
    listed = cluster.list
    hidden = ("HTTPRoute", "Ingress", "HorizontalPodAutoscaler", "ServiceAccount")

    def hiding(kind: str, *rest: object) -> object:
        if kind in hidden:
            raise ApiRefused("no", status=status)
        return listed(kind, *rest)

    monkeypatch.setattr(cluster, "list", hiding)
    answer(bound)
    assert reconciled(bound).applied_count == 15
    writes = cluster.writes
    answer(bound, **INGRESS)
    with pytest.raises(PermissionMissing if status == 403 else ApiRefused) as refused:
        reconciled(bound)
    assert cluster.writes == writes
    if status == 403:
        assert "may not list ingresses" in str(refused.value) and "bootstrap" in refused.value.hint


def test_a_refusal_by_quota_or_webhook_names_object_and_next_step(bound, cluster):
    cluster.refuse = {"HorizontalPodAutoscaler": 'admission webhook "policy" denied the request: no scaling today'}
    answer(bound, router=SCALED)
    with pytest.raises(Conflict, match="no scaling today") as failed:
        reconciled(bound)
    assert failed.value.report["failed"][0]["kind"] == "HorizontalPodAutoscaler" and "webhook" in failed.value.hint
    cluster.refuse = {}
    assert {o.kind for o in reconciled(bound).created} == {"HorizontalPodAutoscaler"}


def test_a_full_quota_is_no_missing_right():
    full = ApiRefused('deployments.apps "a" is forbidden: exceeded quota: small', status=403)
    assert (full.forbidden, full.cause) == (False, "QuotaExceeded")
    item = make_plan(
        [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}}], [], OWNER
    ).items[0]
    assert "ResourceQuota" in (explained(item, full).hint or "")
    missing = ApiRefused('services is forbidden: User "x" cannot patch', status=403)
    assert (missing.forbidden, missing.cause) == (True, "RightsMissing")


@pytest.mark.parametrize(
    ("told", "field", "hint"),
    [
        ({"worker": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}}, "worker.resources.limits.memory: 1Gi is below", ""),
        ({"router": {"resources": {"limits": {"memory": "1GB"}}}}, "router.resources.limits.memory: `1GB`", ""),
        ({"expose": "ingress", "hosts": "https://a.example.com"}, "hosts[0]: `https://a.example.com` has a scheme", "write the name alone"),
        ({"expose": "ingress", "hosts": "a.example.com", "issuer": "x", "cluster_issuer": "y"}, "issuer and cluster_issuer", ""),
        ({"router": {"autoscale": {"min": 2, "max": 5}}}, "router.autoscale: an autoscaler goes by one metric", ""),
    ],
)  # fmt: skip
def test_a_person_is_told_the_field_and_the_file_before_anything_is_applied(
    told, field, hint, bound, cluster, capsys, monkeypatch
):
    answer(bound, **told)
    root = bound.context.store.root
    monkeypatch.setattr("sys.argv", ["gtc", "op", "--store-root", str(root), "env", "reconcile", E, "--no-wait"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1 and cluster.requests == 0
    error = json.loads(capsys.readouterr().err)["error"]
    assert field in error["message"] and hint in error["hint"] and f"`{root / E / 'answers.json'}`" in error["hint"]


def test_the_report_tells_the_address_that_the_cluster_gave(bound, cluster):
    answer(bound, **INGRESS)
    reconciled(bound)
    cluster.objects[Ref("Ingress", "gtc-router", "gtc-local")]["status"] = {
        "loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"hostname": "lb.example.net"}]}
    }
    assert reply_object(reconciled(bound))["addresses"] == ["203.0.113.7", "lb.example.net"]


def test_destroying_takes_the_way_in_and_scalers_with_it(bound, cluster):
    answer(bound, **GATEWAY, router={**SCALED, "service_account": {"name": "bots"}}, worker=SCALED)
    reconciled(bound)
    assert refs(cluster, "HTTPRoute") and len(refs(cluster, "HorizontalPodAutoscaler")) == 2
    with bound.context.store.transaction(E) as transaction:
        transaction.save(replace(bound.context.store.load(E), traffic_splits=[]))
    sweep.destroy(bound.context, sweep.EnvDestroyPayload(environment_id=E, confirm=True))
    assert not [r for r in cluster.objects if r.kind not in ("Namespace", "Secret")]


def test_one_revision_brings_its_scaler_and_account(bound, cluster):
    answer(bound)
    reconciled(bound)
    answer(bound, worker={**SCALED, "service_account": {"name": "bots"}})
    own = bound.context.store.load(E).revisions[0].revision_id
    rollout.apply_revision(bound.context, rollout.ApplyRevisionPayload(environment_id=E, revision_id=own, no_wait=True))
    assert refs(cluster, "HorizontalPodAutoscaler") == {names.worker_name(own)} and refs(cluster, "ServiceAccount") == {
        "bots"
    }


def test_replicas_are_not_reset_when_an_autoscaler_takes_over():
    plain = named(rendered(environment(), {"router_replicas": 4}), "Deployment", "gtc-router")
    scaled = named(rendered(environment(), {"router": SCALED}), "Deployment", "gtc-router")
    live = live_of(plain, keys={".spec.template.spec.containers": "name"})
    item = make_plan([scaled], [live], OWNER).items[0]
    assert item.stated["spec"]["replicas"] == 4  # ours alone: leaving it out would be one replica
    owned = live_of(scaled, ("kube-controller-manager", {"f:spec": {"f:replicas": {}}}))
    owned["spec"]["replicas"] = 7
    later = make_plan([scaled], [owned], OWNER).items[0]
    assert "replicas" not in later.stated["spec"] and later.action == "unchanged"


def test_binding_tells_the_field_of_a_deep_answer_and_keys_that_stand_twice(bound):
    payload = env_packs.EnvPackBindingPayload(
        environment_id=E,
        slot="deployer",
        kind="greentic.deployer.k8s@1.0.0",
        pack_ref="builtin",
        answers_ref="answers.json",
    )
    root = bound.context.store.paths(E).root
    answer(bound, worker={"resources": {"limits": {"cpu": "lots"}}})
    assert "worker.resources.limits.cpu: `lots`" in binding.update(bound.context, payload).warnings[0]
    (root / "answers.json").write_text('{"worker": {"replicas": 2, "replicas": 3}}')
    assert "`replicas` stands twice" in binding.update(bound.context, payload).warnings[0]
    answer(bound, component_egress="none", router={"env": {"GREENTIC_HTTP_EGRESS": "none"}})
    assert "router.env.GREENTIC_HTTP_EGRESS" in binding.update(bound.context, payload).warnings[0]
    with pytest.raises(Conflict, match="told it already"):
        reconcile.applicable(binding.resolve(bound.context, E, None, live=True))


def test_a_url_that_was_set_follows_into_the_report_and_the_rendering(bound, cluster):
    answer(bound, **GATEWAY)
    shown = env_render.render_objects(bound.context, env_render.EnvRenderPayload(environment_id=E))
    assert "set-public-url" in "".join(shown.warnings)
    env.set_public_url(bound.context, env.SetPublicUrlPayload(environment_id=E, url="https://bots.example.com"))
    assert reply_object(reconciled(bound))["urls"] == ["https://bots.example.com"]
