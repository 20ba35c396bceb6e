"""What is sent to an API server, how it is found, and how health is waited for; against a scripted server, without a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from greentic.cluster import relisting
from greentic.cluster.api_server import ApiServer
from greentic.cluster.apply import ApplyRules, carry_out, delete_own
from greentic.cluster.connect import Connection, connect
from greentic.cluster.error_status import refusal
from greentic.cluster.live import read_live
from greentic.cluster.plugin import Plugin, PluginAuth, token_of
from greentic.cluster.wait import wait_healthy
from greentic.controller.differing import difference
from greentic.controller.election import DEADLINE, DURATION, WRITING
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict
from greentic.k8s import names
from greentic.k8s.objects import ApiRefused, ClusterUnreachable, Event, FieldConflict, Listed, Ref
from greentic.k8s.plan import Deletion, Owner, conditioned, make_plan
from greentic.operate.view import Row
from greentic.terminal.live_view import PipeView, TerminalView
from greentic.terminal.output import inert, print_failure, print_success
from simulators import CountingRandom, FakeClock

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": {"k": "v"}}
OWNER = Owner("prod", "s-0123456789abcdef")


class Script:
    """Answers requests in order, and remembers them."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers, self.asked = list(answers), []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def server(
    *answers: httpx2.Response | Exception, patience: float = 30, clock: FakeClock | None = None
) -> tuple[ApiServer, Script]:
    script = Script(*answers)
    client = httpx2.Client(transport=httpx2.MockTransport(script), base_url="https://api.example.com")
    return ApiServer(
        Connection(client, "https://api.example.com", "test", lambda: "2026-01-02T00:00:00Z"),
        patience=patience,
        clock=clock or FakeClock(),
    ), script


def ok(value: dict) -> httpx2.Response:
    return httpx2.Response(200, json=value)


def status(code: int, message: str, **more: object) -> httpx2.Response:
    return httpx2.Response(code, json={"kind": "Status", "code": code, "message": message, **more})


GROUPS = {
    "groups": [
        {"name": "policy", "versions": [{"version": "v1beta1"}]},
        {"name": "apps", "versions": [{"version": "v1"}]},
    ]
}


READY = httpx2.Response(200, text="ok")
STARTING = httpx2.Response(500, text="[-]poststarthook/start-kube-aggregator-informers failed: reason withheld")


# -- requests -----------------------------------------------------------------------------------------------------------


def test_an_apply_is_a_patch_with_our_manager():
    api, script = server(ok({**CONFIG_MAP, "metadata": {"name": "a", "namespace": "n", "resourceVersion": "5"}}))
    assert api.apply(CONFIG_MAP, force=False)["metadata"]["resourceVersion"] == "5"
    asked = script.asked[0]
    assert (asked.method, asked.url.path) == ("PATCH", "/api/v1/namespaces/n/configmaps/a")
    assert dict(asked.url.params) == {"fieldManager": "greentic-deployer", "force": "false"}
    assert asked.headers["content-type"] == "application/apply-patch+yaml" and json.loads(asked.content) == CONFIG_MAP
    assert (api.requests, api.writes) == (1, 1)


