"""`env apply` refuses before it has done anything, and `--dry-run` refuses whatever applying would."""

from __future__ import annotations

import msgspec
import pytest

from greentic.ground.errors import AnswersParse, GreenticError
from greentic.model.ids import LOCAL_ENV
from greentic.operate.payload import read
from greentic.release import env_apply, env_rehearsal
from greentic.release.env_apply import ApplyOptions
from greentic.release.env_manifest import EnvManifest


def manifest(**more) -> EnvManifest:
    raw = {"schema": "greentic.env-manifest.v1", "environment": {"id": LOCAL_ENV}, "trust_root": "bootstrap"} | more
    return read(EnvManifest, raw, AnswersParse)


def bundle(hello, **more):
    return {"bundle_id": "one", "bundle_path": str(hello)} | more


def revisions(hello, *many):
    return {
        "bundle_id": "one",
        "revisions": [{"name": f"r{n}", "bundle_path": str(hello)} | one for n, one in enumerate(many)],
    }


WRONG = {
    "drain": lambda hello: {"bundles": [revisions(hello, {"drain_seconds": -1})]},
    "drain-far": lambda hello: {"bundles": [revisions(hello, {"drain_seconds": 2**32})]},
    "pack": lambda hello: {"bundles": [bundle(hello, config_overrides={"nobody": {"k": 1}})]},
    "overrides": lambda hello: {"bundles": [bundle(hello, config_overrides={"hello": {f"k{n}": 1 for n in range(65)}})]},
    "share": lambda hello: {"bundles": [bundle(hello, revenue_share=[{"party_id": "a", "basis_points": 5000}])]},
    "share-negative": lambda hello: {"bundles": [bundle(hello, revenue_share=[{"party_id": "a", "basis_points": -1}])]},
    "listen": lambda hello: {"environment": {"id": LOCAL_ENV, "listen_addr": "nowhere"}},
    "url": lambda hello: {"environment": {"id": LOCAL_ENV, "public_base_url": "ftp://x"}},
    "extension": lambda hello: {"extensions": [{"kind": "e.x", "pack_ref": "p"}]},
    "instance": lambda hello: {"extensions": [{"kind": "e.x@1.0.0", "pack_ref": "p", "instance_id": "A b"}]},
    "slot": lambda hello: {"packs": [{"slot": "nobody", "kind": "a.b@1.0.0", "pack_ref": "p"}]},
    "slot-many": lambda hello: {"packs": [{"slot": "messaging", "kind": "a.b@1.0.0", "pack_ref": "p"}]},
    "kind": lambda hello: {"packs": [{"slot": "state", "kind": "a.b", "pack_ref": "p"}]},
    "route": lambda hello: {"bundles": [bundle(hello, route_binding={"hosts": ["http://x/"]})]},
    "customer": lambda hello: {"bundles": [bundle(hello, customer_id="a/b")]},
    "no-bundle": lambda hello: {"bundles": [bundle(hello.parent / "no-bundle")]},
    "weights": lambda hello: {"bundles": [revisions(hello, {"weight_bps": 10000}, {"weight_bps": 10000})]},
    "source": lambda hello: {"bundles": [bundle(hello, bundle_source_uri="https://u:p@h/x")]},
    "second": lambda hello: {"bundles": [bundle(hello), bundle(hello, bundle_id="two", revenue_share=[])]},
}  # fmt: skip


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_applying_refuses_the_dry_run_refuses_and_nothing_is_done(
    context, store, hello, wrong, there, monkeypatch
):
    (hello.parent / "no-bundle").write_bytes(b"no bundle")
    if there:
        env_apply.apply(context, manifest(bundles=[bundle(hello)]), ApplyOptions())
    before = tree(store)
    for options in (ApplyOptions(dry_run=True), ApplyOptions(check=True), ApplyOptions()):
        with pytest.raises(GreenticError) as refused:
            env_apply.apply(context, manifest(**WRONG[wrong](hello)), options)
        assert "not converged" not in str(refused.value)
        assert "00000000000000000000" not in str(refused.value), "placeholders are nobody's names"
        assert tree(store) == before
    monkeypatch.setattr(env_apply, "rehearse", lambda *words, **more: None)
    with pytest.raises(GreenticError):  # it really is what a verb refuses
        env_apply.apply(context, manifest(**WRONG[wrong](hello)), ApplyOptions())


