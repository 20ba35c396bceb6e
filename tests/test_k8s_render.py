"""From environment and answers to objects: names, answers, pods, policies, views, sizes. No cluster."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re

import msgspec
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import deployer_answers
from greentic import __version__
from greentic.ground.documents import replace
from greentic.ground.errors import Conflict
from greentic.ground.yaml import yaml_of
from greentic.k8s import names, pods
from greentic.k8s.answers import KEYS, OWN_IMAGE, read_answers
from greentic.k8s.network_policies import Destinations, destinations
from greentic.k8s.objects import labels_of, ref_of
from greentic.k8s.render import MAX_DATA, DesiredObjects, render
from greentic.model.environment import (
    BundleDeployment,
    Environment,
    EnvPackBinding,
    HostConfig,
    RevenueShare,
    Revision,
    Revocation,
    RouteBinding,
    SplitEntry,
    TenantSelector,
    TrafficSplit,
    new_environment,
)
from greentic.model.pod_view import for_pods, for_worker, with_own_revision
from greentic.model.validate import validate
from greentic.net.addresses import METADATA, never_reached, parsed

TIME = "2026-01-01T00:00:00Z"
DEPLOYMENT, OTHER = "00000000000000000000000001", "00000000000000000000000002"
ONE, TWO, THREE = "0000000000000000000000000G", "00000000000000000000000010", "0000000000000000000000001G"


def revision(
    revision_id: str, deployment_id: str = DEPLOYMENT, bundle_id: str = "bot", lifecycle: str = "ready", **more: object
) -> Revision:
    given = {
        "bundle_source_uri": f"https://bundles.example.com/{revision_id}.gtbundle",
        "bundle_digest": f"sha256:{'0' * 64}",
    } | more
    return Revision(
        schema="greentic.revision.v1", revision_id=revision_id, env_id="prod", bundle_id=bundle_id, deployment_id=deployment_id, sequence=1,
        created_at=TIME, pack_list=[], pack_list_lock_ref="", config_digest="sha256:00", signature_sidecar_ref="rev.sig", lifecycle=lifecycle, **given,
    )  # fmt: skip


def deployment(
    deployment_id: str = DEPLOYMENT, bundle_id: str = "bot", revisions: tuple[str, ...] = ()
) -> BundleDeployment:
    return BundleDeployment(
        schema="greentic.bundle-deployment.v1", deployment_id=deployment_id, env_id="prod", bundle_id=bundle_id, customer_id="acme", status="active",
        current_revisions=list(revisions), route_binding=RouteBinding(path_prefixes=[f"/{bundle_id}"], tenant_selector=TenantSelector(tenant="default", team="default")),
        revenue_share=[RevenueShare(party_id="greentic", basis_points=10000)], revenue_policy_ref="p.json", created_at=TIME, authorization_ref="auth.json",
    )  # fmt: skip


def split(deployment_id: str, bundle_id: str, *weights: tuple[str, int]) -> TrafficSplit:
    return TrafficSplit(
        schema="greentic.traffic-split.v1", env_id="prod", deployment_id=deployment_id, bundle_id=bundle_id, generation=1,
        entries=[SplitEntry(revision_id=r, weight_bps=w) for r, w in weights], updated_at=TIME, updated_by="ops", idempotency_key="k", authorization_ref="auth.json",
    )  # fmt: skip


def environment(**changes: object) -> Environment:
    """One deployment with a routed and an idle revision, a second deployment with a routed one, one archived."""
    env = new_environment("prod", "Production", HostConfig(env_id="prod"))
    filled = {
        "bundles": [deployment(revisions=(ONE, TWO)), deployment(OTHER, "faq", (THREE,))],
        "revisions": [
            revision(ONE),
            revision(TWO),
            revision(THREE, OTHER, "faq"),
            revision("0000000000000000000000002G", lifecycle="archived"),
        ],
        "traffic_splits": [split(DEPLOYMENT, "bot", (ONE, 10000)), split(OTHER, "faq", (THREE, 10000))],
        "packs": [
            EnvPackBinding(
                slot="deployer", kind="greentic.deployer.k8s@1.0.0", pack_ref="builtin", answers_ref="a.json"
            )
        ],
        "credentials_ref": "secret://prod/default/_/k8s-deployer/deployer_token",
    }
    return replace(env, **(filled | changes))


def rendered(env: Environment, answers: dict[str, object] | None = None, **more: object) -> list[dict]:
    desired = DesiredObjects(
        for_pods(env), read_answers(answers or {}, env.environment_id), "s-0123456789abcdef", **more
    )
    return render(desired)


def named(objects: list[dict], kind: str, name: str) -> dict:
    return next(o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))


def template(thing: dict) -> dict:
    return thing["spec"]["template"]


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "namespace"),
    [
        ("local", "gtc-local"), ("Prod.EU_west", "gtc-prod-eu-west-eb74f49e"), ("...", "gtc-ab5df625"), ("-x", "gtc-x-a4209624"),
        ("a" * 59, "gtc-" + "a" * 59), ("a" * 60, "gtc-" + "a" * 50 + "-11ee3912"),
    ],
)  # fmt: skip
def test_the_namespace_of_an_environment(env_id, namespace):
    assert names.namespace_of(env_id) == namespace


@given(st.text(alphabet="abcXYZ019._-", min_size=1, max_size=90))
def test_every_id_gives_a_legal_label_and_namespace(text):
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", names.label_value(text))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", names.namespace_of(text))


@given(st.lists(st.text(alphabet="ab._-", min_size=1, max_size=70), min_size=2, max_size=2, unique=True))
def test_different_ids_never_share_a_label(pair):
    assert names.label_value(pair[0]) != names.label_value(pair[1])


def test_two_directories_are_two_stores(tmp_path):
    assert names.store_identity(tmp_path / "a") != names.store_identity(tmp_path / "b")
    assert re.fullmatch(r"s-[0-9a-f]{16}", names.store_identity(tmp_path))


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ([], "answers must be a JSON object"), ({"surprise": 1, "namespace": "Bad"}, "unknown answer key `surprise`"),
        ({"namespace": "kube-system"}, "is the cluster's own, and the policies would close every pod in it"),
        ({"namespace": "Bad"}, "is not a valid RFC 1123 label"), ({"namespace": "-a"}, "is not a valid RFC 1123 label"),
        ({"namespace": "a" * 64}, "is not a valid RFC 1123 label"), ({"runtime_image": "Upper:1"}, "contains invalid characters"),
        ({"runtime_image": " "}, "contains invalid characters"), ({"router_replicas": 1}, "must be >= 2"), ({"router_replicas": 2.0}, "router_replicas"),
        ({"router_replicas": -3}, "router_replicas"), ({"router_replicas": True}, "router_replicas"), ({"router_replicas": " 3"}, "router_replicas"),
        ({"router_replicas": [3]}, "router_replicas"), ({"tunnel": "ngrok"}, "is not valid"), ({"tunnel": "cloudflared"}, "opens no tunnel"), ({"egress_cidrs": "169.254.169.254/32"}, "no worker asks"), ({"oci_insecure_registries": ["a", 5]}, "must be strings"),
        ({"oci_insecure_registries": 5}, "oci_insecure_registries"), ({"egress_cidrs": "10.0.0.0/99"}, "is no network"), ({"egress_ports": [0]}, "egress_ports"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy"), ({"drain_delay_seconds": 601}, "drain_delay_seconds"), ({"redis_secret": "Bad_Name"}, "redis_secret"),
    ],
)  # fmt: skip
def test_answers_that_make_no_sense_are_refused(raw, text):
    with pytest.raises(Conflict) as refused:
        read_answers(raw, "prod")
    assert text in str(refused.value)


def test_blank_answers_are_the_defaults():
    blank = read_answers({key: None if index % 2 else "" for index, key in enumerate(KEYS)}, "prod")
    assert blank == read_answers({}, "prod")
    assert (blank.namespace, blank.runtime_image, blank.router.replicas) == ("gtc-prod", OWN_IMAGE, 2)


def test_answers_come_as_texts_numbers_and_lists():
    found = read_answers(
        {
            "namespace": 5,
            "router_replicas": "+3",
            "oci_insecure_registries": " a:5000, ,b ",
            "egress_ports": "5432, 9092",
            "dns_cidrs": ["10.1.2.3"],
        },
        "prod",
    )
    assert (found.namespace, found.router.replicas) == ("5", 3)
    assert found.oci_insecure_registries == ("a:5000", "b")
    assert found.egress_ports == (5432, 9092)
    assert found.dns_cidrs == ("10.1.2.3/32",)


# -- objects ----------------------------------------------------------------------------------------------------------


def test_twelve_objects_and_two_for_each_present_revision():
    objects = rendered(environment())
    assert len(objects) == 12 + 2 * 3
    assert [ref_of(o).kind for o in objects[:12]] == [
        "Namespace",
        "ConfigMap",
        "ConfigMap",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        *["NetworkPolicy"] * 6,
    ]
    assert [o["metadata"]["name"] for o in objects[12:14]] == [f"gtc-worker-{ONE.lower()}"] * 2
    for lifecycle, count in (
        ("warming", 14),
        ("ready", 14),
        ("draining", 14),
        ("staged", 12),
        ("failed", 12),
        ("inactive", 12),
        ("archived", 12),
    ):
        alone = environment(
            revisions=[revision(ONE, lifecycle=lifecycle)], bundles=[deployment(revisions=(ONE,))], traffic_splits=[]
        )
        assert len(rendered(alone)) == count, lifecycle


def test_every_object_carries_environment_and_store():
    for thing in rendered(environment()):
        assert (
            labels_of(thing).items()
            >= {names.MANAGED_BY: "greentic", names.ENV: "prod", names.STORE: "s-0123456789abcdef"}.items()
        )


def test_the_same_input_gives_the_same_objects():
    assert rendered(environment()) == rendered(environment())


def test_pods_meet_the_restricted_profile_and_get_no_token():
    objects = rendered(environment(), secrets_bound=True, dev_secrets="QT1i")
    assert (
        named(objects, "Namespace", "gtc-prod")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    workloads = [o for o in objects if o["kind"] == "Deployment"]
    assert len(workloads) == 4
    for thing in workloads:
        pod = template(thing)["spec"]
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        assert "initContainers" not in pod and len(pod["containers"]) == 1
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["seccompProfile"] == {
            "type": "RuntimeDefault"
        }
        container = pod["containers"][0]
        assert container["image"] == OWN_IMAGE and "command" not in container
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        assert all(set(v) & {"emptyDir", "configMap", "secret"} for v in pod["volumes"])


def test_a_pod_has_time_to_drain():
    slow = environment(
        revisions=[revision(ONE, drain_seconds=120)], bundles=[deployment(revisions=(ONE,))], traffic_splits=[]
    )
    objects = rendered(slow, {"drain_delay_seconds": 7})
    worker = template(named(objects, "Deployment", f"gtc-worker-{ONE.lower()}"))["spec"]
    assert worker["terminationGracePeriodSeconds"] >= 7 + 120
    router = template(named(objects, "Deployment", "gtc-router"))["spec"]
    assert router["terminationGracePeriodSeconds"] >= 7 + pods.FINISH_SECONDS
    told = {e["name"]: e.get("value") for e in router["containers"][0]["env"]}
    assert told["GREENTIC_DRAIN_DELAY_SECONDS"] == "7"


def test_routers_spread_and_never_go_below_their_number():
    router = named(rendered(environment(), {"router_replicas": 3}), "Deployment", "gtc-router")
    assert router["spec"]["replicas"] == 3
    assert router["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    keys = {c["topologyKey"] for c in template(router)["spec"]["topologySpreadConstraints"]}
    assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


def test_answers_reach_the_pods():
    told = {
        "image_pull_policy": "Never", "image_pull_secrets": "reg-a,reg-b", "ingress_tokens_secret": "tokens", "redis_secret": "redis", "secrets_secret": "bot-secrets", "registry_secret": "pull",
        "trust_anchor_config_map": "anchor", "oci_insecure_registries": ["r:5000"], "tunnel": "off", "service_type": "LoadBalancer",
    }  # fmt: skip
    objects = rendered(environment(), told)
    pod = template(named(objects, "Deployment", "gtc-router"))["spec"]
    variables = {e["name"]: e.get("value", e.get("valueFrom")) for e in pod["containers"][0]["env"]}
    mounted = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert (
        pod["imagePullSecrets"] == [{"name": "reg-a"}, {"name": "reg-b"}]
        and pod["containers"][0]["imagePullPolicy"] == "Never"
    )
    assert variables["GREENTIC_RUNNER_REDIS_URL"] == {"secretKeyRef": {"name": "redis", "key": "url"}}
    assert (
        variables["GREENTIC_INGRESS_TOKENS"].startswith(mounted["ingress-tokens"])
        and variables["GREENTIC_SECRETS_DIR"] == mounted["secrets"]
    )
    assert (
        variables["GREENTIC_TRUST_ANCHOR"].startswith(mounted["trust"])
        and variables["GREENTIC_OCI_INSECURE_REGISTRIES"] == "r:5000"
    )
    assert variables["DOCKER_CONFIG"] == mounted["registry"] and variables["GREENTIC_TRUST_LOOPBACK"] == "off"
    assert named(objects, "Service", "gtc-router")["spec"]["type"] == "LoadBalancer"


def test_ports_name_their_protocol():
    for thing in rendered(environment()):
        ports = thing["spec"].get("ports", []) if thing["kind"] == "Service" else []
        ports += (
            [p for c in template(thing)["spec"]["containers"] for p in c["ports"]]
            if thing["kind"] == "Deployment"
            else []
        )
        assert all(p["protocol"] == "TCP" for p in ports)


def test_an_id_that_is_no_legal_label_still_gives_legal_objects():
    odd = "x" * 80
    env = environment(
        environment_id=".odd.",
        host_config=HostConfig(env_id=".odd."),
        revisions=[revision(ONE, bundle_id=odd)],
        bundles=[deployment(bundle_id=odd, revisions=(ONE,))],
        traffic_splits=[],
    )
    for thing in rendered(env):
        for value in [
            *labels_of(thing).values(),
            *(template(thing)["metadata"]["labels"].values() if thing["kind"] == "Deployment" else []),
        ]:
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value)
    worker = template(named(rendered(env), "Deployment", f"gtc-worker-{ONE.lower()}"))["spec"]["containers"][0]
    assert {e["name"]: e.get("value") for e in worker["env"]}["GREENTIC_BUNDLE_ID"] == odd


# -- what pods read -----------------------------------------------------------------------------------------------------


def test_pods_get_what_they_need_and_no_more():
    document = json.loads(named(rendered(environment()), "ConfigMap", "gtc-env-store")["data"]["environment.json"])
    assert [r["revision_id"] for r in document["revisions"]] == [ONE, TWO, THREE]
    assert "credentials_ref" not in document and document["packs"] == []
    assert [r["bundle_source_uri"] for r in document["revisions"]] == [
        r.bundle_source_uri for r in environment().revisions[:3]
    ]
    validate(msgspec.convert(document, Environment))


def test_a_routed_revision_is_given_to_pods_whatever_its_state():
    env = environment(revisions=[revision(ONE, lifecycle="inactive"), revision(TWO), revision(THREE, OTHER, "faq")])
    assert [r.revision_id for r in for_pods(env).revisions] == [ONE, TWO, THREE]


def checksums(env: Environment, answers: dict[str, object] | None = None) -> dict[str, str]:
    return {
        o["metadata"]["name"]: template(o)["metadata"]["annotations"][names.CHECKSUM]
        for o in rendered(env, answers)
        if o["kind"] == "Deployment"
    }


def changed(before: Environment, after: Environment) -> set[str]:
    old, new = checksums(before), checksums(after)
    return {name for name in old.keys() & new.keys() if old[name] != new[name]}


def split_of(*weights: tuple[str, int]) -> list[TrafficSplit]:
    return [split(DEPLOYMENT, "bot", *weights), split(OTHER, "faq", (THREE, 10000))]


def with_one(**changes: object) -> list[Revision]:
    return [replace(r, **changes) if r.revision_id == ONE else r for r in environment().revisions]


FOLLOWED = {
    "weights": {"traffic_splits": split_of((ONE, 5000), (TWO, 5000))},
    "another revision routed": {"traffic_splits": split_of((TWO, 10000))},
    "a revision fewer": {
        "revisions": [r for r in environment().revisions if r.revision_id != TWO],
        "bundles": [deployment(revisions=(ONE,)), deployment(OTHER, "faq", (THREE,))],
    },
    "another source": {"revisions": with_one(bundle_source_uri="https://mirror.example.com/bot.gtbundle")},
    "times": {"revisions": with_one(warmed_at="2026-02-02T00:00:00Z")},
    "a state of life": {"revisions": with_one(lifecycle="draining")},
    "overrides": {
        "bundles": [
            replace(deployment(revisions=(ONE, TWO)), config_overrides={"pack": {"greeting": "hi"}}),
            deployment(OTHER, "faq", (THREE,)),
        ]
    },
    "a deployment that is paused": {
        "bundles": [replace(deployment(revisions=(ONE, TWO)), status="paused"), deployment(OTHER, "faq", (THREE,))]
    },
    "the public name": {"host_config": HostConfig(env_id="prod", public_base_url="https://bots.example.com")},
    "revocation": {"revocation": Revocation(required=True, list_ref="https://lists.example.com/r.json")},
    "the name": {"name": "another name"},
}
"""Changes of the document, all of which a running pod follows."""


@pytest.mark.parametrize("what", FOLLOWED)
def test_what_pods_follow_replaces_none_of_them(what):
    after = environment(**FOLLOWED[what])
    assert rendered(after) != rendered(environment()) or what in ("times", "the name")
    assert changed(environment(), after) == set()
    old, new = (
        {o["metadata"]["name"]: o for o in rendered(e) if o["kind"] == "Deployment"} for e in (environment(), after)
    )
    assert all(old[name] == new[name] for name in old.keys() & new.keys()), "not even its label or its history"


ROUTER, WORKERS = "gtc-router", {f"gtc-worker-{r.lower()}" for r in (ONE, TWO, THREE)}
REPLACED = {
    "the image": ({}, {"runtime_image": f"registry.example.com/worker@sha256:{'1' * 64}"}, {ROUTER, *WORKERS}),
    "a variable": ({}, {"drain_delay_seconds": 9}, {ROUTER, *WORKERS}),
    "a mount": ({}, {"secrets_secret": "mine"}, {ROUTER, *WORKERS}),
    "the pinned digest": (
        {"revisions": with_one(bundle_digest=f"sha256:{'9' * 64}")},
        {},
        {f"gtc-worker-{ONE.lower()}"},
    ),
    "how long a revision may finish": (
        {"revisions": with_one(drain_seconds=45)},
        {},
        {ROUTER, f"gtc-worker-{ONE.lower()}"},
    ),
    "the number of routers": ({}, {"router_replicas": 5}, set()),
    "the way in": ({}, {"service_type": "NodePort"}, set()),
}
"""Changes of the document and of the answers, with whose pods they replace."""


@pytest.mark.parametrize("what", REPLACED)
def test_what_pods_cannot_follow_replaces_them(what):
    document, answers, replaced = REPLACED[what]
    old, new = checksums(environment()), checksums(environment(**document), answers)
    assert {name for name in old if old[name] != new[name]} == replaced


def test_a_replacement_is_told_in_the_history_of_the_rollout():
    thing = named(rendered(environment()), "Deployment", "gtc-router")
    cause = thing["metadata"]["annotations"]["kubernetes.io/change-cause"]
    seen = template(thing)["metadata"]["annotations"][names.CHECKSUM]
    assert seen[:12] in cause and template(thing)["spec"]["containers"][0]["image"] in cause


def test_a_revocation_list_is_reached_even_with_nothing_to_pull():
    env = environment(
        revisions=[replace(r, bundle_source_uri=None) for r in environment().revisions],
        revocation=Revocation(required=True, list_ref="https://lists.example.com:8443/r.json"),
    )
    ports = {p["port"] for p in policy(rendered(env), "gtc-allow-router-egress")["egress"][0]["ports"]}
    assert ports == {443, 8443}


@pytest.mark.parametrize(("drain", "step"), [(0, "30"), (30, "30"), (31, "300"), (301, "3600"), (90_000, "3600")])
def test_a_router_waits_as_long_as_the_slowest_revision_in_steps(drain, step):
    """Whether it is routed or not: routing it must replace nobody."""
    slow = environment(
        revisions=[replace(r, drain_seconds=drain) if r.revision_id == TWO else r for r in environment().revisions]
    )
    pod = template(named(rendered(slow), "Deployment", "gtc-router"))["spec"]
    assert {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}["GREENTIC_FINISH_SECONDS"] == step
    assert pod["terminationGracePeriodSeconds"] >= int(step)


def test_callers_find_their_conversation_unless_routers_share_a_store():
    assert named(rendered(environment()), "Service", "gtc-router")["spec"]["sessionAffinity"] == "ClientIP"
    assert (
        named(rendered(environment(), {"redis_secret": "redis"}), "Service", "gtc-router")["spec"]["sessionAffinity"]
        == "None"
    )


def test_a_worker_sees_its_own_revision_with_all_the_traffic():
    seen = for_worker(environment(), TWO)
    assert [r.revision_id for r in seen.revisions] == [TWO] and [d.deployment_id for d in seen.bundles] == [DEPLOYMENT]
    assert [(e.revision_id, e.weight_bps) for s in seen.traffic_splits for e in s.entries] == [(TWO, 10000)]
    validate(seen)
    assert for_worker(environment(), "00000000000000000000000099") is None


def test_an_idle_revision_of_a_worker_takes_the_place_of_its_siblings():
    seen = with_own_revision(environment(), TWO)
    assert {s.deployment_id: [e.revision_id for e in s.entries] for s in seen.traffic_splits} == {
        OTHER: [THREE],
        DEPLOYMENT: [TWO],
    }
    assert with_own_revision(environment(), ONE) == environment()


def test_threat_oversized_environment_is_refused_before_anything_is_applied():
    many = [revision(f"{i:026d}") for i in range(1, 3500)]
    env = environment(
        revisions=many,
        bundles=[deployment(revisions=tuple(r.revision_id for r in many)), deployment(OTHER, "faq")],
        traffic_splits=[split(DEPLOYMENT, "bot", (many[0].revision_id, 10000))],
    )
    with pytest.raises(Conflict) as refused:
        rendered(env)
    assert str(MAX_DATA) in str(refused.value) and "gtc-env-store" in str(refused.value)
    assert "gtc op revisions archive prod" in refused.value.hint
    size = int(re.search(r"would hold (\d+) bytes", str(refused.value)).group(1))
    assert size > MAX_DATA


def test_threat_secret_leak_nothing_rendered_holds_a_credential():
    secret = "QVBJX0tFWT1wbGFudGVkLXNlY3JldA=="
    objects = rendered(environment(), secrets_bound=True, dev_secrets=secret)
    holding = [ref_of(o).name for o in objects if secret in json.dumps(o)]
    assert holding == [names.DEV_SECRETS]
    assert "deployer_token" not in json.dumps(objects)


def test_development_secrets_are_one_more_object_and_roll_pods_by_hash():
    plain, known = (
        rendered(environment(), secrets_bound=True),
        rendered(environment(), secrets_bound=True, dev_secrets="QT1i"),
    )
    assert len(plain) == len(rendered(environment())) + 1
    assert (
        ref_of(known[12]).name == names.DEV_SECRETS
        and known[12]["data"] == {".dev.secrets.env": "QT1i"}
        and "data" not in plain[12]
    )
    hashes = {
        o["metadata"]["name"]: template(o)["metadata"]["annotations"][names.DEV_STORE_HASH]
        for o in plain
        if o["kind"] == "Deployment"
    }
    assert set(hashes.values()) == {"80852ffca8497a651fbbecfbfe9d086df79e3fbfa5cde7fa331402478e545996"}
    router = named(known, "Deployment", "gtc-router")
    assert template(router)["metadata"]["annotations"][names.DEV_STORE_HASH] == hashlib.sha256(b"QT1i").hexdigest()


# -- policies -------------------------------------------------------------------------------------------------------------


def policy(objects: list[dict], name: str) -> dict:
    return named(objects, "NetworkPolicy", name)["spec"]


def test_nothing_to_pull_means_no_way_out():
    closed = environment(revisions=[replace(r, bundle_source_uri=None) for r in environment().revisions])
    objects = rendered(closed)
    for name in ("gtc-allow-worker-egress", "gtc-allow-router-egress"):
        assert "egress" not in policy(objects, name) and policy(objects, name)["policyTypes"] == ["Egress"]
    assert policy(objects, "gtc-default-deny") == {
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
    }  # fmt: skip


def test_ways_out_are_as_narrow_as_sources_and_answers():
    objects = rendered(environment())
    rule = policy(objects, "gtc-allow-router-egress")["egress"][0]
    assert rule["ports"] == [{"protocol": "TCP", "port": 443}]
    told = rendered(environment(), {"egress_cidrs": "203.0.113.0/24", "egress_ports": [6379]})
    rule = policy(told, "gtc-allow-worker-egress")["egress"][0]
    assert rule == {"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"protocol": "TCP", "port": 443}]}
    more = policy(told, "gtc-allow-worker-egress")["egress"][1]
    assert more == {
        "to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}, {"namespaceSelector": {}}],
        "ports": [{"protocol": "TCP", "port": 6379}],
    }
    assert policy(rendered(environment(), {"redis_secret": "redis"}), "gtc-allow-router-egress")["egress"][1][
        "ports"
    ] == [{"protocol": "TCP", "port": 6379}]
    assert policy(rendered(environment(), {"egress": "open"}), "gtc-allow-worker-egress")["egress"] == [{}]


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("https://bundles.example.com/a", Destinations(frozenset({443}))), ("http://bundles.example.com/a", Destinations(frozenset({80}))),
        ("https://bundles.example.com:8443/a", Destinations(frozenset({8443}))), ("oci://registry.example.com/acme/bot:1", Destinations(frozenset({443}))),
        ("oci://registry.tools.svc.cluster.local:5000/bot:1", Destinations(namespaces=frozenset({"tools"}))), ("http://bundles/a", Destinations(namespaces=frozenset({""}))),
        ("http://bundles.tools.svc/a", Destinations(namespaces=frozenset({"tools"}))), ("http://bundles.tools/a", Destinations(frozenset({80}))),
        ("http://10.96.3.4:8090/a", Destinations(addresses=frozenset({("10.96.3.4/32", 8090)}))), ("https://[2001:db8::1]/a", Destinations(addresses=frozenset({("2001:db8::1/128", 443)}))),
        ("http://169.254.169.254/a", Destinations()), ("http://[::ffff:169.254.169.254]/a", Destinations()), ("file:///a", Destinations()), ("https://h:99999999/a", Destinations()), ("https://[::/a", Destinations()),
        ("oci://plain.example.com/bot:1", Destinations(frozenset({80}))),
    ],
)  # fmt: skip
def test_what_a_source_asks_for(uri, found):
    assert destinations([uri], ["plain.example.com"]) == found


def open_to(spec: dict, address: str, port: int) -> bool:
    """Whether a policy lets pods reach an address of no pod."""
    parsed = ipaddress.ip_address(address)

    def inside(network: str) -> bool:
        found = ipaddress.ip_network(network)
        return found.version == parsed.version and parsed in found

    return any(
        inside(peer["ipBlock"]["cidr"]) and not any(map(inside, peer["ipBlock"].get("except", [])))
        for rule in spec.get("egress", [])
        if any(
            p["port"] == port and p["protocol"] == "TCP" for p in rule.get("ports", [{"port": port, "protocol": "TCP"}])
        )
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    )


ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.sampled_from(
        [
            *[n[0] for n in METADATA],
            *map(ipaddress.ip_address, ("169.254.169.254", "fe80::1", "64:ff9b::a9fe:a9fe", "64:ff9b::6464:64c8")),
        ]
    ),
)


@example(ipaddress.ip_address("64:ff9b::"), [], 80)
@given(
    ADDRESSES,
    st.sampled_from([[], ["0.0.0.0/0", "::/0"], ["100.64.0.0/10", "fd00::/8", "168.63.0.0/16"]]),
    st.sampled_from([80, 443, 6379, 5432]),
)
def test_threat_lists_disagree_no_policy_opens_what_no_worker_asks(address, cidrs, port):
    env = environment(
        revisions=[replace(r, bundle_source_uri="http://bundles.example.com/b") for r in environment().revisions]
    )
    objects = rendered(env, {"egress_cidrs": cidrs, "egress_ports": [5432], "redis_secret": "r"})
    meant = parsed(str(address))
    refused = never_reached(str(address)) is not None and not meant.is_multicast and not meant.is_unspecified
    for name in ("gtc-allow-worker-egress", "gtc-allow-router-egress"):
        if refused and (
            address.version == 4 or address in ipaddress.ip_network("64:ff9b::/96") or not _embeds(address)
        ):
            assert not open_to(policy(objects, name), str(address), port)
        if not refused and not cidrs and port != 443 and address.version == 4:
            assert open_to(policy(objects, name), str(address), port) is (port in (80, 5432, 6379))


def _embeds(address) -> bool:
    """Whether an address leads to one of IPv4 (6to4, mapped, compatible), which no network of a cluster routes as such."""
    return any(
        address in ipaddress.ip_network(n)
        for n in ("2002::/16", "::/96", "::ffff:0:0:0/96", "::ffff:0:0/96", "64:ff9b:1::/48")
    )


def test_an_address_as_a_source_opens_that_address_and_port_alone():
    env = environment(
        revisions=[replace(r, bundle_source_uri="https://203.0.113.5:8443/b") for r in environment().revisions]
    )
    rules = policy(rendered(env, {"egress_cidrs": "198.51.100.0/24"}), "gtc-allow-worker-egress")["egress"]
    assert rules[1:] == [
        {"to": [{"ipBlock": {"cidr": "203.0.113.5/32"}}], "ports": [{"protocol": "TCP", "port": 8443}]}
    ]
    assert rules[0]["ports"] == [{"protocol": "TCP", "port": 443}]
    assert not any("namespaceSelector" in peer for rule in rules for peer in rule["to"])


def test_a_service_as_a_source_opens_its_namespace_and_no_other():
    uris = [
        "http://bundles.tools.svc.cluster.local:8080/a",
        "http://here.gtc-prod.svc/b",
        "https://bundles.example.com/c",
    ]
    env = environment(
        revisions=[replace(r, bundle_source_uri=u) for r, u in zip(environment().revisions, uris, strict=False)]
    )
    for name in ("gtc-allow-worker-egress", "gtc-allow-router-egress"):
        pods_of = [
            peer for rule in policy(rendered(env), name)["egress"] for peer in rule["to"] if "ipBlock" not in peer
        ]
        assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tools"}}} in pods_of
        assert {"namespaceSelector": {}} not in pods_of
    rule = policy(rendered(env), "gtc-allow-worker-egress")["egress"][-1]
    assert rule["to"][0] == {"podSelector": {}} and "ports" not in rule


# -- names of others are inert in every language that they are written into ------------------------------------------


HOSTILE = st.one_of(
    st.text(min_size=1, max_size=40),
    st.sampled_from(
        [
            "1e3",
            "0x10",
            "0o7",
            "no",
            "~",
            "12:30:45",
            "2026-01-01",
            "$(HOME)",
            "$$(HOME)",
            "a: b # c",
            "- x",
            "\x1b[2J",
            "*a",
            "!!python/object:x",
            "<b>&",
            "\u2028",
            "\ud7ff",
        ]
    ),
)


def expanded(text: str, variables: dict[str, str]) -> str:
    """What the kubelet makes of an argument or a variable's value."""
    return re.sub(r"\$(\$|\(([^)]*)\)|)", lambda m: "$" if m[1] in ("$", "") else variables.get(m[2], m[0]), text)


