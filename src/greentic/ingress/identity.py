"""Who asks, as far as the worker believes it (formats: worker 7, 12). Pure.

Rules:
1. Only a trusted peer may say who it speaks for: `x-greentic-user` and `x-greentic-session`, else the texts `user` and
   `session` of the body.
2. A stranger gets a private session, which a cookie with an unguessable value carries. What strangers say about users and
   sessions is ordinary payload.
3. `GREENTIC_ANONYMOUS_SESSIONS=shared` lets strangers share one session, as the existing worker does.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec

from greentic.sessions.conversation import Identity

SESSION_COOKIE = "_gt_session"
SESSION_BYTES = 18
SESSION_SECONDS = 86_400
_TEXT = SESSION_BYTES * 4 // 3
MAX_NAME = 256


class Stated(msgspec.Struct, frozen=True):
    """What a trusted caller states in the fields of a request (rule 1)."""

    user: str | None = None
    session: str | None = None
    endpoint: str | None = None
    revision: str | None = None
    steps: str | None = None


NOTHING = Stated()
_STATED = {
    b"x-greentic-user": "user", b"x-greentic-session": "session", b"x-greentic-messaging-endpoint-id": "endpoint",
    b"x-greentic-revision": "revision", b"x-greentic-steps": "steps",
}  # fmt: skip


def stated(fields: Mapping[bytes, bytes]) -> Stated:
    """What the fields of a trusted caller state."""
    found = _STATED.keys() & fields.keys()
    return Stated(**{_STATED[name]: fields[name].decode("latin-1") for name in found}) if found else NOTHING


class RequestIdentity(msgspec.Struct, frozen=True):
    """The identity of a request, and whether its session is one that a cookie must carry."""

    identity: Identity
    private: bool


def trusted_identity(told: Stated, body: object) -> RequestIdentity:
    """The identity that a trusted peer states (rule 1)."""
    inside = body if isinstance(body, dict) else {}
    session = _name(told.session) or _name(inside.get("session"))
    user = _name(told.user) or _name(inside.get("user"))
    return RequestIdentity(Identity(session, user, told.endpoint), False)


def stranger_identity(cookie: str | None, fresh: bytes, *, shared: bool) -> RequestIdentity:
    """The identity of a stranger (rules 2 and 3). `fresh` are unpredictable bytes for a new session."""
    if shared:
        return RequestIdentity(Identity(), False)
    if cookie is not None and len(cookie) == _TEXT and cookie.replace("-", "a").replace("_", "a").isalnum():
        return RequestIdentity(Identity(session=f"private:{cookie}"), True)
    return RequestIdentity(Identity(session=f"private:{base64.urlsafe_b64encode(fresh).decode()}"), True)


def session_cookie(identity: Identity) -> str:
    """The `Set-Cookie` value that lets a stranger come back to a waiting conversation."""
    value = (identity.session or "").removeprefix("private:")
    return f"{SESSION_COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={SESSION_SECONDS}"


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_NAME else None
