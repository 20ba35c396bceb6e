"""The console without a browser: its door, what it makes of document, status, proof and audit, and what it passes on."""

from __future__ import annotations

import asyncio
import json
import socket
import threading

import msgspec
import pytest

from conftest import gtc
from greentic.console import console_app
from greentic.console.chain import proven, told
from greentic.console.changes import Asked, Changes
from greentic.console.chat import MAX_CONVERSATIONS, ChatMessage, Chats, answer_of, body_of
from greentic.console.console_app import ConsoleApp
from greentic.console.door import Door
from greentic.console.page_files import page_files
from greentic.console.picture import picture
from greentic.console.pictures import fetch_picture, kind_of
from greentic.console.timeline import timeline
from greentic.console.workers import LiveStatus, Watched, live_row
from greentic.distribute.serve_directory import DirectoryServer
from greentic.ground.documents import decode
from greentic.ground.errors import Conflict, FetchError, GreenticError, InvalidArgument, NotFound
from greentic.httpd.front import Answer
from greentic.httpd.http1 import RequestReader
from greentic.model.delivery import Delivery
from greentic.model.environment import Environment
from greentic.model.ids import ulid_from_int
from greentic.net.addresses import shown
from greentic.rollout.ramp_run import TrafficRampPayload, _change, _wanted
from greentic.trust.keys import SigningKey, public_pem
from greentic.trust.proof import (
    SCHEMA,
    Bundle,
    Pack,
    Packs,
    Proof,
    ProvenRevision,
    ProvenWorker,
    Routed,
    Served,
    Signatures,
    Source,
    signed_proof,
    told_routes,
)
from greentic.trust.proof_verdict import Known, judge
from simulators import CountingRandom
from test_model_rules import DEP, REV, REV2, deployment, env, revision, split

PORT = 8070
OWN = f"127.0.0.1:{PORT}"


# -- the door -------------------------------------------------------------------------------------------------------


def fields(door: Door, **more: str) -> dict[bytes, bytes]:
    cookie = door.set_cookie().partition(b";")[0].decode()
    told = {"host": OWN, "cookie": cookie} | {k.replace("_", "-"): v for k, v in more.items()}
    return {k.encode(): v.encode() for k, v in told.items()}


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1.evil.example:{PORT}", ""])  # fmt: skip
def test_threat_host_rebinding(host):
    """A name that somebody points at this machine opens nothing, even for a browser that holds the cookie."""
    assert Door(PORT).judge("GET", fields(Door(PORT), host=host)) == "foreign"


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("GET", {"origin": "https://evil.example"}),
        ("GET", {"origin": "null"}),
        ("GET", {"origin": "http://127.0.0.1:1"}),
        ("GET", {"sec_fetch_site": "cross-site"}),
        ("GET", {"sec_fetch_site": "same-site"}),
        ("POST", {"x_greentic_console": "1"}),
        ("POST", {"origin": f"http://{OWN}"}),
        ("POST", {"origin": f"http://{OWN}", "x_greentic_console": "1", "sec_fetch_site": "cross-site"}),
        ("POST", {"origin": f"http://localhost:{PORT}", "x_greentic_console": "1"}),
    ],
)
def test_threat_foreign_page(method, more):
    door = Door(PORT)
    assert door.judge(method, fields(door, **more)) == "foreign"


def test_the_own_page_passes_and_a_stranger_does_not():
    door = Door(PORT)
    assert door.judge("GET", fields(door)) == "pass"
    assert door.judge("POST", fields(door, origin=f"http://{OWN}", x_greentic_console="1")) == "pass"
    assert door.judge("GET", fields(door, host=f"localhost:{PORT}", origin=f"http://localhost:{PORT}")) == "pass"
    assert door.judge("GET", fields(door, cookie="")) == "stranger"
    assert door.judge("GET", fields(Door(PORT))) == "stranger", "the cookie of a console that ran before"
    assert door.judge("GET", fields(door, cookie=f"{door.cookie_name}={door.token}")) == "stranger"
    assert door.opens(door.token) and not door.opens("") and not door.opens(door.token[:-1] + "é")
    assert door.token.encode() not in door.set_cookie()
    assert b"HttpOnly" in door.set_cookie() and b"SameSite=Strict" in door.set_cookie()