@given(HOSTILE)
def test_a_bundles_name_stands_for_itself_in_a_pod(name):
    env = environment(
        revisions=[revision(ONE, bundle_id=name)],
        bundles=[deployment(bundle_id=name, revisions=(ONE,))],
        traffic_splits=[],
    )
    worker = template(named(rendered(env), "Deployment", f"gtc-worker-{ONE.lower()}"))
    told = {e["name"]: e.get("value") for e in worker["spec"]["containers"][0]["env"]}
    assert expanded(told["GREENTIC_BUNDLE_ID"], {"HOME": "/expanded"}) == name
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", worker["metadata"]["labels"][names.BUNDLE])


@given(HOSTILE, HOSTILE)
def test_texts_are_texts_to_every_reader_of_yaml(key, value):
    text = yaml_of({"kind": "ConfigMap", key: value, "metadata": {"labels": {"x": value}}})
    read = yaml.safe_load(text)
    assert read[key] == value and read["metadata"]["labels"]["x"] == value
    assert all(32 <= ord(c) < 127 or c == "\n" for c in text)
    node = yaml.compose(text)
    for _, scalar in node.value:
        if isinstance(scalar, yaml.ScalarNode) and scalar.style is None:
            assert re.fullmatch(r"[A-Za-z/][A-Za-z0-9 _./@-]*", scalar.value) and scalar.value.lower() not in (
                "no",
                "yes",
                "on",
                "off",
                "null",
                "true",
                "false",
            )


