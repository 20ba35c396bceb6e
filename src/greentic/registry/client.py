"""Talking to one repository of a registry: requests, who we are, tokens (formats: delivery 3; OCI distribution specification 1.1).

Rules:
1. HTTPS, but for the registries of `GREENTIC_OCI_INSECURE_REGISTRIES`, which are named exactly as references name them.
2. A 401 of the registry itself is answered once: with a bearer token from where its challenge says, else by basic authentication. A
   401 of another server, to which a redirect led, is that server's refusal and nothing more.
3. Credentials go to the registry and to its token server, and nowhere else (`registry/login`). A token is asked for with the scope
   that is needed, never for more because a server says so.
4. Every question is asked on `Terms`: patient by itself, or with one try where the caller is patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec

from greentic.ground import variables
from greentic.ground.documents import decode, parse
from greentic.ground.errors import FetchError, worded
from greentic.net.addresses import Reach, lower_scheme, shown
from greentic.net.request import PULLING, Answer, Upload, check_status, origin, read_body, send
from greentic.net.terms import Terms, patiently
from greentic.registry.challenges import Challenge, challenges
from greentic.registry.login import Credentials, credentials_for, may_have_password
from greentic.registry.reference import DEFAULT_REGISTRY, OciReference

PUSHING = "publishing to"
MAX_TOKEN = 1 << 20
MAX_REASON = 1 << 16
CLIENT_ID = "greentic"

T = TypeVar("T")


class Reason(msgspec.Struct, frozen=True):
    code: str = ""
    message: str | None = None


class RegistryRefusal(msgspec.Struct, frozen=True):
    """The body of an answer that refuses, as registries write it."""

    errors: list[Reason]

    @staticmethod
    def of(data: bytes) -> RegistryRefusal:
        """Raises `ValueError`."""
        return decode(data, RegistryRefusal)


class Registry:
    """One repository of a registry."""

    def __init__(
        self,
        reference: OciReference,
        terms: Terms,
        environ: Mapping[str, str] | None = None,
        *,
        push: bool = False,
        mirror: bool = False,
    ) -> None:
        self._environ = variables.environment() if environ is None else environ
        self._terms = terms
        self.reference = reference
        self._plain = reference.registry in variables.listed("GREENTIC_OCI_INSECURE_REGISTRIES", self._environ)
        self._mirror = mirror
        host = "registry-1.docker.io" if reference.registry == DEFAULT_REGISTRY else reference.registry
        self._base = f"{'http' if self._plain else 'https'}://{host}"
        self._actions = ("pull", "push") if push else ("pull",)
        self.doing = PUSHING if push else PULLING
        self._failed = f"failed to {self._actions[-1]} `{reference}`"
        self._authorization: str | None = None
        self._credentials: Credentials | None = None
        self.reach = Reach.LOOPBACK
        """How far inside the registry is, once it has answered."""

    def __str__(self) -> str:
        return f"oci://{self.reference}"

    def url(self, path: str) -> str:
        return f"{self._base}/v2/{self.reference.repository}/{path}"

    def ask(self, question: Callable[[Terms], T]) -> T:
        """The answer to a question on this registry's terms. Raises `FetchError`."""
        return patiently(question, self._terms)

    def request(
        self,
        url: str,
        terms: Terms,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | Upload | None = None,
    ) -> Answer:
        """Send a request once, with authentication where the registry asks for it. Raises `FetchError`."""
        # A blob may be uploaded or downloaded elsewhere; only the registry's own origin is told who we are.
        ours = origin(url) == origin(self._base)

        def sent() -> Answer:
            return send(
                url, str(self), terms, method=method, headers=headers, body=body,
                authorization=self._authorization if ours else None, outermost=self.reach,
                doing=self.doing,
            )  # fmt: skip

        answer = sent()
        if ours and answer.origin() == origin(self._base):
            self.reach = min(self.reach, answer.reach)
        if answer.status == 401 and answer.origin() == origin(self._base):
            asked = challenges(answer.headers.get_all("WWW-Authenticate", []))
            answer.close()
            self._authorization = self._authenticate(asked, terms)
            answer = sent()
        if answer.status in (401, 403) and answer.origin() == origin(self._base) and "Range" not in (headers or {}):
            answer.close()
            who = "without credentials" if self._credentials is None else f"as `{self._credentials.user}`"
            raise FetchError(
                f"{self._failed}: the registry refuses us {who} (http status: {answer.status})",
                hint="log in with docker or podman, or set OCI_USERNAME, OCI_PASSWORD and OCI_REGISTRY",
            )
        return answer

    def check(self, answer: Answer, *expected: int) -> None:
        """Raise `ServerBusy` or `FetchError`, and close the answer, unless its status is one of the expected.

        Why something is not taken stands in the answer: a size, a name, a quota.
        """
        why = _said(answer) if self.doing == PUSHING and answer.status not in expected else ""
        check_status(answer, str(self), *expected, doing=self.doing, why=why)

    def led_to(self, answer: Answer, before: str) -> str:
        """Where an upload goes on, as an answer says; it is closed. Raises `FetchError`."""
        location = answer.one("Location")
        answer.close()
        try:
            found = urljoin(answer.url, location) if location else before
        except ValueError:
            found = ""
        found = lower_scheme(found)
        if not found.startswith("https://" if before.startswith("https://") else ("https://", "http://")):
            raise FetchError(f"{self._failed}: the registry sends us to `{shown(found)[:200]}`")
        return found

    # -- who we are ---------------------------------------------------------------------------------------------------

    def _authenticate(self, asked: list[Challenge], terms: Terms) -> str | None:
        self._credentials = credentials_for(
            self.reference.registry, self._environ, mirror=self._mirror, repository=self.reference.repository
        )
        bearer = next((c for c in asked if c.scheme == "bearer" and c.parameters.get("realm")), None)
        if bearer is not None:
            return self._token(bearer.parameters, terms)
        if not any(c.scheme == "basic" for c in asked):
            names = ", ".join(c.scheme[:20] for c in asked[:4]) or "nothing that we know"
            raise FetchError(f"{self._failed}: the registry asks for `{names}`, expected Basic or Bearer")
        if self._credentials is None or self._credentials.identity_token is not None:
            return None
        return self._credentials.basic

    def _token(self, parameters: Mapping[str, str], terms: Terms) -> str:
        realm, service = parameters["realm"], parameters.get("service", "")
        try:
            parts, base = urlsplit(realm), urlsplit(self._base)
            host = parts.hostname or ""
        except ValueError:
            raise FetchError(f"{self._failed}: the registry's token server has no address that can be read") from None
        if parts.scheme != "https" and not (self._plain and parts.scheme == "http" and host == base.hostname):
            raise FetchError(
                f"{self._failed}: the registry sends us to `{shown(realm)[:200]}` for a token, which is not https"
            )
        known = self._credentials
        if known is not None and not may_have_password(host, base.hostname or "", self._environ):
            raise FetchError(
                f"{self._failed}: the registry sends us to `{host[:200]}` for a token, a host that is not of its "
                f"domain; it was not told the password",
                hint=f"if it may have it: OCI_USERNAME, OCI_PASSWORD and OCI_REGISTRY={self.reference.registry},{host}",
            )
        scopes = self._scopes(parameters.get("scope", ""))
        identity = None if known is None else known.identity_token
        if identity is not None:
            form = [
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", CLIENT_ID),
                ("refresh_token", identity),
            ]
            body = urlencode([*form, ("scope", " ".join(scopes))]).encode()
            answer = send(
                realm, str(self), terms, method="POST", headers={"Content-Type": "application/x-www-form-urlencoded"}, body=body,
                outermost=self.reach,
                doing=self.doing,
            )  # fmt: skip
        else:
            query = urlencode(([("service", service)] if service else []) + [("scope", scope) for scope in scopes])
            answer = send(
                f"{realm}{'&' if parts.query else '?'}{query}", str(self), terms,
                authorization=None if known is None else known.basic, outermost=self.reach,
                doing=self.doing,
            )  # fmt: skip
        if answer.status in (400, 401, 403, 404):
            answer.close()
            raise FetchError(
                f"{self._failed}: the token endpoint answers http status: {answer.status}",
                hint="log in anew: the password or identity token may have ended",
            )
        self.check(answer, 200)
        return f"Bearer {self._read_token(answer)}"

    def _read_token(self, answer: Answer) -> str:
        data = read_body(answer, f"{self._failed}: the token", MAX_TOKEN)
        try:
            told = parse(data)
        except ValueError:
            told = None
        token = (told.get("token") or told.get("access_token")) if isinstance(told, dict) else None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
            raise FetchError(f"{self._failed}: the token endpoint answered something that is no token")
        return token

    def _scopes(self, told: str) -> list[str]:
        """What a token is asked for: what the challenge names, as far as it is no more than we need, and our own scope (rule 3).

        Some registries name a repository that stands for all, others the one behind the name that was asked for.
        """
        named = [scope for scope in told.split() if self._is_enough(scope)][:8]
        ours = f"repository:{self.reference.repository}:"
        return named if any(n.startswith(ours) for n in named) else [*named, ours + ",".join(self._actions)]

    def _is_enough(self, scope: str) -> bool:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        wanted = set(actions.split(","))
        return kind == "repository" and bool(name) and "pull" in wanted and wanted <= set(self._actions)


def _said(answer: Answer) -> str:
    """What a registry says of what it refuses, in one line without what would steer a terminal; empty where it says nothing."""
    try:
        first = RegistryRefusal.of(read_body(answer, "", MAX_REASON)).errors[0]
    except (FetchError, ValueError, IndexError):
        return ""
    text = worded(first.code, first.message)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:300]
