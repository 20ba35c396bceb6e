"""Would a worker load this revision? What `warm` asks, by doing it (spec: env-store-and-op 4.6)."""

from __future__ import annotations

import os

from greentic.activate.components import CompileReport, ComponentRuntime, RevisionComponents
from greentic.activate.load import load_packs
from greentic.activate.state import StoredState
from greentic.activate.value_store import MemoryStore
from greentic.artifact.pack_signature import read_signature_policy
from greentic.store.revisions import LocatedPack


def check_loadable(located: list[LocatedPack]) -> CompileReport:
    """Load the packs and compile their components, into the cache that workers of this user share.

    Raises the typed error of the first that does not load.
    """
    policy = read_signature_policy(os.environ.get("GREENTIC_PACK_SIGNATURES"), os.environ.get("GREENTIC_PACK_SIGNERS"))
    packs = tuple(load_packs(located, policy))
    runtime = ComponentRuntime(None, StoredState(MemoryStore()), lambda source, text: None)
    return RevisionComponents(packs, runtime).report
