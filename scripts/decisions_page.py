"""docs/decisions/README.md from the titles of the decisions."""

from __future__ import annotations

import re
from pathlib import Path

DECISIONS = Path(__file__).resolve().parent.parent / "docs" / "decisions"
PAGE = DECISIONS / "README.md"
BEFORE = """# Decisions

Why it is so, where somebody might have it otherwise: one page each, with what would be a reason to reverse it. A number that is missing was
never used. Printed from the titles by `make docs`.

| | decision | |
|---|---|---|
"""
_TITLE = re.compile(r"# (\d+)\. (\S.*)\n")
_SUPERSEDED = re.compile(r"^Superseded\b(?: by \[decision \d+\]\((\d{4})-)?", re.MULTILINE)


def row(path: Path) -> str:
    """One line of the table."""
    text = path.read_text()
    title = _TITLE.match(text)
    if title is None or int(title[1]) != int(path.name[:4]):
        raise SystemExit(f"{path.name}: its first line is not `# {int(path.name[:4])}. TITLE`")
    found = _SUPERSEDED.search(text)
    state = "" if found is None else f"superseded by {int(found[1])}" if found[1] else "superseded"
    return f"| {title[1]} | [{title[2]}]({path.name}) | {state} |\n"


def page() -> str:
    """The whole page."""
    return BEFORE + "".join(row(path) for path in sorted(DECISIONS.glob("[0-9]*.md")))
