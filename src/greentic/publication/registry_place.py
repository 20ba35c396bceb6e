"""A registry as the place of a published environment: a tag is its name, `If-None-Match` the known digest."""

from __future__ import annotations

import io
from urllib.parse import quote

from greentic.ground.errors import InvalidArgument
from greentic.model.ids import digest_of_bytes
from greentic.net.request import check_status, read_body
from greentic.net.terms import Terms
from greentic.publication.artifact import MAX_MANIFEST, NothingPublished, as_asked
from greentic.publication.unchanged import INSTEAD, NOT_MODIFIED, Condition
from greentic.registry.client import Registry
from greentic.registry.manifests import put_manifest
from greentic.registry.media_types import MANIFEST
from greentic.registry.reference import OciReference
from greentic.registry.upload import put_blob


class RegistryPlace:
    """One tag of one repository."""

    def __init__(self, reference: OciReference, terms: Terms, *, push: bool) -> None:
        if push and reference.digest is not None:
            raise InvalidArgument(f"`{reference}` names a digest; publish under a tag")
        self._reference, self._registry = reference, Registry(reference, terms, push=push)
        self._condition = Condition()

    def newest(self, known: str | None = None) -> bytes | None:
        data, unchanged = self._manifest(self._reference.wanted, known, self._condition.of(known))
        if data is None and not unchanged:
            raise NothingPublished(
                f"`{self._registry}`: nothing is published there", hint="gtc op env publish ENV oci://…"
            )
        return data

    def manifest(self, name: str) -> bytes | None:
        return self._manifest(name, None, None)[0]

    def blob(self, digest: str, size: int) -> bytes:
        def question(terms: Terms) -> bytes:
            answer = self._registry.request(self._registry.url(f"blobs/{digest}"), terms)
            check_status(answer, str(self._registry), 200)
            return read_body(answer, f"`{self._registry}`: the layer", size)

        return self._registry.ask(question)

    def put_blob(self, data: bytes) -> bool:
        return put_blob(self._registry, io.BytesIO(data), digest_of_bytes(data), len(data))

    def put_manifest(self, data: bytes, *names: str) -> None:
        for name in names or (self._reference.wanted,):
            put_manifest(self._registry, name, data, MANIFEST)

    def _manifest(self, name: str, known: str | None, condition: str | None) -> tuple[bytes | None, bool]:
        """A manifest, or nothing and whether it is the known one."""

        def question(terms: Terms) -> tuple[bytes | None, bool]:
            headers = {"Accept": MANIFEST} | ({} if condition is None else {"If-None-Match": f'"{condition}"'})
            url = self._registry.url(f"manifests/{quote(name, safe=':')}")
            answer = self._registry.request(url, terms, headers=headers)
            if answer.status == 404 or (answer.status == NOT_MODIFIED and condition is not None):
                answer.close()
                return None, answer.status == NOT_MODIFIED
            check_status(answer, str(self._registry), 200, why=INSTEAD if answer.status == NOT_MODIFIED else "")
            data = read_body(answer, f"`{self._registry}`: the manifest", MAX_MANIFEST)
            return as_asked(data, name, str(self._registry)), False

        data, unchanged = self._registry.ask(question)
        if data is None or known is None or digest_of_bytes(data) != known:
            return data, unchanged
        return None, True
