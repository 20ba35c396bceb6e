"""Everything that asks a server: credentials and their origin, patience, deadlines, the answer as a whole, the way back."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import random
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greentic.distribute import publish
from greentic.distribute.bundle_cache import BundleCache
from greentic.distribute.fetch import FetchLimits, fetch_into
from greentic.distribute.http_source import HttpSource
from greentic.distribute.journal import Journal, Progress
from greentic.distribute.mirrors import check_mirror, first_of
from greentic.distribute.ranges import Ranges
from greentic.ground import optional
from greentic.ground.errors import (
    DigestMismatch,
    FetchError,
    GreenticError,
    InvalidArgument,
    PartRefused,
    ServerBusy,
    Truncated,
)
from greentic.net import request
from greentic.net.addresses import Reach
from greentic.net.document import read_small
from greentic.net.proxies import NONE, proxies_of, proxy_for
from greentic.net.request import send
from greentic.net.terms import Terms
from greentic.registry.challenges import challenges
from greentic.registry.client import Registry
from greentic.registry.login import Credentials, credentials_for, may_have_password
from greentic.registry.manifests import Manifest, layer_of, put_manifest, resolve_manifest
from greentic.registry.reference import parse
from greentic.registry.referrers import referrers
from greentic.registry.upload import put_blob, put_bytes
from simulators import Answer, CountingRandom, FakeClock, SimulatedDistributor

BIG = random.Random(11).randbytes(3_000_000)
MOST_LEAVES = 20
"""Of a made-up document. What is looked for lies three levels down at most; larger ones only take longer to make up."""
QUICK = Terms(idle=5, total=30, clock=FakeClock(), random=CountingRandom())


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Server:
    """Answers as a function says; remembers method, path and headers of each request."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def act(self) -> None:
                outer.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with contextlib.suppress(OSError):
                    answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = act

            def log_message(self, *a: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.name = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.name}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *a: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def reply(h: BaseHTTPRequestHandler, status: int, body: bytes = b"", *headers: tuple[str, str]) -> None:
    h.send_response(status)
    for name, value in headers:
        h.send_header(name, value)
    h.send_header("Content-Length", str(len(body)))
    h.end_headers()
    if h.command != "HEAD":
        h.wfile.write(body)


def manifest(blob: bytes) -> bytes:
    layer = {"mediaType": "application/octet-stream", "digest": sha256(blob), "size": len(blob)}
    return json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()


def registry(server: Server, *, terms: Terms = QUICK, push: bool = False, **environ: str) -> Registry:
    told = {"GREENTIC_OCI_INSECURE_REGISTRIES": server.name} | environ
    return Registry(parse(f"{server.name}/a/b:1"), terms, told, push=push)


# -- a credential has an origin -------------------------------------------------------------------------------------

