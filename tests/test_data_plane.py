"""What is rendered of an exposure, in a real data plane before real workers: hosts, TLS, and shares as they were weighted."""

from __future__ import annotations

import base64
import http.client
import math
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Author, make_bundle, need
from data_plane import Backend, Match, certificates, configuration, read, running
from greentic.ground.documents import JsonObject
from greentic.k8s import names
from greentic.net.certificates import alike
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore
from storm import made_pack
from test_delivery import certificate
from test_k8s_render import rendered
from test_programs import Worker

HOST, OTHER, STRANGER = "bots.example.com", "chat.example.com", "nobody.example.com"
WEIGHTS = (7_777, 2_173, 50)
ASKED = 2_000
GATEWAY = {"expose": "gateway", "gateway": "infra/public", "hosts": [HOST, OTHER], "ingress_namespaces": "infra"}
INGRESS = {"expose": "ingress", "hosts": [HOST, OTHER], "tls_secret": "bots-tls"}


class Served:
    """Pods of an environment, as processes, and where their Services answer."""

    def __init__(self, root: Path) -> None:
        self.root, self.workers, self.addresses = root, dict[str, Worker](), dict[str, str]()
        author = Author(Context(EnvironmentStore(root / "author"))).create()
        deployment = author.add("bot", prefixes=("/bot",))
        self.revisions = []
        for number in range(len(WEIGHTS)):
            (root / f"{number}").mkdir()
            bundle = make_bundle(root / f"{number}", {"app": made_pack(number)})
            self.revisions.append(author.warm(author.stage(deployment, bundle, bundle.as_uri())))
        author.route(deployment, *zip(self.revisions, WEIGHTS, strict=True))
        self.env = author.context.store.load("local")

    def start(self, objects: list[dict]) -> None:
        """Start a process for each Deployment, with the document and the settings that its pods have."""
        data = next(o["data"] for o in objects if o["metadata"]["name"] == names.ENV_STORE)
        seed = self.root / "seed"
        seed.mkdir()
        for name, text in data.items():
            (seed / name).write_text(text)
        for thing in (o for o in objects if o["kind"] == "Deployment"):
            name, container = thing["metadata"]["name"], thing["spec"]["template"]["spec"]["containers"][0]
            told = {e["name"]: e["value"] for e in container["env"] if e["name"].startswith("GREENTIC_REVISION_")}
            told |= {
                "GREENTIC_SEED_DIR": str(seed), "GREENTIC_TRUST_LOOPBACK": "0", "HOME": str(self.root / f"home-{name}"),
                "GREENTIC_SIGNING_KEY_FILE": str(self.root / "session-key"),
            }  # fmt: skip
            self.workers[name] = Worker(self.root / f"store-{name}", self.root, **told)
        self.addresses = {name: f"127.0.0.1:{worker.port()}" for name, worker in self.workers.items()}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    need("haproxy", "haproxy")
    patched = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("data-plane")
    patched.setenv("HOME", str(root))
    (root / "session-key").write_bytes(bytes(range(32)))
    found = Served(root)
    try:
        found.start(rendered(found.env, GATEWAY))
        yield found
    finally:
        for worker in found.workers.values():
            worker.stop()
        patched.undo()


def free_ports(count: int) -> list[int]:
    """Ports of this moment, each its own."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


def ask(connection: http.client.HTTPConnection, host: str, path: str = "/bot") -> tuple[int, bytes]:
    connection.request("POST", path, b'{"text":"hi"}', {"Host": host, "Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.e2e
def test_shares_of_the_data_plane_are_the_weights_in_basis_points(served, tmp_path):
    objects = rendered(served.env, GATEWAY)
    matches = read(objects)
    drawn = next(m for m in matches if m.prefix == "/bot" and m.host == HOST)
    assert drawn.backends == tuple(
        Backend(names.worker_name(r), w) for r, w in zip(served.revisions, WEIGHTS, strict=True)
    )
    plain, secure = free_ports(2)
    text = configuration(matches, served.addresses, plain, secure, [])
    with running(need("haproxy", "haproxy"), text, tmp_path, plain):
        connection = http.client.HTTPConnection("127.0.0.1", plain, timeout=30)
        answers = Counter(ask(connection, (HOST, OTHER)[number % 2]) for number in range(ASKED))
        assert sum(answers.values()) == ASKED and {status for status, _ in answers} == {200}
        found = [sum(n for (_, body), n in answers.items() if f"revision {at}".encode() in body) for at in range(3)]
        assert sum(found) == ASKED
        for number, weight in zip(found, WEIGHTS, strict=True):
            share = weight / 10_000
            assert abs(number - ASKED * share) <= 5 * math.sqrt(ASKED * share * (1 - share)) + 1, (found, weight)
        assert found[2] > 0  # half a percent is no percent, and not nothing either
        assert ask(connection, STRANGER)[0] == 404
        assert ask(connection, HOST, "/botany")[0] == 404  # told by the routers, whom nothing claimed goes to
        connection.close()


@pytest.mark.e2e
def test_an_ingress_serves_its_hosts_with_the_certificate_of_the_secret_that_it_names(served, tmp_path):
    authority, crt, key = certificate(tmp_path, "*.example.com")
    secret: JsonObject = {
        "tls.crt": base64.b64encode(crt.read_bytes()).decode(),
        "tls.key": base64.b64encode(key.read_bytes()).decode(),
    }
    objects = rendered(served.env, INGRESS)
    pems = certificates(objects, {"bots-tls": secret, "another": {}}, tmp_path)
    assert [pem.name for pem in pems] == ["bots-tls.pem"]
    plain, secure = free_ports(2)
    text = configuration(read(objects), served.addresses, plain, secure, pems)
    assert "worker" not in text  # the routers draw
    trusting = alike(ssl.create_default_context(cafile=str(authority)))
    with running(need("haproxy", "haproxy"), text, tmp_path, plain, secure):
        for host in (HOST, OTHER):
            with (
                socket.create_connection(("127.0.0.1", secure), timeout=30) as raw,
                trusting.wrap_socket(raw, server_hostname=host) as wrapped,
            ):
                connection = http.client.HTTPConnection(host)
                connection.sock = wrapped
                status, body = ask(connection, host)
                assert status == 200 and b"revision " in body
                assert ask(connection, STRANGER)[0] == 404
        with socket.create_connection(("127.0.0.1", secure), timeout=30) as raw, pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(raw, server_hostname=HOST)  # nobody else vouches for it


def test_the_reader_takes_the_more_exact_host_and_the_longer_prefix_first():
    route = {
        "kind": "HTTPRoute",
        "spec": {
            "hostnames": [HOST],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": value}}],
                    "backendRefs": [{"name": name, "weight": 3}, {"name": "idle", "weight": 0}],
                }
                for value, name in (("/", "rest"), ("/a/b", "deep"), ("/a", "flat"))
            ],
        },
    }
    service = {"service": {"name": "any"}}
    ingress = {
        "kind": "Ingress",
        "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": service}]}}]},
    }
    matches = read([ingress, route, {"kind": "Service"}])
    assert [(m.host, m.prefix) for m in matches] == [(HOST, "/a/b"), (HOST, "/a"), (HOST, "/"), ("", "/")]
    text = configuration(matches, dict.fromkeys(("rest", "deep", "flat", "any"), "127.0.0.1:1"), 1, 2, [])
    assert "idle" not in text and "use-server deep if { rand(3) lt 3 }" in text
    assert matches[0] == Match(HOST, "/a/b", (Backend("deep", 3), Backend("idle", 0)))
