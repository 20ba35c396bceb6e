"""What people write by hand (sources, answers, manifests, keys) is read as it stands there, from files only, and packed without
what other programs leave behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import wat
from conftest import ROOT
from greentic.author.bundle_build import build_bundle
from greentic.author.component_build import component_bytes, offered
from greentic.author.flow_run import lint, run_flow
from greentic.author.inspect import inspect_bundle, inspect_pack, write_checked
from greentic.author.pack_build import build_pack
from greentic.author.pack_new import new_pack
from greentic.author.source_files import is_left_out, read_authored, read_yaml
from greentic.bundle.contents import open_bundle
from greentic.bundle.squashfs_writer import write_image
from greentic.cli.gtc import main
from greentic.cli.op_payload import read_answers
from greentic.deployments import bundles
from greentic.deployments.bundles import RouteBindingPayload
from greentic.deployments.stage import RevisionStagePayload, stage
from greentic.distribute.sources import check_source
from greentic.ground.documents import Json
from greentic.ground.errors import BootError, GreenticError, InvalidArgument
from greentic.ground.yaml import parse_yaml, parse_yaml_1_1, text_in_yaml, yaml_of
from greentic.materialize.unpack import unpack
from greentic.operate.delivery import DeliverySetPayload, set_delivery
from greentic.release.deploy import BundleDeployPayload, deploy
from greentic.release.env_apply import ApplyOptions, apply
from greentic.release.env_manifest import EnvManifest
from greentic.trust.gate import pin
from greentic.worker.settings import StartOptions, read_settings

HELLO = ROOT / "examples" / "hello-bundle"


def bundle_source(tmp_path):
    """A copy of the example, of which a pack is a source directory."""
    directory = tmp_path / "source"
    shutil.copytree(HELLO, directory)
    return directory


def pack_source(tmp_path, **members):
    """A pack that has a flow and nothing else; `members` are laid over its `pack.yaml` as they are written."""
    directory = tmp_path / "pack"
    (directory / "flows").mkdir(parents=True)
    lines = {"pack_id": "bot", "version": "1.0.0", "kind": "application", "publisher": "me"} | members
    lines["flows"] = "[{file: flows/main.ygtc}]"
    (directory / "pack.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    flow = "id: main\ntype: messaging\nnodes:\n  say:\n    emit.response: {text: hi}\n    routing: out\n"
    (directory / "flows" / "main.ygtc").write_text(flow)
    return directory


def program(monkeypatch, words):
    """The exit code of `gtc`."""
    monkeypatch.setattr(sys, "argv", ["gtc", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


# -- the core schema of YAML 1.2 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"), ("1:2:3.5", "1:2:3.5"), ("NO", "NO"), ("no", "no"), ("yes", "yes"), ("On", "On"), ("y", "y"),
        ("1_000", "1_000"), ("2026-01-02", "2026-01-02"), ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"), ("=", "="), ("0b11", "0b11"),
        ("1.0.0", "1.0.0"), ("0x", "0x"), ("0o8", "0o8"), (".", "."), ("+.", "+."), ("1e", "1e"), ("e3", "e3"), ("nUll", "nUll"),
        ("017", 17), ("-08", -8), ("0o17", 15), ("0xFF", 255), ("+3", 3), ("1e3", 1000.0), ("1.5e-3", 0.0015), (".5", 0.5), ("5.", 5.0),
        ("-1E2", -100.0), ("true", True), ("False", False), ("TRUE", True), ("null", None), ("~", None), ("", None), ("'017'", "017"),
    ],
)  # fmt: skip
def test_what_people_write_is_read_by_the_core_schema(text, value):
    read = parse_yaml(f"k: {text}\n".encode())
    assert read == {"k": value} and type(read["k"]) is type(value)


@pytest.mark.parametrize("key", ["1", "017", "on", "null", "true", "1.5", "~", "no"])
def test_a_key_is_the_text_that_stands_there(key):
    assert parse_yaml(f"{key}: x\n".encode()) == {key: "x"}
    with pytest.raises(ValueError, match="stands twice"):
        parse_yaml(f'{key}: x\n"{key}": y\n'.encode())


@pytest.mark.parametrize(
    "text", [".inf", "-.INF", ".nan", "1e999", "!!binary aGk=", "!!timestamp 2026-01-02", "!!set {a, b}", "!!int 0b1", "!!int '1_0'",
             "!!float x", "!!bool yes", "!!int [1]", "!!python/name:os.system ''"],
)  # fmt: skip
def test_what_json_has_no_value_for_is_refused(text):
    with pytest.raises(ValueError):
        parse_yaml(f"k: {text}\n".encode())


def test_what_other_programs_write_is_read_as_they_read_it():
    assert parse_yaml_1_1(b"a: 0o17\nb: 017\nc: NO\n") == {"a": "0o17", "b": 15, "c": False}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])) | st.from_regex(r"[-+.0-9eExo:_nNyYtT~]{1,6}", fullmatch=True),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aeo0179.-+~", max_size=4), inner, max_size=3),
        max_leaves=6,
    )
)  # fmt: skip
def test_what_is_written_is_read_back_by_every_reader(value):
    text = yaml_of({"k": value}).encode()
    assert parse_yaml(text) == {"k": value}
    assert parse_yaml_1_1(text) == {"k": value} or _has_float(value)


def _has_float(value):
    """Whether a float is in a value: one such as 1e+20 has no point, and is a text to YAML 1.1."""
    return isinstance(value, float) or any(
        map(_has_float, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("true")
@example("0o17")
@example("1e3")
@example(" ")
@example("\x7f\x85\u2028")
@example("a: b # c")
def test_a_text_behind_a_key_is_read_back_as_itself(text):
    line = f"k: {text_in_yaml(text)}\n".encode()
    assert parse_yaml(line) == parse_yaml_1_1(line) == {"k": text}


def test_answers_are_read_by_the_core_schema(tmp_path):
    for name in ("a.yaml", "a"):
        (tmp_path / name).write_text("name: NO\nat: 12:30\n1: x\nday: 2026-01-02\n")
        assert read_answers(tmp_path / name) == {"name": "NO", "at": "12:30", "1": "x", "day": "2026-01-02"}


# -- typed sources --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"version": "1.0"}, r"pack\.yaml: `version`: expected a text, found the number 1\.0"),
        ({"pack_id": "017"}, r"`pack_id`: expected a text, found the number 17"),
        ({"pack_id": "true"}, r"`pack_id`: expected a text, found the truth True"),
        ({"pack_id": "null"}, r"`pack_id`: expected a text, found nothing"),
        ({"publisher": "[a]"}, r"`publisher`: expected a text, found a list"),
        ({"components": "[{id: 1}]"}, r"`components\[0\]\.id`: expected a text, found the number 1"),
        ({"components": "x"}, r"`components`: expected a list or nothing, found the text 'x'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_was_found_and_where(tmp_path, members, told):
    with pytest.raises(InvalidArgument, match=told):
        build_pack(pack_source(tmp_path, **members))


def test_a_number_where_a_text_is_expected_is_told_with_the_way_out(tmp_path):
    with pytest.raises(InvalidArgument) as refused:
        build_pack(pack_source(tmp_path, version="1.0"))
    assert refused.value.hint is not None and "in quotes" in refused.value.hint
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "bundle.yaml").write_text("bundle_id: 017\n")
    with pytest.raises(InvalidArgument, match="`bundle_id`: expected a text, found the number 17"):
        build_bundle(tmp_path / "b", tmp_path / "b.gtbundle")


@pytest.mark.parametrize(
    "name", ["true", "null", "1.0", "017", "0o17", "1e3", "NO", "PUBLISHER", "PACK_ID", "bot", "12"]
)
def test_what_new_writes_is_what_build_reads(tmp_path, name):
    new_pack(tmp_path / "p", name, "007: #1")
    read = parse_yaml((tmp_path / "p" / "pack.yaml").read_bytes())
    assert (read["pack_id"], read["publisher"]) == (name, "007: #1")
    shutil.rmtree(tmp_path / "p" / "components")
    text = (tmp_path / "p" / "pack.yaml").read_text()
    (tmp_path / "p" / "pack.yaml").write_text(re.sub(r"components:.*?flows:", "flows:", text, flags=re.S))
    flow = "id: main\ntype: messaging\nnodes:\n  say:\n    emit.response: {text: hi}\n    routing: out\n"
    (tmp_path / "p" / "flows" / "main.ygtc").write_text(flow)
    assert build_pack(tmp_path / "p")[1].pack_id == name


# -- there whole, or not at all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True])
def test_a_pack_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch, there):
    place = tmp_path / "p"
    if there:
        place.mkdir()
    from greentic.author import pack_new

    placed, before = [], set(tmp_path.rglob("*"))

    def failing(source, target):
        placed.append(target)
        if len(placed) == (2 if there else 1):
            raise OSError(28, "No space left on device")
        source.rename(target)

    monkeypatch.setattr(pack_new, "place", failing)
    with pytest.raises(GreenticError, match="No space left"):
        new_pack(place, "bot", "me")
    assert sorted(p.name for p in tmp_path.rglob("*") if p not in before) == []
    monkeypatch.undo()
    assert new_pack(place, "bot", "me")["files"]
    assert set(tmp_path.iterdir()) - before <= {place}
    assert (place / "pack.yaml").is_file() and not [p for p in place.iterdir() if p.name.startswith(".")]


def test_a_pack_that_does_not_load_leaves_the_old_one(tmp_path, monkeypatch):
    out = tmp_path / "dist" / "bot.gtpack"
    out.parent.mkdir()
    out.write_bytes(b"old")
    with pytest.raises(GreenticError):
        write_checked(out, b"no pack")
    assert out.read_bytes() == b"old"
    from greentic.ground import disk

    def dies(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "sync_file", dies)
    with pytest.raises(GreenticError, match="No space left"):
        write_checked(out, build_pack(pack_source(tmp_path))[0])
    assert out.read_bytes() == b"old" and [p.name for p in out.parent.iterdir()] == ["bot.gtpack"]
    monkeypatch.undo()
    with pytest.raises(InvalidArgument, match="is a directory"):
        write_checked(out.parent, build_pack(tmp_path / "pack")[0])


# -- files only -----------------------------------------------------------------------------------------------------


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))


def _directory(path):
    path.mkdir()


SPECIAL = [(_fifo, "fifo"), (_socket, "socket"), (_directory, "directory")]
KEY_FLAGS = ["--key", "x"]
COMMANDS = [
    ["pack", "build", "pack"], ["bundle", "build", "b", "--out", "o"], ["flow", "lint", "x.ygtc"], ["pack", "inspect", "x"],
    ["bundle", "inspect", "x"], ["bundle", "verify", "x"], ["bundle", "sign", "x", "--key", "x"], ["bundle", "publish", "x", "d"],
    ["pack", "sign", "x", *KEY_FLAGS], ["bundle", "revoke", "--list", "x", *KEY_FLAGS, f"sha256:{'0' * 64}"], ["flow", "run", "x", "main"],
    ["flow", "run", "pack", "main", "--input", "@x"], ["op", "env", "create", "--answers", "x.yaml"], ["op", "env", "apply", "--answers", "x"],
    ["op", "trust-root", "add", "e", "public_key_file=x", f"key_id={'0' * 32}"], ["op", "deploy", "--bundle", "x", "--config-overrides-from", "x.yaml"],
]  # fmt: skip


@pytest.mark.parametrize(("make", "word"), SPECIAL)
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: "-".join(words[:3]))
def test_what_is_no_file_is_told_at_once_wherever_a_file_is_expected(tmp_path, monkeypatch, capsys, words, make, word):
    """A program that waits for a fifo never ends: the alarm ends the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pack_source(tmp_path)
    (tmp_path / "b").mkdir()
    assert program(monkeypatch, ["op", "env", "create", "e", "--name", "e", "--store-root", "s"]) == 0
    capsys.readouterr()
    for place in ("x", "x.yaml", "x.ygtc", "b/bundle.yaml"):
        make(tmp_path / place)
    if words[1] == "build":
        (tmp_path / "pack" / "pack.yaml").unlink()
        make(tmp_path / "pack" / "pack.yaml")
    more = ["--store-root", "s"] if words[0] == "op" else []
    signal.alarm(60)
    try:
        assert program(monkeypatch, [*words, *more]) == 1
    finally:
        signal.alarm(0)
    told = json.loads(capsys.readouterr().err)["error"]["message"]
    assert word in told or re.search(
        r"is not a file|no pack file|no directory|has no pack.yaml|not a regular file", told
    ), told