def test_a_server_that_creates_services_without_a_condition_only_is_asked_so_and_at_once():
    """Servers before 1.23: they say so with a status that is else tried again for a minute."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}}
    refused = status(500, "resourceVersion should not be set on objects to be created")
    clock = FakeClock()
    began = clock.monotonic()
    api, script = server(refused, *[ok({**service, "metadata": {"resourceVersion": "5"}})] * 3, clock=clock)
    api.apply(conditioned(service, None), force=False)
    api.apply(conditioned(service, None), force=False)
    api.apply(conditioned(CONFIG_MAP, None), force=False)
    sent = [json.loads(r.content)["metadata"].get("resourceVersion") for r in script.asked]
    assert sent == ["1", None, None, "1"] and clock.monotonic() < began + 0.1


def test_services_that_are_refused_at_one_time_are_all_asked_for_without_a_condition():
    both = threading.Barrier(2)

    def answer(request: httpx2.Request) -> httpx2.Response:
        if "resourceVersion" in json.loads(request.content)["metadata"]:
            both.wait(10)
            return status(500, "resourceVersion should not be set on objects to be created")
        return ok({"kind": "Service", "metadata": {"resourceVersion": "5"}})

    client = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="https://api.example.com")
    api = ApiServer(Connection(client, "https://api.example.com", "test", lambda: None), clock=FakeClock())
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(
                api.apply,
                conditioned({"kind": "Service", "metadata": {"name": n, "namespace": "n"}}, None),
                force=False,
            )
            for n in ("a", "b")
        ]
        assert [one.result()["metadata"] for one in made] == [{"resourceVersion": "5"}] * 2


def test_a_created_object_whose_answer_was_lost_is_seen_to_be_ours():
    """The request is repeated, and then finds what it made."""
    labels = names.owner_labels("prod", OWNER.store)
    named: JsonObject = {"name": "a", "namespace": "n", "labels": dict(labels)}
    owned: JsonObject = {"f:data": {"f:k": {}}, "f:metadata": {"f:labels": {f"f:{key}": {} for key in labels}}}
    manager: JsonObject = {"manager": "greentic-deployer", "operation": "Apply", "fieldsV1": owned}
    stated: JsonObject = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": {"k": "v"}}
    ours = {**stated, "metadata": {**named, "uid": "u", "resourceVersion": "5", "managedFields": [manager]}}
    api, script = server(
        httpx2.ReadError("lost"), status(409, "the object has been modified", reason="Conflict"), ok(ours)
    )
    plan = make_plan([stated], [], OWNER)
    outcome = carry_out(
        api, plan, "n", OWNER, ApplyRules(scope=frozenset()), CountingRandom(), lambda told: None, keyed=True
    )
    assert outcome.created == [Ref("ConfigMap", "a", "n")] and not outcome.failures
    assert [r.method for r in script.asked] == ["PATCH", "PATCH", "GET"]


def test_a_dry_run_says_so_and_is_no_write():
    api, script = server(ok(CONFIG_MAP))
    api.apply(CONFIG_MAP, force=True, dry_run=True)
    assert (
        dict(script.asked[0].url.params) == {"fieldManager": "greentic-deployer", "force": "true", "dryRun": "All"}
        and api.writes == 0
    )


@pytest.mark.parametrize(
    ("thing", "path"),
    [
        (
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}},
            "/apis/apps/v1/namespaces/n/deployments/d",
        ),
        ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}, "/api/v1/namespaces/n"),
        (
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "p", "namespace": "n"},
            },
            "/apis/networking.k8s.io/v1/namespaces/n/networkpolicies/p",
        ),
    ],
)
def test_where_each_kind_is(thing, path):
    api, script = server(ok(thing))
    api.apply(thing, force=False)
    assert script.asked[0].url.path == path


def test_a_budget_is_written_in_the_version_that_is_served():
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "n"}}
    api, script = server(READY, ok(GROUPS), ok(budget))
    api.apply(budget, force=False)
    assert script.asked[2].url.path == "/apis/policy/v1beta1/namespaces/n/poddisruptionbudgets/b"
    assert json.loads(script.asked[2].content)["apiVersion"] == "policy/v1beta1"
    older, _ = server(READY, ok({"groups": []}))
    with pytest.raises(ApiRefused, match="writes v1, v1beta1"):
        older.apply(budget, force=False)


def test_a_server_that_starts_is_asked_for_its_versions_when_it_is_ready():
    api, script = server(STARTING, httpx2.ConnectError("refused"), STARTING, READY, ok(GROUPS))
    assert api.versions("policy") == ("v1beta1",)
    assert [a.url.path for a in script.asked] == ["/readyz"] * 4 + ["/apis"]


@pytest.mark.parametrize(
    "answer", [status(403, "no"), status(404, "no"), STARTING], ids=["denied", "none", "never-ready"]
)
def test_a_server_that_does_not_say_that_it_is_ready_is_taken_at_its_word(answer):
    asked: list[str] = []

    def script(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return answer if request.url.path == "/readyz" else ok(GROUPS)

    client = httpx2.Client(transport=httpx2.MockTransport(script), base_url="https://api.example.com")
    made = Connection(client, "https://api.example.com", "test", lambda: "2026-01-02T00:00:00Z")
    api = ApiServer(made, patience=30, clock=FakeClock())
    assert api.versions("policy") == ("v1beta1",) and api.versions("apps") == ("v1",)
    assert asked[-1] == "/apis" and asked.count("/apis") == 1


def test_that_a_group_is_not_served_is_believed_for_a_minute():
    clock, later = FakeClock(), {"groups": [*GROUPS["groups"], {"name": "more", "versions": [{"version": "v1"}]}]}
    api, script = server(READY, ok(GROUPS), READY, ok(later), clock=clock)
    assert api.versions("more") == () and api.versions("more") == () and len(script.asked) == 2
    clock.sleep(61)
    assert api.versions("policy") == ("v1beta1",) and len(script.asked) == 2  # what is served stays so
    assert api.versions("more") == ("v1",) and len(script.asked) == 4


def test_a_path_that_is_not_there_yet_is_asked_for_again_and_an_object_is_not():
    ref = Ref("Role", "a", "n")
    missing = status(404, "the server could not find the requested resource", details={})
    plain = httpx2.Response(404, text="404 page not found")
    api, script = server(
        missing, STARTING, plain, httpx2.ConnectError("refused"), missing, STARTING, ok({"metadata": {}})
    )
    assert api.get(ref) is not None
    assert [a.url.path for a in script.asked][1::2] == ["/readyz"] * 3
    api, script = server(status(404, "roles `a` not found", details={"name": "a", "kind": "roles"}))
    assert api.get(ref) is None and len(script.asked) == 1
    api, script = server(missing, READY)
    with pytest.raises(ApiRefused, match="could not find"):
        api.list("Role", "n")


def test_lists_are_read_page_by_page():
    api, script = server(
        ok({"metadata": {"resourceVersion": "9", "continue": "c"}, "items": [{"metadata": {"name": "a"}}]}),
        ok({"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "b"}}]}),
    )
    found = api.list("ConfigMap", "n", "x=y")
    assert [(i["kind"], i["metadata"]["name"]) for i in found.items] == [("ConfigMap", "a"), ("ConfigMap", "b")]
    assert dict(script.asked[1].url.params) | {"limit": ""} == {"limit": "", "labelSelector": "x=y", "continue": "c"}


def test_a_list_whose_rest_expired_is_begun_again_and_nothing_of_two_moments_is_joined():
    first = ok({"metadata": {"resourceVersion": "9", "continue": "c"}, "items": [{"metadata": {"name": "a"}}]})
    gone = status(410, "The provided continue parameter is too old to display a consistent list result")
    whole = ok({"metadata": {"resourceVersion": "11"}, "items": [{"metadata": {"name": "b"}}]})
    api, script = server(first, gone, whole)
    found = api.list("ConfigMap", "n")
    assert [i["metadata"]["name"] for i in found.items] == ["b"] and found.resource_version == "11"
    assert "continue" not in dict(script.asked[2].url.params)
    api, script = server(*[first, gone] * relisting.TRIES)
    with pytest.raises(ApiRefused, match="too old"):
        api.list("ConfigMap", "n")
    assert len(script.asked) == 2 * relisting.TRIES
    with pytest.raises(ApiRefused, match="too old"):  # who let the pages go has to begin anew himself
        list(server(first, gone)[0].pages("ConfigMap", "n"))


@pytest.mark.parametrize("plural", ["secrets", "networkpolicies", "horizontalpodautoscalers", "configmaps"])
@pytest.mark.parametrize("sieved", [True, False])
def test_a_list_that_always_expires_is_begun_by_one_and_the_others_are_read_once(plural, sieved):
    begun: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path == "/readyz":
            return READY
        if path == "/apis":
            groups = (
                "apps",
                "policy",
                "autoscaling",
                "networking.k8s.io",
                "rbac.authorization.k8s.io",
                "gateway.networking.k8s.io",
            )
            return ok({"groups": [{"name": g, "versions": [{"version": "v1"}, {"version": "v2"}]} for g in groups]})
        if "continue" in request.url.params:
            return status(410, "The provided continue parameter is too old")
        name = path.rpartition("/")[2]
        begun.append(name)
        rest = {"continue": "c"} if name == plural else {}
        return ok({"metadata": {"resourceVersion": "9", **rest}, "items": []})

    client = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="https://api.example.com")
    api = ApiServer(Connection(client, "https://api.example.com", "test", lambda: None), clock=FakeClock())
    with pytest.raises(ApiRefused, match="too old"):
        if sieved:
            difference(api, {}, "n", OWNER, None, adopt=False)
        else:
            read_live(api, "n", OWNER, [])
    assert begun.count(plural) == relisting.TRIES
    assert [name for name in set(begun) - {plural} if begun.count(name) != 1] == []


def test_what_is_missing_is_nothing_and_deleting_it_is_no_error():
    api, script = server(status(404, "not found"), status(404, "not found"), ok({}))
    assert api.get(Ref("ConfigMap", "a", "n")) is None
    assert api.delete(Ref("ConfigMap", "a", "n"), uid="u", resource_version="3") is False
    assert api.delete(Ref("ConfigMap", "a", "n"), uid="u", resource_version="3") is True
    assert json.loads(script.asked[2].content)["preconditions"] == {"uid": "u", "resourceVersion": "3"}


def test_a_server_that_is_busy_is_asked_again_after_the_time_that_it_names():
    paused: list[float] = []

    class Clock(FakeClock):
        def sleep(self, seconds: float) -> None:
            paused.append(seconds)

    busy = httpx2.Response(429, headers={"retry-after": "7"}, json={"message": "busy"})
    api, script = server(busy, status(503, "starting"), httpx2.ConnectError("refused"), ok(CONFIG_MAP), clock=Clock())
    api.apply(CONFIG_MAP, force=False)
    assert len(script.asked) == 4 and 7.0 <= paused[0] <= 7.0 * 1.5 and all(0 < p < 8 * 1.5 for p in paused[1:])


def test_a_server_that_never_answered_is_given_up_sooner_than_one_that_is_away():
    clock = FakeClock()
    began = clock.monotonic()
    api, script = server(*[httpx2.ConnectError("refused")] * 1000, patience=60, clock=clock)
    with pytest.raises(ClusterUnreachable, match="refused"):
        api.apply(CONFIG_MAP, force=False)
    assert 3 < clock.monotonic() - began <= 10
    began = clock.monotonic()
    script.answers = [ok(CONFIG_MAP), *[httpx2.ConnectError("refused")] * 1000]
    api.apply(CONFIG_MAP, force=False)
    with pytest.raises(ClusterUnreachable):
        api.apply(CONFIG_MAP, force=False)
    assert 30 < clock.monotonic() - began <= 60


WRITES = {
    "apply": lambda api: api.apply(CONFIG_MAP, force=True),
    "create": lambda api: api.create(CONFIG_MAP),
    "update": lambda api: api.update(CONFIG_MAP),
    "status": lambda api: api.patch_status(Ref("ConfigMap", "a", "n"), {}),
    "merge": lambda api: api.merge(Ref("ConfigMap", "a", "n"), {"metadata": {"annotations": {"a": "b"}}}),
    "delete": lambda api: api.delete(Ref("ConfigMap", "a", "n"), uid="u", resource_version=None),
}


@pytest.mark.parametrize("how", WRITES)
@pytest.mark.parametrize(
    "busy", [status(503, "starting"), httpx2.Response(429, headers={"retry-after": "20"}, json={})]
)
def test_who_holds_a_lease_tries_no_write_again_when_another_may_have_it(how, busy):
    """The Lease is asked for before a write; what is tried again for a minute would come over what the next holder wrote."""
    clock = FakeClock()
    script = Script(ok(CONFIG_MAP), *[busy] * 1000)
    when: list[float] = []

    def noted(request: httpx2.Request) -> httpx2.Response:
        when.append(clock.now / 1e9)
        return script(request)

    client = httpx2.Client(transport=httpx2.MockTransport(noted), base_url="https://api.example.com")
    api = ApiServer(Connection(client, "", "", lambda: None), writing=WRITING, clock=clock)
    api.get(Ref("ConfigMap", "a", "n"))
    began = clock.monotonic()
    with pytest.raises(ApiRefused):
        WRITES[how](api)
    assert when[-1] - began <= WRITING <= DURATION - DEADLINE
    with pytest.raises(ApiRefused):
        api.get(Ref("ConfigMap", "a", "n"))
    assert when[-1] - began > DURATION  # who only reads may wait


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (status(403, "no"), 1),
        (status(422, "field is immutable"), 1),
        (status(500, 'admission webhook "w" denied the request: no'), 1),
        (status(500, "ValidatingAdmissionPolicy 'p' denied request: no"), 1),
    ],
)
def test_what_asking_again_cannot_change_is_told_at_once(answer, count):
    api, script = server(answer)
    with pytest.raises(ApiRefused):
        api.apply(CONFIG_MAP, force=False)
    assert len(script.asked) == count


def test_refusals_say_what_they_are():
    api, _ = server(status(403, "configmaps is forbidden"))
    with pytest.raises(ApiRefused) as refused:
        api.apply(CONFIG_MAP, force=False)
    assert (
        refused.value.forbidden
        and "ConfigMap `a` in namespace `n`" in str(refused.value)
        and "credentials requirements" in refused.value.hint
    )
    causes = [{"reason": "FieldManagerConflict", "message": 'conflict with "kubectl" using v1', "field": ".data.k"}]
    api, _ = server(status(409, "conflict", details={"causes": causes}))
    with pytest.raises(ApiRefused) as refused:
        api.apply(CONFIG_MAP, force=False)
    assert refused.value.conflicts == (FieldConflict("kubectl", ".data.k"),)
    api, _ = server(status(401, "Unauthorized"))
    with pytest.raises(ApiRefused, match="certificate ends at 2026-01-02"):
        api.get(Ref("ConfigMap", "a", "n"))


def test_certificates_that_do_not_fit_are_not_tried_again():
    api, script = server(httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"))
    with pytest.raises(ClusterUnreachable) as refused:
        api.get(Ref("ConfigMap", "a", "n"))
    assert len(script.asked) == 1 and "has ended" in refused.value.hint


def test_answers_that_are_no_json_are_errors_and_no_tracebacks():
    for body in (b"<html>", b"[]", b"\xff"):
        api, _ = server(httpx2.Response(200, content=body))
        with pytest.raises(ClusterUnreachable, match="no JSON object"):
            api.get(Ref("ConfigMap", "a", "n"))


def test_a_watch_gives_events_and_tells_when_its_version_is_gone():
    lines = b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n\n{"type":"ERROR","object":{"code":410,"message":"too old"}}\n'
    api, script = server(httpx2.Response(200, content=lines))
    watching = api.watch("Pod", "n", "x=y", "5", 10)
    assert next(watching) == Event("ADDED", {"metadata": {"name": "a"}})
    with pytest.raises(ApiRefused) as gone:
        next(watching)
    assert gone.value.status == 410 and dict(script.asked[0].url.params)["resourceVersion"] == "5"


# -- deleting what changed meanwhile --------------------------------------------------------------------------------------


def live(uid: str = "u", version: str = "4", labels: dict | None = None) -> dict:
    mine = {names.MANAGED_BY: "greentic", names.ENV: "prod", names.STORE: OWNER.store}
    applied = [{"manager": names.FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:data": {}}}]
    return {
        **CONFIG_MAP,
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": uid,
            "resourceVersion": version,
            "managedFields": applied,
            "labels": mine if labels is None else labels,
        },
    }


SEEN = Deletion(Ref("ConfigMap", "a", "n"), "u", "3")


def test_an_object_that_changed_is_looked_at_again_before_it_is_deleted():
    api, script = server(status(409, "changed"), ok(live()), ok({}))
    assert delete_own(api, SEEN, OWNER) is True
    assert json.loads(script.asked[2].content)["preconditions"]["resourceVersion"] == "4"


@pytest.mark.parametrize("now", [live(labels={}), live(uid="another")])
def test_threat_prune_strangers_an_object_that_became_somebody_elses_is_kept(now):
    api, script = server(status(409, "changed"), ok(now))
    with pytest.raises(Conflict, match="somebody else"):
        delete_own(api, SEEN, OWNER)
    assert [r.method for r in script.asked] == ["DELETE", "GET"]


# -- finding the server -----------------------------------------------------------------------------------------------------


def kubeconfig(
    path: Path, name: str, *, current: bool = True, token: str = "t", server: str = "https://one.example.com"
) -> Path:
    raw = {
        "clusters": [{"name": name, "cluster": {"server": server, "insecure-skip-tls-verify": True}}], "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(raw | ({"current-context": name} if current else {})))
    return path


def test_kubeconfigs_are_merged_and_contexts_found(tmp_path, monkeypatch):
    first, second = (
        kubeconfig(tmp_path / "1", "one", current=False),
        kubeconfig(tmp_path / "2", "two", server="https://two.example.com"),
    )
    monkeypatch.setenv("KUBECONFIG", f"{first}{os.pathsep}{tmp_path / 'missing'}{os.pathsep}{second}")
    assert connect(None).server == "https://two.example.com"
    assert connect("one").server == "https://one.example.com"
    with pytest.raises(ClusterUnreachable, match="no-such"):
        connect("no-such")


def test_a_bound_token_replaces_every_other_way_to_log_in(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "1", "one", token="mine")))
    for told, sent in ((None, "Bearer mine"), ("bound", "Bearer bound")):
        auth = connect(None, told).client.auth
        request = next(auth.auth_flow(httpx2.Request("GET", "https://one.example.com")))
        assert request.headers["authorization"] == sent


@pytest.mark.parametrize(
    "text", ["", "[]", "clusters: 5", "{", "contexts: [{name: a}]\nclusters: []\nusers: []\ncurrent-context: a"]
)
def test_a_kubeconfig_that_makes_no_sense_is_an_error_for_people(tmp_path, monkeypatch, text):
    (tmp_path / "bad").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "bad"))
    with pytest.raises(ClusterUnreachable, match="cannot reach the cluster"):
        connect(None)


@pytest.mark.parametrize(("part", "key"), [("user", "as"), ("user", "as-groups"), ("cluster", "tls-server-name")])
def test_what_cannot_be_done_is_refused_and_never_passed_over(tmp_path, monkeypatch, part, key):
    path = kubeconfig(tmp_path / "config", "one")
    raw = yaml.safe_load(path.read_text())
    raw[f"{part}s"][0][part][key] = "other"
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ClusterUnreachable, match=key):
        connect(None)
    if part == "user":
        assert connect(None, "bound").server == "https://one.example.com"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_plugins_give_the_token_and_learn_who_asks(tmp_path, monkeypatch, version):
    plugin = tmp_path / "plugin"
    told = '{"kind": "ExecCredential", "status": {"token": "from-the-plugin"}}'
    plugin.write_text(f"#!/bin/sh\nprintf '%s' \"$KUBERNETES_EXEC_INFO\" > {tmp_path}/info\nprintf '%s' '{told}'\n")
    plugin.chmod(0o755)
    path = kubeconfig(tmp_path / "config", "one")
    raw = yaml.safe_load(path.read_text())
    raw["users"][0]["user"] = {
        "exec": {
            "apiVersion": f"client.authentication.k8s.io/{version}",
            "command": str(plugin),
            "interactiveMode": "Never",
        }
    }
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("KUBECONFIG", str(path))
    auth = connect(None).client.auth
    request = next(auth.sync_auth_flow(httpx2.Request("GET", "https://one.example.com")))
    assert request.headers["authorization"] == "Bearer from-the-plugin"
    assert json.loads((tmp_path / "info").read_text())["apiVersion"] == f"client.authentication.k8s.io/{version}"
    plugin.write_text("#!/bin/sh\necho expired >&2\nexit 1\n")
    with pytest.raises(ClusterUnreachable, match="cannot reach the cluster") as refused:
        ApiServer(connect(None)).get(Ref("ConfigMap", "a", "n"))
    assert "log in again" in refused.value.hint


def plugin_of(tmp_path: Path, monkeypatch, script: str | None, **more: object) -> Path:
    """A kubeconfig whose user comes from a plugin, with what the plugin does."""
    if script is not None:
        (tmp_path / "plugin").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "plugin").chmod(0o755)
    path = kubeconfig(tmp_path / "config", "one", server="https://127.0.0.1:1")
    raw = yaml.safe_load(path.read_text())
    entry = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", **more}
    raw["users"][0]["user"] = {"exec": entry}
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.chdir("/")  # a command with a slash is relative to the kubeconfig
    return path


@pytest.mark.parametrize(
    ("script", "told", "hint"),
    [
        (None, "plugin `.*plugin` is not installed", "brew install it"),
        ("echo TOKEN-LIKE", "printed no ExecCredential", "log in again"),
        ("echo '{\"status\": {}}'", "gives nothing of it; expected status.token", "log in again"),
        ('echo \'{"status": {"clientCertificateData": "c"}}\'', "client certificate, which is not supported", "log in"),
        (
            "echo TOKEN-LIKE; echo 'run aws sso login' >&2; exit 255",
            "ended with 255: run aws sso login$",
            "log in again",
        ),
        ("exit 3", "ended with 3 and said nothing", "log in again"),
        ("read answer && echo $answer", "ended with 1 and said nothing", "log in again"),
    ],
)
def test_a_plugin_that_gives_no_token_is_told_by_its_name_with_the_next_step(tmp_path, monkeypatch, script, told, hint):
    plugin_of(tmp_path, monkeypatch, script, installHint="brew install it")
    with pytest.raises(ClusterUnreachable, match=told) as refused:
        ApiServer(connect(None)).get(Ref("ConfigMap", "a", "n"))
    assert "https://127.0.0.1:1 (context `one`)" in refused.value.message
    assert hint in str(refused.value.hint)
    assert "TOKEN-LIKE" not in refused.value.message


def test_a_plugin_that_waits_for_somebody_is_not_waited_for_without_end(tmp_path):
    """Also where what it started lives on and holds what it prints to."""
    script = f"echo 'open https://login.example.com and enter ABCD' >&2; sleep 600 & echo $! > {tmp_path}/left; wait"
    plugin = Plugin("/bin/sh", ("-c", script), {"PATH": os.defpath}, "client.authentication.k8s.io/v1", None)
    with pytest.raises(ClusterUnreachable, match="no token within 1 s: open https://login.example.com and enter ABCD"):
        token_of(plugin, "a server", 1)
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)


def test_a_plugin_is_asked_again_when_its_token_is_taken_no_more_and_once_by_all(tmp_path):
    count = tmp_path / "count"
    script = f'echo x >> {count}; echo \'{{"status": {{"token": "\'$(wc -l < {count})\'"}}}}\''
    auth = PluginAuth(
        Plugin("/bin/sh", ("-c", script), {"PATH": os.defpath}, "client.authentication.k8s.io/v1", None), "a server"
    )
    flows = [auth.sync_auth_flow(httpx2.Request("GET", "https://one.example.com")) for _ in range(3)]
    assert {next(flow).headers["authorization"] for flow in flows} == {"Bearer 1"}
    again = [flow.send(httpx2.Response(401)).headers["authorization"] for flow in flows[1:]]
    assert again == ["Bearer 2"] * 2


@pytest.mark.parametrize("context", [None, "prdo"])
def test_a_context_that_is_not_there_is_told_with_those_that_are(tmp_path, monkeypatch, context):
    path = kubeconfig(tmp_path / "1", "prod")
    path.write_text(path.read_text().replace("current-context: prod", "current-context: prdo"))
    monkeypatch.setenv("KUBECONFIG", f"{path}{os.pathsep}{tmp_path / 'gone'}")
    with pytest.raises(
        ClusterUnreachable, match=r"`prdo` is in none of .*gone \(no such file\); there are prod; did you mean `prod`"
    ):
        connect(context)


def test_without_a_kubeconfig_and_outside_of_pods_both_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    with pytest.raises(ClusterUnreachable, match=r"this is no pod with an account.*gone \(no such file\)"):
        connect(None)


@pytest.mark.parametrize(
    ("code", "headers", "hint"),
    [
        (429, {"retry-after": "3600"}, "asks for 3600 s"),
        (429, {}, "later goes on"),
        (503, {}, "kubectl get --raw /readyz"),
    ],
)
def test_a_refusal_that_is_no_status_is_told_with_the_next_step(code, headers, hint):
    told = refusal(
        httpx2.Response(code, headers=headers, text="<html>no</html>"), "Namespace `n`", server()[0]._connection
    )
    assert hint in str(told.hint)


def test_a_webhook_that_does_not_answer_is_no_failing_server():
    """`failurePolicy: Fail`, and its pods are away: the server's own health says nothing of it."""
    said = 'Internal error occurred: failed calling webhook "v.example.com": failed to call webhook: Post "https://v.x.svc:443/": context deadline exceeded'
    status = {"kind": "Status", "message": said, "reason": "InternalError", "code": 500}
    told = refusal(httpx2.Response(500, json=status), "Service `s`", server()[0]._connection)
    assert said in told.message and "webhook that it names gives no answer" in str(told.hint)
    assert "readyz" not in str(told.hint)


