"""Which revision of a deployment serves a request (spec: worker 4.7). Pure but for the numbers it is given.

Rules, first hit wins:
1. A valid affinity cookie: its signature fits, it is for this environment, tenant and deployment, of the current
   generation, not expired, and its revision still has weight. Anything else about a cookie is ignored, never an error.
2. A draw by weight, without draining revisions and weights of zero.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from bisect import bisect_right
from typing import NamedTuple

import msgspec

COOKIE_PREFIX = "_gt_rev_"
COOKIE_SECONDS = 3600


class Choice(NamedTuple):
    """One revision that may be drawn."""

    revision_id: str
    weight_bps: int
    draining: bool


class Affinity(msgspec.Struct, frozen=True):
    """What a cookie says."""

    e: str
    t: str
    d: str
    r: str
    g: int
    x: int


class Dispatcher:
    """The revisions of one deployment."""

    def __init__(self, env_id: str, deployment_id: str, choices: list[Choice], *, generation: int, key: bytes) -> None:
        self.env_id, self.deployment_id, self.generation = env_id, deployment_id, generation
        self._key = key
        self.weights = {c.revision_id: c.weight_bps for c in choices}
        """Basis points by revision."""
        drawable = [c for c in choices if c.weight_bps > 0 and not c.draining]
        self._revisions = [c.revision_id for c in drawable]
        self._bounds: list[int] = []
        total = 0
        for choice in drawable:
            total += choice.weight_bps
            self._bounds.append(total)
        self._total = total
        self.cookie_name = f"{COOKIE_PREFIX}{deployment_id}"
        self._cached: dict[tuple[str, str], tuple[int, str]] = {}

    def draw(self, number: float) -> str | None:
        """The revision for a random number in [0, 1); nothing if none may be drawn."""
        if not self._revisions:
            return None
        return self._revisions[min(bisect_right(self._bounds, number * self._total), len(self._revisions) - 1)]

    def pinned(self, cookie: str | None, tenant: str, now: int) -> str | None:
        """The revision that a cookie holds on to, if it is valid (rule 1)."""
        found = None if cookie is None else read_cookie(cookie, self._key)
        if found is None or (found.e, found.t, found.d, found.g) != (
            self.env_id,
            tenant,
            self.deployment_id,
            self.generation,
        ):
            return None
        return found.r if found.x > now and self.weights.get(found.r, 0) > 0 else None

    def set_cookie(self, revision_id: str, tenant: str, now: int) -> str:
        """The `Set-Cookie` value that keeps a caller on its revision; signed anew once a second."""
        cached = self._cached.get((revision_id, tenant))
        if cached is not None and cached[0] == now:
            return cached[1]
        affinity = Affinity(self.env_id, tenant, self.deployment_id, revision_id, self.generation, now + COOKIE_SECONDS)
        value = f"{self.cookie_name}={make_cookie(affinity, self._key)}; Path=/; HttpOnly; SameSite=Lax; Max-Age={COOKIE_SECONDS}"
        self._cached[revision_id, tenant] = (now, value)
        return value


def make_cookie(affinity: Affinity, key: bytes) -> str:
    body = _b64(msgspec.json.encode(affinity))
    return f"{body}.{_b64(hmac.digest(key, body.encode(), hashlib.sha256))}"


def read_cookie(text: str, key: bytes) -> Affinity | None:
    """What a cookie says, if it was signed with this key."""
    body, dot, mac = text.partition(".")
    if not dot or len(text) > 4096:
        return None
    expected = _b64(hmac.digest(key, body.encode(errors="replace"), hashlib.sha256))
    if not hmac.compare_digest(mac.encode(errors="replace"), expected.encode()):
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Affinity)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None


def cookie_named(header: str, name: str) -> str | None:
    """One cookie of a `Cookie` header."""
    for part in header.split(";"):
        key, equals, value = part.strip().partition("=")
        if equals and key == name:
            return value
    return None


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