BASIC = "Basic " + base64.b64encode(b"bot:s3cret").decode()
LOGIN = {"OCI_USERNAME": "bot", "OCI_PASSWORD": "s3cret"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_threat_credential_origin_a_redirect_gets_nothing_and_its_challenge_is_not_answered(status, scheme):
    def elsewhere(h):
        reply(h, 401, b"", ("WWW-Authenticate", f'{scheme} realm="{other.url}/collect"'))

    def ours(h):
        if h.headers.get("Authorization") != BASIC:
            return reply(h, 401, b"", ("WWW-Authenticate", 'Basic realm="r"'))
        return reply(h, status, b"", ("Location", f"{other.url}/x"))

    with Server(elsewhere) as other, Server(ours) as server:
        asked = registry(server, **LOGIN)
        for _ in range(2):  # not known yet, and known
            with contextlib.suppress(FetchError):
                asked.request(asked.url("blobs/x"), QUICK).close()
        assert other.seen and all("authorization" not in headers for _, _, headers in other.seen)
        assert not [path for _, path, _ in other.seen if path.startswith("/collect")]


@pytest.mark.parametrize(
    ("repository", "user"),
    [
        ("team/bots/hello", "bots"), ("team/bots", "bots"), ("team/botsy", "team"), ("team/other", "team"), ("elsewhere/x", "all"), ("teams/x", "all"),
        ("", "all"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_threat_credential_origin_the_key_furthest_above_the_repository_counts(tmp_path, repository, user, turned):
    """Deploy tokens are for one group or project; the first of them was sent for every repository of the registry."""
    keys = {"r.io/team": "team", "https://r.io/team/bots/": "bots", "r.io": "all", "x.io/team/bots/hello": "other"}
    listed = list(keys.items())
    auths = {key: {"username": name, "password": "p"} for key, name in (listed[::-1] if turned else listed)}
    found = credentials_for("r.io", docker(tmp_path, {"auths": auths}), repository=repository)
    assert found == Credentials(user, "p")
    del auths["r.io"]
    found = credentials_for("r.io", docker(tmp_path, {"auths": auths}), repository="elsewhere/x")
    assert found is not None and found.user in ("team", "bots")  # as Docker has it: any key of the host


def test_a_registry_is_asked_as_whoever_its_repository_is_for(tmp_path):
    def ours(h):
        if h.headers.get("Authorization") != BASIC:
            return reply(h, 401, b"", ("WWW-Authenticate", 'Basic realm="r"'))
        return reply(h, 200, manifest(b"x"))

    with Server(ours) as server:
        auths = {
            f"{server.name}/{path}": {"username": "bot", "password": word}
            for path, word in (("c", "no"), ("a", "s3cret"))
        }
        resolve_manifest(registry(server, **docker(tmp_path, {"auths": auths})), "1")


def test_threat_credential_origin_variables_are_for_their_registry_alone():
    environ = LOGIN | {"OCI_REGISTRY": "r.io, s.io:5000"}
    assert credentials_for("r.io", environ) and credentials_for("s.io:5000", environ)
    assert credentials_for("r.io", environ, mirror=True)
    for other in ("evil.io", "s.io", "r.io.evil.io", "r.io:443"):
        assert credentials_for(other, environ) is None
    assert credentials_for("r.io", LOGIN) and credentials_for("r.io", LOGIN, mirror=True) is None


@pytest.mark.parametrize(
    ("realm", "host", "may"),
    [
        ("r.io", "r.io", True), ("auth.docker.io", "registry-1.docker.io", True), ("gitlab.com", "registry.gitlab.com", True),
        ("auth.r.example.com", "r.example.com", True), ("evil.io", "r.io", False), ("r.io.evil.com", "r.io", False), ("10.0.0.2", "10.0.0.1", False),
        ("2.0.0.1", "1.0.0.1", False), ("evilr.io", "r.io", False), ("io", "r.io", False), ("com", "x.com", False), ("localhost", "x", False), ("a.x", "x", False),
        ("evil.co.uk", "example.co.uk", False), ("auth.example.co.uk", "example.co.uk", True), ("auth.example.co.uk", "r.example.co.uk", True), ("evil.com.au", "r.com.au", False),
    ],
)  # fmt: skip
def test_threat_credential_origin_token_servers(realm, host, may):
    assert may_have_password(realm, host, {}) is may
    assert may_have_password(realm, host, {"OCI_REGISTRY": f"{host}, {realm}:5000"})


def _listed(*manifests: tuple[bytes, dict[str, object]]) -> bytes:
    return json.dumps({"manifests": [{"digest": sha256(m), **more} for m, more in manifests]}).encode()


@pytest.mark.parametrize(
    "about", [{"platform": {"os": "unknown", "architecture": "unknown"}}, {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}]
)  # fmt: skip
def test_an_index_leads_to_what_was_built_and_not_to_what_says_how(about: dict[str, object]) -> None:
    built, told = b'{"layers": "built"}', b'{"layers": "told"}'
    indexes = {"one": _listed((told, about), (built, {})), "alone": _listed((told, about))}
    found = indexes | {sha256(built): built, sha256(told): told}
    with Server(lambda h: reply(h, 200, found[h.path.rpartition("/")[2]])) as server:
        assert resolve_manifest(registry(server), "one").document == {"layers": "built"}
        assert resolve_manifest(registry(server), "alone").document == {"layers": "told"}


def test_threat_credential_origin_a_foreign_token_server_is_not_told_the_password():
    realm = "https://tokens.evil.test/t"
    with Server(lambda h: reply(h, 401, b"", ("WWW-Authenticate", f'Bearer realm="{realm}"'))) as server:
        with pytest.raises(FetchError, match="not of its domain") as error:
            resolve_manifest(registry(server, **LOGIN), "1")
        assert "s3cret" not in f"{error.value} {error.value.hint}" and len(server.seen) == 1


def docker(tmp_path: Path, document: object) -> dict[str, str]:
    (tmp_path / "config.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}


AUTH = base64.b64encode(b"a:" + b"long" * 40).decode()


@pytest.mark.parametrize(
    "key", ["r.io", "https://r.io", "http://r.io/", "https://r.io/v1/", "https://r.io/v2/", "r.io/v2"]
)
@pytest.mark.parametrize("wrap", ["{}", "{}\n", "\r\n{}"])
def test_keys_of_the_docker_configuration_are_hosts_in_any_form(tmp_path, key, wrap):
    wrapped = wrap.format("\n".join(AUTH[i : i + 76] for i in range(0, len(AUTH), 76)))
    environ = docker(tmp_path, {"auths": {"x.r.io": {"auth": "eDp5"}, key: {"auth": wrapped}}})
    assert credentials_for("r.io", environ) == Credentials("a", "long" * 40)
    assert credentials_for("r.io:5000", environ) is None and credentials_for("io", environ) is None


def test_the_docker_hub_is_known_by_its_old_address(tmp_path):
    environ = docker(tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}}})
    assert credentials_for("docker.io", environ) == Credentials("a", "b") and credentials_for("r.io", environ) is None


def test_a_store_wins_over_the_file_and_one_that_knows_nothing_leaves_it_the_word(tmp_path):
    helper = tmp_path / "docker-credential-box"
    helper.write_text(
        '#!/bin/sh\nread n\n[ "$n" = r.io ] && printf \'{"Username":"<token>","Secret":"id"}\' && exit 0\necho credentials not found\nexit 1\n'
    )
    helper.chmod(0o755)
    environ = docker(tmp_path, {"auths": {"r.io": {"auth": "YTpi"}, "s.io": {"auth": "YTpi"}}, "credsStore": "box"})
    found = credentials_for("r.io", environ)
    assert found is not None and found.identity_token == "id" and "id'" not in repr(found)
    assert credentials_for("s.io", environ) == Credentials("a", "b")


@pytest.mark.parametrize(
    "text",
    ["", " \n", "{", "[]", "null", "[" * 100_000, '{"auths":[]}', '{"auths":{"r.io":1}}', '{"credsStore":"not-there"}'],
)
def test_threat_optional_fatal_a_docker_configuration_that_cannot_be_used_is_none(tmp_path, text):
    optional.forget()
    assert credentials_for("r.io", docker(tmp_path, text)) is None
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    assert credentials_for("r.io", {"DOCKER_CONFIG": str(tmp_path)}) is None


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda c: (
            st.lists(c)
            | st.dictionaries(
                st.sampled_from(
                    ["auths", "auth", "r.io", "credHelpers", "credsStore", "identitytoken", "username", "password"]
                )
                | st.text(),
                c,
            )
        ),
        max_leaves=MOST_LEAVES,
    )
)
@settings(max_examples=150)
def test_any_docker_configuration_gives_credentials_or_a_typed_error(tmp_path_factory, document):
    with contextlib.suppress(FetchError):
        credentials_for("r.io", docker(tmp_path_factory.getbasetemp(), document))