def test_a_kind_that_an_api_server_does_not_serve_is_no_other_server():
    told = refusal(httpx2.Response(404, text="404 page not found\n"), "environments", server()[0]._connection)
    assert "does not serve this kind" in str(told.hint)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"server": "https://u:PASSWORD@127.0.0.1:1"}, "https://127.0.0.1:1 (context `one`)"),
        ({"server": "https://u:PASSWORD@127.0.0.1:x"}, "does not load"),
        (
            {"server": "https://a.example.com", "proxy-url": "http://u:PASSWORD@127.0.0.1:1"},
            "https://a.example.com (context `one`, through proxy http://127.0.0.1:1)",
        ),
        ({"server": "https://a.example.com", "proxy-url": "ht!tp://u:PASSWORD@[bad"}, "is no address of a proxy"),
        ({"server": "https://a.example.com", "proxy-url": "http://u:PASSWORD@127.0.0.1:x"}, "is no address of a proxy"),
    ],
)
def test_credentials_of_a_kubeconfigs_addresses_are_told_to_nobody(tmp_path, monkeypatch, part, told):
    path = kubeconfig(tmp_path / "config", "one")
    raw = yaml.safe_load(path.read_text())
    raw["clusters"][0]["cluster"] = part
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ClusterUnreachable) as refused:
        ApiServer(connect(None), clock=FakeClock()).get(Ref("ConfigMap", "a", "n"))
    assert told in refused.value.message
    assert "PASSWORD" not in f"{refused.value.message} {refused.value.hint}"


