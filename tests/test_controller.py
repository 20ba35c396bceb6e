"""The operator: what it is asked for, who acts, what it does next, and that it keeps a namespace as what is published says."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from conftest import IMAGE, Author, bind_deployer, deployer_answers
from greentic.cluster.apply import PHASES, NotOurs
from greentic.controller import contested, desired, differing, looking, loop, wish
from greentic.controller.contested import AT_ONCE, CALM_SECONDS, MANY, Contested, PutRight
from greentic.controller.decide import RESYNC, Act, Situation, decide
from greentic.controller.desired import DesiredDocument, Publication
from greentic.controller.differing import ALONE, difference, stated
from greentic.controller.election import (
    DEADLINE,
    DURATION,
    LEASE,
    VERSION,
    YIELDING,
    Election,
    Held,
    Move,
    Sight,
    lease_name,
    next_move,
)
from greentic.controller.kept_document import KEPT, kept
from greentic.controller.loop import Operator
from greentic.controller.metrics import FAMILIES, Metrics, serve
from greentic.controller.report import Known, report
from greentic.controller.teller import STATUS_ANNOTATION
from greentic.controller.troubles import CLUSTER_AGAIN, Trouble, Troubles, Work, of_apply, of_look
from greentic.controller.watches import fingerprint
from greentic.controller.wish_status import MAX_MESSAGE, Condition, WishStatus, is_kept, status_of, turned
from greentic.ground.backoff import Backoff
from greentic.ground.clock import CLOCK
from greentic.ground.documents import compact, replace
from greentic.ground.errors import (
    Conflict,
    GreenticError,
    InvalidArgument,
    PermissionMissing,
    ServerBusy,
    UntrustedBundle,
)
from greentic.k8s import names
from greentic.k8s.health import Rollout
from greentic.k8s.objects import ApiRefused, ClusterUnreachable, Listed, Ref, labels_of, member, metadata_of, ref_of
from greentic.k8s.plan import Owner
from greentic.manifests import env_render, operator_objects, operator_render
from greentic.model.environment import document_digest
from greentic.model.pointer import POINTER_FILE, pointer_to
from greentic.net.terms import Terms
from greentic.publication.artifact import DamagedPublication, NothingPublished, press
from greentic.release import env_publish
from simulators import CountingRandom, FakeClock, LivingCluster
from waiting import until

NS = "gtc-local"
SOURCE = Ref("Environment", "local", NS)


def asked(spec: dict, generation: int = 1, name: str = "local") -> dict:
    metadata = {"name": name, "namespace": NS, "generation": generation}
    return {"apiVersion": "greentic.ai/v1alpha1", "kind": "Environment", "metadata": metadata, "spec": spec}


GOOD = {"from": "oci://r.example/envs/local:prod", "answers": {"runtime_image": IMAGE}}


# -- the wish ---------------------------------------------------------------------------------------------------------


def test_a_wish_is_read_from_an_environment_and_from_a_config_map():
    read = wish.read_wish(asked(GOOD, 7))
    assert (read.generation, read.place, read.store, read.every, read.paused) == (
        7,
        GOOD["from"],
        "op-local",
        30.0,
        False,
    )
    assert read.answers.namespace == NS and read.answers.runtime_image == IMAGE
    held = {
        "kind": "ConfigMap",
        "metadata": {"name": "local", "namespace": NS},
        "data": {"spec.yaml": json.dumps(GOOD | {"paused": True})},
    }
    assert wish.read_wish(held).paused


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"form": "x"}, "spec.form: unknown"),
        ({"from": None}, "spec.from: missing"),
        ({"from": 7}, "spec.from: expected a text"),
        ({"paused": "yes"}, "spec.paused: expected true or false"),
        ({"everySeconds": 0}, "spec.everySeconds"),
        ({"everySeconds": True}, "spec.everySeconds"),
        ({"environment": "../x"}, "spec.environment"),
        ({"answers": {"runtime_image": IMAGE, "namespace": "kube-system"}}, "spec.answers.namespace"),
        ({"answers": {"runtime_image": IMAGE, "kubeconfig_context": "x"}}, "kubeconfig_context"),
        ({"answers": {"router_replicas": 1, "runtime_image": IMAGE}}, "router_replicas must be >= 2"),
        ({"answers": {}}, "spec.answers.runtime_image: missing"),
        ({"answers": "x"}, "spec.answers: "),
    ],
)
def test_a_wish_that_makes_no_sense_names_the_field(change, told):
    with pytest.raises(InvalidArgument, match=told):
        wish.read_wish(asked(GOOD | change))


# -- the Lease --------------------------------------------------------------------------------------------------------


def lease(holder: str, version: str) -> dict:
    return {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder}}


def test_a_lease_is_taken_when_nobody_renews_it_by_our_own_clock():
    assert next_move(None, "me", Sight(), 5)[0] is Move.CREATE
    assert next_move(lease("", "1"), "me", Sight(), 5)[0] is Move.TAKE
    assert next_move(lease("me", "1"), "me", Sight(), 5)[0] is Move.RENEW
    move, seen = next_move(lease("you", "1"), "me", Sight(), 5)
    assert move is Move.WAIT and seen == Sight("you", "1", 5)
    assert next_move(lease("you", "1"), "me", seen, 5 + DURATION - 0.1)[0] is Move.WAIT
    assert next_move(lease("you", "1"), "me", seen, 5 + DURATION)[0] is Move.TAKE
    assert next_move(lease("you", "2"), "me", seen, 5 + DURATION) == (Move.WAIT, Sight("you", "2", 5 + DURATION))


def election(cluster: LivingCluster, me: str, clock: FakeClock, version: str = "1.2.0") -> Election:
    return Election(lambda: cluster, Ref("Lease", "l", NS), me, clock, version)


def test_one_of_two_leads_and_the_other_takes_over_when_it_is_killed_or_gives_back():
    cluster, clock = LivingCluster(), FakeClock()
    one, two = election(cluster, "one", clock), election(cluster, "two", clock)
    assert one.step() and not two.step() and two.holder == "one"
    for _ in range(10):
        clock.sleep(3)
        assert one.step() and not two.step() and not two.leads()
    clock.sleep(DEADLINE)  # one is killed while it holds the Lease
    assert not one.leads() and not two.step()
    clock.sleep(DURATION - DEADLINE)
    assert two.step() and two.leads() and not one.step()
    two.release()
    assert not two.leads() and one.step()
    spec = member(cluster.objects[Ref("Lease", "l", NS)], "spec")
    assert spec["leaseTransitions"] == 2 and spec["holderIdentity"] == "one"


def test_an_older_operator_lets_newer_ones_go_first_and_then_stands_back_until_it_is_let():
    cluster, clock, ref = LivingCluster(), FakeClock(), Ref("Lease", "l", NS)
    older, newer = election(cluster, "older", clock, "1.2.0"), election(cluster, "newer", clock, "1.10.0-rc.1")
    assert older.step() and older.stands_back() == "" and not newer.step()
    older.release()
    assert newer.step() and newer.stands_back() == ""
    newer.release()
    assert not older.step() and newer.step()  # of two that may, the newer one takes it
    clock.sleep(DURATION)
    assert not older.step()  # killed; a newer one may be waiting for as long
    clock.sleep(YIELDING)
    assert older.step() and older.leads() and "version 1.10.0-rc.1 of the operator" in older.stands_back()
    clock.sleep(3)
    assert older.step() and older.stands_back()
    del cluster.objects[ref]["metadata"]["annotations"][VERSION]
    assert older.step() and older.stands_back() == ""
    assert cluster.objects[ref]["metadata"]["annotations"] == {VERSION: "1.2.0"}
    clock.sleep(DURATION)
    assert not newer.step()
    clock.sleep(DURATION)
    assert newer.step() and cluster.objects[ref]["metadata"]["annotations"] == {VERSION: "1.10.0-rc.1"}


@pytest.mark.parametrize("told", ["1.2.0", "1.1.99", "", "1.2", "x.y.z", "latest", 7, None])
def test_only_a_version_that_is_newer_counts(told):
    held = {"metadata": {"resourceVersion": "1", "annotations": {VERSION: told}}, "spec": {"holderIdentity": ""}}
    assert next_move(held, "me", Sight(), 5, "1.2.0")[0] is Move.TAKE


def test_who_loses_a_lease_says_whose_it_is_and_never_itself():
    cluster, clock = LivingCluster(), FakeClock()
    one, two = election(cluster, "one", clock), election(cluster, "two", clock)
    assert one.step() and not two.step()
    assert (one.whose(), two.whose()) == ("this operator holds the Lease", "`one` holds the Lease")
    clock.sleep(DEADLINE)
    assert one.whose() == "this operator could not renew the Lease and holds it no more"


def test_an_operator_that_cannot_have_its_lease_says_so_once_and_tells_nothing_of_the_environment(scene, monkeypatch):
    """What it knew when it lost the Lease may be long over: another one acts, or nobody."""
    monkeypatch.setattr(loop, "RENEW", 0.01)
    scene.wish()
    running = scene.start()
    scene.synced()
    until(lambda: running.operator.metrics["ready"] == running.operator.metrics["synced"] == 1)
    asked_for = [0]

    def fault(verb: str, kind: str) -> None:
        if kind == "Lease":
            asked_for[0] += 1
            raise ApiRefused("no rights", status=403, hint="give them")

    scene.cluster.fault = fault
    until(lambda: running.operator.metrics["leads"] == 0)
    until(lambda: running.operator.metrics["ready"] == running.operator.metrics["generation"] == 0)
    assert asked_for[0] > 2 and running.operator.metrics["synced"] == 0
    (told,) = [line for line in running.logged if line.startswith("lease:")]
    assert told.startswith("lease: no rights Next: apply what gtc op operator render makes")
    assert "this operator could not renew the Lease and holds it no more" in running.logged
    scene.cluster.fault = lambda _verb, _kind: None
    until(lambda: running.operator.metrics["ready"] == 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_operator_that_awaits_its_lease_no_more_is_not_alive(scene):
    """It would look well for good, and never act."""
    running = scene.start()
    until(running.operator.election.leads)
    assert running.operator.alive()

    def fault(verb: str, kind: str) -> None:
        if kind == "Lease":
            raise RuntimeError("unforeseen")

    scene.cluster.fault = fault
    until(lambda: not running.operator.alive())
    scene.cluster.fault = lambda _verb, _kind: None


def test_of_two_that_take_a_lease_at_once_one_is_refused_and_writes_nothing():
    cluster, clock = LivingCluster(), FakeClock()
    one, two = election(cluster, "one", clock), election(cluster, "two", clock)
    seen: list[bool] = []

    def race(verb: str, kind: str) -> None:
        if verb == "create" and not seen:
            seen.append(True)
            assert two.step()

    cluster.fault = race
    assert not one.step() and two.leads()
    held = Held(cluster, one)
    assert held.get(Ref("Lease", "l", NS)) is not None
    for write in (
        lambda: held.create(lease("x", "1")),
        lambda: held.update(lease("x", "1")),
        lambda: held.apply(asked(GOOD), force=True),
        lambda: held.delete(SOURCE, uid="u", resource_version=None),
        lambda: held.merge(SOURCE, {}),
        lambda: held.patch_status(SOURCE, {}),
    ):
        with pytest.raises(Conflict, match="the Lease was lost"):
            write()
    assert held.writes == 0


# -- what is next -----------------------------------------------------------------------------------------------------

AT = Situation(100.0, True, (1, False, False), True, "doc", (1, "doc"), False, 130.0, 100.0 + RESYNC)


@pytest.mark.parametrize(
    ("change", "act"),
    [
        ({}, Act.REST),
        ({"leads": False, "changed": True}, Act.STAND_BY),
        ({"wish": None}, Act.REST),
        ({"wish": None, "told": False}, Act.TELL),
        ({"wish": (2, True, False), "changed": True, "look_at": 0.0}, Act.REST),
        ({"wish": (2, True, False), "told": False}, Act.TELL),
        ({"look_at": 100.0}, Act.LOOK),
        ({"changed": True}, Act.CONVERGE),
        ({"wish": (2, False, False)}, Act.CONVERGE),
        ({"wish": (2, False, True)}, Act.COMPARE),
        ({"document": "newer"}, Act.CONVERGE),
        ({"document": None, "changed": True, "applied": None}, Act.REST),
        ({"compare_at": 100.0}, Act.CONVERGE),
        ({"changed": True, "failing": True}, Act.REST),
        ({"changed": True, "failing": True, "compare_at": 99.0}, Act.CONVERGE),
        ({"contested_at": 110.0}, Act.REST),
        ({"contested_at": 99.0, "changed": True, "failing": True}, Act.REST),
        ({"told": False}, Act.TELL),
    ],
)
def test_what_is_next(change, act):
    found = decide(AT._replace(**change))
    assert found.act is act
    assert found.seconds > 0 if act in (Act.REST, Act.STAND_BY) else True
    assert found.seconds == 10.0 or "contested_at" not in change or "failing" in change


def test_a_status_keeps_its_times_and_tells_what_turned():
    told = WishStatus(
        1, (Condition("Ready", "True", "Serving"), Condition("Degraded", "False", "AsExpected", "x" * 5000))
    )
    first = status_of(told, {}, "t1")
    assert status_of(told, first, "t2") == first and len(turned(first, {})) == 2 and turned(first, first) == []
    assert len(first["conditions"][1]["message"]) == MAX_MESSAGE
    second = status_of(told._replace(conditions=(Condition("Ready", "False", "Progressing"),)), first, "t2")
    assert second["conditions"][0]["lastTransitionTime"] == "t2" and turned(second, first)[0].reason == "Progressing"
    assert is_kept(first, first) and not is_kept(first, {"observedGeneration": 1})


def test_bookkeeping_and_status_are_no_change():
    thing = asked(GOOD)
    same = {**thing, "status": {"x": 1}, "metadata": {**thing["metadata"], "resourceVersion": "9", "managedFields": []}}
    assert fingerprint(thing) == fingerprint(same)
    assert fingerprint(thing) != fingerprint(asked({**GOOD, "paused": True}))


# -- at work ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(author: Author, hello: Path, tmp_path: Path) -> Path:
    author.create()
    author.deployed(hello, "https://bundles.example.com/hello.gtbundle", "one", ("/one",))
    publish(author, tmp_path / "place")
    return tmp_path / "place"


def publish(author: Author, place: Path) -> env_publish.EnvPublished:
    return env_publish.publish(author.context, env_publish.EnvPublishPayload(environment_id="local", place=str(place)))


class Running:
    """An operator in threads of its own."""

    def __init__(self, cluster: LivingCluster, home: Path, me: str = "one", source: Ref = SOURCE) -> None:
        self.cluster, self.logged = cluster, list[str]()
        self.operator = Operator(
            lambda: cluster, source, me, home, CLOCK, CountingRandom(), self.logged.append, Terms()
        )
        self.thread = threading.Thread(target=self.operator.run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.operator.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


class Scene:
    """A cluster with a wish, and whoever keeps it."""

    def __init__(self, author: Author, place: Path, tmp_path: Path) -> None:
        self.author, self.place, self.tmp_path = author, place, tmp_path
        self.cluster = LivingCluster()
        keys = author.context.store.trust_root("local").keys
        self.spec = {
            "from": str(place),
            "answers": {"runtime_image": IMAGE},
            "everySeconds": 1,
            "trustAnchor": keys[0].public_key_pem,
        }
        self.running: list[Running] = []

    def wish(self, generation: int = 1, **change: object) -> None:
        self.spec = {**self.spec, **change}
        thing = asked(self.spec, generation)
        before = self.cluster.objects.get(SOURCE)
        self.cluster.put({**thing, "status": member(before, "status")} if before is not None else thing)

    def start(self, me: str = "one") -> Running:
        found = Running(self.cluster, self.tmp_path / f"home-{me}", me)
        self.running.append(found)
        return found

    def condition(self, kind: str) -> dict:
        status = member(self.cluster.objects[SOURCE], "status")
        return next((c for c in status.get("conditions") or [] if c["type"] == kind), {})  # type: ignore[union-attr, index, call-overload, return-value]

    def observed(self) -> object:
        """The generation of the wish that the status is about."""
        return member(self.cluster.objects[SOURCE], "status").get("observedGeneration")

    def synced(self) -> None:
        until(lambda: self.condition("Synced").get("status") == "True", str(self.running[-1].logged))

    def document(self) -> dict:
        return json.loads(
            str(member(self.cluster.objects[Ref("ConfigMap", names.ENV_STORE, NS)], "data")["environment.json"])
        )

    def quiet(self) -> list:
        """What is written while nothing happens, the Lease left out."""
        until(lambda: self.running[-1].operator.metrics["reconciles_total"] >= 2)
        self.cluster.written.clear()
        compared = self.running[-1].operator.metrics["looks_total"]
        until(lambda: self.running[-1].operator.metrics["looks_total"] >= compared + 2)
        return [w for w in self.cluster.written if w[1].kind != "Lease"]


@pytest.fixture
def scene(author: Author, place: Path, tmp_path: Path) -> Iterator[Scene]:
    found = Scene(author, place, tmp_path)
    yield found
    for running in found.running:
        running.stop()


def test_what_is_published_becomes_objects_and_in_sync_nothing_is_written(scene, author, hello):
    scene.wish()
    running = scene.start()
    scene.synced()
    kinds = {ref.kind for ref in scene.cluster.objects}
    assert {"Deployment", "Service", "ConfigMap", "NetworkPolicy"} <= kinds and "Namespace" not in kinds
    until(lambda: scene.condition("Ready").get("status") == "True", str(scene.condition("Ready")))
    status = member(scene.cluster.objects[SOURCE], "status")
    assert status["observedGeneration"] == 1 and member(status, "published")["generation"] == 1
    assert scene.condition("Degraded")["status"] == "False"
    assert scene.quiet() == []
    author.deployed(hello, "https://bundles.example.com/hello.gtbundle", "two", ("/two",))
    told = publish(author, scene.place)
    until(
        lambda: (
            member(member(scene.cluster.objects[SOURCE], "status"), "published").get("generation") == told.generation
        )
    )
    assert len(scene.document()["bundles"]) == 2
    assert {e["reason"] for e in scene.cluster.events} >= {"InSync", "Serving"}
    assert all(e["involvedObject"]["name"] == "local" for e in scene.cluster.events)
    assert running.operator.metrics["leads"] == 1 and running.operator.metrics["generation"] == told.generation


@pytest.mark.parametrize("how", ["deleted", "changed", "stolen", "added", "relabelled"])
def test_drift_is_healed_when_the_watch_tells(how, scene):
    scene.wish()
    running = scene.start()
    scene.synced()
    scene.quiet()
    ref = Ref("Service", names.ROUTER, NS)
    good = fingerprint(scene.cluster.objects[ref])
    began = time.monotonic()
    if how == "deleted":
        scene.cluster.remove(ref)
    else:
        thing = json.loads(json.dumps(scene.cluster.objects[ref]))
        if how == "relabelled":
            thing["metadata"]["labels"][names.STORE] = "s-other"
            fields = {"f:metadata": {"f:labels": {f"f:{names.STORE}": {}}}}
            thing["metadata"]["managedFields"].append(
                {"manager": "kubectl-label", "operation": "Update", "fieldsV1": fields}
            )
            del thing["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:labels"][f"f:{names.STORE}"]
        elif how == "added":
            thing["spec"]["selector"]["tier"] = "web"
            fields = {"f:spec": {"f:selector": {"f:tier": {}}}}
            thing["metadata"]["managedFields"].append(
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields}
            )
        else:
            thing["spec"]["type"] = "NodePort"
        if how == "stolen":
            fields = {"f:spec": {"f:type": {}}}
            thing["metadata"]["managedFields"].append(
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields}
            )
            del thing["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:type"]
        scene.cluster.put(thing)
    until(lambda: ref in scene.cluster.objects and fingerprint(scene.cluster.objects[ref]) == good)
    assert time.monotonic() - began < 5
    until(lambda: running.operator.metrics["drift_healed_total"] == 1)
    until(lambda: "DriftHealed" in {e["reason"] for e in scene.cluster.events})


def test_what_is_changed_again_and_again_is_put_right_more_and_more_rarely_and_told(scene, monkeypatch):
    """Two wishes that state one object otherwise: neither wins, both tell it, and what else is changed does not wait."""
    monkeypatch.setattr(contested, "RARER", Backoff(first=0.5, longest=5.0))
    scene.wish(store="s-same")
    running = scene.start()
    scene.synced()
    router, service = Ref("Deployment", names.ROUTER, NS), Ref("Service", names.ROUTER, NS)
    other = asked({**scene.spec, "answers": {"runtime_image": IMAGE, "router_replicas": 5}}, name="second")
    scene.cluster.put(other)
    source = Ref("Environment", "second", NS)
    second = Running(scene.cluster, scene.tmp_path / "home-second", "second", source)
    scene.running.append(second)
    until(lambda: scene.condition("Degraded").get("reason") == "Contested", str(running.logged))
    told = scene.condition("Degraded")["message"]
    assert f"{router} was put right {MANY} times in a row" in told and "get deployment gtc-router -o jsonpath" in told
    assert 4 <= running.operator.metrics["drift_healed_total"] <= 20
    scene.cluster.remove(service)
    began = time.monotonic()
    until(lambda: service in scene.cluster.objects)
    assert time.monotonic() - began < 5, "it waited for what others contest"
    assert running.operator._contested.due({router, service}, running.operator._clock.monotonic()) == {service}
    second.stop()
    until(lambda: member(scene.cluster.objects[router], "spec").get("replicas") == 2)
    now = running.operator._clock.monotonic()
    running.operator._contested._known[router] = PutRight(MANY, now, now + 1)
    thing = json.loads(json.dumps(scene.cluster.objects[router]))
    thing["spec"]["replicas"] = 7
    scene.cluster.put(thing)
    scene.cluster.remove(service)
    until(lambda: service in scene.cluster.objects)
    until(lambda: member(scene.cluster.objects[router], "spec").get("replicas") == 2)


def test_what_is_contested_is_left_longer_each_time_and_forgotten_once_it_was_left_alone():
    found, one, two = Contested(CountingRandom()), Ref("Service", "a", NS), Ref("Service", "b", NS)
    pauses = list[float]()
    now = 1000.0
    for times in range(1, 20):
        assert bool(found.told(now)) is (times > MANY)
        found.put_right([one], now)
        assert found.due({one, two}, now) == ({one, two} if times <= AT_ONCE else {two})
        pauses.append(found.until({one, two}) - now)
        now = found.until({one, two})
    assert pauses[:AT_ONCE] == [0.0] * AT_ONCE and 0 < pauses[AT_ONCE] <= 2 and 30 <= pauses[-1] <= 60
    assert pauses[-1] < CALM_SECONDS, "it would be forgotten while it goes on"
    assert f"{one} was put right" in found.told(now) and found.until({two}) == float("inf")
    now += CALM_SECONDS
    assert found.told(now) == ""
    found.put_right([two], now)
    assert found.due({one, two}, now) == {one, two} and found.until({one}) == float("inf")


def test_what_others_add_and_stays_is_told_in_the_words_of_env_diff_until_it_is_gone(scene):
    scene.wish()
    running = scene.start()
    scene.synced()
    scene.quiet()
    router, service = Ref("Deployment", names.ROUTER, NS), Ref("Service", names.ROUTER, NS)
    plain = scene.condition("Synced")["message"]
    thing = json.loads(json.dumps(scene.cluster.objects[router]))
    thing["spec"]["paused"] = True
    fields = {"f:spec": {"f:paused": {}}}
    thing["metadata"]["managedFields"].append({"manager": "mesh", "operation": "Update", "fieldsV1": fields})
    scene.cluster.put(thing)
    until(lambda: "mesh" in scene.condition("Synced")["message"], str(running.logged))
    told = scene.condition("Synced")["message"]
    assert f"{plain}; {router} has what others added, and it stays: .spec.paused (`mesh`)" in told
    assert scene.condition("Synced")["reason"] == "InSync" and running.operator.metrics["drift_healed_total"] == 0
    scene.cluster.remove(service)  # comparing another object alone forgets nothing
    until(lambda: running.operator.metrics["drift_healed_total"] == 1)
    assert scene.condition("Synced")["message"] == told
    del thing["spec"]["paused"]
    thing["metadata"]["managedFields"].pop()
    scene.cluster.put(thing)
    until(lambda: scene.condition("Synced")["message"] == plain, str(running.logged))


@pytest.fixture
def silent(monkeypatch) -> Iterator[threading.Event]:
    """Places that say nothing while it is set."""
    falls, ends, newest = threading.Event(), threading.Event(), desired.newest

    def look(*words: object) -> object:
        while falls.is_set() and not ends.wait(0.02):
            pass
        return newest(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(desired, "newest", look)
    yield falls
    ends.set()


def test_a_place_that_does_not_answer_holds_up_nothing_that_heals(scene, silent):
    scene.wish()
    running = scene.start()
    scene.synced()
    scene.quiet()
    silent.set()
    until(lambda: running.operator._looking.busy)
    ref = Ref("Service", names.ROUTER, NS)
    for _ in range(2):
        scene.cluster.remove(ref)
        until(lambda: ref in scene.cluster.objects)
    scene.wish(2, answers={"runtime_image": IMAGE, "router_replicas": 3})
    router = Ref("Deployment", names.ROUTER, NS)
    until(lambda: member(scene.cluster.objects[router], "spec").get("replicas") == 3)
    assert running.operator._looking.busy, "it was not waited for"
    assert running.operator.metrics["look_failures_total"] == 0


def test_a_place_that_says_nothing_is_told_before_it_is_given_up(scene, silent, monkeypatch):
    monkeypatch.setattr(looking, "UNANSWERED_SECONDS", 0.2)
    silent.set()
    scene.wish()
    running = scene.start()  # nothing was ever found: there is nothing else to tell either
    until(lambda: scene.condition("Degraded").get("reason") == "PublicationUnreachable", str(running.logged))
    assert running.operator._looking.busy, "it was not given up"
    assert "has not answered for" in scene.condition("Degraded")["message"]
    silent.clear()
    scene.synced()
    until(lambda: scene.condition("Degraded").get("status") == "False")
    silent.set()
    until(lambda: scene.condition("Degraded").get("reason") == "PublicationUnreachable")
    scene.wish(2, paused=True)
    until(lambda: scene.observed() == 2)
    silent.clear()
    scene.wish(3, paused=False)
    until(lambda: scene.condition("Degraded").get("status") == "False", str(running.logged))


def test_an_operator_that_starts_while_its_place_says_nothing_heals_by_the_document_of_pods(scene, silent, monkeypatch):
    monkeypatch.setattr(looking, "SLOW_SECONDS", 0.2)
    scene.wish()
    scene.start()
    scene.synced()
    until(lambda: scene.condition("Ready").get("status") == "True")
    scene.running.pop().stop()
    silent.set()
    ref = Ref("Service", names.ROUTER, NS)
    scene.cluster.remove(ref)
    scene.wish(2, answers={"runtime_image": IMAGE, "router_replicas": 3})
    running = scene.start("two")
    router = Ref("Deployment", names.ROUTER, NS)
    until(lambda: ref in scene.cluster.objects, str(running.logged))
    until(lambda: member(scene.cluster.objects[router], "spec").get("replicas") == 3)
    until(lambda: scene.observed() == 2 and scene.condition("Synced").get("status") == "True")
    assert running.operator._looking.busy, "it was not waited for"
    silent.clear()
    until(lambda: not running.operator._looking.starts and running.operator.metrics["looks_total"] >= 2)
    manifest = member(member(scene.cluster.objects[SOURCE], "status"), "published").get("manifest")
    assert manifest, "what is published is taken once it can be had"


def test_what_is_offered_meanwhile_comes_once_and_not_after_what_was_asked_for(scene):
    """Neither what another look offered, nor what was offered for a wish that is another by now."""
    found = looking.Looking(Publication(scene.tmp_path / "home", CLOCK, Terms()), lambda: None, lambda _: None)
    document = DesiredDocument(scene.author.context.store.load("local"), "d", "", 1)
    ends, look = threading.Event(), threading.Thread(target=lambda: ends.wait())
    found._thread, found._first = look, True
    found._offer(look, document)
    assert found.meanwhile() is document and not found.starts and found.meanwhile() is None
    found._offer(look, document)
    found.forget()
    assert found.meanwhile() is None
    found._outdated = False
    found._offer(threading.Thread(), document)
    found._offer(look, None)
    assert found.meanwhile() is None


def test_what_a_look_for_another_wish_finds_is_asked_for_anew(scene, silent):
    scene.wish()
    running = scene.start()
    scene.synced()
    silent.set()
    until(lambda: running.operator._looking.busy)
    scene.wish(2, trustAnchor="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    until(lambda: scene.observed() == 2)
    silent.clear()  # it answers that nothing is new
    until(lambda: scene.condition("Degraded").get("reason") == "PublicationRefused", str(running.logged))


def test_a_status_stays_while_an_operator_that_starts_looks_for_the_first_time(scene, silent):
    scene.wish()
    scene.start()
    scene.synced()
    until(lambda: scene.condition("Ready").get("status") == "True")
    scene.running.pop().stop()
    told, before = len(scene.cluster.told), member(scene.cluster.objects[SOURCE], "status")
    silent.set()
    running = scene.start("two")
    until(lambda: running.operator._looking.busy)
    for _ in range(3):
        turned = running.operator._turned
        running.operator.wake()
        until(lambda turned=turned: running.operator._turned != turned)
    assert member(scene.cluster.objects[SOURCE], "status") == before
    silent.clear()
    until(lambda: running.operator.metrics["reconciles_total"] >= 1)
    assert not [
        e for _, e in scene.cluster.told[told:] if e.thing["kind"] == SOURCE.kind and "Starting" in json.dumps(e.thing)
    ]


def stated_in_sync(scene):
    """A wish that is in sync, and what it states."""
    scene.wish()
    scene.start()
    scene.synced()
    scene.quiet()
    read, operator = wish.read_wish(scene.cluster.objects[SOURCE]), scene.running[0].operator
    return read, stated(read, operator._desired)


def test_what_is_in_order_is_not_kept_and_a_stranger_of_a_wanted_name_is_seen(scene):
    read, wanted = stated_in_sync(scene)
    owner = Owner("local", read.store)
    found = difference(scene.cluster, wanted, NS, owner, None, adopt=False)
    assert found.rest == [] and found.whole().in_sync
    assert {ref_of(thing) for thing in found.live}.isdisjoint(wanted) and names.ROUTER in found.rollouts
    service, router = Ref("Service", names.ROUTER, NS), Ref("Deployment", names.ROUTER, NS)
    thing = json.loads(json.dumps(scene.cluster.objects[service]))
    thing["metadata"]["labels"] = {}
    cluster = LivingCluster()
    cluster.objects = {**scene.cluster.objects, service: thing}
    for only in (None, frozenset({service, router})):
        found = difference(cluster, wanted, NS, owner, only, adopt=False)
        assert [item.ref for item in found.whole().refused] == [service] and thing in found.live
        assert [item.ref for item in found.whole().items] == [service]
    del cluster.objects[router]
    found = difference(cluster, wanted, NS, owner, frozenset({router}), adopt=False)
    assert [(item.ref, item.action) for item in found.whole().items] == [(router, "create")] and found.live == []


def test_what_an_expired_list_showed_is_forgotten(scene, monkeypatch):
    """An object that went between the two moments is missed; else it would be taken to be in order until everything is compared again."""
    read, wanted = stated_in_sync(scene)
    cluster = LivingCluster()
    cluster.objects = dict(scene.cluster.objects)
    router, policy = Ref("Deployment", names.ROUTER, NS), Ref("NetworkPolicy", "gtc-default-deny", NS)
    paged, expired = cluster.pages, list[str]()

    def pages(kind: str, namespace: str | None, selector: str | None = None) -> Iterator[Listed]:
        yield from paged(kind, namespace, selector)
        if kind in ("Deployment", "NetworkPolicy") and kind not in expired:
            expired.append(kind)
            del cluster.objects[router if kind == "Deployment" else policy]
            raise ApiRefused("the provided continue parameter is too old", status=410)

    monkeypatch.setattr(cluster, "pages", pages)
    found = difference(cluster, wanted, NS, Owner("local", read.store), None, adopt=False)
    assert sorted(expired) == ["Deployment", "NetworkPolicy"]
    assert set(found.rest) == {router, policy} and names.ROUTER not in found.rollouts


def test_much_is_written_in_parts_and_in_the_order_of_phases(scene, monkeypatch):
    monkeypatch.setattr(differing, "BATCH", 2)
    scene.wish()
    scene.start()
    scene.synced()
    kinds = [ref.kind for how, ref in scene.cluster.written if how == "apply"]
    phases = [next(n for n, (_, named) in enumerate(PHASES) if kind in named) for kind in kinds]
    assert len(kinds) > 6 and phases == sorted(phases)
    assert Ref("Secret", names.SESSION_KEY, NS) in scene.cluster.objects
    keyed = scene.cluster.written.index(("create", Ref("Secret", names.SESSION_KEY, NS)))
    assert keyed < len(kinds) - kinds[::-1].index("Deployment") and scene.quiet() == []


def test_of_much_nothing_is_written_where_a_part_of_it_is_somebody_elses(scene, monkeypatch):
    monkeypatch.setattr(differing, "BATCH", 2)
    metadata = {"name": names.ROUTER, "namespace": NS}
    scene.cluster.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": 1}})
    scene.wish()
    scene.start()
    until(lambda: scene.condition("Degraded").get("reason") == "NotOurs", str(scene.condition("Degraded")))
    assert not [ref for how, ref in scene.cluster.written if how == "apply" or ref.kind == "Secret"]


def test_a_few_changed_objects_are_compared_alone_and_many_with_all_others(scene):
    scene.wish()
    running = scene.start()
    scene.synced()
    scene.quiet()
    asked_for: list[tuple[str, str]] = []
    scene.cluster.fault = lambda verb, kind: asked_for.append((verb, kind))
    policies = [ref for ref in scene.cluster.objects if ref.kind == "NetworkPolicy"]
    workers = [ref for ref in scene.cluster.objects if ref.kind == "Service"]
    scene.cluster.remove(workers[-1])
    until(lambda: running.operator.metrics["drift_healed_total"] == 1)
    assert ("patch", "Service") in asked_for and not [kind for verb, kind in asked_for if verb == "list"]
    asked_for.clear()
    with scene.cluster.news:  # the watch tells them at once
        for number in range(ALONE + 1):
            thing = json.loads(json.dumps(scene.cluster.objects[policies[0]]))
            thing["metadata"]["name"] = f"gtc-extra-{number}"
            scene.cluster.put(thing)
    until(lambda: not [ref for ref in scene.cluster.objects if ref.name.startswith("gtc-extra-")])
    assert ("list", "Deployment") in asked_for
    assert scene.quiet() == []


def test_strangers_are_not_touched_and_that_is_told(scene):
    stranger = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": names.ROUTER, "namespace": NS, "labels": {}},
        "spec": {"x": 1},
    }
    scene.cluster.put(stranger)
    other = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "other", "namespace": NS, "labels": {}},
        "spec": {"x": 1},
    }
    scene.cluster.put(other)
    scene.wish()
    scene.start()
    until(lambda: scene.condition("Degraded").get("reason") == "NotOurs")
    assert member(scene.cluster.objects[ref_of(stranger)], "spec") == {"x": 1}
    assert not any(ref.kind == "Deployment" for ref in scene.cluster.objects)
    scene.wish(2, adopt=True)
    scene.synced()
    assert member(scene.cluster.objects[ref_of(other)], "spec") == {"x": 1}


def test_a_paused_wish_writes_nothing_and_a_dry_one_tells_what_it_would(scene):
    scene.wish(paused=True)
    running = scene.start()
    until(lambda: scene.condition("Synced").get("reason") == "Paused")
    assert running.operator.metrics["writes_total"] == 0
    scene.wish(2, paused=False, dryRun=True)
    until(lambda: scene.condition("Synced").get("reason") == "DryRun")
    assert "object(s) would be written" in scene.condition("Synced")["message"]
    assert not any(ref.kind in ("Deployment", "Service") for ref in scene.cluster.objects)
    scene.wish(3, dryRun=False)
    scene.synced()


def test_the_last_good_state_stays_while_the_place_is_away_across_restarts_too(scene):
    scene.wish()
    first = scene.start()
    scene.synced()
    document = scene.document()
    away = scene.place.with_name("away")
    scene.place.rename(away)
    until(lambda: scene.condition("Degraded").get("reason") == "NothingPublished")
    first.stop()
    scene.running.clear()
    scene.start("two")  # with an empty home: it takes the document of the pods
    ref = Ref("Service", names.ROUTER, NS)
    until(lambda: "generation 1" in " ".join(scene.running[0].logged), str(scene.running[0].logged))
    scene.cluster.remove(ref)
    until(lambda: ref in scene.cluster.objects)
    assert scene.document() == document
    away.rename(scene.place)
    until(lambda: scene.condition("Degraded").get("status") == "False")


POINTED = {"environment_registry": "oci://127.0.0.1:1/envs/local", "environment_in": "registry"}
"""Answers by which pods are pointed to their document; that registry never answers."""


def test_an_operator_of_a_document_that_pods_are_pointed_to_heals_in_an_outage_too(scene):
    scene.wish(answers={"runtime_image": IMAGE, **POINTED})
    first = scene.start()
    copy = Ref("ConfigMap", KEPT, NS)
    until(lambda: copy in scene.cluster.objects, str(first.logged))
    scene.synced()
    store = scene.cluster.objects[Ref("ConfigMap", names.ENV_STORE, NS)]
    assert set(member(store, "data")) == {POINTER_FILE}
    thing, wished = scene.cluster.objects[copy], metadata_of(scene.cluster.objects[SOURCE])
    (owner,) = cast("list[dict]", metadata_of(thing)["ownerReferences"])  # a server takes it away with the wish
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Environment", "local", wished["uid"])
    assert names.ENV not in labels_of(thing)
    assert scene.quiet() == []
    away = scene.place.with_name("away")
    scene.place.rename(away)
    first.stop()
    scene.running.clear()
    second = scene.start("two")  # with an empty home
    until(lambda: "generation 1" in " ".join(second.logged), str(second.logged))
    router = Ref("Service", names.ROUTER, NS)
    scene.cluster.remove(router)
    until(lambda: router in scene.cluster.objects)
    assert scene.condition("Degraded")["reason"] == "NothingPublished"


@pytest.mark.parametrize("packed", ["bm90IGNvbXByZXNzZWQ=", "no base64", "other", 7])
def test_threat_lying_server_a_copy_that_is_not_what_pods_are_pointed_to_is_not_taken(packed, scene):
    cluster, document = scene.cluster, b'{"a": 1}'
    digest = document_digest(document)
    key = f"document-{digest.removeprefix('sha256:')}.gz"

    def put(value: object) -> None:
        metadata = {"name": KEPT, "namespace": NS}
        cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": {key: value}})

    put(b64encode(press(document).layer).decode())
    assert kept(cluster, NS, digest) == document
    put(b64encode(press(b'{"a": 2}').layer).decode() if packed == "other" else packed)
    assert kept(cluster, NS, digest) is None


def test_a_copy_that_cannot_be_kept_stops_nothing_and_is_told(scene):
    def refuse(verb: str, kind: str) -> None:
        if (verb, kind) == ("get", "ConfigMap"):
            raise ApiRefused("configmaps is forbidden", status=403)

    scene.cluster.fault = refuse
    scene.wish(answers={"runtime_image": IMAGE, **POINTED})
    running = scene.start()
    until(lambda: any("no copy of document" in line for line in running.logged), str(running.logged))
    scene.synced()
    assert Ref("ConfigMap", KEPT, NS) not in scene.cluster.objects


def test_what_is_wrong_with_a_place_is_told_by_what_it_is(scene):
    """A damaged document was told as a place that cannot be reached."""
    scene.wish()
    scene.start()
    scene.synced()
    index = scene.place / "index.json"
    honest = index.read_bytes()
    for text, reason in ((b"{", "PublicationDamaged"), (b'{"manifests": []}', "NothingPublished")):
        index.write_bytes(text)
        until(lambda reason=reason: scene.condition("Degraded").get("reason") == reason)
    (scene.place / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"{}")
    index.write_bytes(re.sub(rb"sha256:[0-9a-f]{64}", b"sha256:" + b"0" * 64, honest))
    until(lambda: "asked for was sha256:0000" in scene.condition("Degraded").get("message", ""))
    assert scene.condition("Degraded")["reason"] == "PublicationDamaged"
    index.write_bytes(honest)
    until(lambda: scene.condition("Degraded").get("status") == "False")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DamagedPublication("x"), "PublicationDamaged"),
        (NothingPublished("x"), "NothingPublished"),
        (ServerBusy("x"), "PublicationUnreachable"),
        (UntrustedBundle("x"), "PublicationRefused"),
    ],
)
def test_a_look_that_fails_has_the_reason_of_its_error(error, reason):
    assert of_look(error).reason == reason


def test_what_fails_while_objects_are_written_has_the_reason_of_its_error_whatever_it_says():
    """A message that quoted the words of another failure was told as that one."""
    said = "a webhook says: 2 object(s) are not its own"
    assert of_apply(NotOurs(said)).reason == "NotOurs" and of_apply(Conflict(said)).reason == "ApplyFailed"


def test_threat_rollback_an_older_generation_is_refused_by_an_operator_that_starts_anew(scene, author, hello):
    old = (scene.place / "index.json").read_bytes()
    author.deployed(hello, "https://bundles.example.com/hello.gtbundle", "two", ("/two",))
    publish(author, scene.place)
    scene.wish()
    first = scene.start()
    scene.synced()
    first.stop()
    scene.running.clear()
    (scene.place / "index.json").write_bytes(old)
    scene.start("two")
    until(lambda: scene.condition("Degraded").get("reason") == "PublicationRefused")
    told = scene.condition("Degraded")["message"]
    assert "gtc op delivery set ENV --generation 3" in told and "GREENTIC_ALLOW_ROLLBACK" not in told
    assert "has seen 2" in told and len(scene.document()["bundles"]) == 2


def test_threat_stripped_signature_what_nobody_trusted_sealed_is_not_applied(scene, author, tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = (
        Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    )
    scene.wish(trustAnchor=pem)
    scene.start()
    until(lambda: scene.condition("Degraded").get("reason") == "PublicationRefused")
    assert "not sealed by a key of the trust anchor" in scene.condition("Degraded")["message"]
    assert not any(ref.kind == "Deployment" for ref in scene.cluster.objects)


def refusing(verbs: tuple[str, ...], kind: str, error: Callable[[], Exception]) -> Callable[[str, str], None]:
    def fault(verb: str, of: str) -> None:
        if of == kind and verb in verbs:
            raise error()

    return fault


@pytest.mark.parametrize(
    ("verbs", "kind", "error", "reason"),
    [
        (("patch",), "Service", lambda: ApiRefused("services is forbidden", status=403), "RightsMissing"),
        (("list",), "Service", lambda: ApiRefused("services is forbidden", status=403), "RightsMissing"),
        (("patch",), "Deployment", lambda: ApiRefused("exceeded quota: pods", status=403), "QuotaExceeded"),
        (("patch",), "Deployment", lambda: ApiRefused("webhook denied the request: no", status=400), "AdmissionDenied"),
        (("patch",), "ConfigMap", lambda: ClusterUnreachable("cannot reach the cluster"), "ClusterUnreachable"),
    ],
)
def test_what_the_server_refuses_is_told_and_tried_again(verbs, kind, error, reason, scene):
    scene.wish()
    scene.cluster.fault = refusing(verbs, kind, error)
    scene.start()
    until(lambda: scene.condition("Degraded").get("reason") == reason, str(scene.condition("Degraded")))
    assert scene.condition("Synced")["status"] == "False"
    scene.cluster.fault = lambda *_: None
    scene.synced()
    until(lambda: scene.condition("Degraded").get("status") == "False")


@pytest.mark.parametrize(
    ("error", "reason", "step", "never"),
    [
        (ApiRefused("no", status=403, hint="gtc op credentials requirements"), "RightsMissing", "its Role names", "requirements"),
        (PermissionMissing("no", hint="gtc op credentials bootstrap"), "RightsMissing", "gtc op operator render", "bootstrap"),
        (ApiRefused("spec.selector: field is immutable", status=422, hint="--recreate"), "ApiRefused", "kubectl delete", "--recreate"),
        (NotOurs("1 object(s) are not its own", hint="gtc op env reconcile ENV --adopt"), "NotOurs", "spec.adopt: true", "--adopt"),
        (Conflict("it was made meanwhile", hint="gtc op env reconcile ENV --adopt"), "ApplyFailed", "spec.adopt: true", "--adopt"),
        (Conflict("full", hint="make room"), "ApplyFailed", "Next: make room", "render"),
        (Conflict("full"), "ApplyFailed", "full", "Next"),
    ],
)  # fmt: skip
def test_the_next_step_is_one_that_can_be_taken_where_an_operator_works(error, reason, step, never):
    """Nobody has the flags of `env reconcile` there, nor its identity."""
    found = of_apply(error)
    assert found.reason == reason and step in found.message and never not in found.message


def test_what_is_put_right_by_hand_is_seen_within_seconds_however_often_it_failed():
    """No watch tells of rights, quotas and objects of others; a place may be asked more rarely, and what takes long is asked more rarely, too."""
    troubles = Troubles(CountingRandom(), lambda _: None)
    works: tuple[Work, ...] = ("apply", "look")
    longest = {work: max(troubles.pause(work) for _ in range(40)) for work in works}
    assert longest["apply"] <= 20 < longest["look"] <= 120
    assert troubles.pause("apply", took=5.0) == 50 and troubles.pause("apply", took=600.0) == 120
    assert CLUSTER_AGAIN.longest <= 20


def test_rights_to_watch_and_to_write_events_are_done_without(scene):
    def fault(verb: str, kind: str) -> None:
        if kind == "Event" or (verb == "watch" and kind == "Service"):
            raise ApiRefused(f"{kind} is forbidden", status=403)

    scene.cluster.fault = fault
    scene.wish()
    running = scene.start()
    scene.synced()
    until(lambda: "Service" in running.operator.watches.troubles)
    until(lambda: any("no event" in line for line in running.logged))


def test_an_older_definition_that_drops_the_status_is_told_and_does_not_stop_it(scene):
    scene.cluster.prunes_status = True
    scene.wish()
    running = scene.start()
    until(lambda: any("is older than this operator" in line for line in running.logged))
    until(lambda: any(ref.kind == "Deployment" for ref in scene.cluster.objects))
    scene.quiet()


def test_a_wish_that_is_damaged_or_gone_leaves_what_runs(scene):
    scene.wish()
    running = scene.start()
    scene.synced()
    scene.wish(2, answers={"runtime_image": IMAGE, "replicaz": 3})
    until(lambda: scene.condition("Degraded").get("reason") == "WishInvalid")
    assert "replicaz" in scene.condition("Degraded")["message"]
    there = {r for r in scene.cluster.objects if r.kind == "Deployment"}
    scene.cluster.remove(SOURCE)
    until(lambda: any("is gone; what runs is left" in line for line in running.logged))
    assert there and there <= set(scene.cluster.objects)


def test_two_operators_take_turns(scene):
    scene.wish()
    first = scene.start("one")
    scene.synced()
    second = scene.start("two")
    until(lambda: second.operator.election.holder.startswith("one"))
    assert not second.operator.election.leads() and second.operator.metrics["writes_total"] == 0
    first.stop()  # it gives the Lease back
    ref = Ref("Service", names.ROUTER, NS)
    until(second.operator.election.leads)
    scene.cluster.remove(ref)
    until(lambda: ref in scene.cluster.objects)
    scene.running.remove(first)


def test_rollouts_that_stand_still_are_told(scene, place):
    scene.cluster.stuck = {names.ROUTER}
    scene.wish()
    scene.start()
    until(lambda: scene.condition("Ready").get("reason") == "Progressing")
    assert names.ROUTER in scene.condition("Ready")["message"]
    thing = scene.cluster.objects[Ref("Deployment", names.ROUTER, NS)]
    gone = [{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "too long"}]
    scene.cluster.put({**thing, "status": {**member(thing, "status"), "conditions": gone}})
    until(lambda: scene.condition("Degraded").get("reason") == "RolloutFailed")


def test_a_config_map_may_hold_the_wish(scene, tmp_path):
    source = Ref("ConfigMap", "local", NS)
    scene.cluster.put(
        {
            "kind": "ConfigMap",
            "metadata": {"name": "local", "namespace": NS},
            "data": {"spec.yaml": json.dumps(scene.spec)},
        }
    )
    scene.running.append(Running(scene.cluster, tmp_path / "home", "one", source))

    def status() -> dict:
        text = member(scene.cluster.objects[source], "metadata", "annotations").get(STATUS_ANNOTATION, "{}")
        return json.loads(str(text))

    until(lambda: any(c["type"] == "Synced" and c["status"] == "True" for c in status().get("conditions", [])))
    assert status()["published"]["generation"] == 1


# -- what it needs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Environment", "ConfigMap"])
def test_the_rendered_operator_has_rights_in_its_namespace_alone_and_a_wish_that_it_can_read(
    kind, place, author, tmp_path
):
    bind_deployer(author, oci_insecure_registries=["r.example:5000"], kubeconfig_context="laptop")
    payload = operator_render.OperatorRenderPayload(
        environment_id="local", place="oci://r.example:5000/envs/local:prod", kind=kind, output=str(tmp_path / "out")
    )
    told = operator_render.render_operator(author.context, payload)
    assert len(told.files) == told.object_count == (8 if kind == "Environment" else 7)
    objects = operator_render.render_operator(author.context, replace(payload, output=None)).manifests
    assert {metadata_of(o).get("namespace", NS) for o in objects} == {NS}
    assert not any(o["kind"].startswith("ClusterRole") for o in objects)
    rules = next(o for o in objects if o["kind"] == "Role")["rules"]
    assert not any("*" in rule[key] for rule in rules for key in ("apiGroups", "resources", "verbs"))
    assert ("greentic.ai" in json.dumps(rules)) == (kind == "Environment")
    thing = next(o for o in objects if o["kind"] == kind)
    read = wish.read_wish(thing)
    assert read.store == names.store_identity(author.context.store.paths("local").root) and read.env_id == "local"
    text = json.dumps(objects)
    assert "PRIVATE KEY" not in text and "laptop" not in text and read.anchor.startswith("-----BEGIN PUBLIC KEY-----")
    fence = next(o for o in objects if o["kind"] == "NetworkPolicy")["spec"]
    assert [p["port"] for p in fence["egress"][0]["ports"]] == [443, 5000, 6443]


def test_what_answers_say_of_the_cluster_holds_for_the_operators_pod_too(place, author):
    """How images are pulled, which user runs, whom to believe, what the registry takes: a cluster asks it of every pod."""

    def pod(**answers: object) -> Any:
        deployer_answers(author, json.dumps({"runtime_image": IMAGE, **answers}))
        payload = operator_render.OperatorRenderPayload(environment_id="local", place="oci://r.example/envs/local:prod")
        objects = operator_render.render_operator(author.context, payload).manifests
        return next(o for o in objects if o["kind"] == "Deployment")["spec"]["template"]["spec"]

    bind_deployer(author)
    plain = pod()
    assert plain["securityContext"]["runAsUser"] == 65532 and "imagePullSecrets" not in plain
    told = {
        "image_pull_secrets": ["pull"],
        "uid": "none",
        "extra_ca": "ca",
        "registry_secret": "regcred",
        "image_pull_policy": "Always",
    }
    found = pod(**told)
    assert found["imagePullSecrets"] == [{"name": "pull"}] and "runAsUser" not in found["securityContext"]
    (container,) = found["containers"]
    variables = {v["name"]: v.get("value") for v in container["env"]}
    assert variables["GREENTIC_CA_FILES"] == "/etc/greentic/ca/ca.crt" and variables["DOCKER_CONFIG"]
    assert {"configMap": {"name": "ca"}, "name": "authorities"} in found["volumes"]
    mounted = {m["name"]: m for m in container["volumeMounts"]}
    assert mounted["authorities"]["mountPath"] == "/etc/greentic/ca" and mounted["authorities"]["readOnly"]
    assert mounted["registry"]["readOnly"] and container["imagePullPolicy"] == "Always"
    routers = next(
        t for t in env_render.render_objects(author.context, env_render.EnvRenderPayload(environment_id="local")).manifests
        if t["kind"] == "Deployment"
    )["spec"]["template"]["spec"]  # fmt: skip
    for key in ("imagePullSecrets", "securityContext"):
        assert found[key] == routers[key], "what a cluster wants of every pod"


def operators(author: Author, **answers: object) -> dict[str, Any]:
    """The objects of an operator by kind, with these answers."""
    deployer_answers(author, json.dumps({"runtime_image": IMAGE, **answers}))
    payload = operator_render.OperatorRenderPayload(environment_id="local", place="oci://r.example/envs/local:prod")
    return {str(o["kind"]): o for o in operator_render.render_operator(author.context, payload).manifests}


def test_the_shape_of_the_operators_pod_is_answered_as_that_of_workers(place, author):
    bind_deployer(author)
    plain = operators(author)["Deployment"]["spec"]["template"]
    shape = {
        "resources": {"limits": {"memory": "1Gi", "cpu": None}}, "node_selector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}], "priority_class": "high",
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "arch", "operator": "Exists"}]}]}}},
        "topology_spread": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}],
        "labels": {"team": "bots"}, "annotations": {"example.com/a": "b"},
        "env": {"OTEL_SERVICE_NAME": "keeper", "GREENTIC_FETCH_IDLE_SECONDS": "7"},
    }  # fmt: skip
    given = operators(author, operator=shape)
    template = given["Deployment"]["spec"]["template"]
    pod, labels = template["spec"], given["Deployment"]["spec"]["selector"]["matchLabels"]
    (container,) = pod["containers"]
    assert template["metadata"] == {"labels": {"team": "bots", **labels}, "annotations": {"example.com/a": "b"}}
    assert (pod["nodeSelector"], pod["priorityClassName"]) == (shape["node_selector"], "high")
    assert (pod["tolerations"], pod["affinity"]) == (shape["tolerations"], shape["affinity"])
    assert pod["topologySpreadConstraints"][0]["labelSelector"] == {"matchLabels": labels}
    assert container["resources"] == {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "1Gi"}}
    told = {v["name"]: v.get("value") for v in container["env"]}
    assert (told["OTEL_SERVICE_NAME"], told["GREENTIC_FETCH_IDLE_SECONDS"]) == (
        "keeper",
        "7",
    ) and "NO_PROXY" not in told
    assert "operator" not in given["Environment"]["spec"]["answers"], "an older operator would refuse its wish"
    assert pod["serviceAccountName"] == plain["spec"]["serviceAccountName"] == LEASE
    workers = env_render.render_objects(author.context, env_render.EnvRenderPayload(environment_id="local")).manifests
    assert "pool" not in json.dumps(workers), "of the operator's pod alone"


@pytest.mark.parametrize(("proxy", "port"), [("http://proxy.example:3128", 3128), ("http://proxy.example", 80)])
def test_an_operator_behind_a_proxy_may_go_there_and_asks_its_cluster_around_it(proxy, port, place, author):
    bind_deployer(author)
    given = operators(author, operator={"env": {"HTTPS_PROXY": proxy, "NO_PROXY": "10.0.0.0/8,$(x)"}})
    env = {v["name"]: v.get("value") for v in given["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["HTTPS_PROXY"] == proxy and env["NO_PROXY"] == "$(KUBERNETES_SERVICE_HOST),10.0.0.0/8,$$(x)"
    ports = [p["port"] for p in given["NetworkPolicy"]["spec"]["egress"][0]["ports"]]
    assert ports == sorted({443, 6443, port})
    alone = operators(author, operator={"env": {"https_proxy": proxy}})["Deployment"]["spec"]["template"]["spec"]
    assert {"name": "NO_PROXY", "value": "$(KUBERNETES_SERVICE_HOST)"} in alone["containers"][0]["env"]


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ({"replicas": 3}, r"operator\.replicas: cannot be answered"),
        ({"autoscale": {"min": 1, "max": 2, "cpu": 50}}, r"operator\.autoscale: cannot"),
        ({"service_account": "x"}, r"operator\.service_account: cannot"),
        ({"env": {"GREENTIC_WORKERS": "2"}}, "no variable that the operator reads"),
        ({"env": {"DOCKER_CONFIG": "/x"}}, "can be answered"),
        ({"env": {"GREENTIC_OCI_INSECURE_REGISTRIES": "a:1"}}, "told it already"),
        ({"labels": {"app.kubernetes.io/name": "x"}}, "says whose objects"),
        ({"tolerations": [{"key": "a", "operator": "No"}]}, r"operator\.tolerations"),
        ("text", "operator: "),
    ],
)
def test_a_shape_of_the_operator_that_makes_no_sense_is_refused_with_its_field(shape, told, place, author):
    bind_deployer(author)
    with pytest.raises(Conflict, match=told):
        operators(author, oci_insecure_registries=["b:1"], operator=shape)


def test_every_key_of_a_wish_is_in_the_definition():
    version = operator_objects.definition()["spec"]["versions"][0]
    assert set(version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]) == set(wish.KEYS)
    assert version["name"] == operator_objects.VERSION and "status" in version["subresources"]


def test_an_operator_is_not_rendered_from_what_it_could_not_follow(place, author):
    payload = operator_render.OperatorRenderPayload(environment_id="local", place="oci://r.example/e:1")
    with pytest.raises(GreenticError):
        operator_render.render_operator(author.context, payload)
    bind_deployer(author)
    with pytest.raises(InvalidArgument, match="a directory of this machine"):
        operator_render.render_operator(author.context, replace(payload, place="/tmp/x"))


def test_metrics_tell_every_family_and_probes_answer():
    metrics, alive = Metrics(), [True]
    metrics.add("writes_total", 3)
    server = serve(0, metrics, lambda: alive[0])
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        text = urllib.request.urlopen(f"{url}/metrics").read().decode()
        assert "greentic_operator_writes_total 3\n" in text and all(
            f"greentic_operator_{name} " in text for name in FAMILIES
        )
        assert urllib.request.urlopen(f"{url}/livez").status == 200
        alive[0] = False
        for path, code in (("/livez", 503), ("/other", 404)):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(url + path)
            assert error.value.code == code
    finally:
        server.shutdown()
        server.server_close()


# -- what happens to the wish, the namespace and the rights -------------------------------------------------------------


def test_a_wish_that_is_made_again_is_told_its_status(scene):
    """As by `kubectl replace --force`: the object is another one, though it says the same."""
    scene.wish()
    scene.start()
    scene.synced()
    until(lambda: scene.condition("Ready").get("status") == "True")
    thing = scene.cluster.objects[SOURCE]
    with scene.cluster.news:  # both before the operator looks
        scene.cluster.remove(SOURCE)
        scene.cluster.put({key: value for key, value in thing.items() if key != "status"})
    scene.synced()
    published = member(scene.cluster.objects[SOURCE], "status", "published")
    assert published["generation"] == 1 and scene.condition("Degraded")["status"] == "False"


def test_a_wish_that_is_being_deleted_is_gone_and_nothing_is_put_right_any_more(scene):
    """A finalizer may hold it for hours: what somebody takes away meanwhile stays away."""
    scene.wish()
    running = scene.start()
    scene.synced()
    thing = scene.cluster.objects[SOURCE]
    held = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/hold"]}
    scene.cluster.put({**thing, "metadata": {**metadata_of(thing), **held}})
    until(lambda: any("is gone; what runs is left" in line for line in running.logged), str(running.logged))
    scene.cluster.written.clear()
    ref = Ref("Service", names.ROUTER, NS)
    scene.cluster.remove(ref)
    until(lambda: ref in running.operator._changed)
    assert ref not in scene.cluster.objects and {r.kind for _, r in scene.cluster.written} <= {"Lease"}


def test_a_namespace_that_is_being_deleted_is_no_missing_right(scene):
    text = "services is forbidden: unable to create new content in namespace gtc-local because it is being terminated"
    scene.wish()
    scene.cluster.fault = refusing(("patch",), "ConfigMap", lambda: ApiRefused(text, status=403, reason="Forbidden"))
    scene.start()
    until(lambda: scene.condition("Degraded").get("reason") == "NamespaceTerminating", str(scene.condition("Degraded")))
    assert "being terminated" in scene.condition("Degraded")["message"]
    assert not ApiRefused(text, status=403).forbidden


@pytest.mark.parametrize(("status", "reason"), [(403, "RightsMissing"), (404, "ApiRefused")])
def test_a_wish_that_may_not_be_watched_any_more_is_told(scene, status, reason):
    scene.wish()
    scene.start()
    scene.synced()
    refused = ApiRefused("environments.greentic.ai: no", status=status)
    scene.cluster.fault = refusing(("list", "watch"), "Environment", lambda: refused)
    scene.cluster.end_watches()
    until(lambda: scene.condition("Degraded").get("reason") == reason, lambda: scene.condition("Degraded"))
    assert "is not seen" in scene.condition("Degraded")["message"]
    scene.cluster.fault = lambda *_: None
    until(lambda: scene.condition("Degraded").get("status") == "False")


@pytest.mark.parametrize("status", [403, 404])
def test_a_wish_that_was_never_seen_is_told_in_the_log(scene, status):
    scene.cluster.fault = refusing(("list", "watch"), "Environment", lambda: ApiRefused("no such kind", status=status))
    running = scene.start()
    until(lambda: any("no such kind" in line for line in running.logged))
    assert next(line for line in running.logged if "no such kind" in line).startswith("Environment")


def test_a_status_that_was_refused_is_told_once_it_may_be(scene):
    refused = ApiRefused("environments/status is forbidden", status=403)
    scene.cluster.fault = refusing(("patch",), "Environment/status", lambda: refused)
    scene.wish()
    running = scene.start()
    until(lambda: any(ref.kind == "Deployment" for ref in scene.cluster.objects))
    until(lambda: any("the status cannot be told" in line for line in running.logged))
    scene.cluster.fault = lambda *_: None
    scene.synced()
    assert len([line for line in running.logged if "the status cannot be told" in line]) < 5


def test_threat_rollback_what_pods_have_counts_where_no_status_is_kept(scene, author, hello):
    """An older definition of `Environment` keeps no generation, and the operator's own memory ends with its pod."""
    scene.cluster.prunes_status = True
    old = (scene.place / "index.json").read_bytes()
    author.deployed(hello, "https://bundles.example.com/hello.gtbundle", "two", ("/two",))
    publish(author, scene.place)
    scene.wish()
    first = scene.start()
    until(lambda: any(ref.kind == "Deployment" for ref in scene.cluster.objects))
    until(lambda: first.operator.metrics["looks_total"] >= 2)
    first.stop()
    scene.running.clear()
    (scene.place / "index.json").write_bytes(old)
    second = scene.start("two")
    until(lambda: any("PublicationRefused" in line and "has seen 2" in line for line in second.logged))
    assert len(scene.document()["bundles"]) == 2


