"""The operator in a real cluster: what is published runs, moves, is healed and rolled back, with nobody else asking the API server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import PROJECT, World

from greentic.controller.election import DEADLINE
from waiting import until


def condition(world: World, kind: str) -> dict:
    thing = world.get("environments.greentic.ai", world.env_id) or {}
    return next((c for c in thing.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def generation(world: World) -> int:
    thing = world.get("environments.greentic.ai", world.env_id) or {}
    return thing.get("status", {}).get("published", {}).get("generation", 0)


def is_ready(world: World, wanted: int) -> bool:
    return generation(world) == wanted and condition(world, "Ready").get("status") == "True"


def install(world: World, rendered: Path) -> None:
    """Apply what was rendered, its definition first. All tests share that: of two that bring it at once, one is told that it is there."""
    definition = str(next(rendered.glob("*customresourcedefinition*")))
    until(lambda: world.kubectl.run("apply", "-f", definition, check=False), "the definition is applied", 30)
    world.kubectl.run("wait", "--for=condition=Established", "crd/environments.greentic.ai", "--timeout=60s")
    said: list[str] = []

    def applied() -> bool:
        """A kind is served a moment after its definition is established."""
        done = world.kubectl.done("apply", "-f", str(rendered))
        said.append(done.stderr)
        return done.returncode == 0

    until(applied, lambda: said[-1], 60)


def test_what_is_published_runs_moves_is_healed_and_rolled_back(
    world: World, registry_image: tuple[str, str], tmp_path: Path
):
    n = world.namespace
    host = f"registry.{n}.svc.cluster.local:5000"
    world.author(oci_insecure_registries=[host], router_replicas=2)
    world.serve_registry(registry_image)
    with world.kubectl.forward(n, "pod/registry", 5000) as url:
        here = url.removeprefix("http://")
        plain = {"GREENTIC_OCI_INSECURE_REGISTRIES": here}

        def staged(reply: str) -> str:
            bundle = world.bundle(reply)
            told = world.gtc("bundle", "publish", bundle, f"oci://{here}/bots/hello:1{reply}", environ=plain).result
            return world.ready(bundle, told["bundle_source_uri"].replace(here, host), None)

        def op(*words: str) -> dict:
            return world.op("env", *words, f"oci://{here}/envs/{world.env_id}:prod", environ=plain).result

        def said() -> str:
            return json.loads(world.post("service/gtc-router"))[0]["payload"]["text"]

        old, new = staged(""), staged("TWO")
        world.route({old: 100})
        first = op("publish", world.env_id)["generation"]
        world.op(
            "operator",
            "render",
            world.env_id,
            "--from",
            f"oci://{host}/envs/{world.env_id}:prod",
            "--output",
            tmp_path / "operator",
        ).result
        install(world, tmp_path / "operator")
        until(lambda: is_ready(world, first), "the first generation runs", 240)
        assert said() == "HI!" and condition(world, "Degraded")["status"] == "False"
        before = {p["metadata"]["uid"] for p in [*world.pods("router"), *world.pods("worker")]}

        world.route({new: 100})
        second = op("publish", world.env_id)["generation"]
        until(lambda: is_ready(world, second), "the second generation runs", 180)
        assert said() == "HI!TWO"
        after = {p["metadata"]["uid"] for p in [*world.pods("router"), *world.pods("worker")]}
        assert before == after, "a pod was replaced by a change of weights"

        world.kubectl.run("-n", n, "delete", "service", "gtc-router")
        until(lambda: world.get("service", "gtc-router"), "the Service is made again", 20)
        patch = '{"spec":{"replicas":3}}'
        world.kubectl.run("-n", n, "patch", "deployment", "gtc-router", "--type=merge", "-p", patch)
        until(
            lambda: (world.get("deployment", "gtc-router") or {})["spec"]["replicas"] == 2, "replicas are put right", 20
        )

        back = op("rollback", world.env_id)
        assert back["rollback_of"] == first
        until(lambda: is_ready(world, back["generation"]), "the old content runs", 180)
        assert said() == "HI!"

        def reasons() -> set[str]:
            """An event is written after the status that it is about."""
            return {e["reason"] for e in (world.kubectl.get("-n", n, "events") or {"items": []})["items"]}

        until(lambda: {"InSync", "Serving", "DriftHealed"} <= reasons(), reasons)
        lease = world.get("lease", f"greentic-operator-{world.env_id}") or {}
        assert lease["spec"]["holderIdentity"].startswith("greentic-operator-")


class Kept:
    """An environment that an operator keeps from a registry in its namespace."""

    def __init__(self, world: World, here: str, host: str) -> None:
        self.world, self.host = world, host
        self._plain = {"GREENTIC_OCI_INSECURE_REGISTRIES": here}
        self._place = f"oci://{here}/envs/{world.env_id}:prod"

    def publish(self) -> int:
        """Publish what the store holds; its generation."""
        return self.world.op("env", "publish", self.world.env_id, self._place, environ=self._plain).result["generation"]

    def holder(self) -> str:
        """The pod that holds the Lease."""
        lease = self.world.get("lease", f"greentic-operator-{self.world.env_id}") or {"spec": {}}
        return lease["spec"].get("holderIdentity", "").rpartition("-")[0]


@contextlib.contextmanager
def kept(world: World, registry_image: tuple[str, str], out: Path) -> Iterator[Kept]:
    """Publish, and let an operator keep what is published; it is ready when this begins."""
    host = f"registry.{world.namespace}.svc.cluster.local:5000"
    world.author(oci_insecure_registries=[host])
    world.serve_registry(registry_image)
    with world.kubectl.forward(world.namespace, "pod/registry", 5000) as url:
        found = Kept(world, url.removeprefix("http://"), host)
        first = found.publish()
        place = f"oci://{host}/envs/{world.env_id}:prod"
        world.op("operator", "render", world.env_id, "--from", place, "--output", out).result
        install(world, out)
        until(lambda: is_ready(world, first), "it runs", 240)
        yield found


def test_rights_that_are_taken_away_are_told_and_the_last_good_runs_on(
    world: World, registry_image: tuple[str, str], tmp_path: Path
):
    n = world.namespace
    with kept(world, registry_image, tmp_path / "operator") as found:
        before = generation(world)
        role = world.get("role", "greentic-operator") or {}
        fewer = [r for r in role["rules"] if "services" not in r["resources"]]
        world.kubectl.run(
            "-n", n, "patch", "role", "greentic-operator", "--type=merge", "-p", json.dumps({"rules": fewer})
        )
        world.op("config", "set", world.env_id, "public_base_url=https://bots.example.com").result
        found.publish()
        until(lambda: condition(world, "Degraded").get("reason") == "RightsMissing", "it is told", 120)
        assert generation(world) == before and len(world.pods("router")) == 2
        world.kubectl.run(
            "-n", n, "patch", "role", "greentic-operator", "--type=merge", "-p", json.dumps({"rules": role["rules"]})
        )
        until(lambda: condition(world, "Degraded").get("status") == "False", "it goes on", 180)


KINDS = "services,networkpolicies,configmaps,deployments"


def written(world: World) -> dict[str, str]:
    """What of our objects counts their writes: a version, or of what has a status the generation."""
    key, owner = {"Deployment": "generation"}, f"greentic.ai/env={world.env_id}"
    found = (world.kubectl.get("-n", world.namespace, KINDS, "-l", owner) or {"items": []})["items"]
    return {
        f"{i['kind']} {i['metadata']['name']}": str(i["metadata"][key.get(i["kind"], "resourceVersion")]) for i in found
    }


def test_a_holder_that_is_killed_is_followed_by_the_other_and_nothing_is_written_twice(
    world: World, registry_image: tuple[str, str], tmp_path: Path
):
    n = world.namespace
    with kept(world, registry_image, tmp_path / "operator") as found:
        first, before = found.holder(), written(world)
        assert first.startswith("greentic-operator-") and len(before) >= 10
        words = [
            "kubectl",
            "-n",
            n,
            "get",
            "configmap",
            "gtc-env-store",
            "-w",
            "-o",
            "jsonpath={.metadata.resourceVersion}{'\\n'}",
        ]
        with subprocess.Popen(words, env=world.kubectl.environment, stdout=subprocess.PIPE, text=True) as watching:
            world.op("config", "set", world.env_id, "public_base_url=https://bots.example.com").result
            second = found.publish()
            world.kubectl.run("-n", n, "delete", "pod", first, "--grace-period=0", "--force", "--wait=false")
            until(lambda: found.holder() not in ("", first), "another pod holds the Lease", 90)
            until(lambda: is_ready(world, second), "the new generation runs", 180)
            watching.terminate()
            assert watching.stdout is not None
            versions = watching.stdout.read().split()
        after = written(world)
        assert len(set(versions)) == 2, versions  # as it was, and the one write
        document = "ConfigMap gtc-env-store"
        assert after.pop(document) != before.pop(document) and after == before
        assert (world.get("lease", f"greentic-operator-{world.env_id}") or {})["spec"]["leaseTransitions"] == 1


@pytest.mark.alone
@pytest.mark.lab
def test_an_operator_gets_through_a_server_that_restarts_and_one_that_says_nothing(
    world: World, registry_image: tuple[str, str], tmp_path: Path
):
    """Silence for longer than a holder may act without renewing: who goes on then finds everything as it was."""
    sys.path.insert(0, str(PROJECT / "lab"))
    import cluster as lab

    n = world.namespace
    with kept(world, registry_image, tmp_path / "operator") as found:
        before = written(world)
        world.op("config", "set", world.env_id, "public_base_url=https://bots.example.com").result
        second = found.publish()
        lab.restart("kube-apiserver", pause=2)
        until(lambda: is_ready(world, second), "the new generation runs", 240)
        lab.freeze("kube-apiserver", seconds=DEADLINE + 2)
        until(lambda: world.kubectl.get("namespaces"), "the API server", 60)
        world.kubectl.run("-n", n, "delete", "service", "gtc-router")
        until(lambda: world.get("service", "gtc-router"), "the Service is made again", 120)
        until(lambda: condition(world, "Degraded").get("status") == "False", "it goes on", 180)
        after = written(world)
        touched = {name for name in before if before[name] != after[name]}
        assert touched == {"ConfigMap gtc-env-store", "Service gtc-router"} and set(after) == set(before)
        pods = world.kubectl.get("-n", n, "pods", "-l", "app.kubernetes.io/name=greentic-operator") or {"items": []}
        assert [p["status"]["containerStatuses"][0]["restartCount"] for p in pods["items"]] == [0, 0]


def test_an_environment_is_not_destroyed_while_an_operator_keeps_it(
    world: World, registry_image: tuple[str, str], tmp_path: Path
):
    n = world.namespace
    with kept(world, registry_image, tmp_path / "operator"):
        world.op("bundles", "retire", world.env_id, "hello", "--store-only").result
        refused = world.op("env", "destroy", world.env_id, "--confirm").error
        assert "nothing was deleted" in refused["message"] and f"environment {world.env_id}" in refused["hint"]
        assert world.get("deployment", "gtc-router") and (world.store / world.env_id).exists()
        world.kubectl.run("-n", n, "delete", "environments.greentic.ai", world.env_id)
        until(
            lambda: (
                "is gone; what runs is left"
                in world.kubectl.run("-n", n, "logs", "-l", "app.kubernetes.io/name=greentic-operator", "--tail=-1")
            ),
            "the operator sees that its wish is gone",
            30,
        )
        assert world.op("env", "destroy", world.env_id, "--confirm").result["cluster"]["removed_count"] >= 11
        assert world.get("deployment", "gtc-router") is None and world.get("deployment", "greentic-operator")