def test_the_proxy_that_a_variable_names_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", "one")))
    monkeypatch.setenv("HTTPS_PROXY", "http://u:PASSWORD@127.0.0.1:1")
    assert (
        connect(None).where
        == "https://one.example.com (context `one`, through proxy http://127.0.0.1:1 of HTTPS_PROXY)"
    )
    monkeypatch.setenv("NO_PROXY", "one.example.com")
    assert connect(None).where == "https://one.example.com (context `one`)"


@pytest.mark.parametrize(
    ("address", "past", "asked"),
    [
        ("https://127.0.0.1:6443", "", None),  # a cluster on this machine, as kind makes them
        ("https://localhost:6443", "", None),
        ("https://10.0.0.7:6443", "", "http://127.0.0.1:1"),
        ("https://10.0.0.7:6443", "10.0.0.0/8", None),
        ("https://one.example.com:6443", "one.example.com:443", "http://127.0.0.1:1"),
        ("https://one.example.com:6443", "one.example.com:6443", None),
    ],
)
def test_a_cluster_is_asked_through_the_proxy_that_everything_is_asked_through(
    tmp_path, monkeypatch, address, past, asked
):
    path = kubeconfig(tmp_path / "config", "one")
    raw = yaml.safe_load(path.read_text())
    raw["clusters"][0]["cluster"] = {"server": address}
    path.write_text(yaml.safe_dump(raw))
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(httpx2, "Client", lambda **how: made.append(how))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setenv("HTTPS_PROXY", "http://u:p@127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", past)
    told = connect(None).proxy
    proxy = made[0]["proxy"]
    assert made[0]["trust_env"] is False and (None if proxy is None else str(proxy.url)) == asked
    assert (told == "") is (asked is None)
    assert proxy is None or proxy.headers["Proxy-Authorization"] == "Basic dTpw"