def test_an_image_that_nobody_answered_is_shown_and_never_applied(author):
    from greentic.deployer import reconcile
    from greentic.deployer.binding import resolve
    from greentic.operate import env_packs

    author.create()
    payload = env_packs.EnvPackBindingPayload(
        environment_id=author.env_id, slot="deployer", kind="greentic.deployer.k8s@1.0.0", pack_ref="builtin"
    )
    env_packs.add(author.context, payload)
    deployer = resolve(author.context, author.env_id, None, live=True)
    with pytest.raises(Conflict, match="does not say which image"):
        reconcile.applicable(deployer)
    assert "never applied" in deployer.answers.warnings()[0]
    assert deployer.answers.runtime_image == OWN_IMAGE and OWN_IMAGE.endswith(f"/worker:{__version__}")
    for image in ("greentic/worker:1", OWN_IMAGE):  # a node may have been given the image by hand
        answered = deployer._replace(answers=read_answers({"runtime_image": image}, author.env_id))
        assert reconcile.applicable(answered) and "names no digest" in answered.answers.warnings()[0]
    pinned = read_answers({"runtime_image": f"greentic/worker@sha256:{'0' * 64}"}, author.env_id)
    assert pinned.warnings() == []


def test_only_routers_reach_workers_and_answers_say_who_reaches_routers():
    objects = rendered(environment(), {"ingress_namespaces": "ingress-nginx", "ingress_cidrs": ["198.51.100.0/24"]})
    workers = policy(objects, "gtc-allow-workers")["ingress"][0]
    assert workers["from"] == [{"podSelector": {"matchLabels": names.component_labels("prod", "router")}}]
    assert len(policy(objects, "gtc-allow-router")["ingress"][0]["from"]) == 2
    assert "from" not in policy(rendered(environment()), "gtc-allow-router")["ingress"][0]


