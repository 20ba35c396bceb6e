"""Validation, lifecycle, traffic arithmetic, projection, routes: the pure rules of the environment."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.ground.documents import from_json, pretty, replace
from greentic.ground.errors import Conflict, InvalidArgument, RevenuePolicyError, SpecViolation
from greentic.model import lifecycle, projection, routes, traffic
from greentic.model import revenue_policy as policy
from greentic.model.descriptors import ref_env, split_descriptor, version_tuple
from greentic.model.environment import Environment, SplitEntry
from greentic.model.hosts import (
    check_public_base_url,
    host_without_port,
    is_loopback,
    join_listen_addr,
    split_listen_addr,
)
from greentic.model.local import fresh_local, healed_local
from greentic.model.revision_files import (
    LockedPack,
    PackListLock,
    check_lock,
    diverging_packs,
    make_lock,
    pack_config,
    pack_list,
)
from greentic.model.validate import check_overrides, validate

DEP, DEP2 = "01JTKW5B4W4Q5Y1CQW93F7S5VG", "01JTKW5B4W4Q5Y1CQW93F7S5V0"
REV, REV2, REV3 = (f"01JTKW5B4W4Q5Y1CQW93F7S5V{c}" for c in "HJK")
NOW = "2026-05-20T10:00:00Z"


def revision(rid: str = REV, dep: str = DEP, **more: object) -> dict[str, object]:
    return {
        "schema": "greentic.revision.v1", "revision_id": rid, "env_id": "prod", "bundle_id": "bot", "deployment_id": dep,
        "sequence": 1, "created_at": NOW, "bundle_digest": "sha256:" + "a" * 64,
        "pack_list": [{"pack_id": "p", "version": "1.0.0", "digest": "sha256:" + "b" * 64}],
        "pack_list_lock_ref": f"revisions/{rid}/pack-list.lock", "config_digest": "sha256:00", "signature_sidecar_ref": "rev.sig",
        "lifecycle": "ready",
    } | more  # fmt: skip


def deployment(dep: str = DEP, **more: object) -> dict[str, object]:
    return {
        "schema": "greentic.bundle-deployment.v1", "deployment_id": dep, "env_id": "prod", "bundle_id": "bot", "customer_id": "acme",
        "status": "active", "route_binding": {"tenant_selector": {"tenant": "default", "team": "default"}},
        "revenue_share": [{"party_id": "greentic", "basis_points": 10000}], "revenue_policy_ref": "x", "created_at": NOW,
        "authorization_ref": "auth.json",
    } | more  # fmt: skip


def split(*entries: tuple[str, int], dep: str = DEP, **more: object) -> dict[str, object]:
    return {
        "schema": "greentic.traffic-split.v1", "env_id": "prod", "deployment_id": dep, "bundle_id": "bot", "generation": 0,
        "entries": [{"revision_id": r, "weight_bps": w} for r, w in entries], "updated_at": NOW, "updated_by": "op",
        "idempotency_key": "k", "authorization_ref": "auth.json",
    } | more  # fmt: skip


def raw_env(**more: object) -> dict[str, object]:
    return {
        "schema": "greentic.environment.v1", "environment_id": "prod", "name": "P", "host_config": {"env_id": "prod"}, "packs": [],
        "bundles": [deployment()], "revisions": [revision()], "traffic_splits": [split((REV, 10000))],
    } | more  # fmt: skip


def env(**more: object) -> Environment:
    return from_json(Environment, raw_env(**more))


def endpoint(**more: object) -> dict[str, object]:
    return {
        "schema": "greentic.messaging-endpoint.v1", "env_id": "prod", "endpoint_id": DEP2, "provider_id": "t", "provider_type": "m.t",
        "display_name": "T", "linked_bundles": ["bot"], "created_at": NOW, "updated_at": NOW, "updated_by": "x",
    } | more  # fmt: skip


BINDING = {"slot": "state", "kind": "a.b@1.0.0", "pack_ref": "x"}
EXTENSION = {"kind": "a.b@1.0.0", "pack_ref": "x"}

BROKEN = [
    ("schema discriminator mismatch", {"schema": "other"}),
    ("env_id mismatch in host_config", {"host_config": {"env_id": "other"}}),
    ("must start with http", {"host_config": {"env_id": "prod", "public_base_url": "ftp://x"}}),
    ("duplicate capability slot `state`", {"packs": [BINDING, BINDING]}),
    ("missing `@<semver>`", {"packs": [BINDING | {"kind": "a.b"}]}),
    ("credentials_ref ref", {"credentials_ref": "secret://other/x"}),
    ("secret-ref must start", {"credentials_ref": "other"}),
    ("discriminator mismatch: expected `greentic.revision.v1`", {"revisions": [revision(schema="x")]}),
    ("env_id mismatch in revision", {"revisions": [revision(env_id="x")]}),
    ("env_id mismatch in bundle_deployment", {"bundles": [deployment(env_id="x")]}),
    ("expected `greentic.bundle-deployment.v1`", {"bundles": [deployment(schema="x")]}),
    ("must sum to 10000, got 0", {"bundles": [deployment(revenue_share=[])]}),
    ("entry exceeds 10000: 10001", {"bundles": [deployment(revenue_share=[{"party_id": "a", "basis_points": 10001}])]}),
    ("reference to unknown revision", {"bundles": [deployment(current_revisions=[REV2])]}),
    ("current_revision .* belongs to deployment", {
        "bundles": [deployment(current_revisions=[REV]), deployment(DEP2)], "revisions": [revision(dep=DEP2)], "traffic_splits": []}),
    ("belongs to bundle `other`, not deployment's", {
        "bundles": [deployment(current_revisions=[REV])], "revisions": [revision(bundle_id="other")], "traffic_splits": []}),
    ("references pack `q`", {"bundles": [deployment(config_overrides={"q": {"k": 1}})]}),
    ("env_id mismatch in traffic_split", {"traffic_splits": [split((REV, 10000), env_id="x")]}),
    ("expected `greentic.traffic-split.v1`", {"traffic_splits": [split((REV, 10000), schema="x")]}),
    ("must sum to 10000, got 9999", {"traffic_splits": [split((REV, 9999))]}),
    ("basis-points entry exceeds 10000: 4294967295", {"traffic_splits": [split((REV, 4294967295), (REV2, 10001))]}),
    ("unknown deployment", {"traffic_splits": [split((REV, 10000), dep=DEP2)]}),
    ("BundleDeployment record holds", {"traffic_splits": [split((REV, 10000), bundle_id="x")]}),
    ("reference to unknown revision", {"traffic_splits": [split((REV2, 10000))]}),
    ("belongs to deployment .* not split's", {"bundles": [deployment(), deployment(DEP2)], "revisions": [revision(dep=DEP2)]}),
    ("not split's `bot`", {"revisions": [revision(bundle_id="x")]}),
    ("names revision .* twice", {"traffic_splits": [split((REV, 5000), (REV, 5000))]}),
    ("expected `greentic.messaging-endpoint.v1`", {"messaging_endpoints": [endpoint(schema="x")]}),
    ("env_id mismatch in messaging_endpoint", {"messaging_endpoints": [endpoint(env_id="x")]}),
    ("empty provider_id", {"messaging_endpoints": [endpoint(provider_id="")]}),
    ("duplicate messaging endpoint `", {"messaging_endpoints": [endpoint(), endpoint(provider_id="u")]}),
    ("duplicate messaging endpoint for", {"messaging_endpoints": [endpoint(), endpoint(endpoint_id=DEP)]}),
    ("which is not deployed", {"messaging_endpoints": [endpoint(linked_bundles=["x"])]}),
    ("scoped to env", {"messaging_endpoints": [endpoint(secret_refs=["secret://x/y"])]}),
    ("scoped to env", {"messaging_endpoints": [endpoint(webhook_secret_ref="secret://x/y")]}),
    ("empty flow_id", {"messaging_endpoints": [endpoint(welcome_flow={"bundle_id": "bot", "pack_id": "p", "flow_id": ""})]}),
    ("which is not linked", {"messaging_endpoints": [endpoint(welcome_flow={"bundle_id": "x", "pack_id": "p", "flow_id": "f"})]}),
    ("must match", {"extensions": [EXTENSION | {"instance_id": "A"}]}),
    ("duplicate extension binding", {"extensions": [EXTENSION, EXTENSION | {"kind": "a.b@2.0.0"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "change"), BROKEN, ids=[f"{i}-{t[:24]}" for i, (t, _) in enumerate(BROKEN)])
def test_each_rule_of_validation(text, change):
    with pytest.raises(SpecViolation, match=text):
        validate(env(**change))


def test_what_is_legal():
    validate(env())
    validate(env(extensions=[EXTENSION, EXTENSION | {"instance_id": "two"}], messaging_endpoints=[endpoint()]))
    validate(env(bundles=[deployment(config_overrides={"p": {"k": 1}})]))
    validate(env(bundles=[deployment(config_overrides={"q": {"k": 1}})], revisions=[revision(pack_list=[])]))


@pytest.mark.parametrize(
    "overrides",
    [
        {f"p{i}": {} for i in range(33)},
        {"": {}},
        {"p": {f"k{i}": 1 for i in range(65)}},
        {"p": {"": 1}},
        {"p": {"k": "x" * 16384}},
    ],
)
def test_override_limits(overrides):
    with pytest.raises(SpecViolation, match="config_overrides"):
        check_overrides(overrides)


# -- lifecycle ------------------------------------------------------------------------------------------------------

PERMITTED = {
    "inactive": "staged failed archived", "staged": "warming failed archived", "warming": "ready failed archived",
    "ready": "draining failed archived", "draining": "inactive", "failed": "staged archived", "archived": "",
}  # fmt: skip


def test_every_chain_uses_permitted_transitions_only():
    for chain in lifecycle.CHAINS.values():
        assert all(after in PERMITTED[before].split() for before, after in chain)


@pytest.mark.parametrize(
    ("verb", "state", "end"),
    [
        ("warm", "staged", "ready"), ("warm", "warming", "ready"), ("warm", "ready", "ready"), ("warm", "archived", None),
        ("warm", "failed", None), ("drain", "ready", "draining"), ("drain", "staged", None), ("archive", "draining", "archived"),
        ("archive", "inactive", "archived"), ("archive", "archived", "archived"), ("archive", "failed", "archived"),
        ("retry", "failed", "staged"), ("retry", "ready", None),
    ],
)  # fmt: skip
def test_walks(verb, state, end):
    found = env(revisions=[revision(lifecycle=state)]).revisions[0]
    if end is None:
        with pytest.raises(Conflict, match="expected one of"):
            lifecycle.walk(found, verb)
    else:
        assert lifecycle.walk(found, verb) == (end, end != state)


def test_a_routed_revision_is_not_archived_and_current_revisions_follow():
    document = env(traffic_splits=[split((REV, 10000))])
    with pytest.raises(Conflict, match=r"\(10000bps\)"):
        lifecycle.check_not_routed(document, document.revisions[0])
    document = lifecycle.put_revision(document, document.revisions[0])
    assert document.bundles[0].current_revisions == [REV]
    gone = lifecycle.put_revision(document, replace(document.revisions[0], lifecycle="archived"))
    assert gone.bundles[0].current_revisions == []


# -- traffic --------------------------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=6)


def entries(weights: list[int]) -> list[SplitEntry]:
    return [SplitEntry(revision_id=f"01JTKW5B4W4Q5Y1CQW93F7S5{i:02d}", weight_bps=w) for i, w in enumerate(weights)]


@given(WEIGHTS)
def test_rescaling_makes_a_whole_or_nothing(weights):
    scaled = traffic.rescale(entries(weights))
    if sum(weights):
        traffic.check_weights(scaled)
        assert [e.revision_id for e in scaled] == [e.revision_id for e in entries(weights)]
    else:
        assert scaled == []


@given(st.integers(1, 300))
def test_equal_weights_make_a_whole(count):
    weights = traffic.equal_weights(count)
    assert sum(weights) == 10_000 and max(weights) - min(weights) <= 1


@given(st.permutations(range(4)))
def test_the_order_of_entries_does_not_matter(order):
    given_entries = entries([1, 2, 3, 9994])
    assert traffic.same_entries(given_entries, [given_entries[i] for i in order])
    assert not traffic.same_entries(given_entries, entries([2, 1, 3, 9994]))


def test_one_step_back_and_no_further():
    document = env()
    second = traffic.next_split(
        document, deployment_id=DEP, bundle_id="bot", entries=entries([10000]), updated_at=NOW, updated_by="u", idempotency_key="k2",
        authorization_ref="a",
    )  # fmt: skip
    assert second.generation == 1
    document = traffic.put_split(document, second)
    third = traffic.next_split(
        document, deployment_id=DEP, bundle_id="bot", entries=entries([10000]), updated_at=NOW, updated_by="u", idempotency_key="k3",
        authorization_ref="a",
    )  # fmt: skip
    stashed = traffic.unstash(third.previous_split_ref)
    assert stashed["idempotency_key"] == "k2" and "previous_split_ref" not in stashed
    assert traffic.without_split(document, DEP).traffic_splits == []
    assert "=" not in third.previous_split_ref


@pytest.mark.parametrize(
    "token", [None, "", "inline:/x", "inline://%%%", "inline://" + base64.urlsafe_b64encode(b"{").decode()]
)
def test_tokens_that_hold_nothing(token):
    assert traffic.unstash(token) is None


# -- projection -----------------------------------------------------------------------------------------------------


def test_projection_keeps_order_and_zero_weights_and_leaves_out_what_is_not_active():
    document = env(
        bundles=[deployment(), deployment(DEP2, status="paused")],
        revisions=[revision(), revision(REV2), revision(REV3, DEP2)],
        traffic_splits=[split((REV2, 10000), (REV, 0)), split((REV3, 10000), dep=DEP2)],
    )
    config = projection.project(document)
    assert [(b.revision_id, b.weight_bps) for b in config.revisions] == [(REV2, 10000), (REV, 0)]
    assert projection.project(document, skipped=frozenset({DEP})).revisions == []
    assert projection.project(document, skipped=frozenset({DEP, DEP2})) is None
    assert projection.project(env(traffic_splits=[])) is None


def test_projection_survives_saving_and_loading():
    document = env()
    again = from_json(Environment, json.loads(pretty(document)))
    assert projection.project(again) == projection.project(document)


# -- routes and addresses -------------------------------------------------------------------------------------------


def routed(**bindings: tuple[list[str], list[str]]) -> Environment:
    names = {"a": DEP, "b": DEP2}
    rows = [
        deployment(
            names[n],
            bundle_id=n,
            route_binding={"hosts": h, "path_prefixes": p, "tenant_selector": {"tenant": n, "team": "t"}},
        )
        for n, (h, p) in bindings.items()
    ]
    return env(bundles=rows, revisions=[], traffic_splits=[])


@pytest.mark.parametrize(
    ("host", "path", "found"),
    [
        ("x", "/e2e", "b"), ("x", "/e2e/y", "b"), ("x", "/e2ex", "a"), ("x", "/", "a"), ("", "/other", "a"),
    ],
)  # fmt: skip
def test_the_longest_prefix_wins_at_segment_borders(host, path, found):
    table = routes.Routes(routes.route_table(routed(a=([], []), b=([], ["/e2e/"]))))
    assert table.find(host, path).bundle_id == found


def test_hosts_match_without_port_and_case_and_a_tie_goes_to_the_first():
    table = routes.Routes(routes.route_table(routed(a=(["Chat.example.com"], ["/s"]), b=([], ["s"]))))
    assert table.find("CHAT.EXAMPLE.COM:8080", "/s").bundle_id == "a"
    assert table.find("other", "/s/x").bundle_id == "b"
    assert table.find("chat.example.com", "/t") is None
    six = routes.Routes(routes.route_table(routed(a=(["[::1]"], []))))
    assert six.find("[::1]:80", "/").bundle_id == "a"


def looked_through(table, host_header, path):
    """The rules of routes as they are written down: look at every route (formats: worker 5)."""
    host, best, longest = host_without_port(host_header), None, -1
    for route in table:
        if route.hosts and host not in route.hosts:
            continue
        for prefix in route.prefixes:
            if len(prefix) > longest and (path == prefix or path.startswith(f"{prefix}/") or not prefix):
                best, longest = route, len(prefix)
    return best


_HOSTS = st.lists(st.sampled_from(["a.b", "C.d", "[::1]", ""]), max_size=3)
_PATHS = st.text("/ab%é", max_size=7)


@given(st.lists(st.tuples(_HOSTS, st.lists(_PATHS, max_size=3)), max_size=8), st.sampled_from(["a.b:80", "c.D", "[::1]", "x", ""]), _PATHS)  # fmt: skip
def test_the_index_of_routes_finds_what_looking_through_all_finds(bindings, host, path):
    template = routes.Route("D", "b", "t", "t", frozenset(), ())
    table = [
        template._replace(
            deployment_id=str(number),
            hosts=frozenset(h.lower() for h in hosts),
            prefixes=tuple(routes.normal_prefix(p) for p in prefixes) or ("",),
        )
        for number, (hosts, prefixes) in enumerate(bindings)
    ]
    for asked in (path, f"/{path}", f"{path}/", *(p for route in table for p in route.prefixes)):
        assert routes.Routes(table).find(host, asked) is looked_through(table, host, asked)


def test_tenants():
    table = routes.route_table(routed(a=([], []), b=([], ["/b"])))
    found = routes.Routes(table)
    assert found.of_tenant("b").bundle_id == "b" and found.of_tenant("zz") is None
    assert routes.Routes(table[:1]).of_tenant("zz").bundle_id == "a"


def test_overlaps():
    assert routes.overlaps(routed(a=([], ["/x"]), b=(["h"], ["x/"]))) == [(DEP, DEP2, "/x")]
    assert routes.overlaps(routed(a=(["g"], []), b=(["h"], []))) == []


def test_each_host_and_prefix_is_asked_whether_a_request_can_match_it():
    assert routes.impossible_matcher([], []) is None
    assert routes.impossible_matcher(["h", "[::1]", "bücher.example"], ["/", "", "//a", "a/b/"]) is None
    assert routes.impossible_matcher(["h" * 253], ["/" * 8000]) is None
    for host in ("h" * 254, "http://h", "*.h", "", "h:80", "[", "[]", "h/x", "a b", "a\x01"):
        assert f"the host {host[:80]!r} cannot" in (routes.impossible_matcher(["h", host, "::"], ["/a b"]) or "")
    for prefix in ("/" + "é" * 4000, "/a b", "/x?y", "#", "/\x7f"):
        assert f"the prefix {prefix[:80]!r} cannot" in (routes.impossible_matcher(["h"], ["/", prefix, "?"]) or "")


PUBLIC_URLS = [
    ("", "must not be empty"), ("a b", "whitespace"), ("https://é", "not a valid URI"), ("ftp://x", "must start with"), ("https://", "include a host"),
    ("https://u@h", "userinfo"), ("https://h:x", "port"), ("https://h:99999", "port"), ("https://h?q", "query"), ("https://h/#f", "fragment"),
    ("https://h/p", "without a path"), ("https://:80", "include a host"), ("https://[::1", "include a host"), ("https://[::1]x", "port"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "reason"), PUBLIC_URLS)
def test_public_urls_that_are_refused(url, reason):
    with pytest.raises(SpecViolation, match=reason):
        check_public_base_url(url)


def test_public_urls_and_addresses_that_are_accepted():
    assert check_public_base_url(" https://h:8443/ ") == "https://h:8443"
    assert check_public_base_url("http://[::1]:80") == "http://[::1]:80"
    assert split_listen_addr("[::1]:8443") == ("::1", 8443) and join_listen_addr("::1", 1) == "[::1]:1"
    for bad in ("x", "h:80", "1.2.3.4", "1.2.3.4:99999", "::1:80", "[1.2.3.4]:80", "1.2.3.4:８０"):
        with pytest.raises(ValueError):
            split_listen_addr(bad)
    assert host_without_port("[::1") == "[::1"
    assert (
        is_loopback("127.9.9.9")
        and is_loopback("::ffff:127.0.0.1")
        and not is_loopback("10.0.0.1")
        and not is_loopback("x")
    )


def test_descriptors_and_references():
    assert split_descriptor("greentic.deployer.k8s@1.0.0") == ("greentic.deployer.k8s", "1.0.0")
    for bad in ("a.b", "@1.0.0", "ab@1.0.0", "A.b@1.0.0", "a.b@1@2", "a.b@x"):
        with pytest.raises(SpecViolation):
            split_descriptor(bad)
    assert version_tuple("1.2.3-rc.1") == (1, 2, 3)
    for bad in ("x://e/p", "runtime://", "runtime://e", "runtime:///p", "runtime://e/"):
        with pytest.raises(SpecViolation, match="runtime-ref"):
            ref_env(bad, "runtime")
    assert ref_env("runtime://e/p", "runtime") == "e"


def test_the_local_environment():
    fresh = fresh_local("https://x.example")
    assert [b.slot for b in fresh.packs] == ["deployer", "secrets", "telemetry", "sessions", "state"]
    assert healed_local(fresh) == (fresh, [])
    healed, added = healed_local(replace(fresh, packs=fresh.packs[1:]))
    assert added == ["deployer"] and healed.packs[-1].slot == "deployer"


# -- policies and revision files ------------------------------------------------------------------------------------


def test_policy_versions_never_restart():
    bound = env(bundles=[deployment(revenue_policy_ref="billing-policies/bot/acme/v3.json.sig")]).bundles[0]
    assert policy.next_version(bound, []) == 4
    assert policy.next_version(None, ["v1.json", "v1.json.sig", "v2.json"]) == 2  # v2 was never signed: written again
    assert policy.next_version(None, ["v7.json.sig", "vx.json.sig", "v0.json.sig"]) == 8
    first = policy.make_policy(bound, 1, NOW)
    assert first.previous_version_ref is None and not policy.policy_bytes(first).endswith(b"\n")
    assert policy.make_policy(bound, 2, NOW).previous_version_ref == "billing-policies/bot/acme/v1.json.sig"
    with pytest.raises(RevenuePolicyError, match="must sum"):
        policy.make_policy(replace(bound, revenue_share=[]), 1, NOW)


def test_locks_sort_by_component_and_refuse_a_stem_twice():
    lock = make_lock(
        REV,
        {"providers/m/b.gtpack": "d2", "packs/z.gtpack": "d1", "packs/a/y.gtpack": "d0", "packs/a.x/w.gtpack": "d3"},
    )
    assert [p.pack_id for p in lock.packs] == ["y", "w", "z", "b"]
    with pytest.raises(InvalidArgument, match="same pack id `a`"):
        make_lock(REV, {"packs/a.gtpack": "1", "providers/x/a.gtpack": "2"})
    listed = pack_list(lock, {"y": "1.2.3"})
    assert [(e.pack_id, e.version) for e in listed] == [("b", "0.0.0"), ("w", "0.0.0"), ("y", "1.2.3"), ("z", "0.0.0")]
    assert diverging_packs(listed, lock) == []
    assert diverging_packs(listed[:1], lock) == ["w", "y", "z"]
    assert diverging_packs([replace(listed[0], digest="other"), *listed[1:]], lock) == ["b"]
    assert diverging_packs([*listed, replace(listed[0], pack_id="more")], lock) == ["more"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema": "x"}, "discriminator"),
        ({"revision_id": REV2}, "is for revision"),
        ({"packs": []}, "no pinned packs"),
    ],
)
def test_locks_that_are_refused(change, text):
    lock = PackListLock(
        schema="greentic.pack-list-lock.v1", revision_id=REV, packs=[LockedPack(pack_id="p", path="x", digest="d")]
    )
    check_lock(lock, REV)
    with pytest.raises(SpecViolation, match=text):
        check_lock(replace(lock, **change), REV)


GOOD_INPUT = {"schema": "greentic.pack-config-input.v1", "pack_id": "p", "env_id": "prod", "bundle_id": "bot"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"surprise": 1}, "unknown field"), ({"schema": "x"}, "unexpected schema"), ({"env_id": "x"}, "target env"), ({"bundle_id": "x"}, "target bundle"),
        ({"pack_id": "q"}, "not in the bundle's"), ({"pack_id": "r"}, "disagrees"), ({"secret_refs": {"k": "x"}}, "not a valid"),
        ({"secret_refs": {"k": "secret://prod/bot/p/other"}}, "not scoped"), ({"pack_id": 5}, "Expected"),
    ],
)  # fmt: skip
def test_pack_config_inputs_that_are_refused(change, text):
    with pytest.raises(InvalidArgument, match=text):
        pack_config(
            "p.json", GOOD_INPUT | change, env_id="prod", bundle_id="bot", revision_id=REV, known_packs={"p", "r"}
        )


def test_pack_config():
    raw = GOOD_INPUT | {"non_secret": {"b": 1, "a": 2}, "secret_refs": {"k": "secret://prod/bot/p/k"}}
    config = pack_config("p.json", raw, env_id="prod", bundle_id="bot", revision_id=REV, known_packs={"p"})
    assert list(config.non_secret) == ["a", "b"] and config.runtime_refs == {}
