"""Who may drive a worker over HTTP (spec: worker 4.7, 4.9).

Rules:
1. A loopback peer is trusted; what a proxy header claims about the peer is never believed.
2. Others need a bearer token where a credential is configured for the bundle; without one the route is open, which the
   worker says at boot.
3. Tokens are kept as SHA-256, compared in constant time, and may expire.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Literal

import msgspec

from greentic.ground.errors import BootError
from greentic.store.layout import EnvPaths
from greentic.worker.settings import given_file

TOKENS_FILE = "ingress-tokens.json"
TOKENS_VARIABLE = "GREENTIC_INGRESS_TOKENS"
TOKENS_SCHEMA = "greentic.ingress-tokens.v1"

Verdict = Literal["pass", "unauthorized"]


class IngressToken(msgspec.Struct, frozen=True):
    """One accepted token. `bundle_id` restricts it; `expires_at` is Unix seconds."""

    sha256: str
    bundle_id: str | None = None
    expires_at: int | None = None


class IngressTokens(msgspec.Struct, frozen=True):
    schema: str
    tokens: list[IngressToken]


def load_tokens(paths: EnvPaths) -> list[IngressToken]:
    """The tokens of the file that `GREENTIC_INGRESS_TOKENS` names, else of `<environment>/ingress-tokens.json`.

    None if there is no such file in the environment; a named one must be there. Raises `BootError`.
    """
    named = given_file(os.environ, TOKENS_VARIABLE)
    path = named or paths.root / TOKENS_FILE
    try:
        document = msgspec.json.decode(path.read_bytes(), type=IngressTokens)
    except FileNotFoundError:
        if named is not None:
            raise BootError(f"`{named}` is not there; {TOKENS_VARIABLE} names it") from None
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise BootError(f"`{path}` does not load: {error}") from None
    if document.schema != TOKENS_SCHEMA:
        raise BootError(f"`{path}` has the schema `{document.schema}`, expected `{TOKENS_SCHEMA}`")
    for token in document.tokens:
        if len(token.sha256) != 64 or any(c not in "0123456789abcdef" for c in token.sha256):
            raise BootError(f"`{path}`: a token's sha256 must be 64 lower-case hex digits")
    return document.tokens


class BearerGate:
    """Decides about a peer that is not trusted."""

    def __init__(self, tokens: list[IngressToken], *, enabled: bool) -> None:
        self._tokens, self._enabled = tokens, enabled

    @property
    def configured(self) -> bool:
        return self._enabled and bool(self._tokens)

    def check(self, authorization: str | None, bundle_id: str, now: int) -> Verdict:
        """Whether the request may go on (rules 2 and 3)."""
        if not self._enabled:
            return "pass"
        candidates = [t for t in self._tokens if t.bundle_id in (None, bundle_id)]
        if not candidates:
            return "pass"
        scheme, _, token = (authorization or "").partition(" ")
        digest = (
            hashlib.sha256(token.strip().encode(errors="replace")).hexdigest() if scheme.lower() == "bearer" else ""
        )
        accepted = False
        for candidate in candidates:
            same = hmac.compare_digest(digest, candidate.sha256)
            alive = candidate.expires_at is None or candidate.expires_at > now
            accepted = accepted or (same and alive)
        return "pass" if accepted else "unauthorized"
