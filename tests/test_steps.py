"""The steps of a turn that a trusted caller asks for: what is told, to whom, and how much of it at most."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from conftest import booted
from greentic.activate.lease import Serving
from greentic.components.calls import PackCalls
from greentic.flow.ports import Caller, ComponentCall
from greentic.ingress.app import WorkerApp
from greentic.ingress.auth import BearerGate
from greentic.ingress.steps import MAX_LINES, MAX_STEPS, MAX_VALUE, Steps
from greentic.ingress.trusted_peer import TrustedPeers
from simulators import FakeClock
from test_serve import call


@pytest.fixture
def app(shouting, author):
    author.create().deployed(shouting)
    worker = booted(author.context.store)
    gate, peers = BearerGate(None, enabled=True), TrustedPeers((), trust_loopback=True)
    serving = Serving(worker.activation, worker.store.clock)
    return WorkerApp(serving, "127.0.0.1:1", gate, worker.log, worker.services, peers)


def test_a_trusted_caller_gets_the_steps_of_its_turn(app):
    headers = {"x_greentic_steps": "1", "x_greentic_session": "s"}
    code, _, body = call(app, "POST", "/", b'{"text":"order"}', **headers)
    told = msgspec.json.decode(body)
    assert code == 200 and told["waits"] and told["revision_id"] in app.serving.activation.revisions
    assert [(s["node"], s["kind"]) for s in told["steps"]] == [
        ("shout", "exec"), ("ask", "emit"), ("wait", "session.wait"),
    ]  # fmt: skip
    assert told["steps"][0]["output"] == "ORDER" and told["replies"][0]["payload"]["status"] == "pending"
    told = msgspec.json.decode(call(app, "POST", "/", b'{"text":"tea"}', **headers)[2])
    assert [s["node"] for s in told["steps"]] == ["order", "confirm"], "of this turn alone"
    assert isinstance(msgspec.json.decode(call(app, "POST", "/", b'{"text":"tea"}')[2]), list), "nobody asked for them"


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("10.1.2.3", {}),
        ("127.0.0.1", {"x_forwarded_for": "10.1.2.3"}),
        ("127.0.0.1", {"origin": "https://evil.example"}),
        ("127.0.0.1", {"host": "rebound.example"}),
    ],
)
def test_threat_unauthenticated_invoke_strangers_get_no_steps(app, peer, headers):
    code, _, body = call(app, "POST", "/", b'{"text":"hi"}', peer=peer, x_greentic_steps="1", **headers)
    assert code == 200 and isinstance(msgspec.json.decode(body), list) and b"steps" not in body


def test_a_line_of_a_component_goes_to_the_log_and_to_who_asks():
    logged: list[tuple[str, str]] = []
    steps = Steps(FakeClock())

    class Grants:
        grants = None

    class Limits:
        seconds = 1.0

    calls = PackCalls.__new__(PackCalls)
    calls._limits, calls._log, calls._lane = Limits(), lambda *line: logged.append(line), ""  # type: ignore[assignment]
    caller = Caller("local", "acme")
    asked = ComponentCall("c", "run", None, None, "main", "n", caller, trace=steps)
    for request in (asked, replace(asked, trace=None)):
        calls._host("c", Grants(), request, {}).log("stdout", "working")
    steps.step("main", "n", "exec", None, None, "end")
    line = ("c", "stdout", "working")
    assert logged == [line, line]
    told = [{"source": "component c (stdout)", "text": "working"}]
    assert steps.told()["steps"][0]["log"] == told, "only of the call that is traced"


def test_steps_are_bounded():
    steps = Steps(FakeClock())
    for number in range(MAX_STEPS + 5):
        steps.said("c", "stdout", f"line {number}")
        steps.step("main", f"n{number}", "emit", "é" * MAX_VALUE, [1], "next")
    steps.said("c", "stdout", "the last words of a node that failed")
    told = msgspec.json.decode(msgspec.json.encode(steps.told()))
    assert len(told["steps"]) == MAX_STEPS and told["left_out"] == 5
    assert sum(len(s["log"]) for s in told["steps"]) == MAX_LINES and told["lines_left_out"] == 6
    first = told["steps"][0]
    assert (
        first["input"]["bytes"] == 2 * MAX_VALUE + 2 and len(first["input"]["cut"]) == 2000 and first["output"] == [1]
    )