PLACES = [
    ("DOCKER_CONFIG", "told", "told/config.json"),
    ("REGISTRY_AUTH_FILE", "podman.json", "podman.json"),
    ("HOME", "home", "home/.docker/config.json"),
    ("XDG_RUNTIME_DIR", "run", "run/containers/auth.json"),
    ("XDG_CONFIG_HOME", "conf", "conf/containers/auth.json"),
    ("HOME", "home", "home/.config/containers/auth.json"),
]


@pytest.mark.parametrize("known", range(6))
def test_logins_are_found_where_docker_and_podman_keep_them(tmp_path: Path, known: int) -> None:
    """What a variable names goes first, and Docker's before podman's; a file that does not know a registry leaves it to the next."""
    environ = {variable: str(tmp_path / place) for variable, place, _ in PLACES[1:]}
    for number, (_, _, path) in enumerate(PLACES):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        hosts = ["all.io"] if number < known else ["all.io", "r.io"]
        auths = {host: {"username": f"{host} {number}", "password": "p"} for host in hosts}
        (tmp_path / path).write_text(json.dumps({"auths": auths}))
    if known == 0:
        environ["DOCKER_CONFIG"] = str(tmp_path / "told")
    found = credentials_for("r.io", environ)
    assert found == Credentials(f"r.io {max(known, 1) if known else 0}", "p")
    first = credentials_for("all.io", environ)
    assert first == Credentials(f"all.io {0 if known == 0 else 1}", "p")
    assert credentials_for("none.io", environ) is None


def test_a_docker_configuration_that_was_told_takes_the_place_of_the_usual_one(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"auths": {"r.io": {"auth": "YTpi"}}}')
    environ = {"HOME": str(tmp_path)}
    assert credentials_for("r.io", environ) == Credentials("a", "b")
    assert credentials_for("r.io", environ | {"DOCKER_CONFIG": str(tmp_path / "empty")}) is None


def test_threat_optional_fatal_a_file_of_logins_that_cannot_be_read_leaves_the_word_to_the_next(tmp_path: Path) -> None:
    optional.forget()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / "auth.json").write_text('{"auths": {"r.io": {"auth": "YTpi"}}}')
    environ = {"REGISTRY_AUTH_FILE": str(tmp_path / "broken.json"), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert credentials_for("r.io", environ) == Credentials("a", "b")
    assert any("podman's file of logins" in text and "broken.json" in text for text in optional.lacking())


@pytest.mark.parametrize(
    ("key", "host", "fits"),
    [
        ("*.example.com", "r.example.com", True), ("*.example.com", "example.com", False), ("*.example.com", "a.b.example.com", False),
        ("r.*.com", "r.example.com", True), ("*.*.com", "r.example.com", True), ("*", "localhost", True), ("*", "r.io", False),
        ("*.example.com:5000", "r.example.com:5000", True), ("*.example.com", "r.example.com:5000", False), ("r-?.io", "r-1.io", True),
        ("https://*.example.com/v1/", "r.example.com", True), ("*.example.com/team", "r.example.com", True),
    ],
)  # fmt: skip
def test_a_key_may_be_a_pattern_for_the_parts_of_a_host(tmp_path: Path, key: str, host: str, fits: bool) -> None:
    environ = docker(tmp_path, {"auths": {key: {"auth": "YTpi"}}})
    assert credentials_for(host, environ, repository="team/x") == (Credentials("a", "b") if fits else None)


def test_threat_credential_origin_the_very_name_of_a_host_goes_before_a_pattern(tmp_path: Path) -> None:
    named, pattern = {"username": "named", "password": "p"}, {"username": "pattern", "password": "p"}
    for auths in ({"*.io": pattern, "https://r.io": named}, {"r.io": named, "*.io": pattern}):
        assert credentials_for("r.io", docker(tmp_path, {"auths": auths})) == Credentials("named", "p")
    longer = {"r.io": named, "*.io/team": pattern}
    assert credentials_for("r.io", docker(tmp_path, {"auths": longer}), repository="team/x") == Credentials(
        "pattern", "p"
    )


def test_somebody_elses_home_is_not_read(tmp_path, monkeypatch):
    optional.forget()
    (tmp_path / ".docker").mkdir()
    docker(tmp_path / ".docker", {"auths": {"r.io": {"auth": "YTpi"}}})
    assert credentials_for("r.io", {"HOME": str(tmp_path)}) == Credentials("a", "b")
    os.chown(tmp_path / ".docker" / "config.json", 4321, -1) if os.geteuid() == 0 else pytest.skip("needs root")
    assert credentials_for("r.io", {"HOME": str(tmp_path)}) is None
    assert any("belongs to another user (4321)" in text for text in optional.lacking())


# -- challenges and tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        ['Bearer realm="R",service="S"'], ["Negotiate", 'Bearer realm="R",service=S'], ['Basic realm="x", Bearer realm="R", service="S"'],
        ['Bearer realm="R",service="S", Basic realm="x"'], ['BEARER Realm = "R" , SERVICE = "S"'], ["Negotiate abc==, Bearer service=S,realm=R"],
        ['Basic realm="a \\"Bearer realm=evil", Bearer realm="R", service="S", realm="T"'], [", ,Bearer realm=R,,service=S,"],
    ],
)  # fmt: skip
def test_threat_lying_server_all_challenges_of_all_fields_are_read(fields):
    bearer = next(c for c in challenges(fields) if c.scheme == "bearer")
    assert bearer.parameters["realm"] == "R" and bearer.parameters["service"] == "S"


