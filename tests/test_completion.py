"""Completing commands in a shell, and what is said of a mistyped word."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import PROGRAMS, gtc
from greentic.cli import op_table
from greentic.cli.completion import SCRIPTS, candidates
from greentic.ground.errors import NotFound
from greentic.ground.nearest import did_you_mean
from greentic.store.environments import EnvironmentStore

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


def test_a_mistyped_word_is_told_with_the_nearest():
    assert "did you mean `traffic`?" in gtc("op", "trafic", "set").stderr
    assert "did you mean `reconcile`?" in gtc("op", "env", "reconcil").stderr
    assert "did you mean `bundle`?" in gtc("bundel").stderr
    assert "did you mean `--deployment`?" in gtc("op", "traffic", "set", "prod", "--deploymnt", "x").stderr
    told = gtc("op", "bundles", "add", "prod", "bundel_id=x").stderr
    assert "unknown key `bundel_id`" in told and "did you mean `bundle_id`?" in told
    assert did_you_mean("qqqqq", ["traffic"]) == "" and did_you_mean("", ["traffic"]) == ""


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
