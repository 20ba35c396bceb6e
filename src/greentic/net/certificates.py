"""Whom TLS believes: the files that a library opens by itself, and what is asked of a chain.

Rules:
1. A library would wait for the other end of a fifo, for good. Whoever hands it a file's name asks here first, and gets the same words.
2. A `SSL_CERT_FILE` that is not there is refused: some libraries pass it over, and whom they believe then is up to the machine.
3. A chain is believed alike on every version of Python, and as curl and Go do: from 3.13 on the library also asks for extensions that
   many authorities of companies and of clusters (EKS among them) do not have. An authority in the middle may be the one that is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from greentic.ground import variables
from greentic.ground.documents import open_file

if TYPE_CHECKING:
    import ssl

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


def alike(context: ssl.SSLContext) -> ssl.SSLContext:
    """The context, asking of a chain what is asked everywhere (rule 3). Names, dates and signatures are compared as before."""
    import ssl

    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    for flag in not_asked():
        context.verify_flags &= ~flag
    return context


def not_asked() -> list[ssl.VerifyFlags]:
    """What is not asked of a chain, for a library that makes its contexts by itself."""
    import ssl

    return [ssl.VerifyFlags.VERIFY_X509_STRICT]
