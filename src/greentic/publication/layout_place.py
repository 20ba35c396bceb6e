"""An OCI image layout as the place of a published environment: a directory, or a web server that serves one.

Rules:
1. `index.json` lists manifests with their names; the environment's own is `latest`. Blobs lie below `blobs/sha256/`.
2. Writing is by content: blobs first, the index last, by a rename. So a reader sees the old environment or the new one.
3. The index lists the newest `MAX_LISTED` manifests; older ones stay where they are, and are found through those that follow them.
4. Over the network the index is asked for with the validator that came with it before (`unchanged`).
"""

from __future__ import annotations

from pathlib import Path

from greentic.ground.disk import io_error, make_directory, replace_file
from greentic.ground.documents import Json, JsonObject, compact, parse, read_file
from greentic.ground.errors import FetchError
from greentic.model.ids import digest_of_bytes
from greentic.net.addresses import shown
from greentic.net.request import check_status, read_body, send
from greentic.net.terms import Terms, patiently
from greentic.publication.artifact import (
    ARTIFACT,
    MAX_LAYER,
    MAX_MANIFEST,
    DamagedPublication,
    NothingPublished,
    as_asked,
)
from greentic.publication.unchanged import INSTEAD, NOT_MODIFIED, Condition
from greentic.registry.media_types import INDEX as INDEX_TYPE
from greentic.registry.media_types import MANIFEST

INDEX, MARK = "index.json", "oci-layout"
NAME, OWN = "org.opencontainers.image.ref.name", "latest"
MAX_INDEX, MAX_LISTED = 1 << 20, 100


def listed(data: bytes, where: str) -> dict[str, str]:
    """The digests of an index by name. Raises `DamagedPublication`."""
    try:
        raw = parse(data, limit=MAX_INDEX)
    except ValueError as error:
        raise DamagedPublication(f"`{where}`: the index does not parse: {error}") from None
    manifests = raw.get("manifests") if isinstance(raw, dict) else None
    if not isinstance(manifests, list):
        raise DamagedPublication(f"`{where}` is no OCI image layout: its index lists no manifests")
    found: dict[str, str] = {}
    for entry in manifests:
        told = entry.get("annotations") if isinstance(entry, dict) else None
        if isinstance(entry, dict) and isinstance(told, dict) and isinstance(told.get(NAME), str):
            found[str(told[NAME])] = str(entry.get("digest"))
    return found


def blob_path(digest: str, where: str) -> str:
    """The relative path of a blob. Raises `DamagedPublication` for a digest that is none."""
    kind, _, hex_digits = digest.partition(":")
    if kind != "sha256" or len(hex_digits) != 64 or not set(hex_digits) <= set("0123456789abcdef"):
        raise DamagedPublication(f"`{where}`: `{digest[:80]}` is no sha256 digest")
    return f"blobs/sha256/{hex_digits}"


def _absent(where: str) -> FetchError:
    return NothingPublished(f"`{where}`: nothing is published there", hint="gtc op env publish ENV DIRECTORY")


