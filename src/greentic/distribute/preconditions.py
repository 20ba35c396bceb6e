"""On which conditions a client wants a file, and which part of it (RFC 9110, 13 and 14). Pure.

Rules:
1. `If-Match` before all else, then `If-None-Match`; only without that `If-Modified-Since`. A list may hold any number of tags, `*` is any.
2. `If-None-Match` compares weakly (`W/"x"` is `"x"`), for it saves sending; `If-Match` and `If-Range` strongly, for they join parts.
3. What is no tag, no date or no span is as if it were not said. A date in `If-Range` is never the file's: two files of one second share it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.ASCII)

Asked = Callable[[str], str | None]
"""The value of a field of a request, several lines of one name joined by commas; nothing if there is none."""


class ByteSpan(NamedTuple):
    """Bytes `first` to `last`, both included."""

    first: int
    last: int


def judged(asked: Asked, tag: str, modified: float) -> Literal["wanted", "unchanged", "failed"]:
    """What to do about a file with this strong tag, changed at `modified`, seconds since 1970 (rule 1)."""
    wanted = asked("If-Match")
    if wanted is not None and wanted.strip() != "*" and tag not in _TAG.findall(wanted):
        return "failed"
    known = asked("If-None-Match")
    if known is not None:
        return "unchanged" if is_known(known, tag) else "wanted"
    since = _moment(asked("If-Modified-Since"))
    return "unchanged" if since is not None and int(modified) <= since else "wanted"


def is_known(none_match: str, tag: str) -> bool:
    """Whether the value of `If-None-Match` names a strong tag (rule 2)."""
    return none_match.strip() == "*" or tag in {found.removeprefix("W/") for found in _TAG.findall(none_match)}


def part(asked: Asked, tag: str, size: int) -> ByteSpan | str | None:
    """The part that is wanted of a file; nothing for all of it, a text if no byte of the part exists."""
    condition = asked("If-Range")
    return parse_range(asked("Range"), size) if condition is None or condition.strip() == tag else None


def parse_range(header: str | None, size: int) -> ByteSpan | None | str:
    """The span of a single-range header; nothing for a header to be ignored; a text if no byte of it exists."""
    found = _RANGE.match(header.strip()) if header else None
    if found is None:
        return None
    first, last = found.groups()
    if not first:
        if not last:
            return None
        count = int(last)
        return ByteSpan(max(0, size - count), size - 1) if count and size else "unsatisfiable"
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    return ByteSpan(start, end) if start < size else "unsatisfiable"


def _moment(date: str | None) -> float | None:
    """A date as HTTP writes it, in seconds since 1970."""
    try:
        found = parsedate_to_datetime(date or "")
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
