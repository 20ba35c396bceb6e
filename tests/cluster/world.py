"""One environment in a real cluster: a store of its own, a namespace of its own, and the parts that a user would have."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from waiting import until

PROJECT = Path(__file__).resolve().parents[2]
GTC = PROJECT / ".venv/bin/gtc"
IMAGE = os.environ.get("GREENTIC_TEST_IMAGE", "greentic.local/worker:dev")
PAUSE = os.environ.get(
    "GREENTIC_TEST_PAUSE_IMAGE",
    "greentic.lab/pause:1" if os.environ.get("CLUSTER", "lab") == "lab" else "registry.k8s.io/pause:3.9",
)
"""An image whose pods run and never become ready."""
PYTHON = "/usr/local/bin/python3"
LAB = os.environ.get("CLUSTER", "lab") == "lab"


_NOT_THERE = ("(NotFound)", "doesn't have a resource type")


class Reply:
    """What one `gtc` call gave."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def result(self) -> dict:
        assert self.code in (0, 2), self.err
        return json.loads(self.out)["result"]

    @property
    def error(self) -> dict:
        assert self.code == 1, (self.code, self.out, self.err)
        return json.loads(self.err)["error"]


class Kubectl:
    """The cluster as an operator reaches it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def run(self, *words: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        done = self.done(*words, stdin=stdin, timeout=timeout)
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout

    def done(self, *words: str, stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *words],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def differences(self, *words: str) -> str:
        """What `kubectl diff` shows; it ends with 1 where that is anything."""
        done = self.done("diff", *words)
        assert done.returncode == (1 if done.stdout else 0), f"kubectl diff {' '.join(words)}: {done.stderr}"
        return done.stdout

    def get(self, *words: str) -> dict | None:
        """What is there; nothing if the server says that it is not. One that gives no answer is asked until it does: it does not say so."""

        def asked() -> tuple[dict | None] | None:
            done = self.done("get", *words, "-o", "json")
            if done.returncode == 0:
                return (json.loads(done.stdout),)
            failed.append(done.stderr)
            return (None,) if any(told in done.stderr for told in _NOT_THERE) else None

        failed: list[str] = []
        return until(asked, lambda: f"kubectl get {' '.join(words)}: {failed[-1]}")[0]

    def apply(self, *things: dict, manager: str = "kubectl-client-side-apply") -> None:
        self.run(
            "apply",
            "--field-manager",
            manager,
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(things)}),
        )

    @contextlib.contextmanager
    def forward(self, namespace: str, target: str, port: int = 8080) -> Iterator[str]:
        """A port on this machine that leads to a pod or Service."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            local = free.getsockname()[1]
        words = ["kubectl", "-n", namespace, "port-forward", target, f"{local}:{port}"]
        process = subprocess.Popen(
            words, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "Forwarding" in line, line
            # it prints a line for each connection, and waits once a pipe that nobody reads is full
            threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()
            process.wait()

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace of a test; its name is used by no other, so nobody waits until it is gone."""
        for words in (
            ("deployments,replicasets", "--wait=false"),
            ("pods", "--grace-period=0", "--force", "--wait=false"),
        ):
            self.run("-n", name, "delete", words[0], "--all", "--ignore-not-found", *words[1:], check=False)
        self.run("delete", "namespace", name, "--ignore-not-found", "--wait=false", check=False)


class World:
    """A store with one environment, and a namespace in the cluster."""

    def __init__(self, kubectl: Kubectl, home: Path, env_id: str | None = None) -> None:
        self.kubectl = kubectl
        self.home = home
        self.env_id = env_id or f"t{secrets.token_hex(4)}"
        self.namespace = f"gtc-{self.env_id}"
        self.store = home / ".greentic/environments"
        self.environ = {**kubectl.environment, "HOME": str(home)}
        self.deployment = ""

    # -- authoring --------------------------------------------------------------------------------------------------

    def gtc(self, *words: str | Path, environ: dict[str, str] | None = None) -> Reply:
        given = {**self.environ, **(environ or {})}
        return Reply(
            subprocess.run(
                [str(GTC), *map(str, words)], env=given, capture_output=True, text=True, timeout=400, check=False
            )
        )

    def op(self, *words: str | Path, environ: dict[str, str] | None = None) -> Reply:
        return self.gtc("op", *words, environ=environ)

    def reconcile(self, *flags: str, environ: dict[str, str] | None = None) -> Reply:
        return self.op("env", "reconcile", self.env_id, *flags, environ=environ)

    def author(self, **answers: object) -> World:
        """The environment with its deployer bound and one deployment at `/`."""
        self.op("env", "create", self.env_id, "--name", self.env_id).result
        self.op("trust-root", "bootstrap", self.env_id).result
        self.answer(**answers)
        kind = "kind=greentic.deployer.k8s@1.0.0"
        self.op(
            "env-packs", "add", self.env_id, "slot=deployer", kind, "pack_ref=builtin", "answers_ref=answers.json"
        ).result
        added = self.op(
            "bundles", "add", self.env_id, "bundle_id=hello", "customer_id=acme", 'route_binding.path_prefixes=["/"]'
        ).result
        self.deployment = added["deployment_id"]
        return self

    def answer(self, **answers: object) -> None:
        told = {
            "runtime_image": IMAGE,
            "image_pull_policy": "Never" if LAB else "IfNotPresent",
            "drain_delay_seconds": 3,
        } | answers
        (self.store / self.env_id / "answers.json").write_text(json.dumps(told))

    def bundle(self, reply: str = "") -> Path:
        """A bundle of the example, which shouts back; `reply` is what it says after that."""
        source = self.home / f"source{reply}"
        if not source.exists():
            shutil.copytree(PROJECT / "examples/hello-bundle", source)
            flow = next(source.rglob("*.ygtc"))
            text = flow.read_text().replace("{{node.shout}}!", f"{{{{node.shout}}}}!{reply}")
            assert f"!{reply}" in text
            flow.write_text(text)
        target = self.home / f"hello{reply}.gtbundle"
        self.gtc("bundle", "build", source, "--out", target).result
        return target

    def stage(self, bundle: Path, uri: str | None = None) -> str:
        words = ["revisions", "stage", self.env_id, "--deployment", self.deployment, "--bundle", bundle]
        return self.op(*words, *(["--source-uri", uri] if uri else [])).result["revision_id"]

    def ready(self, bundle: Path | None = None, uri: str | None = None, weight: int | None = 100) -> str:
        """A staged, warmed and, unless `weight` is none, routed revision."""
        revision = self.stage(bundle or self.bundle(), uri)
        self.op("revisions", "warm", self.env_id, f"revision_id={revision}").result
        if weight is not None:
            self.route({revision: weight})
        return revision

    def route(self, weights: dict[str, int]) -> None:
        entries = [f"{r}={w}" for r, w in weights.items()]
        key = secrets.token_hex(4)
        self.op(
            "traffic", "set", self.env_id, *entries, "--deployment", self.deployment, "--idempotency-key", key
        ).result

    # -- in the cluster ---------------------------------------------------------------------------------------------

    def serve_bundles(self, *bundles: Path) -> str:
        """A pod in the namespace that serves bundles; returns the URL of its directory."""
        n = self.namespace
        data = {b.name: base64.b64encode(b.read_bytes()).decode() for b in bundles}
        labels = {"app": "bundle-server"}
        container = {
            "name": "server", "image": IMAGE, "imagePullPolicy": "Never" if LAB else "IfNotPresent",
            "command": ["/usr/local/bin/gtc", "distributor", "serve", "/bundles", "--host", "0.0.0.0", "--port", "8080"],
            "volumeMounts": [{"name": "bundles", "mountPath": "/bundles"}], "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }  # fmt: skip
        pod = {
            "containers": [container], "volumes": [{"name": "bundles", "configMap": {"name": "bundle-blobs"}}], "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        }  # fmt: skip
        self.kubectl.run("create", "namespace", n, check=False)
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bundle-blobs", "namespace": n}, "binaryData": data},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bundle-server", "namespace": n}, "spec": {"selector": {"matchLabels": labels},
             "template": {"metadata": {"labels": labels}, "spec": pod}}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bundle-server", "namespace": n}, "spec": {"selector": labels, "ports": [{"port": 8080}]}},
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "bundle-server", "namespace": n},
             "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [{}]}},
        )  # fmt: skip
        self.kubectl.run("-n", n, "rollout", "status", "deployment/bundle-server", "--timeout=90s")
        return f"http://bundle-server.{n}.svc.cluster.local:8080"

    def serve_registry(self, image: tuple[str, str]) -> None:
        """A registry in the namespace: `registry.<namespace>.svc.cluster.local:5000`."""
        text = (PROJECT / "lab/registry.yaml").read_text()
        for word, told in (("IMAGE", image[0]), ("PROGRAM", image[1]), ("PULL", "Never" if LAB else "IfNotPresent")):
            text = text.replace(word, told)
        self.kubectl.run("create", "namespace", self.namespace, check=False)
        self.kubectl.run("-n", self.namespace, "apply", "-f", "-", stdin=text)
        self.kubectl.run("-n", self.namespace, "wait", "--for=condition=Ready", "pod/registry", "--timeout=90s")

    def get(self, kind: str, name: str) -> dict | None:
        return self.kubectl.get("-n", self.namespace, kind, name)

    def worker(self, revision: str) -> str:
        return f"gtc-worker-{revision.lower()}"

    def pods(self, component: str) -> list[dict]:
        selector = f"app.kubernetes.io/component={component}"
        found = self.kubectl.get("-n", self.namespace, "pods", "-l", selector) or {"items": []}
        return [p for p in found["items"] if "deletionTimestamp" not in p["metadata"]]

    def logs(self, component: str) -> str:
        return self.kubectl.run(
            "-n", self.namespace, "logs", "-l", f"app.kubernetes.io/component={component}", "--tail=-1", check=False
        )

    def post(self, target: str, text: str = "hi", path: str = "/") -> str:
        """Ask through a port of this machine; the peer that the pod sees is its own loopback."""
        with self.kubectl.forward(self.namespace, target) as url:
            request = urllib.request.Request(
                url + path, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.read().decode()


class Outside:
    """A pod in another namespace, which reaches what policies let it reach."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl
        self.namespace = f"outside-{secrets.token_hex(3)}"
        self._process: subprocess.Popen[str] | None = None
        kubectl.run("create", "namespace", self.namespace)
        pod = {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "client",
                    "image": IMAGE,
                    "imagePullPolicy": "Never" if LAB else "IfNotPresent",
                    "command": [PYTHON, "-c", "import signal; signal.pause()"],
                }
            ],
        }
        kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "client", "namespace": self.namespace},
                "spec": pod,
            }
        )
        kubectl.run("-n", self.namespace, "wait", "--for=condition=Ready", "pod/client", "--timeout=90s")

    def python(self, script: str, *arguments: str) -> str:
        words = ["-n", self.namespace, "exec", "-i", "client", "--", PYTHON, "-", *arguments]
        return self.kubectl.run(*words, stdin=script)

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Run a script that goes on; its input is closed to end it."""
        words = ["kubectl", "-n", self.namespace, "exec", "-i", "client", "--", PYTHON, "-c", script, *arguments]
        return subprocess.Popen(
            words,
            env=self.kubectl.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def post(self, url: str, text: str = "hi") -> tuple[int, str]:
        """One request, tried again while the Service is not programmed yet."""
        told = self.python(ASK, url, text)
        return json.loads(told)["code"], json.loads(told)["body"]

    def close(self) -> None:
        self.kubectl.delete_namespace(self.namespace)


ASK = """
import json, sys, time, urllib.error, urllib.request
url, text = sys.argv[1:3]
for attempt in range(20):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps({"text": text}).encode()), timeout=5) as answer:
            print(json.dumps({"code": answer.status, "body": answer.read().decode()}))
            break
    except urllib.error.HTTPError as error:
        print(json.dumps({"code": error.code, "body": error.read().decode()}))
        break
    except OSError as error:
        last = str(error)
        time.sleep(0.5)
else:
    print(json.dumps({"code": 0, "body": last}))
"""

LOAD = """
import collections, http.client, json, sys, threading, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
seen, failures, stop = collections.Counter(), [], threading.Event()

def ask(keep):
    connection = None
    while not stop.is_set():
        if connection is None or not keep or connection.sock is None:
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
        try:
            connection.request("POST", url.path or "/", json.dumps({"text": "hi"}))
            answer = connection.getresponse()
            body = answer.read().decode()
            seen[json.loads(body)[0]["payload"]["text"] if answer.status == 200 else answer.status] += 1
            if answer.status != 200:
                failures.append(f"{answer.status} {body[:80]}")
        except Exception as error:
            failures.append(f"{type(error).__name__} {error}")
            connection.close()
        if not keep:
            connection.close()
        stop.wait(0.005)

threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(4)]  # half of them keep their connection
for thread in threads:
    thread.start()
print("started", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({"seen": seen, "failures": failures}))
"""
