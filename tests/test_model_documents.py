"""Documents keep what they do not know, and are written as other programs write them."""

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.ground.clock import compact_stamp, timestamp
from greentic.ground.documents import MAX_DEPTH, MAX_VALUES, TooDeep, _form, compact, from_json, parse, pretty, to_json
from greentic.ground.errors import SpecViolation
from greentic.model.elements import Elements
from greentic.model.environment import (
    BundleDeployment,
    Environment,
    HostConfig,
    Revision,
    RouteBinding,
    TrafficSplit,
    new_environment,
)

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FUTURE_KEYS = st.dictionaries(st.text("xyz_", min_size=3, max_size=9).map(lambda k: f"future_{k}"), JSON, max_size=3)


def environment(**more: object) -> dict[str, object]:
    return json.loads(pretty(new_environment("prod", "Prod", HostConfig(env_id="prod")))) | more


@given(FUTURE_KEYS, FUTURE_KEYS, FUTURE_KEYS)
def test_unknown_keys_survive_at_every_depth(top, host, binding):
    raw = environment(**top)
    raw["host_config"] |= host
    raw["packs"] = [{"slot": "deployer", "kind": "a.b@1.0.0", "pack_ref": "x", "generation": 0} | binding]
    document = from_json(Environment, raw)
    assert json.loads(pretty(document)) == raw
    assert from_json(Environment, json.loads(pretty(document))) == document


def test_optional_scalars_are_omitted_and_null_is_accepted():
    raw = environment(credentials_ref=None)
    raw["host_config"]["region"] = None
    written = json.loads(pretty(from_json(Environment, raw)))
    assert "credentials_ref" not in written and "region" not in written["host_config"]
    assert (
        written["revocation"] == {"required": False}
        and written["retention"] == {}
        and written["health"] == {"state": "unknown"}
    )


def test_written_form():
    assert pretty({"a": ["é"], "b": {}}) == '{\n  "a": [\n    "é"\n  ],\n  "b": {}\n}\n'.encode()
    assert compact({"b": 1, "a": 2}, sort=True) == b'{"a":2,"b":1}'


DEPLOYMENT = {
    "schema": "s", "deployment_id": "01JTKW5B4W4Q5Y1CQW93F7S5VG", "env_id": "prod", "bundle_id": "b", "customer_id": "c",
    "status": "active", "route_binding": {"path_prefixes": ["/"], "tenant_selector": {"tenant": "t", "team": "x"}},
    "revenue_share": [{"party_id": "p", "basis_points": 10_000}], "revenue_policy_ref": "r", "created_at": "2026-05-20T10:01:00Z",
    "authorization_ref": "a",
}  # fmt: skip
EMPTY = {"config_overrides": {}, "current_revisions": [], "usage": None}


@given(FUTURE_KEYS, FUTURE_KEYS, FUTURE_KEYS, st.sets(st.sampled_from(sorted(EMPTY))), st.text(max_size=4))
def test_the_quick_way_of_writing_writes_the_same(top, deployment, route, empty, text):
    """The library's own encoder where it may be used, and the JSON form of each document where not."""
    shown = DEPLOYMENT | {"customer_id": text} | {key: EMPTY[key] for key in empty}
    raw = environment(
        bundles=[shown, shown | deployment], revisions=[REVISION | {"revision_id": DEPLOYMENT["deployment_id"]}]
    )
    raw["bundles"].append(
        DEPLOYMENT | {"route_binding": DEPLOYMENT["route_binding"] | route, "config_overrides": {"x": route}}
    )
    raw["traffic_splits"] = [
        SPLIT | {"entries": [{"revision_id": DEPLOYMENT["deployment_id"], "weight_bps": 10_000} | route]}
    ]
    document = from_json(Environment, raw | top)
    assert compact(document) == msgspec.json.encode(to_json(document))
    assert compact(document, sort=True) == msgspec.json.encode(to_json(document), order="deterministic")
    assert b"greentic:extra" not in compact(document)