# -- the application ------------------------------------------------------------------------------------------------


class Asker:
    """A console, and its own page as the wire has it."""

    def __init__(self, store, env_id: str = "local", at: list[str] | None = None, *, allowed: bool = False) -> None:
        self.door = Door(PORT, CountingRandom())
        self.changes = Changes(store, env_id, at or [], allowed=allowed)
        self.app = ConsoleApp(store, env_id, Watched(at or []), self.door, self.changes)

    def ask(self, method: str, path: str, body: object = None, **more: str) -> Answer:
        told = {"host": OWN, "cookie": self.door.set_cookie().partition(b";")[0].decode()}
        data = b"" if body is None else json.dumps(body).encode()
        if method == "POST":
            told |= {"origin": f"http://{OWN}", "x-greentic-console": "1", "content-length": str(len(data))}
        told |= {k.replace("_", "-"): v for k, v in more.items()}
        reader = RequestReader()
        lines = "".join(f"{k}: {v}\r\n" for k, v in told.items())
        reader.feed(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)
        request = reader.next()
        assert request is not None

        async def answered() -> Answer:
            found = self.app(request, "127.0.0.1")
            return found if isinstance(found, Answer) else await found

        return asyncio.run(answered())

    def told(self, path: str) -> dict[str, object]:
        answer = self.ask("GET", path)
        assert answer.code == 200, answer.body
        return json.loads(answer.body)


@pytest.fixture
def served(author, hello):
    author.create()
    return author.deployed(hello)


def test_the_token_opens_and_nothing_else_does(store, served):
    asker = Asker(store)
    shut = asker.ask("GET", "/", cookie="")
    assert shut.code == 401 and b"<" not in shut.body and b"local" not in shut.body
    assert asker.ask("GET", "/open/wrong", cookie="").code == 401
    opened = asker.ask("GET", f"/open/{asker.door.token}", cookie="")
    assert opened.code == 303 and dict(opened.headers)[b"location"] == b"/"
    assert dict(opened.headers)[b"set-cookie"] == asker.door.set_cookie()
    assert asker.ask("GET", f"/open/{asker.door.token}", cookie="", host="evil.example").code == 403
    assert asker.ask("GET", "/api/environments", origin="https://evil.example").code == 403


def test_every_answer_is_dressed(store, served):
    asker = Asker(store)
    for path in ("/", "/static/main.js", "/api/environments", "/nowhere", "/open/x", "/static/../door.py"):
        headers = dict(asker.ask("GET", path).headers)
        policy = headers[b"content-security-policy"]
        assert b"default-src 'none'" in policy and b"unsafe" not in policy and b"frame-ancestors 'none'" in policy
        assert headers[b"x-content-type-options"] == b"nosniff" and headers[b"cache-control"] == b"no-store"
        assert not any(name.startswith(b"access-control") for name in headers)
    assert asker.ask("GET", "/static/../door.py").code == 404 and asker.ask("GET", "/static/%2e%2e/door.py").code == 404


def test_the_page_names_no_other_address_and_nothing_inline():
    files = page_files()
    assert "/" in files and "/static/cards/model.js" in files
    for path, file in files.items():
        text = file.data.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, path
        for never in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " onclick=",
            "<style",
            "style=",
        ):
            assert never not in text, (path, never)


def test_an_environment_that_did_not_change_is_told_once(store, served):
    asker = Asker(store)
    first = asker.ask("GET", "/api/environment/local")
    tag = dict(first.headers)[b"etag"].decode()
    again = asker.ask("GET", "/api/environment/local", if_none_match=tag)
    assert first.code == 200 and (again.code, again.body) == (304, b"")
    assert asker.ask("GET", "/api/environment/nope").code == 404
    assert asker.ask("GET", "/api/environment/..").code == 400


