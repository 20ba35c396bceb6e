"""What the tests keep from one run to the next is found again by all that it was made of, and by nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import kept_builds
from kept_builds import PLACES, place, tree


def test_the_same_inputs_find_the_same_place(tmp_path: Path) -> None:
    first = place(tmp_path, "kind", ["source", b"tool 1"])
    (first / "built").write_text("x")
    assert (place(tmp_path, "kind", ["source", b"tool 1"]) / "built").read_text() == "x"
    assert first.stat().st_mode & 0o777 == 0o700, "compiled code is run from there"


@pytest.mark.parametrize("inputs", [["source", "tool 2"], ["sourcetool 1"], ["source"], ["tool 1", "source"], ["source", "tool 1", ""]])  # fmt: skip
def test_who_changes_anything_that_goes_in_makes_it_anew(tmp_path: Path, inputs: list[str]) -> None:
    assert place(tmp_path, "kind", inputs) != place(tmp_path, "kind", ["source", "tool 1"])


def test_another_kind_is_another_place(tmp_path: Path) -> None:
    assert place(tmp_path, "kind", ["a"]) != place(tmp_path, "other", ["a"])


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    made = [place(tmp_path, "kind", [str(number)]) for number in range(PLACES)]
    for age, path in enumerate(made):
        (path / "built").write_text("x")
        os.utime(path, (1_000 - age, 1_000 - age))
    other = place(tmp_path, "other", [])
    place(tmp_path, "kind", [str(PLACES - 1)])  # the oldest is used again
    place(tmp_path, "kind", ["new"])
    assert [path.exists() for path in made] == [True] * (PLACES - 2) + [False, True] and other.exists()


def test_a_tree_is_its_names_and_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a/__pycache__").mkdir(parents=True)
    (tmp_path / "a/b.py").write_text("1")
    (tmp_path / "a/__pycache__/b.pyc").write_text("2")
    assert tree(tmp_path) == ["a/b.py", b"1"]


def test_nothing_that_was_there_before_is_used_where_nothing_is_to_be(
    tmp_path: Path, pytestconfig: pytest.Config, built_components: Path
) -> None:
    """Components are kept below the user's cache, not below this test's; by `--afresh` below what this run alone has."""
    own = kept_builds.writable() and not pytestconfig.getoption("--afresh")
    assert built_components.is_relative_to(kept_builds.KEPT) is own
    assert not kept_builds.KEPT.is_relative_to(tmp_path)