def test_files_of_a_kubeconfig_are_relative_to_it(tmp_path, monkeypatch):
    path = kubeconfig(tmp_path / "config", "one")
    raw = yaml.safe_load(path.read_text())
    raw["clusters"][0]["cluster"] = {"server": "https://one.example.com", "certificate-authority": ""}
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.chdir("/")
    connect(None)  # no name is no file, as kubectl has it
    raw["clusters"][0]["cluster"]["certificate-authority"] = "missing.crt"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ClusterUnreachable, match="does not load"):
        connect(None)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("cluster", "certificate-authority"),
        ("user", "client-certificate"),
        ("user", "client-key"),
        ("user", "tokenFile"),
    ],
)
def test_nobody_waits_for_a_file_that_a_kubeconfig_names(tmp_path, monkeypatch, part, key):
    """The client's library opens them by itself, one as late as at the first request: the alarm ends the tests."""
    path = kubeconfig(tmp_path / "config", "one")
    raw = yaml.safe_load(path.read_text())
    os.mkfifo(tmp_path / "odd")
    if key.startswith("client"):
        raw["users"][0]["user"] = {"client-certificate": "config", "client-key": "config"}
    raw[f"{part}s"][0][part] |= {key: "odd"}
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("KUBECONFIG", str(path))
    signal.alarm(60)
    try:
        with pytest.raises(
            ClusterUnreachable, match=f"the file of {key} `.*odd` .* a device or fifo is there; expected"
        ):
            connect(None)
    finally:
        signal.alarm(0)


