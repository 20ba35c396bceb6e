"""Documents of a bounded size that stand at an address: signatures and lists of what is revoked."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from greentic.ground.documents import read_file
from greentic.ground.errors import FetchError, InvalidArgument
from greentic.net.addresses import WEB, lower_scheme, shown
from greentic.net.terms import Terms, patiently

NOT_THERE = frozenset({404, 410})
READING = "read"
"""What errors call it: a list or a signature is no bundle."""


def read_small(
    reference: str, limit: int, terms: Terms, *, absent: frozenset[int] = NOT_THERE, doing: str = READING
) -> bytes | None:
    """A small document over http, https or from a file; nothing if it is not there, which `absent` says. Raises `FetchError`."""
    reference = lower_scheme(reference)
    if not reference.startswith(WEB):
        if "://" in reference and not reference.startswith("file://"):
            raise FetchError(f"`{shown(reference)}` is no address of a document; expected https://, http:// or file://")
        return _file(Path(file_path(reference)), limit)
    from greentic.net.request import check_status, read_body, send  # HTTP is loaded by who asks

    def asked(begun: Terms) -> bytes | None:
        answer = send(reference, reference, begun, doing=doing)
        if answer.status in absent:
            answer.close()
            return None
        check_status(answer, reference, 200, doing=doing)
        return read_body(answer, f"`{shown(reference)}`", limit)

    return patiently(asked, terms.soon())


def check_small(reference: str, what: str) -> str:
    """The address of a small document. Raises `InvalidArgument` for one that nobody could read from."""
    text = lower_scheme(reference.strip())
    if "://" in text and not text.startswith((*WEB, "file://")):
        raise InvalidArgument(
            f"{what} `{shown(reference)}` is no address of a document; expected https://, http:// or file://"
        )
    return reference


def file_path(reference: str) -> str:
    """The path of a `file://` address or of a path: as it stands if there is something, else with the escapes of URLs undone."""
    reference = lower_scheme(reference)
    text = reference.removeprefix("file://")
    if text != reference and text.startswith("localhost/"):
        text = text.removeprefix("localhost")
    return text if text == reference or os.path.lexists(text) else unquote(text, errors="surrogateescape")


def _file(path: Path, limit: int) -> bytes | None:
    try:
        return read_file(path, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FetchError(f"`{path}` cannot be read: {error.strerror}") from None
    except ValueError as error:  # too large, or no name of a file
        raise FetchError(f"`{path}` cannot be read: {error}") from None
