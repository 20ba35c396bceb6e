"""Pods pull over OCI from a registry in the cluster, over plain http because the answers say so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from world import LAB, PROJECT, World


@pytest.fixture(scope="session")
def registry_image(tmp_path_factory) -> str:
    """Debian's registry as an image for the lab; elsewhere the public one."""
    if not LAB:
        return "registry:2"
    sys.path.insert(0, str(PROJECT / "image"))
    from oci_layout import Layer, write_layout

    binary = Path(
        shutil.which("docker-registry") or pytest.fail("docker-registry is missing: apt-get install docker-registry")
    )
    root = tmp_path_factory.mktemp("registry")
    target = root / "files/usr/bin/docker-registry"
    target.parent.mkdir(parents=True)
    shutil.copyfile(binary, target)
    target.chmod(0o755)
    told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    for place in re.findall(r"(/\S+) \(0x", told):
        library = root / "files" / place.lstrip("/")
        library.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(place).resolve(), library)
        library.chmod(0o755)
    archive = root / "registry.tar"
    write_layout(
        archive,
        "greentic.lab/registry:1",
        [Layer.of_tree(root / "files")],
        entrypoint=["/usr/bin/docker-registry"],
        user="65532",
    )
    subprocess.run(
        [PROJECT / "lab/run.sh", "load", archive],
        check=True,
        capture_output=True,
        env={"CLUSTER": "lab", "PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(Path.home())},
    )
    return "greentic.lab/registry:1"


def test_pods_pull_over_oci(world: World, registry_image: str):
    n = world.namespace
    host = f"registry.{n}.svc.cluster.local:5000"
    world.author(oci_insecure_registries=[host])
    config = "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: ':5000'}\n"
    labels = {"app": "registry"}
    command = (
        {"command": ["/usr/bin/docker-registry", "serve", "/etc/registry/config.yml"]}
        if LAB
        else {"args": ["/etc/registry/config.yml"]}
    )
    container = {
        "name": "registry", "image": registry_image, "imagePullPolicy": "Never" if LAB else "IfNotPresent", **command,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/registry"}, {"name": "data", "mountPath": "/var/lib/registry"}],
        "readinessProbe": {"httpGet": {"path": "/v2/", "port": 5000}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    pod = {
        "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [{"name": "config", "configMap": {"name": "registry"}}, {"name": "data", "emptyDir": {}}],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    world.kubectl.run("create", "namespace", n)
    world.kubectl.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "registry", "namespace": n}, "data": {"config.yml": config}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "registry", "namespace": n, "labels": labels}, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "registry", "namespace": n}, "spec": {"selector": labels, "ports": [{"port": 5000}]}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "registry", "namespace": n},
         "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [{}]}},
    )  # fmt: skip
    world.kubectl.run("-n", n, "wait", "--for=condition=Ready", "pod/registry", "--timeout=90s")
    bundle = world.bundle()
    with world.kubectl.forward(n, "pod/registry", 5000) as url:
        here = url.removeprefix("http://")
        told = world.gtc(
            "bundle",
            "publish",
            bundle,
            f"oci://{here}/bots/hello:1",
            environ={"GREENTIC_OCI_INSECURE_REGISTRIES": here},
        ).result
    revision = world.ready(bundle, told["bundle_source_uri"].replace(here, host))
    report = world.reconcile("--timeout", "180").result
    assert set(report["ready"]) == {"gtc-router", world.worker(revision)}
    assert "serving 1 revision(s) for env" in world.logs("worker")
    assert json.loads(world.post("service/gtc-router"))[0]["payload"]["text"] == "HI!"