class Layout:
    """A directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def newest(self, known: str | None = None) -> bytes | None:
        digest = self._names().get(OWN)
        if digest is None:
            raise _absent(str(self._directory))
        if digest == known:
            return None
        data = self.manifest(digest)
        if data is None:
            raise DamagedPublication(f"`{self._directory}`: the index names {digest}, which is not there")
        return data

    def manifest(self, name: str) -> bytes | None:
        digest = name if name.startswith("sha256:") else self._names().get(name)
        if digest is None:
            return None
        data = self._read(blob_path(digest, str(self._directory)), MAX_MANIFEST)
        return None if data is None else as_asked(data, digest, str(self._directory))

    def blob(self, digest: str, size: int) -> bytes:
        data = self._read(blob_path(digest, str(self._directory)), size)
        if data is None:
            raise DamagedPublication(f"`{self._directory}`: {digest} is not there")
        return data

    def put_blob(self, data: bytes) -> bool:
        path = self._directory / blob_path(digest_of_bytes(data), str(self._directory))
        try:
            if path.exists() and read_file(path, MAX_LAYER) == data:
                return False
            make_directory(path.parent)
            replace_file(path, data, 0o644, durable=True)
        except (OSError, ValueError) as error:
            raise _unwritten(path, error) from error
        return True

    def put_manifest(self, data: bytes, *names: str) -> None:
        self.put_blob(data)
        digest = digest_of_bytes(data)
        known = self._names()
        for name in names or (OWN,):
            known.pop(name, None)
            known = {name: digest, **known}
        own = known.pop(OWN, None)
        kept = ([(OWN, own)] if own is not None else []) + list(known.items())[:MAX_LISTED]
        manifests: list[Json] = [self._entry(name, found) for name, found in kept]
        index: JsonObject = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
        path = self._directory / INDEX
        try:
            replace_file(self._directory / MARK, compact({"imageLayoutVersion": "1.0.0"}), 0o644, durable=True)
            replace_file(path, compact(index), 0o644, durable=True)
        except OSError as error:
            raise io_error(path, error) from error

    def _entry(self, name: str, digest: str) -> JsonObject:
        size = len(self._read(blob_path(digest, str(self._directory)), MAX_MANIFEST) or b"")
        annotations: JsonObject = {NAME: name}
        return {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": size,
            "artifactType": ARTIFACT,
            "annotations": annotations,
        }

    def _names(self) -> dict[str, str]:
        data = self._read(INDEX, MAX_INDEX)
        return {} if data is None else listed(data, str(self._directory))

    def _read(self, relative: str, limit: int) -> bytes | None:
        path = self._directory / relative
        try:
            return read_file(path, limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise FetchError(f"`{path}` cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _unwritten(path: Path, error: Exception) -> Exception:
    return io_error(path, error) if isinstance(error, OSError) else FetchError(f"`{path}`: {error}")


class WebLayout:
    """The same behind a web server, read only."""

    def __init__(self, url: str, terms: Terms) -> None:
        self._base, self._terms = url.rstrip("/"), terms
        self._validator, self._names, self._condition = "", dict[str, str](), Condition()

    def newest(self, known: str | None = None) -> bytes | None:
        self._look()
        digest = self._names.get(OWN)
        if digest is None:
            raise _absent(shown(self._base))
        if digest == known:
            return None
        data = self.manifest(digest)
        if data is None:
            raise DamagedPublication(f"`{shown(self._base)}`: the index names {digest}, which is not there")
        return data

    def manifest(self, name: str) -> bytes | None:
        if not name.startswith("sha256:"):
            self._look()
        digest = name if name.startswith("sha256:") else self._names.get(name)
        if digest is None:
            return None
        data = self._get(blob_path(digest, shown(self._base)), MAX_MANIFEST)
        return None if data is None else as_asked(data, digest, shown(self._base))

    def blob(self, digest: str, size: int) -> bytes:
        data = self._get(blob_path(digest, shown(self._base)), size)
        if data is None:
            raise DamagedPublication(f"`{shown(self._base)}`: {digest} is not there")
        return data

    def put_blob(self, data: bytes) -> bool:
        raise FetchError(f"`{shown(self._base)}` is read only")

    def put_manifest(self, data: bytes, *names: str) -> None:
        raise FetchError(f"`{shown(self._base)}` is read only")

    def _look(self) -> None:
        """Read the index, unless it is the one that is known (rule 4)."""
        url = f"{self._base}/{INDEX}"
        condition = self._condition.of(self._validator)

        def question(terms: Terms) -> None:
            headers = {"If-None-Match": condition} if condition else {}
            answer = send(url, url, terms, headers=headers)
            if answer.status == 404 or (answer.status == NOT_MODIFIED and condition):
                answer.close()
                if answer.status == 404:
                    raise _absent(shown(self._base))
                return
            check_status(answer, url, 200, why=INSTEAD if answer.status == NOT_MODIFIED else "")
            validator = answer.one("ETag")
            self._names = listed(read_body(answer, f"`{shown(url)}`", MAX_INDEX), shown(self._base))
            self._validator = validator

        patiently(question, self._terms)

    def _get(self, relative: str, limit: int) -> bytes | None:
        url = f"{self._base}/{relative}"

        def question(terms: Terms) -> bytes | None:
            answer = send(url, url, terms)
            if answer.status == 404:
                answer.close()
                return None
            check_status(answer, url, 200)
            return read_body(answer, f"`{shown(url)}`", limit)

        return patiently(question, self._terms)
