"""Where waiting conversations and state live: bytes by key, with an end of life and a hold per key.

Rules:
1. In memory by default; in a private directory where several processes of one worker share them; in Redis where an address is told. The
   words of the existing worker for this, one for conversations and one for state, win; here both are in one place, so they may not differ.
2. A conversation is held while one of its turns runs, so that two messages at once never advance it twice.
3. Few messages wait for a conversation that is held, and not for ever: the others fail at once, so that one conversation never
   takes the threads of all.
4. What is kept can be read again: it may be as deep as values of flows are, and what stands around them, and holds no more values than are
   read. Who would keep more is told so, not whoever comes back to it.
5. Every store is bounded, and what leaves a full one is of whoever has most (`sessions/shares`). What is past its end is not there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import msgspec

from greentic.ground import variables
from greentic.ground.documents import Json, check_values, parse
from greentic.ground.errors import FlowFailure, InvalidArgument

MAX_ENTRIES = 100_000
MAX_BYTES = 256 << 20
MAX_VALUE = 4 << 20
"""Bytes of one conversation or one value of state."""
MAX_WAITING = 4
"""Messages that may wait for one held conversation."""
NAMELESS_WAITING = 256
"""The same where callers name nothing, so that the conversation is one of many people; a quarter of what a deployment may run."""
HOLD_SECONDS = 30.0
"""How long one waits."""
_AROUND = 16
"""Arrays and objects that may stand around a value of a flow where it is kept, and levels by which flows go deeper than documents."""
DROPPED = "greentic_stored_values_dropped"
"""The family that counts what leaves a full store."""
_KINDS = ("GREENTIC_RUNNER_SESSION_BACKEND", "GREENTIC_RUNNER_STATE_BACKEND")
_URL = "GREENTIC_RUNNER_REDIS_URL"


def redis_url(environ: Mapping[str, str]) -> str:
    """The address of Redis; empty for memory. Raises `InvalidArgument`."""
    url = variables.text(_URL, environ)
    said = {name: kind for name in _KINDS if (kind := variables.word(name, environ))}
    told = ", ".join(f"{name}=`{kind}`" for name, kind in said.items())
    if len(set(said.values())) > 1:
        raise InvalidArgument(f"{told}: conversations and state are kept in one place, expected one word for both")
    if "memory" in said.values():
        return ""
    if said and not url:
        raise InvalidArgument(f"{told}: expected {_URL} with the address, found none")
    return url


class ConversationBusy(FlowFailure):
    """A conversation takes no more messages for now. Nothing was done."""


class StoreUnavailable(FlowFailure):
    """The store does not answer for now."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the session store is unavailable: {cause}")


class HoldQueue:
    """Who waits for a held key in this process (rule 3)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}

    @contextmanager
    def waiting(self, key: str) -> Iterator[None]:
        """Be one of those who wait. Raises `ConversationBusy` if there are too many."""
        with self._lock:
            count = self._waiting.get(key, 0)
            if count >= MAX_WAITING:
                raise waiting_already(count)
            self._waiting[key] = count + 1
        try:
            yield
        finally:
            with self._lock:
                left = self._waiting[key] - 1
                if left:
                    self._waiting[key] = left
                else:
                    del self._waiting[key]


def waiting_already(count: int) -> ConversationBusy:
    return ConversationBusy(f"{count} messages of this conversation are waiting already")


def still_held() -> ConversationBusy:
    return ConversationBusy("another message of this conversation is still being answered")


class ValueStore(Protocol):
    """Bytes by key. Every method may raise `StoreUnavailable`."""

    @property
    def local(self) -> bool:
        """Whether reading and writing take no time worth speaking of."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes keep their values here, too."""
        ...

    def count(self, prefix: str) -> int:
        """How many values have a key that begins so. It looks at all keys, so it is asked seldom, and beside the event loop."""
        ...

    def get(self, key: str) -> bytes | None: ...

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        """Store a value, for `seconds` or for good."""
        ...

    def delete(self, key: str) -> bool:
        """Whether there was one."""
        ...

    def hold(self, key: str) -> AbstractContextManager[object]:
        """Keep others from holding the same key."""
        ...

    def hold_at_once(self, key: str) -> AbstractContextManager[object] | None:
        """The same without waiting: nothing if somebody else holds it, or if this store may make its caller wait."""
        ...


def kept_text(value: object) -> bytes:
    """The text of a value that is to be kept (rule 4). Raises `FlowFailure` for one that could not be read again."""
    try:
        text = msgspec.json.encode(value)
        check_values(text)
    except (RecursionError, OverflowError, ValueError, TypeError) as error:
        told = error if isinstance(error, ValueError) else type(error).__name__
        raise FlowFailure(f"a value of the flow cannot be kept: {told}") from None
    return text


def read_kept(text: bytes) -> Json:
    """What `kept_text` wrote. Raises `ValueError`."""
    return parse(text, inside=-_AROUND)


def check_size(value: bytes) -> None:
    """Raise `FlowFailure` for a value that is too large to be kept."""
    if len(value) > MAX_VALUE:
        raise FlowFailure(f"a conversation or value of {len(value)} bytes cannot be kept; at most {MAX_VALUE}")
