"""`greentic-operator` as a program, two of them, against an API server over HTTP (`served_cluster`): what is left when one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from conftest import Author, bind_deployer
from greentic.cluster import relisting
from greentic.controller.election import LEASE, VERSION
from greentic.deployer import binding, sweep
from greentic.ground.errors import Conflict
from greentic.k8s import names
from greentic.k8s.objects import ApiRefused, Ref, member, metadata_of
from served_cluster import Asked, ServedCluster
from simulators import LivingCluster
from test_controller import NS, SOURCE, Scene, publish
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("leases")]
"""They wait for Leases to run out, two minutes in all: one process does, while the others compute."""
LEASE_OF_IT = Ref("Lease", f"{LEASE}-local", NS)
OWN = ("Lease", "Event", "Environment/status")
"""What an operator writes beside the objects of the environment."""


class Programs:
    """Operators as processes, and the server that they ask."""

    def __init__(self, scene: Scene, tmp_path: Path) -> None:
        self.scene, self.tmp_path = scene, tmp_path
        self.server = ServedCluster(scene.cluster)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, who: str, *program: str) -> subprocess.Popen[bytes]:
        """An operator; `program` is what is run instead of the plain one."""
        config = self.server.kubeconfig(self.tmp_path / f"kubeconfig-{who}", who)
        home = self.tmp_path / f"home-{who}"
        home.mkdir(exist_ok=True)
        words = ["--name", "local", "--namespace", NS, "--identity", who, "--metrics-port", "0"]
        with self.log(who).open("ab") as log:
            self.running[who] = subprocess.Popen(
                [sys.executable, *(program or ("-m", "greentic.cli.operator")), *words],
                env={**os.environ, "KUBECONFIG": str(config), "HOME": str(home)},
                stdout=log,
                stderr=log,
            )
        return self.running[who]

    def log(self, who: str) -> Path:
        return self.tmp_path / f"log-{who}"

    def said(self) -> str:
        return "\n".join(f"{who}: {self.log(who).read_text()}" for who in self.running)

    def holder(self) -> str:
        lease = self.scene.cluster.objects.get(LEASE_OF_IT, {})
        return str(member(lease, "spec").get("holderIdentity", "")).rpartition("-")[0]

    def written(self) -> Counter[Ref]:
        """How often each object was really written, the operator's own left out."""
        return Counter(asked.ref for asked in self.server.done if asked.ref.kind not in OWN)

    def close(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.wait(30)
        self.server.close()


@pytest.fixture
def programs(author: Author, hello: Path, tmp_path: Path) -> Iterator[Programs]:
    author.create()
    author.deployed(hello, "https://bundles.example.com/hello.gtbundle", "one", ("/one",))
    publish(author, tmp_path / "place")
    found = Programs(Scene(author, tmp_path / "place", tmp_path), tmp_path)
    yield found
    found.close()


def stranger(cluster: LivingCluster, kind: str, name: str) -> Ref:
    """An object of somebody else."""
    cluster.put({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NS}, "data": {"a": "b"}})
    return Ref(kind, name, NS)


