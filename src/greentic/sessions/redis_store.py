"""Conversations and state in Redis, for workers that share them (formats: worker 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from greentic.ground.errors import BootError
from greentic.ground.extras import need
from greentic.net.certificates import check_file, check_instead, not_asked
from greentic.sessions.value_store import HoldQueue, StoreUnavailable, check_size, still_held

if TYPE_CHECKING:
    from redis import Redis

T = TypeVar("T")

TIMEOUT_SECONDS = 5.0
HOLD_SECONDS = 60
"""How long a conversation stays held when its worker dies."""
WAIT_SECONDS = 30
"""How long a turn waits for another one of the same conversation."""


_HELD = b":held"
_SCANNED = 1000
"""Keys that Redis looks at for one question."""


class RedisStore:
    """Values in one Redis."""

    local, shared = False, True

    def __init__(self, url: str) -> None:
        """Connects, so that a wrong address is told at boot. Raises `BootError`."""
        need("redis", "keeping conversations in Redis")
        import redis

        self._errors = (redis.RedisError, OSError)
        self._queue = HoldQueue()
        try:
            _check_database(url)
            self._redis: Redis = redis.Redis.from_url(
                url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, health_check_interval=30
            )
            form = self._redis.get_encoder()
            if form.decode_responses or form.encoding != "utf-8":  # the address has the last word about what it names
                raise BootError(
                    "GREENTIC_RUNNER_REDIS_URL sets `decode_responses` or `encoding`, but what is kept are bytes",
                    hint="leave both out of the address",
                )
            if issubclass(self._redis.connection_pool.connection_class, redis.SSLConnection):
                options = self._redis.get_connection_kwargs()
                options.setdefault("ssl_exclude_verify_flags", not_asked())
                _check_files(options)
            self._redis.ping()
        except (*self._errors, ValueError, TypeError) as error:
            told = f"an option is none of its connections: {error}" if isinstance(error, TypeError) else str(error)
            raise BootError(
                f"the Redis of GREENTIC_RUNNER_REDIS_URL does not answer: {_without_password(told, url)}",
                hint="check the address (redis://host:6379/0), or unset the variable to keep conversations in memory",
            ) from None

    def get(self, key: str) -> bytes | None:
        value = self._asked(lambda: self._redis.get(key))
        return value if isinstance(value, bytes) else None

    def count(self, prefix: str) -> int:
        pattern = "".join(f"\\{c}" if c in "\\*?[]" else c for c in prefix) + "*"
        # A key may be told twice while Redis grows or shrinks its table, and holds are keys as well.
        found = self._asked(lambda: set(self._redis.scan_iter(match=pattern, count=_SCANNED)))
        return sum(not key.endswith(_HELD) for key in found)

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        check_size(value)
        self._asked(lambda: self._redis.set(key, value, ex=seconds))

    def delete(self, key: str) -> bool:
        return bool(self._asked(lambda: self._redis.delete(key)))

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        lock = self._redis.lock(
            f"{key}{_HELD.decode()}", timeout=HOLD_SECONDS, blocking_timeout=WAIT_SECONDS, thread_local=False
        )
        with self._queue.waiting(key):
            if not self._asked(lock.acquire):
                raise still_held()
        try:
            yield
        finally:
            # It may have run out, or Redis may be gone; nobody is held up for longer than HOLD_SECONDS.
            with suppress(*self._errors):
                lock.release()

    def hold_at_once(self, key: str) -> None:
        """Never: Redis is asked over a network."""

    def _asked(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except self._errors as error:
            raise StoreUnavailable(type(error).__name__) from None


def _check_database(url: str) -> None:
    """Raise `BootError` for a database that is no number: the library takes 0 then, which may be another one's."""
    parts = urlsplit(url)
    named = parts.path.strip("/")
    if parts.scheme in ("redis", "rediss") and named and not (named.isascii() and named.isdigit()):
        raise BootError(
            "what stands behind the host in GREENTIC_RUNNER_REDIS_URL is no number of a database",  # it may be a password
            hint="expected redis://host:6379/0",
        )


def _check_files(options: Mapping[str, object]) -> None:
    """Raise `OSError` for what the library would open and wait for: with each connection it opens what the address names by itself."""
    named = {name: options[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in options}
    for name, path in named.items():
        check_file(Path(str(path)), name)
    check_instead()


def _without_password(text: str, url: str) -> str:
    userinfo = url.partition("://")[2].rpartition("@")[0]
    return text.replace(userinfo, "…") if userinfo else text
