"""Names instead of ULIDs: what a name means, what is refused, and that every verb takes them at one depth."""

from __future__ import annotations

import json

import pytest

from greentic.cli import op, op_table
from greentic.deployments import revisions, traffic
from greentic.deployments.ulids import DEPLOYMENT, REVISIONS, with_ulids
from greentic.ground.errors import AmbiguousName, GreenticError, InvalidArgument, NotFound
from greentic.model.naming import LEAST, deployment_named, revision_named
from greentic.terminal.next_step import with_names


@pytest.fixture
def env(author, hello):
    """A deployment with two revisions, and another with one."""
    author.create()
    author.deployed(hello, bundle_id="bot")
    author.stage(author.context.store.load("local").bundles[0].deployment_id, hello)
    author.deployed(hello, bundle_id="hell", prefixes=("/h",))
    return author.context.store.load("local")


def test_what_a_name_means(env):
    bot, first, second = env.bundles[0].deployment_id, *(r.revision_id for r in env.revisions[:2])
    unique = next(n for n in range(LEAST, 27) if sum(r.revision_id.endswith(first[-n:]) for r in env.revisions) == 1)
    assert deployment_named(env, "bot") == bot
    assert revision_named(env, "bot@1") == first and revision_named(env, "bot@2") == second
    assert revision_named(env, "@2", deployment_id=bot) == second
    assert revision_named(env, "hell") == env.revisions[2].revision_id, "the only one of its bundle"
    assert revision_named(env, first[-unique:].lower()) == first
    longest = next(n for n in range(26, 0, -1) if sum(r.revision_id.startswith(first[:n]) for r in env.revisions) > 1)
    assert revision_named(env, first[: longest + 1]) == first


def test_a_whole_ulid_is_itself_even_if_nothing_has_it(env, context):
    other = "01JTKW5B4W4Q5Y1CQW93F7S5VG"
    assert revision_named(env, other.lower()) == other.lower() and deployment_named(env, other) == other
    payload = traffic.TrafficShowPayload(environment_id="nowhere", deployment_id=other)
    assert with_ulids(context, payload) is payload, "and no environment is read for it"
    with pytest.raises(NotFound, match="nowhere"):
        with_ulids(context, traffic.TrafficShowPayload(environment_id="nowhere", deployment_id="bot"))


def test_what_could_mean_several_things_lists_them(env):
    with pytest.raises(AmbiguousName) as error:
        revision_named(env, "bot")
    assert error.value.kind == "ambiguous-name"
    assert all(r.revision_id in str(error.value) for r in env.revisions[:2])
    with pytest.raises(AmbiguousName):
        revision_named(env, env.revisions[0].revision_id[:LEAST])


@pytest.mark.parametrize("text", ["", "x", "bto", "bot@3", "bot@", "@1", "bot@²", "bot@-1", "\x1b[31m", "b" * 300])
def test_what_means_nothing_is_refused_with_what_is_near(env, text):
    with pytest.raises(InvalidArgument) as error:
        revision_named(env, text)
    assert "\x1b" not in str(error.value) and len(str(error.value)) < 400
    with pytest.raises(InvalidArgument, match="did you mean `bot`"):
        deployment_named(env, "bto")


def test_what_is_archived_is_meant_only_where_nothing_else_could_be(env, author, context):
    ended = env.revisions[1].revision_id
    revisions.archive(context, author.transition(ended))
    env = context.store.load("local")
    assert revision_named(env, "bot") == env.revisions[0].revision_id
    assert revision_named(env, "bot@2") == ended


def gtc(store, capsys, *words: str) -> dict[str, object]:
    code = op.main(["--store-root", str(store.root), "--output", "json", *words])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)["result"]


def test_names_do_all_the_work_of_ulids(author, store, hello, capsys, tmp_path):
    author.create()
    gtc(store, capsys, "bundles", "add", "local", "bundle_id=bot", 'route_binding.path_prefixes=["/"]')
    for number in ("1", "2"):
        gtc(store, capsys, "revisions", "stage", "local", "--deployment", "bot", "--bundle", str(hello))
        gtc(store, capsys, "revisions", "warm", "local", f"bot@{number}")
    gtc(store, capsys, "traffic", "set", "local", "bot@1=90", "@2=10", "--deployment", "bot", "--idempotency-key", "a")
    env = store.load("local")
    first, second = (r.revision_id for r in env.revisions)
    assert {e.revision_id: e.weight_bps for e in env.traffic_splits[0].entries} == {first: 9000, second: 1000}
    again = gtc(
        store, capsys, "traffic", "set", "local", f"{first}=90", f"{second}=10", "--deployment", env.bundles[0].deployment_id,
        "--idempotency-key", "a",
    )  # fmt: skip
    assert again["generation"] == 0, "a name and its ULID are the same request"
    payload = tmp_path / "clear.json"
    payload.write_text(json.dumps({"environment_id": "local", "deployment_id": "bot", "survivor": "bot@2"}))
    assert gtc(store, capsys, "--answers", str(payload), "traffic", "clear")["survivor"] == second
    to = gtc(store, capsys, "traffic", "rollback", "local", "--deployment", "bot", "--to", "bot@1")
    assert to["entries"] == [{"revision_id": first, "weight_bps": 10_000}]
    gtc(store, capsys, "revisions", "drain", "local", second[-8:])
    assert gtc(store, capsys, "bundles", "retire", "local", env.bundles[0].deployment_id[-10:])["archived"]


def test_a_failing_name_changes_nothing_and_leaves_no_line(env, author, store, capsys):
    before = author.audit()
    assert op.main(["--store-root", str(store.root), "revisions", "drain", "local", "bot"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["kind"] == "ambiguous-name"
    assert author.audit() == before


def test_a_failure_names_what_people_named_and_programs_read_the_ulid_alone(env, store, capsys):
    """Who typed `hello` was told that something was wrong with a ULID."""
    bot = env.bundles[0].deployment_id
    words = ["--store-root", str(store.root), "traffic", "rollback", "local", "--deployment", "bot"]
    assert op.main([*words, "--output", "table"]) == 1
    assert f"traffic split for `bot` ({bot}) has no prior version" in " ".join(capsys.readouterr().err.split())
    assert op.main([*words, "--output", "json"]) == 1
    assert f"traffic split for `{bot}` has no prior version" in json.loads(capsys.readouterr().err)["error"]["message"]
    error = NotFound(f"`{bot}` of `{'0' * 26}`", hint=f"gtc op traffic set --deployment {bot} {bot}")
    told = with_names(error, store.names("local"))
    assert (told.message, told.hint) == (f"`bot` ({bot}) of `{'0' * 26}`", f"gtc op traffic set --deployment bot {bot}")
    assert store.names("nowhere") == {}
    assert op.main(["--store-root", str(store.root), "--output", "table", "env", "show", "nowhere"]) == 1


def test_every_member_that_names_one_is_known():
    """A new payload that names a deployment or revision under another member would take ULIDs alone."""
    import msgspec

    known = {DEPLOYMENT, *REVISIONS, "entries"}
    for row in op_table.VERBS:
        if row.payload:
            form = op._load(row.payload)
            for field in msgspec.structs.fields(form):
                told = str(field.type)
                assert "ULID" not in told or field.encode_name in known | {"bundle"}, (row.noun, row.verb, field.name)


def test_errors_of_names_are_typed():
    assert issubclass(AmbiguousName, GreenticError) and AmbiguousName.kind == "ambiguous-name"
