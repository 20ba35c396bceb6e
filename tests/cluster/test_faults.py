"""Clusters that misbehave: the report says what was done and what was not, and the next run finishes."""

from __future__ import annotations

import base64
import datetime
import json
import threading
import time
from pathlib import Path

import pytest
import yaml
from world import IMAGE, LAB, PAUSE, PROJECT, PYTHON, World

from waiting import until


def kubeconfig_with(world: World, path: Path, user: dict, **cluster: object) -> dict[str, str]:
    """The cluster with another user; returns the variable that names the file."""
    raw = yaml.safe_load(world.kubectl.run("config", "view", "--minify", "--raw", "--flatten"))
    raw["users"] = [{"name": "u", "user": user}]
    raw["clusters"][0]["cluster"] |= cluster
    raw["contexts"] = [{"name": "c", "context": {"cluster": raw["clusters"][0]["name"], "user": "u"}}]
    raw["current-context"] = "c"
    path.write_text(yaml.safe_dump(raw))
    return {"KUBECONFIG": str(path)}


def expired_certificate() -> dict[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "late")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    )
    certificate = (
        builder.not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now - datetime.timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "client-certificate-data": base64.b64encode(certificate.public_bytes(serialization.Encoding.PEM)).decode(), "client-key-data": base64.b64encode(pem).decode(),
    }  # fmt: skip


def test_credentials_that_have_ended_are_told_with_their_date(world: World, tmp_path):
    world.author(runtime_image=PAUSE)
    told = world.reconcile("--no-wait", environ=kubeconfig_with(world, tmp_path / "late", expired_certificate())).error
    assert told["kind"] == "conflict" and "does not accept the credentials of context `c`" in told["message"]
    day = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)).strftime("%Y-%m-%d")
    assert f"ends at {day}" in told["message"]
    wrong = world.reconcile("--no-wait", environ=kubeconfig_with(world, tmp_path / "wrong", {"token": "nobody"})).error
    assert "does not accept the credentials" in wrong["message"] and "nobody" not in json.dumps(wrong)


def test_a_server_that_is_not_there_and_contexts_that_are_not(world: World, tmp_path):
    world.author(runtime_image=PAUSE, kubeconfig_context="no-such-context")
    assert "no-such-context" in world.reconcile("--no-wait").error["message"]
    world.answer(runtime_image=PAUSE)
    nowhere = {"KUBECONFIG": str(tmp_path / "nothing")}
    told = world.reconcile("--no-wait", environ=nowhere).error
    assert told["kind"] == "conflict" and "cannot reach the cluster" in told["message"] and "KUBECONFIG" in told["hint"]


def restricted(world: World, rules: list[dict], tmp_path: Path) -> dict[str, str]:
    world.kubectl.run("create", "namespace", world.namespace, check=False)
    n = world.namespace
    world.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "limited", "namespace": n}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "limited", "namespace": n}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "limited", "namespace": n},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"}, "subjects": [{"kind": "ServiceAccount", "name": "limited", "namespace": n}]},
    )  # fmt: skip
    who = f"--as=system:serviceaccount:{n}:limited"  # rules reach those who judge a moment after they are written
    until(lambda: world.kubectl.done("auth", "can-i", "list", "deployments", "-n", n, who).returncode == 0, "the rules")
    token = world.kubectl.run("-n", n, "create", "token", "limited").strip()
    return kubeconfig_with(world, tmp_path / "limited", {"token": token})


