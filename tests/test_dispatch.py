"""Choosing a revision: shares, who moves when weights change, what cookies hold, and that replicas agree."""

from __future__ import annotations

import hashlib
import math
import random as chance

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from foreign_cookie import make_cookie
from greentic.activate import dispatch
from greentic.activate.dispatch import COOKIE_SECONDS, AffinityCookie, Choice, Dispatcher, read_key
from greentic.activate.rendezvous import chosen
from greentic.ground.clock import SystemRandom
from test_model_rules import DEP, REV, REV2, REV3

KEY = bytes(range(32))
CLIENTS = [hashlib.sha256(str(i).encode()).digest()[:16] for i in range(4000)]
RANDOM = SystemRandom()


def split(*weights: int) -> list[tuple[str, int]]:
    return [(f"R{i:02d}", w) for i, w in enumerate(weights)]


def placed(weights: list[tuple[str, int]]) -> dict[bytes, str | None]:
    return {client: chosen(DEP, client, weights) for client in CLIENTS}


def dispatcher(*choices: Choice, generation: int = 3, key: bytes = KEY) -> Dispatcher:
    return Dispatcher("prod", DEP, list(choices), generation=generation, key=key)


def value(set_cookie: str) -> str:
    return set_cookie.partition("=")[2].partition(";")[0]


# -- who belongs where ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(9900, 100), (5000, 5000), (1, 9999), (3333, 3333, 3334), (500,) * 20])
def test_shares_are_those_of_the_weights(weights):
    found = list(placed(split(*weights)).values())
    for revision, weight in split(*weights):
        share, total = weight / sum(weights), len(found)
        spread = (
            5 * math.sqrt(total * share * (1 - share)) + 1
        )  # five standard deviations: one run in two million is wrong
        assert abs(found.count(revision) - total * share) < spread, revision


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=6), st.integers(0, 5), st.integers(0, 10_000))
def test_changing_one_weight_moves_clients_only_to_or_from_it(weights, which, weight):
    which %= len(weights)
    before, after = split(*weights), split(*[weight if i == which else w for i, w in enumerate(weights)])
    changed = before[which][0]
    for client in CLIENTS[:200]:
        old, new = chosen(DEP, client, before), chosen(DEP, client, after)
        if old != new:
            assert (new if weight > weights[which] else old) == changed


@settings(max_examples=30)
@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=8, unique=True))
def test_nobody_flips_back_over_any_ramp_and_undoing_it_brings_exactly_those_back(steps):
    ramp = sorted(steps)
    at_home = placed(split(10_000, 0))
    moved: set[bytes] = set()
    for step in ramp:
        now = {client for client, revision in placed(split(10_000 - step, step)).items() if revision == "R01"}
        assert moved <= now, "a client that had moved came back while the share rose"
        moved = now
    assert placed(split(10_000, 0)) == at_home


@given(st.permutations(split(2000, 3000, 5000)))
def test_replicas_agree_whatever_the_order_they_read(order):
    assert [chosen(DEP, c, order) for c in CLIENTS[:300]] == [
        chosen(DEP, c, split(2000, 3000, 5000)) for c in CLIENTS[:300]
    ]


def test_a_revision_alone_has_everybody_and_nobody_without_weight():
    assert chosen("d", b"anybody", [("a", 1)]) == "a" and chosen("d", b"anybody", [("a", 0)]) is None


def test_nobody_belongs_to_nothing():
    assert chosen(DEP, b"x", []) is None and chosen(DEP, b"x", split(0, 0)) is None


def test_deployments_draw_independently_of_each_other():
    here, there = ([chosen(d, c, split(5000, 5000)) for c in CLIENTS] for d in ("D1", "D2"))
    same = sum(a == b for a, b in zip(here, there, strict=True)) / len(CLIENTS)
    assert 0.45 < same < 0.55


# -- cookies ----------------------------------------------------------------------------------------------------------


def test_a_cookie_keeps_a_client_over_generations_restarts_and_other_replicas():
    weights = [Choice(REV, 5000, False), Choice(REV2, 5000, False)]
    first = dispatcher(*weights)
    for _ in range(50):
        revision, client = first.of_cookie(None, "t", 0, RANDOM)
        assert client.cookie
        cookie = value(first.set_cookie(client))
        replica = dispatcher(*reversed(weights), generation=9, key=bytes(32))
        assert replica.of_cookie(cookie, "t", 10**9, RANDOM) == (revision, replace(client, cookie=False))
    assert f"Max-Age={COOKIE_SECONDS}" in first.set_cookie(client) and "HttpOnly" in first.set_cookie(client)


