"""Talking to a registry: manifests, blobs, tokens (spec: worker 3.4; OCI distribution specification 1.1).

Rules:
1. HTTPS, but for the registries of `GREENTIC_OCI_INSECURE_REGISTRIES`, which are named exactly as references name them.
2. A 401 is answered once: by basic authentication, or by fetching a bearer token from where the challenge says. Credentials go
   to the registry and to a token endpoint over https (or of an insecure registry on the same host), and nowhere else.
3. A manifest is bounded in size, and is the one that its digest names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlencode, urljoin, urlsplit

from greentic.ground.errors import FetchError
from greentic.net.request import Answer, check_status, read_body, send
from greentic.registry.login import Credentials, credentials_for
from greentic.registry.reference import DEFAULT_REGISTRY, OciReference

MAX_MANIFEST = 4 << 20
MAX_TOKEN = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPTED = (
    MANIFEST, INDEX, "application/vnd.oci.artifact.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)  # fmt: skip
_PARAMETER = re.compile(r'([A-Za-z_]+)="([^"]*)"')


class Manifest(NamedTuple):
    """A manifest as it came."""

    digest: str
    media_type: str
    document: dict[str, object]


def insecure_registries(environ: Mapping[str, str]) -> frozenset[str]:
    listed = environ.get("GREENTIC_OCI_INSECURE_REGISTRIES", "").split(",")
    return frozenset(name.strip() for name in listed if name.strip())


class Registry:
    """One repository of a registry."""

    def __init__(
        self, reference: OciReference, environ: Mapping[str, str] | None = None, *, push: bool = False
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self.reference = reference
        self._plain = reference.registry in insecure_registries(self._environ)
        host = "registry-1.docker.io" if reference.registry == DEFAULT_REGISTRY else reference.registry
        self._base = f"{'http' if self._plain else 'https'}://{host}"
        self._scope = f"repository:{reference.repository}:{'pull,push' if push else 'pull'}"
        self._authorization: str | None = None
        self._credentials: Credentials | None = None

    def url(self, path: str) -> str:
        return f"{self._base}/v2/{self.reference.repository}/{path}"

    def request(
        self, url: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send a request, with authentication where the registry asks for it. Raises `FetchError`."""
        shown = f"oci://{self.reference}"
        # A blob may be uploaded or downloaded elsewhere; only the registry's own host is told who we are.
        ours = urlsplit(url)[:2] == urlsplit(self._base)[:2]
        answer = send(
            url, shown, method=method, headers=headers, body=body, authorization=self._authorization if ours else None
        )
        if answer.status == 401 and ours:
            challenge = answer.headers.get("WWW-Authenticate") or ""
            answer.close()
            self._authorization = self._authenticate(challenge, shown)
            answer = send(url, shown, method=method, headers=headers, body=body, authorization=self._authorization)
        if answer.status in (401, 403):
            answer.close()
            who = "without credentials" if self._credentials is None else f"as `{self._credentials.user}`"
            raise FetchError(
                f"failed to pull `{self.reference}`: the registry refuses us {who} (http status: {answer.status})",
                hint="log in with docker or podman, or set OCI_USERNAME and OCI_PASSWORD",
            )
        return answer

    def manifest(self, wanted: str) -> Manifest:
        """A manifest by tag or digest. Raises `FetchError`."""
        answer = self.request(self.url(f"manifests/{quote(wanted, safe=':')}"), headers={"Accept": ", ".join(ACCEPTED)})
        check_status(answer, f"oci://{self.reference}", 200)
        data = read_body(answer, f"failed to pull `{self.reference}`: the manifest", MAX_MANIFEST)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if wanted.startswith("sha256:") and digest != wanted:
            raise FetchError(f"digest mismatch for `{self.reference}`: expected {wanted}, got {digest}")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise FetchError(f"failed to pull `{self.reference}`: the manifest is no JSON object")
        told = (answer.headers.get("Content-Type") or "").partition(";")[0].strip()
        media_type = document.get("mediaType")
        return Manifest(digest, media_type if isinstance(media_type, str) else told, document)

    # -- authentication ---------------------------------------------------------------------------------------------

    def _authenticate(self, challenge: str, shown: str) -> str | None:
        self._credentials = credentials_for(self.reference.registry, self._environ)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            return None if self._credentials is None else self._credentials.basic
        if scheme.lower() != "bearer":
            raise FetchError(
                f"failed to pull `{self.reference}`: the registry asks for `{scheme[:20]}`, expected Basic or Bearer"
            )
        parameters = dict(_PARAMETER.findall(rest))
        return self._token(parameters.get("realm", ""), parameters.get("service"), shown)

    def _token(self, realm: str, service: str | None, shown: str) -> str:
        parts = urlsplit(realm)
        base = urlsplit(self._base)
        trusted = parts.scheme == "https" or (
            self._plain and parts.scheme == "http" and parts.hostname == base.hostname
        )
        if parts.scheme not in ("http", "https") or not trusted:
            raise FetchError(
                f"failed to pull `{self.reference}`: the registry sends us to `{realm[:200]}` for a token, which is not https"
            )
        query = {"scope": self._scope} | ({"service": service} if service else {})
        url = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
        basic = None if self._credentials is None else self._credentials.basic
        answer = send(url, shown, authorization=basic)
        try:
            if answer.status != 200:
                raise FetchError(
                    f"failed to pull `{self.reference}`: the token endpoint answers http status: {answer.status}"
                )
            told = json.loads(answer.body.read(MAX_TOKEN))
            token = told.get("token") or told.get("access_token")
        except (OSError, ValueError, AttributeError):
            token = None
        finally:
            answer.close()
        if not isinstance(token, str) or not token or not token.isascii() or any(c.isspace() for c in token):
            raise FetchError(
                f"failed to pull `{self.reference}`: the token endpoint answered something that is no token"
            )
        return f"Bearer {token}"

    # -- writing ----------------------------------------------------------------------------------------------------

    def has_blob(self, digest: str) -> bool:
        answer = self.request(self.url(f"blobs/{digest}"), method="HEAD")
        answer.close()
        return answer.status == 200

    def start_upload(self) -> str:
        """Where a blob is to be put. Raises `FetchError`."""
        answer = self.request(self.url("blobs/uploads/"), method="POST", body=b"")
        location = answer.headers.get("Location") or ""
        check_status(answer, f"oci://{self.reference}", 202)
        answer.close()
        return urljoin(self._base, location)

    def put_manifest(self, wanted: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; its digest. Raises `FetchError`."""
        answer = self.request(
            self.url(f"manifests/{quote(wanted, safe=':')}"),
            method="PUT",
            headers={"Content-Type": media_type},
            body=data,
        )
        check_status(answer, f"oci://{self.reference}", 200, 201)
        answer.close()
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
