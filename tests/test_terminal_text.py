"""What people read at a terminal of any width: help, errors, warnings, the next step."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Author
from greentic.cli import operator, start
from greentic.cli.gtc import COMMANDS, _dispatch
from greentic.cli.op_table import VERBS
from greentic.examine.env_doctor import doctor as examine
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, IoError
from greentic.ground.reply import reply_object
from greentic.terminal.fitted import fitted
from greentic.terminal.health_picture import doctor, history
from greentic.terminal.next_step import copyable, filled
from greentic.terminal.output import print_failure, print_warning, show_table
from greentic.terminal.table_layout import Block, Prose, cell, laid_out

PROGRAMS = ("gtc ", "greentic-start ", "greentic-operator ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def all_help(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The help of every program, noun and verb."""
    verbs = [["op", v.noun] if v.noun == "deploy" else ["op", v.noun, v.verb] for v in VERBS]
    asked = [[], *([name] for name in COMMANDS), *(["op", v.noun] for v in VERBS), *verbs]
    asked += [["bundle", "sign"], ["pack", "new"], ["flow", "run"], ["cache", "prune"], ["distributor", "serve"]]
    told: dict[str, str] = {}
    for words in asked:
        try:
            _dispatch([*words, "--help"])
        except SystemExit as end:
            assert end.code == 0
        told["gtc " + " ".join(words)] = capsys.readouterr().out
    told["greentic-start"] = start._parser().format_help()
    with pytest.raises(SystemExit):
        operator._parse(["--help"])
    return told | {"greentic-operator": capsys.readouterr().out}


def too_wide(text: str, width: int) -> list[str]:
    """Lines that a terminal would break inside a word, commands and single words aside."""
    return [
        line
        for line in text.splitlines()
        if len(line) > width and not line.strip().startswith(PROGRAMS) and " " in line.strip() and "`" not in line
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_help_is_as_wide_as_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for asked, told in all_help(capsys).items():
        found = too_wide(told, width)
        assert not [line for line in found if not re.fullmatch(r"\s*(\S+  +)?(\S*|\[\S+ \S+\])", line)], (asked, found)
        assert " \n" not in told and not re.search(r"\S  +\S", told.splitlines()[0]), asked


def test_help_tells_each_member_that_no_flag_fills_and_no_other(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = all_help(capsys)
    shown = told["gtc op bundles add"]
    assert "bundle_id*" in shown and "route_binding.path_prefixes" in shown and "environment_id*" not in shown
    assert "entries*" in told["gtc op traffic set"] and "deployment_id*" not in told["gtc op traffic set"]
    assert "(* has to be there)" not in told["gtc op env reconcile"]
    assert told["gtc bundle"].count("revoke  ") == 1 and "positional arguments" not in told["gtc bundle"]
    assert "source <(gtc completion bash)" in told["gtc completion"]


def test_the_schema_is_had_by_the_command_that_help_tells(capsys):
    for asked, told in all_help(capsys).items():
        found = re.search(r"^  gtc (op .* --schema)$", told, re.MULTILINE)
        if found:
            assert _dispatch(found[1].split()) == 0, asked
    assert "_schema" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "width", "broken"),
    [
        ("one two three", 8, "one two\nthree"),
        ("  --flag F  says what it is for it", 33, "  --flag F  says what it is for\n            it"),
        ("  --a-long-flag WITH_A_VALUE  what for", 36, "  --a-long-flag WITH_A_VALUE\n      what for"),
        ("  gtc op env create prod --name Production", 20, "  gtc op env create prod --name Production"),
        ("do `gtc op env list` and then see", 19, "do\n`gtc op env list`\nand then see"),
        ("usage: gtc x [--one ONE] [--two TWO]", 26, "usage: gtc x [--one ONE]\n       [--two TWO]"),
        ("01M8G88FDMMRM1DWNZVK943F8F is none", 10, "01M8G88FDMMRM1DWNZVK943F8F\nis none"),
        ("", 10, ""),
    ],
)  # fmt: skip
def test_prose_is_broken_between_words_and_a_command_is_not(text, width, broken):
    assert fitted(text, width) == broken and fitted(text, 100) == text


