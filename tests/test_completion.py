"""Completing commands in a shell, and what is said of a mistyped word."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import PROGRAMS, ROOT, gtc, need
from greentic.cli import op_table
from greentic.cli.completion import candidates
from greentic.cli.gtc import COMMANDS, _dispatch
from greentic.cli.gtc import main as gtc_main
from greentic.cli.operator import main as operator_main
from greentic.cli.parser import Help
from greentic.cli.start import main as start_main
from greentic.ground.errors import NotFound
from greentic.ground.nearest import did_you_mean, one_of
from greentic.store.environments import EnvironmentStore
from greentic.terminal.completion_scripts import SCRIPTS

SOURCE = ROOT / "src" / "greentic"
ASKED = """
source /dev/stdin <<< "$(gtc completion bash)"
COMP_WORDS=(gtc "$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_gtc
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def stocked(author, hello) -> Path:
    author.create()
    deployment, _ = author.deployed(hello, bundle_id="hello")
    author.stage(deployment, hello)
    return author.context.store.root


def bash(*words: str) -> list[str]:
    """What bash offers behind some words, the last of which is being typed."""
    environ = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", ASKED, "bash", *words], capture_output=True, text=True, env=environ, check=True, timeout=60
    )
    return done.stdout.split()


@pytest.mark.e2e
def test_bash_completes_commands_nouns_verbs_flags_and_names(stocked):
    assert {"op", "bundle", "completion"} <= set(bash("")) and bash("distr") == ["distributor"]
    assert bash("op", "tra") == ["traffic"] and bash("op", "traffic", "ra") == ["ramp"]
    root = ("op", "--store-root", str(stocked))
    assert bash(*root, "traffic", "set", "lo") == ["local"]
    assert bash(*root, "traffic", "set", "local", "he") == ["hello", "hello@1", "hello@2"]
    assert bash(*root, "traffic", "set", "local", "hello@") == ["hello@1", "hello@2"]
    assert bash(*root, "traffic", "set", "local", "--depl") == ["--deployment"]
    assert bash(*root, "traffic", "set", "local", "--deployment", "hello@2") == ["hello@2"]
    assert bash(*root, "env", "show", "--output", "w") == ["wide"]
    assert bash("op", "--output", "json", f"--store-root={stocked}", "--schema", "env", "show", "lo") == ["local"]


@pytest.mark.parametrize(
    ("words", "typed", "offered", "not_offered"),
    [
        (["bundle"], "", {"build", "revoke", "export"}, {"--help"}), (["bundle", "build"], "--", {"--out", "--output", "--help"}, {"--key"}),
        (["bundle", "sign", "f", "--output"], "", {"json", "table"}, {"name"}), (["bundle", "build", "--out"], "", set(), {"json", "--out"}),
        (["pack"], "", {"new", "build", "sign", "inspect"}, set()), (["pack", "sign"], "--", {"--key", "--chain"}, set()), (["flow", "run"], "--", {"--input"}, {"--strict"}),
        (["cache"], "", {"list", "prune"}, set()), (["cache", "prune"], "--m", {"--max-bytes"}, set()), (["distributor"], "", {"serve"}, set()),
        (["distributor", "serve", "d"], "--", {"--rate", "--port"}, set()), (["console"], "--", {"--at", "--allow-changes", "--proof-key"}, set()),
        (["help"], "", {"op", "bundle"}, set()), (["help", "bundle"], "", {"build"}, set()), (["bundle", "nonsense"], "", set(), {"build"}), (["help", "op", "env"], "", {"show"}, set()),
    ],
)  # fmt: skip
def test_what_comes_behind_a_command(words, typed, offered, not_offered):
    found = set(candidates(words, typed, COMMANDS))
    assert offered <= found and not found & not_offered
    assert offered or not found, "where nothing is known the shell completes files"


