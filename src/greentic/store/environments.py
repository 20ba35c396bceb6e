"""Environments on disk: load, list, change under the lock, project (formats: store 4; environment 11).

Rules:
1. `environment.json` is the one truth; the runtime configuration is made from it and may be deleted at any time.
2. Whatever is loaded was validated; whatever is saved was validated before a byte was written.
3. Changes happen inside `transaction`, under the lock, on a freshly loaded document. Entering it first finishes what a
   killed process left: temporary files, the missing audit event, half-swapped revisions.
4. What is saved was read back from its very bytes before it replaces the old, so no value from outside makes a document that no later
   command can read (threats: poisoned-document).
5. A document whose bytes are those that were read last is the value that came of them: a verb of several steps makes one of it once, and
   once more after each change. The bytes are read each time, so nobody is told what was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from greentic.ground.clock import Clock, Random, SystemClock, SystemRandom
from greentic.ground.disk import LOCK_SECONDS, Disk, RealDisk, io_error
from greentic.ground.documents import Document, check_each_once, decode, from_json, parse, pretty, read_file
from greentic.ground.errors import (
    Conflict,
    GreenticError,
    InvalidArgument,
    NotFound,
    SpecViolation,
    StoreError,
    TrustRootError,
)
from greentic.ground.lock import held
from greentic.ground.nearest import did_you_mean
from greentic.model.delivery import MEMBER, generation_of
from greentic.model.elements import Elements
from greentic.model.environment import DOCUMENT, Environment
from greentic.model.ids import check_env_id, is_env_id
from greentic.model.projection import RUNTIME_SCHEMA, EnvironmentRuntime, Projected
from greentic.model.validate import check_schema, validate, validate_change
from greentic.store.audit import AuditLog
from greentic.store.files import Files
from greentic.store.layout import EnvPaths
from greentic.store.ledger import Ledger
from greentic.store.recovery import recover_revisions

if TYPE_CHECKING:
    from greentic.trust.root import TrustRoot

_D = TypeVar("_D", bound=Document)
_R = TypeVar("_R")

MAX_DOCUMENT = 64 << 20
"""Most bytes of a store document that is read."""
MAX_TRUST_ROOT = 4 << 20


class Broken(msgspec.Struct, frozen=True):
    """An environment directory that does not load, and why."""

    environment_id: str
    kind: str
    message: str


class EnvironmentStore:
    """All environments below one root."""

    def __init__(
        self,
        root: Path,
        *,
        disk: Disk | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        lock_wait_seconds: float = LOCK_SECONDS,
    ) -> None:
        self.root = root
        self.disk: Disk = disk or RealDisk()
        self.clock: Clock = clock or SystemClock()
        self.random: Random = random or SystemRandom()
        self._lock_wait = lock_wait_seconds
        self._last: tuple[str, bytes, Environment] | None = None
        """The document that was read last (rule 5)."""

    def paths(self, env_id: str) -> EnvPaths:
        """The directory of an environment. Raises `InvalidArgument` for an id that is no safe directory name."""
        return EnvPaths(self.root / check_env_id(env_id))

    def existing(self, env_id: str) -> EnvPaths:
        """The directory of an environment that is there. Raises `NotFound` or `IoError`."""
        paths = self.paths(env_id)
        if not self.exists(env_id):
            there = sorted(p.parent.name for p in self.root.glob("*/environment.json") if is_env_id(p.parent.name))
            meant = did_you_mean(env_id, there)
            hint = f"list them: gtc op env list; create it: gtc op env create {env_id} --name {env_id}"
            raise NotFound(f"environment `{env_id}`{meant}", hint=hint)
        return paths

    def exists(self, env_id: str) -> bool:
        """Whether there is a document. Raises `IoError` where that cannot be seen: what may be there is not made anew."""
        path = self.paths(env_id).environment
        try:
            return path.exists()
        except OSError as error:
            raise io_error(path, error) from error

    def load(self, env_id: str, elements: Elements | None = None) -> Environment:
        """The validated environment. Raises `NotFound` or `StoreError`."""
        path = self.paths(env_id).environment
        try:
            data = document_bytes(self.existing(env_id).environment)
            if elements is not None:
                return environment_of(data, path, env_id, elements)
            last = self._last
            if last is None or last[:2] != (env_id, data):
                env = _valid(_of(document_of(data, path, Environment), env_id), path)
                last = self._last = (env_id, data, env)
            return last[2]
        except StoreError as error:
            error.hint = error.hint or _next_step(env_id, path)
            raise

    def names(self, env_id: str) -> dict[str, str]:
        """What people call what an environment has today, by ULID; nothing where its document cannot be read, which others tell."""
        from greentic.model.naming import names_of  # for who reads a log or an error; no boot needs it

        try:
            return names_of(self.load(env_id))
        except GreenticError:
            return {}

    def survey(self) -> tuple[list[Environment], list[Broken]]:
        """Every environment that loads, and every directory with a document that does not, both sorted by id."""
        good: list[Environment] = []
        broken: list[Broken] = []
        if os.path.lexists(self.root) and not self.root.is_dir():
            raise InvalidArgument(
                f"`{self.root}` is no directory of environments", hint="name one with --store-root DIR"
            )
        if self.root.is_dir():
            for directory in sorted(self.root.iterdir(), key=lambda p: os.fsencode(p.name)):
                name = directory.name
                if not is_env_id(name) or not (directory / DOCUMENT).is_file():
                    continue
                try:
                    good.append(self.load(name))
                except GreenticError as error:
                    broken.append(Broken(name, error.kind, str(error)))
        return good, broken

    def trust_root(self, env_id: str) -> TrustRoot:
        """The environment's trust root; empty if there is no file. Raises `TrustRootError` or `IoError`."""
        from greentic.trust.root import EMPTY, read_trust_root  # likewise

        path = self.paths(env_id).trust_root
        try:
            return read_trust_root(read_file(path, MAX_TRUST_ROOT))
        except FileNotFoundError:
            return EMPTY
        except OSError as error:
            raise io_error(path, error) from error
        except ValueError as error:
            raise TrustRootError(f"{path}: {error}") from None

    def runtime(self, env_id: str) -> EnvironmentRuntime | None:
        """`runtime.json`, if there is one. Raises `StoreError`."""
        path = self.paths(env_id).runtime
        if not path.exists():
            return None
        runtime = read_document(path, EnvironmentRuntime)
        try:
            check_schema(runtime.schema, RUNTIME_SCHEMA)
        except SpecViolation as error:
            raise StoreError(str(error)) from None
        if runtime.environment_id != env_id:
            raise StoreError(f"environment_id mismatch: file is `{env_id}`, value is `{runtime.environment_id}`")
        return runtime

    @contextmanager
    def transaction(self, env_id: str, *, may_create: bool = False) -> Iterator[Transaction]:
        """Hold the environment's lock. A missing environment is `NotFound` unless `may_create`, and leaves no trace."""
        paths = self.paths(env_id) if may_create else self.existing(env_id)
        with held(paths.lock, self.disk, self.clock, wait_seconds=self._lock_wait):
            transaction = Transaction(self, env_id, paths)
            try:
                transaction.recover()
                yield transaction
            except OSError as error:
                raise io_error(error.filename or paths.root, error) from error


