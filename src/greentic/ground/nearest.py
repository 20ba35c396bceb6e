"""What somebody may have meant who mistyped a word."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 128
"""Characters of a word that are compared: comparing costs the product of both lengths."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest, if one is near; small and capital letters are the same."""
    from difflib import get_close_matches  # only who mistyped a word waits for it

    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.lower()[:_LONGEST], one)
    found = get_close_matches(word.lower()[:_LONGEST], folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The same as the end of a sentence; nothing if none is near."""
    found = nearest(word, known)
    return f"; did you mean `{found}`?" if found else ""


def one_of(word: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """The same with all that there are behind it, which may be many."""
    meant = did_you_mean(word, (*(listed := list(known)), *also))
    return f"{meant} Expected one of {', '.join(listed)}" if meant else f"; expected one of {', '.join(listed)}"
