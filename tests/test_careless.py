"""What a hurried hand gets wrong, and what the programs say to it: a thing told twice, a mistyped member, a number out of bounds,
a terminal that is too narrow."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import PROGRAMS, ROOT, gtc
from greentic.author.bundle_build import build_bundle
from greentic.author.flow_run import lint, run_flow
from greentic.author.inspect import inspect_bundle, inspect_pack
from greentic.author.pack_build import build_pack
from greentic.cli import bundle as bundle_command
from greentic.cli import op as op_command
from greentic.cli import start as start_command
from greentic.cli.gtc import main
from greentic.cli.op_payload import read_answers
from greentic.cli.op_table import VERBS
from greentic.cli.start import report
from greentic.deployments.bundles import BundleAddPayload, BundleUpdatePayload
from greentic.ground import variables
from greentic.ground.disk import replace_file
from greentic.ground.documents import Json, JsonObject, repeated_key, replace
from greentic.ground.errors import AnswersParse, BootError, GreenticError, InvalidArgument, NotFound, SpecViolation
from greentic.ground.field_types import unknown_told
from greentic.ground.yaml import parse_yaml
from greentic.model import routes
from greentic.operate.payload import read
from greentic.operate.trust_root import TrustRootRemovePayload, remove
from greentic.release.env_manifest import EnvManifest
from greentic.terminal.next_step import copyable, with_next_step
from greentic.terminal.output import show_table
from greentic.worker.boot import boot
from greentic.worker.settings import StartOptions

ULID = "01M8D8C3NE29FC1W968T4MG0AC"
PLACE = "https://bundles.example.com/a-place-with-a-long-name"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"environment_id": "x", "name": "a", "name": "b"}'),
        ("a.yaml", "environment_id: x\nname: a\nname: b\n"),
        ("answers", "environment_id: x\nname: a\nname: b\n"),
        ("deep.yaml", "bundles:\n- name: a\n  name: b\n"),
    ],
)
def test_what_stands_twice_in_answers_is_refused(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(AnswersParse, match="the key `name` stands twice"):
        read_answers(path)


def test_a_merged_key_may_be_told_anew():
    assert parse_yaml(b"base: &b {x: 1}\nown:\n  <<: *b\n  x: 2\n") == {"base": {"x": 1}, "own": {"x": 2}}


@given(st.lists(st.sampled_from("abcdef"), max_size=8))
def test_a_repeated_key_is_found_and_nothing_else(keys):
    text = "{" + ",".join(f'"{key}": 1' for key in keys) + "}"
    found = repeated_key(text)
    assert (found is None) == (len(set(keys)) == len(keys))
    assert found is None or keys.count(found) > 1


def test_a_word_that_is_given_twice_is_refused():
    done = gtc("op", "bundles", "add", "local", "bundle_id=a", "bundle_id=b")
    assert done.returncode == 1
    assert "`bundle_id` is given twice" in json.loads(done.stderr)["error"]["message"]


def test_a_mistyped_member_inside_an_object_is_named():
    binding: Json = {"path_prefix": ["/x"]}
    raw: Json = {"environment_id": "e", "bundle_id": "b", "route_binding": binding, "reveneu": 1}
    assert unknown_told(BundleAddPayload, raw) == [
        "reveneu (did you mean `revenue_share`?)", "route_binding.path_prefix (did you mean `path_prefixes`?)",
    ]  # fmt: skip
    share: Json = {"party_id": "a", "basis_points": 1, "bps": 1}
    listed: Json = {"revenue_share": [share], "route_binding": {"hosts": []}}
    assert unknown_told(BundleAddPayload, listed) == ["revenue_share.bps"]
    free: Json = {"config_overrides": {"pack": {"anything": {"goes": 1}}}}
    assert unknown_told(BundleAddPayload, free) == []


def test_a_key_that_was_not_trusted_is_not_said_to_be_removed(context, author):
    author.create()
    told = remove(context, TrustRootRemovePayload(environment_id="local", key_id="6a8b"))
    assert told.removed_public_key_pem is None
    assert told.warnings == ["no key `6a8b` is trusted here, so nothing was changed"]


@pytest.mark.parametrize(
    "words",
    [
        ["distributor", "serve", ".", "--port", "99999"],
        ["console", "local", "--port", "-1"],
        ["cache", "prune", "--max-bytes", "-1"],
        ["cache", "prune", "--max-bytes", "9" * 5000],
        ["bundle", "revoke", "sha256:" + "0" * 64, "--list", "r.json", "--days", "99999999999"],
    ],
)
def test_a_number_out_of_bounds_is_told_with_its_bounds(words, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gtc", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "is no whole number from" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [0, 1, 40, 80, 200])
def test_no_id_is_broken_and_nothing_is_lost_however_narrow_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    row: JsonObject = {"deployment_id": ULID, "revision_id": ULID[::-1], "what": "three words here", "from": PLACE}
    keys: Json = ["21fe" * 8, "9a0c" * 8]
    nested: JsonObject = {"at": "2026-11-27T15:07:11.748533589Z", "a_member_with_a_long_name": True, "none": {}}
    show_table(
        {"rows": [row, {**row, "what": None}], "trusted_keys": keys, "told": nested, "a_revision_id": ULID.lower()}
    )
    told = capsys.readouterr().out
    for whole in (ULID, ULID[::-1], PLACE):
        assert told.count(whole) == 2
    for whole in (
        "21fe" * 8,
        "9a0c" * 8,
        "told.at",
        "2026-11-27T15:07:11.748533589Z",
        "told.a_member_with_a_long_name",
        ULID.lower(),
    ):
        assert told.count(whole) == 1, "plain fields as well"
    assert "here" in told and ("deployment_id:" in told) == (columns < 200)


@pytest.mark.parametrize(
    ("form", "raw", "words"),
    [
        (BundleUpdatePayload, {"environment_id": "e", "deployment_id": "d", "status": "pausd"}, "active, paused"),
        (EnvManifest, {"schema": "x", "environment": {"id": "e"}}, "greentic.env-manifest.v1"),
        (
            EnvManifest,
            {
                "schema": "greentic.env-manifest.v1",
                "environment": {"id": "e"},
                "bundles": [{"bundle_id": "b", "status": "on"}],
            },
            "active, paused",
        ),
    ],
)
def test_a_wrong_word_is_told_with_the_right_ones(form, raw, words):
    with pytest.raises(InvalidArgument, match=f"Invalid enum value .*[Ee]xpected one of .*{words}"):
        read(form, raw, InvalidArgument)


def test_overlaps_of_many_routes_are_found_without_comparing_each_with_each(author, monkeypatch):
    author.create()
    for number in range(3):
        author.add(f"b{number}", (f"/own{number}", "/shared" if number else "/other"))
    env = author.context.store.load("local")
    first, second = (d.deployment_id for d in env.bundles[1:])
    assert routes.overlaps(env) == [(first, second, "/shared")]
    many = []
    for number in range(50):
        binding = replace(env.bundles[0].route_binding, path_prefixes=[f"/p{number}"])
        many.append(replace(env.bundles[0], deployment_id=f"d{number}", route_binding=binding))
    compared: list[str] = []

    class Counted(tuple):
        def __contains__(self, prefix: object) -> bool:
            compared.append(str(prefix))
            return super().__contains__(prefix)

    own = routes._route
    monkeypatch.setattr(routes, "_route", lambda d: own(d)._replace(prefixes=Counted(own(d).prefixes)))
    assert routes.overlaps(replace(env, bundles=many)) == [] and compared == []


def test_a_device_is_not_replaced_by_what_is_written(tmp_path):
    """`--out /dev/null`, as root, put a file in the place of the device, for everybody on the machine."""
    os.mkfifo(tmp_path / "special")
    (tmp_path / "link").symlink_to("special")
    for name in ("special", "link"):
        with pytest.raises(GreenticError, match="a device, fifo or socket is there"):
            build_bundle(ROOT / "examples" / "hello-bundle", tmp_path / name)
        with pytest.raises(OSError, match="a device, fifo or socket is there"):
            replace_file(tmp_path / name, b"x")
    assert (tmp_path / "special").is_fifo() and (tmp_path / "link").is_symlink() and not list(tmp_path.glob(".*.tmp"))


def test_an_input_that_is_no_text_is_told(tmp_path):
    (tmp_path / "body").write_bytes(b"\xff")
    with pytest.raises(InvalidArgument, match="is no text in UTF-8"):
        run_flow(tmp_path, "main", [f"@{tmp_path}/body"], lambda step: None)


def test_a_directory_is_no_name_for_a_bundle(tmp_path):
    with pytest.raises(InvalidArgument, match="is a directory; expected the name of a file"):
        build_bundle(ROOT / "examples" / "hello-bundle", tmp_path)
    assert not list(tmp_path.glob("*.gtbundle")) and not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("value", [17, 1.5, True])
def test_a_number_where_a_text_is_expected_is_told_with_the_way_out(value):
    with pytest.raises(InvalidArgument) as refused:
        read(BundleAddPayload, {"environment_id": "e", "bundle_id": value, "route_binding": {}}, InvalidArgument)
    assert refused.value.hint is not None and "quotes" in refused.value.hint
    with pytest.raises(InvalidArgument) as refused:
        read(BundleAddPayload, {"environment_id": "e", "bundle_id": [], "route_binding": {}}, InvalidArgument)
    assert refused.value.hint is None


@pytest.mark.parametrize(
    ("written", "header"),
    [("FAẞ.example", "xn--fa-hia.example:8080"), ("ｈ.example", "h.example"), ("h.example", "H.example")],
)
def test_a_route_to_an_international_host_is_met_by_what_clients_send(author, hello, written, header):
    author.create()
    author.add("b", ("/",), [written])
    env = author.context.store.load("local")
    assert routes.Routes(routes.route_table(env)).find(header, "/x") is not None
    assert env.bundles[0].route_binding.hosts == [written], "what was written stays"
    author.add("c", ("/",), [header.partition(":")[0]])
    assert len(routes.overlaps(author.context.store.load("local"))) == 1


# -- what can be copied ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gtc op env create x --name x", "gtc op --store-root 'a b' env create x --name x"),
        ("first gtc op a b, then `gtc op c d`", "first gtc op --store-root 'a b' a b, then `gtc op --store-root 'a b' c d`"),
        ("gtc console prod --at URL", "gtc console --store-root 'a b' prod --at URL"),
        ("greentic-start start --env prod", "greentic-start start --store-root 'a b' --env prod"),
        ("greentic-start --env-from x", "greentic-start --store-root 'a b' --env-from x"),
        ("gtc cache prune", "gtc cache prune --store-root 'a b'"), ("gtc bundle export prod", "gtc bundle export --store-root 'a b' prod"),
        ("gtc bundle build DIR", "gtc bundle build DIR"), ("gtc flow run x", "gtc flow run x"), ("author it with gtc op (…)", "author it with gtc op (…)"),
        ("gtc op --store-root z env list", "gtc op --store-root z env list"),
    ],
)  # fmt: skip
def test_a_command_that_is_named_can_be_copied(text, told):
    assert copyable(text, Path("a b")) == told
    assert copyable(text, None) == text


def test_the_next_step_of_a_cause_is_for_this_store_too():
    error = BootError("booting")
    error.__cause__ = OSError("odd")
    error.__cause__.__cause__ = NotFound("environment `prod`", hint="gtc op env list")
    assert report(with_next_step(error, Path("a b"), for_people=True)).endswith(
        "Next: gtc op --store-root 'a b' env list"
    )


def test_no_error_is_its_own_cause(author, hello):
    """Whoever looks at the causes of a refused split would never come to an end."""
    author.create()
    deployment, revision = author.deployed(hello)
    with pytest.raises(SpecViolation) as refused:
        author.route(deployment, (revision, 5_000), key="half")
    assert refused.value.__cause__ is not refused.value


@pytest.mark.parametrize("there", [False, True])
def test_a_worker_makes_local_in_a_directory_that_is_there(tmp_path, there):
    """One that was told and is not there is a slip: it was made, and nothing served. The usual one is made (decisions 57)."""
    root = tmp_path / "environmets"
    if not there:
        with pytest.raises(BootError, match=f"`--store-root {root}` is no directory") as refused:
            boot(StartOptions(None, root), {"HOME": str(tmp_path)})
        assert refused.value.hint and "gtc op env init" in refused.value.hint
        assert not root.exists()
        return
    root.mkdir()
    boot(StartOptions(None, root), {"HOME": str(tmp_path)})
    assert (root / "local" / "environment.json").is_file()


def test_a_worker_makes_local_in_the_usual_directory_which_need_not_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    boot(StartOptions(), {"HOME": str(tmp_path)})
    assert (tmp_path / ".greentic" / "environments" / "local" / "environment.json").is_file()


@pytest.mark.parametrize("verb", ["list", "verify", "prune"])
def test_a_cache_is_not_judged_by_a_store_that_is_not_there(tmp_path, monkeypatch, capsys, verb):
    """What revisions need would count as needed by none, and go."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gtc", "cache", verb, "--store-root", str(tmp_path / "none"), "--output", "json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().err)["error"]
    assert told["kind"] == "not-found" and "is no directory" in told["message"] and not (tmp_path / "none").exists()