def test_forbidden_for_one_kind_stops_before_workloads_and_the_next_run_finishes(world: World, tmp_path):
    world.author(runtime_image=PAUSE)
    world.ready()
    read = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]
    write = [
        {
            "apiGroups": ["", "apps", "policy"],
            "resources": ["configmaps", "secrets", "services", "deployments", "poddisruptionbudgets"],
            "verbs": ["create", "patch"],
        }
    ]
    limited = restricted(world, read + write, tmp_path)
    told = world.reconcile("--no-wait", environ=limited).error
    report = told["report"]
    assert "forbidden" in told["message"] and "credentials requirements" in told["hint"]
    assert {f["kind"] for f in report["failed"]} == {"NetworkPolicy"} and len(report["failed"]) == 6
    assert {c["kind"] for c in report["created"]} == {"ConfigMap"} and [n["kind"] for n in report["left_alone"]] == [
        "Namespace"
    ]
    assert "Deployment" in {n["kind"] for n in report["not_attempted"]}
    assert world.get("deployment", "gtc-router") is None
    finished = world.reconcile("--no-wait").result
    assert finished["applied_count"] == 14 and len(finished["created"]) == 11


def test_a_webhook_that_denies_is_quoted_and_the_next_run_finishes(world: World, tmp_path):
    world.author(runtime_image=PAUSE)
    world.ready()
    _serve_denial(world, tmp_path)
    try:
        until(lambda: "denied" in world.reconcile("--no-wait", "--dry-run").out, "the webhook to deny", 60)
        told = world.reconcile("--no-wait").error
        assert "services are closed today" in told["message"] and "admission webhook" in told["hint"]
        assert {f["kind"] for f in told["report"]["failed"]} == {"Service"}
        assert "Deployment" in {n["kind"] for n in told["report"]["not_attempted"]}
    finally:
        world.kubectl.run("delete", "validatingwebhookconfiguration", world.env_id)
    until(lambda: world.reconcile("--no-wait").code == 0, "the webhook to be gone", 60)
    assert world.reconcile("--no-wait").result["applied_count"] == 14


def _serve_denial(world: World, tmp_path: Path) -> None:
    """A webhook in a namespace of its own that refuses Services of this environment."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    n = world.namespace
    host = f"denier.{n}.svc"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(8)
    )
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    server = """
import http.server, json, ssl
class Denier(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        mine = asked["request"]["name"].startswith("gtc-")
        status = {"uid": asked["request"]["uid"], "allowed": not mine, "status": {"code": 403, "message": "services are closed today"}}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": status}).encode()
        self.send_response(200); self.send_header("content-type", "application/json"); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/tls.crt", "/srv/tls.key")
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8443), Denier)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
    labels = {"app": "denier"}
    container = {
        "name": "denier", "image": IMAGE, "imagePullPolicy": "Never" if LAB else "IfNotPresent", "command": [PYTHON, "/srv/server.py"],
        "volumeMounts": [{"name": "files", "mountPath": "/srv"}], "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
    }  # fmt: skip
    world.kubectl.run("create", "namespace", n, check=False)
    # the labels that the deployer will give it, so that the webhook is asked from the first Service on
    world.kubectl.run(
        "label",
        "namespace",
        n,
        f"greentic.ai/env={world.env_id}",
        "app.kubernetes.io/managed-by=greentic",
        f"greentic.ai/store={store_of(world)}",
    )
    world.kubectl.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "denier", "namespace": n}, "data": {"server.py": server, "tls.crt": pem, "tls.key": secret}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "denier", "namespace": n, "labels": labels},
         "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [{"name": "files", "configMap": {"name": "denier"}}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "denier", "namespace": n}, "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": 8443}]}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "denier", "namespace": n},
         "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [{}]}},
    )  # fmt: skip
    world.kubectl.run("-n", n, "wait", "--for=condition=Ready", "pod/denier", "--timeout=60s")
    hook = {
        "name": "denier.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail", "timeoutSeconds": 5,
        "clientConfig": {"service": {"name": "denier", "namespace": n, "path": "/"}, "caBundle": base64.b64encode(pem.encode()).decode()},
        "namespaceSelector": {"matchLabels": {"greentic.ai/env": world.env_id}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["services"]}],
    }  # fmt: skip
    world.kubectl.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": world.env_id},
            "webhooks": [hook],
        }
    )


def store_of(world: World) -> str:
    from greentic.k8s.names import store_identity

    return store_identity(world.store / world.env_id)


# -- a server that is slow, full, or away for a moment ------------------------------------------------------------------


