"""International host names in the one form that is compared, resolved and sent. Pure.

Rules:
1. A host is made ASCII once, where it comes in: what is checked, looked up, told a proxy and named to a server is the same text.
2. Names are read as browsers read them (`ß` and `ς` are letters of their own), one label after the other. Characters that look like
   others become those first: a name in wide letters is the plain name, and a list that forbids that one forbids it.
3. What no name can be made of is refused with the reason, never with an error of a codec.
"""

from __future__ import annotations

import re

_DOTS = re.compile("[.。．｡]")
_KEPT = re.compile("([ßς])")
"""Letters that an older reading replaces by others."""
_JOINERS = "\u200c\u200d"
_LABEL = re.compile(r"[a-z0-9_-]{1,63}\Z")


def ascii_host(host: str) -> str:
    """The host in ASCII, lower case; what is ASCII already is only made lower. Raises `ValueError`."""
    if host.isascii():
        return host.lower()
    labels = [_label(label) for label in _DOTS.split(host)]
    if not labels[-1]:
        labels.pop()  # the dot of the root
    for label in labels:
        if not _LABEL.match(label):
            raise ValueError(f"`{host[:80]}` is no name of a host")
    if len(found := ".".join(labels)) > 253:
        raise ValueError(f"`{host[:80]}` is longer than a name of a host may be")
    return found


def _label(text: str) -> str:
    if text.isascii():
        return text.lower()
    from encodings.idna import nameprep  # its tables are loaded by who needs them

    if any(c in text for c in _JOINERS):
        raise ValueError(
            f"`{text[:60]!a}` has a character that cannot be seen; write the name in its ASCII form, `xn--…`"
        )
    try:
        plain = "".join(part if _KEPT.match(part) else nameprep(part) for part in _KEPT.split(text.replace("ẞ", "ß")))
        return plain if plain.isascii() else f"xn--{plain.encode('punycode').decode('ascii')}"
    except UnicodeError as error:
        raise ValueError(
            f"`{text[:60]!a}` cannot be part of a host name ({error}); write the name in its ASCII form, `xn--…`"
        ) from None