@given(st.lists(st.text(alphabet='Bearer asicR="\\,/:-~\t x\x00é') | st.text(), max_size=4))
@example(['Bearer realm="' + "\\" * 5000])
def test_any_challenge_is_read_in_the_end(fields):
    assert len(challenges(fields)) <= 32


def tokens(
    answer: Callable[[BaseHTTPRequestHandler, int], None], challenge: str = ""
) -> Callable[[BaseHTTPRequestHandler], None]:
    count = [0]

    def act(h: BaseHTTPRequestHandler) -> None:
        port = h.server.server_address[1]
        if h.path.startswith("/token"):
            count[0] += 1
            return answer(h, count[0])
        if not h.headers.get("Authorization"):
            return reply(h, 401, b"", ("WWW-Authenticate", f'Bearer realm="http://127.0.0.1:{port}/token"{challenge}'))
        return reply(h, 200, manifest(b"x") if "manifests" in h.path else b"x")

    return act


def cut(h: BaseHTTPRequestHandler, head: bytes, body: bytes) -> None:
    h.wfile.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)
    h.close_connection = True


ONCE = {
    **{str(s): (lambda s: lambda h: reply(h, s))(s) for s in (408, 425, 429, 500, 502, 503, 504, 507, 599)},
    "closed": lambda h: h.connection.shutdown(socket.SHUT_RDWR),
    "cut length": lambda h: cut(h, b"Content-Length: 60", b'{"tok'),
    "cut chunk": lambda h: cut(h, b"Transfer-Encoding: chunked", b"40\r\n{tok"),
    "cut between chunks": lambda h: cut(h, b"Transfer-Encoding: chunked", b"2\r\n{}\r\n"),
}


QUESTIONS = ("token", "manifest", "document", "referrers", "publish")


@pytest.mark.parametrize(
    ("question", "failure"), [(q, f) for q in QUESTIONS for f in ONCE if q != "publish" or not f.startswith("cut")]
)
def test_threat_truncation_every_question_is_asked_again(question, failure):
    """Patience is a property of asking: the first answer to each question fails, the second is right."""
    failed: list[str] = []

    def act(h: BaseHTTPRequestHandler) -> None:
        kind = (
            "token"
            if "/token" in h.path
            else "manifest"
            if "/manifests/1" in h.path
            else "referrers"
            if "/manifests/sha256-" in h.path
            else "document"
            if h.path == "/doc"
            else "publish"
        )
        if kind == question and kind not in failed:
            failed.append(kind)
            return ONCE[failure](h)
        if h.path == "/doc":
            return reply(h, 200, b"here")
        if "/uploads/" in h.path and h.command == "POST":
            return reply(h, 202, b"", ("Location", "/v2/a/b/blobs/uploads/1"))
        if h.command == "PUT":
            return reply(h, 201)
        if h.command == "HEAD":
            return reply(h, 404)
        if "/manifests/sha256-" in h.path:
            return reply(h, 200, json.dumps({"manifests": [{"digest": "d"}]}).encode())
        return tokens(lambda h, n: reply(h, 200, b'{"access_token":"t"}'))(h)

    with Server(act) as server:
        asked = registry(server, push=question == "publish")
        if question == "document":
            assert read_small(f"{server.url}/doc", 100, QUICK) == b"here"
        elif question == "referrers":
            assert referrers(asked, sha256(b"")) == [{"digest": "d"}]
        elif question == "publish":
            assert put_blob(asked, io.BytesIO(BIG), sha256(BIG), len(BIG))
        else:
            assert layer_of(resolve_manifest(asked, "1"), "x").digest == sha256(b"x")
        assert failed == [question]


@pytest.mark.parametrize(("signed", "sent"), [("GET", False), ("HEAD", False), ("", None), ("nothing", True)])
def test_a_blob_behind_an_address_that_is_signed_for_reading_alone_is_found(signed, sent):
    """A registry leads to its storage, whose address is signed for one method: it refuses the others as it does strangers."""

    def stored(h):
        status = 404 if signed == "nothing" and h.command == "GET" else 403 if h.command != signed else 206
        reply(h, 200 if h.command == "HEAD" and status == 206 else status, b"x" if status == 206 else b"")

    def act(h):
        if "/uploads/" in h.path and h.command == "POST":
            return reply(h, 202, b"", ("Location", "/v2/a/b/blobs/uploads/1"))
        if h.command == "PUT":
            return reply(h, 201)
        return reply(h, 307, b"", ("Location", f"{storage.url}/signed"))

    with Server(stored) as storage, Server(act) as server:
        asked = registry(server, push=True, terms=QUICK._replace(tries=2))
        if sent is None:
            with pytest.raises(ServerBusy, match="403 from .*/signed, where it led to"):
                put_blob(asked, io.BytesIO(BIG), sha256(BIG), len(BIG))
            return
        assert put_blob(asked, io.BytesIO(BIG), sha256(BIG), len(BIG)) is sent
        ranges = [fields.get("range") for method, _, fields in storage.seen if method == "GET"]
        assert ranges == ([] if signed == "HEAD" else ["bytes=0-0"])
        assert bool([method for method, *_ in server.seen if method == "PUT"]) is sent