def test_commands_of_errors_and_answers_name_the_store_that_was_told(tmp_path, monkeypatch, capsys):
    store = tmp_path / "a store"
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["gtc", *words])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr()

    there = f"--store-root '{store}'"
    for words in (["env", "show", "prod"], ["env", "destroy", "prod"]):
        for form in ("json", "table"):
            said = run("op", "--store-root", str(store), *words, "--output", form).err
            told = json.loads(said)["error"]["hint"] if form == "json" else said
            assert f"gtc op {there} env " in told, told
    assert (
        there in run("op", "--store-root", str(store), "env", "create", "prod", "--name", "p", "--output", "table").out
    )
    assert "store-root" not in run("op", "env", "show", "prod").err
    hint = run("op", "--store-root", str(store), "env", "destroy", "prod", "--output", "json").err
    words = shlex.split(json.loads(hint)["error"]["hint"])
    assert run(*words[1:]).err == "" and not (store / "prod").exists(), "the copied command acts on the same store"


def test_every_command_that_takes_a_store_is_known_to_take_it():
    """Who adds `--store-root` to a command adds the command to those that are copied with it."""
    found = set()
    for path in sorted((ROOT / "src" / "greentic" / "cli").glob("*.py")):
        if '"--store-root"' in path.read_text():
            found.add(path.stem)
    assert found == {"op", "op_parser", "bundle", "cache", "console", "start", "completion"}


