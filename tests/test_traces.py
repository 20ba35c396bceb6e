"""Traces: what is taken from callers, what is sent, and a collector that is down, slow or wrong."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

import wat
from collector import attributes, collecting, read_json
from conftest import PROGRAMS, Author, make_bundle, make_pack
from greentic.activate.flow_spans import FlowSpans
from greentic.cli import traces
from greentic.cli.traces import sender
from greentic.cluster.call_spans import MOST_TOLD, template
from greentic.ground.backoff import Backoff
from greentic.ground.errors import InvalidArgument
from greentic.k8s.objects import ApiRefused, ClusterUnreachable, Ref
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore
from greentic.telemetry import tracing
from greentic.telemetry.exporter import BATCH, QUEUE, TRIES, Exporter, NotSent
from greentic.telemetry.otel_settings import read_trace_settings
from greentic.telemetry.otlp import as_json, as_protobuf
from greentic.telemetry.otlp_answer import Rejected, rejected
from greentic.telemetry.signals import Signal
from greentic.telemetry.tallies import Tallies
from greentic.telemetry.tracing import Remote, Sampling, Span, Tracer, remote_of, told_others
from test_flow import node, to
from test_k8s_client import ok, server, status
from test_programs import Worker
from waiting import until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.fixture
def traced():
    """Everything is traced; the spans that ended."""
    ended: list[Span] = []
    tracing.install(Tracer(Sampling(1.0), ended.append))
    yield ended
    tracing.install(None)
    tracing._open.set(None)


# -- what callers tell ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parent", "state", "found"),
    [
        (PARENT, b"a=b,c=d", Remote(TRACE, SPAN, True, "a=b,c=d")), (PARENT[:-1] + b"0", None, Remote(TRACE, SPAN, False)),
        (b"cc" + PARENT[2:] + b"-what-the-future-brings", None, Remote(TRACE, SPAN, True)), (PARENT, b"x" * 513, Remote(TRACE, SPAN, True)),
        (PARENT, b"a=\x1b[31m", Remote(TRACE, SPAN, True)), (PARENT, "a=é".encode(), Remote(TRACE, SPAN, True)),
        (None, b"a=b", None), (b"", None, None), (b"ff" + PARENT[2:], None, None), (PARENT + b"-more", None, None), (PARENT.upper(), None, None),
        (PARENT + b"\n", None, None), (b" " + PARENT, None, None), (PARENT[:-1], None, None), (b"00-" + b"0" * 32 + PARENT[35:], None, None),
        (PARENT[:36] + b"0" * 16 + b"-01", None, None), (b"00-" + b"g" * 32 + PARENT[35:], None, None), (PARENT + b", " + PARENT, None, None), (b"00-" * 9999, None, None),
    ],
)  # fmt: skip
def test_threat_hostile_trace_context_is_as_if_it_were_not_there(parent, state, found):
    assert remote_of(parent, state) == found


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_whatever_a_caller_tells_is_taken_rightly_or_not_at_all(parent, state):
    found = remote_of(parent, state)
    assert found is None or (len(found.trace_id), len(found.span_id)) == (32, 16)


def test_which_traces_of_callers_are_sampled():
    spread = [Remote(f"{'0' * 18}{n * ((1 << 56) // 1_000):014x}", SPAN, False) for n in range(1_000)]
    assert all(map(Sampling(1.0).takes, spread)) and not any(map(Sampling(0.0).takes, spread))
    assert 95 <= sum(map(Sampling(0.1).takes, spread)) <= 105
    never = Sampling(0.0, as_told=True)
    assert never.takes(Remote(TRACE, SPAN, True)) and not Sampling(1.0, as_told=True).takes(Remote(TRACE, SPAN, False))


def test_a_share_of_the_traces_that_begin_here_is_sampled_by_an_id_that_others_sample_too(traced):
    tracer = Tracer(Sampling(0.25), traced.append)
    found = [tracer.root("x", "server") for _ in range(4_000)]
    sampled = [span for span in found if span is not None]
    assert 800 < len(sampled) < 1_200 and len({s.trace_id for s in sampled}) == len(sampled)
    assert all(Sampling(0.25).takes(Remote(s.trace_id, SPAN, False)) and len(s.trace_id) == 32 for s in sampled)


def test_other_servers_are_told_what_they_are_part_of_and_whether_it_is_sampled(traced):
    def told() -> Remote:
        fields = {name: value.encode() for name, value in told_others()}
        found = remote_of(fields["traceparent"], fields.get("tracestate"))
        assert found is not None
        return found

    tracer = Tracer(Sampling(0.0, as_told=True), traced.append)
    assert tracer.root("x", "server", Remote(TRACE, SPAN, False, "a=b")) is None
    assert tracing.begin("x") is None and tracing.current() is None
    assert told() == Remote(TRACE, SPAN, False, "a=b"), "as it came"
    assert tracer.root("x", "server") is None
    own = told()
    assert not own.sampled and own.trace_id != TRACE and own.state == ""
    span = tracer.root("x", "server", Remote(TRACE, SPAN, True, "a=b"))
    assert told() == Remote(TRACE, span.span_id, True, "a=b")
    tracing.end(span)
    tracing.install(None)
    assert told_others() == [], "without a tracer nothing is told"


def test_a_request_that_is_not_sampled_makes_no_id_and_no_span(traced, monkeypatch):
    monkeypatch.setattr(tracing, "random_bits", lambda count: pytest.fail("an id was made"))
    monkeypatch.setattr(tracing, "Span", lambda *told: pytest.fail("a span was made"))
    tracer = Tracer(Sampling(0.0), traced.append)
    assert tracer.root("x", "server") is None and tracer.root("x", "server", Remote(TRACE, SPAN, True)) is None
    assert traced == []


def test_spans_nest_and_nothing_is_open_without_a_tracer(traced):
    assert tracing.begin("outside") is None
    with tracing.whole("a", k=1) as a, tracing.within("b", text="x") as b:
        c = tracing.begin("c", "client")
        tracing.end(c, "broken" * 1000)
    assert [s.name for s in traced] == ["c", "b", "a"] and {s.trace_id for s in traced} == {a.trace_id}
    assert (c.parent_id, b.parent_id, a.parent_id) == (b.span_id, a.span_id, "") and len(c.error) == tracing.MAX_ERROR
    assert c.trace_id == a.trace_id
    assert tracing.current() is None
    with pytest.raises(KeyError), tracing.whole("d"):
        raise KeyError("a text of somebody")
    assert traced[-1].error == "KeyError" and all(s.ended >= s.began for s in traced)
    tracing.install(None)
    with tracing.whole("e") as e, tracing.within("f") as f:
        assert e is None and f is None


def test_a_node_that_fails_ends_with_the_one_around_it(traced):
    with tracing.whole("turn"):
        spans = FlowSpans()
        spans.enter("main", "call", "flow.call")
        spans.enter("sub", "x", "exec")
        spans.step("main", "call", "flow.call", None, None, "end")
        spans.enter("main", "last", "exec")
        spans.over()
    assert [(s.attributes.get("greentic.node"), s.error) for s in traced] == [
        ("x", "failed"), ("call", None), ("last", "failed"), (None, None),
    ]  # fmt: skip


# -- calls of an API server -----------------------------------------------------------------------------------------

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted-3f", "namespace": "n"}}


def test_a_call_of_an_api_server_is_told_without_names(traced):
    api, _ = server(ok(SECRET), status(503, "busy"), ok(SECRET), status(403, "planted-3f"), httpx2.ConnectError("CERTIFICATE_VERIFY_FAILED"))  # fmt: skip
    with tracing.whole("verb"), ThreadPoolExecutor(1) as pool:
        api.get(Ref("Secret", "planted-3f", "n"))
        pool.submit(tracing.carried(api.apply), SECRET, force=False).result()
        with pytest.raises(ApiRefused):
            api.delete(Ref("Secret", "planted-3f", "n"), uid="u", resource_version=None)
        with pytest.raises(ClusterUnreachable):
            api.get(Ref("Namespace", "planted-3f", None))
        assert pool.submit(tracing.current).result() is None, "a thread keeps nothing of it"
    *calls, verb = traced
    place = "/api/v1/namespaces/{namespace}/secrets/{name}"
    assert [(s.name, s.attributes["url.template"], s.attributes.get("http.response.status_code"), s.error) for s in calls] == [
        ("kubernetes GET", place, 200, None), ("kubernetes PATCH", place, 200, None), ("kubernetes DELETE", place, 403, "403"),
        ("kubernetes GET", "/api/v1/namespaces/{name}", None, "ClusterUnreachable"),
    ]  # fmt: skip
    assert {s.parent_id for s in calls} == {verb.span_id} and b"planted" not in as_json(traced, {})
    api, _ = server(ok(SECRET))
    api.get(Ref("Secret", "planted-3f", "n"))
    assert len(traced) == 5, "outside of a verb nothing is told"


def test_the_spans_of_calls_are_bounded_and_the_others_are_counted(traced):
    api, _ = server(*[ok(SECRET)] * (2 * MOST_TOLD + 3))
    for more in (3, 0):
        with tracing.whole("verb") as verb:
            for _ in range(MOST_TOLD + more):
                api.get(Ref("Secret", "a", "n"))
        assert sum(s.parent_id == verb.span_id for s in traced) == MOST_TOLD
        assert verb.attributes.get("greentic.kubernetes.calls_not_told", 0) == more


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/apis", "/apis"), ("/api/v1/namespaces", "/api/v1/namespaces"), ("/apis/apps/v1/namespaces/n/deployments", "/apis/apps/v1/namespaces/{namespace}/deployments"),
        ("/apis/x.y/v1/namespaces/n/environments/e/status", "/apis/x.y/v1/namespaces/{namespace}/environments/{name}/status"),
        ("/api/v1/namespaces/n/pods/p:80/proxy/status", "/api/v1/namespaces/{namespace}/pods/{name}/proxy"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/c", "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"),
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
    ],
)  # fmt: skip
def test_a_path_without_its_names(path, found):
    assert template(path) == found


# -- what is sent ---------------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
values = st.one_of(
    texts, st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False, allow_infinity=False)
)


@given(texts, st.dictionaries(texts, values, max_size=4), st.one_of(st.none(), texts), st.sampled_from(["", "a=b"]))
def test_both_forms_say_what_the_span_says_as_others_read_them(name, told, error, state):
    span = Span(name, "client", TRACE, SPAN, state, None)
    span.attributes, span.error, span.ended = told, error, span.began + 5
    read: list[ExportTraceServiceRequest] = [ExportTraceServiceRequest(), ExportTraceServiceRequest()]
    read[0].ParseFromString(as_protobuf([span], {"service.name": "x"}))
    read_json(as_json([span], {"service.name": "x"}), read[1])
    assert read[0] == read[1]
    ((scope,),) = [r.scope_spans for r in read[0].resource_spans]
    (found,) = scope.spans
    assert (found.trace_id.hex(), found.parent_span_id.hex(), found.span_id.hex()) == (TRACE, SPAN, span.span_id)
    assert (found.name, found.kind, found.trace_state) == (name, 3, state) and attributes(found) == told
    assert (found.start_time_unix_nano, found.end_time_unix_nano) == (span.began, span.ended)
    assert (found.status.code, found.status.message) == ((0, "") if error is None else (2, error))
    assert attributes(read[0].resource_spans[0].resource) == {"service.name": "x"}


def test_a_text_that_no_encoding_has_is_sent_all_the_same():
    span = Span("a\ud800", "internal", TRACE, "", "", None)
    span.attributes, span.error = {"k\udfff": "v\ud800"}, "e\ud800"
    for read_it in (lambda r: r.ParseFromString(as_protobuf([span], {})), lambda r: read_json(as_json([span], {}), r)):
        read_it(found := ExportTraceServiceRequest())
        (told,) = found.resource_spans[0].scope_spans[0].spans
        assert (told.name, attributes(told), told.status.message) == ("a?", {"k?": "v?"}, "e?")


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}


def read(**environ: str) -> object:
    return read_trace_settings(environ, "p", "p-1")


def test_the_standard_variables():
    assert read() is None and read(**ENDPOINT, OTEL_SDK_DISABLED="True") is None
    assert read(**ENDPOINT, OTEL_TRACES_EXPORTER="none") is None
    found = read(**ENDPOINT)
    assert (found.endpoint, found.form, found.headers, found.timeout) == (
        "http://c:4318/v1/traces",
        "http/protobuf",
        {},
        10,
    )
    assert found.resource["service.name"] == "p" and found.resource["service.instance.id"] == "p-1"
    found = read(
        **ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://t/x", OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/json",
        OTEL_EXPORTER_OTLP_HEADERS="all=1", OTEL_EXPORTER_OTLP_TRACES_HEADERS="authorization=Bearer%20x, b = c ", OTEL_EXPORTER_OTLP_TIMEOUT="2500",
        OTEL_SERVICE_NAME="mine", OTEL_RESOURCE_ATTRIBUTES="service.name=no,zone=a%20b", OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0",
    )  # fmt: skip
    assert (found.endpoint, found.form, found.timeout) == ("https://t/x", "http/json", 2.5)
    assert found.headers == {"authorization": "Bearer x", "b": "c"}
    assert (found.resource["service.name"], found.resource["zone"]) == ("mine", "a b")
    assert found.sampling == Sampling(0.0)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:planted@c"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:x"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"), ("OTEL_EXPORTER_OTLP_HEADERS", "planted"), ("OTEL_EXPORTER_OTLP_HEADERS", "a=planted%0d%0ab: c"),
        ("OTEL_TRACES_SAMPLER", "mine"), ("OTEL_TRACES_SAMPLER_ARG", "2"), ("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_RESOURCE_ATTRIBUTES", "x"), ("OTEL_BSP_SCHEDULE_DELAY", "0"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_by_its_name_and_never_a_secret(variable, value):
    sampler = {"OTEL_TRACES_SAMPLER": "traceidratio"} if variable.endswith("_ARG") else {}
    with pytest.raises(InvalidArgument, match=variable) as told:
        read(**(ENDPOINT | sampler | {variable: value}))
    assert "planted" not in str(told.value)


# -- a collector that is well, slow, wrong or down ------------------------------------------------------------------


def exporter(send: object, delay: float = 0.01) -> tuple[Exporter, Tallies, Signal]:
    tallies, signal = Tallies(), Signal()
    return (
        Exporter(lambda spans: b"%d" % len(spans), send, delay=delay, signal=signal, tallies=tallies),
        tallies,
        signal,
    )


def one() -> Span:
    return Span("s", "internal", TRACE, "", "", None)


def test_threat_slow_collector_the_queue_is_bounded_and_nobody_waits():
    gate, sent = threading.Event(), list[bytes]()

    def slow(body: bytes, seconds: float | None) -> None:
        assert gate.wait(30)
        sent.append(body)

    out, tallies, signal = exporter(slow)
    for _ in range(3 * QUEUE):
        out.take(one())
    dropped = tallies.of("greentic_spans", ("dropped",))
    assert 3 * QUEUE - (QUEUE + BATCH) <= dropped <= 2 * QUEUE and len(out._queue) <= QUEUE
    gate.set()
    until(lambda: tallies.of("greentic_spans", ("sent",)) == 3 * QUEUE - dropped, "what the queue took is sent")
    assert (
        signal.told()["last_ok_at"]
        and signal.told()["last_error"] is None
        and sum(map(int, sent)) == 3 * QUEUE - dropped
    )
    out.close()


@pytest.mark.parametrize(("passing", "tries"), [(True, TRIES), (False, 1)])
def test_what_does_not_arrive_is_tried_again_where_that_helps_then_lost_and_told(passing, tries, monkeypatch):
    monkeypatch.setattr("greentic.telemetry.exporter.AGAIN", Backoff(0.001, 0.001))  # fmt: skip
    asked: list[bytes] = []

    def wrong(body: bytes, seconds: float | None) -> None:
        asked.append(body)
        raise NotSent("collector http://c: http status: 404", passing=passing)

    out, tallies, signal = exporter(wrong)
    out.take(one())
    until(lambda: tallies.of("greentic_spans", ("lost",)) == 1, "it is given up")
    assert len(asked) == tries and signal.told()["last_error"].endswith("404") and signal.told()["last_ok_at"] is None
    out.close()


def test_at_the_end_what_is_left_is_sent_once():
    sent: list[bytes] = []
    out, tallies, _ = exporter(lambda body, seconds: sent.append(body), delay=600)
    out.take(one())
    out.close()
    assert sent == [b"1"] and tallies.of("greentic_spans", ("sent",)) == 1


def test_the_sender_tells_what_a_collector_answers():
    with collecting() as collector:
        settings = read(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_EXPORTER_OTLP_HEADERS="api-key=planted")
        sender(settings)(b"x", None)
        path, headers, body = collector.requests[0]
        assert (path, headers["content-type"], headers["api-key"], body) == (
            "/v1/traces",
            "application/x-protobuf",
            "planted",
            b"x",
        )
        for code, passing in ((503, True), (429, True), (400, False), (404, False), (302, False)):
            collector.code = code
            with pytest.raises(NotSent, match=f"http status: {code}") as told:
                sender(settings)(b"x", None)
            assert told.value.passing == passing and "planted" not in str(told.value)
    with pytest.raises(NotSent, match="collector http://127") as told:  # it is down now
        sender(settings)(b"x", 0.5)
    assert told.value.passing
    with socket.create_server(("127.0.0.1", 0)) as mute:  # it takes the connection and says nothing
        settings = read(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(NotSent):
            sender(settings)(b"x", 0.1)


def partly(spans: int, why: str) -> bytes:
    partial = ExportTracePartialSuccess(rejected_spans=spans, error_message=why)
    return ExportTraceServiceResponse(partial_success=partial).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        ("application/x-protobuf", partly(2, "quota"), Rejected(2, "quota")), ("application/x-protobuf", partly(0, "a warning"), None),
        ("application/x-protobuf", partly(1 << 40, "é" * 900), Rejected(1 << 40, "é" * 300)), ("application/x-protobuf", partly(-1, "x"), None),
        ("application/x-protobuf", partly(2, "quota")[:-1], None), ("application/x-protobuf", b"\xff" * 99, None), ("text/plain", b"OK", None),
        ("application/x-protobuf", b"", None), ("application/x-protobuf", b"\x12\x05other" + partly(3, ""), Rejected(3, "")),
    ],
)  # fmt: skip
def test_what_a_collector_refuses_of_what_it_took(kind, body, told):
    """It answers 200 and loses spans: they were counted as sent."""
    with collecting() as collector:
        collector.answer = kind, body
        assert sender(read(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url))(b"x", None) == told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"partialSuccess":{"rejectedSpans":"2","errorMessage":"quota"}}', Rejected(2, "quota")), ('{"partialSuccess":{"rejectedSpans":2}}', Rejected(2, "")),
        ('{"partialSuccess":{}}', None), ("{}", None), ("[]", None), ("{", None), ('{"partialSuccess":{"rejectedSpans":"-9"}}', None), ('{"partialSuccess":5}', None),
        ('{"partialSuccess":{"rejectedSpans":' + "9" * 5000 + "}}", None), ('{"partialSuccess":{"rejectedSpans":"' + "9" * 5000 + '"}}', None),
    ],
)  # fmt: skip
def test_the_same_in_json(body, told):
    assert rejected(body.encode(), "http/json") == told


def test_a_web_server_that_answers_everything_is_no_collector():
    with collecting() as collector:
        collector.answer = "text/html; charset=utf-8", b"<html>welcome"
        with pytest.raises(NotSent, match="a page of HTML") as told:
            sender(read(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url))(b"x", None)
        assert not told.value.passing


@pytest.mark.parametrize(("refused", "sent"), [(2, 1), (3, 0), (99, 0)])
def test_refused_spans_are_lost_and_told(refused, sent):
    out, tallies, signal = exporter(lambda body, seconds: Rejected(refused, "quota"), delay=600)
    for _ in range(3):
        out.take(one())
    out.close()
    assert tallies.of("greentic_spans", ("sent",)) == sent and tallies.of("greentic_spans", ("lost",)) == 3 - sent
    told = signal.told()
    assert told["last_error"] == f"the collector refused {3 - sent} of 3 spans: quota"
    assert (told["last_ok_at"] is not None) == (sent > 0)


# -- real programs --------------------------------------------------------------------------------------------------


def asking(url: str) -> bytes:
    """A component that asks an address, and answers what it was given."""
    result = ("result", wat.BYTES, "string")
    request = wat.Function(
        "request", {"method": "string", "url": "string", "headers": ("list", ("tuple", ["string", "string"])), "body": wat.opt(wat.BYTES)}, result
    )  # fmt: skip
    nothing = " ".join(["(i32.const 0)"] * 5)
    body = f"(call $request (i32.const 16) (i32.const 3) (i32.const 19) (i32.const {len(url)}) {nothing} (i32.const 512)) {wat.ok_06(*wat.payload_06())}"
    return wat.node_06(body, {"greentic:host/http-v1@1.0.0": [request]}, data=f'(data (i32.const 16) "GET{url}")')


def turn(port: int, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", b'{"text":"hi"}', {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def telemetry(port: int) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/status")
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found["telemetry"]


def authored(tmp_path: Path, url: str) -> None:
    author = Author(Context(EnvironmentStore(tmp_path / "store"))).create()
    nodes = [
        node("first", "emit.response", {"text": "a"}, to("ask")),
        node("ask", "asking", {"input": {"text": "planted-9d1c"}}, operation="run"),
    ]
    bundle = make_bundle(tmp_path, {"app": make_pack("app", {"main": {"nodes": nodes}}, {"asking": asking(url)})})
    author.deployed(bundle, bundle.as_uri())
    author.strip()


@pytest.mark.e2e
def test_one_trace_from_the_request_through_nodes_and_components_to_another_server(tmp_path):
    with collecting() as collector, collecting() as other:
        authored(tmp_path, f"{other.url}/there?key=planted-9d1c")
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20", "GREENTIC_HTTP_EGRESS": "127.0.0.1",
            "GREENTIC_BUNDLE_CACHE_DIR": str(tmp_path / "cache"), "OTEL_SERVICE_NAME": "night-shift",
        }  # fmt: skip
        worker = Worker(tmp_path / "store", tmp_path, **environ)
        try:
            port = worker.port()
            until(lambda: any(s.name == "boot" for s in collector.spans()), "the boot is told")
            boot = {s.name: s for s in collector.spans()}
            assert {"boot", "trust", "pull", "fetch", "gate", "unpack", "load", "compile"} == boot.keys()
            assert (
                len({s.trace_id for s in boot.values()}) == 1 and boot["fetch"].parent_span_id == boot["pull"].span_id
            )
            assert boot["compile"].parent_span_id == boot["load"].span_id
            assert {boot[step].parent_span_id for step in ("trust", "pull", "load")} == {boot["boot"].span_id}
            assert turn(port, traceparent=PARENT.decode(), tracestate="a=b", x_request_id="r-7") == 200
            until(
                lambda: any(s.trace_id.hex() == TRACE and s.kind == 2 for s in collector.spans()), "the request is told"
            )
            spans = [s for s in collector.spans() if s.trace_id.hex() == TRACE]
            by_name = {s.name: s for s in spans}
            chain = ["POST", "turn", "node component", "component asking", "http request"]
            assert sorted(by_name) == sorted([*chain, "node emit"]) and len(spans) == 6
            above = SPAN
            for name in chain:
                assert by_name[name].parent_span_id.hex() == above, name
                above = by_name[name].span_id.hex()
            assert by_name["node emit"].parent_span_id == by_name["turn"].span_id
            assert (
                other.requests[0][1]["traceparent"] == f"00-{TRACE}-{above}-01"
                and other.requests[0][1]["tracestate"] == "a=b"
            )
            assert attributes(by_name["POST"])["http.request.header.x-request-id"] == "r-7"
            assert attributes(by_name["node component"])["greentic.node"] == "ask"
            resource = attributes(collector.exports()[-1].resource_spans[0].resource)
            assert resource["service.name"] == "night-shift"
            assert turn(port, traceparent="00-" + "0" * 32 + f"-{SPAN}-01") == 200  # hostile: a trace of its own
            assert turn(port, traceparent=PARENT.decode()[:-1] + "0") == 200  # not sampled by who asks
            assert other.requests[-1][1]["traceparent"] == PARENT.decode()[:-1] + "0", "who is asked next knows"
            until(lambda: sum(s.name == "POST" for s in collector.spans()) == 2, "the other one is told")
            assert not any(b"planted-9d1c" in body for _, _, body in collector.requests)
            told = telemetry(port)
            assert (told["exporter"], told["installed"], told["init_error"]) == ("otlp", True, None)
            assert told["signals"]["traces"]["last_ok_at"] and told["signals"]["traces"]["last_error"] is None
        finally:
            assert worker.stop() == 0


@pytest.mark.e2e
def test_threat_slow_collector_costs_no_request_and_is_told(tmp_path):
    with collecting(503) as collector, collecting() as other:
        collector.gate.clear()  # slow first, wrong later
        authored(tmp_path, f"{other.url}/")
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "10",
            "GREENTIC_HTTP_EGRESS": "127.0.0.1",
        }
        worker = Worker(tmp_path / "store", tmp_path, **environ)
        try:
            port = worker.port()
            assert [turn(port) for _ in range(20)] == [200] * 20
            collector.gate.set()
            until(lambda: telemetry(port)["signals"]["traces"]["last_error"], "the failure is told")
            told = telemetry(port)["signals"]["traces"]
            assert told["last_error"].endswith("http status: 503") and told["last_error_at"]
            assert turn(port) == 200
        finally:
            assert worker.stop() == 0


@pytest.mark.e2e
def test_a_setting_that_makes_no_sense_is_told_and_the_worker_serves(tmp_path):
    with collecting() as other:
        authored(tmp_path, f"{other.url}/")
        worker = Worker(
            tmp_path / "store", tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://c:1", OTEL_EXPORTER_OTLP_PROTOCOL="grpc"
        )
        try:
            told = telemetry(worker.port())
            assert (told["exporter"], told["installed"]) == ("none", False) and "expected `http/protobuf`" in told[
                "init_error"
            ]
            assert "nothing is traced" in worker.out.read_text()
        finally:
            assert worker.stop() == 0


@pytest.mark.e2e
def test_a_verb_is_a_trace_and_nothing_of_it_is_imported_otherwise(tmp_path):
    code = (
        "import sys; sys.argv = ['gtc', 'op', '--store-root', sys.argv[1], 'env', 'list']\nfrom greentic.cli.gtc import main\n"
        "try: main()\nexcept SystemExit: pass\nprint(sorted(m for m in sys.modules if m.startswith('greentic.telemetry')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert not {"exporter", "otlp", "otel_settings"} & {m.rpartition(".")[2] for m in eval(done.stderr)}
    with collecting() as collector:
        environ = os.environ | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
        }
        words = [str(PROGRAMS / "gtc"), "op", "--store-root", str(tmp_path), "env", "list"]
        assert subprocess.run(words, env=environ, capture_output=True, timeout=60).returncode == 0
        assert [s.name for s in collector.spans()] == ["gtc op env list"]
        assert attributes(collector.exports()[0].resource_spans[0].resource)["service.name"] == "gtc"


def test_a_collector_under_the_name_of_the_existing_worker_is_told(monkeypatch):
    """Who came from the existing worker was traced no more, and nobody was told."""
    monkeypatch.setattr(tracing, "_refused", None)
    monkeypatch.setenv("OTLP_ENDPOINT", " ")
    with traces.traced("x"):
        assert tracing.refused() is None
    monkeypatch.setenv("OTLP_ENDPOINT", "http://u:planted@c:4318")
    with traces.traced("x"):
        told = tracing.refused()
    assert told is not None and "OTEL_EXPORTER_OTLP_ENDPOINT" in told and "planted" not in told
