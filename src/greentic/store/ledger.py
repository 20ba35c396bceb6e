"""Which idempotency keys were used, for what, with which result.

Rules:
1. A key belongs to a noun, a verb and the thing that the verb is about; the same key there with the same payload changes
   nothing and returns the recorded result, with another payload it is a `Conflict`.
2. Only successes are recorded: a refused command may be tried again under its key.
3. The newest `KEEP_ENTRIES` entries of an environment stay, as far as they have `KEEP_BYTES` together: a larger ledger could not be read.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from greentic.ground.clock import Clock, timestamp
from greentic.ground.documents import Document, Json, JsonObject, compact, from_json, parse, pretty, read_file, replace
from greentic.ground.errors import Conflict, SpecViolation, StoreError
from greentic.store.files import Files

LEDGER_SCHEMA = "greentic.idempotency-ledger.v1"
KEEP_ENTRIES, KEEP_BYTES = 4096, 16 << 20


class LedgerEntry(Document, frozen=True, kw_only=True):
    key: str
    noun: str
    verb: str
    scope: str
    fingerprint: str
    recorded_at: str
    result: dict[str, object]


class LedgerDocument(Document, frozen=True, kw_only=True):
    schema: str
    entries: list[LedgerEntry] = msgspec.field(default_factory=list)


def fingerprint(payload: Json) -> str:
    """SHA-256 over the payload in canonical form."""
    from hashlib import sha256  # as in `model/ids.py`

    return sha256(compact(payload, sort=True)).hexdigest()


class Ledger:
    """The ledger of one environment; used under the environment lock."""

    def __init__(self, path: Path, files: Files, clock: Clock) -> None:
        self._path, self._files, self._clock = path, files, clock

    def find(self, noun: str, verb: str, scope: str, key: str, print_: str) -> JsonObject | None:
        """The recorded result of the same command, or nothing. Raises `Conflict` for another payload (rule 1)."""
        for entry in reversed(self._load().entries):
            if (entry.noun, entry.verb, entry.scope, entry.key) == (noun, verb, scope, key):
                if entry.fingerprint != print_:
                    raise Conflict(
                        f"idempotency key `{key}` was already used for `{noun} {verb}` at {entry.recorded_at} "
                        "with a different payload",
                        hint="use a new key for a new change",
                    )
                return entry.result  # type: ignore[return-value]
        return None

    def record(self, noun: str, verb: str, scope: str, key: str, print_: str, result: JsonObject) -> None:
        document = self._load()
        entry = LedgerEntry(
            key=key, noun=noun, verb=verb, scope=scope, fingerprint=print_,
            recorded_at=timestamp(self._clock.now_ns()), result=dict(result),
        )  # fmt: skip
        kept = [*document.entries, entry][-KEEP_ENTRIES:]
        while len(data := pretty(replace(document, entries=kept))) > KEEP_BYTES and len(kept) > 1:
            kept = kept[len(kept) // 2 :]
        self._files.write(self._path, data)

    def _load(self) -> LedgerDocument:
        if not self._path.exists():
            return LedgerDocument(schema=LEDGER_SCHEMA)
        try:
            document = from_json(LedgerDocument, parse(read_file(self._path)))
        except (ValueError, SpecViolation) as error:
            raise StoreError(
                f"json error on {self._path}: {getattr(error, 'message', error)}",
                hint="restore the file, or delete it to forget which idempotency keys were used",
            ) from None
        return document
