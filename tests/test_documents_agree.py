"""What is printed from tables agrees with them: the page of variables and the help of the worker."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from conftest import PROGRAMS, ROOT
from greentic.ground import variables

sys.path.insert(0, str(ROOT / "scripts"))
import pages


@pytest.mark.parametrize("script", pages.PRINTED)
def test_what_is_printed_from_tables_is_up_to_date(script: str) -> None:
    path, text = pages.printed(script)
    assert path.read_text() == text, "run `make docs`"


def test_every_page_that_a_script_prints_is_written_by_make_docs() -> None:
    scripts = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "kit").glob("*.py")]
    printing = {p.relative_to(ROOT).as_posix() for p in scripts if re.search(r"^def page\(", p.read_text(), re.M)}
    assert printing == set(pages.PRINTED)


def test_the_help_of_the_worker_names_its_variables_and_no_others() -> None:
    told = subprocess.run([PROGRAMS / "greentic-start", "--help"], capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"^  ([A-Z][A-Z_]+) ", told, re.MULTILINE))
    assert named == {row.name for row in variables.TABLE.values() if row.reader in ("worker", "both")}


def test_every_variable_that_the_documents_name_is_one() -> None:
    known = set(variables.TABLE)
    for path in sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]):
        for name in re.findall(r"\b(?:GREENTIC|GTC)_[A-Z0-9_]*[A-Z0-9]\b", path.read_text()):
            whole = (
                name in known
                or name.startswith(variables.SECRET_PREFIX)
                or name in ("GREENTIC_SECRET", "GREENTIC_TEST_IMAGE")
            )
            prefix = any(other.startswith(f"{name}_") for other in known)  # as in GREENTIC_FETCH_…
            assert whole or prefix, f"{path.name} names {name}, which nothing reads"


def test_what_we_stand_on_is_what_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [need for needs in project["optional-dependencies"].values() for need in needs]
    declared = {re.split(r"[><=\[]", need)[0] for need in [*project["dependencies"], *extras]} - {"greentic"}
    rows = re.findall(r"^\| ([^|(]+)(?:\([^|]*\) )?\|", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    told = {name.strip() for row in rows for name in row.split(",")} - {"package", "---"}
    assert told == declared


def test_the_changelog_tells_each_thing_once() -> None:
    """Two branches that each tell it leave both lines where they meet."""
    told = [" ".join(entry.split()[:12]) for entry in re.split(r"^- ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)]
    assert len(told) > 300 and {text for text in told if told.count(text) > 1} == set()


def test_the_versions_of_python_that_are_declared_are_those_that_are_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    tried = re.search(r"matrix: \{python: \[([^]]*)\]", (ROOT / ".github" / "workflows" / "test.yml").read_text())
    assert tried and declared == re.findall(r"[\d.]+", tried[1]) and project["requires-python"] == f">={declared[0]}"


def test_make_tells_all_that_there_is_to_make() -> None:
    told = subprocess.run(["make", "-s", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    named = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named and {line.split()[0] for line in told.splitlines()} == set(named[1].split())
