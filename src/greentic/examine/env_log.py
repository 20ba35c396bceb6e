"""`op env log` and `op env changes`: what was done to an environment, and what differs between two generations of it.

Rules:
1. The log is read as it lies there; a chain that is broken is told with it (`env doctor` tells where).
2. A generation is that of the document, or the newest backup that has it. Backups that cannot be read are left out.
"""

from __future__ import annotations

import contextlib
from typing import Annotated

import msgspec

from greentic.ground.disk import io_error
from greentic.ground.documents import Json, JsonObject, json_object
from greentic.ground.errors import GreenticError, NotFound
from greentic.ground.reply import Reply
from greentic.history.compare import differences
from greentic.history.line_chain import breaks
from greentic.history.trail import entries, told
from greentic.model.delivery import generation_of
from greentic.model.environment import Environment
from greentic.model.ids import check_env_id
from greentic.operate.change import Context
from greentic.operate.payload import Payload
from greentic.store.environments import EnvironmentStore, read_document, read_generation

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Generation = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class EnvLogPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    last: Annotated[Count, msgspec.Meta(description="how many of the newest changes")] = 50


class LogLine(Reply, frozen=True, kw_only=True):
    """One change."""

    at: str
    who: str
    verb: str
    what: str
    """In words for people: names in the place of ids that the document knows."""
    target: JsonObject
    """The same as the log has it."""
    outcome: str
    before: int | None
    after: int | None


class EnvLog(Reply, frozen=True, kw_only=True):
    environment_id: str
    changes: list[LogLine]
    older: int
    """How many changes there are before these."""
    breaks: int
    """Places where the chain of the log is broken."""


class EnvChangesPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    from_generation: Annotated[
        Generation | None, msgspec.Meta(description="the older one; the newest backup without it")
    ] = None
    to_generation: Annotated[Generation | None, msgspec.Meta(description="the newer one; the document without it")] = (
        None
    )


class ChangeLine(Reply, frozen=True, kw_only=True):
    path: str
    before: Json
    after: Json


class EnvChanges(Reply, frozen=True, kw_only=True):
    environment_id: str
    from_generation: int
    to_generation: int
    differences: list[ChangeLine]


def log(context: Context, payload: EnvLogPayload) -> EnvLog:
    """The newest changes, newest last. Raises `NotFound` or `IoError`."""
    env_id = check_env_id(payload.environment_id)
    path = context.store.existing(env_id).audit
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise io_error(path, error) from error
    found, names = entries(lines), context.store.names(env_id)
    return EnvLog(
        environment_id=env_id,
        changes=[
            LogLine(
                at=e.at,
                who=e.who,
                verb=e.verb,
                what=told(e.target, names),
                target=e.target,
                outcome=e.outcome,
                before=e.before,
                after=e.after,
            )
            for e in found[-payload.last :]
        ],
        older=max(0, len(found) - payload.last),
        breaks=len(breaks(lines)),
    )


def changes(context: Context, payload: EnvChangesPayload) -> EnvChanges:
    """What differs between two generations (rule 2). Raises `NotFound`."""
    env_id = check_env_id(payload.environment_id)
    kept = _Kept(context.store, env_id)
    after = kept.now if payload.to_generation is None else kept.of(payload.to_generation)
    before = kept.newest_backup() if payload.from_generation is None else kept.of(payload.from_generation)
    return EnvChanges(
        environment_id=env_id,
        from_generation=generation_of(before),
        to_generation=generation_of(after),
        differences=[
            ChangeLine(path=d.path, before=d.before, after=d.after)
            for d in differences(json_object(before), json_object(after))
        ],
    )


class _Kept:
    """The document and its backups, newest first. A backup is read as a whole once it is the one; what cannot be read is left out."""

    def __init__(self, store: EnvironmentStore, env_id: str) -> None:
        self._env_id, self.now = env_id, store.load(env_id)
        self._backups = sorted(store.paths(env_id).backups.glob("environment.json.*.bak"), reverse=True)

    def newest_backup(self) -> Environment:
        for path in self._backups:
            with contextlib.suppress(GreenticError):
                return read_document(path, Environment)
        raise NotFound(
            f"environment `{self._env_id}` has no backup to compare with",
            hint="it was written once, or backups were pruned",
        )

    def of(self, generation: int) -> Environment:
        there = {generation_of(self.now)}
        if generation in there:
            return self.now
        for path in self._backups:
            with contextlib.suppress(GreenticError):
                there.add(found := read_generation(path))
                if found == generation:
                    return read_document(path, Environment)
        raise NotFound(
            f"generation {generation} of environment `{self._env_id}` is neither the document's nor that of a backup",
            hint=f"there are {', '.join(map(str, sorted(there)))}",
        )
