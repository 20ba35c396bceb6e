"""The audit log: what was intended before a change, what came of it after (formats: store 5).

Rules:
1. Append-only, one JSON object a line, on stable storage before the verb goes on.
2. An *intent* line stands before every change and carries the digest of the environment's documents at that moment; the
   *event* line after it has the same id. Readers of events alone skip intents by their schema.
3. An intent without an event means that its process died between. The next holder of the lock writes the missing event:
   documents unchanged means nothing happened, changed means that the change was committed.
4. If the intent cannot be written, nothing is changed. If the event cannot be written after a change, the verb fails with
   kind `audit`.
5. Lines go from the beginning only, by retention; the event of who cut the log tells how many, and the sha256 of the last one that went.
6. Each line carries the sha256 of the line before it (`history/line_chain.py` reads that back).
7. A line holds what the verb made of its payload, never the payload; a text in it that holds a secret is withheld.
"""

from __future__ import annotations

import contextlib
import math
import os
from datetime import UTC, datetime
from typing import Literal

import msgspec

from greentic.ground import variables
from greentic.ground.clock import Clock, Random, timestamp
from greentic.ground.disk import Disk, io_error
from greentic.ground.documents import MAX_BYTES, Json, JsonObject, compact, parse
from greentic.ground.errors import AuditError, GreenticError, IntentError
from greentic.ground.least_used import Item
from greentic.model.ids import LOCAL_ENV, digest_of_bytes, mint_ulid
from greentic.model.secret_text import object_without_secrets, without_secrets
from greentic.store.layout import EnvPaths

EVENT_SCHEMA = "greentic.audit.event.v1"
INTENT_SCHEMA = "greentic.audit.intent.v1"
PREVIOUS_LINE = "previous_line"
"""The member that carries the digest of the line before."""
_TAIL_BYTES, _LINE_BYTES = 1 << 20, MAX_BYTES
"""How far back an unfinished intent is looked for, as each is finished before the next is written; and for a line that is longer."""