def tree(store):
    paths = sorted(p for p in store.root.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(store.root)): p.read_bytes() for p in paths}


def test_a_bundle_whose_packs_do_not_load_is_refused_by_the_dry_run(context, store, hello, tmp_path):
    from greentic.bundle.squashfs_writer import write_image

    (tmp_path / "t" / "packs").mkdir(parents=True)
    (tmp_path / "t" / "packs" / "broken.gtpack").write_bytes(b"no pack")
    (tmp_path / "t" / "bundle-manifest.json").write_text("{}")
    with (tmp_path / "b.gtbundle").open("wb") as file:
        write_image(tmp_path / "t", file)
    with pytest.raises(GreenticError, match="deploy-bundle one: .*do not load"):
        env_apply.apply(context, manifest(bundles=[bundle(tmp_path / "b.gtbundle")]), ApplyOptions(dry_run=True))
    assert not store.exists(LOCAL_ENV)


def test_what_is_right_is_rehearsed_step_by_step(context, store, hello, monkeypatch):
    wanted = manifest(
        environment={"id": LOCAL_ENV, "name": "n", "public_base_url": "https://x.example"},
        packs=[{"slot": "state", "kind": "a.c@1.0.0", "pack_ref": "p"}], extensions=[{"kind": "e.x@1.0.0", "pack_ref": "p"}],
        bundles=[bundle(hello, config_overrides={"hello": {"k": 1}}), revisions(hello, {}, {}) | {"bundle_id": "two"}],
    )  # fmt: skip
    seen = []
    after = env_rehearsal._after

    def told(context, env, step, packs_load):
        seen.append((step.kind, env := after(context, env, step, packs_load)))
        return env

    monkeypatch.setattr(env_rehearsal, "_after", told)
    assert env_apply.apply(context, wanted, ApplyOptions(dry_run=True)).changed == len(seen)
    last = seen[-1][1]
    assert (last.name, last.host_config.public_base_url) == ("n", "https://x.example")
    assert [d.bundle_id for d in last.bundles] == ["one", "two"] and len(last.revisions) == 3
    done = env_apply.apply(context, wanted, ApplyOptions())
    assert done.verify.failures == []
    real = store.load(LOCAL_ENV)
    assert [(r.bundle_id, r.bundle_digest, [p.pack_id for p in r.pack_list]) for r in real.revisions] == [
        (r.bundle_id, r.bundle_digest, [p.pack_id for p in r.pack_list]) for r in last.revisions
    ]
    assert {(b.slot, b.kind) for b in real.packs} == {(b.slot, b.kind) for b in last.packs}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"route_binding": {"path_prefix": ["/a"]}}, "unknown field `path_prefix`.*did you mean `path_prefixes`"),
        ({"route_binding": {"hosts": [], "tenant_selector": {"tenant": "a", "team": "b", "tem": "c"}}}, "unknown field `tem`.*`team`"),
    ],
)  # fmt: skip
def test_a_mistyped_member_of_a_route_is_refused_with_the_nearest(more, told):
    with pytest.raises(AnswersParse, match=told):
        manifest(bundles=[{"bundle_id": "a", "bundle_path": "x"} | more])


def test_no_object_of_a_manifest_lets_an_unknown_member_pass():
    def structs(kind, seen):
        for field in msgspec.structs.fields(kind):
            for part in parts(field.type):
                if isinstance(part, type) and issubclass(part, msgspec.Struct) and part not in seen:
                    seen.add(part)
                    structs(part, seen)
        return seen

    def parts(kind):
        from typing import get_args

        return [kind] if not get_args(kind) else [p for a in get_args(kind) for p in parts(a)]

    found = structs(EnvManifest, {EnvManifest})
    assert len(found) >= 10
    assert [k.__name__ for k in found if not k.__struct_config__.forbid_unknown_fields] == []