@pytest.mark.parametrize(
    "words",
    [["gtc", "op", "env", "show", "x", "--fr\u202eob"], ["gtc", "bundle", "build", "x", "--fr\u202eob"], ["gtc", "fr\u202eob"], ["gtc", "bundle", "fr\u202eob"],
     ["gtc", "console", "e", "--fr\u202eob"], ["gtc", "distributor", "serve", ".", "--fr\u202eob"], ["gtc", "op", "fr\u202eob"], ["gtc", "op", "env", "fr\u202eob"],
     ["gtc", "complete", "fr\u202eob"], ["greentic-start", "--fr\u202eob"], ["greentic-start", "fr\u202eob"], ["greentic-operator", "--fr\u202eob"]],
    ids=lambda words: "-".join(w for w in words if w.isascii()),
)  # fmt: skip
def test_words_that_were_pasted_steer_no_terminal(words, monkeypatch, capsys):
    from greentic.cli import operator, start

    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        {"gtc": main, "greentic-start": start.main, "greentic-operator": operator.main}[words[0]]()
    told = capsys.readouterr()
    assert "\u202e" not in told.out + told.err and ("\\u202e" in told.err or words[1] == "complete")


KEY_ITSELF = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "words",
    [["gtc", "bundle", "sign", "x", "--key"], ["gtc", "pack", "sign", "x", "--key"], ["gtc", "bundle", "verify", "x", "--trust-anchor"], ["gtc", "op", "env", "create", "x", "--key"],
     ["greentic-start", "--proof-key"], ["greentic-start", "--trust-anchor"], ["greentic-start", "--key"]],
    ids=lambda words: "-".join(w.strip("-") for w in words),
)  # fmt: skip
def test_threat_secret_leak_a_key_in_the_place_of_its_file_is_not_repeated(words, monkeypatch, capsys):
    """`--key "$(cat key.pem)"`: it stood in the error, and where a file was to be made, in its name."""
    from greentic.cli import start

    monkeypatch.setattr(sys, "argv", [*words, KEY_ITSELF])
    with pytest.raises(SystemExit) as ended:
        {"gtc": main, "greentic-start": start.main}[words[0]]()
    told = "".join(capsys.readouterr())
    assert ended.value.code and words[-1] in told and "MC4CA" not in told and "key" in told


