"""A `LivingCluster` as an API server that real programs ask over HTTP.

Rules:
1. Who asks is told apart by the bearer token; `kubeconfig` writes the file that a program is given.
2. `hold` is called with who asks, the method and the object before a write is done, in a thread of the request alone: what it waits for holds up
   nobody else. `refuse` is called likewise for every request, and may raise what the server answers.
3. Each write that was done is in `done`, with who asked for it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from greentic.ground.documents import JsonObject
from greentic.k8s.objects import KINDS, ApiRefused, Ref, metadata_of
from simulators import LivingCluster


class Asked(NamedTuple):
    """A request: by whom, what it does, to which object (of a list, one without a name)."""

    who: str
    verb: str
    ref: Ref
    rest: bool = False
    """Of a list: whether it goes on with one that was begun."""


class ServedCluster:
    """The server; `cluster` is what it serves."""

    def __init__(self, cluster: LivingCluster) -> None:
        self.cluster = cluster
        self.hold: Callable[[Asked], object] = lambda asked: None
        self.refuse: Callable[[Asked], object] = lambda asked: None
        self.done: list[Asked] = []
        self.page = 1 << 30
        """How many objects an answer to a list holds at most."""
        served = self

        class Handler(_Handler):
            server_of = served

        self._handler = Handler
        self._http = self._listen(0)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def _listen(self, port: int) -> ThreadingHTTPServer:
        found = _Server(("127.0.0.1", port), self._handler)
        threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True).start()
        return found

    def restart(self) -> None:
        """Break every connection off, listen at the same port again."""
        self.close()
        self._http = self._listen(int(self._http.server_address[1]))

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, path: Path, who: str) -> Path:
        """The file that leads somebody here."""
        entry = {"cluster": "c", "user": who, "namespace": "default"}
        raw = {
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": who, "user": {"token": who}}],
            "contexts": [{"name": "c", "context": entry}],
            "current-context": "c",
        }
        path.write_text(yaml.safe_dump(raw))
        return path


class _Server(ThreadingHTTPServer):
    """What a connection ends with is for who asks, and not printed."""

    daemon_threads = True

    def __init__(self, *where: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*where)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for one in self.open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None: ...


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_of: ServedCluster

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self._answered("get")

    def do_PATCH(self) -> None:
        self._answered("patch")

    def do_POST(self) -> None:
        self._answered("create")

    def do_PUT(self) -> None:
        self._answered("update")

    def do_DELETE(self) -> None:
        self._answered("delete")

    def _answered(self, verb: str) -> None:
        size = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        try:
            found = self._do(verb, body)
        except ApiRefused as error:
            told = {"kind": "Status", "code": error.status, "message": error.message, "reason": error.reason}
            self._send(error.status, told, getattr(error, "fields", {}))
        else:
            if found is not None:
                self._send(200, found, {})

    def _send(self, status: int, value: object, fields: dict[str, str]) -> None:
        data = json.dumps(value).encode()
        with contextlib.suppress(OSError):  # who asked may be gone
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **fields}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

    def _do(self, verb: str, body: JsonObject) -> JsonObject | None:
        parts = urlsplit(self.path)
        words = [unquote(word) for word in parts.path.split("/") if word]
        asked_for = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if words == ["apis"]:
            return {
                "groups": [{"name": k.group, "versions": [{"version": v} for v in k.versions]} for k in KINDS.values()]
            }
        inside = words[2:] if words[0] == "api" else words[3:]
        if not inside:
            raise ApiRefused("the server could not find the requested resource", status=404)
        namespace = None
        if inside[0] == "namespaces" and len(inside) > 2:
            namespace, inside = inside[1], inside[2:]
        kind = next((k.name for k in KINDS.values() if k.plural == inside[0]), None)
        if kind is None or (len(inside) > 2 and inside[2] != "status"):
            raise ApiRefused("the server could not find the requested resource", status=404)
        name = inside[1] if len(inside) > 1 else str(metadata_of(body).get("name", ""))
        ref = Ref(kind + ("/status" if len(inside) > 2 else ""), name, namespace)
        if verb == "get" and not name:
            verb = "watch" if "watch" in asked_for else "list"
        asked = Asked(self.headers.get("authorization", "").removeprefix("Bearer "), verb, ref, "continue" in asked_for)
        self.server_of.refuse(asked)
        if verb in ("get", "list", "watch"):
            return self._read(verb, ref, asked_for)
        if "dryRun" not in asked_for:
            self.server_of.hold(asked)
        made = self._write(verb, ref, body, asked_for)
        if "dryRun" not in asked_for:
            self.server_of.done.append(asked)
        return made

    def _read(self, verb: str, ref: Ref, asked_for: dict[str, str]) -> JsonObject | None:
        cluster, selector = self.server_of.cluster, asked_for.get("labelSelector")
        if verb == "list":
            listed, begins = cluster.list(ref.kind, ref.namespace, selector), int(asked_for.get("continue", "0"))
            ends = begins + min(int(asked_for.get("limit", self.server_of.page)), self.server_of.page)
            metadata: JsonObject = {"resourceVersion": listed.resource_version}
            if ends < len(listed.items):
                metadata["continue"] = str(ends)
            return {"kind": f"{ref.kind}List", "metadata": metadata, "items": list(listed.items[begins:ends])}
        if verb == "get":
            found = cluster.get(ref)
            if found is None:
                raise ApiRefused(f'"{ref.name}" not found', status=404)
            return found
        seconds = float(asked_for.get("timeoutSeconds", "5"))
        events = cluster.watch(ref.kind, ref.namespace, selector, asked_for.get("resourceVersion", "0"), seconds)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            for event in events:
                self.wfile.write(json.dumps({"type": event.type, "object": event.thing}).encode() + b"\n")
                self.wfile.flush()
        return None

    def _write(self, verb: str, ref: Ref, body: JsonObject, asked_for: dict[str, str]) -> Any:
        cluster = self.server_of.cluster
        if verb == "create":
            return cluster.create(body)
        if verb == "update":
            return cluster.update(body)
        if verb == "delete":
            conditions: Any = body.get("preconditions") or {}
            version = conditions.get("resourceVersion")
            if not cluster.delete(ref, uid=str(conditions.get("uid", "")), resource_version=version):
                raise ApiRefused(f'"{ref.name}" not found', status=404)
            return {"kind": "Status", "status": "Success"}
        if ref.kind.endswith("/status"):
            told: Any = body.get("status")
            return cluster.patch_status(ref._replace(kind=ref.kind.removesuffix("/status")), told)
        if "merge-patch" in self.headers.get("content-type", ""):
            cluster.merge(ref, body)
            return cluster.get(ref)
        return cluster.apply(body, force=asked_for.get("force") == "true", dry_run="dryRun" in asked_for)