def test_answers_may_come_through_a_pipe(tmp_path):
    """As a shell hands on what a program prints: `--answers <(program)`."""
    reading, writing = os.pipe()
    os.write(writing, b"name: NO\n")
    os.close(writing)
    try:
        assert read_answers(Path(f"/dev/fd/{reading}")) == {"name": "NO"}
    finally:
        os.close(reading)


@pytest.mark.parametrize("make", [_fifo, _socket])
def test_what_is_no_file_among_assets_is_told(tmp_path, monkeypatch, make):
    directory = pack_source(tmp_path)
    (directory / "assets").mkdir()
    monkeypatch.chdir(directory / "assets")
    make(directory / "assets" / "odd")
    with pytest.raises(InvalidArgument, match=r"odd` is a fifo, a socket or a device"):
        build_pack(directory)


# -- nothing from elsewhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["notes.txt", "assets", "pack.yaml", "flows/main.ygtc", "assets/deep"])
def test_a_pack_takes_nothing_from_outside_of_its_directory(tmp_path, place):
    directory = pack_source(tmp_path)
    secret = tmp_path / "outside"
    if place in ("assets", "assets/deep"):
        secret.mkdir()
        (secret / "id_ed25519").write_text("SECRET")
        (directory / "assets").mkdir()
        if place == "assets":
            (directory / place).rmdir()
    else:
        there = directory / place
        secret.write_text(there.read_text() if there.exists() else "SECRET")
        there.unlink(missing_ok=True)
    (directory / place).symlink_to(secret)
    with pytest.raises(InvalidArgument, match=r"leads out of|is a link"):
        build_pack(directory)


