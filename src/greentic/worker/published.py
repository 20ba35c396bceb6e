"""A published environment as the source of what a worker serves (formats: publication 4).

Rules:
1. It becomes a candidate like any other: what is read here is a seed of one document, which is placed in the store once it passed every
   check. So what the store holds is the last good one.
2. At a boot the published document is served if it can be had and is believed; else the last good one that came from the same place,
   and why is told. Without one the boot ends.
3. The place is asked on condition: what is known is not sent again, across restarts as well.
4. Which environment it is may be left to what is published, and is then remembered with the place.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from greentic.ground.documents import decode, read_file
from greentic.ground.errors import BootError, GreenticError
from greentic.materialize.seed import Seed
from greentic.model.elements import Elements
from greentic.model.environment import DOCUMENT, document_digest
from greentic.model.ids import is_env_id
from greentic.net.addresses import shown
from greentic.publication.artifact import Edition, check_claims
from greentic.publication.place import newest, place_of, read_document
from greentic.store.environments import EnvironmentStore, environment_of
from greentic.worker.candidate import Candidate, read_candidate
from greentic.worker.settings import Settings
from greentic.worker.trust_files import examiner_of

RECORD = "followed.json"
MAX_RECORD = 1 << 16


class Followed(msgspec.Struct, frozen=True):
    """Where the document in the store came from."""

    place: str
    manifest: str
    document: str


class Published:
    """Reads candidates from one place."""

    def __init__(self, store: EnvironmentStore, settings: Settings) -> None:
        """Raises `BootError` if nobody says which environment it is."""
        assert settings.published is not None
        self._store, self._where = store, settings.published.place
        self.warnings: tuple[str, ...] = ()
        self._edition: Edition | None = None
        try:
            self._place = place_of(self._where, settings.terms)
        except GreenticError as error:
            raise BootError(str(error)) from error
        self.settings = settings if settings.published.named else settings._replace(env_id=self._env_id())
        self.elements = Elements()
        """What was read of it before, so that a change of a large one is read as such."""
        self._known: str | None = None
        self._last: Candidate | None = None

    def first(self) -> Candidate:
        """What to boot with (rule 2). Raises `BootError`."""
        kept = self._kept()
        try:
            found = self.read()
            paths = self._store.paths(self.settings.env_id)
            examiner_of(paths, self.settings, self._store.clock).examine(found.env)
        except GreenticError as error:
            cause = f": {error.__cause__}" if isinstance(error.__cause__, GreenticError) else ""
            if kept is None:
                raise BootError(f"booting from the published environment `{shown(self._where)}`") from (
                    error.__cause__ if cause else error
                )
            self.warnings = (
                f"what is published at `{shown(self._where)}` is not served, the last good one is: {error}{cause}",
            )
            return kept
        return found

    def read(self) -> Candidate:
        """What is published now. Raises `GreenticError`."""
        edition, self._edition = self._edition or newest(self._place, self._where, self._known), None
        if edition is None or edition.digest == self._known:
            assert self._last is not None  # what is known was read
            return self._last
        data = read_document(self._place, edition, self._where)
        path = Path(shown(self._where)) / DOCUMENT
        env = environment_of(data, path, self.settings.env_id, self.elements)
        check_claims(edition, env, self._where)
        record = Followed(self._where, edition.digest, edition.document)
        files = ((Path(DOCUMENT), data), (Path(RECORD), msgspec.json.encode(record)))
        self._last = Candidate(env, document_digest(data), Seed(files))
        self._known = edition.digest
        return self._last

    def _kept(self) -> Candidate | None:
        """The last good document, if the store has one from this place."""
        record = _record(self._store.paths(self.settings.env_id).root)
        if record is None or record.place != self._where:
            return None
        try:
            kept = read_candidate(self._store, self.settings, self.elements)
        except BootError:
            return None
        if kept.digest == record.document:  # else the file was edited: what is published is read anew, and replaces it
            self._known, self._last = record.manifest, kept
        return kept

    def _env_id(self) -> str:
        """Which environment the place is of (rule 4). Raises `BootError`."""
        try:
            self._edition = newest(self._place, self._where)
            assert self._edition is not None
            return self._edition.env_id
        except GreenticError as error:
            for directory in sorted(self._store.root.iterdir()) if self._store.root.is_dir() else ():
                record = _record(directory) if is_env_id(directory.name) else None
                if record is not None and record.place == self._where:
                    return directory.name
            raise BootError(f"booting from the published environment `{shown(self._where)}`") from error


def _record(directory: Path) -> Followed | None:
    try:
        return decode(read_file(directory / RECORD, MAX_RECORD), Followed)
    except (OSError, ValueError):
        return None
