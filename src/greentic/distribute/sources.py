"""Which source opens a reference.

A reference is `file://<path>` (as it stands, or with the escapes of URLs), a bare path that exists, `http(s)://…`, or a scheme of a
registry; nothing else is tried. Only what opens it is imported: a client of registries is a good part of what a boot would load.
"""

from __future__ import annotations

from pathlib import Path

from greentic.distribute.file_source import FileSource
from greentic.distribute.source import Source
from greentic.ground.errors import FetchError, InvalidArgument
from greentic.ground.nearest import did_you_mean
from greentic.net.addresses import REGISTRIES, WEB, check_authored, lower_scheme, shown
from greentic.net.document import file_path
from greentic.net.terms import Terms

EXPECTED = "expected local path, file://, http(s)://, oci://, repo://, or store://"


def source_for(reference: str, terms: Terms = Terms(), *, mirror: bool = False) -> tuple[Source, str]:  # noqa: B008  a value
    """The source of a reference, and the reference without blanks around it. Raises `FetchError`.

    `mirror` says that it is not the address that the revision itself names, which decides what credentials go there.
    """
    text = lower_scheme(reference.strip())
    if not text:
        raise FetchError("bundle reference cannot be empty")
    if text.startswith(WEB):
        from greentic.distribute.http_source import HttpSource

        return HttpSource(terms), text
    if text.startswith(REGISTRIES):
        from greentic.distribute.oci_source import OciSource

        return OciSource(terms, mirror=mirror), text
    if text.startswith("file://"):
        path = file_path(text)
        if _exists(path):
            return FileSource(), path
        raise FetchError(f"unsupported bundle reference {text}; {EXPECTED}{_missing(text)}")
    if "://" not in text and _exists(text):
        return FileSource(), text
    missing = _missing(text) if "://" not in text else ""
    raise FetchError(f"unsupported bundle reference {shown(text)}; {EXPECTED}{missing}")


def is_relative(reference: str) -> bool:
    """Whether what is meant depends on where a program runs."""
    text = lower_scheme(reference.strip())
    return bool(text) and (text.startswith("file://") or "://" not in text) and not Path(file_path(text)).is_absolute()


def _missing(reference: str) -> str:
    there = " below the directory that this program runs in" if is_relative(reference) else ""
    return f" (file not found{there})"


def check_source(reference: str, what: str) -> None:
    """Raise `InvalidArgument` for an address that no worker could ever pull from, where it is written down; a path may come to be."""
    check_authored(reference, what)
    scheme, found, _ = lower_scheme(reference.strip()).partition("://")
    known = ("http", "https", "file", *(s.removesuffix("://") for s in REGISTRIES))
    if found and scheme not in known:
        told = f"{what} `{shown(reference)}`: no worker pulls from `{scheme[:20]}://`; {EXPECTED}"
        raise InvalidArgument(told + did_you_mean(scheme, known))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, or has a NUL
        return False
