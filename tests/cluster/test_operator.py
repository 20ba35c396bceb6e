"""The operator in a real cluster: what is published runs, moves, is healed and rolled back, with nobody else asking the API server."""

from __future__ import annotations

import json
from pathlib import Path

from world import World

from waiting import until


def condition(world: World, kind: str) -> dict:
    thing = world.get("environments.greentic.ai", world.env_id) or {}
    return next((c for c in thing.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def generation(world: World) -> int:
    thing = world.get("environments.greentic.ai", world.env_id) or {}
    return thing.get("status", {}).get("published", {}).get("generation", 0)


def is_ready(world: World, wanted: int) -> bool:
    return generation(world) == wanted and condition(world, "Ready").get("status") == "True"


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
        rendered = world.op(
            "operator",
            "render",
            world.env_id,
            "--from",
            f"oci://{host}/envs/{world.env_id}:prod",
            "--output",
            tmp_path / "operator",
        ).result
        crd = [tmp_path / "operator" / name for name in rendered["files"] if "customresourcedefinition" in name]
        world.kubectl.run("apply", "-f", str(crd[0]))
        world.kubectl.run("wait", "--for=condition=Established", "crd/environments.greentic.ai", "--timeout=60s")
        world.kubectl.run("apply", "-f", str(tmp_path / "operator"))
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
        reasons = {e["reason"] for e in (world.kubectl.get("-n", n, "events") or {"items": []})["items"]}
        assert {"InSync", "Serving", "DriftHealed"} <= reasons
        lease = world.get("lease", f"greentic-operator-{world.env_id}") or {}
        assert lease["spec"]["holderIdentity"].startswith("greentic-operator-")


def test_rights_that_are_taken_away_are_told_and_the_last_good_runs_on(
    world: World, registry_image: tuple[str, str], tmp_path: Path
):
    n = world.namespace
    host = f"registry.{n}.svc.cluster.local:5000"
    world.author(oci_insecure_registries=[host])
    world.serve_registry(registry_image)
    with world.kubectl.forward(n, "pod/registry", 5000) as url:
        here = url.removeprefix("http://")
        plain = {"GREENTIC_OCI_INSECURE_REGISTRIES": here}
        place = f"oci://{here}/envs/{world.env_id}:prod"
        told = world.op("env", "publish", world.env_id, place, environ=plain).result
        out = tmp_path / "operator"
        world.op("operator", "render", world.env_id, "--from", place.replace(here, host), "--output", out).result
        world.kubectl.run("apply", "-f", str(next(out.glob("*customresourcedefinition*"))))
        world.kubectl.run("wait", "--for=condition=Established", "crd/environments.greentic.ai", "--timeout=60s")
        world.kubectl.run("apply", "-f", str(out))
        until(lambda: is_ready(world, told["generation"]), "it runs", 240)
        role = world.get("role", "greentic-operator") or {}
        fewer = [r for r in role["rules"] if "services" not in r["resources"]]
        world.kubectl.run(
            "-n", n, "patch", "role", "greentic-operator", "--type=merge", "-p", json.dumps({"rules": fewer})
        )
        world.op("config", "set", world.env_id, "public_base_url=https://bots.example.com").result
        world.op("env", "publish", world.env_id, place, environ=plain).result
        until(lambda: condition(world, "Degraded").get("reason") == "RightsMissing", "it is told", 120)
        assert generation(world) == told["generation"] and len(world.pods("router")) == 2
        world.kubectl.run(
            "-n", n, "patch", "role", "greentic-operator", "--type=merge", "-p", json.dumps({"rules": role["rules"]})
        )
        until(lambda: condition(world, "Degraded").get("status") == "False", "it goes on", 180)
