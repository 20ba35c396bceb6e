"""What turns need beside their revision: where conversations wait and where state lives.

Rules:
1. In Redis where one is told, in a directory where the processes of one worker share it, else in memory.
2. Stores of our own are bounded, so conversations and state have one each: many conversations of strangers never push out what
   components keep.
"""

from __future__ import annotations

from pathlib import Path

from greentic.activate.turn import TurnServices
from greentic.ground.clock import Clock, Random
from greentic.sessions.conversation import Conversations
from greentic.sessions.directory_store import DirectoryStore
from greentic.sessions.memory_store import MemoryStore
from greentic.sessions.stored_state import StoredState
from greentic.sessions.value_store import ValueStore
from greentic.telemetry.log import OperatorLog
from greentic.worker.settings import SessionSettings


def turn_services(
    env_id: str, settings: SessionSettings, log: OperatorLog, clock: Clock, random: Random
) -> TurnServices:
    """The services of a worker that serves one environment. Raises `BootError` for a Redis address that makes no sense."""
    values, kept = value_stores(settings)
    conversations = Conversations(values, settings.namespace or f"greentic:session:{env_id}", settings.wait_seconds)
    state = StoredState(kept, f"greentic:state:{env_id}")
    return TurnServices(env_id, conversations, state, clock, random, lambda text: log.warn("turn", text))


def value_stores(settings: SessionSettings) -> tuple[ValueStore, ValueStore]:
    """For conversations and for state (rule 1)."""
    if settings.redis_url:
        from greentic.sessions.redis_store import RedisStore

        store = RedisStore(settings.redis_url)
        return store, store
    if settings.shared_directory is not None:
        shared = Path(settings.shared_directory)
        return DirectoryStore(shared / "conversations"), DirectoryStore(shared / "state")
    return MemoryStore(), MemoryStore()