@pytest.mark.parametrize("there", [False, True])
def test_a_file_in_place_of_the_systems_counts_where_a_cluster_names_no_authority(tmp_path, monkeypatch, there):
    path = kubeconfig(tmp_path / "config", "one")
    raw = yaml.safe_load(path.read_text())
    raw["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = False
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("KUBECONFIG", str(path))
    if there:
        os.mkfifo(tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))
    told = "a device or fifo is there" if there else "No such file"
    signal.alarm(60)
    try:
        with pytest.raises(
            ClusterUnreachable, match=f"the file of SSL_CERT_FILE `{tmp_path}/ca` cannot be read: {told}"
        ):
            connect(None)
        raw["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
        path.write_text(yaml.safe_dump(raw))
        assert connect(None).client is not None  # nobody is believed, and no file read
    finally:
        signal.alarm(0)


def test_a_warning_is_said_on_stderr_where_nobody_watches_and_steps_are_not(capsys):
    view = PipeView()
    view.say("a step")
    view.show([])
    view.warn("it \x1b[31mputs back\x1b[0m")
    view.close()
    told = capsys.readouterr()
    assert (
        told.out == "" and told.err.startswith("warning: it ") and "\x1b" not in told.err and told.err.count("\n") == 1
    )


def test_verbs_that_need_no_cluster_do_not_load_its_client():
    program = "import sys; import greentic.manifests.env_render, greentic.operate.env, greentic.deployments.revisions, greentic.deployments.stage, greentic.cli.op, greentic.worker.boot; print([m for m in sys.modules if m.startswith(('lightkube', 'httpx2'))])"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )


