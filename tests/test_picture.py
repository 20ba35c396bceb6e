"""What a person sees: pictures as pure functions of a document and a width, and the forms that the programs print."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Author
from greentic.deployments import bundles
from greentic.deployments.env_status import EnvStatus, RevisionLine, WorkerLine
from greentic.examine.env_log import ChangeLine, EnvChanges
from greentic.examine.env_verify import EnvVerified, ProofDifference, WorkerProof
from greentic.ground.documents import json_object, replace
from greentic.ground.errors import NotFound
from greentic.ground.yaml import parse_yaml
from greentic.history.compare import differences
from greentic.model.ids import ulid_from_int
from greentic.terminal import env_picture
from greentic.terminal.generations_picture import generations
from greentic.terminal.output import inert, isolated, print_failure, print_success, show_table
from greentic.terminal.status_picture import Before, env_status, env_verified
from greentic.terminal.table_layout import Column, Line, Table, cell, laid_out
from greentic.terminal.words import age, bar

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202eevil\n\r" + "x" * 300


@pytest.fixture
def env(author, hello):
    author.create()
    deployment, first = author.deployed(
        hello, uri="https://bundles.example.com/hello.gtbundle?token=secret", bundle_id="bot"
    )
    second = author.warm(author.stage(deployment, hello))
    author.stage(deployment, hello)
    author.route(deployment, (first, 9000), (second, 1000), key="two")
    return author.context.store.load("local")


def lines(blocks, width: int | None) -> list[str]:
    return ["".join(part.text for part in line) for line in laid_out(blocks, width)]


def test_an_environment_is_a_picture(env, store):
    told = lines(env_picture.environment(env, store.clock.now_ns()), 120)
    text = "\n".join(told)
    first = next(line for line in told if "bot@1" in line)
    assert "█████████░  90%" in first and "ready" in first
    assert env.revisions[0].bundle_digest.removeprefix("sha256:")[:12] in first
    assert env.revisions[0].bundle_digest.removeprefix("sha256:")[:13] not in text
    assert "bundles.example.com/hello.gtbundle" in first and "secret" not in text
    assert "█░░░░░░░░░  10%" in next(line for line in told if "bot@2" in line)
    assert "staged" in next(line for line in told if "bot@3" in line)
    assert env.revisions[0].revision_id not in text
    wide = lines(env_picture.environment(env, store.clock.now_ns(), wide=True), None)
    assert all(any(r.revision_id in line for line in wide) for r in env.revisions)


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_a_narrow_terminal_drops_columns_and_no_characters(env, store, width):
    pictures = (
        env_picture.environment(env, store.clock.now_ns()),
        env_picture.revisions(env, store.clock.now_ns()),
        env_picture.deployments(env, store.clock.now_ns()),
        env_picture.traffic(env, env.bundles[0].deployment_id, store.clock.now_ns()),
    )
    for blocks in pictures:
        told = lines(blocks, width)
        assert width < 40 or max(map(len, told)) <= width
    for blocks in pictures[:2]:
        if width >= 40:
            assert any("bot@1" in line and "90%" in line for line in lines(blocks, width))


def test_one_long_name_takes_no_column_from_the_others_and_keeps_its_end(env, store):
    long = [replace(r, bundle_id="b" * 300) for r in env.revisions]
    told = lines(env_picture.revisions(replace(env, revisions=long), store.clock.now_ns()), 44)
    assert told[0].split() == ["revision", "weight", "state", "age"] or told[0].split() == [
        "revision",
        "weight",
        "state",
    ]
    assert [line.split()[0][-3:] for line in told[1:]] == ["b@1", "b@2", "b@3"], "names that begin alike are told apart"
    assert all("…" in line and len(line) <= 44 for line in told[1:])
    told = lines(env_picture.environment(replace(env, name="n" * 300, bundles=[replace(env.bundles[0], bundle_id="b" * 300)]), 0), 40)  # fmt: skip
    assert told[0].startswith("local nnn") and "active for" in told[3], "what stands behind a long name stays"


def test_what_does_not_fit_into_a_line_is_said_to_be_missing():
    line = Line([cell(f"/{'p' * 10}{n}") for n in range(9)])
    assert lines([line], 36) == [f"/{'p' * 10}0 /{'p' * 10}1 …"] and "…" not in lines([line], None)[0]
    assert lines([Line([cell("a" * 60)])], 40) == ["a" * 39 + "…"]


def test_accents_do_not_pile_up_and_those_of_languages_stay():
    assert inert("e" + "\u0300" * 6) == "e" + "\u0300" * 4 + "\\u0300" * 2
    for text in ("e\u0301", "ท\u0e37\u0e48", "日本語", "שָׁ", "a\u0300b\u0300" * 9):
        assert inert(text) == text


def test_what_workers_proved_is_a_picture(env, store):
    worker = WorkerProof(at="http://w:1", state="differs", behind=0, reason=None, worker="w", process="1", version="0.2", generation=3, key_id="ab" * 16, pinned=True)  # fmt: skip
    silent = WorkerProof(at="http://v:1", state="silent", behind=0, reason="http://v:1 could not be asked: " + HOSTILE, worker=None, process=None, version=None, generation=None, key_id=None, pinned=False)  # fmt: skip
    differs = ProofDifference(at="http://w:1", revision_id=env.revisions[0].revision_id, field="tree", expected="sha256:" + "a" * 64, found="sha256:" + "b" * 64)  # fmt: skip
    found = EnvVerified(environment_id="local", generation=3, state="silent", workers=[worker, silent], differences=[differs], warnings=["nobody vouches for it, " + "k" * 60])  # fmt: skip
    told = lines(env_verified(env, found, wide=False), 80)
    text = "\n".join(told)
    assert told[0] == "local silent generation 3" and ("ab" * 6) in text and ("ab" * 7) not in text
    sentences = " ".join(text.split())
    assert "could not be asked: \\x1b" in sentences and "warning: nobody vouches for it, " + "k" * 60 in sentences, (
        "a sentence is whole"
    )
    assert "bot@1" in text and "tree" in text and all(c.isprintable() or c == "\n" for c in text)
    wide = "\n".join(lines(env_verified(env, found, wide=True), None))
    assert "ab" * 16 in wide and "b" * 64 in wide
    assert "warning" not in "\n".join(lines(env_verified(env, well(found), wide=False), 40))


def well(found: EnvVerified) -> EnvVerified:
    """The same of workers that are well."""
    return EnvVerified(environment_id="local", generation=3, state="serves", workers=found.workers[:1], differences=[], warnings=[])  # fmt: skip


def test_threat_terminal_escapes_hostile_names_are_shown_inert(env, store):
    revision = replace(env.revisions[0], bundle_id=HOSTILE, bundle_source_uri="https://x/" + HOSTILE)
    deployment = replace(env.bundles[0], bundle_id=HOSTILE, customer_id=HOSTILE)
    hostile = replace(env, name=HOSTILE, bundles=[deployment], revisions=[revision, *env.revisions[1:]])
    for width in (40, 120, None):
        for blocks in (
            env_picture.environment(hostile, store.clock.now_ns()),
            env_picture.deployments(hostile, store.clock.now_ns(), wide=True),
            env_picture.revisions(hostile, store.clock.now_ns(), wide=True),
        ):
            told = lines(blocks, width)
            assert not any(not c.isprintable() for line in told for c in line)
            assert any("\\x1b" in line for line in told) or width == 40  # there a name may have four cells


@given(
    st.lists(
        st.tuples(st.text(max_size=60), st.text("0123456789ABCDEF", min_size=26, max_size=26), st.text(max_size=60)),
        max_size=5,
    ),
    st.integers(40, 150),
)
def test_ids_stand_in_one_piece_and_nothing_is_wider_than_the_terminal(rows, width):
    table = Table(
        (Column("name"), Column("id", whole=True), Column("more", 1)), [[cell(t) for t in row] for row in rows]
    )
    told = lines([table, Line([cell(row[2]) for row in rows])], width)
    from rich.cells import cell_len

    assert all(cell_len(line.rstrip()) <= width for line in told)
    for _, ulid, _ in rows:
        assert any(ulid in line for line in told)


@given(st.integers(-5, 10_005))
def test_a_bar_shows_what_is_not_nothing_and_is_full_for_the_whole_alone(bps):
    assert len(bar(bps)) == 10
    assert ("█" in bar(bps)) == (bps > 0) and ("░" in bar(bps)) == (bps < 10_000)


def test_ages():
    now = 1_700_000_000_000_000_000
    assert age("2023-11-14T22:13:13.123456789Z", now) == "7s"
    assert age("2023-11-11t22:13:13z", now) == "3d"
    assert age("2023-11-14T22:13:21+01:00", now) == "59m"
    assert age("2030-01-01T00:00:00Z", now) == "0s" and age(None, now) == "" and age("then", now) == ""


def status(turns: int, *, error: str | None = None) -> EnvStatus:
    worker = WorkerLine(
        at="http://10.0.0.7:8080", answers=error is None, error=error, desired_generation=8, desired_digest="sha256:" + "b" * 64,
        serving_generation=7, serving_digest="sha256:" + "a" * 64, unavailable=[],
    )  # fmt: skip
    line = RevisionLine(
        deployment_id="d",
        revision_id="r",
        weight_bps=9000,
        measured_bps=8800,
        turns=turns,
        failures=turns // 10,
        in_flight=3,
        parked=4,
    )
    return EnvStatus(environment_id="local", workers=[worker], revisions=[line])


def test_the_live_view_tells_generations_shares_rates_and_errors(env):
    text = "\n".join(lines(env_status(env, status(100), Before(status(40), 2.0)), 120))
    for told in ("7 aaaaaaaaaaaa", "8 bbbbbbbbbbbb", "behind", "90%", "88%", "30.0", "10 (10%)"):
        assert told in text
    assert "30.0" not in "\n".join(lines(env_status(env, status(10), Before(status(40), 2.0)), 120)), (
        "counts began anew"
    )
    gone = f"{env.bundles[0].deployment_id}: unreachable"
    found = replace(status(1), workers=[replace(status(1).workers[0], unavailable=[gone, "D: odd"])])
    assert "bot: unreachable, D: odd" in "\n".join(lines(env_status(env, found), 160)), "a name, not an id"
    assert "refused \\x1b" in "\n".join(lines(env_status(env, status(1, error="refused \x1b")), 120))


# -- programs -------------------------------------------------------------------------------------------------------


def at_terminal(columns: int, words: list[str], **environ: str) -> str:
    """What `gtc` writes to a terminal of a width."""
    ours, theirs = pty.openpty()
    collected: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                collected.append(data)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    command = [sys.executable, "-m", "greentic.cli.gtc", *words]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=os.environ | {"COLUMNS": str(columns), "TERM": "xterm"} | environ
    ) as process:  # fmt: skip
        assert process.wait() == 0
    os.close(theirs)
    reader.join()
    os.close(ours)
    return b"".join(collected).decode()


@pytest.mark.e2e
def test_at_a_terminal_of_forty_columns_and_without_one(env, store):
    words = ["op", "--store-root", str(store.root), "env", "show", "local"]
    coloured = at_terminal(40, words)
    assert "\x1b[" in coloured and "bot@1" in coloured
    plain = at_terminal(40, words, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain)
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", plain)
    assert max(map(len, stripped.splitlines())) <= 40 and "90%" in stripped
    run = subprocess.run([sys.executable, "-m", "greentic.cli.gtc", *words], capture_output=True, text=True, check=True)
    assert run.stdout.count("\n") == 1
    assert json.loads(run.stdout)["result"]["environment"]["environment_id"] == "local"


def told(capsys, store, *words: str) -> str:
    from greentic.cli import op

    assert op.main(["--store-root", str(store.root), *words]) == 0
    return capsys.readouterr().out


def test_each_form(env, store, capsys):
    shown = told(capsys, store, "env", "show", "local")
    assert shown == told(capsys, store, "env", "show", "local", "--output", "json"), "no terminal: JSON"
    assert parse_yaml(told(capsys, store, "env", "show", "local", "--output", "yaml").encode()) == json.loads(shown)
    assert told(capsys, store, "revisions", "list", "local", "--output", "name") == "bot@1\nbot@2\nbot@3\n"
    assert told(capsys, store, "bundles", "list", "local", "--output", "name") == "bot\n"
    assert told(capsys, store, "env", "list", "--output", "name") == "local\n"
    assert told(capsys, store, "env", "show", "local", "--output", "name") == "local\n"
    split = told(capsys, store, "traffic", "show", "local", "--deployment", "bot", "--output", "name")
    assert split == "bot@1\nbot@2\n"
    wide = told(capsys, store, "revisions", "list", "local", "--output", "wide")
    assert all(any(r.revision_id in line for line in wide.splitlines()) for r in env.revisions)
    assert "bot@2" in told(capsys, store, "env", "status", "local", "--output", "table")


def test_a_name_that_would_begin_a_line_of_its_own_does_not(author: Author, store, capsys):
    author.create()
    document = store.paths("local").environment
    author.add("bot")
    document.write_text(document.read_text().replace('"bot"', '"bot\\u001b[31m\\u2028x"'))
    if not store.survey()[0]:
        pytest.fail("such a document loads, and is to be shown")
    assert told(capsys, store, "bundles", "list", "local", "--output", "name") == "bot\\x1b[31m\\u2028x\n"


def test_lists_of_nothing(author: Author, store, capsys):
    author.create()
    assert bundles.list_deployments(author.context, "local").deployments == []
    for words in (
        ("bundles", "list", "local"),
        ("revisions", "list", "local"),
        ("env", "show", "local"),
        ("env", "list"),
    ):
        assert told(capsys, store, *words, "--output", "table").strip()


def test_what_differs_between_generations_is_told_in_names_and_without_what_always_differs(env, author, store):
    first, second, _ = env.revisions
    author.route(first.deployment_id, (second.revision_id, 10_000), key="three")
    now = store.load("local")
    found = EnvChanges(environment_id="local", from_generation=1, to_generation=2, differences=[
        *(ChangeLine(path=d.path, before=d.before, after=d.after) for d in differences(json_object(env), json_object(now))),
        ChangeLine(path="greentic:delivery.seal.payload", before="x" * 500, after="y" * 500),
        ChangeLine(path=f"revisions[{ulid_from_int(5)}]", before={"revision_id": ulid_from_int(5), "bundle_id": "old", "sequence": 7, "lifecycle": "archived"}, after=None),
        ChangeLine(path="name", before="a", after=HOSTILE),
    ])  # fmt: skip
    told = lines(generations(now, found), 80)
    text = "\n".join(told)
    assert "traffic_splits[bot].entries[bot@2].weight_bps 10% → 100%" in told, told
    assert "traffic_splits[bot].entries[bot@1] gone bot@1 90%" in told
    assert "revisions[old@7] gone lifecycle archived" in told
    assert "xxx" not in text.replace("x" * 300, "") and "idempotency_key" not in text and first.revision_id not in text
    assert told[-1].startswith("and ") and told[-1].endswith(" that every change brings")
    assert all(c.isprintable() or c == "\n" for c in text)


def test_the_log_is_one_line_a_change_and_a_short_terminal_keeps_what_and_outcome(env, author, store):
    from greentic.examine.env_log import EnvLogPayload, log
    from greentic.ground.reply import reply_json
    from greentic.terminal.shown import _log

    result = reply_json(log(author.context, EnvLogPayload(environment_id="local", last=5)))
    assert lines(_log(author.context, None, result | {"changes": [], "older": 0}, False), 40) == ["no changes"]
    blocks = _log(author.context, None, result | {"breaks": 1}, False)
    narrow, wide = lines(blocks, 40), lines(blocks, 200)
    assert max(map(len, narrow)) <= 40 and len(narrow) == len(wide) == 1 + 5 + 2
    assert "traffic set" in narrow[5] and narrow[5].rstrip().endswith("ok")
    assert all("uid" in line for line in lines(blocks, 80)[1:6]), "who, at the width that terminals have"
    assert "uid" in wide[5] and "broken chain: 1" in wide[-1]


# -- letters that are read from the right, and letters that nobody sees ------------------------------------------------

RIGHT = "שלום٣"


def test_threat_terminal_escapes_a_name_from_the_right_moves_nothing_beside_it(env, store, capsys, monkeypatch):
    deployment = replace(env.bundles[0], bundle_id=RIGHT, customer_id=f"{RIGHT}-{RIGHT}")
    hebrew = replace(
        env, name=f"{RIGHT} {RIGHT}", bundles=[deployment], revisions=[replace(env.revisions[0], bundle_id=RIGHT * 30)]
    )
    for width in (40, 80, None):
        for blocks in (
            env_picture.environment(hebrew, store.clock.now_ns()),
            env_picture.deployments(hebrew, store.clock.now_ns(), wide=True),
            env_picture.revisions(hebrew, store.clock.now_ns(), wide=True),
            [Line([cell(RIGHT * 40), cell("7 days")])],
        ):
            for line in lines(blocks, width):
                assert outside(line) == "" or not any(map(from_the_right, outside(line))), line
    for show in (lambda: print_failure("table", "", "", NotFound(f"{RIGHT} 12 {RIGHT}", hint=RIGHT)), lambda: show_table({RIGHT: RIGHT, "rows": [{"a": RIGHT, "b": 7}]})):  # fmt: skip
        show()
        told = capsys.readouterr()
        assert RIGHT in told.out + told.err and not any(map(from_the_right, outside(told.out + told.err)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_success("json", "env", "show", {"name": RIGHT + "\U0001e900\U000e0041\x7f"}, "")
    told = capsys.readouterr().out
    assert told.isascii() and json.loads(told)["result"]["name"] == RIGHT + "\U0001e900\U000e0041\x7f"


def outside(text: str) -> str:
    """What stands in no isolate; each isolate ends in its own line."""
    assert all(line.count("\u2068") == line.count("\u2069") for line in text.splitlines())
    return re.sub("\u2068[^\u2068\u2069\n]*\u2069", "", text)


def from_the_right(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL", "AN", "RLE", "RLO", "LRO", "LRE", "PDF", "RLI")


@given(st.text(st.characters(categories=["Lo", "Mn", "Nd", "Zs", "Po", "Cf"])))
def test_what_is_printed_is_the_text_with_isolates_around_its_words(text):
    assert isolated(inert(text)).replace("\u2068", "").replace("\u2069", "") == inert(text)
    assert not any(map(from_the_right, outside(isolated(inert(text)))))


@pytest.mark.parametrize("c", "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\u3164\u115f\u1160\uffa0\u2800\u034f\u00ad\U000e0041")  # fmt: skip
def test_letters_that_nobody_sees_are_written_out(c):
    assert inert(f"a{c}b") == "a" + c.encode("unicode_escape").decode() + "b"


def test_nothing_is_printed_that_was_not_made_inert():
    """Whoever prints words of others at a terminal makes them so: who takes `inert` alone prints them in no line of words."""
    from conftest import ROOT

    source = ROOT / "src" / "greentic"
    allowed = {"terminal/output.py", "terminal/table_layout.py", "terminal/shown.py"}
    found = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if re.search(r"\binert\(", path.read_text())
    }
    assert found <= allowed


def test_no_cell_is_json_and_objects_of_a_cluster_are_yaml(capsys):
    show_table(
        {
            "answers": {"deployer": {"keys": ["a", "b"], "present": True}},
            "checks": [{"capability": {"id": "reach", "description": "it is reached"}, "status": "pass"}],
            "manifests": [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"n{RIGHT}"}},
                {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}},
            ],
        }
    )
    out = capsys.readouterr().out
    assert "{" not in out and "answers.deployer.keys" in out and "a, b" in out
    assert "capability.id" in out and "it is reached" in out
    first, second = out.partition("---\n")[2].split("---\n")
    assert parse_yaml(second.encode()) == {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    assert "kind: Namespace\nmetadata:\n" in first
