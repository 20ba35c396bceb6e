"""The table of threats: every row has a rule that lives somewhere and tests that hold it; every test of a threat has its row.

`OWED` lists the rows without a test; it may only get shorter.
"""

from __future__ import annotations

import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import threats_page as table

OWED: frozenset[str] = frozenset()


def test_every_row_has_a_test() -> None:
    without = {row.name for row in table.ROWS if not table.tests_of(row.name)}
    assert not without - OWED, f"no test is named after {sorted(without - OWED)}"
    assert not OWED - without, f"take {sorted(OWED - without)} out of OWED"


def test_every_test_of_a_threat_has_its_row() -> None:
    held = {test for row in table.ROWS for test in table.tests_of(row.name)}
    assert not table.threat_tests() - held


def test_every_rule_lives_where_the_table_says() -> None:
    for row in (*table.ROWS, *table.KINDS):
        for name in row.where.split():
            place = ROOT / "src" / "greentic" / name
            held = (p for p in place.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
            found = place.is_file() or any(held)  # what a removed directory leaves behind is no place
            assert found, f"{row.name}: there is no {name}"


def test_every_kind_has_rows_that_exist() -> None:
    names = {row.name for row in table.ROWS}
    assert [kind.number for kind in table.KINDS] == list(range(1, len(table.KINDS) + 1))
    for kind in table.KINDS:
        assert kind.rows and not set(kind.rows.split()) - names, kind.name
