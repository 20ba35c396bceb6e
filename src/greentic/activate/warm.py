"""Would a worker load this revision? What `warm` asks, by doing it (formats: op 4)."""

from __future__ import annotations

from greentic.components.runtime import CompileReport, ComponentRuntime, RevisionComponents
from greentic.ground import variables
from greentic.pack.load import load_packs
from greentic.pack.located import LocatedPack
from greentic.pack.signature import read_signature_policy
from greentic.sessions.memory_store import MemoryStore
from greentic.sessions.stored_state import StoredState


def check_loadable(located: list[LocatedPack]) -> CompileReport:
    """Load the packs and compile their components, into the cache that workers of this user share.

    Raises the typed error of the first that does not load.
    """
    policy = read_signature_policy(
        variables.text("GREENTIC_PACK_SIGNATURES") or None, variables.text("GREENTIC_PACK_SIGNERS") or None
    )
    packs = tuple(load_packs(located, policy))
    runtime = ComponentRuntime(None, StoredState(MemoryStore()), lambda source, text: None)
    return RevisionComponents(packs, runtime).report
