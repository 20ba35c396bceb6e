"""Who may drive a worker over HTTP (formats: worker 8; threats: fail-open-gate). Pure but for reading the file.

Rules:
1. Without a file of tokens the gate is open to everybody, which the worker says at boot.
2. With one it is closed, for every bundle: one that no token names is closed to all, and a list that is empty lets nobody in.
3. A token for one bundle opens that bundle; one without a bundle opens all. Tokens are kept as SHA-256, compared in constant time, and
   may expire.
4. A token for a bundle that is not there is told: it is more likely a misspelt name than a plan. A member that nobody knows, or that
   stands twice, refuses the file, as an end in milliseconds does, or a token that stands twice for one bundle: what was to restrict a
   token would restrict nothing.
5. The tokens may be replaced while requests are checked; a request sees the old list or the new one. A file that does not load, or that is
   gone, changes nothing: a gate that was closed is not opened by an accident.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

import msgspec

from greentic.ground.documents import decode, read_file, repeated_key
from greentic.ground.errors import BootError
from greentic.ground.repeated import repeated
from greentic.store.layout import EnvPaths

TOKENS_FILE = "ingress-tokens.json"
MAX_TOKENS = 4 << 20
TOKENS_VARIABLE = "GREENTIC_INGRESS_TOKENS"
TOKENS_SCHEMA = "greentic.ingress-tokens.v1"


MAX_SECONDS = 100_000_000_000
"""More of them since 1970 are milliseconds."""


class IngressToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One accepted token. `bundle_id` restricts it; `expires_at` is Unix seconds; `note` is for who reads the file."""

    sha256: str
    bundle_id: str | None = None
    expires_at: int | None = None
    note: str | None = None


class IngressTokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: str
    tokens: list[IngressToken]


def load_tokens(paths: EnvPaths, named: Path | None = None) -> list[IngressToken] | None:
    """The tokens of the file `named`, else of `<environment>/ingress-tokens.json`; nothing if there is no such file.

    A named one must be there. Raises `BootError`.
    """
    path = named or paths.root / TOKENS_FILE
    try:
        data = read_file(path, MAX_TOKENS)
        document, twice = decode(data, IngressTokens), repeated_key(data)
    except FileNotFoundError:
        if named is not None:
            raise BootError(f"`{named}` is not there; {TOKENS_VARIABLE} names it") from None
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BootError(f"`{path}` does not load: {why}") from None
    if document.schema != TOKENS_SCHEMA:
        raise BootError(f"`{path}` has the schema `{document.schema}`, expected `{TOKENS_SCHEMA}`")
    if twice is not None:
        raise BootError(f"`{path}`: `{twice}` stands twice in one object, and only one of them can be meant")
    for token in document.tokens:
        if token.expires_at is not None and token.expires_at > MAX_SECONDS:
            raise BootError(
                f"`{path}`: `expires_at` is {token.expires_at}, expected seconds since 1970, not milliseconds"
            )
        if len(token.sha256) != 64 or any(c not in "0123456789abcdef" for c in token.sha256):
            raise BootError(f"`{path}`: a token's sha256 must be 64 lower-case hex digits")
    again = repeated(
        f"{t.sha256} for {'every bundle' if t.bundle_id is None else f'bundle `{t.bundle_id}`'}"
        for t in document.tokens
    )
    if again is not None:
        raise BootError(
            f"`{path}`: the token {again[:12]}…{again[64:]} stands twice, and the later of its ends would count"
        )
    return document.tokens


class BearerGate:
    """Decides about a peer that is not trusted."""

    def __init__(self, tokens: list[IngressToken] | None, *, enabled: bool) -> None:
        self._tokens, self._enabled = tokens, enabled

    def take_over(self, tokens: list[IngressToken] | None) -> bool:
        """Check against these tokens from now on; whether anything changed. No tokens at all are taken for an accident (rule 5)."""
        if tokens is None or tokens == self._tokens:
            return False
        self._tokens = tokens
        return True

    @property
    def configured(self) -> bool:
        """Whether strangers are asked for anything."""
        return self._enabled and self._tokens is not None

    def unknown(self, bundle_ids: Iterable[str]) -> list[str]:
        """The bundles that tokens name and that are not there (rule 4)."""
        named = {t.bundle_id for t in self._tokens or [] if t.bundle_id is not None}
        return sorted(named - set(bundle_ids))

    def lets_in(self, authorization: str | None, bundle_id: str, now: int) -> bool:
        """Whether the request may go on (rules 1 to 3)."""
        tokens = self._tokens
        if not self._enabled or tokens is None:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        digest = (
            hashlib.sha256(token.strip().encode(errors="replace")).hexdigest() if scheme.lower() == "bearer" else ""
        )
        accepted = False
        for candidate in tokens:
            same = hmac.compare_digest(digest, candidate.sha256)
            alive = candidate.expires_at is None or candidate.expires_at > now
            accepted = accepted or (same and alive and candidate.bundle_id in (None, bundle_id))
        return accepted