@pytest.mark.parametrize("name", ["local", "a" * 44 + "-b", "a" * 44 + ".b", "a" * 253, "a" * 200 + "-" + "b" * 52])
def test_every_wish_has_a_lease_of_its_own_with_a_legal_name(name):
    found = lease_name(name)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", found) and len(found) <= 253
    assert lease_name(name[:-1] + "c") != found
    assert lease_name("local") == f"{LEASE}-local"


@pytest.mark.parametrize("had", [True, False])
def test_threat_rollback_what_pods_are_pointed_to_counts_whether_it_can_be_had_or_not(
    scene, author, hello, had, monkeypatch
):
    """The same where the document is in a registry: a registry that goes back could as well withhold what it is to be compared with."""
    scene.cluster.prunes_status = True
    old = (scene.place / "index.json").read_bytes()
    author.deployed(hello, "https://bundles.example.com/hello.gtbundle", "two", ("/two",))
    publish(author, scene.place)
    scene.wish(environment="local")
    first = scene.start()
    until(lambda: any(ref.kind == "Deployment" for ref in scene.cluster.objects))
    until(lambda: first.operator.metrics["looks_total"] >= 2)
    first.stop()
    scene.running.clear()
    ref = Ref("ConfigMap", names.ENV_STORE, NS)
    document = str(member(scene.cluster.objects[ref], "data")["environment.json"]).encode()
    generation = 0 if had else 2
    pointer = compact(pointer_to("local", "oci://127.0.0.1:1/envs/local", document_digest(document), generation))
    scene.cluster.put({**scene.cluster.objects[ref], "data": {POINTER_FILE: pointer.decode()}})
    if had:
        monkeypatch.setattr(desired, "read_pointed", lambda pointer, terms: document)
    (scene.place / "index.json").write_bytes(old)
    second = scene.start("two")
    until(
        lambda: any("PublicationRefused" in line and "has seen 2" in line for line in second.logged), str(second.logged)
    )
    assert POINTER_FILE in member(scene.cluster.objects[ref], "data") or len(scene.document()["bundles"]) == 2