# -- waiting ----------------------------------------------------------------------------------------------------------------


class Watched:
    """A cluster whose Deployments and pods change as a script says."""

    def __init__(self, lists: dict[str, list[dict]], events: dict[str, list[dict]], log: str = "") -> None:
        self._lists, self._events, self._log = lists, events, log
        self._told = threading.Event()

    def list(self, kind: str, namespace: str | None, selector: str | None = None) -> Listed:
        return Listed(self._lists[kind], "1")

    def watch(
        self, kind: str, namespace: str, selector: str | None, resource_version: str, seconds: float
    ) -> Iterator[Event]:
        for thing in self._events.pop(kind, []):
            yield Event("MODIFIED", thing)
        self._told.wait(0.05)

    def log(self, namespace: str, pod: str, container: str, *, previous: bool, lines: int) -> str:
        return self._log


def deployment(**state: int) -> dict:
    container = {"name": "c", "image": "i"}
    template = {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [container]}}
    return {
        "metadata": {"name": "w", "generation": 2},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "w"}}, "template": template},
        "status": state,
    }


DONE = {"observedGeneration": 2, "updatedReplicas": 1, "replicas": 1, "availableReplicas": 1}
WANTED = {Ref("Deployment", "w", "n"): deployment()}


class View:
    def show(self, rollouts: dict) -> None:
        self.last = rollouts


def test_waiting_ends_when_the_watch_says_that_all_is_done():
    view = View()
    wait_healthy(
        Watched({"Deployment": [deployment()], "Pod": []}, {"Deployment": [deployment(**DONE)]}),
        "n",
        "x",
        WANTED,
        30,
        view,
    )
    assert view.last["w"][0].done