def test_environments_are_offered_where_a_command_takes_one(stocked):
    root = ["--store-root", str(stocked)]
    assert candidates(["console", *root], "") == ["local"] and candidates(["console", f"{root[0]}={root[1]}"], "") == ["local"]  # fmt: skip
    assert candidates(["bundle", "export", *root], "") == ["local"] and candidates(["console", *root, "local"], "") == []  # fmt: skip


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["traffic", "ramp", "--pause", "5m"], {"local"}), (["traffic", "set", "local", "--idempotency-key", "k"], {"hello", "hello@1", "hello@2"}),
        (["traffic", "set", "--output", "json", "local"], {"hello", "hello@1", "hello@2"}), (["traffic", "ramp", "local", "--deployment", "hello", "--to"], {"hello", "hello@1", "hello@2"}),
        (["deploy", "--env", "local", "--bundle"], set()), (["revisions", "stage", "local", "--bundle"], set()), (["deploy", "--env"], {"local"}), (["env", "publish", "local"], set()),
        (["revisions", "warm", "--rollout", "local"], {"hello", "hello@1", "hello@2"}), (["env", "render", "local", "--output"], set()), (["env", "status", "--at=http://w", ""], {"local"}),
        (["env", "migrate-dev"], {"local"}), (["env", "repair", "--check"], {"local"}), (["config", "show", "--answers"], set()),
    ],
)  # fmt: skip
def test_the_value_of_a_flag_is_no_word_of_a_verb(stocked, words, offered):
    """An environment stands behind flags as well as before them; where a file is meant the shell completes files."""
    words = [word for word in words if word]
    assert set(candidates(["op", "--store-root", str(stocked), *words], "")) == offered


