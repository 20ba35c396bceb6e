"""Identifiers and their grammars.

Rules:
1. An environment id is non-empty ASCII letters, digits, `.`, `-`, `_`, and never `.` or `..` (formats: environment 1; store 1).
2. `bundle_id` and `customer_id` become path parts, so they are single safe path segments, checked where they enter.
3. ULIDs are 26 characters of Crockford base32, written in upper case, accepted in either (formats: environment 1).
4. A `*_ref` is relative to the environment directory, has no empty, `.` or `..` part, and is checked before the disk is touched.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from greentic.ground.clock import Clock, Random
from greentic.ground.errors import InvalidArgument

LOCAL_ENV = "local"
MAX_SEGMENT = 200
"""Longest id, in characters, that is taken as a path part; file systems stop at 255 bytes."""

_ENV_ID = re.compile(r"[A-Za-z0-9._-]+\Z")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")
DIGEST = "sha256:[0-9a-f]{64}"
"""The form of a digest, as a pattern."""
_DIGEST = re.compile(rf"{DIGEST}\Z")
_SEMVER = (
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)

Ulid = Annotated[str, msgspec.Meta(pattern=r"^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$")]
Semver = Annotated[str, msgspec.Meta(pattern=rf"^{_SEMVER}$")]
Timestamp = Annotated[
    str,
    msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$"),
]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0)]


def check_env_id(text: str, *, field: str = "environment_id") -> str:
    """The id itself, or `InvalidArgument` that names `field` (rule 1)."""
    if not text:
        raise InvalidArgument(f"{field}: EnvId must not be empty")
    if not _ENV_ID.match(text):
        raise InvalidArgument(
            f"{field}: EnvId must contain only ASCII letters, digits, '.', '-', or '_', got `{shown(text)}`"
        )
    if text in (".", "..") or len(text) > MAX_SEGMENT:
        raise InvalidArgument(f"{field}: `{shown(text)}` cannot be a directory name (at most {MAX_SEGMENT} long)")
    return text


def is_env_id(text: str) -> bool:
    return bool(_ENV_ID.match(text)) and text not in (".", "..") and len(text) <= MAX_SEGMENT


def check_segment(text: str, *, field: str) -> str:
    """`text` as one safe path part, or `InvalidArgument` (rule 2)."""
    if not text.strip():
        raise InvalidArgument(f"{field} must not be empty")
    if not is_safe_segment(text):
        raise InvalidArgument(
            f"{field} `{shown(text)}` cannot be a path part: it must not be `.` or `..`, nor contain `/`, `\\`, `:`, "
            f"control characters, nor be longer than {MAX_SEGMENT} bytes"
        )
    return text


def is_safe_segment(text: str, most: int = MAX_SEGMENT) -> bool:
    """Whether `text` can stand between two slashes without meaning anything else, and is no longer than `most`: a file's name has 255."""
    return (
        bool(text)
        and text not in (".", "..")
        and len(text.encode("utf-8", "surrogatepass")) <= most
        and not any(c in "/\\:" or ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text)
    )


def is_ulid(text: str) -> bool:
    """Whether `text` is a whole ULID, in either case."""
    return text.isascii() and bool(_ULID.match(text.upper()))


def check_ulid(text: str, *, field: str) -> str:
    """The ULID in upper case, or `InvalidArgument` that names `field` (rule 3)."""
    if len(text) != 26:
        raise InvalidArgument(f"{field}: invalid length: a ULID has 26 characters, `{shown(text)}` has {len(text)}")
    upper = text.upper()
    if not text.isascii() or not _ULID.match(upper):
        raise InvalidArgument(f"{field}: invalid character in ULID `{shown(text)}`")
    return upper


def mint_ulid(clock: Clock, random: Random) -> str:
    """A new ULID: 48 bits of milliseconds, 80 bits of chance."""
    value = (clock.now_ns() // 1_000_000) << 80 | int.from_bytes(random.octets(10), "big")
    return ulid_from_int(value)


def ulid_from_int(value: int) -> str:
    """The 26 characters of a 128-bit number."""
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -5, -5))


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hex digits, the only form that a pin may have."""
    return bool(_DIGEST.match(text))


def digest_of_bytes(data: bytes) -> str:
    from hashlib import sha256  # OpenSSL is a good part of what a verb loads that reads

    return f"sha256:{sha256(data).hexdigest()}"


def is_semver(text: str) -> bool:
    return bool(re.fullmatch(_SEMVER, text, re.ASCII))


def is_contained_ref(ref: str) -> bool:
    """Whether an env-relative reference stays below the environment directory (rule 4)."""
    return bool(ref) and not ref.startswith("/") and all(is_safe_segment(part, 255) for part in ref.split("/"))


def shown(text: str) -> str:
    """`text` short enough and plain enough for a message."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 80 else clean[:77] + "..."