@pytest.mark.parametrize("dropped", [False, True], ids=["the last write arrives", "the last write is lost"])
def test_an_operator_that_is_killed_at_work_is_followed_by_another_that_finishes(programs, dropped):
    """It is killed while its first Deployment is on the way; nothing is written twice or half, and no stranger's object is touched."""
    scene, server = programs.scene, programs.server
    theirs = [stranger(scene.cluster, "ConfigMap", "theirs"), stranger(scene.cluster, "Secret", "theirs")]
    versions = {ref: metadata_of(scene.cluster.objects[ref])["resourceVersion"] for ref in theirs}
    killed, lock = threading.Event(), threading.Lock()

    def hold(asked: Asked) -> None:
        if asked.who != "one":
            return
        with lock:
            if asked.ref.kind == "Deployment" and not killed.is_set():
                first.send_signal(signal.SIGKILL)
                first.wait()
                killed.set()
                if not dropped:
                    return
        if killed.is_set():
            raise ConnectionAbortedError

    server.hold = hold
    scene.wish()
    first = programs.start("one")
    until(lambda: programs.holder() == "one", programs.said)
    second = programs.start("two")
    until(killed.is_set, programs.said)
    assert scene.condition("Synced").get("status") != "True" and programs.holder() == "one"
    until(lambda: programs.holder() == "two", programs.said)
    until(lambda: scene.condition("Synced").get("status") == "True", programs.said)
    assert set(programs.written().values()) == {1}, programs.written()
    by = {asked.ref.kind: asked.who for asked in server.done if asked.ref.kind not in OWN}
    assert by["ConfigMap"] == "one" and Counter(a.who for a in server.done if a.ref.kind == "Deployment")["two"]
    assert {ref: metadata_of(scene.cluster.objects[ref])["resourceVersion"] for ref in theirs} == versions
    made = {ref for ref in scene.cluster.objects if ref.kind not in ("Lease", "Environment") and ref not in theirs}
    assert made == set(programs.written()) and Ref("Deployment", names.ROUTER, NS) in made
    assert member(scene.cluster.objects[LEASE_OF_IT], "spec")["leaseTransitions"] == 1
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0 and programs.holder() == ""


def test_a_write_that_the_server_puts_off_does_not_come_over_what_the_next_holder_wrote(programs):
    """The holder can neither write nor renew for a while: what it had begun must not arrive when another holds the Lease."""
    scene, server = programs.scene, programs.server
    asked_for: list[Asked] = []
    shut = threading.Event()

    def refuse(asked: Asked) -> None:
        if asked.verb not in ("get", "list", "watch") and asked.ref.kind not in ("Event", "Environment/status"):
            if asked.who == "one" and asked.ref.kind == "Deployment":
                shut.set()
            asked_for.append(asked)
            if asked.who == "one" and shut.is_set():
                raise ApiRefused("the server is currently unable to handle the request", status=503)

    server.refuse = refuse
    scene.wish()
    programs.start("one")
    until(shut.is_set, programs.said)
    programs.start("two")
    until(lambda: programs.holder() == "two" and scene.condition("Synced").get("status") == "True", programs.said)
    until(lambda: "ApiRefused: " in programs.log("one").read_text(), programs.said)  # it has given up
    began = next(n for n, asked in enumerate(asked_for) if asked.who == "two" and asked.ref.kind != "Lease")
    late = [asked for asked in asked_for[began:] if asked.who == "one" and asked.ref.kind != "Lease"]
    assert late == [], programs.said()


def test_an_operator_gets_through_a_bad_day(programs):
    """A foreign holder from the far future, a busy server, watches that are too old, a definition without a status, a server that restarts."""
    scene, server = programs.scene, programs.server
    foreign = {
        "holderIdentity": "somebody-else",
        "leaseDurationSeconds": 86_400,
        "renewTime": "2999-01-01T00:00:00.000000Z",
    }
    metadata = {"name": LEASE_OF_IT.name, "namespace": NS}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": foreign}
    scene.cluster.put({**lease, "spec": {**foreign, "acquireTime": foreign["renewTime"], "leaseTransitions": 7}})
    counts: Counter[str] = Counter()

    def refuse(asked: Asked) -> None:
        key = f"{asked.verb} {asked.ref.kind}"
        counts[key] += 1
        if asked.ref.kind == "Environment/status":
            raise ApiRefused("the server could not find the requested resource", status=404)
        if asked.verb == "watch" and counts[key] <= 2:
            raise ApiRefused("too old resource version: 1 (2)", status=410, reason="Expired")
        if asked.ref.kind == "Service" and counts[key] <= 2:
            raise Busy()

    server.refuse = refuse
    scene.wish()
    process = programs.start("one")
    until(lambda: programs.holder() == "one", programs.said)
    router = Ref("Service", names.ROUTER, NS)
    until(lambda: {router, Ref("Deployment", names.ROUTER, NS)} <= set(scene.cluster.objects), programs.said)
    assert member(scene.cluster.objects[LEASE_OF_IT], "spec")["leaseTransitions"] == 8
    until(lambda: "apply the definition of Environment" in programs.log("one").read_text(), programs.said)
    server.restart()
    scene.cluster.end_watches()
    scene.cluster.remove(router)
    until(lambda: router in scene.cluster.objects, programs.said)
    assert set(programs.written().values()) <= {1, 2} and programs.written()[router] == 2
    assert process.poll() is None and "Traceback" not in programs.said()


