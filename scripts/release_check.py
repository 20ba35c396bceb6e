#!/usr/bin/env python3
"""Whether a tag may become a release: it is `v` and the version of the package, and the changelog tells what is in it.

scripts/release_check.py TAG [--notes]      with --notes, print that part of the changelog
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    """The one place that tells it."""
    found = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "src/greentic/__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("release: src/greentic/__init__.py tells no version")
    return found.group(1)


def notes(changelog: str, number: str) -> str:
    """The part of the changelog about one release; empty if there is none."""
    _, heading, rest = changelog.partition(f"\n## {number}\n")
    return rest.partition("\n## ")[0].strip() if heading else ""


def main(tag: str, *words: str) -> str:
    number, told = version(), notes((ROOT / "CHANGELOG.md").read_text(), version())
    if tag != f"v{number}":
        raise SystemExit(f"release: the tag is {tag} and the package says {number}; expected v{number}")
    if not told:
        raise SystemExit(f"release: CHANGELOG.md has no `## {number}`; name what is under `## Unreleased` after it")
    return told if "--notes" in words else f"{tag} may be released"


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit(__doc__)
    print(main(*sys.argv[1:]))
