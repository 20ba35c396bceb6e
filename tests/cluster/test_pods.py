"""What pods do: boot empty, pull through the policies, serve, follow the weights, stop without losing a request."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from world import LOAD, PAUSE, World

from waiting import until


def routed(world: World, **answers: object) -> str:
    """An environment whose pods pull the example from a pod of the namespace; returns the revision."""
    world.author(**answers)
    bundle = world.bundle()
    base = world.serve_bundles(bundle, world.bundle("v2"))
    return world.ready(bundle, f"{base}/{bundle.name}")


def second(world: World, weight: int | None = None) -> str:
    bundle = world.bundle("v2")
    return world.ready(bundle, f"http://bundle-server.{world.namespace}.svc.cluster.local:8080/{bundle.name}", weight)


def test_pods_pull_from_a_pod_and_answer(world: World, outside):
    revision = routed(world)
    report = world.reconcile("--timeout", "120").result
    assert report["applied_count"] == 14 and set(report["ready"]) == {"gtc-router", world.worker(revision)}
    for component in ("router", "worker"):
        assert "serving 1 revision(s) for env" in world.logs(component)
    code, body = outside.post(f"http://gtc-router.{world.namespace}.svc.cluster.local:8080/", "hello")
    assert code == 200 and json.loads(body)[0]["payload"]["text"] == "HELLO!"
    invoke = {
        "version": "1.0.0",
        "tenant": {"env": world.env_id, "tenant": "default", "tenant_id": "default", "attempt": 0},
        "worker_id": "hello",
        "payload": {"text": "m3"},
    }
    with world.kubectl.forward(world.namespace, f"deployment/{world.worker(revision)}") as url:
        for probe in ("/healthz", "/readyz", "/livez", "/status"):
            with urllib.request.urlopen(url + probe, timeout=10) as answer:
                assert answer.status == 200
        request = urllib.request.Request(
            f"{url}/workers/invoke", json.dumps(invoke).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert "M3" in answer.read().decode()


def test_pods_have_no_token_and_a_read_only_root(world: World):
    revision = routed(world)
    world.reconcile("--timeout", "120").result
    script = """