@pytest.mark.parametrize(("status", "there"), [(405, True), (405, False), (501, True), (501, False)])
def test_a_blob_is_found_where_there_is_no_head(status, there):
    def act(h):
        if h.command == "HEAD":
            return reply(h, status)
        if h.command == "GET":
            return reply(h, 206 if there else 404, b"x")
        return reply(h, 202 if h.command == "POST" else 201)

    with Server(act) as server:
        assert put_blob(registry(server, push=True), io.BytesIO(BIG), sha256(BIG), len(BIG)) is not there


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"errors": [{"code": "SIZE_INVALID", "message": "over the quota\\u001b[2J", "detail": {}}]}', r" \(SIZE_INVALID: over the quota\ufffd\[2J\)$"),
        (b'{"errors": [{"code": "DENIED", "message": null}]}', r" \(DENIED\)$"), (b'{"errors": []}', "$"), (b"<html>", "$"), (b'{"errors": 5}', "$"),
        (b'{"errors": [{"code": 5}]}', "$"), (b'{"errors": [{}]}', "$"), (b"[" * 100_000, "$"), (b'{"errors": [{"code": "' + b"x" * 70_000 + b'"}]}', "$"), (b"", "$"),
        (b'{"errors": [{"code": "' + b"x" * 1_000 + b'"}]}', r" \(x{300}\)$"),
    ],
)  # fmt: skip
def test_what_is_not_taken_is_told_as_that_with_what_the_registry_says(body, told):
    """It was a download that failed, and why stood in no error."""

    def act(h):
        reply(h, 404 if h.command in ("GET", "HEAD") else 202 if h.command == "POST" else 413, body)

    with Server(act) as server:
        with pytest.raises(FetchError, match=rf"publishing to oci://\S+: http status: 413{told}"):
            put_blob(registry(server, push=True), io.BytesIO(BIG), sha256(BIG), len(BIG))
        with pytest.raises(FetchError, match=r"download bundle reference oci://\S+: http status: 404$"):
            resolve_manifest(registry(server), "1")


def test_who_may_not_publish_is_told_so():
    with Server(lambda h: reply(h, 403)) as server:
        for push, word in ((True, "push"), (False, "pull")):
            with pytest.raises(FetchError, match=f"failed to {word} .*refuses us without credentials"):
                put_blob(registry(server, push=push), io.BytesIO(BIG), sha256(BIG), len(BIG))


def test_a_question_ends_with_its_tries():
    with Server(lambda h: reply(h, 503)) as server:
        with pytest.raises(ServerBusy):
            read_small(f"{server.url}/doc", 100, QUICK._replace(tries=3))
        assert len(server.seen) == 3


def test_a_busy_registry_does_not_make_signatures_vanish():
    with Server(lambda h: reply(h, 503)) as server, pytest.raises(ServerBusy):
        referrers(registry(server, terms=QUICK._replace(tries=2)), sha256(b""))
    with Server(lambda h: reply(h, 404)) as server:
        assert referrers(registry(server), sha256(b"")) == []


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("", ["repository:a/b:pull"]), ("repository:a/b:pull", ["repository:a/b:pull"]), ("repository:other/name:pull", ["repository:other/name:pull", "repository:a/b:pull"]),
        ("repository:a/b:pull,push", ["repository:a/b:pull"]), ("registry:catalog:*", ["repository:a/b:pull"]), ("repository:a/b:*", ["repository:a/b:pull"]),
    ],
)  # fmt: skip
def test_threat_credential_origin_no_more_is_asked_for_than_is_needed(told, asked):
    challenge = f',scope="{told}"' if told else ""
    with Server(tokens(lambda h, n: reply(h, 200, b'{"token":"t"}'), challenge)) as server:
        resolve_manifest(registry(server), "1")
        path = next(p for _, p, _ in server.seen if p.startswith("/token"))
        assert parse_qs(urlsplit(path).query)["scope"] == asked


def test_an_identity_token_is_exchanged_and_never_sent_as_a_password(tmp_path):
    bodies: list[bytes] = []

    def token(h, n):
        bodies.append(h.body)
        reply(h, 200, b'{"access_token":"t"}')

    with Server(tokens(token)) as server:
        environ = docker(tmp_path, {"auths": {server.name: {"identitytoken": "ident"}}})
        resolve_manifest(registry(server, **environ), "1")
        methods = [(m, h.get("authorization")) for m, p, h in server.seen if p.startswith("/token")]
        assert (
            methods == [("POST", None)]
            and b"grant_type=refresh_token" in bodies[0]
            and b"refresh_token=ident" in bodies[0]
        )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 200_000,
        b'{"token":1}',
        b'{"token":"a b"}',
        b'{"token":"a\\nb"}',
        b'{"token":"\\ud800"}',
        b'{"token":"\xff"}',
        b"x" * (2 << 20),
    ],
)
def test_threat_lying_server_a_token_that_is_none(body):
    with Server(tokens(lambda h, n: reply(h, 200, body))) as server, pytest.raises(FetchError) as error:
        resolve_manifest(registry(server), "1")
    str(error.value).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(sha256(b"x")),
    lambda c: (
        st.lists(c, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["layers", "blobs", "manifests", "digest", "size", "mediaType", "platform", "architecture", "os"]
            ),
            c,
        )
    ),
    max_leaves=MOST_LEAVES,
)


@given(st.dictionaries(st.sampled_from(["layers", "blobs", "manifests"]), JSON))
@settings(max_examples=200)
def test_any_manifest_gives_a_layer_or_a_typed_error(document):
    with contextlib.suppress(FetchError):
        assert re.fullmatch("sha256:[0-9a-f]{64}", layer_of(Manifest("d", document), "x").digest)


