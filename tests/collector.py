"""A collector that stores what it gets, and one that behaves badly; what it got is read with the published protobuf package."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(ThreadingHTTPServer):
    """Answers `code`, once `gate` is open."""

    daemon_threads = True

    def __init__(self, code: int = 200) -> None:
        self.code = code
        self.answer: tuple[str, bytes] = ("application/x-protobuf", b"")
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def exports(self) -> list[ExportTraceServiceRequest]:
        """What came, whatever its form."""
        found = []
        for _, headers, body in self.requests:
            request = ExportTraceServiceRequest()
            if headers["content-type"] == "application/json":
                read_json(body, request)
            else:
                request.ParseFromString(body)
            found.append(request)
        return found

    def spans(self) -> list[Span]:
        return [s for e in self.exports() for r in e.resource_spans for c in r.scope_spans for s in c.spans]


def read_json(body: bytes, request: ExportTraceServiceRequest) -> None:
    """OTLP's JSON has ids in hexadecimal, where protobuf's has base64."""
    import base64
    import json

    told = json.loads(body)
    for spans in (c["spans"] for r in told["resourceSpans"] for c in r["scopeSpans"]):
        for span in spans:
            for key in {"traceId", "spanId", "parentSpanId"} & span.keys():
                span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    json_format.ParseDict(told, request)


def attributes(span: Span) -> dict[str, object]:
    """The attributes of a span, or of a resource."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.gate.wait(30)
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        kind, told = self.server.answer
        self.send_response(self.server.code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def do_GET(self) -> None:
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, b""))
        self.send_response(self.server.code)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def collecting(code: int = 200) -> Iterator[Collector]:
    """A collector, or any server, that runs."""
    server = Collector(code)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        server.server_close()