import json, os, pathlib
out = {"token": os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount"), "uid": os.getuid()}
try:
    pathlib.Path("/usr/x").write_text("x"); out["root"] = "writable"
except OSError as error:
    out["root"] = error.strerror
out["capabilities"] = [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapEff")][0]
out["services"] = [k for k in os.environ if k.startswith("GTC_ROUTER")]
print(json.dumps(out))
"""
    told = json.loads(
        world.kubectl.run(
            "-n",
            world.namespace,
            "exec",
            "-i",
            f"deploy/{world.worker(revision)}",
            "--",
            "/usr/local/bin/python3",
            "-",
            stdin=script,
        )
    )
    assert told == {
        "token": False,
        "uid": 65532,
        "root": "Read-only file system",
        "capabilities": "0000000000000000",
        "services": [],
    }


def test_threat_unauthenticated_invoke_and_network_policies(world: World, outside):
    revision = routed(world)
    world.reconcile("--timeout", "120").result
    n = world.namespace
    code, _ = outside.post(f"http://gtc-router.{n}.svc.cluster.local:8080/workers/invoke")
    assert code == 403
    worker = world.pods("worker")[0]["status"]["podIP"]
    router = world.pods("router")[0]["status"]["podIP"]
    probe = """
import json, socket, sys
out = {}
for host, port in (a.split(":") for a in sys.argv[1:]):
    try:
        socket.create_connection((host, int(port)), 2).close(); out[f"{host}:{port}"] = "open"
    except OSError:
        out[f"{host}:{port}"] = "closed"
print(json.dumps(out))
"""
    assert json.loads(outside.python(probe, f"{worker}:8080", f"{router}:8080")) == {
        f"{worker}:8080": "closed",
        f"{router}:8080": "open",
    }
    server = world.kubectl.get("-n", n, "pods", "-l", "app=bundle-server")["items"][0]["status"]["podIP"]
    words = ["-n", n, "exec", "-i", f"deploy/{world.worker(revision)}", "--", "/usr/local/bin/python3", "-"]
    told = json.loads(world.kubectl.run(*words, f"{server}:8080", "169.254.169.254:80", "198.51.100.7:22", stdin=probe))
    assert told == {f"{server}:8080": "open", "169.254.169.254:80": "closed", "198.51.100.7:22": "closed"}


def test_a_worker_is_ready_only_if_its_own_idle_revision_loads(world: World):
    """The revision is not routed. Its worker still pulls and loads it, and answers for it."""
    routed(world)
    idle = second(world, None)
    report = world.reconcile("--timeout", "120").result
    assert world.worker(idle) in report["ready"] and report["applied_count"] == 16
    assert json.loads(world.post(f"deployment/{world.worker(idle)}", "hi"))[0]["payload"]["text"] == "HI!v2"
    assert json.loads(world.post("service/gtc-router", "hi"))[0]["payload"]["text"] == "HI!"


DRAW = """
import collections, http.client, json, sys
def ask(host):
    connection = http.client.HTTPConnection(host, 8080, timeout=10)
    connection.request("POST", "/", json.dumps({"text": "hi"}))
    text = json.loads(connection.getresponse().read())[0]["payload"]["text"]
    connection.close()
    return text
print(json.dumps({host: collections.Counter(ask(host) for _ in range(200)) for host in sys.argv[1:]}))
"""


def test_weights_move_with_no_pod_replaced_and_no_request_lost(world: World, outside):
    first = routed(world)
    fresh = second(world, None)
    world.reconcile("--timeout", "120").result
    before, history = pods_of(world), histories(world)
    assert len(before) == 4
    url = f"http://gtc-router.{world.namespace}.svc.cluster.local:8080/"
    assert outside.post(url)[0] == 200
    routers = [p["status"]["podIP"] for p in world.pods("router")]
    load = outside.start(LOAD, url)
    assert load.stdout.readline() == "started\n"
    for weights, least, most in (({first: 50, fresh: 50}, 60, 140), ({first: 10, fresh: 90}, 150, 199)):
        world.route(weights)
        told = world.op("env", "diff", world.env_id)
        assert told.code == 2 and {c["name"] for c in told.result["changes"]} == {"gtc-env-store", "gtc-runtime-config"}
        report = world.reconcile("--timeout", "180").result
        assert {c["name"] for c in report["changed"]} == {"gtc-env-store", "gtc-runtime-config"}
        assert set(report["serving"]) == {name for name, _ in before}
        assert not [w for w in report.get("warnings", []) if "readiness" in w]
        drawn = json.loads(outside.python(DRAW, *routers))
        assert all(least <= seen.get("HI!v2", 0) <= most for seen in drawn.values()), drawn
    world.route({fresh: 100})
    world.reconcile("--timeout", "180").result
    drawn = json.loads(outside.python(DRAW, *routers))
    assert all(set(seen) == {"HI!v2"} for seen in drawn.values()), drawn
    out, err = load.communicate("", timeout=60)
    told = json.loads(out)
    assert told["failures"] == [], (told, err)
    assert told["seen"]["HI!"] > 50 and told["seen"]["HI!v2"] > 0, told
    assert pods_of(world) == before and histories(world) == history


def test_running_routers_pull_a_new_revision(world: World, outside):
    first = routed(world)
    world.reconcile("--timeout", "120").result
    before = pods_of(world)
    url = f"http://gtc-router.{world.namespace}.svc.cluster.local:8080/"
    assert outside.post(url)[0] == 200
    load = outside.start(LOAD, url)
    assert load.stdout.readline() == "started\n"
    fresh = second(world, 100)
    report = world.reconcile("--timeout", "180").result
    assert {c["name"] for c in report["created"]} == {world.worker(fresh)}
    assert "gtc-router" not in {c["name"] for c in report["changed"]}
    out, err = load.communicate("", timeout=60)
    told = json.loads(out)
    assert told["failures"] == [], (told, err)
    assert told["seen"]["HI!"] > 50, told
    assert all(json.loads(outside.post(url)[1])[0]["payload"]["text"] == "HI!v2" for _ in range(5))
    assert before <= pods_of(world)
    world.op("revisions", "archive", world.env_id, f"revision_id={first}").result
    assert world.reconcile("--timeout", "120").result["pruned_count"] == 2
    assert {p for p in before if "router" in p[0]} <= pods_of(world)


def test_without_the_right_to_ask_pods_readiness_has_to_do(world: World, tmp_path):
    routed(world)
    world.reconcile("--timeout", "120").result
    context = "--admin-profile", world.kubectl.run("config", "current-context").strip()
    world.op("credentials", "bootstrap", world.env_id, *context, "--bind").result
    role = world.get("role", "greentic-deployer-min")
    rules = [
        {**r, "verbs": [v for v in r["verbs"] if r["resources"] != ["pods"] or v != "patch"]} for r in role["rules"]
    ]
    rules = [r for r in rules if r["resources"] != ["pods/proxy"]]
    patch = json.dumps({"rules": rules})
    world.kubectl.run("-n", world.namespace, "patch", "role", "greentic-deployer-min", "--type=merge", "-p", patch)
    second(world, 100)
    report = world.reconcile("--timeout", "120").result
    assert report["identity"] == "bound" and report["serving"] == []
    assert any("pods/proxy" in warning for warning in report["warnings"])


def pods_of(world: World) -> set[tuple[str, int]]:
    """The pods of the environment, with how often each was restarted."""
    return {
        (p["metadata"]["name"], p["status"]["containerStatuses"][0]["restartCount"])
        for component in ("router", "worker")
        for p in world.pods(component)
    }


def histories(world: World) -> dict[str, str]:
    """What `kubectl rollout history` says of each Deployment."""
    names = [d["metadata"]["name"] for d in world.kubectl.get("-n", world.namespace, "deployments")["items"]]
    return {n: world.kubectl.run("-n", world.namespace, "rollout", "history", f"deployment/{n}") for n in names}


def test_weights_are_followed_and_callers_stay_whichever_router_answers(world: World, outside):
    first = routed(world)
    other = second(world, None)
    world.route({first: 50, other: 50})
    world.reconcile("--timeout", "120").result
    script = """
import collections, http.client, json, sys
hosts = sys.argv[1:]
def ask(host, cookie=None):
    connection = http.client.HTTPConnection(host, 8080, timeout=10)
    connection.request("POST", "/", json.dumps({"text": "hi"}), {"Cookie": cookie} if cookie else {})
    answer = connection.getresponse()
    text = json.loads(answer.read())[0]["payload"]["text"]
    connection.close()
    return text, [c.split(";")[0] for c in answer.headers.get_all("set-cookie") or []]
drawn = collections.Counter(ask(hosts[i % len(hosts)])[0] for i in range(200))
moved = 0
for i in range(20):
    text, cookies = ask(hosts[0])
    moved += any(ask(host, "; ".join(cookies))[0] != text for host in hosts for _ in range(3))
print(json.dumps({"drawn": drawn, "moved": moved}))
"""
    hosts = [p["status"]["podIP"] for p in world.pods("router")]
    assert len(hosts) == 2
    told = json.loads(outside.python(script, *hosts))
    assert told["moved"] == 0
    assert 60 < told["drawn"]["HI!"] < 140, told


def test_a_bundle_with_another_digest_is_refused_and_the_reason_told(world: World):
    world.author()
    good = world.bundle()
    world.serve_bundles(world.bundle("v2"))
    tampered = f"http://bundle-server.{world.namespace}.svc.cluster.local:8080/hello" + "v2.gtbundle"
    world.ready(good, tampered)
    told = world.reconcile("--timeout", "120").error
    assert (
        told["kind"] == "conflict" and "did not become ready" in told["message"] and "does not match" in told["message"]
    )
    assert told["report"]["applied_count"] == 14


def test_an_image_that_cannot_be_had_is_told_early(world: World):
    world.author(runtime_image="greentic.lab/no-such-image:1")
    world.ready()
    told = world.reconcile("--timeout", "120").error
    assert "greentic.lab/no-such-image:1" in told["message"] and "cannot be had" in told["message"]


@pytest.mark.alone  # no pod of anybody fits meanwhile
def test_a_pod_that_fits_nowhere_is_told(world: World, kubectl):
    world.author()
    world.ready()
    world.reconcile("--no-wait").result
    node = kubectl.get("nodes")["items"][0]["metadata"]["name"]
    kubectl.run("cordon", node)
    try:
        world.answer(router_replicas=3)
        told = world.reconcile("--timeout", "15").error
        assert "unschedulable" in told["message"]
    finally:
        kubectl.run("uncordon", node)


def test_the_warm_gate_blocks_and_archiving_takes_the_pair_away(world: World):
    world.author(runtime_image=PAUSE)
    revision = world.ready(weight=None)
    assert world.reconcile("--no-wait").result["applied_count"] == 14
    late = world.op(
        "env", "apply-revision", world.env_id, revision, environ={"GREENTIC_K8S_WARM_READY_TIMEOUT_SECS": "5"}
    ).error
    assert (
        late["kind"] == "conflict"
        and "did not become ready" in late["message"]
        and "observedGeneration" in late["message"]
    )
    assert world.get("deployment", world.worker(revision))
    world.op("revisions", "archive", world.env_id, f"revision_id={revision}").result
    gone = world.op("env", "apply-revision", world.env_id, revision).result
    assert gone["action"] == "archived"
    assert world.get("deployment", world.worker(revision)) is None and world.get("deployment", "gtc-router")


def test_warm_with_a_rollout_says_ready_only_when_it_runs(world: World):
    routed(world)
    world.reconcile("--timeout", "120").result
    bundle = world.bundle("v2")
    good = world.stage(bundle, f"http://bundle-server.{world.namespace}.svc.cluster.local:8080/{bundle.name}")
    assert (
        world.op("revisions", "warm", world.env_id, f"revision_id={good}", "--rollout", "--timeout", "120").result[
            "lifecycle"
        ]
        == "ready"
    )
    assert world.get("deployment", world.worker(good))["status"]["availableReplicas"] == 1
    bad = world.stage(bundle, f"http://bundle-server.{world.namespace}.svc.cluster.local:8080/hello.gtbundle")
    told = world.op("revisions", "warm", world.env_id, f"revision_id={bad}", "--rollout", "--timeout", "120").error
    assert "is failed" in told["message"] and "does not match" in told["message"]
    listed = {r["revision_id"]: r["lifecycle"] for r in world.op("revisions", "list", world.env_id).result["revisions"]}
    assert listed[bad] == "failed" and listed[good] == "ready"
    assert world.reconcile("--timeout", "120").result["pruned_count"] == 2


def test_callers_need_a_token_where_one_is_configured(world: World, outside):
    import hashlib

    tokens = {"schema": "greentic.ingress-tokens.v1", "tokens": [{"sha256": hashlib.sha256(b"let-me-in").hexdigest()}]}
    world.kubectl.run("create", "namespace", world.namespace)
    world.kubectl.run(
        "-n",
        world.namespace,
        "create",
        "secret",
        "generic",
        "tokens",
        f"--from-literal=ingress-tokens.json={json.dumps(tokens)}",
    )
    routed(world, ingress_tokens_secret="tokens")
    world.reconcile("--timeout", "120").result
    url = f"http://gtc-router.{world.namespace}.svc.cluster.local:8080/"
    assert outside.post(url)[0] == 401
    with pytest.raises(urllib.error.HTTPError, match="401"):
        world.post("service/gtc-router")  # a loopback peer is nobody special there
    script = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], b'{"text": "hi"}', {"Authorization": "Bearer let-me-in"})
print(urllib.request.urlopen(request, timeout=10).status)
"""
    assert outside.python(script, url).strip() == "200"


def test_components_read_their_secrets_from_the_development_store(world: World):
    routed(world)
    store = world.store / world.env_id / ".greentic/dev"
    store.mkdir(parents=True)
    (store / ".dev.secrets.env").write_text("API_KEY=planted-secret\n")
    world.op(
        "env-packs", "add", world.env_id, "slot=secrets", "kind=greentic.secrets.dev-store@0.1.0", "pack_ref=builtin"
    ).result
    report = world.reconcile("--timeout", "120")
    assert report.result["applied_count"] == 15 and "planted-secret" not in report.out
    words = ["-n", world.namespace, "exec", "-i", "deploy/gtc-router", "--", "/usr/local/bin/python3", "-"]
    read = world.kubectl.run(*words, stdin="import os; print(open(os.environ['GREENTIC_DEV_SECRETS_PATH']).read())")
    assert read.strip() == "API_KEY=planted-secret"
    (store / ".dev.secrets.env").write_text("API_KEY=rotated\n")
    told = world.op("env", "diff", world.env_id)
    assert told.code == 2 and "rotated" not in told.out and "cm90YXRlZA" not in told.out
    assert {c["name"] for c in told.result["changes"]} >= {"gtc-dev-secrets", "gtc-router"}


def test_a_pod_that_is_stopped_while_it_boots_goes_at_once(world: World, kubectl):
    """The bundle's server does not exist, so that the worker keeps trying; it must not sit out its grace period."""
    world.author()
    world.ready(world.bundle(), "http://10.255.255.1:81/never.gtbundle")
    world.reconcile("--no-wait").result
    name = until(
        lambda: next(
            (p["metadata"]["name"] for p in world.pods("router") if p["status"].get("phase") == "Running"), None
        ),
        "a router that boots",
    )
    # Nobody hears the first process of a container before it says so, which takes a busy node seconds.
    until(lambda: "pulling" in kubectl.run("-n", world.namespace, "logs", str(name), check=False), "the pod to pull")
    grace = world.get("pod", str(name))["spec"]["terminationGracePeriodSeconds"]
    kubectl.run("-n", world.namespace, "delete", "pod", str(name), "--wait=false")
    until(lambda: world.get("pod", str(name)) is None, "the pod to go", grace - 2)
