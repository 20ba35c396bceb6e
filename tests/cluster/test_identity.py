"""As whom a cluster is asked: bound service accounts, their rights, their tokens; and that no token gets anywhere."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest
import yaml
from world import GTC, PAUSE, Kubectl, World

from waiting import until


def context_of(kubectl: Kubectl) -> str:
    return kubectl.run("config", "current-context").strip()


def bound(world: World) -> dict:
    world.author(runtime_image=PAUSE)
    world.ready()
    return world.op(
        "credentials", "bootstrap", world.env_id, "--admin-profile", context_of(world.kubectl), "--bind"
    ).result


def bearer(world: World) -> str:
    return base64.b64decode(world.get("secret", "greentic-deployer-identity")["data"]["bearer"]).decode()


def test_bootstrap_without_binding_writes_rules_and_touches_no_cluster(world: World):
    world.author()
    told = world.op("credentials", "bootstrap", world.env_id, "--admin-profile", "admin").result
    assert told["bound"] is False
    directory = world.store / world.env_id / told["rules_pack_ref"]
    documents = list(yaml.safe_load_all((directory / "k8s-min-rbac.yaml").read_text()))
    assert [d["kind"] for d in documents] == ["Namespace", "ServiceAccount", "Role", "RoleBinding"]
    assert all("*" not in (*r["verbs"], *r["resources"], *r["apiGroups"]) for r in documents[2]["rules"])
    assert world.kubectl.get("namespace", world.namespace) is None
    assert "kubectl create token greentic-deployer" in (directory / "README.md").read_text()


def test_binding_makes_an_account_that_may_do_its_work_and_nothing_else(world: World):
    told = bound(world)
    assert told["bound"] is True and told["expires_at"]
    assert told["credentials_ref"] == f"secret://{world.env_id}/default/_/k8s-deployer/deployer_token"
    for kind, name in (
        ("serviceaccount", "greentic-deployer"),
        ("role", "greentic-deployer-min"),
        ("rolebinding", "greentic-deployer-min"),
    ):
        assert world.get(kind, name)

    def requirements() -> dict:
        return world.op("credentials", "requirements", world.env_id).result

    until(lambda: requirements()["result"] == "pass", requirements)  # rules reach those who judge a moment later
    checked = requirements()
    assert checked["missing_capabilities"] == [], checked
    assert checked["checks"][0]["capability"]["id"] == "k8s.api.reachable" and len(checked["checks"]) > 20
    who = f"--as=system:serviceaccount:{world.namespace}:greentic-deployer"
    may = lambda *words: world.kubectl.run("auth", "can-i", *words, who, check=False).strip()
    assert may("get", "deployments", "-n", world.namespace) == "yes"
    assert may("create", "namespaces") == "no" and may("get", "deployments", "-n", "default") == "no"
    assert (
        may("create", "pods", "-n", world.namespace) == "no"
        and may("create", "pods/exec", "-n", world.namespace) == "no"
    )


def test_a_bound_identity_reconciles_without_the_namespace(world: World):
    bound(world)
    report = world.reconcile("--no-wait").result
    assert report["identity"] == "bound" and report["applied_count"] == 13
    assert {a["kind"] for a in report["applied"]} >= {"Deployment", "NetworkPolicy"} and "Namespace" not in {
        a["kind"] for a in report["applied"]
    }
    assert world.reconcile("--no-wait").result["writes"] == 0
    assert world.op("env", "diff", world.env_id).code == 0
    # the token is found in the cluster where this machine has none
    shutil.rmtree(world.store / world.env_id / ".greentic")
    assert world.reconcile("--no-wait").result["identity"] == "bound"
    world.kubectl.run("-n", world.namespace, "delete", "secret", "greentic-deployer-identity")
    lost = world.reconcile("--no-wait").error
    assert lost["kind"] == "conflict" and "nowhere to be found" in lost["message"]


def test_tokens_are_rotated_and_left_alone_while_they_are_young(world: World):
    first = bound(world)
    before = bearer(world)
    admin = ("--admin-profile", context_of(world.kubectl))
    young = world.op("credentials", "rotate", world.env_id, *admin, "--if-needed").result
    assert young["rotated"] is False and bearer(world) == before
    turned = world.op("credentials", "rotate", world.env_id, *admin).result
    assert turned["rotated"] is True and turned["credentials_ref"] == first["credentials_ref"] and turned["expires_at"]
    assert bearer(world) != before
    assert world.reconcile("--no-wait").result["identity"] == "bound"
    shutil.rmtree(world.store / world.env_id / ".greentic")
    assert world.reconcile("--no-wait").result["identity"] == "bound"


@pytest.mark.lab
def test_in_a_cluster_the_pods_own_account_is_used(world: World, tmp_path):
    """As in a pod: no kubeconfig, and the account's files where kubelet mounts them, in a mount namespace of their own."""
    bound(world)
    raw = yaml.safe_load(world.kubectl.run("config", "view", "--minify", "--raw", "--flatten"))
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(bearer(world))
    (account / "ca.crt").write_bytes(base64.b64decode(raw["clusters"][0]["cluster"]["certificate-authority-data"]))
    (account / "namespace").write_text(world.namespace)
    document = world.store / world.env_id / "environment.json"
    plain = json.loads(document.read_text())
    plain.pop("credentials_ref")
    document.write_text(json.dumps(plain))
    host, port = raw["clusters"][0]["cluster"]["server"].removeprefix("https://").split(":")
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f"mount -t tmpfs none /run && mkdir -p {place} && mount --bind {account} {place} && exec {GTC} op env reconcile {world.env_id} --no-wait"
    environ = {
        "HOME": str(world.home),
        "PATH": "/usr/sbin:/usr/bin:/bin",
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
    }
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["result"]
    assert report["identity"] == "ambient" and report["applied_count"] == 13