def test_what_the_system_refuses_is_told_as_that_and_not_as_a_mistake_of_the_program(store, served):
    path = store.paths("local").audit
    path.unlink()
    path.mkdir()
    answer = Asker(store).ask("GET", "/api/history/local")
    error = json.loads(answer.body)["error"]
    assert error["kind"] == "io" and str(path) in error["message"] and "(at " not in error["message"]


def test_what_is_there_is_told_without_a_worker(store, served):
    asker = Asker(store, at=["http://127.0.0.1:1"])
    deployment_id, revision_id = served
    shown = asker.told("/api/environment/local")["deployments"][0]
    assert shown["deployment_id"] == deployment_id and shown["revisions"][0]["weight_bps"] == 10_000
    live = asker.told("/api/live/local")["workers"][0]
    assert live["answers"] is False and "does not answer" in live["error"]
    chain = asker.told(f"/api/proof/local/{revision_id}")
    assert chain["chains"][0]["error"] and [s["step"] for s in chain["document"]] == ["source", "bundle", "signatures", "routes"]  # fmt: skip
    history = asker.told("/api/history/local")
    assert [f"{c['noun']} {c['verb']}" for c in history["changes"]][:2] == ["traffic set", "revisions warm"]
    (store.root / "no env").mkdir()
    (store.root / "no env" / "environment.json").write_text("{}")
    assert asker.told("/api/environments")["environments"] == ["local"]
    said = {"deployment_id": deployment_id, "conversation": "c" * 8, "message_id": "m" * 8, "text": "hi"}
    answer = asker.ask("POST", "/api/say", said)
    assert answer.code == 502 and b"did not answer" in answer.body
    for wrong in ({**said, "conversation": "a\r\nx: y"}, {**said, "revision_id": "x"}, {**said, "more": 1}, {}, 5):
        assert asker.ask("POST", "/api/say", wrong).code == 400
    assert asker.ask("POST", "/api/say", {**said, "deployment_id": "none"}).code == 404


# -- changes --------------------------------------------------------------------------------------------------------


def test_a_console_that_only_shows_changes_nothing(store, served, author):
    before = len(author.audit())
    answer = Asker(store).ask("POST", "/api/change", {"verb": "rollback", "payload": {"deployment_id": served[0]}})
    assert answer.code == 409 and b"--allow-changes" in answer.body and len(author.audit()) == before


def ended(changes: Changes):
    for thread in threading.enumerate():
        if thread.name in ("warm", "traffic", "ramp", "rollback"):
            thread.join(60)
    return changes.told()[0]


def test_what_is_allowed_goes_through_the_verbs(store, served, author, hello):
    asker = Asker(store, allowed=True)
    deployment_id, first = served
    second = author.stage(deployment_id, hello)
    assert asker.ask("POST", "/api/change", {"verb": "warm", "payload": {"revision_id": second}}).code == 200
    assert ended(asker.changes)["state"] == "done"
    entries = [{"revision_id": first, "weight_bps": 4000}, {"revision_id": second, "weight_bps": 6000}]
    payload = {"deployment_id": deployment_id, "entries": entries, "idempotency_key": "c"}
    asker.ask("POST", "/api/change", {"verb": "traffic", "payload": payload})
    assert ended(asker.changes)["state"] == "done"
    assert [e.weight_bps for e in store.load("local").split(deployment_id).entries] == [4000, 6000]
    assert store.load("local").split(deployment_id).updated_by == "console"
    asker.ask("POST", "/api/change", {"verb": "rollback", "payload": {"deployment_id": deployment_id}})
    assert ended(asker.changes)["state"] == "done"
    assert len(store.load("local").split(deployment_id).entries) == 1
    assert [e["verb"] for e in author.audit() if "result" in e][-3:] == ["warm", "set", "rollback"]
    asker.ask("POST", "/api/change", {"verb": "warm", "payload": {"revision_id": ulid_from_int(1)}})
    refused = ended(asker.changes)
    assert refused["state"] == "failed" and refused["error"]["kind"] == "not-found"