def test_what_is_done_already_asks_for_nothing():
    wait_healthy(None, "n", "x", {Ref("Deployment", "w", "n"): deployment(**DONE)}, 30, View())


def test_an_older_generation_that_was_done_does_not_count():
    old = deployment(observedGeneration=1, updatedReplicas=1, replicas=1, availableReplicas=1)
    old["metadata"]["generation"] = 1
    with pytest.raises(Conflict, match="did not become ready within 1s"):
        wait_healthy(Watched({"Deployment": [old], "Pod": []}, {}), "n", "x", WANTED, 1, View())


@pytest.mark.parametrize("how", ["written over", "deleted"])
def test_what_somebody_undoes_meanwhile_is_not_waited_for(how):
    other = deployment()
    other["metadata"]["generation"] = 3
    other["spec"]["template"]["metadata"]["annotations"] = {names.CHECKSUM: "another"}

    class Undone(Watched):
        def watch(self, kind: str, *_: object) -> Iterator[Event]:
            if kind == "Deployment":
                yield Event("DELETED", deployment()) if how == "deleted" else Event("MODIFIED", other)
            self._told.wait(0.05)

    with pytest.raises(Conflict, match="since this run wrote it.*such as an operator") as told:
        wait_healthy(Undone({"Deployment": [deployment()], "Pod": []}, {}), "n", "x", WANTED, 30, View())
    assert "kubectl -n n get leases" in str(told.value.hint)


def test_what_keeps_pods_from_being_made_is_told_however_short_the_wait():
    """It may pass by itself, and is given up only after a while; who waits for less is told it all the same."""
    said = 'pods "w-1" is forbidden: maximum memory usage per Container is 256Mi, but limit is 1Gi'
    thing: dict = deployment(observedGeneration=2)
    thing["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}
    ]
    view = View()
    with pytest.raises(Conflict, match="did not become ready within 1s.*maximum memory usage per Container") as told:
        wait_healthy(Watched({"Deployment": [thing], "Pod": []}, {}), "n", "x", WANTED, 1, view)
    assert "LimitRange" in str(told.value.hint) and said in view.last["w"][1]


def test_a_pod_that_runs_and_never_is_ready_is_told_with_what_it_says():
    pod = {
        "metadata": {"name": "w-1", "labels": {"app": "w"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"containerStatuses": [{"name": "c", "ready": False, "state": {"running": {}}}]},
    }
    seen = Watched({"Deployment": [deployment(observedGeneration=2)], "Pod": [pod]}, {}, "pulling http://gone/b")
    with pytest.raises(
        Conflict, match="pod `w-1` runs and is not ready\nits last lines:\npulling http://gone/b$"
    ) as told:
        wait_healthy(seen, "n", "x", WANTED, 1, View())
    assert "describe pods" in str(told.value.hint)


def test_a_crash_loop_is_told_with_its_last_lines():
    state = {
        "name": "c",
        "restartCount": 4,
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "boom"}},
    }
    pod = {
        "metadata": {"name": "w-1", "labels": {"app": "w"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"containerStatuses": [state]},
    }
    with pytest.raises(Conflict) as told:
        wait_healthy(
            Watched({"Deployment": [deployment(observedGeneration=2)], "Pod": [pod]}, {}, "line one\nthe end"),
            "n",
            "x",
            WANTED,
            30,
            View(),
        )
    assert "pod `w-1`" in str(told.value) and "the end" in str(told.value)


def test_requests_that_fail_while_waiting_are_not_the_end():
    class Flaky(Watched):
        failures = 2

        def list(self, kind: str, namespace: str | None, selector: str | None = None) -> Listed:
            if Flaky.failures and kind == "Deployment":
                Flaky.failures -= 1
                raise ClusterUnreachable("gone for a moment")
            return super().list(kind, namespace, selector)

    wait_healthy(Flaky({"Deployment": [deployment(**DONE)], "Pod": []}, {}), "n", "x", WANTED, 30, View())
    assert Flaky.failures == 0


# -- terminals ----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60))
def test_nothing_that_others_wrote_steers_a_terminal(text):
    shown = inert(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t" for c in shown)
    assert inert(shown) == shown
    plain = "".join(
        c for c in text if c.isprintable() and c not in "\\\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
    )
    assert inert(plain) == plain


def test_words_of_a_server_are_shown_and_not_obeyed(capsys, monkeypatch):
    told = "\x1b]0;owned\x07\x9b2J\u202eevil"
    print_failure("table", "env", "show", Conflict(told, hint=told))
    print_success("table", "env", "show", {told: told, "rows": [{"a": told, told: "b"}]}, told)
    view = TerminalView()
    view.say(told)
    view.show([Row(told, "0/1", "0/1", False, told)])
    view.close()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_success("json", "env", "show", {told: told}, "")
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["result"] == {told: told}
    for stream in (out, err):
        assert "owned" in stream and not set(stream) & set("\x1b\x07\x9b\u202e")


def test_lists_that_begin_at_once_ask_for_the_versions_once():
    asked, both = [], threading.Barrier(2)

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.1)  # until the other asks, too, if it does
        return ok(GROUPS)

    client = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="https://api.example.com")
    api = ApiServer(Connection(client, "https://api.example.com", "test", lambda: "2026-01-02T00:00:00Z"))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(api.versions, ["policy", "apps"]))
    assert found == [("v1beta1",), ("v1",)] and asked == ["/readyz", "/apis"]