@given(st.text() | st.from_regex(r"[a-z.:/@0-9-]+", fullmatch=True))
def test_any_reference_is_read_or_refused(text):
    with contextlib.suppress(FetchError):
        parse(text)


# -- deadlines, heads -----------------------------------------------------------------------------------------------


class Raw:
    """Sends fixed bytes to each connection, then the same few bytes again and again until the test ends."""

    def __init__(self, first: bytes, drip: bytes = b"") -> None:
        self.first, self.drip, self.ended = first, drip, threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/b"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(self.first)
            while self.drip and not self.ended.wait(0.02):
                connection.sendall(self.drip)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *a: object) -> None:
        self.ended.set()
        self.socket.close()


DRIPS = {
    "status line": (b"", b"H"),
    "head": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "one field": (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "1xx": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n", b"b"),
    "body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", b"b"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nb\r\n"),
    "trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "nothing": (b"", b""),
}


@pytest.mark.parametrize("case", DRIPS)
@pytest.mark.parametrize("asked", ["bundle", "document"])
def test_threat_slow_peer_no_drip_outlasts_the_deadline(case, asked, tmp_path, monkeypatch):
    """The limit is the only end: whoever waits longer waits for ever, and the test with it."""
    monkeypatch.setenv("GREENTIC_FETCH_IDLE_SECONDS", "0.5")
    with Raw(*DRIPS[case]) as server, pytest.raises(FetchError):
        if asked == "bundle":
            with (tmp_path / "f").open("w+b") as file:
                fetch_into(file, server.url, limits=FetchLimits(total_seconds=0.6, tries=2))
        else:
            read_small(server.url, 1 << 20, Terms(idle=0.5, total=0.6, tries=2))


def test_answers_before_the_answer_are_skipped():
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    with Raw(early + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere") as server:
        assert read_small(server.url, 100, QUICK) == b"here"


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes ",
            b"HTTP/1.1 302 Found\r\nLocation: ",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 503 Busy\r\nRetry-After: ",
        ]
    ),
    st.sampled_from([b"", b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"]),
)
@settings(max_examples=150, deadline=None)
def test_threat_lying_server_any_bytes_are_an_answer_or_a_typed_error(noise, before, behind):
    with Raw(before + noise + behind) as server, contextlib.suppress(FetchError, InvalidArgument):
        read_small(server.url, 1000, QUICK._replace(tries=1))


# -- ssrf -----------------------------------------------------------------------------------------------------------


def test_threat_ssrf_who_leads_here_decides_how_far_inside_it_may_go():
    with Server(lambda h: reply(h, 200, b"internal")) as server:
        for outermost in (Reach.PUBLIC, Reach.PRIVATE):
            with pytest.raises(FetchError, match="may not lead there"):
                send(server.url, "x", QUICK, outermost=outermost)
        assert server.seen == []
        send(server.url, "x", QUICK).close()


def test_threat_ssrf_a_redirect_leads_no_further_inside(monkeypatch):
    """The redirecting server counts as public here; what it leads to is on loopback."""
    with (
        Server(lambda h: reply(h, 200, b"internal")) as inner,
        Server(lambda h: reply(h, 302, b"", ("Location", f"{inner.url}/admin"))) as outer,
    ):
        send(outer.url, "x", QUICK).close()
        assert len(inner.seen) == 1
        monkeypatch.setattr(request, "reach", lambda address: Reach.PUBLIC)
        with pytest.raises(FetchError, match="may not lead there"):
            send(outer.url, "x", QUICK)
        assert len(inner.seen) == 1 and len(outer.seen) == 2


@pytest.mark.parametrize("at", [300_000, 1_000_000, 2_500_000])
def test_threat_truncation_a_chunked_body_without_its_end_is_a_cut(at, tmp_path):
    count = [0]

    def act(h):
        count[0] += 1
        data = BIG[:at] if count[0] == 1 else BIG
        cut(
            h,
            b"Transfer-Encoding: chunked",
            b"%x\r\n%s\r\n" % (len(data), data) + (b"" if count[0] == 1 else b"0\r\n\r\n"),
        )

    with Server(act) as server, (tmp_path / "f").open("w+b") as file:
        assert fetch_into(file, server.url, wanted=sha256(BIG), clock=FakeClock()).digest == sha256(BIG)
        assert count == [2]


def test_threat_truncation_an_error_of_a_body_sticks():
    """The library tells a cut once, and an end from then on."""
    with Server(lambda h: cut(h, b"Transfer-Encoding: chunked", b"4\r\nhere\r\n")) as server:
        body = HttpSource(QUICK).open(server.url)
        buffer = memoryview(bytearray(100))
        assert body.read_into(buffer) == 4
        for _ in range(3):
            with pytest.raises(Truncated):
                body.read_into(buffer)
        body.close()


# -- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_proxies_are_named_in_both_spellings(name):
    proxies = proxies_of({name: "http://u:p%20w@proxy.test:3128"})
    found = proxy_for(proxies, "http", "h.test", 80)
    assert found is not None and (found.host, found.port) == ("proxy.test", 3128) and "p w" not in str(found)
    assert found.authorization == "Basic " + base64.b64encode(b"u:p w").decode()
    for near in ("localhost", "127.0.0.1", "::1", "127.1", "2130706433"):
        assert proxy_for(proxies, "http", near, 80) is None


@pytest.mark.parametrize(
    ("bypass", "host", "port", "direct"),
    [
        ("*", "h.test", 80, True), ("h.test", "h.test", 80, True), ("h.test", "a.h.test", 80, True), (".h.test", "a.h.test", 80, True), ("*.h.test", "a.h.test", 80, True),
        ("h.test", "evilh.test", 80, False), ("h.test:81", "h.test", 80, False), ("h.test:80", "h.test", 80, True), ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "h.test", 80, False), ("10.1.2.3", "10.1.2.3", 80, True), ("fd00::/8", "fd00::1", 80, True), ("a, b,h.test", "H.test.", 80, True), ("::1/x", "fd00::1", 80, False),
        ("faß.test", "xn--fa-hia.test", 80, True), ("*.faß.test:80", "a.xn--fa-hia.test", 80, True), ("faß.test", "fass.test", 80, False), ("ß..", "h", 80, False),
    ],
)  # fmt: skip
def test_no_proxy(bypass, host, port, direct):
    proxies = proxies_of({"HTTP_PROXY": "proxy.test:3128", "NO_PROXY": bypass})
    assert (proxy_for(proxies, "http", host, port) is None) is direct


