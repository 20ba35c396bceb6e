"""Where one bundle can be had: its own address, then the mirrors of the environment. Pure but for the trying.

Rules:
1. A mirror is a template: `{sha256}` becomes the 64 hex digits, `{digest}` all of `sha256:…`, `{name}` the last part of the
   bundle's own address. It may be of any scheme that a bundle may come from.
2. They are tried in order; the next one when one refuses, lies or is gone. What an honest one sent serves the next; what one sent that
   is not the bundle is dropped before.
3. While others are left, one that is busy or silent is passed over at its first word, for a moment's silence, and asked patiently only
   once all have been asked: a limit of one registry is what its mirrors are for.
4. If none has it, the error tells what each said.
5. A mirror is written down without credentials.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from greentic.ground.errors import FetchError, GreenticError, InvalidArgument
from greentic.net.addresses import REGISTRIES, WEB, check_authored, lower_scheme, shown
from greentic.net.terms import Terms, may_pass

_PLACE = r"\{([^}]*)\}"
_KNOWN = ("sha256", "digest", "name")
HASTY_SECONDS = 5.0
"""How long the next byte of a source is waited for while there are others."""
SCHEMES = (*WEB, "file://", *REGISTRIES)

T = TypeVar("T")


def check_mirror(template: str) -> str:
    """The template, or `InvalidArgument`."""
    text = lower_scheme(template.strip())
    check_authored(text, "the mirror")
    unknown = [name for name in re.findall(_PLACE, text) if name not in _KNOWN]
    if unknown:
        raise InvalidArgument(f"mirror `{text}`: unknown `{{{unknown[0]}}}`; there are {', '.join(_KNOWN)}")
    if not text.startswith(SCHEMES):
        raise InvalidArgument(f"mirror `{text}` has no scheme that a bundle may come from: {', '.join(SCHEMES)}")
    if "{sha256}" not in text and "{digest}" not in text and "{name}" not in text:
        raise InvalidArgument(f"mirror `{text}` is the same for every bundle; use {{sha256}}, {{digest}} or {{name}}")
    return text


def references(uri: str, digest: str, mirrors: Sequence[str]) -> list[str]:
    """Every reference of a bundle, in the order of trying, each once."""
    try:
        path = urlsplit(uri).path if "://" in uri else uri
    except ValueError:  # nobody can be asked by it, but the mirrors can
        path = ""
    values = {
        "sha256": digest.removeprefix("sha256:"),
        "digest": digest,
        "name": path.rpartition("/")[2] or "bundle.gtbundle",
    }
    made = [re.sub(_PLACE, lambda place: values.get(place.group(1), place.group(0)), template) for template in mirrors]
    return list(dict.fromkeys([uri, *made]))


def first_of(found: Sequence[str], fetch: Callable[[str, bool], T], told: Callable[[str, str], None]) -> T:
    """What the first reference gives that works, bytes compared: `fetch` raises for the wrong ones.

    `fetch` is told the reference, and whether to be patient (rule 3); `told` hears of each that did not work. Raises what a single one
    raised, else `FetchError`.
    """
    if len(found) == 1:
        return fetch(found[0], True)
    failures = [""] * len(found)
    asked = list(enumerate(found))
    for patient in (False, True):
        again: list[tuple[int, str]] = []
        for place, reference in asked:
            try:
                return fetch(reference, patient)
            except GreenticError as error:
                failures[place] = f"{shown(reference)}: {error.message}"
                told(shown(reference), error.message)
                if isinstance(error, FetchError) and may_pass(error):
                    again.append((place, reference))
        asked = again
    raise FetchError(f"none of {len(found)} sources has the bundle: " + "; ".join(failures))


def hasty(terms: Terms) -> Terms:
    """The terms of who is not patient (rule 3); he tries once."""
    return terms._replace(idle=min(terms.idle, HASTY_SECONDS))