def test_every_command_with_verbs_is_offered():
    for name in COMMANDS:
        assert candidates([name], "") or candidates([name], "--"), name


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("gtc bundle verfy x", "verify"), ("gtc bundle verify x --ky k", "--key"), ("gtc console prod --alow-changes", "--allow-changes"), ("gtc pack signn", "sign"),
        ("gtc distributor serv .", "serve"), ("gtc flow lnt x", "lint"), ("gtc cache prune --max-byte 1", "--max-bytes"), ("gtc completion bsh", "bash"),
        ("gtc bundle build x --output jsn", "json"), ("gtc op env show prod --output wid", "wide"), ("gtc op --otput json env show prod", "--output"),
        ("greentic-start strt", "start"), ("greentic-start start --envv prod", "--env"), ("greentic-start --log-format jsn", "json"), ("greentic-start --require al", "all"),
        ("gtc op bundles add prod --bundle-id b", "bundle_id=…"), ("gtc op bundles update prod --satus x", "status=…"), ("gtc op env create --lisen-addr x", "--listen-addr"),
        ("gtc bundle inspect x --json", "--output json"), ("gtc cache list --table", "--output table"), ("gtc op env show prod --yaml", "--output yaml"),
        ("gtc op env show prod --shema", "--schema"), ("gtc bundle revoke x --list l --reson r", "--reason"),
        ("greentic-operator --nam x", "--name"), ("greentic-operator --kind Environmnt", "Environment"), ("gtc op traffic ramp prod --max-eror 1", "--max-errors"),
    ],
)  # fmt: skip
def test_whatever_is_mistyped_is_told_with_what_was_meant(words, meant, monkeypatch, capsys):
    program, *rest = words.split()
    monkeypatch.setattr("sys.argv", [program, *rest])
    with pytest.raises(SystemExit) as left:
        {"gtc": gtc_main, "greentic-start": start_main, "greentic-operator": operator_main}[program]()
    assert left.value.code == (1 if program == "greentic-start" else 2)
    assert f"; did you mean `{meant}`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ("gtc bundle verify x --reson r", "gtc bundle verify"), ("gtc bundle sign x --days 3", "gtc bundle sign"), ("gtc cache --max-bytes=1 prune", "gtc cache"),
        ("gtc op env render prod --json", "gtc op env render"), ("gtc op env show prod --dry-run", "gtc op env show"),
        ("gtc op env list --confirm", "gtc op env list"), ("gtc op bundles list prod --adopt", "gtc op bundles list"),
    ],
)  # fmt: skip
def test_a_flag_of_another_verb_is_no_meaning_and_the_verb_that_was_called_says_so(words, verb, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(SystemExit):
        gtc_main()
    told = capsys.readouterr().err
    assert f"{verb}: error: unrecognized arguments: --" in told and told.startswith(f"usage: {verb} ")
    assert "did you mean" not in told


ZSH = """
autoload -Uz compinit; compinit -u -D; eval "$(gtc completion zsh)"
compadd() { shift; print -l -- "$@" }; _files() { print FILES }
words=(gtc "$@"); CURRENT=$#words; "$_comps[gtc]"
"""
ZSH_FROM_FILE = """
gtc completion zsh > "$1/_gtc"; fpath=("$1" $fpath); autoload -Uz compinit; compinit -u -D
compadd() { shift; print -l -- "$@" }
words=(gtc distr); CURRENT=2; "$_comps[gtc]"; print again; "$_comps[gtc]"
"""


def shell(*words: str) -> list[str]:
    environ = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.e2e
def test_zsh_completes(tmp_path):
    zsh = need("zsh", "zsh")
    assert shell(zsh, "-f", "-c", ZSH, "zsh", "bundle", "in") == ["inspect"]
    assert shell(zsh, "-f", "-c", ZSH, "zsh", "bundle", "build", "") == ["FILES"]
    assert shell(zsh, "-f", "-c", ZSH_FROM_FILE, "zsh", str(tmp_path)) == ["distributor", "again", "distributor"]


@pytest.mark.e2e
def test_fish_completes(tmp_path):
    fish = need("fish", "fish")
    (tmp_path / "my.pack").touch()
    script = 'gtc completion fish | source; cd $argv[1]; complete -C "gtc bundle in"; complete -C "gtc bundle build m"'
    assert shell(fish, "--no-config", "-c", script, str(tmp_path)) == ["inspect", "my.pack"]


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_a_script_is_one_that_the_shell_reads(shell):
    script = gtc("completion", shell)
    assert script.returncode == 0 and "gtc complete --" in script.stdout
    program = shutil.which(shell)
    if program is not None:
        assert subprocess.run([program, "-n", "/dev/stdin"], input=script.stdout, text=True, timeout=60).returncode == 0
    assert gtc("completion", "csh").returncode == 2


def test_completing_never_fails(tmp_path, author):
    assert gtc("complete").returncode == 0 and gtc("complete", "--", "nonsense", "").stdout == ""
    broken = tmp_path / "store" / "bad"
    broken.mkdir(parents=True)
    (broken / "environment.json").write_text("{")
    asked = ["op", "--store-root", str(tmp_path / "store"), "revisions", "list"]
    assert "bad" in candidates(asked, "") and candidates([*asked, "bad"], "") == []
    assert candidates(["op", "--store-root", str(tmp_path / "none"), "env", "show"], "") == []
    author.create()
    hostile = gtc("complete", "--", "op", "--store-root", str(author.context.store.root), "env", "show", "$(reboot)")
    assert hostile.stdout == "" and hostile.returncode == 0


def test_every_verb_is_offered():
    for verb in op_table.VERBS:
        if verb.noun != "deploy":
            assert verb.verb in candidates(["op", verb.noun], "")
            assert {f.name for f in verb.flags} <= set(candidates(["op", verb.noun, verb.verb], "--"))


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        (["help"], ["--help"]), (["help", "op"], ["op", "--help"]), (["help", "op", "env", "create"], ["op", "env", "create", "--help"]), (["op", "help"], ["op", "--help"]),
        (["op", "help", "traffic"], ["op", "traffic", "--help"]), (["op", "env", "help"], ["op", "env", "--help"]), (["op", "env", "help", "create"], ["op", "env", "create", "--help"]),
        (["help", "deploy"], []), (["help", "op", "deploy"], ["op", "deploy", "--help"]), (["bundle", "help", "build"], ["bundle", "build", "--help"]),
        (["help", "console"], ["console", "--help"]), (["distributor", "help"], ["distributor", "--help"]), (["help", "help"], ["--help"]), (["help", "completion"], ["completion", "--help"]),
    ],
)  # fmt: skip
def test_help_is_as_dash_dash_help(asked, same, capsys):
    def told(words: list[str]) -> tuple[object, str, str]:
        try:
            code: object = _dispatch(words)
        except SystemExit as exit_:
            code = exit_.code
        return code, *capsys.readouterr()

    found = told(asked)
    if same:
        assert found == told(same) and found[0] == 0 and found[1] and not found[2]
    else:
        assert found[0] == 2 and "unrecognized" in found[2]


