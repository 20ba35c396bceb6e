"""An API server, or what stands before it, that answers something else: every verb ends with an error for people, in the time it has."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx2
import pytest
from msgspec import UNSET

from conftest import IMAGE, Author
from greentic.cluster.api_server import ApiServer
from greentic.cluster.connect import Connection
from greentic.deployer import cluster_status, reconcile, sweep
from greentic.deployer.cluster_identity import Reached
from greentic.deployments import env_status
from greentic.ground.documents import Json
from greentic.ground.errors import GreenticError
from greentic.k8s.objects import KINDS
from simulators import FakeClock
from test_deployer import E, answered

PLURALS = {kind.plural for kind in KINDS.values()}
GROUPS = {"groups": [{"name": k.group, "versions": [{"version": v} for v in k.versions]} for k in KINDS.values()]}
PAGE = "<html><body><h1>502 Bad Gateway</h1></body></html>"


def value(told: Json, code: int = 200) -> Callable[[], httpx2.Response]:
    return lambda: httpx2.Response(code, json=told)


def text(told: str, code: int = 200, **headers: str) -> Callable[[], httpx2.Response]:
    return lambda: httpx2.Response(code, text=told, headers={k.replace("_", "-"): v for k, v in headers.items()})


def listed(*items: Json) -> Callable[[], httpx2.Response]:
    return value({"metadata": {"resourceVersion": "9"}, "items": [*items]})


ODD_OBJECT: Json = {
    "metadata": {
        "name": "gtc-router", "namespace": "gtc-local", "labels": {"a": 7}, "annotations": [], "uid": 7, "resourceVersion": None,
        "managedFields": [None, 7, {"fieldsV1": 7, "manager": 7}, {"operation": "Apply", "manager": "greentic-deployer", "fieldsV1": []}],
    }, "spec": 7, "status": {"conditions": 7, "parents": [None]}, "data": 7,
}  # fmt: skip
ODD: dict[str, Callable[[], httpx2.Response]] = {
    "page": text(PAGE), "page-403": text(PAGE, 403), "page-404": text(PAGE, 404), "page-502": text(PAGE, 502), "page-401": text(PAGE, 401),
    "later": text("slow", 429, retry_after="999999999"), "later-by-date": text("slow", 429, retry_after="Wed, 21 Oct 2099 07:28:00 GMT"),
    "later-before": text("slow", 429, retry_after="-5"), "nothing": text("", 204), "elsewhere": text("", 302, location="http://other.example/"),
    "cut": text('{"items": ['), "deep": text("[" * 100_000), "null": value(None), "array": value([]), "number": value(7),
    "no-items": value({"items": None}), "items-text": value({"items": "x"}), "items-object": value({"items": {"a": 1}}),
    "items-null": listed(None), "items-numbers": listed(1, "x"), "item-empty": listed({}), "item-odd": listed({"metadata": []}),
    "name-odd": listed({"metadata": {"name": 7}}), "object-odd": listed(ODD_OBJECT), "object": value(ODD_OBJECT),
    "continued": value({"metadata": {"continue": 7}, "items": []}), "groups": value({"groups": [None, 7, {"name": 7, "versions": [None, 7, {}]}]}),
    "groups-odd": value({"groups": {"versions": 7}}), "causes": value({"kind": "Status", "details": {"causes": [None, 7, {"reason": "FieldManagerConflict", "message": 7}]}}, 409),
    "status-array": value([1], 409), "status-odd": value({"message": [7], "reason": {}, "details": []}, 422),
}  # fmt: skip
PLACES = ("all", "get", "list", "write", "groups", "ready")


def place_of(request: httpx2.Request) -> str:
    path = request.url.path
    if path in ("/readyz", "/apis"):
        return "ready" if path == "/readyz" else "groups"
    if request.method != "GET":
        return "write"
    return "list" if path.rpartition("/")[2] in PLURALS else "get"


def usual(request: httpx2.Request) -> httpx2.Response:
    """What an empty namespace answers."""
    place, name = place_of(request), request.url.path.rpartition("/")[2]
    if place == "write":
        stated = json.loads(request.content or b"{}")
        metadata = {**stated.get("metadata", {}), "uid": "u", "resourceVersion": "5"}
        return httpx2.Response(200, json={**stated, "metadata": metadata})
    if place == "get" and request.url.path == f"/api/v1/namespaces/{name}":
        found = {"name": name, "uid": "n", "resourceVersion": "1"}
        return httpx2.Response(200, json={"apiVersion": "v1", "kind": "Namespace", "metadata": found})
    if place == "get":
        return httpx2.Response(404, json={"kind": "Status", "code": 404, "details": {"name": name}})
    answers = {"ready": text("ok"), "groups": value(GROUPS), "list": listed()}  # type: ignore[arg-type]
    return answers[place]()


def odd_server(
    monkeypatch: pytest.MonkeyPatch, odd: Callable[[], httpx2.Response], place: str, after: int = 0
) -> ApiServer:
    """One that answers so at a place, from the request after so many on."""
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return odd() if place in ("all", place_of(request)) and len(asked) > after else usual(request)

    client = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="https://api.example.com")
    connection = Connection(client, "https://api.example.com", "test", lambda: None)
    api = ApiServer(connection, patience=3, clock=FakeClock())
    for module in (reconcile, cluster_status, sweep):
        monkeypatch.setattr(module, "reach", lambda *_, **__: Reached(api, api, "ambient"))
    return api


def verbs(author: Author) -> dict[str, Callable[[], object]]:
    context = author.context
    return {
        "reconcile": lambda: reconcile.reconcile_environment(
            context, reconcile.EnvReconcilePayload(environment_id=E, no_wait=True)
        ),
        "diff": lambda: reconcile.diff(context, reconcile.EnvDiffPayload(environment_id=E)),
        "status": lambda: cluster_status.status(context, env_status.EnvStatusPayload(environment_id=E)),
        "sweep": lambda: sweep.sweep(context, sweep.SweepPayload(environment_id=E, apply=True)),
        "destroy": lambda: sweep.destroy_cluster_objects(context, E, namespace=True),
    }


@pytest.mark.parametrize("way", [{"expose": "ingress"}, {"expose": "gateway", "gateway": "infra/public"}])
@pytest.mark.parametrize("name", ODD)
def test_what_is_no_answer_ends_in_an_error_for_people(bound, monkeypatch, name, way):
    scaled = {"autoscale": {"min": 2, "max": 4, "cpu": 50}}
    answered(
        bound,
        {"runtime_image": IMAGE, **way, "hosts": ["bots.example.com"], "ingress_namespaces": "infra", "router": scaled},
    )
    said = 0
    for place in PLACES:
        odd_server(monkeypatch, ODD[name], place)
        for call in verbs(bound).values():
            try:
                call()
            except GreenticError as error:
                said += 1
                assert str(error) and "Traceback" not in str(error)
    assert said or name in ("no-items",)


@pytest.mark.parametrize("after", [1, 3, 6, 12, 20])
def test_credentials_that_end_half_way_are_told_with_the_way_to_new_ones(bound, monkeypatch, after):
    odd_server(monkeypatch, value({"kind": "Status", "code": 401, "message": "Unauthorized"}, 401), "all", after)
    with pytest.raises(GreenticError, match="does not accept the credentials of context `test`") as told:
        verbs(bound)["reconcile"]()
    assert "log in again" in str(told.value.hint)


def test_a_status_is_told_although_the_cluster_answers_nothing_of_use(bound, monkeypatch):
    answered(bound, {"runtime_image": IMAGE, "router": {"autoscale": {"min": 2, "max": 4, "cpu": 50}}})
    odd_server(monkeypatch, text(PAGE, 502), "all")
    found = verbs(bound)["status"]()
    assert isinstance(found, env_status.EnvStatus) and found.warnings is not UNSET
    assert "the cluster was not asked" in found.warnings[0] and len(found.warnings[0]) < 600


@pytest.mark.parametrize("name", ["page", "page-403", "items-numbers", "array"])
def test_what_is_no_api_server_is_told_as_that_and_not_as_a_lack_of_rights(bound, monkeypatch, name):
    answered(bound, {"runtime_image": IMAGE})
    odd_server(monkeypatch, ODD[name], "list")
    with pytest.raises(GreenticError) as told:
        verbs(bound)["reconcile"]()
    assert "something else than an API server" in str(told.value.hint), told.value.hint


def test_a_server_that_is_away_is_told_with_the_next_step(bound, monkeypatch):
    def away() -> httpx2.Response:
        raise httpx2.ConnectError("Connection refused")

    answered(bound, {"runtime_image": IMAGE})
    odd_server(monkeypatch, away, "all")
    for verb in ("reconcile", "diff", "sweep", "destroy"):
        with pytest.raises(GreenticError, match="cannot reach the cluster") as told:
            verbs(bound)[verb]()
        assert "kubectl get --raw /readyz" in str(told.value.hint)