class Transaction:
    """What may be done while the lock is held."""

    def __init__(self, store: EnvironmentStore, env_id: str, paths: EnvPaths) -> None:
        self.store, self.env_id, self.paths = store, env_id, paths
        self.files = Files(store.disk, store.clock, store.random, paths.backups)
        self.audit = AuditLog(paths, store.disk, store.clock, store.random)
        self.ledger = Ledger(paths.ledger, self.files, store.clock)
        self.committed = False
        """Whether a document was changed since the lock was taken."""

    def recover(self) -> None:
        """Finish what a killed process left (rule 3)."""
        self.files.sweep(self.paths.root)
        self.files.sweep(self.paths.audit.parent)
        recover_revisions(self.paths, self.store.disk, self.store.clock)
        self.audit.repair()

    def load(self, elements: Elements | None = None) -> Environment:
        """The validated environment; `elements` are those of the one that was read before. Raises `NotFound` or `StoreError`."""
        return self.store.load(self.env_id, elements)

    def save(self, env: Environment) -> None:
        """Validate, back up, write. Raises `SpecViolation`; nothing is written then."""
        if env.environment_id != self.env_id:
            raise Conflict(f"the lock is held for env `{self.env_id}`, the document is `{env.environment_id}`")
        validate(env)
        if MEMBER in env.extra:
            from greentic.store.seal import (
                sealed,  # keys and signatures: few environments are sealed, and who reads seals nothing
            )

            env = sealed(env, self.store.trust_root(self.env_id), self.store.disk, self.store.clock)
        self.files.replace(self.paths.environment, readable(env, self.paths.environment))
        self.committed = True

    def create(self, env: Environment) -> None:
        """`save` for a new environment. Raises `Conflict` if there is one."""
        if self.paths.environment.exists():
            raise Conflict(f"environment `{self.env_id}` already exists")
        self.save(env)

    def save_trust_root(self, root: TrustRoot) -> None:
        self.files.replace(self.paths.trust_root, readable(root, self.paths.trust_root))
        self.committed = True

    def save_runtime(self, runtime: EnvironmentRuntime) -> None:
        self.files.replace(self.paths.runtime, readable(runtime, self.paths.runtime))
        self.committed = True

    def refresh_projection(
        self, env: Environment, *, skipped: frozenset[str] = frozenset(), projected: Projected | None = None
    ) -> None:
        """Make `runtime-config.json` what the environment projects to; an equal file is left alone.

        `projected` is what made it the last time, for whoever does so again and again.
        """
        projected = projected or Projected()
        before, path = projected.text, self.paths.runtime_config
        data = projected.of(env, skipped)
        if data is None:
            self.files.delete(path)
        elif not _holds(path, data, before):
            self.files.replace(path, data)