def test_the_holders_of_cookies_move_only_where_the_weights_say():
    """Two hundred cookie holders, 50/50 to 40/60 and a restart: some go forward, nobody back."""
    half = dispatcher(Choice(REV, 5000, False), Choice(REV2, 5000, False))
    held = [(half.of_cookie(None, "t", 0, RANDOM), i) for i in range(200)]
    later = dispatcher(Choice(REV, 4000, False), Choice(REV2, 6000, False), generation=4, key=bytes(32))
    went = [(old, later.of_cookie(value(half.set_cookie(client)), "t", 0, RANDOM)[0]) for (old, client), _ in held]
    assert (REV2, REV) not in went and 0 < went.count((REV, REV2)) < 60


def test_draining_revisions_keep_their_own_and_get_nobody_new():
    before = dispatcher(Choice(REV, 5000, False), Choice(REV2, 5000, False))
    after = dispatcher(Choice(REV, 5000, True), Choice(REV2, 5000, False), generation=4)
    for _ in range(100):
        revision, client = before.of_cookie(None, "t", 0, RANDOM)
        assert after.of_cookie(value(before.set_cookie(client)), "t", 0, RANDOM)[0] == revision
        fresh, new = after.of_cookie(None, "t", 0, RANDOM)
        assert fresh == REV2 and after.of_cookie(value(after.set_cookie(new)), "t", 0, RANDOM)[0] == REV2
        assert after.of_session(str(chance.random())) == REV2
    assert not dispatcher(Choice(REV, 5000, True), Choice(REV2, 0, False)).open and not dispatcher().open


def test_a_session_is_its_own_key():
    two = dispatcher(Choice(REV, 5000, False), Choice(REV2, 5000, False))
    found = {s: two.of_session(s) for s in map(str, range(100))}
    assert found == {s: dispatcher(Choice(REV2, 5000, False), Choice(REV, 5000, False)).of_session(s) for s in found}
    assert set(found.values()) == {REV, REV2} and two.of_session("\ud800")


def test_a_cookie_of_the_other_form_is_understood_and_replaced():
    many = dispatcher(Choice(REV, 100, False), Choice(REV2, 9900, False))
    told = AffinityCookie("prod", "t", DEP, REV, 3, 1000)
    revision, client = many.of_cookie(make_cookie(told, KEY), "t", 999, RANDOM)
    assert revision == REV and client.cookie
    assert many.of_cookie(value(many.set_cookie(client)), "t", 5000, RANDOM)[0] == REV
    never = dispatcher(Choice(REV, 0, False), Choice(REV2, 10_000, False))
    assert never.of_cookie(make_cookie(told, KEY), "t", 999, RANDOM)[0] == REV2


def test_cookies_that_are_ignored():
    only = dispatcher(Choice(REV, 1, False), Choice(REV3, 9999, False))
    good = AffinityCookie("prod", "t", DEP, REV, 3, 1000)
    body, _, mac = make_cookie(good, KEY).partition(".")
    wrong = [
        None, "", "x", body, f"{body}.{mac}x", f"x{body}.{mac}", "a" * 5000, "é.é", "k.", "k." + "a" * 21, "k." + "!" * 22, "k." + "a" * 23, "K." + "a" * 22,
        make_cookie(None, KEY), make_cookie(good, bytes(32)), make_cookie(msg(good, x=999), KEY), make_cookie(msg(good, g=4), KEY),
        make_cookie(msg(good, e="x"), KEY), make_cookie(msg(good, t="x"), KEY), make_cookie(msg(good, d="x"), KEY), make_cookie(msg(good, r=REV2), KEY),
    ]  # fmt: skip
    for damaged in wrong:
        found = {only.of_cookie(damaged, "t", 999, RANDOM)[0] for _ in range(3)}
        assert found == {REV3} or len(found) == 2, damaged  # drawn by weight, not held
    assert dispatch.cookie_named("a=1; b=2;c", "b") == "2" and dispatch.cookie_named("", "b") is None


def msg(affinity: AffinityCookie, **change: object) -> AffinityCookie:
    from greentic.ground.documents import replace

    return replace(affinity, **change)


@given(st.text(max_size=40))
def test_any_text_is_a_key_or_none(text):
    key = read_key(text)
    assert key is None or (len(key) == 16 and text.startswith("k."))


def test_a_new_client_of_a_tiny_share_keeps_its_revision():
    found = dispatcher(Choice(REV, 9_999, False), Choice(REV2, 1, False))
    for key in CLIENTS * 3:

        class Given:
            def octets(self, count: int, key: bytes = key) -> bytes:
                return hashlib.sha256(key + bytes([count])).digest()[:count]

        drawn, client = found.of_cookie(None, "t", 0, Given())
        assert client.cookie and found.of_cookie(value(found.set_cookie(client)), "t", 0, RANDOM)[0] == drawn