def test_a_proxy_is_asked_in_its_own_form_and_names_are_checked_as_text():
    with Server(lambda h: reply(h, 200, b"through") if h.command == "GET" else reply(h, 200)) as proxy:
        terms = QUICK._replace(proxies=proxies_of({"HTTP_PROXY": proxy.url}))
        assert read_small("http://bundles.test:81/doc?x=1", 100, terms) == b"through"
        assert proxy.seen[0][1] == "http://bundles.test:81/doc?x=1" and proxy.seen[0][2]["host"] == "bundles.test:81"
        assert read_small("http://faß.ＢÜCHER.test:81/ß?ä", 100, terms) == b"through"
        name = "xn--fa-hia.xn--bcher-kva.test:81"
        assert proxy.seen[1][1] == f"http://{name}/%C3%9F?%C3%A4" and proxy.seen[1][2]["host"] == name
        before = len(proxy.seen)
        for url in (
            "http://１６９。254.169.254/",
            "http://ｍetadata.google.internal/",
            "http://metadata.goog。/",
            "http://a\u200db.test/",
            "http://metadata.google.internal/",
            "http://169.254.169.254/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
        ):
            with pytest.raises(GreenticError):
                read_small(url, 100, terms)
        assert len(proxy.seen) == before
    optional.forget()
    assert proxies_of({"HTTP_PROXY": "socks5://h:1"}) == NONE and "no http proxy" in optional.lacking()[0]
    for wrong in ("http://", "http://h:x", "http://[::1"):
        with pytest.raises(InvalidArgument):
            proxies_of({"HTTP_PROXY": wrong})


# -- there is always a way back -------------------------------------------------------------------------------------