@pytest.mark.parametrize(
    "asked",
    [
        {"verb": "destroy", "payload": {}},
        {"verb": "traffic", "payload": {"deployment_id": 5}},
        {"verb": "ramp", "payload": {"deployment_id": DEP, "to": REV}},
        {"verb": "warm", "payload": {"revision_id": REV}, "environment_id": "other"},
    ],
)
def test_changes_that_make_no_sense_are_refused_at_once(store, served, asked):
    asker = Asker(store, allowed=True)
    assert asker.ask("POST", "/api/change", asked).code == 400 and asker.changes.told() == []


def test_a_payload_reaches_no_other_environment(store, served):
    under = Changes(store, "local", [], allowed=True)._read(
        Asked("rollback", {"deployment_id": DEP, "environment_id": "x"})
    )
    with pytest.raises(NotFound, match="env `local`"):
        from greentic.operate.change import Context

        under.run(Context(store))


def test_one_change_of_a_deployment_at_a_time(store, served, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        go_on.wait(60)
        raise Conflict("enough")

    monkeypatch.setattr("greentic.console.changes.rollback", slow)
    changes = Changes(store, "local", [], allowed=True)
    asked = Asked("rollback", {"deployment_id": served[0]})
    changes.begin(asked)
    assert begun.wait(60)
    with pytest.raises(Conflict, match="under way"):
        changes.begin(asked)
    go_on.set()
    assert ended(changes)["error"]["message"] == "enough"


# -- pictures of document, status, proof, audit ---------------------------------------------------------------------


def test_revisions_stand_in_the_order_that_people_look_for_them():
    third = ulid_from_int(9)
    shown = picture(
        env(
            revisions=[revision(REV, sequence=1), revision(REV2, sequence=2), revision(third, sequence=3, lifecycle="staged")],
            traffic_splits=[split((REV, 9000), (REV2, 1000))],
        ),
        "sha256:x",
    )  # fmt: skip
    rows = shown["deployments"][0]["revisions"]
    assert [r["sequence"] for r in rows] == [1, 2, 3] and [r["weight_bps"] for r in rows] == [9000, 1000, None]


def test_no_credential_of_a_source_is_shown():
    found = env(revisions=[revision(bundle_source_uri="https://ann:secret@x.example/b?sig=secret")])
    assert "secret" not in json.dumps(picture(found, "d"))


def test_a_ramp_is_told(store, author, hello):
    author.create()
    deployment_id, first = author.deployed(hello)
    second = author.warm(author.stage(deployment_id, hello))
    payload = TrafficRampPayload(environment_id="local", deployment_id=deployment_id, to=second, at=["http://x"])
    wanted = _wanted(author.context, store.load("local"), deployment_id, payload)
    _change(author.context, "local", wanted, "begin", "")
    ramp = picture(store.load("local"), "d")["deployments"][0]["ramp"]
    assert (ramp["to"], ramp["old"], ramp["state"], ramp["step"], ramp["weight_bps"]) == (second, first, "running", 0, 100)  # fmt: skip


def test_a_thousand_revisions_are_one_small_answer():
    many = [revision(ulid_from_int(n), sequence=n) for n in range(1, 1001)]
    shown = msgspec.json.encode(picture(env(revisions=many, traffic_splits=[]), "d"))
    assert len(shown) < 600_000


STATUS = {
    "env_id": "prod", "process": "p1", "version": "0.2.0",
    "revisions": [{"revision_id": REV, "deployment_id": DEP, "weight_bps": 10000, "bundle_digest": "sha256:" + "a" * 64,
                   "counts": {"turns": 3, "failures": {"flow": 1}}, "packs": [{"pack_id": "p", "digest": "d", "signed": False, "flows": ["main"]}]}],
    "unavailable": [{"deployment_id": "D", "reason": "refused", "error": "<b>no</b>"}],
    "following": {"desired": {"generation": 3, "digest": "a"}, "serving": {"generation": 2, "digest": "b"}},
}  # fmt: skip


def test_a_worker_is_told_as_it_is():
    row = live_row("http://w", decode(json.dumps(STATUS), LiveStatus))
    assert row["behind"] and row["desired"] == 3 and row["revisions"][0]["counts"]["failures"] == 1
    others = [{"env_id": "prod", "process": "p2", "revisions": STATUS["revisions"]}]
    several = live_row("http://w", decode(json.dumps({**STATUS, "others": others}), LiveStatus))
    assert [(o["process"], o["revisions"][0]["counts"]["turns"]) for o in several["others"]] == [("p2", 3)]
    assert row["unavailable"] == [{"deployment_id": "D", "reason": "refused", "error": "<b>no</b>"}]


def test_a_chain_without_a_proof_is_marked_and_sees_other_bytes():
    found = env()
    status = decode(json.dumps(STATUS), LiveStatus)
    chain = told("http://w", status, found.revisions[0], found.split(DEP), found.deployment(DEP), Delivery())
    assert not chain["signed"] and chain["served"]
    assert [s["step"] for s in chain["steps"]] == ["source", "bundle", "signatures", "packs", "routes", "serving"]
    assert chain["steps"][-1]["members"]["as_pinned"] is True
    other = {**STATUS, "revisions": [{**STATUS["revisions"][0], "bundle_digest": "sha256:" + "f" * 64}]}
    chain = told("http://w", decode(json.dumps(other), LiveStatus), found.revisions[0], None, None, Delivery())
    assert chain["steps"][-1]["members"]["as_pinned"] is False


KEY, OTHER_KEY = SigningKey(b"k" * 32), SigningKey(b"o" * 32)


class Proving(Watched):
    """A worker that proves what it is told to."""

    def __init__(self, rows: list[ProvenRevision], *, key=KEY, nonce=None, pinned=(), generation=0) -> None:
        super().__init__(["http://w"], random=CountingRandom(), pinned=pinned)
        self._worker = ProvenWorker(KEY.key_id, KEY.key_id, "p", "1", "t", public_pem(KEY.public))
        self._rows, self._key, self._nonce, self._generation = rows, key, nonce, generation

    def _asked(self, url: str, most: int = 0) -> bytes | None:
        nonce = self._nonce or url.partition("nonce=")[2]
        return signed_proof(Proof(SCHEMA, "prod", self._generation, nonce, "t", self._worker, self._rows), self._key)


def proven_row(found: Environment, digest: str = "") -> ProvenRevision:
    """What a worker proves that serves the first revision as it is wanted, or other bytes."""
    wanted = found.revisions[0]
    chain = [
        Source(shown(wanted.bundle_source_uri) if wanted.bundle_source_uri else None),
        Bundle(digest or wanted.bundle_digest),
        Signatures("off"),
        Packs([Pack(p.pack_id, p.digest) for p in wanted.pack_list]),
        Routed(told_routes(found.bundles[0]), found.traffic_splits[0].entries[0].weight_bps),
        Served("t", 0),
    ]
    return ProvenRevision(wanted.deployment_id, wanted.revision_id, wanted.bundle_id, chain)


def drawn(found: Environment, watched: Watched, revision_id: str = REV):
    believed = watched.proof("http://w")
    return proven("http://w", believed, judge(found, believed.proof, Known({}, {})), revision_id)


def test_a_proof_is_drawn_with_who_signed_it_and_what_it_is_worth():
    found = env()
    chain = drawn(found, Proving([proven_row(found)]))
    assert chain["state"] == "serves" and chain["differences"] == [] and not chain["pinned"]
    assert chain["key_id"] == KEY.key_id
    assert [s["step"] for s in chain["steps"]] == ["source", "bundle", "signatures", "packs", "routes", "serving"]
    assert chain["steps"][1]["members"] == {"digest": found.revisions[0].bundle_digest}
    assert drawn(found, Proving([proven_row(found)], pinned=[KEY.key_id]))["pinned"]
    assert drawn(found, Proving([proven_row(found)]), REV2) is None


def test_threat_lying_worker_other_bytes_are_told_field_by_field():
    found = env()
    chain = drawn(found, Proving([proven_row(found, "sha256:" + "f" * 64)]))
    assert chain["state"] == "differs"
    assert chain["differences"] == [
        {"field": "bundle", "expected": found.revisions[0].bundle_digest, "found": "sha256:" + "f" * 64}
    ]


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ({"key": OTHER_KEY}, "signature"),
        ({"nonce": "0" * 32}, "another question"),
        ({"pinned": [OTHER_KEY.key_id]}, "expected"),
    ],
)
def test_threat_lying_worker_what_proves_nothing_is_not_drawn_as_a_proof(lie, told):
    with pytest.raises(FetchError, match=told):
        Proving([proven_row(env())], **lie).proof("http://w")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"payload": 5}', b'{"payload": "!"}', b'{"payload": "W10="}', b"\xff"]
)
def test_a_proof_that_cannot_be_read_is_told(data, monkeypatch):
    watched = Watched(["http://w"])
    monkeypatch.setattr(watched, "_asked", lambda url, most: data)
    with pytest.raises(FetchError, match="proves nothing"):
        watched.proof("http://w")


