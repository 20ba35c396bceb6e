"""Pictures that cards name: fetched here when a person asks for one, so that the page itself loads nothing from elsewhere.

Rules:
1. A picture is fetched once somebody pressed its button, for whoever serves it learns that it was looked at.
2. Only https, only public addresses: a card cannot make this program ask inside of the organisation or on this machine.
3. What comes is bounded, and is a picture by its first bytes, whatever it says to be. Formats that can hold a script are none.
"""

from __future__ import annotations

from greentic.ground import variables
from greentic.ground.errors import FetchError
from greentic.net.addresses import Reach, shown
from greentic.net.request import check_status, read_body, send
from greentic.net.terms import terms_of

MAX_PICTURE = 4 << 20
MAX_URL = 2_048
SECONDS = 10.0
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", b"image/png"),
    (b"\xff\xd8\xff", b"image/jpeg"),
    (b"GIF87a", b"image/gif"),
    (b"GIF89a", b"image/gif"),
)


def kind_of(data: bytes) -> bytes | None:
    """The media type of a picture by its first bytes, or nothing."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return b"image/webp"
    return next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), None)


def fetch_picture(url: str) -> tuple[bytes, bytes]:
    """The media type and the bytes of a picture. Raises `FetchError`."""
    if not url.startswith("https://") or len(url) > MAX_URL:
        raise FetchError("a picture is fetched over https:// alone")
    terms = terms_of(variables.environment())._replace(total=SECONDS, tries=1)
    answer = send(url, url, terms, outermost=Reach.PUBLIC)
    check_status(answer, url, 200)
    data = read_body(answer, f"`{shown(url)}`", MAX_PICTURE)
    kind = kind_of(data)
    if kind is None:
        raise FetchError(f"what `{shown(url)}` answers is no picture: expected PNG, JPEG, GIF or WebP")
    return kind, data
