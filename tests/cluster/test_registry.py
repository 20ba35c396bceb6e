"""Pods pull over OCI from a registry in the cluster, over plain http because the answers say so."""

from __future__ import annotations

import json

from world import World


def test_pods_pull_over_oci(world: World, registry_image: tuple[str, str]):
    n = world.namespace
    host = f"registry.{n}.svc.cluster.local:5000"
    world.author(oci_insecure_registries=[host])
    world.serve_registry(registry_image)
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
