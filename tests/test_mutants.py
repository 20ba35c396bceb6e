"""The changes that the mutants' lane makes: each is one change, compiles, and is known again; the lane's map names what exists."""

from __future__ import annotations

import ast
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "kit"))
import mutants
import mutations


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a is None", ["x = (a is not None)"]),
        ("x = a and not b", ["x = (a or not b)", "x = a and (b)"]),
        ("x = 7", ["x = (8)"]),
        ("x = True", ["x = (False)"]),
        ("x = a + 1", ["x = (a - 1)", "x = a + (2)"]),
        ("def f():\n    return a", ["def f():\n    return None"]),
        ("f(x)\n", ["pass\n"]),
        ("raise X('text', 3)", ["pass"]),
        ("if a:\n    x\nelif b:\n    y", ["if not a:\n    x\nelif b:\n    y", "if a:\n    x\nelif not b:\n    y"]),
        ("ä = 'ü'; x = 1", ["ä = 'ü'; x = (2)"]),
        ("x = 'text' + y", []),
        ("x: Literal[1] = y", []),
        ("class S(Struct, frozen=True):\n    pass", []),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1", []),
    ],
)
def test_one_thing_is_changed(source: str, changed: list[str]) -> None:
    made = [ast.unparse(ast.parse(mutant.source)) for mutant in mutations.mutants(source)]
    assert made == [ast.unparse(ast.parse(text)) for text in changed]


def test_the_same_change_twice_has_two_names() -> None:
    keys = [mutant.key for mutant in mutations.mutants("def f():\n    g(1)\n    g(1)")]
    assert len(keys) == 4 and len(set(keys)) == 4 and all(key.startswith("f: ") for key in keys)


@pytest.mark.parametrize("room", mutants.LANES)
def test_every_mutant_of_our_rooms_compiles_and_has_a_name_of_its_own(room: str) -> None:
    for name in mutants.modules([room]):
        source = (mutants.SOURCE / name).read_text()
        made = mutations.mutants(source)
        assert len({mutant.key for mutant in made}) == len(made)
        for mutant in made[:: max(1, len(made) // 20)]:
            compile(mutant.source, name, "exec")
            assert mutant.source != source


def test_the_lane_names_modules_and_tests_that_exist() -> None:
    assert {*mutants.MORE, *mutants.OWN} <= set(mutants.modules([]))
    for file in {file for name in mutants.modules([]) for file in mutants.tests_of(name)}:
        assert (ROOT / "tests" / file).is_file(), file


def test_a_constant_that_no_line_of_its_own_executes_is_met_by_who_executes_its_statement() -> None:
    source = "x = 1\nTABLE = (\n    (7, 8),\n)\ndef f():\n    g(\n        9,\n    )"
    lines = {made.key: (made.line, made.statement) for made in mutations.mutants(source)}
    assert lines["module: 7 -> 8"] == (3, 2) and lines["f: 9 -> 10"] == (7, 6)
    lane = mutants.Lane({"a": 0.1, "b": 0.1}, {2: {"a", "b"}, 7: {"a"}})
    met = {made.key: lane.meeting(made) for made in mutations.mutants(source)}
    assert met["module: 7 -> 8"] == {"a", "b"} and met["f: 9 -> 10"] == {"a"} and met["module: 1 -> 2"] == set()


def test_the_tests_of_a_modules_own_rules_are_met_first_and_the_long_ones_not_when_it_must_be_quick() -> None:
    name, room = "distribute/bundle_cache.py", mutants.LANES["distribute"]
    assert mutants.tests_of(name) == ["test_bundle_cache.py", *room]
    assert mutants.tests_of(name, quick=True) == ["test_bundle_cache.py", room[0]]
    assert mutants.tests_of("distribute/ranges.py", quick=True) == room[:1]
    assert (
        mutants.tests_of("store/in_use.py")[-1:]
        == ["test_retention.py"]
        != mutants.tests_of("store/in_use.py", quick=True)
    )


def test_a_larger_sample_contains_the_smaller_one() -> None:
    source = "def f():\n    return a < b and c + 1"
    order = [mutant.key for mutant in mutants.in_order("x.py", source)]
    assert order == [mutant.key for mutant in mutants.in_order("x.py", f"# moved\n{source}")]
    assert sorted(order) == sorted(mutant.key for mutant in mutations.mutants(source))


@pytest.mark.parametrize(("killed", "low"), [(84, ["trust"]), (85, [])])
def test_a_room_below_the_share_is_named(killed: int, low: list[str]) -> None:
    alive: list[mutants.Survivor] = [{"key": str(number), "line": 1} for number in range(100 - killed)]
    found: mutants.Result = {"sha256": "", "tried": 100, "of": 100, "killed": killed, "survivors": alive}
    assert mutants.below({"trust/x.py": found}) == low


def test_a_survivor_that_is_tried_again_is_counted_once() -> None:
    made = mutations.mutants("x = 7")[0]
    now: mutants.Result = {"sha256": "", "tried": 0, "of": 1, "killed": 0, "survivors": []}
    for lives, killed in ((True, 0), (True, 0), (False, 1)):
        mutants._count(now, made, lives)
        assert (now["tried"], now["killed"], len(now["survivors"])) == (1, killed, 1 - killed)
