"""The console's answers: the page, what it asks for, and what it asks to be done.

Rules:
1. Whatever comes passes the door first (`door.py`); without it not even the page is shown.
2. The environment's document is read anew for each question and is the one truth; an answer that would be the same is 304.
3. What waits (disk, workers) is done beside the loop. Errors are told with their kind, as the verbs tell them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

import msgspec

from greentic.console.chain import documented, proof_head, proven, told
from greentic.console.changes import Asked, Changes
from greentic.console.chat import ChatMessage, Chats
from greentic.console.door import Door
from greentic.console.page_files import SAFE, page_files
from greentic.console.picture import picture
from greentic.console.pictures import fetch_picture
from greentic.console.timeline import timeline
from greentic.console.workers import LiveStatus, Watched, live_row
from greentic.distribute.preconditions import is_known
from greentic.examine.env_verify import known_keys
from greentic.ground.beside import beside
from greentic.ground.disk import of_the_machine
from greentic.ground.documents import Json, JsonObject, decode, read_file
from greentic.ground.errors import FetchError, GreenticError, InvalidArgument, NotFound
from greentic.httpd.front import Answer
from greentic.httpd.http1 import JSON, TEXT, Headers, Incoming
from greentic.model.delivery import delivery_of
from greentic.model.environment import Environment, Revision, document_digest
from greentic.model.ids import check_ulid, is_env_id
from greentic.store.environments import MAX_DOCUMENT, EnvironmentStore
from greentic.telemetry.log import traceback_of
from greentic.trust.proof_verdict import Known, judge

T = TypeVar("T")

STRANGER = b"This console opens with the address that `gtc console` printed, which holds a token.\n"
FOREIGN = b"This console answers its own page at its own address, and nobody else.\n"
_STATUS = {"not-found": 404, "conflict": 409, "invalid-argument": 400, "fetch": 502}


class ConsoleApp:
    """Answers the requests of one console."""

    def __init__(self, store: EnvironmentStore, env_id: str, watched: Watched, door: Door, changes: Changes) -> None:
        self._store, self._env_id, self._watched, self._door = store, env_id, watched, door
        self._changes = changes
        self._files = page_files()
        self._conversations = Chats(store.clock)

    def __call__(self, incoming: Incoming, peer: str) -> Answer | Coroutine[object, object, Answer]:
        """Answer a request, at once where that is possible."""
        head = incoming.head
        verdict = self._door.judge(head.method, head.fields)
        if verdict == "foreign":
            return _dressed(403, FOREIGN, [TEXT])
        if head.path.startswith("/open/") and head.method == "GET":
            if not self._door.opens(head.path.removeprefix("/open/")):
                return _dressed(401, STRANGER, [TEXT])
            return _dressed(303, b"", [(b"location", b"/"), (b"set-cookie", self._door.set_cookie())])
        if verdict == "stranger":
            return _dressed(401, STRANGER, [TEXT])
        file = self._files.get(head.path)
        if file is not None and head.method in ("GET", "HEAD"):
            return _dressed(200, file.data, [(b"content-type", file.kind)])
        return self._guarded(incoming)

    async def _guarded(self, incoming: Incoming) -> Answer:
        try:
            return await self._answered(incoming)
        except (GreenticError, OSError, MemoryError) as found:
            error = found if isinstance(found, GreenticError) else of_the_machine(found)
            told: JsonObject = {"kind": error.kind, "message": error.message, "hint": error.hint}
            return _json(_STATUS.get(error.kind, 500), {"error": told})
        except Exception as error:  # noqa: BLE001  the page tells that something is wrong here
            return _json(500, {"error": {"kind": "internal", "message": traceback_of(error), "hint": None}})

    async def _answered(self, incoming: Incoming) -> Answer:
        head = incoming.head
        words = head.path.strip("/").split("/")
        if words[0] == "api" and head.method == "GET" and len(words) >= 2:
            asked: dict[tuple[str, int], Callable[..., Awaitable[Answer]]] = {
                ("environments", 2): self._environments,
                ("environment", 3): lambda env_id: self._environment(env_id, head.fields.get(b"if-none-match", b"")),
                ("live", 3): self._live,
                ("history", 3): self._history,
                ("proof", 4): self._proof,
            }
            found = asked.get((words[1], len(words)))
            if found is not None:
                return await found(*words[2:])
        if words[0] == "api" and head.method == "POST" and len(words) == 2 and incoming.body is not None:
            if words[1] == "say":
                return await self._say(_read(incoming.body, ChatMessage))
            if words[1] == "change":
                return _json(200, self._changes.begin(_read(incoming.body, Asked)).told())
            if words[1] == "picture":
                kind, data = await beside(fetch_picture, _read(incoming.body, dict[str, str]).get("url", ""))
                return _dressed(200, data, [(b"content-type", kind)])
        raise NotFound(f"there is no {head.method} {head.path} here")

    # -- what is ----------------------------------------------------------------------------------------------------

    async def _environments(self) -> Answer:
        rows: list[Json] = [*await beside(self._names)]
        chosen: JsonObject = {"chosen": self._env_id, "workers": [*self._watched.addresses]}
        return _json(200, {"environments": rows, "allow_changes": self._changes.allowed, **chosen})

    def _names(self) -> list[str]:
        """The environments of the store by name; whether one loads is seen when it is looked at, for each costs its whole document."""
        found = self._store.root.glob("*/environment.json")
        return sorted(path.parent.name for path in found if is_env_id(path.parent.name))

    async def _environment(self, env_id: str, known: bytes) -> Answer:
        digest = await beside(self._digest, env_id)
        if known and is_known(known.decode("latin-1"), f'"{digest}"'):
            return _dressed(304, b"", [])
        env = await beside(self._store.load, env_id)
        return _json(200, picture(env, digest), [(b"etag", f'"{digest}"'.encode())])

    def _digest(self, env_id: str) -> str:
        return document_digest(read_file(self._store.existing(env_id).environment, MAX_DOCUMENT))

    async def _live(self, env_id: str) -> Answer:
        found = await self._statuses() if env_id == self._env_id else []
        return _json(200, {"workers": [live_row(a, f) for a, f in found], "changes": self._changes.told()})

    async def _statuses(self) -> list[tuple[str, LiveStatus | FetchError]]:
        addresses = self._watched.addresses
        found = await asyncio.gather(*(_or_error(beside(self._watched.status, a)) for a in addresses))
        return list(zip(addresses, found, strict=True))

    async def _history(self, env_id: str) -> Answer:
        return _json(200, await beside(timeline, self._store.existing(env_id).audit))

    async def _proof(self, env_id: str, revision_id: str) -> Answer:
        """The chain of a revision: as each worker proves it, else as document and status have it."""
        env = await beside(self._store.load, env_id)
        revision = env.revision(check_ulid(revision_id, field="revision_id"))
        if revision is None:
            raise NotFound(f"revision `{revision_id}` in env `{env_id}`")
        addresses = self._watched.addresses if env_id == self._env_id else []
        chains = await asyncio.gather(*(self._chain(env, revision, address) for address in addresses))
        split, deployment = env.split(revision.deployment_id), env.deployment(revision.deployment_id)
        steps = documented(revision, split, deployment, delivery_of(env))
        return _json(200, {"chains": [*chains], "document": [*steps], "revision_id": revision.revision_id})

    async def _chain(self, env: Environment, revision: Revision, address: str) -> JsonObject:
        proof = await _or_error(beside(self._watched.proof, address))
        if isinstance(proof, FetchError):
            return _unproven(address, proof)
        if proof is not None:
            verdict = await beside(judge, env, proof.proof, Known(known_keys(env), {}))
            found = proven(address, proof, verdict, revision.revision_id)
            if found is not None:
                return found
            text = "this worker proves what it serves, and this revision is not among it"
            return proof_head(address, proof) | {"error": text, "steps": []}
        status = await _or_error(beside(self._watched.status, address))
        if isinstance(status, FetchError):
            return _unproven(address, status)
        split, deployment = env.split(revision.deployment_id), env.deployment(revision.deployment_id)
        return told(address, status, revision, split, deployment, delivery_of(env))

    # -- what is done -----------------------------------------------------------------------------------------------

    async def _say(self, message: ChatMessage) -> Answer:
        """Pass a message on to a worker."""
        if not self._watched.addresses:
            raise InvalidArgument("there is no worker to talk to", hint=f"gtc console {self._env_id} --at URL")
        if message.revision_id is not None:
            check_ulid(message.revision_id, field="revision_id")
        env = await beside(self._store.load, self._env_id)
        return _json(200, await beside(self._conversations.say, env, self._watched.addresses[0], message))


async def _or_error(question: Awaitable[T]) -> T | FetchError:
    try:
        return await question
    except FetchError as error:
        return error


def _read(body: bytes, form: type[T]) -> T:
    try:
        return decode(body, form)
    except ValueError as error:
        raise InvalidArgument(f"the request does not say what it should: {error}") from None


def _json(code: int, value: JsonObject, headers: Headers | None = None) -> Answer:
    return _dressed(code, msgspec.json.encode(value), [JSON, *(headers or [])])


def _dressed(code: int, body: bytes, headers: Headers) -> Answer:
    return Answer(code, body, [*headers, *SAFE])


def _unproven(address: str, error: FetchError) -> JsonObject:
    return {"at": address, "error": error.message, "steps": [], "signed": False}
