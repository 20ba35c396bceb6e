#!/usr/bin/env python3
"""A distributor that lies, for trying any worker against it. It needs nothing but Python.

    python3 kit/evil_distributor.py BUNDLE [--port 8666] [--host 127.0.0.1] [--certificate PEM --key PEM]
    python3 kit/evil_distributor.py --table

Every case has its own address: `http://HOST:PORT/<case>/bundle.gtbundle`, and those of a registry `oci://HOST:PORT/<case>:latest`.
Point a revision at one, pinned to the digest of BUNDLE, and start the worker: it must do what the table says. `serve` means that
it comes up and answers; `refuse` that it ends with an error, with nothing unpacked and nothing left that a later start could use.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    name: str
    does: str
    must: str
    """`serve` or `refuse`"""
    because: str


CASES = (
    Case("honest", "sends the bundle", "serve", ""),
    Case("truncate", "always ends half way", "refuse", "a short body is never a whole one"),
    Case("truncate-once", "ends half way once, then gives parts", "serve", "what came is kept, the rest is asked for"),
    Case(
        "ok-to-range",
        "ends half way once, then answers a Range with 200 and the whole",
        "serve",
        "the whole begins at 0",
    ),
    Case(
        "wrong-content-range",
        "ends half way once, then sends a part from elsewhere",
        "serve",
        "start over with the whole",
    ),
    Case(
        "changed-etag",
        "ends half way once, then sends a part of another file with another ETag",
        "serve",
        "start over with the whole",
    ),
    Case(
        "same-etag-other-bytes",
        "ends half way once, then sends other bytes under the same ETag",
        "serve",
        "the digest tells; fetch once more without what was there",
    ),
    Case(
        "range-refused",
        "ends half way once, then answers 403 to every Range",
        "serve",
        "who is refused a part asks for the whole",
    ),
    Case(
        "chunked-cut-once",
        "sends chunks and ends between two of them once",
        "serve",
        "no last chunk is a cut, not a whole",
    ),
    Case(
        "lengthless-cut-once",
        "announces no length and ends half way once, as behind an old proxy",
        "serve",
        "where nothing tells the end, bytes that do not match may be cut: ask once more",
    ),
    Case("early-answers", "sends 100, 102 and 103 before the answer", "serve", "what comes before the answer is none"),
    Case("two-lengths", "announces two lengths", "refuse", "what stands twice must say the same"),
    Case(
        "drip-head", "sends a field of the head now and then, for ever", "refuse", "one deadline for heads and bodies"
    ),
    Case(
        "gzip-label",
        "labels the bundle as gzip, which it is not",
        "serve",
        "a label is only a label; the digest decides",
    ),
    Case("stall", "sends half and then nothing, without closing", "refuse", "no byte within the idle limit"),
    Case("slow-drip", "sends a byte now and then, for ever", "refuse", "limit on the whole download"),
    Case("long-length", "announces more than it sends", "refuse", "truncated"),
    Case("short-length", "announces less than it has", "refuse", "the digest does not match"),
    Case("endless", "announces nothing and never ends", "refuse", "limit on the size"),
    Case("huge-length", "announces a million gigabytes", "refuse", "limit on the size, before a byte is read"),
    Case("flipped-byte", "sends the bundle with one byte changed", "refuse", "the digest does not match"),
    Case(
        "swap-on-second-get",
        "sends the bundle once, and something else from then on",
        "serve",
        "what was hashed is what is unpacked; nothing is fetched twice",
    ),
    Case("gzip", "sends the bundle compressed", "refuse", "what comes is the file, and nothing is inflated"),
    Case("gzip-bomb", "sends zeros with a content coding", "refuse", "nothing is inflated"),
    Case("redirect-loop", "redirects to itself", "refuse", "few redirects"),
    Case(
        "redirect-metadata",
        "redirects to a metadata address",
        "refuse",
        "link-local and metadata addresses are refused",
    ),
    Case("redirect-file", "redirects to file:///etc/passwd", "refuse", "redirects lead to http and https alone"),
    Case("busy-then-ok", "answers 503 with Retry-After twice", "serve", "overload passes"),
    Case("busy", "always answers 503", "refuse", "attempts are limited"),
    Case("not-found", "answers 404", "refuse", ""),
    Case("error-page", "answers 200 with a page of HTML", "refuse", "the digest does not match"),
    Case("huge-header", "sends a header of a megabyte", "refuse", ""),
    Case("no-http", "answers something that is no HTTP", "refuse", ""),
    Case("oci-honest", "a registry that has the bundle", "serve", ""),
    Case(
        "oci-token-metadata",
        "a registry that sends the worker to a metadata address for a token",
        "refuse",
        "tokens come over https or from the registry's own host",
    ),
    Case(
        "oci-challenges",
        "a registry that asks for Negotiate, Basic or Bearer in two fields",
        "serve",
        "all challenges of all fields are read",
    ),
    Case("oci-token-garbage", "a token endpoint that answers a page", "refuse", ""),
    Case(
        "oci-wrong-layer",
        "a layer that is not what the manifest says",
        "refuse",
        "the layer's digest is compared while it streams",
    ),
    Case(
        "oci-wrong-manifest", "a manifest that is not the one of its digest", "refuse", "a manifest by digest is hashed"
    ),
    Case("oci-index-loop", "an index that leads to itself", "refuse", "few indexes"),
    Case("oci-huge-manifest", "a manifest without an end", "refuse", "manifests are bounded"),
    Case("oci-strange-layer", "a layer of an unknown media type", "refuse", ""),
)
ETAG = '"first"'


def table() -> str:
    lines = ["| case | the server | a worker must | because |", "|---|---|---|---|"]
    lines += [f"| `{c.name}` | {c.does} | {c.must} | {c.because} |" for c in CASES]
    return "\n".join(lines)


class EvilDistributor:
    """Serves the cases on a port of its own."""

    def __init__(
        self, bundle: bytes, host: str = "127.0.0.1", port: int = 0, tls: tuple[str, str] | None = None
    ) -> None:
        self.bundle, self.counts, self.lock = bundle, dict[str, int](), threading.Lock()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.host, self.port = host, self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, case: str) -> str:
        if case.startswith("oci-"):
            digest = f"@sha256:{'0' * 64}" if case == "oci-wrong-manifest" else ":latest"
            return f"oci://{self.host}:{self.port}/{case}{digest}"
        return f"http://{self.host}:{self.port}/{case}/bundle.gtbundle"

    def stop(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        found = re.match(r"/v2/([a-z-]+)/(.*)|/([a-z-]+)(?:/.*)?\Z", path)
        name = (found.group(1) or found.group(3)) if found else ""
        with self.lock:
            self.counts[name] = count = self.counts.get(name, 0) + 1
            self.requests.append((request.command, request.path, dict(request.headers.items())))
        try:
            if found and found.group(1):
                self._registry(request, name, found.group(2))
                return
            act = getattr(self, "_" + name.replace("-", "_"), None)
            if act is None:
                _send(request, 404, b"no such case")
            else:
                act(request, count)
        except OSError:
            request.close_connection = True

    # -- the cases ----------------------------------------------------------------------------------------------------

    def _honest(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 200, self.bundle)

    def _half(self, request: BaseHTTPRequestHandler) -> None:
        _head(request, 200, {"Content-Length": str(len(self.bundle)), "ETag": ETAG, "Accept-Ranges": "bytes"})
        request.wfile.write(self.bundle[: len(self.bundle) // 2])
        request.wfile.flush()

    def _truncate(self, request: BaseHTTPRequestHandler, count: int) -> None:
        self._half(request)
        request.close_connection = True

    def _cut_then(self, request: BaseHTTPRequestHandler, count: int, then: Callable[[int], None]) -> None:
        start = re.match(r"bytes=(\d+)-", request.headers.get("Range") or "")
        if count == 1:
            self._truncate(request, count)
        elif start is None:
            _send(request, 200, self.bundle)
        else:
            then(int(start.group(1)))

    def _part(self, request: BaseHTTPRequestHandler, start: int, data: bytes, etag: str = ETAG) -> None:
        shown = f"bytes {start}-{len(self.bundle) - 1}/{len(self.bundle)}"
        _send(request, 206, data[start:], {"Content-Range": shown, "ETag": etag})

    def _truncate_once(self, request: BaseHTTPRequestHandler, count: int) -> None:
        self._cut_then(request, count, lambda start: self._part(request, start, self.bundle))

    def _ok_to_range(self, request: BaseHTTPRequestHandler, count: int) -> None:
        self._cut_then(request, count, lambda start: _send(request, 200, self.bundle))

    def _wrong_content_range(self, request: BaseHTTPRequestHandler, count: int) -> None:
        self._cut_then(request, count, lambda start: self._part(request, max(start - 7, 0), self.bundle))

    def _changed_etag(self, request: BaseHTTPRequestHandler, count: int) -> None:
        self._cut_then(request, count, lambda start: self._part(request, start, bytes(len(self.bundle)), '"second"'))

    def _same_etag_other_bytes(self, request: BaseHTTPRequestHandler, count: int) -> None:
        self._cut_then(request, count, lambda start: self._part(request, start, bytes(len(self.bundle))))

    def _range_refused(self, request: BaseHTTPRequestHandler, count: int) -> None:
        self._cut_then(request, count, lambda start: _send(request, 403, b"no parts here"))

    def _chunked_cut_once(self, request: BaseHTTPRequestHandler, count: int) -> None:
        data = self.bundle[: len(self.bundle) // 2] if count == 1 else self.bundle
        _head(request, 200, {"Transfer-Encoding": "chunked"})
        request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) + (b"" if count == 1 else b"0\r\n\r\n"))
        request.close_connection = True

    def _lengthless_cut_once(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _head(request, 200, {"Connection": "close"})
        request.wfile.write(self.bundle[: len(self.bundle) // 2] if count == 1 else self.bundle)
        request.close_connection = True

    def _early_answers(self, request: BaseHTTPRequestHandler, count: int) -> None:
        for status in (b"100 Continue", b"102 Processing", b"103 Early Hints"):
            request.wfile.write(b"HTTP/1.1 " + status + b"\r\nX-Early: yes\r\n\r\n")
        _send(request, 200, self.bundle)

    def _two_lengths(self, request: BaseHTTPRequestHandler, count: int) -> None:
        size = len(self.bundle)
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Length: %d\r\n\r\n" % (size, size - 1))
        request.wfile.write(self.bundle)
        request.close_connection = True

    def _drip_head(self, request: BaseHTTPRequestHandler, count: int) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.stopped.wait(0.05):
            request.wfile.write(b"X-Drip: y\r\n")

    def _gzip_label(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 200, self.bundle, {"Content-Encoding": "gzip"})

    def _token(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 200, b'{"token":"t"}')

    def _stall(self, request: BaseHTTPRequestHandler, count: int) -> None:
        self._half(request)
        self.stopped.wait()

    def _slow_drip(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _head(request, 200, {"Content-Length": str(len(self.bundle))})
        for byte in self.bundle:
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
            if self.stopped.wait(0.05):
                return

    def _long_length(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _head(request, 200, {"Content-Length": str(len(self.bundle) + 100)})
        request.wfile.write(self.bundle)
        request.close_connection = True

    def _short_length(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 200, self.bundle[:-1])

    def _endless(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _head(request, 200, {"Connection": "close"})
        request.close_connection = True
        block = self.bundle * (1 + (1 << 16) // len(self.bundle))
        while not self.stopped.is_set():
            request.wfile.write(block)

    def _huge_length(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _head(request, 200, {"Content-Length": str(10**15)})
        request.wfile.write(self.bundle)
        self.stopped.wait()

    def _flipped_byte(self, request: BaseHTTPRequestHandler, count: int) -> None:
        data = bytearray(self.bundle)
        data[len(data) // 2] ^= 1
        _send(request, 200, bytes(data))

    def _swap_on_second_get(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 200, self.bundle if count == 1 else bytes(len(self.bundle)))

    def _gzip(self, request: BaseHTTPRequestHandler, count: int) -> None:
        import gzip

        _send(request, 200, gzip.compress(self.bundle), {"Content-Encoding": "gzip"})

    def _gzip_bomb(self, request: BaseHTTPRequestHandler, count: int) -> None:
        import gzip

        _send(request, 200, gzip.compress(bytes(64 << 20)), {"Content-Encoding": "gzip"})

    def _redirect_loop(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 302, b"", {"Location": request.path})

    def _redirect_metadata(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 307, b"", {"Location": "http://169.254.169.254/latest/meta-data/"})

    def _redirect_file(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 301, b"", {"Location": "file:///etc/passwd"})

    def _busy_then_ok(self, request: BaseHTTPRequestHandler, count: int) -> None:
        if count > 2:
            _send(request, 200, self.bundle)
        else:
            _send(request, 503, b"later", {"Retry-After": "1"})

    def _busy(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 503, b"later")

    def _not_found(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 404, b"not here")

    def _error_page(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _send(request, 200, b"<html>Please sign in to the network</html>")

    def _huge_header(self, request: BaseHTTPRequestHandler, count: int) -> None:
        _head(request, 200, {"Content-Length": "0", "X-Huge": "x" * (1 << 20)})

    def _no_http(self, request: BaseHTTPRequestHandler, count: int) -> None:
        request.wfile.write(b"\x16\x03\x01 this is not the protocol\r\n\r\n")
        request.close_connection = True

    # -- the registry -------------------------------------------------------------------------------------------------

    def _registry(self, request: BaseHTTPRequestHandler, name: str, what: str) -> None:
        digest = f"sha256:{hashlib.sha256(self.bundle).hexdigest()}"
        kind = "application/x-unheard-of" if name == "oci-strange-layer" else "application/octet-stream"
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "layers": [{"mediaType": kind, "digest": digest, "size": len(self.bundle)}],
        }
        if name.startswith("oci-token-"):
            realm = (
                "http://169.254.169.254/token"
                if name == "oci-token-metadata"
                else f"http://{self.host}:{self.port}/error-page"
            )
            _send(request, 401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="evil"'})
        elif name == "oci-challenges" and request.headers.get("Authorization") != "Bearer t":
            _head(
                request,
                401,
                {"WWW-Authenticate": 'Negotiate, Basic realm="x"', "Content-Length": "0"},
                f'bearer REALM = "http://{self.host}:{self.port}/token"',
            )
        elif what.startswith("blobs/"):
            data = bytes(len(self.bundle)) if name == "oci-wrong-layer" else self.bundle
            _send(request, 200, data)
        elif name == "oci-index-loop":
            index = {"schemaVersion": 2, "manifests": [{"digest": digest}]}
            _send(request, 200, json.dumps(index).encode())
        elif name == "oci-huge-manifest":
            _head(request, 200, {"Connection": "close"})
            request.close_connection = True
            while not self.stopped.is_set():
                request.wfile.write(b" " * 65536)
        else:
            _send(
                request,
                200,
                json.dumps(manifest).encode(),
                {"Content-Type": "application/vnd.oci.image.manifest.v1+json"},
            )


def _head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], challenge: str = "") -> None:
    request.send_response(status)
    if challenge:
        request.send_header("WWW-Authenticate", challenge)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    _head(request, status, {"Content-Length": str(len(body))} | (headers or {}))
    if request.command != "HEAD":
        request.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8666)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--table", action="store_true", help="print the table and end")
    arguments = parser.parse_args()
    if arguments.table or arguments.bundle is None:
        print(table())
        return
    bundle = arguments.bundle.read_bytes()
    tls = (arguments.certificate, arguments.key) if arguments.certificate and arguments.key else None
    evil = EvilDistributor(bundle, arguments.host, arguments.port, tls)
    print(f"bundle digest: sha256:{hashlib.sha256(bundle).hexdigest()}")
    for case in CASES:
        print(f"{evil.url(case.name)}  must {case.must}")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        evil.stop()


if __name__ == "__main__":
    main()