@pytest.mark.parametrize("place", ["bundle.yaml", "bundle-manifest.json", "bundle-lock.json", "tenants"])
def test_a_bundle_takes_no_document_from_outside_of_its_directory(tmp_path, place):
    directory = bundle_source(tmp_path)
    outside = tmp_path / "outside"
    if place == "tenants":
        shutil.rmtree(directory / place, ignore_errors=True)
        outside.mkdir()
    else:
        outside.write_text((directory / place).read_text() if (directory / place).exists() else "{}")
        (directory / place).unlink(missing_ok=True)
    (directory / place).symlink_to(outside)
    with pytest.raises(InvalidArgument, match="leads out of"):
        build_bundle(directory, tmp_path / "o.gtbundle")


# -- what others leave behind ---------------------------------------------------------------------------------------

LEFT = [
    ".git/config",
    ".DS_Store",
    "a.txt~",
    ".a.txt.swp",
    "#a.txt#",
    ".#a.txt",
    "._a.txt",
    "Thumbs.db",
    "__pycache__/a.pyc",
    "CVS/Root",
]


def test_what_others_leave_behind_is_left_out_and_told_once(tmp_path):
    directory = bundle_source(tmp_path)
    before = build_bundle(directory, tmp_path / "before.gtbundle")
    for top in ("packs", "tenants"):
        for name in LEFT:
            path = directory / top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    after = build_bundle(directory, tmp_path / "after.gtbundle")
    assert after.digest == before.digest
    told = [w for w in after.warnings if "left out" in w]
    assert len(told) == 1 and "packs/.DS_Store" in told[0] and "/.git/" not in told[0] and "and 15 more" in told[0]
    assert not [w for w in before.warnings if "left out" in w]
    assert not [e for e in inspect_bundle(after.path)["entries"] if any(map(is_left_out, e["path"].split("/")))]


def test_the_same_holds_for_packs(tmp_path):
    directory = pack_source(tmp_path)
    (directory / "assets").mkdir()
    (directory / "assets" / "kept.txt").write_text("x")
    before = build_pack(directory)[0]
    for name in ("bot.gtpack", "bot.gtpack.sig", "b.gtbundle"):
        (directory / name).write_text("x")
    for name in LEFT:
        path = directory / "assets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (directory / "notes.txt~").write_text("x")
    assert build_pack(directory)[0] == before
    assert len([w for w in build_pack(directory).warnings if "left out" in w]) == 1
    out = tmp_path / "o.gtpack"
    write_checked(out, before)
    assert "assets/kept.txt" in zipfile.ZipFile(out).namelist()


def test_a_source_is_looked_at_once(tmp_path, monkeypatch):
    """What is packed and what is told to be left out are one look: beside somebody who writes there, two would be two trees."""
    directory = bundle_source(tmp_path)
    (directory / "tenants" / "deep").mkdir(parents=True, exist_ok=True)
    looked: list[Path] = []
    reading = Path.iterdir

    def seen(path: Path) -> Iterator[Path]:
        looked.append(path)
        return reading(path)

    monkeypatch.setattr(Path, "iterdir", seen)
    build_bundle(directory, tmp_path / "o.gtbundle")
    own = [path for path in looked if path.is_relative_to(directory)]
    assert directory / "tenants" / "deep" in own
    assert sorted(own) == sorted(set(own))


# -- names in another case ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("packs/BOT.GTPACK", "ends in `.GTPACK`"),
        ("providers/messaging/bot.GtPack", "ends in `.GtPack`"),
        ("packs/deep/.gtpack", "has no name"),
        ("providers/bot.gtpack", "lies beside the domains"),
        ("packs/link.gtpack", "is a link"),
    ],
)
def test_what_is_named_like_a_pack_is_one_or_is_refused(tmp_path, place, told):
    directory = bundle_source(tmp_path)
    path = directory / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if "link" in place:
        (tmp_path / "bot.gtpack").write_bytes(build_pack(pack_source(tmp_path)).data)
        path.symlink_to(tmp_path / "bot.gtpack")
    else:
        path.write_bytes(build_pack(pack_source(tmp_path)).data)
    with pytest.raises(InvalidArgument, match=f"{path.name}` {told}") as refused:
        build_bundle(directory, tmp_path / "o.gtbundle")
    assert refused.value.hint


@pytest.mark.parametrize("place", ["resolved/bot.GTPACK", "providers/deployer/bot.GTPACK", "tenants/bot.GTPACK"])
def test_where_nobody_looks_for_packs_a_file_may_have_any_name(tmp_path, place):
    directory = bundle_source(tmp_path)
    (directory / place).parent.mkdir(parents=True, exist_ok=True)
    (directory / place).write_text("x")
    built = build_bundle(directory, tmp_path / "o.gtbundle")
    assert place in [e["path"] for e in inspect_bundle(built.path)["entries"]] and not built.warnings


def test_a_bundle_of_another_builder_is_told_what_in_it_is_no_pack(tmp_path):
    directory = bundle_source(tmp_path)
    built = build_bundle(directory, tmp_path / "o.gtbundle")
    tree = tmp_path / "tree"
    tree.mkdir()
    with built.path.open("rb") as file, pin(file) as bundle:
        unpack(open_bundle(bundle), tree)
    (tree / "packs" / "OTHER.GTPACK").write_text("x")
    with (tmp_path / "2.gtbundle").open("wb") as out:
        write_image(tree, out)
    told = inspect_bundle(tmp_path / "2.gtbundle")["warnings"]
    assert [w for w in told if "OTHER.GTPACK" in w and "counts as no pack" in w]
    assert not [w for w in inspect_bundle(built.path)["warnings"] if "counts as no pack" in w]


def test_what_a_person_names_may_end_in_capitals(tmp_path):
    directory = pack_source(tmp_path)
    before = build_pack(directory)[0]
    (directory / "BOT.GTPACK").write_text("x")
    (directory / "B.GtBundle.SIG").write_text("x")
    assert build_pack(directory)[0] == before
    shutil.copy(directory / "flows" / "main.ygtc", tmp_path / "MAIN.YGTC")
    assert lint([tmp_path / "MAIN.YGTC"])["findings"] == 0
    for name in ("A.YAML", "a.Yml"):
        (tmp_path / name).write_text("name: NO\n")
        assert read_answers(tmp_path / name) == {"name": "NO"}
    (tmp_path / "C.WAT").write_text("(component")
    with pytest.raises(InvalidArgument, match="does not parse"):
        component_bytes(tmp_path, "C.WAT", "c")


