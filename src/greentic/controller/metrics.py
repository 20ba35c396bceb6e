"""What an operator counts, as text that Prometheus reads, beside its probes (formats: operator 4)."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable

_PREFIX = "greentic_operator_"
FAMILIES: dict[str, tuple[str, str]] = {
    "leads": ("gauge", "1 while this process holds the Lease"),
    "generation": (
        "gauge",
        "the generation of the environment that is applied; 0, as the gauges below, while this process does not hold the Lease",
    ),
    "objects": ("gauge", "objects that are as stated"),
    "ready": ("gauge", "1 while the condition Ready is True"),
    "synced": ("gauge", "1 while the condition Synced is True"),
    "degraded": ("gauge", "1 while the condition Degraded is True"),
    "looks_total": ("counter", "times that what is published was asked for"),
    "look_failures_total": ("counter", "times that it could not be had or was refused"),
    "reconciles_total": ("counter", "times that all objects were compared"),
    "reconcile_failures_total": ("counter", "times that this failed"),
    "writes_total": ("counter", "objects that were written or deleted, without the Lease"),
    "drift_healed_total": ("counter", "objects that others had changed or deleted, and that were put right"),
}


class Metrics:
    """Numbers by family; every family is told from the beginning."""

    def __init__(self) -> None:
        self._values = dict.fromkeys(FAMILIES, 0)

    def add(self, name: str, count: int = 1) -> None:
        self._values[name] += count

    def set(self, name: str, value: int) -> None:
        self._values[name] = value

    def state(self, values: dict[str, int], *, leads: bool) -> None:
        """What is true of the environment: told by who leads, for what another one knew last may be long over."""
        self._values |= values if leads else dict.fromkeys(values, 0)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def text(self) -> str:
        lines = []
        for name, (kind, line) in FAMILIES.items():
            full = f"{_PREFIX}{name}"
            lines += [f"# HELP {full} {line}", f"# TYPE {full} {kind}", f"{full} {self._values[name]}"]
        return "\n".join(lines) + "\n"


def serve(port: int, metrics: Metrics, alive: Callable[[], bool]) -> http.server.ThreadingHTTPServer:
    """Serve `/metrics`, `/livez` and `/readyz` in a thread until it is shut down. Raises `OSError` for a port that is taken."""

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            text = metrics.text() if self.path == "/metrics" else "ok\n"
            if self.path not in ("/metrics", "/livez", "/readyz"):
                code = 404
            else:
                code = 503 if self.path == "/livez" and not alive() else 200
            body = text.encode() if code == 200 else b""
            self.send_response(code)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes are not worth a line."""

    server = http.server.ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, name="metrics").start()
    return server
