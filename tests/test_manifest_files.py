"""Objects as files: names that stay, an order that applies, and what becomes of what lies there already (`manifests/manifest_files.py`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from greentic.ground.documents import Json, JsonObject
from greentic.ground.yaml import parse_yaml
from greentic.k8s.answers import read_answers
from greentic.k8s.render import DesiredObjects, render
from greentic.manifests.manifest_files import file_name, write_files
from greentic.manifests.operator_objects import Asked
from greentic.manifests.operator_objects import rendered as operator_objects
from greentic.model.pod_view import for_pods
from test_k8s_render import environment

IMAGE = "r.example/worker@sha256:" + "0" * 64
SHAPE: Json = {"autoscale": {"min": 2, "max": 4, "cpu": 70}, "service_account": {"name": "bots"}}
ANSWERS: dict[str, JsonObject] = {
    "plain": {},
    "ingress": {"expose": "ingress", "hosts": ["bots.example.com"], "router": SHAPE, "worker": SHAPE},
    "gateway": {"expose": "gateway", "hosts": ["bots.example.com"], "gateway": "infra/public", "ingress_namespaces": ["infra"]},
}  # fmt: skip


def objects(answers: JsonObject, *, secrets: bool = False) -> list[JsonObject]:
    given = read_answers({"runtime_image": IMAGE, **answers}, "prod")
    return render(DesiredObjects(for_pods(environment()), given, "store", secrets_bound=secrets))


def operator(kind: str) -> list[JsonObject]:
    answers = read_answers({"runtime_image": IMAGE}, "prod")
    return operator_objects(Asked("prod", IMAGE, answers, {"from": "oci://r.example/e:1"}, kind), "from: x\n")


def names(things: list[JsonObject]) -> list[str]:
    return [file_name(index, thing) for index, thing in enumerate(things)]


@pytest.mark.parametrize("name", ANSWERS)
def test_files_are_numbered_in_the_order_of_rendering(name):
    found = names(objects(ANSWERS[name], secrets=True))
    assert [int(n.partition("-")[0]) for n in found] == list(range(len(found)))
    assert len({n.partition("-")[2] for n in found}) == len(found), "two objects have one name"
    assert names(objects({}))[8:10] == [
        "08-networkpolicy-gtc-allow-router.yaml",
        "09-networkpolicy-gtc-allow-workers.yaml",
    ]


@pytest.mark.parametrize("kind", ["Environment", "ConfigMap"])
def test_an_operators_objects_have_one_file_each(kind):
    there = names(operator(kind))
    assert len(set(there)) == len(there)


def test_what_others_stand_on_is_applied_before_them():
    """By file name, as `kubectl apply -f` goes through a directory."""
    for there in (objects(ANSWERS["ingress"], secrets=True), objects(ANSWERS["gateway"]), operator("Environment")):
        assert names(there) == sorted(names(there))
        kinds = [str(thing["kind"]) for thing in there]
        last = {kind: len(kinds) - 1 - kinds[::-1].index(kind) for kind in set(kinds)}
        for earlier, later in (
            ("Namespace", "ServiceAccount"), ("Namespace", "ConfigMap"), ("CustomResourceDefinition", "Environment"),
        ):  # fmt: skip
            if earlier in last and later in kinds:
                assert last[earlier] < kinds.index(later), (earlier, later)


def test_a_directory_of_an_older_rendering_is_taken_over_and_what_is_of_others_stays(tmp_path: Path):
    out = tmp_path / "out"
    things = objects({})
    write_files(objects(ANSWERS["ingress"]), out)
    for index, thing in enumerate(things):  # as with an object more in front
        (out / file_name(index + 1, thing)).write_text("older")
    others = {
        "45-resourcequota-ours.yaml": "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: ours}\n",
        "46-several.yaml": "kind: A\n---\nkind: B\n",
        "60-deployment-of-another.yaml": "kind: Deployment\nmetadata: {name: x, labels: {greentic.ai/env: other}}\n",
        "kustomization.yaml": "resources: []\n",
        "10-notes.txt": "text",
    }
    (out / "47-directory.yaml").mkdir()
    (out / "99-nothing.yaml").write_text("")
    for name, text in others.items():
        (out / name).write_text(text)
    told = write_files(things, out)
    assert {p.name for p in out.iterdir()} == set(names(things)) | {*others, "47-directory.yaml"}
    assert {name: (out / name).read_text() for name in others} == others
    assert told.unmanaged == sorted(
        n for n in (*others, "47-directory.yaml") if n.endswith(".yaml")
    ) and told.files == sorted(told.files)
    gone = set(told.removed)
    assert "99-nothing.yaml" in gone and any("ingress-gtc-router" in name for name in gone)
    assert told.removed == sorted(gone) and len(gone) == len(told.removed)
    assert [parse_yaml((out / name).read_bytes()) for name in names(things)] == things


def test_an_operators_files_and_an_environments_leave_each_other_alone(tmp_path: Path):
    out = tmp_path / "out"
    there = [thing for thing in operator("Environment") if thing["kind"] != "Namespace"]
    write_files(there, out)
    assert write_files(objects({}), out).removed == [] == write_files(there, out).removed
