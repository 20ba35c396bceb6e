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

import msgspec

from greentic.sessions.conversation import Identity

SESSION_COOKIE = "_gt_session"
SESSION_BYTES = 18
SESSION_SECONDS = 86_400
_TEXT = SESSION_BYTES * 4 // 3
MAX_NAME = 256


class Seen(msgspec.Struct, frozen=True):
    """The identity of a request, and whether its session is one that a cookie must carry."""

    identity: Identity
    private: bool


def trusted_identity(user: str | None, session: str | None, endpoint: str | None, body: object) -> Seen:
    """The identity that a trusted peer states (rule 1)."""
    stated = body if isinstance(body, dict) else {}
    return Seen(
        Identity(_name(session) or _name(stated.get("session")), _name(user) or _name(stated.get("user")), endpoint),
        False,
    )


def stranger_identity(cookie: str | None, fresh: bytes, *, shared: bool) -> Seen:
    """The identity of a stranger (rules 2 and 3). `fresh` are unpredictable bytes for a new session."""
    if shared:
        return Seen(Identity(), False)
    if cookie is not None and len(cookie) == _TEXT and cookie.replace("-", "a").replace("_", "a").isalnum():
        return Seen(Identity(session=f"private:{cookie}"), True)
    return Seen(Identity(session=f"private:{base64.urlsafe_b64encode(fresh).decode()}"), True)


def session_cookie(identity: Identity) -> str:
    """The `Set-Cookie` value that lets a stranger come back to a waiting conversation."""
    value = (identity.session or "").removeprefix("private:")
    return f"{SESSION_COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={SESSION_SECONDS}"


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_NAME else None
