"""Text as it fits a terminal.

Rules:
1. Prose is broken between words at the width of the terminal. What stands in a second column stays in it; where that would be too narrow
   it goes below, indented.
2. A command stands in one line, whatever the width: it is there to be copied. So does what stands in backquotes.
3. What is no terminal is as wide as `COLUMNS` says, or 80.
"""

from __future__ import annotations

import re

_TWO_COLUMNS = re.compile(r"(\s*\S(?:.*?\S)??\s{2,})(?=\S)")
_COMMAND = re.compile(r"\s+(?:gtc|greentic-start|greentic-operator) |\S+ a JSON schema: ")
_WHOLE = re.compile(r"\[[^\[\]\n]*\]|`[^`\n]*`")
"""A flag with its value, and what is quoted."""
_LEAST, _BELOW = 20, 6
_UNBROKEN = "\ue000"  # is in no text for a terminal: `output.inert` writes it out


def fitted(text: str, width: int) -> str:
    """A text, each line that is too wide for a terminal of `width` broken (rule 1)."""
    return "\n".join(part for line in text.split("\n") for part in _broken(line, width))


def fitted_here(text: str) -> str:
    """The same for the terminal that this program writes to (rule 3)."""
    from shutil import get_terminal_size  # which no worker loads

    return fitted(text, get_terminal_size().columns)


def _broken(line: str, width: int) -> list[str]:
    if len(line) <= width or _COMMAND.match(line):
        return [line]
    if line.startswith("usage: "):
        return _wrapped(line, width, "", " " * 7)
    columns = _TWO_COLUMNS.match(line)
    if columns is None:
        indent = " " * (len(line) - len(line.lstrip()))
        return _wrapped(line.lstrip(), width, indent, indent)
    first, told = columns[1], line[columns.end() :]
    if width - len(first) >= _LEAST:
        return _wrapped(told, width, first, " " * len(first))
    return [first.rstrip(), *_wrapped(told, width, " " * _BELOW, " " * _BELOW)]


def _wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    from textwrap import TextWrapper

    wrapper = TextWrapper(
        width, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
    whole = _WHOLE.sub(lambda found: found[0].replace(" ", _UNBROKEN), text)
    return [line.replace(_UNBROKEN, " ") for line in wrapper.wrap(whole)]