def environment_of(data: bytes, path: Path, env_id: str, elements: Elements | None = None) -> Environment:
    """The validated environment in some bytes; `path` is what errors call it, `elements` what was read before. Raises `StoreError`."""
    if len(data) > MAX_DOCUMENT:
        raise StoreError(f"{path} is larger than {MAX_DOCUMENT} bytes")
    elements = elements or Elements()
    try:
        env = _of(_read(elements.environment, data, path), env_id)
        if elements.valid is not env:
            _read(lambda text: check_each_once(text, pretty(env)), data, path)
    except StoreError as error:
        error.hint = error.hint or _next_step(env_id, path)
        raise
    if elements.valid is not env:
        elements.valid = _valid(env, path, elements.valid)
    return env


def _of(env: Environment, env_id: str) -> Environment:
    if env.environment_id != env_id:
        raise StoreError(f"environment_id mismatch: file is `{env_id}`, value is `{env.environment_id}`")
    return env


def _valid(env: Environment, path: Path, before: Environment | None = None) -> Environment:
    try:
        if before is None:
            validate(env)
        else:
            validate_change(env, before)
    except SpecViolation as error:
        raise StoreError(str(error), hint=_next_step(env.environment_id, path)) from None
    return env


def _next_step(env_id: str, path: Path) -> str:
    backups = path.parent / "backups"
    if not backups.is_dir():  # a seed has none, nor what somebody wrote by hand
        return (
            f"`gtc op env doctor {env_id}` examines it; no backups lie beside `{path}`, so mend it where it is written"
        )
    return f"`gtc op env doctor {env_id}` examines it; backups of the document are in `{backups}`"


def read_document(path: Path, form: type[_D]) -> _D:
    """Parse a store document. Raises `StoreError` that names the file and the place."""
    return document_of(document_bytes(path), path, form)


def read_generation(path: Path) -> int:
    """The generation of a document, for which its records are not looked at. Raises like `read_document`."""

    def counted(text: bytes) -> Environment:
        members = decode(text, dict[str, msgspec.Raw])
        few = {name: parse(bytes(value)) for name, value in members.items() if name not in ("bundles", "revisions")}
        return from_json(Environment, {**few, "bundles": [], "revisions": []})

    return generation_of(_read(counted, document_bytes(path), path))


def document_bytes(path: Path) -> bytes:
    """The bytes of a store document. Raises `StoreError`, also for more than may be read."""
    try:
        return read_file(path, MAX_DOCUMENT)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    except ValueError:
        raise StoreError(f"{path} is larger than {MAX_DOCUMENT} bytes") from None


def document_of(data: bytes, path: Path, form: type[_D]) -> _D:
    """The document in some bytes. Raises `StoreError` that names the file and the place."""

    def read(text: bytes) -> _D:
        found = from_json(form, parse(text))
        check_each_once(text, pretty(found))
        return found

    return _read(read, data, path)


def _read(read: Callable[[bytes], _R], data: bytes, path: Path) -> _R:
    try:
        return read(data)
    except ValueError as error:
        raise StoreError(f"json error on {path}: {error}") from None
    except SpecViolation as error:
        raise StoreError(f"json error on {path}: {error.message}") from None


def readable(document: _D, path: Path) -> bytes:
    """The bytes of a document that is about to be saved, read back first (rule 4). Raises `StoreError`; nothing is written then."""
    data = pretty(document)
    if len(data) > MAX_DOCUMENT:
        raise StoreError(f"{path} would be larger than {MAX_DOCUMENT} bytes; nothing was changed")
    try:
        document_of(data, path, type(document))
    except StoreError as error:
        raise StoreError(
            f"what was to be saved could not be read again, nothing was changed: {error.message}"
        ) from None
    return data


def _holds(path: Path, data: bytes, before: bytes | None) -> bool:
    """Whether a file holds this JSON, however it is written; if it is `before`, which was written the same way, it needs no reading."""
    try:
        found = read_file(path)
        return found == data or (found != before and parse(found) == parse(data))
    except (OSError, ValueError):
        return False