def test_threat_secret_leak_a_key_in_a_variable_that_names_a_file_is_not_repeated():
    for name, row in variables.TABLE.items():
        if row.kind == "secret":  # the password of some registries holds one
            assert variables.text(name, {name: KEY_ITSELF}) == KEY_ITSELF.strip()
            continue
        with pytest.raises(InvalidArgument, match=f"{name} holds a key") as refused:
            variables.text(name, {name: KEY_ITSELF})
        assert "MC4CA" not in str(refused.value)


def test_every_parser_of_words_is_the_one_that_makes_them_harmless():
    cli = ROOT / "src" / "greentic" / "cli"
    made = {p.stem for p in cli.glob("*.py") if "argparse.ArgumentParser(" in p.read_text()}
    derived = {p.stem for p in cli.glob("*.py") if "(argparse.ArgumentParser):" in p.read_text()}
    assert (made, derived) == (set(), {"parser"})


OF_IDS = [verb for verb in VERBS if not verb.payload and verb.positionals]


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """What `gtc op` says in a store with one environment, with what stands in a file of answers."""
    monkeypatch.chdir(tmp_path)

    def run(*words, answers=None, form="json"):
        Path("a.json").write_text(json.dumps(answers))
        file = [] if answers is None else ["--answers", "a.json"]
        monkeypatch.setattr(sys, "argv", ["gtc", "op", "--store-root", "s", "--output", form, *words, *file])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr()

    run("env", "create", "prod", "--name", "p")
    return run


