"""Which source opens a reference.

A reference is `file://<path>` (as it stands, or with the escapes of URLs), a bare path that exists, `http(s)://…`, or a scheme of a
registry; nothing else is tried. Only what opens it is imported: a client of registries is a good part of what a boot would load.

What is written down for workers has to mean the same everywhere (`settled`): a path counts from the root on, and one from a directory of
whoever wrote it becomes such a path where the file is, or is refused.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from greentic.distribute.file_source import FileSource
from greentic.distribute.source import SignedSource
from greentic.ground.errors import FetchError, InvalidArgument
from greentic.ground.nearest import did_you_mean
from greentic.net.addresses import REGISTRIES, WEB, check_authored, lower_scheme, shown
from greentic.net.document import file_path
from greentic.net.terms import Terms

EXPECTED = "expected local path, file://, http(s)://, oci://, repo://, or store://"


def source_for(reference: str, terms: Terms = Terms(), *, mirror: bool = False) -> tuple[SignedSource, str]:  # noqa: B008  a value
    """The source of a reference, and the reference without blanks around it. Raises `FetchError`, also for a file that is not there.

    `mirror` says that it is not the address that the revision itself names, which decides what credentials go there.
    """
    source, text = _chosen(reference, terms, mirror=mirror)
    if isinstance(source, FileSource) and not _exists(text):
        told = lower_scheme(reference.strip())
        raise FetchError(f"unsupported bundle reference {shown(told)}; {EXPECTED}{_missing(told)}")
    return source, text


def signatures_at(reference: str, terms: Terms) -> list[bytes]:
    """The signatures beside a bundle, which itself need not be there. Raises `FetchError` for a place that cannot be asked."""
    source, text = _chosen(reference, terms, mirror=False)
    return source.signatures(text)


def _chosen(reference: str, terms: Terms, *, mirror: bool) -> tuple[SignedSource, str]:
    text = lower_scheme(reference.strip())
    if not text:
        raise FetchError("bundle reference cannot be empty")
    if text.startswith(WEB):
        from greentic.distribute.http_source import HttpSource

        return HttpSource(terms), text
    if text.startswith(REGISTRIES):
        from greentic.distribute.oci_source import OciSource

        return OciSource(terms, mirror=mirror), text
    if text.startswith("file://") or "://" not in text:
        return FileSource(), file_path(text)
    raise FetchError(f"unsupported bundle reference {shown(text)}; {EXPECTED}")


def is_relative(reference: str) -> bool:
    """Whether what is meant depends on where a program runs."""
    text = lower_scheme(reference.strip())
    return bool(text) and (text.startswith("file://") or "://" not in text) and not Path(file_path(text)).is_absolute()


def _missing(reference: str) -> str:
    there = " below the directory that this program runs in" if is_relative(reference) else ""
    return f" (file not found{there})"


def check_source(reference: str, what: str, base: Path = Path()) -> str:
    """The address as it is written down. Raises `InvalidArgument` for one that no worker could ever pull from."""
    found = settled(reference, what, base)
    reason = never_pulled(found)
    if reason is not None:
        raise InvalidArgument(f"{what} `{shown(reference)}`: {reason}")
    return found


def settled(reference: str, what: str, base: Path = Path()) -> str:
    """The address as it is written down: as it stands, but for a path from `base` on, which becomes one from the root on.

    Raises `InvalidArgument` for a path from nowhere, and for credentials; a path from the root may come to be.
    """
    check_authored(reference, what)
    text = lower_scheme(reference.strip())
    if not text:
        raise InvalidArgument(f"{what} is empty", hint="leave it out where there is none")
    if "://" in text and not text.startswith("file://"):
        return reference
    path = file_path(text)
    if Path(path).is_absolute():
        return reference
    there = (base / path).absolute()
    if not _exists(str(there)):
        raise InvalidArgument(
            f"{what} `{shown(reference)}` is a path from a directory, and no such file is in `{base.absolute()}`; {EXPECTED}",
            hint="put https:// before it if a server is meant; for a file, write its path from the root on",
        )
    return f"file://{there}" if text.startswith("file://") else str(there)


def never_pulled(reference: str) -> str | None:
    """Why no worker could ever pull from an address, or nothing; where a path leads is not asked."""
    text = lower_scheme(reference.strip())
    scheme, found, rest = text.partition("://")
    known = ("http", "https", "file", *(s.removesuffix("://") for s in REGISTRIES))
    if found and scheme not in known:
        return f"no worker pulls from `{scheme[:20]}://`; {EXPECTED}{did_you_mean(scheme, known)}"
    try:
        if text.startswith(WEB):
            at = urlsplit(text)
            if not at.hostname or at.port == 0:
                return "it names no host, or no port that one could listen on"
        elif scheme == "oci" and found:
            from greentic.registry.reference import parse

            parse(rest)
    except ValueError:
        return "its host or port makes no sense"  # not repeated: what should be a port may be a password
    except FetchError as error:
        return error.message
    return None


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, or has a NUL
        return False
