"""Readings as text that scrapers read: the Prometheus text format 0.0.4, and OpenMetrics 1.0 for those who ask for it. Pure.

Rules:
1. `Accept` decides, as it is written: OpenMetrics where it is wanted at least as much as plain text.
2. A family is one block: its help, its type, its series. Counters end with `_total`, an info with `_info`.
3. Values of labels are escaped. Control characters are written out, and what is longer than `MAX_VALUE` characters ends with a part of its
   sum: two values never become one, for no series may stand twice.
4. The text comes in pieces of bounded size, for whoever writes it may have other things to do in between.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

from greentic.telemetry.counts import BOUNDS
from greentic.telemetry.families import FAMILIES, Family
from greentic.telemetry.readings import Labels, Readings

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_VALUE = 200
_SUM = 12
PIECE_LINES = 1_000
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BOUNDS = [f'le="{bound!r}"}} ' for bound in BOUNDS]
_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")


def chosen(accept: str | None) -> str:
    """The content type that an `Accept` asks for (rule 1)."""
    wanted: dict[str, float] = {}
    for part in (accept or "")[:1000].split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        found = [m for p in parameters if (m := _QUALITY.match(p))]
        if kind == "application/openmetrics-text" and not any(
            p.startswith("version=") and p not in ("version=1.0.0", "version=0.0.1") for p in parameters
        ):
            wanted["open"] = max(wanted.get("open", 0.0), float(found[0].group(1)) if found else 1.0)
        elif kind in ("text/plain", "text/*", "*/*"):
            wanted["plain"] = max(wanted.get("plain", 0.0), float(found[0].group(1)) if found else 1.0)
    return OPEN if wanted.get("open", 0.0) > 0 and wanted["open"] >= wanted.get("plain", 0.0) else PLAIN


def text(readings: Readings, kind: str) -> Iterator[str]:
    """The text in pieces."""
    opened = kind == OPEN
    held: list[str] = []
    for name, family in FAMILIES.items():
        series = readings.families.get(name)
        if not series:
            continue
        held += _head(family, opened=opened)
        shown = name + {"counter": "_total", "info": "_info"}.get(family.kind, "")
        for labels, numbers in series.items():
            told = label_text(family.labels, labels)
            if family.kind == "histogram":
                held += _histogram(name, told, numbers)
            else:
                held.append(
                    f"{shown}{{{told}}} {_number(numbers[0])}\n" if told else f"{shown} {_number(numbers[0])}\n"
                )
            if len(held) >= PIECE_LINES:
                yield "".join(held)
                held = []
    if opened:
        held.append("# EOF\n")
    yield "".join(held)


def _head(family: Family, *, opened: bool) -> list[str]:
    name, kind = family.name, family.kind
    if not opened:
        name += {"counter": "_total", "info": "_info"}.get(kind, "")
        kind = "gauge" if kind == "info" else kind
    return [f"# HELP {name} {family.help}\n", f"# TYPE {name} {kind}\n"]


def _histogram(name: str, told: str, numbers: list[float]) -> list[str]:
    begin = f"{name}_bucket{{{told}," if told else f"{name}_bucket{{"
    totals = list(accumulate(map(int, numbers[:-1])))
    whole, braces = totals[-1], f"{{{told}}}" if told else ""
    return [
        *[f"{begin}{bound}{total}\n" for bound, total in zip(_BOUNDS, totals, strict=False)],
        f'{begin}le="+Inf"}} {whole}\n{name}_count{braces} {whole}\n{name}_sum{braces} {_number(numbers[-1])}\n',
    ]


@lru_cache(maxsize=8192)
def label_text(names: tuple[str, ...], values: Labels) -> str:
    """Labels as they stand between the braces (rule 3)."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    whole = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    if len(whole) > MAX_VALUE:
        part = hashlib.sha256(whole.encode()).hexdigest()[:_SUM]
        whole = f"{whole[: MAX_VALUE - 1 - _SUM]}…{part}"
    return whole.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    whole = int(value)
    return str(whole) if whole == value else repr(value)