@pytest.mark.parametrize("verb", OF_IDS, ids=lambda verb: f"{verb.noun}-{verb.verb}")
def test_ids_are_taken_from_words_keys_and_files_alike(verb, said):
    """A verb that takes an id alone ended in a traceback where a file did not have it, and took `id=x` for a name."""
    words = (verb.noun, verb.verb)
    for answers in ({}, {"environment_id": ["prod"]}, {"environment_id": None}, []):
        told = said(*words, answers=answers)
        assert not told.out and json.loads(told.err)["error"]["kind"] == "answers-parse"
    for taken in (said(*words, answers={"environment_id": "prod"}), said(*words, "environment_id=prod")):
        assert json.loads(taken.out)["op"] == verb.verb and not taken.err


@pytest.mark.parametrize("form", ["table", "wide", "name", "json", "yaml"])
@pytest.mark.parametrize(
    "words",
    [("env", "list"), ("env", "show"), ("env", "log"), ("env", "status"), ("env", "changes"), ("bundles", "list"), ("revisions", "list"),
     ("trust-root", "list"), ("delivery", "show"), ("env", "doctor"), ("config", "show"), ("env", "prune")],
    ids="-".join,
)  # fmt: skip
def test_a_member_that_nobody_takes_is_told_in_every_form(words, form, said):
    """What draws a reply knows its type: with a warning laid into it a picture ended in a traceback, or left the warning out."""
    if words == ("env", "changes"):
        said("env", "update", "prod", "--name", "q")
    given = {"environment_id": "prod"} if words != ("env", "list") else {}
    told = said(*words, answers={**given, "nmae": 1}, form=form)
    text = " ".join((told.out + told.err).split())
    assert "unknown payload key(s) ignored: nmae" in text and "error" not in told.err
    assert "ignored" not in (plain := said(*words, answers=given, form=form)).out + plain.err
    if form == "name":
        assert "ignored" not in told.out, "names alone stand where scripts read"


def test_what_steers_a_verb_hides_no_member_that_nobody_takes(said, monkeypatch):
    from greentic.cli import op

    known = op._load
    asked = "greentic.deployments.traffic:rollback"
    monkeypatch.setattr(op, "_load", lambda place: (lambda *_: {}) if place == asked else known(place))
    ids = {"environment_id": "prod", "deployment_id": ULID}
    assert "ignored: nmae" in said("traffic", "rollback", answers={**ids, "nmae": 1}).out