OTHER_VERSION = """
import sys, greentic
greentic.__version__, yielding, label = sys.argv[1:4]
del sys.argv[1:4]
from greentic.controller import election
from greentic.k8s import render
election.YIELDING = float(yielding)
plain = render.rendering
def rendering(desired):
    for thing in plain(desired):
        if label and thing["kind"] == "Service":
            thing["metadata"]["labels"]["example.com/since"] = label
        yield thing
render.rendering = rendering
from greentic.cli.operator import main
main()
"""


def test_an_older_operator_does_not_undo_what_a_newer_one_wrote(programs):
    """An upgrade that goes wrong half way: the newer one is killed, and only the older one is left."""
    scene, router = programs.scene, Ref("Service", names.ROUTER, NS)

    def labelled() -> object:
        return member(scene.cluster.objects.get(router, {}), "metadata", "labels").get("example.com/since")

    def writes_of(who: str) -> set[str]:
        return {asked.ref.kind for asked in programs.server.done if asked.who == who}

    seen = set[tuple[str, str]]()
    programs.server.refuse = lambda asked: seen.add((asked.who, asked.ref.kind))
    scene.wish()
    newer = programs.start("newer", "-c", OTHER_VERSION, "99.1.0", "30", "99.1.0")
    until(lambda: scene.condition("Synced").get("status") == "True" and labelled() == "99.1.0", programs.said)
    older = programs.start("older", "-c", OTHER_VERSION, "99.0.9", "15", "")
    until(lambda: ("older", "Lease") in seen, programs.said)
    newer.kill()
    until(lambda: scene.condition("Degraded").get("reason") == "NewerVersion", programs.said)
    told = scene.condition("Degraded")["message"]
    assert "version 99.1.0 of the operator kept this namespace, and this is 99.0.9" in told
    assert f"annotate lease {LEASE_OF_IT.name} {VERSION}-" in told and scene.condition("Synced")["status"] == "Unknown"
    looked = len([line for line in programs.log("older").read_text().splitlines() if "NewerVersion" in line])
    scene.wish(2, everySeconds=2)  # what is asked for is not done either, and is not told as done
    until(lambda: programs.holder() == "older" and scene.observed() == 2, programs.said)
    assert writes_of("older") <= set(OWN) and labelled() == "99.1.0" and looked == 1
    # the newer one comes back: it need not wait
    older.send_signal(signal.SIGTERM)
    assert older.wait(60) == 0
    back = programs.start("back", "-c", OTHER_VERSION, "99.1.0", "30", "99.1.0")
    until(lambda: programs.holder() == "back" and scene.condition("Degraded").get("status") == "False", programs.said)
    # the older one is meant after all: who says so takes the name of the version away
    back.send_signal(signal.SIGTERM)
    assert back.wait(60) == 0
    lease = scene.cluster.objects[LEASE_OF_IT]
    scene.cluster.put({**lease, "metadata": {**metadata_of(lease), "annotations": {}}})
    programs.start("meant", "-c", OTHER_VERSION, "99.0.9", "15", "")
    until(lambda: labelled() is None and scene.condition("Synced").get("status") == "True", programs.said)
    assert metadata_of(scene.cluster.objects[LEASE_OF_IT])["annotations"] == {VERSION: "99.0.9"}


def destroy(author: Author) -> sweep.ClusterDestroyed:
    return sweep.destroy_cluster_objects(author.context, "local", namespace=False)


