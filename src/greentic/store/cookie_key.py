"""The key of the affinity cookies: the one that a worker shares with others, else its own, made at its first boot.

Rules:
1. A file that is named must hold a whole key, or be absent; then the worker's own counts.
2. The key is 32 bytes and readable by nobody else. One of another length is refused: half a key would throw every caller back.
"""

from __future__ import annotations

from pathlib import Path

from greentic.ground.clock import Random
from greentic.ground.disk import replace_file
from greentic.ground.documents import read_file
from greentic.ground.errors import BootError

COOKIE_KEY_BYTES = 32
_MOST = 1 << 16


def cookie_key(own: Path, shared: Path | None, random: Random) -> bytes:
    """The key. Raises `BootError` for a file of another length, or one that can be neither read nor made."""
    path = own if shared is None else shared
    try:
        key = read_file(path, _MOST)
    except FileNotFoundError:
        if shared is not None:
            return cookie_key(own, None, random)
        key = random.octets(COOKIE_KEY_BYTES)
        try:
            replace_file(path, key, 0o600)
        except OSError as error:
            raise BootError(f"cannot write `{path}`: {error.strerror}") from error
    except OSError as error:
        raise BootError(f"cannot read `{path}`: {error.strerror}") from error
    except ValueError as error:
        raise BootError(f"`{path}` is no key: {error}, expected {COOKIE_KEY_BYTES}") from None
    if len(key) != COOKIE_KEY_BYTES:
        raise BootError(f"`{path}` has {len(key)} bytes, expected {COOKIE_KEY_BYTES}; delete it to regenerate it")
    return key
