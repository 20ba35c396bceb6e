"""The files of the page, as they lie in the package, and the terms on which a browser takes them.

Rules:
1. Nothing is loaded from elsewhere, and nothing inline runs: scripts and styles are files of this package. Pictures come from here or from
   what this program fetched.
2. A name is looked up in a list that was made at the start; no path of a request reaches the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from greentic.httpd.http1 import Headers

_DIRECTORY = Path(__file__).parent / "static"
_KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
SAFE: Headers = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
"""On every answer."""


class PageFile(NamedTuple):
    """One file of the page."""

    kind: bytes
    data: bytes


def page_files() -> dict[str, PageFile]:
    """Every file by the path that a browser asks for."""
    found: dict[str, PageFile] = {}
    for path in sorted(_DIRECTORY.rglob("*")):
        if path.suffix in _KINDS:
            name = path.relative_to(_DIRECTORY).as_posix()
            found["/" if name == "index.html" else f"/static/{name}"] = PageFile(_KINDS[path.suffix], path.read_bytes())
    return found
