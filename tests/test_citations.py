"""What is cited is there: `(formats: environment 4)` is chapter 4 of `docs/formats/environment.md`, `store/audit.py` a module."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import ROOT

_CITED = re.compile(r"\(formats: ([^)]*)\)")
_PART = re.compile(r"([a-z]+) (\d+(?:, \d+)*)")
_OUTSIDE = re.compile(r"\(spec: [a-z-]+ \d")  # what a clone does not have
_ROOMS = [room.name for room in (ROOT / "src" / "greentic").iterdir() if room.is_dir()]
_MODULE = re.compile(rf"`((?:{'|'.join(_ROOMS)})/[a-z0-9_]+)(?:\.py)?`")


def _sources() -> list[Path]:
    found = [
        p for top in ("src", "tests", "image", "kit", "lab", "benchmarks") for p in sorted((ROOT / top).rglob("*.py"))
    ]
    return [p for p in found if p != Path(__file__)]


def _chapters() -> set[tuple[str, str]]:
    pages = sorted((ROOT / "docs" / "formats").glob("*.md"))
    return {
        (page.stem, number) for page in pages for number in re.findall(r"^## (\d+)\. ", page.read_text(), re.MULTILINE)
    }


def test_every_citation_leads_to_a_chapter():
    chapters, astray, cited = _chapters(), [], 0
    for path in _sources():
        text = path.read_text()
        if _OUTSIDE.search(text):
            astray.append(f"{path.relative_to(ROOT)} cites a text outside of the repository")
        for citation in _CITED.findall(text):
            parts = [part.strip() for part in citation.split(";")]
            known = [_PART.fullmatch(part) for part in parts]
            cited += 1
            if known[0] is None:
                astray.append(f"{path.relative_to(ROOT)}: ({citation}) names no page and chapter")
            for found in known:
                if found is not None:
                    numbers = found.group(2).split(", ")
                    astray += [
                        f"{path.relative_to(ROOT)}: {found.group(1)} {n} is no chapter"
                        for n in numbers
                        if (found.group(1), n) not in chapters
                    ]
    assert not astray
    assert cited > 100, "code says where its facts stand"


def test_chapters_are_numbered_without_gaps():
    numbers: dict[str, list[int]] = {}
    for page, number in _chapters():
        numbers.setdefault(page, []).append(int(number))
    assert {page: sorted(found) for page, found in numbers.items()} == {
        page: list(range(1, len(found) + 1)) for page, found in numbers.items()
    }


def test_modules_that_are_named_are_there():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = [(p, place) for p in (*_sources(), *pages) for place in _MODULE.findall(p.read_text())]
    top = ROOT / "src" / "greentic"
    astray = [(p.name, place) for p, place in named if not (top / f"{place}.py").exists()]
    assert not astray
    assert len(named) > 100, "code and pages say where to look"


def test_links_between_pages_lead_somewhere():
    for page in sorted((ROOT / "docs" / "formats").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