# -- what is wrong with a file, in the same words ---------------------------------------------------------------------


def _answered(path: Path) -> EnvManifest:
    raw = {"schema": "greentic.env-manifest.v1", "environment": {"id": "local"}}
    return msgspec.convert(
        raw | {"packs": [{"slot": "deployer", "kind": "a.b@1.0.0", "pack_ref": "builtin", "answers_ref": path.name}]},
        EnvManifest,
    )


@pytest.mark.parametrize("state", ["absent", "fifo"])
def test_every_reader_of_what_people_wrote_says_the_same_of_it(tmp_path, monkeypatch, author, state):
    place = tmp_path / "x.wat"
    if state == "fifo":
        os.mkfifo(place)
    author.create()
    readers = [
        lambda: read_yaml(place),
        lambda: component_bytes(tmp_path, place.name, "c"),
        lambda: apply(author.context, _answered(place), ApplyOptions(base=tmp_path)),
    ]
    told = []
    for read in readers:
        with pytest.raises(GreenticError) as refused:
            read()
        told.append((refused.value.kind, refused.value.message))
    kinds = {kind for kind, _ in told}
    assert len(kinds) == 1, told
    assert all(str(place) in message for _, message in told)
    shared = {"absent": "does not exist", "fifo": "a fifo is there"}[state]
    assert all(shared in message for _, message in told)
    assert [m.partition(str(place))[0].rstrip("`") for _, m in told] == [
        "",
        "component c: ",
        "pack `deployer`: answers file ",
    ]


def test_what_is_too_large_is_told_with_its_name(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_authored(tmp_path / "x", 5) == b"12345"
    with pytest.raises(InvalidArgument, match="the plan `.*/x`: larger than 4 bytes"):
        read_authored(tmp_path / "x", 4, "the plan ")


@pytest.mark.parametrize(
    "name", ["git", "a.git", "notes", "swap.sw", "a.swp", "#a", "thumbs", "CVS.md", "_a", ".well-known", ".env.example"]
)
def test_what_an_author_may_mean_is_kept(name):
    assert not is_left_out(name)


def test_what_is_left_out_is_documented():
    from greentic.author import source_files

    text = (ROOT / "docs" / "tutorial.md").read_text() + (ROOT / "docs" / "components.md").read_text()
    assert not [pattern for pattern in (*source_files._LEFT_OUT, *source_files._BUILT) if f"`{pattern}`" not in text]


# -- words that are no text -----------------------------------------------------------------------------------------

LATIN = "caf\udce9"
"""What Python makes of a name in Latin-1, as old archives bring them."""


@pytest.mark.parametrize(
    "words",
    [
        ["pack", "inspect", LATIN], ["pack", "build", LATIN], ["bundle", "build", LATIN, "--out", "o"], ["flow", "run", "pack", LATIN],
        ["op", "deploy", "--bundle", LATIN], ["op", "config", "set", "e", f"name={LATIN}"], ["op", "bundles", "add", "e", f"bundle_id={LATIN}", "route_binding.hosts=[]"],
        ["op", "env", "show", LATIN], ["op", "env", "apply", "--answers", LATIN], ["op", "env", "publish", "e", LATIN], ["bundle", "revoke", LATIN, "--list", "l"],
    ],
    ids=lambda words: "-".join(words[:2]),
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "table"])
def test_a_word_that_is_no_text_is_told_with_an_error(tmp_path, monkeypatch, capsys, words, form):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pack_source(tmp_path)
    program(monkeypatch, ["op", "env", "create", "e", "--name", "e", "--store-root", "s"])
    capsys.readouterr()
    assert program(monkeypatch, [*words, "--output", form, *(["--store-root", "s"] if words[0] == "op" else [])]) == 1
    told = capsys.readouterr().err
    assert "\\udce9" in told or "operator key" in told
    assert form != "json" or json.loads(told)["error"]["message"]