@pytest.mark.parametrize(
    "words",
    [
        ["traffic", "show", "local"],
        ["bundles", "add", "local"],
        ["env", "create"],
        ["bundles", "add", "local", "bundle_id=b", "route_binding=[1]"],
        ["bundles", "add", "local", "bundle=b"],
        ["revisions", "stage", "a b", "--deployment", "my-bot", "bundle_path="],
        ["traffic", "set", "local", "--deployment", "my-bot", "my-bot@2=10"],
        ["env", "update", "local"],
    ],
)
def test_whoever_writes_what_no_verb_takes_is_shown_how_it_is_written(words, capsys):
    assert op_command.main(words) == 1
    told = next(verb.example for verb in VERBS if [verb.noun, verb.verb] == words[:2])
    if "create" not in words:
        told = told.replace("prod", "'a b'" if "a b" in words else "local", 1)
    if "my-bot" in words:  # and the bundle's file is called what it is
        told = re.sub("bot(?=[@ ])", "my-bot", told)
    assert json.loads(capsys.readouterr().err)["error"]["hint"] == told


def test_whoever_writes_answers_that_no_verb_takes_is_told_where_its_schema_is(tmp_path, capsys):
    (tmp_path / "answers.json").write_text("{}")
    assert op_command.main(["bundles", "add", "--answers", str(tmp_path / "answers.json")]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["hint"] == "what it takes: gtc op bundles add --schema"


PACK = "pack_id: p\nversion: 0.1.0\nkind: application\npublisher: me\nflows: [{file: main.ygtc}]\n"
FLOW = "id: main\ntype: messaging\nnodes: {a: {emit.response: {text: hi}}}\n"


def sources(tmp_path: Path, pack: str = PACK, flow: str = FLOW) -> Path:
    (tmp_path / "pack.yaml").write_text(pack)
    (tmp_path / "main.ygtc").write_text(flow)
    return tmp_path


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (
            "session.wiat: {}",
            "calls component `session.wiat`, which this pack does not have; did you mean `session.wait`?",
        ),
        ("greet: {}", "names no component, and `greet` is no node that is built in"),
        ("component.exec: {operation: x}", "names no component"),
    ],
)
def test_a_node_that_calls_nothing_is_told_with_what_was_meant(tmp_path, node, told):
    with pytest.raises(InvalidArgument, match=re.escape(told)) as caught:
        build_pack(sources(tmp_path, flow=FLOW.replace("emit.response: {text: hi}", node)))
    assert "main.ygtc:3:9: node `a`" in str(caught.value)