def test_the_time_line_is_bounded_and_survives_damage(tmp_path):
    path = tmp_path / "events.jsonl"
    event = {
        "schema": "greentic.audit.event.v1",
        "ts": "t",
        "noun": "traffic",
        "verb": "set",
        "result": {"outcome": "ok"},
    }
    lines = [json.dumps({**event, "event_id": str(n)}) for n in range(500)]
    lines += ['{"cut', "[]", json.dumps({**event, "schema": "greentic.audit.intent.v1", "event_id": "owed"})]
    path.write_text("\n".join(lines))
    found = timeline(path)
    assert len(found["changes"]) == 400 and found["older"] and found["damaged"] == 1
    assert found["changes"][0]["id"] == "owed" and found["changes"][0]["outcome"] == "unknown"
    assert timeline(tmp_path / "none") == {"changes": [], "older": False, "damaged": 0}


# -- the chat -------------------------------------------------------------------------------------------------------


def test_what_the_page_says_becomes_a_request():
    message = ChatMessage("D", "c" * 8, "m" * 8, "hi")
    assert body_of(message) == b'{"text":"hi"}'
    sent = msgspec.json.decode(body_of(ChatMessage("D", "c" * 8, "m" * 8, "", {"action": "go", "n": "1"})))
    assert sent == {"text": "", "metadata": {"action": "go", "n": "1"}}


