"""Files that a TLS library opens by itself: certificates of authorities, of clients, and their keys.

Rules:
1. A library would wait for the other end of a fifo, for good. Whoever hands it a file's name asks here first, and gets the same words.
2. A `SSL_CERT_FILE` that is not there is refused: some libraries pass it over, and whom they believe then is up to the machine.
"""

from __future__ import annotations

from pathlib import Path

from greentic.ground import variables
from greentic.ground.documents import open_file

INSTEAD = "SSL_CERT_FILE"
"""What libraries read in place of the system's file, wherever no authorities are told them."""


def check_file(path: Path, named_by: str) -> None:
    """Raise `OSError` for what is no file that can be opened at once (rule 1)."""
    try:
        open_file(path).close()
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise OSError(f"the file of {named_by} `{path}` cannot be read: {told or error}") from None


def check_instead() -> None:
    """The same for the file in place of the system's, if one is told (rule 2)."""
    instead = variables.path(INSTEAD)
    if instead is not None:
        check_file(instead, INSTEAD)