@pytest.mark.parametrize(
    ("pack", "flow", "told"),
    [
        (PACK.replace("pack_id: p", "pack_id: a b"), FLOW, "pack.yaml: `pack_id`: invalid identifier: 'a b'"),
        (PACK, FLOW.replace("id: main", "id: a b"), "main.ygtc:1:1: `id`: invalid identifier: 'a b'"),
        (PACK + "components: [{id: ../x}]\n", FLOW, "pack.yaml: component: invalid identifier: '../x'"),
    ],
)
def test_an_id_that_is_none_is_told_with_its_place(tmp_path, pack, flow, told):
    with pytest.raises(InvalidArgument, match=re.escape(told)):
        build_pack(sources(tmp_path, pack, flow))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gtc", "pack", "build", ""], "argument DIR: it is empty"), (["gtc", "bundle", "build", "{b}", "--out", ""], "argument --out: it is empty"),
        (["gtc", "flow", "lint", "{f}", ""], "argument PATH: it is empty"), (["gtc", "pack", "build", "{p}"], "pack.yaml: Expected `str` of length >= 1 - at `flows[0].file`"),
        (["gtc", "op", "env", "render", "local", "--output", ""], "--output (`output`): it is empty"),
        (["gtc", "op", "env", "render", "local", "output="], "--output (`output`): it is empty"),
        (["gtc", "op", "env", "render", "--answers", "{a}"], "--output (`output`): it is empty"),
        (["gtc", "op", "trust-root", "add", "local", "key_id=x", "public_key_file="], "(`public_key_file`): it is empty"),
        (["gtc", "op", "env", "apply", "--answers", "{m}"], "bundle `b`: bundle_path is empty"),
    ],
)  # fmt: skip
def test_a_path_that_is_empty_is_no_path_to_the_directory(tmp_path, monkeypatch, capsys, words, said):
    """Joined to a directory it is the directory, and alone the current one: `--output "$OUT"` wrote manifests and a Secret there."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "pack.yaml").write_text(
        "pack_id: p\nversion: 1.0.0\nkind: application\npublisher: x\nflows: [{file: ''}]\n"
    )
    (tmp_path / "f.ygtc").write_text("id: f\ntype: messaging\nnodes: {}\n")
    (tmp_path / "a.json").write_text('{"environment_id": "local", "output": ""}')
    bundle = "{bundle_id: b, revisions: [{name: a, weight_bps: 10000, bundle_path: ''}]}"
    (tmp_path / "m.yaml").write_text(
        f"schema: greentic.env-manifest.v1\nenvironment: {{id: local}}\nbundles: [{bundle}]\n"
    )
    places = {
        k: str(tmp_path / v) for k, v in (("b", "p"), ("p", "p"), ("f", "f.ygtc"), ("a", "a.json"), ("m", "m.yaml"))
    }
    monkeypatch.setattr(sys, "argv", [word.format(**places) for word in words])
    with contextlib.suppress(SystemExit):
        assert main() != 0
    assert said in capsys.readouterr().err
    assert not list(here.iterdir()) and sorted(p.name for p in (tmp_path / "p").iterdir()) == ["pack.yaml"]


def test_an_id_of_a_flow_that_does_not_count_is_told(tmp_path):
    other = PACK.replace("file: main.ygtc", "file: main.ygtc, id: other")
    assert build_pack(sources(tmp_path, other)).warnings == [
        f"{tmp_path}/pack.yaml: `flows[0].id` is `other`, and the id in `main.ygtc`, which counts, is `main`"
    ]
    assert not build_pack(sources(tmp_path, other.replace("other", "main"))).warnings


@pytest.mark.parametrize(
    ("look", "name", "told"),
    [
        (lambda path: inspect_pack(path), "b.gtbundle", "it is a bundle: gtc bundle inspect "),
        (lambda path: inspect_bundle(path), "p.gtpack", "it is a pack: gtc pack inspect "),
        (lambda path: lint([path]), "b.gtbundle", "it is a bundle: gtc bundle inspect "),
        (lambda path: run_flow(path, "main", ["{}"], lambda step: None), "main.ygtc", "it is a flow, which runs in the directory"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_told_with_its_name_and_what_reads_it(tmp_path, look, name, told):
    path = tmp_path / name
    path.write_text("something else")
    with pytest.raises(InvalidArgument, match=re.escape(f"`{path}`: ")) as caught:
        look(path)
    assert (caught.value.hint or "").startswith(told)


def test_a_file_in_the_place_of_a_directory_is_told(tmp_path):
    with pytest.raises(GreenticError, match=r"pack.yaml` is no directory"):
        build_pack(sources(tmp_path) / "pack.yaml")


def test_what_a_bundle_cannot_hold_is_told_where_its_author_has_it(tmp_path):
    (tmp_path / "packs").mkdir()
    sources(tmp_path / "packs").joinpath("out").symlink_to("/etc")
    (tmp_path / "packs" / "p").mkdir()
    sources(tmp_path / "packs" / "p")
    (tmp_path / "bundle.yaml").write_text("bundle_id: b\n")
    with pytest.raises(InvalidArgument, match=re.escape(f"the link `{tmp_path}/packs/out` leaves the bundle")):
        build_bundle(tmp_path, tmp_path / "b.gtbundle")


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["op", "env", "create", "--help"], ["completion", "bash"]]
)
@pytest.mark.parametrize("buffered", [True, False])
def test_help_that_cannot_be_printed_is_a_failure_of_its_own(words, buffered):
    told = _into_a_full_disk("gtc", words, buffered)
    assert told.returncode == 1
    assert "io error on the standard output" in told.stderr


@pytest.mark.parametrize("program", ["start", "operator"])
@pytest.mark.parametrize("word", ["--help", "--version"])
@pytest.mark.parametrize("buffered", [True, False])
def test_so_it_is_for_the_other_programs(program, word, buffered):
    told = _into_a_full_disk(program, [word], buffered)
    assert told.returncode == 1
    assert "Error: io error on the standard output" in told.stderr
    assert "Exception" not in told.stderr


def _into_a_full_disk(program: str, words: list[str], buffered: bool) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    command = [sys.executable, "-m", f"greentic.cli.{program}", *words]
    with open("/dev/full", "w") as full:
        return subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environ, timeout=60, check=False
        )


def test_a_name_that_is_no_text_is_told_where_it_would_be_recorded(tmp_path, capsys):
    (tmp_path / "bundle.yaml").write_text("bundle_id: b\n")
    pack = tmp_path / "packs" / os.fsdecode(b"caf\xe9")
    pack.mkdir(parents=True)
    sources(pack)
    assert bundle_command.main(["build", str(tmp_path), "--out", str(tmp_path / "b.gtbundle")]) == 1
    told = json.loads(capsys.readouterr().err)["error"]
    assert "caf\\udce9.gtpack` is no text in UTF-8; what is recorded must be" in told["message"]
    assert told["hint"] == "rename the file, or copy it"


def test_a_name_in_a_locale_that_reads_no_utf8_is_told_with_the_way_to_say_so(tmp_path):
    """The name was right, and the next step said to rename a file."""
    words = [str(PROGRAMS / "gtc"), "op", "--store-root", str(tmp_path), "env", "create", "prod", "--name", "Zürich"]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONCOERCE"))}
    odd = subprocess.run(words, env=plain | {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, capture_output=True)
    told = json.loads(odd.stderr)["error"]
    assert "is no text in UTF-8" in told["message"]
    assert told["hint"] == "say that words are UTF-8: LC_ALL=C.UTF-8, or PYTHONUTF8=1"
    for said in ({"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "1"}, {}):
        done = subprocess.run(words, env=plain | said, capture_output=True)
        assert done.returncode == 0 and json.loads(done.stdout)["result"]["name"] == "Zürich"
        shutil.rmtree(tmp_path / "prod")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["delivery", "set", "e", "--threshold", "x"], "`threshold=x`: expected a whole number"),
        (["delivery", "set", "e", "--threshold", "0"], "Expected `int` >= 1"),
        (["env", "prune", "e", "--keep-revisions", "few"], "`keep_revisions=few`: expected a whole number"),
        (["config", "set", "e", "gui_enabled=maybe"], "`gui_enabled=maybe`: expected true or false"),
        (["revisions", "stage", "e", "--deployment", "b", "abort_metrics=errors"], "expected a list, as in"),
        (["bundles", "add", "e", "config_overrides=x"], "expected an object, as in"),
    ],
)
def test_a_value_of_another_kind_is_told_in_words(words, told, capsys):
    assert op_command.main(words) == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert told in error["message"]
    assert (error["kind"], bool(error["hint"])) == ("invalid-argument", True)


def test_an_asset_that_is_listed_and_not_packed_is_told(tmp_path):
    listed = PACK + "assets: [{path: data/faq.json}, ./assets/logo.txt, {path: note.txt}]\n"
    directory = sources(tmp_path, listed)
    for name in ("data/faq.json", "assets/logo.txt", "note.txt"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("x")
    (warning,) = build_pack(directory).warnings
    assert "`assets[0]` names `data/faq.json`, which is not in the pack; put it below assets/" in warning


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("bundle-manifest.json", "{bad", "strict readers would refuse it: bundle-manifest.json: "),
        ("bundle-lock.json", "[]", "strict readers would refuse it: bundle-lock.json: Expected `object`, got `array`"),
        ("bundle.yaml", "bundle_id: b\nschema_version: 9\n", "`schema_version` is 9; this is read as 1"),
    ],
)
def test_a_document_of_a_bundle_that_others_would_refuse_is_told_when_it_is_built(tmp_path, name, text, told):
    (tmp_path / "bundle.yaml").write_text("bundle_id: b\nschema_version: 1\n")
    pack = tmp_path / "packs" / "p"
    pack.mkdir(parents=True)
    sources(pack)
    assert build_bundle(tmp_path, tmp_path / "b.gtbundle").warnings == []
    (tmp_path / name).write_text(text)
    (warning,) = build_bundle(tmp_path, tmp_path / "b.gtbundle").warnings
    assert told in warning


def test_a_file_that_is_no_archive_of_an_environment_is_told_with_what_makes_one(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("something else")
    words = ["greentic-start", "--from", str(tmp_path / "file"), "--store-root", str(tmp_path / "store")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        start_command.main()
    told = capsys.readouterr().err
    assert "no archive of an environment" in told and "gtc bundle export" in told
