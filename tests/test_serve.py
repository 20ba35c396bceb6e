"""The worker's decisions: settings, whose failure is fatal, which revision answers, who may ask."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from conftest import booted
from greentic.activate.lease import Draining, Serving
from greentic.activate.turn import Turn
from greentic.bundle.cores import limit_of, limits, quota_of, quotas, usable_cores
from greentic.cli import start
from greentic.flow.activity import Activity, activity_of, invoke_activity, replies
from greentic.flow.select import FlowHeader, NoFlow, select
from greentic.ground import documents, variables
from greentic.ground.documents import replace
from greentic.ground.errors import BootError, UntrustedBundle
from greentic.httpd.front import Answer
from greentic.httpd.http1 import MAX_BODY, RequestReader
from greentic.ingress import invoke
from greentic.ingress.admission import Admission
from greentic.ingress.app import WorkerApp
from greentic.ingress.auth import BearerGate, IngressToken, load_tokens
from greentic.ingress.invoke import MAX_NESTS
from greentic.ingress.trusted_peer import TrustedPeers
from greentic.materialize.seed import place_seed, read_seed
from greentic.materialize.serving_plan import Fault, Scope, ends_boot, serving_plan
from greentic.model.routes import Routes
from greentic.model.traffic import wanted_revisions
from greentic.pack.located import LocatedPack
from greentic.sessions.value_store import StoreUnavailable, waiting_already
from greentic.store.cookie_key import cookie_key
from greentic.store.environments import EnvironmentStore
from greentic.telemetry import tracing
from greentic.telemetry.log import OperatorLog
from greentic.telemetry.tallies import TALLIES
from greentic.worker import settings
from greentic.worker.server import banner, bind
from simulators import CountingRandom, FakeClock
from test_model_rules import DEP, DEP2, REV, REV2, REV3, deployment, env, revision, split

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("option", "environ", "found"),
    [
        (None, {}, "local"),
        ("prod", {"GREENTIC_ENV": "x"}, "prod"),
        (None, {"GREENTIC_ENV": "x"}, "x"),
        ("dev", {}, "local"),
    ],
)
def test_environment_ids(option, environ, found):
    assert settings.env_id(option, environ).value == found


def test_the_old_name_can_be_switched_off():
    with pytest.raises(ValueError, match="use `local`"):
        settings.env_id("dev", {"GREENTIC_DISABLE_DEV_ALIAS": "1"})


@pytest.mark.parametrize(
    ("listen", "environ", "found", "warned"),
    [
        (None, {}, "127.0.0.1:8080", 0), ("0.0.0.0:9000", {}, "0.0.0.0:9000", 0), ("0.0.0.0:9000", {"GREENTIC_GATEWAY_LISTEN_ADDR": "1.2.3.4"}, "1.2.3.4:9000", 0),
        (None, {"GREENTIC_GATEWAY_LISTEN_ADDR": "[::1]:7"}, "[::1]:7", 0), (None, {"GREENTIC_GATEWAY_LISTEN_ADDR": "x"}, "127.0.0.1:8080", 1),
        (None, {"GREENTIC_GATEWAY_PORT": "1", "PORT": "2"}, "127.0.0.1:2", 0), (None, {"PORT": "0"}, "127.0.0.1:8080", 1), (None, {"PORT": "x"}, "127.0.0.1:8080", 1),
    ],
)  # fmt: skip
def test_bind_addresses(listen, environ, found, warned):
    told = settings.bind_address(listen, settings.read_gateway(environ))
    assert told.value == found and len(told.warnings) == warned


def told(**environ: str) -> settings.Settings:
    return settings.read_settings(settings.StartOptions("local"), {"HOME": "/h", **environ})


def test_other_settings():
    assert (
        told(GREENTIC_REVISION_ID=" abc ").scope.own_revision == "ABC"
        and told(GREENTIC_REVISION_ID=" ").scope.own_revision is None
    )
    assert told(GREENTIC_DRAIN_DELAY_SECONDS="2").ingress.drain_delay == 2.0
    assert told().ingress.bearer_gate and not told(GREENTIC_GENERIC_INGRESS_AUTH="Off").ingress.bearer_gate
    assert list(settings.candidate_ports(8080, strict=True)) == [8080]
    assert len(settings.candidate_ports(8080, strict=False)) == 11


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GREENTIC_DRAIN_DELAY_SECONDS", "-1"), ("GREENTIC_DRAIN_DELAY_SECONDS", "x"), ("GREENTIC_DRAIN_DELAY_SECONDS", "nan"), ("GREENTIC_FINISH_SECONDS", "9999"),
        ("GREENTIC_WORKERS", "0"), ("GREENTIC_TRUST_LOOPBACK", "maybe"), ("GREENTIC_ANONYMOUS_SESSIONS", "all"), ("GREENTIC_REVISION_SCOPE", "mine"),
        ("GREENTIC_RUNNER_SESSION_WAIT_TTL_SECS", "soon"), ("GREENTIC_ALLOW_ROLLBACK", "perhaps"), ("GREENTIC_PACK_SIGNATURES", "sometimes"),
        ("GREENTIC_SECRETS_BACKEND", "vault"), ("GREENTIC_SECRETS_BACKEND", "x"), ("GREENTIC_TUNNEL_MODE", "cloudflared"),
        ("GREENTIC_RUNNER_SESSION_BACKEND", "disk"), ("GREENTIC_RUNNER_STATE_BACKEND", "redis"), ("GREENTIC_HTTP_EGRESS", "two words"),
        ("GREENTIC_REVISION_SCOPE", "own"), ("GREENTIC_COMPONENT_SECONDS", "0"), ("GREENTIC_COMPONENT_MEMORY_MB", "5000"),
    ],
)  # fmt: skip
def test_a_variable_that_makes_no_sense_ends_the_boot_by_its_name(variable, value):
    with pytest.raises(BootError, match=variable):
        told(**{variable: value})


EXCUSED = ("GREENTIC_GATEWAY_PORT", "PORT")
"""Warned about and ignored, as by the existing worker; so is what begins with `OTEL_`."""


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in variables.TABLE.values()
        if row.reader in ("worker", "both") and (row.words or row.kind in ("count", "seconds", "switch"))
        if row.name not in EXCUSED and not row.name.startswith("OTEL_")
    ],
    ids=lambda row: row.name,
)
def test_every_number_switch_and_word_of_the_table_ends_a_boot_whatever_is_served(row, tmp_path):
    with pytest.raises(BootError, match=row.name):
        told(**{"GREENTIC_ENV_FROM": str(tmp_path), row.name: "nonsense"})


@pytest.mark.parametrize("variable", ["GREENTIC_RUNNER_SESSION_BACKEND", "GREENTIC_RUNNER_STATE_BACKEND"])
def test_where_conversations_wait_is_told_by_a_word_and_an_address(variable):
    url = "redis://h:6379/0"
    for kind, found in (("", url), ("redis", url), ("Redis", url), ("memory", "")):
        assert told(**{variable: kind}, GREENTIC_RUNNER_REDIS_URL=url).sessions.redis_url == found
    assert told(**{variable: "memory"}).sessions.redis_url == ""
    both = {"GREENTIC_RUNNER_SESSION_BACKEND": "memory", "GREENTIC_RUNNER_STATE_BACKEND": "memory"}
    assert told(**both, GREENTIC_RUNNER_REDIS_URL=url).sessions.redis_url == ""
    with pytest.raises(BootError, match="one word for both"):
        told(**{**both, variable: "redis"}, GREENTIC_RUNNER_REDIS_URL=url)


def test_what_the_existing_worker_takes_by_default_is_taken():
    told(GREENTIC_SECRETS_BACKEND="dev-store", GREENTIC_TUNNEL_MODE="off")
    told(GREENTIC_SECRETS_BACKEND=" ", GREENTIC_TUNNEL_MODE="none")


@pytest.mark.parametrize(
    "words", [["--locale", "de", "start", "-V"], ["demo", "--locale=de", "up", "--version"], ["--locale", "de", "-V"]]
)
def test_a_locale_may_stand_before_the_command(words, capsys):
    with pytest.raises(SystemExit) as ended:
        start._parse(words)
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("greentic-start ")


def test_how_many_processes_serve(monkeypatch):
    monkeypatch.setattr(settings, "usable_cores", lambda: 3)
    monkeypatch.setattr(settings, "memory_limit", lambda: None)
    assert [told(GREENTIC_WORKERS=w).ingress.workers for w in ("", "1", "64", "auto")] == [1, 1, 64, 3]
    given = settings.read_settings(settings.StartOptions("local", workers="2"), {"GREENTIC_WORKERS": "auto"})
    assert given.ingress.workers == 2
    for wrong in ("0", "65", "-1", "AUTO", "٣", "1e1"):
        with pytest.raises(BootError, match="--workers"):
            settings.read_settings(settings.StartOptions("local", workers=wrong), {})


@pytest.mark.parametrize(
    ("cores", "mib", "processes"),
    [(1, None, 1), (8, None, 8), (900, None, 64), (8, 96, 1), (8, 64, 1), (8, 0, 1), (8, 192, 2), (8, 256, 3), (2, 4_096, 2)],
)  # fmt: skip
def test_as_many_processes_serve_as_the_memory_allows(cores, mib, processes):
    assert settings.processes_for(cores, None if mib is None else mib << 20) == processes


@pytest.mark.parametrize(
    ("text", "limit"),
    [("max", None), ("268435456", 1 << 28), ("9223372036854771712", None), ("", None), ("-1", None), ("٣", None)],
)
def test_a_limit_of_memory_is_read_as_control_groups_tell_it(text, limit):
    assert limit_of(text) == limit


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", None), ("50000 100000", 1), ("150000 100000", 2), ("400000 100000", 4), ("-1 100000", None), ("", None), ("1 0", None), ("x y", None)],
)  # fmt: skip
def test_a_quota_counts_as_whole_cores(text, cores):
    assert quota_of(text) == cores
    assert usable_cores() >= 1


def test_quota_and_limit_are_those_of_the_own_control_group_and_of_each_around_it(tmp_path):
    """A service of a host lies below its slice, a container sees its own group as the root."""
    service, container = "0::/system.slice/greentic.service", "0::/"
    for group, cpu, memory in (
        ("", "", ""),
        ("system.slice", "600000 100000", "1073741824"),
        ("system.slice/greentic.service", "150000 100000", "max"),
    ):
        (tmp_path / group).mkdir(exist_ok=True)
        if cpu:
            (tmp_path / group / "cpu.max").write_text(cpu)
            (tmp_path / group / "memory.max").write_text(memory)
    assert sorted(quotas(tmp_path, service)) == [2, 6] and list(limits(tmp_path, service)) == [1 << 30]
    assert list(quotas(tmp_path, container)) == list(limits(tmp_path, container)) == []
    (tmp_path / "cpu.max").write_text("400000 100000")
    for unseen in (container, "0::/docker/f00", "", "0::/../../system.slice"):
        assert set(quotas(tmp_path, unseen)) == {4}
    older = "4:memory:/docker/f00\n3:cpu,cpuacct:/docker/f00\n1:name=systemd:/docker/f00"
    own, memory = tmp_path / "v1/cpu", tmp_path / "v1/memory/docker/f00"
    own.mkdir(parents=True)
    memory.mkdir(parents=True)
    (own / "cpu.cfs_quota_us").write_text("50000")
    (own / "cpu.cfs_period_us").write_text("100000")
    (memory / "memory.limit_in_bytes").write_text("134217728")
    assert list(quotas(tmp_path / "v1", older)) == [1] and list(limits(tmp_path / "v1", older)) == [128 << 20]


def test_a_busy_port_moves_on_or_fails_in_strict_mode():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BootError, match="is in use"):
            bind("127.0.0.1", port, strict=True)
        bound, warnings = bind("127.0.0.1", port, strict=False)
        assert bound.getsockname()[1] != port and "is in use; using port" in warnings[0]
        bound.close()
    with pytest.raises(BootError, match="cannot listen"):
        bind("203.0.113.1", 0, strict=True)


def two_deployments(**change: object):
    return env(
        bundles=[deployment(), deployment(DEP2, bundle_id="two", **change)],
        revisions=[revision(), revision(REV2), revision(REV3, DEP2, bundle_id="two")],
        traffic_splits=[split((REV, 10000), (REV2, 0)), split((REV3, 10000), dep=DEP2, bundle_id="two")],
    )


def test_only_routed_revisions_of_active_deployments_are_wanted():
    assert [r.revision_id for r in wanted_revisions(two_deployments())] == [REV, REV2, REV3]
    assert [r.revision_id for r in wanted_revisions(two_deployments(status="paused"))] == [REV, REV2]


def located(*revisions) -> dict[str, tuple[LocatedPack, ...]]:
    return {r: (LocatedPack("p", Path("/p"), "sha256:0"),) for r in revisions}


def sourced(document):
    return replace(document, revisions=[replace(r, bundle_source_uri="https://x/y") for r in document.revisions])


def test_the_plan_says_for_every_revision_what_is_to_be_done():
    document = sourced(two_deployments())
    plan = serving_plan(document, Scope(), {}, located(REV))
    assert set(plan.keep) == {REV} and [r.revision_id for r in plan.pull] == [REV2, REV3] and not plan.unavailable
    refusal = UntrustedBundle("revoked")
    plan = serving_plan(document, Scope(), {REV2: refusal}, {})
    assert [r.revision_id for r in plan.pull] == [REV3]  # the sibling of what is refused is not worth fetching
    assert plan.unavailable == {DEP: Fault("refused", REV2, refusal)} and not plan.unavailable[DEP].passing


def test_what_has_no_source_is_absent():
    plan = serving_plan(two_deployments(), Scope(), {}, located(REV, REV2))
    assert plan.unavailable[DEP2].reason == "absent" and not plan.pull
    assert ends_boot(plan, plan.unavailable, served=0) is None  # no other boot would find it either


def test_whose_failure_ends_a_boot():
    document = sourced(two_deployments())
    one, two = (Fault("unreachable", r, BootError("away")) for r in (REV, REV3))

    def ending(scope: Scope, faults: dict[str, Fault], served: int = 1) -> Fault | None:
        return ends_boot(serving_plan(document, scope, {}, {}), faults, served)

    own = Scope(own_revision=REV)
    assert ending(own, {DEP: one}) == one and ending(own, {DEP2: two}) is None
    assert ending(Scope(require_all=True), {DEP2: two}) == two
    assert ending(Scope(), {DEP2: two}) is None and ending(Scope(), {DEP2: two}, served=0) == two
    unknown = Scope(own_revision="01JTKW5B4W4Q5Y1CQW93F7S5ZZ")
    assert ending(unknown, {DEP2: two}) == two
    assert "names no routed revision" in str(serving_plan(document, unknown, {}, {}).warning)


def test_the_signing_key_is_made_once_and_checked(store, author):
    author.create()
    paths = store.paths("local")
    key = cookie_key(paths.signing_key, None, store.random)
    assert (
        cookie_key(paths.signing_key, None, store.random) == key and paths.signing_key.stat().st_mode & 0o777 == 0o600
    )
    paths.signing_key.write_bytes(b"short")
    with pytest.raises(BootError, match="expected 32"):
        cookie_key(paths.signing_key, None, store.random)


# -- activities -----------------------------------------------------------------------------------------------------


def test_activities():
    message, other = Activity({"text": "x"}, "messaging"), Activity({"text": "x", "metadata": {}}, "messaging")
    assert activity_of({"text": "x", "more": 1}) == message and activity_of({"text": "x", "metadata": {}}) == other
    assert activity_of({"text": 5}) == Activity({"text": 5}, None) and activity_of(None) == Activity(None, None)
    assert invoke_activity({"a": 1}) == Activity({"metadata": {"a": 1}}, "messaging")
    assert invoke_activity({"text": "x"}) == message
    assert [r["payload"] for r in replies([1, 2], "t")] == [1, 2]


def header(flow: str, kind: str = "messaging", pack: str = "p", entry: bool = True, provider: bool = False):
    return (FlowHeader(pack, flow, kind, entry, provider), flow)


def test_flow_selection():
    assert select([header("a"), header("b", "event")], "p", "messaging", "t") == "a"
    assert select([header("a", entry=False), header("b"), header("c", provider=True)], "p", "messaging", "t") == "b"
    assert select([header("a", "event", "q"), header("b", "event")], "p", None, "t") == "b"
    for flows, kind in (
        ([header("a"), header("b")], "messaging"),
        ([], "messaging"),
        ([header("a", entry=False)], None),
    ):
        with pytest.raises(NoFlow):
            select(flows, "p", kind, "t")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"tenant":{},"worker_id":"w"}',
        b'{"tenant":{"env":"e","tenant":1,"tenant_id":"t"},"worker_id":"w"}',
    ],
)
def test_worker_requests_that_are_refused(body):
    with pytest.raises(invoke.InvalidRequest):
        invoke.read_request(body)


def test_worker_messages():
    request = invoke.WorkerRequest(tenant={"env": "e", "tenant": "t", "tenant_id": "t"}, worker_id="w")
    card = {"outputs": [{"renderedCard": 1}, {"result": {"renderedCard": 2}}]}
    pending = {"status": "pending", "response": {"text": "q"}}
    output = [{"text": "a"}, card, {"x": 1}, pending, {"metadata": {"error_kind": "e"}}, 5]
    kinds = [(m["kind"], m["payload"]) for m in invoke.response(request, output, "now")["messages"]]
    assert kinds == [
        ("text", {"text": "a"}), ("adaptive-card", 2), ("activity", {"x": 1}), ("text", {"text": "q"}), ("text", {"metadata": {"error_kind": "e"}}), ("activity", 5),
    ]  # fmt: skip


# -- the bearer gate ------------------------------------------------------------------------------------------------

TOKEN = IngressToken("2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b")  # sha256 of "secret"


@pytest.mark.parametrize(
    ("tokens", "authorization", "opens"),
    [
        (None, None, True), ([], None, False), ([], "Bearer secret", False), ([TOKEN], None, False), ([TOKEN], "Bearer secret", True), ([TOKEN], "bearer  secret ", True), ([TOKEN], "Basic secret", False),
        ([TOKEN], "Bearer wrong", False), ([IngressToken(TOKEN.sha256, expires_at=5)], "Bearer secret", False),
        ([IngressToken(TOKEN.sha256, bundle_id="other")], None, False),
        ([IngressToken(TOKEN.sha256, bundle_id="other")], "Bearer secret", False), ([IngressToken(TOKEN.sha256, bundle_id="bot")], "Bearer secret", True), ([IngressToken(TOKEN.sha256, bundle_id="bot")], None, False),
    ],
)  # fmt: skip
def test_threat_fail_open_gate_bearer(tokens, authorization, opens):
    assert BearerGate(tokens, enabled=True).lets_in(authorization, "bot", 10) is opens
    assert BearerGate(tokens, enabled=False).lets_in(authorization, "bot", 10)


def test_tokens_are_read_and_checked(store, author):
    author.create()
    paths = store.paths("local")
    assert load_tokens(paths) is None
    path = paths.root / "ingress-tokens.json"
    path.write_text(json.dumps({"schema": "greentic.ingress-tokens.v1", "tokens": [{"sha256": TOKEN.sha256}]}))
    assert BearerGate(load_tokens(paths), enabled=True).configured
    for text in (
        "{",
        '{"schema":"x","tokens":[]}',
        '{"schema":"greentic.ingress-tokens.v1","tokens":[{"sha256":"X"}]}',
    ):
        path.write_text(text)
        with pytest.raises(BootError):
            load_tokens(paths)


# -- the application ------------------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path, hello, author):
    author.create()
    author.deployed(hello)
    author.deployed(hello, bundle_id="other", prefixes=("/other",))
    store: EnvironmentStore = author.context.store
    worker = booted(store)
    gate, peers = BearerGate([TOKEN], enabled=True), TrustedPeers((), trust_loopback=True)
    return WorkerApp(
        Serving(worker.activation, worker.store.clock), "127.0.0.1:1", gate, worker.log, worker.services, peers
    )


def call(app: WorkerApp, method: str, path: str, *chunks: bytes, peer: str = "127.0.0.1", **headers: str):
    """One request as it stands on the wire, answered by the application: code, headers, body."""
    fields = {"host": "127.0.0.1"} | {k.replace("_", "-"): v for k, v in headers.items()}
    if len(chunks) > 1:
        fields["transfer-encoding"] = "chunked"
    elif chunks and "content-length" not in fields:
        fields["content-length"] = str(len(chunks[0]))
    lines = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    body = (
        b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n" if len(chunks) > 1 else b"".join(chunks)
    )
    reader = RequestReader()
    reader.feed(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
    request = reader.next()
    assert request is not None

    async def answered() -> Answer:
        found = app(request, peer)
        return found if isinstance(found, Answer) else await found

    answer = asyncio.run(answered())
    return answer.code, dict(answer.headers), answer.body


def test_a_turn_answers_and_keeps_the_caller_by_cookie(app):
    code, headers, body = call(app, "POST", "/x", b'{"text":"hi"}')
    assert (
        code == 200
        and msgspec.json.decode(body)[0]["payload"]["metadata"]["error_message"] == "flow main has no start node"
    )
    kept = headers[b"set-cookie"].decode().partition(";")[0]
    assert b"set-cookie" not in call(app, "POST", "/x", b"1", cookie=kept)[1]
    assert b"set-cookie" in call(app, "POST", "/x", b"1", cookie="_gt_rev_x=1")[1]
    assert b"set-cookie" not in call(app, "POST", "/x", b"1", x_greentic_session="s")[1]


@pytest.mark.parametrize(
    ("arguments", "headers", "code", "text"),
    [
        (("POST", "/", b"{"), {}, 400, b"request body must be JSON"), (("POST", "/", b"[" * 100_000), {}, 400, b"nested deeper than 127 levels"),
        (("GET", "/"), {}, 405, b"only POST"), (("POST", "/", b"x" * 10, b"y" * MAX_BODY), {}, 413, b"exceeds"),
        (("POST", "/", b"x"), {"content-length": str(MAX_BODY + 1)}, 413, b"exceeds"), (("OPTIONS", "/workers/invoke"), {}, 405, b"cross-origin"),
        (("POST", "/", b"{}"), {"content_encoding": "gzip"}, 415, b"without a content coding"),
        (("POST", "/workers/invoke", b"{}"), {"content_encoding": "br"}, 415, b"without a content coding"),
        (("POST", "/", b"1"), {"x_greentic_messaging_endpoint_id": "nope"}, 401, b"not recognized"), (("GET", "/workers/invoke"), {}, 405, b"requires POST"),
        (("POST", "/workers/invoke", b"{}"), {}, 400, b"invalid HostWorkerRequest"),
        (("POST", "/workers/invoke", b'{"tenant":{"env":"e","tenant":"zz","tenant_id":"z"},"worker_id":"w"}'), {}, 404, b"no active deployment"),
    ],
)  # fmt: skip
def test_requests_that_are_refused(app, arguments, headers, code, text):
    found = call(app, *arguments, **headers)
    assert found[0] == code and text in found[2] and found[1][b"content-type"].startswith(b"text/plain")
    assert (b"allow" in found[1]) == (code == 405)
    assert found[1].get(b"accept-encoding") == (b"identity" if code == 415 else None)


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [("GET", "/", b"POST, OPTIONS"), ("DELETE", "/metrics", b"POST, OPTIONS"), ("GET", "/workers/invoke", b"POST"), ("OPTIONS", "/workers/invoke", b"POST")],
)  # fmt: skip
def test_a_method_that_is_not_taken_is_told_with_those_that_are(app, method, path, methods):
    code, headers, _ = call(app, method, path)
    assert (code, headers[b"allow"]) == (405, methods)
    for other in methods.decode().split(", "):
        assert call(app, other, path, b"{}")[0] != 405 or other == "OPTIONS"


@pytest.mark.parametrize("nest", [b"[[]]", b'{"a":{}}', b"[[[]]]"])
def test_threat_deep_body_of_too_many_arrays_and_objects_is_refused_before_they_are_made(app, monkeypatch, nest):
    """A megabyte of brackets is half a million of them: half a second in which nobody else has a turn."""
    each = nest.count(b"[") + nest.count(b"{")
    many = b"[%b]" % b",".join([nest] * (MAX_NESTS // each + 1))
    made: list[object] = []
    monkeypatch.setattr(documents.msgspec.json, "decode", lambda data, **how: made.append(data))
    assert call(app, "POST", "/x", many)[::2] == (400, b"request body has more than 100000 arrays and objects")
    invoke = b'{"tenant":{"env":"e","tenant":"acme","tenant_id":"acme"},"worker_id":"w","payload":%b}' % many
    monkeypatch.setattr("greentic.ingress.app.told_tenant", lambda body: "acme")
    code, _, text = call(app, "POST", "/workers/invoke", invoke)
    assert (code, text) == (400, b"invalid HostWorkerRequest body: more than 100000 arrays and objects")
    assert not made
    monkeypatch.undo()
    assert call(app, "POST", "/x", many.replace(nest + b",", b"", 2))[0] == 200


@pytest.mark.parametrize("levels", [127, 500, 50_000])
def test_threat_deep_body_is_refused_at_the_door(app, monkeypatch, levels):
    deep = b'{"k":' + b"[" * levels + b"]" * levels + b"}"
    code, _, text = call(app, "POST", "/x", deep)
    assert (code, text) == (400, b"request body is nested deeper than 127 levels")
    invoke = b'{"tenant":{"env":"e","tenant":"acme","tenant_id":"acme"},"worker_id":"w","payload":' + deep + b"}"
    code, _, text = call(app, "POST", "/workers/invoke", invoke)
    assert (code, text) == (400, b"invalid HostWorkerRequest body: nested deeper than 127 levels")
    assert call(app, "POST", "/x", deep.replace(b"[", b"", 2).replace(b"]", b"", 2))[0] == (
        200 if levels == 127 else 400
    )
    just = b"[" * 127 + b"]" * 127
    assert call(app, "POST", "/x", just)[0] != 400
    assert call(app, "POST", "/x", b"[%b]" % just)[::2] == (400, b"request body is nested deeper than 127 levels")
    invoke = b'{"tenant":{"env":"e","tenant":"acme","tenant_id":"acme"},"worker_id":"w","payload":%b}'
    assert call(app, "POST", "/workers/invoke", invoke % just[1:-1])[0] != 400
    assert call(app, "POST", "/workers/invoke", invoke % just)[0] == 400
    monkeypatch.setattr("greentic.ingress.app.activity_of", lambda value: {}["planted"])
    assert call(app, "POST", "/x", b"{}")[::2] == (500, b"internal error")
    monkeypatch.setitem(sys.modules, "greentic.telemetry.exposition", None)
    code, _, told = call(app, "GET", "/metrics")
    assert code == 503 and b"start the worker again" in told


def test_threat_unauthenticated_invoke_strangers(app):
    stranger = "10.1.2.3"
    code, fields, _ = call(app, "POST", "/", b"1", peer=stranger)
    assert code == 401 and fields[b"www-authenticate"] == b"Bearer"  # clients in Java fail where it does not say how
    assert call(app, "POST", "/", b"1", peer=stranger, x_forwarded_for="127.0.0.1", forwarded="for=127.0.0.1")[0] == 401
    assert call(app, "POST", "/", b"1", peer=stranger, authorization="Bearer secret")[0] == 200
    assert (
        call(
            app,
            "POST",
            "/",
            b"1",
            peer=stranger,
            authorization="Bearer secret",
            x_greentic_messaging_endpoint_id="nope",
        )[0]
        == 200
    )
    assert call(app, "POST", "/workers/invoke", b"{}", peer=stranger)[0] == 403
    assert call(app, "GET", "/healthz", peer=stranger)[0] == 200


def test_threat_unauthenticated_invoke_a_loopback_peer_is_nobody_special_where_a_proxy_runs_beside(app):
    assert call(app, "POST", "/", b"1")[0] == 200
    peers = TrustedPeers((), trust_loopback=False)
    behind = WorkerApp(app.serving, "127.0.0.1:1", app.gate, app._log, app._services, peers)
    assert call(behind, "POST", "/", b"1")[0] == 401
    assert call(behind, "POST", "/", b"1", authorization="Bearer secret")[0] == 200
    assert call(behind, "POST", "/workers/invoke", b"{}", authorization="Bearer secret")[0] == 403


def test_probes_and_draining(app):
    assert [call(app, "GET", p)[0] for p in ("/livez", "/readyz", "/healthz", "/health")] == [200] * 4
    app.draining = True
    assert [call(app, "GET", p)[0] for p in ("/livez", "/readyz", "/healthz", "/health")] == [200, 503, 503, 503]
    assert call(app, "OPTIONS", "/x")[0] == 204
    assert call(app, "POST", "/", b"1")[0] == 200  # it keeps serving until the door is closed


def test_a_deployment_that_is_not_served(app):
    app.serving.activation = app.serving.activation._replace(dispatchers={})
    assert call(app, "POST", "/", b"1")[2] == b"revision dispatch failed"
    app.serving.activation = app.serving.activation._replace(routes=Routes([]))
    assert call(app, "POST", "/", b"1")[2] == b"no deployment is bound to this host and path"


def test_threat_slow_peer_a_request_takes_the_turn_of_the_deployment_that_it_is_for(app):
    """Whatever was sent to `/workers/invoke` had one lane: programs that drove a flooded deployment held up those of the others."""

    def lane(path: str, body: bytes) -> str | None:
        reader = RequestReader()
        reader.feed(f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        return app.lane(reader.next())

    first, second = app.serving.activation.routes
    app.serving.activation = app.serving.activation._replace(routes=Routes([first, second._replace(tenant="acme")]))
    assert lane("/", b"x") == first.deployment_id and lane("/other", b"x") == second.deployment_id
    for told, found in ((first.tenant, first), ("acme", second)):
        body = msgspec.json.encode({"payload": {"deep": [1]}, "tenant": {"tenant": told, "env": "local"}})
        assert lane("/workers/invoke", body) == found.deployment_id
    for nobody in (
        b"",
        b"{}",
        b"x",
        b"[]",
        b"\xff",
        b'{"tenant":{"tenant":"zz"}}',
        b'{"tenant":{"tenant":1}}',
        b"[" * 999,
    ):
        assert lane("/workers/invoke", nobody) is None


def test_a_program_drives_a_worker(app):
    tenant = next(iter(app.serving.activation.routes)).tenant
    asked = {
        "tenant": {"env": "local", "tenant": tenant, "tenant_id": "t"},
        "worker_id": "w",
        "payload": {"text": "hi"},
        "session_id": "s",
    }
    code, headers, body = call(app, "POST", "/workers/invoke", msgspec.json.encode(asked))
    told = msgspec.json.decode(body)
    assert code == 200 and (told["worker_id"], told["session_id"], told["tenant"]) == ("w", "s", asked["tenant"])
    assert [m["kind"] for m in told["messages"]] == ["text"] and b"access-control-allow-origin" not in headers
    counted = [app.serving.of(i).snapshot() for i in app.serving.activation.revisions]
    assert sorted(c.turns for c in counted) == [0, 1] and app.turns.admission.running == 0


def test_who_finds_no_place_is_told_when_to_come_back(app):
    app.turns.admission = Admission(running=0, waiting=0)
    before = sum(values[0] for name, _, values in TALLIES.rows() if name == "greentic_turns_refused")
    code, headers, body = call(app, "POST", "/", b"1")
    assert (code, headers[b"retry-after"]) == (503, b"5") and b"nothing was done" in body
    assert sum(values[0] for name, _, values in TALLIES.rows() if name == "greentic_turns_refused") == before + 1
    assert not any(app.serving.of(i).snapshot().turns for i in app.serving.activation.revisions)


def test_a_conversation_that_takes_no_more_messages_says_so_and_no_revision_is_blamed(app, monkeypatch):
    async def busy(*words: object, **named: object) -> Turn:
        raise waiting_already(4)

    with monkeypatch.context() as patched:
        patched.setattr("greentic.ingress.turns.turn", busy)
        code, headers, body = call(app, "POST", "/", b'{"text":"hi"}')
    assert (code, headers[b"retry-after"]) == (503, b"1") and b"nothing was done" in body
    counted = [app.serving.of(i).snapshot() for i in app.serving.activation.revisions]
    assert sum(c.failures.get("busy", 0) for c in counted) == 1 == sum(sum(c.failures.values()) for c in counted)
    assert ("busy", 1) in [
        (labels[-1], n) for name, labels, (n, *_) in app.metrics.rows() if name == "greentic_turn_failures"
    ]


def test_a_store_of_conversations_that_does_not_answer_is_told_with_a_time_to_come_back(app, monkeypatch):
    def away(*words: object) -> str:
        raise StoreUnavailable("TimeoutError")

    async def busy(*words: object, **named: object) -> Turn:
        raise StoreUnavailable("ConnectionError")

    conversations = app.turns._services.conversations
    with monkeypatch.context() as patched:
        patched.setattr(type(conversations), "pinned", away)  # before its revision is known
        patched.setattr(Serving, "may_wait", lambda *_: True)
        first = call(app, "POST", "/", b'{"text":"hi"}')
    with monkeypatch.context() as patched:
        patched.setattr("greentic.ingress.turns.turn", busy)  # and after
        second = call(app, "POST", "/", b'{"text":"hi"}')
    for code, headers, body in (first, second):
        assert (code, headers[b"retry-after"]) == (503, b"5") and b"nothing was done" in body
        assert b"Error" not in body
    counted = [app.serving.of(i).snapshot() for i in app.serving.activation.revisions]
    assert sum(c.failures.get("store", 0) for c in counted) == 1 == sum(sum(c.failures.values()) for c in counted)
    assert app.turns.admission.running == 0
    monkeypatch.setattr(type(conversations), "pinned", away)
    assert call(app, "POST", "/", b'{"text":"hi"}')[0] == 200, "nobody can wait here, so the store is not asked"


def test_answers_are_counted_by_their_code(app):
    for path, times in (("/livez", 3), ("/readyz", 1)):
        for _ in range(times):
            assert call(app, "GET", path)[0] == 200
    call(app, "POST", "/", b"{")
    app.draining = True
    assert call(app, "GET", "/readyz")[0] == 503 and call(app, "GET", "/livez")[0] == 200
    told = {labels: n for name, labels, (n,) in app.live() if name == "greentic_http_answers"}
    assert told == {("200",): 5, ("400",): 1, ("503",): 1}
    assert ("greentic_draining", (), [1.0]) in list(app.live())


@pytest.mark.parametrize(("logs", "traces"), [(True, False), (False, True), (True, True), (False, False)])
def test_each_answer_is_told_where_that_is_asked_for_and_nowhere_else(app, logs, traces):
    lines, spans = list[str](), list[tracing.Span]()
    app._access_log = logs
    app._log = SimpleNamespace(
        info=lambda module, text, **more: lines.append(f"{module} {more['code']}"), error=lambda *_: None
    )
    tracing.install(tracing.Tracer(tracing.Sampling(1.0), spans.append) if traces else None)
    try:
        asked = [call(app, "GET", "/livez"), call(app, "POST", "/", b"1"), call(app, "POST", "/", b"{")]
        app.turns.admission = Admission(running=0, waiting=0)
        asked.append(call(app, "POST", "/", b"1"))  # comes later
    finally:
        tracing.install(None)
    codes = [200, 200, 400, 503]
    assert [code for code, _, _ in asked] == codes
    assert lines == ([f"access {code}" for code in codes] if logs else [])
    requests = [span for span in spans if span.kind == "server"]
    assert [s.attributes["http.response.status_code"] for s in requests] == (codes if traces else [])
    assert all(s.ended for s in spans) and bool(spans) is traces


def test_the_status_tells_what_is_served_and_what_is_not(app):
    serving = app.serving
    first, second = serving.activation.revisions.values()
    with serving.lease(first, control=True) as lease:
        lease.failure = "flow"
    serving.of(second.revision_id).ended(0.12345678, None)
    fault = Fault("unreachable", REV, BootError("away"))
    pulled = replace(second, source="https://user:word@a.test/b")
    serving.activation = serving.activation._replace(
        unavailable={DEP: fault}, protections={"anchor": True}, revisions={first.revision_id: first, second.revision_id: pulled},
    )  # fmt: skip
    serving.draining["old"] = Draining(first, 0.0)
    serving.following = {"error": None}
    code, _, body = call(app, "GET", "/status")
    told = msgspec.json.decode(body)
    assert code == 200 and (told["schema"], told["env_id"], told["listen_addr"]) == (
        "greentic.status.v1",
        "local",
        "127.0.0.1:1",
    )
    assert (told["bundles_active"], told["deployments_routed"], told["revisions_active"]) == (2, 2, 2)
    assert (told["restart_required"], told["draining"], told["triggers"], told["process"]) == (
        False,
        False,
        [],
        serving.process,
    )
    assert told["unavailable"] == [
        {"deployment_id": DEP, "revision_id": REV, "reason": "unreachable", "error": fault.text}
    ]
    assert told["skipped_deployments"] == {DEP: fault.text} and told["protections"] == {"anchor": True}
    assert [row["revision_id"] for row in told["draining_revisions"]] == ["old"] and told["following"] == {
        "error": None
    }
    one, two = told["revisions"]
    seconds = serving.of(first.revision_id).snapshot().seconds
    assert (one["counts"]["turns"], one["counts"]["failures"], one["counts"]["seconds"]) == (
        1,
        {"flow": 1},
        round(seconds, 6),
    )
    assert (
        one["control"]["turns"] == 1
        and two["control"] is None
        and (two["counts"]["turns"], two["counts"]["seconds"]) == (1, 0.123457)
    )
    assert sum(one["counts"]["latency"]["counts"]) == 1 and (one["counts"]["in_flight"], one["counts"]["parked"]) == (
        0,
        0,
    )
    assert (one["bundle_source_uri"], one["weight_bps"], one["bundle_digest"]) == (None, 10_000, first.digest)
    assert two["bundle_source_uri"] and "word" not in two["bundle_source_uri"]
    assert [(p["pack_id"], p["version"], p["signed"], p["flows"]) for p in one["packs"]] == [
        ("hello", "0.1.0", False, ["main"])
    ]
    assert (told["telemetry"]["exporter"], told["telemetry"]["installed"]) == ("none", False)
    tracing.install(tracing.Tracer(tracing.Sampling(0.0), lambda span: None))
    try:
        told = msgspec.json.decode(call(app, "GET", "/status")[2])
    finally:
        tracing.install(None)
    assert (told["telemetry"]["exporter"], told["telemetry"]["installed"]) == ("otlp", True)


# -- seeds and logs -------------------------------------------------------------------------------------------------


def test_a_mounted_configmap_is_a_seed(tmp_path):
    seed, target = tmp_path / "seed", tmp_path / "env"
    (seed / "..2026").mkdir(parents=True)
    (seed / "..2026" / "environment.json").write_text("{}")
    (seed / "..data").symlink_to("..2026")
    (seed / "environment.json").symlink_to("..data/environment.json")
    (seed / "deep").mkdir()
    (seed / "deep" / "x").write_text("x")
    (seed / "outside").symlink_to("/etc/passwd")
    target.mkdir()
    (target / "environment.json").write_text("old")
    (target / "stays").write_text("s")
    assert place_seed(read_seed(seed, target), target) == 2
    assert (
        (target / "environment.json").read_text() == "{}"
        and (target / "stays").exists()
        and not (target / "outside").exists()
    )
    assert (target / "environment.json").stat().st_mode & 0o777 == 0o600


def test_seeds_that_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "f").write_text("x")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "f").symlink_to("/etc/passwd")
    for seed, env_dir, text in (
        ("absent", "env", "does not exist"),
        ("empty", "env", "no files to seed"),
        ("seed", "seed", "overlap"),
        ("seed", "env", "is a link"),
    ):
        with pytest.raises(BootError, match=text):
            place_seed(read_seed(tmp_path / seed, tmp_path / env_dir), tmp_path / env_dir)


def test_the_log_falls_back_and_warnings_reach_stderr(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    log = OperatorLog(tmp_path / "file", FakeClock(), level="Warn")
    log.info("m", "quiet", show=True)
    log.warn("m", "loud\nlines")
    log.close()
    text = (tmp_path / "logs" / "operator.log").read_text()
    assert "[Warn] greentic.m - loud lines\n" in text and "quiet" not in text
    assert "falling back" in (err := capsys.readouterr().err) and "loud lines" in err
    (tmp_path / "logs" / "operator.log").unlink()
    (tmp_path / "logs").rmdir()
    (tmp_path / "logs").write_text("")
    silent = OperatorLog(tmp_path / "file", FakeClock())
    silent.warn("m", "still said")
    assert "going on without it" in (err := capsys.readouterr().err) and "still said" in err


def test_banners():
    assert banner("e", 0, 0, "h:1").startswith("no bundles attached to env `e` — serving probes only on http://h:1")
    assert banner("e", 2, 1, "h:1") == "serving 2 revision(s) for env `e` across 1 deployment(s) on http://h:1"
    assert CountingRandom().octets(2) == b"\0\1" and Path().exists()


@pytest.mark.parametrize(
    ("body", "told"), [(b"{}", "line 1 column 2"), (b"{\n}\n", "line 2 column 1"), (b"{\n\n }", "line 3 column 2")]
)
def test_where_a_document_ends_is_told_from_line_and_column_one(body, told):
    assert invoke._end_of(body) == f" at {told}"
