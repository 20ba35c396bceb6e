"""Would a worker load this revision? What `warm` asks, by doing it (formats: op 4); and what authors ask of a pack before there is one."""

from __future__ import annotations

from typing import NamedTuple

from greentic.components.runtime import CompileReport, ComponentRuntime, RevisionComponents
from greentic.flow.lint import Where, nowhere
from greentic.ground import variables
from greentic.ground.extras import MissingPackage
from greentic.pack.load import LoadedPack, load_packs
from greentic.pack.located import LocatedPack
from greentic.pack.named_cards import with_cards
from greentic.pack.signature import read_signature_policy
from greentic.sessions.memory_store import MemoryStore
from greentic.sessions.stored_state import StoredState


class Loadable(NamedTuple):
    """What loading a revision found."""

    report: CompileReport
    warnings: list[str]
    """By pack: what a worker would warn about."""


def check_loadable(located: list[LocatedPack]) -> Loadable:
    """Load the packs and compile their components, into the cache that workers of this user share.

    Raises the typed error of the first that does not load.
    """
    policy = read_signature_policy(
        variables.text("GREENTIC_PACK_SIGNATURES") or None, variables.text("GREENTIC_PACK_SIGNERS") or None
    )
    packs = tuple(map(with_cards, load_packs(located, policy)))
    components = _components(packs)
    return Loadable(components.report, warnings_of(components.told(packs)))


def looked_into(packs: tuple[LoadedPack, ...], where: Where = nowhere) -> tuple[LoadedPack, ...]:
    """Packs of one revision, with what can never work of their components and cards among their warnings. Raises `MalformedArtifact`.

    `where` tells in which source their flows stand.
    Where the engine is not installed, as with an author who runs nothing, that is the warning.
    """
    packs = tuple(with_cards(pack, where) for pack in packs)
    try:
        return _components(packs).told(packs)
    except MissingPackage as error:
        told = f"its components were not looked into: {error.message}"
        return tuple(p._replace(warnings=(*p.warnings, told)) if p.components else p for p in packs)


def warnings_of(packs: tuple[LoadedPack, ...]) -> list[str]:
    """The warnings about some packs, each with the pack that it is about."""
    return [f"{pack.pack_id}: {text}" for pack in packs for text in pack.warnings]


def _components(packs: tuple[LoadedPack, ...]) -> RevisionComponents:
    return RevisionComponents(packs, ComponentRuntime(None, StoredState(MemoryStore()), lambda source, text: None))