def download(tmp_path: Path, source: SimulatedDistributor, wanted: str | None = None):
    journal = Journal(tmp_path / "journal", tmp_path / "partial")
    with os.fdopen(os.open(tmp_path / "partial", os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        return fetch_into(
            file,
            "r",
            source=source,
            wanted=wanted,
            terms=Terms(clock=FakeClock(), random=CountingRandom()),
            journal=journal,
        )


class Refusing(SimulatedDistributor):
    """Gives the whole, and answers a request for a part with an error."""

    def __init__(self, error: Callable[[], FetchError], data: bytes) -> None:
        super().__init__(*[Answer(data)] * 20)
        self.error = error

    def open(self, reference, offset=0, validator=None, end=None):
        if offset:
            self.asked.append((offset, validator, end))
            raise self.error()
        return super().open(reference, offset, validator, end)


@pytest.mark.parametrize(
    "error",
    [lambda: PartRefused("403"), lambda: ServerBusy("501"), lambda: FetchError("odd"), lambda: Truncated("cut")],
)
def test_threat_no_way_back_a_part_that_is_never_given_is_asked_for_as_the_whole(tmp_path, error):
    (tmp_path / "partial").write_bytes(BIG[:2_000_000])
    Journal(tmp_path / "journal", tmp_path / "partial").save(Progress(Ranges().add(0, 2_000_000), len(BIG), None, "r"))
    assert download(tmp_path, Refusing(error, BIG)).digest == sha256(BIG)


def test_threat_no_way_back_an_outage_does_not_cost_what_is_kept(tmp_path):
    (tmp_path / "partial").write_bytes(BIG[:2_000_000])
    Journal(tmp_path / "journal", tmp_path / "partial").save(Progress(Ranges().add(0, 2_000_000), len(BIG), None, "r"))
    with pytest.raises(FetchError):
        download(tmp_path, SimulatedDistributor(*[Answer(refuse="down")] * 20))
    assert download(tmp_path, SimulatedDistributor(Answer(BIG, parts=True))).moved == 1_000_000


@pytest.mark.parametrize("lie", [b"<html>sign in</html>", b"", BIG[:-1], BIG[:5] + b"x" + BIG[6:], BIG + b"x"])
def test_threat_lying_server_wrong_bytes_are_dropped_and_the_next_mirror_serves(tmp_path, lie):
    sources = {"liar": lie, "honest": BIG}
    told: list[str] = []
    journal = Journal(tmp_path / "journal", tmp_path / "partial")
    with (tmp_path / "partial").open("w+b") as file:

        def fetch(reference: str, patient: bool):
            return fetch_into(
                file,
                reference,
                source=SimulatedDistributor(Answer(sources[reference])),
                wanted=sha256(BIG),
                clock=FakeClock(),
                journal=journal,
            )

        with pytest.raises(DigestMismatch):
            first_of(["liar"], fetch, lambda reference, why: None)
        assert (tmp_path / "partial").stat().st_size == 0 and journal.load() is None
        assert first_of(["liar", "honest"], fetch, lambda reference, why: told.append(reference)).digest == sha256(BIG)
    assert told == ["liar"] and (tmp_path / "partial").read_bytes() == BIG


def test_threat_no_way_back_a_full_disk_costs_what_is_not_needed(tmp_path, monkeypatch):
    bundles = BundleCache(tmp_path / "c")
    for data in (b"kept", b"gone"):
        bundles.obtain(
            sha256(data), lambda f, j, d=data: fetch_into(f, "r", source=SimulatedDistributor(Answer(d)), journal=j)
        )
    real = os.fstatvfs

    class Status:
        f_frsize, f_blocks = 1, 1 << 41

        @property
        def f_bavail(self) -> int:
            return 0 if len(bundles.entries()) > 1 else 1 << 40

    monkeypatch.setattr(os, "fstatvfs", lambda fd: Status())

    def fetch(file, journal):
        return fetch_into(file, "r", source=SimulatedDistributor(Answer(BIG)), journal=journal)

    with pytest.raises(OSError, match="No space left"):
        bundles.obtain(sha256(BIG), fetch)
    bundles.obtain(sha256(BIG), fetch, lambda: frozenset({sha256(b"kept")}))
    monkeypatch.setattr(os, "fstatvfs", real)
    assert {e.digest for e in bundles.entries()} == {sha256(b"kept"), sha256(BIG)}


@given(st.binary(max_size=200) | JSON.map(lambda d: json.dumps(d).encode()) | st.just(b"[" * 100_000))
def test_any_journal_is_one_or_none(tmp_path_factory, data):
    directory = tmp_path_factory.getbasetemp()
    (directory / "j").write_bytes(data)
    (directory / "p").write_bytes(bytes(10))
    Journal(directory / "j", directory / "p").load()


def test_threat_secret_leak_a_journal_holds_no_address(tmp_path):
    (tmp_path / "p").touch()
    journal = Journal(tmp_path / "j", tmp_path / "p")
    source = SimulatedDistributor(Answer(BIG, cut_at=2_000_000), Answer(refuse="gone"))
    with (tmp_path / "p").open("r+b") as file, pytest.raises(FetchError):
        fetch_into(file, "https://h/b?sig=s3cret", source=source, clock=FakeClock(), journal=journal)
    assert journal.load() is not None and b"s3cret" not in (tmp_path / "j").read_bytes()


def test_a_label_of_a_coding_is_only_a_label(tmp_path):
    for label in ("gzip", "aws-chunked", "none", "utf-8"):
        with (
            Server(lambda h: reply(h, 200, BIG, ("Content-Encoding", label))) as server,
            (tmp_path / "f").open("w+b") as file,
        ):
            assert fetch_into(file, server.url, wanted=sha256(BIG)).digest == sha256(BIG)


def test_a_signed_address_that_ended_is_asked_for_anew(tmp_path):
    count = [0]

    def act(h):
        if h.path == "/b":
            count[0] += 1
            return reply(h, 307, b"", ("Location", f"/signed?n={count[0]}"))
        return reply(h, 200, BIG) if h.path.endswith("n=2") else reply(h, 403)

    with Server(act) as server, (tmp_path / "f").open("w+b") as file:
        assert fetch_into(file, f"{server.url}/b", clock=FakeClock()).digest == sha256(BIG)
        assert count == [2]


def test_publishing_sends_a_blob_in_one_piece(monkeypatch, tmp_path):
    def act(h):
        if h.command == "PATCH":
            return reply(h, 405)
        if h.command == "HEAD" or (h.command == "GET"):
            return reply(h, 404)
        if h.command == "POST":
            return reply(h, 202, b"", ("Location", "/v2/a/b/blobs/uploads/1?state=x"))
        if "blobs" in h.path:
            got.append(h.body)
        return reply(h, 201)

    got: list[bytes] = []
    large = random.Random(2).randbytes(20 << 20)
    with Server(act) as server:
        monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", server.name)
        (tmp_path / "b").write_bytes(large)
        with (tmp_path / "b").open("rb") as file:
            bundle = publish.Bundle("b", file, sha256(large), len(large), None, {})
            assert publish.publish(bundle, f"oci://{server.name}/a/b:1").moved
        assert got[0] == large and "PATCH" not in {m for m, _, _ in server.seen}


@pytest.mark.parametrize("taken", [200, 201, 204])
def test_an_upload_that_the_registry_has_forgotten_is_begun_anew(monkeypatch, tmp_path, taken):
    """Registries behind a balancer know an upload where it was opened."""
    opened: list[str] = []

    def act(h):
        if h.command in ("HEAD", "GET"):
            return reply(h, 404)
        if h.command == "POST":
            opened.append(h.path)
            return reply(h, 202, b"", ("Location", f"/v2/a/b/blobs/uploads/{len(opened)}"))
        if "/uploads/1?" in h.path:
            return reply(h, 404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        return reply(h, taken)

    with Server(act) as server:
        uploader = registry(server, push=True)
        put_bytes(uploader, b"data")
        put_manifest(uploader, "1", b"{}", "application/json")
    assert len(opened) == 2


@pytest.mark.parametrize("mirror", ["https://u:s3cret@m.test/{sha256}", "oci://u:s3cret@r.io/{name}"])
def test_threat_secret_before_validation_a_mirror_has_no_password(mirror):
    with pytest.raises(InvalidArgument) as error:
        check_mirror(mirror)
    assert "s3cret" not in f"{error.value}{error.value.hint}"