def test_requirements_tell_what_an_identity_lacks(world: World):
    bound(world)
    world.kubectl.run("-n", world.namespace, "create", "serviceaccount", "powerless")
    token = world.kubectl.run("-n", world.namespace, "create", "token", "powerless").strip()
    variable = f"GREENTIC_SECRET_{world.env_id.upper()}_DEFAULT_K8S_DEPLOYER_DEPLOYER_TOKEN"
    told = world.op("credentials", "requirements", world.env_id, environ={variable: token}).result
    assert told["result"] == "fail" and "k8s.rbac.allow:apps/deployments:patch" in told["missing_capabilities"]
    assert told["checks"][0]["status"] == "pass"
    wrong = world.op("credentials", "requirements", world.env_id, environ={variable: "no-token"}).result
    assert wrong["result"] == "fail" and all(c["status"] == "fail" for c in wrong["checks"])


def test_threat_secret_leak_no_token_in_any_output_or_pod(world: World):
    """Every output of a full run, everything that pods are given, and the store: only the one file and the one Secret hold it."""
    outputs = []
    bound(world)
    token = bearer(world)
    (world.store / world.env_id / ".greentic/dev").mkdir(parents=True)
    (world.store / world.env_id / ".greentic/dev/.dev.secrets.env").write_text("API_KEY=planted-secret\n")
    world.op(
        "env-packs", "add", world.env_id, "slot=secrets", "kind=greentic.secrets.dev-store@0.1.0", "pack_ref=builtin"
    ).result
    for words in (
        ("env", "render", world.env_id), ("env", "diff", world.env_id), ("env", "reconcile", world.env_id, "--no-wait"), ("env", "show", world.env_id), ("env", "doctor", world.env_id),
        ("config", "show", world.env_id), ("credentials", "requirements", world.env_id), ("env", "sweep", world.env_id), ("env", "reconcile", world.env_id, "--no-wait", "--timeout", "0"),
    ):  # fmt: skip
        reply = world.op(*words)
        outputs.append(reply.out + reply.err)
    told = "\n".join(outputs)
    for secret in (token, "planted-secret", base64.b64encode(b"API_KEY=planted-secret\n").decode()):
        assert secret not in told
    holding = [
        p.relative_to(world.store).as_posix()
        for p in world.store.rglob("*")
        if p.is_file() and token in p.read_text(errors="ignore")
    ]
    assert holding == [f"{world.env_id}/.greentic/deployer/deployer_token"]
    assert (world.store / holding[0]).stat().st_mode & 0o077 == 0
    things = world.kubectl.get("-n", world.namespace, "secrets,configmaps,deployments,pods")["items"]
    encoded = base64.b64encode(token.encode()).decode()
    carrying = [t["metadata"]["name"] for t in things if token in json.dumps(t) or encoded in json.dumps(t)]
    assert carrying == ["greentic-deployer-identity"]
    mounted = {
        v["secret"]["secretName"]
        for t in things
        if t["kind"] == "Deployment"
        for v in t["spec"]["template"]["spec"]["volumes"]
        if "secret" in v
    }
    assert mounted == {"gtc-session-key", "gtc-dev-secrets"}
