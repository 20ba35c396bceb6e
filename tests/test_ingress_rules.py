"""Who a request is of, what a token opens, and which connection makes room: each rule at its edge."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.ground.clock import CLOCK
from greentic.ground.errors import BootError
from greentic.httpd.front import Answer, Front
from greentic.httpd.http1 import Incoming, Refusal, read_head
from greentic.httpd.room import OTHER_FILES, RESERVED, Places, places
from greentic.ingress import access_log, request_span, steps
from greentic.ingress.access_log import Access
from greentic.ingress.admission import Admission, Busy
from greentic.ingress.auth import TOKENS_FILE, BearerGate, IngressToken, load_tokens
from greentic.ingress.identity import (
    MAX_NAME,
    NOTHING,
    SESSION_BYTES,
    RequestIdentity,
    Stated,
    session_cookie,
    stranger_identity,
    trusted_identity,
)
from greentic.ingress.invoke import InvalidRequest, WorkerRequest, read_request, response
from greentic.ingress.steps import MAX_LINES, MAX_STEPS, MAX_VALUE, SHOWN, Steps
from greentic.sessions.conversation import Identity
from greentic.store.layout import EnvPaths
from greentic.telemetry import tracing
from greentic.telemetry.tracing import Sampling, Span, Tracer
from simulators import FakeClock

HEX = hashlib.sha256(b"s3cret").hexdigest()


def written(path: Path, *tokens: object, schema: str = "greentic.ingress-tokens.v1") -> Path:
    path.write_text(json.dumps({"schema": schema, "tokens": tokens}))
    return path


@pytest.mark.parametrize("digest", ["", HEX[:-1], HEX + "0", HEX.upper(), "g" * 64, "ab", "-" + HEX[1:]])
def test_threat_fail_open_gate_a_token_that_is_no_digest_is_no_token(tmp_path: Path, digest: str) -> None:
    path = written(tmp_path / TOKENS_FILE, {"sha256": HEX}, {"sha256": digest})
    for named in (None, path):
        with pytest.raises(BootError, match="64 lower-case hex digits"):
            load_tokens(EnvPaths(tmp_path), named)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"sha256": "%s", "bundel_id": "bot"}', "bundel_id"), ('{"sha256": "%s", "expires-at": 5}', "expires-at"),
        ('{"sha256": "%s", "bundle_id": "bot", "bundle_id": null}', "`bundle_id` stands twice"),
        ('{"sha256": "%s", "expires_at": 5}, {"sha256": "' + HEX + '"}', f"{HEX[:12]}… for every bundle stands twice"),
        ('{"sha256": "%s", "bundle_id": "a", "expires_at": 5}, {"sha256": "' + HEX + '", "bundle_id": "a"}', "for bundle `a` stands twice"),
        ('{"sha256": "%s", "expires_at": 1800000000000}', "not milliseconds"), ('{"sha256": "%s"}], "tokns": [', "tokns"),
    ],
)  # fmt: skip
def test_threat_fail_open_gate_a_restriction_that_would_restrict_nothing_refuses_the_file(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "t").write_text('{"schema": "greentic.ingress-tokens.v1", "tokens": [' + text % HEX + "]}")
    with pytest.raises(BootError, match=told):
        load_tokens(EnvPaths(tmp_path), tmp_path / "t")


def test_a_token_may_open_two_bundles(tmp_path: Path) -> None:
    tokens = [{"sha256": HEX, "bundle_id": name} for name in ("a", "b", "every bundle")]
    found = load_tokens(EnvPaths(tmp_path), written(tmp_path / "t", *tokens, {"sha256": HEX}, {"sha256": HEX[::-1]}))
    assert found is not None and len(found) == 5


def test_a_token_may_have_a_note(tmp_path: Path) -> None:
    found = load_tokens(
        EnvPaths(tmp_path), written(tmp_path / "t", {"sha256": HEX, "note": "ann's", "expires_at": 10**11})
    )
    assert found == [IngressToken(HEX, None, 10**11, "ann's")]


def test_threat_fail_open_gate_a_file_of_tokens_that_was_named_must_be_there(tmp_path: Path) -> None:
    paths = EnvPaths(tmp_path)
    assert load_tokens(paths) is None
    with pytest.raises(BootError, match="is not there"):
        load_tokens(paths, tmp_path / "named")
    assert load_tokens(paths, written(tmp_path / "named", {"sha256": HEX})) == [IngressToken(HEX)]
    written(tmp_path / TOKENS_FILE, schema="other")
    with pytest.raises(BootError, match="schema `other`"):
        load_tokens(paths)
    (tmp_path / TOKENS_FILE).write_text("{")
    with pytest.raises(BootError, match="does not load"):
        load_tokens(paths)
    with pytest.raises(BootError, match=r"does not load: [A-Z][a-z ]+$"):  # no number of an error
        load_tokens(paths, tmp_path)


@pytest.mark.parametrize(
    ("field", "bundle", "now", "opens"),
    [
        ("Bearer s3cret", "demo", 99, True), ("bearer  s3cret ", "demo", 99, True), ("Bearer s3cret", "demo", 100, False),
        ("Bearer s3cret", "other", 99, False), ("Basic s3cret", "demo", 99, False), ("s3cret", "demo", 99, False),
        ("Bearer", "demo", 99, False), (None, "demo", 99, False), ("Bearer s3cre", "demo", 99, False),
    ],
)  # fmt: skip
def test_a_token_opens_its_bundle_until_it_ends(field: str | None, bundle: str, now: int, opens: bool) -> None:
    gate = BearerGate([IngressToken("0" * 64), IngressToken(HEX, "demo", 100), IngressToken("f" * 64)], enabled=True)
    assert gate.configured and gate.lets_in(field, bundle, now) is opens
    assert gate.unknown(["demo"]) == [] and gate.unknown(["x"]) == ["demo"]
    assert not gate.take_over(None) and gate.configured, "a file that went is taken for an accident"
    assert gate.take_over([]) and not gate.lets_in("Bearer s3cret", "demo", 99)


def test_a_gate_without_tokens_or_that_is_switched_off_is_open() -> None:
    for gate in (BearerGate(None, enabled=True), BearerGate([], enabled=False), BearerGate(None, enabled=False)):
        assert gate.lets_in(None, "demo", 0) and not gate.configured


@pytest.mark.parametrize("told", ["", "x", "ä b", "x" * MAX_NAME, "x" * (MAX_NAME + 1), None, 7, True, ["x"]])
def test_a_name_is_what_a_trusted_peer_says_if_it_is_one(told: Any) -> None:
    expected = told if isinstance(told, str) and told and len(told) <= MAX_NAME else None
    found = trusted_identity(NOTHING, {"user": told, "session": told})
    assert found.identity == Identity(session=expected, user=expected) and not found.private
    if told is None or isinstance(told, str):
        field = trusted_identity(Stated(told, told, "e"), {"user": "body", "session": "body"}).identity
        assert (field.session, field.user, field.endpoint) == (expected or "body", expected or "body", "e")


def test_an_empty_name_is_none() -> None:
    assert trusted_identity(Stated("", ""), {"user": "", "session": ""}).identity == Identity()
    for body in (None, [], "x", 1):
        assert trusted_identity(NOTHING, body).identity == Identity()


def test_a_stranger_has_a_session_of_its_own_unless_all_share() -> None:
    fresh = bytes(range(SESSION_BYTES))
    made = stranger_identity(None, fresh, shared=False)
    cookie = session_cookie(made.identity).partition("=")[2].partition(";")[0]
    assert made.private and len(cookie) == 24
    assert stranger_identity(cookie, bytes(SESSION_BYTES), shared=False) == made
    for wrong in ("", cookie[:-1], cookie + "a", cookie[:-1] + "/", cookie[:-1] + ":", "private:" + cookie[8:]):
        assert stranger_identity(wrong, fresh, shared=False) == made
    assert stranger_identity(cookie, fresh, shared=True) == RequestIdentity(Identity(), False)


class Line:
    """A connection, as the front sees it."""

    def __init__(self) -> None:
        self.aborted = 0
        self.stands: object = None

    def abort(self) -> None:
        self.aborted += 1

    def stand(self, kind: object) -> None:
        self.stands = kind


def test_who_leaves_stands_among_nobody_and_has_no_place() -> None:
    front = Front(cast("Any", None), Places(1, 2), lambda path: False)
    first, second = Line(), Line()
    for line in (first, second):
        line.stands = "idle"
        front.admit(cast("Any", line))
        front.leave(cast("Any", line))
        assert line.stands is None
    assert not front.connections and not front.reserved


def test_a_front_that_is_closed_sweeps_no_more() -> None:
    async def scenario() -> None:
        front = Front(cast("Any", None), Places(1, 1), lambda path: False)
        front.start()
        sweeper = front._sweeper
        assert sweeper is not None and not sweeper.cancelled()
        assert await front.close(0) == 0 and sweeper.cancelled()

    asyncio.run(scenario())


def test_threat_slow_peer_without_a_place_the_oldest_of_the_reserved_goes() -> None:
    front = Front(cast("Any", None), Places(2, 2), lambda path: False)
    lines = [Line() for _ in range(6)]
    full = [front.admit(cast("Any", line)) for line in lines]
    assert full == [True, True, False, False, False, False]
    assert [line.aborted for line in lines] == [0, 0, 1, 1, 0, 0] and front.refused == 2
    assert list(front.connections) == [lines[0], lines[1], lines[4], lines[5]]
    assert list(front.reserved) == lines[4:]


def test_reserved_ones_take_no_full_place() -> None:
    front = Front(cast("Any", None), Places(1, 1), lambda path: False)
    first, reserved, third = Line(), Line(), Line()
    assert front.admit(cast("Any", first)) and not front.admit(cast("Any", reserved))
    front.leave(cast("Any", first))
    assert front.admit(cast("Any", third)) and not reserved.aborted


def test_a_connection_that_may_go_makes_a_full_place() -> None:
    front = Front(cast("Any", None), Places(1, 1), lambda path: False)
    old, new = Line(), Line()
    assert front.admit(cast("Any", old))
    front.idle[cast("Any", old)] = None
    assert front.admit(cast("Any", new)) and old.aborted == 1 and list(front.connections) == [new]


def test_a_date_is_made_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    now = [10]
    monkeypatch.setattr("greentic.httpd.front.unix_seconds", lambda: now[0])
    monkeypatch.setattr("greentic.httpd.front.http_date", lambda at: made.append(at) or str(at).encode())
    front = Front(cast("Any", None), Places(1, 1), lambda path: False)
    assert [front.date() for _ in range(3)] == [b"10"] * 3 and made == [10]
    now[0] = 11
    assert front.date() == b"11" and made == [10, 11]


def test_a_refusal_says_why() -> None:
    refusal = Refusal(431, "the head is too large")
    assert (refusal.code, refusal.text, str(refusal)) == (431, "the head is too large", "the head is too large")


@given(st.integers(0, 100_000), st.integers(0, 100_000))
def test_there_is_always_some_place_and_some_reserve(wanted: int, files: int) -> None:
    found = places(wanted, files)
    assert found.full >= 4 and found.reserved >= 2 and found.full <= max(wanted, 4)
    assert found.full + found.reserved <= max(files - OTHER_FILES, 8) and found.reserved <= RESERVED


def test_closing_without_connections_waits_for_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> int:
        front, loop = Front(cast("Any", None), Places(1, 1), lambda path: False), asyncio.get_running_loop()

        def refuse(*words: object, **more: object) -> None:
            raise AssertionError("a timer was asked for")

        monkeypatch.setattr(loop, "call_later", refuse)
        monkeypatch.setattr(loop, "call_at", refuse)
        found = await front.close(5)
        monkeypatch.undo()
        assert front.draining and front.closing
        return found

    assert asyncio.run(scenario()) == 0


# -- what is told of a request --------------------------------------------------------------------------------------


class Logged:
    """Keeps the fields of each record."""

    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []

    def info(self, module: str, message: str, **fields: object) -> None:
        self.records.append({"module": module, "message": message} | fields)


def asked(path: bytes = b"/x", method: bytes = b"GET", fields: bytes = b"", came: float = 0.0) -> Incoming:
    return Incoming(read_head(method + b" " + path + b" HTTP/1.1\r\nhost: h\r\n" + fields + b"\r\n"), b"", came)


async def answering(answer: Answer | BaseException) -> Answer:
    await asyncio.sleep(0)
    if isinstance(answer, Answer):
        return answer
    raise answer


def test_an_access_is_told_once_with_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(access_log, "CLOCK", type("At", (), {"monotonic": staticmethod(lambda: now[0])}))
    log = Logged()
    access = Access(cast("Any", log), "::1", asked(b"/" + b"p" * 600 + b"?secret", came=10.0))
    now[0] = 10.12345678
    access.answered(Answer(201, b"body", [], ("D", "R")))
    answer = Answer(503, b"", [])
    assert asyncio.run(access.awaited(answering(answer))) is answer
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(access.awaited(answering(asyncio.CancelledError())))
    with pytest.raises(RuntimeError):
        asyncio.run(access.awaited(answering(RuntimeError("ours"))))
    assert [(r["code"], r["bytes"], r["deployment"], r["revision"]) for r in log.records] == [
        (201, 4, "D", "R"), (503, 0, None, None), (499, 0, None, None),
    ]  # fmt: skip
    first = log.records[0]
    assert (first["seconds"], first["path"], first["peer"], first["method"]) == (
        0.123457,
        "/" + "p" * 511,
        "::1",
        "GET",
    )
    assert "201 4 123.5 ms" in str(first["message"]) and "secret" not in str(log.records)


@pytest.fixture
def spans() -> Iterator[list[Span]]:
    """What ended, of everything that is traced."""
    taken: list[Span] = []
    tracing.install(Tracer(Sampling(1.0, as_told=True), taken.append))
    yield taken
    tracing.install(None)


def test_the_span_of_a_request_ends_with_its_answer_however_that_comes(spans: list[Span]) -> None:
    tracer = tracing.installed()
    assert tracer is not None
    codes: tuple[tuple[int, str | None], ...] = ((200, None), (499, None), (500, "500"), (503, "503"))
    for code, error in codes:
        answer = Answer(code, b"", [])
        span = request_span.begun(tracer, asked(), b"id")
        assert span is not None and request_span.answered(span, answer) is answer
        span = request_span.begun(tracer, asked(), b"id")
        assert span is not None and asyncio.run(request_span.awaited(span, answering(answer))) is answer
        assert [(s.attributes["http.response.status_code"], s.error) for s in spans] == [(code, error)] * 2
        spans.clear()
    for failure in (asyncio.CancelledError(), RuntimeError("x")):
        span = request_span.begun(tracer, asked(), b"id")
        assert span is not None
        with pytest.raises(type(failure)):
            asyncio.run(request_span.awaited(span, answering(failure)))
        assert spans.pop().error == type(failure).__name__ and not spans


def test_the_span_of_a_request_begins_when_it_came(spans: list[Span], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(request_span, "CLOCK", clock)
    tracer = tracing.installed()
    assert tracer is not None
    came = clock.monotonic()
    clock.sleep(600)
    before = CLOCK.now_ns()
    span = request_span.begun(tracer, asked(came=came), b"id")
    assert span is not None and span.began < before - 500e9


def test_what_strangers_ask_for_makes_no_names_and_no_long_attributes(spans: list[Span]) -> None:
    tracer = tracing.installed()
    assert tracer is not None
    span = request_span.begun(tracer, asked(b"/" + b"p" * 300 + b"?secret", b"M" * 30), b"id")
    assert span is not None and (span.name, span.kind) == ("HTTP", "server")
    assert span.attributes == {
        "http.request.method": "M" * 20, "url.path": "/" + "p" * 255, "http.request.header.x-request-id": "id",
    }  # fmt: skip
    parent = f"traceparent: 00-{'a' * 32}-{'b' * 16}-0"
    went_on = request_span.begun(tracer, asked(method=b"POST", fields=f"{parent}1\r\n".encode()), b"id")
    assert went_on is not None and (went_on.name, went_on.trace_id, went_on.parent_id) == ("POST", "a" * 32, "b" * 16)
    assert request_span.begun(tracer, asked(fields=f"{parent}0\r\n".encode()), b"id") is None


class Moments(FakeClock):
    """A clock whose looks are a given time apart."""

    def __init__(self, apart: float) -> None:
        super().__init__()
        self.at, self.apart = 0.0, apart

    def monotonic(self) -> float:
        self.at += self.apart
        return self.at


def test_steps_are_told_up_to_their_bounds_and_what_is_beyond_is_counted() -> None:
    told = Steps(Moments(1.23456789))
    for number in range(MAX_LINES):
        told.said("c", "stdout", str(number))
    told.step("f", "n", "k", "a" * (MAX_VALUE - 2), "a" * (MAX_VALUE - 1), "next")
    for _ in range(MAX_STEPS - 1):
        told.step("f", "n", "k", None, None, "next")
    found = told.told()
    assert (found["left_out"], found["lines_left_out"], found["log"]) == (0, 0, [])
    rows = cast("list[dict[str, Any]]", found["steps"])
    assert len(rows) == MAX_STEPS == 200 and len(rows[0]["log"]) == MAX_LINES == 200 and rows[1]["log"] == []
    assert rows[0]["seconds"] == 1.234568 and bytes(rows[0]["input"]) == b'"' + b"a" * (MAX_VALUE - 2) + b'"'
    assert rows[0]["output"] == {"cut": '"' + "a" * (SHOWN - 1), "bytes": MAX_VALUE + 1}
    told.said("c", "stdout", "more")
    told.step("f", "n", "k", None, None, "next")
    found = told.told()
    assert (found["left_out"], found["lines_left_out"], found["log"]) == (1, 1, [])
    assert steps._bounded("\U0001f600" * SHOWN * 3) == {
        "cut": '"' + "\U0001f600" * (SHOWN - 1),
        "bytes": SHOWN * 12 + 2,
    }


# -- driving a worker -----------------------------------------------------------------------------------------------

TENANT = '"tenant": {"env": "e", "tenant": "t", "tenant_id": "i"}'


def test_a_body_that_is_no_request_says_where() -> None:
    assert read_request(f'{{{TENANT}, "worker_id": "w"}}'.encode()).tenant["tenant_id"] == "i"
    for body, where in (
        (b'{"a": 1,', " at line 1 column 8"), (b'{\n "a": [\n\n', " at line 2 column 7"), (b"", " at line 1 column 0"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest) as error:
            read_request(body)
        assert str(error.value).endswith(where), body
    for member in ("env", "tenant", "tenant_id"):
        tenant = {"env": "e", "tenant": "t", "tenant_id": "i"} | {member: 7}
        with pytest.raises(InvalidRequest, match=f"missing field `{member}` - at `[$].tenant`"):
            read_request(json.dumps({"tenant": tenant, "worker_id": "w"}).encode())
    with pytest.raises(InvalidRequest, match="missing"):
        read_request(b'{"worker_id": "w"}')


def deep(levels: int) -> object:
    return {"renderedCard": {"a": 1}} if not levels else {"outputs": deep(levels - 1)}


@pytest.mark.parametrize(
    ("payload", "kind", "told"),
    [
        ({"text": "hi"}, "text", {"text": "hi"}), ({"metadata": {"error_kind": "flow"}}, "text", {"metadata": {"error_kind": "flow"}}),
        ({"metadata": {"x": 1}}, "activity", {"metadata": {"x": 1}}), ({"metadata": 7}, "activity", {"metadata": 7}), (7, "activity", 7),
        ({"renderedCard": {"a": 1}, "text": "hi"}, "adaptive-card", {"a": 1}), ({"renderedCard": None}, "activity", {"renderedCard": None}),
        ({"result": {"payload": {"renderedCard": [1]}}}, "adaptive-card", [1]), (deep(8), "adaptive-card", {"a": 1}), (deep(9), "activity", deep(9)),
        ({"outputs": [{"renderedCard": 1}, {"renderedCard": 2}, {}]}, "adaptive-card", 2), ({"other": {"renderedCard": 1}}, "activity", {"other": {"renderedCard": 1}}),
        ({"status": "pending", "response": {"text": "?"}}, "text", {"text": "?"}), ({"status": "done", "response": {"text": "?"}}, "activity", {"status": "done", "response": {"text": "?"}}),
    ],
)  # fmt: skip
def test_a_reply_is_told_as_the_message_that_it_is(payload: object, kind: str, told: object) -> None:
    request = WorkerRequest({"tenant": "t"}, "w", correlation_id="c", session_id="s", thread_id="h")
    found = response(request, [payload], "now")
    assert found.pop("messages") == [{"kind": kind, "payload": told}]
    assert found == {
        "version": "1.0.0", "tenant": {"tenant": "t"}, "worker_id": "w", "timestamp_utc": "now", "correlation_id": "c",
        "session_id": "s", "thread_id": "h",
    }  # fmt: skip


# -- whose turn is next ---------------------------------------------------------------------------------------------


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


class Entering:
    """Those who ask for a place, in the order of coming in."""

    def __init__(self, admission: Admission) -> None:
        self.admission, self.inside, self.tasks = admission, list[str](), dict[str, asyncio.Task[None]]()

    async def ask(self, *names: str) -> None:
        """`a1` is of the deployment `a`."""

        async def enter(name: str) -> None:
            await self.admission.enter(name[0])
            self.inside.append(name)

        for name in names:
            self.tasks[name] = asyncio.get_running_loop().create_task(enter(name))
        await settled()

    async def leave(self, name: str) -> None:
        self.inside.remove(name)
        self.admission.leave(name[0])
        await settled()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        await settled()
        assert self.tasks[name].cancelled()


def admitted(scenario: Callable[[Entering], Awaitable[None]], **limits: Any) -> None:
    async def run() -> None:
        made = Entering(Admission(**limits))
        await scenario(made)
        for name in list(made.inside):
            await made.leave(name)
        assert (made.admission.running, made.admission.waiting, made.admission._lines) == (0, 0, {})
        assert made.admission._free == limits.get("running")

    asyncio.run(asyncio.wait_for(run(), 20))


def test_places_are_given_back_and_lines_take_turns() -> None:
    async def scenario(made: Entering) -> None:
        await made.ask("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        assert made.inside == ["a1", "a2"] and (made.admission.running, made.admission.waiting) == (2, 5)
        for gone, comes in (("a1", "a3"), ("a2", "b1"), ("b1", "c1"), ("a3", "a4"), ("c1", "b2")):
            await made.leave(gone)
            assert made.inside[-1] == comes and made.admission.running == 2
        assert made.admission.waiting == 0

    admitted(scenario, running=2, each=2, waiting=9)


def test_one_deployment_has_no_more_than_its_share_and_blocks_nobody() -> None:
    async def scenario(made: Entering) -> None:
        await made.ask("a1", "a2", "a3", "b1")
        assert made.inside == ["a1", "a2", "b1"] and made.admission.waiting == 1
        await made.leave("b1")
        assert made.inside == ["a1", "a2"], "a free place, but not for one whose share is used up"
        await made.leave("a1")
        assert made.inside == ["a2", "a3"]

    admitted(scenario, running=3, each=2, waiting=9)


def test_a_deployment_whose_share_is_used_up_holds_up_nobody_behind_it() -> None:
    async def scenario(made: Entering) -> None:
        await made.ask("a1", "a2", "c1", "a3", "b1")
        assert made.inside == ["a1", "a2", "c1"] and made.admission.waiting == 2
        await made.leave("c1")
        assert made.inside == ["a1", "a2", "b1"]
        await made.leave("a1")
        assert made.inside == ["a2", "b1", "a3"]

    admitted(scenario, running=3, each=2, waiting=9)


def test_a_place_that_comes_free_while_the_first_in_line_gives_up_goes_to_the_next() -> None:
    async def scenario(made: Entering) -> None:
        await made.ask("a1", "a2", "b1")
        made.tasks["a2"].cancel()
        await made.leave("a1")
        assert made.inside == ["b1"] and made.tasks["a2"].cancelled()

    admitted(scenario, running=1, each=1, waiting=9)


def test_who_gives_up_while_it_waits_leaves_its_place_in_line() -> None:
    async def scenario(made: Entering) -> None:
        await made.ask("a1", "a2", "a3", "b1")
        await made.give_up("a2")
        assert made.admission.waiting == 2
        made.admission.leave("a")  # and who is let in at the very moment of giving up gives the place on
        made.inside.remove("a1")
        made.tasks["a3"].cancel()
        await settled()
        assert made.inside == ["b1"] and made.tasks["a3"].cancelled()

    admitted(scenario, running=1, each=1, waiting=9)


def test_a_line_is_bounded_in_length() -> None:
    async def scenario(made: Entering) -> None:
        await made.ask("a1", "a2", "a3", "a4", "b1")
        assert isinstance(made.tasks["a4"].exception(), Busy) and made.admission.waiting == 3
        for gone in ("a1", "a2", "b1"):
            await made.leave(gone)
        assert made.inside == ["a3"]

    admitted(scenario, running=1, each=1, waiting=2, seconds=600)


def test_who_waits_too_long_is_told_to_come_back() -> None:
    async def scenario(made: Entering) -> None:
        await made.ask("a1", "a2", "b1")
        for name in ("a2", "b1"):
            with pytest.raises(Busy):
                await made.tasks[name]
        assert made.inside == ["a1"] and made.admission.waiting == 0

    admitted(scenario, running=1, each=1, waiting=2, seconds=0)