def test_what_a_worker_answers_is_read():
    traced = answer_of(200, b'{"replies":[{"payload":{"text":"x"}}],"steps":[],"waits":true}')
    trace = {"steps": [], "waits": True, "left_out": 0, "log": [], "lines_left_out": 0, "revision_id": None}
    assert traced == {"ok": True, "status": 200, "replies": [{"text": "x"}], "trace": trace}
    assert answer_of(200, b'[{"payload":1}]')["trace"] is None and answer_of(200, b'[{"payload":1}]')["replies"] == [1]
    assert answer_of(401, b"a valid bearer token is required")["ok"] is False
    assert answer_of(200, b"<html>")["ok"] is False and answer_of(200, b"5")["replies"] == []


@pytest.mark.parametrize(
    "steps", ['{}', '5', 'null', '[5]', '[{"seconds":"long"}]', '[{"node":{"toString":1}}]', '[{"log":"x"}]', '[{"log":[1]}]',
              "[" + "{}," * 5000 + "{}]"],
)  # fmt: skip
def test_steps_that_a_worker_makes_up_are_told_as_such(steps):
    """They used to end the conversation in the page: it drew what it did not get."""
    told = answer_of(200, f'{{"replies":[],"steps":{steps}}}'.encode())
    assert told["ok"] is False and "the steps that it tells are none" in str(told["error"])
    assert answer_of(200, b'{"replies":[],"what":1}')["trace"] is None, "another server's object"


def test_conversations_are_bounded():
    talks = Chats()
    for number in range(MAX_CONVERSATIONS + 5):
        talks._jar(str(number))["a"] = "b"
    assert len(talks._cookies) == MAX_CONVERSATIONS and "0" not in talks._cookies


