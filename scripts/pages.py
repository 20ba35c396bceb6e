#!/usr/bin/env python3
"""`make docs`: write the pages that are printed from tables.

Each is told by one script of PRINTED, with `PAGE`, where it lies, and `page()`, the whole text.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRINTED = ("scripts/variables_page.py", "scripts/threats_page.py", "scripts/decisions_page.py", "kit/mutants.py")


def printed(script: str) -> tuple[Path, str]:
    """Where the page of a script lies, and what is to stand there."""
    names = runpy.run_path(str(ROOT / script))
    return names["PAGE"], names["page"]()


if __name__ == "__main__":
    if sys.argv[1:]:
        raise SystemExit("scripts/pages.py takes no words: it writes every page")
    for script in PRINTED:
        path, text = printed(script)
        path.write_text(text)
