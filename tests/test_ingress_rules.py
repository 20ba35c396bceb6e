"""Who a request is of, what a token opens, and which connection makes room: each rule at its edge."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.ground.errors import BootError
from greentic.httpd.front import Front, Places, places
from greentic.httpd.http1 import Refusal
from greentic.ingress.auth import TOKENS_FILE, BearerGate, IngressToken, load_tokens
from greentic.ingress.identity import MAX_NAME, SESSION_BYTES, session_cookie, stranger_identity, trusted_identity
from greentic.sessions.conversation import Identity
from greentic.store.layout import EnvPaths

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
    assert gate.configured and gate.check(field, bundle, now) == ("pass" if opens else "unauthorized")
    assert gate.unknown(["demo"]) == [] and gate.unknown(["x"]) == ["demo"]
    assert not gate.take_over(None) and gate.configured, "a file that went is taken for an accident"
    assert gate.take_over([]) and gate.check("Bearer s3cret", "demo", 99) == "unauthorized"


@pytest.mark.parametrize("told", ["", "x", "ä b", "x" * MAX_NAME, "x" * (MAX_NAME + 1), None, 7, True, ["x"]])
def test_a_name_is_what_a_trusted_peer_says_if_it_is_one(told: Any) -> None:
    expected = told if isinstance(told, str) and told and len(told) <= MAX_NAME else None
    found = trusted_identity(None, None, None, {"user": told, "session": told})
    assert found.identity == Identity(session=expected, user=expected) and not found.private
    if told is None or isinstance(told, str):
        field = trusted_identity(told, told, "e", {"user": "body", "session": "body"}).identity
        assert (field.session, field.user, field.endpoint) == (expected or "body", expected or "body", "e")


def test_an_empty_name_is_none() -> None:
    assert trusted_identity("", "", None, {"user": "", "session": ""}).identity == Identity()
    for body in (None, [], "x", 1):
        assert trusted_identity(None, None, None, body).identity == Identity()


def test_a_stranger_has_a_session_of_its_own_unless_all_share() -> None:
    fresh = bytes(range(SESSION_BYTES))
    made = stranger_identity(None, fresh, shared=False)
    cookie = session_cookie(made.identity).partition("=")[2].partition(";")[0]
    assert made.private and len(cookie) == 24
    assert stranger_identity(cookie, bytes(SESSION_BYTES), shared=False) == made
    for wrong in ("", cookie[:-1], cookie + "a", cookie[:-1] + "/", cookie[:-1] + ":", "private:" + cookie[8:]):
        assert stranger_identity(wrong, fresh, shared=False) == made
    assert stranger_identity(cookie, fresh, shared=True) == (Identity(), False)


class Line:
    """A connection, as the front sees it."""

    def __init__(self) -> None:
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1

    def stand(self, _: object) -> None:
        pass


def test_threat_slow_peer_without_a_place_the_oldest_of_the_reserved_goes() -> None:
    front = Front(cast("Any", None), Places(2, 2), lambda path: False)
    lines = [Line() for _ in range(6)]
    full = [front.admit(cast("Any", line)) for line in lines]
    assert full == [True, True, False, False, False, False]
    assert [line.aborted for line in lines] == [0, 0, 1, 1, 0, 0] and front.refused == 2
    assert list(front.connections) == [lines[0], lines[1], lines[4], lines[5]]
    assert list(front.reserved) == lines[4:]


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
