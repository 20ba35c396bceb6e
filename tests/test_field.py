"""What went wrong for people who do this job, case by case, where the cases lie beside the project (../shared/field).

Each case is a program that ends with 0 if we behave rightly. `STILL_WRONG` lists what is not mended yet; it may only get shorter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from conftest import PROGRAMS, SHARED

FIELD = SHARED / "field"
CASES = sorted(path.parent for path in FIELD.glob("*/*/try.py"))
LONGEST = 600
"""Seconds after which a case hangs; none takes a tenth of it."""

STILL_WRONG: frozenset[str] = frozenset()


ABSENT = pytest.mark.skip(reason="needs the cases of the field beside the project (../shared/field)")


def _parameters() -> list[ParameterSet]:
    """The cases, or one that says what is missing."""
    if not CASES:
        return [pytest.param(FIELD, id="none", marks=ABSENT)]
    wrong = pytest.mark.xfail(strict=True, reason="not mended yet; take it out of STILL_WRONG when it is")
    names = [(case, f"{case.parent.name}/{case.name}") for case in CASES]
    return [pytest.param(case, id=name, marks=[wrong] if name in STILL_WRONG else []) for case, name in names]


def test_every_case_that_is_still_wrong_is_one() -> None:
    assert not CASES or not STILL_WRONG - {f"{case.parent.name}/{case.name}" for case in CASES}


@pytest.mark.field
@pytest.mark.parametrize("case", _parameters())
def test_what_went_wrong_for_people_goes_right(case: Path, shared_directory: Path, tmp_path: Path) -> None:
    leases = shared_directory / "ports"
    leases.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="field-"))
    scratch.chmod(0o711)  # some cases go on as another user, who may not enter where tests keep their files
    environ = dict(os.environ) | {
        "GTC": str(PROGRAMS / "gtc"),
        "START": str(PROGRAMS / "greentic-start"),
        "TMPDIR": str(scratch),
        "FIELD_DIR": str(scratch),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "field_case.py"), str(case / "try.py"), str(leases)],
            env=environ, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONGEST, check=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    told = done.stdout.strip()
    if done.returncode and told.rpartition("\n")[2].startswith("needs "):
        pytest.skip(f"{told.rpartition(chr(10))[2]}, for a case beside the project")
    assert done.returncode == 0, told[-4000:]