def test_answered_namespaces_scrape_every_pod_and_nobody_does_else():
    for answered in (None, "monitoring, other"):
        objects = rendered(environment(), {"metrics_namespaces": answered})
        opened = [
            rule
            for name in ("gtc-allow-router", "gtc-allow-workers")
            for rule in policy(objects, name)["ingress"]
            if {"protocol": "TCP", "port": pods.METRICS_PORT} in rule["ports"]
        ]
        templates = [o["spec"]["template"] for o in objects if o["kind"] == "Deployment"]
        scraped = [t["metadata"]["annotations"].get("prometheus.io/port") for t in templates]
        told = [
            v["value"] for t in templates for v in t["spec"]["containers"][0]["env"] if v["name"] == "GREENTIC_METRICS_ADDR"
        ]  # fmt: skip
        assert len(templates) >= 2 and len(opened) == (2 if answered else 0)
        assert scraped == [str(pods.METRICS_PORT) if answered else None] * len(templates)
        assert told == ([f"0.0.0.0:{pods.METRICS_PORT}"] * len(templates) if answered else [])
        for rule in opened:
            names_ = [p["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for p in rule["from"]]
            assert names_ == ["monitoring", "other"] and len(rule["ports"]) == 1
    with pytest.raises(Conflict, match="metrics_namespaces"):
        read_answers({"metrics_namespaces": "Not A Name"}, "prod")


def test_dns_goes_to_the_clusters_resolvers_only():
    rule = policy(rendered(environment()), "gtc-allow-dns")["egress"][0]
    values = rule["to"][0]["podSelector"]["matchExpressions"][0]["values"]
    assert rule["to"][0]["namespaceSelector"] == {} and values == ["kube-dns", "node-local-dns"]
    assert [p["ipBlock"]["cidr"] for p in rule["to"][1:]] == ["169.254.0.0/16"]
    told = policy(rendered(environment(), {"dns_cidrs": "10.96.0.10"}), "gtc-allow-dns")["egress"][0]["to"]
    assert [p["ipBlock"]["cidr"] for p in told[1:]] == ["169.254.0.0/16", "10.96.0.10/32"]
    assert {p["protocol"] for p in rule["ports"]} == {"TCP", "UDP"}


def test_binding_tells_what_is_wrong_with_answers_and_binds(author):
    from greentic.deployer import binding

    author.create()

    def bind(verb, text: str):
        return verb(author.context, deployer_answers(author, text))

    assert "unknown answer key `surprise`" in bind(binding.add, '{"surprise": 1}').warnings[0]
    assert bind(binding.update, "{}").warnings is msgspec.UNSET