def test_a_file_whose_name_is_no_text_can_be_built_and_published(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / LATIN).mkdir()
    pack_source(tmp_path).rename(tmp_path / LATIN / "pack")
    assert program(monkeypatch, ["pack", "build", f"{LATIN}/pack", "--out", f"{LATIN}/bot.gtpack"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["path"] == "caf\\udce9/bot.gtpack"
    assert program(monkeypatch, ["bundle", "publish", f"{LATIN}/bot.gtpack", LATIN + "-served"]) == 0
    address = json.loads(capsys.readouterr().out)["result"]["bundle_source_uri"]
    assert "caf%E9-served" in address
    from greentic.distribute.sources import source_for

    assert os.path.exists(source_for(address)[1])


def test_a_directory_of_any_name_in_the_store_is_passed_over(tmp_path, monkeypatch, capsys):
    (tmp_path / "s" / LATIN).mkdir(parents=True)
    assert program(monkeypatch, ["op", "--store-root", str(tmp_path / "s"), "env", "list"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["environments"] == []


def test_a_name_that_no_file_can_have_is_refused_where_it_is_written(tmp_path):
    directory = pack_source(tmp_path)
    text = (directory / "pack.yaml").read_text()
    (directory / "pack.yaml").write_text(text.replace("flows/main.ygtc", '"flows/\\0x"'))
    with pytest.raises(InvalidArgument):
        build_pack(directory)


def test_an_empty_id_is_no_id(tmp_path):
    with pytest.raises(InvalidArgument, match="invalid identifier"):
        new_pack(tmp_path / "p", "", "me")
    assert not (tmp_path / "p").exists()


# -- what is built is no part of itself -----------------------------------------------------------------------------


def test_a_pack_that_is_built_into_its_own_directory_is_the_same_the_next_time(tmp_path, monkeypatch, capsys):
    directory = pack_source(tmp_path)
    monkeypatch.chdir(directory)
    for out in ("bot.gtpack", "dist/x", "bot.gtpack"):
        assert program(monkeypatch, ["pack", "build", ".", "--out", out]) == 0
    assert len({json.loads(line)["result"]["digest"] for line in capsys.readouterr().out.splitlines()}) == 1
    (directory / "assets").mkdir()
    for out in ("assets/x.gtpack", "assets/deep/x", "bot.zip", "schemas/../assets/x"):
        assert program(monkeypatch, ["pack", "build", ".", "--out", out]) == 1
        assert not (directory / out).exists()
    assert "lies in what it is made of" in capsys.readouterr().err


def test_a_bundle_is_not_built_into_what_it_is_made_of(tmp_path):
    directory = bundle_source(tmp_path)
    with pytest.raises(InvalidArgument, match="lies in what it is made of"):
        build_bundle(directory, directory / "packs" / "x.gtbundle")
    first = build_bundle(directory, directory / "x.gtbundle")
    assert build_bundle(directory, directory / "x.gtbundle").digest == first.digest


# -- what cannot be written down ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["18446744073709551616", "-9223372036854775809", "0x1ffffffffffffffff", '"\\ud800"', '{"\\udfff": 1}']
)
def test_what_no_document_can_hold_is_refused_where_it_is_written(tmp_path, text):
    with pytest.raises(ValueError, match="64 bits|invalid Unicode character"):
        parse_yaml(f"k: {text}\n".encode())
    (tmp_path / "a.yaml").write_text(f"name: {text}\n")
    with pytest.raises(GreenticError):
        read_answers(tmp_path / "a.yaml")
    with pytest.raises(InvalidArgument):
        build_pack(pack_source(tmp_path, name=text))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("{host: 5}", "host`: expected a mapping"), ("{wasi: [a]}", "wasi`: expected a mapping"), ("{host: x}", "host`: expected a mapping"),
        ("{host: {http: false}}", "host.http`: expected a mapping"), ("{host: {http: {client: 'false'}}}", "host.http.client`: expected true or false"),
        ("{host: {state: {read: 'yes'}}}", "host.state.read`: expected true or false"), ("{wasi: {filesystem: none}}", "wasi.filesystem`: expected a mapping"),
        ("{wasi: {filesystem: {mode: off}}}", "'off'"), ("{wasi: {env: {allow: HOME}}}", "wasi.env.allow`: expected a list"),
        ("{host: {secrets: {required: [5]}}}", "host.secrets.required[0]`: expected"), ("{host: {secrets: {required: ['']}}}", "host.secrets.required[0]"),
    ],
)  # fmt: skip
def test_capabilities_of_another_form_are_refused_since_some_restrict(tmp_path, asked, told):
    with pytest.raises(InvalidArgument) as error:
        build_pack(pack_source(tmp_path, components=f"[{{id: c, capabilities: {asked}}}]"))
    assert told in error.value.message and "components[0].capabilities" in error.value.message


@pytest.mark.parametrize("secret", ["{name: A}", "{key: ''}", "{key: 5}", "A"])
def test_a_secret_without_a_name_is_refused(tmp_path, secret):
    with pytest.raises(InvalidArgument, match=r"secret_requirements\[0\]"):
        build_pack(pack_source(tmp_path, secret_requirements=f"[{secret}]"))


@pytest.mark.parametrize("name", ["''", "a/b", ".."])
def test_an_id_that_no_bundle_can_have_is_told_with_its_file(tmp_path, name):
    (tmp_path / "bundle.yaml").write_text(f"bundle_id: {name}\n")
    with pytest.raises(InvalidArgument, match="bundle.yaml: `bundle_id`"):
        build_bundle(tmp_path, tmp_path / "b.gtbundle")


def test_a_capability_that_nobody_knows_is_told_and_what_is_written_is_what_is_packed(tmp_path):
    asked = "{wasi: {random: true, clocks: null}, host: {htp: {client: false}, secrets: {required: [A, {key: B}]}}}"
    directory = pack_source(tmp_path, components=f"[{{id: c, wasm: c.wasm, capabilities: {asked}}}]")
    (directory / "c.wasm").write_bytes(wat.node_06())
    built = build_pack(directory)
    assert any("host.htp (did you mean `http`?)" in text for text in built.warnings), built.warnings
    (entry,) = built.manifest.components
    assert entry.raw["capabilities"] == {
        "wasi": {"random": True, "clocks": None},
        "host": {"htp": {"client": False}, "secrets": {"required": ["A", {"key": "B"}]}},
    }


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a"])
def test_the_mark_that_editors_put_before_a_text_is_no_part_of_it(tmp_path, name):
    (tmp_path / name).write_bytes(b'\xef\xbb\xbf{"name": "b"}\r\n')
    assert read_answers(tmp_path / name) == {"name": "b"}


# -- places and streams that are not what they are believed to be ----------------------------------------------------


def test_a_store_that_is_no_directory_is_told_and_not_empty(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for place in ("file", "loop"):
        assert program(monkeypatch, ["op", "--store-root", str(tmp_path / place), "env", "list"]) == 1
        assert "no directory of environments" in capsys.readouterr().err
    assert program(monkeypatch, ["op", "--store-root", str(tmp_path / "none"), "env", "list"]) == 0


def test_a_working_directory_that_was_removed_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for words in (["pack", "build", "."], ["pack", "new", "x"], ["bundle", "build", "."]):
        assert program(monkeypatch, words) == 1
        assert "the working directory" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("form", ["json", "table", "yaml", "name", "wide"])
def test_a_stream_that_takes_few_characters_gets_the_others_written_out(tmp_path, encoding, form):
    from conftest import gtc

    store = ["op", "--store-root", str(tmp_path / "s")]
    gtc(*store, "env", "create", "e", "--name", "faß ☃")
    shown = gtc(
        *store, "env", "list", "--output", form, env=os.environ | {"PYTHONIOENCODING": encoding}, encoding=encoding
    )
    assert shown.returncode == 0 and shown.stderr == ""
    if form == "json":
        assert shown.stdout.isascii() and json.loads(shown.stdout)["result"]["environments"][0]["name"] == "faß ☃"
    elif form in ("table", "wide"):
        assert "\\u2603" in shown.stdout


# -- what is written where it cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("ftp://h/x", "no worker pulls from `ftp://`"), ("htps://h/x", "no worker pulls from"), ("ocis://h/x", "no worker pulls from"),
        ("s3://b/x", "no worker pulls from"), ("http://", "names no host"), ("https:///x.gtbundle", "names no host"), ("http://h:0/x", "no port"),
        ("http://h:secret/x", "host or port makes no sense"), ("oci://h.example/Upper", "lower-case names"), ("oci://", "lower-case names"),
    ],
)  # fmt: skip
def test_a_source_that_no_worker_pulls_from_is_refused_where_it_is_written(author, hello, uri, told):
    with pytest.raises(InvalidArgument, match=told) as refused:
        check_source(uri, "source_uri")
    assert "secret" not in str(refused.value)
    author.create()
    with pytest.raises(InvalidArgument, match=told):
        deploy(author.context, _deployed(hello, uri))
    with pytest.raises(InvalidArgument, match=told):
        apply(author.context, _manifest(hello, uri), ApplyOptions())
    assert not author.context.store.load("local").bundles
    # one revision is recorded as the existing program records it, and what comes of it is told
    staged = stage(author.context, _staged(author.add(), hello, uri))
    assert staged.warnings and told in staged.warnings[0] and "workers refuse this revision" in staged.warnings[0]
    assert author.context.store.load("local").revisions[0].bundle_source_uri == uri


@pytest.mark.parametrize(
    "uri", ["HTTPS://h/x", "oci://h/x:1", "repo://x", "file:///x", "/not/yet/there.gtbundle", "http://[::1]:8090/x"]
)
def test_a_source_that_a_worker_may_have_is_written_as_it_stands(author, hello, uri):
    assert check_source(uri, "source_uri") == uri
    staged = stage(author.create().context, _staged(author.add(), hello, uri))
    assert staged.warnings is msgspec.UNSET
    assert author.context.store.load("local").revisions[0].bundle_source_uri == uri


