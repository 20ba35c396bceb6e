"""Whole numbers that somebody wrote as digits. Pure.

Rule: plain digits alone, and no more than a number that is taken has. Python's own reading refuses thousands of digits with an error of
another kind, and takes digits of other scripts.
"""

from __future__ import annotations


def whole_number(text: str, most: int) -> int | None:
    """The number, if it is at most `most`; nothing for anything else."""
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(most)) + _LEADING:
        return None
    found = int(text)
    return found if found <= most else None


_LEADING = 20
"""Zeros that may stand in front."""