@pytest.mark.parametrize("form", [BundleDeployment, Revision, TrafficSplit])
def test_what_environments_have_thousands_of_is_written_the_quick_way(form):
    """A default that is no `None` takes a document out of it: lists want `no_items`, numbers a factory."""
    assert _form(form).native


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("[" * 127 + "]" * 127, False),
        ("[" * 128 + "]" * 128, True),
        ('{"a":' * 128 + "1" + "}" * 128, True),
        ('["' + "[{" * 200 + '"]', False),
        ('["\\"' + "[" * 200 + '"]', False),
        ('["\\\\", ' + "[" * 127 + "]" * 127 + "]", True),
        ("[" + "[]," * 200 + "[]]", False),
    ],
)
def test_depth_is_that_of_brackets_outside_of_strings(text, deep):
    for data in (text, text.encode()):
        if deep:
            with pytest.raises(TooDeep):
                parse(data)
        else:
            assert parse(data) == json.loads(text)


def test_wrong_types_name_their_place():
    raw = environment(revisions=[{"schema": "x"}])
    with pytest.raises(SpecViolation, match=r"\$\.revisions\[0\]"):
        from_json(Environment, raw)
    with pytest.raises(SpecViolation):
        from_json(RouteBinding, {"hosts": []})
    with pytest.raises(SpecViolation):
        from_json(Environment, environment(host_config={"env_id": "prod", "listen_addr": "nonsense"}))


def test_ulids_in_documents_become_upper_case():
    raw = {
        "schema": "s", "revision_id": "01jtkw5b4w4q5y1cqw93f7s5vh", "env_id": "e", "bundle_id": "b",
        "deployment_id": "01JTKW5B4W4Q5Y1CQW93F7S5VG", "sequence": 1, "created_at": "2026-05-20T10:01:00.5+02:00",
        "bundle_digest": "sha256:00", "pack_list": [], "pack_list_lock_ref": "", "config_digest": "", "signature_sidecar_ref": "",
        "lifecycle": "ready",
    }  # fmt: skip
    revision = from_json(Revision, raw)
    assert revision.revision_id == "01JTKW5B4W4Q5Y1CQW93F7S5VH"
    assert to_json(revision)["created_at"] == raw["created_at"]  # kept to the letter
    with pytest.raises(SpecViolation):
        from_json(Revision, raw | {"created_at": "yesterday"})
    with pytest.raises(SpecViolation):
        from_json(Revision, raw | {"sequence": -1})


@pytest.mark.parametrize("text", [b"{", b"", b"\xff", b"[1,]", b"[" * 100_000])
def test_damaged_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize(
    ("nanos", "text"), [(0, "00Z"), (500_000_000, "00.500Z"), (123_456_000, "00.123456Z"), (1, "00.000000001Z")]
)
def test_timestamps_have_as_many_digits_as_they_need(nanos, text):
    assert timestamp(1_779_271_200_000_000_000 + nanos) == f"2026-05-20T10:00:{text}"
    assert compact_stamp(1_779_271_200_000_000_000 + nanos) == f"20260520T100000.{nanos:09d}Z"


REVISION = {
    "schema": "s", "env_id": "prod", "bundle_id": "b", "deployment_id": "01JTKW5B4W4Q5Y1CQW93F7S5VG", "sequence": 1,
    "created_at": "2026-05-20T10:01:00Z", "bundle_digest": "sha256:00", "pack_list": [], "pack_list_lock_ref": "", "config_digest": "",
    "signature_sidecar_ref": "", "lifecycle": "ready",
}  # fmt: skip
SPLIT = {
    "schema": "s", "env_id": "prod", "deployment_id": "01JTKW5B4W4Q5Y1CQW93F7S5VG", "bundle_id": "b", "entries": [],
    "generation": 0, "idempotency_key": "k", "updated_at": "2026-05-20T10:01:00Z", "updated_by": "me",
    "authorization_ref": "a", "future": {"a": [1]},
}  # fmt: skip
LARGE = pretty(
    environment(
        revisions=[REVISION | {"revision_id": f"01JTKW5B4W4Q5Y1CQW93F7S5V{c}", "greentic:new": c} for c in "ABC"],
        traffic_splits=[SPLIT],
        newer=[{"x": None}],
    )
)


def read(reader: object, data: bytes) -> object:
    try:
        return reader(data)
    except (ValueError, SpecViolation) as error:
        return type(error), str(error)


@given(st.lists(st.tuples(st.integers(0, len(LARGE) - 1), st.binary(max_size=3), st.integers(0, 40)), max_size=3))
def test_a_document_read_by_its_elements_is_the_document(edits):
    """Whatever is done to the text, it is the same document or the same error as when it is read as a whole."""
    elements, data = Elements(), LARGE
    first = elements.environment(data)
    assert first == from_json(Environment, parse(LARGE))
    for at, new, gone in edits:
        data = data[:at] + new + data[at + gone :]
        assert read(elements.environment, data) == read(lambda text: from_json(Environment, parse(text)), data)