@pytest.mark.parametrize(
    "uri", ["h.example/x.gtbundle", "none.gtbundle", "file://none.gtbundle", "", " ", "user:pass@h.example/x"]
)
def test_a_source_from_nowhere_is_refused_wherever_it_is_written(author, hello, uri, monkeypatch, tmp_path):
    """Without a scheme it is a path, and one from a directory: a worker has another directory, and would look for it there."""
    monkeypatch.chdir(tmp_path)
    dep = author.create().add()
    for write in (
        lambda: stage(author.context, _staged(dep, hello, uri)),
        lambda: deploy(author.context, _deployed(hello, uri)),
        lambda: apply(author.context, _manifest(hello, uri), ApplyOptions(base=tmp_path)),
        lambda: set_delivery(author.context, DeliverySetPayload(environment_id="local", revocations=uri or "x")),
    ):
        with pytest.raises(InvalidArgument, match=r"is a path from a directory|is empty") as refused:
            write()
        assert refused.value.hint
    assert not author.context.store.load("local").revisions


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_source_from_a_directory_is_written_from_the_root_on(author, hello, scheme, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    shutil.copy(hello, tmp_path / "here" / "b.gtbundle")
    monkeypatch.chdir(tmp_path / "here")
    uri = f"{scheme}b.gtbundle"
    wanted = f"{scheme}{tmp_path}/here/b.gtbundle"
    author.create()
    stage(author.context, _staged(author.add(), hello, uri))
    deploy(author.context, _deployed(hello, uri))
    monkeypatch.chdir(tmp_path)
    manifest, options = _manifest(hello, uri), ApplyOptions(base=tmp_path / "here")
    assert apply(author.context, manifest, options).changed == 1
    assert apply(author.context, manifest, options).changed == 0  # what is recorded is what the file means
    assert {r.bundle_source_uri for r in author.context.store.load("local").revisions} == {wanted}


def _staged(deployment_id: str, bundle: Path, uri: str) -> RevisionStagePayload:
    return RevisionStagePayload(
        environment_id="local", deployment_id=deployment_id, bundle_path=str(bundle), bundle_source_uri=uri
    )


def _deployed(bundle: Path, uri: str) -> BundleDeployPayload:
    return BundleDeployPayload(
        environment_id="local", bundle_id="deployed", bundle_path=str(bundle), bundle_source_uri=uri,
        route_binding=RouteBindingPayload(path_prefixes=["/d"]),
    )  # fmt: skip


def _manifest(bundle: Path, uri: str) -> EnvManifest:
    told = {
        "bundle_id": "applied",
        "bundle_path": str(bundle),
        "bundle_source_uri": uri,
        "route_binding": {"path_prefixes": ["/a"]},
    }
    return msgspec.convert(
        {"schema": "greentic.env-manifest.v1", "environment": {"id": "local"}, "bundles": [told]}, EnvManifest
    )


def test_a_list_of_revocations_that_nobody_could_read_is_refused_where_it_is_written(author):
    author.create()
    with pytest.raises(InvalidArgument, match="no address of a document"):
        set_delivery(author.context, DeliverySetPayload(environment_id="local", revocations="oci://h/x"))


# -- each of a list -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "wrong"),
    [
        ({"hosts": ["h.example", "http://h.example"]}, "http://h.example"), ({"hosts": ["*.h.example", "h.example"]}, "*.h.example"),
        ({"hosts": ["h.example", ""]}, "''"), ({"hosts": ["h.example", "h.example:80"]}, "h.example:80"),
        ({"path_prefixes": ["/a", "/a?b"]}, "/a?b"), ({"path_prefixes": ["/a b", "/a"]}, "/a b"),
    ],
)  # fmt: skip
def test_each_host_and_prefix_of_a_route_is_one_that_a_request_can_have(author, members, wrong):
    author.create()
    binding = RouteBindingPayload(**members)
    dep = author.add("good")
    for write in (
        lambda: bundles.add(author.context, bundles.BundleAddPayload(environment_id="local", bundle_id="b", route_binding=binding)),
        lambda: bundles.update(
            author.context, bundles.BundleUpdatePayload(environment_id="local", deployment_id=dep, route_binding=binding)
        ),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument) as refused:
            write()
        good = next(text for text in next(iter(members.values())) if text != wrong.strip("'"))
        assert wrong in refused.value.message and f"'{good}'" not in refused.value.message


def test_each_key_that_counts_is_a_key_that_is_trusted(author):
    author.create()
    known = next(iter(author.context.store.trust_root("local").public_keys()))
    for keys, mode, told in (
        ([known, "typo"], "warn", "`typo` is no id"),
        ([known, "0" * 32], "require", f"`{'0' * 32}` is not in the trust root"),
    ):
        with pytest.raises(InvalidArgument, match=told):
            set_delivery(author.context, DeliverySetPayload(environment_id="local", keys=keys, signatures=mode))
    assert set_delivery(
        author.context, DeliverySetPayload(environment_id="local", keys=[known.upper()], signatures="require")
    ).keys == [known]


def test_a_directory_of_secrets_that_is_none_is_told_at_the_boot(tmp_path: Path) -> None:
    """Components were told of each secret that it does not exist, and nobody else was told anything."""
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "no", tmp_path / "file"):
        (warning,) = read_settings(StartOptions("local"), {"GREENTIC_SECRETS_DIR": str(path)}).warnings
        assert str(path) in warning and "is no directory" in warning
    assert read_settings(StartOptions("local"), {"GREENTIC_SECRETS_DIR": str(tmp_path)}).warnings == ()
    for path in (tmp_path / "no", tmp_path):
        (warning,) = read_settings(StartOptions("local"), {"GREENTIC_DEV_SECRETS_PATH": str(path)}).warnings
        assert str(path) in warning and "is no file" in warning
    assert read_settings(StartOptions("local"), {"GREENTIC_DEV_SECRETS_PATH": str(tmp_path / "file")}).warnings == ()


def test_a_switch_that_makes_no_sense_is_refused_whether_or_not_it_would_matter():
    with pytest.raises(BootError, match="GREENTIC_DISABLE_DEV_ALIAS=`perhaps` is neither yes nor no"):
        read_settings(StartOptions("prod"), {"GREENTIC_DISABLE_DEV_ALIAS": "perhaps"})


