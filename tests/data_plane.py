"""A small data plane: reads an Ingress and HTTPRoutes as a controller does, and has haproxy do what they say.

Rules:
1. Of two matches the more exact host is taken, then the longer path; a prefix ends at a segment.
2. The backend of a rule is drawn for each request, in proportion to the weights as they stand: nothing is rounded to a share of 256.
3. A certificate is what the Secret that an Ingress names holds. A name that nobody asked for gets 404.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from greentic.ground.documents import JsonObject

DEFAULTS = "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s"


class Backend(NamedTuple):
    """A Service, and what part of the requests is for it."""

    service: str
    weight: int


class Match(NamedTuple):
    """One way in."""

    host: str
    """Empty: any."""
    prefix: str
    backends: tuple[Backend, ...]

    @property
    def condition(self) -> str:
        host = "" if not self.host else f"{{ req.hdr(host),field(1,:),lower -m str {self.host} }}"
        prefix = self.prefix.rstrip("/")
        path = "" if not prefix else f"{{ path,concat(/) -m beg {prefix}/ }}"
        return " ".join(part for part in (host, path) if part)


def read(objects: Sequence[dict]) -> list[Match]:
    """The ways in of an Ingress and of HTTPRoutes, the one to be tried first in front (rule 1)."""
    found: list[Match] = []
    for thing in objects:
        spec = thing["spec"] if thing["kind"] in ("Ingress", "HTTPRoute") else {}
        for rule in spec.get("rules", []):
            if thing["kind"] == "Ingress":
                for path in rule["http"]["paths"]:
                    assert path["pathType"] == "Prefix"
                    service = path["backend"]["service"]["name"]
                    found.append(Match(rule.get("host", ""), path["path"], (Backend(service, 1),)))
                continue
            backends = tuple(Backend(b["name"], b["weight"]) for b in rule["backendRefs"])
            for match in rule["matches"]:
                assert match["path"]["type"] == "PathPrefix"
                found += [Match(host, match["path"]["value"], backends) for host in spec["hostnames"]]
    return sorted(found, key=lambda m: (not m.host, -len(m.prefix.rstrip("/"))))


def certificates(objects: Sequence[dict], secrets: Mapping[str, JsonObject], directory: Path) -> list[Path]:
    """What the Secrets that are named hold, as haproxy reads it (rule 3)."""
    found = []
    for name in sorted({t["secretName"] for o in objects if o["kind"] == "Ingress" for t in o["spec"].get("tls", [])}):
        parts = [base64.b64decode(str(secrets[name][key])) for key in ("tls.crt", "tls.key")]
        found.append(directory / f"{name}.pem")
        found[-1].write_bytes(b"".join(parts))
    return found


def configuration(
    matches: Sequence[Match], addresses: Mapping[str, str], plain: int, secure: int, pems: Sequence[Path]
) -> str:
    """What haproxy reads; `addresses` says where each Service answers."""
    front = ["frontend in", f"  bind 127.0.0.1:{plain}"]
    front += [f"  bind 127.0.0.1:{secure} ssl {' '.join(f'crt {pem}' for pem in pems)}"] if pems else []
    front += ["  http-request set-header X-Forwarded-Proto https if { ssl_fc }"]
    front += [
        f"  use_backend rule-{at}" + (f" if {match.condition}" if match.condition else "")
        for at, match in enumerate(matches)
    ]
    front += ["  default_backend nobody"]
    text = [DEFAULTS, "\n".join(front), "backend nobody\n  http-request return status 404"]
    for at, match in enumerate(matches):
        used = [backend for backend in match.backends if backend.weight]
        rest, draws = sum(backend.weight for backend in used), []
        for backend in used:  # each is drawn from what those before it left (rule 2)
            draws.append(f"  use-server {backend.service} if {{ rand({rest}) lt {backend.weight} }}")
            rest -= backend.weight
        servers = [f"  server {backend.service} {addresses[backend.service]}" for backend in used]
        text.append("\n".join([f"backend rule-{at}", *servers, *draws]))
    return "\n\n".join(text) + "\n"


@contextmanager
def running(program: str, text: str, directory: Path, *ports: int) -> Iterator[None]:
    """haproxy in the foreground until the block ends, once it listens on all of its ports."""
    config = directory / "haproxy.cfg"
    config.write_text(text)
    log = directory / "haproxy.log"
    with log.open("wb") as told:
        process = subprocess.Popen([program, "-db", "-f", str(config)], stdout=told, stderr=subprocess.STDOUT)
    try:
        while not all(_listens(port) for port in ports):
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