class Change(msgspec.Struct, frozen=True):
    """What a verb is about to do, as the log tells it."""

    env_id: str
    noun: str
    verb: str
    target: JsonObject
    idempotency_key: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What came of it. `kind` and `message` belong to errors."""

    outcome: Literal["ok", "error"]
    kind: str | None = None
    message: str | None = None


class Generations(msgspec.Struct, frozen=True):
    previous: int | None = None
    new: int | None = None


NO_GENERATIONS = Generations()


def line_digest(line: bytes) -> str:
    """What the next line carries: the sha256 of a line without its end."""
    return digest_of_bytes(line)


def documents_digest(paths: EnvPaths) -> str:
    """One digest over the documents that verbs change."""
    from hashlib import sha256  # as in `model/ids.py`

    hasher = sha256()
    for path in (paths.environment, paths.trust_root, paths.runtime):
        data = path.read_bytes() if path.exists() else b""
        hasher.update(sha256(data).digest() if data else bytes(32))
    return hasher.hexdigest()


class AuditLog:
    """The log of one environment."""

    def __init__(self, paths: EnvPaths, disk: Disk, clock: Clock, random: Random) -> None:
        self._paths, self._disk, self._clock, self._random = paths, disk, clock, random
        self._end: tuple[int, bytes | None] | None = None
        """How long the log was when this program last looked, and its last line then; asked of the file again where it is not so long."""

    def intend(self, change: Change) -> str:
        """Write the intent and return its id. Raises `AuditError` (rule 4)."""
        event_id = mint_ulid(self._clock, self._random)
        line = self._base(INTENT_SCHEMA, event_id, change)
        line["documents"] = documents_digest(self._paths)
        try:
            self._append(line)
        except OSError as error:
            raise IntentError(
                f"the intent of {change.noun}.{change.verb} on env `{change.env_id}` could not be written "
                f"({error.strerror}); nothing was changed",
                hint=_again(self._paths, error),
            ) from error
        return event_id

    def record(
        self,
        event_id: str,
        change: Change,
        outcome: Outcome,
        generations: Generations = NO_GENERATIONS,
        *,
        recovered: bool = False,
    ) -> None:
        """Write the event. Raises `AuditError`."""
        line = self._base(EVENT_SCHEMA, event_id, change)
        if generations.previous is not None:
            line["previous_generation"] = generations.previous
        if generations.new is not None:
            line["new_generation"] = generations.new
        local = change.env_id == LOCAL_ENV
        line["authorization"] = {
            "decision": "allow",
            "policy": "local-only" if local else "local-owner",
            "reason": (
                f"env `{LOCAL_ENV}` is the local env"
                if local
                else f"named env `{change.env_id}` authorized by local store ownership (single-operator; shared-store "
                "RBAC is enforced on the remote path)"
            ),
        }
        result: JsonObject = {"outcome": outcome.outcome}
        if outcome.kind is not None:
            result["kind"] = outcome.kind
        if outcome.message is not None:
            result["message"] = without_secrets(outcome.message)
        line["result"] = result
        if recovered:
            line["recovered"] = True
        try:
            self._append(line)
        except OSError as error:
            raise AuditError(
                f"event {event_id} of {change.noun}.{change.verb} on env `{change.env_id}`: {error.strerror}",
                hint=f"do not run it again: it is done; make `{self._paths.audit}` writable, and the next command writes the event",
            ) from error

    def repair(self) -> str | None:
        """Write the event that a killed process owes, if any (rule 3). Only under the environment lock."""
        try:
            intent = self._unfinished()
        except OSError as error:
            raise IntentError(
                f"the log `{self._paths.audit}` cannot be read ({error.strerror}); nothing was changed",
                hint="make it a readable and writable file, and run the command again",
            ) from error
        if intent is None:
            return None
        change = Change(
            env_id=str(intent.get("env_id")),
            noun=str(intent.get("noun")),
            verb=str(intent.get("verb")),
            target=_object(intent.get("target")),
            idempotency_key=_text(intent.get("idempotency_key")),
        )
        event_id = str(intent.get("event_id"))
        if intent.get("documents") == documents_digest(self._paths):
            outcome = Outcome("error", "interrupted", "the process ended before it changed anything")
        else:
            outcome = Outcome("ok")
        try:
            self.record(event_id, change, outcome, recovered=True)
        except AuditError as error:
            # What is told is about the command that runs now, and that one has not begun.
            raise IntentError(
                f"the event that an earlier {change.noun}.{change.verb} owes could not be written "
                f"({error.message}); nothing was changed",
                hint=_again(self._paths, error.__cause__),
            ) from error.__cause__
        return event_id

    def kept(self) -> list[Item]:
        """Every line, oldest first; one without a time is as old as the one before it. Raises `OSError`."""
        found: list[Item] = []
        for number, raw in enumerate(self._lines(), 1):
            told = found[-1].used if found else math.inf
            with contextlib.suppress(ValueError, TypeError, KeyError):
                line = parse(raw)
                told = datetime.fromisoformat(str(line["ts"])[:19]).replace(tzinfo=UTC).timestamp()  # type: ignore[index,call-overload]
            found.append(Item(str(number), len(raw), told))
        return found

    def last_of_first(self, lines: int) -> str:
        """The sha256 of the last of so many first lines, without its end (rule 5). Raises `OSError`."""
        return digest_of_bytes(self._lines()[lines - 1].rstrip(b"\n")).removeprefix("sha256:")

    def without_first(self, lines: int) -> bytes:
        """The log without so many first lines. Raises `OSError`."""
        return b"".join(self._lines()[lines:])

    def _lines(self) -> list[bytes]:
        return self._paths.audit.read_bytes().splitlines(keepends=True) if self._paths.audit.exists() else []

    def _unfinished(self) -> JsonObject | None:
        finished: set[str] = set()
        for raw in reversed(self._tail()):
            try:
                line = parse(raw)
            except ValueError:
                continue  # cut short by a kill
            if not isinstance(line, dict) or not isinstance(line.get("event_id"), str):
                continue
            if line.get("schema") == INTENT_SCHEMA:
                return None if str(line["event_id"]) in finished else line
            finished.add(str(line["event_id"]))
        return None

    def _base(self, schema: str, event_id: str, change: Change) -> JsonObject:
        actor: JsonObject = {"kind": "local-user"}
        user = variables.text("USER") or variables.text("USERNAME")
        if user:
            actor["user"] = user
        if hasattr(os, "getuid"):
            actor["uid"] = os.getuid()
        line: JsonObject = {
            "schema": schema,
            "event_id": event_id,
            "ts": timestamp(self._clock.now_ns()),
            "actor": actor,
            "env_id": change.env_id,
            "noun": change.noun,
            "verb": change.verb,
            "target": object_without_secrets(change.target),
        }
        if change.idempotency_key is not None:
            line["idempotency_key"] = change.idempotency_key
        return line

    def _append(self, line: JsonObject) -> None:
        self._disk.make_directory(self._paths.audit.parent)
        size, before = self._last_line()
        chained = compact(line if before is None else line | {PREVIOUS_LINE: line_digest(before)})
        self._disk.append(self._paths.audit, chained + b"\n")
        self._end = size + len(chained) + 1, chained

    def _last_line(self) -> tuple[int, bytes | None]:
        """How long the log is, and its last line without its end, also one that was cut short.

        Nothing for no line, or one beyond all measure.
        """
        path = self._paths.audit
        if self._end is None or self._end[0] != (path.stat().st_size if path.exists() else 0):
            self._tail()
        assert self._end is not None
        return self._end

    def _tail(self) -> list[bytes]:
        """The last lines, without their ends; the first one may be cut where that is not the whole log. Raises `OSError`."""
        lines, size = list[bytes](), 0
        if self._paths.audit.exists():
            with self._paths.audit.open("rb") as file:
                size, back = file.seek(0, os.SEEK_END), _TAIL_BYTES
                while True:
                    file.seek(max(0, size - back))
                    lines = file.read().splitlines()
                    if len(lines) > 2 or back >= min(size, _LINE_BYTES):  # two whole ones, an intent and its event
                        break
                    back = min(back * 4, _LINE_BYTES)
        self._end = size, lines[-1] if lines and (len(lines) > 1 or size <= back) else None
        return lines


def _again(paths: EnvPaths, error: BaseException | None) -> str:
    """What to do about a log that cannot be written, before anything was changed."""
    told = io_error(paths.audit, error).hint if isinstance(error, OSError) else None
    return told or f"make `{paths.audit}` writable and run the command again"


def outcome_of(error: GreenticError | None) -> Outcome:
    return Outcome("ok") if error is None else Outcome("error", error.kind, str(error))


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