def test_each_name_that_loopback_callers_may_use_is_one_that_a_request_can_have():
    assert read_settings(StartOptions(), {"GREENTIC_ALLOWED_HOSTS": "bot.example, [::1]"}).ingress.allowed_hosts == (
        "bot.example",
        "[::1]",
    )
    with pytest.raises(GreenticError, match="GREENTIC_ALLOWED_HOSTS.*https://bot.example"):
        read_settings(StartOptions(), {"GREENTIC_ALLOWED_HOSTS": "bot.example,https://bot.example"})


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", ".x", "/tmp/x"])
def test_a_bundle_is_published_under_a_name_alone(tmp_path, hello, name):
    from greentic.author.bundle_publish import publish_file

    with pytest.raises(InvalidArgument, match="no name of a file"):
        publish_file(hello, str(tmp_path / "d"), name)
    assert not (tmp_path / "d").exists()


def test_what_is_wrong_with_a_file_is_told_with_its_name(tmp_path):
    out = tmp_path / "a.gtpack"
    write_checked(out, build_pack(pack_source(tmp_path))[0])
    with pytest.raises(GreenticError, match=r"a\.gtpack`: not a SquashFS") as refused:
        inspect_bundle(out)
    assert refused.value.hint is not None and "gtc pack inspect" in refused.value.hint
    from greentic.author.inspect import verify_bundle

    with pytest.raises(InvalidArgument, match="64 hex digits"):
        verify_bundle(out, "sha256:zz")


def test_beside_a_manifest_that_is_handed_on_is_where_the_command_runs(tmp_path, monkeypatch, capsys, hello):
    monkeypatch.chdir(tmp_path)
    shutil.copy(hello, tmp_path / "b.gtbundle")
    text = "schema: greentic.env-manifest.v1\nenvironment: {id: local}\nbundles: [{bundle_id: b, bundle_path: b.gtbundle}]\n"
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    try:
        assert (
            program(
                monkeypatch, ["op", "--store-root", "s", "env", "apply", "--answers", f"/dev/fd/{reading}", "--dry-run"]
            )
            == 0
        )
    finally:
        os.close(reading)
    assert json.loads(capsys.readouterr().out)["result"]["missing"] == []


def test_a_value_that_stands_in_two_places_is_written_out_twice():
    """Readers of what is rendered are people and tools that know no anchors."""
    paths: list[Json] = [{"path": "/"}]
    text = yaml_of({"rules": [{"host": "a", "paths": paths}, {"host": "b", "paths": paths}]})
    assert not re.search(r"[&*]id\d", text)
    assert parse_yaml(text.encode()) == {"rules": [{"host": "a", "paths": paths}, {"host": "b", "paths": paths}]}


# -- what is written and does nothing -------------------------------------------------------------------------------


def test_what_of_a_flow_does_nothing_is_told_by_build_and_lint(tmp_path):
    directory = pack_source(tmp_path)
    flow = directory / "flows" / "main.ygtc"
    head = "id: main\ntype: messaging\n"
    node = "nodes:\n  say:\n    emit.response: {text: hi}\n"
    for more, beside, told in (
        ("", "    retry: {max: 3}\n", "node say: `retry` is reserved, and does nothing"),
        ("", "    timeout: 5\n", "node say: `timeout` is reserved, and does nothing"),
        ("", "    out_map: {a: b}\n", "node say: `out_map` is kept, and no worker here acts on it"),
        (
            "",
            "    in_map: {a: b}\n",
            "node say: what stands under `emit.response` is left out: `in_map` takes its place",
        ),
        ("schema_version: 99\n", "", "schema_version 99 is not known, and read as 2"),
        ("tags: x\n", "", "`tags` is no list, and left out"),
        ("title: {a: b}\n", "", "`title` is no text, and left out"),
        ("description: 5\n", "", "`description` is no text, and left out"),
        ("parameters: {vars_init: [n]}\n", "", "`vars_init` is no mapping, and sets nothing"),
        ("", "    operation: [run]\n", "node say: `operation` is no text, and left out"),
        ("", "    telemetry: on\n", "node say: `telemetry` is no mapping, and left out"),
        ("", "    telemetry: {span: a}\n", "node say: `span` of `telemetry` is not known, and left out"),
        ("", "    telemetry: {span_name: 5}\n", "node say: `span_name` of `telemetry` is no text, and left out"),
        ("", "    telemetry: {attributes: {a: 1}}\n", "node say: `attributes` of `telemetry` is no text, and left out"),
        ("schema_version: 2\ntags: [x]\n", "    output: {}\n    meta: {a: 1}\n", None),
    ):
        flow.write_text(head + more + node + beside)
        wanted = [] if told is None else [told]
        assert [text.partition(": ")[2] for text in build_pack(directory).warnings] == wanted
        for path in (directory, flow):
            row = lint([path])["checked"][0]
            assert [text.partition(": ")[2] for text in row["findings"]] == wanted, path


@pytest.mark.parametrize(("listed", "entry"), [("", False), (", tags: [default]", True), (", tags: []", True)])
def test_a_flow_has_its_own_tags_unless_its_line_of_the_pack_says_others(tmp_path, listed, entry):
    directory = pack_source(tmp_path)
    (directory / "flows/help.ygtc").write_text("id: help\ntype: messaging\ntags: [internal, faq]\nnodes: {}\n")
    source = directory / "pack.yaml"
    source.write_text(source.read_text().replace("main.ygtc}", f"main.ygtc}}, {{file: flows/help.ygtc{listed}}}"))
    built = build_pack(directory)
    (out := tmp_path / "p.gtpack").write_bytes(built.data)
    told = inspect_pack(out)
    assert [flow["entry"] for flow in told["flows"] if flow["id"] == "help"] == [entry]
    assert any("is ambiguous" in text for text in told["warnings"]) == entry, told["warnings"]


