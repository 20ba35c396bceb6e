"""Running pods follow the document: what they say of it, and how a reconcile waits until all of them serve what it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import httpx2
import pytest

from greentic.cluster.served import Served, asked, served
from greentic.cluster.wait import RolloutFailed
from greentic.cluster.wait_served import HURRY_SECONDS, UNHEARD_SECONDS, AwaitedDocument, Heard, wait_served
from greentic.deployer.rollout_view import served_rows
from greentic.ground.documents import Json, JsonObject
from greentic.k8s.health import PASSING_SECONDS
from greentic.k8s.names import CHECKSUM, ENV_STORE, HURRIED
from greentic.k8s.objects import ApiRefused, ClusterUnreachable, Listed, Ref
from greentic.model.environment import DOCUMENT, document_digest
from simulators import FakeClock
from test_k8s_client import ok, server

OLD, NEW = document_digest(b"{}"), document_digest(b'{"a":1}')


def status(serving: str, desired: str | None = None, error: str | None = None, **more: Json) -> JsonObject:
    following: JsonObject = {"serving": {"digest": serving}, "desired": {"digest": desired or serving}, "error": error}
    return {"following": following, "unavailable": [], **more}


def fault(reason: str, error: str) -> JsonObject:
    return {"deployment_id": "D", "revision_id": "R", "reason": reason, "error": error}


MISMATCH = "bytes are `sha256:1`, not the revision's pinned `sha256:2`"


@pytest.mark.parametrize(
    ("told", "done", "ails", "for_good"),
    [
        (status(NEW), True, "", False),
        (status(OLD), False, "", False),
        (status(OLD, OLD, "about an older one"), False, "", False),
        (status(OLD, NEW, "trust: no"), False, "trust: no", False),
        (status(OLD, NEW, MISMATCH), False, MISMATCH, True),
        (status(NEW, unavailable=[fault("absent", "no source")]), True, "", False),
        (status(NEW, unavailable=[fault("unreachable", "refused")]), False, "refused", False),
        (status(NEW, unavailable=[fault("unreachable", MISMATCH)]), False, MISMATCH, True),
        ({"following": None}, False, "does not say", False),
        ({}, False, "does not say", False),
        ({"following": {"serving": "text"}, "unavailable": "text"}, False, "", False),
        (status(NEW, others=[status(NEW)], silent=0), True, "", False),
        (status(NEW, others=[status(OLD)], silent=0), False, "", False),
        (status(NEW, others=[status(OLD, NEW, "trust: no")], silent=0), False, "trust: no", False),
        (status(NEW, others=[], silent=1), False, "", False),
    ],
)
def test_a_pod_serves_a_document_when_it_says_so(told, done, ails, for_good):
    said = served(told, NEW)
    assert (said.done, said.for_good) == (done, for_good) and ails in said.ails and bool(said.ails) == bool(ails)


class Pods:
    """A cluster of pods that say one thing after another; the last one they say again and again."""

    def __init__(self, says: Mapping[str, Sequence[JsonObject | Exception]], *, patch: bool = True) -> None:
        self.says, self.patch = says, patch
        self.holds: bytes | None = b'{"a":1}'
        """The document that pods are given."""
        self.asked: list[str] = []
        self.touched: list[tuple[str, str]] = []

    def list(self, kind: str, namespace: str | None, selector: str | None = None) -> Listed:
        assert (kind, namespace, selector) == ("Pod", "n", "x")
        return Listed([pod(name) for name in self.says], "1")

    def get(self, ref: Ref) -> JsonObject | None:
        assert ref == Ref("ConfigMap", ENV_STORE, "n")
        return None if self.holds is None else {"data": {DOCUMENT: self.holds.decode()}}

    def ask_pod(self, namespace: str, name: str, port: int, path: str) -> JsonObject:
        assert (namespace, port, path) == ("n", 8080, "/status")
        self.asked.append(name)
        says = self.says[name]
        told = says.pop(0) if len(says) > 1 else says[0]
        if isinstance(told, Exception):
            raise told
        return told

    def merge(self, ref: Ref, patch: JsonObject) -> None:
        annotations = patch["metadata"]["annotations"]
        if not self.patch:
            raise ApiRefused("pods is forbidden", status=403)
        assert ref.kind == "Pod" and list(annotations) == [HURRIED]
        self.touched.append((ref.name, annotations[HURRIED]))


def pod(name: str, *, ready: bool = True, seen: str = "1", leaving: bool = False) -> JsonObject:
    metadata: JsonObject = {"name": name, "labels": {"app": "w"}, "annotations": {CHECKSUM: seen}}
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


DEPLOYMENT: JsonObject = {
    "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": {"metadata": {"annotations": {CHECKSUM: "1"}}}}
}


class View:
    def __init__(self) -> None:
        self.shown: list[dict[str, Served]] = []

    def show_served(self, pods: dict[str, Served]) -> None:
        self.shown.append(dict(pods))


def wait(pods: Pods, seconds: float = 120, clock: FakeClock | None = None, view: View | None = None) -> Heard:
    return wait_served(
        pods, AwaitedDocument(NEW, "n", "x", [DEPLOYMENT]), seconds, view or View(), clock or FakeClock()
    )


def test_only_ready_pods_of_the_current_template_are_asked():
    others: list[JsonObject] = [
        pod("b", ready=False),
        pod("c", seen="0"),
        pod("d", leaving=True),
        {"metadata": {"name": "e"}},
    ]
    assert asked([pod("z"), pod("a"), *others], [DEPLOYMENT]) == ["a", "z"]


def test_pods_that_serve_it_already_are_asked_once_and_not_touched():
    pods = Pods({"a": [status(NEW)], "b": [status(NEW)]})
    assert wait(pods) == Heard(["a", "b"])
    assert sorted(pods.asked) == ["a", "b"] and pods.touched == []


def test_a_pod_that_is_behind_is_hurried_and_waited_for_alone():
    pods, view, clock = Pods({"a": [status(OLD)] * 6 + [status(NEW)], "b": [status(NEW)]}), View(), FakeClock()
    began = clock.monotonic()
    assert wait(pods, clock=clock, view=view) == Heard(["a", "b"])
    assert pods.asked.count("b") == 1 and pods.asked.count("a") == 7
    touches = [value for name, value in pods.touched]
    assert {name for name, _ in pods.touched} == {"a"} and len(set(touches)) == len(touches)
    assert len(touches) <= 1 + (clock.monotonic() - began) / HURRY_SECONDS
    assert not view.shown[0]["a"].done and view.shown[-1]["a"].done
    assert [row.done for row in served_rows(view.shown[0])] == [False, True]


def test_without_the_right_to_annotate_it_only_takes_longer():
    pods = Pods({"a": [status(OLD)] * 4 + [status(NEW)]}, patch=False)
    assert wait(pods) == Heard(["a"])


def test_without_the_right_to_ask_readiness_has_to_do_and_that_is_told():
    pods = Pods({"a": [ApiRefused("pods is forbidden", status=403)], "b": [status(NEW)]})
    heard = wait(pods)
    assert heard.pods == [] and "pods/proxy" in heard.warning and "credentials requirements" in heard.warning
    assert pods.touched == []


def test_pods_that_cannot_be_reached_are_told_after_a_while_and_fail_nothing():
    pods, clock = Pods({"a": [ClusterUnreachable("no route")], "b": [status(NEW)]}), FakeClock()
    began = clock.monotonic()
    heard = wait(pods, clock=clock)
    assert heard.pods == ["b"] and "`a`: no route" in heard.warning
    assert clock.monotonic() - began >= UNHEARD_SECONDS


def test_an_image_that_does_not_say_what_it_serves_is_told_at_once():
    pods = Pods({"a": [{"following": None}]})
    assert "does not say" in wait(pods).warning and pods.asked == ["a"]


def test_what_passes_by_itself_is_waited_for_and_what_does_not_is_told_at_once():
    passing = status(NEW, unavailable=[fault("unreachable", "no route to the registry")])
    assert wait(Pods({"a": [passing] * 4 + [status(NEW)]})) == Heard(["a"])
    clock = FakeClock()
    began = clock.monotonic()
    with pytest.raises(RolloutFailed, match="no route to the registry"):
        wait(Pods({"a": [passing]}), clock=clock)
    assert PASSING_SECONDS <= clock.monotonic() - began < 2 * PASSING_SECONDS
    pods = Pods({"a": [status(OLD, NEW, MISMATCH)]})
    with pytest.raises(RolloutFailed, match="`a` does not serve what was applied.*pinned"):
        wait(pods)
    assert pods.asked == ["a"]


def test_a_document_that_pods_refuse_as_older_is_told_with_what_to_author():
    older = "trust in environment `local`: the environment has generation 0, and this worker has seen 7"
    with pytest.raises(RolloutFailed, match="has seen 7") as failed:
        wait(Pods({"a": [status(OLD, NEW, older)]}))
    assert "gtc op delivery set ENV --generation" in str(failed.value.hint)


def test_pods_that_stay_behind_are_named_when_the_time_is_over():
    with pytest.raises(RolloutFailed, match=r"1 pod\(s\) do not say within 20s that they serve sha256:.*`a`"):
        wait(Pods({"a": [status(OLD)], "b": [status(NEW)]}), 20)


@pytest.mark.parametrize("holds", [b"{}", None])
def test_a_document_that_somebody_replaced_is_not_waited_for(holds):
    pods, clock = Pods({"a": [status(OLD)]}), FakeClock()
    pods.holds = holds
    began = clock.monotonic()
    with pytest.raises(RolloutFailed, match="was replaced since this run wrote it.*such as an operator") as failed:
        wait(pods, clock=clock)
    assert clock.monotonic() - began < 5 and "gtc op env publish" in str(failed.value.hint)


def test_a_pod_is_asked_through_the_api_server_once_and_its_answer_bounded():
    api, script = server(ok({"following": {}}))
    assert api.ask_pod("n", "a", 8080, "/status") == {"following": {}}
    assert script.asked[0].url.path == "/api/v1/namespaces/n/pods/a:8080/proxy/status"
    for answer in (httpx2.Response(200, content=b"no JSON"), httpx2.Response(200, content=b"[" * (17 << 20))):
        api, script = server(answer)
        with pytest.raises(ClusterUnreachable):
            api.ask_pod("n", "a", 8080, "/status")
        assert len(script.asked) == 1
    api, script = server(httpx2.Response(503, json={"message": "no endpoints"}), ok({}))
    with pytest.raises(ApiRefused, match="no endpoints"):
        api.ask_pod("n", "a", 8080, "/status")
    assert len(script.asked) == 1, "whoever waits asks again"


def test_touching_a_pod_changes_its_annotations_alone():
    api, script = server(ok({"kind": "Pod"}))
    api.merge(Ref("Pod", "a", "n"), {"metadata": {"annotations": {HURRIED: "x"}}})
    asked = script.asked[0]
    assert asked.headers["content-type"] == "application/merge-patch+json"
    assert json.loads(asked.content) == {"metadata": {"annotations": {HURRIED: "x"}}} and api.writes == 0