def test_help_is_not_painted_where_python_would_paint_it(monkeypatch):
    """Python 3.14 asks each formatter for colours; a text is fitted by its characters, and those of colours are not seen."""
    asked: list[object] = []
    monkeypatch.setattr(argparse.HelpFormatter, "_set_color", lambda self, paint: asked.append(paint), raising=False)
    Help("gtc")._set_color(True)
    assert asked == [False]


def test_a_mistyped_member_of_a_file_is_told_with_the_nearest(tmp_path, capsys, author):
    author.create()
    answers = tmp_path / "answers.json"
    answers.write_text('{"environment_id": "local", "laast": 5, "\\u001b[31m": 1}')
    root = ["op", "--store-root", str(author.context.store.root), "--answers", str(answers)]
    assert _dispatch([*root, "--output", "json", "env", "log"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["result"]["warnings"]
    assert "laast (did you mean `last`?)" in told
    manifest = {"environment": {"id": "local", "nmae": "x"}}
    answers.write_text(json.dumps({"schema": "greentic.env-manifest.v1", **manifest}))
    assert _dispatch([*root, "env", "apply"]) == 1
    assert "did you mean `name`?" in capsys.readouterr().err


def test_a_mistyped_word_is_told_with_the_nearest():
    assert "did you mean `traffic`?" in gtc("op", "trafic", "set").stderr
    assert "did you mean `reconcile`?" in gtc("op", "env", "reconcil").stderr
    assert "did you mean `bundle`?" in gtc("bundel").stderr
    assert "did you mean `--deployment`?" in gtc("op", "traffic", "set", "prod", "--deploymnt", "x").stderr
    told = gtc("op", "bundles", "add", "prod", "bundel_id=x").stderr
    assert "unknown key `bundel_id`" in told and "did you mean `bundle_id`?" in told
    assert did_you_mean("Trafic", ["TRAFFIC"]) == did_you_mean("TRAFIC", ["TRAFFIC"]) == "; did you mean `TRAFFIC`?"
    assert did_you_mean("qqqqq", ["traffic"]) == "" and did_you_mean("", ["traffic"]) == ""


def test_what_was_meant_stands_before_all_that_there_is():
    """Of 34 verbs the one that was meant stood last."""
    told = one_of("Trafic", ["env", "traffic"])
    assert told == "; did you mean `traffic`? Expected one of env, traffic"
    assert one_of("--hlp", ["env"], ["--help"]) == "; did you mean `--help`? Expected one of env"
    assert one_of("qqqqq", (name for name in ("env", "traffic"))) == "; expected one of env, traffic"
    texts = {p.relative_to(SOURCE).as_posix(): p.read_text() for p in SOURCE.rglob("*.py")}
    spelled = {name for name, text in texts.items() if "xpected one of {', '.join(" in text}
    assert spelled == {"ground/nearest.py", "wasm/values.py"}, (
        "what a person typed is told by one_of; components type nothing"
    )


def test_a_mistyped_environment_is_told_with_the_nearest_one(tmp_path):
    store = EnvironmentStore(tmp_path)
    for name in ("prod", "staging", "no env"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "environment.json").write_text("{}")
    with pytest.raises(NotFound, match="environment `prdo`; did you mean `prod`") as caught:
        store.existing("prdo")
    assert "gtc op env list" in (caught.value.hint or "")
    with pytest.raises(NotFound) as caught:
        store.existing("zzz")
    assert "did you mean" not in str(caught.value)