def test_an_error_is_broken_at_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    error = Conflict("a ramp begins where one other revision has all of it", hint="gtc op traffic set prod bot@1=100")
    for stream, lines in ((Terminal(), 3), (io.StringIO(), 1)):
        monkeypatch.setattr(sys, "stderr", stream)
        print_failure("table", "traffic", "ramp", error)
        told = stream.getvalue().splitlines()
        assert told[-1] == "next: gtc op traffic set prod bot@1=100" and len(told) == lines + 1
        assert " ".join(told[:-1]) == f"error (conflict): {error.message}"
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    print_warning("nobody vouches for the key of this worker")
    assert stream.getvalue() == "warning: nobody vouches for\nthe key of this worker\n"


def test_what_a_kind_does_not_say_is_told(capsys):
    print_failure("table", "env", "show", IoError("env.yaml: No such file or directory"))
    assert capsys.readouterr().err == "error (io): io error on env.yaml: No such file or directory\n"


@pytest.mark.parametrize("width", [40, 200])
def test_each_of_several_sentences_stands_in_a_line_of_its_own(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    first, second = "flow main, node a: no such card", "a message cannot be answered"
    show_table(
        {"path": "/a/very/long/path/that/fits/no/narrow/terminal", "warnings": [first, second], "packs": ["a", "b"]}
    )
    told = [line.strip().removeprefix("warnings").lstrip(": ") for line in capsys.readouterr().out.splitlines()]
    assert f"- {first}" in told and f"- {second}" in told and any("a, b" in line for line in told)


def test_the_next_step_names_what_the_verb_was_about(author: Author, hello: Path, capsys):
    assert (
        filled("gtc op deploy --bundle {path}, {none}", {"path": "a b.gtbundle"})
        == "gtc op deploy --bundle 'a b.gtbundle', {none}"
    )
    deployment = author.create().add()
    root = ["--store-root", str(author.context.store.root), "--output", "table"]
    assert (
        _dispatch(["op", *root, "revisions", "stage", "local", "--deployment", deployment, "--bundle", str(hello)]) == 0
    )
    told = capsys.readouterr().out
    assert f"next: gtc op --store-root {author.context.store.root} revisions warm local demo@1\n" in told


def test_what_installs_a_part_does_so_for_this_python_and_from_the_clone():
    told = copyable("pip install 'greentic[cluster]', and then gtc op env list", None)
    assert told == f"{sys.executable} -m pip install -e '{ROOT}[cluster]', and then gtc op env list"


def lines(blocks: list[Block], width: int | None) -> list[str]:
    return ["".join(c.text for c in line) for line in laid_out(blocks, width)]


def test_a_sentence_is_broken_between_words_and_what_is_quoted_is_not():
    told = Prose((cell("warning:", "yellow"), cell("pin it with `gtc op env verify prod --at URL` or do not")))
    assert lines([told], 24) == ["warning: pin it with", "`gtc op env verify prod --at URL`", "or do not"]
    assert lines([told], None) == ["warning: pin it with `gtc op env verify prod --at URL` or do not"]
    assert lines([Prose((cell("a" * 30), cell("b")))], 10) == ["a" * 30, "b"]
    assert lines([Prose((cell(""), cell("x")))], 10) == ["x"]
    assert lines([Prose((cell("next:"), cell("gtc op env list")), whole=True)], 10) == ["next: gtc op env list"]


def test_the_doctor_tells_what_is_wrong_and_one_line_where_nothing_is(author: Author):
    author.create()
    ask = lambda: lines(doctor(reply_object(examine(author.context, "local"))), 200)
    assert ask()[:2] == ["local loads", "nothing is wrong"]
    path = author.context.store.paths("local").audit
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True)[1:]))
    path.write_text("".join(line for i, line in enumerate(path.read_text().splitlines(keepends=True)) if i != 1))
    told = ask()
    assert any(line.startswith("audit-chain: ") for line in told) and "nothing is wrong" not in told
    assert told[told.index(next(line for line in told if line.startswith("audit-chain"))) + 1].startswith("next: ")
    document = author.context.store.paths("local").root / "environment.json"
    document.write_text(document.read_text().replace('"schema"', '"schma"', 1))
    told = ask()
    assert told[0] == "local does not load" and "missing required field `schema`" in told[2]
    assert "nothing is wrong" not in told