class Faulty:
    """A transport around the real one that fails requests before they are sent, or after, by a plan."""

    def __init__(self, inner: object, plan: list[str]) -> None:
        self._inner, self.plan, self._lock, self.failed = inner, plan, threading.Lock(), 0

    def handle_request(self, request):
        import httpx2

        with self._lock:
            fault = self.plan.pop(0) if self.plan and request.method == "PATCH" else ""
            self.failed += bool(fault)
        if fault == "429":
            return httpx2.Response(
                429,
                headers={"retry-after": "1"},
                json={"kind": "Status", "message": "too many requests", "code": 429},
                request=request,
            )
        if fault == "500":
            return httpx2.Response(
                500, json={"kind": "Status", "message": "etcdserver: leader changed", "code": 500}, request=request
            )
        if fault == "reset":
            raise httpx2.ReadError("connection reset", request=request)
        answer = self._inner.handle_request(request)
        if fault == "lost":
            answer.read()
            raise httpx2.ReadTimeout("the answer was lost", request=request)
        return answer

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize(
    "plan", [["429"] * 3, ["500", "reset"], ["lost"] * 3, ["429", "lost", "reset", "500"]], ids=" ".join
)
def test_throttling_errors_and_lost_answers_are_repeated(world: World, plan, monkeypatch):
    from greentic.cluster.api_server import ApiServer
    from greentic.cluster.apply import ApplyRules, converge
    from greentic.cluster.connect import connect
    from greentic.deployer.binding import resolve
    from greentic.k8s.render import render
    from greentic.operate.change import Context
    from greentic.store.environments import EnvironmentStore

    world.author(runtime_image=PAUSE)
    world.ready()
    monkeypatch.setenv("KUBECONFIG", str(world.kubectl.kubeconfig))
    store = EnvironmentStore(world.store)
    deployer = resolve(Context(store), world.env_id, None, live=True)
    connection = connect(None)
    faulty = Faulty(connection.client._transport, list(plan))
    connection.client._transport = faulty
    outcome = converge(
        ApiServer(connection),
        render(deployer.desired),
        world.namespace,
        deployer.owner,
        ApplyRules(),
        store.random,
        lambda text: None,
    )
    assert outcome.failures == [] and len(outcome.applied) == 14
    assert faulty.failed == len(plan)
    assert world.reconcile("--no-wait").result["writes"] == 0


def test_patience_ends(world: World, monkeypatch):
    from greentic.cluster.api_server import ApiServer
    from greentic.cluster.connect import connect
    from greentic.k8s.objects import ApiRefused, Ref

    monkeypatch.setenv("KUBECONFIG", str(world.kubectl.kubeconfig))
    connection = connect(None)
    faulty = Faulty(connection.client._transport, ["500"] * 1000)
    connection.client._transport = faulty
    began = time.monotonic()
    with pytest.raises(ApiRefused, match="leader changed"):
        ApiServer(connection, patience=2).apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}, force=False
        )
    assert faulty.failed > 2 and time.monotonic() - began < 30
    assert ApiServer(connect(None)).get(Ref("ConfigMap", "a", "default")) is None


@pytest.mark.alone
@pytest.mark.lab
def test_an_api_server_that_restarts_in_the_middle_costs_nothing(world: World):
    import sys

    sys.path.insert(0, str(PROJECT / "lab"))
    import cluster as lab

    world.author(runtime_image=PAUSE)
    for _ in range(3):
        world.ready(weight=None)
    replies: list = []
    thread = threading.Thread(target=lambda: replies.append(world.reconcile("--no-wait")))
    thread.start()
    until(lambda: world.kubectl.get("namespace", world.namespace) or replies, "the reconcile to begin")
    lab.restart("kube-apiserver", pause=2)
    thread.join()
    assert replies[0].result["applied_count"] == 18, replies[0].err
    until(lambda: world.kubectl.get("namespaces"), "the API server")
    assert world.reconcile("--no-wait").result["writes"] == 0