def test_what_an_operator_reports_follows_from_what_it_knows():
    """One reason in Degraded: what is in the way, else a failed rollout, else what controllers say; and nothing is told too early."""
    waits = Rollout(done=False, failed=None, seen=1, expected=1, updated=1, available=0, wanted=1, lingering=0)
    fails = waits._replace(failed="it crashes")
    well = Known(
        wish=None, desired=None, applied=None, synced=Condition("Synced", "True", "InSync"), objects=3, trouble=None,
        rollouts={}, heard=None, judged=[],
    )  # fmt: skip

    def said(known: Known) -> dict[str, tuple[str, str]]:
        return {c.type: (c.status, c.reason) for c in report(known, {}).conditions}

    assert said(well)["Ready"] == ("Unknown", "Starting") and said(well)["Degraded"] == ("False", "AsExpected")
    judged = well._replace(judged=["no Gateway"])
    assert said(judged)["Degraded"] == ("True", "NotActedOn")
    failing = judged._replace(rollouts={"a": waits, "b": fails})
    assert said(failing)["Degraded"] == ("True", "RolloutFailed") and said(failing)["Ready"] == (
        "False",
        "RolloutFailed",
    )
    bound = waits._replace(failed="FailedCreate: maximum memory usage per Container is 256Mi, but limit is 1Gi")
    (degraded,) = [c for c in report(well._replace(rollouts={"a": bound}), {}).conditions if c.type == "Degraded"]
    assert "256Mi" in degraded.message and "Next: a LimitRange" in degraded.message
    assert said(failing._replace(trouble=Trouble("Forbidden", "x")))["Degraded"] == ("True", "Forbidden")
    assert said(well._replace(rollouts={"a": waits}))["Ready"] == ("False", "Progressing")
    before = {"observedGeneration": 4, "published": {"generation": 7, "document": "sha256:d", "manifest": "sha256:m"}}
    told = report(well, before)
    assert (told.observed, told.published, told.document, told.manifest) == (4, 7, "sha256:d", "sha256:m")