def test_a_message_goes_to_the_route_of_the_deployment(monkeypatch):
    sent = []

    def noted(self, url, address, headers, body, jar):
        sent.append((url, headers))
        jar["_gt_session"] = "private"
        return 200, b"[]"

    monkeypatch.setattr(Chats, "_sent", noted)
    route = {"tenant_selector": {"tenant": "t", "team": "x"}, "hosts": ["bot.example"], "path_prefixes": ["/bot"]}
    found, talks = env(bundles=[deployment(route_binding=route)]), Chats()
    for _ in range(2):
        talks.say(found, "http://w:1/", ChatMessage(DEP, "c" * 8, "m" * 8, "hi", revision_id=REV))
    url, headers = sent[0]
    assert url == "http://w:1/bot" and headers["Host"] == "bot.example" and headers["X-Greentic-Revision"] == REV
    assert "Cookie" not in headers and sent[1][1]["Cookie"] == "_gt_session=private", (
        "a stranger is known by its cookie"
    )
    talks.say(found, "http://w:1/", ChatMessage(DEP, "d" * 8, "m" * 8, "hi"))
    assert "Cookie" not in sent[2][1], "of one conversation alone"


# -- pictures of cards ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://x.example/a.png", "file:///etc/passwd", "data:image/png;base64,xx", "javascript:1", "", "https://" + "x" * 3000])  # fmt: skip
def test_pictures_are_fetched_over_https_alone(url):
    with pytest.raises(FetchError, match="https"):
        fetch_picture(url)


@pytest.mark.parametrize("url", ["https://127.0.0.1/a.png", "https://localhost/a.png", "https://10.0.0.1/a.png", "https://169.254.169.254/a"])  # fmt: skip
def test_threat_text_of_others_a_card_reaches_nothing_inside(url):
    with pytest.raises(GreenticError, match="address|private|loopback|reach"):
        fetch_picture(url)


def test_what_is_no_picture_is_not_shown(tmp_path, monkeypatch):
    assert kind_of(b"\x89PNG\r\n\x1a\n...") == b"image/png" and kind_of(b"RIFF....WEBP") == b"image/webp"
    for data in (b"<svg onload=alert(1)>", b"<html>", b"", b"RIFF....WAVE"):
        assert kind_of(data) is None


def test_a_picture_is_passed_on_as_what_it_is(store, served, monkeypatch):
    monkeypatch.setattr(console_app, "fetch_picture", lambda url: (b"image/png", b"\x89PNG"))
    answer = Asker(store).ask("POST", "/api/picture", {"url": "https://x.example/a"})
    assert answer.body == b"\x89PNG" and dict(answer.headers)[b"content-type"] == b"image/png"
    assert dict(answer.headers)[b"x-content-type-options"] == b"nosniff"


def test_a_worker_that_is_none_is_told(tmp_path):
    server = DirectoryServer(tmp_path, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        watched = Watched([f"http://127.0.0.1:{server.server_address[1]}"])
        with pytest.raises(FetchError, match="no worker"):
            watched.status(watched.addresses[0])
        assert watched.proof(watched.addresses[0]) is None
    finally:
        server.shutdown()
        server.server_close()


def test_addresses_are_checked_before_anything_is_served(store, served):
    from greentic.console.serve_console import ConsoleOptions, serve_console

    with pytest.raises(InvalidArgument, match="no address of a worker"):
        serve_console(store, ConsoleOptions("local", ["worker:8080"]), print)
    with pytest.raises(NotFound):
        serve_console(store, ConsoleOptions("nope", []), print)
    for address in ("http://u:planted@127.0.0.1:1", "http://planted@w", "ftp://u:planted@w"):  # shown on every page
        with pytest.raises(InvalidArgument) as told:
            serve_console(store, ConsoleOptions("local", [address]), pytest.fail)
        assert "planted" not in str(told.value) + str(told.value.hint)


def test_a_port_that_is_taken_is_told(store, served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = gtc("console", "local", "--port", port, "--store-root", str(store.root))
    assert told.returncode == 1 and told.stdout == "" and f"127.0.0.1:{port}" in told.stderr and "--port" in told.stderr
