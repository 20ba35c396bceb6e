"""The verbs, where the recorded scenarios do not reach: what is better than before, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from conftest import Author, deployer_answers
from greentic.author.bundle_build import build_bundle
from greentic.author.inspect import inspect_bundle, inspect_pack, verify_bundle
from greentic.author.pack_build import build_pack
from greentic.bundle.squashfs_writer import write_image
from greentic.cli import bundle as bundle_command
from greentic.cli import flow as flow_command
from greentic.cli import op as op_command
from greentic.cli import pack as pack_command
from greentic.deployments import bundles, revisions, traffic
from greentic.deployments.stage import RevisionStagePayload, stage
from greentic.distribute.sources import is_relative, source_for
from greentic.examine import env_doctor
from greentic.ground.documents import replace
from greentic.ground.errors import (
    Conflict,
    FetchError,
    GreenticError,
    InvalidArgument,
    NotFound,
    NotYetImplemented,
    SpecViolation,
    StoreError,
)
from greentic.ground.reply import reply_json
from greentic.materialize.seed import read_seed
from greentic.model.ids import LOCAL_ENV
from greentic.operate import config, env, env_init, env_packs, trust_root
from greentic.operate.payload import read
from greentic.release import deploy, env_apply, env_plan, retire
from greentic.release.env_manifest import EnvManifest

E = "local"


def test_update_sets_and_clears_host_fields(context, author):
    author.create()
    env.update(context, env.EnvCreatePayload(environment_id=E, name="N", region="eu", listen_addr="0.0.0.0:9000"))
    shown = env.update(context, env.EnvCreatePayload(environment_id=E, name="N", clear=["region"]))
    assert shown.region is None and shown.listen_addr == "0.0.0.0:9000"
    for payload in (
        {"clear": ["env_id"]},
        {"clear": ["region"], "region": "x"},
        {"listen_addr": "x"},
        {"public_base_url": "x"},
    ):
        with pytest.raises(InvalidArgument):
            env.update(context, env.EnvCreatePayload(environment_id=E, name="N", **payload))


def test_list_keeps_broken_environments_apart(context, author, store):
    author.create()
    (store.root / "broken").mkdir()
    (store.root / "broken" / "environment.json").write_text("{")
    listed = env.list_all(context)
    assert [e.environment_id for e in listed.environments] == [E] and listed.broken[0].environment_id == "broken"
    told = env_doctor.doctor(context, "broken")
    assert told.validate.status == "error"
    with pytest.raises(NotFound):
        env_doctor.doctor(context, "nowhere")


def test_destroy_keeps_a_copy_and_refuses_live_traffic(context, author, store, hello):
    author.create()
    dep, _ = author.deployed(hello)
    with pytest.raises(InvalidArgument, match="--confirm"):
        env.destroy(context, env.DestroyPayload(environment_id=E))
    with pytest.raises(Conflict, match="still routes traffic") as caught:
        env.destroy(context, env.DestroyPayload(environment_id=E, confirm=True))
    assert caught.value.hint == f"gtc op bundles retire {E} {dep}"
    retire.retire(context, retire.BundleRetirePayload(environment_id=E, bundle=dep))
    told = env.destroy(context, env.DestroyPayload(environment_id=E, confirm=True))
    assert (
        not store.exists(E)
        and (Path(told.backup) / "environment.json").is_file()
        and env.list_all(context) == env.EnvList(environments=[])
    )
    with pytest.raises(NotFound):
        env.destroy(context, env.DestroyPayload(environment_id=E, confirm=True))


def test_init_creates_heals_and_migrates(context, store):
    assert env_init.init(context, env_init.EnvInitPayload()).outcome == "created"
    env_packs.remove(context, env_packs.EnvPackRemovePayload(environment_id=E, slot="state"))
    healed = env_init.init(context, env_init.EnvInitPayload())
    assert (healed.outcome, healed.added_slots) == ("healed", ["state"])
    store.paths(E).root.rename(store.root / "dev")
    text = (store.root / "dev" / "environment.json").read_text().replace('"local"', '"dev"')
    (store.root / "dev" / "environment.json").write_text(
        text.replace('"packs": [', '"credentials_ref": "secret://dev/x", "packs": [', 1)
    )
    check = env_init.MigrateDevPayload(target="local", check=True)
    honest = (store.root / "dev" / "environment.json").read_text()
    (store.root / "dev" / "environment.json").write_text(honest.replace('"packs":', '"packs": [], "packs":', 1))
    with pytest.raises(StoreError, match="the key `packs` stands twice"):
        env_init.migrate_dev(context, env_init.MigrateDevPayload(target="local", apply=True))
    (store.root / "dev" / "environment.json").write_text(honest)
    assert env_init.migrate_dev(context, check).clean is False
    assert env_init.migrate_dev(context, env_init.MigrateDevPayload(target="local", apply=True)).applied is True
    assert (
        store.load("local").credentials_ref == "secret://local/x" and store.runtime("local").environment_id == "local"
    )
    assert env_init.migrate_dev(context, check).clean is True
    with pytest.raises(InvalidArgument):
        env_init.migrate_dev(context, env_init.MigrateDevPayload(target="dev", check=True))
    (store.root / "dev").mkdir()
    (store.root / "dev" / "environment.json").write_text("{}")
    with pytest.raises(Conflict, match="exists already"):
        env_init.migrate_dev(context, env_init.MigrateDevPayload(target="local", apply=True))


def test_the_doctor_tells_overlaps_orphans_and_what_cannot_be_pulled(context, author, store, hello):
    author.create()
    author.deployed(hello)
    author.add("again", ("/",))
    env_packs.add(
        context,
        env_packs.EnvPackBindingPayload(
            environment_id=E, slot="state", kind="greentic.deployer.k8s@9.0.0", pack_ref="x"
        ),
    )
    env_packs.add(
        context, env_packs.EnvPackBindingPayload(environment_id=E, slot="sessions", kind="my.own@1.0.0", pack_ref="x")
    )
    (store.paths(E).revisions / "01JTKW5B4W4Q5Y1CQW93F7S5ZZ").mkdir()
    told = env_doctor.doctor(context, E)
    kinds = {"route-overlap", "serves-nothing", "not-pullable", "orphan-files", "load-warning"}
    assert {f.kind for f in told.findings} == kinds
    assert {f.kind for f in told.findings if f.fix is not msgspec.UNSET} == kinds - {"load-warning"}
    (empty,) = (f for f in told.findings if f.kind == "serves-nothing")
    assert "of bundle `again` is active and has no traffic" in empty.message
    assert told.unknown_kinds == ["my.own@1.0.0"] and told.slot_mismatches[0].bound_slot == "state"
    assert reply_json(told.version_skew) == [
        {"kind": "greentic.deployer.k8s@9.0.0", "requested": "9.0.0", "supported": "1.0.0"}
    ]


def test_the_doctor_tells_of_a_member_that_stands_twice(context, author, store):
    author.create()
    path = store.paths(E).environment
    path.write_bytes(path.read_bytes().replace(b'"name":', b'"name": "seen by others",\n  "name":', 1))
    told = env_doctor.doctor(context, E)
    assert isinstance(told, env_doctor.Unloadable) and told.validate.status == "error"
    assert "the key `name` stands twice in one object" in str(told.validate.message) and told.backups is not None


@pytest.mark.parametrize("uri", ["hello.gtbundle", "./hello.gtbundle", "file://hello.gtbundle", "FILE://a/b", " a/b"])
def test_the_doctor_tells_of_a_source_that_depends_on_where_a_worker_starts(context, author, hello, uri):
    """No verb records one any more, but documents have some: they work where they were written, and nowhere else; nothing told so."""
    author.create()
    author.deployed(hello, hello.as_uri())
    with context.store.transaction(E) as transaction:
        env = transaction.load()
        transaction.save(replace(env, revisions=[replace(r, bundle_source_uri=uri) for r in env.revisions]))
    told = [f for f in env_doctor.doctor(context, E).findings if f.kind == "relative-source"]
    assert len(told) == 1 and "the whole path" in told[0].message
    assert is_relative(uri) and not is_relative("") and not is_relative("https://h/x") and not is_relative("repo://x")
    assert not is_relative("file:///a/b") and not is_relative("/a/b") and not is_relative("file://localhost/a/b")
    with pytest.raises(FetchError, match=r"file not found below the directory that this program runs in"):
        source_for(uri.replace("hello", "no"))


def test_repair_rescales_what_is_left(context, author, store, hello):
    author.create()
    dep = author.add()
    kept, gone = author.warm(author.stage(dep, hello)), author.warm(author.stage(dep, hello))
    author.route(dep, (kept, 2500), (gone, 7500))
    shutil.rmtree(store.paths(E).revision(gone))
    check = env_doctor.repair(context, env_doctor.RepairPayload(environment_id=E, check=True))
    assert check.repaired == 0 and len(check.stale_revisions) == 1
    assert env_doctor.doctor(context, E).stale_revisions[0].revision_id == gone
    with pytest.raises(InvalidArgument):
        env_doctor.repair(context, env_doctor.RepairPayload(environment_id=E, check=True, apply=True))
    assert env_doctor.repair(context, env_doctor.RepairPayload(environment_id=E, apply=True)).repaired == 1
    document = store.load(E)
    assert [(e.revision_id, e.weight_bps) for e in document.split(dep).entries] == [(kept, 10_000)]
    assert document.revision(gone).lifecycle == "archived" and document.bundles[0].current_revisions == [kept]
    shutil.rmtree(store.paths(E).revision(kept))
    env_doctor.repair(context, env_doctor.RepairPayload(environment_id=E, apply=True))
    assert store.load(E).traffic_splits == [] and not store.paths(E).runtime_config.exists()


def test_warm_really_loads_and_a_failed_revision_may_be_retried(context, author, store, hello):
    author.create()
    dep = author.add()
    rev = author.stage(dep, hello)
    pack = next(store.paths(E).revision(rev).rglob("*.gtpack"))
    whole = pack.read_bytes()
    pack.write_bytes(b"altered")
    with pytest.raises(Conflict, match="does not match pinned digest"):
        author.warm(rev)
    assert store.load(E).revision(rev).lifecycle == "failed"
    with pytest.raises(Conflict):
        author.warm(rev)
    pack.write_bytes(whole)
    revisions.retry(context, author.transition(rev))
    assert author.warm(rev) and store.load(E).revision(rev).lifecycle == "ready"
    assert store.load(E).revision(rev).pack_list[0].version == "0.1.0"


def test_a_warm_loads_a_pack_once_unless_it_became_another(context, author, store, hello, monkeypatch):
    from greentic.activate import warm

    author.create()
    rev = author.stage(author.add(), hello)
    looked_at: list[str] = []
    load, cards = warm.load_packs, warm.with_cards
    monkeypatch.setattr(warm, "load_packs", lambda located, policy: looked_at.append("load") or load(located, policy))
    monkeypatch.setattr(warm, "with_cards", lambda pack: looked_at.append("cards") or cards(pack))
    author.warm(rev)
    assert looked_at == ["load", "cards"]
    rev = author.stage(author.add("again", ("/again",)), hello)
    pack = next(store.paths(E).revision(rev).rglob("*.gtpack"))
    monkeypatch.setattr(warm, "with_cards", lambda found: pack.write_bytes(b"altered") and cards(found))
    with pytest.raises(Conflict, match="does not match pinned digest"):  # under the lock its digest is asked again
        author.warm(rev)


def test_staging_by_source_alone_pulls_and_pins(context, author, store, hello):
    author.create()
    dep = author.add()
    payload = RevisionStagePayload(environment_id=E, deployment_id=dep, bundle_source_uri=f"file://{hello}")
    rev = stage(context, payload).revision_id
    assert store.load(E).revision(rev).bundle_digest == inspect_bundle(hello)["digest"]
    with pytest.raises(GreenticError, match="unsupported bundle reference"):
        stage(context, msgspec.structs.replace(payload, bundle_source_uri="file:///nope"))


def test_staging_pins_alone_is_recorded_but_never_ready(context, author, store):
    author.create()
    dep = author.add()
    base = {"environment_id": E, "deployment_id": dep}
    pack = {"pack_id": "p", "version": "1.0.0", "digest": "sha256:" + "a" * 64}
    rev = stage(context, read(RevisionStagePayload, base | {"pack_list": [pack]}, InvalidArgument)).revision_id
    with pytest.raises(Conflict, match="recorded without its bundle"):
        author.warm(rev)
    for change in (
        {"pack_list_lock_ref": "revisions/x/pack-list.lock"},
        {"bundle_digest": "sha256:AA"},
        {"pack_list": [pack | {"version": "x"}]},
    ):
        with pytest.raises(InvalidArgument):
            stage(context, read(RevisionStagePayload, base | change, InvalidArgument))


def test_retention_deletes_old_files_and_keeps_the_records(context, author, store, hello):
    author.create()
    path = store.paths(E).environment
    path.write_text(path.read_text().replace('"retention": {}', '"retention": {"keep_revisions": 1}'))
    dep = author.add()
    staged = [author.stage(dep, hello) for _ in range(3)]
    for rev in staged:
        revisions.archive(context, author.transition(rev))
    assert [store.paths(E).revision(r).exists() for r in staged] == [False, False, True] and len(
        store.load(E).revisions
    ) == 3


def test_bundles_removed_and_retired_keep_their_signed_history(context, author, store, hello):
    author.create()
    dep, rev = author.deployed(hello)
    told = retire.retire(context, retire.BundleRetirePayload(environment_id=E, bundle="demo"))
    assert told.state == "retired" and told.drained == [rev] and told.pruned_revision_ids == [rev]
    paths = store.paths(E)
    assert not paths.revision(rev).exists() and (paths.policies("demo", "acme") / "v1.json.sig").is_file()
    again = retire.retire(context, retire.BundleRetirePayload(environment_id=E, bundle=dep))
    assert again.state == "absent"
    author.add()
    assert store.load(E).bundles[0].revenue_policy_ref.endswith("/v2.json.sig")
    bundles.add(
        context,
        bundles.BundleAddPayload(
            environment_id=E, bundle_id="demo", customer_id="two", route_binding=bundles.RouteBindingPayload()
        ),
    )
    with pytest.raises(InvalidArgument, match="ambiguous"):
        retire.retire(context, retire.BundleRetirePayload(environment_id=E, bundle="demo"))
    env_packs.add(
        context,
        env_packs.EnvPackBindingPayload(
            environment_id=E, slot="deployer", kind="greentic.deployer.k8s@1.0.0", pack_ref="builtin"
        ),
    )
    with pytest.raises(Conflict, match="cannot tear down"):
        retire.retire(context, retire.BundleRetirePayload(environment_id=E, bundle="demo", customer_id="two"))
    retire.retire(
        context, retire.BundleRetirePayload(environment_id=E, bundle="demo", customer_id="two", store_only=True)
    )


def test_bundles_that_nobody_could_reach_or_pay_for(context, author):
    author.create()
    for change in (
        {"hosts": ["*.x"]},
        {"prefixes": ("/a b",)},
        {"revenue_share": [bundles.SharePayload(party_id="a", basis_points=-1)]},
    ):
        with pytest.raises(InvalidArgument):
            author.add(**change)
    with pytest.raises(InvalidArgument):
        author.add("../x")


def test_clear_gives_all_to_a_survivor_or_only_to_nobody_when_retiring(context, author, store, hello):
    author.create()
    dep, rev = author.deployed(hello)
    other = author.warm(author.stage(dep, hello))
    author.route(dep, (rev, 1), (other, 9999), key="2")
    base = {"environment_id": E, "deployment_id": dep}
    with pytest.raises(Conflict, match="is not retiring"):
        traffic.clear(context, traffic.TrafficClearPayload(**base))
    told = traffic.clear(context, traffic.TrafficClearPayload(**base, survivor=rev))
    assert told.mode == "survivor" and told.changed is True
    bundles.update(context, bundles.BundleUpdatePayload(**base, status="archived"))
    assert json.loads(store.paths(E).runtime_config.read_text())["revisions"] == []
    assert traffic.clear(context, traffic.TrafficClearPayload(**base)).cleared_generation == 2
    assert traffic.clear(context, traffic.TrafficClearPayload(**base)).changed is False
    assert not store.paths(E).runtime_config.exists()


def test_rollback_needs_ready_revisions(context, author, hello):
    author.create()
    dep, rev = author.deployed(hello)
    other = author.warm(author.stage(dep, hello))
    author.route(dep, (other, 10_000), key="2")
    revisions.drain(context, author.transition(rev))
    with pytest.raises(Conflict, match="only `Ready`"):
        traffic.rollback(context, traffic.TrafficShowPayload(environment_id=E, deployment_id=dep))


def test_traffic_refusals(context, author, hello):
    author.create()
    dep, rev = author.deployed(hello)
    other = author.add("two", ("/two",))
    with pytest.raises(InvalidArgument, match="belongs to deployment"):
        author.route(other, (rev, 10_000))
    with pytest.raises(GreenticError, match="twice"):
        author.route(dep, (rev, 5000), (rev, 5000), key="x")
    for entry in ({"weight_bps": -1}, {"weight_percent": -1}):
        payload = {
            "environment_id": E,
            "deployment_id": dep,
            "entries": [{"revision_id": rev} | entry],
            "idempotency_key": "z",
        }
        with pytest.raises(InvalidArgument):
            traffic.set_traffic(context, read(traffic.TrafficSetPayload, payload, InvalidArgument))


def test_env_packs_refuse_other_slots(context, author):
    author.create()
    for slot, kind in (("messaging", "a.b@1.0.0"), ("state", "nonsense")):
        with pytest.raises(InvalidArgument):
            env_packs.add(
                context, env_packs.EnvPackBindingPayload(environment_id=E, slot=slot, kind=kind, pack_ref="x")
            )
    with pytest.raises(InvalidArgument):
        config.show(context, config.ConfigShowFilter(environment_id=E, slot="nope"))


def test_a_deploy_that_fails_leaves_what_there_was(context, author, store, hello, monkeypatch):
    author.create()
    payload = deploy.BundleDeployPayload(bundle_id="b", bundle_path=str(hello))
    with pytest.raises(
        InvalidArgument, match="is not a file"
    ):  # a new deployment would claim its routes and serve nothing
        deploy.deploy(context, msgspec.structs.replace(payload, bundle_path=f"{hello}x"))
    assert (store.load(E).bundles, store.load(E).revisions) == ([], [])
    first = deploy.deploy(context, payload)

    def fails(*_: object) -> object:
        raise Conflict("no traffic today")

    monkeypatch.setattr(traffic, "set_traffic", fails)
    for bundle_id in ("b", "other"):
        with pytest.raises(Conflict, match="no traffic today"):
            deploy.deploy(context, msgspec.structs.replace(payload, bundle_id=bundle_id))
    left = store.load(E)
    assert [d.bundle_id for d in left.bundles] == ["b"]
    assert [r.lifecycle for r in left.revisions] == ["ready", "archived"]
    assert [e.revision_id for e in left.traffic_splits[0].entries] == [first.revision_id]
    kept = {path.name for path in store.paths(E).revisions.iterdir()}
    assert kept == {r.revision_id for r in left.revisions}


def test_a_deploy_that_fails_takes_nothing_away_that_others_put_there_meanwhile(
    context, author, store, hello, monkeypatch
):
    """Of two first deploys of one bundle the one that fails had made the deployment, and the other is about to route to it."""
    author.create()
    payload, staging = deploy.BundleDeployPayload(bundle_id="b", bundle_path=str(hello)), deploy.make_revision
    theirs: list[str] = []

    def fails(_: object, wanted: RevisionStagePayload) -> object:
        theirs.append(author.warm(author.stage(wanted.deployment_id, hello)))
        raise Conflict("not today")

    monkeypatch.setattr(deploy, "make_revision", fails)
    with pytest.raises(Conflict, match="not today"):
        deploy.deploy(context, payload)
    monkeypatch.setattr(deploy, "make_revision", staging)
    left = store.load(E)
    assert [(r.revision_id, r.lifecycle) for r in left.revisions] == [(theirs[0], "ready")]
    author.route(left.bundles[0].deployment_id, (theirs[0], 10_000))


def test_a_manifest_that_fails_half_way_leaves_no_deployment_that_serves_nothing(
    context, author, store, hello, monkeypatch
):
    author.create()

    def fails(*_: object) -> object:
        raise Conflict("no traffic today")

    monkeypatch.setattr(traffic, "set_traffic", fails)
    wanted = manifest(hello, bundles=[{"bundle_id": "b", "bundle_path": str(hello)}])
    with pytest.raises(Conflict, match="no traffic today"):
        env_apply.apply(context, wanted, env_apply.ApplyOptions())
    assert (store.load(E).bundles, store.load(E).revisions) == ([], [])


def test_deploy_refusals(context, author, hello):
    author.create()
    payload = deploy.BundleDeployPayload(bundle_id="b", bundle_path=str(hello))
    selector = bundles.RouteBindingPayload(tenant_selector=bundles.TenantSelectorPayload(tenant="t"))
    for change in ({"bundle_path": None}, {"route_binding": selector}, {"idempotency_key": " "}):
        with pytest.raises(InvalidArgument):
            deploy.deploy(context, msgspec.structs.replace(payload, **change))
    first = deploy.deploy(context, payload)
    second = deploy.deploy(context, msgspec.structs.replace(payload, config_overrides={"hello": {"k": 1}}))
    assert second.superseded_revisions == [first.revision_id]
    assert context.store.load(E).bundles[0].config_overrides == {"hello": {"k": 1}}


def test_of_two_deploys_of_one_new_bundle_both_are_done(context, author, hello, monkeypatch):
    """Who came second was told that the bundle is deployed already, which `deploy` is there to take as it is."""
    author.create()
    payload, add = deploy.BundleDeployPayload(bundle_id="b", bundle_path=str(hello)), bundles.add
    others: list[deploy.Deployed] = []

    def overtaken(*words: object) -> object:
        if not others:
            monkeypatch.setattr(bundles, "add", add)
            others.append(deploy.deploy(context, payload))
        return add(*words)

    monkeypatch.setattr(bundles, "add", overtaken)
    second = deploy.deploy(context, payload)
    assert (second.reused_deployment, second.superseded_revisions) == (True, [others[0].revision_id])
    assert [d.bundle_id for d in context.store.load(E).bundles] == ["b"]

    def refuses(*_: object) -> object:
        raise Conflict("not today")

    monkeypatch.setattr(bundles, "add", refuses)
    with pytest.raises(Conflict, match="not today"):
        deploy.deploy(context, msgspec.structs.replace(payload, bundle_id="other"))


def manifest(hello: Path, **more: object) -> EnvManifest:
    raw = {"schema": "greentic.env-manifest.v1", "environment": {"id": LOCAL_ENV}, "trust_root": "bootstrap"} | more
    return read(EnvManifest, raw, InvalidArgument)


def test_apply_makes_everything_and_then_nothing(context, store, hello, tmp_path):
    (tmp_path / "answers.json").write_text('{"a": 1}')
    wanted = manifest(
        hello,
        environment={"id": LOCAL_ENV, "name": "Named", "region": "eu", "public_base_url": "https://x.example"},
        packs=[
            {"slot": "revocation", "kind": "a.b@1.0.0", "pack_ref": "p", "answers": {"k": 1}},
            {"slot": "state", "kind": "a.c@1.0.0", "pack_ref": "p", "answers_ref": "answers.json"},
        ],
        extensions=[{"kind": "e.x@1.0.0", "pack_ref": "p"}],
        bundles=[
            {
                "bundle_id": "one",
                "bundle_source_uri": f"file://{hello}",
                "status": "paused",
                "revenue_share": [{"party_id": "a", "basis_points": 10000}],
            },
            {
                "bundle_id": "two",
                "route_binding": {"path_prefixes": ["/two"]},
                "revisions": [{"name": n, "bundle_path": str(hello)} for n in ("x", "y", "z")],
            },
        ],
    )
    options = env_apply.ApplyOptions(base=tmp_path)
    plan = env_apply.apply(context, wanted, options._replace(dry_run=True))
    assert not store.exists(LOCAL_ENV) and plan.changed == 8
    with pytest.raises(Conflict, match="not converged"):
        env_apply.apply(context, wanted, options._replace(check=True))
    done = env_apply.apply(context, wanted, options)
    assert done.verify == env_apply.Verified(checked=3, failures=[])
    document = store.load(LOCAL_ENV)
    assert (
        document.name == "Named"
        and document.bundles[0].status == "paused"
        and document.extensions[0].kind == "e.x@1.0.0"
    )
    assert sorted(e.weight_bps for e in document.split(document.bundles[1].deployment_id).entries) == [3333, 3333, 3334]
    again = env_apply.apply(context, wanted, options)
    assert again.changed == 0
    changed = manifest(
        hello, extensions=[{"kind": "e.x@1.1.0", "pack_ref": "p"}], packs=[{"slot": "state", "kind": "a.c@2.0.0", "pack_ref": "p"}],
        bundles=[{"bundle_id": "one", "bundle_path": str(hello), "status": "active", "config_overrides": {"hello": {"k": 1}},
                  "route_binding": {"hosts": ["h"]}, "revenue_share": [{"party_id": "b", "basis_points": 10000}]}],
    )  # fmt: skip
    report = env_apply.apply(context, changed, options)
    assert report.verify.failures == [] and store.load(LOCAL_ENV).bundles[0].revenue_policy_ref.endswith("v2.json.sig")


@pytest.mark.parametrize(
    "more",
    [
        {"bundles": [{"bundle_id": "a"}]}, {"bundles": [{"bundle_id": "a", "bundle_path": "x", "revisions": [{"name": "n", "bundle_path": "x"}]}]},
        {"bundles": [{"bundle_id": "a", "bundle_path": "x"}] * 2}, {"bundles": [{"bundle_id": "a", "bundle_path": "x", "bundle_digest": "00"}]},
        {"bundles": [{"bundle_id": "a", "bundle_path": "x", "route_binding": {"path_prefixes": ["a"]}}]},
        {"bundles": [{"bundle_id": "a", "bundle_path": "x", "route_binding": {"tenant_selector": {"tenant": "t", "team": "t"}}}]},
        {"bundles": [{"bundle_id": "a", "revisions": [{"name": "n", "bundle_path": "x", "weight_bps": 1, "weight_percent": 1}]}]},
        {"bundles": [{"bundle_id": "a", "revisions": [{"name": "n", "bundle_path": "x", "weight_bps": 1}]}]},
        {"bundles": [{"bundle_id": "a", "revisions": [{"name": "n", "bundle_path": "x", "weight_bps": 1}, {"name": "m", "bundle_path": "x"}]}]},
        {"packs": [{"slot": "state", "kind": "a.b@1.0.0", "pack_ref": "p", "answers": {}, "answers_ref": "x"}]}, {"bundles": [{"bundle_id": "a", "bundle_path": "missing"}]},
    ],
)  # fmt: skip
def test_manifests_that_are_refused(context, hello, more):
    with pytest.raises(InvalidArgument):
        env_apply.apply(context, manifest(hello, **more), env_apply.ApplyOptions())


def test_apply_says_what_it_does_not_have(context, hello):
    with pytest.raises(NotYetImplemented, match="secrets"):
        env_apply.apply(context, manifest(hello, secrets=[{"path": "x"}]), env_apply.ApplyOptions())
    with pytest.raises(NotFound):
        env_apply.apply(context, manifest(hello, environment={"id": "prod"}), env_apply.ApplyOptions())
    with pytest.raises(Conflict, match="the manifest says"):
        bundle = {"bundle_id": "a", "bundle_path": str(hello), "bundle_digest": "sha256:" + "0" * 64}
        env_apply.apply(context, manifest(hello, bundles=[bundle]), env_apply.ApplyOptions())


def test_a_plan_asks_no_server_where_the_digest_is_told(context, hello, monkeypatch):
    digest = str(inspect_bundle(hello)["digest"])
    bundle = {"bundle_id": "one", "bundle_source_uri": f"file://{hello}", "bundle_digest": digest}
    fetched: list[str] = []

    def fetch(file, uri, **_):
        fetched.append(uri)
        file.write(hello.read_bytes())

    monkeypatch.setattr(env_apply, "fetch_into", fetch)
    options = env_apply.ApplyOptions()
    told = env_apply.apply(context, manifest(hello, bundles=[bundle]), options._replace(dry_run=True))
    assert told.steps[-1].action == "create" and digest[:15] in told.steps[-1].detail and fetched == []
    done = env_apply.apply(context, manifest(hello, bundles=[bundle]), options)
    assert done.verify.failures == [] and fetched == []
    assert env_apply.apply(context, manifest(hello, bundles=[bundle]), options).changed == 0
    bundle["bundle_digest"] = "sha256:" + "0" * 64
    with pytest.raises(Conflict, match="bundle_digest"):
        env_apply.apply(context, manifest(hello, bundles=[bundle]), options)
    del bundle["bundle_digest"]
    env_apply.apply(context, manifest(hello, bundles=[bundle]), options._replace(dry_run=True))
    assert fetched == [f"file://{hello}"]


def test_a_plan_is_a_function_of_what_it_is_given(context, hello, monkeypatch):
    """Nothing is opened on the way from the documents to the steps."""
    wanted = manifest(hello, bundles=[{"bundle_id": "one", "bundle_path": "not-there.gtbundle", "customer_id": "c"}])
    around = env_plan.Surroundings(
        {("not-there.gtbundle", None): env_plan.Artifact("sha256:ab", None)}, {}, {}, None, False
    )

    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("a plan reads nothing")

    with monkeypatch.context() as patched:
        for name in ("open", "read_bytes", "read_text", "is_file", "exists"):
            patched.setattr(Path, name, refuse)
        first = env_plan.make_plan(wanted, LOCAL_ENV, None, around, Path("/base"))
        again = env_plan.make_plan(wanted, LOCAL_ENV, None, around, Path("/base"))
        lost = env_plan.make_plan(wanted, LOCAL_ENV, None, around._replace(artifacts={}), Path("/base"))
    assert [s.action for s in first.steps] == ["create", "update", "create"] and first.missing == []
    assert again == first
    assert lost.missing == [env_plan.Missing("one", "/base/not-there.gtbundle")]


def test_a_recorded_reply_is_read_back_typed_or_refused(context, author, store):
    author.create()
    payload = bundles.BundleAddPayload(
        environment_id=E, bundle_id="b", idempotency_key="k", route_binding=bundles.RouteBindingPayload()
    )
    first = bundles.add(context, payload)
    again = bundles.add(context, payload)
    assert again == first and isinstance(again, bundles.DeploymentSummary)
    ledger = store.paths(E).ledger
    ledger.write_text(ledger.read_text().replace('"current_revision_count"', '"renamed"'))
    with pytest.raises(GreenticError, match="cannot be read") as refused:
        bundles.add(context, payload)
    assert refused.value.hint and len(store.load(E).bundles) == 1


def test_trust_root_files_and_both_sources(context, author, tmp_path):
    author.create()
    told = trust_root.list_keys(context, E).keys[0]
    (tmp_path / "k.pub").write_text(told.public_key_pem)
    base = {"environment_id": E, "key_id": told.key_id}
    trust_root.add(context, trust_root.TrustRootAddPayload(**base, public_key_file=str(tmp_path / "k.pub")))
    for more in ({"public_key_pem": "x", "public_key_file": "y"}, {"public_key_file": str(tmp_path / "absent")}):
        with pytest.raises(GreenticError):
            trust_root.add(context, trust_root.TrustRootAddPayload(**base, **more))


# -- building -------------------------------------------------------------------------------------------------------


def test_a_bundle_is_the_same_twice_and_inspected(shouting, tmp_path):
    hello = shouting
    built = build_bundle(Path(__file__).parent.parent / "examples" / "hello-bundle", tmp_path / "again.gtbundle")
    assert built.path.read_bytes() == hello.read_bytes() and built.packs == ["packs/hello.gtpack"]
    assert verify_bundle(hello, built.digest)["verified"] is True and inspect_bundle(hello)["strict_faults"] == []
    with pytest.raises(Conflict, match="expected"):
        verify_bundle(hello, "sha256:" + "0" * 64)
    with pytest.raises(InvalidArgument):
        inspect_bundle(tmp_path)


def test_packs_that_are_no_archives_are_counted_and_named(fixtures):
    with pytest.raises(InvalidArgument, match="3 pack\\(s\\).*not a ZIP archive"):
        verify_bundle(fixtures / "provider-packs-bundle.gtbundle", None)


def test_bundles_that_cannot_be_built(tmp_path):
    with pytest.raises(InvalidArgument, match="not a directory"):
        build_bundle(tmp_path / "absent", tmp_path / "o")
    source = tmp_path / "s"
    source.mkdir()
    with pytest.raises(NotFound, match="bundle.yaml"):
        build_bundle(source, tmp_path / "o")
    for text, reason in (
        ("bundle_name: x", "bundle_id"),
        ("bundle_id: a/b", "path part"),
        ("bundle_id: [", "YAML"),
        ("bundle_id: ok", "has no packs"),
    ):
        (source / "bundle.yaml").write_text(text)
        with pytest.raises(InvalidArgument, match=reason):
            build_bundle(source, tmp_path / "o")
    (source / "packs" / "p").mkdir(parents=True)
    (source / "packs" / "p" / "pack.yaml").write_text("pack_id: a/b\nversion: 1.0.0\nkind: application\npublisher: p\n")
    with pytest.raises(InvalidArgument, match="invalid identifier"):
        build_bundle(source, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_what_nobody_reads_of_a_source_is_told_with_what_may_have_been_meant(tmp_path):
    source = tmp_path / "s"
    shutil.copytree(Path(__file__).parent.parent / "examples" / "hello-bundle", source)
    assert build_bundle(source, tmp_path / "o").warnings == []
    for path, more in ((source / "bundle.yaml", "bundel_name: X\n"), (source / "packs" / "hello" / "pack.yaml", "zzz: 1\n")):  # fmt: skip
        path.write_text(path.read_text() + more)
    of_bundle, of_pack = build_bundle(source, tmp_path / "o").warnings
    assert of_bundle.endswith("bundle.yaml: unknown member(s) ignored: bundel_name (did you mean `bundle_name`?)")
    assert of_pack.endswith("hello/pack.yaml: unknown member(s) ignored: zzz")


PACK_SOURCE = "pack_id: p\nversion: 1.0.0\nkind: library\npublisher: p\n"


def test_what_no_environment_would_stage_is_neither_built_nor_verified(tmp_path):
    """Found by what staging asks; `verified: true` of a bundle that every environment refuses would be no help."""
    source, out = tmp_path / "s", tmp_path / "o.gtbundle"
    for name in ("packs/p", "packs/x/p"):
        (source / name).mkdir(parents=True)
        (source / name / "pack.yaml").write_text(PACK_SOURCE)
    (source / "bundle.yaml").write_text("bundle_id: b\n")
    with pytest.raises(InvalidArgument, match="no environment would stage.*same pack id `p`"):
        build_bundle(source, out)
    shutil.rmtree(source / "packs" / "x")
    config = source / "state" / "pack-configs" / "p.json"
    config.parent.mkdir(parents=True)
    member = {"schema": "greentic.pack-config-input.v1", "pack_id": "p", "env_id": "prod", "bundle_id": "b"}
    for text, reason in (("{", "is not JSON"), (json.dumps(member | {"pack_id": "q"}), "is not in the bundle's")):
        config.write_text(text)
        with pytest.raises(InvalidArgument, match=reason):
            build_bundle(source, out)
    assert not out.exists() and not list(tmp_path.glob(".*.tmp"))
    config.write_text(json.dumps(member))  # for another environment than this, which only staging can tell
    assert verify_bundle(build_bundle(source, out).path, None)["verified"] is True
    with out.open("wb") as file:  # as another builder made it
        (tree := tmp_path / "t" / "packs").mkdir(parents=True)
        (tree.parent / "bundle-manifest.json").write_text("{}")
        pack = build_pack(source / "packs" / "p").data
        for name in ("p.gtpack", "x/p.gtpack"):
            (tree / name).parent.mkdir(exist_ok=True)
            (tree / name).write_bytes(pack)
        write_image(tree.parent, file)
    with pytest.raises(InvalidArgument, match="no environment would stage.*same pack id `p`"):
        verify_bundle(out, None)
    assert "same pack id" in str(inspect_bundle(out)["refused"])


def test_two_packs_of_one_manifest_id_are_verified_as_they_would_load(tmp_path):
    source = tmp_path / "s"
    for name in ("packs/p", "packs/q"):
        (source / name).mkdir(parents=True)
        (source / name / "pack.yaml").write_text(PACK_SOURCE)
    (source / "bundle.yaml").write_text("bundle_id: b\n")
    built = build_bundle(source, tmp_path / "o")
    clash = "packs `p` and `q` have the same manifest id `p`"
    assert any(clash in str(warning) for warning in inspect_bundle(built.path)["warnings"])
    with pytest.raises(InvalidArgument, match=clash):
        verify_bundle(built.path, None)


def test_two_sources_of_one_pack_and_a_pack_that_does_not_load_are_told(tmp_path):
    source = tmp_path / "s"
    (source / "packs" / "p").mkdir(parents=True)
    (source / "packs" / "p" / "pack.yaml").write_text(PACK_SOURCE)
    (source / "packs" / "p.gtpack").write_bytes(b"no archive")
    (source / "bundle.yaml").write_text("bundle_id: b\n")
    with pytest.raises(InvalidArgument, match="would be the same pack; keep one"):
        build_bundle(source, tmp_path / "o")
    shutil.rmtree(source / "packs" / "p")
    built = build_bundle(source, tmp_path / "o")
    assert inspect_bundle(built.path)["warnings"] == ["pack `packs/p.gtpack` does not load: not a ZIP archive"]


def test_an_asset_whose_name_is_no_text_is_told(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "pack.yaml").write_text(PACK_SOURCE)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/assets/\xff")).write_text("x")
    with pytest.raises(InvalidArgument, match="of an asset is not UTF-8"):
        build_pack(tmp_path)


def test_packs_with_assets_and_links(tmp_path):
    pack = tmp_path / "p"
    (pack / "assets").mkdir(parents=True)
    (pack / "pack.yaml").write_text("pack_id: a.b\nname: Named\nversion: 1.0.0\nkind: application\npublisher: p\n")
    (pack / "assets" / "x.json").write_text("{}")
    data, built = build_pack(pack)[:2]
    (tmp_path / "x.gtpack").write_bytes(data)
    told = inspect_pack(tmp_path / "x.gtpack")
    assert (
        built.pack_id == "a.b"
        and any("a message cannot be answered" in w for w in told["warnings"])
        and [e["path"] for e in told["entries"]][1] == "assets/x.json"
    )
    (pack / "assets" / "l").symlink_to("x.json")
    with pytest.raises(InvalidArgument, match="is a link"):
        build_pack(pack)
    for more in ("components: [{}]", "dependencies: [{}]", "flows: [{file: ../../etc/passwd}]"):
        (pack / "pack.yaml").write_text(f"pack_id: a.b\nversion: 1.0.0\nkind: application\npublisher: p\n{more}\n")
        with pytest.raises(InvalidArgument):
            build_pack(pack)


def test_an_environment_of_another_id(store, context, hello):
    author = Author(context, "prod").create()
    author.deployed(hello)
    with pytest.raises(InvalidArgument, match="customer_id is required"):
        bundles.customer_of("prod", None)
    assert author.audit()[-1]["authorization"]["policy"] == "local-owner"


def test_links_in_a_circle_are_no_file_and_no_traceback(tmp_path, context, author):
    """Who writes a directory can make one; `Path.resolve` ends in a `RuntimeError` for it."""
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    pack = tmp_path / "pack"
    (pack / "flows").mkdir(parents=True)
    (pack / "flows" / "main.ygtc").symlink_to("main.ygtc")
    (pack / "one.wasm").symlink_to("one.wasm")
    head = "pack_id: a.b\nversion: 1.0.0\nkind: application\npublisher: p\n"
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "loop").symlink_to("loop")
    (seed / "environment.json").write_bytes(b"{}")
    (tmp_path / "env").mkdir()
    assert [str(name) for name, _ in read_seed(seed, tmp_path / "env").files] == ["environment.json"]
    for source in ("flows: [{file: flows/main.ygtc}]", "components: [{id: one, wasm: one.wasm}]"):
        (pack / "pack.yaml").write_text(head + source)
        with pytest.raises(GreenticError):
            build_pack(pack)
    for command in (
        lambda: bundle_command.main(["build", str(circle)]), lambda: pack_command.main(["build", str(circle)]),
        lambda: pack_command.main(["new", str(circle)]), lambda: flow_command.main(["lint", str(circle)]),
        lambda: bundle_command.main(["publish", str(circle), str(circle)]),
    ):  # fmt: skip
        assert command() == 1


@pytest.mark.parametrize("name", ["n" * 300, "d/" * 3000 + "n"])
def test_a_name_that_the_system_refuses_is_a_typed_error_of_every_program(name, capsys):
    for command in (
        lambda: bundle_command.main(["build", name]), lambda: bundle_command.main(["verify", name]),
        lambda: bundle_command.main(["sign", name]), lambda: pack_command.main(["build", name]),
        lambda: pack_command.main(["inspect", name]), lambda: pack_command.main(["new", name]),
        lambda: flow_command.main(["lint", name]), lambda: flow_command.main(["run", name, "main"]),
        lambda: op_command.main(["deploy", "--bundle", name]),
        lambda: op_command.main(["env", "apply", "--answers", name]),
        lambda: op_command.main(["--store-root", name, "env", "create", "prod", "--name", "P"]),
        lambda: op_command.main(["--store-root", name, "env", "list"]),
    ):  # fmt: skip
        assert command() in (0, 1)
        told = capsys.readouterr()
        assert told.out or json.loads(told.err)["error"]["kind"]


@pytest.mark.parametrize(
    ("verbs", "hint"),
    [
        ([], "gtc op revisions warm"),
        (
            ["warm", "drain"],
            "a draining revision does not come back; stage the bundle again with `gtc op revisions stage`",
        ),
        (["warm", "archive"], "an archived revision is final; stage the bundle again with `gtc op revisions stage`"),
    ],
)
def test_a_revision_that_takes_no_traffic_is_told_with_the_way_there(author, hello, verbs, hint):
    author.create()
    deployment, _ = author.deployed(hello)
    revision = author.stage(deployment, hello)
    for verb in verbs:
        getattr(revisions, verb)(author.context, author.transition(revision))
    with pytest.raises(Conflict, match="only `Ready` revisions may receive traffic") as caught:
        author.route(deployment, (revision, 10_000), key="new")
    assert caught.value.hint == hint


def test_weights_that_are_not_the_whole_are_told_with_how_they_are_written(author, hello):
    author.create()
    deployment, revision = author.deployed(hello)
    with pytest.raises(SpecViolation, match="must sum to 10000, got 5000") as caught:
        author.route(deployment, (revision, 5_000), key="half")
    assert "REV=9000bps" in (caught.value.hint or "")


def test_what_ends_an_environment_of_a_cluster_is_told_step_by_step(context, author, hello, monkeypatch, capsys):
    """Destroying named a verb that refused, and that one named a flag alone: each hint can be copied, and leads on."""
    monkeypatch.setenv("HOME", str(context.store.root))
    author.create()
    deployment, revision = author.deployed(hello)
    env_packs.add(context, deployer_answers(author, "{}"))
    with pytest.raises(Conflict, match="still routes traffic") as caught:
        env.destroy(context, env.DestroyPayload(environment_id=E, confirm=True))
    told = caught.value.hint or ""
    assert told == f"gtc op bundles retire {E} {deployment} --store-only"
    with pytest.raises(Conflict, match="cannot tear down") as caught:
        retire.retire(context, retire.BundleRetirePayload(environment_id=E, bundle="demo"))
    assert caught.value.hint == f"gtc op bundles retire {E} demo --store-only, then gtc op env reconcile {E}"
    with pytest.raises(Conflict, match="still referenced by live traffic") as caught:
        revisions.archive(context, author.transition(revision))
    assert f"gtc op bundles retire {E} {deployment}" in (caught.value.hint or "")
    assert op_command.main(["--store-root", str(context.store.root), *told.split()[2:]]) == 0
    env.destroy(context, env.DestroyPayload(environment_id=E, confirm=True))
    assert not context.store.exists(E)
