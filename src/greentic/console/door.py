"""Who may look through the console (threats: host-rebinding, foreign-page). Pure.

Rules:
1. The first address holds a token that nobody can guess. It is exchanged for a cookie with another value, which scripts do not see and
   which no other site's pages send along.
2. `Host` is one of ours, with our port: a name of somebody else's that resolves to this machine reaches nothing.
3. `Origin` is absent or ours, and the browser does not say that another site asks. Links from elsewhere lead nowhere, either.
4. What changes or sends something needs an `Origin` of ours and a header that no form can send.
5. Whoever may not enter learns no more than that.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import Literal

from greentic.ground.clock import RANDOM, Random
from greentic.ingress.trusted_peer import OWN_SITE

SECRET_BYTES = 24
HEADER = b"x-greentic-console"
"""Sent by the page with whatever it asks to be done (rule 4)."""

Verdict = Literal["pass", "stranger", "foreign"]


class Door:
    """Decides about the requests of one console."""

    def __init__(self, port: int, random: Random = RANDOM) -> None:
        self.token, self._session = _secret(random), _secret(random)
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}
        self.cookie_name = f"greentic_console_{port}"
        """Cookies belong to a host and not to a port; consoles beside each other have names of their own."""

    def judge(self, method: str, fields: Mapping[bytes, bytes]) -> Verdict:
        """Whether a request may go on. `fields` have names in lower case."""
        host, origin = fields.get(b"host", b"").lower(), fields.get(b"origin")
        if host not in self._hosts or fields.get(b"sec-fetch-site", b"").lower() not in OWN_SITE:
            return "foreign"
        if origin is not None and origin.lower() != b"http://" + host:
            return "foreign"
        if method not in ("GET", "HEAD") and (origin is None or fields.get(HEADER) != b"1"):
            return "foreign"
        return "pass" if _same(self._cookie(fields), self._session) else "stranger"

    def opens(self, token: str) -> bool:
        """Whether this is the token of the first address."""
        return _same(token, self.token)

    def set_cookie(self) -> bytes:
        """The cookie that the token is exchanged for."""
        return f"{self.cookie_name}={self._session}; Path=/; HttpOnly; SameSite=Strict".encode()

    def _cookie(self, fields: Mapping[bytes, bytes]) -> str:
        for part in fields.get(b"cookie", b"").decode("latin-1").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name:
                return value
        return ""


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(errors="replace"), right.encode())


def _secret(random: Random) -> str:
    return base64.urlsafe_b64encode(random.octets(SECRET_BYTES)).decode()