def test_what_was_published_is_a_line_a_generation():
    digest = "sha256:" + "ab" * 32
    row: JsonObject = {
        "generation": 3,
        "manifest": digest,
        "document": digest,
        "created_at": "2026-03-01T09:30:00.123Z",
    }
    result: JsonObject = {"editions": [{**row, "rollback_of": 1}, {**row, "generation": 2, "rollback_of": None}]}
    assert lines(history(result, wide=False), 80)[1:] == [
        "         3  2026-03-01 09:30:00  abababababab  abababababab  1",
        "         2  2026-03-01 09:30:00  abababababab  abababababab  ",
    ]
    assert digest in lines(history(result, wide=True), None)[1]


@pytest.mark.parametrize(("words", "about"), [(["env", "shw"], " env"), (["evn"], ""), (["env", "show"], " env show")])
def test_a_wrong_command_line_names_the_help_that_is_nearest(words, about, capsys):
    assert _dispatch(["op", *words]) == 2
    assert f"try 'gtc op{about} --help'." in capsys.readouterr().err


def test_each_finding_about_a_flow_is_a_line_that_begins_with_its_place(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    flow = "id: main\ntype: messaging\nstart: a\nnodes:\n  a:\n    emit.response: {text: hi}\n    routing:\n      - condtion: x\n        to: out\n"
    path = tmp_path / "main.ygtc"
    path.write_text(flow)
    assert _dispatch(["flow", "lint", str(path), "--strict", "--output", "table"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"{len(told) - 1} finding{'s' if len(told) > 2 else ''} in 1 source" and len(told) > 1
    assert all(re.match(rf"{re.escape(str(path))}:\d+:\d+: ", line) for line in told[:-1])
    path.write_text(flow.replace("condtion: x\n        to: out", "to: out"))
    assert _dispatch(["flow", "lint", str(path), "--output", "table"]) == 0
    assert capsys.readouterr().out == "nothing found in 1 source\n"


def test_a_column_that_is_empty_in_all_rows_is_left_out(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    show_table({"steps": [{"kind": "a", "key": None, "n": 0}, {"kind": "b", "key": "", "n": 0}]})
    told = capsys.readouterr().out
    assert "kind" in told and " n" in told and "key" not in told
    show_table({"steps": [{"key": None}]})
    assert "key" in capsys.readouterr().out


def test_a_table_in_a_file_has_no_blanks_at_the_ends_of_its_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    show_table({"a": "b", "longer": "value", "rows": [{"x": "1", "y": "long"}, {"x": "22", "y": "s"}]})
    told = capsys.readouterr().out
    assert re.search(r"^longer +value$", told, re.M) and re.search(r"^1 +long$", told, re.M)
    assert [line for line in told.splitlines() if line != line.rstrip()] == []


def test_the_example_of_an_environment_in_one_file_is_one(tmp_path, hello: Path, monkeypatch, capsys):
    monkeypatch.setenv("GTC_OPERATOR_KEY_PATH", str(tmp_path / "key.pem"))
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "env.yaml", tmp_path / "examples")
    shutil.copy(hello, tmp_path / "hello.gtbundle")
    words = [
        "op",
        "--store-root",
        str(tmp_path / "s"),
        "env",
        "apply",
        "--answers",
        str(tmp_path / "examples" / "env.yaml"),
    ]
    assert _dispatch([*words, "--dry-run"]) == 0 and _dispatch(words) == 0
    capsys.readouterr()
    assert _dispatch([*words, "--check"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["changed"] == 0


def test_who_cannot_publish_is_told_what_to_look_at(hello: Path, capsys):
    assert _dispatch(["bundle", "publish", str(hello), "oci://127.0.0.1:1/bots/hello:1", "--output", "table"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error (fetch): ") and "next: check the address" in told


def test_a_next_step_is_broken_unless_it_is_a_command():
    for fix, broken in (("compare it with a copy of the log", True), ("gtc op env repair prod --check", False)):
        finding: JsonObject = {"kind": "x", "message": "y", "fix": fix}
        result: JsonObject = {"environment_id": "prod", "validate": {"status": "ok"}, "findings": [finding]}
        assert (f"next: {fix}" not in lines(doctor(result), 20)) is broken