@pytest.mark.parametrize("deep", [124, 125, 126, 127])
@pytest.mark.parametrize(
    ("place", "inside"),
    [(b'"greentic:new": "B"', 3), (b'"schema": "s"', 3), (b'"newer": [\n    {\n      "x": null\n    }\n  ]', 1)],
)
def test_an_element_is_as_deep_as_it_stands_in_the_document(deep, place, inside):
    """A document is refused for its depth, or not, wherever in it the depth is, and whether or not the rest of it was read before."""
    assert place in LARGE
    data = LARGE.replace(place, b'"deep": ' + b"[" * deep + b"]" * deep)
    whole = read(lambda text: from_json(Environment, parse(text)), data)
    again = Elements()
    again.environment(LARGE)
    assert read(Elements().environment, data) == whole == read(again.environment, data)
    assert ("deeply" in str(whole)) == (deep + inside > MAX_DEPTH)


@pytest.mark.parametrize("part", [b"0,", b"[],", b'{"a":[],"b":{}},', b'{"a":[[]]},'])
@pytest.mark.parametrize("name", [b'"revisions"', b'"newer"'])
def test_threat_expansion_a_document_of_many_values_is_read_no_further_by_its_elements(name, part):
    """What was read before makes room for nothing: the values of a text are counted, of new elements and of other members."""
    again = Elements()
    again.environment(LARGE)
    many = part * (MAX_VALUES // (part.count(b",") + part.count(b"[") + part.count(b"{")) + 1)
    data = LARGE.rstrip().removesuffix(b"}") + b"," + name + b":[" + many + b"0]}"
    for elements in (again, Elements()):
        with pytest.raises(ValueError, match="more than 1000000 values"):
            elements.environment(data)


def test_what_did_not_change_is_not_read_again():
    elements = Elements()
    before = elements.environment(LARGE)
    after = elements.environment(LARGE.replace(b'"greentic:new": "B"', b'"greentic:new": "D"'))
    assert [a is b for a, b in zip(before.revisions, after.revisions, strict=True)] == [True, False, True]
    assert after.revisions[1].extra == {"greentic:new": "D"}


@given(
    st.lists(st.sampled_from(["\\ud83d", "\\uDE00", "\\u0041", "\\\\", "\\n", "x", "\\ud83d\\ude00"]), max_size=6),
    st.booleans(),
)
def test_half_a_surrogate_pair_is_told_as_that_where_it_stands(parts: list[str], as_bytes: bool) -> None:
    text = '["' + "".join(parts) + '"]'
    try:
        value = json.loads(text)[0]
    except ValueError:
        raise AssertionError("only whole escapes are made here") from None
    halves = [c for c in value if "\ud800" <= c <= "\udfff"]
    if not halves:
        assert parse(text.encode() if as_bytes else text) == [value]
        return
    with pytest.raises(ValueError, match="^half a surrogate pair at byte [0-9]+, which is no text$") as refused:
        parse(text.encode() if as_bytes else text)
    at = int(str(refused.value).split()[6].rstrip(","))
    assert text[at : at + 3].lower() == "\\ud" and not any(
        "\ud800" <= c <= "\udfff" for c in json.loads(text[:at] + '"]')[0]
    )


@pytest.mark.parametrize("text", ['["x', '["\\ud83d\\ude00', '["\\ud8', "[", ""])
def test_what_ends_too_soon_is_told_as_that(text: str) -> None:
    with pytest.raises(ValueError, match="truncated"):
        parse(text)


def test_a_text_that_came_from_bytes_that_are_none_is_told_as_that() -> None:
    with pytest.raises(ValueError, match="^not UTF-8: what stands at character 2 is no text$"):
        parse('["\udcff"]')  # as an argument of a command is, whose bytes are no UTF-8


def test_a_damaged_text_of_a_million_escapes_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    finditer = re.finditer

    def counted(pattern: bytes, text: bytes, flags: int):
        nonlocal looked_at
        for found in finditer(pattern, text, flags):
            looked_at += 1
            yield found

    monkeypatch.setattr(re, "finditer", counted)
    with pytest.raises(ValueError, match="truncated"):
        parse('["' + "\\n" * 500_000)
    assert 1_000 < looked_at <= 10_001