@pytest.fixture
def kept(programs, author: Author, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """An operator keeps what `env reconcile` of the same environment would."""
    bind_deployer(author)
    monkeypatch.setenv("KUBECONFIG", str(programs.server.kubeconfig(tmp_path / "kubeconfig-person", "person")))
    programs.scene.wish(store=binding.resolve(author.context, "local", None, live=False).owner.store)
    programs.start("one")
    until(lambda: programs.scene.condition("Synced").get("status") == "True", programs.said)
    return programs


@pytest.mark.parametrize("how", ["deleted", "paused", "killed"])
def test_nothing_is_destroyed_beside_an_operator_that_would_make_it_again(kept, author, how):
    scene, server = kept.scene, kept.server
    made = {ref for ref in scene.cluster.objects if ref.kind not in ("Lease", "Environment")}
    with pytest.raises(Conflict, match="an operator .`one-.*keeps namespace .*nothing was deleted") as refused:
        destroy(author)
    assert f"kubectl -n {NS} delete environment local" in str(refused.value.hint)
    assert "person" not in {asked.who for asked in server.done} and made <= set(scene.cluster.objects)
    if how == "deleted":
        scene.cluster.remove(SOURCE)
        until(lambda: "is gone; what runs is left as it is" in kept.log("one").read_text(), kept.said)
    elif how == "paused":
        scene.wish(2, paused=True)
        until(lambda: scene.condition("Synced").get("reason") == "Paused", kept.said)
    else:
        kept.running["one"].kill()
        kept.running["one"].wait()
        lease = metadata_of(scene.cluster.objects[LEASE_OF_IT])["resourceVersion"]
    gone = destroy(author)
    assert gone.removed_count == len(made) and not made & set(scene.cluster.objects)
    if how == "killed":
        assert metadata_of(scene.cluster.objects[LEASE_OF_IT])["resourceVersion"] == lease
    assert {asked.who for asked in server.done if asked.verb == "delete"} == {"person"}


def test_who_may_not_see_operators_is_told_by_what_comes_back(kept, author):
    def refuse(asked: Asked) -> None:
        if asked.who == "person" and asked.ref.kind in ("Lease", "Environment"):
            raise ApiRefused("leases is forbidden", status=403)

    kept.server.refuse = refuse
    with pytest.raises(
        Conflict, match="was deleted and is there again, by `greentic-deployer`: somebody keeps"
    ) as told:
        destroy(author)
    assert "the Environment of an operator" in str(told.value.hint)
    until(lambda: kept.scene.condition("Synced").get("status") == "True", kept.said)


def test_lists_that_expire_while_they_are_read_are_begun_again_and_nothing_is_written_or_deleted_for_it(programs):
    scene, server = programs.scene, programs.server
    server.page = 2
    scene.wish()
    programs.start("one")
    until(lambda: scene.condition("Ready").get("status") == "True", programs.said)
    before, versions = set(scene.cluster.objects), {r: metadata_of(t) for r, t in scene.cluster.objects.items()}
    refused: list[Asked] = []

    def refuse(asked: Asked) -> None:
        if asked.rest and asked.ref.kind == "NetworkPolicy" and len(refused) < relisting.TRIES - 1:
            refused.append(asked)
            raise ApiRefused("the provided continue parameter is too old", status=410, reason="Expired")

    server.refuse = refuse
    server.done.clear()
    scene.wish(2, everySeconds=2)  # everything is compared
    until(lambda: scene.observed() == 2 and len(refused) == relisting.TRIES - 1, programs.said)
    until(lambda: scene.condition("Synced").get("status") == "True", programs.said)
    assert programs.written() == {} and set(scene.cluster.objects) == before
    policy = Ref("NetworkPolicy", "gtc-default-deny", NS)
    assert metadata_of(scene.cluster.objects[policy]) == versions[policy]
    assert "ApiRefused" not in programs.log("one").read_text()


class Busy(ApiRefused):
    """A server that names a time."""

    fields: ClassVar[dict[str, str]] = {"Retry-After": "1"}

    def __init__(self) -> None:
        super().__init__("too many requests", status=429)