def test_the_wait_of_the_page_about_flows_answers_each_guess(tmp_path):
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/flows.md").read_text(), re.DOTALL)
    directory = pack_source(tmp_path)
    says = "".join(
        f"  {name}: {{emit.response: {{text: {name}}}, routing: [{{to: {to}}}]}}\n"
        for name, to in (("high", "wait"), ("low", "wait"), ("won", "out"))
    )
    (directory / "flows/main.ygtc").write_text(f"id: main\ntype: messaging\nstart: wait\nnodes:\n{shown}{says}")
    assert lint([directory])["findings"] == 0
    told = run_flow(
        directory, "main", [json.dumps({"text": text}) for text in ("hi", "50", "9", "42")], lambda step: None
    )
    assert "".join(re.findall(r"high|low|won", json.dumps(told["turns"]))) == "highlowwon"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nodes: {a: {emit.response: {t: {{entry.text}}}}}", "line 3: a mapping or list stands where a key is expected; is a template meant? Then in quotes"),
        ("node: {a: {emit.response: {t: 1}}}", "unknown key(s) node; did you mean `nodes`?"),
        ("nodes: {a: {emit.response: {t: 1}, rooting: out}}", "found emit.response, rooting; did you mean `routing`?"),
        ("nodes: {a: {emit.response: {t: 1}, routing: [{to: }]}}", "a route of 'a' has nothing as `to`; `to: out` ends the flow"),
        ("nodes: {a: {component.exec: {}, vars_out: {b: c}}}", "component.exec, vars_out; what is meant for `component.exec` stands under it"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_flow_says_what_may_have_been_meant(tmp_path, source, told):
    directory = pack_source(tmp_path)
    (directory / "flows" / "main.ygtc").write_text(f"id: main\ntype: messaging\n{source}\n")
    with pytest.raises(InvalidArgument) as error:
        build_pack(directory)
    assert told in error.value.message


@pytest.mark.parametrize(
    "node", ["{emit.response: {t: 1}, operation: '{{entry.op}}'}", "{my comp.run: {}}", "{ä.run: {}}"]
)
def test_a_component_that_no_pack_can_name_is_told_with_its_node(tmp_path, node):
    directory = pack_source(tmp_path)
    (directory / "flows/main.ygtc").write_text(f"id: main\ntype: messaging\nnodes:\n  say: {node}\n")
    with pytest.raises(InvalidArgument, match=r"main.ygtc:4:3: component of node say: invalid identifier"):
        build_pack(directory)


def test_a_card_that_cannot_be_shown_is_told_before_anybody_asks_for_it(tmp_path):
    directory = pack_source(tmp_path)
    shutil.copytree(HELLO / "packs" / "hello" / "components", directory / "components")
    with (directory / "pack.yaml").open("a") as file:
        file.write("components: [{id: example.shout, version: 1.0.0, wasm: components/example.shout.wat}]\n")
    (directory / "assets" / "cards").mkdir(parents=True)
    (directory / "assets" / "i18n").mkdir()
    for name, text in {
        "cards/good.json": '\ufeff{"type": "AdaptiveCard"}', "cards/bad.json": '{"type":', "cards/list.json": "[]", "cards/latin.json": "\xe9",
        "i18n/_manifest.json": '{"locales": ["en", "de", "sv"]}', "i18n/en.json": "{}", "i18n/de.json": '{"a":',
    }.items():  # fmt: skip
        (directory / "assets" / name).write_bytes(text.encode("latin-1" if "latin" in name else "utf-8"))
    card = "{card_source: %s, card_spec: {asset_path: %s}}"
    nodes = [
        ("a", "input: " + card % ("asset", "assets/cards/good.json")),
        ("b", "input: " + card % ("Asset", "/cards/bad.json")),
        ("c", "input: " + card % ("asset", "cards/god.json")),
        ("d", "input: {call: {payload: " + card % ("asset", "cards/list.json") + "}}"),
        ("e", (card % ("asset", "cards/latin.json"))[1:-1]),
        ("f", "input: " + card % ("asset", '"cards/{{entry.text}}.json"')),
        ("g", "input: " + card % ("inline", "cards/none.json")),
    ]
    lines = [
        f"  {name}: {{component.exec: {{component: example.shout, operation: x, {words}}}}}\n" for name, words in nodes
    ]
    (directory / "flows" / "main.ygtc").write_text("id: main\ntype: messaging\nnodes:\n" + "".join(lines))
    told = "\n".join(f for f in lint([directory])["checked"][0]["findings"] if "its card" in f or "translated" in f)
    assert [line.partition(": its")[0].rpartition(" ")[2] for line in told.splitlines()[:4]] == ["b", "c", "d", "e"]
    for said in (
        "its card `assets/cards/bad.json` cannot be shown: ",
        "its card `cards/god.json` is not in the pack; did you mean `assets/cards/good.json`?",
        "its card `assets/cards/list.json` cannot be shown: it is no JSON object",
        "its card `assets/cards/latin.json` cannot be shown: ",
        "cards are not translated into `de`: `assets/i18n/de.json`: ",
        "cards are not translated into `sv`: `assets/i18n/sv.json`: it is not in the pack",
    ):
        assert said in told, told
    assert len(told.splitlines()) == 6, told


def test_a_pack_that_a_bundle_lists_and_does_not_have_is_told(tmp_path):
    directory = bundle_source(tmp_path)
    with (directory / "bundle.yaml").open("a") as file:
        file.write(
            "app_packs: [./packs/hello, packs/hello.gtpack, packs/gone.gtpack]\nextension_providers: [oci://x/y, ./no]\n"
        )
    told = [
        text.partition("bundle.yaml: ")[2][:60] for text in build_bundle(directory, tmp_path / "o.gtbundle").warnings
    ]
    assert told == [
        "`app_packs[2]` names `packs/gone.gtpack`, which is not in th",
        "`extension_providers[1]` names `./no`, which is not in the b",
    ]


# -- mistakes of the first hour -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "told", "hint"),
    [
        ("flows/main.ygtc", "    component.exec:", "   component.exec:", "YAML parse error", "look at line 11, `'routing:'`"),
        ("pack.yaml", "version: 0.1.0\nkind", "\tversion: 0.1.0\nkind", "YAML parse error", "never by tabs"),
        ("flows/main.ygtc", "to: ask", "to: aks", "'aks' referenced in routing from 'greet'; did you mean `ask`?", ""),
        ("flows/main.ygtc", "type: messaging", "type: message", "did you mean `messaging`?", ""),
        ("pack.yaml", "pack_id:", "packid:", "missing field `pack_id`; found `packid`, which is none", ""),
        ("pack.yaml", "  - id: greeter", "  - ID: greeter", "at `components[0]`; found `ID`, which is none", ""),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_was_meant(tmp_path, monkeypatch, file, old, new, told, hint):
    monkeypatch.setattr("greentic.author.pack_components.component_bytes", lambda *_: b"")
    new_pack(tmp_path / "greeter", None, "example")
    path = tmp_path / "greeter" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InvalidArgument) as failed:
        build_pack(tmp_path / "greeter")
    assert told in str(failed.value) and hint in (failed.value.hint or "")


@pytest.mark.parametrize(
    ("source", "offers"),
    [
        ('@operation("greet")\ndef f(p, c): ...\n', {"greet"}),
        ('operation("a")(f)\n@operation("b")\ndef f(p, c): ...\n', {"a", "b"}),
        ("for name in NAMES:\n    operation(name)(f)\n", None),
        ("from somewhere import offer as operation\n@operation()\ndef f(p, c): ...\n", None),
        ("offer(greet)  # an operation of another name\n", None),
        ("operation(\n", None),
    ],
)
def test_which_operations_python_offers_is_read_where_it_says_so(tmp_path, source, offers):
    (tmp_path / "app.py").write_text(source)
    assert offered(tmp_path) == offers


def test_an_operation_that_no_function_has_is_told_before_it_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr("greentic.author.pack_components.component_bytes", lambda *_: b"")
    new_pack(tmp_path / "greeter", None, "example")
    assert not build_pack(tmp_path / "greeter").unheard
    app = tmp_path / "greeter" / "components" / "greeter" / "app.py"
    app.write_text(app.read_text().replace('@operation("greet")', '@operation("great")'))
    (told,) = build_pack(tmp_path / "greeter").unheard
    assert told.endswith("component greeter: no function is offered as `greet`; there are: great")
