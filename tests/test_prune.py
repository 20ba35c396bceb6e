"""`env apply --prune`: what a manifest does not name goes, and only what somebody has seen and confirmed."""

from __future__ import annotations

import json

import msgspec
import pytest

from conftest import Author, gtc
from greentic.ground.errors import Conflict
from greentic.release import env_apply
from greentic.release.env_manifest import EnvManifest

OPTIONS = env_apply.ApplyOptions(prune=True)


def manifest(hello, *names: str) -> EnvManifest:
    route = {"path_prefixes": ["/keep"]}
    bundles = [
        {"bundle_id": n, "bundle_path": str(hello), "route_binding": route, "customer_id": "acme"} for n in names
    ]
    return msgspec.convert(
        {"schema": "greentic.env-manifest.v1", "environment": {"id": "local"}, "bundles": bundles}, EnvManifest
    )


@pytest.fixture
def three(author: Author, hello) -> Author:
    author.create()
    for name in ("keep", "one", "two"):
        author.deployed(hello, None, name, (f"/{name}",))
    return author


def names(author: Author) -> list[str]:
    return sorted(d.bundle_id for d in author.context.store.load("local").bundles)


def test_without_a_confirmation_nothing_at_all_is_done(three, hello):
    before = three.context.store.load("local")
    with pytest.raises(Conflict, match=r"2 deployment\(s\) .*nobody has confirmed") as error:
        env_apply.apply(three.context, manifest(hello, "keep", "new"), OPTIONS)
    assert three.context.store.load("local") == before
    shown = env_apply.apply(three.context, manifest(hello, "keep", "new"), OPTIONS._replace(dry_run=True))
    assert [(s.key, s.action) for s in shown.steps if s.action == "delete"] == [
        ("one/acme", "delete"),
        ("two/acme", "delete"),
    ]
    assert "with traffic, 1 revision(s), /one" in next(s.detail for s in shown.steps if s.key == "one/acme")
    assert str(shown.confirm) in (error.value.hint or "")
    assert (
        env_apply.apply(three.context, manifest(hello, "keep"), env_apply.ApplyOptions(dry_run=True)).confirm
        is msgspec.UNSET
    )


def test_what_was_confirmed_goes_and_the_rest_stays(three, hello):
    wanted = manifest(hello, "keep")
    plan = env_apply.apply(three.context, wanted, OPTIONS._replace(dry_run=True))
    with pytest.raises(Conflict, match="is not converged: "):
        env_apply.apply(three.context, wanted, OPTIONS._replace(check=True))
    done = env_apply.apply(three.context, wanted, OPTIONS._replace(confirm=plan.confirm))
    assert names(three) == ["keep"] and done.verify.failures == []
    again = env_apply.apply(three.context, wanted, OPTIONS)
    assert again.confirm is msgspec.UNSET and names(three) == ["keep"]


def test_a_confirmation_is_for_the_plan_that_was_seen(three, hello):
    wanted = manifest(hello, "keep")
    plan = env_apply.apply(three.context, wanted, OPTIONS._replace(dry_run=True))
    three.deployed(hello, None, "three", ("/three",))
    with pytest.raises(Conflict, match="another plan"):
        env_apply.apply(three.context, wanted, OPTIONS._replace(confirm=plan.confirm))
    assert names(three) == ["keep", "one", "three", "two"]


@pytest.mark.e2e
def test_a_person_prunes_in_two_steps(tmp_path, hello):
    store = ("--store-root", str(tmp_path / "store"))
    assert gtc("op", *store, "env", "create", "local", "--name", "local").returncode == 0
    assert gtc("op", *store, "trust-root", "bootstrap", "local").returncode == 0
    assert gtc("op", *store, "deploy", "--bundle", str(hello), "--path-prefix", "/").returncode == 0
    answers = tmp_path / "env.json"
    answers.write_text(
        json.dumps({"schema": "greentic.env-manifest.v1", "environment": {"id": "local"}, "bundles": []})
    )
    words = ("op", *store, "env", "apply", "--answers", str(answers), "--prune")
    refused = json.loads(gtc(*words).stderr)["error"]
    digest = refused["hint"].split()[-1]
    done = gtc(*words, "--confirm", digest)
    assert done.returncode == 0, done.stderr
    listed = json.loads(gtc("op", *store, "bundles", "list", "local").stdout)["result"]
    assert "hello" not in json.dumps(listed)
